package broker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

func TestNames(t *testing.T) {
	long := "a123456789b123456789c123456789d123456789e123456789f123456789g123"
	for name, want := range map[string]bool{
		"a": true, "a.b-c_D9": true, "x#ephemeral": true, long: true,
		"": false, "#ephemeral": false, "a b": false, "a#eph": false, "é": false, long + "4": false,
		"a#ephemeral#ephemeral": false,
	} {
		if broker.ValidTopic(name) != want || broker.ValidChannel(name) != want {
			t.Errorf("%q: valid is not %v", name, want)
		}
	}
}

func TestPublishMakesTheTopicInOrder(t *testing.T) {
	r := newRig(t)
	const n = 50
	done := make(chan error, n)
	for i := range n {
		r.ok(r.Publish("orders", []broker.Message{{Body: fmt.Append(nil, i)}}, completion(done)))
	}
	for range n {
		r.ok(<-done)
	}
	c := r.subscribe("orders", "audit", 10)
	for i, body := range c.take(n) {
		if body != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, body)
		}
	}
}

type completion chan error

func (c completion) Published(_ int64, err error) { c <- err }

func TestCrashKeepsWhatWasAcknowledged(t *testing.T) {
	r := newRig(t)
	r.publish("orders", "a", "b", "c")
	c := r.subscribe("orders", "audit", 1)
	c.take(1)
	r.ok(r.Settle(r.ctx()))
	r.restart()
	got := r.subscribe("orders", "audit", 5).take(2)
	if d := cmp.Diff([]string{"b", "c"}, got); d != "" {
		t.Fatal(d)
	}
}

func TestEveryChannelGetsEveryMessage(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateTopic(r.ctx(), "orders"))
	r.ok(r.CreateChannel(r.ctx(), "orders", "one"))
	r.publish("orders", "a")
	r.ok(r.CreateChannel(r.ctx(), "orders", "two")) // made after a: starts behind it
	r.publish("orders", "b")
	if d := cmp.Diff([]string{"a", "b"}, r.subscribe("orders", "one", 5).take(2)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"b"}, r.subscribe("orders", "two", 5).take(1)); d != "" {
		t.Error(d)
	}
}

// TestMessageCountOfChannelsWithoutConsumers: a channel counts from its making,
// before and after its first consumer comes.
func TestMessageCountOfChannelsWithoutConsumers(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateTopic(r.ctx(), "orders"))
	r.publish("orders", "a")
	r.ok(r.CreateChannel(r.ctx(), "orders", "one")) // is given a
	r.publish("orders", "b")
	r.ok(r.CreateChannel(r.ctx(), "orders", "two"))
	r.publish("orders", "c", "d")
	check := func(when string) {
		t.Helper()
		for i, want := range []int64{4, 2} {
			c := r.stats("orders").Channels[i]
			if c.MessageCount != want || c.Depth != want {
				t.Errorf("%s: channel %s counts %d, depth %d; want %d", when, c.Name, c.MessageCount, c.Depth, want)
			}
		}
	}
	check("without consumers")
	r.subscribe("orders", "one", 0)
	r.subscribe("orders", "two", 0)
	r.eventually("both are in use", func() bool { return r.stats("orders").Channels[1].Depth == 2 })
	check("in use")
	r.ok(r.CreateChannel(r.ctx(), "orders", "two")) // once more changes nothing
	r.publish("orders", "e")
	if c := r.stats("orders").Channels[1]; c.MessageCount != 3 {
		t.Errorf("channel two counts %d after one more", c.MessageCount)
	}
}

// TestMessageCountOfChannelMadeAtOnce: however many make a channel at the same
// time, what was given before it is left out of its count once.
func TestMessageCountOfChannelMadeAtOnce(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateTopic(r.ctx(), "orders"))
	r.ok(r.CreateChannel(r.ctx(), "orders", "first"))
	r.publish("orders", "a", "b", "c")
	names := []string{"m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7"}
	for _, name := range names {
		var makers errgroup.Group
		for range 8 {
			makers.Go(func() error { return r.CreateChannel(r.ctx(), "orders", name) })
		}
		r.ok(makers.Wait())
	}
	r.publish("orders", "d", "e")
	for _, name := range names[:4] {
		r.subscribe("orders", name, 0)
	}
	for _, c := range r.stats("orders").Channels[1:] {
		if c.MessageCount != 2 {
			t.Errorf("channel %s counts %d messages, not 2", c.Name, c.MessageCount)
		}
	}
}

// TestCreateChannelGoesOnWithoutItsCaller: a channel that metadata knows is on
// its partitions soon, also when who asked for it has left.
func TestCreateChannelGoesOnWithoutItsCaller(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateTopic(r.ctx(), "orders"))
	r.publish("orders", "a")
	ctx, cancel := context.WithCancel(r.ctx())
	cancel()
	if err := r.CreateChannel(ctx, "orders", "one"); err != nil && fault.CodeOf(err) != fault.Timeout {
		t.Fatal(err)
	}
	r.eventually("the channel is given what waits", func() bool {
		s := r.stats("orders")
		return s.Depth == 0 && len(s.Channels) == 1 && s.Channels[0].Depth == 1
	})
}

// TestPauseWhileChannelComesIntoUse: however a pause falls together with the
// first consumer, the channel does what its metadata says.
func TestPauseWhileChannelComesIntoUse(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateTopic(r.ctx(), "orders"))
	for i := range 100 {
		name := fmt.Sprint("c", i)
		r.ok(r.CreateChannel(r.ctx(), "orders", name))
		var both errgroup.Group
		both.Go(func() error { return r.PauseChannel(r.ctx(), "orders", name, true) })
		r.subscribe("orders", name, 0)
		r.ok(both.Wait())
		if !r.ChannelPaused("orders", name) {
			t.Fatalf("channel %s is not paused", name)
		}
	}
}

func TestPauseSurvivesRestart(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateTopic(r.ctx(), "orders"))
	r.ok(r.CreateChannel(r.ctx(), "orders", "audit"))
	r.ok(r.PauseTopic(r.ctx(), "orders", true))
	r.ok(r.PauseChannel(r.ctx(), "orders", "audit", true))
	r.publish("orders", "a")
	r.restart()
	s := r.stats("orders")
	if !s.Paused || s.Depth != 1 || len(s.Channels) != 1 || !s.Channels[0].Paused || s.Channels[0].Depth != 0 {
		t.Fatalf("%+v", s)
	}
	c := r.subscribe("orders", "audit", 5)
	r.ok(r.PauseTopic(r.ctx(), "orders", false))
	r.eventually("hand-over", func() bool { return r.stats("orders").Channels[0].Depth == 1 })
	r.ok(r.PauseChannel(r.ctx(), "orders", "audit", false))
	c.take(1)
}

func TestDeleteTopicAndMakeItAnew(t *testing.T) {
	r := newRig(t)
	r.publish("orders", "old")
	c := r.subscribe("orders", "audit", 5)
	c.take(1)
	r.ok(r.DeleteTopic(r.ctx(), "orders"))
	select {
	case <-c.sub.Done():
	case <-r.ctx().Done():
		t.Fatal("subscription outlives its topic")
	}
	if err := r.DeleteTopic(r.ctx(), "orders"); !errors.Is(err, fault.TopicNotFound) {
		t.Fatalf("second delete: %v", err)
	}
	r.publish("orders", "new")
	if got := r.subscribe("orders", "audit", 5).take(1); got[0] != "new" {
		t.Fatal(got)
	}
}

// TestDeletionIsFinishedAfterACrash plays a crash between metadata and shards:
// Recover brings both to the same end.
func TestDeletionIsFinishedAfterACrash(t *testing.T) {
	r := newRig(t)
	r.publish("gone", "x")
	r.publish("stays", "x")
	r.ok(r.CreateChannel(r.ctx(), "stays", "audit"))
	gone, _ := r.meta.View().Topic("gone")
	stays, _ := r.meta.View().Topic("stays")
	ch, _ := stays.Channel("audit")
	marked := make(chan error, 3)
	r.meta.DeleteTopic(gone.ID, func(err error) { marked <- err })
	r.meta.DeleteChannel(stays.ID, ch.ID, func(err error) { marked <- err })
	// known to metadata only
	r.ok(r.CreateTopic(r.ctx(), "half"))
	half, _ := r.meta.View().Topic("half")
	r.ok(<-marked)
	r.ok(<-marked)
	r.restart()
	if _, ok := r.meta.View().TopicID(gone.ID); ok {
		t.Error("the deletion of the topic was not finished")
	}
	if s := r.stats("stays"); len(s.Channels) != 0 || s.Depth != 0 {
		t.Errorf("the deletion of the channel was not finished: %+v", s)
	}
	if s := r.stats("half"); s.Name != half.Name {
		t.Errorf("%+v", s)
	}
	for _, m := range r.machines {
		done := make(chan struct{})
		m.Query(func(v *partition.View) {
			v.Each(func(p partition.PartitionView) {
				if p.Topic == gone.ID {
					t.Error("the shard still has the deleted topic")
				}
			})
			close(done)
		})
		<-done
	}
}

func TestDeleteWhilePublishing(t *testing.T) {
	r := newRig(t)
	ctx, cancel := context.WithCancel(r.ctx())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := r.PublishWait(r.ctx(), "orders", []broker.Message{{Body: []byte("x")}})
				switch fault.CodeOf(err) {
				case fault.None, fault.TopicNotFound, fault.Deleting:
				default:
					t.Errorf("publish: %v", err)
					return
				}
			}
		})
	}
	for i := range 60 {
		err := r.DeleteTopic(r.ctx(), "orders")
		if err != nil && !errors.Is(err, fault.TopicNotFound) {
			t.Fatal(err)
		}
		if i%2 == 0 {
			r.ok(r.CreateTopic(r.ctx(), "orders"))
		}
		r.publish("orders", "after the deletion")
	}
	cancel()
	wg.Wait()
	r.publish("orders", "last")
}

func TestConcurrentSubscribersMakeOneChannel(t *testing.T) {
	r := newRig(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := r.Subscribe(r.ctx(), "orders", "audit", delivery.SubOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s := r.stats("orders"); len(s.Channels) != 1 || len(s.Channels[0].Subscriptions) != 20 {
		t.Fatalf("%+v", s)
	}
}

func TestEphemeralChannelGoesWithItsLastConsumer(t *testing.T) {
	r := newRig(t)
	r.publish("orders", "before")
	c := r.subscribe("orders", "tail#ephemeral", 5)
	if got := c.take(1); got[0] != "before" { // the first channel takes what waits
		t.Fatal(got)
	}
	r.publish("orders", "while")
	c.take(1)
	c.sub.Close(false)
	r.eventually("channel gone", func() bool { return len(r.stats("orders").Channels) == 0 })
	r.publish("orders", "after")
	r.eventually("waits in the topic", func() bool { return r.stats("orders").Depth == 1 })
}

func TestEphemeralChannelIsGoneAfterACrash(t *testing.T) {
	r := newRig(t)
	c := r.subscribe("orders", "tail#ephemeral", 5)
	r.publish("orders", "while")
	c.take(1)
	r.restart()
	r.publish("orders", "after")
	r.eventually("waits in the topic", func() bool {
		s := r.stats("orders")
		return s.Depth == 1 && len(s.Channels) == 0
	})
}

func TestEphemeralTopic(t *testing.T) {
	r := newRig(t)
	r.publish("now#ephemeral", "a", "b")
	if s := r.stats("now#ephemeral"); s.MessageCount != 2 || s.MessageBytes != 2 { // bodies, not batches
		t.Fatalf("%d messages of %d bytes, want 2 of 2", s.MessageCount, s.MessageBytes)
	}
	c := r.subscribe("now#ephemeral", "ch#ephemeral", 5)
	if d := cmp.Diff([]string{"a", "b"}, c.take(2)); d != "" {
		t.Fatal(d)
	}
	c.sub.Close(false)
	r.eventually("topic gone with its last channel", func() bool {
		all, err := r.Stats(r.ctx(), broker.Filter{Topic: "now#ephemeral"})
		r.ok(err)
		return len(all) == 0
	})
	r.publish("now#ephemeral", "c")
	r.restart()
	r.eventually("an ephemeral topic goes with its process", func() bool {
		all, err := r.Stats(r.ctx(), broker.Filter{})
		r.ok(err)
		return len(all) == 0
	})
}

func TestEmpty(t *testing.T) {
	r := newRig(t)
	r.publish("orders", "a", "b")
	r.ok(r.EmptyTopic(r.ctx(), "orders"))
	if s := r.stats("orders"); s.Depth != 0 {
		t.Fatalf("%+v", s)
	}
	r.ok(r.CreateChannel(r.ctx(), "orders", "audit"))
	r.publish("orders", "c", "d")
	c := r.subscribe("orders", "audit", 1)
	held, err := c.sub.Take(nil, 1<<20)
	r.ok(err)
	r.ok(r.EmptyChannel(r.ctx(), "orders", "audit"))
	if len(held) > 0 {
		if err := c.sub.Finish(held[0].ID); !errors.Is(err, fault.NotInFlight) {
			t.Fatalf("finish after empty: %v", err)
		}
	}
	r.publish("orders", "e")
	if got := c.take(1); got[0] != "e" {
		t.Fatal(got)
	}
}

func TestDeferredComesBackAfterACrash(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateTopic(r.ctx(), "orders"))
	r.ok(r.CreateChannel(r.ctx(), "orders", "audit"))
	due := time.Now().Add(700 * time.Millisecond)
	r.ok(r.PublishWait(r.ctx(), "orders", []broker.Message{{Body: []byte("later"), DueNs: due.UnixNano()}}))
	if s := r.stats("orders"); s.Channels[0].Deferred != 1 || s.Channels[0].Depth != 0 {
		t.Fatalf("%+v", s)
	}
	r.restart()
	r.subscribe("orders", "audit", 5).take(1)
	if early := time.Until(due); early > 0 {
		t.Fatalf("came %v early", early)
	}
}

func TestExit(t *testing.T) {
	r := newRig(t)
	c := r.subscribe("orders", "audit", 5)
	r.Exit()
	<-c.sub.Done()
	if err := r.Publish("orders", []broker.Message{{Body: []byte("x")}}, nil); !errors.Is(err, fault.Exiting) {
		t.Fatal(err)
	}
	if _, err := r.Subscribe(r.ctx(), "orders", "audit", delivery.SubOptions{}); !errors.Is(err, fault.Exiting) {
		t.Fatal(err)
	}
}

func TestUnknownNames(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateTopic(r.ctx(), "orders"))
	for what, err := range map[string]error{
		"empty topic":    r.EmptyTopic(r.ctx(), "nope"),
		"pause topic":    r.PauseTopic(r.ctx(), "nope", true),
		"create channel": r.CreateChannel(r.ctx(), "nope", "c"),
	} {
		if !errors.Is(err, fault.TopicNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"delete channel": r.DeleteChannel(r.ctx(), "orders", "nope"),
		"empty channel":  r.EmptyChannel(r.ctx(), "orders", "nope"),
		"pause channel":  r.PauseChannel(r.ctx(), "orders", "nope", true),
	} {
		if !errors.Is(err, fault.ChannelNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := r.CreateTopic(r.ctx(), "bad name"); !errors.Is(err, fault.InvalidTopic) {
		t.Error(err)
	}
}
