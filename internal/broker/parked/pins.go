package parked

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"sort"
	"sync"
)

// blockSize is how many offsets one block of pins covers.
const blockSize = 1 << blockShift

const (
	blockShift = 12
	// sparseMax is the most offsets that a block lists one by one; above it
	// a bitmap of the same size in bytes takes over.
	sparseMax  = 256
	blockWords = blockSize / 64
)

// pins is the exact set of parked offsets: which they are, without their due
// times. A block of 4,096 offsets costs two bytes for each parked one and at
// most 512. The set's owner writes; anybody may ask any.
type pins struct {
	// mu guards what follows against readers that are not the owner.
	mu sync.RWMutex
	frozenPins
	// stamp is younger than every block that a frozen copy shares.
	stamp uint64
	// shared: the slice refs belongs to a frozen copy too.
	shared bool
}

// frozenPins is a state of pins that does not change any more.
type frozenPins struct {
	refs  []pinRef // sorted by key, none empty
	count int64
}

// pinRef is the block of the offsets from key<<blockShift.
type pinRef struct {
	key   int64
	block *block
}

// block holds offsets less their block's first: sorted in sparse, or in bits
// where that is not nil.
type block struct {
	stamp  uint64 // the pins' stamp when it was made; older blocks are shared
	count  int
	sparse []uint16
	bits   *[blockWords]uint64
}

// freeze returns the present state. The two share all blocks until the next
// change of each.
func (p *pins) freeze() frozenPins {
	p.stamp++
	p.shared = true
	return p.frozenPins
}

// find returns the place of a key, or where it belongs.
func (f *frozenPins) find(key int64) (int, bool) {
	// New offsets nearly always fall into the last block or behind it.
	n := len(f.refs)
	if n == 0 || f.refs[n-1].key < key {
		return n, false
	}
	i := sort.Search(n, func(i int) bool { return f.refs[i].key >= key })
	return i, f.refs[i].key == key
}

// has reports whether offset is parked; owner only.
func (p *pins) has(offset int64) bool {
	i, ok := p.find(offset >> blockShift)
	return ok && p.refs[i].block.has(uint16(offset&(blockSize-1)))
}

// any reports whether an offset of first ≤ o ≤ last is parked; any goroutine.
func (p *pins) any(first, last int64) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for i, _ := p.find(first >> blockShift); i < len(p.refs); i++ {
		start := p.refs[i].key << blockShift
		if start > last {
			return false
		}
		lo, hi := max(first-start, 0), min(last-start, blockSize-1)
		if p.refs[i].block.any(uint16(lo), uint16(hi)) {
			return true
		}
	}
	return false
}

// add puts offset in and reports whether it was not in before.
func (p *pins) add(offset int64) bool {
	if p.has(offset) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := offset >> blockShift
	i, ok := p.find(key)
	p.own()
	if !ok {
		p.refs = slices.Insert(p.refs, i, pinRef{key, &block{stamp: p.stamp}})
	}
	p.ownBlock(i).add(uint16(offset & (blockSize - 1)))
	p.count++
	return true
}

// remove takes offset out and reports whether it was in.
func (p *pins) remove(offset int64) bool {
	if !p.has(offset) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i, _ := p.find(offset >> blockShift)
	p.own()
	b := p.ownBlock(i)
	b.remove(uint16(offset & (blockSize - 1)))
	p.count--
	switch {
	case b.count > 0:
	case i == 0: // the oldest go first: moves nothing
		p.refs[0].block = nil
		p.refs = p.refs[1:]
	default:
		p.refs = slices.Delete(p.refs, i, i+1)
	}
	return true
}

// clear empties the set.
func (p *pins) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozenPins = frozenPins{}
	p.shared = false
}

// own makes refs the owner's alone.
func (p *pins) own() {
	if p.shared {
		p.refs = slices.Clone(p.refs)
		p.shared = false
	}
}

// ownBlock makes a block the owner's alone; own was called before.
func (p *pins) ownBlock(i int) *block {
	b := p.refs[i].block
	if b.stamp == p.stamp {
		return b
	}
	c := &block{stamp: p.stamp, count: b.count, sparse: slices.Clone(b.sparse)}
	if b.bits != nil {
		words := *b.bits
		c.bits = &words
	}
	p.refs[i].block = c
	return c
}

func (b *block) has(o uint16) bool {
	if b.bits != nil {
		return b.bits[o/64]>>(o%64)&1 != 0
	}
	_, ok := slices.BinarySearch(b.sparse, o)
	return ok
}

// any reports whether one of lo ≤ o ≤ hi is in.
func (b *block) any(lo, hi uint16) bool {
	if b.bits == nil {
		i, _ := slices.BinarySearch(b.sparse, lo)
		return i < len(b.sparse) && b.sparse[i] <= hi
	}
	for w := lo / 64; w <= hi/64; w++ {
		word := b.bits[w]
		if w == lo/64 {
			word &= ^uint64(0) << (lo % 64)
		}
		if w == hi/64 {
			word &= ^uint64(0) >> (63 - hi%64)
		}
		if word != 0 {
			return true
		}
	}
	return false
}

// add puts in an offset that is not in yet.
func (b *block) add(o uint16) {
	if b.bits == nil && b.count == sparseMax {
		b.bits = new([blockWords]uint64)
		for _, s := range b.sparse {
			b.bits[s/64] |= 1 << (s % 64)
		}
		b.sparse = nil
	}
	if b.bits != nil {
		b.bits[o/64] |= 1 << (o % 64)
	} else {
		i, _ := slices.BinarySearch(b.sparse, o)
		b.sparse = slices.Insert(b.sparse, i, o)
	}
	b.count++
}

// remove takes out an offset that is in. A bitmap becomes a list again only
// at half of sparseMax, so that the two do not alternate.
func (b *block) remove(o uint16) {
	b.count--
	if b.bits == nil {
		i, _ := slices.BinarySearch(b.sparse, o)
		b.sparse = slices.Delete(b.sparse, i, i+1)
		return
	}
	b.bits[o/64] &^= 1 << (o % 64)
	if b.count > sparseMax/2 {
		return
	}
	b.sparse = make([]uint16, 0, sparseMax/2)
	for w, word := range b.bits {
		for ; word != 0; word &= word - 1 {
			b.sparse = append(b.sparse, uint16(w*64+bits.TrailingZeros64(word)))
		}
	}
	b.bits = nil
}

// span is from ≤ o < to within a block.
type span struct{ from, to int }

// spans appends the block's offsets as spans.
func (b *block) spans(dst []span) []span {
	put := func(o int) {
		if n := len(dst); n > 0 && dst[n-1].to == o {
			dst[n-1].to++
		} else {
			dst = append(dst, span{o, o + 1})
		}
	}
	for _, o := range b.sparse {
		put(int(o))
	}
	if b.bits != nil {
		for w, word := range b.bits {
			for ; word != 0; word &= word - 1 {
				put(w*64 + bits.TrailingZeros64(word))
			}
		}
	}
	return dst
}

// append encodes the pins: the number of blocks, then for each the distance
// of its key from the one before, the number of its spans, and for each span
// the gap before it and its length; all uvarints.
func (f *frozenPins) append(buf []byte) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(f.refs)))
	last := int64(0)
	var spans []span
	for _, r := range f.refs {
		buf = binary.AppendUvarint(buf, uint64(r.key-last))
		last = r.key
		spans = r.block.spans(spans[:0])
		buf = binary.AppendUvarint(buf, uint64(len(spans)))
		end := 0
		for _, s := range spans {
			buf = binary.AppendUvarint(buf, uint64(s.from-end))
			buf = binary.AppendUvarint(buf, uint64(s.to-s.from))
			end = s.to
		}
	}
	return buf
}

// decode reads what append wrote into an empty set.
func (p *pins) decode(d *decoder) {
	last := int64(0)
	for i := range d.count(4) {
		gap := d.uvarint(maxOffset >> blockShift)
		key := last + int64(gap)
		if key > maxOffset>>blockShift || i > 0 && gap == 0 {
			d.fail()
		}
		b := &block{stamp: p.stamp}
		b.decode(d)
		if d.failed {
			return
		}
		last = key
		p.refs = append(p.refs, pinRef{key, b})
		p.count += int64(b.count)
	}
}

// decode reads a block's spans.
func (b *block) decode(d *decoder) {
	end := 0
	n := d.count(2)
	if n == 0 {
		d.fail()
	}
	for i := range n {
		gap, length := int(d.uvarint(blockSize)), int(d.uvarint(blockSize))
		if length == 0 || end+gap+length > blockSize || i > 0 && gap == 0 {
			d.fail()
		}
		if d.failed {
			return
		}
		for o := end + gap; o < end+gap+length; o++ {
			b.add(uint16(o))
		}
		end += gap + length
	}
}
