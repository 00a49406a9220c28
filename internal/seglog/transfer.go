package seglog

import (
	"errors"
	"fmt"
	"math"
	"path"
)

// What another replica is sent is not what this one holds at some moment, but
// what is still needed of it: a batch below the start that no parked message
// pins may be missing on any replica. The start only rises, and by committed
// entries; whoever takes over from a state that is older must apply those
// entries before it serves. So nothing has to be pinned while a log is read
// for another replica: what leaves the log meanwhile is not needed there.

// AppendNeeded appends to dst batches that are needed, from the one that holds
// offset or comes next up to those that begin before end, as far as about
// maxBytes of Data go, and returns where to go on; end when nothing is left. A
// deleted log has nothing left. A *CorruptError names needed batches that are
// damaged. Any goroutine.
func (l *Log) AppendNeeded(dst []Batch, offset, end int64, maxBytes int) (batches []Batch, next int64, err error) {
	n := len(dst)
	for offset < end && len(dst) == n {
		dst, err = l.AppendRead(dst, offset, maxBytes)
		if damage, ok := errors.AsType[*CorruptError](err); ok && len(dst) == n && !l.needed(damage.First, damage.Last) {
			offset = max(damage.Last, offset) + 1
			continue
		}
		if err != nil && len(dst) == n {
			return dst, offset, err
		}
		if len(dst) == n {
			return dst, end, nil
		}
		kept := dst[:n]
		for _, b := range dst[n:] {
			if b.Base >= end {
				offset = end
				break
			}
			offset = b.Last() + 1
			if l.needed(b.Base, b.Last()) {
				kept = append(kept, b)
			}
		}
		clear(dst[len(kept):])
		dst = kept
	}
	return dst, min(offset, end), nil
}

// BytesFrom is about how many bytes the log holds from an offset on.
func (l *Log) BytesFrom(offset int64) (bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range l.segs {
		if g.last < offset {
			continue
		}
		bytes += g.size
		if span := g.last - g.first + 1; g.first < offset && span > 0 {
			bytes -= int64(float64(g.size) * float64(offset-g.first) / float64(span))
		}
	}
	for _, b := range l.tail.live()[l.tail.find(offset):] {
		bytes += int64(len(b.Data))
	}
	return bytes
}

// Options are the store's settings, defaults filled in.
func (s *Store) Options() Options { return s.o }

// Graft puts the batches of a staged log, which is of the same name in a store
// of its own, behind those that this store's log of the name holds, if there is
// one, and returns the state of the result: the log as of a Raft index, which
// ends at end. The files of the staged log are renamed into this store; they
// and their names are durable when Graft returns. Staged may be nil: nothing
// comes behind.
//
// The log that is there stays as it is, and nothing may be appended to it any
// more; RestoreGrafted makes the new one from the state, Ungraft gives the
// graft up. Flusher only, as for the staged store.
func (s *Store) Graft(id LogID, staged *Log, index uint64, end int64) ([]byte, error) {
	s.mu.Lock()
	l := s.logs[id]
	if s.grafts == nil {
		s.grafts = make(map[LogID]struct{})
	}
	s.grafts[id] = struct{}{}
	s.mu.Unlock()
	if l == nil {
		l = &Log{store: s, id: id, seed: id.seed(), newDirs: true}
	}
	if err := l.close(); err != nil {
		return nil, fmt.Errorf("graft log %v: %w", id, err)
	}
	var segs []savedSegment
	for _, g := range l.segs {
		segs = append(segs, g.saved())
	}
	if staged != nil && len(staged.segs) > 0 {
		if err := l.takeFiles(staged); err != nil {
			return nil, fmt.Errorf("graft log %v: %w", id, err)
		}
		for _, g := range staged.segs {
			segs = append(segs, g.saved())
		}
	}
	grafted := &Log{id: id, journal: journal{index: index, from: index, end: end}}
	return grafted.appendState(nil, index, 0, segs), nil
}

func (g *segment) saved() savedSegment {
	return savedSegment{g.first, g.last, g.gen, g.size, g.firstIndex, g.lastIndex, g.lastNs, g.sealed}
}

// close moves the whole tail to the log's files, ends the last of them, and
// makes all durable.
func (l *Log) close() error {
	if _, err := l.flush(math.MaxUint64, math.MaxInt64); err != nil {
		return err
	}
	var r run
	if err := l.resume(&r); err != nil {
		return err
	}
	if r.seg != nil {
		err := l.seal(&r)
		l.store.files.release(r.handle)
		if err != nil {
			return err
		}
	}
	return l.settle(math.MaxUint64, 0)
}

// takeFiles renames the files of a staged log into the log's folder.
func (l *Log) takeFiles(staged *Log) error {
	s := l.store
	if err := s.fs.MkdirAll(l.dir()); err != nil {
		return err
	}
	for _, g := range staged.segs {
		staged.store.files.forget(g)
		if err := s.fs.Rename(staged.path(g), l.path(g)); err != nil {
			return err
		}
	}
	dirs := []string{l.dir()}
	if l.newDirs {
		dirs = append(dirs, path.Dir(l.dir()), s.dir, path.Dir(s.dir))
	}
	for _, dir := range dirs {
		s.counts.syncs.Add(1)
		if err := s.fail("sync log folder", s.fs.SyncDir(dir)); err != nil {
			return err
		}
	}
	return nil
}

// Ungraft gives up what Graft has begun for a log: files that it brought are
// removed with the log's next Published, or at the next start. Flusher only.
func (s *Store) Ungraft(id LogID) {
	s.mu.Lock()
	l := s.logs[id]
	delete(s.grafts, id)
	s.mu.Unlock()
	if l != nil {
		l.unlisted = true
	}
}

// grafting reports whether a log's folder holds files that come with a state
// which is not restored yet.
func (s *Store) grafting(id LogID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.grafts[id]
	return ok
}

// RestoreGrafted is Restore for a state that Graft returned, once the checkpoint
// with it is complete: the log of that name which was there is given up, its
// files that the state does not name are removed with the next Published. The
// shard's loop calls it.
func (s *Store) RestoreGrafted(id LogID, state []byte) (*Log, error) {
	s.mu.Lock()
	old := s.logs[id]
	s.mu.Unlock()
	if old != nil {
		old.retire()
	}
	l, err := s.Restore(id, state)
	if err != nil {
		return nil, err
	}
	l.unlisted = true
	s.mu.Lock()
	delete(s.grafts, id)
	s.mu.Unlock()
	return l, nil
}

// retire ends a log whose place another takes: reads find nothing any more,
// and its files are not its own.
func (l *Log) retire() {
	l.mu.Lock()
	l.dropped = true
	l.pinned = nil
	bytes := l.tail.dropTo(math.MaxInt64)
	segs, dead := l.segs, len(l.dead)
	l.mu.Unlock()
	l.start.Store(l.end.Load())
	l.store.tailBytes.Add(-bytes)
	for _, g := range segs {
		g.dead.Store(true)
		l.store.files.forget(g)
	}
	l.store.counts.segments.Add(-int64(len(segs)))
	l.store.counts.dead.Add(-int64(dead))
}
