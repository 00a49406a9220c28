package nsq

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/broker/partition"
)

// allocsPerMessage is what a message may allocate in the steady state: room for
// what the runtime does now and then.
const allocsPerMessage = 0.02

// keepsPools reports whether sync.Pool keeps what it is given: the race
// detector makes it forget on purpose.
func keepsPools() bool {
	return allocs(1000, func() { publishPool.Put(publishPool.Get()) }) < 0.1
}

// allocs is how often f allocates; AllocsPerRun rounds down.
func allocs(times int, f func()) float64 {
	return testing.AllocsPerRun(1, func() {
		for range times {
			f()
		}
	}) / float64(times)
}

// wantNoAllocs runs a round of so many messages until the pools are warm, and
// then wants no allocation for a message.
func wantNoAllocs(t *testing.T, messages int, round func()) {
	t.Helper()
	if !keepsPools() {
		t.Skip("pools forget")
	}
	for range 50 {
		round()
	}
	if n := allocs(200, round) / float64(messages); n > allocsPerMessage {
		t.Errorf("%.3f allocations for a message", n)
	}
}

// asyncBroker answers from another goroutine, as a shard does.
type asyncBroker struct {
	*fakeBroker
	queue chan partition.Completion
}

func newAsyncBroker(t *testing.T) *asyncBroker {
	b := &asyncBroker{newFakeBroker(), make(chan partition.Completion, 1000)}
	go func() {
		for done := range b.queue {
			done.Published(0, nil)
		}
	}()
	t.Cleanup(func() { close(b.queue) })
	return b
}

func (b *asyncBroker) Enqueue(_ string, _ []partition.Message, done partition.Completion) error {
	b.queue <- done
	return nil
}

func (b *asyncBroker) Publish(topic string, msgs []partition.Message, done partition.Completion) error {
	return b.Enqueue(topic, msgs, done)
}

// TestPublishAllocates: from the socket to the broker and back, a message costs
// no allocation.
func TestPublishAllocates(t *testing.T) {
	body := strings.Repeat("x", 200)
	bodies := make([]string, 100)
	for i := range bodies {
		bodies[i] = body
	}
	for name, c := range map[string]struct {
		request           string
		messages, answers int
	}{
		"lone":      {"PUB topic\n" + sized(body), 1, 1},
		"pipelined": {strings.Repeat("PUB topic\n"+sized(body), 100), 100, 100},
		"batch":     {"MPUB topic\n" + sized(multi(bodies...)), 100, 1},
		"batches":   {strings.Repeat("MPUB topic\n"+sized(multi(bodies...)), 4), 400, 4},
		"keyed":     {"PUB topic key=k id=i\n" + sized(body), 1, 1},
		"deferred":  {"DPUB topic 1000\n" + sized(body), 1, 1},
		"topics":    {"PUB topic\n" + sized(body) + "PUB other\n" + sized(body), 2, 2},
	} {
		for kind, b := range map[string]Broker{"quiet": newQuietBroker(), "async": newAsyncBroker(t)} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				nc := serve(t, b)
				out, in := []byte(c.request), make([]byte, c.answers*len(okFrame))
				wantNoAllocs(t, c.messages, func() { exchange(t, nc, out, in) })
			})
		}
	}
}

// TestDeliveryAllocates: from the channel to the socket and its FIN back, a
// message costs no allocation.
func TestDeliveryAllocates(t *testing.T) {
	nc := serve(t, endlessBroker{newQuietBroker()})
	fmt.Fprintf(nc, "SUB topic channel\nRDY 2500\n")
	if _, err := io.ReadFull(nc, make([]byte, len(okFrame))); err != nil {
		t.Fatal(err)
	}
	const messages = 100
	in := make([]byte, messages*(messageHeadBytes+200))
	out := []byte(strings.Repeat("FIN 0123456789abcdef\n", messages))
	wantNoAllocs(t, messages, func() { exchange(t, nc, out, in) })
}

// exchange sends and receives.
func exchange(t *testing.T, nc net.Conn, out, in []byte) {
	if _, err := nc.Write(out); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, in); err != nil {
		t.Fatal(err)
	}
}
