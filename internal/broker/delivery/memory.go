package delivery

import (
	"math"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/broker/partition"
)

// DeferredMax is how many deferred messages Memory keeps for a lane unless told
// otherwise.
const DeferredMax = 64 << 10

// pinBits: pinned offsets are counted per 4,096 of them.
const pinBits = 12

var _ Shard = (*Memory)(nil)

// MemoryOptions describes a Memory. Clock and AfterFunc are as in Config.
type MemoryOptions struct {
	Clock     func() int64
	AfterFunc func(d time.Duration, f func()) Timer
	// DeferredMax bounds the deferred messages of one lane; what is deferred
	// beyond it is dropped and counted. 0: the constant DeferredMax.
	DeferredMax int
}

// Memory is the Shard of lanes that are written nowhere: those of ephemeral
// channels. What they finish is forgotten; what they defer waits here until it
// is due.
//
// The calls it makes to lanes (Collect, Due) are those that never make a lane
// call its shard, so it makes them under its own lock.
type Memory struct {
	clock     func() int64
	afterFunc func(d time.Duration, f func()) Timer
	max       int

	mu      sync.Mutex
	lanes   map[*Lane]*memoryLane
	timer   Timer
	armedAt int64 // unix ns; 0: not set
	delta   partition.Delta
}

// memoryLane is what is deferred for one lane.
type memoryLane struct {
	waiting dueHeap
	// members are all deferred messages that are not finished, those that the
	// lane has been given included.
	members map[int64]struct{}
	pins    map[int64]int // members per block of 4,096 offsets
	dropped uint64
	refused bool // the lane takes nothing before it calls Wanted
}

// NewMemory makes a Memory.
func NewMemory(o MemoryOptions) *Memory {
	if o.Clock == nil {
		o.Clock = func() int64 { return time.Now().UnixNano() }
	}
	if o.AfterFunc == nil {
		o.AfterFunc = func(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }
	}
	if o.DeferredMax <= 0 {
		o.DeferredMax = DeferredMax
	}
	return &Memory{clock: o.Clock, afterFunc: o.AfterFunc, max: o.DeferredMax, lanes: map[*Lane]*memoryLane{}}
}

// Dirty collects from the lane.
func (m *Memory) Dirty(lane partition.Lane) {
	l := lane.(*Lane)
	m.mu.Lock()
	defer m.mu.Unlock()
	for more := true; more; {
		d := &m.delta
		d.Finished, d.Parked = d.Finished[:0], d.Parked[:0]
		d.Unparked, d.Attempts = d.Unparked[:0], d.Attempts[:0]
		more = l.Collect(d)
		if len(d.Parked)+len(d.Unparked) > 0 {
			m.apply(l, d)
		}
	}
	m.arm()
}

// Wanted offers the lane what is due.
func (m *Memory) Wanted(lane partition.Lane) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := lane.(*Lane)
	if ml := m.lanes[l]; ml != nil {
		ml.refused = false
		m.offer(l, ml, m.clock())
	}
	m.arm()
}

// apply takes in what a lane parked and finished.
func (m *Memory) apply(l *Lane, d *partition.Delta) {
	ml := m.lanes[l]
	if ml == nil {
		ml = &memoryLane{members: map[int64]struct{}{}, pins: map[int64]int{}}
		m.lanes[l] = ml
	}
	for _, e := range d.Parked {
		if _, again := ml.members[e.Offset]; !again {
			if len(ml.members) >= m.max {
				ml.dropped++
				continue
			}
			ml.members[e.Offset] = struct{}{}
			ml.pins[e.Offset>>pinBits]++
		}
		// What the lane holds itself need not be given to it.
		if e.DueNs != l.heldDue {
			ml.waiting.push(e)
		}
	}
	for _, o := range d.Unparked {
		if _, ok := ml.members[o]; !ok {
			continue
		}
		delete(ml.members, o)
		if ml.pins[o>>pinBits]--; ml.pins[o>>pinBits] == 0 {
			delete(ml.pins, o>>pinBits)
		}
	}
}

// offer gives the lane what is due, as far as it takes it.
func (m *Memory) offer(l *Lane, ml *memoryLane, now int64) {
	for !ml.refused && len(ml.waiting) > 0 && ml.waiting[0].DueNs <= now {
		var one [1]parked.Entry
		one[0] = ml.waiting[0]
		if l.Due(one[:]) == 0 {
			ml.refused = true
			return
		}
		ml.waiting.pop()
	}
}

// onTimer offers all lanes what is due.
func (m *Memory) onTimer() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.armedAt = 0
	now := m.clock()
	for l, ml := range m.lanes {
		m.offer(l, ml, now)
	}
	m.arm()
}

// arm sets the timer for the earliest due message that its lane would take.
func (m *Memory) arm() {
	next := int64(math.MaxInt64)
	for _, ml := range m.lanes {
		if !ml.refused && len(ml.waiting) > 0 {
			next = min(next, ml.waiting[0].DueNs)
		}
	}
	if next == math.MaxInt64 || (m.armedAt != 0 && m.armedAt <= next) {
		return
	}
	m.armedAt = next
	d := time.Duration(max(next-m.clock(), 0))
	if m.timer == nil {
		m.timer = m.afterFunc(d, m.onTimer)
		return
	}
	m.timer.Reset(d)
}

// forget drops what is deferred for a lane, which begins anew, and locks its channel
// before anything else can happen to it. The caller unlocks that: the lane may have
// something to call the Memory for.
func (m *Memory) forget(l *Lane) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.lanes, l)
	l.ch.mu.Lock()
}

// count is how many messages are deferred for the lane and not given to it,
// and how many were dropped.
func (m *Memory) count(l *Lane) (deferred int64, dropped uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ml := m.lanes[l]; ml != nil {
		return int64(len(ml.waiting)), ml.dropped
	}
	return 0, 0
}

// floor is at or below the lowest offset that is deferred for the lane.
func (m *Memory) floor(l *Lane) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	floor := int64(math.MaxInt64)
	if ml := m.lanes[l]; ml != nil {
		for block := range ml.pins {
			floor = min(floor, block<<pinBits)
		}
	}
	return floor
}

// dueHeap is a binary heap of entries, earliest first, then by offset.
type dueHeap []parked.Entry

func sooner(a, b *parked.Entry) bool {
	return a.DueNs < b.DueNs || a.DueNs == b.DueNs && a.Offset < b.Offset
}

func (h *dueHeap) push(e parked.Entry) {
	s := append(*h, e)
	i := len(s) - 1
	for i > 0 && sooner(&e, &s[(i-1)/2]) {
		s[i] = s[(i-1)/2]
		i = (i - 1) / 2
	}
	s[i] = e
	*h = s
}

func (h *dueHeap) pop() {
	s := *h
	last := s[len(s)-1]
	s = s[:len(s)-1]
	*h = s
	i := 0
	for kid := 1; kid < len(s); kid = 2*i + 1 {
		if kid+1 < len(s) && sooner(&s[kid+1], &s[kid]) {
			kid++
		}
		if sooner(&last, &s[kid]) {
			break
		}
		s[i] = s[kid]
		i = kid
	}
	if len(s) > 0 {
		s[i] = last
	}
}
