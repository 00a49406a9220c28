package delivery

import (
	"slices"
	"sync"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/seglog"
)

// pulling is what a subscription has with other nodes' leaders.
type pulling struct {
	mirrors []*mirror
	// promised is how much of the window relays have asked leaders for, or will.
	promised int64
	inbox    inbox    // pulled and not taken; may hold stale ones
	pulled   slotList // their slots (flagInbox), by deadline
	turn     int      // who may ask next when the window is not enough for all
	// reserved is how much of the window is for the partitions that are led here, as long
	// as they have something.
	reserved   int64
	localFirst bool // the inbox filled the last Take
}

// parcel is a message that was pulled.
type parcel struct {
	lane     int32 // index in Channel.lanes
	slot     int32
	attempts uint16
	offset   int64
	timeNs   int64
	body     []byte
	key      []byte
	chunk    *seglog.Chunk // where body and key stand
}

// inbox is parcels in their order. Of those that stand in one chunk and behind each
// other, the last that leaves gives it back.
type inbox struct {
	list []parcel // from first on
	from int
}

// inboxes are the memory of inboxes that are empty.
var inboxes = sync.Pool{New: func() any { return new([]parcel) }}

func (b *inbox) len() int { return len(b.list) - b.from }

// at is the i-th parcel.
func (b *inbox) at(i int) *parcel { return &b.list[b.from+i] }

// push appends a parcel.
func (b *inbox) push(p *parcel) {
	if b.list == nil {
		b.list = *inboxes.Get().(*[]parcel)
	}
	if n := b.len(); n == 0 || b.at(n-1).chunk != p.chunk {
		p.chunk.Hold()
	}
	if b.from > len(b.list)/2 && len(b.list) == cap(b.list) {
		n := copy(b.list, b.list[b.from:])
		clear(b.list[n:])
		b.list, b.from = b.list[:n], 0
	}
	b.list = append(b.list, *p)
}

// drop takes the first n parcels out.
func (b *inbox) drop(n int) {
	for i := range n {
		p := b.at(i)
		if i+1 == b.len() || b.at(i+1).chunk != p.chunk {
			p.chunk.Release()
		}
	}
	clear(b.list[b.from : b.from+n])
	b.from += n
	b.rest()
}

// cut takes the last parcel out.
func (b *inbox) cut() {
	n := b.len()
	p := b.at(n - 1)
	if n == 1 || b.at(n-2).chunk != p.chunk {
		p.chunk.Release()
	}
	*p = parcel{}
	b.list = b.list[:len(b.list)-1]
	b.rest()
}

// inboxCap is the most parcels that memory is kept for.
const inboxCap = 16 << 10

// rest gives the memory of an inbox back that is empty.
func (b *inbox) rest() {
	if b.len() > 0 || b.list == nil {
		return
	}
	if list := b.list[:0]; cap(list) <= inboxCap {
		inboxes.Put(&list)
	}
	*b = inbox{}
}

// slotOf finds the slot of a parcel; 0: it is not the subscription's any more, or was
// taken.
func (s *Subscription) slotOf(p *parcel) int32 {
	slots := s.ch.slots.slots
	if int(p.slot) >= len(slots) {
		return 0
	}
	e := &slots[p.slot]
	if e.sub != s.id || e.flags&flagInbox == 0 || e.offset != p.offset || e.lane != p.lane || e.attempts != p.attempts {
		return 0
	}
	return p.slot
}

// takeInbox appends what was pulled to dst, until bodies exceed room, and returns
// what is left of that.
func (s *Subscription) takeInbox(dst []Delivery, room int) ([]Delivery, int) {
	c := s.ch
	if c.paused || c.closed != nil {
		return dst, room
	}
	n := 0
	for ; n < s.inbox.len() && room > 0; n++ {
		p := s.inbox.at(n)
		i := s.slotOf(p)
		if i == 0 {
			continue
		}
		e := &c.slots.slots[i]
		c.slots.unlink(&s.pulled, i)
		e.flags &^= flagInbox
		e.deadline = e.delivered + s.timeoutNs
		c.slots.insertByDeadline(&s.inFlight, i)
		dst = append(dst, Delivery{
			ID: c.cfg.Codec.ID(c.lanes[p.lane].part, p.offset), Part: c.lanes[p.lane].part, Offset: p.offset,
			TimeNs: p.timeNs, Attempts: p.attempts, Body: p.body, Key: p.key,
		})
		s.keep(p.chunk)
		room -= len(p.body)
	}
	s.inbox.drop(n)
	s.armTimeout()
	return dst, room
}

// receive puts a message that was pulled through r into the inbox; it stands in chunk.
func (s *Subscription) receive(r *Relay, m *RelayedMessage, chunk *seglog.Chunk, now int64) {
	c := s.ch
	l := c.lane(m.Part)
	if l == nil || l.relay != r {
		return // another leads by now, and does not know of this delivery
	}
	if i := l.find(m.Offset); i != 0 { // which the leader has given up
		owner := c.subs[c.slots.slots[i].sub]
		owner.release(i)
		l.drop(i)
		owner.freed()
	}
	since := r.outSince // the leader gave it away after that
	if s.closed || now >= since+s.timeoutNs {
		l.tell(relayOp{kind: Return, attempts: m.Attempts, offset: m.Offset, since: now, sub: s})
		return
	}
	i := l.addLoose(m.Offset, m.Attempts)
	e := &c.slots.slots[i]
	e.sub, e.state = s.id, stateInFlight
	e.flags |= flagInbox
	// What the consumer does not take by then goes back before it times out.
	e.delivered, e.deadline = since, max(since+s.timeoutNs/2, now)
	c.slots.insertByDeadline(&s.pulled, i)
	s.inFlightCount++
	s.inbox.push(&parcel{
		lane: l.index, slot: i, attempts: e.attempts, offset: m.Offset, timeNs: m.TimeNs, body: m.Body, key: m.Key, chunk: chunk,
	})
	c.arm(e.deadline)
}

// expireInbox gives back what has waited in the inbox for too long.
func (s *Subscription) expireInbox(now int64) {
	slots := &s.ch.slots
	for i := s.pulled.head; i != 0 && slots.slots[i].deadline <= now; i = s.pulled.head {
		s.release(i)
		s.putBack(s.ch.lanes[slots.slots[i].lane], i)
	}
	n := 0
	for n < s.inbox.len() && s.slotOf(s.inbox.at(n)) == 0 {
		n++
	}
	s.inbox.drop(n)
}

// trim takes back what the window does not cover any more: what leaders have not
// been asked for yet, and what the consumer has not taken, the last first.
func (s *Subscription) trim() {
	for _, m := range s.mirrors {
		over := s.inFlightCount + s.promised - s.window
		if over <= 0 {
			return
		}
		cut := min(over, m.want)
		m.want -= cut
		s.promised -= cut
	}
	for s.inbox.len() > 0 && s.inFlightCount > s.window {
		p := s.inbox.at(s.inbox.len() - 1)
		if i := s.slotOf(p); i != 0 {
			s.release(i)
			s.putBack(s.ch.lanes[p.lane], i)
		}
		s.inbox.cut()
	}
}

// arrived wakes the consumer for what is in its inbox.
func (s *Subscription) arrived() {
	if s.inbox.len() > 0 && s.state == subWaiting && !s.ch.paused && s.ch.closed == nil {
		s.state = subRung
		s.settle()
		s.notify()
	}
}

// freed is called after messages of s have left it by themselves.
func (s *Subscription) freed() {
	s.share()
	s.settle()
	s.forgetIfDone()
}

// narrow is called after the window was set.
func (s *Subscription) narrow() {
	s.trim()
	if s.window > 0 {
		return
	}
	for _, m := range s.mirrors {
		if m.waits {
			m.shut()
		}
	}
}

// share promises what is open of the window to leaders elsewhere that may have
// something, as long as those here leave something of it: all get the same part, or
// one message each in turn. As long as the consumer has not taken what has come, that
// is half of the window at least: pulls stay large, and leaders gather the next one
// while the consumer is busy with this. It is called after everything that may have
// opened the window or brought a leader something.
func (s *Subscription) share() {
	c := s.ch
	if len(c.relays) == 0 || s.relayed || s.closed || c.paused || c.closed != nil {
		return
	}
	open := s.open() - s.claim
	if open <= 0 || s.inbox.len() > 0 && open < s.window/2 {
		return
	}
	parts := int64(0)
	for _, r := range c.relays {
		if r.mayAsk(s) {
			parts++
		}
	}
	if parts == 0 {
		return
	}
	local := c.work() > c.claimed
	if local {
		if open -= s.reserved; open <= 0 {
			return
		}
		parts++
	}
	part := max(open/parts, 1)
	for range len(c.relays) + 1 {
		at := s.turn % (len(c.relays) + 1)
		s.turn = at + 1
		switch {
		case at < len(c.relays):
			if r := c.relays[at]; r.mayAsk(s) {
				n := min(part, open)
				open -= n
				r.ask(s, n)
			}
		case local:
			n := min(part, open)
			open -= n
			s.reserved += n
		}
		if open <= 0 {
			break
		}
	}
	s.settle()
}

// leaveRelays ends what s has with other nodes' leaders: s is closed.
func (s *Subscription) leaveRelays(abnormal, abandoned bool) {
	c := s.ch
	s.trim()
	s.inbox.drop(s.inbox.len())
	var gone []int32
	for i := s.inFlight.head; i != 0; i = c.slots.slots[i].next {
		if c.lanes[c.slots.slots[i].lane].away() {
			gone = append(gone, i)
		}
	}
	for _, i := range gone {
		e := &c.slots.slots[i]
		l := c.lanes[e.lane]
		op := relayOp{kind: Requeue, attempts: e.attempts, offset: e.offset, since: c.now(), sub: s}
		counts := e.flags&flagPresumed == 0 && !l.remote && !abandoned && c.closed == nil
		s.release(i)
		l.drop(i)
		if counts {
			l.tell(op)
		}
	}
	for _, m := range slices.Clone(s.mirrors) {
		m.close(abnormal, c.closed != nil)
	}
}

// failedAnswer tells the consumer of an answer that the leader did not take.
func (s *Subscription) failedAnswer(l *Lane, op *relayOp, notOwner bool) {
	c := s.ch
	if op.kind == Touch && l != nil && l.remote {
		i := l.find(op.offset)
		if i != 0 && c.slots.slots[i].sub == s.id && c.slots.slots[i].attempts == op.attempts {
			s.release(i)
			l.drop(i)
			s.freed()
		}
	}
	if op.again || op.kind == Return || s.closed || s.failed == nil || l == nil {
		return
	}
	err := error(fault.NotInFlight)
	if notOwner {
		err = fault.NotOwner
	}
	s.failed(Op{Kind: op.kind, ID: c.cfg.Codec.ID(l.part, op.offset), Delay: op.delay, Attempts: op.attempts}, err)
}
