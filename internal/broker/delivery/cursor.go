package delivery

import (
	"errors"
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
)

// How much one read of the log asks for: a lane that lags doubles it.
const (
	chunkMin = 64 << 10
	chunkMax = 256 << 10
)

// Pauses after a read that brought nothing.
const (
	retryAfterError = time.Second
	retryAfterNone  = 100 * time.Millisecond
)

// claim delivers up to n messages from what is loaded, in the order of the
// log, until their bodies exceed room (the first one always fits). It returns
// what is left of n and room.
func (l *Lane) claim(s *Subscription, dst []Delivery, n, room int, now int64) ([]Delivery, int, int) {
	c := l.ch
	had := len(dst)
	for n > 0 && room > 0 && l.peek() && l.makeRoom(l.cursor, false) {
		r := l.ahead
		if l.aheadCount > 0 && l.adoptNext() {
			continue
		}
		if due, ok := r.record.Due(); ok && due > now {
			l.gather.parked = append(l.gather.parked, parked.Entry{Offset: l.cursor, DueNs: l.dueTime(due)})
			l.dirty()
			l.moveTo(l.cursor + 1)
			continue
		}
		if s.samplesOut(l, l.cursor) {
			l.finishRange(l.cursor, l.cursor+1)
			l.moveTo(l.cursor + 1)
			continue
		}
		i := c.slots.take()
		e := &c.slots.slots[i]
		e.offset, e.lane, e.attempts = l.cursor, l.index, l.takeNumber(l.cursor)
		l.table.putOpen(&c.slots, i)
		if c.beyond(e.attempts) && l.spend(i) { // the call alone would cost
			l.cursor++
			r.peeked = false
			continue
		}
		s.hand(i, now)
		if len(dst) == had {
			s.keep(r.chunk) // all that follow stand in it too
		}
		dst = l.deliver(s, dst, e.attempts)
		if c.latency != nil {
			c.slots.published(i, dst[len(dst)-1].TimeNs)
		}
		room -= len(r.record.Value)
		n--
		l.cursor++
		r.peeked = false
	}
	if r := l.ahead; !r.ended() && r.loaded[len(r.loaded)-1].Last() < l.cursor {
		r.letGo()
	}
	return dst, n, room
}

// deliver appends the record at the cursor as s gets it. It is written
// in place: a Delivery is long to copy.
func (l *Lane) deliver(s *Subscription, dst []Delivery, attempts uint16) []Delivery {
	n := len(dst)
	dst = slices.Grow(dst, 1)[:n+1]
	d := &dst[n]
	d.ID = l.ch.idFor(s, l.part, l.cursor)
	d.Part, d.Offset = l.part, l.cursor
	r := l.ahead
	d.TimeNs = r.loaded[r.batch].TimeNs + int64(r.record.Delta)
	d.Attempts = attempts
	d.Body, d.Key = r.record.Value, r.record.Key
	return dst
}

// takeNumber is the number of the first delivery of offset from here: 1,
// unless an earlier leader had delivered it.
func (l *Lane) takeNumber(offset int64) uint16 {
	if len(l.numbers) > 0 {
		if n, ok := l.numbers[offset]; ok {
			delete(l.numbers, offset)
			return n
		}
	}
	return 1
}

// peek moves the cursor over what is not to be delivered and reports whether
// ahead.record is the record at the cursor; false: nothing is visible, or the
// next chunk must be loaded.
func (l *Lane) peek() bool {
	for l.cursor < l.visible() {
		if l.jumpSkip() {
			continue
		}
		r := l.ahead
		if (r == nil || !r.reading) && !l.openBatch() {
			return false
		}
		if !r.peeked && !r.records.Next(&r.record) {
			l.endBatch()
			continue
		}
		r.peeked = true
		offset := r.loaded[r.batch].Base + int64(r.record.Delta)
		if offset == l.cursor {
			return true
		}
		if offset < l.cursor {
			r.peeked = false
			continue
		}
		l.giveUp(min(offset, l.limit)) // a hole in the log
	}
	return false
}

// openBatch begins with the next loaded batch that reaches the cursor.
func (l *Lane) openBatch() bool {
	r := l.ahead
	if r == nil {
		return false
	}
	for ; r.batch < len(r.loaded); r.batch++ {
		if b := &r.loaded[r.batch]; b.Last() >= l.cursor {
			r.records = record.Records(b.Data)
			r.reading, r.peeked = true, false
			return true
		}
		r.loaded[r.batch] = seglog.Batch{}
	}
	r.letGo()
	return false
}

// endBatch leaves the batch whose records have ended. What it should have held
// at and above the cursor is given up.
func (l *Lane) endBatch() {
	r := l.ahead
	b := &r.loaded[r.batch]
	if err := r.records.Err(); err != nil {
		l.ch.skipped += uint64(max(min(b.Last()+1, l.limit)-l.cursor, 0))
		l.warn("skip damaged batch", b.Base, b.Last(), err)
	}
	l.giveUp(min(b.Last()+1, l.limit))
	r.loaded[r.batch] = seglog.Batch{}
	r.batch++
	r.reading, r.peeked = false, false
}

// giveUp finishes the offsets from the cursor up to one that are not in the
// log.
func (l *Lane) giveUp(to int64) {
	if to > l.cursor {
		l.forgetLoose(l.cursor, to)
		l.finishRange(l.cursor, to)
		l.moveTo(to)
	}
}

// jumpSkip moves the cursor over the first skipped range if it stands in it.
func (l *Lane) jumpSkip() bool {
	if len(l.skip) == 0 || l.skip[0].From > l.cursor {
		return false
	}
	r := &l.skip[0]
	to := min(r.To, l.limit)
	l.skipped -= to - r.From
	r.From = to
	if r.From == r.To {
		l.skip = l.skip[1:]
	}
	l.moveTo(max(to, l.cursor))
	return true
}

// moveTo moves the cursor without a delivery, and keeps the table's invariant:
// no open offset is further below it than the ring is long.
func (l *Lane) moveTo(to int64) {
	t := &l.table
	for o := max(l.cursor, to-int64(len(t.ring))); o < to && t.opened > 0; o++ {
		if !t.isOpen(o) {
			continue
		}
		if size := len(t.ring); l.makeRoom(o, true) && len(t.ring) != size {
			o = max(l.cursor, to-int64(len(t.ring))) - 1 // it grew: all places are others
		}
	}
	l.cursor = to
}

// makeRoom empties the place of offset, the cursor's or one above it: the ring
// grows, or what stands there goes into the map of old ones, and is held. It
// reports false when the map is full, unless it must.
func (l *Lane) makeRoom(offset int64, must bool) bool {
	t := &l.table
	s := &l.ch.slots
	t.begin()
	for {
		i := t.ring[t.place(offset)]
		if i == 0 {
			return true
		}
		if e := &s.slots[i]; len(t.ring) < t.ringMax && (e.flags&flagParked == 0 || 2*t.inRing > len(t.ring)) {
			t.grow(s)
			continue
		}
		if len(t.old) >= t.oldMax && !must {
			return false
		}
		l.hold(i)
		t.age(s, offset)
	}
}

// needsLoad reports whether the cursor waits for the next chunk of the log.
func (l *Lane) needsLoad() bool {
	return l.live && !l.loading && !l.rests() && l.ahead.ended() &&
		l.cursor < l.visible() && l.table.hasRoom(&l.ch.slots, l.cursor)
}

// load reads the next chunk. It is called with the lock held and gives it away
// while it reads; others go on with ready and due messages meanwhile.
func (l *Lane) load() error {
	c := l.ch
	l.loading = true
	gen, from := l.gen, l.cursor
	l.readSize = min(max(2*l.readSize, chunkMin), chunkMax)
	size := l.readSize
	if l.ahead == nil {
		l.ahead = &readAhead{}
	}
	l.ahead.letGo()
	buf := l.ahead.loaded
	l.ahead.loaded = nil
	c.unlock()
	batches, chunk, err := l.log.ReadChunk(buf, from, size)
	start := int64(0)
	if err == nil && len(batches) == 0 {
		start = l.log.Start()
	}
	c.mu.Lock()
	if l.gen != gen {
		chunk.Release()
		return nil
	}
	l.loading = false
	if l.ahead == nil { // the last consumer has left
		chunk.Release()
		return nil
	}
	l.ahead.loaded, l.ahead.chunk = batches, chunk
	if len(batches) > 0 {
		if batches[len(batches)-1].Last()+1 >= l.limit {
			l.readSize = 0 // caught up
		}
		return nil
	}
	if err != nil {
		return l.loadFailed(err)
	}
	if start > l.cursor {
		c.skipped += uint64(min(start, l.limit) - l.cursor)
		l.warn("skip offsets below the start of the log", l.cursor, start-1, nil)
		l.giveUp(min(start, l.limit))
		return nil
	}
	l.pause(retryAfterNone)
	return nil
}

// loadFailed skips what is damaged, or waits while that is fetched from another
// replica; any other error stops the lane for a while and is the caller's.
func (l *Lane) loadFailed(err error) error {
	corrupt, ok := errors.AsType[*seglog.CorruptError](err)
	if !ok || corrupt.Last < l.cursor {
		l.pause(retryAfterError)
		return fault.Wrap(fault.Storage, err)
	}
	if corrupt.Mending {
		l.pause(retryAfterNone)
		return nil
	}
	to := min(corrupt.Last+1, l.limit)
	l.ch.skipped += uint64(to - l.cursor)
	l.warn("skip damaged messages", l.cursor, corrupt.Last, err)
	l.giveUp(to)
	return nil
}

// unload forgets what was read ahead.
func (l *Lane) unload() {
	if l.ahead != nil {
		l.ahead.letGo()
		l.ahead = nil
	}
	l.readSize = 0
}

// pause leaves the lane alone for a while.
func (l *Lane) pause(d time.Duration) {
	l.retryAt = l.ch.now() + int64(d)
	l.ch.arm(l.retryAt)
}

// warn tells the log about offsets that nobody will get.
func (l *Lane) warn(what string, first, last int64, err error) {
	cfg := &l.ch.cfg
	l.ch.log.Warn(what, "topic", cfg.Topic, "channel", cfg.Name, "partition", l.part, "first", first, "last", last, "error", err)
}
