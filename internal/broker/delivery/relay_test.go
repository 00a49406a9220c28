package delivery

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// led is a fleet of three nodes with one partition, led by the first.
func led(t *testing.T, cfg Config) *fleet {
	t.Helper()
	f := newFleet(3, 1, cfg)
	f.lead(t, 0, 0)
	f.carry(t)
	return f
}

// drain takes and carries until nothing comes, and shows what came.
func (f *fleet) drain(t *testing.T, s *Subscription) string {
	t.Helper()
	var got string
	for {
		f.carry(t)
		ds := take(t, s)
		if len(ds) == 0 {
			return got
		}
		got += show(t, ds)
	}
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: %q, want %q", what, got, want)
	}
}

func (f *fleet) finish(t *testing.T, s *Subscription, offsets ...int64) {
	t.Helper()
	for _, o := range offsets {
		if err := s.Finish(id(o)); err != nil {
			t.Fatalf("FIN %d: %v", o, err)
		}
	}
	f.carry(t)
}

func TestRelayDelivers(t *testing.T) {
	f := led(t, Config{})
	rung := 0
	s := f.nodes[1].subscribe(t, 3, SubOptions{Notify: func() { rung++ }})
	f.carry(t)
	if ds := take(t, s); len(ds) > 0 {
		t.Fatalf("took %s of nothing", show(t, ds))
	}
	f.publish(0, 5)
	f.carry(t)
	if rung != 1 {
		t.Fatalf("rung %d times", rung)
	}
	want(t, "delivered", f.drain(t, s), "0/1 1/1 2/1 ")
	st := f.nodes[0].ch.Stats()
	if st.InFlight != 3 || st.Depth != 2 || st.Consumers != 1 {
		t.Fatalf("at the leader: %+v", st)
	}
	if st := f.nodes[1].ch.Stats(); st.InFlight != 0 || st.Depth != 0 || st.Consumers != 1 {
		t.Fatalf("at the consumer's node: %+v", st)
	}
	f.finish(t, s, 1)
	want(t, "after FIN", f.drain(t, s), "3/1 ")
	if err := s.Requeue(id(0), 0); err != nil {
		t.Fatal(err)
	}
	want(t, "after REQ", f.drain(t, s), "0/2 ")
	if err := s.Requeue(id(2), time.Second); err != nil {
		t.Fatal(err)
	}
	want(t, "after a delayed REQ", f.drain(t, s), "4/1 ")
	f.finish(t, s, 0, 3, 4)
	f.collect(t)
	f.clock.advance(time.Second)
	f.collect(t)
	want(t, "when it is due", f.drain(t, s), "2/2 ")
	f.finish(t, s, 2)
	if st := s.Stats(); st.MessageCount != 7 || st.FinishCount != 5 || st.RequeueCount != 2 || st.InFlight != 0 {
		t.Fatalf("%+v", st)
	}
	if st := f.nodes[0].ch.Stats(); st.InFlight != 0 || st.Depth != 0 || st.RequeueCount != 2 {
		t.Fatalf("at the leader: %+v", st)
	}
	f.collect(t)
	if d := f.parts[0].state; d.floor != 5 || len(d.parked) > 0 {
		t.Fatalf("floor %d, parked %v", d.floor, d.parked)
	}
}

// TestRelayWindowOfOne: messages on one of many partitions reach a consumer with a
// window of 1, and it never has more than one.
func TestRelayWindowOfOne(t *testing.T) {
	f := newFleet(5, 12, Config{})
	for p := range f.parts {
		f.lead(t, p, p%4)
	}
	s := f.nodes[4].subscribe(t, 1, SubOptions{})
	f.carry(t)
	f.publish(7, 20)
	for n := range 20 {
		f.carry(t)
		ds := take(t, s)
		if len(ds) != 1 {
			t.Fatalf("round %d: took %d", n, len(ds))
		}
		flying := int64(0)
		for _, n := range f.nodes {
			flying += n.ch.Stats().InFlight
		}
		if flying != 1 {
			t.Fatalf("round %d: %d in flight", n, flying)
		}
		if err := s.Finish(ds[0].ID); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRelayBesideLocal: a consumer whose window is narrow gets from here and from
// elsewhere in turn.
func TestRelayBesideLocal(t *testing.T) {
	for _, window := range []int{1, 2, 7} {
		t.Run(fmt.Sprint(window), func(t *testing.T) {
			f := newFleet(3, 3, Config{})
			for p := range f.parts {
				f.lead(t, p, p)
			}
			s := f.nodes[0].subscribe(t, window, SubOptions{})
			f.carry(t)
			for p := range f.parts {
				f.publish(p, 400)
			}
			var from [3]int
			for range 600 {
				f.carry(t)
				ds, err := s.Take(nil, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				for i := range ds {
					part, _, _ := testCodec.Parse(ds[i].ID)
					from[part]++
					if err := s.Finish(ds[i].ID); err != nil {
						t.Fatal(err)
					}
				}
				if from[0]+from[1]+from[2] > 300 {
					break
				}
			}
			for p := range from {
				if from[p] < 60 {
					t.Fatalf("got %v", from)
				}
			}
		})
	}
}

// TestRelayFollowsLeaders: what a consumer holds survives any number of moves, to
// others and to its own node, with its number; answers given meanwhile are told.
func TestRelayFollowsLeaders(t *testing.T) {
	f := led(t, Config{})
	s := f.nodes[1].subscribe(t, 10, SubOptions{MsgTimeout: time.Minute})
	other := f.nodes[2].subscribe(t, 0, SubOptions{})
	f.publish(0, 6)
	want(t, "delivered", f.drain(t, s), "0/1 1/1 2/1 3/1 4/1 5/1 ")
	for i, leader := range []int{2, 1, 0, 1, 2, 0, 2, 1} {
		f.lead(t, 0, -1)
		if i < 4 {
			for _, n := range f.nodes {
				n.follow(0)
			}
		}
		if i < 5 { // answered without a leader
			if err := s.Finish(id(int64(i))); err != nil {
				t.Fatal(err)
			}
		}
		f.lead(t, 0, leader)
		other.SetWindow(10)
		want(t, "another consumer", f.drain(t, other), "")
		other.SetWindow(0)
		want(t, "the same", f.drain(t, s), "")
		flying := int64(0)
		for _, n := range f.nodes {
			flying += n.ch.Stats().InFlight
		}
		if left := int64(max(5-i, 1)); flying != left || s.Stats().InFlight != left {
			t.Fatalf("move %d to %d: %d in flight, %d of the consumer, want %d", i, leader, flying, s.Stats().InFlight, left)
		}
		f.collect(t)
	}
	f.finish(t, s, 5)
	f.collect(t)
	if d := f.parts[0].state; d.floor != 6 || len(d.parked) > 0 {
		t.Fatalf("floor %d, ranges %v, parked %v", d.floor, d.ranges.Ranges(), d.parked)
	}
}

// TestRelayLosesReplies: nothing is lost nor counted when a request or its reply is.
func TestRelayLosesReplies(t *testing.T) {
	for _, done := range []bool{false, true} {
		t.Run(fmt.Sprintf("done=%v", done), func(t *testing.T) {
			f := led(t, Config{})
			var failures []Op
			s := f.nodes[1].subscribe(t, 2, SubOptions{Failed: func(op Op, _ error) { failures = append(failures, op) }})
			f.publish(0, 4)
			lose := func() {
				t.Helper()
				l := f.nodes[1].links[0]
				l.bring()
				if !l.send(10) {
					t.Fatal("nothing to send")
				}
				if done && !l.arrive(t) {
					t.Fatal("refused")
				}
				l.fail()
			}
			f.nodes[1].follow(0)
			lose()
			want(t, "after a lost pull", f.drain(t, s), "0/1 1/1 ")
			if err := s.Finish(id(0)); err != nil {
				t.Fatal(err)
			}
			lose()
			want(t, "after a lost FIN", f.drain(t, s), "2/1 ")
			if err := s.Requeue(id(1), 0); err != nil {
				t.Fatal(err)
			}
			lose()
			want(t, "after a lost REQ", f.drain(t, s), "1/2 ")
			f.finish(t, s, 2, 1)
			want(t, "the rest", f.drain(t, s), "3/1 ")
			f.finish(t, s, 3)
			if len(failures) > 0 {
				t.Fatalf("failed: %v", failures)
			}
		})
	}
}

// TestRelayReturns: what the window does not cover when it arrives goes back.
func TestRelayReturns(t *testing.T) {
	for name, narrow := range map[string]func(s *Subscription){
		"RDY":   func(s *Subscription) { s.SetWindow(0) },
		"CLS":   func(s *Subscription) { s.Stop() },
		"close": func(s *Subscription) { s.Close(true) },
	} {
		for _, when := range []string{"asked", "answered", "arrived"} {
			t.Run(name+" "+when, func(t *testing.T) {
				f := led(t, Config{})
				s := f.nodes[1].subscribe(t, 3, SubOptions{})
				f.publish(0, 3)
				f.nodes[1].follow(0)
				l := f.nodes[1].links[0]
				l.send(10)
				if when != "asked" {
					l.arrive(t)
				}
				if when == "arrived" {
					l.finish()
				}
				narrow(s)
				if l.out && l.reply == nil {
					l.arrive(t)
				}
				if l.out {
					l.finish()
				}
				f.carry(t)
				if name != "close" {
					want(t, "beyond the window", f.drain(t, s), "")
				}
				if st := f.nodes[0].ch.Stats(); st.InFlight != 0 || st.Depth != 3 {
					t.Fatalf("at the leader: %+v", st)
				}
				other := f.nodes[2].subscribe(t, 3, SubOptions{})
				want(t, "delivered", f.drain(t, other), "0/1 1/1 2/1 ")
			})
		}
	}
}

// TestRelayCloses: what a consumer held when it left comes back as on one node.
func TestRelayCloses(t *testing.T) {
	for _, abnormal := range []bool{false, true} {
		f := led(t, Config{})
		s := f.nodes[1].subscribe(t, 2, SubOptions{})
		f.publish(0, 3)
		want(t, "delivered", f.drain(t, s), "0/1 1/1 ")
		if err := s.Finish(id(1)); err != nil {
			t.Fatal(err)
		}
		s.Close(abnormal)
		other := f.nodes[2].subscribe(t, 3, SubOptions{})
		want(t, "delivered", f.drain(t, other), "0/2 2/1 ")
		if st := f.nodes[0].ch.Stats(); st.Consumers != 1 {
			t.Fatalf("at the leader: %+v", st)
		}
	}
}

// TestRelayTimesOut: the leader counts, the consumer's node forgets, and a late
// answer fails.
func TestRelayTimesOut(t *testing.T) {
	f := led(t, Config{})
	s := f.nodes[1].subscribe(t, 1, SubOptions{MsgTimeout: 10 * time.Second, MaxMsgTimeout: 15 * time.Second})
	f.publish(0, 1)
	want(t, "delivered", f.drain(t, s), "0/1 ")
	f.clock.advance(8 * time.Second)
	if err := s.Touch(id(0)); err != nil {
		t.Fatal(err)
	}
	f.carry(t)
	f.clock.advance(6 * time.Second)
	want(t, "before the timeout", f.drain(t, s), "")
	f.clock.advance(2 * time.Second)
	if err := s.Finish(id(0)); !errors.Is(err, fault.NotInFlight) {
		t.Fatalf("FIN after the timeout: %v", err)
	}
	want(t, "after the timeout", f.drain(t, s), "0/2 ")
	if st := f.nodes[0].ch.Stats(); st.TimeoutCount != 1 || st.InFlight != 1 {
		t.Fatalf("at the leader: %+v", st)
	}
	if st := f.nodes[1].ch.Stats(); st.TimeoutCount != 0 {
		t.Fatalf("at the consumer's node: %+v", st)
	}
}

// TestRelayFailedAnswer: an answer that the leader does not take is told.
func TestRelayFailedAnswer(t *testing.T) {
	f := led(t, Config{})
	var failures []Op
	s := f.nodes[1].subscribe(t, 1, SubOptions{Failed: func(op Op, err error) {
		if !errors.Is(err, fault.NotOwner) {
			t.Errorf("%v", err)
		}
		failures = append(failures, op)
	}})
	f.publish(0, 1)
	want(t, "delivered", f.drain(t, s), "0/1 ")
	for _, m := range f.nodes[0].mirrors { // which takes this node for gone
		m.Abandon()
	}
	clear(f.nodes[0].mirrors)
	local := f.nodes[0].subscribe(t, 1, SubOptions{})
	want(t, "to another", f.drain(t, local), "0/1 ")
	if err := s.Finish(id(0)); err != nil {
		t.Fatal(err)
	}
	f.carry(t)
	if len(failures) != 1 || failures[0].ID != id(0) || failures[0].Kind != Finish {
		t.Fatalf("failed: %v", failures)
	}
	f.finish(t, local, 0)
}

// TestRelayEmptied: what was in flight is forgotten everywhere.
func TestRelayEmptied(t *testing.T) {
	f := led(t, Config{})
	s := f.nodes[1].subscribe(t, 2, SubOptions{})
	f.publish(0, 4)
	want(t, "delivered", f.drain(t, s), "0/1 1/1 ")
	f.parts[0].lane.Reset(partition.Start{Floor: 4, Limit: 4})
	f.nodes[1].links[0].relay.Emptied(0, 4)
	if st := s.Stats(); st.InFlight != 0 {
		t.Fatalf("%+v", st)
	}
	if err := s.Finish(id(0)); !errors.Is(err, fault.NotInFlight) {
		t.Fatalf("FIN: %v", err)
	}
	f.publish(0, 1)
	want(t, "delivered", f.drain(t, s), "4/1 ")
}

// TestRelayPaused: nothing is pulled, and what was stays here as long as it may.
func TestRelayPaused(t *testing.T) {
	f := led(t, Config{})
	s := f.nodes[1].subscribe(t, 1, SubOptions{MsgTimeout: 10 * time.Second})
	f.publish(0, 2)
	f.carry(t) // pulled
	f.nodes[1].ch.SetPaused(true)
	want(t, "while paused", f.drain(t, s), "")
	f.nodes[1].ch.SetPaused(false)
	want(t, "afterwards", f.drain(t, s), "0/1 ")
	f.finish(t, s, 0)
	f.nodes[1].ch.SetPaused(true)
	f.clock.advance(6 * time.Second)
	f.carry(t)
	if st := f.nodes[0].ch.Stats(); st.InFlight != 0 || st.TimeoutCount != 0 {
		t.Fatalf("at the leader: %+v", st)
	}
	f.nodes[1].ch.SetPaused(false)
	want(t, "in the end", f.drain(t, s), "1/1 ")
}

// A node that sees no leader for a moment, or another one too early, wants to end its
// consumers at the one that still leads. What they hold stays theirs.
func TestRelayLosesSightOfTheLeader(t *testing.T) {
	f := led(t, Config{})
	f.publish(0, 3)
	s := f.nodes[1].subscribe(t, 2, SubOptions{})
	want(t, "delivered", f.drain(t, s), "0/1 1/1 ")
	other := f.nodes[2].subscribe(t, 5, SubOptions{})
	want(t, "elsewhere", f.drain(t, other), "2/1 ")

	f.nodes[1].leads[0] = -1
	f.nodes[1].ch.SetRemote(0, nil)
	l := f.nodes[1].links[0]
	if !l.send(100) || len(l.sent.Closes) != 1 || l.arrive(t) {
		t.Fatalf("the leader takes %+v", l.sent)
	}
	l.fail()
	if ds := take(t, other); len(ds) > 0 {
		t.Fatalf("%s is delivered while somebody holds it", show(t, ds))
	}
	want(t, "after it is back", f.drain(t, s)+f.drain(t, other), "")
	f.finish(t, s, 0, 1)
	f.finish(t, other, 2)
	f.collect(t)
	if st := f.nodes[0].ch.Stats(); st.InFlight != 0 || f.parts[0].state.floor != 3 {
		t.Fatalf("%+v, floor %d", st, f.parts[0].state.floor)
	}
}
