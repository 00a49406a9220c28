//go:build linux

package kill

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

func mustPublish(t *testing.T, c *rig.Wire, topic string, body []byte) {
	t.Helper()
	if err := c.Publish(topic, body); err != nil {
		t.Fatalf("publish: %v", err)
	}
}

// createChannel makes topic and channel.
func (n *node) createChannel(t *testing.T, topic, channel string) {
	t.Helper()
	n.MustPost(t, "/topic/create?topic="+topic, nil)
	n.MustPost(t, "/channel/create?topic="+topic+"&channel="+channel, nil)
}

// drain finishes everything that a channel holds and returns the bodies in the
// order of their coming.
func (n *node) drain(t *testing.T, topic, channel string) []string {
	t.Helper()
	return n.drainUntil(t, topic, channel, func(func() int) { n.awaitEmpty(t, topic, channel) })
}

// drainUntil is drain until the function returns, which is told how many have come.
func (n *node) drainUntil(t *testing.T, topic, channel string, until func(come func() int)) []string {
	t.Helper()
	w := n.MustDial(t)
	if err := w.Subscribe(topic, channel, 500); err != nil {
		t.Fatal(err)
	}
	var bodies []string
	var come atomic.Int64
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			kind, data, err := w.Read()
			if err != nil {
				return
			}
			if kind == rig.FrameMessage {
				d, _ := rig.ParseMessage(data)
				bodies = append(bodies, string(d.Body))
				come.Add(1)
				fmt.Fprintf(w.W, "FIN %s\n", d.ID[:])
			} else if string(data) == rig.Heartbeat {
				w.W.WriteString("NOP\n")
			}
			if w.R.Buffered() == 0 {
				w.W.Flush()
			}
		}
	})
	until(func() int { return int(come.Load()) })
	w.Close()
	reader.Wait()
	return bodies
}

// awaitEmpty waits until a channel holds nothing any more.
func (n *node) awaitEmpty(t *testing.T, topic, channel string) {
	t.Helper()
	rig.Eventually(t, "channel "+channel+" does not become empty", func() (bool, error) {
		c, err := n.Channel(topic, channel)
		if err != nil || c == nil {
			return false, err
		}
		if left := c.Unfinished(); left > 0 {
			return false, fmt.Errorf("%d left: %+v", left, *c)
		}
		return true, nil
	})
}

// expectBodies compares what came with what was wanted, in order.
func expectBodies(t *testing.T, got, want []string) {
	t.Helper()
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("message %d is %.40q, want %.40q (%d came, want %d)", i, got[i], want[i], len(got), len(want))
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d messages came, want %d", len(got), len(want))
	}
}

// numbered makes bodies of the given size that begin with their number.
func numbered(from, to, size int) []string {
	var out []string
	for i := from; i < to; i++ {
		b := make([]byte, size)
		copy(b, rig.Filling(size))
		copy(b, fmt.Sprintf("%08d ", i))
		out = append(out, string(b))
	}
	return out
}

// within fails the test when something took so long that it can't be the
// machine's fault. Times are reported, not judged, up to there.
func within(t *testing.T, what string, took, limit time.Duration) {
	t.Helper()
	if took > limit {
		t.Errorf("%s took %s, far above anything that could be excused (%s)", what, took, limit)
	}
}
