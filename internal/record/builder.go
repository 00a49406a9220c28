package record

import (
	"encoding/binary"
	"math/bits"
)

// Builder writes one batch at a time: Begin, Add for each message, Finish.
// The zero value is ready, and a Builder may be used again after Finish. It
// allocates only where the caller's buffer has to grow.
type Builder struct {
	buf    []byte
	start  int // where the batch begins in buf
	count  int
	timeMs int64
}

// Begin starts a batch behind dst. All its records get timestampMs.
func (b *Builder) Begin(dst []byte, timestampMs int64) {
	var header [HeaderSize]byte
	b.start = len(dst)
	b.buf = append(dst, header[:]...)
	b.count = 0
	b.timeMs = timestampMs
}

// Add writes one message. A batch holds at most 2 GiB and 2^31-1 records; the
// caller bounds both far below.
func (b *Builder) Add(m *Message) {
	delta := int64(b.count)
	buf := binary.AppendVarint(b.buf, int64(bodySize(m, delta)))
	buf = append(buf, 0, 0) // attributes, timestamp delta
	buf = binary.AppendVarint(buf, delta)
	if m.HasKey {
		buf = binary.AppendVarint(buf, int64(len(m.Key)))
		buf = append(buf, m.Key...)
	} else {
		buf = append(buf, nullLength)
	}
	buf = binary.AppendVarint(buf, int64(len(m.Value)))
	buf = append(buf, m.Value...)
	buf = binary.AppendVarint(buf, int64(len(m.Headers)))
	for i := range m.Headers {
		h := &m.Headers[i]
		buf = binary.AppendVarint(buf, int64(len(h.Key)))
		buf = append(buf, h.Key...)
		if h.Value == nil {
			buf = append(buf, nullLength)
			continue
		}
		buf = binary.AppendVarint(buf, int64(len(h.Value)))
		buf = append(buf, h.Value...)
	}
	b.buf = buf
	b.count++
}

// nullLength is the varint -1.
const nullLength = 1

// Count is the number of records since Begin.
func (b *Builder) Count() int { return b.count }

// Size is the bytes of the batch so far, header included.
func (b *Builder) Size() int { return len(b.buf) - b.start }

// Finish writes the header and returns dst with the batch behind it: base
// offset 0, leader epoch -1, no producer. Without a record it returns dst as
// it was. The Builder keeps no reference to the bytes.
func (b *Builder) Finish() []byte {
	buf, h := b.buf, b.buf[b.start:]
	b.buf, b.start = nil, 0
	if b.count == 0 {
		return buf[:len(buf)-len(h)]
	}
	be := binary.BigEndian
	be.PutUint64(h, 0)
	be.PutUint32(h[atLength:], uint32(len(h)-atEpoch))
	be.PutUint32(h[atEpoch:], ^uint32(0))
	h[atMagic] = magic
	be.PutUint16(h[atAttributes:], 0)
	be.PutUint32(h[atLastDelta:], uint32(b.count-1))
	be.PutUint64(h[atBaseTime:], uint64(b.timeMs))
	be.PutUint64(h[atMaxTime:], uint64(b.timeMs))
	be.PutUint64(h[atProducer:], ^uint64(0))
	be.PutUint16(h[atProdEpoch:], ^uint16(0))
	be.PutUint32(h[atSequence:], ^uint32(0))
	be.PutUint32(h[atCount:], uint32(b.count))
	be.PutUint32(h[atCRC:], Checksum(h))
	return buf
}

// RecordSize is the most bytes that a message adds to a batch. It is above
// the true size by less than ten bytes.
func RecordSize(m *Message) int {
	const deltaMax = 1<<31 - 1
	return varint32SizeMax + bodySize(m, deltaMax)
}

// bodySize is the exact size of a record with an offset delta, without the
// length in front.
func bodySize(m *Message, delta int64) int {
	n := 2 + varintSize(delta) + 1 // attributes, timestamp delta, delta, null key
	if m.HasKey {
		n += sizedBytes(len(m.Key)) - 1
	}
	n += sizedBytes(len(m.Value)) + varintSize(int64(len(m.Headers)))
	for i := range m.Headers {
		h := &m.Headers[i]
		n += sizedBytes(len(h.Key)) + 1
		if h.Value != nil {
			n += sizedBytes(len(h.Value)) - 1
		}
	}
	return n
}

// sizedBytes is the size of n bytes behind their length.
func sizedBytes(n int) int { return varintSize(int64(n)) + n }

// varintSize is the size of a zigzag varint.
func varintSize(v int64) int {
	return (bits.Len64(uint64(v<<1)^uint64(v>>63)|1) + 6) / 7
}
