package latency

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const second = int64(time.Second)

// near wants a figure within a 64th.
func near(t *testing.T, what string, got, want int64) {
	t.Helper()
	if math.Abs(float64(got-want)) > float64(want)/64+unitNs {
		t.Errorf("%s: want %d, got %d", what, want, got)
	}
}

func TestQuantiles(t *testing.T) {
	w := NewWindow(600 * second)
	for i := int64(1); i <= 1000; i++ {
		w.Record(second, i*1e6)
	}
	s := w.Snapshot(second)
	if s.Count() != 1000 {
		t.Errorf("count is %d", s.Count())
	}
	near(t, "0.5", s.Quantile(0.5), 500e6)
	near(t, "0.99", s.Quantile(0.99), 990e6)
	near(t, "1", s.Quantile(1), 1000e6)
}

func TestNothing(t *testing.T) {
	var none *Snapshot
	if none.Count() != 0 || none.Quantile(1) != 0 {
		t.Error("nil has something")
	}
	s := NewWindow(second).Snapshot(5)
	s.Add(none)
	if s.Count() != 0 || s.Quantile(0.5) != 0 {
		t.Error("an empty window has something")
	}
}

// TestLongDurations: what was deferred for months is told as well as a
// microsecond.
func TestLongDurations(t *testing.T) {
	w := NewWindow(second)
	for _, ns := range []int64{-5, 0, 2000, 365 * 24 * 3600 * second, math.MaxInt64} {
		w.Record(1, ns)
	}
	s := w.Snapshot(1)
	near(t, "0.6", s.Quantile(0.6), 2000)
	near(t, "0.8", s.Quantile(0.8), 365*24*3600*second)
	near(t, "1", s.Quantile(1), mostMaxNs)
	other := NewWindow(second)
	other.Record(1, 3000)
	sum := other.Snapshot(1)
	sum.Add(s)
	if sum.Count() != 6 {
		t.Errorf("count is %d", sum.Count())
	}
}

// TestWindow: a figure counts for at least half a window and at most a whole
// one.
func TestWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const window = 100
		w := NewWindow(window)
		var at []int64
		now := int64(1000)
		for range 60 {
			now += rapid.Int64Range(0, 90).Draw(t, "pause")
			if rapid.Bool().Draw(t, "record") {
				w.Record(now, 1)
				at = append(at, now)
			}
			var sure, most int64
			for _, a := range at {
				if now-a <= window/2 {
					sure++
				}
				if now-a <= window {
					most++
				}
			}
			if n := w.Snapshot(now).Count(); n < sure || n > most {
				t.Fatalf("%d in the window, want %d to %d", n, sure, most)
			}
		}
	})
}

func TestRecordDoesNotAllocate(t *testing.T) {
	w := NewWindow(600 * second)
	w.Record(1, 5e6)
	now := int64(1)
	if n := testing.AllocsPerRun(1000, func() { now += 1000; w.Record(now, 7e6) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	w := NewWindow(600 * second)
	for i := range b.N {
		w.Record(int64(i), int64(i)%1e9)
	}
}
