package partition

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/seglog"
)

// background is work that the loop has prepared for the flusher.
type background struct {
	mu sync.Mutex
	// spill is to be written; nil: none.
	spill *parked.Spill
	set   *parked.Set // whose it is
	// compactions are logs that may be worth it.
	compactions []compaction
	asked       bool // the loop was asked for more
	repairs     []repair
}

// compaction is a log, and which of its offsets are still needed.
type compaction struct {
	log  *seglog.Log
	live func(first, last int64) bool
}

// spillMin is how many parked messages a channel must have in memory to be
// worth a file.
const spillMin = 1024

// spill moves the latest parked messages of the channel that has the most of
// them to a file, when there are too many in memory.
func (m *Machine) spill() {
	if m.parkedLen <= m.spillAt || m.spilling != nil {
		return
	}
	var most *parked.Set
	for _, p := range m.sorted {
		for _, c := range p.channels {
			if c.parked != nil && (most == nil || c.parked.MemLen() > most.MemLen()) {
				most = c.parked
			}
		}
	}
	var s *parked.Spill
	if most != nil && most.MemLen() >= m.spillMin {
		s = most.PrepareSpill(most.MemLen() / 4)
	}
	if s == nil {
		// Many channels with few each, or messages that are out for delivery:
		// look again when there are an eighth more.
		m.spillAt = m.parkedLen + m.o.ParkedMax/8
		return
	}
	m.spillAt = m.o.ParkedMax
	m.spilling = most
	m.background.mu.Lock()
	m.background.spill, m.background.set = s, most
	m.background.mu.Unlock()
	m.o.WakeFlusher()
}

// Background does one unit of the work that should not wait for a round of
// compaction, and reports whether there was any: it writes parked messages
// that are too many for the memory to a file. The flusher's goroutine calls
// it.
func (m *Machine) Background() (did bool, err error) {
	b := &m.background
	b.mu.Lock()
	s, set := b.spill, b.set
	b.spill, b.set = nil, nil
	b.mu.Unlock()
	if s == nil {
		return m.mend(), nil
	}
	err = s.Write()
	m.call(func() {
		if m.spilling != set {
			return // another state took the place of the set's
		}
		m.count(set, func(set *parked.Set) { set.Commit(s) })
		m.spilling = nil
		m.markSpilled(set)
		if err != nil {
			m.spillAt = m.parkedLen + m.o.ParkedMax/8
		}
	})
	if err != nil {
		return false, fmt.Errorf("spill parked messages: %w", err)
	}
	return true, nil
}

// markSpilled has the set be in the next checkpoint as it is now.
func (m *Machine) markSpilled(set *parked.Set) {
	for _, p := range m.sorted {
		for _, c := range p.channels {
			if c.parked == set {
				c.saved.changed = true
				m.schedule(c.lane)
			}
		}
	}
	for _, g := range m.ghosts {
		if g.set == set {
			g.saved.changed = true
		}
	}
}

// compactionsMax is how many logs are looked at in one round of compaction.
const compactionsMax = 16

// Compact does one unit of compaction and reports whether there was any; after
// the last one it asks the loop what to look at in the next round. The
// flusher's goroutine calls it.
func (m *Machine) Compact(now time.Time) (did bool, err error) {
	b := &m.background
	for {
		b.mu.Lock()
		if len(b.compactions) == 0 {
			ask := !b.asked
			b.asked = true
			b.mu.Unlock()
			if ask {
				m.call(m.chooseCompactions)
			}
			return false, nil
		}
		c := b.compactions[0]
		b.mu.Unlock()
		if did, err = c.log.Compact(now, c.live); err != nil {
			return false, fmt.Errorf("compact log: %w", err)
		}
		if did {
			m.call(func() { m.compacted(c.log) })
			return true, nil
		}
		b.mu.Lock()
		b.compactions = slices.Delete(b.compactions, 0, 1)
		b.mu.Unlock()
	}
}

// compacted has the next checkpoints look at a log: it names other files now,
// and waits to remove those that it had.
func (m *Machine) compacted(l *seglog.Log) {
	id := l.ID()
	if p := m.partitions[Key{id.Topic, id.Partition}]; p != nil {
		p.touchLog()
	}
}

// chooseCompactions gives the flusher the next logs to look at. What is not
// needed now is never needed again, so the answer may be old when it is used.
func (m *Machine) chooseCompactions() {
	var cs []compaction
	from, _ := m.place(m.compactFrom)
	for i := range m.sorted {
		p := m.sorted[(from+i)%len(m.sorted)]
		if len(cs) == compactionsMax {
			m.compactFrom = p.Key
			break
		}
		if p.log.Bytes() >= m.o.CompactBytes {
			cs = append(cs, compaction{log: p.log, live: p.liveness()})
		}
	}
	b := &m.background
	b.mu.Lock()
	b.compactions, b.asked = cs, false
	b.mu.Unlock()
}

// liveness tells which offsets are needed by a channel, as of now; any
// goroutine may ask it. It answers yes where it is not sure.
func (p *partition) liveness() func(first, last int64) bool {
	type need struct {
		floor int64
		done  offsets.Set
	}
	var needs []need
	for _, c := range p.channels {
		if floor, ok := c.needs(); ok {
			needs = append(needs, need{floor: floor, done: c.ranges.Clone()})
		}
	}
	handOver := p.handOver
	return func(first, last int64) bool {
		if last >= handOver {
			return true
		}
		for i := range needs {
			if n := &needs[i]; !n.done.Covers(max(first, n.floor), last+1) {
				return true
			}
		}
		return p.pinned(first, last)
	}
}
