package delivery

import (
	"testing"
	"time"
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
