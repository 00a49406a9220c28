package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// model is what is known of a shard: no crash touches it.
type model struct {
	c        *Cluster
	id       uint32
	entries  map[uint64]entry
	leaders  map[uint64]uint64 // Raft id, by term
	applying uint64            // the entry that a machine applies
	acked    uint64            // the last entry that was answered
	pubs     []*pub
}

// entry tells an entry from every other.
type entry struct {
	term uint64
	sum  uint32
}

func newModel(c *Cluster, id uint32) *model {
	return &model{c: c, id: id, entries: make(map[uint64]entry), leaders: make(map[uint64]uint64)}
}

// kept and busy are the shard's topics: one without channels, whose messages
// all stay, and one with them.
func (m *model) kept() uint64 { return uint64(m.id)*10 + 1 }
func (m *model) busy() uint64 { return uint64(m.id)*10 + 2 }

// apply takes what a replica applies.
func (m *model) apply(e shard.Entry, n *node) {
	got := entry{e.Term, crc32.Checksum(e.Data, castagnoli)}
	m.c.note(3, uint64(n.id), e.Index, uint64(got.sum))
	if was, ok := m.entries[e.Index]; ok && was != got {
		m.c.failf("shard %d: node %d applies another entry %d: %+v, it was %+v", m.id, n.id, e.Index, got, was)
	}
	m.entries[e.Index] = got
}

// lead takes that a replica leads.
func (m *model) lead(term uint64, n *node) {
	m.c.Counts.Leads++
	if was, ok := m.leaders[term]; ok && was != n.raftID {
		m.c.failf("shard %d: %x leads in term %d, and so did %x", m.id, n.raftID, term, was)
	}
	m.leaders[term] = n.raftID
}

// Outcomes of a publish.
const (
	open = iota
	acked
	refused
	unknown
)

// pub is a publish as the client knows it.
type pub struct {
	m       *model
	id      uint64
	topic   uint64
	count   int
	size    int
	due     int64
	outcome int
	base    int64 // -1: it was not told

	alone bool   // the leader alone was asked for: it may be lost with it
	boot  uint64 // the forwarder that it went through; 0: none
	place int    // among those of the forwarder
}

func (m *model) newPub(count, size int) *pub {
	p := &pub{m: m, id: uint64(len(m.pubs)), topic: m.kept(), count: count, size: size}
	if m.c.chance(2) {
		p.topic = m.busy()
	}
	m.pubs = append(m.pubs, p)
	return p
}

// messages are the publish's; each begins with its name.
func (p *pub) messages() []partition.Message {
	msgs := make([]partition.Message, p.count)
	for i := range msgs {
		b := make([]byte, 16+p.size)
		binary.BigEndian.PutUint64(b, p.id)
		binary.BigEndian.PutUint64(b[8:], uint64(i))
		msgs[i] = partition.Message{Body: b, DueNs: p.due}
	}
	return msgs
}

// Published implements partition.Completion.
func (p *pub) Published(base int64, err error) {
	c := &p.m.c.Counts
	switch {
	case p.outcome != open:
		p.m.c.failf("publish %d of shard %d is answered twice", p.id, p.m.id)
	case err == nil:
		p.outcome, p.base = acked, base
		if base >= 0 {
			p.m.acked = max(p.m.acked, p.m.applying)
		}
		c.Acked++
	case errors.Is(err, shard.ErrUnknown):
		p.outcome = unknown
		c.Unknown++
	default:
		p.outcome = refused
		c.Refused++
	}
}

// verify looks for every publish of the kept topic in a replica's log.
func (m *model) verify(n *node) {
	log := n.groups[m.id-1].log(m.kept())
	if log == nil {
		for _, p := range m.pubs { // it may never have been opened: each try to was lost
			if p.topic == m.kept() && p.outcome == acked && (!p.alone || p.base >= 0) {
				m.c.failf("shard %d has lost its topic, with the publish %d that was acknowledged", m.id, p.id)
			}
		}
		return
	}
	at := make(map[uint64]int64)
	for offset := int64(0); offset < log.End(); {
		batches, err := log.Read(offset, 64<<10)
		m.c.check(err)
		if len(batches) == 0 || batches[0].Base != offset {
			m.c.failf("shard %d: the log has no message at offset %d of %d", m.id, offset, log.End())
		}
		for _, b := range batches {
			m.verifyBatch(b, at)
			offset = b.Last() + 1
		}
	}
	last := make(map[uint64]*pub) // by forwarder
	for _, p := range m.pubs {
		base, there := at[p.id]
		if p.topic == m.kept() && there && p.boot != 0 {
			if was := last[p.boot]; was != nil && at[was.id] > base {
				m.c.failf("shard %d: publish %d of process %d stands at %d, publish %d of it at %d", m.id, was.place, p.boot, at[was.id], p.place, base)
			}
			last[p.boot] = p
		}
		switch {
		case p.topic != m.kept():
		case p.outcome == open && p.boot != 0:
			m.c.failf("shard %d: publish %d is not answered", m.id, p.id)
		case p.outcome == acked && p.alone && p.base < 0 && !there:
			m.c.Counts.AloneLost++
		case p.outcome == acked && (!there || base != p.base && p.base >= 0):
			m.c.failf("shard %d: publish %d was acknowledged at %d; it is there: %v, at %d", m.id, p.id, p.base, there, base)
		case p.outcome == refused && there:
			m.c.failf("shard %d: publish %d was refused, and stands at %d", m.id, p.id, base)
		}
	}
}

// verifyBatch notes the publishes in a batch.
func (m *model) verifyBatch(b seglog.Batch, at map[uint64]int64) {
	it := record.Records(b.Data)
	var r record.Record
	for it.Next(&r) {
		offset := b.Base + int64(r.Delta)
		id, i := binary.BigEndian.Uint64(r.Value), binary.BigEndian.Uint64(r.Value[8:])
		if i == 0 {
			if was, twice := at[id]; twice {
				m.c.failf("shard %d: publish %d stands at %d and at %d", m.id, id, was, offset)
			}
			at[id] = offset
		} else if at[id]+int64(i) != offset {
			m.c.failf("shard %d: message %d of publish %d stands at %d, its first at %d", m.id, i, id, offset, at[id])
		}
	}
	m.c.check(it.Err())
}

// log is a topic's log on this replica.
func (g *group) log(topic uint64) (log *seglog.Log) {
	g.Query(func(v *partition.View) { log = v.Log(partition.Key{Topic: topic}) })
	g.n.stepGroup(g.s)
	return log
}

// termOf is the term in which an entry was built.
func termOf(data []byte) uint64 { return binary.BigEndian.Uint64(data[9:]) }

// fingerprint tells the state of a replica: that of the machine, and all
// batches that are needed.
func (g *group) fingerprint() string {
	x, err := g.Machine.Export(g.last, nil)
	g.n.c.check(err)
	defer x.Close()
	text := ""
	for {
		chunk, err := x.Next(nil, 64<<10)
		if err != nil {
			return text
		}
		for len(chunk) > 0 {
			kind := chunk[0]
			size, n := binary.Uvarint(chunk[1:])
			payload := chunk[1+n:][:size]
			chunk = chunk[1+n+int(size):]
			if kind != 4 {
				text += fmt.Sprintf("%d %x\n", kind, payload)
				continue
			}
			var v [7]uint64
			for i := range v {
				var k int
				v[i], k = binary.Uvarint(payload)
				payload = payload[k:]
			}
			info, err := record.Parse(payload)
			g.n.c.check(err)
			text += fmt.Sprintf("4 topic %d offsets %d + %d entry %d epoch %d time %d crc %08x\n", v[0], v[2], v[3], v[4], v[5], v[6], info.CRC)
		}
	}
}

// difference shows the first line in which two texts differ.
func difference(a, b string) string {
	x, y := splitLines(a), splitLines(b)
	for i := range max(len(x), len(y)) {
		var l, r string
		if i < len(x) {
			l = x[i]
		}
		if i < len(y) {
			r = y[i]
		}
		if l != r {
			return fmt.Sprintf("line %d of %d and %d\n  %.300s\n  %.300s", i, len(x), len(y), l, r)
		}
	}
	return "nowhere"
}
