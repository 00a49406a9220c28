package nsq

import (
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/tidings-io/tidings/internal/broker/partition"
)

// drivenBroker keeps what is enqueued until it is driven, and then answers as
// answer says.
type drivenBroker struct {
	*fakeBroker
	answer func(done partition.Completion)

	mu      sync.Mutex
	waiting []partition.Completion
	drives  int
}

func (b *drivenBroker) Enqueue(_ string, _ []partition.Message, done partition.Completion) error {
	b.mu.Lock()
	b.waiting = append(b.waiting, done)
	b.mu.Unlock()
	return nil
}

func (b *drivenBroker) Drive(string) {
	b.mu.Lock()
	waiting := b.waiting
	b.waiting = nil
	b.drives++
	b.mu.Unlock()
	for _, done := range waiting {
		b.answer(done)
	}
}

// TestDrive: a lone publisher is answered whether its publish is committed
// while its reader drives the broker or at any time after.
func TestDrive(t *testing.T) {
	here := func(done partition.Completion) { done.Published(0, nil) }
	later := func(done partition.Completion) { go here(done) }
	for name, answer := range map[string]func(partition.Completion){
		"inside": here,
		"after":  later,
		"either": func(done partition.Completion) {
			if rand.IntN(2) == 0 {
				here(done)
			} else {
				later(done)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := &drivenBroker{fakeBroker: newFakeBroker(), answer: answer}
			r := start(t, b, Options{})
			p := r.dial()
			const count = 2000
			for range count {
				p.send("PUB a\n" + sized("x"))
				p.want("0:OK")
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			// Now and then the writer, woken for the publish before, answers while
			// the reader still drives: a quick client then counts as one that
			// sends ahead for a while.
			if b.drives < count/2 {
				t.Errorf("driven %d times", b.drives)
			}
		})
	}
}

// TestDriveFails: an error that comes while the reader drives closes the
// connection behind the error frame.
func TestDriveFails(t *testing.T) {
	b := &drivenBroker{fakeBroker: newFakeBroker(), answer: func(done partition.Completion) { done.Published(0, io.ErrShortWrite) }}
	r := start(t, b, Options{})
	p := r.dial()
	p.send("PUB a\n" + sized("x"))
	p.want("1:E_PUB_FAILED PUB failed internal error")
	p.wantClosed()
}

// TestPipelineIsNotDriven: while a client has publishes under way, its reader
// reads on.
func TestPipelineIsNotDriven(t *testing.T) {
	b := &drivenBroker{fakeBroker: newFakeBroker(), answer: func(partition.Completion) { panic("driven") }}
	b.hold = make(chan struct{})
	r := start(t, b, Options{})
	p := r.dial()
	big := strings.Repeat("x", 2*driveBytesMax)
	p.send("PUB a\n" + sized(big)) // too large
	eventually(t, "the first is published", func() bool { return r.Snapshot().PublishesTotal == 1 })
	p.send("PUB a\n" + sized("x")) // the first waits
	eventually(t, "the second is published", func() bool { return r.Snapshot().PublishesTotal == 2 })
	close(b.hold)
	p.want("0:OK", "0:OK")
}

// TestAnswersToSlowReader: OKs that don't fit into the socket's buffer come
// later, in their places between other answers.
func TestAnswersToSlowReader(t *testing.T) {
	r := start(t, newFakeBroker(), Options{})
	p := r.dial()
	p.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	p.send("NOP\n")
	eventually(t, "the connection is there", func() bool { return len(r.snapshot()) == 1 })
	c := r.snapshot()[0]
	c.net.(*net.TCPConn).SetWriteBuffer(4 << 10)
	const rounds, each = 100, 300
	var sender sync.WaitGroup
	defer sender.Wait()
	sender.Go(func() {
		pubs := strings.Repeat("PUB a key=1\n"+sized("x")+"PUB a key=2\n"+sized("x"), each/2) // each by itself
		for range rounds {
			if _, err := io.WriteString(p, pubs+"IDENTIFY\n"+sized(`{"feature_negotiation":true}`)); err != nil {
				t.Error(err)
				return
			}
		}
		if _, err := io.WriteString(p, "NONSENSE\n"); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the reader waits for room", func() bool {
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		return c.out.want
	})
	p.Conn.(*net.TCPConn).SetReadBuffer(1 << 20)
	c.net.(*net.TCPConn).SetWriteBuffer(1 << 20)
	for range rounds {
		for range each {
			p.want("0:OK")
		}
		if f, err := p.frame(); err != nil || !strings.HasPrefix(f, "0:{") {
			t.Fatalf("got %q, %v", f, err)
		}
	}
	p.want("1:E_INVALID invalid command NONSENSE")
	p.wantClosed()
}
