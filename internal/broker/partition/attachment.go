package partition

import (
	"math"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/fault"
)

// attachment is a lane and what the loop knows about it.
type attachment struct {
	key     Key
	channel uint64
	lane    Lane
	// cancelled: detached before it was attached.
	cancelled bool

	// Set when it is attached.
	p *partition
	c *channel
	// dirty: among those to collect from.
	dirty bool
	// wants: takes due messages.
	wants bool
	// held are due messages that were taken from the parked set, and that the
	// lane did not take.
	held []parked.Entry
	// dueNs is when to offer due messages, slot its place in the heap.
	dueNs int64
	slot  int
}

// notDue is the slot of an attachment outside of the heap.
const notDue = -1

// refuse stops a lane that is not attached.
func (a *attachment) refuse(err error) {
	if !a.cancelled {
		a.cancelled = true
		a.lane.Stop(err)
	}
}

// attach gives the channel to the lane.
func (m *Machine) attach(a *attachment) {
	if a.cancelled {
		return
	}
	if !m.leading {
		a.refuse(fault.NotLeader)
		return
	}
	p, c, err := m.findChannel(a.key, a.channel)
	if err != nil {
		a.refuse(err)
		return
	}
	a.p, a.c, c.lane = p, c, a
	m.lanes[a.lane] = a
	st := p.startOf(c)
	st.Term = m.term
	a.lane.Begin(st)
	m.want(a)
}

// release stops the channel's lane.
func (m *Machine) release(p *partition, c *channel, err error) {
	a := c.lane
	c.lane = nil
	if c.ephemeral {
		c.pinned = false
		p.settle()
	}
	delete(m.lanes, a.lane)
	if i := slices.Index(m.dirty, a); a.dirty && i >= 0 {
		m.dirty = slices.Delete(m.dirty, i, i+1)
	}
	a.wants, a.held, a.dirty = false, nil, false
	m.due.remove(a)
	if c.parked != nil {
		m.count(c.parked, (*parked.Set).ReturnAll)
	}
	a.lane.Stop(err)
}

// collectDue reports whether what lanes have to report has waited long enough.
func (m *Machine) collectDue(now int64) bool {
	return now >= m.collectAt
}

// collect adds a delta of each dirty lane to the entry, until they take
// maxBytes; the others come first in the next entry.
func (m *Machine) collect(maxBytes int) {
	pl := &m.planned
	for _, cmd := range m.again {
		pl.flight.steps = append(pl.flight.steps, step{delta: cmd})
		pl.count++
		pl.size += len(cmd)
	}
	m.again = nil
	n := 0
	todo := m.dirty
	for len(todo) > 0 && pl.size < maxBytes {
		a := todo[0]
		todo = todo[1:]
		if m.report(a) {
			m.dirty[n] = a // n < the place of a
			n++
			continue
		}
		a.dirty = false
	}
	rest := copy(m.dirty[n:], todo)
	// Those that were served stand behind those that were not.
	rotate(m.dirty[:n+rest], n)
	clear(m.dirty[n+rest:])
	m.dirty = m.dirty[:n+rest]
	m.collectAt = math.MaxInt64
	if len(m.dirty) > 0 {
		m.collectAt = math.MinInt64
	}
}

// rotate moves the first n behind the rest.
func rotate(as []*attachment, n int) {
	slices.Reverse(as[:n])
	slices.Reverse(as[n:])
	slices.Reverse(as)
}

// report adds the lane's delta, if there is one, to the entry.
func (m *Machine) report(a *attachment) (more bool) {
	m.delta.reset()
	more = a.lane.Collect(&m.delta)
	if m.delta.empty() {
		return false
	}
	pl := &m.planned
	f := pl.flight
	start := len(f.deltas)
	f.deltas = appendDelta(f.deltas, deltaTarget{a.key, a.channel, a.c.epoch}, &m.delta)
	cmd := f.deltas[start:len(f.deltas):len(f.deltas)]
	f.steps = append(f.steps, step{delta: cmd})
	pl.count++
	pl.size += len(cmd)
	return more
}

// reportAll adds all that the lane has to report.
func (m *Machine) reportAll(a *attachment) {
	for more := !a.c.ephemeral; more; {
		more = m.report(a)
	}
}

// want offers the lane due messages from now on.
func (m *Machine) want(a *attachment) {
	a.wants = true
	m.schedule(a)
}

// schedule puts the lane where it belongs in the heap.
func (m *Machine) schedule(a *attachment) {
	due := int64(math.MaxInt64)
	switch {
	case a == nil:
		return
	case !a.wants:
	case len(a.held) > 0:
		due = math.MinInt64
	case a.c.parked != nil:
		m.count(a.c.parked, func(s *parked.Set) { due = s.NextDue() })
	}
	m.due.set(a, due)
}

// offerBatch is how many due messages are offered to a lane at once.
const offerBatch = 256

// offerDue gives lanes the messages that are due, and returns when the next
// one is.
func (m *Machine) offerDue(now int64) (next int64) {
	for {
		a := m.due.first()
		if a == nil {
			return math.MaxInt64
		}
		if a.dueNs > now {
			return a.dueNs
		}
		m.offerTo(a, now)
	}
}

// offerTo gives one lane a batch of due messages.
func (m *Machine) offerTo(a *attachment, now int64) {
	if len(a.held) == 0 {
		m.count(a.c.parked, func(s *parked.Set) { a.held = s.TakeDue(now, offerBatch, a.held[:0]) })
		if len(a.held) == 0 {
			// The set was wrong about its next due time; come back later.
			m.due.set(a, max(a.c.parked.NextDue(), now+1e6))
			return
		}
	}
	taken := a.lane.Due(a.held)
	a.held = slices.Delete(a.held, 0, taken)
	if len(a.held) > 0 {
		a.wants = false
	}
	m.schedule(a)
}

// unhold forgets a due message that the lane did not take yet, because it was
// finished or parked anew.
func (a *attachment) unhold(offset int64) {
	if a != nil && len(a.held) > 0 {
		a.held = slices.DeleteFunc(a.held, func(e parked.Entry) bool { return e.Offset == offset })
	}
}

// dueHeap holds the attachments that wait for due messages, earliest first.
type dueHeap []*attachment

// first is the earliest, or nil.
func (h dueHeap) first() *attachment {
	if len(h) == 0 {
		return nil
	}
	return h[0]
}

// set moves an attachment to its due time; math.MaxInt64 takes it out.
func (h *dueHeap) set(a *attachment, dueNs int64) {
	if dueNs == math.MaxInt64 {
		h.remove(a)
		return
	}
	a.dueNs = dueNs
	if a.slot == notDue {
		a.slot = len(*h)
		*h = append(*h, a)
	}
	h.fix(a.slot)
}

// remove takes an attachment out, if it is there.
func (h *dueHeap) remove(a *attachment) {
	i := a.slot
	if i == notDue {
		return
	}
	last := len(*h) - 1
	h.swap(i, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	a.slot = notDue
	if i < last {
		h.fix(i)
	}
}

// fix restores the order around place i.
func (h dueHeap) fix(i int) {
	for i > 0 && h.less(i, (i-1)/2) {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		c := 2*i + 1
		if c+1 < len(h) && h.less(c+1, c) {
			c++
		}
		if c >= len(h) || !h.less(c, i) {
			return
		}
		h.swap(i, c)
		i = c
	}
}

// less orders by due time; at equal times by key and channel, so that the
// order does not depend on history.
func (h dueHeap) less(i, j int) bool {
	a, b := h[i], h[j]
	if a.dueNs != b.dueNs {
		return a.dueNs < b.dueNs
	}
	if c := a.key.compare(b.key); c != 0 {
		return c < 0
	}
	return a.channel < b.channel
}

func (h dueHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i, j
}
