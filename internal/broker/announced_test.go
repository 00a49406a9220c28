package broker_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// channelsOn is how many channels the partition knows on a node.
func (c *clusterRig) channelsOn(id uint64, topic string) int {
	c.t.Helper()
	pv, _ := c.partitionOn(id, topic)
	return len(pv.Channels)
}

// A channel that a leader was told of goes when its consumer never comes.
func TestAnnouncedChannelWithoutConsumers(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	c.leads(c.shardOf("orders"), 1)
	two := c.node(2)
	c.until("a leader that has just begun takes it", func() bool { return two.Announce(two.ctx(), "orders", "tail#ephemeral", 1) == nil })
	c.until("the channel is there", func() bool { return c.channelsOn(1, "orders") == 1 })
	c.until("the channel has gone", func() bool { return c.channelsOn(1, "orders") == 0 })
}

// A channel that was made by itself stays without consumers, as long as its node lives.
func TestAnnouncedChannelThatWasMade(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	c.leads(c.shardOf("orders"), 1)
	two := c.node(2)
	two.ok(two.CreateChannel(two.ctx(), "orders", "tail#ephemeral"))
	c.until("the channel is there", func() bool { return c.channelsOn(1, "orders") == 1 })
	c.node(3).publish("orders", "a")
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if n := c.channelsOn(1, "orders"); n != 1 {
			t.Fatalf("%d channels", n)
		}
	}
	three := c.node(3).subscribe("orders", "tail#ephemeral", 1)
	if d := cmp.Diff([]string{"a"}, three.take(1)); d != "" {
		t.Error(d)
	}
	two.halt()
	three.sub.Close(false)
	c.until("the channel has gone with its consumer", func() bool { return c.channelsOn(1, "orders") == 0 })
	c.node(3).ok(c.node(3).CreateChannel(c.node(3).ctx(), "orders", "other#ephemeral"))
	c.until("the channel is there", func() bool { return c.channelsOn(1, "orders") == 1 })
	c.node(3).halt()
	c.until("the channel has gone with its node", func() bool { return c.node(1).InUse("orders") == 0 })
}
