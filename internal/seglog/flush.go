package seglog

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"

	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/vfs"
)

// flush moves batches from the head of the tail to the last segment: those with
// a Raft index up to index, at least one and about maxBytes. What is not
// needed any more leaves the tail without being written. It reports how many
// bytes of the tail went. Flusher only.
func (l *Log) flush(index uint64, maxBytes int64) (moved int64, err error) {
	s := l.store
	if s.failed != nil {
		return 0, s.failed
	}
	for moved < maxBytes {
		batches, bytes := l.takeTail(index, min(maxBytes-moved, flushChunk))
		if len(batches) == 0 {
			return moved, nil
		}
		if err := l.write(batches); err != nil {
			return moved, err
		}
		l.dropTail(batches[len(batches)-1].Last())
		clear(batches)
		moved += bytes
	}
	return moved, nil
}

// takeTail copies the head of the tail into the store's scratch space.
func (l *Log) takeTail(index uint64, maxBytes int64) (batches []Batch, bytes int64) {
	batches = l.store.scratch[:0]
	l.mu.Lock()
	for _, b := range l.tail.live() {
		if b.Index > index || bytes >= maxBytes {
			break
		}
		batches = append(batches, b)
		bytes += b.cost()
	}
	l.mu.Unlock()
	l.store.scratch = batches[:0]
	return batches, bytes
}

// run is a stretch of frames on its way into one segment. Large batches are
// written from the memory that they stand in; what stands between them, and
// small ones, are gathered in buf.
type run struct {
	seg    *segment
	handle *handle
	vector vfs.VectorWriter // nil: the file has none, all is gathered
	buf    []byte
	cuts   []cut
	size   int   // bytes of buf and cuts
	pos    int64 // of the first of them in the file
	index  *index
	first  frame
	last   frame
	frames int
	pieces [][]byte // scratch of put
}

// cut is memory that is written in the middle of run.buf.
type cut struct {
	at   int
	data []byte
}

// set has the run go on in a segment.
func (r *run) set(g *segment, h *handle, pos int64, x *index) {
	r.seg, r.handle, r.pos, r.index, r.frames = g, h, pos, x, 0
	r.vector, _ = h.file.(vfs.VectorWriter)
}

// reset keeps the memory of the run and nothing else.
func (r *run) reset() {
	r.empty()
	if cap(r.buf) > 2*flushChunk {
		r.buf = nil
	}
	*r = run{buf: r.buf, cuts: r.cuts, pieces: r.pieces}
}

// empty forgets what is gathered.
func (r *run) empty() {
	clear(r.cuts)
	r.buf, r.cuts, r.size, r.frames = r.buf[:0], r.cuts[:0], 0, 0
}

// put writes what is gathered.
func (r *run) put() error {
	if len(r.cuts) == 0 {
		_, err := r.handle.file.WriteAt(r.buf, r.pos)
		return err
	}
	pieces, from := r.pieces[:0], 0
	for _, c := range r.cuts {
		pieces = append(pieces, r.buf[from:c.at], c.data)
		from = c.at
	}
	pieces = append(pieces, r.buf[from:])
	_, err := r.vector.WriteVectorAt(pieces, r.pos)
	clear(pieces)
	r.pieces = pieces[:0]
	return err
}

// write puts batches into the last segment, or new ones.
func (l *Log) write(batches []Batch) error {
	r := &l.store.run
	defer func() {
		if r.handle != nil {
			l.store.files.release(r.handle)
		}
		r.reset()
	}()
	for i := range batches {
		b := &batches[i]
		if !l.needed(b.Base, b.Last()) {
			continue
		}
		if err := l.makeRoom(r, b); err != nil {
			return err
		}
		r.add(l.seed, b)
	}
	return l.writeOut(r)
}

func (r *run) add(seed uint32, b *Batch) {
	f := frame{
		pos: r.pos + int64(r.size), size: len(b.Data), base: b.Base, count: b.Count,
		epoch: b.Epoch, index: b.Index, timeNs: b.TimeNs,
	}
	if records := b.Data[record.HeaderSize:]; r.vector != nil && len(records) >= vectorWorth {
		r.buf = appendFrameHead(r.buf, seed, b)
		r.cuts = append(r.cuts, cut{at: len(r.buf), data: records})
	} else {
		r.buf = appendFrame(r.buf, seed, b)
	}
	r.size += prefixSize + len(b.Data)
	r.index = r.index.with(&f)
	if r.frames == 0 {
		r.first = f
	}
	r.last = f
	r.frames++
}

// makeRoom sees to it that the run stands in a segment which takes the batch.
func (l *Log) makeRoom(r *run, b *Batch) error {
	size := int64(prefixSize + len(b.Data))
	if r.seg == nil {
		if err := l.resume(r); err != nil {
			return err
		}
	}
	if r.seg != nil {
		at := r.pos + int64(r.size)
		if at <= headerSize || at+size <= l.store.o.SegmentSize {
			return nil
		}
		if err := l.writeOut(r); err != nil {
			return err
		}
		if err := l.seal(r); err != nil {
			return err
		}
	}
	return l.create(r, b.Base, 0)
}

// resume sets the run on the log's last segment, if that can be written.
func (l *Log) resume(r *run) error {
	if len(l.segs) == 0 || l.segs[len(l.segs)-1].sealed {
		return nil
	}
	g := l.segs[len(l.segs)-1]
	h, err := l.store.files.acquire(l, g, false)
	if err == nil && g.cut {
		err = l.cutBack(g, h)
	}
	if err == nil {
		if _, err = l.indexOf(h, viewOf(g)); err == nil {
			r.set(g, h, g.size, g.index.Load())
			return nil
		}
	}
	l.store.files.release(h)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errShort) {
		// Readers report the loss. New batches go where nothing is missing.
		l.store.log.Warn("segment is damaged; beginning another", "file", l.path(g), "error", err)
		l.mu.Lock()
		g.sealed = true
		l.mu.Unlock()
		return nil
	}
	return fmt.Errorf("resume segment: %w", err)
}

var errShort = errors.New("file is shorter than its checkpoint says")

// cutBack takes away what was written after the checkpoint that the log was
// restored from.
func (l *Log) cutBack(g *segment, h *handle) error {
	size, err := h.file.Size()
	if err != nil {
		return err
	}
	if size < g.size {
		return errShort
	}
	if size > g.size {
		if err := h.file.Truncate(g.size); err != nil {
			return err
		}
	}
	g.cut = false
	return nil
}

// create sets the run on a new file. It joins the log with its first frame.
func (l *Log) create(r *run, first int64, gen uint32) error {
	s := l.store
	if r.handle != nil {
		s.files.release(r.handle)
	}
	r.seg, r.handle = nil, nil
	if err := s.fs.MkdirAll(l.dir()); err != nil {
		return fmt.Errorf("create segment: %w", err)
	}
	g := &segment{first: first, gen: gen, last: first - 1, firstIndex: math.MaxUint64}
	file, err := s.fs.Create(l.path(g))
	if err != nil {
		return fmt.Errorf("create segment: %w", err)
	}
	l.newNames, l.namedAt = true, l.store.wholes
	if l.newDirs {
		l.unlisted = true // a crash may have left files here
	}
	r.empty()
	r.set(g, s.files.adopt(g, l.path(g), file), 0, &index{})
	r.buf = appendHeader(r.buf, l.id, first, gen)
	r.size = len(r.buf)
	return nil
}

// writeOut writes what the run has gathered and shows it to readers; the
// batches leave the tail in the same moment.
func (l *Log) writeOut(r *run) error {
	if r.frames == 0 {
		return nil
	}
	if err := r.put(); err != nil {
		_ = r.handle.file.Truncate(r.pos) // a torn write must not look like damage
		if r.pos == 0 {
			l.store.files.forget(r.seg)          // never joined the log
			_ = l.store.fs.Remove(l.path(r.seg)) // else the next Published finds it
			l.unlisted = true
		}
		return fmt.Errorf("write segment: %w", err)
	}
	n := int64(r.size)
	l.store.counts.flushes.Add(1)
	l.store.counts.flushedBytes.Add(n)
	l.commit(r, n)
	r.pos += n
	r.empty()
	return l.store.wrote(r.handle, n)
}

// commit makes the run's frames part of the log.
func (l *Log) commit(r *run, n int64) {
	g := r.seg
	g.index.Store(r.index)
	l.mu.Lock()
	if g.size == 0 {
		l.segs = append(l.segs, g)
		l.store.counts.segments.Add(1)
	}
	g.size += n
	g.last = r.last.last()
	g.firstIndex = min(g.firstIndex, r.first.index)
	g.lastIndex, g.lastNs = r.last.index, r.last.timeNs
	bytes := l.tail.dropTo(g.last)
	l.mu.Unlock()
	l.fileBytes.Add(n)
	l.store.tailBytes.Add(-bytes)
}

// seal writes the sparse index behind the run's segment and ends it.
func (l *Log) seal(r *run) error {
	g := r.seg
	footer := r.index.appendFooter(nil, l.seed, g.size)
	if _, err := r.handle.file.WriteAt(footer, g.size); err != nil {
		return fmt.Errorf("seal segment: %w", err)
	}
	r.handle.index.Store(r.index)
	l.mu.Lock()
	g.sealed = true
	l.mu.Unlock()
	g.index.Store(nil)
	l.store.counts.sealed.Add(1)
	return l.store.wrote(r.handle, int64(len(footer)))
}

// wrote notes that a file has bytes to sync, and syncs when there are many.
func (s *Store) wrote(h *handle, n int64) error {
	g := h.seg
	if !g.dirty { // first: whatever fails below, the bytes are not synced
		g.dirty = true
		s.files.hold(h)
		s.dirty = append(s.dirty, h)
		if err := s.openVolume(); err != nil {
			return err
		}
	}
	g.unsynced += n
	if g.unsynced >= syncBytesMax {
		return s.sync(g)
	}
	switch {
	case len(s.dirty) <= s.dirtyMax():
		return nil
	case s.volume != nil:
		return s.syncWhole()
	}
	return s.sync(s.dirty[0].seg)
}

// sync makes the bytes of a segment durable if they are not.
func (s *Store) sync(g *segment) error {
	if !g.dirty {
		return s.failed
	}
	for i, h := range s.dirty {
		if h.seg != g {
			continue
		}
		copy(s.dirty[i:], s.dirty[i+1:])
		s.dirty[len(s.dirty)-1] = nil
		s.dirty = s.dirty[:len(s.dirty)-1]
		g.dirty, g.unsynced = false, 0
		var err error
		if !g.dead.Load() {
			s.counts.syncs.Add(1)
			err = h.file.SyncData()
		}
		s.files.synced(h)
		return s.fail("sync segment", err)
	}
	return s.failed
}

// fail remembers a failed sync for good: the kernel may have dropped the bytes,
// and a second sync would lie. See vfs.SyncError.
func (s *Store) fail(what string, err error) error {
	if err != nil && s.failed == nil {
		s.failed = fmt.Errorf("%s: %w", what, vfs.SyncError(err))
	}
	return s.failed
}

// syncNames makes the names of the log's files durable, and its folder's.
func (l *Log) syncNames() error {
	s := l.store
	if !l.namesWait() {
		if len(l.segs) > 0 {
			l.newDirs = false
		}
		l.newNames = false
		return nil
	}
	if l.newNames {
		s.counts.syncs.Add(1)
		if err := s.fail("sync log folder", s.fs.SyncDir(l.dir())); err != nil {
			return err
		}
		l.newNames = false
	}
	if l.newDirs && len(l.segs) > 0 {
		for _, dir := range []string{path.Dir(l.dir()), s.dir, path.Dir(s.dir)} {
			s.counts.syncs.Add(1)
			if err := s.fail("sync topics folder", s.fs.SyncDir(dir)); err != nil {
				return err
			}
		}
		l.newDirs = false
	}
	return nil
}
