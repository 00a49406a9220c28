package delivery

import (
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
)

// Whoever has a consumer's mirror is told that the consumer has left, also when he leads
// no more and could not open the mirror anew.
func TestConsumerThatHasLeftIsNotOpenedAnew(t *testing.T) {
	clock := &handClock{now: int64(time.Hour)}
	id := uint64(0)
	c := NewChannel(Config{
		Codec: testCodec, Clock: clock.clock, AfterFunc: clock.afterFunc,
		MirrorID: func() uint64 { id++; return id },
	})
	r := c.NewRelay(func() {})
	c.SetRemote(0, r)
	s, err := c.Subscribe(SubOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.SetWindow(1)
	var q RelayRequest
	if !r.Collect(&q, 100) || len(q.Opens) != 1 || len(q.Pulls) != 1 {
		t.Fatalf("told %+v", q)
	}
	r.Answered(&q, &RelayReply{Pulled: []MirrorPulled{{Mirror: q.Pulls[0].Mirror, Waits: true}}})
	s.Close(false)
	for i := range 3 {
		if !r.Collect(&q, 100) || len(q.Closes) != 1 || len(q.Opens)+len(q.Pulls) != 0 {
			t.Fatalf("told %+v", q)
		}
		if q.Closes[0].Ended != (i > 0) {
			t.Errorf("close %d: %+v", i, q.Closes[0])
		}
		r.Failed(&q)
		r.Retry()
	}
	if !r.Collect(&q, 100) {
		t.Fatal("nothing is told")
	}
	r.Answered(&q, &RelayReply{})
	if r.Busy() || r.Collect(&q, 100) {
		t.Fatalf("told %+v", q)
	}
}

// What a consumer of a channel that has ended has answered does not keep its mirror at
// a node that leads no more.
func TestClosedChannelForgoesAnswers(t *testing.T) {
	clock := &handClock{now: int64(time.Hour)}
	c := NewChannel(Config{
		Codec: testCodec, Clock: clock.clock, AfterFunc: clock.afterFunc, MirrorID: func() uint64 { return 1 },
	})
	r := c.NewRelay(func() {})
	c.SetRemote(0, r)
	s, err := c.Subscribe(SubOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.SetWindow(1)
	var q RelayRequest
	r.Collect(&q, 100)
	r.Answered(&q, &RelayReply{Pulled: []MirrorPulled{{Mirror: 1, Messages: []RelayedMessage{{Offset: 5, Attempts: 1, Body: []byte("x")}}}}})
	if ds := take(t, s); len(ds) != 1 {
		t.Fatal("nothing was taken")
	} else if err := s.Finish(ds[0].ID); err != nil {
		t.Fatal(err)
	}
	s.Close(false)
	if r.Forgo(); !r.Collect(&q, 100) || len(q.Ops) != 1 {
		t.Fatalf("told %+v", q)
	}
	c.Close(fault.ChannelNotFound)
	r.Failed(&q)
	r.Retry()
	r.Forgo()
	if !r.Collect(&q, 100) || len(q.Ops)+len(q.Opens) != 0 || len(q.Closes) != 1 {
		t.Fatalf("told %+v", q)
	}
	r.Answered(&q, &RelayReply{})
	if r.Busy() {
		t.Error("there is something to tell")
	}
}
