package nsqdata

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// Queue is a queue on disk, from where it was read to.
type Queue struct {
	Name string // TOPIC or TOPIC:CHANNEL

	dir   string
	meta  string // name of the file that tells positions; empty: there is none
	files []file // what is left to read, by number
	pos   int64  // in the first of them
	depth int64  // messages left, as nsqd has counted them
	notes []Note
}

// about is how many messages are left, about.
func (q *Queue) about() int {
	return int(min(max(q.depth, 0), q.Bytes()/(4+recordMin)))
}

// file is a part of a queue. What is behind its size is not looked at.
type file struct {
	number int64
	name   string
	size   int64
}

// Files is how many files have something left to read.
func (q *Queue) Files() (n int) {
	for i, f := range q.files {
		if i > 0 && f.size > 0 || i == 0 && f.size > q.pos {
			n++
		}
	}
	return n
}

// Bytes is how many bytes are left to read.
func (q *Queue) Bytes() int64 {
	n := -q.pos
	for _, f := range q.files {
		n += f.size
	}
	return n
}

// place finds out where the queue was read to. What is behind the place to which it
// was written, as the meta file has it, was written before nsqd was killed: nsqd
// reads it too.
func (q *Queue) place() error {
	slices.SortFunc(q.files, func(a, b file) int { return int(min(max(a.number-b.number, -1), 1)) })
	number, pos, err := q.position()
	if err != nil {
		return err
	}
	q.files = slices.DeleteFunc(q.files, func(f file) bool { return f.number < number })
	if len(q.files) == 0 {
		return nil
	}
	first := &q.files[0]
	switch {
	case first.number > number: // read to its end and removed, before the positions were written
	case pos > first.size:
		q.note(first.name, true, fmt.Sprintf("ends at %d, and was read to %d by its positions", first.size, pos))
		q.pos = first.size
	default:
		q.pos = pos
	}
	for i := 1; i < len(q.files); i++ {
		if missing := q.files[i].number - q.files[i-1].number - 1; missing > 0 {
			q.note(q.files[i].name, true, fmt.Sprintf("%d files before it are missing", missing))
		}
	}
	return nil
}

// position reads the meta file.
func (q *Queue) position() (number, pos int64, err error) {
	if q.meta == "" {
		if len(q.files) > 0 {
			q.note(q.files[0].name, false, "nothing says how far it was read: it is read from its beginning")
		}
		return 0, 0, nil
	}
	text, err := os.ReadFile(filepath.Join(q.dir, q.meta))
	if err != nil {
		return 0, 0, err
	}
	var writeNumber, writePos int64
	if _, err := fmt.Sscanf(string(text), "%d\n%d,%d\n%d,%d\n", &q.depth, &number, &pos, &writeNumber, &writePos); err != nil || number < 0 || pos < 0 {
		q.note(q.meta, true, "can't be read: the queue is read from its beginning, and may hold what was read before")
		return 0, 0, nil
	}
	if n := len(q.files); n > 0 && q.files[n-1].number == writeNumber && q.files[n-1].size < writePos {
		q.note(q.files[n-1].name, true, fmt.Sprintf("ends at %d, and was written to %d by its positions", q.files[n-1].size, writePos))
	}
	return number, pos, nil
}

func (q *Queue) note(file string, damage bool, text string) {
	q.notes = append(q.notes, Note{File: file, Text: text, Damage: damage})
}

// Record is a message as nsqd keeps it.
type Record struct {
	Timestamp int64  // unix ns, when it was published
	Attempts  uint16 // deliveries so far
	ID        [16]byte
	Body      []byte // valid until the next record is read
	raw       []byte // all of it
}

// recordMin is the size of a record with an empty body, bytes.
const recordMin = 8 + 2 + 16

// reader reads a queue from where nsqd would go on.
type reader struct {
	q     *Queue
	at    int // of q.files
	pos   int64
	open  *os.File
	buf   *bufio.Reader
	body  []byte
	notes []Note // what it could not read
	err   error
}

// readBuffer is how much of a file is read at once, bytes; a topic has as many
// readers as channels.
const readBuffer = 64 << 10

func (q *Queue) reader() *reader { return &reader{q: q, pos: q.pos} }

// next reads a record; false at the end, or with err.
func (r *reader) next(rec *Record) bool {
	for r.err == nil && r.at < len(r.q.files) {
		f := &r.q.files[r.at]
		if r.pos >= f.size {
			r.leave()
			continue
		}
		if r.open == nil && !r.enter(f) {
			return false
		}
		size, ok := r.size(f)
		if r.err != nil {
			return false
		}
		if !ok {
			r.leave()
			continue
		}
		r.body = slices.Grow(r.body[:0], size)[:size]
		if _, r.err = io.ReadFull(r.buf, r.body); r.err != nil {
			return false
		}
		r.pos += 4 + int64(size)
		rec.raw = r.body
		rec.Timestamp = int64(binary.BigEndian.Uint64(r.body))
		rec.Attempts = binary.BigEndian.Uint16(r.body[8:])
		copy(rec.ID[:], r.body[10:])
		rec.Body = r.body[recordMin:]
		return true
	}
	return false
}

// enter opens a file at the position.
func (r *reader) enter(f *file) bool {
	r.open, r.err = os.Open(filepath.Join(r.q.dir, f.name))
	if r.err != nil {
		return false
	}
	if _, r.err = r.open.Seek(r.pos, io.SeekStart); r.err != nil {
		return false
	}
	if r.buf == nil {
		r.buf = bufio.NewReaderSize(nil, readBuffer)
	}
	r.buf.Reset(r.open)
	return true
}

// size reads how long the record at the position is; false when there is no whole
// one: nothing that stands behind it in this file can be found.
func (r *reader) size(f *file) (int, bool) {
	left := f.size - r.pos
	var b [4]byte
	n := int64(math.MaxInt32)
	if left >= 4 {
		if _, r.err = io.ReadFull(r.buf, b[:]); r.err != nil {
			return 0, false
		}
		n = int64(int32(binary.BigEndian.Uint32(b[:])))
	}
	switch {
	case n < recordMin:
		r.note(f, fmt.Sprintf("at byte %d there is no record: the %d bytes from there on can't be read", r.pos, left))
	case n > left-4:
		r.note(f, fmt.Sprintf("ends within the record at byte %d: its %d bytes are left out", r.pos, left))
	default:
		return int(n), true
	}
	return 0, false
}

func (r *reader) note(f *file, text string) {
	r.notes = append(r.notes, Note{File: f.name, Text: text, Damage: true})
}

// leave goes on with the next file.
func (r *reader) leave() {
	r.close()
	r.at++
	r.pos = 0
}

func (r *reader) close() {
	if r.open != nil {
		r.err = errors.Join(r.err, r.open.Close())
		r.open = nil
	}
}
