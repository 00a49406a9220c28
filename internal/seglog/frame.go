package seglog

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/tidings-io/tidings/internal/record"
)

const (
	prefixSize = 24
	coverEnd   = prefixSize + 21 // the prefix checksum covers bytes [4, coverEnd) of a frame
	crcAt      = 17              // of Kafka's checksum in a batch
	lengthBase = 12              // batch bytes that its own length field does not count
	batchMagic = 2
)

// frame is what a prefix and the batch header behind it say.
type frame struct {
	pos    int64 // of the prefix in the file
	size   int   // batch bytes, without the prefix
	base   int64
	count  int32
	epoch  uint32
	index  uint64
	timeNs int64
}

func (f *frame) last() int64 { return f.base + int64(f.count) - 1 }

// next is the position behind the frame.
func (f *frame) next() int64 { return f.pos + prefixSize + int64(f.size) }

func (f *frame) batch(data []byte) Batch {
	return Batch{Base: f.base, Count: f.count, Epoch: f.epoch, Index: f.index, TimeNs: f.timeNs, Data: data}
}

// appendFrame adds prefix and stamped batch to buf.
func appendFrame(buf []byte, seed uint32, b *Batch) []byte {
	return append(appendFrameHead(buf, seed, b), b.Data[record.HeaderSize:]...)
}

// appendFrameHead adds prefix and stamped header of a batch; its records follow.
func appendFrameHead(buf []byte, seed uint32, b *Batch) []byte {
	at := len(buf)
	buf = append(buf, make([]byte, prefixSize)...)
	buf = append(buf, b.Data[:record.HeaderSize]...)
	p := buf[at:]
	record.Stamp(p[prefixSize:], b.Base, int32(b.Epoch&0x7fffffff))
	binary.BigEndian.PutUint32(p[4:], uint32(b.Count))
	binary.BigEndian.PutUint64(p[8:], b.Index)
	binary.BigEndian.PutUint64(p[16:], uint64(b.TimeNs))
	binary.BigEndian.PutUint32(p, crc32.Update(seed, castagnoli, p[4:coverEnd]))
	return buf
}

// parseFrame reads the frame at the head of b, which holds at least coverEnd
// bytes; false when the prefix checksum or a bound does not hold.
func parseFrame(b []byte, seed uint32, pos int64) (frame, bool) {
	h := b[prefixSize:]
	length := int32(binary.BigEndian.Uint32(h[8:]))
	if h[16] != batchMagic || length < record.HeaderSize-lengthBase {
		return frame{}, false
	}
	if binary.BigEndian.Uint32(b) != crc32.Update(seed, castagnoli, b[4:coverEnd]) {
		return frame{}, false
	}
	f := frame{
		pos:    pos,
		size:   int(length) + lengthBase,
		base:   int64(binary.BigEndian.Uint64(h)),
		count:  int32(binary.BigEndian.Uint32(b[4:])),
		epoch:  binary.BigEndian.Uint32(h[12:]),
		index:  binary.BigEndian.Uint64(b[8:]),
		timeNs: int64(binary.BigEndian.Uint64(b[16:])),
	}
	return f, f.count > 0 && f.base >= 0
}

// intact checks the batch's own checksum, which covers all from byte 21 on.
func intact(batch []byte) bool {
	return binary.BigEndian.Uint32(batch[crcAt:]) == crc32.Checksum(batch[21:], castagnoli)
}
