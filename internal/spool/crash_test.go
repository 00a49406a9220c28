package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/vfs"
)

// world is a machine with an edge, and an upstream.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	disk   *vfs.Mem
	up     *cluster
	ledger ledger
	sent   map[string]int // by publisher and topic
	size   int64

	lives, full int
}

func newWorld(t *testing.T, seed uint64) *world {
	return &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), disk: vfs.NewMem(), up: newCluster(), size: 1 << 20,
		ledger: ledger{acked: make(map[string]map[string]bool)}, sent: make(map[string]int),
	}
}

// edge is one life of the edge's process.
type edge struct {
	*Spool
	f       *Forwarder
	stop    context.CancelFunc
	running sync.WaitGroup
	err     error
}

func (w *world) start() *edge {
	w.t.Helper()
	s, err := Open(Options{FS: w.disk, Dir: "edge", Size: w.size})
	if err != nil {
		w.t.Fatalf("open: %v", err)
	}
	e := &edge{Spool: s, f: NewForwarder(s, w.up, slog.New(slog.DiscardHandler))}
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = cancel
	e.running.Go(func() { e.err = errors.Join(e.err, s.Run(ctx)); cancel() })
	e.running.Go(func() {
		if err := e.f.Run(ctx); err != nil && !w.disk.Tripped() {
			w.t.Errorf("forward: %v", err)
		}
	})
	w.lives++
	return e
}

// end waits for the end of a life.
func (e *edge) end() {
	e.stop()
	e.running.Wait()
	_ = e.Close() // of a disk that may be gone
}

type outcome chan error

func (o outcome) Published(_ int64, err error) { o <- err }

// publish sends a few messages of a publisher as one publish. False when the edge is
// gone.
func (w *world) publish(e *edge, who, topic string, n int, key []byte) bool {
	var msgs []Message
	for range n {
		w.sent[who+topic]++
		msgs = append(msgs, Message{Body: fmt.Appendf(nil, "%s/%d", who, w.sent[who+topic]), Key: key})
	}
	done := make(outcome, 1)
	switch err := e.Publish(topic, msgs, done); {
	case fault.CodeOf(err) == fault.SpoolFull:
		w.full++
		return true
	case err != nil:
		return false
	}
	if err := <-done; err != nil {
		return false
	}
	for i := range msgs {
		w.ledger.ack(topic, string(msgs[i].Body))
	}
	return true
}

// live lets publishers publish until the disk trips.
func (w *world) live(e *edge, publishes int) {
	for range publishes {
		who, topic := fmt.Sprintf("p%d", w.rng.IntN(3)), fmt.Sprintf("topic%d", w.rng.IntN(3))
		n := 1 + w.rng.IntN(4)
		if w.rng.IntN(20) == 0 {
			n = 500
		}
		if !w.publish(e, who, topic, n, []byte(who)) {
			return
		}
		if w.rng.IntN(8) == 0 {
			time.Sleep(time.Duration(w.rng.IntN(1500)) * time.Millisecond)
		}
	}
}

// drain waits until everything is upstream.
func (w *world) drain(e *edge) {
	w.t.Helper()
	for range 600 {
		if e.Stats("").Depth == 0 {
			return
		}
		time.Sleep(time.Second)
	}
	w.t.Fatalf("it is not forwarded: %+v, %+v", e.Stats(""), e.f.Stats())
}

// history runs lives that end with a kill or a power loss, and the last one to its
// end.
func (w *world) history(lives int) []string {
	for range lives {
		w.up.flaky(w.rng, []float64{0, 0.05, 0.5, 1}[w.rng.IntN(4)])
		e := w.start()
		w.disk.FailAfter(int64(1+w.rng.IntN(300)), errors.New("the machine is gone"))
		w.live(e, 1+w.rng.IntN(120))
		e.end()
		if w.rng.IntN(2) == 0 {
			w.disk.Kill()
		} else {
			w.disk.Crash(w.rng)
		}
		if w.rng.IntN(6) == 0 {
			w.up.mu.Lock()
			w.up.count = min(w.up.count+1, 4) // and of the topics that are there
			for topic := range w.up.topics {
				w.up.grow(topic, w.up.count)
			}
			w.up.mu.Unlock()
		}
	}
	w.up.flaky(w.rng, 0)
	e := w.start()
	defer e.end()
	w.drain(e)
	return w.ledger.verify(w.t, w.up)
}

// TestCrashes: whatever becomes of the process, its machine and the way upstream,
// each message that was acknowledged is upstream once, and in order.
func TestCrashes(t *testing.T) {
	first := rand.Uint64() >> 32
	rounds := uint64(30)
	if testing.Short() {
		rounds = 10
	}
	for seed := first; seed < first+rounds; seed++ {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			for _, p := range w.history(12) {
				t.Errorf("seed %d: %s", seed, p)
			}
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
