package delivery

import (
	"math/bits"
	"slices"
)

// slotMap finds slots by offset. It is for the path of every relayed message, where a
// map of Go's would cost more than all else that is done there. The zero value is
// empty.
//
// Offsets mostly come in runs: each stands in near, in a place of its own that its
// lowest bits name, so that neighbours are neighbours in memory too. One whose place is
// another's stands in far.
type slotMap struct {
	near  []slotPlace // a power of two
	taken int         // places of near
	far   slotHash
}

func (m *slotMap) len() int { return m.taken + m.far.n }

// place is the offset's place in near, which is not empty.
func (m *slotMap) place(offset int64) *slotPlace { return &m.near[offset&int64(len(m.near)-1)] }

// get returns the slot of offset, or 0.
func (m *slotMap) get(offset int64) int32 {
	if m.taken > 0 {
		if p := m.place(offset); p.offset == offset && p.slot != 0 {
			return p.slot
		}
	}
	return m.far.get(offset)
}

// set enters a slot, which is not 0, in place of the offset's if it has one.
func (m *slotMap) set(offset int64, slot int32) {
	if len(m.near) == 0 {
		m.near = make([]slotPlace, slotMapMin)
	}
	if m.far.get(offset) != 0 {
		m.far.set(offset, slot)
		return
	}
	p := m.place(offset)
	for p.slot != 0 && p.offset != offset && 2*m.taken >= len(m.near) {
		m.grow()
		p = m.place(offset)
	}
	switch {
	case p.slot == 0:
		m.taken++
		*p = slotPlace{offset, slot}
	case p.offset == offset:
		p.slot = slot
	default:
		m.far.set(offset, slot)
	}
}

// grow doubles near. Offsets that had different places keep different ones.
func (m *slotMap) grow() {
	old := m.near
	m.near = make([]slotPlace, 2*len(old))
	for _, p := range old {
		if p.slot != 0 {
			*m.place(p.offset) = p
		}
	}
}

// remove takes an offset out.
func (m *slotMap) remove(offset int64) {
	if m.taken == 0 || m.place(offset).slot == 0 || m.place(offset).offset != offset {
		m.far.remove(offset)
		return
	}
	*m.place(offset) = slotPlace{}
	m.taken--
	if m.taken == 0 && len(m.near) > slotMapKeep {
		m.near = nil
	}
}

// offsets are all offsets, in order.
func (m *slotMap) offsets() []int64 {
	if m.len() == 0 {
		return nil
	}
	out := make([]int64, 0, m.len())
	for _, places := range [...][]slotPlace{m.near, m.far.places} {
		for _, p := range places {
			if p.slot != 0 {
				out = append(out, p.offset)
			}
		}
	}
	slices.Sort(out)
	return out
}

// slotHash is a slotMap for offsets that are no runs.
type slotHash struct {
	places []slotPlace // a power of two; at most half are taken
	n      int
	shift  uint8 // 64 less the bits of a place
}

// slotPlace is an entry; slot 0: none.
type slotPlace struct {
	offset int64
	slot   int32
}

// slotMapMin is the first length of either part of a slotMap. An empty one of more than
// slotMapKeep places gives its memory back.
const (
	slotMapMin  = 16
	slotMapKeep = 1 << 12
)

// home is where an offset stands when nobody else does. Runs of offsets must not stay
// runs: one that begins within another would be moved behind it as a whole.
func (m *slotHash) home(offset int64) int { return int(uint64(offset) * fibonacci >> m.shift) }

// fibonacci spreads numbers that are near each other (Knuth, 6.4).
const fibonacci = 0x9E3779B97F4A7C15

// get returns the slot of offset, or 0.
func (m *slotHash) get(offset int64) int32 {
	if m.n == 0 {
		return 0
	}
	for i := m.home(offset); ; i = (i + 1) & (len(m.places) - 1) {
		if p := &m.places[i]; p.slot == 0 || p.offset == offset {
			return p.slot
		}
	}
}

// set enters a slot, which is not 0, in place of the offset's if it has one.
func (m *slotHash) set(offset int64, slot int32) {
	if 2*(m.n+1) > len(m.places) {
		m.resize(max(2*len(m.places), slotMapMin))
	}
	i := m.home(offset)
	for m.places[i].slot != 0 && m.places[i].offset != offset {
		i = (i + 1) & (len(m.places) - 1)
	}
	if m.places[i].slot == 0 {
		m.n++
	}
	m.places[i] = slotPlace{offset, slot}
}

// resize moves all to n places.
func (m *slotHash) resize(n int) {
	old := m.places
	m.places, m.n, m.shift = make([]slotPlace, n), 0, uint8(65-bits.Len(uint(n)))
	for _, p := range old {
		if p.slot != 0 {
			m.set(p.offset, p.slot)
		}
	}
}

// remove takes an offset out.
func (m *slotHash) remove(offset int64) {
	if m.n == 0 {
		return
	}
	mask := len(m.places) - 1
	i := m.home(offset)
	for m.places[i].offset != offset || m.places[i].slot == 0 {
		if m.places[i].slot == 0 {
			return
		}
		i = (i + 1) & mask
	}
	m.n--
	if m.n == 0 && len(m.places) > slotMapKeep {
		m.places = nil
		return
	}
	// What stands behind and could stand here moves up.
	for k := (i + 1) & mask; m.places[k].slot != 0; k = (k + 1) & mask {
		if h := m.home(m.places[k].offset); (k-h)&mask >= (k-i)&mask {
			m.places[i] = m.places[k]
			i = k
		}
	}
	m.places[i] = slotPlace{}
}
