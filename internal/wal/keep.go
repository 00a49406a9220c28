package wal

// Kept is the highest index up to which the shard's entries can be released so
// that those in the last size bytes of the log, of all shards together, stay
// readable. It names whole segments, so a little more is kept. It is 0 where
// nothing may go.
func (w *WAL) Kept(shard uint32, size int64) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.index.shards[shard]
	if s == nil || s.last == 0 {
		return 0
	}
	first := w.index.live[0].sequence
	for i, sum := len(w.index.live)-1, int64(0); i >= 0; i-- {
		if sum += w.index.live[i].end; sum >= size {
			first = w.index.live[i].sequence
			break
		}
	}
	for _, a := range s.anchors {
		if a.segment.sequence >= first {
			return max(a.index, 1) - 1
		}
	}
	if len(s.held) > 0 {
		return max(s.held[0].Index, 1) - 1
	}
	return s.last
}

// BytesAbove is how many bytes of the log, of all shards together, stand
// behind the place of the shard's entry index+1: what keeping the shard's
// entries above index costs. It is 0 when no file holds one.
func (w *WAL) BytesAbove(shard uint32, index uint64) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.index.shards[shard]
	if s == nil || index >= s.placed {
		return 0
	}
	a, _, ok := s.find(index + 1)
	if !ok {
		if len(s.anchors) == 0 {
			return 0
		}
		a = s.anchors[0]
	}
	n := -a.offset
	for _, seg := range w.index.live {
		if seg.sequence >= a.segment.sequence {
			n += seg.end
		}
	}
	return n
}
