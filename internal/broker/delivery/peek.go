package delivery

import (
	"cmp"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
)

// Held is a message that a consumer has in flight.
type Held struct {
	Partition   int32
	Offset      int64
	Attempts    uint16 // number of this delivery
	DeliveredNs int64  // unix ns
	DeadlineNs  int64  // unix ns; when the delivery times out
	Sub         *Subscription
}

// InFlight returns up to n messages that consumers hold, nearest deadline
// first. It looks at the n nearest of each consumer, at most 16 n altogether.
func (c *Channel) InFlight(n int) []Held {
	var list []Held
	c.mu.Lock()
	for _, s := range c.subs {
		if s == nil {
			continue
		}
		i := s.inFlight.head
		for k := 0; i != 0 && k < n && len(list) < 16*n; k++ {
			e := &c.slots.slots[i]
			list = append(list, Held{
				Partition: c.lanes[e.lane].part, Offset: e.offset, Attempts: e.attempts,
				DeliveredNs: e.delivered, DeadlineNs: e.deadline, Sub: s,
			})
			i = e.next
		}
	}
	c.mu.Unlock()
	slices.SortFunc(list, func(a, b Held) int { return cmp.Compare(a.DeadlineNs, b.DeadlineNs) })
	return list[:min(n, len(list))]
}

// Place is a message that waits for a consumer.
type Place struct {
	Offset   int64
	Attempts uint16 // deliveries so far
}

// Waiting is what waits for a consumer in one lane.
type Waiting struct {
	Partition int32
	Log       Log
	// Again were delivered before, or deferred, by offset: they go first.
	Again []Place
	// From Cursor to below Limit wait all messages but those in Skip.
	Cursor, Limit int64
	Skip          []offsets.Range
}

// maxSkips bounds the ranges of a Waiting.
const maxSkips = 4096

// Waiting tells what waits in every lane that delivers, up to n of Again each.
func (c *Channel) Waiting(n int) []Waiting {
	var list []Waiting
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lanes {
		if !l.live {
			continue
		}
		w := Waiting{Partition: l.part, Log: l.log, Cursor: l.cursor, Limit: l.limit}
		w.Skip = slices.Clone(l.skip[:min(len(l.skip), maxSkips)])
		l.table.each(func(i int32) {
			if e := &c.slots.slots[i]; e.state == stateReady || e.state == stateDue {
				w.Again = append(w.Again, Place{Offset: e.offset, Attempts: max(e.attempts, 1) - 1})
			}
		})
		slices.SortFunc(w.Again, func(a, b Place) int { return cmp.Compare(a.Offset, b.Offset) })
		w.Again = w.Again[:min(n, len(w.Again))]
		list = append(list, w)
	}
	return list
}

// Front is the lowest unfinished message of a lane that is not deferred.
type Front struct {
	Partition int32
	Log       Log
	Offset    int64
}

// Fronts tells the lowest unfinished message of every lane that has one: in
// flight or waiting, whether it is in the log's order or was parked. It costs a
// look at each message in flight.
func (c *Channel) Fronts() []Front {
	var list []Front
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lanes {
		if !l.live || l.depth() == 0 && l.table.empty() {
			continue
		}
		low := l.cursor
		if l.backlog() <= 0 {
			low = -1
		}
		if o, ok := l.table.lowestOpen(l.cursor); ok {
			low = o // all open ones are below the cursor
		}
		if l.held > 0 {
			l.table.each(func(i int32) {
				if o := c.slots.slots[i].offset; low < 0 || o < low {
					low = o
				}
			})
		}
		if low >= 0 {
			list = append(list, Front{Partition: l.part, Log: l.log, Offset: low})
		}
	}
	return list
}

// Deferred returns up to n messages that wait for their time, earliest first,
// by partition: those of lanes that are written nowhere. A durable channel's are
// in its shards.
func (c *Channel) Deferred(n int) map[int32][]parked.Entry {
	out := make(map[int32][]parked.Entry)
	c.mu.Lock()
	lanes := slices.Clone(c.lanes)
	c.mu.Unlock()
	for _, l := range lanes {
		if m, ok := l.shard.(*Memory); ok {
			if list := m.deferred(l, n); len(list) > 0 {
				out[l.part] = list
			}
		}
	}
	return out
}

// Log is the lane's log.
func (c *Channel) Log(part int32) Log {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.lane(part); l != nil {
		return l.log
	}
	return nil
}

// deferred is the first n of what is deferred for the lane.
func (m *Memory) deferred(l *Lane, n int) []parked.Entry {
	m.mu.Lock()
	ml := m.lanes[l]
	if ml == nil {
		m.mu.Unlock()
		return nil
	}
	list := slices.Clone([]parked.Entry(ml.waiting))
	m.mu.Unlock()
	slices.SortFunc(list, func(a, b parked.Entry) int {
		return cmp.Or(cmp.Compare(a.DueNs, b.DueNs), cmp.Compare(a.Offset, b.Offset))
	})
	return list[:min(n, len(list))]
}
