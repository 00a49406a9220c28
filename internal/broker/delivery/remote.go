package delivery

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/plant"
)

// formerMax is how many answers of an earlier leadership are told to the next leader.
const formerMax = 64 << 10

// relayOp is an answer that is queued in a lane.
type relayOp struct {
	kind     OpKind
	attempts uint16
	again    bool // it may have been done already: nobody is told when it fails
	moved    bool // it is out, and queued again since
	offset   int64
	delay    time.Duration // of a Requeue
	since    int64         // unix ns that delay runs from
	sub      *Subscription
	lane     *Lane // of an op that is out
}

// opQueues are the memory of queues of answers that are empty.
var opQueues = sync.Pool{New: func() any { return new([]relayOp) }}

// emptyOps gives the memory of the queue back, which is empty.
func (l *Lane) emptyOps() {
	if ops := l.ops[:0]; cap(ops) > 0 && cap(ops) <= inboxCap {
		opQueues.Put(&ops)
	}
	l.ops = nil
}

// ends reports whether the message was in flight until the op was given, and is not
// since.
func (op *relayOp) ends() bool { return op.kind != Touch }

// SetRemote says that the partition is led by another node, to which r leads; nil:
// nobody is known to lead it. What consumers that are connected here have in flight
// of it stays so, and their answers wait for somebody to tell them to. Who has merely
// lost sight of the leader leaves r where it is: as long as r leads to the leader of
// other partitions, that one is not told any more what is held of this one.
func (c *Channel) SetRemote(part int32, r *Relay) {
	c.mu.Lock()
	defer c.unlock()
	l := c.lane(part)
	if l == nil || !l.remote {
		l = &Lane{ch: c, part: part, remote: true}
		c.replace(l)
	} else if l.relay == r {
		return
	}
	l.leaveRelay()
	if r != nil {
		l.joinRelay(r)
	}
	c.shareAll()
	c.ring()
}

// HasRelay reports whether the partition has been led by another node, as far as is
// known, since it was led here last.
func (c *Channel) HasRelay(part int32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lane(part)
	return l != nil && l.relay != nil
}

// shareAll gives all subscriptions' windows to relays anew.
func (c *Channel) shareAll() {
	if len(c.relays) == 0 {
		return
	}
	for _, s := range c.subs {
		if s != nil {
			s.share()
			s.settle()
		}
	}
}

// inherit takes over what old, the lane in the same place, has in flight, and the
// answers that nobody was told. What mirrors hold is kept for the case that this node
// leads again, and their nodes have not noticed; nobody is told of it. See
// looseSlots.doubts for when another has led in between.
func (l *Lane) inherit(old *Lane) {
	c := l.ch
	l.term = old.term
	old.leaveRelay()
	if old.away() {
		l.ops, old.ops = old.ops, nil
	} else {
		l.ops = append(old.unwritten(), old.late...)
	}
	var keep []int32
	stays := func(i int32) {
		if c.slots.slots[i].state == stateInFlight && !plant.On("hand-over-loses") {
			keep = append(keep, i)
		}
	}
	old.table.each(stays)
	for _, o := range old.looseOffsets() {
		stays(old.loose.get(o))
	}
	for _, i := range keep {
		e := &c.slots.slots[i]
		if e.flags&flagLoose != 0 {
			old.unloose(i)
		} else {
			old.table.remove(&c.slots, i)
		}
		e.flags &= flagInbox
		if c.subs[e.sub].relayed {
			e.flags |= flagPresumed
		}
		l.setLoose(i)
	}
	switch n := int64(len(keep)); {
	case old.remote && !l.remote:
		c.inFlight += n
	case l.remote && !old.remote:
		c.inFlight -= n
	}
}

// unwritten turns what was answered and not collected yet into ops.
func (l *Lane) unwritten() []relayOp {
	c := l.ch
	former := c.formerConsumer()
	var ops []relayOp
	now := c.now()
	finish := func(r offsets.Range) {
		for o := r.From; o < r.To && len(ops) < formerMax; o++ {
			ops = append(ops, relayOp{kind: Finish, again: true, offset: o, since: now, sub: former})
		}
	}
	requeue := func(offset int64, attempts uint16, delay int64) {
		if attempts > 0 && len(ops) < formerMax {
			ops = append(ops, relayOp{
				kind: Requeue, again: true, offset: offset, attempts: attempts,
				delay: time.Duration(max(delay, 0)), since: now, sub: former,
			})
		}
	}
	g := &l.gather
	for _, r := range g.ranges() {
		finish(r)
	}
	for _, o := range g.unparked {
		finish(offsets.Range{From: o, To: o + 1})
	}
	for i := range g.parked {
		e := &g.parked[i]
		requeue(e.Offset, e.Attempts, e.DueNs-now)
	}
	for _, o := range g.attempts {
		if i := l.find(o); i != 0 && c.slots.slots[i].waits() && c.slots.slots[i].flags&flagAttempts != 0 {
			requeue(o, c.slots.slots[i].attempts-1, 0)
		}
	}
	for _, o := range slices.Sorted(maps.Keys(g.counted)) {
		if n := l.numbers[o]; n > 1 { // else it was delivered since
			requeue(o, n-1, 0)
		}
	}
	for _, o := range g.held {
		if i := l.find(o); i != 0 && c.slots.slots[i].state == stateSpent && c.slots.slots[i].flags&flagHeldNew != 0 {
			requeue(o, c.slots.slots[i].attempts-1, 0)
		}
	}
	return ops
}

// formerConsumer stands for those whose answers this node has taken while it led.
func (c *Channel) formerConsumer() *Subscription {
	if c.former == nil {
		c.former = &Subscription{ch: c, id: noSub, closed: true, timeoutNs: int64(DefaultMsgTimeout), maxNs: int64(DefaultMaxMsgTimeout)}
	}
	return c.former
}

// leaveRelay takes a remote lane off its relay. What is on its way to the leader is
// queued again: it may not come there. But not what was given back undelivered: who is
// told anew what is held is told thereby, and a second Return of one number, which does
// not rise with it, would take the next delivery from its consumer.
func (l *Lane) leaveRelay() {
	r := l.relay
	if r == nil {
		return
	}
	l.relay = nil
	var back []relayOp
	for i := range r.out {
		if op := &r.out[i]; op.lane == l && !op.moved {
			op.moved = true
			if op.kind == Return {
				continue
			}
			again := *op
			again.again, again.moved, again.lane = true, false, nil
			back = append(back, again)
		}
	}
	l.ops = append(back, l.ops...)
	r.lanes = slices.DeleteFunc(r.lanes, func(x *Lane) bool { return x == l })
	if len(r.lanes) == 0 {
		c := l.ch
		c.relays = slices.DeleteFunc(c.relays, func(x *Relay) bool { return x == r })
		r.end()
	}
}

// joinRelay gives a remote lane to a relay: the leader is told what is held of it.
func (l *Lane) joinRelay(r *Relay) {
	c := l.ch
	l.relay = r
	if len(r.lanes) == 0 {
		c.relays = append(c.relays, r)
	}
	r.lanes = append(r.lanes, l)
	r.reviveAll()
	for _, o := range l.looseOffsets() {
		if s := c.subs[c.slots.slots[l.loose.get(o)].sub]; !s.relayed {
			r.reopen(s)
		}
	}
	r.renew() // it may take some for holders that are not
	for i := range l.ops {
		r.reopen(l.ops[i].sub)
	}
	for _, s := range c.subs {
		if s != nil {
			s.announce()
		}
	}
	r.call()
}

// announce tells all leaders elsewhere of a consumer that has not opened its window
// yet, if the channel ends with its last one.
func (s *Subscription) announce() {
	c := s.ch
	if c.cfg.Idle == nil || s.relayed || s.closed {
		return
	}
	for _, r := range c.relays {
		if r.mirror(s, false) == nil {
			r.mirror(s, true).queue()
		}
	}
}

// answerAway does an answer to slot i of a lane that is away: the message has left
// the consumer, and the answer is told to the leader, or done at Begin.
func (s *Subscription) answerAway(l *Lane, i int32, op *Op, now int64) {
	c := s.ch
	if now == 0 { // FINs do without it elsewhere
		now = c.now()
	}
	e := &c.slots.slots[i]
	told := relayOp{kind: op.Kind, attempts: e.attempts, offset: e.offset, since: now, sub: s}
	switch op.Kind {
	case Finish:
		s.finishes++
	case Requeue:
		s.requeues++
		if !l.remote {
			c.requeues++
		}
		told.delay = max(min(op.Delay, c.cfg.MaxRequeueDelay), 0)
	case Touch:
		s.touch(i, now)
		l.tell(told)
		return
	}
	s.release(i)
	l.drop(i)
	l.tell(told)
}

// tell queues an answer.
func (l *Lane) tell(op relayOp) {
	r := l.relay
	switch {
	case !l.remote && op.kind == Return: // nobody has been told of it
		return
	case op.kind == Touch && (r == nil || r.failed): // what is held is told with its deadline
		return
	}
	if l.remote && op.sub.relayed { // given when this node had just ceased to lead
		op.sub, op.again = l.ch.formerConsumer(), true
	}
	if l.ops == nil {
		l.ops = *opQueues.Get().(*[]relayOp)
	}
	l.ops = append(l.ops, op)
	if r != nil {
		r.hasty = r.hasty || op.kind != Finish
		if r.opsSince == 0 {
			r.opsSince = op.since
		}
		r.call()
	}
}

// putBack gives slot i, which is in no list, back undelivered.
func (s *Subscription) putBack(l *Lane, i int32) {
	if !l.away() {
		l.retry(i, false)
		return
	}
	e := &s.ch.slots.slots[i]
	op := relayOp{kind: Return, attempts: e.attempts, offset: e.offset, since: s.ch.now(), sub: s}
	l.drop(i)
	if !s.relayed {
		l.tell(op)
	}
}
