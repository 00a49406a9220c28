package record

import (
	"encoding/binary"
	"fmt"
	"iter"
	"math"
)

// Record is one message in a batch. Its bytes are the batch's own: they are
// valid as long as those, and not to be changed.
type Record struct {
	Delta       int32 // its offset is the batch's base + Delta
	TimestampMs int64
	Key         []byte // nil is a null key; an empty key is not nil
	Value       []byte // nil is a null value

	headers     []byte // headerCount headers, checked by Iter.Next
	headerCount int
}

// Header returns the value of the first header of that key, and whether there
// is one. A null value is nil.
func (r *Record) Header(key string) ([]byte, bool) {
	for i, n := 0, r.headerCount; n > 0; n-- {
		var k, v []byte
		k, i, _ = bytesAt(r.headers, i)
		v, i, _ = bytesAt(r.headers, i)
		if string(k) == key {
			return v, true
		}
	}
	return nil, false
}

// Headers ranges over keys and values in their order. A null value is nil.
func (r *Record) Headers() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for i, n := 0, r.headerCount; n > 0; n-- {
			var k, v []byte
			k, i, _ = bytesAt(r.headers, i)
			v, i, _ = bytesAt(r.headers, i)
			if !yield(k, v) {
				return
			}
		}
	}
}

// HeaderCount is the number of headers.
func (r *Record) HeaderCount() int { return r.headerCount }

// Due returns the absolute due time in unix ns that a deferred message
// carries in HeaderDue; false without a well-formed one.
func (r *Record) Due() (int64, bool) {
	if r.headerCount == 0 {
		return 0, false
	}
	v, _ := r.Header(HeaderDue)
	if len(v) != 8 {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(v)), true
}

// AppendDue writes a due time in unix ns as HeaderDue wants it.
func AppendDue(buf []byte, dueNs int64) []byte {
	return binary.BigEndian.AppendUint64(buf, uint64(dueNs))
}

// Iter walks the records of a batch without copying or allocating.
type Iter struct {
	rest       []byte
	left       int // records yet to come
	err        error
	baseTimeMs int64
	maxTimeMs  int64
	appendTime bool // all records have maxTimeMs
}

// Records walks an uncompressed batch. It checks bounds, not the CRC: call
// Validate first for bytes that came from outside. What is wrong with the
// batch shows in Err after Next returned false.
func Records(batch []byte) Iter {
	info, err := Parse(batch)
	switch {
	case err != nil:
		return Iter{err: err}
	case len(batch) < info.Size:
		return Iter{err: ErrShort}
	case info.Codec() != 0:
		return Iter{err: ErrCodec}
	}
	return Iter{
		rest:       batch[HeaderSize:info.Size],
		left:       info.Count,
		baseTimeMs: info.BaseTimestampMs,
		maxTimeMs:  info.MaxTimestampMs,
		appendTime: info.Attributes&logAppendTime != 0,
	}
}

// Next reads the next record into r and reports whether there was one. r may
// be reused; it holds nothing of use after false.
func (it *Iter) Next(r *Record) bool {
	if it.err != nil {
		return false
	}
	if it.left == 0 {
		if len(it.rest) > 0 {
			it.err = fmt.Errorf("%d bytes behind the last record: %w", len(it.rest), ErrMalformed)
		}
		return false
	}
	body, end, ok := bytesAt(it.rest, 0)
	if !ok || !it.decode(r, body) {
		it.err = fmt.Errorf("record with %d to come: %w", it.left-1, ErrMalformed)
		return false
	}
	it.rest = it.rest[end:]
	it.left--
	return true
}

// Err is what ended the walk early; nil after a well-formed batch.
func (it *Iter) Err() error { return it.err }

// decode reads a record without its length; it must fill b exactly. The one
// byte of attributes has no meaning yet.
func (it *Iter) decode(r *Record, b []byte) bool {
	timeDelta, i := varintAt(b, 1)
	delta, i := lengthAt(b, i)
	if delta < 0 {
		return false
	}
	var ok bool
	if r.Key, i, ok = bytesAt(b, i); !ok {
		return false
	}
	if r.Value, i, ok = bytesAt(b, i); !ok {
		return false
	}
	count, i := lengthAt(b, i)
	if count < 0 || count > len(b)-i {
		return false
	}
	r.Delta = int32(delta)
	r.TimestampMs = it.baseTimeMs + timeDelta
	if it.appendTime {
		r.TimestampMs = it.maxTimeMs
	}
	r.headers, r.headerCount = b[i:], count
	return headersFill(r.headers, count)
}

// headersFill reports whether b is exactly n well-formed headers.
func headersFill(b []byte, n int) bool {
	i := 0
	for ; n > 0; n-- {
		var key []byte
		var ok bool
		if key, i, ok = bytesAt(b, i); !ok || key == nil {
			return false
		}
		if _, i, ok = bytesAt(b, i); !ok {
			return false
		}
	}
	return i == len(b)
}

// The three readers below take what stands at b[i] and return the place
// behind it. A place behind the end is no mistake of the caller: reading there
// fails. Most varints are of one byte, most lengths of one or two.

// varintAt reads a zigzag varint. A broken one puts the place behind the end.
func varintAt(b []byte, i int) (int64, int) {
	if i < len(b) && b[i] < 0x80 {
		return int64(b[i]>>1) ^ -int64(b[i]&1), i + 1
	}
	return longVarint(b, i)
}

func longVarint(b []byte, i int) (int64, int) {
	if i >= len(b) {
		return 0, len(b) + 1
	}
	v, n := binary.Varint(b[i:])
	if n <= 0 {
		return 0, len(b) + 1
	}
	return v, i + n
}

// lengthAt reads a length, count or offset delta: an int32 that is not below
// -1, in no more bytes than a Kafka client reads for one. Below -1: broken.
func lengthAt(b []byte, i int) (int, int) {
	if i < len(b) && b[i] < 0x80 {
		return int(b[i]>>1) ^ -int(b[i]&1), i + 1
	}
	if i+1 < len(b) && b[i+1] < 0x80 {
		v := uint(b[i]&0x7f) | uint(b[i+1])<<7
		return int(v>>1) ^ -int(v&1), i + 2
	}
	return longLength(b, i)
}

func longLength(b []byte, i int) (int, int) {
	v, next := longVarint(b, i)
	if next > len(b) || next-i > varint32SizeMax || v > math.MaxInt32 || v < -1 {
		return -2, next
	}
	return int(v), next
}

// varint32SizeMax is the longest varint of an int32 in bytes.
const varint32SizeMax = 5

// bytesAt reads bytes behind their length; length -1 yields nil, an empty
// string of bytes is not nil.
func bytesAt(b []byte, i int) (data []byte, next int, ok bool) {
	n, i := lengthAt(b, i)
	if n < 0 {
		return nil, i, n == -1
	}
	if n > len(b)-i {
		return nil, i, false
	}
	return b[i : i+n : i+n], i + n, true
}
