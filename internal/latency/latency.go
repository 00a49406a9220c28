// Package latency keeps how long things took, over a sliding window, in bounded
// memory, and tells quantiles of it. It is what nsqd calls
// e2e_processing_latency: from the publish of a message to its FIN.
//
// A window is two halves, as in nsqd: when the younger one is as old as half the
// window, the older one is dropped. So a figure is of the last half to whole
// window.
package latency

import (
	"github.com/HdrHistogram/hdrhistogram-go"
)

// A histogram has buckets of a 128th of their value, from about a microsecond
// up. Its first size reaches a minute, in 20 KiB; it grows with what is recorded.
const (
	unitNs      = 1 << 10
	firstMaxNs  = int64(64e9)
	mostMaxNs   = int64(1) << 61 // 73 years
	significant = 2
)

// Window records durations. Only one goroutine may use it at a time.
type Window struct {
	halfNs int64
	// began is when the younger half began, unix ns; 0: nothing was recorded
	// in the last window.
	began          int64
	younger, older *hdrhistogram.Histogram // nil: nothing in it
}

// NewWindow makes a window of so many ns, at least 2.
func NewWindow(ns int64) *Window { return &Window{halfNs: max(ns/2, 1)} }

// Record counts a duration at the time now, unix ns. Less than nothing is
// nothing.
func (w *Window) Record(now, ns int64) {
	w.move(now)
	if w.began == 0 {
		w.began = now
	}
	if w.younger == nil {
		w.younger = hdrhistogram.New(unitNs, firstMaxNs, significant)
	}
	ns = min(max(ns, 0), mostMaxNs)
	if ns > w.younger.HighestTrackableValue() {
		w.younger = grown(w.younger, ns)
	}
	_ = w.younger.RecordValue(ns) // it fits
}

// move drops what is too old at the time now.
func (w *Window) move(now int64) {
	switch age := now - w.began; {
	case w.began == 0 || age <= w.halfNs:
	case age > 2*w.halfNs:
		w.younger, w.older, w.began = nil, nil, 0
	default:
		w.younger, w.older = nil, w.younger
		w.began += w.halfNs
	}
}

// grown is a histogram with what is in h and room for ns.
func grown(h *hdrhistogram.Histogram, ns int64) *hdrhistogram.Histogram {
	most := max(h.HighestTrackableValue(), firstMaxNs)
	for most < ns {
		most = min(most, mostMaxNs/4) * 4
	}
	bigger := hdrhistogram.New(unitNs, most, significant)
	bigger.Merge(h)
	return bigger
}

// Snapshot is what the window holds at the time now, unix ns. It is the
// caller's.
func (w *Window) Snapshot(now int64) *Snapshot {
	w.move(now)
	s := &Snapshot{}
	s.add(w.younger)
	s.add(w.older)
	return s
}

// Snapshot is a number of durations. The zero value has none; nil means that
// none were measured.
type Snapshot struct{ all *hdrhistogram.Histogram }

// Add puts what other holds into s; nil adds nothing.
func (s *Snapshot) Add(other *Snapshot) {
	if other != nil {
		s.add(other.all)
	}
}

func (s *Snapshot) add(h *hdrhistogram.Histogram) {
	switch {
	case h == nil:
	case s.all == nil:
		s.all = h.Clone()
	default:
		if most := h.HighestTrackableValue(); most > s.all.HighestTrackableValue() {
			s.all = grown(s.all, most)
		}
		s.all.Merge(h)
	}
}

// Count is how many durations there are.
func (s *Snapshot) Count() int64 {
	if s == nil || s.all == nil {
		return 0
	}
	return s.all.TotalCount()
}

// Quantile is the duration in ns that the share q (0 < q ≤ 1) of them does not
// exceed, to a 128th; 0 without any.
func (s *Snapshot) Quantile(q float64) int64 {
	if s.Count() == 0 {
		return 0
	}
	return s.all.ValueAtPercentile(q * 100)
}

// MarshalBinary is the snapshot for another process of this program.
func (s *Snapshot) MarshalBinary() ([]byte, error) {
	if s.Count() == 0 {
		return nil, nil
	}
	return s.all.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
}

// UnmarshalBinary takes over what MarshalBinary gave.
func (s *Snapshot) UnmarshalBinary(b []byte) (err error) {
	s.all = nil
	if len(b) > 0 {
		s.all, err = hdrhistogram.Decode(b)
	}
	return err
}
