package delivery

import "encoding/binary"

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
	binary.BigEndian.PutUint64(id[:8], hexDigits(uint32(v>>32)))
	binary.BigEndian.PutUint64(id[8:], hexDigits(uint32(v)))
	return id
}

// Parse is the inverse of ID. ok is false for bytes that no call of ID with
// this codec returns: not lower-case hex, or of another incarnation.
func (c Codec) Parse(id ID) (partition int32, offset int64, ok bool) {
	high, ok1 := hexValue(binary.BigEndian.Uint64(id[:8]))
	low, ok2 := hexValue(binary.BigEndian.Uint64(id[8:]))
	if !ok1 || !ok2 {
		return 0, 0, false
	}
	v := uint64(high)<<32 | uint64(low)
	v = unmix(v^c.after) ^ c.before
	const incarnationMask = uint64(1<<incarnationBits-1) << offsetBits
	if v&incarnationMask != c.incarnation {
		return 0, 0, false
	}
	return int32(v >> (offsetBits + incarnationBits)), int64(v & MaxOffset), true
}

// ones has a one in each of eight bytes, for arithmetic on all at once.
const ones = 0x0101010101010101

// hexDigits writes v as eight lower-case hex characters, the first in the
// highest byte.
func hexDigits(v uint32) uint64 {
	x := uint64(v)
	x = (x&0xffff0000)<<16 | x&0xffff
	x = (x&0x0000ff000000ff00)<<8 | x&0x000000ff000000ff
	x = (x&0x00f000f000f000f0)<<4 | x&0x000f000f000f000f
	letters := (x + 6*ones) >> 4 & ones // 1 in bytes of 10 and more
	return x + '0'*ones + letters*('a'-'0'-10)
}

// hexValue is the inverse of hexDigits; false for anything it does not write.
func hexValue(x uint64) (uint32, bool) {
	letters := x >> 6 & ones // 'a' has that bit, '0' has not
	n := (x - '0'*ones - letters*('a'-'0'-10)) & (0xf * ones)
	n = (n>>4 | n) & 0x00ff00ff00ff00ff
	n = (n>>8 | n) & 0x0000ffff0000ffff
	v := uint32(n>>16 | n)
	return v, hexDigits(v) == x
}

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
