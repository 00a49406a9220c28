package delivery

import "github.com/tidings-io/tidings/internal/plant"

// Answered brings the leader's reply to q, which Collect filled.
func (r *Relay) Answered(q *RelayRequest, p *RelayReply) {
	c := r.ch
	c.mu.Lock()
	defer c.unlock()
	r.isOut = false
	unknown := r.unknown(p)
	r.takeFailures(p, unknown)
	r.putBackOps(func(op *relayOp) bool { return len(unknown) > 0 && unknown[r.mirror(op.sub, false)] }, false)
	r.takeLost(p)
	for i := range q.Closes {
		if m := r.mirrors[q.Closes[i].Mirror]; m != nil {
			if m.reopen && r.opsOf(m.s) {
				m.queue()
				continue
			}
			m.forget()
		}
	}
	r.takePulled(q, p)
	if len(r.lanes) == 0 {
		for _, m := range r.all {
			m.queue()
		}
	}
	r.call()
	c.ring()
}

// unknown are the mirrors that are to be opened anew.
func (r *Relay) unknown(p *RelayReply) map[*mirror]bool {
	if len(p.Unknown) == 0 {
		return nil
	}
	unknown := make(map[*mirror]bool, len(p.Unknown))
	for _, id := range p.Unknown {
		if m := r.mirrors[id]; m != nil {
			unknown[m] = true
			m.openAnew()
			m.s.share()
		}
	}
	return unknown
}

// takeFailures tells consumers of answers that were not taken.
func (r *Relay) takeFailures(p *RelayReply, unknown map[*mirror]bool) {
	for _, f := range p.Failures {
		if f.Index < 0 || f.Index >= len(r.out) {
			continue
		}
		op := &r.out[f.Index]
		if op.moved || len(unknown) > 0 && unknown[r.mirror(op.sub, false)] {
			continue
		}
		op.sub.failedAnswer(op.lane, op, f.Owner)
	}
}

// takeLost forgets messages that are not their consumers' any more.
func (r *Relay) takeLost(p *RelayReply) {
	c := r.ch
	for i := range p.Lost {
		x := &p.Lost[i]
		m, l := r.mirrors[x.Mirror], c.lane(x.Part)
		if m == nil || l == nil || l.relay != r {
			continue
		}
		at := l.find(x.Offset)
		if at == 0 || c.slots.slots[at].sub != m.s.id {
			continue
		}
		m.s.release(at)
		l.drop(at)
		m.s.freed()
	}
}

// isEmpty reports whether the leader had nothing for a mirror.
func (p *RelayReply) isEmpty(mirror uint64) bool {
	for i := range p.Pulled {
		if p.Pulled[i].Mirror == mirror {
			return len(p.Pulled[i].Messages) == 0
		}
	}
	return false
}

// takePulled puts what was pulled into inboxes.
func (r *Relay) takePulled(q *RelayRequest, p *RelayReply) {
	now := r.ch.now()
	for i := range q.Pulls {
		if m := r.mirrors[q.Pulls[i].Mirror]; m != nil {
			if m.asked = false; plant.On("standing-credit") && p.isEmpty(m.id) {
				continue // its part of the window stays with a leader that has nothing
			}
			m.s.promised -= m.pulling
			m.pulling = 0
		}
	}
	for i := range p.Pulled {
		x := &p.Pulled[i]
		m := r.mirrors[x.Mirror]
		if m == nil {
			continue
		}
		m.waits = x.Waits && !m.rung && !m.reopen && !m.closing
		m.rung = false
		for j := range x.Messages {
			m.s.receive(r, &x.Messages[j], p.Chunk, now)
		}
	}
	for i := range q.Pulls {
		m := r.mirrors[q.Pulls[i].Mirror]
		if m == nil {
			continue
		}
		s := m.s
		s.trim()
		s.arrived()
		s.share()
		s.settle()
		if m.waits && s.window == 0 {
			m.shut()
		}
	}
}
