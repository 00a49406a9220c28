package seglog

import (
	"fmt"
	"time"
)

const (
	compactAge   = 10 * time.Minute // of a segment's youngest batch
	compactPause = time.Minute      // between two looks at a log
	compactRetry = 10 * time.Minute // after a segment turned out not to be worth it
	compactChunk = 256 << 10        // bytes in one write
	compactProbe = 64               // ranges of a segment that are asked for in the estimate
)

// Compact rewrites sealed segments of which less than half is live, with their
// live batches only: one segment and its small neighbours per call, reporting
// whether it did something. Segments whose youngest batch is younger than ten
// minutes are left alone, and so are damaged ones. live says whether a message
// in a range of offsets is still needed; it may say yes too often, never no too
// often, and is called with no lock held. Afterwards the log has holes. Flusher
// only.
func (l *Log) Compact(now time.Time, live func(first, last int64) bool) (bool, error) {
	t := now.UnixNano()
	if l.store.failed != nil || t < l.lookNs {
		return false, l.store.failed
	}
	l.release()
	for i, g := range l.segs {
		ok, err := l.worthCompacting(g, t, live)
		if err != nil {
			return false, fmt.Errorf("compact log %v: %w", l.id, err)
		}
		if !ok {
			continue
		}
		from, to := l.neighbours(i, t)
		if err := l.rewrite(from, to, t, live); err != nil {
			return false, fmt.Errorf("compact log %v: %w", l.id, err)
		}
		return true, nil
	}
	l.lookNs = t + int64(compactPause)
	return false, nil
}

// settled says that a segment takes no more batches and is old enough.
func settled(g *segment, now int64) bool {
	return g.sealed && now-g.lastNs >= int64(compactAge) && now >= g.tryNs
}

// worthCompacting asks first for an estimate by offsets, which costs no I/O,
// and only then measures the batches.
func (l *Log) worthCompacting(g *segment, now int64, live func(first, last int64) bool) (bool, error) {
	if !settled(g, now) || estimate(g, live) > compactProbe/2 {
		return false, nil
	}
	bytes, whole, err := l.measure(g, live)
	if err != nil {
		return false, err
	}
	if !whole || 2*bytes >= g.size-headerSize {
		g.tryNs = now + int64(compactRetry)
		return false, nil
	}
	return true, nil
}

// estimate is how many of compactProbe equal ranges of offsets are live.
func estimate(g *segment, live func(first, last int64) bool) (n int64) {
	span := g.last - g.first + 1
	for i := range min(int64(compactProbe), span) {
		first, last := g.first+span*i/compactProbe, g.first+span*(i+1)/compactProbe-1
		if span < compactProbe {
			first, last = g.first+i, g.first+i
		}
		if live(first, last) {
			n++
		}
	}
	if span < compactProbe {
		return n * compactProbe / span
	}
	return n
}

// measure sums up the frames with live batches; whole is false when there is
// damage.
func (l *Log) measure(g *segment, live func(first, last int64) bool) (bytes int64, whole bool, err error) {
	h, err := l.store.files.acquire(l, g, g.sealed)
	defer l.store.files.release(h)
	if err != nil {
		return 0, false, ignoreMissing(err)
	}
	w := walk(h.file, l.seed, viewOf(g), mark{}, false)
	defer w.free()
	for {
		it, ok, err := w.next()
		if err != nil || !ok || it.damaged {
			return bytes, err == nil && !it.damaged, err
		}
		if live(it.base, it.last()) {
			bytes += it.end - it.pos
		}
	}
}

// neighbours widens a segment to the small settled ones beside it, so that
// compaction does not leave a trail of tiny files.
func (l *Log) neighbours(i int, now int64) (from, to int) {
	small := l.store.o.SegmentSize / 8
	from, to = i, i+1
	for from > 0 && settled(l.segs[from-1], now) && l.segs[from-1].size <= small {
		from--
	}
	for to < len(l.segs) && settled(l.segs[to], now) && l.segs[to].size <= small {
		to++
	}
	if to-from > compactProbe {
		from, to = i, i+1
	}
	return from, to
}

// rewrite copies the live batches of segments [from, to) into one that takes
// their place.
func (l *Log) rewrite(from, to int, now int64, live func(first, last int64) bool) error {
	old := l.segs[from:to]
	c := &copier{log: l, live: live, seg: &segment{first: old[0].first, gen: old[0].gen + 1, last: old[len(old)-1].last}}
	err := c.run(old)
	if c.handle != nil {
		defer l.store.files.release(c.handle)
	}
	if err != nil {
		l.store.files.forget(c.seg)
		c.seg.dead.Store(true)
		_ = l.store.sync(c.seg)              // only lets go of the file
		_ = l.store.fs.Remove(l.path(c.seg)) // else the next listing finds it
		for _, g := range old {
			g.tryNs = now + int64(compactRetry)
		}
		if c.damaged {
			return nil // readers report it
		}
		return err
	}
	segs := append(make([]*segment, 0, len(l.segs)), l.segs[:from]...)
	before := int64(0)
	for _, g := range old {
		before += g.size
	}
	if c.index != nil {
		segs = append(segs, c.seg)
		l.fileBytes.Add(c.seg.size)
		l.store.counts.segments.Add(1)
		l.store.counts.keptBytes.Add(c.seg.size)
	}
	l.replace(append(segs, l.segs[to:]...))
	l.store.counts.compactions.Add(1)
	l.store.counts.compactedBytes.Add(before)
	return nil
}

// copier writes the result of a compaction. Nobody reads it before it is
// sealed and in the log.
type copier struct {
	log     *Log
	live    func(first, last int64) bool
	seg     *segment
	handle  *handle
	index   *index
	buf     []byte
	damaged bool
}

func (c *copier) run(old []*segment) error {
	for _, g := range old {
		if err := c.copy(g); err != nil {
			return err
		}
	}
	return c.finish()
}

// finish writes what is left, and the index, if there is anything.
func (c *copier) finish() error {
	if c.index == nil {
		return nil // nothing is live
	}
	if err := c.writeOut(); err != nil {
		return err
	}
	size := c.seg.size
	c.buf = c.index.appendFooter(c.buf, c.log.seed, size)
	err := c.writeOut()
	c.seg.size, c.seg.sealed = size, true
	return err
}

// pos is where the next frame goes.
func (c *copier) pos() int64 { return c.seg.size + int64(len(c.buf)) }

func (c *copier) copy(g *segment) error {
	files := c.log.store.files
	h, err := files.acquire(c.log, g, g.sealed)
	defer files.release(h)
	if err != nil {
		return fmt.Errorf("open segment: %w", err)
	}
	w := walk(h.file, c.log.seed, viewOf(g), mark{}, false)
	defer w.free()
	for {
		it, ok, err := w.next()
		switch {
		case err != nil:
			return fmt.Errorf("read segment: %w", err)
		case !ok:
			return nil
		case it.damaged:
			return c.spoilt(g)
		case !c.live(it.base, it.last()):
			continue
		}
		b, err := w.peek(it.pos, prefixSize+it.size)
		if err != nil {
			return fmt.Errorf("read segment: %w", err)
		}
		if len(b) < prefixSize+it.size || !intact(b[prefixSize:]) {
			return c.spoilt(g)
		}
		if err := c.add(&it.frame, b); err != nil {
			return err
		}
	}
}

func (c *copier) spoilt(g *segment) error {
	c.damaged = true
	return fmt.Errorf("segment %s is damaged", c.log.path(g))
}

// add takes one frame, prefix included.
func (c *copier) add(f *frame, b []byte) error {
	if c.index == nil {
		if err := c.create(); err != nil {
			return err
		}
		c.seg.firstIndex = f.index
	}
	moved := *f
	moved.pos = c.pos()
	c.index = c.index.with(&moved)
	c.seg.lastIndex, c.seg.lastNs = f.index, f.timeNs
	c.buf = append(c.buf, b...)
	if len(c.buf) < compactChunk {
		return nil
	}
	return c.writeOut()
}

func (c *copier) create() error {
	l, g := c.log, c.seg
	file, err := l.store.fs.Create(l.path(g))
	if err != nil {
		return fmt.Errorf("create segment: %w", err)
	}
	l.newNames, l.namedAt = true, l.store.wholes
	c.handle = l.store.files.adopt(g, l.path(g), file)
	c.index = &index{}
	c.buf = appendHeader(make([]byte, 0, compactChunk+flushWorth), l.id, g.first, g.gen)
	return nil
}

func (c *copier) writeOut() error {
	if len(c.buf) == 0 {
		return nil
	}
	if _, err := c.handle.file.WriteAt(c.buf, c.seg.size); err != nil {
		return fmt.Errorf("write segment: %w", err)
	}
	n := int64(len(c.buf))
	c.seg.size += n
	c.buf = c.buf[:0]
	return c.log.store.wrote(c.handle, n)
}
