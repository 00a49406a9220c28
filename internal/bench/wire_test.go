package bench

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// peer is the other end of a connection, which says what the test wants.
func peer(t *testing.T, say string, pieces int) net.Conn {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	go func() {
		for i := range pieces { // cut anywhere: a reader must not care
			if _, err := b.Write([]byte(say[len(say)*i/pieces : len(say)*(i+1)/pieces])); err != nil {
				return
			}
		}
		_, _ = b.Read(make([]byte, 1<<16)) // takes what is said to it
	}()
	return a
}

func texts(ms []Message) []string {
	var out []string
	for _, m := range ms {
		out = append(out, string(m.Ref)+"="+string(m.Body))
	}
	return out
}

// receiveAll receives n messages and copies them.
func receiveAll(t *testing.T, c Consumer, n int) []string {
	t.Helper()
	var out []string
	var ms []Message
	for len(out) < n {
		var err error
		if ms, err = c.Receive(ms[:0]); err != nil {
			t.Fatal(err)
		}
		out = append(out, texts(ms)...)
	}
	return out
}

func TestNATSFrames(t *testing.T) {
	say := "INFO {}\r\n+OK\r\nMSG orders 1 5\r\nhel\r\n\r\nMSG orders 1 reply.1 2\r\nab\r\nHMSG orders 1 r2 12 14\r\nNATS/1.0\r\n\r\ncd\r\n"
	for pieces := 1; pieces < len(say); pieces += 7 {
		c := &natsConn{conn: peer(t, say, pieces), r: bufio.NewReaderSize(nil, natsBuffer)}
		c.r.Reset(c.conn)
		got := receiveAll(t, &jetlessConsumer{c}, 3)
		if d := cmp.Diff([]string{"=hel\r\n", "reply.1=ab", "r2=cd"}, got); d != "" {
			t.Fatalf("%d pieces (-want +got):\n%s", pieces, d)
		}
	}
}

// jetlessConsumer shows the reply subject as Ref.
type jetlessConsumer struct{ *natsConn }

func (k *jetlessConsumer) Receive(dst []Message) ([]Message, error) {
	for len(dst) == 0 || k.waits() {
		f, err := k.frame()
		if err != nil {
			return dst, err
		}
		if f.op == 'M' {
			dst = append(dst, Message{Body: f.payload, Ref: f.reply})
		}
	}
	return dst, nil
}
func (k *jetlessConsumer) Finish([]Message) error { return nil }
func (k *jetlessConsumer) Close() error           { return nil }

func TestNATSErrors(t *testing.T) {
	for say, want := range map[string]string{
		"-ERR 'Slow Consumer'\r\n":  "Slow Consumer",
		"WHAT\r\n":                  "WHAT",
		"MSG a 1\r\n":               "MSG a 1",
		"MSG a 1 -4\r\n":            "MSG a 1 -4",
		"MSG a 1 9999999999\r\n":    "9999999999",
		"HMSG a 1 12 4\r\nabcd\r\n": "HMSG",
	} {
		c := &natsConn{conn: peer(t, say, 1)}
		c.r = bufio.NewReaderSize(c.conn, natsBuffer)
		if _, err := c.frame(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want it to name %q", say, err, want)
		}
	}
}

func FuzzNATSFrame(f *testing.F) {
	f.Add([]byte("MSG orders 1 reply.1 2\r\nab\r\n"))
	f.Add([]byte("HMSG orders 1 r2 12 14\r\nNATS/1.0\r\n\r\ncd\r\n"))
	f.Add([]byte("PING\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, size, err := parseNATS(b)
		if err == nil && size <= len(b) && (size == 0 || len(frame.payload) > size) {
			t.Errorf("size %d, payload of %d", size, len(frame.payload))
		}
	})
}

func TestRedisEntries(t *testing.T) {
	entry := func(id, body string) string {
		return fmt.Sprintf("*2\r\n$%d\r\n%s\r\n*2\r\n$1\r\nb\r\n$%d\r\n%s\r\n", len(id), id, len(body), body)
	}
	say := ":2\r\n*1\r\n*2\r\n$6\r\norders\r\n*2\r\n" + entry("1-0", "hello") + entry("1-1", "\r\n$*")
	for pieces := 1; pieces < len(say); pieces += 5 {
		a, b := net.Pipe()
		go func() {
			_, _ = b.Read(make([]byte, 1024)) // the request
			for i := range pieces {
				if _, err := b.Write([]byte(say[len(say)*i/pieces : len(say)*(i+1)/pieces])); err != nil {
					return
				}
			}
		}()
		k := &redisConsumer{redisConn: &redisConn{conn: a, r: bufio.NewReader(a)}, acks: 1, count: "10"}
		if d := cmp.Diff([]string{"1-0=hello", "1-1=\r\n$*"}, receiveAll(t, k, 2)); d != "" {
			t.Fatalf("%d pieces (-want +got):\n%s", pieces, d)
		}
		a.Close()
		b.Close()
	}
}

func TestRedisErrors(t *testing.T) {
	for say, want := range map[string]string{
		"-ERR no\r\n": "ERR no", "*2\r\n": errReply.Error(), "*x\r\n": "*x", "!\r\n": "!", "*1\r\n*2\r\n$1\r\na\r\n$2\r\n": errReply.Error(),
	} {
		a := peer(t, say, 1)
		k := &redisConsumer{redisConn: &redisConn{conn: a, r: bufio.NewReader(a)}}
		if err := k.entries(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want it to name %q", say, err, want)
		}
	}
}

func TestNSQFramesOfAnySize(t *testing.T) {
	f := &fake{}
	target := startFake(t, f)
	k, err := target.Consumer(t.Context(), "orders", "c", 10)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	large := strings.Repeat("x", 300<<10) // above the reader's buffer
	for _, body := range []string{"a", large, "b"} {
		f.publish("orders", []byte(body))
		ms, err := k.Receive(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(ms) != 1 || string(ms[0].Body) != body {
			t.Fatalf("got %d messages, want the one of %d bytes", len(ms), len(body))
		}
		if err := k.Finish(ms); err != nil {
			t.Fatal(err)
		}
	}
}
