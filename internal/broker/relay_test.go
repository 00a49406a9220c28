package broker_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/fault"
)

// hold waits for n messages and leaves them unfinished.
func (c *consumer) hold(n int) (held []delivery.Delivery) {
	c.t.Helper()
	ctx := c.ctx()
	for len(held) < n {
		got, err := c.sub.Take(nil, 1<<20)
		c.ok(err)
		for _, d := range got {
			d.Body = slices.Clone(d.Body)
			held = append(held, d)
		}
		if len(got) > 0 {
			continue
		}
		select {
		case <-c.bell:
		case <-ctx.Done():
			c.t.Fatalf("only %d of %d messages came", len(held), n)
		}
	}
	return held
}

// nothing waits a little and requires that nothing comes.
func (c *consumer) nothing() {
	c.t.Helper()
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		got, err := c.sub.Take(nil, 1<<20)
		c.ok(err)
		for _, d := range got {
			c.t.Fatalf("%q came, attempt %d", d.Body, d.Attempts)
		}
	}
}

// finished waits until the channel has nothing left, on any node.
func (c *clusterRig) finished(topic string) {
	c.t.Helper()
	c.until("all is finished", func() bool {
		left := int64(0)
		for id := uint64(1); id <= 3; id++ {
			if m := c.node(id); m != nil {
				for _, ch := range m.stats(topic).Channels {
					left += ch.Depth + ch.InFlight + ch.Deferred
				}
			}
		}
		return left == 0
	})
}

func numbers(from, to int) (list []string) {
	for i := from; i < to; i++ {
		list = append(list, fmt.Sprint(i))
	}
	return list
}

// A consumer at any node gets what another leads, in order, within its window.
func TestRelay(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	far := c.node(2).subscribe("orders", "audit", 3)
	c.node(3).publish("orders", numbers(0, 10)...)
	held := far.hold(3)
	far.nothing()
	for i, d := range held {
		if string(d.Body) != fmt.Sprint(i) || d.Attempts != 1 {
			t.Errorf("%q came in place of %d, attempt %d", d.Body, i, d.Attempts)
		}
		far.ok(far.sub.Finish(d.ID))
	}
	if d := cmp.Diff(numbers(3, 10), far.take(7)); d != "" {
		t.Fatal(d)
	}
	c.finished("orders")
	if s := c.node(2).stats("orders").Channels[0]; s.InFlight != 0 || s.MessageCount != 0 {
		t.Errorf("a node that leads nothing counts %+v", s)
	}
}

// Who consumes where makes no difference to who gets how much.
func TestRelaysShare(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	var all []*consumer
	for id := uint64(1); id <= 3; id++ {
		all = append(all, c.node(id).subscribe("orders", "audit", 1), c.node(id).subscribe("orders", "audit", 1))
	}
	for _, x := range all { // from now on each comes when it is rung
		x.nothing()
	}
	got := make(map[string]bool)
	const n = 60
	counts := make([]int, len(all))
	for i := range n {
		c.node(1).publish("orders", fmt.Sprint(i))
		c.until("somebody has it", func() bool {
			for k, x := range all {
				select {
				case <-x.bell:
				default:
					continue
				}
				for more := true; more; {
					ds, err := x.sub.Take(nil, 1<<20)
					x.ok(err)
					for _, d := range ds {
						got[string(d.Body)] = true
						counts[k]++
						x.ok(x.sub.Finish(d.ID))
					}
					more = len(ds) > 0
				}
			}
			return len(got) == i+1
		})
	}
	for k, n := range counts {
		if n < 4 || n > 20 {
			t.Errorf("consumer %d got %d of %v", k, n, counts)
		}
	}
}

// FIN, REQ and TOUCH of a message that is not in flight any more are told as such.
func TestRelayedAnswersThatFail(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	m := c.node(2)
	failed := make(chan error, 1)
	sub, err := m.Subscribe(m.ctx(), "orders", "audit", delivery.SubOptions{
		MsgTimeout: time.Minute, Failed: func(_ delivery.Op, err error) { failed <- err },
	})
	m.ok(err)
	bell := &consumer{rig: m.rig, sub: sub, bell: make(chan struct{}, 1)}
	sub.SetWindow(5)
	c.node(1).publish("orders", "a")
	var held []delivery.Delivery
	c.until("it is held", func() bool {
		held, err = sub.Take(nil, 1<<20)
		m.ok(err)
		return len(held) == 1
	})
	m.ok(sub.Requeue(held[0].ID, 0))
	c.until("it is held again", func() bool {
		held, err = sub.Take(nil, 1<<20)
		m.ok(err)
		return len(held) == 1
	})
	if held[0].Attempts != 2 {
		t.Errorf("attempt %d", held[0].Attempts)
	}
	m.ok(m.EmptyChannel(m.ctx(), "orders", "audit"))
	c.until("the window is open again", func() bool { return sub.Stats().InFlight == 0 })
	if err := sub.Finish(held[0].ID); fault.CodeOf(err) != fault.NotInFlight {
		t.Errorf("FIN after empty: %v", err)
	}
	c.node(1).publish("orders", "b")
	if d := cmp.Diff([]string{"b"}, bell.takePolling(c, 1)); d != "" {
		t.Error(d)
	}
	select {
	case err := <-failed:
		t.Error(err)
	default:
	}
}

func (c *consumer) takePolling(r *clusterRig, n int) (bodies []string) {
	r.until("messages come", func() bool {
		got, err := c.sub.Take(nil, 1<<20)
		c.ok(err)
		for _, d := range got {
			bodies = append(bodies, string(d.Body))
			c.ok(c.sub.Finish(d.ID))
		}
		return len(bodies) >= n
	})
	return bodies
}

// A leadership that moves disturbs nobody: what consumers hold stays theirs, with the
// number of attempts it had, and its FIN counts, wherever they are connected.
func TestHeldThroughMoves(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	s := c.shardOf("orders")
	c.leads(s, 1)
	var all []*consumer
	held := make(map[*consumer][]delivery.Delivery)
	for id := uint64(1); id <= 3; id++ {
		all = append(all, c.node(id).subscribe("orders", "audit", 2))
	}
	c.node(1).publish("orders", numbers(0, 6)...)
	for _, x := range all {
		held[x] = x.hold(2)
	}
	for i := range 6 {
		c.leads(s, uint64(i+1)%3+1)
		c.node(2).publish("orders", fmt.Sprint("later", i))
		for _, x := range all {
			x.nothing()
		}
	}
	for _, x := range all {
		select {
		case <-x.sub.Done():
			t.Fatal("a consumer was disconnected")
		default:
		}
		for _, d := range held[x] {
			if d.Attempts != 1 {
				t.Errorf("%s has attempt %d", d.Body, d.Attempts)
			}
			x.ok(x.sub.Finish(d.ID))
		}
	}
	seen := make(map[string]int)
	c.until("the rest has come", func() bool {
		for _, x := range all {
			ds, err := x.sub.Take(nil, 1<<20)
			x.ok(err)
			for _, d := range ds {
				seen[string(d.Body)]++
				if d.Attempts != 1 {
					t.Errorf("%s has attempt %d", d.Body, d.Attempts)
				}
				x.ok(x.sub.Finish(d.ID))
			}
		}
		return len(seen) == 6
	})
	c.finished("orders")
	for body, n := range seen {
		if n != 1 || len(body) < 6 {
			t.Errorf("%s came %d times", body, n)
		}
	}
}

// A node that has not seen who led in between tells the leader anew what its consumers
// hold: that one does not rely on what it knew before.
func TestHeldThroughAnUnseenLeader(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	s := c.shardOf("orders")
	far := c.node(2).subscribe("orders", "audit", 2)
	c.node(1).publish("orders", "0", "1")
	held := far.hold(2)
	c.node(2).blind.Store(1)
	c.until("another leads", func() bool {
		_ = c.node(1).groups[s].TransferLeader(c.node(1).ctx(), 3)
		return c.node(3).groups[s].Leader()
	})
	c.leads(s, 1)
	c.node(2).Moved(s)
	near := c.node(1).subscribe("orders", "audit", 5)
	c.node(1).publish("orders", "2")
	if d := cmp.Diff([]string{"2"}, near.take(1)); d != "" {
		t.Fatal(d)
	}
	near.nothing()
	for _, d := range held {
		far.ok(far.sub.Finish(d.ID))
	}
	c.node(2).blind.Store(0)
	c.finished("orders")
}

// A node that was taken for the leader and is not has nothing to say about consumers
// that leave it, as often as it is told: who told it comes to rest.
func TestFarewellToWhoNeverLed(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	s := c.shardOf("orders")
	two := c.node(2)
	far := two.subscribe("orders", "audit", 2)
	c.node(1).publish("orders", "0")
	if d := cmp.Diff([]string{"0"}, far.take(1)); d != "" {
		t.Fatal(d)
	}
	two.blind.Store(3)
	two.Moved(s)
	c.until("the wrong one is told of the consumer", func() bool { return two.talks[3].Load() > 0 })
	two.blind.Store(0)
	two.Moved(s)
	c.node(1).publish("orders", "1")
	if d := cmp.Diff([]string{"1"}, far.take(1)); d != "" {
		t.Fatal(d)
	}
	c.leads(s, 1) // and knows it
	ctx := two.ctx()
	if err := two.Settle(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("it does not come to rest: %v, %v", err, ctx.Err())
	}
}

// A leader that is cut off takes nothing along: those at other nodes go on, and
// what they hold is theirs.
func TestHeldThroughAFailover(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	s := c.shardOf("orders")
	c.leads(s, 1)
	far := c.node(2).subscribe("orders", "audit", 2)
	c.node(2).publish("orders", numbers(0, 4)...)
	held := far.hold(2)
	c.setCut(1, true)
	c.until("another leads", func() bool {
		id, _ := c.node(3).Leader(s)
		return id == 2 || id == 3
	})
	for _, d := range held {
		far.ok(far.sub.Finish(d.ID))
	}
	rest := far.hold(2)
	for i, d := range rest {
		if string(d.Body) != fmt.Sprint(2+i) || d.Attempts != 1 {
			t.Errorf("%q came in place of %d, attempt %d", d.Body, 2+i, d.Attempts)
		}
		far.ok(far.sub.Finish(d.ID))
	}
	c.setCut(1, false)
	c.finished("orders")
}

// What the consumers of a node held that is gone comes back, and is no attempt.
func TestNodeOfConsumersIsGone(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	c.leads(c.shardOf("orders"), 1)
	far := c.node(2).subscribe("orders", "audit", 2)
	c.node(1).publish("orders", "a", "b")
	far.hold(2)
	near := c.node(3).subscribe("orders", "audit", 2)
	c.setCut(2, true)
	for _, d := range near.hold(2) {
		if d.Attempts != 1 {
			t.Errorf("%s has attempt %d", d.Body, d.Attempts)
		}
		near.ok(near.sub.Finish(d.ID))
	}
	c.setCut(2, false)
	c.finished("orders")
}

// An ephemeral channel of a durable topic is one for all nodes while its leader is
// the same, and gone with its last consumer.
func TestRelayEphemeralChannel(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	c.leads(c.shardOf("orders"), 1)
	two, three := c.node(2).subscribe("orders", "tail#ephemeral", 1), c.node(3).subscribe("orders", "tail#ephemeral", 1)
	c.node(3).publish("orders", "a", "b")
	got := []string{string(two.hold(1)[0].Body), string(three.hold(1)[0].Body)}
	slices.Sort(got)
	if d := cmp.Diff([]string{"a", "b"}, got); d != "" {
		t.Error(d)
	}
	two.sub.Close(false)
	three.sub.Close(false)
	c.until("the channel has gone with its consumers", func() bool {
		pv, _ := c.partitionOn(1, "orders")
		return len(pv.Channels) == 0
	})
}

// A node that leads no more lets go of the consumers of others, who have found the new
// leader: else two former leaders would keep an ephemeral channel alive for each other.
func TestMovedEphemeralChannelGoes(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	var all []*consumer
	for id := uint64(1); id <= 3; id++ {
		all = append(all, c.node(id).subscribe("orders", "tail#ephemeral", 1))
	}
	for i := range 4 {
		c.leads(c.shardOf("orders"), uint64(i)%3+1)
		seen := make(map[*consumer]bool)
		c.until("all have had a message", func() bool { // not of those before the channel was there
			c.node(3).publish("orders", "a")
			for _, x := range all {
				ds, err := x.sub.Take(nil, 1<<20)
				x.ok(err)
				for _, d := range ds {
					seen[x] = true
					x.ok(x.sub.Finish(d.ID))
				}
			}
			return len(seen) == len(all)
		})
	}
	for _, x := range all {
		x.sub.Close(false)
	}
	c.until("the channel has gone with its consumers", func() bool {
		for id := uint64(1); id <= 3; id++ {
			if pv, _ := c.partitionOn(id, "orders"); len(pv.Channels)+len(c.node(id).stats("orders").Channels) > 0 {
				return false
			}
		}
		return true
	})
}

// An ephemeral topic is there for all nodes, wherever it lives.
func TestEphemeralTopicElsewhere(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	near := c.node(1).subscribe("live#ephemeral", "audit#ephemeral", 1)
	c.until("all know the topic", func() bool {
		for id := uint64(2); id <= 3; id++ {
			if _, ok := c.node(id).meta.View().Topic("live#ephemeral"); !ok {
				return false
			}
		}
		return true
	})
	far := c.node(2).subscribe("live#ephemeral", "other#ephemeral", 5)
	three := c.node(3)
	three.ok(three.PublishWait(three.ctx(), "live#ephemeral", []broker.Message{{Body: []byte("x")}, {Body: []byte("y")}}))
	if d := cmp.Diff([]string{"x", "y"}, far.take(2)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"x", "y"}, near.take(2)); d != "" {
		t.Error(d)
	}
}
