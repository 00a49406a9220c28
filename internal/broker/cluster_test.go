package broker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/origin"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// withTopic is a cluster with one topic, led by a node.
func withTopic(t *testing.T, leader uint64) *clusterRig {
	c := newCluster(t)
	n := c.node(1)
	n.ok(n.CreateTopic(n.ctx(), "orders"))
	c.until("all know the topic", func() bool {
		for id := uint64(1); id <= 3; id++ {
			if _, ok := c.node(id).meta.View().Topic("orders"); !ok {
				return false
			}
		}
		return true
	})
	c.leads(c.shardOf("orders"), leader)
	return c
}

// shardOf is the shard of a topic's only partition.
func (c *clusterRig) shardOf(topic string) uint32 {
	m, ok := c.node(1).meta.View().Topic(topic)
	if !ok {
		c.t.Fatalf("no topic %s", topic)
	}
	return m.Partitions[0]
}

// partitionOn is the topic's partition on a node's replica.
func (c *clusterRig) partitionOn(id uint64, topic string) (pv partition.PartitionView, ok bool) {
	m, known := c.node(id).meta.View().Topic(topic)
	if !known {
		return pv, false
	}
	done := make(chan struct{})
	c.node(id).machines[m.Partitions[0]-1].Query(func(v *partition.View) {
		pv, ok = v.Partition(partition.Key{Topic: m.ID})
		close(done)
	})
	<-done
	return pv, ok
}

// TestPublishAtAnyNode: what is published at any node is consumed, in the order of
// each publisher, at the node that leads, before and after the leadership moves.
func TestPublishAtAnyNode(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	s := c.shardOf("orders")
	for _, leader := range []uint64{1, 2, 3, 1} {
		c.leads(s, leader)
		consumer := c.node(leader).subscribe("orders", "audit", 1000)
		const n = 50
		for id := uint64(1); id <= 3; id++ {
			m := c.node(id)
			done := make(chan error, n)
			for i := range n {
				body := fmt.Sprintf("%d-%d", id, i)
				m.ok(m.Publish("orders", []broker.Message{{Body: []byte(body)}}, completion(done)))
			}
			want := make([]string, n)
			for i := range n {
				m.ok(<-done)
				want[i] = fmt.Sprintf("%d-%d", id, i)
			}
			if d := cmp.Diff(want, consumer.take(n)); d != "" {
				t.Fatalf("leader %d, publisher %d: %s", leader, id, d)
			}
		}
		consumer.ok(consumer.Settle(consumer.ctx()))
		consumer.sub.Close(false)
	}
}

// TestCommandsAtAnyNode: what is asked of a node that does not lead is done.
func TestCommandsAtAnyNode(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	three := c.node(3)
	three.ok(three.CreateChannel(three.ctx(), "orders", "audit"))
	if pv, _ := c.partitionOn(1, "orders"); len(pv.Channels) != 1 {
		t.Fatalf("%d channels at the leader", len(pv.Channels))
	}
	three.publish("orders", "a", "b")
	c.until("the channel has both", func() bool { s := c.node(1).stats("orders"); return s.Channels[0].Depth == 2 })
	three.ok(three.EmptyChannel(three.ctx(), "orders", "audit"))
	c.until("the channel is empty", func() bool { s := c.node(1).stats("orders"); return s.Channels[0].Depth == 0 })
	three.ok(three.PauseTopic(three.ctx(), "orders", true))
	three.publish("orders", "c")
	if s := c.node(1).stats("orders"); !s.Paused || s.Depth != 1 || s.Channels[0].Depth != 0 {
		t.Fatalf("paused: %+v", s)
	}
	three.ok(three.EmptyTopic(three.ctx(), "orders"))
	three.ok(three.PauseTopic(three.ctx(), "orders", false))
	if s := c.node(1).stats("orders"); s.Paused || s.Depth != 0 || s.Channels[0].Depth != 0 {
		t.Fatalf("emptied and resumed: %+v", s)
	}
	three.ok(three.DeleteChannel(three.ctx(), "orders", "audit"))
	if pv, _ := c.partitionOn(1, "orders"); len(pv.Channels) != 0 {
		t.Fatalf("%d channels after the deletion", len(pv.Channels))
	}
	three.ok(three.DeleteTopic(three.ctx(), "orders"))
	c.until("no node has the topic", func() bool {
		for id := uint64(1); id <= 3; id++ {
			if _, ok := c.node(id).meta.View().Topic("orders"); ok {
				return false
			}
		}
		return true
	})
}

// TestOtherNodesDeletionsAndPauses take effect for the consumers here.
func TestOtherNodesDeletionsAndPauses(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	one, two := c.node(1), c.node(2)
	audit := one.subscribe("orders", "audit", 5)
	billing := one.subscribe("orders", "billing", 5)
	two.ok(two.PauseChannel(two.ctx(), "orders", "audit", true))
	c.until("the channel is paused", func() bool { return one.ChannelPaused("orders", "audit") })
	two.ok(two.PauseChannel(two.ctx(), "orders", "audit", false))
	c.until("the channel goes on", func() bool { return !one.ChannelPaused("orders", "audit") })
	closed := func(what string, done <-chan struct{}) {
		t.Helper()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("the consumer of %s was not told", what)
		}
	}
	two.ok(two.DeleteChannel(two.ctx(), "orders", "audit"))
	closed("audit", audit.sub.Done())
	two.ok(two.DeleteTopic(two.ctx(), "orders"))
	closed("billing", billing.sub.Done())
	three := c.node(3)
	c.until("the other node knows", func() bool { _, ok := three.meta.View().Topic("orders"); return !ok })
	three.publish("orders", "anew")
	c.until("the new topic is there", func() bool { _, ok := one.meta.View().Topic("orders"); return ok })
	leader := c.node(c.leaderOf(c.shardOf("orders")))
	if d := cmp.Diff([]string{"anew"}, leader.subscribe("orders", "audit", 5).take(1)); d != "" {
		t.Fatal(d)
	}
}

// TestDeletionWithoutItsAuthor: a topic and a channel that were marked by somebody
// who died are gone soon.
func TestDeletionWithoutItsAuthor(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	one := c.node(1)
	one.publish("orders", "a")
	one.ok(one.CreateChannel(one.ctx(), "orders", "audit"))
	one.ok(one.CreateTopic(one.ctx(), "other"))
	topic, _ := one.meta.View().Topic("orders")
	channel, _ := topic.Channel("audit")
	one.meta.DeleteChannel(topic.ID, channel.ID, nil)
	other, _ := one.meta.View().Topic("other")
	one.meta.DeleteTopic(other.ID, nil)
	c.until("both are gone", func() bool {
		now, ok := one.meta.View().TopicID(topic.ID)
		_, still := one.meta.View().TopicID(other.ID)
		return ok && len(now.Channels) == 0 && !still
	})
	if pv, ok := c.partitionOn(1, "orders"); !ok || len(pv.Channels) != 0 {
		t.Fatalf("the partition: %v, %+v", ok, pv)
	}
}

// TestStatsOfWhatIsLed: figures stand at the node that leads; the others show the
// topic with zeros, and their own consumers.
func TestStatsOfWhatIsLed(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	c.node(2).ok(c.node(2).CreateChannel(c.node(2).ctx(), "orders", "audit"))
	c.node(2).publish("orders", "a", "b")
	c.node(3).subscribe("orders", "audit", 0)
	for id, want := range map[uint64]int64{1: 2, 2: 0, 3: 0} {
		c.until(fmt.Sprint("figures at node ", id), func() bool {
			s := c.node(id).stats("orders")
			return s.MessageCount == want && len(s.Channels) == 1 && s.Channels[0].Depth == want &&
				(s.LogBytes > 0) == (want > 0) && len(s.Channels[0].Subscriptions) == int(id/3)
		})
	}
}

// TestNewLeaderReconciles: what metadata says and no shard was told, because its
// author died, is made true by the next leader.
func TestNewLeaderReconciles(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	one := c.node(1)
	one.publish("orders", "a")
	topic, _ := one.meta.View().Topic("orders")
	made := make(chan error, 1)
	one.meta.CreateChannel(topic.ID, "audit", func(_ *meta.Channel, err error) { made <- err })
	one.ok(<-made)
	c.until("all know the channel", func() bool {
		for id := uint64(1); id <= 3; id++ {
			if m, _ := c.node(id).meta.View().Topic("orders"); len(m.Channels) == 0 {
				return false
			}
		}
		return true
	})
	c.leads(c.shardOf("orders"), 2)
	c.until("the channel is on the partition", func() bool {
		pv, ok := c.partitionOn(2, "orders")
		return ok && len(pv.Channels) == 1
	})
}

// TestReconcileBehindAChange: a leader that still acts on metadata of a moment ago,
// when the change has been to the shard already, leaves nothing behind.
func TestReconcileBehindAChange(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	one := c.node(1)
	one.ok(one.CreateChannel(one.ctx(), "orders", "audit"))
	one.ok(one.PauseTopic(one.ctx(), "orders", true))
	before := one.meta.View()
	one.ok(one.PauseTopic(one.ctx(), "orders", false))
	one.ok(one.DeleteChannel(one.ctx(), "orders", "audit"))
	one.ok(one.Settle(one.ctx())) // what watch had to say is fact as well
	one.ok(one.Reconcile(one.ctx(), c.shardOf("orders"), before))
	c.until("the shard is as metadata says", func() bool {
		pv, ok := c.partitionOn(1, "orders")
		return ok && len(pv.Channels) == 0 && !pv.Paused
	})
}

// TestLeaderIsCutOff: the majority goes on without an error; the minority refuses
// when the time is over, and then at once.
func TestLeaderIsCutOff(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	one, two := c.node(1), c.node(2)
	two.publish("orders", "a")
	c.setCut(1, true)
	two.publish("orders", "b")
	three := c.node(3)
	three.publish("orders", "c")
	err := one.PublishWait(one.ctx(), "orders", []broker.Message{{Body: []byte("lost")}})
	if fault.CodeOf(err) != fault.NotLeader {
		t.Fatalf("publish at the minority: %v", err)
	}
	begun := time.Now()
	err = one.PublishWait(one.ctx(), "orders", []broker.Message{{Body: []byte("lost")}})
	if fault.CodeOf(err) != fault.NotLeader || errors.Is(err, origin.ErrUnknown) {
		t.Fatalf("second publish at the minority: %v", err)
	}
	t.Logf("refused within %v", time.Since(begun))
	c.setCut(1, false)
	c.until("the minority is back", func() bool {
		return one.PublishWait(one.ctx(), "orders", []broker.Message{{Body: []byte("d")}}) == nil
	})
}

// TestRunEndsWithPublishesWaiting: they are answered.
func TestRunEndsWithPublishesWaiting(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	c.setCut(2, true)
	two := c.node(2)
	c.until("no leader is known", func() bool { id, _ := two.Leader(c.shardOf("orders")); return id == 0 })
	done := make(chan error, 1)
	two.ok(two.Publish("orders", []broker.Message{{Body: []byte("x")}}, completion(done)))
	two.halt()
	select {
	case err := <-done:
		if err == nil {
			t.Fatal("acknowledged")
		}
	case <-two.ctx().Done():
		t.Fatal("not answered")
	}
}

// TestServeRefusesNonsense: what no node would send is refused, and harms nothing.
func TestServeRefusesNonsense(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	one := c.node(1)
	for _, method := range []broker.Method{broker.MethodPublish, broker.MethodCommand, 99} {
		for _, request := range []string{"", "\x01", "\x02abc", "\x01\x01\x00\x06orders", strings.Repeat("\x01", 100)} {
			got := make(chan error, 1)
			one.Serve(context.Background(), method, []byte(request), func(_ []byte, _ func(), err error) { got <- err })
			if err := <-got; fault.CodeOf(err) != fault.InvalidRequest && fault.CodeOf(err) != fault.Unsupported {
				t.Errorf("method %d, %q: %v", method, request, err)
			}
		}
	}
	one.publish("orders", "a")
}
