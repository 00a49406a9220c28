package delivery

import (
	"slices"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"pgregory.net/rapid"
)

// heldRig is a rig that notes where lanes are said to stand.
type heldRig struct {
	*rig
	held []Standing
}

func newHeldRig() *heldRig {
	r := &heldRig{}
	r.rig = newRig(Config{
		Held:     func(part int32, count uint32) { r.held = append(r.held, Standing{part, count}) },
		MirrorID: func() uint64 { return 1 },
	})
	return r
}

// raise puts a barrier at the end of the log.
func (r *heldRig) raise(count uint32) {
	r.lane.Raised(partition.Barrier{Count: count, Offset: r.log.end})
}

func (r *heldRig) wants(t *testing.T, what string, held []Standing, standing ...Standing) {
	t.Helper()
	if got := r.ch.Standing(nil); !slices.Equal(got, standing) {
		t.Errorf("%s: %v stand, want %v", what, got, standing)
	}
	if !slices.Equal(r.held, held) {
		t.Errorf("%s: told %v, want %v", what, r.held, held)
	}
	r.held = nil
}

func TestLaneHoldsAtABarrier(t *testing.T) {
	r := newHeldRig()
	at := func(count uint32) []Standing { return []Standing{{0, count}} }
	r.publish(3)
	r.raise(2)
	r.publish(4)
	r.raise(5)
	r.raise(6)
	r.publish(2)
	r.wants(t, "before there is a consumer", nil)
	s := r.subscribe(t, 2, SubOptions{})
	if got := show(t, take(t, s)); got != "0/1 1/1 " {
		t.Fatalf("took %s", got)
	}
	r.wants(t, "before the barrier", nil)
	_ = s.Finish(id(0))
	if got := show(t, take(t, s)); got != "2/1 " {
		t.Fatalf("took %s", got)
	}
	r.wants(t, "with a closed window", nil)
	_ = s.Finish(id(2))
	if got := show(t, take(t, s)); got != "" {
		t.Fatalf("took %s", got)
	}
	r.wants(t, "at the barrier", at(2), Standing{0, 2})
	if st := r.ch.Stats(); st.Depth != 6 || st.InFlight != 1 || st.MessageCount != 9 {
		t.Errorf("stats %+v", st)
	}
	if w := r.ch.Waiting(10); len(w) != 1 || w[0].Cursor != 3 || w[0].Limit != 9 {
		t.Errorf("waiting %+v", w)
	}
	// What was delivered before goes again.
	if err := s.Requeue(id(1), 0); err != nil {
		t.Fatal(err)
	}
	if got := show(t, take(t, s)); got != "1/2 " {
		t.Fatalf("took %s", got)
	}
	_ = s.Finish(id(1))
	take(t, s)
	s.SetWindow(0)
	r.wants(t, "without a window", nil)
	s.SetWindow(8)
	r.wants(t, "with a window again", at(2), Standing{0, 2})

	r.lane.Release(1)
	r.wants(t, "when less is released", nil, Standing{0, 2})
	r.lane.Release(2)
	if got := show(t, take(t, s)); got != "3/1 4/1 5/1 6/1 " {
		t.Fatalf("took %s", got)
	}
	r.wants(t, "at the next one", at(5), Standing{0, 5})
	r.lane.Release(5)
	r.wants(t, "at the third one", at(6), Standing{0, 6})
	r.lane.Release(9)
	if got := show(t, take(t, s)); got != "7/1 8/1 " {
		t.Fatalf("took %s", got)
	}
	r.raise(9) // is released
	r.publish(1)
	if got := show(t, take(t, s)); got != "9/1 " {
		t.Fatalf("took %s", got)
	}
	r.wants(t, "behind all", nil)
}

// A lane that holds at offset 0 delivers nothing, and one that another lane takes the
// place of hands on what was released.
func TestReleaseOutlivesLanes(t *testing.T) {
	r := newHeldRig()
	barriers := []partition.Barrier{{Count: 2, Offset: 0}, {Count: 4, Offset: 5}}
	r.log.publish(10, 1)
	r.replace(partition.Start{Limit: 10, Barriers: barriers})
	s := r.subscribe(t, 20, SubOptions{})
	if got := show(t, take(t, s)); got != "" {
		t.Fatalf("took %s", got)
	}
	r.wants(t, "at the beginning", []Standing{{0, 2}}, Standing{0, 2})
	old := r.replace(partition.Start{Limit: 10, Barriers: barriers})
	r.wants(t, "in another leadership", []Standing{{0, 2}}, Standing{0, 2})
	old.Release(2)
	if got := show(t, take(t, s)); got != "0/1 1/1 2/1 3/1 4/1 " {
		t.Fatalf("took %s", got)
	}
	r.lane.Stop(fault.NotLeader)
	r.wants(t, "while another node leads", []Standing{{0, 4}})
	r.replace(partition.Start{Floor: 2, Limit: 10, Barriers: barriers})
	s.Close(false)
	s = r.subscribe(t, 20, SubOptions{})
	if got := show(t, take(t, s)); got != "2/2 3/2 4/2 " && got != "2/1 3/1 4/1 " {
		t.Fatalf("took %s", got)
	}
	r.lane.Reset(partition.Start{Floor: 10, Limit: 10, Barriers: barriers})
	r.raise(5)
	r.publish(1)
	if got := show(t, take(t, s)); got != "" {
		t.Fatalf("took %s", got)
	}
	r.ch.SetPaused(true)
	r.wants(t, "paused", []Standing{{0, 4}})
	r.ch.SetPaused(false)
	r.lane.Release(5)
	if got := show(t, take(t, s)); got != "10/1 " {
		t.Fatalf("took %s", got)
	}
	if r.ch.held != 0 {
		t.Errorf("%d barriers are left", r.ch.held)
	}
}

// What the cursor skips below a barrier is no work, and what it skips behind it does
// not count against what is before.
func TestHoldAmongSkips(t *testing.T) {
	r := newHeldRig()
	r.publish(10)
	r.raise(2)
	r.lane.Skip(8, 10)
	r.log.publish(30, 10)
	r.lane.Skip(10, 39)
	r.lane.Limit(40)
	if n, all := r.lane.beforeHold(), r.lane.backlog(); n != 8 || all != 9 {
		t.Fatalf("%d before the barrier, %d altogether", n, all)
	}
	s := r.subscribe(t, 20, SubOptions{})
	if got := len(take(t, s)); got != 8 {
		t.Fatalf("took %d", got)
	}
	r.wants(t, "behind what is skipped", []Standing{{0, 2}}, Standing{0, 2})
	r.lane.Release(2)
	if got := show(t, take(t, s)); got != "39/1 " {
		t.Fatalf("took %s", got)
	}
}

// Lanes are held one by one: the others go on.
func TestOtherLanesGoOn(t *testing.T) {
	r := newHeldRig()
	r.raise(2)
	r.publish(5)
	log := &memLog{}
	other := r.ch.SetLane(1, log, r.shard, false, false)
	other.Begin(partition.Start{})
	s := r.subscribe(t, 20, SubOptions{})
	take(t, s)
	r.wants(t, "one of two", []Standing{{0, 2}}, Standing{0, 2})
	other.Limit(log.publish(3, 1))
	if got := show(t, take(t, s)); got != "0/1 1/1 2/1 " {
		t.Fatalf("took %s", got)
	}
	r.wants(t, "one of two, still", nil, Standing{0, 2})
	r.clock.advance(time.Hour)
	if got := show(t, take(t, s)); got != "0/2 1/2 2/2 " {
		t.Fatalf("took %s", got)
	}
}

// holding is what the model of a channel knows of barriers.
type holding struct {
	barriers []partition.Barrier
	released uint32
	told     bool
}

// hold is the first offset that is not to be delivered.
func (h *holding) hold() int64 {
	for _, b := range h.barriers {
		if b.Count > h.released {
			return b.Offset
		}
	}
	return 1 << 62
}

func (m *machine) raise(*rapid.T) {
	b := partition.Barrier{Count: uint32(len(m.barriers)) + 2, Offset: m.limit}
	m.barriers = append(m.barriers, b)
	m.lane.Raised(b)
}

func (m *machine) release(t *rapid.T) {
	if len(m.barriers) == 0 {
		t.Skip("no barrier")
	}
	n := rapid.Uint32Range(0, m.barriers[len(m.barriers)-1].Count).Draw(t, "count")
	next := func() int {
		return slices.IndexFunc(m.barriers, func(b partition.Barrier) bool { return b.Count > m.released })
	}
	was := next()
	m.released = max(m.released, n)
	m.told = m.told && next() == was
	m.lane.Release(n)
}

// checkHold compares where the lane stands, and requires that this was told.
func (m *machine) checkHold(t *rapid.T, waits bool) {
	hold := m.hold()
	before, behind := false, false
	for o := range m.msgs {
		if m.msgs[o].where == inLog {
			before = before || int64(o) < hold
			behind = behind || int64(o) >= hold
		}
	}
	standing := m.ch.Standing(nil)
	switch {
	case len(standing) == 0 && waits && !m.paused && behind && !before:
		t.Fatalf("the lane does not stand at %d: cursor %d, limit %d", hold, m.lane.cursor, m.limit)
	case len(standing) > 0 && (!waits || m.paused || !behind):
		t.Fatalf("the lane stands: %v", standing)
	case len(standing) > 0 && !m.told:
		t.Fatalf("nobody was told that the lane stands: %v", standing)
	}
	m.told = len(standing) > 0
	if m.told {
		m.seen.stood++
	}
}
