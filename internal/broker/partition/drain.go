package partition

import (
	"slices"

	"github.com/tidings-io/tidings/internal/fault"
)

// slot is where the next publish to a partition joins a batch.
type slot struct {
	drain uint64 // of which the step is
	step  int    // in the flight
}

// slotsMax bounds the slots kept for partitions that are not open.
const slotsMax = 1 << 10

// planned is what the entry being built will hold.
type planned struct {
	flight *flight
	count  uint32 // commands
	size   int    // upper bound in bytes
	closed bool   // nothing more goes into it
	// what was taken out of the queue
	items int
	bytes int64
}

// Drain builds the next entry from everything waiting: first what lanes
// report, then publishes and commands in the order in which they came, the
// publishes to one partition in one batch. The bytes are valid until the next
// call.
func (m *Machine) Drain(term uint64, now int64, maxBytes int) (data []byte, token any) {
	if m.settleLinks(); m.links.broken {
		return nil, nil
	}
	m.gather(now)
	m.built = max(m.built, m.time, now)
	m.drains++
	pl := &m.planned
	*pl = planned{flight: m.newFlight(), size: entryHeader}

	ready := m.ready()
	alone := ready && m.alone(maxBytes)
	if !alone && (ready || len(m.again) > 0 || m.collectDue(now)) {
		m.collect(maxBytes / 2)
	}
	m.plan(maxBytes)
	if pl.items > 0 {
		m.inbox.release(pl.items, pl.bytes)
	}
	if pl.count == 0 && m.failed == nil {
		m.recycle(pl.flight)
		return nil, nil
	}
	m.entry = slices.Grow(m.entry[:0], pl.size)
	m.entry = appendHeader(m.entry, header{time: m.built, term: term, count: pl.count})
	m.entry = m.encode(m.entry)
	data = m.entry
	if cap(m.entry) > 2*maxBytes {
		m.entry = nil // a single large publish
	}
	m.flights = append(m.flights, pl.flight)
	return data, pl.flight
}

// gather takes what waits out of the inbox.
func (m *Machine) gather(now int64) {
	if m.head == len(m.queue) {
		clear(m.queue)
		m.queue, m.head = m.queue[:0], 0
	}
	var dirty []Lane
	m.queue, dirty = m.inbox.drain(m.queue, nil)
	for _, l := range dirty {
		if a := m.lanes[l]; a != nil && !a.dirty {
			a.dirty = true
			m.dirty = append(m.dirty, a)
		}
	}
	if len(m.dirty) > 0 {
		m.collectAt = min(m.collectAt, now+collectDelayNs)
	}
}

// ready reports whether the queue has something for this entry. While the
// tails take too much memory, publishes are held back, and with them, because
// order is kept, all that came after.
func (m *Machine) ready() bool {
	m.full = m.o.Store.TailBytes() > 2*m.o.TailBytes
	m.holding = m.full && m.head < len(m.queue) && m.queue[m.head].grows()
	return m.head < len(m.queue) && !m.holding
}

// alone reports whether the queue begins with a publish that must be alone in
// its entry, or with messages of another server that lanes' reports might leave no
// room for.
func (m *Machine) alone(maxBytes int) bool {
	if c, ok := m.queue[m.head].command.(Ingest); ok {
		return entryHeader+c.size() > maxBytes/2
	}
	p := m.queue[m.head].publish
	return p != nil && (entryHeader+publishOverhead+p.size > maxBytes || m.doubtful(p))
}

// plan takes items off the queue into the flight until the entry is full.
func (m *Machine) plan(maxBytes int) {
	for ; m.head < len(m.queue) && !m.planned.closed; m.head++ {
		i := m.queue[m.head]
		switch {
		case i.publish != nil:
			m.holding = m.full
			if m.full || !m.planPublish(i.publish, maxBytes) {
				return
			}
		case i.command != nil:
			m.holding = m.full && i.grows()
			if m.holding || !m.planCommand(i, maxBytes) {
				return
			}
		case i.attach != nil:
			m.planAttach(i.attach)
		case i.detach != nil:
			m.planDetach(i.detach, nil)
		case i.settle != nil:
			for _, a := range m.dirty {
				m.reportAll(a)
			}
			m.planLocal(step{settled: i.settle})
		}
		m.planned.items++
		m.queue[m.head] = item{}
	}
}

// planPublish adds a publish to its partition's batch, or answers it; false: no
// room.
func (m *Machine) planPublish(p *Publish, maxBytes int) bool {
	if p.Link.Producer != 0 {
		switch m.judge(p.Link) {
		case isRepeat:
			m.planRepeat(p)
			return true
		case isWrong:
			m.planWrong(p)
			return true
		}
	}
	switch m.fit(p, maxBytes) {
	case waits:
		return false
	case isMoved:
		return m.planMoved(p, maxBytes)
	}
	if p.Link.Producer == 0 {
		return m.join(p, p.size, maxBytes)
	}
	doubtful := m.doubtful(p)
	size, ok := m.runRoom(p.Link)
	if !ok || doubtful && m.planned.count > 0 || !m.join(p, p.size+size, maxBytes) {
		return false
	}
	m.planLink(p.Link)
	m.planned.closed = doubtful
	return true
}

// join adds a publish that needs so many bytes to its partition's batch; false:
// no room.
func (m *Machine) join(p *Publish, need, maxBytes int) bool {
	pl := &m.planned
	k := Key{p.Topic, p.Partition}
	s := m.slots[k]
	joins := s != nil && s.drain == m.drains
	if !joins {
		need += publishOverhead
	}
	if pl.count > 0 && pl.size+need > maxBytes {
		return false
	}
	pl.size += need
	pl.bytes += int64(p.size)
	pl.flight.eager = pl.flight.eager || p.AckLeader
	if joins {
		st := &pl.flight.steps[s.step]
		st.last.next, st.last = p, p
		st.hasDue = st.hasDue || p.hasDue
		return true
	}
	if s == nil {
		s = m.newSlot(k)
	}
	s.drain, s.step = m.drains, len(pl.flight.steps)
	pl.flight.steps = append(pl.flight.steps, step{key: k, first: p, last: p, hasDue: p.hasDue})
	pl.count++
	return true
}

// newSlot makes a slot, and forgets those of partitions that are closed.
func (m *Machine) newSlot(k Key) *slot {
	if len(m.slots) >= 2*len(m.partitions)+slotsMax {
		for k := range m.slots {
			if m.partitions[k] == nil {
				delete(m.slots, k)
			}
		}
	}
	s := &slot{}
	m.slots[k] = s
	return s
}

// planCommand adds a command; false: no room.
func (m *Machine) planCommand(i item, maxBytes int) bool {
	pl := &m.planned
	k := i.command.key()
	m.scratch = i.command.payload(m.scratch[:0])
	need := commandHeader + keySizeMax + len(m.scratch)
	if pl.count > 0 && pl.size+need > maxBytes {
		return false
	}
	pl.size += need
	pl.count++
	pl.flight.steps = append(pl.flight.steps, step{command: i.command, done: i.done})
	if s := m.slots[k]; s != nil {
		s.drain = 0 // what is published from now on comes after the command
	}
	m.planCount(i.command)
	return true
}

// planLocal takes a local step when all commands before it are applied: now,
// or with the entry that holds the last of them.
func (m *Machine) planLocal(s step) {
	f := m.planned.flight
	switch {
	case m.planned.count > 0:
	case len(m.flights) > 0:
		f = m.flights[len(m.flights)-1]
	default:
		m.take(&s, false)
		return
	}
	f.steps = append(f.steps, s)
}

// planAttach lines a lane up. Whichever has the channel before it is taken off
// first, so that the new one begins behind the last report of the old one.
func (m *Machine) planAttach(a *attachment) {
	taken := fault.New(fault.NotOwner, "deliver channel %d: another lane took over", a.channel)
	if p := m.partitions[a.key]; p != nil {
		if c := p.channel(a.channel); c != nil && c.lane != nil {
			m.planDetach(c.lane.lane, taken)
		}
	}
	m.cancelAttach(taken, func(b *attachment) bool { return b.key == a.key && b.channel == a.channel })
	m.planLocal(step{attach: a})
}

// planDetach takes the lane's last reports into this entry, and stops it.
func (m *Machine) planDetach(l Lane, err error) {
	a := m.lanes[l]
	if a == nil {
		m.cancelAttach(err, func(b *attachment) bool { return b.lane == l })
		return
	}
	m.reportAll(a)
	m.release(a.p, a.c, err)
}

// cancelAttach stops the lanes whose attachment waits for an entry.
func (m *Machine) cancelAttach(err error, which func(*attachment) bool) {
	cancel := func(f *flight) {
		for i := f.done; i < len(f.steps); i++ {
			if a := f.steps[i].attach; a != nil && which(a) {
				a.refuse(err)
			}
		}
	}
	for _, f := range m.flights {
		cancel(f)
	}
	cancel(m.planned.flight)
}

// encode writes the planned steps behind buf.
func (m *Machine) encode(buf []byte) []byte {
	f := m.planned.flight
	for i := range f.runs {
		buf = appendRun(buf, &f.runs[i])
	}
	steps := f.steps
	for i := range steps {
		s := &steps[i]
		switch {
		case s.local():
		case s.first != nil:
			buf = m.writer.publish(buf, s.key, s.hasDue, s.first, m.built)
		case s.command != nil:
			buf = appendCommand(buf, s.command)
		case s.delta != nil:
			buf = append(buf, s.delta...)
		}
	}
	return buf
}
