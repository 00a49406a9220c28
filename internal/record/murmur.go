package record

import "encoding/binary"

// Murmur2 is the hash with which Kafka's Java client, franz-go and kafkajs
// place keys (org.apache.kafka.common.utils.Utils.murmur2). A key's partition
// is its positive variant modulo the partition count:
//
//	int32(Murmur2(key)&0x7fffffff) % partitions
func Murmur2(key []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
		r    = 24
	)
	h := uint32(seed) ^ uint32(len(key))
	for ; len(key) >= 4; key = key[4:] {
		k := binary.LittleEndian.Uint32(key) * m
		k ^= k >> r
		h = h*m ^ k*m
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(key[0])) * m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
