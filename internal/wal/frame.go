package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"strconv"
	"strings"

	"github.com/tidings-io/tidings/internal/plant"
)

const (
	magic         = "tidingsW"
	formatVersion = 1
	headerSize    = 512 // bytes of a segment header: one sector, so it is written whole or not at all
	headerUsed    = 64  // bytes of it under the checksum
	frameSize     = 40  // bytes of a frame header
	frameAlign    = 8
	hardSize      = frameSize + 8 // bytes of a HardState frame

	segmentSuffix = ".wal"
	spareNew      = "spare.new"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Kind says what a frame holds.
type Kind uint32

// The kinds of frames.
const (
	KindGroup  Kind = 1 + iota // head of a group write, carries the durable mark
	KindHard                   // a HardState
	KindEntry                  // a raft entry
	KindForget                 // the shard is gone, with all before
)

// String names the kind as `tidings log inspect` prints it.
func (k Kind) String() string {
	switch k {
	case KindGroup:
		return "group"
	case KindHard:
		return "hardstate"
	case KindEntry:
		return "entry"
	case KindForget:
		return "forget"
	}
	return "kind-" + strconv.FormatUint(uint64(k), 10)
}

// frame is a decoded frame header.
type frame struct {
	length uint32 // payload bytes
	sum    uint32 // payload CRC, seeded
	shard  uint32
	kind   Kind
	typ    int32
	term   uint64
	index  uint64
}

// size is the bytes the frame takes, padding included.
func (f *frame) size() int64 { return paddedFrame(int(f.length)) }

// paddedFrame is the bytes a frame with a payload of n bytes takes.
func paddedFrame(n int) int64 {
	return (int64(n) + frameSize + frameAlign - 1) &^ (frameAlign - 1)
}

// put encodes the header into b, at least frameSize bytes.
func (f *frame) put(b []byte, seed uint32) {
	_ = b[frameSize-1]
	binary.LittleEndian.PutUint32(b[4:], f.length)
	binary.LittleEndian.PutUint32(b[8:], f.sum)
	binary.LittleEndian.PutUint32(b[12:], f.shard)
	binary.LittleEndian.PutUint32(b[16:], uint32(f.kind))
	binary.LittleEndian.PutUint32(b[20:], uint32(f.typ))
	binary.LittleEndian.PutUint64(b[24:], f.term)
	binary.LittleEndian.PutUint64(b[32:], f.index)
	binary.LittleEndian.PutUint32(b, crc32.Update(seed, castagnoli, b[4:frameSize]))
}

// decodeFrame reads a header; false when it is none of the generation of seed.
func decodeFrame(b []byte, seed uint32) (frame, bool) {
	if len(b) < frameSize {
		return frame{}, false
	}
	kind := Kind(binary.LittleEndian.Uint32(b[16:]))
	if kind < KindGroup || kind > KindForget {
		return frame{}, false
	}
	if crc32.Update(seed, castagnoli, b[4:frameSize]) != binary.LittleEndian.Uint32(b) {
		return frame{}, false
	}
	f := frame{
		length: binary.LittleEndian.Uint32(b[4:]),
		sum:    binary.LittleEndian.Uint32(b[8:]),
		shard:  binary.LittleEndian.Uint32(b[12:]),
		kind:   kind,
		typ:    int32(binary.LittleEndian.Uint32(b[20:])),
		term:   binary.LittleEndian.Uint64(b[24:]),
		index:  binary.LittleEndian.Uint64(b[32:]),
	}
	return f, f.plausible()
}

// plausible says whether the fields fit the kind, which only a broken writer
// or a collision of checksums can get wrong.
func (f *frame) plausible() bool {
	switch f.kind {
	case KindGroup:
		return f.length == 0 && f.term >= frameSize && f.term%frameAlign == 0 && f.term <= math.MaxInt64/2 && f.index <= math.MaxInt64/2
	case KindHard:
		return f.length == 8
	case KindForget:
		return f.length == 0
	}
	return f.index > 0
}

// appendFrame encodes header, payload and padding.
func appendFrame(b []byte, f frame, payload []byte, seed uint32) []byte {
	f.length = uint32(len(payload))
	f.sum = crc32.Update(seed, castagnoli, payload)
	at := len(b)
	b = append(b, make([]byte, frameSize)...)
	f.put(b[at:], seed)
	b = append(b, payload...)
	for len(b)&(frameAlign-1) != at&(frameAlign-1) {
		b = append(b, 0)
	}
	return b
}

// appendHard encodes a HardState.
func appendHard(b []byte, shard uint32, h HardState, seed uint32) []byte {
	at := len(b)
	b = append(b, make([]byte, frameSize)...)
	b = binary.LittleEndian.AppendUint64(b, h.Vote)
	vote := b[at+frameSize:]
	f := frame{
		length: uint32(len(vote)), sum: crc32.Update(seed, castagnoli, vote),
		shard: shard, kind: KindHard, term: h.Term, index: h.Commit,
	}
	f.put(b[at:], seed)
	return b
}

// seedOf derives the seed of a generation. Sequence numbers that differ in
// their low 32 bits never share one: CRC is a bijection there.
func seedOf(id, sequence uint64) uint32 {
	if plant.On("wal-stale-frame") {
		return 0
	}
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], id)
	binary.LittleEndian.PutUint64(b[8:], sequence)
	return crc32.Checksum(b[:], castagnoli)
}

// segmentHeader is the first sector of a segment.
type segmentHeader struct {
	id       uint64
	sequence uint64
	previous int64 // end of the segment before
	grows    bool  // the file began empty, so that it has nothing behind its end
}

// appendSegmentHeader encodes headerSize bytes.
func appendSegmentHeader(b []byte, h segmentHeader) []byte {
	at := len(b)
	b = append(b, make([]byte, headerSize)...)
	p := b[at:]
	copy(p, magic)
	binary.LittleEndian.PutUint32(p[8:], formatVersion)
	binary.LittleEndian.PutUint64(p[16:], h.id)
	binary.LittleEndian.PutUint64(p[24:], h.sequence)
	binary.LittleEndian.PutUint64(p[32:], uint64(h.previous))
	if h.grows {
		p[40] = 1
	}
	binary.LittleEndian.PutUint32(p[12:], headerSum(p))
	return b
}

// headerSum is the checksum of a segment header.
func headerSum(p []byte) uint32 {
	return crc32.Update(crc32.Checksum(p[:12], castagnoli), castagnoli, p[16:headerUsed])
}

// decodeSegmentHeader reads a header; false when there is none. A header of a
// format version that this program does not know is an error.
func decodeSegmentHeader(p []byte) (segmentHeader, bool, error) {
	if len(p) < headerUsed || string(p[:8]) != magic || binary.LittleEndian.Uint32(p[12:]) != headerSum(p) {
		return segmentHeader{}, false, nil
	}
	if v := binary.LittleEndian.Uint32(p[8:]); v != formatVersion {
		return segmentHeader{}, false, fmt.Errorf("read segment header: format version %d, this program knows %d", v, formatVersion)
	}
	h := segmentHeader{
		id:       binary.LittleEndian.Uint64(p[16:]),
		sequence: binary.LittleEndian.Uint64(p[24:]),
		previous: int64(binary.LittleEndian.Uint64(p[32:])),
		grows:    p[40] == 1,
	}
	return h, true, nil
}

// segmentName is the file name of a sequence number.
func segmentName(sequence uint64) string { return fmt.Sprintf("%016x%s", sequence, segmentSuffix) }

// parseSegmentName is the inverse of segmentName.
func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	sequence, err := strconv.ParseUint(digits, 16, 64)
	return sequence, err == nil && sequence > 0 && segmentName(sequence) == name
}
