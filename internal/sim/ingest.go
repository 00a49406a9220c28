package sim

import (
	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/shard"
)

// ingest has somebody take messages over from another server: most often what comes
// next of a session, sometimes what came before, or is not next.
func (s *Sim) ingest(g *group, p *partModel) {
	c := partition.Ingest{Key: p.key, Session: partition.Session{byte(s.rng.IntN(2))}}
	c.From = p.sessions[c.Session]
	if s.chance(4) {
		c.From -= min(c.From, uint64(s.rng.IntN(3)))
	} else if s.chance(10) {
		c.From++
	}
	c.To = c.From
	switch n := s.rng.IntN(10); {
	case n == 0:
		c.To++
		c.Create = true
		for range 1 + s.rng.IntN(2) {
			s.channels++
			c.Channels = append(c.Channels, partition.IngestChannel{Channel: s.channels})
		}
	case n > 1:
		b := pub{id: uint32(len(s.pubs)), key: p.key, count: 1 + s.rng.IntN(9), size: 8 + s.rng.IntN(300), life: s.life, answered: true}
		s.pubs = append(s.pubs, b)
		c.To += uint64(b.count)
		c.Batch = partition.AppendBatch(nil, b.messages(), s.now)
		if c.Handed = s.chance(2); c.Handed {
			c.Channels = s.shares(p, int64(b.count))
		}
	}
	s.do(g, c)
}

// shares says what some channels, by id, have finished and delivered of n messages.
func (s *Sim) shares(p *partModel, n int64) (shares []partition.IngestChannel) {
	last := uint64(0)
	for range p.chans {
		var c *chanModel // the next by id
		for _, o := range p.chans {
			if o.id > last && (c == nil || o.id < c.id) {
				c = o
			}
		}
		last = c.id
		if s.chance(4) {
			continue
		}
		x := partition.IngestChannel{Channel: c.id}
		for o := range n {
			switch {
			case s.chance(3):
				x.Finished = append(x.Finished, offsets.Range{From: o, To: o + 1})
			case s.chance(4):
				x.Attempts = append(x.Attempts, partition.Attempt{Offset: o, N: uint16(1 + s.rng.IntN(9))})
			}
		}
		shares = append(shares, x)
	}
	return shares
}

// ingest applies an ingest command to an open partition.
func (m *shardModel) ingest(e shard.Entry, p *partModel, d *decoder) {
	session := partition.Session(d.take(len(partition.Session{})))
	from, to, flags := d.uvarint(), d.uvarint(), d.byte()
	handed, create := flags&1 != 0, flags&2 != 0
	shares := d.shares()
	batch := d.take(int(d.uvarint()))
	at := p.sessions[session]
	if to <= at || from != at || handed && len(batch) > 0 && p.paused && p.handOver < p.end {
		m.expect(to > at)
		return
	}
	p.sessions[session] = to
	wanted := !handed
	for _, x := range shares {
		if create && p.channel(x.Channel) == nil {
			p.chans = append(p.chans, p.newChannel(x.Channel, p.handOver))
		}
		wanted = wanted || p.channel(x.Channel) != nil
	}
	if len(batch) > 0 && wanted {
		m.sim.count(Ingested, 1)
		m.appendIngest(e, p, batch, handed, shares)
	}
	p.handOn()
	p.settle()
	m.expect(false)
}

// appendIngest makes the messages part of the log.
func (m *shardModel) appendIngest(e shard.Entry, p *partModel, batch []byte, handed bool, shares []partition.IngestChannel) {
	base := p.end
	follows := handed && p.handOver == base
	it := record.Records(batch)
	r := &m.batch.record
	var b *pub
	n := 0
	for ; it.Next(r); n++ {
		id, place, _ := nameOf(r.Value)
		if b == nil {
			b = m.begin(id, p.key, p.lastPub)
			b.base = base
		}
		if b.id != id || place != n || !b.holds(n, r) {
			m.sim.failf("entry %d of shard %d: message %d of %d was taken over as message %d of %d", e.Index, m.id, place, id, n, b.id)
		}
		p.msgs = append(p.msgs, placeOf(id, n))
	}
	if it.Err() != nil || b == nil || n != b.count {
		m.sim.failf("entry %d of shard %d: what is taken over holds %d messages", e.Index, m.id, n)
	}
	p.append(e, base, int64(n), b.id, false)
	if follows {
		p.handOver = p.end
	}
	for _, c := range p.chans {
		c.share(base, int64(n), handed, shares)
	}
}

// share gives the channel what it is to get of n messages.
func (c *chanModel) share(base, n int64, handed bool, shares []partition.IngestChannel) {
	for _, x := range shares {
		if x.Channel != c.id {
			continue
		}
		for _, r := range x.Finished {
			c.finish(base+r.From, base+r.To)
		}
		for _, a := range x.Attempts {
			if o := base + a.Offset; !c.settled(o) {
				c.finish(o, o+1)
				c.parked[o] = parked.Entry{Offset: o, DueNs: 1, Attempts: a.N}
			}
		}
		return
	}
	if handed {
		c.finish(base, base+n)
	}
}

// shares reads the channels of an ingest command.
func (d *decoder) shares() (shares []partition.IngestChannel) {
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		x := partition.IngestChannel{Channel: d.uvarint()}
		last := int64(0)
		for k := d.uvarint(); k > 0 && !d.bad; k-- {
			from := last + int64(d.uvarint())
			last = from + int64(d.uvarint())
			x.Finished = append(x.Finished, offsets.Range{From: from, To: last})
		}
		last = 0
		for k := d.uvarint(); k > 0 && !d.bad; k-- {
			last += int64(d.uvarint())
			x.Attempts = append(x.Attempts, partition.Attempt{Offset: last, N: uint16(d.uvarint())})
			last++
		}
		shares = append(shares, x)
	}
	return shares
}
