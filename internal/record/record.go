// Package record is the one format of messages on disk, between nodes and on
// a Kafka client's wire: Kafka's RecordBatch v2 (magic 2). It is pure: bytes
// in, bytes out, no allocation while building or reading.
//
// A batch is a header of 61 bytes and the records behind it, big-endian:
//
//	 0 base offset       i64   stamped at apply, outside the CRC
//	 8 batch length      i32   bytes behind this field
//	12 leader epoch      i32   stamped at apply, outside the CRC
//	16 magic             i8    2
//	17 CRC32C            u32   over everything from byte 21
//	21 attributes        i16   bits 0–2 codec, bit 3 log append time
//	23 last offset delta i32
//	27 base timestamp    i64   ms
//	35 max timestamp     i64   ms
//	43 producer id       i64   -1: none
//	51 producer epoch    i16
//	53 base sequence     i32
//	57 record count      i32
//	61 records: length, attributes (1 byte), timestamp delta, offset delta,
//	   key, value, headers; lengths, deltas and counts are zigzag varints,
//	   length -1 is null
//
// Source: Apache Kafka, DefaultRecordBatch and DefaultRecord, and KIP-98.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// HeaderSize is the size of a batch header in bytes.
const HeaderSize = 61

// Header keys with a meaning to tidings.
const (
	HeaderID  = "id"  // the publisher's name for the message
	HeaderDue = "due" // absolute due time, 8 bytes big-endian, unix ns
)

// Where the fields of a batch header stand.
const (
	atLength      = 8
	atEpoch       = 12
	atMagic       = 16
	atCRC         = 17
	atAttributes  = 21 // the CRC covers all from here
	atLastDelta   = 23
	atBaseTime    = 27
	atMaxTime     = 35
	atProducer    = 43
	atProdEpoch   = 51
	atSequence    = 53
	atCount       = 57
	magic         = 2
	codecMask     = 0x7
	logAppendTime = 0x8
)

// What can be wrong with a batch; match with errors.Is.
var (
	ErrShort     = errors.New("batch is cut short")
	ErrMagic     = errors.New("batch is not of magic 2")
	ErrCRC       = errors.New("batch fails its checksum")
	ErrCodec     = errors.New("batch codec is not supported")
	ErrMalformed = errors.New("batch is malformed")
	ErrLimit     = errors.New("batch is over a limit")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is a key and a value that travel with a message.
type Header struct {
	Key   string
	Value []byte // nil is written as null
}

// Message is what Builder.Add writes. The bytes are copied.
type Message struct {
	Key     []byte
	Value   []byte // nil is written as an empty value
	HasKey  bool   // false: a null key, whatever Key holds
	Headers []Header
}

// Info is a batch header, decoded.
type Info struct {
	Base            int64 // offset of the first record
	Size            int   // bytes of the whole batch, header included
	Epoch           int32 // leader epoch
	CRC             uint32
	Attributes      int16
	LastDelta       int32 // offset of the last record less Base
	Count           int   // records
	BaseTimestampMs int64
	MaxTimestampMs  int64
	ProducerID      int64 // -1: none
	ProducerEpoch   int16
	Sequence        int32 // of the first record; -1: none
}

// Codec is the compression: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
func (i Info) Codec() int { return int(i.Attributes & codecMask) }

// Parse decodes the header at the start of b. It looks at nothing behind the
// header, and b may be shorter or longer than the batch: Info.Size says how
// long that is. Errors: ErrShort, ErrMagic, ErrMalformed.
func Parse(b []byte) (Info, error) {
	if len(b) < HeaderSize {
		return Info{}, fmt.Errorf("parse header of %d bytes: %w", len(b), ErrShort)
	}
	if b[atMagic] != magic {
		return Info{}, fmt.Errorf("parse header of magic %d: %w", b[atMagic], ErrMagic)
	}
	be := binary.BigEndian
	length := int32(be.Uint32(b[atLength:]))
	count := int32(be.Uint32(b[atCount:]))
	if length < HeaderSize-atEpoch {
		return Info{}, fmt.Errorf("parse header with length %d: %w", length, ErrMalformed)
	}
	if count < 0 {
		return Info{}, fmt.Errorf("parse header with %d records: %w", count, ErrMalformed)
	}
	return Info{
		Base:            int64(be.Uint64(b)),
		Size:            int(length) + atEpoch,
		Epoch:           int32(be.Uint32(b[atEpoch:])),
		CRC:             be.Uint32(b[atCRC:]),
		Attributes:      int16(be.Uint16(b[atAttributes:])),
		LastDelta:       int32(be.Uint32(b[atLastDelta:])),
		Count:           int(count),
		BaseTimestampMs: int64(be.Uint64(b[atBaseTime:])),
		MaxTimestampMs:  int64(be.Uint64(b[atMaxTime:])),
		ProducerID:      int64(be.Uint64(b[atProducer:])),
		ProducerEpoch:   int16(be.Uint16(b[atProdEpoch:])),
		Sequence:        int32(be.Uint32(b[atSequence:])),
	}, nil
}

// Stamp writes the base offset and the leader epoch, which apply decides and
// the CRC leaves out. b holds at least a header.
func Stamp(b []byte, base int64, epoch int32) {
	_ = b[HeaderSize-1]
	binary.BigEndian.PutUint64(b, uint64(base))
	binary.BigEndian.PutUint32(b[atEpoch:], uint32(epoch))
}

// Limits bound what Validate accepts; 0 is no bound.
type Limits struct {
	BatchSizeMax   int // bytes of the batch, header included
	CountMax       int // records in the batch
	ValueSizeMax   int // bytes of one value
	HeaderCountMax int // headers of one record
}

// Validate checks a batch that came from outside before any of it is used: b
// holds exactly one batch, of magic 2 and uncompressed, with the right CRC,
// and each of its records is well formed, has the offset delta of its place,
// and is followed by the next without a gap. It does not look at the base
// offset and the epoch. Errors match one of the package's.
func Validate(b []byte, lim Limits) (Info, error) {
	info, err := Parse(b)
	if err != nil {
		return info, err
	}
	if err := checkHeader(b, info, lim); err != nil {
		return info, err
	}
	it := Records(b)
	var r Record
	for n := int32(0); it.Next(&r); n++ {
		if r.Delta != n {
			return info, fmt.Errorf("validate record %d with delta %d: %w", n, r.Delta, ErrMalformed)
		}
		if over(len(r.Value), lim.ValueSizeMax) {
			return info, fmt.Errorf("validate record %d with a value of %d bytes: %w", n, len(r.Value), ErrLimit)
		}
		if over(r.headerCount, lim.HeaderCountMax) {
			return info, fmt.Errorf("validate record %d with %d headers: %w", n, r.headerCount, ErrLimit)
		}
	}
	if err := it.Err(); err != nil {
		return info, fmt.Errorf("validate batch: %w", err)
	}
	return info, nil
}

// checkHeader is the part of Validate that needs no look into records.
func checkHeader(b []byte, info Info, lim Limits) error {
	switch {
	case over(info.Size, lim.BatchSizeMax):
		return fmt.Errorf("validate batch of %d bytes: %w", info.Size, ErrLimit)
	case len(b) < info.Size:
		return fmt.Errorf("validate %d bytes of a batch of %d: %w", len(b), info.Size, ErrShort)
	case len(b) > info.Size:
		return fmt.Errorf("validate batch with %d bytes behind it: %w", len(b)-info.Size, ErrMalformed)
	case Checksum(b) != info.CRC:
		return fmt.Errorf("validate batch: %w", ErrCRC)
	case info.Codec() != 0:
		return fmt.Errorf("validate batch of codec %d: %w", info.Codec(), ErrCodec)
	case info.Count < 1 || int64(info.LastDelta) != int64(info.Count)-1:
		return fmt.Errorf("validate batch of %d records with last delta %d: %w", info.Count, info.LastDelta, ErrMalformed)
	case over(info.Count, lim.CountMax):
		return fmt.Errorf("validate batch of %d records: %w", info.Count, ErrLimit)
	}
	return nil
}

// over reports whether n is above a limit that is set.
func over(n, limit int) bool { return limit > 0 && n > limit }

// Checksum is the CRC32C that a whole batch's header should hold. b is
// exactly the batch.
func Checksum(b []byte) uint32 {
	return crc32.Checksum(b[atAttributes:], castagnoli)
}
