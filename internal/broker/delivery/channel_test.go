package delivery

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

func TestDeliverInOrderWithinTheWindow(t *testing.T) {
	r := newRig(Config{})
	r.publish(25)
	s := r.subscribe(t, 3, SubOptions{})
	if got := show(t, take(t, s)); got != "0/1 1/1 2/1 " {
		t.Fatalf("took %s", got)
	}
	if got := take(t, s); len(got) != 0 {
		t.Fatalf("took %s beyond the window", show(t, got))
	}
	if err := s.Finish(id(1)); err != nil {
		t.Fatal(err)
	}
	if got := show(t, take(t, s)); got != "3/1 " {
		t.Fatalf("took %s", got)
	}
	if err := s.Finish(id(1)); !errors.Is(err, fault.NotInFlight) {
		t.Fatalf("second FIN: %v", err)
	}
	other := r.subscribe(t, 1, SubOptions{})
	if err := other.Finish(id(2)); !errors.Is(err, fault.NotOwner) {
		t.Fatalf("FIN of another's message: %v", err)
	}
	r.shard.collect(t)
	d := r.shard.state(r.lane)
	if d.floor != 0 || !d.ranges.Contains(1) || d.ranges.Count() != 1 {
		t.Fatalf("durable floor %d, ranges %v", d.floor, d.ranges.Ranges())
	}
	st := r.ch.Stats()
	if st.Depth != 21 || st.InFlight != 3 || st.MessageCount != 25 || st.Consumers != 2 {
		t.Fatalf("stats %+v", st)
	}
	want := SubStats{Ready: 3, InFlight: 3, MessageCount: 4, FinishCount: 1}
	if got := s.Stats(); got != want {
		t.Fatalf("stats %+v, want %+v", got, want)
	}
}

// RDY is a window: lowering it recalls nothing, TOUCH does not open it, FIN and
// REQ do.
func TestWindow(t *testing.T) {
	r := newRig(Config{})
	r.publish(10)
	s := r.subscribe(t, 4, SubOptions{})
	take(t, s)
	s.SetWindow(2)
	if st := r.ch.Stats(); st.InFlight != 4 {
		t.Fatalf("in flight %d after RDY 2", st.InFlight)
	}
	for o := range int64(2) {
		if err := s.Finish(id(o)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Touch(id(2)); err != nil {
		t.Fatal(err)
	}
	if got := take(t, s); len(got) != 0 {
		t.Fatalf("took %s beyond the window", show(t, got))
	}
	if err := s.Requeue(id(3), 0); err != nil {
		t.Fatal(err)
	}
	if got := show(t, take(t, s)); got != "3/2 " {
		t.Fatalf("took %s", got)
	}
	r.ch.SetPaused(true)
	s.SetWindow(9)
	if got := take(t, s); len(got) != 0 {
		t.Fatalf("took %s while paused", show(t, got))
	}
	r.ch.SetPaused(false)
	if got := take(t, s); len(got) != 6 {
		t.Fatalf("took %s", show(t, got))
	}
	s.Stop()
	s.SetWindow(100)
	r.publish(1)
	if got := take(t, s); len(got) != 0 {
		t.Fatalf("took %s after CLS", show(t, got))
	}
	if err := s.Finish(id(4)); err != nil {
		t.Fatalf("FIN after CLS: %v", err)
	}
}

func TestRequeueTimeoutAndAttempts(t *testing.T) {
	r := newRig(Config{})
	r.publish(5)
	s := r.subscribe(t, 3, SubOptions{MsgTimeout: time.Second})
	take(t, s)
	if err := s.Requeue(id(1), 0); err != nil {
		t.Fatal(err)
	}
	if got := show(t, take(t, s)); got != "1/2 " {
		t.Fatalf("after REQ: %s", got)
	}
	r.clock.advance(999 * time.Millisecond)
	if err := s.Touch(id(2)); err != nil {
		t.Fatal(err)
	}
	r.clock.advance(time.Millisecond)
	if st := r.ch.Stats(); st.TimeoutCount != 2 || st.InFlight != 1 || st.RequeueCount != 1 {
		t.Fatalf("stats %+v", st)
	}
	if err := s.Finish(id(0)); !errors.Is(err, fault.NotInFlight) {
		t.Fatalf("FIN after the timeout: %v", err)
	}
	if got := show(t, take(t, s)); got != "0/2 1/3 " {
		t.Fatalf("after the timeout: %s", got)
	}
	r.shard.collect(t)
	if d := r.shard.state(r.lane); d.attempts[0] != 1 || d.attempts[1] != 2 || len(d.attempts) != 2 {
		t.Fatalf("durable attempts %v", d.attempts)
	}
}

func TestRequeueWithDelayParks(t *testing.T) {
	r := newRig(Config{MaxRequeueDelay: time.Minute})
	r.publish(1)
	s := r.subscribe(t, 1, SubOptions{})
	take(t, s)
	if err := s.Requeue(id(0), time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(id(0)); !errors.Is(err, fault.NotInFlight) {
		t.Fatalf("FIN of a parked message: %v", err)
	}
	r.shard.collect(t)
	if e := r.shard.state(r.lane).parked[0]; e.DueNs != r.clock.now+int64(time.Minute) || e.Attempts != 1 {
		t.Fatalf("parked %+v", e)
	}
	r.clock.advance(time.Minute)
	r.shard.offer(r.lane, r.clock.now)
	if st := r.ch.Stats(); st.Depth != 1 || st.Held != 1 {
		t.Fatalf("stats %+v", st)
	}
	if got := show(t, take(t, s)); got != "0/2 " {
		t.Fatalf("after the delay: %s", got)
	}
	if err := s.Finish(id(0)); err != nil {
		t.Fatal(err)
	}
	r.shard.collect(t)
	if d := r.shard.state(r.lane); len(d.parked) != 0 || d.floor != 1 {
		t.Fatalf("parked %v, floor %d", d.parked, d.floor)
	}
}

func TestDisconnect(t *testing.T) {
	for _, tt := range []struct {
		name           string
		cfg            Config
		stop, abnormal bool
		ready          string // what the next consumer gets at once
		parked         int64  // offset 0's delay in ms; 0: not parked
	}{
		{name: "abnormal", abnormal: true, ready: "1/2 2/2 3/1 ", parked: 4000},
		{name: "orderly", ready: "0/3 1/2 2/2 3/1 "},
		{name: "after CLS", stop: true, abnormal: true, ready: "0/3 1/2 2/2 3/1 "},
		{name: "as nsqd", cfg: Config{WaitOnDisconnect: true}, abnormal: true, ready: "3/1 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(tt.cfg)
			r.publish(4)
			s := r.subscribe(t, 3, SubOptions{MsgTimeout: 10 * time.Second})
			take(t, s)
			if err := s.Requeue(id(0), 0); err != nil {
				t.Fatal(err)
			}
			take(t, s)
			if tt.stop {
				s.Stop()
			}
			s.Close(tt.abnormal)
			s.Close(tt.abnormal)
			next := r.subscribe(t, 10, SubOptions{MsgTimeout: time.Minute})
			if got := show(t, take(t, next)); got != tt.ready {
				t.Fatalf("the next consumer got %s, want %s", got, tt.ready)
			}
			r.shard.collect(t)
			e := r.shard.state(r.lane).parked[0]
			if got := (e.DueNs - r.clock.now) / 1e6; tt.parked != 0 && (got != tt.parked || e.Attempts != 2) {
				t.Fatalf("parked %+v, for %d ms", e, got)
			}
			if tt.cfg.WaitOnDisconnect {
				if st := r.ch.Stats(); st.InFlight != 4 || st.Consumers != 1 {
					t.Fatalf("stats %+v", st)
				}
				r.clock.advance(10 * time.Second)
				if got := show(t, take(t, next)); got != "0/3 1/2 2/2 " {
					t.Fatalf("after the timeout: %s", got)
				}
				if r.ch.subs[s.id] == s {
					t.Fatal("the old consumer is still known")
				}
			}
		})
	}
}

func TestDisconnectWaitsForWhatIsLeftOfTheTimeout(t *testing.T) {
	r := newRig(Config{})
	r.publish(1)
	s := r.subscribe(t, 1, SubOptions{MsgTimeout: 5 * time.Second})
	take(t, s)
	if err := s.Requeue(id(0), 0); err != nil {
		t.Fatal(err)
	}
	take(t, s)
	r.clock.advance(3 * time.Second)
	s.Close(true)
	r.shard.collect(t)
	if e := r.shard.state(r.lane).parked[0]; e.DueNs-r.clock.now != int64(2*time.Second) {
		t.Fatalf("parked for %v", time.Duration(e.DueNs-r.clock.now))
	}
}

func TestTouchIsCapped(t *testing.T) {
	r := newRig(Config{})
	r.publish(2)
	s := r.subscribe(t, 2, SubOptions{MsgTimeout: 10 * time.Second, MaxMsgTimeout: 15 * time.Second})
	take(t, s)
	r.clock.advance(9 * time.Second)
	if err := s.Touch(id(0)); err != nil { // until 15 s
		t.Fatal(err)
	}
	r.clock.advance(time.Second)
	if got := show(t, take(t, s)); got != "1/2 " { // until 20 s
		t.Fatalf("at 10 s: %s", got)
	}
	r.clock.advance(4*time.Second + 999*time.Millisecond)
	if err := s.Touch(id(0)); err != nil { // to no avail
		t.Fatal(err)
	}
	r.clock.advance(time.Millisecond)
	if got := show(t, take(t, s)); got != "0/2 " {
		t.Fatalf("at 15 s: %s", got)
	}
}

// TestCappedTouchKeepsTheOrder: a deadline that was capped is met before those
// of later deliveries.
func TestCappedTouchKeepsTheOrder(t *testing.T) {
	r := newRig(Config{})
	r.publish(1)
	s := r.subscribe(t, 3, SubOptions{MsgTimeout: 10 * time.Second, MaxMsgTimeout: 12 * time.Second})
	take(t, s)
	for range 2 {
		r.clock.advance(4 * time.Second)
		r.publish(1)
		take(t, s)
	}
	r.clock.advance(time.Second)           // 9 s: deadlines at 10, 14, 18
	if err := s.Touch(id(0)); err != nil { // 12
		t.Fatal(err)
	}
	r.clock.advance(3 * time.Second)
	if got := show(t, take(t, s)); got != "0/2 " {
		t.Fatalf("at 12 s: %s", got)
	}
}

func TestCloseTellsConsumers(t *testing.T) {
	rung := 0
	r := newRig(Config{})
	r.publish(2)
	s := r.subscribe(t, 1, SubOptions{Notify: func() { rung++ }})
	take(t, s)
	rung = 0
	r.ch.Close(fault.Deleting)
	r.ch.Close(nil)
	select {
	case <-s.Done():
	default:
		t.Fatal("Done is open")
	}
	if rung == 0 {
		t.Fatal("the consumer was not rung")
	}
	if err := s.Finish(id(0)); err != nil {
		t.Fatalf("FIN after Close: %v", err)
	}
	if ds, err := s.Take(nil, 1); len(ds) > 0 || !errors.Is(err, fault.Deleting) {
		t.Fatalf("Take after Close: %v, %v", ds, err)
	}
	if _, err := r.ch.Subscribe(SubOptions{}); !errors.Is(err, fault.Deleting) {
		t.Fatalf("Subscribe after Close: %v", err)
	}
	r.shard.collect(t)
	if d := r.shard.state(r.lane); d.floor != 1 {
		t.Fatalf("the FIN was not collected: floor %d", d.floor)
	}
}

func TestConsumerLimitAndIdle(t *testing.T) {
	idle := 0
	r := newRig(Config{MaxConsumers: 1, Idle: func() { idle++ }})
	s := r.subscribe(t, 1, SubOptions{})
	if _, err := r.ch.Subscribe(SubOptions{}); !errors.Is(err, fault.TooManyConsumers) {
		t.Fatalf("second consumer: %v", err)
	}
	s.Close(true)
	s.Close(true)
	if idle != 1 {
		t.Fatalf("idle %d times", idle)
	}
	r.subscribe(t, 1, SubOptions{})
}

func TestStopForgetsAndBeginStartsAnew(t *testing.T) {
	r := newRig(Config{})
	r.publish(5)
	s := r.subscribe(t, 2, SubOptions{})
	take(t, s)
	r.lane.Stop(fault.NotLeader)
	if err := s.Finish(id(0)); !errors.Is(err, fault.NotInFlight) {
		t.Fatalf("FIN without a leader: %v", err)
	}
	if got := take(t, s); len(got) > 0 {
		t.Fatalf("took %s without a leader", show(t, got))
	}
	r.lane.Begin(partition.Start{
		Floor: 1, Limit: 5, Skip: []offsets.Range{{From: 2, To: 4}}, Attempts: map[int64]uint16{1: 3},
	})
	if got := show(t, take(t, s)); got != "1/4 4/1 " {
		t.Fatalf("took %s", got)
	}
}

// TestFloorAboveLimit: a channel may start where no message is yet.
func TestFloorAboveLimit(t *testing.T) {
	r := newRig(Config{})
	r.lane.Begin(partition.Start{Floor: 5})
	s := r.subscribe(t, 10, SubOptions{})
	r.publish(7)
	if got := show(t, take(t, s)); got != "5/1 6/1 " {
		t.Fatalf("took %s", got)
	}
	if st := r.ch.Stats(); st.MessageCount != 2 {
		t.Fatalf("stats %+v", st)
	}
}

func TestFreshChannelCountsWhatWaits(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		r := newRig(Config{})
		r.open(Config{Fresh: fresh}, partition.Start{Floor: 2, Limit: r.log.publish(7, 3)})
		want := uint64(0)
		if fresh {
			want = 5
		}
		if st := r.ch.Stats(); st.MessageCount != want || st.Depth != 5 {
			t.Fatalf("fresh %v: stats %+v", fresh, st)
		}
	}
}

func TestDamageIsSkipped(t *testing.T) {
	r := newRig(Config{})
	r.publish(40) // batches of 10
	r.log.bad = []offsets.Range{{From: 12, To: 13}}
	s := r.subscribe(t, 100, SubOptions{})
	if got := len(take(t, s)); got != 30 {
		t.Fatalf("took %d", got)
	}
	r.log.bad = []offsets.Range{{From: 35, To: 36}}
	for _, o := range []int64{3, 35} {
		if err := s.Requeue(id(o), 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := show(t, take(t, s)); got != "3/2 " {
		t.Fatalf("took %s again", got)
	}
	r.shard.collect(t)
	d := r.shard.state(r.lane)
	if st := r.ch.Stats(); st.SkippedCount != 11 || st.InFlight != 29 || st.Depth != 0 {
		t.Fatalf("stats %+v", st)
	}
	if !d.ranges.Covers(10, 20) || !d.ranges.Covers(35, 36) || d.ranges.Count() != 11 {
		t.Fatalf("finished %v", d.ranges.Ranges())
	}
}

func TestHolesAndTheStartOfTheLog(t *testing.T) {
	r := newRig(Config{})
	r.publish(40)
	r.log.batches = append(r.log.batches[:1:1], r.log.batches[2], r.log.batches[3])
	r.log.start = 10
	s := r.subscribe(t, 100, SubOptions{})
	if got := take(t, s); len(got) != 20 || offsetOf(t, &got[0]) != 20 {
		t.Fatalf("took %s", show(t, got))
	}
	r.shard.collect(t)
	if d := r.shard.state(r.lane); d.floor != 20 {
		t.Fatalf("floor %d", d.floor)
	}
	// The whole rest of the log is gone.
	r.log.publish(5, 5)
	r.log.batches, r.log.start = nil, r.log.end
	r.lane.Limit(r.log.end)
	if got := take(t, s); len(got) > 0 || r.ch.Stats().Depth != 0 {
		t.Fatalf("took %s", show(t, got))
	}
	if st := r.ch.Stats(); st.SkippedCount != 5 {
		t.Fatalf("stats %+v", st)
	}
}

func TestFailedReadIsTriedAgain(t *testing.T) {
	rung := 0
	r := newRig(Config{})
	r.publish(5)
	s := r.subscribe(t, 2, SubOptions{Notify: func() { rung++ }})
	r.log.err = io.ErrUnexpectedEOF
	if _, err := s.Take(nil, 1); !errors.Is(err, fault.Storage) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("Take: %v", err)
	}
	if ds, err := s.Take(nil, 1); len(ds) > 0 || err != nil {
		t.Fatalf("Take soon after: %v, %v", ds, err)
	}
	r.log.err = nil
	rung = 0
	r.clock.advance(retryAfterError)
	if rung != 1 {
		t.Fatalf("rung %d times", rung)
	}
	if got := show(t, take(t, s)); got != "0/1 1/1 " {
		t.Fatalf("took %s", got)
	}
	// The same for bodies that are read again: nothing is lost.
	if err := s.Requeue(id(1), 0); err != nil {
		t.Fatal(err)
	}
	r.log.err = io.ErrUnexpectedEOF
	if _, err := s.Take(nil, 1); !errors.Is(err, fault.Storage) {
		t.Fatalf("Take: %v", err)
	}
	r.log.err = nil
	r.clock.advance(retryAfterError)
	if got := show(t, take(t, s)); got != "1/2 " {
		t.Fatalf("took %s", got)
	}
}

// What is damaged here and whole elsewhere is waited for: nothing is skipped,
// from the log or of what is delivered again, and others are not held up.
func TestDamageThatIsMendedIsWaitedFor(t *testing.T) {
	rung := 0
	r := newRig(Config{})
	r.publish(5)
	r.log.bad, r.log.mending = []offsets.Range{{From: 0, To: 1}}, true
	s := r.subscribe(t, 2, SubOptions{Notify: func() { rung++ }})
	for range 3 {
		if got := take(t, s); len(got) > 0 {
			t.Fatalf("took %s", show(t, got))
		}
		rung = 0
		r.clock.advance(retryAfterNone)
		if rung != 1 {
			t.Fatalf("rung %d times", rung)
		}
	}
	r.log.bad = nil
	if got := show(t, take(t, s)); got != "0/1 1/1 " {
		t.Fatalf("took %s", got)
	}
	if err := s.Requeue(id(1), 0); err != nil {
		t.Fatal(err)
	}
	r.log.bad = []offsets.Range{{From: 1, To: 2}}
	if got := take(t, s); len(got) > 0 {
		t.Fatalf("took %s", show(t, got))
	}
	reads := r.log.reads
	if got := take(t, s); len(got) > 0 || r.log.reads != reads {
		t.Fatalf("took %s, %d reads more", show(t, got), r.log.reads-reads)
	}
	r.log.bad = nil
	r.clock.advance(retryAfterNone)
	if got := show(t, take(t, s)); got != "1/2 " {
		t.Fatalf("took %s", got)
	}
	if st := r.ch.Stats(); st.SkippedCount != 0 {
		t.Fatalf("stats %+v", st)
	}
}

func TestLogThatLagsBehindTheLimit(t *testing.T) {
	r := newRig(Config{})
	s := r.subscribe(t, 2, SubOptions{})
	r.lane.Limit(5)
	if got := take(t, s); len(got) > 0 {
		t.Fatalf("took %s", show(t, got))
	}
	r.log.publish(5, 5)
	r.clock.advance(retryAfterNone)
	if got := show(t, take(t, s)); got != "0/1 1/1 " {
		t.Fatalf("took %s", got)
	}
}

func TestSample(t *testing.T) {
	r := newRig(Config{})
	const n = 10_000
	r.publish(n)
	s := r.subscribe(t, n, SubOptions{SampleRate: 30})
	got := len(take(t, s))
	if got < n*27/100 || got > n*33/100 {
		t.Fatalf("%d of %d delivered", got, n)
	}
	s.Close(false) // a message of the sample stays in it
	s = r.subscribe(t, n, SubOptions{SampleRate: 30})
	if again := len(take(t, s)); again != got {
		t.Fatalf("%d delivered again, of %d", again, got)
	}
	r.shard.collect(t)
	d := r.shard.state(r.lane)
	if left := n - d.floor - d.ranges.Count(); left != int64(got) {
		t.Fatalf("%d unfinished, want %d", left, got)
	}
}

func TestSeveralPartitionsShare(t *testing.T) {
	r := newRig(Config{})
	other := &memLog{}
	lane := r.ch.AddLane(1, other, r.shard)
	lane.Begin(partition.Start{})
	r.publish(100)
	lane.Limit(other.publish(100, 10))
	s := r.subscribe(t, 20, SubOptions{})
	seen := [2]int{}
	for range 10 {
		ds := take(t, s)
		ops := make([]Op, len(ds))
		for i := range ds {
			part, _, _ := testCodec.Parse(ds[i].ID)
			seen[part]++
			ops[i] = Op{Kind: Finish, ID: ds[i].ID}
		}
		if failed := s.Do(ops, nil); failed != 0 {
			t.Fatalf("%d FINs failed", failed)
		}
	}
	if seen != [2]int{100, 100} {
		t.Fatalf("delivered %v", seen)
	}
}

func TestTakeIsBoundedByBytes(t *testing.T) {
	r := newRig(Config{})
	r.publish(10)
	s := r.subscribe(t, 10, SubOptions{})
	for _, room := range []int{0, 1, 8, 9} {
		ds, err := s.Take(nil, room)
		if want := 1 + max(room-1, 0)/8; err != nil || len(ds) != want {
			t.Fatalf("%d bytes: took %s, %v", room, show(t, ds), err)
		}
	}
	if failed := s.Do([]Op{{Kind: Requeue, ID: id(0)}, {Kind: Requeue, ID: id(2)}}, nil); failed != 0 {
		t.Fatal("REQ failed")
	}
	for _, want := range []string{"0/2 ", "2/2 ", "5/1 "} {
		ds, err := s.Take(nil, 1)
		if got := show(t, ds); err != nil || got != want {
			t.Fatalf("took %s, %v, want %s", got, err, want)
		}
	}
}

// TestEmptyDuringARead: what a read brings that Empty overtook is not used.
func TestEmptyDuringARead(t *testing.T) {
	r := newRig(Config{})
	r.publish(10)
	s := r.subscribe(t, 5, SubOptions{})
	r.log.onRead = func(int64) {
		r.log.onRead = nil
		r.lane.Reset(partition.Start{Epoch: 1, Floor: 8, Limit: 10})
	}
	if got := show(t, take(t, s)); got != "8/1 9/1 " {
		t.Fatalf("took %s", got)
	}
	if err := s.Requeue(id(8), 0); err != nil {
		t.Fatal(err)
	}
	r.log.onRead = func(int64) {
		r.log.onRead = nil
		r.lane.Reset(partition.Start{Epoch: 2, Floor: 10, Limit: 10})
	}
	for _, d := range take(t, s) { // may be on its way; its FIN is late
		if err := s.Finish(d.ID); !errors.Is(err, fault.NotInFlight) {
			t.Fatalf("FIN after Empty: %v", err)
		}
	}
	if st := r.ch.Stats(); st.InFlight != 0 || st.Depth != 0 || s.Stats().InFlight != 0 {
		t.Fatalf("stats %+v", st)
	}
}

// TestLoneStraggler: one message that is never finished pins neither the floor
// nor the ranges, and comes back after a crash.
func TestLoneStraggler(t *testing.T) {
	r := newRig(Config{})
	const n = 200_000
	r.log.publish(n, 1000)
	r.lane.Limit(n)
	s := r.subscribe(t, 1000, SubOptions{})
	var ds []Delivery
	for {
		ds, _ = s.Take(ds[:0], 1<<20)
		if len(ds) == 0 {
			break
		}
		var ops []Op
		for i := range ds {
			if ds[i].ID != id(7) {
				ops = append(ops, Op{Kind: Finish, ID: ds[i].ID})
			}
		}
		s.Do(ops, nil)
		r.shard.collect(t)
	}
	d := r.shard.state(r.lane)
	if d.floor != n || len(d.parked) != 1 || r.lane.Floor() != n || len(r.lane.table.ring) != defaultLimits.ring {
		t.Fatalf("durable floor %d, parked %v, floor %d, ring %d", d.floor, d.parked, r.lane.Floor(), len(r.lane.table.ring))
	}
	// The parked set gives it back, as it is due; it is in flight already.
	if got := r.shard.offer(r.lane, r.clock.now); len(got) != 1 {
		t.Fatalf("offered %v", got)
	}
	if got := take(t, s); len(got) > 0 {
		t.Fatalf("took %s", show(t, got))
	}
	if err := s.Finish(id(7)); err != nil {
		t.Fatal(err)
	}
	r.shard.collect(t)
	if len(d.parked) != 0 {
		t.Fatalf("parked %v", d.parked)
	}
}

// TestManyGaps: every other message is finished, in one go.
func TestManyGaps(t *testing.T) {
	r := newRig(Config{})
	const n = 40_000
	r.log.publish(n, 1000)
	r.lane.Limit(n)
	s := r.subscribe(t, n, SubOptions{})
	ds := take(t, s)
	var ops []Op
	for i := 0; i < len(ds); i += 2 {
		ops = append(ops, Op{Kind: Finish, ID: ds[i].ID})
	}
	s.Do(ops, nil)
	r.shard.collect(t)
	d := r.shard.state(r.lane)
	if got := d.ranges.Len(); got > defaultLimits.gaps || got < defaultLimits.gaps/2-1 {
		t.Fatalf("%d ranges", got)
	}
	if left := n - d.floor - d.ranges.Count() + int64(len(d.parked)); left != n/2 {
		t.Fatalf("%d unfinished or parked", left)
	}
	for i := 1; i < len(ds); i += 2 {
		if err := s.Finish(ds[i].ID); err != nil {
			t.Fatal(err)
		}
	}
	r.shard.collect(t)
	if d.floor != n || len(d.parked) != 0 {
		t.Fatalf("floor %d, %d parked", d.floor, len(d.parked))
	}
}

// TestIdleChannelIsSmall: without consumers a lane keeps nothing.
func TestIdleChannelIsSmall(t *testing.T) {
	r := newRig(Config{})
	r.publish(1000)
	if r.lane.table.ring != nil || r.ch.slots.slots != nil {
		t.Fatal("a ring before the first delivery")
	}
	s := r.subscribe(t, 100, SubOptions{})
	for _, d := range take(t, s) {
		if err := s.Finish(d.ID); err != nil {
			t.Fatal(err)
		}
	}
	s.Close(true)
	if r.lane.table.ring != nil || r.ch.slots.slots != nil || r.lane.ahead != nil {
		t.Fatal("a ring after the last consumer left")
	}
	s = r.subscribe(t, 1, SubOptions{})
	if got := show(t, take(t, s)); got != "100/1 " {
		t.Fatalf("took %s", got)
	}
	r.shard.collect(t)
	if d := r.shard.state(r.lane); d.floor != 100 {
		t.Fatalf("floor %d", d.floor)
	}
}
