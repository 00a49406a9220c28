package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tidings-io/tidings/internal/wal"
)

const (
	// windowMessages and windowBytes bound what is forwarded at once, the latter where
	// Options has nothing else; one message is always within them.
	windowMessages = 4096
	windowBytes    = 512 << 10
	// partitionsMax is how many partitions a topic can have upstream.
	partitionsMax = 4096
)

// newOrigin draws an origin.
func newOrigin() (o Origin) {
	rand.Read(o[:])
	return o
}

// window is a stretch of a topic's queue, read to be forwarded.
type window struct {
	from, to uint64
	most     int       // bytes of bodies
	msgs     []Message // of the positions
	names    [][]byte  // what decides on the partition of each; nil: nothing does
	bytes    int       // of the entries that end in it
	whole    uint64    // index of the last entry that ends in it, or was passed over; 0: none
	ns       int64     // when the last message was taken, unix
}

// window reads what comes next in a topic's queue: empty when all is upstream.
func (s *Spool) window(t *topic) (window, error) {
	s.state.Lock()
	w := window{from: t.floor, to: t.floor, most: s.o.Window}
	at, last, until := t.at, t.durableIndex, t.durable
	s.state.Unlock()
	for w.from < until && len(w.msgs) == 0 {
		if at > last {
			return w, fmt.Errorf("read spool of topic %s: position %d is missing", t.name, w.from)
		}
		entries, err := s.log.Entries(t.shard, at, last+1, w.most)
		if err != nil {
			return w, fmt.Errorf("read spool of topic %s: %w", t.name, err)
		}
		size := 0
		for i := range entries {
			e, err := readEntry(entries[i].Index, entries[i].Data)
			if err != nil {
				return w, fmt.Errorf("read spool of topic %s: %w", t.name, err)
			}
			if !w.take(&e, until, &size) {
				return w, nil
			}
		}
		at += uint64(len(entries))
	}
	return w, nil
}

// take adds what an entry has of the window's next positions; false when the window
// is at its end. What was moved stands twice: an entry may lie before the next
// position, or behind it while the copies before it are still to come.
func (w *window) take(e *entry, until uint64, size *int) bool {
	if e.from <= w.to && e.end() > w.to {
		// What was published together stays together, as broker.Publish keeps it.
		name := e.msgs[0].Key
		if name == nil {
			name = e.msgs[0].ID
		}
		for i, m := range e.msgs[w.to-e.from:] {
			if w.to == until || len(w.msgs) == windowMessages || len(w.msgs) > 0 && *size+len(m.Body) > w.most {
				if i > 0 {
					w.ns = e.ns
				}
				return false
			}
			w.msgs, w.names = append(w.msgs, m), append(w.names, name)
			*size += len(m.Body)
			w.to++
		}
		w.bytes += e.bytes
		w.ns = e.ns
	}
	w.whole = e.index
	return true
}

// advance notes that a window is upstream.
func (s *Spool) advance(t *topic, w *window) {
	s.state.Lock()
	t.floor = w.to
	t.oldest = w.ns // or later
	t.at = max(t.at, w.whole+1)
	t.unsaved += w.bytes
	if t.held -= w.bytes; t.floor == t.durable {
		t.held = 0
	}
	due := t.unsaved >= saveBytes
	s.state.Unlock()
	if due {
		s.save(t)
	}
}

// depth is how many messages of a topic can be forwarded.
func (s *Spool) depth(t *topic) uint64 {
	s.state.Lock()
	defer s.state.Unlock()
	return t.durable - t.floor
}

// progress is where a topic's queue stands, and over how many partitions the messages
// from floor on are spread; 0 where that is not known.
func (s *Spool) progress(t *topic) (floor, durable uint64, partitions int) {
	s.state.Lock()
	defer s.state.Unlock()
	return t.floor, t.durable, t.partitions
}

// spread makes it durable that what has floor and is behind it is spread over so many
// partitions. done is called once, on any goroutine.
func (s *Spool) spread(t *topic, partitions int, done func(error)) {
	s.hards.Lock()
	defer s.hards.Unlock()
	s.state.Lock()
	t.partitions = partitions
	h := t.hard()
	s.state.Unlock()
	s.log.Submit(wal.Append{Shard: t.shard, Hard: &h, Sync: true, Done: done})
}

// hard is what is remembered of the topic beside its entries. Spool.state is held.
func (t *topic) hard() wal.HardState {
	return wal.HardState{Term: 1, Vote: uint64(t.partitions), Commit: t.floor}
}

// save writes down how far forwarding has come, and lets go of the log below when
// that is durable: without it positions would be used twice.
func (s *Spool) save(t *topic) {
	s.hards.Lock()
	defer s.hards.Unlock()
	s.state.Lock()
	if t.saving || t.floor == t.saved {
		s.state.Unlock()
		return
	}
	h, below := t.hard(), t.at-1
	t.saving, t.saved, t.unsaved = true, t.floor, 0
	s.state.Unlock()
	s.log.Submit(wal.Append{Shard: t.shard, Hard: &h, Sync: true, Done: func(err error) {
		if err == nil {
			s.log.Release(t.shard, below)
		}
		s.state.Lock()
		t.saving = false
		s.state.Unlock()
	}})
}

// saveAll saves every topic that has come on.
func (s *Spool) saveAll() {
	for _, t := range s.all() {
		s.save(t)
	}
}

// tidy writes again, at the log's end, what little keeps the oldest segment of a log
// that is filling up: the names of topics, and the rest of those that can't be
// forwarded.
func (s *Spool) tidy() error {
	if s.used() < s.o.Size/4 {
		return nil
	}
	pins := s.log.Oldest()
	var pinned []*topic
	for _, t := range s.all() {
		if !slices.Contains(pins, t.shard) {
			continue
		}
		s.state.Lock()
		small := t.held <= s.movable()
		s.state.Unlock()
		if !small {
			return nil // it keeps the segment anyway
		}
		pinned = append(pinned, t)
	}
	if slices.Contains(pins, 0) {
		s.moveNames()
	}
	for _, t := range pinned {
		if err := s.move(t); err != nil {
			return err
		}
	}
	return nil
}

// moveNames writes all names again, as one entry.
func (s *Spool) moveNames() {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := append([]byte{format}, s.origin[:]...)
	byShard := make([]*topic, len(s.topics))
	for _, t := range s.topics {
		byShard[t.shard-1] = t
	}
	for _, t := range byShard {
		data = appendName(data, t.shard, t.name)
	}
	below := s.names
	s.names++
	s.log.Submit(wal.Append{Entries: []wal.Entry{{Index: s.names, Term: 1, Data: data}}, Sync: true, Done: func(err error) {
		if err == nil {
			s.log.Release(0, below)
		}
	}})
}

// move writes the rest of a topic again, if it is small: as one append, which is
// recovered whole or not at all, so that a topic's last entry always has its last
// position.
func (s *Spool) move(t *topic) error {
	s.state.Lock()
	at, last := t.at, t.durableIndex
	s.state.Unlock()
	if at > last {
		return nil
	}
	old, err := s.log.Entries(t.shard, at, last+1, s.movable())
	switch {
	case errors.Is(err, wal.ErrCompacted): // forwarded meanwhile
		return nil
	case err != nil:
		return fmt.Errorf("move topic %s: %w", t.name, err)
	case len(old) <= int(min(last-at, math.MaxInt32)):
		return nil // too large
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.last != last || s.closed {
		return nil // it is being published to: the next time
	}
	for i := range old {
		t.last++
		old[i].Index = t.last
	}
	first, end := old[0].Index, t.last
	s.log.Submit(wal.Append{Shard: t.shard, Entries: old, Sync: true, Done: func(err error) {
		if err != nil {
			return
		}
		s.state.Lock()
		t.at, t.durableIndex = max(t.at, first), max(t.durableIndex, end)
		s.state.Unlock()
		s.log.Release(t.shard, last)
	}})
	return nil
}
