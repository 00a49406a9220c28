package broker_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// asked is a question for the channels of a new topic that waits for its answer.
type asked struct {
	topic string
	done  func([]string)
}

// prepared is a rig whose questions the test answers.
func prepared(t *testing.T) (*rig, chan asked) {
	questions := make(chan asked, 10)
	return newRigWith(t, func(o *broker.Options) {
		o.Prepare = func(topic string, done func([]string)) { questions <- asked{topic, done} }
	}), questions
}

// outcome is a publish under way.
type outcome chan error

func (o outcome) Published(_ int64, err error) { o <- err }

func (r *rig) begin(topic, body string) outcome {
	r.t.Helper()
	o := make(outcome, 1)
	r.ok(r.Publish(topic, []partition.Message{{Body: []byte(body)}}, o))
	return o
}

// Whatever is published to a new topic waits for the channels that it is to
// have, and then every one of them gets all of it, in order.
func TestPublishesWaitForThePreparedChannels(t *testing.T) {
	for _, topic := range []string{"orders", "orders#ephemeral"} {
		t.Run(topic, func(t *testing.T) {
			r, questions := prepared(t)
			var all []outcome
			for i := range 5 {
				all = append(all, r.begin(topic, fmt.Sprint(i)))
			}
			q := <-questions
			if q.topic != topic || len(all[0]) > 0 {
				t.Fatal(q.topic, len(all[0]))
			}
			q.done([]string{"b", "a", "b", "tail#ephemeral", "not a name", ""})
			for _, o := range all {
				r.ok(<-o)
			}
			channels, ok := r.ChannelNames(topic)
			if !ok || len(channels) != 2 {
				t.Fatalf("channels %v", channels)
			}
			for _, c := range []string{"a", "b"} {
				if got := r.subscribe(topic, c, 10).take(5); !slices.IsSorted(got) {
					t.Errorf("%s gets %v", c, got)
				}
			}
			if len(questions) > 0 {
				t.Error("asked again")
			}
		})
	}
}

// A consumer's own channel is made after the others.
func TestSubscribersWaitForThePreparedChannels(t *testing.T) {
	r, questions := prepared(t)
	go func() { (<-questions).done([]string{"a"}) }()
	c := r.subscribe("orders", "mine", 10)
	r.publish("orders", "x")
	c.take(1)
	r.subscribe("orders", "a", 10).take(1)
}

// A topic that is deleted while it is prepared takes nothing, and can be made
// anew.
func TestDeletedWhileItIsPrepared(t *testing.T) {
	r, questions := prepared(t)
	o := r.begin("orders", "lost")
	q := <-questions
	m, _ := r.meta.View().Topic("orders")
	for _, call := range []func(uint64, func(error)){r.meta.DeleteTopic, r.meta.FinishDeleteTopic} {
		done := make(chan error, 1)
		call(m.ID, func(err error) { done <- err })
		r.ok(<-done)
	}
	q.done([]string{"a"})
	if err := <-o; fault.CodeOf(err) != fault.TopicNotFound {
		t.Fatalf("published: %v", err)
	}
	o = r.begin("orders", "kept")
	(<-questions).done(nil)
	r.ok(<-o)
	if s := r.stats("orders"); s.Depth != 1 || len(s.Channels) != 0 {
		t.Errorf("%+v", s)
	}
}

func TestNamesAndTheirChanges(t *testing.T) {
	var changes atomic.Int64
	r := newRigWith(t, func(o *broker.Options) { o.Changed = func() { changes.Add(1) } })
	r.publish("orders", "x")
	r.ok(r.CreateChannel(r.ctx(), "orders", "c"))
	before, _ := r.ChannelNames("orders")
	if len(before) != 1 || before[0].Name != "c" || changes.Load() != 0 {
		t.Fatalf("%v, %d changes", before, changes.Load())
	}
	c := r.subscribe("orders", "tail#ephemeral", 1)
	if got, _ := r.ChannelNames("orders"); len(got) != 2 || changes.Load() != 1 {
		t.Fatalf("%v, %d changes", got, changes.Load())
	}
	c.sub.Close(false)
	r.eventually("the channel ends", func() bool { return changes.Load() == 2 })
	if got, _ := r.ChannelNames("orders"); !slices.Equal(got, before) {
		t.Errorf("%v", got)
	}
	topics := r.TopicNames()
	r.ok(r.DeleteTopic(r.ctx(), "orders"))
	if got := r.TopicNames(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if _, ok := r.ChannelNames("orders"); ok {
		t.Error("channels of no topic")
	}
	r.publish("orders", "x")
	if got := r.TopicNames(); len(got) != 1 || got[0].ID == topics[0].ID {
		t.Errorf("%v, before %v", got, topics)
	}
}
