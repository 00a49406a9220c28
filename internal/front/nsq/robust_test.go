package nsq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
)

// scripted is a connection whose client has said everything already; reads
// come in pieces of the given sizes.
type scripted struct {
	net.Conn // nil: what is not overridden must not be called
	in       []byte
	piece    int

	mu  sync.Mutex
	out bytes.Buffer
}

func (s *scripted) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), s.piece)], s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *scripted) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(b)
}

func (s *scripted) Close() error                     { return nil }
func (s *scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

// FuzzConnection gives a connection arbitrary bytes in pieces. It must end,
// with whole frames only, at most one error frame that closes and nothing
// behind it, and leave nothing charged.
func FuzzConnection(f *testing.F) {
	f.Add([]byte("PUB a\n"+sized("x")+"MPUB a id=1\n"+sized(multi("x", "y"))+"SUB a c\nRDY 1\nFIN 0123456789abcdef\n"), uint16(7))
	f.Add([]byte("IDENTIFY\n"+sized(`{"feature_negotiation":true}`)+"DPUB a 5 key=x\n"+sized("x")+"CLS\n"), uint16(1))
	f.Add([]byte("IDENTIFY\n"+sized(`{"output_buffer_size":-1}`)+"SUB a c\nCLS\nREQ 0123456789abcdef 1\nTOUCH 0123456789abcdef\nAUTH\n\n"), uint16(100))
	f.Add([]byte("MPUB a\n\x7f\xff\xff\xff"), uint16(3))
	f.Add([]byte(strings.Repeat("PUB a b c d e f g h i j k l m n o p q r s t u v w\n"+sized("x"), 50)), uint16(4096))
	b := newQuietBroker()
	f.Fuzz(func(t *testing.T, script []byte, piece uint16) {
		front := New(b, Options{MaxBufferedBytes: 8 << 20, PublishPatience: time.Millisecond})
		nc := &scripted{in: append([]byte("  V2"), script...), piece: int(piece) + 1}
		c := newConn(front, nc)
		done := make(chan struct{})
		go func() { defer close(done); c.run() }()
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatal("the connection does not end")
		}
		if n := front.budget.used.Load(); n != 0 {
			t.Errorf("%d bytes stay charged", n)
		}
		checkFrames(t, nc.out.Bytes())
	})
}

// checkFrames wants whole frames, and nothing behind an error that closes.
func checkFrames(t *testing.T, b []byte) {
	t.Helper()
	last := ""
	for len(b) > 0 {
		if last != "" {
			t.Fatalf("a frame follows %q", last)
		}
		if len(b) < 8 || len(b) < int(binary.BigEndian.Uint32(b))+4 {
			t.Fatalf("half a frame: %q", b)
		}
		size := int(binary.BigEndian.Uint32(b))
		kind, data := binary.BigEndian.Uint32(b[4:]), string(b[8:4+size])
		b = b[4+size:]
		switch {
		case kind > frameMessage:
			t.Fatalf("frame type %d", kind)
		case kind == frameError && !strings.Contains(data, "ID not in flight"):
			last = data
		}
	}
}

// newQuietBroker answers every publish at once and keeps nothing.
func newQuietBroker() *quietBroker { return &quietBroker{fakeBroker: newFakeBroker()} }

type quietBroker struct{ *fakeBroker }

func (b *quietBroker) Enqueue(topic string, msgs []partition.Message, done partition.Completion) error {
	return b.Publish(topic, msgs, done)
}

func (b *quietBroker) Publish(_ string, msgs []partition.Message, done partition.Completion) error {
	for i := range msgs {
		if len(msgs[i].Body) == 0 {
			panic("empty message")
		}
	}
	done.Published(0, nil)
	return nil
}

// FuzzSplitWords compares the splitting of lines with the plain way.
func FuzzSplitWords(f *testing.F) {
	f.Add([]byte("PUB topic key=a"))
	f.Add([]byte("  a "))
	f.Fuzz(func(t *testing.T, line []byte) {
		want := bytes.Split(line, []byte(" "))
		got := splitWords(nil, line)
		if len(want) > wordsMax {
			want = want[:wordsMax]
		}
		if len(got) != len(want) {
			t.Fatalf("%d words, want %d", len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("word %d is %q, want %q", i, got[i], want[i])
			}
		}
	})
}

// TestInput reads lines and bodies in pieces of every size and compares them
// with what was sent, while the buffer grows and shrinks.
func TestInput(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var sent [][]byte
		var stream []byte
		for range 50 {
			b := bytes.Repeat([]byte{byte('a' + rnd.IntN(26))}, rnd.IntN(1<<rnd.IntN(15)))
			sent = append(sent, b)
			stream = append(stream, b...)
			if len(b)%2 == 0 {
				stream = append(stream, '\n')
			}
		}
		waits := 0
		in := input{src: &scripted{in: stream, piece: 1 + rnd.IntN(1<<rnd.IntN(17))}, wait: func() error { waits++; return nil }}
		for i, want := range sent {
			var got []byte
			var err error
			switch {
			case len(want)%2 == 0:
				got, err = in.line()
			case rnd.IntN(2) == 0:
				if err = in.need(len(want)); err == nil {
					got = in.next(len(want))
				}
			default:
				got = make([]byte, len(want))
				err = in.readFull(got)
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("piece %d of %d bytes: got %d bytes, %v", i, len(want), len(got), err)
			}
			if len(in.buf) > inputBytesMax {
				t.Fatalf("buffer of %d bytes", len(in.buf))
			}
		}
		if _, err := in.line(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
}

// TestInputShrinks: a connection that was busy once does not keep its buffer.
func TestInputShrinks(t *testing.T) {
	pr, pw := net.Pipe()
	defer pr.Close()
	in := input{src: pr, wait: func() error { return nil }}
	go func() {
		pw.Write(bytes.Repeat([]byte("x"), 1<<20))
		pw.Write([]byte("\n"))
		for range 2 * inputCalmReads {
			pw.Write([]byte("NOP\n"))
		}
		pw.Close()
	}()
	if err := in.readFull(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	for n := 1<<20 - 1000; n > 0; n -= min(n, 1000) {
		if err := in.need(min(n, 1000)); err != nil {
			t.Fatal(err)
		}
		in.next(min(n, 1000))
	}
	if len(in.buf) != inputBytesMax {
		t.Errorf("buffer of %d bytes while busy", len(in.buf))
	}
	for {
		if _, err := in.line(); err != nil {
			break
		}
	}
	if len(in.buf) != inputBytesMin {
		t.Errorf("buffer of %d bytes when calm", len(in.buf))
	}
}

// TestParseUint holds nsqd's reading of numbers, but for its overflow.
func TestParseUint(t *testing.T) {
	for s, want := range map[string]uint64{"": 0, "0": 0, "007": 7, "18446744073709551615": 1<<64 - 1, "18446744073709551616": 1<<64 - 1, "99999999999999999999999": 1<<64 - 1} {
		if got, ok := parseUint([]byte(s)); got != want || !ok {
			t.Errorf("%q: %d, %v", s, got, ok)
		}
	}
	for _, s := range []string{"-1", "+1", "1 ", "0x1", "1.5", "１"} {
		if _, ok := parseUint([]byte(s)); ok {
			t.Errorf("%q is a number", s)
		}
	}
}

// TestLyingLengths: a thousand connections that announce much and send little
// cost little.
func TestLyingLengths(t *testing.T) {
	r := start(t, newFakeBroker(), Options{})
	before := heap()
	for i := range 500 {
		p := r.dial()
		switch i % 4 {
		case 0:
			p.send("PUB a\n\x00\x10\x00\x00abc") // 1 MiB
		case 1:
			p.send("MPUB a\n\x00\x50\x00\x00\x00\x0f\x00\x00\x00\x00\x00\x01a") // 5 MiB, a million messages
		case 2:
			p.send("IDENTIFY\n\x00\x50\x00\x00{")
		case 3:
			p.send(strings.Repeat("x", 15000)) // no newline
		}
	}
	eventually(t, "all connections are read", func() bool { return r.Snapshot().Connections == 500 })
	time.Sleep(50 * time.Millisecond) // what they sent is read; there is nothing to wait for
	if used := heap() - before; used > 100<<20 {
		t.Errorf("%d MiB of heap", used>>20)
	}
	if m := r.Snapshot(); m.BufferedBytes > m.BufferedBytesMax {
		t.Errorf("%d bytes are charged of %d", m.BufferedBytes, m.BufferedBytesMax)
	}
}

func heap() int64 {
	runtime.GC()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	return int64(ms.HeapInuse + ms.StackInuse)
}

// TestPublishersAreHeldBack: while the broker does not answer, a connection
// takes in a bounded amount, and the rest waits in the client's socket.
func TestPublishersAreHeldBack(t *testing.T) {
	b := newFakeBroker()
	b.hold = make(chan struct{})
	r := start(t, b, Options{MaxBufferedBytes: 16 << 20, PublishPatience: patience})
	const conns, each = 4, 40
	body := strings.Repeat("x", 1<<20)
	var done sync.WaitGroup
	for range conns {
		p := r.dial()
		done.Go(func() {
			for range each {
				p.SetWriteDeadline(time.Now().Add(patience))
				if _, err := io.WriteString(p, "PUB a\n"+sized(body)); err != nil {
					t.Error(err)
					return
				}
			}
			p.want("0:OK")
		})
	}
	eventually(t, "publishers wait", func() bool { return r.Snapshot().BackPressureTotal > 0 || r.Snapshot().BufferedBytes > 15<<20 })
	if m := r.Snapshot(); m.BufferedBytes > 16<<20 {
		t.Errorf("%d bytes are charged", m.BufferedBytes)
	}
	close(b.hold)
	done.Wait()
	eventually(t, "all is given back", func() bool { return r.Snapshot().BufferedBytes == 0 })
}

// TestBudgetExhausted: without room a publish is refused after a while, and the
// node stays usable.
func TestBudgetExhausted(t *testing.T) {
	b := newFakeBroker()
	b.hold = make(chan struct{})
	r := start(t, b, Options{MaxBufferedBytes: 1 << 20, PublishPatience: 100 * time.Millisecond})
	body := strings.Repeat("x", 1<<20)
	p := r.dial()
	p.send("PUB a\n" + sized(body)) // takes the whole budget
	eventually(t, "the budget is taken", func() bool { return r.Snapshot().BufferedBytes == 1<<20 })
	q := r.dial()
	q.send("PUB a\n" + sized("x"))
	q.want("1:E_PUB_FAILED PUB failed overloaded")
	q.wantClosed()
	q = r.dial()
	q.send("MPUB a\n" + sized(multi(strings.Repeat("y", 200000), "z")))
	q.want("1:E_MPUB_FAILED MPUB failed overloaded")
	q.wantClosed()
	if status, text := r.post("/pub?topic=a", "x"); status != 503 || text != `{"message":"OVERLOADED"}` {
		t.Errorf("%d %s", status, text)
	}
	close(b.hold)
	p.want("0:OK")
	q = r.dial()
	q.send("PUB a\n" + sized("x"))
	q.want("0:OK")
}

// TestSlowReader: a consumer that does not read is closed after its heartbeat
// interval, holds a bounded amount meanwhile, and its messages go to another.
func TestSlowReader(t *testing.T) {
	b := newFakeBroker()
	r := start(t, b, Options{})
	slow := r.dial()
	slow.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	slow.send("IDENTIFY\n" + sized(`{"heartbeat_interval":1000}`) + "SUB a c\nRDY 100\n")
	slow.want("0:OK", "0:OK")
	p := r.dial()
	body := strings.Repeat("x", 1<<20)
	for range 40 {
		p.send("PUB a\n" + sized(body))
		p.want("0:OK")
	}
	eventually(t, "the slow consumer is gone", func() bool { return r.Snapshot().Consumers == 0 })
	c := r.dial()
	c.send("SUB a c\nRDY 100\n")
	c.want("0:OK")
	for range 40 {
		if f, err := c.frame(); err != nil || len(f) != len(body)+2 {
			t.Fatalf("%d bytes, %v", len(f), err)
		}
	}
}

// TestAnswersNobodyReads: a client that sends bad FINs and reads nothing does
// not fill the memory.
func TestAnswersNobodyReads(t *testing.T) {
	b := newFakeBroker()
	r := start(t, b, Options{})
	before := heap()
	p := r.dial()
	p.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	p.send("IDENTIFY\n" + sized(`{"heartbeat_interval":1000}`) + "SUB a c\n")
	p.want("0:OK", "0:OK")
	fins := strings.Repeat("FIN 0123456789abcdef\n", 1000)
	p.SetWriteDeadline(time.Now().Add(patience))
	for range 5000 { // 100 MB, unless it is closed
		if _, err := io.WriteString(p, fins); err != nil {
			break
		}
	}
	if used := heap() - before; used > 32<<20 {
		t.Errorf("%d MiB of heap", used>>20)
	}
	eventually(t, "the client is gone", func() bool { return r.Snapshot().Connections == 0 })
}

// TestStopUnderLoad: Run ends soon, every publish that was answered is stored,
// and every message that a consumer finished is finished.
func TestStopUnderLoad(t *testing.T) {
	b := newFakeBroker()
	r := start(t, b, Options{})
	var answered [8]int
	var publishers, consumers sync.WaitGroup
	for i := range answered {
		p := r.dial()
		publishers.Go(func() {
			for {
				if _, err := io.WriteString(p, strings.Repeat("PUB a\n"+sized(fmt.Sprint(i)), 10)); err != nil {
					return
				}
				for range 10 {
					if f, err := p.frame(); err != nil || f != "0:OK" {
						return
					}
					answered[i]++
				}
			}
		})
	}
	for range 2 {
		c := r.dial()
		c.send("SUB a c\nRDY 100\n")
		c.want("0:OK")
		consumers.Go(func() {
			for {
				var head [34]byte
				if _, err := io.ReadFull(c, head[:]); err != nil {
					return
				}
				if binary.BigEndian.Uint32(head[4:]) != frameMessage {
					return
				}
				if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[:]))-30); err != nil {
					return
				}
				if _, err := fmt.Fprintf(c, "FIN %s\n", head[18:]); err != nil {
					return
				}
			}
		})
	}
	eventually(t, "messages flow", func() bool { return r.Snapshot().AnswersTotal > 1000 })
	began := time.Now()
	r.stop()
	b.exit() // as a node does
	err := <-r.done
	r.done <- err
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("stopping took %v", took)
	}
	publishers.Wait()
	consumers.Wait()
	total := 0
	for _, n := range answered {
		total += n
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if got := int(b.topics["a"].count); got < total {
		t.Errorf("%d publishes were answered, %d are stored", total, got)
	}
	if st := b.topics["a"].channels["c"].ch.Stats(); st.InFlight > 0 {
		t.Errorf("%d deliveries were neither finished nor waited for", st.InFlight)
	}
}

// TestStopDoesNotWaitForTheBroker: when the broker never answers, Run ends all
// the same.
func TestStopDoesNotWaitForTheBroker(t *testing.T) {
	b := newFakeBroker()
	b.hold = make(chan struct{})
	defer close(b.hold)
	r := start(t, b, Options{DrainTimeout: 50 * time.Millisecond})
	p := r.dial()
	p.send("PUB a\n" + sized("x"))
	q := r.dial()
	q.send("SUB a c\nRDY 1\n")
	q.want("0:OK")
	go func() { // ends without an answer
		if res, err := http.Post("http://"+r.http+"/pub?topic=a", "", strings.NewReader("x")); err == nil {
			res.Body.Close()
		}
	}()
	eventually(t, "the publishes wait", func() bool { return r.Snapshot().PublishesTotal == 2 })
	began := time.Now()
	r.stop()
	err := <-r.done
	r.done <- err
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("stopping took %v", took)
	}
}

// TestSecondIdentify: the first IDENTIFY decides the timers.
func TestSecondIdentify(t *testing.T) {
	b := newFakeBroker()
	r := start(t, b, Options{})
	p := r.dial()
	p.send("IDENTIFY\n" + sized(`{"msg_timeout":1000,"heartbeat_interval":1000}`) + "IDENTIFY\n" + sized(`{"msg_timeout":60000,"heartbeat_interval":60000}`) + "SUB a c\nRDY 1\nPUB a\n" + sized("x"))
	p.want("0:OK", "0:OK", "0:OK")
	saw := map[string]int{}
	for range 5 {
		f, err := p.frame()
		if err != nil {
			t.Fatal(err)
		}
		saw[f]++
	}
	if saw["2:x"] < 2 || saw["0:_heartbeat_"] < 1 || saw["0:OK"] != 1 {
		t.Errorf("got %v", saw)
	}
}

// TestDeletedChannelTriesAgain: SUB between the end of an ephemeral channel and
// its new beginning tries once more.
func TestDeletedChannelTriesAgain(t *testing.T) {
	b := newFakeBroker()
	b.deleting = 1
	r := start(t, b, Options{})
	p := r.dial()
	p.send("SUB a c#ephemeral\n")
	p.want("0:OK")
	b.mu.Lock()
	b.deleting = 2
	b.mu.Unlock()
	p = r.dial()
	p.send("SUB a c#ephemeral\n")
	p.want("1:E_SUB_FAILED SUB failed to deleted topic/channel")
	p.wantClosed()
}

// TestStopIdle: without clients there is nothing to wait for.
func TestStopIdle(t *testing.T) {
	r := start(t, newFakeBroker(), Options{})
	r.get("/ping")
	p := r.dial()
	p.send("PUB a\n" + sized("x"))
	p.want("0:OK")
	c := r.dial()
	c.send("SUB a c\n")
	c.want("0:OK")
	began := time.Now()
	r.stop()
	err := <-r.done
	r.done <- err
	if took := time.Since(began); took > r.o.DrainTimeout/2 {
		t.Errorf("stopping took %v", took)
	}
}
