package partition

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/plant"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
)

// closedMax is how many closed partitions are remembered, so that a late Open
// does not bring one back. It is part of the replicated rules.
const closedMax = 1024

// Apply makes an entry fact. It reads no clock and no setting, so that every
// replica comes to the same state. An error means that the entry cannot be
// understood: the replica stops.
func (m *Machine) Apply(e shard.Entry, token any) error {
	if m.failed != nil {
		return fmt.Errorf("apply entry %d: %w", e.Index, m.failed)
	}
	f, _ := token.(*flight)
	if f != nil {
		m.land(f)
	}
	h, rest, err := decodeHeader(e.Data)
	if err != nil {
		return fmt.Errorf("apply entry %d: %w", e.Index, err)
	}
	if h.term != e.Term && !plant.On("apply-term") {
		// Built under a leadership that was over when it entered the log.
		if f != nil {
			m.Drop(f, fault.NotLeader)
		}
		return nil
	}
	m.time = max(m.time, h.time)
	links, rest, err := m.applyLinks(&e, h.count, rest)
	if err != nil {
		return fmt.Errorf("apply entry %d: read link: %w", e.Index, err)
	}
	if links.refused && f != nil {
		m.links.broken, f.refused = true, true
	}
	for range h.count - links.count {
		var k kind
		var payload []byte
		if k, payload, rest, err = decodeCommand(rest); err != nil {
			return fmt.Errorf("apply entry %d: %w", e.Index, err)
		}
		if err = m.applyCommand(&e, k, payload, f, &links); err != nil {
			return fmt.Errorf("apply entry %d: %w", e.Index, err)
		}
	}
	if len(rest) > 0 {
		return fmt.Errorf("apply entry %d: %d bytes behind the last command: %w", e.Index, len(rest), errMalformed)
	}
	if f != nil {
		f.command(m) // what is local behind the last command
		m.recycle(f)
	}
	return nil
}

// applyCommand applies one command and answers who gave it.
func (m *Machine) applyCommand(e *shard.Entry, k kind, payload []byte, f *flight, l *linked) error {
	s := f.command(m)
	switch k {
	case kindPublish:
		if l.refused {
			s.answer(0, fault.OutOfOrder)
			return nil
		}
		base, refused, err := m.applyPublish(e, payload, s)
		if refused != nil && l.only.producer != 0 {
			m.producers.refuse(&l.only)
		}
		if err == nil {
			s.answer(base, refused)
		}
		return err
	case kindDelta:
		return m.applyDelta(payload)
	}
	c, err := decode(k, payload)
	if err != nil {
		return err
	}
	if c, ok := c.(Ingest); ok {
		s.answer(0, m.ingest(e, &c, s != nil))
		return nil
	}
	s.answer(0, m.change(c, s != nil))
	return nil
}

// applyPublish appends a batch. refused is the answer to the publisher, err
// what stops the replica.
func (m *Machine) applyPublish(e *shard.Entry, payload []byte, s *step) (base int64, refused, err error) {
	r := reader{b: payload}
	k, flags := r.key(), r.flags(flagDue)
	batch := r.b
	info, err := record.Parse(batch)
	if r.bad || err != nil || info.Size != len(batch) || info.Count < 1 || int(info.LastDelta) != int(info.Count)-1 {
		return 0, nil, fmt.Errorf("read publish: %w", errMalformed)
	}
	p, refused := m.find(k)
	if refused != nil {
		return 0, refused, nil
	}
	// An entry is one allocation. A small batch of a large one is copied, so
	// that it does not hold all the others in memory until it is flushed.
	if 4*len(batch) < len(e.Data) {
		batch = bytes.Clone(batch)
	}
	base = p.end
	ns := max(m.time, p.lastNs+1)
	p.log.Append(seglog.Batch{
		Base: base, Count: int32(info.Count), Index: e.Index,
		Epoch: uint32(e.Term) & 0x7fffffff, TimeNs: ns, Data: batch,
	})
	p.end += int64(info.Count)
	p.lastNs = ns + int64(info.Count) - 1
	p.noteEpoch(e.Term, base)
	if flags&flagDue != 0 && !p.paused && len(p.channels) > 0 {
		if err := m.parkDue(p, batch, base); err != nil {
			return 0, nil, err
		}
	}
	p.handOn()
	p.settle()
	p.touch()
	p.touchLog()
	m.countPublished(p, e, s, info.Count, batch)
	return base, nil, nil
}

// countPublished counts a batch that has become fact at the one node that proposed it, also
// when that does not lead any more and whoever published has been told so: the sum
// over all nodes is what was published.
func (m *Machine) countPublished(p *partition, e *shard.Entry, s *step, messages int, batch []byte) {
	switch {
	case s != nil:
		p.bytes += s.early.bytes
		for q := s.first; q != nil; q = q.next {
			p.bytes += q.bytes
		}
	case m.term != 0 && e.Term == m.term:
		p.bytes += bodyBytes(batch)
	default:
		return
	}
	p.messages += int64(messages)
}

// applyDelta makes what a lane reported fact. What is about a channel that is
// gone, or was emptied since, is ignored.
func (m *Machine) applyDelta(payload []byte) error {
	d := &m.delta
	t, err := decodeDelta(payload, d)
	if err != nil {
		return err
	}
	p, c, err := m.findChannel(t.Key, t.channel)
	if err != nil || c.ephemeral || c.epoch != t.epoch {
		return nil
	}
	for _, r := range d.Finished {
		c.finish(r.From, min(r.To, p.handOver))
	}
	for _, e := range d.Parked {
		// What was finished by AdvanceStart while the lane had it in flight must
		// not come back: the log may have forgotten it.
		if e.Offset < p.handOver && c.has(e.Offset) {
			c.finish(e.Offset, e.Offset+1)
			m.park(p, c, e)
		}
	}
	for _, o := range d.Unparked {
		m.unpark(c, o)
		p.touchLog() // which may have been pinned
	}
	for _, a := range d.Attempts {
		c.note(a, p.handOver)
	}
	m.schedule(c.lane)
	p.settle()
	p.touch()
	return nil
}

// park puts a message among the parked.
func (m *Machine) park(p *partition, c *channel, e parked.Entry) {
	if c.parked == nil {
		c.parked, c.saved = m.newSet(p.Key, c.id)
		p.share()
	}
	m.count(c.parked, func(s *parked.Set) { s.Add(e) })
	c.saved.changed = true
	c.lane.unhold(e.Offset)
}

// newSet makes a channel's parked set, or takes up again the one that it had
// before it was dropped.
func (m *Machine) newSet(k Key, channel uint64) (*parked.Set, *savedSet) {
	i := slices.IndexFunc(m.ghosts, func(g *ghost) bool { return g.Key == k && g.channel == channel })
	if i < 0 {
		return parked.New(m.o.FS, m.o.Dir, parkedPrefix(k, channel)), &savedSet{}
	}
	g := m.ghosts[i]
	m.ghosts = slices.Delete(m.ghosts, i, i+1)
	return g.set, g.saved
}

// count keeps the number of parked messages in memory while f uses a set, and
// notices when the set's files can't be read.
func (m *Machine) count(s *parked.Set, f func(*parked.Set)) {
	before := s.MemLen()
	f(s)
	m.parkedLen += s.MemLen() - before
	if m.failed == nil {
		m.failed = s.Err()
	}
}

// unpark takes a message out of the parked.
func (m *Machine) unpark(c *channel, offset int64) {
	if c.parked == nil {
		return
	}
	m.count(c.parked, func(s *parked.Set) { s.Remove(offset) })
	c.saved.changed = true
	c.lane.unhold(offset)
}

// change applies a command other than a publish or a delta and returns the
// answer. own: it was given on this node.
func (m *Machine) change(c Command, own bool) error {
	if c, ok := c.(Open); ok {
		return m.open(c)
	}
	if c, ok := c.(Close); ok {
		m.close(c.Key)
		return nil
	}
	p, err := m.find(c.key())
	if err != nil {
		return err
	}
	p.touch()
	switch c := c.(type) {
	case CreateChannel:
		m.createChannel(p, c, own)
	case DropChannel:
		m.dropChannel(p, c.Channel)
	case Empty:
		err = m.empty(p, c.Channel)
	case EmptyTopic:
		p.emptyTopic()
	case PauseTopic:
		p.paused = c.Paused
	case ClearEphemeral:
		for _, ch := range slices.Clone(p.channels) {
			if ch.ephemeral {
				m.dropChannel(p, ch.id)
			}
		}
	case AdvanceStart:
		p.advanceStart(c.Offset)
	case Raise:
		m.raise(p, c)
	}
	p.handOn()
	p.settle()
	return err
}

// open makes a partition.
func (m *Machine) open(c Open) error {
	if m.partitions[c.Key] != nil {
		return nil
	}
	if slices.Contains(m.closed, c.Key) {
		return fault.New(fault.TopicNotFound, "open partition %d of topic %d: it was closed", c.Partition, c.Topic)
	}
	p := &partition{
		Key: c.Key, name: c.Name, log: m.o.Store.New(c.logID(), 0),
		mapping: mapping{count: max(c.Count, 1)},
	}
	m.enter(p)
	p.touch()
	p.touchLog()
	return nil
}

// enter puts a partition into the tables.
func (m *Machine) enter(p *partition) {
	p.saved = &savedLog{}
	p.log.SetPinned(p.pinned)
	m.partitions[p.Key] = p
	i, _ := m.place(p.Key)
	m.sorted = slices.Insert(m.sorted, i, p)
}

// place is where a partition stands among the sorted.
func (m *Machine) place(k Key) (int, bool) {
	return slices.BinarySearchFunc(m.sorted, k, func(p *partition, k Key) int { return p.compare(k) })
}

// close drops a partition with all it holds.
func (m *Machine) close(k Key) {
	if !slices.Contains(m.closed, k) {
		m.closed = append(m.closed, k)
		if len(m.closed) > closedMax {
			m.closed = slices.Delete(m.closed, 0, len(m.closed)-closedMax)
		}
	}
	p := m.partitions[k]
	if p == nil {
		return
	}
	for _, c := range p.channels {
		m.end(p, c, fault.TopicNotFound)
	}
	p.channels = nil
	p.sets.Store(nil)
	p.log.Drop()
	m.dropped = append(m.dropped, p.log)
	delete(m.partitions, k)
	i, _ := m.place(k)
	m.sorted = slices.Delete(m.sorted, i, i+1)
}

// createChannel starts a channel.
func (m *Machine) createChannel(p *partition, c CreateChannel, own bool) {
	i, ok := p.find(c.Channel)
	if ok {
		return
	}
	ch := &channel{id: c.Channel, ephemeral: c.Ephemeral, floor: p.handOver, pinned: c.Ephemeral && own && m.leading}
	switch c.From.Where {
	case AtStart:
		ch.floor = p.start
	case AtEnd:
		ch.floor = p.end
	case AtOffset:
		ch.floor = min(max(c.From.Offset, p.start), p.end)
	}
	ch.missed = max(p.messages-(p.end-p.handOver), 0)
	p.channels = slices.Insert(p.channels, i, ch)
	if ch.ephemeral {
		p.ephemerals++
	}
}

// dropChannel ends a channel, if it is there.
func (m *Machine) dropChannel(p *partition, id uint64) {
	i, ok := p.find(id)
	if !ok {
		return
	}
	c := p.channels[i]
	p.channels = slices.Delete(p.channels, i, i+1)
	if c.ephemeral {
		p.ephemerals--
	}
	m.end(p, c, fault.ChannelNotFound)
	if c.parked != nil {
		p.share()
		p.touchLog() // which may have been pinned
	}
}

// end stops a channel's lane and forgets what is parked.
func (m *Machine) end(p *partition, c *channel, err error) {
	if c.lane != nil {
		m.release(p, c, err)
	}
	if c.parked != nil {
		m.clearParked(c)
		m.ghosts = append(m.ghosts, &ghost{Key: p.Key, channel: c.id, set: c.parked, saved: c.saved})
	}
}

// clearParked forgets what is parked for a channel.
func (m *Machine) clearParked(c *channel) {
	if c.parked == nil {
		return
	}
	m.count(c.parked, (*parked.Set).Clear)
	c.saved.changed = true
}

// empty finishes all that a channel was given.
func (m *Machine) empty(p *partition, id uint64) error {
	c := p.channel(id)
	if c == nil {
		return fault.New(fault.ChannelNotFound, "empty channel %d on partition %d of topic %d", id, p.Partition, p.Topic)
	}
	c.empty(p.handOver)
	m.clearParked(c)
	p.touchLog() // which may have been pinned
	if a := c.lane; a != nil {
		a.held = nil
		a.lane.Reset(p.startOf(c))
		m.schedule(a)
	}
	return nil
}

// emptyTopic finishes what no channel was given.
func (p *partition) emptyTopic() {
	from, to := p.handOver, p.end
	p.handOver = to
	for _, c := range p.channels {
		c.finish(from, to)
		if c.lane != nil && from < to {
			c.lane.lane.Skip(from, to)
			c.lane.lane.Limit(to)
		}
	}
}

// advanceStart finishes what is below an offset.
func (p *partition) advanceStart(offset int64) {
	offset = min(offset, p.end)
	if offset > p.handOver {
		p.handOver = offset
	}
	for _, c := range p.channels {
		from := c.floor
		c.finish(from, offset)
		if c.lane != nil && from < offset {
			c.lane.lane.Skip(from, offset)
			c.lane.lane.Limit(p.handOver)
		}
	}
}
