package delivery

import (
	"errors"
	"testing"
	"time"

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
	if got := show(t, take(t, s)); got != "0/2 1/3 " {
		t.Fatalf("after the timeout: %s", got)
	}
	r.shard.collect(t)
	if d := r.shard.state(r.lane); d.attempts[0] != 1 || d.attempts[1] != 2 || len(d.attempts) != 2 {
		t.Fatalf("durable attempts %v", d.attempts)
	}
}

func TestRequeueWithDelayParks(t *testing.T) {
	r := newRig(Config{})
	r.publish(1)
	s := r.subscribe(t, 1, SubOptions{})
	take(t, s)
	if err := s.Requeue(id(0), time.Minute); err != nil {
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
