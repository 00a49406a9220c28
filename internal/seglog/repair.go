package seglog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Range returns the batches from offset first to last that are needed, for the
// repair of another replica's log. It is an error when the log does not reach
// last yet, a *CorruptError when it is damaged there itself. Any goroutine.
func (l *Log) Range(first, last int64) ([]Batch, error) {
	if end := l.End(); last >= end {
		return nil, fmt.Errorf("read log %v to offset %d: it ends at %d", l.id, last, end)
	}
	var list []Batch
	for next := first; next <= last; {
		var err error
		n := len(list)
		if list, next, err = l.AppendNeeded(list, next, last+1, readChunkMax); err != nil {
			return nil, err
		}
		for i := n; i < len(list); i++ {
			list[i].Data = slices.Clone(list[i].Data)
		}
	}
	return list, nil
}

var (
	// errRepair says that batches do not fit the place they are for.
	errRepair = errors.New("batches do not fit")
	// ErrDiverged says that two replicas hold different batches for the same
	// offsets, both whole. That must never be; nothing of it can be repaired.
	ErrDiverged = errors.New("replicas hold different batches")
)

// Repair puts batches of another replica where this one's are damaged, from
// offset first to last: what a *CorruptError names. The segments that reach into
// the range are written anew with the batches of theirs that are whole, and
// take their places; the damaged files go when two checkpoints do not name them.
// Damage for which no batch is given is left out: it is needed by nobody.
//
// Other damage in these segments that is needed is a *CorruptError: repair the
// range that holds both. ErrDiverged says that a batch which is whole here is
// another one there. Nothing has changed then in the segment that it was met in.
// Flusher only.
func (l *Log) Repair(first, last int64, batches []Batch) error {
	if l.store.failed != nil {
		return l.store.failed
	}
	for i := range batches {
		b := &batches[i]
		if b.Count <= 0 || b.Base < first || b.Last() > last || len(b.Data) < coverEnd || !intact(b.Data) ||
			i > 0 && (b.Base <= batches[i-1].Last() || b.Index < batches[i-1].Index) {
			return fmt.Errorf("repair log %v: offsets %d to %d: %w", l.id, b.Base, b.Last(), errRepair)
		}
	}
	l.release()
	reached := func(g *segment) bool { return g.last >= first && g.first <= last }
	if slices.ContainsFunc(l.segs, func(g *segment) bool { return reached(g) && !g.sealed }) {
		if err := l.close(); err != nil {
			return fmt.Errorf("repair log %v: %w", l.id, err)
		}
	}
	for _, g := range slices.Clone(l.segs) {
		if !reached(g) {
			continue
		}
		if err := l.mend(g, first, last, batches); err != nil {
			return fmt.Errorf("repair log %v: %w", l.id, err)
		}
	}
	return nil
}

// mend writes one segment anew.
func (l *Log) mend(g *segment, first, last int64, batches []Batch) error {
	i := slices.Index(l.segs, g)
	m := mender{
		copier: copier{log: l, seg: &segment{first: g.first, gen: g.gen + 1, last: g.last}},
		first:  first, last: last, rest: within(batches, g),
	}
	err := m.run(g)
	if m.handle != nil {
		defer l.store.files.release(m.handle)
	}
	if err != nil {
		l.store.files.forget(m.seg)
		m.seg.dead.Store(true)
		_ = l.store.sync(m.seg)              // only lets go of the file
		_ = l.store.fs.Remove(l.path(m.seg)) // else the next listing finds it
		return err
	}
	segs := slices.Clone(l.segs[:i])
	if m.index != nil {
		segs = append(segs, m.seg)
		l.fileBytes.Add(m.seg.size)
		l.store.counts.segments.Add(1)
	}
	l.replace(append(segs, l.segs[i+1:]...))
	l.store.counts.repairs.Add(1)
	return nil
}

// within are the batches that a segment may hold.
func within(batches []Batch, g *segment) []Batch {
	var list []Batch
	for _, b := range batches {
		if b.Base >= g.first && b.Last() <= g.last {
			list = append(list, b)
		}
	}
	return list
}

// mender copies what is whole of a segment and puts batches between.
type mender struct {
	copier
	first, last int64   // the damage that is repaired
	rest        []Batch // not yet placed
}

func (m *mender) run(g *segment) error {
	files := m.log.store.files
	h, err := files.acquire(m.log, g, g.sealed)
	defer files.release(h)
	if err == nil {
		err = m.copyWhole(h, g)
	} else if errors.Is(err, fs.ErrNotExist) { // nothing of it is left
		err = m.lost(g, 0, g.first, g.last, "file is missing")
	}
	if err == nil {
		err = m.put(g.last + 1)
	}
	if err != nil {
		return err
	}
	return m.finish()
}

// copyWhole copies the frames that are whole.
func (m *mender) copyWhole(h *handle, g *segment) error {
	w := walk(h.file, m.log.seed, viewOf(g), mark{}, false)
	defer w.free()
	for {
		it, ok, err := w.next()
		if err != nil {
			return fmt.Errorf("read segment: %w", err)
		}
		if !ok {
			return nil
		}
		if it.damaged {
			if err := m.lost(g, it.pos, it.from, it.to, "prefix checksum"); err != nil {
				return err
			}
			continue
		}
		b, err := w.peek(it.pos, prefixSize+it.size)
		if err != nil {
			return fmt.Errorf("read segment: %w", err)
		}
		if len(b) < prefixSize+it.size || !intact(b[prefixSize:]) {
			if err := m.lost(g, it.pos, it.base, it.last(), "batch checksum"); err != nil {
				return err
			}
			continue
		}
		if err := m.put(it.base); err != nil {
			return err
		}
		if err := m.place(&it.frame, b); err != nil {
			return err
		}
		for len(m.rest) > 0 && m.rest[0].Base <= it.last() { // it is whole here
			if r := &m.rest[0]; r.Base != it.base || r.Last() != it.last() || r.Index != it.index ||
				!bytes.Equal(r.Data[crcAt:crcAt+4], b[prefixSize+crcAt:prefixSize+crcAt+4]) {
				return fmt.Errorf("offsets %d to %d: %w", it.base, it.last(), ErrDiverged)
			}
			m.rest = m.rest[1:]
		}
	}
}

// lost looks at damage in the segment: what is not being repaired, and is
// needed, must not be left out.
func (m *mender) lost(g *segment, pos, from, to int64, reason string) error {
	l := m.log
	if from > to || m.first <= from && to <= m.last || !l.needed(from, to) {
		return nil
	}
	return &CorruptError{ID: l.id, First: from, Last: to, File: l.path(g), Pos: pos, Reason: reason}
}

// put places the batches that begin before an offset.
func (m *mender) put(before int64) error {
	for len(m.rest) > 0 && m.rest[0].Base < before {
		b := &m.rest[0]
		m.rest = m.rest[1:]
		if b.Last() >= before {
			return errRepair
		}
		f := frame{
			size: len(b.Data), base: b.Base, count: b.Count, epoch: b.Epoch, index: b.Index, timeNs: b.TimeNs,
		}
		if err := m.place(&f, appendFrame(nil, m.log.seed, b)); err != nil {
			return err
		}
	}
	return nil
}

// place adds a frame.
func (m *mender) place(f *frame, b []byte) error {
	if m.index != nil && f.index < m.seg.lastIndex {
		return errRepair
	}
	return m.add(f, b)
}
