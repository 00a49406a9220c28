package delivery

import (
	"testing"
	"time"
)

// hand has a partition led by another node, whom all follow.
func (f *fleet) hand(t *testing.T, p, node int) {
	t.Helper()
	f.lead(t, p, node)
	f.carry(t)
}

// What a consumer has not taken when its own node begins to lead goes to others when
// its window is narrowed, and is theirs then.
func TestInboxOfANewLeader(t *testing.T) {
	f := led(t, Config{})
	s := f.nodes[1].subscribe(t, 2, SubOptions{MsgTimeout: 10 * time.Second})
	other := f.nodes[1].subscribe(t, 0, SubOptions{MsgTimeout: 10 * time.Second})
	f.publish(0, 3)
	f.carry(t)
	f.hand(t, 0, 1)
	other.SetWindow(1)
	want(t, "what is left for the other", f.drain(t, other), "2/1 ")
	s.SetWindow(0)
	other.SetWindow(3)
	want(t, "given to the other", f.drain(t, other), "0/1 1/1 ")
	want(t, "given to the first", f.drain(t, s), "")
	f.finish(t, other, 0, 2)
	f.clock.advance(10 * time.Second)
	want(t, "after its time", f.drain(t, other), "1/2 ")
	f.finish(t, other, 1)
	f.collect(t)
	if floor := f.parts[0].state.floor; floor != 3 {
		t.Fatalf("floor %d", floor)
	}
}

// A leader that leads again after another knows nothing of what became of its messages
// meanwhile: it takes the word of those who hold some, and believes nobody who is silent.
func TestLeadsAgainAfterAnother(t *testing.T) {
	f := led(t, Config{})
	s := f.nodes[1].subscribe(t, 2, SubOptions{MsgTimeout: 10 * time.Second})
	f.publish(0, 3)
	want(t, "delivered", f.drain(t, s), "0/1 1/1 ")
	s.SetWindow(1)
	if err := s.Requeue(id(0), 0); err != nil {
		t.Fatal(err)
	}
	f.carry(t)
	s.SetWindow(2)
	l := f.nodes[1].links[0]
	if !l.send(10) || !l.arrive(t) || len(l.reply.Pulled) != 1 || l.reply.Pulled[0].Messages[0].Attempts != 2 {
		t.Fatalf("reply %+v", l.reply)
	}
	f.lead(t, 0, 2) // before the number is written, and before the reply is there
	l.fail()
	f.begin(0)
	f.nodes[1].follow(0)
	f.parts[0].lane.Open()
	for to := f.nodes[1].links[2]; to.send(10); to.finish() { // the first leader is out of reach
		if !to.arrive(t) {
			t.Fatal("refused")
		}
	}
	want(t, "by the second", show(t, take(t, s)), "0/1 ")

	f.hand(t, 0, 0)
	if st := f.nodes[0].ch.Stats(); st.InFlight != 2 {
		t.Fatalf("in flight at the leader: %+v", st)
	}
	want(t, "by the first again", f.drain(t, s), "")
	f.finish(t, s, 0, 1)
	want(t, "the rest", f.drain(t, s), "2/1 ")
	f.finish(t, s, 2)
	f.collect(t)
	if floor := f.parts[0].state.floor; floor != 3 {
		t.Fatalf("floor %d", floor)
	}
}

// A node that is not told anew after a leadership in between is believed until the
// lane opens, and not any longer.
func TestLeadsAgainAndIsNotTold(t *testing.T) {
	for _, between := range []bool{false, true} {
		f := led(t, Config{})
		s := f.nodes[1].subscribe(t, 2, SubOptions{MsgTimeout: 10 * time.Second})
		f.publish(0, 2)
		want(t, "delivered", f.drain(t, s), "0/1 1/1 ")
		f.lead(t, 0, -1)
		if between {
			f.lead(t, 0, 2)
			f.begin(0)
		}
		part := f.parts[0]
		if between {
			f.lead(t, 0, 0)
		} else {
			part.term-- // nobody was elected
			f.lead(t, 0, 0)
		}
		f.begin(0)
		m := f.nodes[0].ch.Subscriptions(nil)[0]
		if err := m.Finish(id(0)); err != nil {
			t.Fatalf("answer of who has not noticed: %v", err)
		}
		part.lane.Open()
		kept := map[bool]int64{false: 1, true: 0}[between]
		if n := m.Stats().InFlight; n != kept {
			t.Fatalf("another between: %v; kept for the mirror: %d", between, n)
		}
	}
}

// An answer that is given while nobody is known to lead has its time all the same.
func TestAnswerWithoutLeader(t *testing.T) {
	f := led(t, Config{})
	s := f.nodes[1].subscribe(t, 1, SubOptions{MsgTimeout: 10 * time.Second})
	f.publish(0, 1)
	want(t, "delivered", f.drain(t, s), "0/1 ")
	f.lead(t, 0, -1)
	f.nodes[1].follow(0)
	if err := s.Finish(id(0)); err != nil {
		t.Fatal(err)
	}
	f.clock.advance(time.Second)
	f.lead(t, 0, 2)
	f.begin(0)
	f.nodes[1].follow(0)
	l := f.nodes[1].links[2]
	if !l.send(10) || len(l.sent.Holds) != 1 || l.sent.Holds[0].Messages[0].Age != time.Second {
		t.Fatalf("told: %+v", l.sent)
	}
}

// A REQ that was given before the lane began may have been done by the leader before:
// whoever was given the message since has the last word.
func TestLateRequeue(t *testing.T) {
	f := led(t, Config{})
	s := f.nodes[1].subscribe(t, 1, SubOptions{MsgTimeout: 10 * time.Second})
	f.publish(0, 1)
	want(t, "delivered", f.drain(t, s), "0/1 ")
	f.lead(t, 0, -1)
	f.nodes[1].follow(0)
	if err := s.Requeue(id(0), time.Second); err != nil {
		t.Fatal(err)
	}
	f.lead(t, 0, 1)
	f.begin(0)
	m, err := f.nodes[1].ch.Subscribe(SubOptions{Relayed: true})
	if err != nil {
		t.Fatal(err)
	}
	if lost := m.Adopt([]HeldMessage{{Offset: 0, Attempts: 2, Left: time.Second}}, nil); len(lost) > 0 {
		t.Fatalf("lost: %+v", lost)
	}
	if err := m.Finish(id(0)); err != nil {
		t.Fatal(err)
	}
	f.parts[0].lane.Open()
	f.collect(t)
	if d := f.parts[0].state; d.floor != 1 || len(d.parked) > 0 {
		t.Fatalf("floor %d, parked %v", d.floor, d.parked)
	}
}

// What an attempt was before the cursor came to the message is told to the next leader.
func TestCountedBeforeTheCursor(t *testing.T) {
	f := led(t, Config{})
	s := f.nodes[1].subscribe(t, 1, SubOptions{MsgTimeout: 10 * time.Second})
	f.publish(0, 1)
	want(t, "delivered", f.drain(t, s), "0/1 ")
	f.lead(t, 0, 1)
	f.begin(0)
	if err := s.Requeue(id(0), 0); err != nil {
		t.Fatal(err)
	}
	f.lead(t, 0, 2) // before it is written
	want(t, "by the next", f.drain(t, s), "0/2 ")
}
