package partition

import (
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/plant"
	"github.com/tidings-io/tidings/internal/shard"
)

// links is what the leader plans for sequenced publishes. It is local, and says
// nothing beyond the producers' table when no entry is on its way.
type links struct {
	// planned is how far the producers come with all entries on their way; those
	// that are not here have none on its way.
	planned map[uint64]producer
	// broken: an entry on which others build will not be fact. Nothing is planned
	// until none is on its way.
	broken bool
}

// settleLinks begins anew from the table when nothing is on its way.
func (m *Machine) settleLinks() {
	if len(m.flights) == 0 {
		m.links.broken = false
		clear(m.links.planned)
	}
}

// verdict is what becomes of a sequenced publish.
type verdict uint8

const (
	isNext   verdict = iota // it is planned
	isRepeat                // it was planned before
	isWrong                 // it is not next
)

// judge looks where a publish stands in what its producer has sent.
func (m *Machine) judge(l Link) verdict {
	at, ok := m.links.planned[l.Producer]
	if !ok {
		at = m.producers.get(l.Producer)
	}
	switch {
	case l.Epoch == 0 || l.Seq == 0 || l.Epoch < at.epoch:
		return isWrong
	case l.Epoch > at.epoch:
		at.seq = 0
	case l.Seq <= at.seq && !plant.On("forward-doubled"):
		return isRepeat
	}
	if l.Seq > at.seq+1 && !l.Oldest {
		return isWrong
	}
	return isNext
}

// planRepeat answers a publish that was planned before, at its turn.
func (m *Machine) planRepeat(p *Publish) {
	m.planned.bytes += int64(p.size)
	m.planLocal(step{first: p, last: p, repeat: true})
}

// planWrong answers a publish that is not next: it is not done, and its number
// stays unused.
func (m *Machine) planWrong(p *Publish) {
	m.planned.bytes += int64(p.size)
	p.answer(0, fault.OutOfOrder)
}

// answerRepeat answers a publish that came again, by what is fact.
func (m *Machine) answerRepeat(p *Publish) {
	at := m.producers.get(p.Link.Producer)
	err := at.outcome(p.Link)
	var part *partition
	if err == nil {
		part, err = m.find(Key{p.Topic, p.Partition})
	}
	if err == nil {
		err = part.mapping.outcome(p.Link, p.Mapping)
	}
	p.answer(-1, err)
}

// doubtful reports whether a sequenced publish may be refused because its
// partition is not open yet. It is alone in its entry then, so that it is known
// which number was refused: when it comes again the partition may be open. What
// is refused because its partition is closed meanwhile stays refused.
func (m *Machine) doubtful(p *Publish) bool {
	return p.Link.Producer != 0 && m.partitions[Key{p.Topic, p.Partition}] == nil
}

// runRoom is how much room a publish's link needs in the entry being built; ok
// is false when it must go into the next one.
func (m *Machine) runRoom(l Link) (size int, ok bool) {
	if r := m.planned.flight.run(l.Producer); r != nil {
		return 0, r.epoch == l.Epoch
	}
	return runSize, true
}

// planLink notes a publish that is taken into the entry.
func (m *Machine) planLink(l Link) {
	f := m.planned.flight
	r := f.run(l.Producer)
	if r == nil {
		at, ok := m.links.planned[l.Producer]
		if !ok {
			at = m.producers.get(l.Producer)
		}
		after := at.seq
		if at.epoch != l.Epoch {
			after = 0
		}
		f.runs = append(f.runs, run{producer: l.Producer, epoch: l.Epoch, after: min(after, l.Seq-1)})
		r = &f.runs[len(f.runs)-1]
		m.planned.count++
	}
	r.last = max(r.last, l.Seq)
	if m.links.planned == nil {
		m.links.planned = make(map[uint64]producer)
	}
	m.links.planned[l.Producer] = producer{epoch: l.Epoch, seq: r.last}
}

// run is that of a producer in the flight; nil when there is none.
func (f *flight) run(producer uint64) *run {
	for i := range f.runs {
		if f.runs[i].producer == producer {
			return &f.runs[i]
		}
	}
	return nil
}

// linked is what an entry's links say.
type linked struct {
	count   uint32 // how many there are
	refused bool   // no publish of the entry is done
	only    run    // the run of an entry with one link, and one command behind it
}

// applyLinks takes the runs with which an entry begins, all or none of them:
// when one does not continue what its producer has sent, no publish of the entry
// is done. That can be only behind an entry that was proposed and lost.
func (m *Machine) applyLinks(e *shard.Entry, count uint32, b []byte) (l linked, rest []byte, err error) {
	rest = b
	for l.count < count && len(rest) > 0 && kind(rest[0]) == kindLink {
		var payload []byte
		if _, payload, rest, err = decodeCommand(rest); err != nil {
			return l, nil, err
		}
		r, err := decodeRun(payload)
		if err != nil {
			return l, nil, err
		}
		l.refused = l.refused || !m.producers.continued(&r)
		if l.count++; l.count == 1 && count == 2 {
			l.only = r
		}
	}
	if l.refused {
		return l, rest, nil
	}
	for range l.count {
		var payload []byte
		_, payload, b, _ = decodeCommand(b)
		r, _ := decodeRun(payload)
		m.producers.take(&r, e.Index)
	}
	return l, rest, nil
}
