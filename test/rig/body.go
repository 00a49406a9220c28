package rig

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"time"
)

// Number names a message: its publisher above bit 32, its place in that
// publisher's order below.
type Number uint64

// NumberOf is the name of a publisher's message.
func NumberOf(publisher, seq int) Number { return Number(publisher)<<32 | Number(seq) }

// Publisher is who sent the message.
func (m Number) Publisher() int { return int(m >> 32) }

// Seq is the message's place in the order of its publisher, from 0.
func (m Number) Seq() int { return int(uint32(m)) }

func (m Number) String() string { return fmt.Sprintf("%d/%d", m.Publisher(), m.Seq()) }

// Sizes of bodies, in bytes.
const (
	BodyMin = 10
	BodyMax = 900 << 10
)

// filling is what bodies are cut from.
var filling = func() []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, BodyMax+1<<16)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
	return b
}()

// Filling is the given number of bytes that don't compress, at most BodyMax,
// always the same. They must not be changed.
func Filling(size int) []byte { return filling[:size] }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Body makes the body of a message, of BodyMin to BodyMax bytes: number
// (publisher u16, seq u32), checksum of that, filling.
func Body(m Number, size int) []byte {
	b := make([]byte, size)
	binary.BigEndian.PutUint16(b, uint16(m.Publisher()))
	binary.BigEndian.PutUint32(b[2:], uint32(m.Seq()))
	binary.BigEndian.PutUint32(b[6:], crc32.Checksum(b[:6], castagnoli))
	copy(b[BodyMin:], filling[m.Seq()&0xffff:])
	return b
}

// ReadBody is the number that a body names; an error for one that Body did not
// make.
func ReadBody(b []byte) (Number, error) {
	if len(b) < BodyMin || crc32.Checksum(b[:6], castagnoli) != binary.BigEndian.Uint32(b[6:]) {
		return 0, fmt.Errorf("body that nobody sent")
	}
	return NumberOf(int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint32(b[2:]))), nil
}

// Quantile is the smallest of all that at least the share q of them does not
// exceed; 0 of none.
func Quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Clone(all)
	slices.Sort(sorted)
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
