package wal

import (
	"slices"
	"sync"
	"time"
)

// latencySamples is of how many syncs the median is taken.
const latencySamples = 64

// Latency says how the log's syncs are doing. It is measured only under Run.
type Latency struct {
	Current time.Duration // how long the sync under way has been going; 0: none
	Median  time.Duration // of the last 64 syncs; 0: there was none
}

// latency follows the syncs. The driver of Sync writes, anybody reads.
type latency struct {
	mu      sync.Mutex
	begun   time.Time // zero: no sync is under way
	samples [latencySamples]time.Duration
	count   int // of all syncs
}

// begin notes that a sync goes out.
func (l *latency) begin(now time.Time) {
	l.mu.Lock()
	l.begun = now
	l.mu.Unlock()
}

// end notes that it came back.
func (l *latency) end(took time.Duration) {
	l.mu.Lock()
	l.begun = time.Time{}
	l.samples[l.count%latencySamples] = took
	l.count++
	l.mu.Unlock()
}

// Latency returns how the log's syncs are doing at now. Any goroutine.
func (w *WAL) Latency(now time.Time) Latency {
	l := &w.latency
	l.mu.Lock()
	begun, samples, n := l.begun, l.samples, min(l.count, latencySamples)
	l.mu.Unlock()
	var out Latency
	if !begun.IsZero() {
		out.Current = max(now.Sub(begun), 0)
	}
	if n > 0 {
		slices.Sort(samples[:n])
		out.Median = samples[n/2]
	}
	return out
}
