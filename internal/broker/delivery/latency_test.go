package delivery

import (
	"math"
	"testing"
	"time"
)

// near wants a duration to a 64th.
func near(t *testing.T, what string, got int64, want time.Duration) {
	t.Helper()
	if math.Abs(float64(got-int64(want))) > float64(want)/64 {
		t.Errorf("%s: %v, want %v", what, time.Duration(got), want)
	}
}

// TestLatency: from the publish to the FIN, whatever lies between, and of FIN
// only.
func TestLatency(t *testing.T) {
	r := newRig(Config{LatencyWindow: time.Hour})
	r.publish(3)
	s := r.subscribe(t, 3, SubOptions{})
	ds := take(t, s)
	published := ds[0].TimeNs
	r.clock.now = published + int64(time.Second)
	finish := func(d *Delivery) {
		t.Helper()
		if err := s.Finish(d.ID); err != nil {
			t.Fatal(err)
		}
	}
	finish(&ds[0])
	if err := s.Requeue(ds[1].ID, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Touch(ds[2].ID); err != nil {
		t.Fatal(err)
	}
	if n := r.ch.Latency().Count(); n != 1 {
		t.Fatalf("%d in the window after one FIN", n)
	}
	near(t, "the first", r.ch.Latency().Quantile(1), time.Second)

	again := take(t, s)
	if len(again) != 1 {
		t.Fatalf("took %s", show(t, again))
	}
	r.clock.now = published + int64(5*time.Second)
	finish(&again[0])
	finish(&ds[2])
	if l := r.ch.Latency(); l.Count() != 3 {
		t.Errorf("%d in the window after three", l.Count())
	} else {
		near(t, "the lowest", l.Quantile(0.3), time.Second)
		near(t, "the highest", l.Quantile(1), 5*time.Second)
	}
}

// TestLatencyOfParked: a message that was parked comes back in another slot,
// and is as old as it was.
func TestLatencyOfParked(t *testing.T) {
	r := newRig(Config{LatencyWindow: time.Hour})
	r.lane.Limit(r.log.append(message{due: r.clock.now + int64(time.Minute)}, message{}))
	s := r.subscribe(t, 5, SubOptions{})
	ds := take(t, s)
	if len(ds) != 1 {
		t.Fatalf("took %s", show(t, ds))
	}
	published := ds[0].TimeNs
	if err := s.Finish(ds[0].ID); err != nil {
		t.Fatal(err)
	}
	r.shard.collect(t)
	r.clock.now += int64(2 * time.Minute)
	r.lane.Due(r.shard.offer(r.lane, r.clock.now))
	ds = take(t, s)
	if len(ds) != 1 {
		t.Fatalf("took %s after the delay", show(t, ds))
	}
	if err := s.Finish(ds[0].ID); err != nil {
		t.Fatal(err)
	}
	near(t, "the parked one", r.ch.Latency().Quantile(1), time.Duration(r.clock.now-published))
}

// TestLatencyOff: without a window there is none.
func TestLatencyOff(t *testing.T) {
	r := newRig(Config{})
	r.publish(1)
	s := r.subscribe(t, 1, SubOptions{})
	if err := s.Finish(take(t, s)[0].ID); err != nil {
		t.Fatal(err)
	}
	if r.ch.Latency() != nil || r.ch.slots.times != nil {
		t.Error("it was measured")
	}
}

// TestAnswerBeforeItIsRead: FIN of a message whose body is still being read is
// not measured, and harms nothing.
func TestAnswerBeforeItIsRead(t *testing.T) {
	r := newRig(Config{LatencyWindow: time.Hour})
	r.lane.Limit(r.log.append(message{due: r.clock.now + int64(time.Minute)}))
	s := r.subscribe(t, 5, SubOptions{})
	if ds := take(t, s); len(ds) != 0 {
		t.Fatalf("took %s", show(t, ds))
	}
	r.shard.collect(t)
	r.clock.now += int64(2 * time.Minute)
	r.lane.Due(r.shard.offer(r.lane, r.clock.now))
	r.log.onRead = func(offset int64) {
		if err := s.Finish(id(offset)); err != nil {
			t.Error(err)
		}
	}
	take(t, s)
	if n := r.ch.Latency().Count(); n != 0 {
		t.Errorf("%d in the window", n)
	}
}

// TestLatencyDoesNotAllocate: once the window has its histogram.
func TestLatencyDoesNotAllocate(t *testing.T) {
	d := newDrainWith(t, newLoopLog(100, 200), 1<<40, 500, Config{Codec: testCodec, LatencyWindow: time.Hour})
	for range 100 {
		d.step(t)
	}
	if got := testing.AllocsPerRun(200, func() { d.step(t) }); got > 0 {
		t.Errorf("%.1f allocations for a Take and a Do", got)
	}
}

func BenchmarkTakeFinishLatency(b *testing.B) {
	benchmarkDrain(b, newDrainWith(b, newLoopLog(100, 200), 1<<40, 2500, Config{Codec: testCodec, LatencyWindow: time.Hour}))
}
