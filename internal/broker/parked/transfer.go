package parked

import (
	"container/heap"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/vfs"
)

// Hold keeps the files of all runs that the set has now, also when it needs
// them no more, so that a Reader of a snapshot that was taken now finds them.
// Unhold ends it. Any goroutine.
func (s *Set) Hold() {
	s.gone.mu.Lock()
	s.gone.held++
	s.gone.mu.Unlock()
}

// Unhold ends what Hold began. Files that were kept for it go with the next
// checkpoint that holds the set. Any goroutine.
func (s *Set) Unhold() {
	s.gone.mu.Lock()
	s.gone.held--
	s.gone.mu.Unlock()
}

// Reader yields the entries of a snapshot, earliest due first. One goroutine
// uses it.
type Reader struct {
	side Set
	left int64
}

// Reader returns a reader of the snapshot's entries, those out included. The
// set must be held as long as it is used.
func (sn *Snapshot) Reader() *Reader {
	s := sn.set
	r := &Reader{side: Set{fs: s.fs, dir: s.dir, prefix: s.prefix, tombs: make(map[int64]tomb, len(sn.tombs))}}
	for _, t := range sn.tombs {
		r.side.tombs[t.offset] = t.tomb
	}
	for i, e := range sn.entries {
		r.side.queue = append(r.side.queue, &item{Entry: e, at: i})
	}
	heap.Init(&r.side.queue)
	for _, st := range sn.runs {
		r.side.runs = append(r.side.runs, newRun(st.seq, st.size, st.left, st.pos, st.done, st.due))
	}
	heap.Init(&r.side.runs)
	r.left = sn.pins.count
	return r
}

// Left is how many entries are still to come.
func (r *Reader) Left() int64 { return r.left }

// Next returns the next entry; false at the end.
func (r *Reader) Next() (Entry, bool, error) {
	s := &r.side
	for {
		run := s.topRun()
		if s.err != nil {
			return Entry{}, false, s.err
		}
		switch {
		case run != nil && (len(s.queue) == 0 || run.head.before(s.queue[0].Entry)):
			e, stale := run.head, s.stale(run)
			s.step(run)
			if stale {
				continue
			}
			r.left--
			return e, true, nil
		case len(s.queue) > 0:
			r.left--
			return heap.Pop(&s.queue).(*item).Entry, true, nil
		}
		return Entry{}, false, nil
	}
}

// builtRun is how many entries stand in one run that a Builder writes.
const builtRun = 64 << 10

// Builder makes a set from its entries: the state that a Snapshot of it would
// encode, and the files of its runs. One goroutine uses it.
type Builder struct {
	set     *Set
	memory  int // entries that stay in memory
	pending []Entry
	last    Entry
	names   []string
}

// NewBuilder returns a builder whose runs are written into dir. Their names
// begin with prefix; the first has the number next. The set keeps up to memory
// entries, the earliest, in memory.
func NewBuilder(fs vfs.FS, dir, prefix string, next uint64, memory int) *Builder {
	s := New(fs, dir, prefix)
	s.next = next
	return &Builder{set: s, memory: memory, last: Entry{Offset: -1}}
}

// Add takes the next entry; they come as Reader yields them, each offset once.
func (b *Builder) Add(e Entry) error {
	if e.Offset < 0 || b.last.Offset >= 0 && !b.last.before(e) || !b.set.pins.add(e.Offset) {
		return fault.New(fault.Corrupt, "take parked messages: offset %d is out of order", e.Offset)
	}
	b.last = e
	if len(b.set.items) < b.memory {
		b.set.load(e)
		return nil
	}
	if b.pending = append(b.pending, e); len(b.pending) < builtRun {
		return nil
	}
	return b.spill()
}

// spill writes a run of what is pending.
func (b *Builder) spill() error {
	s := b.set
	sp := &Spill{fs: s.fs, dir: s.dir, name: s.path(s.next), seq: s.next, chunk: s.chunkSize, entries: b.pending}
	if err := sp.Write(); err != nil {
		return err
	}
	s.runs = append(s.runs, newRun(sp.seq, sp.size, int64(len(b.pending)), headerSize, 0, b.pending[0].DueNs))
	b.names = append(b.names, s.base(s.next))
	s.next++
	b.pending = b.pending[:0]
	return nil
}

// Finish writes what is left and returns the state, for Restore, and the base
// names of the runs, which are durable in the builder's folder. The caller
// moves them to where Restore looks for them.
func (b *Builder) Finish() (state []byte, names []string, err error) {
	if len(b.pending) > 0 {
		if err := b.spill(); err != nil {
			return nil, nil, err
		}
	}
	return b.set.Snapshot().Append(nil), b.names, nil
}

// Next is the number of the set's next run.
func (s *Set) Next() uint64 { return s.next }

// SweepBut removes from dir all runs but those named, once a state has
// become the newest complete checkpoint, and the only one. A missing folder is
// no error.
func SweepBut(fsys vfs.FS, dir string, keep []string) error {
	names, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Storage, fmt.Errorf("remove parked messages: %w", err))
	}
	for _, name := range names {
		if !isRun(name) || slices.Contains(keep, name) {
			continue
		}
		if err := fsys.Remove(path.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.Wrap(fault.Storage, fmt.Errorf("remove parked messages: %w", err))
		}
	}
	return nil
}
