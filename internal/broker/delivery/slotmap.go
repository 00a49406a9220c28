package delivery

import (
	"math/bits"
	"slices"
)

// slotMap finds slots by offset. It is for the path of every relayed message, where a
// map of Go's would cost more than all else that is done there. The zero value is
// empty.
type slotMap struct {
	places []slotPlace // a power of two; at most half are taken
	n      int
	shift  uint8 // 64 less the bits of a place
}

// slotPlace is an entry; slot 0: none.
type slotPlace struct {
	offset int64
	slot   int32
}

// slotMapMin is the first length of a slotMap. An empty one of more than slotMapKeep
// places gives its memory back.
const (
	slotMapMin  = 16
	slotMapKeep = 1 << 12
)

func (m *slotMap) len() int { return m.n }

// home is where an offset stands when nobody else does. Runs of offsets must not stay
// runs: one that begins within another would be moved behind it as a whole.
func (m *slotMap) home(offset int64) int { return int(uint64(offset) * fibonacci >> m.shift) }

// fibonacci spreads numbers that are near each other (Knuth, 6.4).
const fibonacci = 0x9E3779B97F4A7C15

// get returns the slot of offset, or 0.
func (m *slotMap) get(offset int64) int32 {
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
func (m *slotMap) set(offset int64, slot int32) {
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
func (m *slotMap) resize(n int) {
	old := m.places
	m.places, m.n, m.shift = make([]slotPlace, n), 0, uint8(65-bits.Len(uint(n)))
	for _, p := range old {
		if p.slot != 0 {
			m.set(p.offset, p.slot)
		}
	}
}

// remove takes an offset out.
func (m *slotMap) remove(offset int64) {
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

// offsets are all offsets, in order.
func (m *slotMap) offsets() []int64 {
	if m.n == 0 {
		return nil
	}
	out := make([]int64, 0, m.n)
	for _, p := range m.places {
		if p.slot != 0 {
			out = append(out, p.offset)
		}
	}
	slices.Sort(out)
	return out
}
