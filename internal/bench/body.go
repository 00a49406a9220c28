package bench

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// MinSize is the smallest body in bytes: the stamp that is verified.
const MinSize = 24

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamp is what a body says about itself. On the wire, big-endian: CRC-32C of
// all that follows (4 bytes), publisher (4), sequence (8), intended send time
// in Unix nanoseconds (8), filler up to the body's size.
type stamp struct {
	publisher uint32
	sequence  uint64 // 0, 1, 2 … per publisher
	intended  int64  // Unix nanoseconds; in deferred messages the due time
}

var errDamaged = errors.New("body is damaged or not of this run")

// write fills body, whose filler is already there.
func (s stamp) write(body []byte) {
	binary.BigEndian.PutUint32(body[4:], s.publisher)
	binary.BigEndian.PutUint64(body[8:], s.sequence)
	binary.BigEndian.PutUint64(body[16:], uint64(s.intended))
	binary.BigEndian.PutUint32(body, crc32.Checksum(body[4:], castagnoli))
}

// read checks the body and returns its stamp.
func (s *stamp) read(body []byte) error {
	if len(body) < MinSize || crc32.Checksum(body[4:], castagnoli) != binary.BigEndian.Uint32(body) {
		return errDamaged
	}
	s.publisher = binary.BigEndian.Uint32(body[4:])
	s.sequence = binary.BigEndian.Uint64(body[8:])
	s.intended = int64(binary.BigEndian.Uint64(body[16:]))
	return nil
}

// bodies makes the bodies of one publisher, in memory that it reuses: what next
// returned is valid until the following call.
type bodies struct {
	stamp stamp
	slots [][]byte
}

// newBodies has room for batches of up to batch bodies of size bytes.
func newBodies(publisher, size, batch int) *bodies {
	b := &bodies{stamp: stamp{publisher: uint32(publisher)}, slots: make([][]byte, batch)}
	arena := make([]byte, size*batch)
	// Filler that compresses about as well as JSON does, not like zeroes.
	x := uint32(publisher)*2654435761 + 1
	for i := range arena {
		x = x*1664525 + 1013904223
		arena[i] = "{\"abcdefghijklmnopqrstuvwxyz:,}0123456789"[(x>>24)%41]
	}
	for i := range b.slots {
		b.slots[i] = arena[i*size : (i+1)*size : (i+1)*size]
	}
	return b
}

// next returns the following n bodies, all meant to be sent at intended.
func (b *bodies) next(n int, intended int64) [][]byte {
	out := b.slots[:n]
	for _, body := range out {
		b.stamp.intended = intended
		b.stamp.write(body)
		b.stamp.sequence++
	}
	return out
}
