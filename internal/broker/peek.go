package broker

import (
	"context"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/seglog"
)

// PeekState says which messages of a channel are looked at.
type PeekState uint8

// The states.
const (
	PeekQueued   PeekState = iota // wait for a consumer: the next ones
	PeekInFlight                  // a consumer has them: nearest deadline first
	PeekDeferred                  // wait for their time: the earliest
)

// PeekMax is how many messages of a channel can be seen at most, of each state
// and partition.
const PeekMax = 1000

// Peeked is a message of a channel.
type Peeked struct {
	Partition   int32
	Offset      int64
	Attempts    uint16 // deliveries so far
	DueNs       int64  // of a deferred one, unix ns
	DeliveredNs int64  // of one in flight, unix ns
	DeadlineNs  int64  // of one in flight, unix ns
	Sub         *delivery.Subscription
}

// Peek lists up to n messages (at most PeekMax) of a channel in one state, as far
// as this node delivers them: with Peers those of the partitions that it leads,
// in the order of the state within each partition. No consumer notices.
func (b *Broker) Peek(ctx context.Context, topic, channel string, state PeekState, n int) ([]Peeked, error) {
	t, m, err := b.existingChannel(ctx, topic, channel)
	if err != nil {
		return nil, err
	}
	if t.away != nil {
		return nil, t.away
	}
	n = min(max(n, 0), PeekMax)
	c := t.lookup(channel)
	switch {
	case state == PeekInFlight && c == nil:
		return nil, nil
	case state == PeekInFlight:
		return peekInFlight(c, n), nil
	case state == PeekDeferred && (m == nil || t.mem != nil):
		return peekMemory(c, n), nil
	case state == PeekDeferred:
		return t.peekParked(ctx, m.ID, n)
	}
	var seen []int32
	var out []Peeked
	if c != nil {
		for _, w := range c.ch.Waiting(n) {
			seen = append(seen, w.Partition)
			out = peekWaiting(out, &w, n)
		}
	}
	if m == nil || t.mem != nil {
		return out, nil
	}
	return t.peekPositions(ctx, out, m.ID, seen, n)
}

func peekInFlight(c *channelInUse, n int) []Peeked {
	var out []Peeked
	for _, h := range c.ch.InFlight(n) {
		out = append(out, Peeked{
			Partition: h.Partition, Offset: h.Offset, Attempts: h.Attempts,
			DeliveredNs: h.DeliveredNs, DeadlineNs: h.DeadlineNs, Sub: h.Sub,
		})
	}
	return out
}

// peekMemory lists what is deferred in a channel that is written nowhere.
func peekMemory(c *channelInUse, n int) []Peeked {
	var out []Peeked
	if c == nil {
		return nil
	}
	for part, list := range c.ch.Deferred(n) {
		out = appendParked(out, part, list)
	}
	return out
}

func appendParked(out []Peeked, part int32, list []parked.Entry) []Peeked {
	for _, e := range list {
		out = append(out, Peeked{Partition: part, Offset: e.Offset, DueNs: e.DueNs, Attempts: e.Attempts})
	}
	return out
}

// peekParked lists what is deferred in a durable channel.
func (t *Topic) peekParked(ctx context.Context, id uint64, n int) (out []Peeked, err error) {
	for _, p := range t.parts() {
		var list []parked.Entry
		var bad error
		err = p.query(ctx, func(v *partition.View) {
			if t.b.counts(v) {
				list, bad = v.Parked(p.key, id, n)
			}
		})
		if err != nil {
			return out, err
		}
		if bad != nil {
			return out, bad
		}
		out = appendParked(out, p.key.Partition, list)
	}
	return out, nil
}

// peekPositions adds what waits on partitions where nothing delivers yet.
func (t *Topic) peekPositions(ctx context.Context, out []Peeked, id uint64, seen []int32, n int) ([]Peeked, error) {
	delivers := make(map[int32]bool, len(seen))
	for _, part := range seen {
		delivers[part] = true
	}
	for _, p := range t.parts() {
		if delivers[p.key.Partition] {
			continue
		}
		var at partition.Start
		var log *seglog.Log
		var known bool
		err := p.query(ctx, func(v *partition.View) {
			if t.b.counts(v) {
				at, known = v.Position(p.key, id)
				log = v.Log(p.key)
			}
		})
		if err != nil {
			return out, err
		}
		if !known || log == nil {
			continue
		}
		w := delivery.Waiting{Partition: p.key.Partition, Log: log, Cursor: at.Floor, Limit: at.Limit, Skip: at.Skip}
		before := len(out)
		out = peekWaiting(out, &w, n)
		for k := before; k < len(out); k++ {
			out[k].Attempts = at.Attempts[out[k].Offset]
		}
	}
	return out, nil
}

// peekWaiting adds up to n messages of one lane: those that come again, then
// those from the cursor on. Holes of the log are seen when the messages are read.
func peekWaiting(out []Peeked, w *delivery.Waiting, n int) []Peeked {
	for _, p := range w.Again {
		out = append(out, Peeked{Partition: w.Partition, Offset: p.Offset, Attempts: p.Attempts})
	}
	n -= len(w.Again)
	var skip offsets.Set
	for _, r := range w.Skip {
		skip.Add(r.From, r.To)
	}
	for o := skip.NextMissing(w.Cursor); n > 0 && o < w.Limit; o = skip.NextMissing(o + 1) {
		out = append(out, Peeked{Partition: w.Partition, Offset: o})
		n--
	}
	return out
}
