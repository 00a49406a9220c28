package broker_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
)

// knows waits until a node knows the topic.
func (c *clusterRig) knows(id uint64, topic string) {
	c.t.Helper()
	c.until("the topic is known", func() bool {
		_, ok := c.node(id).meta.View().Topic(topic)
		return ok
	})
}

// An ephemeral topic and its channels are changed through nodes that it does not live on.
func TestEphemeralTopicIsChangedElsewhere(t *testing.T) {
	t.Parallel()
	const topic, channel = "live#ephemeral", "tail"
	c := withTopic(t, 1)
	home, two, three := c.node(1), c.node(2), c.node(3)
	home.ok(home.CreateTopic(home.ctx(), topic))
	c.knows(2, topic)
	c.knows(3, topic)
	waiting := func() int64 { return home.stats(topic).Depth }
	three.publish(topic, "a", "b")
	if n := waiting(); n != 2 {
		t.Fatalf("%d messages wait in the topic", n)
	}
	two.ok(two.EmptyTopic(two.ctx(), topic))
	if n := waiting(); n != 0 {
		t.Fatalf("%d messages wait in the topic that was emptied", n)
	}
	home.ok(home.CreateChannel(home.ctx(), topic, channel))
	two.ok(two.PauseTopic(two.ctx(), topic, true))
	three.publish(topic, "c")
	if s := home.stats(topic); !s.Paused || s.Depth != 1 {
		t.Fatalf("paused: %+v", s)
	}
	three.ok(three.PauseTopic(three.ctx(), topic, false))
	two.ok(two.PauseChannel(two.ctx(), topic, channel, true))
	if s := home.stats(topic); s.Paused || !s.Channels[0].Paused || s.Channels[0].Depth != 1 {
		t.Fatalf("the channel is paused: %+v", s)
	}
	three.ok(three.EmptyChannel(three.ctx(), topic, channel))
	if s := home.stats(topic); s.Channels[0].Depth != 0 {
		t.Fatalf("the channel is empty: %+v", s)
	}
	two.ok(two.PauseChannel(two.ctx(), topic, channel, false))
	far := three.subscribe(topic, channel, 1)
	two.publish(topic, "d")
	if d := cmp.Diff([]string{"d"}, far.take(1)); d != "" {
		t.Error(d)
	}
	c.changesNothing(two, topic, "none")
	home.ok(home.CreateChannel(home.ctx(), topic, "spare")) // the topic goes with its last one
	two.ok(two.DeleteChannel(two.ctx(), topic, channel))
	<-far.sub.Done()
	far.sub.Close(false) // as its connection does then
	home.ok(home.CreateChannel(home.ctx(), topic, "other"))
	two.ok(two.DeleteChannel(two.ctx(), topic, "other"))
	if err := two.DeleteChannel(two.ctx(), topic, "other"); fault.CodeOf(err) != fault.ChannelNotFound {
		t.Error(err)
	}
	home.ok(home.DeleteChannel(home.ctx(), topic, "other")) // who asks every node, asks it too
	two.ok(two.DeleteTopic(two.ctx(), topic))
	c.until("the topic is gone", func() bool {
		_, ok := home.meta.View().Topic(topic)
		_, there := three.meta.View().Topic(topic)
		return !ok && !there
	})
	three.ok(three.CreateTopic(three.ctx(), topic))
	c.knows(2, topic)
	c.setCut(3, true)
	for _, err := range []error{two.EmptyTopic(two.ctx(), topic), two.DeleteChannel(two.ctx(), topic, "x")} {
		if fault.CodeOf(err) != fault.NotLeader {
			t.Errorf("changed without its home: %v", err)
		}
	}
	c.setCut(3, false)
}

// changesNothing requires that a channel is not found, whatever is to be done to it.
func (c *clusterRig) changesNothing(m *member, topic, channel string) {
	c.t.Helper()
	for what, do := range map[string]func(context.Context, string, string) error{
		"empty":  m.EmptyChannel,
		"delete": m.DeleteChannel,
		"pause":  func(ctx context.Context, t, ch string) error { return m.PauseChannel(ctx, t, ch, true) },
	} {
		if err := do(m.ctx(), topic, channel); fault.CodeOf(err) != fault.ChannelNotFound {
			c.t.Errorf("%s a channel that is not there: %v", what, err)
		}
	}
}

// An ephemeral channel of a durable topic is changed through any node.
func TestEphemeralChannelIsChangedAnywhere(t *testing.T) {
	t.Parallel()
	const channel = "tail#ephemeral"
	c := withTopic(t, 1)
	c.leads(c.shardOf("orders"), 1)
	one, two, three := c.node(1), c.node(2), c.node(3)
	c.changesNothing(three, "orders", channel)
	far := two.subscribe("orders", channel, 0)
	c.until("the leader knows it", func() bool { return c.channelsOn(1, "orders") == 1 })
	three.ok(three.PauseChannel(three.ctx(), "orders", channel, true))
	for _, m := range []*member{one, two} {
		if !m.ChannelPaused("orders", channel) {
			t.Errorf("node %d: not paused", m.id)
		}
	}
	three.publish("orders", "a", "b")
	waiting := func(n int64) bool {
		for _, ch := range one.stats("orders").Channels {
			if ch.Name == channel {
				return ch.Depth == n
			}
		}
		return false
	}
	c.until("messages wait", func() bool { return waiting(2) })
	three.ok(three.EmptyChannel(three.ctx(), "orders", channel))
	c.until("none waits", func() bool { return waiting(0) })
	three.ok(three.PauseChannel(three.ctx(), "orders", channel, false))
	three.publish("orders", "c")
	far.sub.SetWindow(1)
	if d := cmp.Diff([]string{"c"}, far.take(1)); d != "" {
		t.Error(d)
	}
	three.ok(three.DeleteChannel(three.ctx(), "orders", channel))
	<-far.sub.Done()
	far.sub.Close(false) // as its connection does then
	c.until("it is gone", func() bool { return c.channelsOn(1, "orders") == 0 })
	for _, m := range []*member{one, two} { // as NSQ's tools do, who ask every node
		m.ok(m.DeleteChannel(m.ctx(), "orders", channel))
	}
	three.ok(three.PublishWait(three.ctx(), "orders", []broker.Message{{Body: []byte("d")}}))
}
