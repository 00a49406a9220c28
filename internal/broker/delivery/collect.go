package delivery

import (
	"time"
)

// reset empties q and keeps its memory.
func (q *RelayRequest) reset() {
	clear(q.Holds)
	q.Opens, q.Holds, q.Ops = q.Opens[:0], q.Holds[:0], q.Ops[:0]
	q.Closes, q.Pulls = q.Closes[:0], q.Pulls[:0]
	q.Parts = q.Parts[:0]
}

// Collect moves what is to be told to the leader into q, which is emptied before: up
// to maxItems answers and as many pulls, and all that is to be opened. It reports
// false when there is nothing, or when a request is out already; after true either
// Answered or Failed must follow.
func (r *Relay) Collect(q *RelayRequest, maxItems int) bool {
	c := r.ch
	c.mu.Lock()
	defer c.unlock()
	r.woken, r.hasty, r.late = false, false, false
	q.reset()
	if r.isOut || r.failed {
		return false
	}
	now := c.now()
	all := r.collectOps(q, now, maxItems)
	r.opsSince = 0
	todo := r.todo
	r.todo = nil
	var opening map[*Subscription]int // places in q.Holds
	for _, m := range todo {
		m.queued = false
		if r.mirrors[m.id] != m {
			continue
		}
		if m.closing && !m.told && all && !r.opsOf(m.s) {
			m.forget()
			continue
		}
		if !all || len(q.Pulls) >= maxItems { // a pull may bring what is still to be answered
			m.queued = true
			r.todo = append(r.todo, m)
			if !m.reopen {
				continue
			}
		}
		if m.reopen && m.closing && all && m.leavesNothing() {
			// What the leader still has in flight for it came with a reply that was lost.
			// Whoever has the mirror can let it go so; to open it, he would have to lead.
			m.reopen, m.ended = false, true
		}
		if m.reopen && m.worth() {
			if opening == nil {
				opening = make(map[*Subscription]int)
			}
			opening[m.s] = len(q.Holds)
			r.open(q, m, now)
		}
		m.collect(q, all)
	}
	if opening != nil {
		r.holdAnswered(q, opening, now)
	}
	r.isOut, r.outSince = !q.Empty(), now
	return r.isOut
}

// worth reports whether the leader is to be told of m now.
func (m *mirror) worth() bool {
	return m.told || m.want > 0 || m.closing || m.s.inFlightCount > 0 || m.r.ch.cfg.Idle != nil || m.r.opsOf(m.s)
}

// leavesNothing reports whether the consumer, which has left, has nothing more to
// answer, nor has answered what the leader may not know.
func (m *mirror) leavesNothing() bool {
	return m.s.closed && m.s.inFlightCount == 0 && m.s.pulled.head == 0 && !m.r.opsOf(m.s)
}

// collect adds what m asks for, or that it closes, which both come after all answers.
func (m *mirror) collect(q *RelayRequest, all bool) {
	switch {
	case !all:
	case m.closing:
		m.closeOut = true
		q.Closes = append(q.Closes, MirrorClose{
			Mirror: m.id, Abnormal: m.abnormal, Ended: m.ended, Moved: m.ended && len(m.r.lanes) == 0 && m.r.ch.closed == nil,
		})
	case m.want > 0, m.off:
		q.Pulls = append(q.Pulls, MirrorPull{Mirror: m.id, N: int(m.want)})
		m.pulling, m.want = m.want, 0
		m.asked, m.off, m.rung = true, false, false
	}
}

// collectOps moves up to n answers into q and r.out, and reports whether those were
// all.
func (r *Relay) collectOps(q *RelayRequest, now int64, n int) (all bool) {
	all = true
	for i := range r.lanes {
		l := r.lanes[(r.nextLane+i)%len(r.lanes)]
		k := min(len(l.ops), n-len(r.out))
		var m *mirror
		for j := range l.ops[:k] {
			op := &l.ops[j]
			if m == nil || m.s != op.sub {
				m = r.mirror(op.sub, true)
			}
			if m.reopen || m.closing {
				m.enqueue()
			}
			q.Ops = append(q.Ops, RelayedOp{
				Mirror: m.id, Kind: op.kind, Part: l.part, Offset: op.offset, Attempts: op.attempts, Delay: op.left(now),
			})
			op.lane = l
			r.out = append(r.out, *op)
		}
		rest := copy(l.ops, l.ops[k:])
		clear(l.ops[rest:])
		if l.ops = l.ops[:rest]; rest == 0 {
			l.emptyOps()
		}
		all = all && rest == 0
	}
	if !all {
		r.nextLane++
	}
	return all
}

// enqueue is queue, without a call.
func (m *mirror) enqueue() {
	if !m.queued {
		m.queued = true
		m.r.todo = append(m.r.todo, m)
	}
}

// left is what is left of the op's delay.
func (op *relayOp) left(now int64) time.Duration {
	if op.delay <= 0 {
		return 0
	}
	return max(time.Duration(op.since-now)+op.delay, 0)
}

// opsOf reports whether answers of s are queued or in the request.
func (r *Relay) opsOf(s *Subscription) bool {
	for i := range r.out {
		if r.out[i].sub == s {
			return true
		}
	}
	for _, l := range r.lanes {
		for i := range l.ops {
			if l.ops[i].sub == s {
				return true
			}
		}
	}
	return false
}

// open tells the leader of m, and what it has in flight.
func (r *Relay) open(q *RelayRequest, m *mirror, now int64) {
	s := m.s
	m.reopen, m.told = false, true
	if len(q.Opens) == 0 {
		for _, l := range r.lanes {
			q.Parts = append(q.Parts, l.part)
		}
	}
	q.Opens = append(q.Opens, MirrorOpen{
		Mirror: m.id, MsgTimeout: time.Duration(s.timeoutNs), MaxMsgTimeout: time.Duration(s.maxNs), SampleRate: int(s.sample),
	})
	h := MirrorHolds{Mirror: m.id}
	slots := r.ch.slots.slots
	for _, list := range [...]slotList{s.inFlight, s.pulled} {
		for i := list.head; i != 0; i = slots[i].next {
			e := &slots[i]
			l := r.ch.lanes[e.lane]
			if l.relay != r {
				continue
			}
			deadline := e.deadline
			if e.flags&flagInbox != 0 {
				deadline = e.delivered + s.timeoutNs
			}
			h.Messages = append(h.Messages, HeldMessage{
				Part: l.part, Offset: e.offset, Attempts: e.attempts,
				Age: time.Duration(now - e.delivered), Left: time.Duration(deadline - now),
			})
		}
	}
	q.Holds = append(q.Holds, h)
}

// holdAnswered adds to the holds of what is opened the messages whose answers the
// leader does not know: so that they are its to answer.
func (r *Relay) holdAnswered(q *RelayRequest, opening map[*Subscription]int, now int64) {
	add := func(l *Lane, op *relayOp) {
		at, ok := opening[op.sub]
		if !ok || !op.ends() || l.loose.get(op.offset) != 0 {
			return
		}
		h := &q.Holds[at]
		h.Messages = append(h.Messages, HeldMessage{
			Part: l.part, Offset: op.offset, Attempts: op.attempts,
			Age: time.Duration(max(now-op.since, 0)), Left: time.Duration(op.sub.timeoutNs),
		})
	}
	for i := range r.out {
		add(r.out[i].lane, &r.out[i])
	}
	for _, l := range r.lanes {
		for i := range l.ops {
			add(l, &l.ops[i])
		}
	}
	n := 0
	for _, h := range q.Holds {
		if len(h.Messages) > 0 {
			q.Holds[n] = h
			n++
		}
	}
	clear(q.Holds[n:])
	q.Holds = q.Holds[:n]
}
