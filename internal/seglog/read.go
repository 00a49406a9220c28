package seglog

import (
	"errors"
	"fmt"
	"io/fs"
	"sort"
)

const (
	readChunkMin = 4 << 10
	readChunkMax = 256 << 10
	// readSpanMax is up to where a mark is taken for the end of one large batch.
	readSpanMax = 2 << 20
)

// view is what a reader knows of a segment: the fields that the flusher moves,
// as they were when the lock was held.
type view struct {
	seg         *segment
	first, last int64
	size        int64
	sealed      bool
}

// viewOf is called with mu held, or by the flusher.
func viewOf(g *segment) view {
	return view{seg: g, first: g.first, last: g.last, size: g.size, sealed: g.sealed}
}

// Read returns the batch that holds an offset, or the next one when it stands
// in none, and those that follow, as far as about maxBytes of Data go: at least
// one, fewer than fit where a file ends, none at the end of the log. Any
// goroutine.
//
// A *CorruptError names offsets whose batches are damaged; reading goes on at
// its Last+1. Other errors are the file system's.
func (l *Log) Read(offset int64, maxBytes int) ([]Batch, error) {
	return l.AppendRead(nil, offset, maxBytes)
}

// AppendRead is Read into a slice that the caller reuses. Batches of one call
// share their memory: one of them kept keeps up to 256 KiB, or the largest
// batch of the call if that is more.
func (l *Log) AppendRead(dst []Batch, offset int64, maxBytes int) ([]Batch, error) {
	dst, _, err := l.read(dst, offset, maxBytes, nil)
	return dst, err
}

// ReadChunk is AppendRead into memory that is used again: the Data of what it
// appends must not be looked at after the last Release of the chunk. The caller
// holds one reference. The chunk is nil when the bytes stay as long as they are
// referred to, and when nothing was appended.
func (l *Log) ReadChunk(dst []Batch, offset int64, maxBytes int) ([]Batch, *Chunk, error) {
	return l.read(dst, offset, maxBytes, l.store.chunks)
}

// read is ReadChunk; without a pool the bytes are the caller's for good.
func (l *Log) read(dst []Batch, offset int64, maxBytes int, pool *ChunkPool) ([]Batch, *Chunk, error) {
	for {
		n := len(dst)
		l.mu.Lock()
		v, found := l.locate(offset)
		if !found {
			dst = l.readTail(dst, offset, maxBytes)
		}
		l.mu.Unlock()
		if !found {
			if len(dst) > n {
				l.store.counts.tailReads.Add(1)
			}
			return dst, nil, nil
		}
		r := reading{log: l, view: v, pool: pool}
		dst, err := r.segment(dst, offset, maxBytes)
		if len(dst) > n {
			return dst, r.chunk, err
		}
		r.chunk.Release()
		if err == nil {
			offset = v.last + 1
		} else if !v.seg.dead.Load() { // else: removed meanwhile; what replaced it is in the list
			return dst, nil, err
		}
	}
}

// locate finds the segment that holds an offset or comes next; none when it is
// the tail's turn. The caller holds mu.
func (l *Log) locate(offset int64) (view, bool) {
	if l.dropped {
		return view{}, false
	}
	i := sort.Search(len(l.segs), func(i int) bool { return l.segs[i].last >= offset })
	if i == len(l.segs) {
		return view{}, false
	}
	return viewOf(l.segs[i]), true
}

// readTail copies batches of the tail. The caller holds mu.
func (l *Log) readTail(dst []Batch, offset int64, maxBytes int) []Batch {
	n := len(dst)
	for _, b := range l.tail.live()[l.tail.find(offset):] {
		if maxBytes -= len(b.Data); maxBytes < 0 && len(dst) > n {
			break
		}
		dst = append(dst, b)
	}
	return dst
}

// reading is one read of a segment file.
type reading struct {
	log    *Log
	view   view
	handle *handle
	pool   *ChunkPool // nil: into memory of its own
	chunk  *Chunk
}

// segment reads from one file; nothing when only a hole follows.
func (r *reading) segment(dst []Batch, offset int64, maxBytes int) ([]Batch, error) {
	l, v := r.log, r.view
	h, err := l.store.files.acquire(l, v.seg, v.sealed)
	defer l.store.files.release(h)
	r.handle = h
	if errors.Is(err, fs.ErrNotExist) {
		return dst, l.corrupt(v, h, 0, max(offset, v.first), v.last, "file is missing")
	}
	if err != nil {
		return dst, fmt.Errorf("open segment: %w", err)
	}
	pos, hinted := h.hints.take(offset)
	if !hinted {
		if pos, err = l.seek(h, v, offset); err != nil {
			return dst, err
		}
	}
	if pos >= v.size {
		return dst, nil
	}
	return r.frames(dst, offset, pos, maxBytes)
}

// seek finds the position of the first frame that ends at or after an offset.
func (l *Log) seek(h *handle, v view, offset int64) (int64, error) {
	x, err := l.indexOf(h, v)
	if err != nil {
		return 0, err
	}
	m, found := x.seek(offset)
	if found && m.offset == offset {
		return m.pos, nil
	}
	w := walk(h.file, l.seed, v, m, found)
	defer w.free()
	for {
		it, ok, err := w.next()
		switch {
		case err != nil:
			return 0, fmt.Errorf("read segment: %w", err)
		case !ok:
			return v.size, nil
		case it.damaged && it.to >= offset:
			return 0, l.corrupt(v, h, it.pos, it.from, it.to, "prefix checksum")
		case !it.damaged && it.last() >= offset:
			return it.pos, nil
		}
	}
}

// indexOf is the segment's sparse index, read or rebuilt when it is not there.
func (l *Log) indexOf(h *handle, v view) (*index, error) {
	if x := v.seg.index.Load(); x != nil {
		return x, nil
	}
	if x := h.index.Load(); x != nil {
		return x, nil
	}
	if v.sealed {
		if x, err := l.readFooter(h, v); x != nil || err != nil {
			return x, err
		}
	}
	x, err := rebuild(h.file, l.seed, v)
	if err != nil {
		return nil, fmt.Errorf("rebuild index: %w", err)
	}
	l.store.counts.indexes.Add(1)
	if v.sealed {
		h.index.Store(x)
		return x, nil
	}
	v.seg.index.CompareAndSwap(nil, x) // the flusher may have been first
	return x, nil
}

// readFooter is the sealed segment's index from its file, nil when it is not
// there or damaged.
func (l *Log) readFooter(h *handle, v view) (*index, error) {
	size, err := h.file.Size()
	if err != nil {
		return nil, fmt.Errorf("read footer: %w", err)
	}
	most := int64(footerFixed) + (v.size/markInterval+1)*markSize
	n := min(size-v.size, most)
	if n < footerFixed {
		return nil, nil
	}
	b := make([]byte, n)
	got, err := readFull(h.file, b, v.size)
	if err != nil {
		return nil, fmt.Errorf("read footer: %w", err)
	}
	x, ok := parseFooter(b[:got], l.seed, v.size)
	if !ok {
		return nil, nil
	}
	h.index.Store(x)
	return x, nil
}

// frames reads one chunk at pos and takes the whole batches in it.
func (r *reading) frames(dst []Batch, offset, pos int64, maxBytes int) ([]Batch, error) {
	l, h, v := r.log, r.handle, r.view
	n, expect := len(dst), offset
	span := r.span(pos, maxBytes)
	buf, err := r.load(pos, span)
	if span >= markInterval {
		maxBytes = span // it ends where a batch does: take all
	}
	for err == nil && pos < v.size && (maxBytes > 0 || len(dst) == n) {
		if len(buf) < coverEnd && len(dst) > n {
			break
		}
		f, ok := l.frameAt(buf, v, pos, expect)
		if !ok {
			err = l.damagedPrefix(h, v, pos, expect, len(dst) > n)
			break
		}
		end := prefixSize + f.size
		if len(dst) > n && (end > len(buf) || f.size > maxBytes) {
			break
		}
		if end > len(buf) {
			if buf, err = r.load(pos, end); err != nil {
				break
			}
		}
		if len(buf) < end || !intact(buf[prefixSize:end]) {
			if len(dst) == n {
				err = l.corrupt(v, h, pos, f.base, f.last(), "batch checksum")
				expect, pos = f.last()+1, f.next()
			}
			break
		}
		dst = append(dst, f.batch(buf[prefixSize:end:end]))
		maxBytes -= f.size
		expect, pos, buf = f.last()+1, f.next(), buf[end:]
	}
	if expect != offset {
		h.hints.put(expect, pos)
	}
	return dst, err
}

// span is how many bytes a read at the frame at pos should take: to the last
// mark within maxBytes, where a frame begins, so that no half batch is read; or
// to the first one behind, as the batch at pos is larger. Where the marks do
// not tell it is maxBytes, in bounds.
func (r *reading) span(pos int64, maxBytes int) int {
	n := min(max(maxBytes, readChunkMin), readChunkMax)
	x := r.view.seg.index.Load()
	if x == nil {
		x = r.handle.index.Load()
	}
	if x == nil || n < markInterval || r.view.size-pos <= int64(n) {
		return n
	}
	end := r.view.size
	i := sort.Search(len(x.marks), func(i int) bool { return x.marks[i].pos > pos+int64(n) })
	if i > 0 && x.marks[i-1].pos > pos {
		end = x.marks[i-1].pos
	} else if i < len(x.marks) {
		end = x.marks[i].pos
	}
	if end-pos > readSpanMax {
		return n
	}
	return int(end - pos)
}

// frameAt is the frame at the head of buf if it is the one that comes next.
func (l *Log) frameAt(buf []byte, v view, pos, expect int64) (frame, bool) {
	if len(buf) < coverEnd {
		return frame{}, false
	}
	f, ok := parseFrame(buf, l.seed, pos)
	return f, ok && f.last() >= expect && f.last() <= v.last && f.next() <= v.size
}

// damagedPrefix says how far the damage at pos goes. When the read has got
// something already it says nothing: the next read comes here again.
func (l *Log) damagedPrefix(h *handle, v view, pos, expect int64, some bool) error {
	if some {
		return nil
	}
	w := walk(h.file, l.seed, v, mark{offset: expect, pos: pos}, true)
	defer w.free()
	it, _, err := w.resync()
	if err != nil {
		return fmt.Errorf("read segment: %w", err)
	}
	return l.corrupt(v, h, pos, it.from, it.to, "prefix checksum")
}

// load reads up to n bytes at pos, fewer at the end of the segment or the file,
// in place of what it read before.
func (r *reading) load(pos int64, n int) ([]byte, error) {
	n = int(min(int64(n), r.view.size-pos))
	var b []byte
	if r.pool == nil {
		b = make([]byte, n)
	} else {
		r.chunk.Release()
		r.chunk = r.pool.Get(n)
		b = r.chunk.Bytes()
	}
	got, err := readFull(r.handle.file, b, pos)
	if err != nil {
		return nil, fmt.Errorf("read segment: %w", err)
	}
	c := &r.log.store.counts
	c.fileReads.Add(1)
	c.fileBytes.Add(int64(got))
	return b[:got], nil
}

func (l *Log) corrupt(v view, h *handle, pos, first, last int64, reason string) error {
	if v.seg.dead.Load() {
		return errDead
	}
	return l.store.corrupt(&CorruptError{ID: l.id, First: first, Last: last, File: h.path, Pos: pos, Reason: reason})
}

// errDead never leaves the package: the reader looks again.
var errDead = errors.New("segment left the log")
