package nsqdata

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"iter"
	"slices"
)

// errChanged: what is read now was not there before.
var errChanged = errors.New("the folder changes while it is read")

// Limits bound a batch. One message is taken whatever its size.
type Limits struct {
	Messages int
	Bytes    int // of bodies
}

// Batch is messages with their places among those of the topic that channels have
// yet to get, or among those that wait in the topic.
type Batch struct {
	From     int64 // place of the first
	Bodies   [][]byte
	Channels []Share // of those that get any; none for what waits in the topic
}

// Share is what a channel gets of a batch, by the place in it.
type Share struct {
	Channel  string
	Finished []Range // what it does not get, rising
	Attempts []Attempt
}

// Range is From ≤ place < To.
type Range struct{ From, To int64 }

// Attempt says that the channel has delivered a message N times, N > 0.
type Attempt struct {
	Place int64
	N     uint16
}

// HandedBatches reads the messages that channels have yet to get, from a place on:
// each once, in the order of its channels' queues, and by time where those leave it
// open. A batch is valid until the next one. The order is the same each time.
func (s *Survey) HandedBatches(ctx context.Context, from int64, lim Limits) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		m := merge{s: s, given: make([]uint64, len(s.index)/64+1), shares: make([]share, len(s.Topic.Channels))}
		defer m.close()
		m.start()
		place := int64(0)
		for m.err == nil && ctx.Err() == nil {
			g, body, ok := m.next()
			if !ok {
				break
			}
			if place++; place <= from {
				continue
			}
			m.add(g, body, place-1)
			if m.full(lim) && !yield(m.flush(), nil) {
				return
			}
		}
		m.end(ctx, yield)
	}
}

// TopicalBatches reads the messages that wait in the topic, as HandedBatches does.
func (s *Survey) TopicalBatches(ctx context.Context, from int64, lim Limits) iter.Seq2[*Batch, error] {
	return func(yield func(*Batch, error) bool) {
		m := merge{s: s, given: make([]uint64, len(s.index)/64+1)}
		r := s.Topic.Queue.reader()
		defer r.close()
		var rec Record
		place := int64(0)
		for ctx.Err() == nil && r.next(&rec) {
			at, found := s.find(entryOf(&rec))
			if !found {
				m.err = errChanged
				break
			}
			if s.index[at].queue != inTopic || !m.give(at) {
				continue
			}
			if place++; place <= from {
				continue
			}
			m.add(nil, rec.Body, place-1)
			if m.full(lim) && !yield(m.flush(), nil) {
				return
			}
		}
		m.err = errors.Join(m.err, r.err)
		m.end(ctx, yield)
	}
}

// merge is a walk over the queues of a topic's channels.
type merge struct {
	s      *Survey
	given  []uint64 // bits, by the place of a message's first entry
	queues []*head  // by channel
	heads  heads    // those that have not ended
	shares []share  // by channel
	body   []byte   // of what next returned
	err    error

	// The batch that is being filled.
	from int64
	data []byte
	ends []int // of the bodies in data
}

// head is a queue with its next record that was not given.
type head struct {
	queue int
	r     *reader
	rec   Record
	at    int // the place of its first entry; -1 at the queue's end
	slot  int // in the heap
}

// share is a Share that grows.
type share struct {
	Share
	end  int64 // what is below is settled
	used bool
}

func (m *merge) start() {
	for i, c := range m.s.Topic.Channels {
		h := &head{queue: i, r: c.Queue.reader()}
		m.queues = append(m.queues, h)
		if m.advance(h) {
			heap.Push(&m.heads, h)
		}
	}
}

// advance reads a queue's next record that was not given; false at its end.
func (m *merge) advance(h *head) bool {
	for m.err == nil && h.r.next(&h.rec) {
		var found bool
		if h.at, found = m.s.find(entryOf(&h.rec)); !found {
			m.err = errChanged
		} else if !m.was(h.at) {
			return true
		}
	}
	h.at = -1
	h.r.close()
	if m.err == nil {
		m.err = h.r.err
	}
	return false
}

func (m *merge) close() {
	for _, h := range m.queues {
		h.r.close()
	}
}

// next is the next message: all its entries, and its body, which is valid until the
// next call.
func (m *merge) next() (g []entry, body []byte, ok bool) {
	if len(m.heads) == 0 || m.err != nil {
		return nil, nil, false
	}
	h := m.choose()
	m.body = append(m.body[:0], h.rec.Body...)
	at := h.at
	m.give(at)
	g = m.s.group(at)
	for _, e := range g {
		if e.queue == inTopic || m.queues[e.queue].at != at {
			continue
		}
		if q := m.queues[e.queue]; m.advance(q) {
			heap.Fix(&m.heads, q.slot)
		} else {
			heap.Remove(&m.heads, q.slot)
		}
	}
	return g, m.body, m.err == nil
}

// choose is the queue whose next message comes next: the earliest of those that come
// next in all their queues, so that each queue keeps its order. When the queues
// contradict each other, it is the earliest.
func (m *merge) choose() *head {
	best := m.heads[0]
	if m.free(best) {
		return best
	}
	var free *head
	for _, h := range m.heads {
		if (free == nil || h.before(free)) && m.free(h) {
			free = h
		}
	}
	if free != nil {
		return free
	}
	return best
}

// free reports whether a queue's next message comes next in all queues that have it.
func (m *merge) free(h *head) bool {
	for _, e := range m.s.group(h.at) {
		if e.queue != inTopic && m.queues[e.queue].at != h.at {
			return false
		}
	}
	return true
}

// heads is a heap: the earliest is the first.
type heads []*head

func (h heads) Len() int           { return len(h) }
func (h heads) Less(i, j int) bool { return h[i].before(h[j]) }
func (h heads) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].slot, h[j].slot = i, j }

// Push implements heap.Interface.
func (h *heads) Push(x any) {
	x.(*head).slot = len(*h)
	*h = append(*h, x.(*head))
}

// Pop implements heap.Interface.
func (h *heads) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// was reports whether a message was given.
func (m *merge) was(at int) bool { return m.given[at/64]&(1<<(at%64)) != 0 }

// give marks a message; false if it was.
func (m *merge) give(at int) bool {
	fresh := !m.was(at)
	m.given[at/64] |= 1 << (at % 64)
	return fresh
}

func (h *head) before(o *head) bool {
	if c := cmp.Compare(h.rec.Timestamp, o.rec.Timestamp); c != 0 {
		return c < 0
	}
	if c := bytes.Compare(h.rec.ID[:], o.rec.ID[:]); c != 0 {
		return c < 0
	}
	return h.queue < o.queue
}

// add puts a message into the batch. Of one that waits in the topic as well as in a
// channel's queue, nobody knows whether the other channels were given it: all get it.
func (m *merge) add(g []entry, body []byte, place int64) {
	if len(m.ends) == 0 {
		m.from = place
	}
	i := int64(len(m.ends))
	m.data = append(m.data, body...)
	m.ends = append(m.ends, len(m.data))
	if len(g) > 0 && g[len(g)-1].queue == inTopic {
		for c := range m.shares {
			m.shares[c].get(i, 0)
		}
	}
	for _, e := range g {
		if e.queue != inTopic {
			m.shares[e.queue].get(i, e.attempts)
		}
	}
}

// get says that the channel gets a message; it may be said twice.
func (s *share) get(i int64, attempts uint16) {
	s.used = true
	if i >= s.end {
		if i > s.end {
			s.Finished = append(s.Finished, Range{s.end, i})
		}
		s.end = i + 1
	}
	if attempts == 0 {
		return
	}
	if n := len(s.Attempts); n > 0 && s.Attempts[n-1].Place == i {
		s.Attempts[n-1].N = max(s.Attempts[n-1].N, attempts)
		return
	}
	s.Attempts = append(s.Attempts, Attempt{i, attempts})
}

func (m *merge) full(lim Limits) bool {
	return len(m.ends) >= lim.Messages || len(m.data) >= lim.Bytes
}

// flush makes the batch whole and begins the next one with the next add.
func (m *merge) flush() *Batch {
	b := &Batch{From: m.from}
	from := 0
	for _, end := range m.ends {
		b.Bodies = append(b.Bodies, m.data[from:end:end])
		from = end
	}
	n := int64(len(b.Bodies))
	for i := range m.shares {
		s := &m.shares[i]
		if !s.used {
			continue
		}
		if s.end < n {
			s.Finished = append(s.Finished, Range{s.end, n})
		}
		s.Channel = m.s.Topic.Channels[i].Name
		b.Channels = append(b.Channels, Share{s.Channel, slices.Clone(s.Finished), slices.Clone(s.Attempts)})
		s.Finished, s.Attempts, s.end, s.used = s.Finished[:0], s.Attempts[:0], 0, false
	}
	m.data, m.ends = m.data[:0], m.ends[:0]
	return b
}

// end gives the last batch, or what went wrong.
func (m *merge) end(ctx context.Context, yield func(*Batch, error) bool) {
	if m.err == nil {
		m.err = ctx.Err()
	}
	switch {
	case m.err != nil:
		yield(nil, m.err)
	case len(m.ends) > 0:
		yield(m.flush(), nil)
	}
}
