package nsq

import (
	"maps"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

// talliesMax bounds the topics whose messages are counted apart; the rest is
// counted under "".
const talliesMax = 64 << 10

// tallies counts the messages that were published, by topic. A publisher looks
// its topic up when it changes it, and then only adds.
type tallies struct {
	mu     sync.RWMutex
	counts map[string]*atomic.Uint64
}

// of is the count of a topic.
func (t *tallies) of(topic string) *atomic.Uint64 {
	t.mu.RLock()
	n := t.counts[topic]
	t.mu.RUnlock()
	if n != nil {
		return n
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = make(map[string]*atomic.Uint64)
	}
	if len(t.counts) >= talliesMax {
		topic = ""
	}
	if n = t.counts[topic]; n == nil {
		n = new(atomic.Uint64)
		t.counts[topic] = n
	}
	return n
}

// snapshot is the counts of the moment.
func (t *tallies) snapshot() map[string]uint64 {
	t.mu.RLock()
	counts := maps.Clone(t.counts)
	t.mu.RUnlock()
	out := make(map[string]uint64, len(counts))
	for topic, n := range counts {
		out[topic] = n.Load()
	}
	return out
}

// Published counts the messages of clients that were acknowledged since the
// process started, by topic: over TCP, and over HTTP. What is beyond 65,536 topics
// stands under "".
func (f *Front) Published() (tcp, http map[string]uint64) {
	return f.metrics.tcp.snapshot(), f.metrics.http.snapshot()
}

// measureEvery is of how many publishes one has its duration measured: reading
// the clock costs more than counting.
const measureEvery = 16

// measure notes the time of the publish of that number, if it is one whose
// duration is measured.
func (p *publish) measure(number uint64) {
	if number%measureEvery == 1 {
		p.begun = time.Now()
	}
}

// DurationBounds are the upper bounds, in seconds, of Durations.Buckets; the last
// bucket has none.
var DurationBounds = [...]float64{
	100e-6, 200e-6, 400e-6, 800e-6, 1.6e-3, 3.2e-3, 6.4e-3, 12.8e-3, 25.6e-3, 51.2e-3, 0.1, 0.2, 0.5, 1, 2, 5, 10,
}

// durations is a histogram that many add to.
type durations struct {
	sum     atomic.Int64 // ns
	buckets [len(DurationBounds) + 1]atomic.Uint64
}

func (d *durations) observe(took time.Duration) {
	d.sum.Add(int64(took))
	d.buckets[sort.SearchFloat64s(DurationBounds[:], took.Seconds())].Add(1)
}

// Durations are how long publishes took from the call of the broker to its
// answer: one of sixteen, since the process started.
type Durations struct {
	Count   uint64
	Sum     time.Duration
	Buckets [len(DurationBounds) + 1]uint64 // not cumulative
}

// Durations returns what was measured.
func (f *Front) Durations() Durations {
	d := &f.metrics.durations
	out := Durations{Sum: time.Duration(d.sum.Load())}
	for i := range d.buckets {
		out.Buckets[i] = d.buckets[i].Load()
		out.Count += out.Buckets[i]
	}
	return out
}
