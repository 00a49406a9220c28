package broker_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// requeue takes n messages and gives each back.
func (c *consumer) requeue(n int, delay time.Duration) {
	c.t.Helper()
	for _, d := range c.hold(n) {
		c.ok(c.sub.Requeue(d.ID, delay))
	}
}

func TestSetMaxAttempts(t *testing.T) {
	r := newRig(t)
	long := strings.Repeat("l", 40)
	for _, topic := range []string{"orders", long} {
		r.ok(r.CreateTopic(r.ctx(), topic))
		r.ok(r.CreateChannel(r.ctx(), topic, "billing"))
		r.ok(r.CreateChannel(r.ctx(), topic, long))
	}
	r.subscribe("orders", "live#ephemeral", 0)
	for _, tt := range []struct {
		topic, channel string
		attempts       int
		to             string
		code           fault.Code
		want           string
	}{
		{"orders", "billing", 3, "", fault.None, "orders.billing.dead"},
		{"orders", "billing", 4, "poison", fault.None, "poison"},
		{"orders", "billing", 5, "", fault.None, "poison"},
		{"orders", "billing", 0, "", fault.None, ""},
		{"orders", "billing", 0, "poison", fault.InvalidRequest, ""},
		{"orders", "billing", -1, "", fault.InvalidRequest, ""},
		{"orders", "billing", meta.MaxAttempts + 1, "", fault.InvalidRequest, ""},
		{"orders", "billing", meta.MaxAttempts, "", fault.None, "orders.billing.dead"},
		{"orders", "billing", 1, "orders", fault.InvalidRequest, "orders.billing.dead"},
		{"orders", "billing", 1, "p#ephemeral", fault.InvalidRequest, "orders.billing.dead"},
		{"orders", "billing", 1, "p q", fault.InvalidTopic, "orders.billing.dead"},
		{long, long, 1, "", fault.InvalidRequest, ""},
		{long, long, 1, "poison", fault.None, "poison"},
		{"orders", "live#ephemeral", 1, "", fault.Unsupported, ""},
		{"orders", "none", 1, "", fault.ChannelNotFound, ""},
		{"none", "billing", 1, "", fault.TopicNotFound, ""},
	} {
		err := r.SetMaxAttempts(r.ctx(), tt.topic, tt.channel, tt.attempts, tt.to)
		if fault.CodeOf(err) != tt.code {
			t.Errorf("%+v: %v", tt, err)
		}
		if tt.code == fault.TopicNotFound || tt.code == fault.ChannelNotFound {
			continue
		}
		channels := r.stats(tt.topic).Channels
		i := slices.IndexFunc(channels, func(c broker.ChannelStats) bool { return c.Name == tt.channel })
		if c := channels[i]; c.DeadLetter != tt.want || tt.code == fault.None && int(c.MaxAttempts) != tt.attempts {
			t.Errorf("%+v: shows as %d, %q", tt, c.MaxAttempts, c.DeadLetter)
		}
	}
}

func TestDeadLetters(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateTopic(r.ctx(), "orders"))
	r.ok(r.CreateChannel(r.ctx(), "orders", "billing"))
	r.ok(r.SetMaxAttempts(r.ctx(), "orders", "billing", 2, ""))
	r.ok(r.PublishWait(r.ctx(), "orders", []broker.Message{{Body: []byte("poison"), Key: []byte("k")}}))
	r.publish("orders", "food")
	s := r.subscribe("orders", "billing", 1)
	s.requeue(1, 0)
	s.requeue(1, time.Hour)
	if got := s.take(1); got[0] != "food" {
		t.Fatalf("%q came", got)
	}
	dead := r.subscribe("orders.billing.dead", "look", 1)
	d := dead.hold(1)[0]
	if string(d.Body) != "poison" || string(d.Key) != "k" || d.Attempts != 1 {
		t.Errorf("dead letter %q, key %q, attempt %d", d.Body, d.Key, d.Attempts)
	}
	dead.ok(dead.sub.Finish(d.ID))
	r.eventually("it is finished", func() bool {
		c := r.stats("orders").Channels[0]
		return c.Depth+c.InFlight+c.Deferred == 0 && c.DeadLetterCount == 1
	})
	dead.nothing()

	// The limit survives, and so does the number of attempts.
	r.publish("orders", "again")
	s.requeue(1, 0)
	r.ok(r.Settle(r.ctx()))
	r.restart()
	s = r.subscribe("orders", "billing", 1)
	if got := s.hold(1)[0]; got.Attempts != 2 {
		t.Fatalf("attempt %d came", got.Attempts)
	}
	s.sub.Close(true)
	if got := r.subscribe("orders.billing.dead", "look", 1).take(1); got[0] != "again" {
		t.Fatalf("%q came", got)
	}
}

// What was spent when the process ended is moved by the next one, without a consumer.
func TestDeadLettersOfTheProcessBefore(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateTopic(r.ctx(), "orders"))
	r.ok(r.CreateChannel(r.ctx(), "orders", "billing"))
	r.ok(r.SetMaxAttempts(r.ctx(), "orders", "billing", 1, "dead"))
	r.publish("orders", "poison", "food")
	s := r.subscribe("orders", "billing", 1)
	d := s.hold(1)[0]
	r.Exit() // publishes nothing any more
	s.ok(s.sub.Requeue(d.ID, 0))
	r.ok(r.Settle(r.ctx()))
	r.restart()
	if got := r.subscribe("dead", "look", 1).take(1); got[0] != "poison" {
		t.Fatalf("%q came", got)
	}
	r.eventually("it is finished", func() bool {
		c := r.stats("orders").Channels[0]
		return c.Depth == 1 && c.Deferred == 0 && c.DeadLetterCount == 1
	})
}

// Dead letters of a channel whose limit is lifted are delivered again, and those of
// one that is deleted are gone.
func TestDeadLettersThatGoNowhere(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateTopic(r.ctx(), "orders"))
	for _, name := range []string{"billing", "stock"} {
		r.ok(r.CreateChannel(r.ctx(), "orders", name))
		r.ok(r.SetMaxAttempts(r.ctx(), "orders", name, 1, "dead"))
	}
	r.ok(r.CreateTopic(r.ctx(), "dead"))
	r.ok(r.CreateChannel(r.ctx(), "dead", "look"))
	r.publish("orders", "one", "two")
	billing, stock := r.subscribe("orders", "billing", 1), r.subscribe("orders", "stock", 1)
	d := billing.hold(1)[0]
	r.ok(r.SetMaxAttempts(r.ctx(), "orders", "billing", 0, ""))
	r.ok(billing.sub.Requeue(d.ID, 0))
	if got := billing.hold(1)[0]; string(got.Body) != "one" || got.Attempts != 2 {
		t.Fatalf("%q came, attempt %d", got.Body, got.Attempts)
	}
	d = stock.hold(1)[0]
	r.ok(r.DeleteChannel(r.ctx(), "orders", "stock"))
	if err := stock.sub.Requeue(d.ID, 0); err != nil && fault.CodeOf(err) != fault.NotInFlight {
		t.Fatal(err)
	}
	r.subscribe("dead", "look", 1).nothing()
}

// The limit is the leader's business: consumers, who sets it, and the dead-letter
// topic may be anywhere.
func TestDeadLettersInACluster(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	three := c.node(3)
	three.ok(three.CreateChannel(three.ctx(), "orders", "billing"))
	three.ok(three.SetMaxAttempts(three.ctx(), "orders", "billing", 2, "dead"))
	far := c.node(2).subscribe("orders", "billing", 1)
	c.node(1).publish("orders", "poison")
	far.requeue(1, 0)
	far.requeue(1, 0)
	look := three.subscribe("dead", "look", 1)
	if got := look.take(1); got[0] != "poison" {
		t.Fatalf("%q came", got)
	}
	c.finished("orders")
	far.nothing()

	// The leader takes the last answer, and leaves before it has moved the message.
	near := c.node(1).subscribe("orders", "billing", 1)
	far.sub.SetWindow(0)
	c.node(2).publish("orders", "again")
	near.requeue(1, 0)
	d := near.hold(1)[0]
	one := c.node(1)
	one.Exit()
	one.ok(near.sub.Requeue(d.ID, time.Hour))
	one.ok(one.Settle(one.ctx()))
	look.nothing()
	c.leads(c.shardOf("dead"), 2) // node 1 takes nothing for others either
	c.leads(c.shardOf("orders"), 3)
	if got := look.take(1); got[0] != "again" {
		t.Fatalf("%q came", got)
	}
	c.finished("orders")
}

// Whoever leads meanwhile, each message that nobody finishes comes to be a dead letter.
func TestDeadLettersThroughMoves(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	one := c.node(1)
	one.ok(one.CreateChannel(one.ctx(), "orders", "billing"))
	one.ok(one.SetMaxAttempts(one.ctx(), "orders", "billing", 3, "dead"))
	s := c.shardOf("orders")
	const n = 60
	far := c.node(2).subscribe("orders", "billing", 1)
	look := c.node(3).subscribe("dead", "look", 100)
	one.publish("orders", numbers(0, n)...)
	for leader := range uint64(4) {
		for range n / 4 {
			far.requeue(1, 0)
		}
		c.leads(s, 1+leader%3)
	}
	seen := make(map[string]bool)
	c.until("all are dead letters", func() bool {
		got, err := far.sub.Take(nil, 1<<20)
		far.ok(err)
		for _, d := range got {
			_ = far.sub.Requeue(d.ID, 0) // it may be another's by now
		}
		got, err = look.sub.Take(nil, 1<<20)
		look.ok(err)
		for _, d := range got {
			seen[string(d.Body)] = true
			look.ok(look.sub.Finish(d.ID))
		}
		return len(seen) == n
	})
	c.finished("orders")
}
