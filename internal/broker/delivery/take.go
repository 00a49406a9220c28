package delivery

import (
	"cmp"
	"errors"
	"slices"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
)

// Delivery is one message for one consumer. Body and Key are slices of bytes
// that many share: they are not to be changed, and not to be looked at after
// the next Take of the subscription, which gives their memory back.
type Delivery struct {
	ID       ID    // from Take; Pull leaves it empty
	Offset   int64 // its place in the partition Part
	TimeNs   int64 // when it was published, unix ns; strictly increasing in a partition
	Part     int32
	Attempts uint16 // 1 for the first delivery
	Body     []byte
	Key      []byte // nil without one
}

// redeliverMax is how many messages one Take delivers again.
const redeliverMax = 64

// pick is a message to be delivered again, whose body is still to be read.
type pick struct {
	lane   *Lane
	offset int64
	slot   int32
	at     int   // its place in dst
	order  int32 // its place in Subscription.order
	was    uint8 // stateReady or stateDue
	state  uint8
}

// What became of a pick.
const (
	pickUnread uint8 = iota // not read: goes back
	pickRead
	pickGone // cannot be read: finished
)

// Take appends to dst what the consumer may have now: as many messages as its
// window is open, or its share of them when others wait too, until their
// bodies exceed maxBytes (one always fits). It may read files, and then does
// not block others. What earlier calls returned is not good any more.
//
// When it returns nothing the consumer is rung as soon as there is something;
// when it returns something it is not: call it again. An error (why the
// channel was closed, fault.Storage) comes without deliveries.
func (s *Subscription) Take(dst []Delivery, maxBytes int) ([]Delivery, error) {
	c := s.ch
	had := len(dst)
	s.letGo()
	c.mu.Lock()
	kept := s.claim
	s.unclaim()
	s.state = subBusy
	s.settle()
	room := max(maxBytes, 1)
	inboxFirst := s.inbox.len() > 0 && !s.localFirst
	if inboxFirst {
		dst, room = s.takeInbox(dst, room)
	}
	var err error
	if room > 0 {
		at := len(dst)
		dst, err = s.gatherWork(dst, room, kept)
		s.reserved = 0
		if s.inbox.len() > 0 {
			room -= bodies(dst[at:])
		}
	}
	s.localFirst = inboxFirst && room <= 0
	if !inboxFirst && s.inbox.len() > 0 && room > 0 {
		dst, _ = s.takeInbox(dst, room)
	}
	if n := len(dst) - had; n > 0 {
		s.messages += uint64(n)
		err = nil
	} else {
		s.state = subWaiting
		if c.closed != nil {
			err = c.closed
		}
	}
	s.share()
	s.settle()
	c.ring()
	c.unlock()
	return dst, err
}

// idFor is what s is to know a message by: the node that pulls makes the id itself.
func (c *Channel) idFor(s *Subscription, part int32, offset int64) (id ID) {
	if !s.relayed {
		id = c.cfg.Codec.ID(part, offset)
	}
	return id
}

// bodies is how long the bodies of deliveries are together.
func bodies(ds []Delivery) (n int) {
	for i := range ds {
		n += len(ds[i].Body)
	}
	return n
}

// gatherWork fills dst, first with what is to be delivered again, and only
// when there is nothing of it from the log. kept messages were kept for s.
func (s *Subscription) gatherWork(dst []Delivery, room int, kept int64) ([]Delivery, error) {
	c := s.ch
	had := len(dst)
	for {
		n := c.quota(s, kept)
		if n == 0 {
			return dst, nil
		}
		now := c.now()
		if s.pickAgain(min(n, redeliverMax), now, had) {
			var err error
			if dst, err = s.redeliver(dst, room); err != nil || len(dst) > had {
				return dst, err
			}
			continue
		}
		for i := range c.lanes {
			l := c.lanes[(c.nextLane+i)%len(c.lanes)]
			dst, n, room = l.claim(s, dst, n, room, now)
		}
		if len(dst) > had {
			c.nextLane = (c.nextLane + 1) % len(c.lanes)
			s.armTimeout()
			return dst, nil
		}
		l := c.laneToLoad()
		if l == nil {
			return dst, nil
		}
		if err := l.load(); err != nil {
			return dst, err
		}
	}
}

// keep holds the chunk that deliveries of this Take stand in. All those of one
// chunk come one after the other.
func (s *Subscription) keep(c *seglog.Chunk) {
	if n := len(s.chunks); c != nil && (n == 0 || s.chunks[n-1] != c) {
		c.Hold()
		s.chunks = append(s.chunks, c)
	}
}

// letGo gives the chunks of the last Take back.
func (s *Subscription) letGo() {
	for _, c := range s.chunks {
		c.Release()
	}
	clear(s.chunks)
	s.chunks = s.chunks[:0]
}

// laneToLoad finds a lane whose cursor waits for the log.
func (c *Channel) laneToLoad() *Lane {
	for i := range c.lanes {
		if l := c.lanes[(c.nextLane+i)%len(c.lanes)]; l.needsLoad() {
			return l
		}
	}
	return nil
}

// hand gives slot i, which is in no list, to s.
func (s *Subscription) hand(i int32, now int64) {
	c := s.ch
	e := &c.slots.slots[i]
	e.sub, e.state = s.id, stateInFlight
	e.delivered, e.deadline = now, now+s.timeoutNs
	c.slots.insertByDeadline(&s.inFlight, i)
	s.inFlightCount++
	c.inFlight++
	if s.relayed {
		s.credit--
	}
}

// armTimeout sets the channel's timer for the oldest delivery.
func (s *Subscription) armTimeout() {
	if head := s.inFlight.head; head != 0 {
		s.ch.arm(s.ch.slots.slots[head].deadline)
	}
}

// samplesOut reports whether the message falls to the part that SampleRate
// leaves out. It depends on the message alone, so another attempt has the same
// answer.
func (s *Subscription) samplesOut(l *Lane, offset int64) bool {
	return s.sample != 0 && mix(uint64(offset)^l.ch.cfg.Codec.before)%100 >= s.sample
}

// pickAgain puts up to n messages that are to be delivered again into s.picks
// and in flight: requeued and timed-out ones, lowest offset first, then due
// ones. at is the place of the first in dst.
func (s *Subscription) pickAgain(n int, now int64, at int) bool {
	c := s.ch
	s.picks = s.picks[:0]
	for i := range c.lanes {
		l := c.lanes[(c.nextLane+i)%len(c.lanes)]
		if !l.rests() && l.readyCount > 0 {
			s.pickReady(l, n, now)
		}
	}
	for i := range c.lanes {
		l := c.lanes[(c.nextLane+i)%len(c.lanes)]
		if !l.rests() && l.dueCount > 0 {
			s.pickDue(l, n, now)
		}
	}
	for i := range s.picks {
		s.picks[i].at = at + i
	}
	if len(s.picks) == 0 {
		return false
	}
	s.armTimeout()
	return true
}

// pickReady picks from the lane's heap.
func (s *Subscription) pickReady(l *Lane, n int, now int64) {
	for l.readyCount > 0 && len(s.picks) < n {
		i := l.popReady()
		s.pick(l, i, stateReady, now)
	}
}

// popReady takes the lowest ready slot out; readyCount is above 0. The heap may
// hold offsets that have left that state since.
func (l *Lane) popReady() int32 {
	for {
		i := l.find(l.ready.pop())
		if i != 0 && l.ch.slots.slots[i].state == stateReady {
			l.readyCount--
			return i
		}
	}
}

// pickDue picks from the lane's due messages.
func (s *Subscription) pickDue(l *Lane, n int, now int64) {
	c := s.ch
	for l.due.head != 0 && len(s.picks) < n {
		i := l.due.head
		c.slots.unlink(&l.due, i)
		l.dueCount--
		if e := &c.slots.slots[i]; e.attempts <= 1 && s.samplesOut(l, e.offset) {
			l.finishSlot(i)
			continue
		}
		s.pick(l, i, stateDue, now)
	}
	l.wantDue()
}

// pick gives slot i to s, to be read and delivered.
func (s *Subscription) pick(l *Lane, i int32, was uint8, now int64) {
	s.hand(i, now)
	s.picks = append(s.picks, pick{lane: l, offset: s.ch.slots.slots[i].offset, slot: i, was: was})
}

// redeliver reads the bodies of s.picks without the lock and appends them to
// dst in the order of the picks. What cannot be read goes back, what is gone is
// finished.
func (s *Subscription) redeliver(dst []Delivery, room int) ([]Delivery, error) {
	c := s.ch
	had := len(dst)
	for _, p := range s.picks {
		dst = append(dst, Delivery{
			ID: c.idFor(s, p.lane.part, p.offset), Part: p.lane.part, Offset: p.offset,
			Attempts: c.slots.slots[p.slot].attempts,
		})
	}
	delivered := c.slots.slots[s.picks[0].slot].delivered
	c.unlock()
	n, err := s.readPicks(dst, room)
	if errors.Is(err, errMending) {
		err = nil // its lane rests; what was picked behind it goes back
	}
	c.mu.Lock()
	kept := dst[:had]
	for i := range s.picks {
		if p := &s.picks[i]; i < n && p.state == pickRead {
			kept = append(kept, dst[p.at])
			if c.latency != nil && s.holds(p, delivered) {
				c.slots.published(p.slot, dst[p.at].TimeNs)
			}
		}
	}
	for i := len(s.picks) - 1; i >= 0; i-- {
		if p := &s.picks[i]; i >= n || p.state == pickGone {
			s.undo(p, delivered)
		}
	}
	clear(dst[len(kept):])
	return kept, err
}

// holds reports whether a pick is still the delivery to s that was made then.
func (s *Subscription) holds(p *pick, delivered int64) bool {
	if p.lane.find(p.offset) != p.slot {
		return false
	}
	e := &s.ch.slots.slots[p.slot]
	return e.state == stateInFlight && e.sub == s.id && e.delivered == delivered
}

// undo takes a pick back whose body was not read, unless it was taken away
// meanwhile.
func (s *Subscription) undo(p *pick, delivered int64) {
	c := s.ch
	l := c.lanes[p.lane.index] // may be another since
	i := l.find(p.offset)
	if i == 0 {
		return
	}
	e := &c.slots.slots[i]
	if e.state != stateInFlight || e.sub != s.id || e.delivered != delivered {
		return
	}
	s.release(i)
	if s.relayed {
		s.credit++
	}
	switch {
	case l != p.lane || e.flags&flagLoose != 0:
		s.putBack(l, i)
	case p.state == pickGone:
		c.skipped++
		l.warn("skip message that is not in the log", p.offset, p.offset, nil)
		l.finishSlot(i)
	case p.was == stateDue && !c.beyond(e.attempts):
		e.state = stateDue
		l.dueCount++
		c.slots.pushFront(&l.due, i)
	default:
		l.retry(i, false)
	}
}

// readPicks fills in bodies, reading each batch once, and returns how many
// picks, from the first, are settled: until the bodies exceed room.
func (s *Subscription) readPicks(dst []Delivery, room int) (n int, err error) {
	s.order = s.order[:0]
	for i := range s.picks {
		s.order = append(s.order, int32(i))
	}
	slices.SortFunc(s.order, func(a, b int32) int {
		x, y := &s.picks[a], &s.picks[b]
		return cmp.Or(cmp.Compare(x.lane.index, y.lane.index), cmp.Compare(x.offset, y.offset))
	})
	for at, i := range s.order {
		s.picks[i].order = int32(at)
	}
	for n < len(s.picks) && room > 0 {
		p := &s.picks[n]
		if p.state == pickUnread {
			if err := s.readBatch(dst, p); err != nil {
				return n, err
			}
		}
		room -= len(dst[p.at].Body)
		n++
	}
	return n, nil
}

// errMending says that a batch is being fetched from another replica. It never
// leaves the package: the message waits.
var errMending = errors.New("batch is being mended")

// readBatch reads the batch of one pick and fills in the bodies of all picks
// that stand in it.
func (s *Subscription) readBatch(dst []Delivery, p *pick) error {
	l := p.lane
	batches, chunk, err := l.log.ReadChunk(s.batches[:0], p.offset, 1)
	s.keep(chunk)
	chunk.Release()
	defer func() { clear(batches) }() // their bytes belong to dst now
	s.batches = batches[:0]
	if corrupt, ok := errors.AsType[*seglog.CorruptError](err); ok {
		if corrupt.Mending {
			l.ch.mu.Lock()
			l.pause(retryAfterNone)
			l.ch.mu.Unlock()
			return errMending
		}
		p.state = pickGone
		return nil
	}
	switch {
	case err != nil:
		l.ch.mu.Lock()
		l.pause(retryAfterError)
		l.ch.mu.Unlock()
		return fault.Wrap(fault.Storage, err)
	case len(batches) == 0 || batches[0].Base > p.offset:
		p.state = pickGone
		return nil
	}
	b := &batches[0]
	at := p.order
	for at > 0 && s.inBatch(at-1, l, b) {
		at--
	}
	records := record.Records(b.Data)
	var r record.Record
	for offset := int64(-1); int(at) < len(s.order) && s.inBatch(at, l, b); at++ {
		p := &s.picks[s.order[at]]
		for offset < p.offset && records.Next(&r) {
			offset = b.Base + int64(r.Delta)
		}
		if offset != p.offset {
			p.state = pickGone
			continue
		}
		d := &dst[p.at]
		d.TimeNs, d.Body, d.Key = b.TimeNs+int64(r.Delta), r.Value, r.Key
		p.state = pickRead
	}
	return nil
}

// inBatch reports whether the pick at that place of s.order stands in a batch.
func (s *Subscription) inBatch(at int32, l *Lane, b *seglog.Batch) bool {
	p := &s.picks[s.order[at]]
	return p.lane == l && b.Base <= p.offset && p.offset <= b.Last()
}
