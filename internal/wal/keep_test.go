package wal

import (
	"testing"
	"time"
)

// An idle shard does not hold the segments of a busy one, and a busy one keeps
// what was asked for and little more.
func TestKept(t *testing.T) {
	fs := newFS(t)
	w := mustOpen(t, fs, Options{SegmentSize: MinSegmentSize, Spares: -1})
	commit(t, w, Append{Shard: 1, Entries: entries(1, 3, 1, 100)})
	for i := uint64(1); i <= 100; i++ {
		commit(t, w, Append{Shard: 2, Entries: entries(i, i, 1, 500)})
	}
	if got := w.Kept(1, 10<<10); got != 3 {
		t.Errorf("of the idle shard all up to %d may go", got)
	}
	if got := w.Kept(9, 10<<10); got != 0 {
		t.Errorf("of an unknown shard all up to %d may go", got)
	}
	if got := w.Kept(2, 1<<40); got != 0 {
		t.Errorf("all is to be kept, and up to %d may go", got)
	}
	got := w.Kept(2, 10<<10)
	bytes := w.BytesAbove(2, got)
	if bytes < 10<<10 || bytes > 10<<10+MinSegmentSize {
		t.Errorf("above entry %d stand %d bytes", got, bytes)
	}
	if all := w.BytesAbove(1, 0); all < w.Size()-headerSize-2*frameSize || all > w.Size() {
		t.Errorf("behind the first entry stand %d bytes of %d", all, w.Size())
	}
	if none := w.BytesAbove(2, 100); none != 0 {
		t.Errorf("behind the last entry stand %d bytes", none)
	}
	w.Release(1, w.Kept(1, 10<<10))
	w.Release(2, got)
	maintain(t, w)
	if size := w.Size(); size > 10<<10+2*MinSegmentSize {
		t.Errorf("%d bytes are kept", size)
	}
	if es, err := w.Entries(2, got+1, 101, everything); err != nil || len(es) != int(100-got) {
		t.Errorf("%d entries: %v", len(es), err)
	}
}

func TestLatency(t *testing.T) {
	w := mustOpen(t, newFS(t), Options{SegmentSize: MinSegmentSize, Spares: -1})
	now := time.Unix(1000, 0)
	if got := w.Latency(now); got != (Latency{}) {
		t.Errorf("at first: %+v", got)
	}
	step := 3 * time.Millisecond
	w.writer.now = func() time.Time { now = now.Add(step); return now }
	for i := uint64(1); i <= 5; i++ {
		commit(t, w, Append{Shard: 1, Entries: entries(i, i, 1, 10)})
	}
	if got := w.Latency(now); got.Current != 0 || got.Median != step {
		t.Errorf("after five syncs: %+v", got)
	}
	w.latency.begin(now)
	if got := w.Latency(now.Add(2 * time.Second)); got.Current != 2*time.Second || got.Median != step {
		t.Errorf("while one goes on: %+v", got)
	}
}

// A log that is abandoned is set aside as it is, and an empty one takes its
// place.
func TestAbandon(t *testing.T) {
	fs := newFS(t)
	w := mustOpen(t, fs, Options{SegmentSize: MinSegmentSize})
	for i := uint64(1); i <= 30; i++ {
		commit(t, w, Append{Shard: 1, Entries: entries(i, i, 1, 500)})
	}
	maintain(t, w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	moved, err := Abandon(fs, dir)
	if err != nil || len(moved) < 4 {
		t.Fatalf("moved %q: %v", moved, err)
	}
	fs.Crash(nil)
	again, err := Abandon(fs, dir)
	if err != nil || len(again) > 0 {
		t.Fatalf("moved %q: %v", again, err)
	}
	w = mustOpen(t, fs, Options{SegmentSize: MinSegmentSize})
	if ids := w.Shards(); len(ids) > 0 {
		t.Errorf("it knows shards %v", ids)
	}
	commit(t, w, Append{Shard: 1, Entries: entries(7, 8, 2, 10)})
}
