package delivery

import (
	"testing"
	"time"
)

// The leader of a channel that lives in memory hears of a consumer that has not opened
// its window, wherever the leadership goes: without it the channel would end with the
// others, or not at all.
func TestEphemeralConsumersAreAnnounced(t *testing.T) {
	id := uint64(0)
	c := NewChannel(Config{
		Topic: "orders", Name: "tail#ephemeral", Clock: func() int64 { return 1 }, Idle: func() {},
		MirrorID: func() uint64 { id++; return id },
	})
	relays := [2]*Relay{c.NewRelay(func() {}), c.NewRelay(func() {})}
	c.SetRemote(0, relays[0])
	s, err := c.Subscribe(SubOptions{MsgTimeout: time.Minute, MaxMsgTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	collect := func(r *Relay) (q RelayRequest) {
		t.Helper()
		if !r.Collect(&q, 10) {
			t.Fatal("there is nothing to tell")
		}
		return q
	}
	q := collect(relays[0])
	if len(q.Opens) != 1 || len(q.Pulls) != 0 {
		t.Fatalf("told when it came: %+v", q)
	}
	relays[0].Answered(&q, &RelayReply{})
	c.SetRemote(0, relays[1]) // the leadership moves
	q = collect(relays[1])
	if len(q.Opens) != 1 || len(q.Pulls) != 0 {
		t.Fatalf("told to the next leader: %+v", q)
	}
	relays[1].Answered(&q, &RelayReply{})
	s.Close(false)
	if q = collect(relays[1]); len(q.Closes) != 1 {
		t.Fatalf("told when it left: %+v", q)
	}
}
