//go:build linux

package kill

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"
)

// mustDial opens a connection that ends with the test.
func (n *node) mustDial(t *testing.T) *wire {
	t.Helper()
	w, err := dial(n.addrs.TCP, "plain", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

// publish publishes one body and waits for its acknowledgement.
func (c *wire) publish(topic string, body []byte) error {
	fmt.Fprintf(c.w, "PUB %s\n", topic)
	c.sized(body)
	_, err := c.ask()
	return err
}

// publishMany publishes the bodies as one MPUB.
func (c *wire) publishMany(topic string, bodies ...[]byte) error {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(bodies)))
	for _, body := range bodies {
		b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
		b = append(b, body...)
	}
	fmt.Fprintf(c.w, "MPUB %s\n", topic)
	c.sized(b)
	_, err := c.ask()
	return err
}

func mustPublish(t *testing.T, c *wire, topic string, body []byte) {
	t.Helper()
	if err := c.publish(topic, body); err != nil {
		t.Fatalf("publish: %v", err)
	}
}

// createChannel makes topic and channel.
func (n *node) createChannel(t *testing.T, topic, channel string) {
	t.Helper()
	n.mustPost(t, "/topic/create?topic="+topic, nil)
	n.mustPost(t, "/channel/create?topic="+topic+"&channel="+channel, nil)
}

// drain finishes everything that a channel holds and returns the bodies in the
// order of their coming.
func (n *node) drain(t *testing.T, topic, channel string) []string {
	t.Helper()
	w := n.mustDial(t)
	if err := w.subscribe(topic, channel, 500); err != nil {
		t.Fatal(err)
	}
	var bodies []string
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			kind, data, err := w.read()
			if err != nil {
				return
			}
			if kind == frameMessage {
				d, _ := parseMessage(data)
				bodies = append(bodies, string(d.body))
				fmt.Fprintf(w.w, "FIN %s\n", d.id[:])
			} else if string(data) == heartbeat {
				w.w.WriteString("NOP\n")
			}
			if w.r.Buffered() == 0 {
				w.w.Flush()
			}
		}
	})
	n.awaitEmpty(t, topic, channel)
	w.close()
	reader.Wait()
	return bodies
}

// awaitEmpty waits until a channel holds nothing any more.
func (n *node) awaitEmpty(t *testing.T, topic, channel string) {
	t.Helper()
	eventually(t, "channel "+channel+" does not become empty", func() (bool, error) {
		c, err := n.channel(topic, channel)
		if err != nil || c == nil {
			return false, err
		}
		if left := c.unfinished(); left > 0 {
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
		copy(b, filling)
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
