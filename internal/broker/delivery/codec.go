package delivery

import (
	"math/bits"
)

// ID is a message id as NSQ clients know it: 16 lower-case hex characters.
type ID [16]byte

// String is the id as text.
func (id ID) String() string { return string(id[:]) }

// The 64 bits behind an id: partition, incarnation, offset.
const (
	offsetBits      = 44
	incarnationBits = 8
	partitionBits   = 12

	// MaxOffset is the highest offset that an id can carry.
	MaxOffset = 1<<offsetBits - 1
	// MaxPartition is the highest partition that an id can carry.
	MaxPartition = 1<<partitionBits - 1
)

// Multipliers of the permutation (the finalizer of SplitMix64, by Sebastiano
// Vigna) and their inverses modulo 2^64.
const (
	mixA        uint64 = 0xbf58476d1ce4e5b9
	mixB        uint64 = 0x94d049bb133111eb
	unmixA      uint64 = 0x96de1b173f119089
	unmixB      uint64 = 0x319642b2d24d8ec3
	goldenGamma uint64 = 0x9e3779b97f4a7c15
)

const hexDigits = "0123456789abcdef"

// Codec turns (partition, offset) of one topic incarnation into message ids
// and back. It is a bijection on 64 bits, keyed by the topic's seed, so that
// ids of different topics do not meet in a consumer's set of seen ids.
type Codec struct {
	before, after uint64 // keys, derived from the seed
	incarnation   uint64 // low 8 bits of the incarnation, at their place
}

// NewCodec makes the codec of a topic from its seed (random, drawn anew for
// each incarnation) and its incarnation, of which the low 8 bits count.
func NewCodec(seed, incarnation uint64) Codec {
	return Codec{
		before:      seed,
		after:       mix(seed + goldenGamma),
		incarnation: incarnation & (1<<incarnationBits - 1) << offsetBits,
	}
}

// ID names the message at offset (0..MaxOffset) of partition
// (0..MaxPartition).
func (c Codec) ID(partition int32, offset int64) ID {
	v := uint64(partition)<<(offsetBits+incarnationBits) | c.incarnation | uint64(offset)&MaxOffset
	v = mix(v^c.before) ^ c.after
	var id ID
	for i := range id {
		v = bits.RotateLeft64(v, 4)
		id[i] = hexDigits[v&0xf]
	}
	return id
}

// Parse is the inverse of ID. ok is false for bytes that no call of ID with
// this codec returns: not lower-case hex, or of another incarnation.
func (c Codec) Parse(id ID) (partition int32, offset int64, ok bool) {
	var v uint64
	for _, b := range id {
		n := nibbles[b]
		if n > 0xf {
			return 0, 0, false
		}
		v = v<<4 | uint64(n)
	}
	v = unmix(v^c.after) ^ c.before
	const incarnationMask = uint64(1<<incarnationBits-1) << offsetBits
	if v&incarnationMask != c.incarnation {
		return 0, 0, false
	}
	return int32(v >> (offsetBits + incarnationBits)), int64(v & MaxOffset), true
}

// nibbles maps lower-case hex characters to their values, all else to 0xff.
var nibbles = func() (t [256]uint8) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range []byte(hexDigits) {
		t[c] = uint8(i)
	}
	return t
}()

// mix is a permutation of the 64-bit numbers in which every input bit changes
// about half of the output bits.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * mixA
	x = (x ^ x>>27) * mixB
	return x ^ x>>31
}

// unmix is the inverse of mix.
func unmix(x uint64) uint64 {
	x = (x ^ x>>31 ^ x>>62) * unmixB
	x = (x ^ x>>27 ^ x>>54) * unmixA
	return x ^ x>>30 ^ x>>60
}
