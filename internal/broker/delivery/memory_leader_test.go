package delivery

import (
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// A lane that lives in memory does the answers of its consumers that came while nobody
// led, when it begins: the Memory hears of them then.
func TestMemoryLaneBeginsWithAnswers(t *testing.T) {
	r := newMemoryRig(0, 0, MemoryOptions{})
	c, l := r.channel(Config{MirrorID: func() uint64 { return 1 }})
	s := r.subscribe(t, c, 10)
	r.publish(3, 0)
	ds := take(t, s)
	if len(ds) != 3 {
		t.Fatalf("took %s", show(t, ds))
	}
	l.Stop(fault.NotLeader)
	if err := s.Finish(ds[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Requeue(ds[1].ID, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	next := c.SetLane(0, r.log, r.shard, false, false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		next.Begin(partition.Start{Floor: 0, Limit: 3, Term: 2})
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the lane does not begin")
	}
	if st := c.Stats(); st.Deferred != 1 || st.InFlight != 1 || st.Depth != 0 {
		t.Fatalf("stats %+v", st)
	}
	r.clock.advance(31 * time.Second)
	if got := show(t, untimed(take(t, s))); got != "1/2 " {
		t.Fatalf("took %s", got)
	}
}
