package delivery

import "math/bits"

// ringMin is the first size of a table's ring: a power of two, one word of bits.
const ringMin = 64

// table finds the slot of an offset. Most offsets stand in a ring that covers
// the last ones below the cursor and grows with the distance between the
// cursor and the lowest unfinished offset; what is older, and due messages
// whose place is taken, stand in a map.
//
// Invariant: an open offset o (unfinished, not parked durably, below the
// cursor) stands in the ring, and cursor - len(ring) ≤ o < cursor. So the bits
// of open, read from the lowest to the cursor, are in the order of offsets.
type table struct {
	ringMax int // size that the ring grows to
	oldMax  int // size that old grows to

	ring   []int32  // by offset modulo length; 0 = empty
	open   []uint64 // one bit per place in the ring
	opened int      // bits set in open
	low    int64    // no open offset is below
	inRing int      // places taken
	old    map[int64]int32
}

// newTable makes an empty table; it has no ring before it is used.
func newTable(lim limits) table { return table{ringMax: lim.ring, oldMax: lim.old} }

// find returns the slot of offset, or 0.
func (t *table) find(s *slab, offset int64) int32 {
	if len(t.ring) == 0 {
		return 0
	}
	if i := t.ring[t.place(offset)]; i != 0 && s.slots[i].offset == offset {
		return i
	}
	if len(t.old) == 0 {
		return 0
	}
	return t.old[offset]
}

// place is where offset stands in the ring.
func (t *table) place(offset int64) int64 { return offset & int64(len(t.ring)-1) }

// put enters slot i, whose message is parked durably, wherever there is room.
func (t *table) put(s *slab, i int32) bool {
	t.begin()
	at := t.place(s.slots[i].offset)
	if t.ring[at] == 0 {
		t.ring[at] = i
		t.inRing++
		return true
	}
	if len(t.old) >= t.oldMax {
		return false
	}
	t.putOld(s, i)
	return true
}

// putOpen enters slot i, whose offset is the cursor's; its place is empty.
func (t *table) putOpen(s *slab, i int32) {
	offset := s.slots[i].offset
	at := t.place(offset)
	t.ring[at] = i
	t.inRing++
	t.open[at>>6] |= 1 << (at & 63)
	if t.opened == 0 {
		t.low = offset
	}
	t.opened++
}

// putOld enters slot i into the map.
func (t *table) putOld(s *slab, i int32) {
	if t.old == nil {
		t.old = make(map[int64]int32)
	}
	t.old[s.slots[i].offset] = i
}

// age moves the slot at offset's place, which is not open, into the map.
func (t *table) age(s *slab, offset int64) {
	at := t.place(offset)
	t.putOld(s, t.ring[at])
	t.ring[at] = 0
	t.inRing--
}

// isOpen reports whether offset's place is an open offset's.
func (t *table) isOpen(offset int64) bool {
	at := t.place(offset)
	return t.open[at>>6]&(1<<(at&63)) != 0
}

// close says that offset is not open any more.
func (t *table) close(offset int64) {
	at := t.place(offset)
	if bit := uint64(1) << (at & 63); t.open[at>>6]&bit != 0 {
		t.open[at>>6] &^= bit
		t.opened--
	}
}

// remove takes slot i out.
func (t *table) remove(s *slab, i int32) {
	offset := s.slots[i].offset
	at := t.place(offset)
	if t.ring[at] != i {
		delete(t.old, offset)
		return
	}
	if s.slots[i].flags&flagParked == 0 {
		t.close(offset)
	}
	t.ring[at] = 0
	t.inRing--
}

// begin makes the ring if there is none.
func (t *table) begin() {
	if len(t.ring) == 0 {
		t.ring = make([]int32, ringMin)
		t.open = make([]uint64, ringMin/64)
	}
}

// grow doubles the ring. Offsets that had different places keep different ones.
func (t *table) grow(s *slab) {
	ring := t.ring
	t.ring = make([]int32, 2*len(ring))
	t.open = make([]uint64, len(t.ring)/64)
	for _, i := range ring {
		if i == 0 {
			continue
		}
		at := t.place(s.slots[i].offset)
		t.ring[at] = i
		if s.slots[i].flags&flagParked == 0 {
			t.open[at>>6] |= 1 << (at & 63)
		}
	}
}

// hasRoom reports whether the cursor's offset can get a place.
func (t *table) hasRoom(s *slab, cursor int64) bool {
	return len(t.ring) < t.ringMax || len(t.old) < t.oldMax || t.ring[t.place(cursor)] == 0
}

// nextOpen returns the lowest open offset in from ≤ o < to, where from is not
// below to - len(ring).
func (t *table) nextOpen(from, to int64) (int64, bool) {
	for from < to {
		at := t.place(from)
		if word := t.open[at>>6] >> (at & 63); word != 0 {
			from += int64(bits.TrailingZeros64(word))
			return from, from < to
		}
		from += 64 - at&63
	}
	return 0, false
}

// lowestOpen returns the lowest open offset.
func (t *table) lowestOpen(cursor int64) (int64, bool) {
	if t.opened == 0 {
		return 0, false
	}
	o, ok := t.nextOpen(max(t.low, cursor-int64(len(t.ring))), cursor)
	if ok {
		t.low = o
	}
	return o, ok
}

// gaps is how many runs of neighbouring open offsets there are: the number of
// finished ranges above the floor.
func (t *table) gaps(cursor int64) int {
	o, ok := t.lowestOpen(cursor)
	n := 0
	for ok {
		n++
		o, ok = t.nextOpen(t.runEnd(o, cursor), cursor)
	}
	return n
}

// runEnd is the end of the run of open offsets that begins at from.
func (t *table) runEnd(from, cursor int64) int64 {
	for from < cursor {
		at := t.place(from)
		n := int64(bits.TrailingZeros64(^(t.open[at>>6] >> (at & 63))))
		if n < 64-at&63 {
			return min(from+n, cursor)
		}
		from += 64 - at&63
	}
	return cursor
}

// each calls fn with every slot; fn may give the slot back to the slab.
func (t *table) each(fn func(i int32)) {
	for _, i := range t.ring {
		if i != 0 {
			fn(i)
		}
	}
	for _, i := range t.old {
		fn(i)
	}
}

// empty reports whether no slot is in the table.
func (t *table) empty() bool { return t.inRing == 0 && len(t.old) == 0 }
