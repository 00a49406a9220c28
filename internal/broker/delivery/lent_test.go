package delivery

import (
	"bytes"
	"testing"
)

// TestDeliveriesAreGoodUntilTheNextTake: two consumers share what is read; the
// one that takes on keeps nothing of the other's.
func TestDeliveriesAreGoodUntilTheNextTake(t *testing.T) {
	r := newRig(Config{})
	r.log.publish(20_000, 500) // several chunks
	slow, fast := r.subscribe(t, 5, SubOptions{}), r.subscribe(t, 1000, SubOptions{})
	r.lane.Limit(20_000)
	held, err := slow.Take(nil, 1<<20)
	if err != nil || len(held) != 5 {
		t.Fatalf("took %d, %v", len(held), err)
	}
	for got := 0; got < 20_000-5; {
		ds, err := fast.Take(nil, 1<<20)
		if err != nil || len(ds) == 0 {
			t.Fatalf("took %d after %d, %v", len(ds), got, err)
		}
		got += len(ds)
		for i := range ds {
			offsetOf(t, &ds[i])
			if err := fast.Finish(ds[i].ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	show(t, held)
	gone := bytes.Repeat([]byte{0xdb}, 8)
	if _, err := slow.Take(nil, 1<<20); err != nil {
		t.Fatal(err)
	}
	for i := range held {
		if !bytes.Equal(held[i].Body, gone) {
			t.Fatalf("delivery %d was kept behind the next Take", i)
		}
	}
}

// TestChunksAreGivenBack: by Takes that return nothing, by a lane that has
// nothing more, and by one that begins anew, with messages from the log and
// delivered again.
func TestChunksAreGivenBack(t *testing.T) {
	r := newRig(Config{})
	s := r.subscribe(t, 100, SubOptions{})
	lent := func(want int64) {
		t.Helper()
		if got := r.log.pool.Lent(); got != want {
			t.Fatalf("%d chunks are lent, want %d", got, want)
		}
	}
	r.publish(100)
	ds := take(t, s)
	lent(0)
	for i := range ds {
		if err := s.Requeue(ds[i].ID, 0); err != nil {
			t.Fatal(err)
		}
	}
	if again := take(t, s); len(again) != 100 {
		t.Fatalf("%d came again", len(again))
	}
	lent(0)
	r.log.publish(10_000, 10)
	r.lane.Limit(r.log.end)
	s.SetWindow(150)
	take(t, s)
	lent(1) // the rest of what the lane read
	r.lane.Stop(nil)
	lent(0)
}
