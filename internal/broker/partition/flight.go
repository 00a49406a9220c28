package partition

import (
	"bytes"

	"github.com/tidings-io/tidings/internal/plant"
	"github.com/tidings-io/tidings/internal/shard"
)

// flight is one entry on its way through the log: the token of Drain. Its
// steps are the entry's commands in order, and between them what happens on
// this node only.
type flight struct {
	steps  []step
	done   int        // steps that were taken
	deltas []byte     // the encoded delta commands
	runs   []run      // the sequenced publishes, by producer
	eager  bool       // some are answered when the entry is durable here
	counts []counting // what it opens and raises
	// refused: the entry's publishes are not done, and their numbers not used.
	refused bool
	next    *flight // free list
}

// step is one command of the entry, or (local) something that happens between
// two. One group of fields is set.
type step struct {
	// A batch of publishes, first to last.
	key    Key
	first  *Publish
	last   *Publish
	early  early // those that are not in the list any more
	hasDue bool
	// repeat: first is a publish that came again; local.
	repeat bool
	// moved: first is a publish that came by a smaller number of partitions than its
	// partition knows; local.
	moved bool

	command Command
	done    func(error) // may be nil

	delta []byte // the encoded command, to be proposed again if it is dropped

	// Local: there is no command in the entry.
	attach  *attachment
	settled func(error)
}

// local reports whether the step has no command in the entry.
func (s *step) local() bool { return s.attach != nil || s.settled != nil || s.repeat || s.moved }

// take does a local step whose turn has come. refused: the publishes of its entry are
// not done.
func (m *Machine) take(s *step, refused bool) {
	switch {
	case s.moved:
		answerMoved(s.first, refused)
	case s.attach != nil:
		m.attach(s.attach)
	case s.repeat:
		m.answerRepeat(s.first)
	default:
		s.settled(nil)
	}
}

// newFlight takes a flight from the free list.
func (m *Machine) newFlight() *flight {
	f := m.free
	if f == nil {
		return &flight{}
	}
	m.free, f.next = f.next, nil
	return f
}

// recycle puts a flight back.
func (m *Machine) recycle(f *flight) {
	clear(f.steps)
	f.steps, f.done, f.deltas, f.runs, f.eager = f.steps[:0], 0, f.deltas[:0], f.runs[:0], false
	f.counts, f.refused = f.counts[:0], false
	f.next, m.free = m.free, f
}

// land takes a flight out of those on their way.
func (m *Machine) land(f *flight) {
	for i, g := range m.flights {
		if g == f {
			m.flights = append(m.flights[:i], m.flights[i+1:]...)
			return
		}
	}
}

// command returns the step of the entry's next command, after taking the local
// ones before it; nil at the end. A nil flight is another node's: it has none.
func (f *flight) command(m *Machine) *step {
	if f == nil {
		return nil
	}
	for f.done < len(f.steps) {
		s := &f.steps[f.done]
		f.done++
		if !s.local() {
			return s
		}
		m.take(s, f.refused)
	}
	return nil
}

// answer tells the outcome of the step's command; base is the offset of the
// batch.
func (s *step) answer(base int64, err error) {
	if s == nil {
		return
	}
	for p := s.first; p != nil; {
		next := p.next // the answer gives p away
		n := int64(len(p.Messages))
		if err == nil {
			base += p.before
		}
		p.answer(base, err)
		if err == nil {
			base += n
		}
		p = next
	}
	if s.done != nil {
		s.done(err)
	}
}

// early is what was published with publishes that were answered before their
// entry is fact.
type early struct{ messages, bytes int64 }

var _ shard.Syncer = (*Machine)(nil)

// Synced answers the publishes that asked for no more than this node's log.
func (m *Machine) Synced(token any) {
	f, _ := token.(*flight)
	if f == nil || !f.eager && !plant.On("ack-before-quorum") || m.links.broken && len(f.runs) > 0 {
		return
	}
	for i := f.done; i < len(f.steps); i++ {
		s := &f.steps[i]
		// What will be refused is not answered now.
		if s.first != nil && !s.local() && m.partitions[s.key] != nil {
			s.answerEarly()
		}
	}
}

// answerEarly answers those of a batch that ask for it, and takes them out of
// the list: whoever is answered may use the publish again.
func (s *step) answerEarly() {
	next, before := s.first, int64(0)
	s.first, s.last = nil, nil
	for next != nil {
		p := next
		next, p.next = p.next, nil
		n := int64(len(p.Messages))
		if p.AckLeader || plant.On("ack-before-quorum") {
			before += p.before + n
			s.early.messages += n
			s.early.bytes += p.bytes
			p.answer(-1, nil)
			continue
		}
		p.before, before = p.before+before, 0
		if s.first == nil {
			s.first = p
		} else {
			s.last.next = p
		}
		s.last = p
	}
}

// Drop answers what was proposed and will not be applied under the token.
func (m *Machine) Drop(token any, err error) {
	f := token.(*flight)
	m.land(f)
	m.links.broken = m.links.broken || len(f.runs) > 0
	for i := f.done; i < len(f.steps); i++ {
		s := &f.steps[i]
		switch {
		case s.attach != nil:
			s.attach.refuse(err)
		case s.settled != nil:
			s.settled(err)
		case s.delta != nil:
			if m.leading {
				m.again = append(m.again, bytes.Clone(s.delta))
			}
		default:
			s.answer(0, err)
		}
	}
	m.recycle(f)
}
