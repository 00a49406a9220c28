package broker_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/fault"
)

// read collects the bodies of a range.
func (r *rig) read(topic string, x broker.Range) (bodies []string, at []broker.Stored, end broker.ReadEnd) {
	r.t.Helper()
	end, err := r.Read(r.ctx(), topic, x, func(s *broker.Stored) bool {
		bodies, at = append(bodies, string(s.Record.Value)), append(at, *s)
		return true
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return bodies, at, end
}

func TestReadARange(t *testing.T) {
	r := newRig(t)
	if err := r.CreateTopic(r.ctx(), "never"); err != nil {
		t.Fatal(err)
	}
	if bodies, _, end := r.read("never", broker.Range{}); len(bodies) != 0 || end.End != 0 {
		t.Errorf("a topic without messages: %v, %+v", bodies, end)
	}
	for batch := range 20 {
		var msgs []broker.Message
		for i := range 5 {
			msgs = append(msgs, broker.Message{Body: fmt.Appendf(nil, "%02d", 5*batch+i)})
		}
		if err := r.PublishWait(r.ctx(), "orders", msgs); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // from the tail, and after a restart
		r.readsOrders()
		r.restart()
	}
	if _, err := r.Read(r.ctx(), "none", broker.Range{}, nil); fault.CodeOf(err) != fault.TopicNotFound {
		t.Error(err)
	}
	if _, err := r.Read(r.ctx(), "orders", broker.Range{Partition: 1}, nil); fault.CodeOf(err) != fault.InvalidRequest {
		t.Error(err)
	}
}

func (r *rig) readsOrders() {
	t := r.t
	t.Helper()
	all, at, end := r.read("orders", broker.Range{})
	if len(all) != 100 || all[37] != "37" || end.Next != 100 || end.End != 100 || len(end.Gaps) != 0 {
		t.Fatalf("all: %d, %+v", len(all), end)
	}
	if !slices.IsSortedFunc(at, func(a, b broker.Stored) int { return int(a.TimeNs - b.TimeNs) }) {
		t.Error("times do not rise")
	}
	some, _, end := r.read("orders", broker.Range{From: 33, MaxRecords: 4})
	if !slices.Equal(some, []string{"33", "34", "35", "36"}) || end.Next != 37 || end.Records != 4 {
		t.Errorf("some: %v, %+v", some, end)
	}
	if last, _, _ := r.read("orders", broker.Range{Last: 3}); !slices.Equal(last, []string{"97", "98", "99"}) {
		t.Errorf("last: %v", last)
	}
	for _, o := range []int{0, 1, 4, 5, 42, 99} { // each at exactly its time, and just before
		for _, ns := range []int64{at[o].TimeNs, at[o].TimeNs - 1} {
			if o > 0 && at[o-1].TimeNs == ns || ns == 0 {
				continue
			}
			got, _, _ := r.read("orders", broker.Range{FromNs: ns, MaxRecords: 1})
			if len(got) != 1 || got[0] != fmt.Sprintf("%02d", o) {
				t.Errorf("from %d ns, %+d: %v", ns, ns-at[o].TimeNs, got)
			}
		}
	}
	if got, _, end := r.read("orders", broker.Range{FromNs: at[99].TimeNs + 1}); len(got) != 0 || end.Next != 100 {
		t.Errorf("behind the end: %v, %+v", got, end)
	}
	if got, _, end := r.read("orders", broker.Range{From: 500}); len(got) != 0 || end.End != 100 {
		t.Errorf("from above: %v, %+v", got, end)
	}
}

// TestOldest: the oldest unfinished message is told by its publish time, whether
// the channel is in use or not.
func TestOldest(t *testing.T) {
	r := newRig(t)
	oldest := func() int64 {
		t.Helper()
		all, err := r.Figures(r.ctx(), broker.Filter{})
		if err != nil || len(all) != 1 || len(all[0].Oldest) != 1 {
			t.Fatalf("%v, %+v", err, all)
		}
		return all[0].Oldest[0]
	}
	if err := r.CreateTopic(r.ctx(), "orders"); err != nil {
		t.Fatal(err)
	}
	if err := r.CreateChannel(r.ctx(), "orders", "audit"); err != nil {
		t.Fatal(err)
	}
	if at := oldest(); at != 0 {
		t.Errorf("nothing is unfinished, and the oldest is of %d", at)
	}
	for _, body := range []string{"a", "b"} {
		if err := r.PublishWait(r.ctx(), "orders", []broker.Message{{Body: []byte(body)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.PublishWait(r.ctx(), "orders", []broker.Message{{Body: []byte("c"), DueNs: time.Now().Add(time.Hour).UnixNano()}}); err != nil {
		t.Fatal(err)
	}
	_, at, _ := r.read("orders", broker.Range{})
	if got := oldest(); got != at[0].TimeNs {
		t.Errorf("oldest %d, want %d", got, at[0].TimeNs)
	}
	c := r.subscribe("orders", "audit", 1)
	var d []delivery.Delivery
	r.eventually("a delivery", func() bool {
		got, err := c.sub.Take(nil, 1<<20)
		r.ok(err)
		d = append(d, got...)
		return len(d) > 0
	})
	if got := oldest(); got != at[0].TimeNs {
		t.Errorf("in flight: oldest %d, want %d", got, at[0].TimeNs)
	}
	r.ok(c.sub.Finish(d[0].ID))
	r.eventually("the next one is the oldest", func() bool { return oldest() == at[1].TimeNs })
	c.sub.Close(false)
}
