package wal

import (
	"fmt"
	"hash/crc32"
	"sync"
)

// readWindow is how much of a segment one pread fetches, bytes.
const readWindow = 128 << 10

var windows = sync.Pool{New: func() any { b := make([]byte, readWindow); return &b }}

// span is a stretch of a segment that holds entries of a shard, dense and in
// order, beginning at or before an index.
type span struct {
	segment *segment
	offset  int64
	end     int64  // written bytes of the segment
	until   uint64 // index behind the last entry
}

// Entries returns the shard's entries from lo up to, not including, hi: as
// many as maxBytes of data allow, but at least one. Submitted is enough to be
// readable. ErrCompacted, ErrUnavailable, *CorruptError. The shard's owner
// must not submit to it at the same time.
func (w *WAL) Entries(shard uint32, lo, hi uint64, maxBytes int) ([]Entry, error) {
	r := reader{shard: shard, next: lo, hi: hi, budget: maxBytes}
	for !r.full && r.next < r.hi {
		s, err := w.locate(&r)
		if err != nil {
			return nil, err
		}
		if s.segment == nil {
			break
		}
		err = r.readSpan(s)
		s.segment.refs.Add(-1)
		if err != nil {
			return nil, fmt.Errorf("read entry %d of shard %d: %w", r.next, shard, err)
		}
	}
	return r.out, nil
}

// locate finds the next entry: it takes it and what follows from memory, or
// names the span of a segment, with a reference on that.
func (w *WAL) locate(r *reader) (span, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.index.shards[r.shard]
	if s == nil || r.hi > s.last+1 {
		return span{}, ErrUnavailable
	}
	if r.next < s.first {
		return span{}, ErrCompacted
	}
	if n := len(s.held); n > 0 && s.held[0].Index <= r.next {
		for i := r.next - s.held[0].Index; r.next < r.hi && r.admit(len(s.held[i].Data)); i++ {
			r.take(s.held[i].Entry)
		}
		return span{}, nil
	}
	a, until, ok := s.find(r.next)
	if !ok {
		return span{}, fmt.Errorf("read entry %d of shard %d: the index does not know it", r.next, r.shard)
	}
	if len(s.held) > 0 {
		until = min(until, s.held[0].Index)
	}
	a.segment.refs.Add(1)
	return span{a.segment, a.offset, a.segment.end, min(until, r.hi)}, nil
}

// reader gathers entries.
type reader struct {
	shard    uint32
	next, hi uint64
	budget   int // bytes left
	full     bool
	out      []Entry
}

// admit says whether an entry of n bytes still fits the budget.
func (r *reader) admit(n int) bool {
	if len(r.out) > 0 && n > r.budget {
		r.full = true
	}
	return !r.full
}

func (r *reader) take(e Entry) {
	r.out = append(r.out, e)
	r.budget -= len(e.Data)
	r.next++
}

// readSpan reads entries until the span or the budget ends.
func (r *reader) readSpan(s span) error {
	window := windows.Get().(*[]byte)
	defer windows.Put(window)
	sc := scanner{file: s.segment.file, size: s.end, seed: s.segment.seed, buf: *window}
	for offset := s.offset; r.next < s.until; {
		f, err := sc.header(offset)
		if err != nil {
			return s.segment.corrupt(offset, err.Error())
		}
		if f.kind == KindEntry && f.shard == r.shard && f.index >= r.next {
			if f.index != r.next {
				return s.segment.corrupt(offset, fmt.Sprintf("entry %d stands where %d should", f.index, r.next))
			}
			if !r.admit(int(f.length)) {
				return nil
			}
			data, err := sc.payload(offset, f)
			if err != nil {
				return s.segment.corrupt(offset, err.Error())
			}
			r.take(Entry{Index: f.index, Term: f.term, Type: f.typ, Data: data})
		}
		offset += f.size()
	}
	return nil
}

// corrupt describes damage met in a segment.
func (s *segment) corrupt(offset int64, reason string) *CorruptError {
	return &CorruptError{Segment: segmentName(s.sequence), Offset: offset, Reason: reason}
}

// payload reads and checks the payload of a frame into fresh memory.
func (s *scanner) payload(offset int64, f frame) ([]byte, error) {
	data := make([]byte, f.length)
	if err := s.read(data, offset+frameSize); err != nil {
		return nil, err
	}
	if crc32.Update(s.seed, castagnoli, data) != f.sum {
		return nil, errPayload
	}
	return data, nil
}
