package parked

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"path"
	"strings"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/vfs"
)

// The format of a run; see the package's documentation.
const (
	runMagic   = "tdparked"
	runVersion = 1
	headerSize = 16
	runSuffix  = ".parked"

	chunkHead    = 8    // length and CRC
	chunkSizeMax = 4096 // a payload ends with the entry that reaches this
	entryMax     = 10 + 10 + 3
	payloadMax   = chunkSizeMax + entryMax
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// run is a file of entries and a cursor in it.
type run struct {
	seq  uint64
	size int64 // bytes of the file
	left int64 // entries at the cursor and behind, stale ones included
	// pos and done are the cursor: where in the file the chunk stands that
	// holds the next entry, and how many of its entries come before that.
	pos  int64
	done int
	// head is the next entry. As long as it is not loaded, only its due time
	// is known, and its offset is below all.
	head   Entry
	loaded bool

	buf    []byte // room for a chunk; nil until the first fill
	chunk  chunk  // what is left of the chunk behind head
	behind int64  // where the chunk after it stands
}

// newRun is a run whose first entry has not been read.
func newRun(seq uint64, size, left, pos int64, done int, due int64) *run {
	return &run{seq: seq, size: size, left: left, pos: pos, done: done, head: Entry{Offset: math.MinInt64, DueNs: due}}
}

// fork returns a run of the same file and cursor that reads for itself.
func (r *run) fork() *run {
	return newRun(r.seq, r.size, r.left, r.pos, r.done, r.head.DueNs)
}

// step moves to the next entry of the chunk, or to the start of the next
// chunk, which must be read then: false.
func (r *run) step() bool {
	e, ok := r.chunk.next()
	if !ok {
		// The next due time is at least that of the entry just passed.
		r.pos, r.done, r.loaded, r.head.Offset = r.behind, 0, false, math.MinInt64
		return false
	}
	r.done++
	r.head = e
	return true
}

// fill reads the chunk at the cursor, and head.
func (r *run) fill(fs vfs.FS, name string) error {
	payload, err := r.read(fs, name)
	if err != nil {
		return fmt.Errorf("read parked messages: %s at %d: %w", name, r.pos, err)
	}
	r.chunk = chunk{rest: payload}
	for range r.done + 1 {
		e, ok := r.chunk.next()
		if !ok {
			return fault.New(fault.Corrupt, "read parked messages: %s at %d: malformed entry", name, r.pos)
		}
		r.head = e
	}
	r.behind = r.pos + chunkHead + int64(len(payload))
	r.loaded = true
	return nil
}

// read returns the payload of the chunk at the cursor, checked.
func (r *run) read(fs vfs.FS, name string) (payload []byte, err error) {
	if r.buf == nil {
		r.buf = make([]byte, chunkHead+payloadMax)
	}
	f, err := fs.Open(name)
	if err != nil {
		return nil, fault.Wrap(fault.Storage, err)
	}
	defer func() {
		if closed := f.Close(); err == nil && closed != nil {
			err = fault.Wrap(fault.Storage, closed)
		}
	}()
	n, err := f.ReadAt(r.buf, r.pos)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fault.Wrap(fault.Storage, err)
	}
	return openChunk(r.buf[:n], r.seq, r.pos)
}

// openChunk returns the payload of the chunk at the start of b.
func openChunk(b []byte, seq uint64, pos int64) ([]byte, error) {
	if len(b) < chunkHead {
		return nil, fault.New(fault.Corrupt, "chunk is cut short")
	}
	length := binary.BigEndian.Uint32(b)
	if length == 0 || int64(length) > int64(len(b)-chunkHead) {
		return nil, fault.New(fault.Corrupt, "chunk of %d bytes in %d", length, len(b)-chunkHead)
	}
	payload := b[chunkHead : chunkHead+length]
	if chunkCRC(seq, pos, payload) != binary.BigEndian.Uint32(b[4:]) {
		return nil, fault.New(fault.Corrupt, "chunk fails its checksum")
	}
	return payload, nil
}

// chunkCRC covers where a chunk belongs and what it holds.
func chunkCRC(seq uint64, pos int64, payload []byte) uint32 {
	var place [16]byte
	binary.BigEndian.PutUint64(place[:], seq)
	binary.BigEndian.PutUint64(place[8:], uint64(pos))
	return crc32.Update(crc32.Checksum(place[:], castagnoli), castagnoli, payload)
}

// chunk reads the entries of a payload.
type chunk struct {
	rest []byte
	last Entry
	any  bool // last is set
}

// next returns the next entry; false at the end and at a malformed entry.
func (c *chunk) next() (Entry, bool) {
	d := decoder{b: c.rest}
	var e Entry
	if c.any {
		e.DueNs = c.last.DueNs + int64(d.uvarint(math.MaxUint64))
	} else {
		e.DueNs = d.varint()
	}
	e.Offset = c.last.Offset + d.varint()
	e.Attempts = uint16(d.uvarint(math.MaxUint16))
	if d.failed {
		c.rest = nil
		return Entry{}, false
	}
	c.rest, c.last, c.any = d.b, e, true
	return e, true
}

// appendChunk appends a chunk for the place pos in its file, with entries up
// to about size bytes, and returns how many they are.
func appendChunk(buf []byte, seq uint64, pos int64, entries []Entry, size int) ([]byte, int) {
	start := len(buf)
	buf = append(buf, make([]byte, chunkHead)...)
	var last Entry
	n := 0
	for ; n < len(entries) && len(buf)-start-chunkHead < size; n++ {
		e := entries[n]
		if n == 0 {
			buf = binary.AppendVarint(buf, e.DueNs)
		} else {
			buf = binary.AppendUvarint(buf, uint64(e.DueNs-last.DueNs))
		}
		buf = binary.AppendVarint(buf, e.Offset-last.Offset)
		buf = binary.AppendUvarint(buf, uint64(e.Attempts))
		last = e
	}
	payload := buf[start+chunkHead:]
	binary.BigEndian.PutUint32(buf[start:], uint32(len(payload)))
	binary.BigEndian.PutUint32(buf[start+4:], chunkCRC(seq, pos, payload))
	return buf, n
}

// appendHeader appends the header of a run.
func appendHeader(buf []byte) []byte {
	start := len(buf)
	buf = append(buf, runMagic...)
	buf = binary.BigEndian.AppendUint32(buf, runVersion)
	return binary.BigEndian.AppendUint32(buf, crc32.Checksum(buf[start:], castagnoli))
}

// checkHeader reads the header of a run, and that it has the right size.
func checkHeader(fs vfs.FS, name string, size int64) (err error) {
	f, err := fs.Open(name)
	if err != nil {
		return fault.Wrap(fault.Storage, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if n, err := f.Size(); err != nil {
		return fault.Wrap(fault.Storage, err)
	} else if n != size {
		return fault.New(fault.Corrupt, "%d bytes instead of %d", n, size)
	}
	var header [headerSize]byte
	if _, err := f.ReadAt(header[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return fault.Wrap(fault.Storage, err)
	}
	if string(header[:8]) != runMagic || crc32.Checksum(header[:12], castagnoli) != binary.BigEndian.Uint32(header[12:]) {
		return fault.New(fault.Corrupt, "header is damaged")
	}
	if v := binary.BigEndian.Uint32(header[8:]); v != runVersion {
		return fault.New(fault.Unsupported, "format version %d is not known", v)
	}
	return nil
}

// base is the name of a run in its folder.
func (s *Set) base(seq uint64) string { return fmt.Sprintf("%s-%016x%s", s.prefix, seq, runSuffix) }

// path is the whole name of a run.
func (s *Set) path(seq uint64) string { return path.Join(s.dir, s.base(seq)) }

// isRun reports whether a name in the folder is a run's, or that of one which
// was not finished.
func isRun(name string) bool {
	return strings.HasSuffix(strings.TrimSuffix(name, vfs.TempSuffix), runSuffix)
}

// runQueue is a heap of runs by their next entry.
type runQueue []*run

func (q runQueue) Len() int { return len(q) }

func (q runQueue) Less(i, j int) bool {
	a, b := q[i], q[j]
	if a.head.DueNs != b.head.DueNs || a.head.Offset != b.head.Offset {
		return a.head.before(b.head)
	}
	return a.seq < b.seq
}

func (q runQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *runQueue) Push(x any)   { *q = append(*q, x.(*run)) }

func (q *runQueue) Pop() any {
	last := len(*q) - 1
	r := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return r
}
