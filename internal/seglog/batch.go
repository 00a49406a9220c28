package seglog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path"
	"strconv"
)

// Batch is one record batch at its place in a partition.
type Batch struct {
	Base   int64  // offset of the first record
	Count  int32  // records; offsets Base … Last
	Index  uint64 // Raft index of the entry that brought it
	Epoch  uint32 // Raft term of that entry, its low 31 bits
	TimeNs int64  // unix ns of the first record; record i has TimeNs + i
	// Data is the record batch. It is never changed. Base offset and epoch in
	// it are stamped when it was read from a file, and not while it is in the
	// tail.
	Data []byte
}

// Last is the offset of the batch's last record.
func (b Batch) Last() int64 { return b.Base + int64(b.Count) - 1 }

// batchOverhead is what a batch in the tail takes besides its bytes.
const batchOverhead = 64

// cost is what the batch counts for in the budget of tails, bytes.
func (b Batch) cost() int64 { return int64(len(b.Data)) + batchOverhead }

// LogID names a log.
type LogID struct {
	Topic     uint64 // incarnation; never used again
	Partition int32
}

// String is the log's folder below the store's.
func (id LogID) String() string { return fmt.Sprintf("%d/%d", id.Topic, id.Partition) }

// dir is the log's folder below that of the store.
func (id LogID) dir(store string) string {
	return path.Join(store, strconv.FormatUint(id.Topic, 10), strconv.Itoa(int(id.Partition)))
}

// seed begins the checksum of every prefix with the log's name, so that a
// batch of another log does not pass.
func (id LogID) seed() uint32 {
	var b [12]byte
	binary.BigEndian.PutUint64(b[:], id.Topic)
	binary.BigEndian.PutUint32(b[8:], uint32(id.Partition))
	return crc32.Checksum(b[:], castagnoli)
}

// CorruptError says that offsets can't be read because what the file holds for
// them is damaged. The caller may go on at Last+1.
type CorruptError struct {
	ID          LogID
	First, Last int64 // offsets
	File        string
	Pos         int64 // byte in the file
	Reason      string
	// Mending says that the batches are being fetched from another replica
	// (Options.Mend): the caller should not go on, but read here again later.
	Mending bool
}

// Error names file, place and offsets.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("read %s at byte %d: %s (offsets %d to %d)", e.File, e.Pos, e.Reason, e.First, e.Last)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
