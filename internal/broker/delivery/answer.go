package delivery

import (
	"time"

	"github.com/tidings-io/tidings/internal/fault"
)

// OpKind is what a consumer says about a message.
type OpKind uint8

// The kinds of Op.
const (
	Finish  OpKind = iota // FIN: done with it
	Requeue               // REQ: deliver it again after Op.Delay
	Touch                 // TOUCH: more time
	Return                // not delivered after all: back at once, not counted as an attempt
)

// Op is one answer of a consumer.
type Op struct {
	Kind  OpKind
	ID    ID
	Delay time.Duration // of Requeue; cut to 0..Config.MaxRequeueDelay
	// Attempts is the number of the delivery that is answered: the op fails with
	// fault.NotInFlight when another one is in flight. 0: whichever it is.
	Attempts uint16
}

// Do handles what one read of the consumer's socket brought, under one lock,
// and returns how many failed. errs[i] becomes the error of ops[i]: nil,
// fault.NotInFlight or fault.NotOwner; errs is as long as ops, or nil when
// only the count matters.
func (s *Subscription) Do(ops []Op, errs []error) (failed int) {
	c := s.ch
	var now int64
	c.mu.Lock()
	for i := range ops {
		op := &ops[i]
		if now == 0 && (op.Kind != Finish || c.latency != nil || len(c.relays) > 0) {
			now = c.now()
		}
		err := s.answer(op, now)
		if err != nil {
			failed++
		}
		if errs != nil {
			errs[i] = err
		}
	}
	s.share()
	s.settle()
	c.ring()
	c.unlock()
	return failed
}

// Finish is Do with a single FIN.
func (s *Subscription) Finish(id ID) error { return s.doOne(Op{Kind: Finish, ID: id}) }

// Requeue is Do with a single REQ.
func (s *Subscription) Requeue(id ID, delay time.Duration) error {
	return s.doOne(Op{Kind: Requeue, ID: id, Delay: delay})
}

// Touch is Do with a single TOUCH.
func (s *Subscription) Touch(id ID) error { return s.doOne(Op{Kind: Touch, ID: id}) }

func (s *Subscription) doOne(op Op) error {
	ops, errs := [1]Op{op}, [1]error{}
	s.Do(ops[:], errs[:])
	return errs[0]
}

// answer handles one op.
func (s *Subscription) answer(op *Op, now int64) error {
	c := s.ch
	part, offset, ok := c.cfg.Codec.Parse(op.ID)
	if !ok {
		return fault.NotInFlight
	}
	return s.answerAt(part, offset, op, now)
}

// answerAt is answer for the message in that place.
func (s *Subscription) answerAt(part int32, offset int64, op *Op, now int64) error {
	c := s.ch
	l := c.lane(part)
	if l == nil {
		return fault.NotInFlight
	}
	i := l.find(offset)
	if i == 0 {
		return fault.NotInFlight
	}
	switch e := &c.slots.slots[i]; {
	case e.state != stateInFlight || e.flags&flagInbox != 0:
		return fault.NotInFlight
	case e.sub != s.id:
		return fault.NotOwner
	case op.Attempts != 0 && op.Attempts != e.attempts:
		return fault.NotInFlight
	}
	if l.away() {
		s.answerAway(l, i, op, now)
		return nil
	}
	switch op.Kind {
	case Finish:
		s.finishes++
		if c.latency != nil {
			if ns, ok := c.slots.age(i, now); ok {
				c.latency.Record(now, ns)
			}
		}
		s.release(i)
		l.finishSlot(i)
	case Requeue:
		s.requeues++
		c.requeues++
		s.release(i)
		if op.Delay <= 0 {
			l.retry(i, true)
		} else {
			l.raise(i)
			l.park(i, now+int64(min(op.Delay, c.cfg.MaxRequeueDelay)))
		}
	case Touch:
		s.touch(i, now)
	case Return:
		s.release(i)
		l.retry(i, false)
	}
	return nil
}

// touch moves the deadline of slot i to a full timeout from now, but not past
// the maximum since its delivery.
func (s *Subscription) touch(i int32, now int64) {
	slots := &s.ch.slots
	e := &slots.slots[i]
	deadline := min(now+s.timeoutNs, e.delivered+s.maxNs)
	if deadline == e.deadline {
		return
	}
	slots.unlink(&s.inFlight, i)
	e.deadline = deadline
	slots.insertByDeadline(&s.inFlight, i)
	s.ch.arm(slots.slots[s.inFlight.head].deadline)
}

// lane finds the lane of a partition; channels have few.
func (c *Channel) lane(part int32) *Lane {
	for _, l := range c.lanes {
		if l.part == part {
			return l
		}
	}
	return nil
}
