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
	b := r.headers
	for range r.headerCount {
		var k, v []byte
		k, v, b = header(b)
		if string(k) == key {
			return v, true
		}
	}
	return nil, false
}

// Headers ranges over keys and values in their order. A null value is nil.
func (r *Record) Headers() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		b := r.headers
		for range r.headerCount {
			var k, v []byte
			k, v, b = header(b)
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

// header takes one checked header off b.
func header(b []byte) (key, value, rest []byte) {
	key, b, _ = takeBytes(b)
	value, b, _ = takeBytes(b)
	return key, value, b
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
	body, rest, ok := takeBytes(it.rest)
	if !ok || body == nil || !it.decode(r, body) {
		it.err = fmt.Errorf("record with %d to come: %w", it.left-1, ErrMalformed)
		return false
	}
	it.rest = rest
	it.left--
	return true
}

// Err is what ended the walk early; nil after a well-formed batch.
func (it *Iter) Err() error { return it.err }

// decode reads a record without its length; it must fill body exactly.
func (it *Iter) decode(r *Record, body []byte) bool {
	if len(body) < 1 {
		return false
	}
	b := body[1:] // attributes: none are defined
	timeDelta, b, ok := takeVarint(b)
	if !ok {
		return false
	}
	delta, b, ok := takeLength(b)
	if !ok || delta < 0 {
		return false
	}
	if r.Key, b, ok = takeBytes(b); !ok {
		return false
	}
	if r.Value, b, ok = takeBytes(b); !ok {
		return false
	}
	count, b, ok := takeLength(b)
	if !ok || count < 0 || count > int64(len(b)) {
		return false
	}
	r.Delta = int32(delta)
	r.TimestampMs = it.baseTimeMs + timeDelta
	if it.appendTime {
		r.TimestampMs = it.maxTimeMs
	}
	r.headers, r.headerCount = b, int(count)
	return headersFill(b, int(count))
}

// headersFill reports whether b is exactly n well-formed headers.
func headersFill(b []byte, n int) bool {
	for range n {
		key, rest, ok := takeBytes(b)
		if !ok || key == nil {
			return false
		}
		if _, b, ok = takeBytes(rest); !ok {
			return false
		}
	}
	return len(b) == 0
}

// takeVarint takes a zigzag varint off b; most are of one byte.
func takeVarint(b []byte) (int64, []byte, bool) {
	if len(b) > 0 && b[0] < 0x80 {
		return int64(b[0]>>1) ^ -int64(b[0]&1), b[1:], true
	}
	v, n := binary.Varint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// takeLength takes a length, count or offset delta off b: an int32 that is
// not below -1, in no more bytes than a Kafka client reads for one.
func takeLength(b []byte) (int64, []byte, bool) {
	v, rest, ok := takeVarint(b)
	return v, rest, ok && v >= -1 && v <= math.MaxInt32 && len(b)-len(rest) <= varint32SizeMax
}

// varint32SizeMax is the longest varint of an int32 in bytes.
const varint32SizeMax = 5

// takeBytes takes bytes behind their length off b; length -1 yields nil, an
// empty string of bytes is not nil.
func takeBytes(b []byte) (data, rest []byte, ok bool) {
	n, b, ok := takeLength(b)
	if !ok || n > int64(len(b)) {
		return nil, nil, false
	}
	if n == -1 {
		return nil, b, true
	}
	return b[:n:n], b[n:], true
}
