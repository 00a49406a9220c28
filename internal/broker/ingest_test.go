package broker_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// takeover is three messages that another server had handed to the channels a and b.
func takeover() *broker.Ingest {
	return &broker.Ingest{
		Topic: "orders", Session: broker.Session{1}, From: 0, To: 3, Handed: true,
		Messages: []broker.Message{{Body: []byte("x")}, {Body: []byte("y")}, {Body: []byte("z")}},
		Channels: []broker.IngestChannel{
			{Name: "b", Finished: []offsets.Range{{From: 1, To: 3}}},
			{Name: "gone", Finished: []offsets.Range{{From: 0, To: 3}}},
			{Name: "a", Finished: []offsets.Range{{From: 0, To: 1}}, Attempts: []partition.Attempt{{Offset: 2, N: 4}}},
		},
	}
}

func (r *rig) ready(topic string, channels ...string) {
	r.t.Helper()
	r.ok(r.CreateTopic(r.ctx(), topic))
	for _, c := range channels {
		r.ok(r.CreateChannel(r.ctx(), topic, c))
	}
}

// What is taken over comes to each channel as it had it elsewhere, once, however
// often it is given and wherever the node crashes.
func TestIngest(t *testing.T) {
	r := newRig(t)
	r.ready("orders", "a", "b", "c")
	for range 2 {
		r.ok(r.Ingest(r.ctx(), takeover()))
		r.restart()
		r.ok(r.Ingest(r.ctx(), takeover()))
	}
	if got := r.stats("orders"); got.Depth != 0 {
		t.Errorf("%d messages wait in the topic", got.Depth)
	}
	r.publish("orders", "after")
	c := r.subscribe("orders", "a", 10)
	var attempts []uint16
	for bodies := []string(nil); len(bodies) < 3; {
		got, err := c.sub.Take(nil, 1<<20)
		r.ok(err)
		for _, d := range got {
			bodies, attempts = append(bodies, string(d.Body)), append(attempts, d.Attempts)
			r.ok(c.sub.Finish(d.ID))
		}
		if len(got) == 0 {
			<-c.bell
		}
		if len(bodies) == 3 && (!slices.Contains(bodies, "y") || bodies[slices.Index(attempts, 5)] != "z") {
			t.Errorf("a gets %q with attempts %v", bodies, attempts)
		}
	}
	for channel, want := range map[string][]string{"b": {"x", "after"}, "c": {"after"}} {
		if got := r.subscribe("orders", channel, 10).take(len(want)); !slices.Equal(got, want) {
			t.Errorf("%s gets %q, want %q", channel, got, want)
		}
	}
}

// The channels are made together: what waits in the topic comes to all of them, and
// one that is to be paused is from the beginning.
func TestBeginIngest(t *testing.T) {
	r := newRig(t)
	r.publish("orders", "before")
	start := &broker.IngestStart{Topic: "orders", Session: broker.Session{1}, Channels: []broker.IngestNew{{Name: "b", Paused: true}, {Name: "a"}}}
	for range 2 {
		r.ok(r.BeginIngest(r.ctx(), start))
		r.restart()
	}
	in := takeover()
	in.From, in.To = 1, 4
	r.ok(r.Ingest(r.ctx(), in))
	for channel, want := range map[string][]string{"a": {"before", "y", "z"}, "b": {"before", "x"}} {
		for _, c := range r.stats("orders").Channels {
			if c.Name == channel && c.Paused != (channel == "b") {
				t.Errorf("%s is paused: %v", channel, c.Paused)
			}
		}
		c := r.subscribe("orders", channel, 10)
		r.ok(r.PauseChannel(r.ctx(), "orders", channel, false))
		got := c.take(len(want))
		slices.Sort(got)
		if !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			t.Errorf("%s gets %q, want %q", channel, got, want)
		}
	}
	for _, bad := range []string{"x#ephemeral", "not/a/name"} {
		start := &broker.IngestStart{Topic: "orders", Channels: []broker.IngestNew{{Name: bad}}}
		if err := r.BeginIngest(r.ctx(), start); fault.CodeOf(err) != fault.InvalidChannel {
			t.Errorf("channel %s: %v", bad, err)
		}
	}
}

func TestIngestRefuses(t *testing.T) {
	r := newRig(t)
	r.ready("orders", "a")
	r.ready("mist#ephemeral")
	if n, err := r.Partitions(r.ctx(), "orders"); n != 1 || err != nil {
		t.Errorf("%d partitions, %v", n, err)
	}
	if _, err := r.Partitions(r.ctx(), "mist#ephemeral"); fault.CodeOf(err) != fault.InvalidTopic {
		t.Errorf("an ephemeral topic has partitions: %v", err)
	}
	for name, x := range map[string]struct {
		change func(*broker.Ingest)
		want   fault.Code
	}{
		"an unknown topic":         {func(in *broker.Ingest) { in.Topic = "other" }, fault.TopicNotFound},
		"an ephemeral topic":       {func(in *broker.Ingest) { in.Topic = "mist#ephemeral" }, fault.InvalidTopic},
		"positions out of order":   {func(in *broker.Ingest) { in.From, in.To = 2, 7 }, fault.OutOfOrder},
		"too few positions":        {func(in *broker.Ingest) { in.To = 2 }, fault.InvalidRequest},
		"a range that is too long": {func(in *broker.Ingest) { in.Channels[2].Finished[0].To = 4 }, fault.InvalidRequest},
		"an attempt of no message": {func(in *broker.Ingest) { in.Channels[2].Attempts[0].Offset = 3 }, fault.InvalidRequest},
		"channels of the topic's":  {func(in *broker.Ingest) { in.Handed = false }, fault.InvalidRequest},
		"no such partition":        {func(in *broker.Ingest) { in.Partition = 1 }, fault.InvalidRequest},
		"handed and deferred":      {func(in *broker.Ingest) { in.Messages[0].DueNs = 1 }, fault.InvalidRequest},
		"a channel twice":          {func(in *broker.Ingest) { in.Channels[0].Name = "a" }, fault.InvalidRequest},
	} {
		in := takeover()
		x.change(in)
		if err := r.Ingest(r.ctx(), in); fault.CodeOf(err) != x.want {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
}

// A node that does not lead passes it on; a change of leader doubles nothing.
func TestIngestThroughOtherNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.node(1).ready("orders", "a", "b")
	for id := uint64(1); id <= 3; id++ {
		for s := uint32(1); s <= clusterShards; s++ {
			c.leads(s, id)
		}
		n := c.node(id%3 + 1)
		n.ok(n.Ingest(n.ctx(), takeover()))
		probe := &broker.Ingest{Topic: "orders", Session: broker.Session{1}, From: 3, To: 3}
		n.ok(n.Ingest(n.ctx(), probe))
		probe.From, probe.To = 4, 4
		if err := n.Ingest(n.ctx(), probe); !errors.Is(err, fault.OutOfOrder) {
			t.Fatalf("node %d: a session that has come to 3 answers %v", n.id, err)
		}
	}
	sub, err := c.node(3).Subscribe(c.node(3).ctx(), "orders", "a", delivery.SubOptions{Notify: func() {}})
	c.node(3).ok(err)
	sub.SetWindow(10)
	var bodies []string
	c.until("a has what it is to have", func() bool {
		got, err := sub.Take(nil, 1<<20)
		c.node(3).ok(err)
		for _, d := range got {
			bodies = append(bodies, string(d.Body))
		}
		return len(bodies) >= 2
	})
	slices.Sort(bodies)
	if !slices.Equal(bodies, []string{"y", "z"}) {
		t.Errorf("a gets %q", bodies)
	}
}

// What an edge forwards makes its topic, through any node, and is there once.
func TestForward(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	in := &broker.Ingest{Topic: "fresh", Session: broker.Session{7}, To: 2, Messages: []broker.Message{{Body: []byte("x")}, {Body: []byte("y"), Key: []byte("k")}}}
	for id := uint64(1); id <= 3; id++ {
		n := c.node(id)
		parts, err := n.Forward(n.ctx(), in)
		n.ok(err)
		if parts != 1 {
			t.Errorf("%d partitions", parts)
		}
	}
	n := c.node(2)
	late := *in
	late.From, late.To = 3, 5
	if _, err := n.Forward(n.ctx(), &late); !errors.Is(err, fault.OutOfOrder) {
		t.Errorf("positions that are not next: %v", err)
	}
	late.Handed = true
	if _, err := n.Forward(n.ctx(), &late); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("what channels had: %v", err)
	}
	for s := uint32(1); s <= clusterShards; s++ {
		c.leads(s, 2)
	}
	sub, err := n.Subscribe(n.ctx(), "fresh", "a", delivery.SubOptions{Notify: func() {}})
	n.ok(err)
	sub.SetWindow(10)
	var bodies []string
	c.until("a has what was forwarded", func() bool {
		got, err := sub.Take(nil, 1<<20)
		n.ok(err)
		for _, d := range got {
			bodies = append(bodies, string(d.Body))
		}
		return len(bodies) >= 2
	})
	if !slices.Equal(bodies, []string{"x", "y"}) {
		t.Errorf("a gets %q", bodies)
	}
}

// A node that has not yet seen a raise does not tell an edge that knows of it that there
// are fewer partitions: the edge would take the topic for one that was made anew.
func TestForwardAtANodeThatLags(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for s := uint32(0); s <= clusterShards; s++ {
		c.leads(s, 1)
	}
	in := &broker.Ingest{Topic: "orders", Session: broker.Session{7}, To: 1, Messages: []broker.Message{{Body: []byte("x")}}}
	late := c.node(3)
	_, err := late.Forward(late.ctx(), in)
	late.ok(err)
	c.setCut(3, true)
	n := c.node(1)
	n.ok(n.RaisePartitions(n.ctx(), "orders", 4))
	c.setCut(3, false)
	in.Spread = 4
	parts := 0
	c.until("the node takes what is forwarded", func() bool {
		parts, err = late.Forward(late.ctx(), in)
		return err == nil
	})
	if parts != 4 {
		t.Errorf("the node that lags says that there are %d partitions", parts)
	}
	// And where there are fewer, it says so.
	in.Spread = 5
	if parts, err = late.Forward(late.ctx(), in); err != nil || parts != 4 {
		t.Errorf("%d partitions, %v", parts, err)
	}
}
