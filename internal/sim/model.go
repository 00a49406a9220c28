package sim

import (
	"encoding/binary"
	"hash/crc32"
	"sort"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// shardModel is what the entries of one shard mean, for ever: crashes do not
// touch it.
type shardModel struct {
	sim *Sim
	id  uint32

	entries []entrySum // by raft index; zero where none was applied
	applied uint64     // the last one
	time    int64
	term    uint64 // of the last leadership
	served  int    // life of that
	// published: a checkpoint was, so that there are two from then on.
	published bool
	parts     map[partition.Key]*partModel
	open      []*partModel // in the order in which they were opened

	expected []answer // of the entry being applied
	batch    batchReader
	delta    partition.Delta
}

// entrySum tells an entry from every other.
type entrySum struct {
	term uint64
	sum  uint32
	size uint32
}

func sumOf(e shard.Entry) entrySum {
	return entrySum{term: e.Term, sum: crc32.Checksum(e.Data, castagnoli), size: uint32(len(e.Data)) + 1}
}

// answer is what a client is to be told next.
type answer struct {
	pub     uint32 // 0: a command
	base    int64
	refused bool
}

// partModel is a partition.
type partModel struct {
	key    partition.Key
	shard  *shardModel
	closed bool

	start, end, handOver int64
	paused               bool
	lastNs               int64
	msgs                 []place // by offset
	batches              []batchModel
	read                 []int // life in which each batch was last read to the end
	lastPub              uint32
	chans                []*chanModel
	sessions             map[partition.Session]uint64
	barriers             []partition.Barrier
}

// place names a message: a publish and which of its messages.
type place struct {
	pub uint32
	i   uint16
}

// batchModel is a batch of the log.
type batchModel struct {
	base   int64
	count  int32
	index  uint64
	epoch  uint32
	timeNs int64
}

// What is known of an offset on a channel.
const (
	done      uint8 = 1 << iota // finished or parked, replicated
	delivered                   // the client got it at least once
	finished                    // the client finished it at least once
	putAside                    // the client parked it at least once
)

// chanModel is a channel on a partition.
type chanModel struct {
	id       uint64
	part     *partModel
	gone     bool
	epoch    int64
	floor    int64
	flags    []uint8 // by offset
	above    int64   // done offsets at or above the floor
	runs     int     // of them
	parked   map[int64]parked.Entry
	aside    map[int64]int64 // due time with which the client parked last
	attempts map[int64]uint16

	lane *lane // in this life
}

// apply takes an entry that was never applied before.
func (m *shardModel) apply(e shard.Entry) {
	for uint64(len(m.entries)) <= e.Index {
		m.entries = append(m.entries, entrySum{})
	}
	m.entries[e.Index] = sumOf(e)
	m.applied = e.Index
	d := decoder{b: e.Data}
	if v := d.byte(); v != 1 {
		m.sim.failf("entry %d of shard %d has format version %d", e.Index, m.id, v)
	}
	time, term, n := int64(d.u64()), d.u64(), d.u32()
	if term != e.Term {
		m.sim.failf("entry %d of shard %d was built in term %d and stands in term %d", e.Index, m.id, term, e.Term)
	}
	m.time = max(m.time, time)
	for range n {
		kind, version := d.byte(), d.byte()
		payload := decoder{b: d.take(int(d.u32()))}
		if version != 1 {
			m.sim.failf("command of kind %d and version %d", kind, version)
		}
		m.command(e, kind, &payload)
		if payload.bad {
			m.sim.failf("command of kind %d is malformed", kind)
		}
	}
	if d.bad || len(d.b) > 0 {
		m.sim.failf("entry %d of shard %d is malformed", e.Index, m.id)
	}
}

// command applies one command.
func (m *shardModel) command(e shard.Entry, kind byte, d *decoder) {
	key := partition.Key{Topic: d.uvarint(), Partition: int32(d.uvarint())}
	p := m.parts[key]
	switch kind {
	case 3:
		flags := d.byte()
		m.publish(e, p, key, flags&1 != 0, d.b)
		return
	case 6:
		m.applyDelta(p, d)
		return
	case 1:
		if p == nil {
			p = &partModel{key: key, shard: m, sessions: map[partition.Session]uint64{}}
			m.parts[key] = p
			m.open = append(m.open, p)
		}
		m.expect(p.closed)
		return
	case 2:
		m.expect(false)
		if p != nil && !p.closed {
			m.close(p)
		}
		return
	}
	if p == nil || p.closed {
		m.expect(true)
		return
	}
	if kind == 13 {
		m.ingest(e, p, d)
		return
	}
	p.change(kind, d)
	p.handOn()
	p.settle()
}

// expect notes the answer of a command.
func (m *shardModel) expect(refused bool) {
	m.expected = append(m.expected, answer{refused: refused})
}

func (m *shardModel) close(p *partModel) {
	p.closed = true
	for _, c := range p.chans {
		c.gone = true
	}
	p.chans = nil
	for i, o := range m.open {
		if o == p {
			m.open = append(m.open[:i], m.open[i+1:]...)
			break
		}
	}
}

// change applies a command to an open partition.
func (p *partModel) change(kind byte, d *decoder) {
	refused := false
	switch kind {
	case 4:
		p.createChannel(d)
	case 5:
		p.dropChannel(d.uvarint())
	case 7:
		if c := p.channel(d.uvarint()); c != nil {
			c.empty(p.handOver)
		} else {
			refused = true
		}
	case 8:
		from := p.handOver
		p.handOver = p.end
		for _, c := range p.chans {
			c.finish(from, p.end)
		}
	case 9:
		p.paused = d.byte() == 1
	case 11:
		offset := min(d.varint(), p.end)
		p.handOver = max(p.handOver, offset)
		for _, c := range p.chans {
			c.finish(c.floor, offset)
		}
	case 14:
		p.raise(uint32(d.uvarint()))
	default:
		p.shard.sim.failf("command of kind %d is not known", kind)
	}
	p.shard.expect(refused)
}

// raise puts a barrier.
func (p *partModel) raise(count uint32) {
	if count > p.count() {
		p.barriers = append(p.barriers, partition.Barrier{Count: count, Offset: p.end})
		p.shard.sim.count(Raises, 1)
	}
}

// count is the number of partitions by which messages with keys come here.
func (p *partModel) count() uint32 {
	if n := len(p.barriers); n > 0 {
		return p.barriers[n-1].Count
	}
	return 1
}

func (p *partModel) channel(id uint64) *chanModel {
	for _, c := range p.chans {
		if c.id == id {
			return c
		}
	}
	return nil
}

func (p *partModel) newChannel(id uint64, floor int64) *chanModel {
	return &chanModel{
		id: id, part: p, floor: floor,
		parked: map[int64]parked.Entry{}, aside: map[int64]int64{}, attempts: map[int64]uint16{},
	}
}

func (p *partModel) createChannel(d *decoder) {
	id := d.uvarint()
	d.byte()
	where, offset := d.byte(), d.varint()
	if p.channel(id) != nil {
		return
	}
	c := p.newChannel(id, p.handOver)
	switch partition.Where(where) {
	case partition.AtStart:
		c.floor = p.start
	case partition.AtEnd:
		c.floor = p.end
	case partition.AtOffset:
		c.floor = min(max(offset, p.start), p.end)
	}
	p.chans = append(p.chans, c)
}

func (p *partModel) dropChannel(id uint64) {
	for i, c := range p.chans {
		if c.id == id {
			c.gone = true
			p.chans = append(p.chans[:i], p.chans[i+1:]...)
			return
		}
	}
}

func (p *partModel) handOn() {
	if !p.paused && len(p.chans) > 0 {
		p.handOver = p.end
	}
}

func (p *partModel) settle() {
	start := p.handOver
	for _, c := range p.chans {
		start = min(start, c.floor)
	}
	p.start = max(p.start, start)
}

// batchReader is kept so that reading a batch allocates nothing.
type batchReader struct {
	record record.Record
}

// publish appends a batch, which must be made of whole publishes in order.
func (m *shardModel) publish(e shard.Entry, p *partModel, key partition.Key, hasDue bool, batch []byte) {
	refused := p == nil || p.closed
	info, err := record.Parse(batch)
	if err != nil || info.Size != len(batch) {
		m.sim.failf("entry %d of shard %d holds a batch that is none: %v", e.Index, m.id, err)
	}
	base, last := int64(0), uint32(0)
	if !refused {
		base, last = p.end, p.lastPub
	}
	it := record.Records(batch)
	r := &m.batch.record
	var b *pub
	n, i := int64(0), 0
	for ; it.Next(r); n, i = n+1, i+1 {
		id, place, ok := nameOf(r.Value)
		if !ok || id == 0 || int(id) >= len(m.sim.pubs) {
			m.sim.failf("entry %d of shard %d holds a message that nobody published", e.Index, m.id)
		}
		if b == nil || i == b.count {
			b, i = m.begin(id, key, last), 0
			b.base, b.refused, last = base+n, refused, id
			m.expected = append(m.expected, answer{pub: id, base: base + n, refused: refused})
		}
		if b.id != id || place != i || !b.holds(i, r) {
			m.sim.failf("entry %d of shard %d: message %d of publish %d stands where message %d of publish %d should",
				e.Index, m.id, place, id, i, b.id)
		}
		if !refused {
			p.msgs = append(p.msgs, placeOf(id, i))
		}
	}
	if err := it.Err(); err != nil || b == nil || i != b.count || n != int64(info.Count) {
		m.sim.failf("entry %d of shard %d: a batch of %d messages holds %d, or part of a publish: %v", e.Index, m.id, info.Count, n, err)
	}
	if !refused {
		p.append(e, base, n, last, hasDue)
	}
}

func placeOf(id uint32, i int) place { return place{id, uint16(i)} }

// begin takes up a publish, which must not have been in the log before.
func (m *shardModel) begin(id uint32, key partition.Key, last uint32) *pub {
	b := &m.sim.pubs[id]
	switch {
	case b.key != key:
		m.sim.failf("publish %d to topic %d stands in topic %d", id, b.key.Topic, key.Topic)
	case b.logged:
		m.sim.failf("publish %d stands in the log twice", id)
	case id <= last:
		m.sim.failf("publish %d of topic %d stands behind publish %d", id, key.Topic, last)
	case b.life < m.served:
		m.sim.failf("publish %d of life %d was not in the log in life %d and is now", id, b.life, m.served)
	}
	b.logged = true
	return b
}

// append makes a batch part of the log.
func (p *partModel) append(e shard.Entry, base, n int64, last uint32, hasDue bool) {
	ns := max(p.shard.time, p.lastNs+1)
	p.batches = append(p.batches, batchModel{base, int32(n), e.Index, uint32(e.Term) & 0x7fffffff, ns})
	p.read = append(p.read, 0)
	p.end, p.lastNs, p.lastPub = base+n, ns+n-1, last
	if hasDue && !p.paused && len(p.chans) > 0 {
		for o := base; o < p.end; o++ {
			due := p.dueOf(o)
			if due <= p.shard.time {
				continue
			}
			for _, c := range p.chans {
				if c.runs < 1024 && o >= c.floor {
					c.finish(o, o+1)
					c.parked[o] = parked.Entry{Offset: o, DueNs: due}
				}
			}
		}
	}
	p.handOn()
	p.settle()
}

// dueOf is the due time that a message was published with, or 0.
func (p *partModel) dueOf(o int64) int64 {
	at := p.msgs[o]
	return p.shard.sim.pubs[at.pub].dueOf(int(at.i))
}

// applyDelta applies what a lane has reported.
func (m *shardModel) applyDelta(p *partModel, d *decoder) {
	id, epoch := d.uvarint(), int64(d.uvarint())
	m.readDelta(d)
	if p == nil || p.closed {
		return
	}
	c := p.channel(id)
	if c == nil || c.epoch != epoch {
		return
	}
	for _, r := range m.delta.Finished {
		for o := max(r.From, c.floor); o < min(r.To, p.handOver); o++ {
			if c.flag(o)&finished == 0 {
				m.sim.failf("channel %d: offset %d is finished, and no client did that", id, o)
			}
		}
		c.finish(r.From, min(r.To, p.handOver))
	}
	for _, e := range m.delta.Parked {
		if c.flag(e.Offset)&putAside == 0 || c.aside[e.Offset] != e.DueNs {
			m.sim.failf("channel %d: offset %d is parked until %d, and no client did that", id, e.Offset, e.DueNs)
		}
		if e.Offset < p.handOver && !c.settled(e.Offset) {
			c.finish(e.Offset, e.Offset+1)
			c.parked[e.Offset] = e
		}
	}
	for _, o := range m.delta.Unparked {
		if c.flag(o)&finished == 0 {
			m.sim.failf("channel %d: parked offset %d is finished, and no client did that", id, o)
		}
		delete(c.parked, o)
	}
	for _, a := range m.delta.Attempts {
		if a.Offset >= c.floor && a.Offset < p.handOver && c.flag(a.Offset)&done == 0 {
			c.attempts[a.Offset] = a.N
		}
	}
	p.settle()
}

// readDelta decodes a delta.
func (m *shardModel) readDelta(d *decoder) {
	x := &m.delta
	x.Finished, x.Parked, x.Unparked, x.Attempts = x.Finished[:0], x.Parked[:0], x.Unparked[:0], x.Attempts[:0]
	last := int64(0)
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		from := last + d.varint()
		last = from + int64(d.uvarint())
		x.Finished = append(x.Finished, offsets.Range{From: from, To: last})
	}
	last, due := int64(0), int64(0)
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		last, due = last+d.varint(), due+d.varint()
		x.Parked = append(x.Parked, parked.Entry{Offset: last, DueNs: due, Attempts: uint16(d.uvarint())})
	}
	last = 0
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		last += d.varint()
		x.Unparked = append(x.Unparked, last)
	}
	last = 0
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		last += d.varint()
		x.Attempts = append(x.Attempts, partition.Attempt{Offset: last, N: uint16(d.uvarint())})
	}
}

// flag is what is known of an offset.
func (c *chanModel) flag(o int64) uint8 {
	if o < 0 || o >= int64(len(c.flags)) {
		return 0
	}
	return c.flags[o]
}

// set adds to what is known of an offset.
func (c *chanModel) set(o int64, f uint8) {
	for int64(len(c.flags)) <= o {
		c.flags = append(c.flags, make([]uint8, 256)...)
	}
	c.flags[o] |= f
}

// finish takes from ≤ o < to out of what is to be delivered.
func (c *chanModel) finish(from, to int64) {
	for o := max(from, c.floor); o < to; o++ {
		if c.flag(o)&done != 0 {
			continue
		}
		c.set(o, done)
		delete(c.attempts, o)
		c.above++
		c.runs++
		if o > c.floor && c.flag(o-1)&done != 0 {
			c.runs--
		}
		if c.flag(o+1)&done != 0 {
			c.runs--
		}
	}
	if c.flag(c.floor)&done == 0 {
		return
	}
	c.runs--
	for c.flag(c.floor)&done != 0 {
		c.floor++
		c.above--
	}
}

// empty finishes all below limit, and what is parked.
func (c *chanModel) empty(limit int64) {
	c.epoch++
	for o := c.floor; o < int64(len(c.flags)); o++ {
		c.flags[o] &^= done // ranges above the floor are gone with it
	}
	c.floor, c.above, c.runs = max(c.floor, limit), 0, 0
	clear(c.parked)
	clear(c.attempts)
}

// settled reports whether an offset is neither waiting nor parked.
func (c *chanModel) settled(o int64) bool {
	if _, ok := c.parked[o]; ok {
		return false
	}
	return o < c.floor || c.flag(o)&done != 0
}

// manyRecords is from how many records on a batch is read to the end only once
// in a life.
const manyRecords = 32

// check compares a batch that a log returned with what was published.
func (p *partModel) check(b *seglog.Batch) {
	s := p.shard.sim
	i := sort.Search(len(p.batches), func(i int) bool { return p.batches[i].base >= b.Base })
	if i == len(p.batches) || p.batches[i] != (batchModel{b.Base, b.Count, b.Index, b.Epoch, b.TimeNs}) {
		var want batchModel
		if i < len(p.batches) {
			want = p.batches[i]
		}
		s.failf("topic %d returned batch %d+%d (index %d, epoch %d, time %d); the log has %+v",
			p.key.Topic, b.Base, b.Count, b.Index, b.Epoch, b.TimeNs, want)
	}
	if b.Count > manyRecords && p.read[i] == s.life {
		return // to read large batches again and again would take most of the time
	}
	p.read[i] = s.life
	it := record.Records(b.Data)
	r := &p.shard.batch.record
	o := b.Base
	for ; it.Next(r); o++ {
		at := p.msgs[o]
		id, i, _ := nameOf(r.Value)
		if (place{id, uint16(i)}) != at || !s.pubs[id].holds(i, r) {
			s.failf("topic %d offset %d holds message %d of publish %d, not %d of %d", p.key.Topic, o, i, id, at.i, at.pub)
		}
	}
	if it.Err() != nil || o != b.Last()+1 {
		s.failf("topic %d: batch at %d is malformed: %v", p.key.Topic, b.Base, it.Err())
	}
}

// decoder takes fields off bytes; bad stays.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if v := d.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if v := d.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	d.take(n)
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	d.take(n)
	return v
}
