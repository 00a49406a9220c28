package partition

import "bytes"

// flight is one entry on its way through the log: the token of Drain. Its
// steps are the entry's commands in order, and between them what happens on
// this node only.
type flight struct {
	steps  []step
	done   int     // steps that were taken
	deltas []byte  // the encoded delta commands
	runs   []run   // the sequenced publishes, by producer
	next   *flight // free list
}

// step is one command of the entry, or (local) something that happens between
// two. One group of fields is set.
type step struct {
	// A batch of publishes, first to last.
	key    Key
	first  *Publish
	last   *Publish
	hasDue bool
	// repeat: first is a publish that came again; local.
	repeat bool

	command Command
	done    func(error) // may be nil

	delta []byte // the encoded command, to be proposed again if it is dropped

	// Local: there is no command in the entry.
	attach  *attachment
	settled func(error)
}

// local reports whether the step has no command in the entry.
func (s *step) local() bool { return s.attach != nil || s.settled != nil || s.repeat }

// take does a local step whose turn has come.
func (m *Machine) take(s *step) {
	switch {
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
	f.steps, f.done, f.deltas, f.runs = f.steps[:0], 0, f.deltas[:0], f.runs[:0]
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
		m.take(s)
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
