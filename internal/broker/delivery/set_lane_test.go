package delivery

import (
	"errors"
	"testing"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// replace puts a new lane in the place of the rig's and begins it.
func (r *rig) replace(st partition.Start) (old *Lane) {
	old = r.lane
	r.lane = r.ch.SetLane(0, r.log, r.shard, false, false)
	r.lane.Begin(st)
	return old
}

// TestSetLane: a new leadership's lane delivers from where it begins; what the old
// one had in flight is nobody's any more, and what is still told to the old one
// has no effect.
func TestSetLane(t *testing.T) {
	r := newRig(Config{})
	r.publish(10)
	s := r.subscribe(t, 3, SubOptions{})
	if got := show(t, take(t, s)); got != "0/1 1/1 2/1 " {
		t.Fatalf("took %s", got)
	}
	old := r.replace(partition.Start{Floor: 1, Limit: 10, Attempts: map[int64]uint16{2: 1}})
	if st := r.ch.Stats(); st.InFlight != 0 || st.Depth != 9 {
		t.Fatalf("stats %+v", st)
	}
	if err := s.Finish(id(1)); !errors.Is(err, fault.NotInFlight) {
		t.Fatalf("FIN of what the old lane had: %v", err)
	}
	if got := show(t, take(t, s)); got != "1/1 2/2 3/1 " {
		t.Fatalf("took %s", got)
	}
	old.Limit(100)
	old.Skip(4, 8)
	if n := old.Due(entries(0, 1, 1)); n != 0 {
		t.Fatalf("the old lane took %d due messages", n)
	}
	old.Reset(partition.Start{Limit: 50})
	old.Begin(partition.Start{Limit: 50})
	old.Stop(fault.NotLeader)
	if st := r.ch.Stats(); st.InFlight != 3 || st.Depth != 6 || st.MessageCount != 10 {
		t.Fatalf("stats %+v after calls to the old lane", st)
	}
	if err := s.Finish(id(3)); err != nil {
		t.Fatal(err)
	}
	if got := show(t, take(t, s)); got != "4/1 " {
		t.Fatalf("took %s", got)
	}
}

// TestSetLaneWhileItReads: a Take that reads the old lane's log delivers nothing of
// it, and goes on with the new lane.
func TestSetLaneWhileItReads(t *testing.T) {
	r := newRig(Config{})
	r.publish(10)
	s := r.subscribe(t, 3, SubOptions{})
	replaced := false
	r.log.onRead = func(int64) {
		if !replaced {
			replaced = true
			r.replace(partition.Start{Floor: 5, Limit: 10})
		}
	}
	if got := show(t, take(t, s)); got != "5/1 6/1 7/1 " || !replaced {
		t.Fatalf("took %s", got)
	}
}

// TestSetLaneOfAnotherPartition adds it beside the one there is.
func TestSetLaneOfAnotherPartition(t *testing.T) {
	r := newRig(Config{})
	r.publish(2)
	log := &memLog{}
	limit := log.publish(3, 1)
	l := r.ch.SetLane(4, log, r.shard, true, false)
	l.Begin(partition.Start{Limit: limit})
	if st := r.ch.Stats(); st.Depth != 5 || st.MessageCount != 5 {
		t.Fatalf("stats %+v", st)
	}
	got := take(t, r.subscribe(t, 10, SubOptions{}))
	parts := make(map[int32]int)
	for i := range got {
		part, _, _ := testCodec.Parse(got[i].ID)
		parts[part]++
	}
	if parts[0] != 2 || parts[4] != 3 {
		t.Fatalf("took %v by partition", parts)
	}
}
