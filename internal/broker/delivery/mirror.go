package delivery

import "slices"

// Pull is Take for a relayed subscription: up to n messages, until their bodies
// exceed maxBytes (one always fits), whatever the subscription has in flight. waits:
// it found nothing more, and is rung as soon as there is something; without it the
// next Pull is to come by itself. A Pull of 0 says that the consumer takes nothing
// for now. What earlier calls returned is not good any more. An error (why the
// channel was closed, fault.Storage) comes without deliveries, and with waits.
func (s *Subscription) Pull(dst []Delivery, n, maxBytes int) (out []Delivery, waits bool, err error) {
	c := s.ch
	had := len(dst)
	s.letGo()
	c.mu.Lock()
	kept := s.claim
	s.unclaim()
	s.state = subBusy
	s.credit = int64(max(n, 0))
	if s.closed {
		s.credit = 0
	}
	s.settle()
	for room := max(maxBytes, 1); s.credit > 0 && room > 0; kept = 0 {
		at := len(dst)
		if dst, err = s.gatherWork(dst, room, kept); len(dst) == at {
			waits = true
			break
		}
		room -= bodies(dst[at:])
		c.ring() // what is left is for others too
	}
	s.messages += uint64(len(dst) - had)
	if waits {
		s.state = subWaiting
	} else {
		s.credit = 0
	}
	switch {
	case len(dst) > had:
		err = nil
	case c.closed != nil:
		err, waits = c.closed, true
	}
	s.settle()
	c.ring()
	c.unlock()
	return dst, waits, err
}

// DoRelayed is Do for a relayed subscription. fail is called for each that fails, with
// its place in ops and the error of Do, under the channel's lock: it must not block.
func (s *Subscription) DoRelayed(ops []RelayedOp, fail func(i int, err error)) {
	c := s.ch
	c.mu.Lock()
	now := c.now()
	for i := range ops {
		r := &ops[i]
		op := Op{Kind: r.Kind, Delay: r.Delay, Attempts: r.Attempts}
		if err := s.answerAt(r.Part, r.Offset, &op, now); err != nil {
			fail(i, err)
		}
	}
	s.share()
	s.settle()
	c.ring()
	c.unlock()
}

// Adopt makes messages in flight that the consumer holds of partitions that this
// node has just begun to lead. It appends those that are not the consumer's any
// more to lost: finished, to be delivered again, or another's. Messages of partitions
// that have no lane here are ignored.
func (s *Subscription) Adopt(held, lost []HeldMessage) []HeldMessage {
	c := s.ch
	c.mu.Lock()
	lost = s.adoptAll(held, lost)
	c.ring()
	c.unlock()
	return lost
}

// Reopen is for a mirror that is opened anew: its node did not get a reply. held is
// all that the consumer knows of in the partitions parts. It is adopted, as by Adopt;
// what else the subscription has in flight of them came with the lost reply and goes
// back at once, not counted as an attempt. Of other partitions the node follows another
// leader already, and what the consumer holds stays its own until this one knows too.
// Nobody is rung for what goes back before the next Pull.
func (s *Subscription) Reopen(held []HeldMessage, parts []int32, lost []HeldMessage) []HeldMessage {
	c := s.ch
	c.mu.Lock()
	s.unclaim()
	s.state, s.credit = subBusy, 0
	lost = s.adoptAll(held, lost)
	for i := s.inFlight.head; i != 0; {
		e := &c.slots.slots[i]
		at := i
		i = e.next
		if e.flags&flagKept != 0 || !slices.Contains(parts, c.lanes[e.lane].part) {
			continue
		}
		s.release(at)
		s.putBack(c.lanes[e.lane], at)
	}
	s.settle()
	c.ring()
	c.unlock()
	return lost
}

// adoptAll is Adopt under the lock; what is in flight for s of held has flagKept, and
// nothing else has.
func (s *Subscription) adoptAll(held, lost []HeldMessage) []HeldMessage {
	c := s.ch
	for i := s.inFlight.head; i != 0; i = c.slots.slots[i].next {
		c.slots.slots[i].flags &^= flagKept
	}
	now := c.now()
	for i := range held {
		if !s.closed && !s.adopt(&held[i], now) {
			lost = append(lost, held[i])
		}
	}
	s.settle()
	s.armTimeout()
	return lost
}

// adopt reports false if the message is not the consumer's any more.
func (s *Subscription) adopt(h *HeldMessage, now int64) bool {
	c := s.ch
	l := c.lane(h.Part)
	if l == nil || l.remote {
		return true
	}
	i := l.find(h.Offset)
	if i != 0 && l.doubtful(i) {
		l.giveUpSlot(i)
		i = 0
	}
	if i == 0 {
		if l.begun && (l.knows(h.Offset) || h.Attempts != 0 && l.numbers[h.Offset] > h.Attempts && l.isAhead(h.Offset)) {
			return false
		}
		s.own(l, l.addLoose(h.Offset, h.Attempts), h, now)
		return true
	}
	e := &c.slots.slots[i]
	number := h.Attempts
	if number == 0 {
		number = e.attempts
	}
	switch {
	case e.state == stateInFlight && e.sub == s.id && e.attempts == number:
	case number < e.attempts, e.state == stateInFlight && (e.attempts == 0 || e.flags&flagLoose == 0 || number == e.attempts && e.flags&flagPresumed == 0):
		return false
	}
	switch e.state {
	case stateInFlight:
		owner := c.subs[e.sub]
		owner.release(i)
		if owner != s {
			owner.freed()
		}
	case stateReady:
		l.readyCount--
	case stateDue:
		c.slots.unlink(&l.due, i)
		l.dueCount--
		l.wantDue()
	case stateSpent:
		l.unspend(i)
	}
	e.attempts = number
	s.own(l, i, h, now)
	return true
}

// own makes slot i, which is in no list, in flight for s, since and until when h says.
func (s *Subscription) own(l *Lane, i int32, h *HeldMessage, now int64) {
	c := s.ch
	e := &c.slots.slots[i]
	e.sub, e.state = s.id, stateInFlight
	e.delivered, e.deadline = now-int64(max(h.Age, 0)), now+int64(max(h.Left, 0))
	e.flags = e.flags&^(flagInbox|flagPresumed) | flagKept
	c.slots.insertByDeadline(&s.inFlight, i)
	s.inFlightCount++
	c.inFlight++
}

// Abandon is Close for a consumer whose node is gone: what it had in flight comes
// back at once, and does not count as an attempt.
func (s *Subscription) Abandon() { s.end(false, true) }

// Relayed is SubOptions.Relayed.
func (s *Subscription) Relayed() bool { return s.relayed }

// Open lets a lane deliver that was shut.
func (l *Lane) Open() {
	c := l.ch
	c.mu.Lock()
	l.shut = false
	l.settleDoubts()
	c.ring()
	c.unlock()
}
