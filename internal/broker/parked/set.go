// Package parked keeps what a channel has put aside for later: offsets sorted
// by due time, as many as there are, in memory or in files.
//
// A Set belongs to one channel on one partition. What is in it is a pure
// function of the calls to Add, Remove and Clear, and so the same on every
// replica. Where an entry is kept, and which ones are out for delivery, is
// local: entries that are due late move to runs, which are immutable files
// sorted by due time, and come back one by one as they fall due.
//
// An entry in a run cannot be changed there. When a command concerns one, the
// copy in the run becomes stale: a tombstone (offset, and the number of the
// first run that may hold a newer copy) makes the reader pass over it. A
// tombstone goes when its copies have been passed.
//
// # Checkpoints
//
// Snapshot takes the state on the owner's goroutine; it names the runs with
// how far they are read. After a crash the set is restored from it, and all
// later commands are applied again. Recovery may go back to the older of two
// checkpoints, so a run that is used up stays until two checkpoints without it
// are complete: Snapshot.Published tells which those are. Sweep removes, at
// start, what a crash has left. A channel that is dropped should Clear its set
// and keep it in the checkpoints until Files is empty.
//
// # Cost
//
// An entry in memory takes about 100 bytes. One in a run takes between one bit
// (all offsets parked) and two bytes (few of them): which offsets are parked is
// known exactly at any time, so what a command does never depends on a file.
// A run that is being read takes 4 KiB more. Reading is one pread per chunk, on
// the owner's goroutine.
//
// # Files
//
// A run is <prefix>-<16 hex digits>.parked: a header (8 bytes magic, u32
// format version, u32 CRC32C of these twelve) and chunks of about 4 KiB: u32
// length, u32 CRC32C (over run number, place in the file, payload), payload.
// Integers are big-endian. A payload is entries: due time less that of the
// entry before (a uvarint; the first a varint), offset less that of the entry
// before (varint), attempts (uvarint).
package parked

import (
	"container/heap"
	"math"

	"github.com/tidings-io/tidings/internal/vfs"
)

// maxOffset is the largest offset that can be parked: 44 bits are what a
// message id holds, this is far above.
const maxOffset = math.MaxInt64 - 1

// defaultTombsMax is how many tombstones may gather before each further one
// pays with reading from the runs. It bounds memory on a replica that only
// ever sees its leader's removals.
const defaultTombsMax = 4096

// Set is a durable set of parked offsets. One goroutine owns it; only
// PinnedIn may be called by others.
type Set struct {
	fs     vfs.FS
	dir    string
	prefix string

	chunkSize int // bytes of a chunk in new runs
	tombsMax  int

	pins  pins            // every offset of the set
	items map[int64]*item // those in memory, by offset
	queue queue           // of these, those that are not out
	runs  runQueue        // runs with entries left, by the next one's due time
	tombs map[int64]tomb  // of the runs' entries, the stale ones, by offset
	next  uint64          // number of the next run
	spill *Spill          // being written; nil: none
	gone  retired         // runs used up
	err   error           // first failure to read a run
}

// item is an entry in memory.
type item struct {
	Entry
	at int // place in the queue; out: handed to TakeDue's caller
}

const out = -1

// tomb says that an offset's copies in runs below bound are stale.
type tomb struct {
	bound  uint64
	copies int // how many the runs still hold, at or behind their cursors
}

// New returns an empty set whose runs will lie in dir, with names that begin
// with prefix. There is no file and no folder before the first spill.
func New(fs vfs.FS, dir, prefix string) *Set {
	return &Set{
		fs: fs, dir: dir, prefix: prefix,
		chunkSize: chunkSizeMax, tombsMax: defaultTombsMax,
		items: map[int64]*item{}, tombs: map[int64]tomb{},
	}
}

// Add parks an offset ≥ 0, or gives a parked one a new due time and number of
// attempts. It is not out any more.
func (s *Set) Add(e Entry) {
	if it := s.items[e.Offset]; it != nil {
		it.Entry = e
		if it.at == out {
			heap.Push(&s.queue, it)
		} else {
			heap.Fix(&s.queue, it.at)
		}
		return
	}
	inRun := !s.pins.add(e.Offset)
	s.load(e)
	if inRun {
		s.bury(e.Offset)
	}
}

// Remove takes an offset out of the set; one that is not in is ignored.
func (s *Set) Remove(offset int64) {
	if !s.pins.remove(offset) {
		return
	}
	it := s.items[offset]
	if it == nil {
		s.bury(offset)
		return
	}
	delete(s.items, offset)
	if it.at != out {
		heap.Remove(&s.queue, it.at)
	}
	s.dropStale()
}

// Clear takes everything out.
func (s *Set) Clear() {
	s.pins.clear()
	s.items = map[int64]*item{} // anew: a map never shrinks
	s.queue = nil
	s.spill = nil // Commit will retire its file
	s.dropStale()
}

// Len is the number of parked offsets, those out included.
func (s *Set) Len() int64 { return s.pins.count }

// MemLen is how many of them are in memory.
func (s *Set) MemLen() int { return len(s.items) }

// PinnedIn reports whether an offset of first ≤ o ≤ last is parked. Any
// goroutine may ask.
func (s *Set) PinnedIn(first, last int64) bool { return s.pins.any(first, last) }

// Err is the first failure to read a run, if any; it matches fault.Corrupt
// where a run is damaged. From then on no entry comes out of the runs: the
// owner must give the set up.
func (s *Set) Err() error { return s.err }

// NextDue is the due time in unix ns of the earliest entry that is not out;
// math.MaxInt64 when there is none. It may read from a run.
func (s *Set) NextDue() int64 {
	due := int64(math.MaxInt64)
	if len(s.queue) > 0 {
		due = s.queue[0].DueNs
	}
	if len(s.tombs) == 0 && len(s.runs) > 0 && s.err == nil {
		return min(due, s.runs[0].head.DueNs)
	}
	if r := s.firstRun(due); r != nil {
		due = r.head.DueNs
	}
	return due
}

// TakeDue appends to dst up to n entries that are due at now (unix ns),
// earliest first, and marks them as out: they stay in the set, but do not come
// again before Add or ReturnAll. It may read from runs.
func (s *Set) TakeDue(now int64, n int, dst []Entry) []Entry {
	for range n {
		limit := now
		if len(s.queue) > 0 {
			limit = min(now, s.queue[0].DueNs)
		}
		r := s.firstRun(limit)
		switch {
		case r != nil && (len(s.queue) == 0 || r.head.before(s.queue[0].Entry)):
			dst = append(dst, r.head)
			s.items[r.head.Offset] = &item{Entry: r.head, at: out}
			s.step(r)
		case len(s.queue) > 0 && s.queue[0].DueNs <= now:
			dst = append(dst, heap.Pop(&s.queue).(*item).Entry)
		default:
			return dst
		}
	}
	return dst
}

// ReturnAll ends what TakeDue began: nothing is out any more.
func (s *Set) ReturnAll() {
	for _, it := range s.items {
		if it.at == out {
			heap.Push(&s.queue, it)
		}
	}
}

// load puts an entry into memory that is not there.
func (s *Set) load(e Entry) {
	it := &item{Entry: e}
	s.items[e.Offset] = it
	heap.Push(&s.queue, it)
}

// bury makes the copy of offset that counted so far, in a run, a stale one.
func (s *Set) bury(offset int64) {
	t := s.tombs[offset]
	t.bound = s.next
	t.copies++
	s.tombs[offset] = t
	s.dropStale()
	for range 4 {
		if len(s.tombs) > s.tombsMax {
			s.passFirst()
		}
	}
}

// dropStale retires all runs at once when no entry in them counts any more.
func (s *Set) dropStale() {
	if len(s.runs) == 0 || s.pins.count > int64(len(s.items)) {
		return
	}
	for _, r := range s.runs {
		s.gone.add(r.seq)
	}
	s.runs = nil
	s.tombs = map[int64]tomb{}
}

// passFirst reads one entry from the run that comes first: a stale one is
// passed, another goes to memory.
func (s *Set) passFirst() {
	r := s.topRun()
	if r == nil {
		return
	}
	if !s.stale(r) {
		s.load(r.head)
	} else {
		s.exhume(r.head.Offset)
	}
	s.step(r)
}

// firstRun returns the run whose entry is the next to come out of all runs,
// if its due time is at most limit; nil if there is none.
func (s *Set) firstRun(limit int64) *run {
	for len(s.runs) > 0 && s.runs[0].head.DueNs <= limit {
		r := s.topRun()
		if r == nil {
			return nil
		}
		if !s.stale(r) {
			if r.head.DueNs > limit {
				return nil
			}
			return r
		}
		s.exhume(r.head.Offset)
		s.step(r)
	}
	return nil
}

// topRun returns the run with the earliest entry, loaded; nil when there is
// none or it cannot be read.
func (s *Set) topRun() *run {
	for len(s.runs) > 0 && s.err == nil {
		r := s.runs[0]
		if r.loaded {
			return r
		}
		s.fill(r)
		heap.Fix(&s.runs, 0)
	}
	return nil
}

// stale reports whether the run's next entry does not count.
func (s *Set) stale(r *run) bool {
	t, ok := s.tombs[r.head.Offset]
	return ok && r.seq < t.bound
}

// exhume notes that a stale copy has been passed.
func (s *Set) exhume(offset int64) {
	t := s.tombs[offset]
	if t.copies--; t.copies == 0 {
		delete(s.tombs, offset)
	} else {
		s.tombs[offset] = t
	}
}

// step moves the first run behind its next entry.
func (s *Set) step(r *run) {
	r.left--
	if r.left == 0 {
		heap.Pop(&s.runs)
		s.gone.add(r.seq)
		return
	}
	if !r.step() {
		s.fill(r)
	}
	heap.Fix(&s.runs, 0)
}

// fill reads the chunk at a run's cursor.
func (s *Set) fill(r *run) {
	if err := r.fill(s.fs, s.path(r.seq)); err != nil && s.err == nil {
		s.err = err
	}
}

// Each calls fn for every entry of the set, those out included, earliest due
// first, until fn fails. It reads all runs; fn must not change the set.
func (s *Set) Each(fn func(Entry) error) error {
	// A reader beside the set: the same runs with cursors of their own.
	side := Set{fs: s.fs, dir: s.dir, prefix: s.prefix, tombs: s.tombs}
	for _, it := range s.items {
		side.queue = append(side.queue, &item{Entry: it.Entry, at: len(side.queue)})
	}
	heap.Init(&side.queue)
	for _, r := range s.runs {
		side.runs = append(side.runs, r.fork())
	}
	heap.Init(&side.runs)
	for {
		r := side.topRun()
		if side.err != nil {
			return side.err
		}
		var e Entry
		switch {
		case r != nil && (len(side.queue) == 0 || r.head.before(side.queue[0].Entry)):
			e = r.head
			skip := s.stale(r)
			side.step(r)
			if skip {
				continue
			}
		case len(side.queue) > 0:
			e = heap.Pop(&side.queue).(*item).Entry
		default:
			return nil
		}
		if err := fn(e); err != nil {
			return err
		}
	}
}

// before is the order in which entries come out.
func (e Entry) before(o Entry) bool {
	return e.DueNs < o.DueNs || e.DueNs == o.DueNs && e.Offset < o.Offset
}

// queue is a heap of entries in memory.
type queue []*item

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].before(q[j].Entry) }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i]; q[i].at, q[j].at = i, j }

func (q *queue) Push(x any) {
	it := x.(*item)
	it.at = len(*q)
	*q = append(*q, it)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	it := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	it.at = out
	return it
}
