package partition

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
)

// channel is a channel's position on one partition.
type channel struct {
	id uint64
	// ephemeral: only id and existence are replicated; floor is where it began.
	ephemeral bool
	epoch     int64 // rises with Empty; a delta of another epoch is ignored
	// floor is the lowest offset neither finished nor parked.
	floor int64
	// ranges are the offsets above the floor that are finished or parked;
	// all below the partition's hand-over cursor.
	ranges offsets.Set
	// attempts holds only offsets ≥ floor outside of ranges; nil when empty.
	attempts map[int64]uint16
	// parked is nil until something is parked for the first time.
	parked *parked.Set

	// Local to this node.

	lane *attachment // nil: not attached
	// missed is how many of the messages that this node counts the partition had
	// given to channels before this one was made.
	missed int64
	// pinned: an ephemeral channel that was made under this leadership, and
	// whose floor therefore holds the log.
	pinned bool
	saved  *savedSet // nil as long as parked is
}

// finish takes from ≤ o < to out of what is to be delivered.
func (c *channel) finish(from, to int64) {
	from = max(from, c.floor)
	if from >= to {
		return
	}
	c.ranges.Add(from, to)
	c.floor = c.ranges.AdvanceFloor(c.floor)
	if len(c.attempts) == 0 {
		return
	}
	if to-from < int64(len(c.attempts)) {
		for o := from; o < to; o++ {
			delete(c.attempts, o)
		}
		return
	}
	maps.DeleteFunc(c.attempts, func(o int64, _ uint16) bool { return from <= o && o < to })
}

// has reports whether a message below the limit is still to be delivered: it
// waits in the log, or is parked.
func (c *channel) has(offset int64) bool {
	return offset >= c.floor && !c.ranges.Contains(offset) || c.parked != nil && c.parked.PinnedIn(offset, offset)
}

// note keeps the number of attempts of a message that stays in the log.
func (c *channel) note(a Attempt, limit int64) {
	if a.Offset < c.floor || a.Offset >= limit || c.ranges.Contains(a.Offset) {
		return
	}
	if c.attempts == nil {
		c.attempts = make(map[int64]uint16)
	}
	c.attempts[a.Offset] = a.N
}

// empty finishes all below limit, and what is parked.
func (c *channel) empty(limit int64) {
	c.epoch++
	c.floor = max(c.floor, limit)
	c.ranges.Clear()
	c.attempts = nil
}

// startOf describes a channel to its lane.
func (p *partition) startOf(c *channel) Start {
	s := Start{
		Epoch:    c.epoch,
		Floor:    c.floor,
		Limit:    p.handOver,
		Skip:     slices.Clone(c.ranges.Ranges()),
		Attempts: maps.Clone(c.attempts),
	}
	if !c.ephemeral {
		s.Barriers = slices.Clone(p.mapping.barriers)
	}
	return s
}

// needs is the lowest offset that the channel holds in this node's log, given
// the floor that is replicated; false when it holds none here.
func (c *channel) needs() (int64, bool) {
	switch {
	case !c.ephemeral:
		return c.floor, true
	case c.lane != nil:
		return c.lane.lane.Floor(), true
	}
	return c.floor, c.pinned
}

// append writes the replicated state of the channel; what is parked is
// written apart.
func (c *channel) append(buf []byte) []byte {
	buf = binary.AppendUvarint(buf, c.id)
	buf = append(buf, bit(c.ephemeral, flagEphemeral))
	buf = binary.AppendUvarint(buf, uint64(c.epoch))
	buf = binary.AppendUvarint(buf, uint64(c.floor))
	buf = c.ranges.Append(buf)
	buf = binary.AppendUvarint(buf, uint64(len(c.attempts)))
	if len(c.attempts) == 0 {
		return buf
	}
	last := int64(0)
	for _, o := range slices.Sorted(maps.Keys(c.attempts)) {
		buf = binary.AppendUvarint(buf, uint64(o-last))
		buf = binary.AppendUvarint(buf, uint64(c.attempts[o]))
		last = o
	}
	return buf
}

// channel reads what channel.append wrote.
func (r *reader) channel() *channel {
	c := &channel{id: r.uvarint(), ephemeral: r.flags(flagEphemeral) != 0, epoch: r.length(), floor: r.length()}
	if r.bad {
		return c
	}
	var err error
	if c.ranges, r.b, err = offsets.Decode(r.b); err != nil {
		r.fail()
	}
	n := r.count(2)
	if n > 0 {
		c.attempts = make(map[int64]uint16, n)
	}
	last := int64(0)
	for range n {
		last += r.length()
		c.attempts[last] = r.attempts()
	}
	return c
}
