package bench

import (
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Row is the outcome of one run, or of several as medians.
type Row struct {
	ID         string   `json:"id"`
	Workload   Workload `json:"workload"`
	System     string   `json:"system"`
	Durability string   `json:"durability"` // what an acknowledgement means
	Messages   int64    `json:"messages"`   // published, or for consuming workloads delivered
	Seconds    float64  `json:"seconds"`
	Rate       float64  `json:"rate"` // messages per second
	// CPUMicros is the broker's CPU time per message in microseconds, Cores its
	// CPU time per second; both 0 when its process is not known.
	CPUMicros float64 `json:"cpu_us_per_message,omitempty"`
	Cores     float64 `json:"cores,omitempty"`
	// RSS is the broker's resident memory in bytes when the measurement ended,
	// PeakRSS its highest since the start.
	RSS     int64              `json:"rss_bytes,omitempty"`
	PeakRSS int64              `json:"peak_rss_bytes,omitempty"`
	Latency *Latency           `json:"latency,omitempty"`
	Figures map[string]float64 `json:"figures,omitempty"` // what only this workload has; the unit ends the name
	Verdict
	Failure string `json:"failure,omitempty"` // why the row is no number
	// Took is how long the whole run lasted, in seconds: filling and verifying
	// too, and in a comparison starting and stopping the server; of medians, the
	// sum.
	Took float64 `json:"took_seconds"`
	Runs int     `json:"runs,omitempty"` // medians: of how many runs
	// Spread is the distance between the lowest and the highest of the runs, in
	// what the row is about, as a share of the median.
	Spread float64 `json:"spread,omitempty"`
}

// Latency summarizes a histogram, in microseconds.
type Latency struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_us"`
	P99   float64 `json:"p99_us"`
	P999  float64 `json:"p99_9_us"`
	Max   float64 `json:"max_us"`
	What  string  `json:"what"` // from when to when
}

// histogram covers a nanosecond to ten minutes with three digits.
func histogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*time.Minute), 3)
}

// record books a duration in nanoseconds; out of range is booked at the edge.
func record(h *hdrhistogram.Histogram, ns int64) {
	_ = h.RecordValue(min(max(ns, 1), int64(10*time.Minute))) // in range: can't fail
}

func summary(what string, hs ...*hdrhistogram.Histogram) *Latency {
	all := histogram()
	for _, h := range hs {
		all.Merge(h)
	}
	us := func(ns int64) float64 { return float64(ns) / 1e3 }
	return &Latency{
		What: what, Count: all.TotalCount(), Max: us(all.Max()),
		P50: us(all.ValueAtQuantile(50)), P99: us(all.ValueAtQuantile(99)), P999: us(all.ValueAtQuantile(99.9)),
	}
}

func (r *Row) figure(name string, v float64) {
	if r.Figures == nil {
		r.Figures = make(map[string]float64)
	}
	r.Figures[name] = v
}

// judge fails the row for what the system does not admit to.
func (r *Row) judge(p Promise) {
	switch v := r.Verdict; {
	case r.Failure != "":
	case v.Damaged > 0:
		r.Failure = fmt.Sprintf("%d messages damaged", v.Damaged)
	case v.Lost > 0 && !p.MayLose:
		r.Failure = fmt.Sprintf("%d messages lost", v.Lost)
	case v.Duplicated > 0 && (!p.MayRepeat || !r.Workload.crashes()):
		r.Failure = fmt.Sprintf("%d messages delivered twice", v.Duplicated)
	case v.Reordered > 0 && !p.MayReorder:
		r.Failure = fmt.Sprintf("%d messages out of order", v.Reordered)
	}
}

// Promise is what a system's own documentation admits to; what it admits is
// counted and shown, and does not fail its rows.
type Promise struct {
	MayReorder bool // nsqd: a message may overtake another
	MayLose    bool // a crash may take acknowledged messages with it
	MayRepeat  bool // nsqd: after a crash, messages may come twice
}
