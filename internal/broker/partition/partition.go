package partition

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sync/atomic"

	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
)

// partition is one log and the channels on it.
type partition struct {
	Key
	name  string
	start int64 // ≤ handOver, ≤ every durable channel's floor; never goes back
	end   int64 // the next message's offset
	// handOver is the first offset that no channel was given: ≤ end, and equal
	// to it while there is a channel and no pause.
	handOver int64
	paused   bool
	lastNs   int64       // consumer timestamp of the last message
	epochs   []epochFrom // leader epochs from start on, rising
	channels []*channel  // by id
	ingests  ingests     // what is taken over from other servers
	mapping  mapping     // of messages with keys

	// Local to this node.

	log      *seglog.Log
	logStart int64 // what the log was told last
	// sets are the parked sets of all channels, for the flusher.
	sets       atomic.Pointer[[]*parked.Set]
	messages   int64 // published through this node since the process began
	bytes      int64 // of their bodies
	ephemerals int   // among the channels
	encoded    []byte
	changed    bool // encoded does not tell the state any more
	logChanged bool // since the last checkpoint
	saved      *savedLog
}

// epochFrom says that a leader epoch begins at an offset.
type epochFrom struct {
	epoch  uint64 // raft term
	offset int64
}

// logID names the partition's log.
func (k Key) logID() seglog.LogID { return seglog.LogID{Topic: k.Topic, Partition: k.Partition} }

// compare orders partitions.
func (k Key) compare(o Key) int {
	if c := cmp.Compare(k.Topic, o.Topic); c != 0 {
		return c
	}
	return cmp.Compare(k.Partition, o.Partition)
}

// find returns the channel's place among the sorted channels.
func (p *partition) find(id uint64) (int, bool) {
	return slices.BinarySearchFunc(p.channels, id, func(c *channel, id uint64) int { return cmp.Compare(c.id, id) })
}

// channel returns a channel, or nil.
func (p *partition) channel(id uint64) *channel {
	if i, ok := p.find(id); ok {
		return p.channels[i]
	}
	return nil
}

// handOn gives the channels what was published, unless the topic is paused.
func (p *partition) handOn() {
	if p.paused || len(p.channels) == 0 || p.handOver == p.end {
		return
	}
	p.handOver = p.end
	for _, c := range p.channels {
		if c.lane != nil {
			c.lane.lane.Limit(p.handOver)
		}
	}
}

// settle moves the start to the lowest offset that is still needed, and tells
// the log what this node needs.
func (p *partition) settle() {
	start := p.handOver
	local := p.handOver
	for _, c := range p.channels {
		floor, ok := c.needs()
		if !c.ephemeral {
			start = min(start, floor)
		}
		if ok {
			local = min(local, floor)
		}
	}
	p.start = max(p.start, start)
	for len(p.epochs) > 1 && p.epochs[1].offset <= p.start {
		p.epochs = p.epochs[1:]
	}
	if local > p.logStart {
		p.logStart = local
		p.log.AdvanceStart(local)
		p.touchLog()
	}
}

// touch says that the replicated state has changed.
func (p *partition) touch() { p.changed = true }

// touchLog says that the log has changed.
func (p *partition) touchLog() { p.logChanged = true }

// noteEpoch keeps where a leader's messages begin.
func (p *partition) noteEpoch(term uint64, offset int64) {
	if n := len(p.epochs); n == 0 || p.epochs[n-1].epoch != term {
		p.epochs = append(p.epochs, epochFrom{epoch: term, offset: offset})
	}
}

// share makes the parked sets known to the flusher.
func (p *partition) share() {
	var sets []*parked.Set
	for _, c := range p.channels {
		if c.parked != nil {
			sets = append(sets, c.parked)
		}
	}
	if sets == nil {
		p.sets.Store(nil)
		return
	}
	p.sets.Store(&sets)
}

// pinned reports whether a parked message may stand in first ≤ o ≤ last. Any
// goroutine may ask.
func (p *partition) pinned(first, last int64) bool {
	sets := p.sets.Load()
	if sets == nil {
		return false
	}
	return slices.ContainsFunc(*sets, func(s *parked.Set) bool { return s.PinnedIn(first, last) })
}

// parkDue parks the messages of a batch just published that are due later, for
// every durable channel that has few ranges; the lanes of the others do it
// when they get there.
func (m *Machine) parkDue(p *partition, batch []byte, base int64) error {
	it := record.Records(batch)
	var r record.Record
	for it.Next(&r) {
		due, ok := r.Due()
		if !ok || due <= m.time {
			continue
		}
		offset := base + int64(r.Delta)
		for _, c := range p.channels {
			if c.ephemeral || c.ranges.Len() >= parkRangesMax || offset < c.floor {
				continue
			}
			c.finish(offset, offset+1)
			m.park(p, c, parked.Entry{Offset: offset, DueNs: due})
			if c.lane != nil {
				c.lane.lane.Skip(offset, offset+1)
			}
		}
	}
	for _, c := range p.channels {
		m.schedule(c.lane)
	}
	return it.Err()
}

// parkRangesMax is how many ranges a channel may have for messages to be
// parked when they are published. It is part of the replicated rules.
const parkRangesMax = 1024

// The flags of a partition's state.
const (
	flagPaused  = 1
	flagMapping = 2 // only where the state has format version 3
)

// append writes the replicated state of the partition.
func (p *partition) append(buf []byte) []byte {
	buf = appendKey(buf, p.Key)
	buf = appendText(buf, p.name)
	buf = binary.AppendUvarint(buf, uint64(p.start))
	buf = binary.AppendUvarint(buf, uint64(p.end))
	buf = binary.AppendUvarint(buf, uint64(p.handOver))
	buf = append(buf, bit(p.paused, flagPaused)|bit(p.mapping.count > 1, flagMapping))
	if p.mapping.count > 1 {
		buf = p.mapping.append(buf)
	}
	buf = binary.AppendVarint(buf, p.lastNs)
	buf = binary.AppendUvarint(buf, uint64(len(p.epochs)))
	for _, e := range p.epochs {
		buf = binary.AppendUvarint(buf, e.epoch)
		buf = binary.AppendUvarint(buf, uint64(e.offset))
	}
	buf = p.ingests.append(buf)
	buf = binary.AppendUvarint(buf, 0) // open transactions
	buf = binary.AppendUvarint(buf, uint64(len(p.channels)))
	for _, c := range p.channels {
		buf = c.append(buf)
	}
	return buf
}

// partition reads what partition.append wrote.
func (r *reader) partition() *partition {
	p := &partition{
		Key: r.key(), name: r.text(),
		start: r.length(), end: r.length(), handOver: r.length(),
		mapping: mapping{count: 1},
	}
	flags := r.flags(flagPaused | flagMapping)
	p.paused = flags&flagPaused != 0
	if flags&flagMapping != 0 {
		p.mapping = r.mapping(p.end)
	}
	p.lastNs = r.varint()
	for range r.count(2) {
		p.epochs = append(p.epochs, epochFrom{epoch: r.uvarint(), offset: r.length()})
	}
	p.ingests = r.ingests()
	if r.uvarint() != 0 {
		r.fail() // written by a version that knows transactions
	}
	for range r.count(6) {
		p.channels = append(p.channels, r.channel())
	}
	if p.start > p.handOver || p.handOver > p.end {
		r.fail()
	}
	return p
}
