package wal

import (
	"slices"
	"sort"
	"sync/atomic"

	"github.com/tidings-io/tidings/internal/vfs"
)

// anchorDistance is how many bytes of a segment may lie between an entry and
// the anchor from which a reader finds it.
const anchorDistance = 64 << 10

// segment is a live file. end, last and refs are guarded by WAL.mu.
type segment struct {
	sequence uint64
	seed     uint32
	previous int64 // end of the segment before it
	grows    bool  // began as an empty file
	file     vfs.File

	end  int64             // bytes written, header included
	last map[uint32]uint64 // highest index of each shard that has entries here
	refs atomic.Int32      // readers; taken under WAL.mu
}

func newSegment(id, sequence uint64, file vfs.File) *segment {
	return &segment{sequence: sequence, seed: seedOf(id, sequence), file: file, last: make(map[uint32]uint64)}
}

// anchor says where an entry begins. Behind it, up to the index of the next
// anchor, the shard's entries follow in order in the same segment.
type anchor struct {
	index   uint64
	segment *segment
	offset  int64
}

// termRun says that entries from first on have term.
type termRun struct{ first, term uint64 }

// held is an entry that no file has yet.
type held struct {
	Entry
	ticket uint64 // of the Submit that brought it
}

// shardLog is what is known of one shard's log.
// Invariants: terms and anchors ascend by index; held entries are dense and
// end at last; their tickets ascend.
type shardLog struct {
	id       uint32
	first    uint64 // first readable entry; last+1 or more when there is none
	last     uint64 // last entry submitted, 0 when there never was one
	terms    []termRun
	anchors  []anchor
	placed   uint64 // last entry in a file
	held     []held
	hard     HardState
	hasHard  bool
	released uint64
	gone     bool // forgotten
}

// extend takes an entry as the new last one.
func (s *shardLog) extend(index, term uint64) {
	switch {
	case s.last == 0 || index > s.last+1 || index < s.first:
		// First entry, or the log begins anew behind a snapshot.
		s.first, s.terms, s.held = index, s.terms[:0], dropHeld(s.held, 0)
	case index <= s.last:
		s.truncate(index)
	}
	if n := len(s.terms); n == 0 || s.terms[n-1].term != term {
		s.terms = append(s.terms, termRun{index, term})
	}
	s.last = index
}

// truncate forgets terms and held entries from index on.
func (s *shardLog) truncate(index uint64) {
	n := len(s.terms)
	for n > 0 && s.terms[n-1].first >= index {
		n--
	}
	s.terms = s.terms[:n]
	if len(s.held) > 0 {
		keep := 0
		if first := s.held[0].Index; index > first {
			keep = min(len(s.held), int(index-first))
		}
		s.held = dropHeld(s.held, keep)
	}
}

// dropHeld keeps the first n and lets go of the data of the others.
func dropHeld(h []held, n int) []held {
	clear(h[n:])
	return h[:n]
}

// place notes where an entry stands in a file.
func (s *shardLog) place(index uint64, seg *segment, offset int64) {
	if index > s.placed+1 {
		s.anchors = s.anchors[:0]
	} else if index <= s.placed {
		n := len(s.anchors)
		for n > 0 && s.anchors[n-1].index >= index {
			n--
		}
		s.anchors = s.anchors[:n]
	}
	n := len(s.anchors)
	if n == 0 || index != s.placed+1 || s.anchors[n-1].segment != seg || offset-s.anchors[n-1].offset >= anchorDistance {
		s.anchors = append(s.anchors, anchor{index, seg, offset})
	}
	s.placed = index
	if seg.last[s.id] < index {
		seg.last[s.id] = index
	}
}

// written lets go of held entries up to a ticket: files have them.
func (s *shardLog) written(ticket uint64) {
	n := 0
	for n < len(s.held) && s.held[n].ticket <= ticket {
		n++
	}
	if n == 0 {
		return
	}
	rest := copy(s.held, s.held[n:])
	s.held = dropHeld(s.held, rest)
	if rest == 0 && cap(s.held) > 1024 {
		s.held = nil
	}
}

// release forgets what lies at or below index.
func (s *shardLog) release(index uint64) {
	if index <= s.released {
		return
	}
	s.released = index
	s.first = max(s.first, index+1)
	n := 0
	for n+1 < len(s.terms) && s.terms[n+1].first <= index {
		n++
	}
	s.terms = append(s.terms[:0], s.terms[n:]...)
	n = 0
	for n+1 < len(s.anchors) && s.anchors[n+1].index <= index+1 {
		n++
	}
	s.anchors = append(s.anchors[:0], s.anchors[n:]...)
}

// leave forgets the anchors of a segment that goes.
func (s *shardLog) leave(seg *segment) {
	n := 0
	for n < len(s.anchors) && s.anchors[n].segment == seg {
		n++
	}
	s.anchors = append(s.anchors[:0], s.anchors[n:]...)
}

// term is the term of an entry, or of the one before the first readable.
func (s *shardLog) term(index uint64) (uint64, bool) {
	if index > s.last || index+1 < s.first {
		return 0, false
	}
	n := sort.Search(len(s.terms), func(i int) bool { return s.terms[i].first > index })
	if n == 0 {
		return 0, false
	}
	return s.terms[n-1].term, true
}

// find returns the anchor before an entry, and the index up to which it holds.
func (s *shardLog) find(index uint64) (anchor, uint64, bool) {
	n := sort.Search(len(s.anchors), func(i int) bool { return s.anchors[i].index > index })
	if n == 0 || index > s.placed {
		return anchor{}, 0, false
	}
	until := s.placed + 1
	if n < len(s.anchors) {
		until = s.anchors[n].index
	}
	return s.anchors[n-1], until, true
}

// index is the memory of the log: its shards and live segments.
type index struct {
	shards map[uint32]*shardLog
	live   []*segment // oldest first; the last is written to
}

// shard returns the shard's log, made if missing.
func (x *index) shard(id uint32) *shardLog {
	s := x.shards[id]
	if s == nil {
		s = &shardLog{id: id, first: 1}
		x.shards[id] = s
	}
	return s
}

// forget drops a shard.
func (x *index) forget(id uint32) {
	if s := x.shards[id]; s != nil {
		s.gone = true
		delete(x.shards, id)
	}
	for _, seg := range x.live {
		delete(seg.last, id)
	}
}

// pins lists the shards that still need an entry of seg, ascending.
func (x *index) pins(seg *segment) []uint32 {
	var ids []uint32
	for id, last := range seg.last {
		// Entries above the shard's last are overwritten ones.
		if s := x.shards[id]; s != nil && min(last, s.last) > s.released {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// pinned says whether any shard still needs an entry of seg.
func (x *index) pinned(seg *segment) bool {
	for id, last := range seg.last {
		if s := x.shards[id]; s != nil && min(last, s.last) > s.released {
			return true
		}
	}
	return false
}
