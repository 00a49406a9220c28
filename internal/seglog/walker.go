package seglog

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"sync"

	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/vfs"
)

// walkBuffer is how much a walker reads at a time.
const walkBuffer = 64 << 10

// walker goes through the frames of a segment, from prefix to prefix, and over
// damage to the next prefix that is whole. It looks at bodies only when asked.
type walker struct {
	file  vfs.File
	seed  uint32
	pos   int64 // of the next frame
	limit int64 // behind the last frame

	expect int64 // no frame from here on has a lower offset
	last   int64 // none has a higher one

	buf   []byte // bytes [start, start+len)
	start int64
}

// walkers are kept for their buffers.
var walkers = sync.Pool{New: func() any { return new(walker) }}

// free gives the walker back; nothing it returned may be used any more.
func (w *walker) free() {
	if cap(w.buf) > walkBuffer {
		w.buf = nil
	}
	w.file = nil
	walkers.Put(w)
}

// item is a frame, or a stretch of damage.
type item struct {
	frame
	end     int64 // position behind it
	damaged bool  // the frame is unreadable …
	from    int64 // … and these are the offsets that may be lost, possibly
	to      int64 //   none (from > to)
}

// walk begins at a mark, or at the first frame when there is none.
func walk(file vfs.File, seed uint32, g view, m mark, found bool) *walker {
	w := walkers.Get().(*walker)
	*w = walker{file: file, seed: seed, pos: headerSize, limit: g.size, expect: g.first, last: g.last, buf: w.buf[:0]}
	if found {
		w.pos, w.expect = m.pos, m.offset
	}
	return w
}

// next is the next frame or stretch of damage; false behind the last.
func (w *walker) next() (item, bool, error) {
	if w.pos >= w.limit {
		return item{}, false, nil
	}
	b, err := w.peek(w.pos, coverEnd)
	if err != nil {
		return item{}, false, err
	}
	if len(b) >= coverEnd {
		if f, ok := parseFrame(b, w.seed, w.pos); ok && w.fits(&f) {
			w.pos, w.expect = f.next(), f.last()+1
			return item{frame: f, end: f.next()}, true, nil
		}
	}
	return w.resync()
}

func (w *walker) fits(f *frame) bool {
	return f.base >= w.expect && f.last() <= w.last && f.next() <= w.limit
}

// resync looks for the next whole prefix behind pos, byte by byte.
func (w *walker) resync() (item, bool, error) {
	it := item{damaged: true, from: w.expect, to: w.last, end: w.limit}
	it.pos = w.pos
	for at := w.pos + 1; at < w.limit; {
		b, err := w.peek(at, walkBuffer)
		if err != nil {
			return item{}, false, err
		}
		if len(b) < coverEnd {
			break
		}
		if i, f := w.search(b, at); i >= 0 {
			it.end, it.to = at+int64(i), f.base-1
			w.pos, w.expect = it.end, f.base
			return it, true, nil
		}
		at += int64(len(b) - coverEnd + 1)
	}
	w.pos = w.limit
	return it, true, nil
}

// search finds the first whole prefix in b, which stands at position pos.
func (w *walker) search(b []byte, pos int64) (int, frame) {
	for i := 0; i+coverEnd <= len(b); i++ {
		if b[i+prefixSize+16] != batchMagic {
			continue
		}
		length := int64(int32(binary.BigEndian.Uint32(b[i+prefixSize+8:])))
		if length < record.HeaderSize-lengthBase || pos+int64(i)+prefixSize+lengthBase+length > w.limit {
			continue
		}
		if f, ok := parseFrame(b[i:], w.seed, pos+int64(i)); ok && w.fits(&f) {
			return i, f
		}
	}
	return -1, frame{}
}

// peek returns n bytes at pos, fewer at the end.
func (w *walker) peek(pos int64, n int) ([]byte, error) {
	n = int(min(int64(n), w.limit-pos))
	if i := pos - w.start; i >= 0 && i+int64(n) <= int64(len(w.buf)) {
		return w.buf[i : i+int64(n)], nil
	}
	size := int(min(int64(max(n, walkBuffer)), w.limit-pos))
	if cap(w.buf) < size {
		w.buf = make([]byte, max(size, walkBuffer))
	}
	got, err := readFull(w.file, w.buf[:size], pos)
	w.buf, w.start = w.buf[:got], pos
	if err != nil {
		return nil, err
	}
	return w.buf[:min(n, got)], nil
}

// body returns the batch of a frame that next has just returned, nil when the
// file ends before it does. It is good until the next call.
func (w *walker) body(f *frame) ([]byte, error) {
	b, err := w.peek(f.pos+prefixSize, f.size)
	if len(b) < f.size {
		return nil, err
	}
	return b, err
}

// readFull reads len(b) bytes at pos, fewer at the end of the file.
func readFull(file vfs.File, b []byte, pos int64) (int, error) {
	n, err := file.ReadAt(b, pos)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// rebuild makes the sparse index of a segment by reading its prefixes.
func rebuild(file vfs.File, seed uint32, g view) (*index, error) {
	x := &index{}
	w := walk(file, seed, g, mark{}, false)
	defer w.free()
	for {
		it, ok, err := w.next()
		if err != nil || !ok {
			return x, err
		}
		if !it.damaged {
			x = x.with(&it.frame)
		}
	}
}

// anyOffset is the view of a file of which nothing is known but its size.
func anyOffset(size int64) view { return view{last: math.MaxInt64, size: size} }
