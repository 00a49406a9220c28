package wal

import (
	"sort"
	"time"
)

// SyncBounds are the upper bounds, in seconds, of Stats.SyncBuckets; the last
// bucket has none.
var SyncBounds = [...]float64{
	50e-6, 100e-6, 200e-6, 400e-6, 800e-6, 1.6e-3, 3.2e-3, 6.4e-3, 12.8e-3,
	25.6e-3, 51.2e-3, 0.1, 0.2, 0.5, 1, 2, 5, 10,
}

// Stats counts since Open. Sync times are measured only under Run.
type Stats struct {
	Writes      uint64 // groups written
	Bytes       uint64 // bytes of groups
	Syncs       uint64
	SyncTime    time.Duration // sum
	SyncMax     time.Duration
	SyncBuckets [len(SyncBounds) + 1]uint64 // not cumulative
	Rolls       uint64                      // segments begun
	Recycles    uint64                      // segments that became spares
	Removed     uint64                      // segments removed because the stock was full or their size odd
	Oversize    uint64                      // appends that got a segment of their own size
	CutBytes    int64                       // cut by recovery at Open
	NoSpace     uint64                      // times that a spare could not be made for want of space
	Segments    int                         // live now
	Spares      int                         // in stock now
}

// observe notes how long a sync took.
func (s *Stats) observe(d time.Duration) {
	s.SyncTime += d
	s.SyncMax = max(s.SyncMax, d)
	s.SyncBuckets[sort.SearchFloat64s(SyncBounds[:], d.Seconds())]++
}

// Stats returns what has been counted.
func (w *WAL) Stats() Stats {
	w.names.Lock()
	spares := len(w.spares)
	w.names.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.counters
	s.Segments, s.Spares = len(w.index.live), spares
	return s
}
