package delivery

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// adoption is a channel whose leader has just begun. Offset 5 is parked, with two
// attempts, and due; all others wait in the log, and of 3 two attempts are known.
type adoption struct {
	*rig
	mirror *Subscription
	other  *Subscription
	got    string // what the other one was given and has finished
}

func newAdoption(t *testing.T) *adoption {
	t.Helper()
	a := &adoption{rig: &rig{log: &memLog{}, shard: newShard(), clock: &handClock{now: int64(time.Hour)}}}
	a.open(Config{MirrorID: func() uint64 { return 0 }}, partition.Start{})
	a.log.publish(10, 3)
	d := newDurable()
	d.apply(t, &partition.Delta{Parked: entries(5, a.clock.now-1, 2), Attempts: []partition.Attempt{{Offset: 3, N: 2}}})
	a.lane = a.ch.SetLane(0, a.log, a.shard, false, true)
	a.shard.lanes[a.lane] = d
	var err error
	a.mirror, err = a.ch.Subscribe(SubOptions{Relayed: true, MsgTimeout: 10 * time.Second, MaxMsgTimeout: 12 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	a.lane.Begin(d.start(10))
	a.other = a.subscribe(t, 100, SubOptions{})
	return a
}

func held(offset int64, attempts uint16) []HeldMessage {
	return []HeldMessage{{Offset: offset, Attempts: attempts, Age: 5 * time.Second, Left: 5 * time.Second}}
}

// rest has the other consumer take all that there is, and finish it.
func (a *adoption) rest(t *testing.T) {
	t.Helper()
	for range 3 {
		a.shard.collect(t)
		a.shard.offer(a.lane, a.clock.now)
		ds := take(t, a.other)
		for i := range ds {
			if err := a.other.Finish(ds[i].ID); err != nil {
				t.Fatal(err)
			}
		}
		a.got += show(t, ds)
	}
}

// TestAdopt: what a consumer holds is delivered to others when it comes back, by
// whatever way, with the right number, whether the lane has come to it by then or
// not.
func TestAdopt(t *testing.T) {
	const never, again, counted = 0, 3, 4
	for name, c := range map[string]struct {
		answer func(a *adoption, o int64) error
		wait   time.Duration // until it is there again
		number int
	}{
		"FIN":     {func(a *adoption, o int64) error { return a.mirror.Finish(id(o)) }, 0, never},
		"REQ":     {func(a *adoption, o int64) error { return a.mirror.Requeue(id(o), 0) }, 0, counted},
		"REQ 1s":  {func(a *adoption, o int64) error { return a.mirror.Requeue(id(o), time.Second) }, time.Second, counted},
		"timeout": {func(*adoption, int64) error { return nil }, 5 * time.Second, counted},
		"TOUCH":   {func(a *adoption, o int64) error { return a.mirror.Touch(id(o)) }, 7 * time.Second, counted},
		"Return": {func(a *adoption, o int64) error {
			return a.mirror.doOne(Op{Kind: Return, ID: id(o), Attempts: 3})
		}, 0, again},
		"close":   {func(a *adoption, _ int64) error { a.mirror.Close(false); return nil }, 0, counted},
		"abandon": {func(a *adoption, _ int64) error { a.mirror.Abandon(); return nil }, 0, again},
	} {
		for _, o := range []int64{3, 5} {
			for _, early := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s offset=%d early=%v", name, o, early), func(t *testing.T) {
					a := newAdoption(t)
					if lost := a.mirror.Adopt(held(o, 3), nil); len(lost) > 0 || a.ch.Stats().InFlight != 1 {
						t.Fatalf("lost %v, in flight %d", lost, a.ch.Stats().InFlight)
					}
					if ds := take(t, a.other); len(ds) > 0 {
						t.Fatalf("a lane that is shut delivers %s", show(t, ds))
					}
					if !early {
						a.lane.Open()
						a.rest(t)
					}
					if err := c.answer(a, o); err != nil {
						t.Fatal(err)
					}
					if c.wait > 0 {
						a.clock.advance(c.wait - 1)
						a.shard.collect(t)
						a.shard.offer(a.lane, a.clock.now) // the other of 3 and 5
						if n := a.ch.Stats().Depth; early && n != 9 || !early && n != 0 {
							t.Fatalf("depth %d before it is there", n)
						}
						a.clock.advance(1)
					}
					a.lane.Open()
					a.rest(t)
					checkGot(t, a, o, c.number)
				})
			}
		}
	}
}

// checkGot: the other consumer was given everything once, o with that number, or not
// at all if that is 0, and all is finished.
func checkGot(t *testing.T, a *adoption, o int64, number int) {
	t.Helper()
	numbers := map[int64]int{3: 3, 5: 3, o: number}
	for i := range int64(10) {
		n, ok := numbers[i]
		if !ok {
			n = 1
		}
		if got := strings.Count(" "+a.got, fmt.Sprintf(" %d/", i)); n == 0 && got != 0 || n > 0 && got != 1 {
			t.Fatalf("%d was delivered %d times: %s", i, got, a.got)
		}
		if n > 0 && !strings.Contains(" "+a.got, fmt.Sprintf(" %d/%d ", i, n)) {
			t.Fatalf("%d was not delivered as %d/%d: %s", i, i, n, a.got)
		}
	}
	a.shard.collect(t)
	d := a.shard.state(a.lane)
	st := a.ch.Stats()
	if d.floor != 10 || len(d.parked) > 0 || st.InFlight != 0 || st.Depth != 0 || a.lane.aheadCount != 0 || a.lane.held != 0 {
		t.Fatalf("floor %d, ranges %v, parked %v, %+v, ahead %d", d.floor, d.ranges.Ranges(), d.parked, st, a.lane.aheadCount)
	}
}

// TestAdoptLost: what is not the consumer's any more is not adopted.
func TestAdoptLost(t *testing.T) {
	a := newAdoption(t)
	if lost := a.mirror.Adopt(held(3, 2), nil); len(lost) != 1 {
		t.Fatal("a delivery was adopted that had ended")
	}
	a.lane.Open()
	a.rest(t)
	for o := range int64(10) {
		if lost := a.mirror.Adopt(held(o, 3), nil); len(lost) != 1 && o != 5 {
			t.Fatalf("finished %d was adopted", o)
		}
	}
	if err := a.mirror.Finish(id(5)); err != nil { // which may be parked, for all that the lane knows
		t.Fatal(err)
	}
	a.shard.lenient = true
	checkGot(t, a, 3, 3)
}

// TestAdoptDisputed: of two who say that they hold a message, the later delivery is
// right, then whoever said it first.
func TestAdoptDisputed(t *testing.T) {
	for _, c := range []struct {
		first, second uint16
		lost          int
	}{{1, 1, 1}, {1, 2, 0}, {2, 1, 1}, {0, 1, 1}, {1, 0, 1}} {
		a := newAdoption(t)
		second, err := a.ch.Subscribe(SubOptions{Relayed: true})
		if err != nil {
			t.Fatal(err)
		}
		if lost := a.mirror.Adopt(held(4, c.first), nil); len(lost) > 0 {
			t.Fatalf("%+v: the first is lost", c)
		}
		if lost := second.Adopt(held(4, c.second), nil); len(lost) != c.lost {
			t.Fatalf("%+v: lost %v", c, lost)
		}
		owner, loser := a.mirror, second
		if c.lost == 0 {
			owner, loser = second, a.mirror
		}
		if err := loser.Finish(id(4)); !errors.Is(err, fault.NotOwner) {
			t.Fatalf("%+v: FIN of the other: %v", c, err)
		}
		if err := owner.Finish(id(4)); err != nil {
			t.Fatalf("%+v: FIN: %v", c, err)
		}
	}
}

// TestAdoptBeforeBegin: what is held is told before the lane knows where it stands.
func TestAdoptBeforeBegin(t *testing.T) {
	a := newAdoption(t)
	old := a.lane
	a.lane = a.ch.SetLane(0, a.log, a.shard, false, false)
	a.shard.lanes[a.lane] = a.shard.state(old)
	var hs []HeldMessage
	for o := range int64(8) {
		hs = append(hs, held(o, 3)...)
	}
	if lost := a.mirror.Adopt(hs, nil); len(lost) > 0 {
		t.Fatalf("lost %v", lost)
	}
	ops := []Op{{Kind: Finish, ID: id(0)}, {Kind: Requeue, ID: id(1)}, {Kind: Requeue, ID: id(2), Delay: time.Second}, {Kind: Touch, ID: id(3)}, {Kind: Return, ID: id(4)}}
	if failed := a.mirror.Do(ops, nil); failed > 0 {
		t.Fatalf("%d failed", failed)
	}
	a.lane.Begin(a.shard.state(a.lane).start(10))
	a.rest(t)
	want(t, "delivered", a.got, "1/4 4/1 8/1 9/1 ")
	a.clock.advance(time.Second)
	a.got = ""
	a.rest(t)
	want(t, "a second later", a.got, "2/4 ")
	if st := a.ch.Stats(); st.InFlight != 4 || st.Depth != 0 || st.RequeueCount != 2 {
		t.Fatalf("%+v", st)
	}
}

// TestAdoptGivenUp: what is held and cannot be read, or is given up, is forgotten.
func TestAdoptGivenUp(t *testing.T) {
	a := newAdoption(t)
	if lost := a.mirror.Adopt(append(held(1, 1), held(7, 1)...), nil); len(lost) > 0 {
		t.Fatalf("lost %v", lost)
	}
	a.log.start = 3
	a.log.batches = a.log.batches[1:] // 0, 1 and 2 are gone
	a.lane.Skip(7, 8)
	a.lane.Open()
	a.rest(t)
	want(t, "delivered", a.got, "5/3 3/3 4/1 6/1 8/1 9/1 ")
	if err := a.mirror.Finish(id(1)); !errors.Is(err, fault.NotInFlight) {
		t.Fatalf("FIN: %v", err)
	}
	if st := a.ch.Stats(); st.InFlight != 1 || a.lane.aheadCount != 0 {
		t.Fatalf("%+v, ahead %d", st, a.lane.aheadCount)
	}
}

// A node that opens its consumer anew speaks of the partitions that it takes this
// leader for: what the consumer holds of another, which has moved in its sight, stays
// the consumer's.
func TestReopenLeavesOtherPartitions(t *testing.T) {
	r := newRig(Config{})
	r.publish(4)
	second := r.ch.SetLane(1, r.log, r.shard, false, false)
	second.Begin(partition.Start{Limit: 4})
	s, err := r.ch.Subscribe(SubOptions{MsgTimeout: time.Minute, Relayed: true})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := s.Pull(nil, 8, 1<<20)
	if err != nil || len(got) != 8 {
		t.Fatalf("pulled %d, %v", len(got), err)
	}
	for _, x := range []struct {
		parts    []int32
		inFlight int64
	}{{nil, 8}, {[]int32{1}, 4}, {[]int32{0, 1}, 0}} {
		if lost := s.Reopen(nil, x.parts, nil); len(lost) > 0 {
			t.Errorf("lost %+v", lost)
		}
		if st := r.ch.Stats(); st.InFlight != x.inFlight || st.Depth != 8-x.inFlight {
			t.Errorf("opened anew for %v: %d in flight, depth %d", x.parts, st.InFlight, st.Depth)
		}
	}
}
