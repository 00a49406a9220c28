package delivery

import (
	"bytes"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// spentRig is a rig whose channel has a limit.
type spentRig struct {
	*rig
	t     *testing.T
	calls int // of Config.Spent
}

func newSpentRig(t *testing.T, limit uint16) *spentRig {
	r := &spentRig{t: t}
	r.rig = newRig(Config{Spent: func() { r.calls++ }})
	r.ch.SetMaxAttempts(limit)
	return r
}

// later passes an hour, in which what is parked comes back.
func (r *spentRig) later() {
	r.shard.collect(r.t)
	r.clock.advance(time.Hour)
	r.shard.offer(r.lane, r.clock.now)
}

func (r *spentRig) gets(s *Subscription, want string) {
	r.t.Helper()
	if got := show(r.t, take(r.t, s)); got != want {
		r.t.Fatalf("took %q, want %q", got, want)
	}
}

// letters checks the offsets of the dead letters, each with the attempts.
func (r *spentRig) letters(attempts uint16, offsets ...int64) []DeadLetter {
	r.t.Helper()
	list := r.ch.DeadLetters(100)
	if len(list) != len(offsets) {
		r.t.Fatalf("dead letters %v, want %d", list, offsets)
	}
	for i, d := range list {
		if d.Offset != offsets[i] || d.Attempts != attempts {
			r.t.Fatalf("dead letters %v, want %d after %d attempts", list, offsets, attempts)
		}
		_, got, ok, err := r.ch.ReadDeadLetter(d)
		if err != nil || !ok || !bytes.Equal(got, body(d.Offset)) {
			r.t.Fatalf("the body of %v is %q, %t, %v", d, got, ok, err)
		}
	}
	return list
}

func TestSpent(t *testing.T) {
	ways := []struct {
		name string
		end  func(r *spentRig, s *Subscription)
	}{
		{"REQ", func(_ *spentRig, s *Subscription) { _ = s.Requeue(id(0), 0) }},
		{"REQ with a delay", func(_ *spentRig, s *Subscription) { _ = s.Requeue(id(0), time.Minute) }},
		{"timeout", func(r *spentRig, _ *Subscription) { r.clock.advance(time.Second) }},
		{"lost connection", func(_ *spentRig, s *Subscription) { s.Close(true) }},
		{"orderly end", func(_ *spentRig, s *Subscription) { s.Close(false) }},
	}
	for _, way := range ways {
		for _, limit := range []uint16{1, 3} {
			t.Run(way.name, func(t *testing.T) {
				r := newSpentRig(t, limit)
				r.publish(2)
				for n := uint16(1); n <= limit; n++ {
					s := r.subscribe(t, 1, SubOptions{MsgTimeout: time.Second})
					if got := take(t, s); len(got) != 1 || offsetOf(t, &got[0]) != 0 || got[0].Attempts != n {
						t.Fatalf("attempt %d: took %s", n, show(t, got))
					}
					if r.calls != 0 {
						t.Fatalf("spent in attempt %d of %d", n, limit)
					}
					way.end(r, s)
					s.Close(false)
					if n < limit {
						r.later()
					}
				}
				if r.calls != 1 {
					t.Fatalf("told %d times", r.calls)
				}
				letters := r.letters(limit, 0)
				if st := r.ch.Stats(); st.Depth != 2 {
					t.Fatalf("stats %+v", st)
				}
				s := r.subscribe(t, 10, SubOptions{MsgTimeout: 2 * time.Hour})
				r.gets(s, "1/1 ")
				r.later()
				r.gets(s, "")
				if err := s.Finish(id(0)); fault.CodeOf(err) != fault.NotInFlight {
					t.Fatalf("FIN of a spent message: %v", err)
				}
				if err := s.Finish(id(1)); err != nil {
					t.Fatal(err)
				}
				r.shard.collect(t)
				d := r.shard.state(r.lane)
				if d.floor != 2 || d.parked[0].Attempts != limit {
					t.Fatalf("floor %d, parked %v: it pins the log, or its attempts are lost", d.floor, d.parked)
				}
				r.ch.FinishDeadLetter(letters[0], false)
				r.ch.FinishDeadLetter(letters[0], false)
				r.shard.collect(t)
				if st := r.ch.Stats(); st.Depth != 0 || st.Held != 0 || st.DeadLetterCount != 1 || len(d.parked) != 0 || d.floor != 2 {
					t.Fatalf("stats %+v, parked %v, floor %d", st, d.parked, d.floor)
				}
				r.letters(limit)
			})
		}
	}
}

// A delivery that was none is no attempt.
func TestReturnedIsNotSpent(t *testing.T) {
	r := newSpentRig(t, 1)
	r.publish(1)
	s := r.subscribe(t, 1, SubOptions{})
	r.gets(s, "0/1 ")
	if failed := s.Do([]Op{{Kind: Return, ID: id(0)}}, nil); failed != 0 {
		t.Fatal("it was not taken back")
	}
	r.gets(s, "0/1 ")
	r.letters(1)
}

// The next leader finds what was spent spent, whether or not it was parked.
func TestSpentAgain(t *testing.T) {
	r := newSpentRig(t, 2)
	r.publish(3)
	s := r.subscribe(t, 1, SubOptions{})
	r.gets(s, "0/1 ")
	if err := s.Requeue(id(0), 0); err != nil {
		t.Fatal(err)
	}
	r.gets(s, "0/2 ")
	s.Close(false)
	r.letters(2, 0)
	r.shard.collect(t)

	d := r.shard.state(r.lane)
	st := d.start(3)
	st.Attempts[1] = 2 // as if the leader had gone before it parked it
	r.calls = 0
	r.open(Config{Spent: func() { r.calls++ }}, st)
	r.ch.SetMaxAttempts(2)
	r.shard.lanes[r.lane] = d
	r.shard.offer(r.lane, r.clock.now)
	if r.calls != 1 {
		t.Fatalf("told %d times", r.calls)
	}
	r.letters(2, 0)
	s = r.subscribe(t, 10, SubOptions{})
	r.gets(s, "2/1 ")
	for _, x := range r.letters(2, 0, 1) {
		r.ch.FinishDeadLetter(x, false)
	}
	if err := s.Finish(id(2)); err != nil {
		t.Fatal(err)
	}
	r.shard.collect(t)
	if len(d.parked) != 0 || d.floor != 3 || len(d.attempts) != 0 {
		t.Fatalf("left: %+v", d)
	}
}

// What a leader had not written when it lost the lead is told to the next one.
func TestSpentIsToldToTheNextLeader(t *testing.T) {
	r := newSpentRig(t, 1)
	r.ch.cfg.MirrorID = func() uint64 { return 1 }
	r.publish(1)
	s := r.subscribe(t, 1, SubOptions{})
	r.gets(s, "0/1 ")
	if err := s.Requeue(id(0), 0); err != nil {
		t.Fatal(err)
	}
	r.letters(1, 0)
	r.lane.Stop(fault.NotLeader)
	r.letters(1)
	ops := r.ch.lanes[0].ops
	if len(ops) != 1 || ops[0].kind != Requeue || ops[0].attempts != 1 {
		t.Fatalf("told: %+v", ops)
	}
}

func TestLimitChanges(t *testing.T) {
	r := newSpentRig(t, 0)
	r.publish(4)
	s := r.subscribe(t, 4, SubOptions{MsgTimeout: 9 * time.Hour})
	r.gets(s, "0/1 1/1 2/1 3/1 ")
	req := func(o int64, delay time.Duration) {
		t.Helper()
		if err := s.Requeue(id(o), delay); err != nil {
			t.Fatal(err)
		}
	}
	// 0 waits after one attempt, 1 is due after two, 2 is in flight for the second
	// time, 3 for the first.
	req(1, 0)
	r.gets(s, "1/2 ")
	req(2, 0)
	r.gets(s, "2/2 ")
	s.SetWindow(0)
	req(1, time.Minute)
	r.later()
	req(0, 0)

	r.ch.SetMaxAttempts(1)
	if r.calls != 1 {
		t.Errorf("told %d times", r.calls)
	}
	if st := r.ch.Stats(); st.Depth != 2 || st.InFlight != 2 {
		t.Errorf("stats %+v", st)
	}
	if list := r.ch.DeadLetters(9); len(list) != 2 || list[0].Attempts+list[1].Attempts != 3 {
		t.Fatalf("dead letters %v", list)
	}
	first := r.ch.DeadLetters(9)
	r.ch.SetMaxAttempts(2)
	r.letters(2, 1)
	for _, d := range first { // one of them waits again: it stays
		if d.Offset == 0 {
			r.ch.FinishDeadLetter(d, false)
		}
	}
	req(2, 0)
	r.letters(2, 1, 2)
	s.SetWindow(9)
	r.gets(s, "0/2 ")
	r.ch.SetMaxAttempts(0)
	r.letters(0)
	r.gets(s, "1/3 2/3 ")
	for o := range int64(4) {
		if err := s.Finish(id(o)); err != nil {
			t.Fatal(err)
		}
	}
	r.shard.collect(t)
	if d := r.shard.state(r.lane); d.floor != 4 || len(d.parked) != 0 {
		t.Fatalf("floor %d, parked %v", d.floor, d.parked)
	}
}

// A dead letter that is damaged is given up, one that is being mended waits.
func TestDamagedDeadLetter(t *testing.T) {
	r := newSpentRig(t, 1)
	r.publish(1)
	s := r.subscribe(t, 1, SubOptions{})
	r.gets(s, "0/1 ")
	if err := s.Requeue(id(0), 0); err != nil {
		t.Fatal(err)
	}
	d := r.letters(1, 0)[0]
	r.log.bad, r.log.mending = []offsets.Range{{From: 0, To: 1}}, true
	if _, _, ok, err := r.ch.ReadDeadLetter(d); ok || fault.CodeOf(err) != fault.Storage {
		t.Fatalf("while it is mended: %t, %v", ok, err)
	}
	r.log.mending = false
	if _, _, ok, err := r.ch.ReadDeadLetter(d); ok || err != nil {
		t.Fatalf("damaged: %t, %v", ok, err)
	}
	r.ch.FinishDeadLetter(d, true)
	if st := r.ch.Stats(); st.Depth != 0 || st.SkippedCount != 1 || st.DeadLetterCount != 0 {
		t.Fatalf("stats %+v", st)
	}
}

// What an emptied channel had spent is gone.
func TestSpentIsEmptied(t *testing.T) {
	r := newSpentRig(t, 1)
	r.publish(2)
	s := r.subscribe(t, 1, SubOptions{})
	r.gets(s, "0/1 ")
	if err := s.Requeue(id(0), 0); err != nil {
		t.Fatal(err)
	}
	d := r.letters(1, 0)[0]
	r.lane.Reset(partition.Start{Floor: 2, Limit: 2})
	r.letters(1)
	r.ch.FinishDeadLetter(d, false)
	if st := r.ch.Stats(); st.Depth != 0 || st.DeadLetterCount != 0 {
		t.Fatalf("stats %+v", st)
	}
}

// A leader before had finished a dead letter, and who tells the next one does not know
// how often it was delivered: it is a dead letter no more.
func TestSpentIsAdopted(t *testing.T) {
	a := newAdoption(t)
	a.ch.SetMaxAttempts(2)
	a.lane.Open()
	a.shard.offer(a.lane, a.clock.now)
	if list := a.ch.DeadLetters(10); len(list) != 1 || list[0].Offset != 5 {
		t.Fatalf("dead letters %v", list)
	}
	if lost := a.mirror.Adopt(held(5, 0), nil); len(lost) > 0 {
		t.Fatalf("lost %v", lost)
	}
	if list := a.ch.DeadLetters(10); len(list) > 0 {
		t.Errorf("in flight, and dead letters: %v", list)
	}
	if err := a.mirror.Finish(id(5)); err != nil {
		t.Fatal(err)
	}
	a.rest(t)
	a.mirror.Close(false)
	a.other.Close(false)
	for _, d := range a.ch.DeadLetters(10) {
		if d.Offset == 5 {
			t.Errorf("finished, and a dead letter: %v", d)
		}
	}
	if st := a.ch.Stats(); st.InFlight != 0 {
		t.Errorf("stats %+v", st)
	}
}
