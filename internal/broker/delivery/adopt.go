package delivery

import (
	"math"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/broker/partition"
)

// looseSlots are messages in flight that stand outside of a lane's table.
//
// Those of a remote lane, and of a local one that has not begun yet (it is "away"
// both times), are all in flight, and only their offsets are known: answers to them
// are queued.
//
// A local lane that has begun was told of them: consumers hold them since an earlier
// leadership. They stay here until the lane comes to them: the cursor, for those at
// or above it (flagAhead), or Due, for those that were parked durably meanwhile. Then
// they stand in the table like any other. What is answered before is done without:
// the cursor will skip it, or deliver it with the right number, or Due is told.
type looseSlots struct {
	loose      slotMap
	aheadCount int64     // those with flagAhead
	ops        []relayOp // answers to be told, or to be done at Begin

	// term is that of the leadership which the lane has begun; of a lane that has not,
	// that of the last leadership of this node. doubts: another may have led between
	// the two, so what was kept for mirrors (flagPresumed) may have been answered there,
	// or given to others. It is believed only if they answer, or say so once more, before
	// the lane opens.
	term   uint64
	doubts bool
	// late are REQs that were given before the lane began. They wait until it opens: the
	// leader before may have done them, and others have the message since.
	late []relayOp

	// marks are parked messages that were answered before Due brought them: it brings
	// them again with this due time, or (markGone) not at all. Other entries are old.
	marks map[int64]int64
	// At or above startFloor and outside of startSkip the lane knows what became of
	// each message.
	startFloor int64
	emptied    int64 // all below is gone
	startSkip  []offsets.Range
}

// markGone is the mark of a message that is finished.
const markGone = math.MinInt64

// away reports whether answers to what is in flight are queued: they are told to
// another node, or done at Begin.
func (l *Lane) away() bool { return l.remote || !l.begun }

// addLoose makes a slot for a message that stands outside of the table. attempts 0:
// not known; it becomes so when the lane begins, or comes to the message.
func (l *Lane) addLoose(offset int64, attempts uint16) int32 {
	c := l.ch
	i := c.slots.take()
	e := &c.slots.slots[i]
	e.offset, e.lane, e.sub, e.attempts = offset, l.index, noSub, attempts
	l.setLoose(i)
	return i
}

// looseOffsets are the offsets of what is loose, in order.
func (l *Lane) looseOffsets() []int64 { return l.loose.offsets() }

// setLoose enters slot i, which stands nowhere.
func (l *Lane) setLoose(i int32) {
	e := &l.ch.slots.slots[i]
	e.flags |= flagLoose
	l.loose.set(e.offset, i)
	if !l.away() && l.isAhead(e.offset) {
		e.flags |= flagAhead
		l.aheadCount++
		if e.attempts == 0 {
			e.attempts = max(l.numbers[e.offset], 1)
		}
	}
}

// unloose takes slot i out.
func (l *Lane) unloose(i int32) {
	e := &l.ch.slots.slots[i]
	l.loose.remove(e.offset)
	if e.flags&flagAhead != 0 {
		l.aheadCount--
	}
	e.flags &^= flagLoose | flagAhead | flagPresumed
}

// isAhead reports whether the cursor will come to offset.
func (l *Lane) isAhead(offset int64) bool {
	return offset >= l.cursor && !inRanges(l.skip, offset)
}

// inRanges reports whether offset is in one of sorted disjoint ranges.
func inRanges(rs []offsets.Range, offset int64) bool {
	at, found := slices.BinarySearchFunc(rs, offset, func(r offsets.Range, o int64) int {
		switch {
		case r.To <= o:
			return -1
		case r.From > o:
			return 1
		}
		return 0
	})
	return found && at < len(rs)
}

// knows reports whether a message without a slot is known not to be in flight any
// more: it was finished, parked or returned in this life of the lane. Of what may have
// been parked when the lane began it is known only until it is collected.
func (l *Lane) knows(offset int64) bool {
	if _, ok := l.marks[offset]; ok || offset < l.emptied {
		return true
	}
	if offset >= l.startFloor && !inRanges(l.startSkip, offset) {
		return !l.isAhead(offset)
	}
	return slices.Contains(l.gather.unparked, offset) ||
		slices.ContainsFunc(l.gather.parked, func(e parked.Entry) bool { return e.Offset == offset })
}

// begin starts the lane anew from st, with what it has been told before.
func (l *Lane) begin(st partition.Start) {
	loose, ops := l.loose, l.ops
	order := l.looseOffsets()
	if l.begun {
		loose, ops, order = slotMap{}, nil, nil
	} else {
		l.loose = slotMap{}
	}
	former := l.term
	l.reset(st)
	l.begun, l.term = true, st.Term
	l.doubts = st.Term > former+1
	c := l.ch
	for _, o := range order {
		i := loose.get(o)
		e := &c.slots.slots[i]
		l.setLoose(i)
		if n := l.numbers[e.offset]; n > e.attempts && e.flags&flagAhead != 0 {
			l.giveUpSlot(i) // its delivery had ended
		}
	}
	now := c.now()
	for i := range ops {
		if op := &ops[i]; l.shut && op.kind == Requeue {
			l.late = append(l.late, *op)
		} else {
			l.doLate(op, now)
		}
	}
	if !l.shut {
		l.settleDoubts()
	}
}

// settleDoubts is done when the lane has begun and may deliver: who holds something, or
// has answered it, has said so.
func (l *Lane) settleDoubts() {
	if !l.begun {
		return
	}
	l.dropDoubtful()
	late, now := l.late, l.ch.now()
	l.late = nil
	for i := range late {
		l.doLate(&late[i], now)
	}
}

// doubtful reports whether slot i is kept for a mirror that may not hold it any more.
func (l *Lane) doubtful(i int32) bool {
	return l.doubts && l.ch.slots.slots[i].flags&flagPresumed != 0
}

// dropDoubtful gives up what is doubtful: nobody has said that he holds it.
func (l *Lane) dropDoubtful() {
	if !l.doubts {
		return
	}
	for _, o := range l.looseOffsets() {
		if i := l.loose.get(o); i != 0 && l.doubtful(i) {
			l.giveUpSlot(i)
		}
	}
	l.doubts = false
}

// giveUpSlot takes loose slot i from who has it in flight, as if it never had been.
func (l *Lane) giveUpSlot(i int32) {
	s := l.ch.subs[l.ch.slots.slots[i].sub]
	s.release(i)
	l.drop(i)
	s.freed()
}

// doLate does an answer that was given before the lane began. Its message has left
// its consumer.
func (l *Lane) doLate(op *relayOp, now int64) {
	if op.kind != Finish && op.kind != Requeue || l.find(op.offset) != 0 || l.knows(op.offset) {
		return
	}
	if n := op.attempts; n != 0 && n < l.numbers[op.offset] && l.isAhead(op.offset) {
		return // to a delivery that had ended
	}
	i := l.addLoose(op.offset, op.attempts)
	switch due := op.since + int64(op.delay); {
	case op.kind == Finish:
		l.finishSlot(i)
	case op.delay <= 0 || due <= now:
		l.retry(i, true)
	default:
		l.raise(i)
		l.park(i, due)
	}
}

// adoptNext puts the message at the cursor, which a consumer holds already, into the
// table and moves the cursor on. It reports false if nobody holds it. Its place in
// the ring is empty.
func (l *Lane) adoptNext() bool {
	i := l.loose.get(l.cursor)
	if i == 0 {
		return false
	}
	l.unloose(i)
	delete(l.numbers, l.cursor)
	l.table.putOpen(&l.ch.slots, i)
	l.cursor++
	l.ahead.peeked = false
	return true
}

// adoptDue reports whether a due message of the parked set is not to be delivered: a
// consumer holds it, or has answered.
func (l *Lane) adoptDue(e parked.Entry) bool {
	c := l.ch
	if mark, ok := l.marks[e.Offset]; ok {
		if mark != e.DueNs {
			return true
		}
		delete(l.marks, e.Offset)
		// An earlier leader may have done the same answer, and come to the same due time.
		l.gather.parked = slices.DeleteFunc(l.gather.parked, func(x parked.Entry) bool { return x.Offset == e.Offset })
	}
	i := l.loose.get(e.Offset)
	if i == 0 {
		return false
	}
	switch s := &c.slots.slots[i]; {
	case l.doubtful(i), s.attempts != 0 && s.attempts < next(e.Attempts): // or its delivery had ended
		l.giveUpSlot(i)
		return false
	case s.attempts == 0:
		s.attempts = next(e.Attempts)
	}
	l.unloose(i)
	c.slots.slots[i].flags |= flagParked
	l.held++
	if !l.table.put(&c.slots, i) {
		l.table.putOld(&c.slots, i)
	}
	return true
}

// passLoose says that the cursor will not come to the offsets from ≤ o < to.
func (l *Lane) passLoose(from, to int64) {
	if l.aheadCount == 0 {
		return
	}
	for _, o := range l.looseOffsets() {
		if e := &l.ch.slots.slots[l.loose.get(o)]; from <= o && o < to && e.flags&flagAhead != 0 {
			e.flags &^= flagAhead
			l.aheadCount--
		}
	}
}

// forgetLoose forgets what is loose of from ≤ o < to: it is given up.
func (l *Lane) forgetLoose(from, to int64) {
	if l.loose.len() == 0 {
		return
	}
	for _, o := range l.looseOffsets() {
		if i := l.loose.get(o); from <= o && o < to {
			l.giveUpSlot(i)
		}
	}
}

// finishLoose is finishSlot before the lane has come to the message.
func (l *Lane) finishLoose(i int32) {
	e := &l.ch.slots.slots[i]
	offset, ahead := e.offset, e.flags&flagAhead != 0
	l.drop(i)
	if ahead {
		delete(l.numbers, offset)
		l.finishRange(offset, offset+1)
		l.addSkip(offsets.Range{From: offset, To: offset + 1})
		return
	}
	l.mark(offset, markGone)
	l.gather.unparked = append(l.gather.unparked, offset)
	l.dirty()
}

// retryLoose is retry before the lane has come to the message: it will.
func (l *Lane) retryLoose(i int32, counts bool) {
	e := &l.ch.slots.slots[i]
	offset, number := e.offset, e.attempts
	if e.flags&flagAhead == 0 {
		// Parked with the number that this delivery had, unless it counts; or in a
		// Memory that does not know it.
		if _, forgetful := l.shard.(*Memory); counts || forgetful {
			l.parkLoose(i, l.ch.now())
			return
		}
		l.drop(i)
		return
	}
	l.drop(i)
	if number <= 1 {
		return
	}
	if l.numbers == nil {
		l.numbers = make(map[int64]uint16)
	}
	l.numbers[offset] = number
	if counts {
		if l.gather.counted == nil {
			l.gather.counted = make(map[int64]struct{})
		}
		l.gather.counted[offset] = struct{}{}
		l.dirty()
	}
}

// parkLoose is park before the lane has come to the message.
func (l *Lane) parkLoose(i int32, due int64) {
	e := &l.ch.slots.slots[i]
	entry := parked.Entry{Offset: e.offset, DueNs: l.dueTime(due), Attempts: max(e.attempts, 1) - 1}
	ahead := e.flags&flagAhead != 0
	l.drop(i)
	l.gather.parked = append(l.gather.parked, entry)
	if ahead {
		delete(l.numbers, entry.Offset)
		l.addSkip(offsets.Range{From: entry.Offset, To: entry.Offset + 1})
	} else {
		l.mark(entry.Offset, entry.DueNs)
	}
	l.dirty()
}

// mark says which entry of Due is the right one.
func (l *Lane) mark(offset, due int64) {
	if l.marks == nil {
		l.marks = make(map[int64]int64)
	}
	l.marks[offset] = due
}
