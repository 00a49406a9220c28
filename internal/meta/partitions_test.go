package meta

import (
	"slices"
	"testing"

	"github.com/tidings-io/tidings/internal/fault"
)

func (l *loop) raise(topic uint64, count int) (got *Topic, err error) {
	l.t.Helper()
	l.m.RaiseTopic(topic, count, func(t *Topic, e error) { got, err = t, e })
	l.run()
	return got, err
}

func TestTopicsOfSeveralPartitions(t *testing.T) {
	l := newCluster(t, three(), 4, nil)
	var got *Topic
	l.m.CreatePartitioned("orders", 6, func(t *Topic, _ error) { got = t })
	l.run()
	if want := []uint32{1, 2, 3, 4, 1, 2}; !slices.Equal(got.Partitions, want) || got.Active != 6 || got.Raising() {
		t.Errorf("partitions on the shards %v (%d active), want %v", got.Partitions, got.Active, want)
	}
	l.m.CreatePartitioned("orders", 2, func(t *Topic, _ error) { got = t })
	l.m.CreatePartitioned("live#ephemeral", 2, nil)
	l.run()
	if live, _ := l.m.View().Topic("live#ephemeral"); len(got.Partitions) != 6 || len(live.Partitions) != 0 {
		t.Errorf("made again it has %d partitions, the ephemeral one %d", len(got.Partitions), len(live.Partitions))
	}
}

// The new partitions go to the shards that have the fewest, and nothing is published
// to them before the raise is at its end.
func TestRaise(t *testing.T) {
	l := newCluster(t, three(), 4, nil)
	topic := l.create("orders")
	for _, step := range []struct{ from, to int }{{1, 3}, {3, 12}} {
		got, err := l.raise(topic.ID, step.to)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Partitions) != step.to || got.Active != step.from || !got.Raising() || got.Before(step.to) != step.from {
			t.Fatalf("after the raise to %d: %+v", step.to, got)
		}
		if got, err = l.raise(topic.ID, step.to); err != nil || len(got.Partitions) != step.to {
			t.Errorf("asked once more: %+v, %v", got, err)
		}
		if _, err := l.raise(topic.ID, step.to+1); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("another raise meanwhile: %v", err)
		}
		for _, count := range []int{step.to - 1, step.to} { // the first is not what it is raised to
			if err := l.wait(func(d func(error)) { l.m.ActivateTopic(topic.ID, count, d) }); err != nil {
				t.Fatal(err)
			}
		}
		back, err := decodeView(l.m.View().encode())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []*View{l.m.View(), back} {
			if now, _ := v.Topic("orders"); now.Active != step.to || now.Raising() {
				t.Errorf("at the end of the raise to %d: %+v", step.to, now)
			}
		}
	}
	now, _ := l.m.View().Topic("orders")
	if now.Before(1) != 0 || now.Before(3) != 1 || now.Before(12) != 3 || now.Before(4) != 0 {
		t.Errorf("what it had before: %v", now.Raised)
	}
	for _, s := range l.m.View().Shards {
		if s.Partitions != 3 {
			t.Errorf("shard %d carries %d of 12 partitions", s.ID, s.Partitions)
		}
	}
	l.m.FinishDeleteTopic(topic.ID, nil)
	l.run()
	for _, s := range l.m.View().Shards {
		if s.Partitions != 0 {
			t.Errorf("shard %d carries %d partitions of no topic", s.ID, s.Partitions)
		}
	}
}

func TestRaisesThatAreRefused(t *testing.T) {
	l := newCluster(t, three(), 4, nil)
	var topic *Topic
	l.m.CreatePartitioned("orders", 2, func(t *Topic, _ error) { topic = t })
	l.m.CreateTopic("live#ephemeral", nil)
	l.run()
	live, _ := l.m.View().Topic("live#ephemeral")
	for _, x := range []struct {
		topic uint64
		count int
		want  fault.Code
	}{
		{topic.ID, 0, fault.InvalidRequest},
		{topic.ID, 1, fault.InvalidRequest},
		{topic.ID, 2, fault.InvalidRequest},
		{topic.ID, MaxPartitions + 1, fault.InvalidRequest},
		{live.ID, 3, fault.InvalidRequest},
		{topic.ID + 99, 3, fault.TopicNotFound},
	} {
		if _, err := l.raise(x.topic, x.count); fault.CodeOf(err) != x.want {
			t.Errorf("raise of %d to %d: %v, want %v", x.topic, x.count, err, x.want)
		}
	}
	for n := 3; n < 3+MaxRaises; n++ {
		if _, err := l.raise(topic.ID, n); err != nil {
			t.Fatal(err)
		}
		l.m.ActivateTopic(topic.ID, n, nil)
		l.run()
	}
	if _, err := l.raise(topic.ID, MaxPartitions); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("one raise too many: %v", err)
	}
	if _, err := decodeView(l.m.View().encode()); err != nil {
		t.Error(err)
	}
	l.m.DeleteTopic(topic.ID, nil)
	if _, err := l.raise(topic.ID, MaxPartitions); fault.CodeOf(err) != fault.Deleting {
		t.Errorf("of a topic that is being deleted: %v", err)
	}
}
