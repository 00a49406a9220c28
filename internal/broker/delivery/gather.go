package delivery

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/broker/partition"
)

// gather is what happened in a lane since the last Collect. Finished offsets
// are bits, in a ring beside the table's, so that a FIN costs the same in
// whatever order they come, and become ranges when collected.
type gather struct {
	announced bool // the shard knows
	done      []uint64
	lo, hi    int64 // all bits of done are within [lo, hi), hi - lo ≤ 64 × len(done)
	finished  []offsets.Range
	parked    []parked.Entry
	held      []int64 // offsets; to be parked if their slots still have flagHeldNew
	unparked  []int64
	attempts  []int64 // offsets; the numbers are in their slots
	// counted are offsets at or above the cursor; the numbers are in Lane.numbers.
	counted map[int64]struct{}
}

// finish adds one offset; done is as long as the ring of t.
func (g *gather) finish(t *table, offset int64) {
	if 64*len(g.done) != len(t.ring) {
		g.drain()
		g.done = make([]uint64, len(t.ring)/64)
	}
	if len(g.done) == 0 {
		g.finishRange(offset, offset+1)
		return
	}
	lo, hi := min(g.lo, offset), max(g.hi, offset+1)
	if g.lo == g.hi {
		lo, hi = offset, offset+1
	} else if hi-lo > int64(64*len(g.done)) {
		g.drain()
		lo, hi = offset, offset+1
	}
	g.lo, g.hi = lo, hi
	at := offset & int64(64*len(g.done)-1)
	g.done[at>>6] |= 1 << (at & 63)
}

// finishRange adds the offsets from ≤ o < to.
func (g *gather) finishRange(from, to int64) {
	if n := len(g.finished); n > 0 && g.finished[n-1].To == from {
		g.finished[n-1].To = to
		return
	}
	g.finished = append(g.finished, offsets.Range{From: from, To: to})
}

// drain turns the bits into ranges.
func (g *gather) drain() {
	size := int64(64 * len(g.done))
	for o := g.lo; o < g.hi; {
		at := o & (size - 1)
		word := g.done[at>>6] >> (at & 63)
		if word == 0 {
			o += 64 - at&63
			continue
		}
		// The ring may be full: the last word then begins with the first bits.
		zeros := bits.TrailingZeros64(word)
		from := o + int64(zeros)
		o = from + int64(bits.TrailingZeros64(^(word >> zeros)))
		if from < g.hi {
			g.finishRange(from, min(o, g.hi))
		}
	}
	g.clear()
}

// clear unsets the bits of [lo, hi).
func (g *gather) clear() {
	if g.hi-g.lo >= int64(64*len(g.done))-64 {
		clear(g.done)
	} else {
		for o := g.lo &^ 63; o < g.hi; o += 64 {
			g.done[(o>>6)&int64(len(g.done)-1)] = 0
		}
	}
	g.lo, g.hi = 0, 0
}

// ranges returns what is finished as sorted disjoint ranges.
func (g *gather) ranges() []offsets.Range {
	g.drain()
	rs := g.finished
	byFrom := func(a, b offsets.Range) int { return cmp.Compare(a.From, b.From) }
	slices.SortFunc(rs, byFrom)
	out := rs[:0]
	for _, r := range rs {
		if n := len(out); n > 0 && r.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, r.To)
			continue
		}
		out = append(out, r)
	}
	g.finished = out
	return out
}

// Collect appends to d what happened since the last call, at most
// partition.DeltaMax items. An offset is in d once. more: there is some left.
func (l *Lane) Collect(d *partition.Delta) (more bool) {
	c := l.ch
	c.mu.Lock()
	defer c.unlock()
	g := &l.gather
	g.announced = true // whatever comes up below is collected here
	l.closeGaps()
	room := partition.DeltaMax
	d.Finished, g.finished = move(d.Finished, g.ranges(), &room)
	d.Parked, g.parked = move(d.Parked, g.parked, &room)
	d.Unparked, g.unparked = move(d.Unparked, g.unparked, &room)
	for ; room > 0 && len(g.held) > 0; room-- {
		l.collectHeld(d, g.held[len(g.held)-1])
		g.held = g.held[:len(g.held)-1]
	}
	for ; room > 0 && len(g.attempts) > 0; room-- {
		l.collectAttempts(d, g.attempts[len(g.attempts)-1])
		g.attempts = g.attempts[:len(g.attempts)-1]
	}
	for o := range g.counted {
		if room == 0 {
			break
		}
		if n := l.numbers[o]; o >= l.cursor && n > 1 {
			d.Attempts = append(d.Attempts, partition.Attempt{Offset: o, N: n - 1})
			room--
		}
		delete(g.counted, o)
	}
	g.announced = room == 0
	return g.announced
}

// collectHeld adds a message that is held, unless it was finished or put aside
// meanwhile.
func (l *Lane) collectHeld(d *partition.Delta, offset int64) {
	i := l.find(offset)
	if i == 0 {
		return
	}
	if s := &l.ch.slots.slots[i]; s.flags&flagHeldNew != 0 {
		s.flags &^= flagHeldNew | flagAttempts
		d.Parked = append(d.Parked, parked.Entry{Offset: offset, DueNs: l.heldDue, Attempts: s.attempts - 1})
	}
}

// collectAttempts adds how many attempts a message has had, unless it was
// finished, parked or told with collectHeld meanwhile. What is in the parked set
// keeps the number there, under this lane's mark.
func (l *Lane) collectAttempts(d *partition.Delta, offset int64) {
	i := l.find(offset)
	if i == 0 {
		return
	}
	s := &l.ch.slots.slots[i]
	switch {
	case s.flags&flagAttempts == 0:
	case s.flags&flagParked != 0:
		d.Parked = append(d.Parked, parked.Entry{Offset: offset, DueNs: l.heldDue, Attempts: s.attempts - 1})
	default:
		d.Attempts = append(d.Attempts, partition.Attempt{Offset: offset, N: s.attempts - 1})
	}
	s.flags &^= flagAttempts
}

// closeGaps parks the lowest unfinished messages when they leave too many
// finished ranges above the floor.
func (l *Lane) closeGaps() {
	t := &l.table
	most := l.ch.limits.gaps
	if t.opened <= most {
		return
	}
	gaps := t.gaps(l.cursor)
	if gaps <= most {
		return
	}
	o, ok := t.lowestOpen(l.cursor)
	for ok && gaps > most/2 {
		end := t.runEnd(o, l.cursor)
		for ; o < end; o++ {
			l.hold(l.find(o))
		}
		gaps--
		o, ok = t.nextOpen(end, l.cursor)
	}
}

// keepCap is the capacity up to which emptied buffers are kept.
const keepCap = 1 << 10

// move appends up to room elements of from to dst, and returns dst and what is
// left of from.
func move[T any](dst, from []T, room *int) ([]T, []T) {
	n := min(len(from), *room)
	*room -= n
	dst = append(dst, from[:n]...)
	if n == len(from) && cap(from) > keepCap {
		return dst, nil
	}
	return dst, from[:copy(from, from[n:])]
}
