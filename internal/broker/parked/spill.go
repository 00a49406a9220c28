package parked

import (
	"container/heap"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/vfs"
)

// writeSize is the size of writes to a run, in bytes.
const writeSize = 256 << 10

// Spill is a move of entries from memory to a run: prepared and committed by
// the owner of the set, written by another goroutine in between. Until the
// commit the set is as it was.
type Spill struct {
	fs      vfs.FS
	dir     string
	name    string
	seq     uint64
	chunk   int     // bytes of a chunk
	entries []Entry // sorted by Write
	size    int64   // bytes of the file, once written
}

// PrepareSpill begins to move all but the keep earliest entries out of
// memory. Those that are out stay. It returns nil when that leaves nothing to
// move, and as long as another spill is not committed. A run costs a file and
// some memory, so spill thousands of entries at a time: for instance when
// MemLen is above 2 × keep.
func (s *Set) PrepareSpill(keep int) *Spill {
	if s.spill != nil || len(s.queue) <= keep {
		return nil
	}
	entries := make([]Entry, len(s.queue))
	for i, it := range s.queue {
		entries[i] = it.Entry
	}
	selectFirst(entries, keep)
	s.spill = &Spill{fs: s.fs, dir: s.dir, name: s.path(s.next), seq: s.next, chunk: s.chunkSize, entries: entries[keep:]}
	s.next++
	return s.spill
}

// Len is the number of entries that move.
func (sp *Spill) Len() int { return len(sp.entries) }

// Write writes and syncs the run. It may be called on any goroutine, once.
// After an error the run does not exist, and Commit leaves all in memory.
func (sp *Spill) Write() error {
	slices.SortFunc(sp.entries, Entry.compare)
	size, err := sp.write()
	if err != nil {
		return fmt.Errorf("write parked messages: %s: %w", sp.name, err)
	}
	sp.size = size
	return nil
}

// write makes the file under a temporary name first.
func (sp *Spill) write() (int64, error) {
	if err := vfs.MkdirSynced(sp.fs, sp.dir); err != nil {
		return 0, fault.Wrap(fault.Storage, err)
	}
	tmp := sp.name + vfs.TempSuffix
	size, err := sp.writeFile(tmp)
	if err == nil {
		err = sp.fs.Rename(tmp, sp.name)
	}
	if err == nil {
		err = vfs.SyncError(sp.fs.SyncDir(path.Dir(sp.name)))
	}
	if err != nil {
		return 0, fault.Wrap(fault.Storage, errors.Join(err, sp.remove(tmp), sp.remove(sp.name)))
	}
	return size, nil
}

// remove removes what a failed write may have left.
func (sp *Spill) remove(name string) error {
	if err := sp.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeFile writes and syncs all chunks.
func (sp *Spill) writeFile(name string) (size int64, err error) {
	f, err := sp.fs.Create(name)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := appendHeader(make([]byte, 0, writeSize+2*(chunkHead+payloadMax)))
	for rest := sp.entries; len(rest) > 0; {
		var n int
		buf, n = appendChunk(buf, sp.seq, size+int64(len(buf)), rest, sp.chunk)
		rest = rest[n:]
		if len(buf) < writeSize && len(rest) > 0 {
			continue
		}
		if _, err := f.WriteAt(buf, size); err != nil {
			return 0, err
		}
		size += int64(len(buf))
		buf = buf[:0]
	}
	return size, vfs.SyncError(f.Sync())
}

// Commit ends a spill. Entries that were written and have not changed since
// leave memory; of the others the run has stale copies.
func (s *Set) Commit(sp *Spill) {
	if sp != s.spill { // the set was cleared meanwhile
		if sp.size > 0 {
			s.gone.add(sp.seq)
		}
		return
	}
	s.spill = nil
	if sp.size == 0 {
		return
	}
	heap.Push(&s.runs, newRun(sp.seq, sp.size, int64(len(sp.entries)), headerSize, 0, sp.entries[0].DueNs))
	for _, e := range sp.entries {
		if it := s.items[e.Offset]; it != nil && it.at != out && it.Entry == e {
			it.at = leaving
			continue
		}
		t := s.tombs[e.Offset]
		s.tombs[e.Offset] = tomb{bound: s.next, copies: t.copies + 1}
	}
	s.forgetLeaving(len(sp.entries))
	s.dropStale()
}

// leaving marks, in Commit, an item that is in a run from now on.
const leaving = -2

// forgetLeaving drops the marked items, about n of them. The map is made anew
// because one never shrinks.
func (s *Set) forgetLeaving(n int) {
	items := make(map[int64]*item, max(0, len(s.items)-n))
	for offset, it := range s.items {
		if it.at != leaving {
			items[offset] = it
		}
	}
	kept := make(queue, 0, len(items))
	for _, it := range s.queue {
		if it.at != leaving {
			it.at = len(kept)
			kept = append(kept, it)
		}
	}
	heap.Init(&kept)
	s.items, s.queue = items, kept
}

// compare orders entries as before does.
func (e Entry) compare(o Entry) int {
	switch {
	case e.before(o):
		return -1
	case o.before(e):
		return 1
	}
	return 0
}

// selectFirst moves the n earliest entries to the front, in no order
// (quickselect).
func selectFirst(es []Entry, n int) {
	for n > 0 && n < len(es) {
		switch p := split(es); {
		case n <= p:
			es = es[:p]
		default:
			es, n = es[p+1:], n-p-1
		}
	}
}

// split moves a random entry to where it belongs, those before it to its
// front, and returns the place.
func split(es []Entry) int {
	last := len(es) - 1
	i := rand.IntN(len(es))
	es[i], es[last] = es[last], es[i]
	p := 0
	for i := range last {
		if es[i].before(es[last]) {
			es[i], es[p] = es[p], es[i]
			p++
		}
	}
	es[p], es[last] = es[last], es[p]
	return p
}
