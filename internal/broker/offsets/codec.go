package offsets

import (
	"encoding/binary"
	"errors"
	"math"
)

// ErrCorrupt says that bytes are not an encoded set.
var ErrCorrupt = errors.New("decode offset set: malformed")

// Append encodes the set behind buf: the number of ranges, then for each the
// distance from the end of the one before (from 0 for the first) and its
// length, all as uvarints. There is exactly one encoding of a set.
func (s *Set) Append(buf []byte) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(s.ranges)))
	last := int64(0)
	for _, r := range s.ranges {
		buf = binary.AppendUvarint(buf, uint64(r.From-last))
		buf = binary.AppendUvarint(buf, uint64(r.To-r.From))
		last = r.To
	}
	return buf
}

// Decode reads what Append wrote and returns the bytes behind it. Any other
// input yields ErrCorrupt; memory stays within eight times the input.
func Decode(b []byte) (Set, []byte, error) {
	n, b, ok := uvarint(b)
	// A range takes two bytes or more, so the count is bounded by the input.
	if !ok || n > uint64(len(b)/2) {
		return Set{}, nil, ErrCorrupt
	}
	var s Set
	if n > 0 {
		s.ranges = make([]Range, 0, n)
	}
	last := int64(0)
	for i := range n {
		var gap, length uint64
		if gap, b, ok = uvarint(b); !ok || gap > uint64(math.MaxInt64-last) || (gap == 0 && i > 0) {
			return Set{}, nil, ErrCorrupt
		}
		from := last + int64(gap)
		if length, b, ok = uvarint(b); !ok || length == 0 || length > uint64(math.MaxInt64-from) {
			return Set{}, nil, ErrCorrupt
		}
		last = from + int64(length)
		s.ranges = append(s.ranges, Range{from, last})
		s.count += int64(length)
	}
	return s, b, nil
}

// uvarint takes one uvarint in its shortest form off b.
func uvarint(b []byte) (uint64, []byte, bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 || (n > 1 && b[n-1] == 0) {
		return 0, nil, false
	}
	return v, b[n:], true
}
