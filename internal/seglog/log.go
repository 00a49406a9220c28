package seglog

import (
	"encoding/binary"
	"fmt"
	"math"
	"sort"
	"sync"
	"sync/atomic"
)

// Log is the log of one partition. See the package comment for who may call
// what.
type Log struct {
	store *Store
	id    LogID
	seed  uint32

	start     atomic.Int64
	end       atomic.Int64 // written under mu
	fileBytes atomic.Int64 // in segments

	mu      sync.Mutex
	tail    tail
	segs    []*segment // oldest first; changed by the flusher only
	journal journal
	pinned  func(first, last int64) bool
	queued  bool // stands in Store.queue
	dropped bool

	// The flusher's own.
	dead     []deadFile
	states   uint32 // states that Checkpoint has returned
	pending  bool   // the last of them is not yet published
	unlisted bool   // the folder may hold files that nobody knows
	newNames bool   // the folder must be synced
	namedAt  uint64 // Store.wholes when a name was made last
	newDirs  bool   // the folder's parents too
	lookNs   int64  // compaction looks again from then on
}

// tail holds the batches that are in no file yet.
type tail struct {
	batches []Batch // from head on; before it, taken slots
	head    int
	bytes   int64 // sum of cost
}

func (t *tail) live() []Batch { return t.batches[t.head:] }

func (t *tail) push(b Batch) {
	if t.head > 0 && len(t.batches) == cap(t.batches) {
		n := copy(t.batches, t.live())
		clear(t.batches[n:])
		t.batches, t.head = t.batches[:n], 0
	}
	t.batches = append(t.batches, b)
	t.bytes += b.cost()
}

// dropTo removes the batches up to and including offset last, and says how many
// bytes they counted for.
func (t *tail) dropTo(last int64) (bytes int64) {
	n := t.head
	for n < len(t.batches) && t.batches[n].Last() <= last {
		bytes += t.batches[n].cost()
		n++
	}
	clear(t.batches[t.head:n])
	t.head = n
	t.bytes -= bytes
	if n == len(t.batches) {
		t.batches, t.head = t.batches[:0], 0
		if cap(t.batches) > 64 {
			t.batches = nil
		}
	}
	return bytes
}

// find is the place in live() of the first batch that ends at or after offset.
func (t *tail) find(offset int64) int {
	live := t.live()
	return sort.Search(len(live), func(i int) bool { return live[i].Last() >= offset })
}

// journal remembers where the log ended after each Raft index since the last
// checkpoint, in two or three bytes per batch. A batch may leave memory before
// a checkpoint asks, and the checkpoint must still know the end at its index.
type journal struct {
	deltas []byte // pairs of uvarint: Raft index, offsets
	index  uint64 // of the last pair
	from   uint64 // deltas begin behind this index …
	end    int64  // … where the log ended here
}

func (j *journal) push(index uint64, offsets int64) {
	j.deltas = binary.AppendUvarint(j.deltas, index-j.index)
	j.deltas = binary.AppendUvarint(j.deltas, uint64(offsets))
	j.index = index
}

// forward moves the beginning to index and returns the log's end there.
func (j *journal) forward(index uint64) int64 {
	rest := j.deltas
	for len(rest) > 0 {
		delta, n := binary.Uvarint(rest)
		offsets, m := binary.Uvarint(rest[n:])
		if j.from+delta > index {
			break
		}
		j.from += delta
		j.end += int64(offsets)
		rest = rest[n+m:]
	}
	if len(rest) == 0 {
		j.deltas = nil
	} else {
		j.deltas = append([]byte(nil), rest...)
	}
	return j.end
}

// ID is the name of the log.
func (l *Log) ID() LogID { return l.id }

// Start is the lowest offset that is still needed; what stands below may be
// gone, or be kept because a parked message pins it.
func (l *Log) Start() int64 { return l.start.Load() }

// End is the offset that the next batch will have.
func (l *Log) End() int64 { return l.end.Load() }

// Bytes is what the log takes up in memory and files.
func (l *Log) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tail.bytes + l.fileBytes.Load()
}

// Append adds a batch to the tail. Shard loop only; no I/O. A batch that the
// log already holds is ignored; one that overlaps its end means that apply is
// broken, and panics.
func (l *Log) Append(b Batch) {
	l.mu.Lock()
	end := l.end.Load()
	if l.dropped || b.Last() < end {
		l.mu.Unlock()
		return
	}
	if b.Base < end || b.Count <= 0 || b.Index < l.journal.index {
		l.mu.Unlock()
		panic(fmt.Sprintf("seglog: log %v ends at %d (index %d), cannot take batch %d–%d (index %d)",
			l.id, end, l.journal.index, b.Base, b.Last(), b.Index))
	}
	l.tail.push(b)
	l.journal.push(b.Index, b.Last()+1-end)
	l.end.Store(b.Last() + 1)
	enqueue := !l.queued
	l.queued = true
	l.store.tailBytes.Add(b.cost())
	l.mu.Unlock()
	if enqueue {
		l.store.enqueue(l)
	}
}

// SetPinned gives the log the means to ask whether a parked message stands in
// a range of offsets below the start. The callee may say yes too often, never
// no too often, and is called from any goroutine with no lock held. A message
// must be parked before the start moves over it.
func (l *Log) SetPinned(pinned func(first, last int64) bool) {
	l.mu.Lock()
	l.pinned = pinned
	l.mu.Unlock()
}

// AdvanceStart moves the start up. Shard loop only; no I/O. Batches of the tail
// that are below it and not pinned leave memory at once; segments follow at the
// next checkpoint or compaction.
func (l *Log) AdvanceStart(offset int64) {
	if offset <= l.start.Load() {
		return
	}
	l.start.Store(offset)
	l.mu.Lock()
	live := l.tail.live()
	n := sort.Search(len(live), func(i int) bool { return live[i].Last() >= offset })
	if n == 0 {
		l.mu.Unlock()
		return
	}
	first, last, pinned := live[0].Base, live[n-1].Last(), l.pinned
	l.mu.Unlock()
	if pinned != nil && pinned(first, last) {
		last = l.firstPinned(last, pinned) - 1
	}
	l.dropTail(last)
}

// firstPinned is the base of the first pinned batch in the tail up to offset
// last; last+1 when there is none. Only the flusher can take batches away
// meanwhile, from the front.
func (l *Log) firstPinned(last int64, pinned func(first, last int64) bool) int64 {
	for from := int64(math.MinInt64); ; {
		l.mu.Lock()
		live := l.tail.live()
		i := l.tail.find(from)
		if i == len(live) || live[i].Base > last {
			l.mu.Unlock()
			return last + 1
		}
		b := live[i]
		l.mu.Unlock()
		if pinned(b.Base, b.Last()) {
			return b.Base
		}
		from = b.Last() + 1
	}
}

// dropTail takes the batches up to offset last out of the tail.
func (l *Log) dropTail(last int64) {
	l.mu.Lock()
	bytes := l.tail.dropTo(last)
	l.mu.Unlock()
	l.store.tailBytes.Add(-bytes)
}

// needed says whether a range of offsets must be kept: it reaches the start, or
// is pinned. No lock is held.
func (l *Log) needed(first, last int64) bool {
	l.mu.Lock()
	pinned, dropped := l.pinned, l.dropped
	l.mu.Unlock()
	if dropped {
		return false
	}
	return last >= l.start.Load() || pinned != nil && pinned(first, last)
}

// Drop gives the whole log up: its topic is deleted. Shard loop only; no I/O.
// Reads find nothing from now on. The files go when two checkpoints without
// the log are complete: call Published for each until it reports done.
func (l *Log) Drop() {
	l.mu.Lock()
	l.dropped = true
	l.pinned = nil
	bytes := l.tail.dropTo(math.MaxInt64)
	l.mu.Unlock()
	l.start.Store(l.end.Load())
	l.store.tailBytes.Add(-bytes)
}

func (l *Log) dir() string { return l.id.dir(l.store.dir) }
