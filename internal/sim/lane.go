package sim

import (
	"slices"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/seglog"
)

// lane is the simulator's partition.Lane: a client that takes messages from
// the log and the parked set, and finishes, requeues and parks them in any
// order it likes.
type lane struct {
	sim *Sim
	m   *partition.Machine
	c   *chanModel
	log *seglog.Log // nil until the first Step after the attach

	begun, stopped bool
	cursor, limit  int64
	skip           offsets.Set
	flight         []delivery
	due            []parked.Entry // taken, and not yet read from the log
	wants          bool           // was offered more than it took

	// what Collect will report
	finished []offsets.Range
	parked   []parked.Entry
	unparked []int64
	attempts []partition.Attempt

	ended   []int64 // all that was finished
	batches []seglog.Batch
}

// delivery is a message in flight.
type delivery struct {
	offset   int64
	attempts uint16
	parked   bool // it came from the parked set
}

// window is how many messages a lane has in flight.
func (l *lane) window() int {
	if l.sim.draining {
		return 1 << 20
	}
	return l.sim.o.window
}

// Begin implements partition.Lane.
func (l *lane) Begin(s partition.Start) {
	l.begun = true
	l.take(s)
}

// take sets the lane to where its channel stands.
func (l *lane) take(s partition.Start) {
	l.cursor, l.limit = s.Floor, s.Limit
	l.skip.Clear()
	for _, r := range s.Skip {
		l.skip.Add(r.From, r.To)
	}
	if l.sim.node.applying {
		return // the model is at the end of the entry already
	}
	c := l.c
	if !slices.Equal(s.Barriers, c.part.barriers) {
		l.sim.failf("channel %d begins with barriers %v; it should with %v", c.id, s.Barriers, c.part.barriers)
	}
	if s.Floor != c.floor || s.Limit != c.part.handOver || s.Epoch != c.epoch || len(s.Attempts) != len(c.attempts) {
		l.sim.failf("channel %d begins at %d of %d in epoch %d with %d attempts; it should at %d of %d in epoch %d with %d",
			c.id, s.Floor, s.Limit, s.Epoch, len(s.Attempts), c.floor, c.part.handOver, c.epoch, len(c.attempts))
	}
	for o, n := range s.Attempts {
		if c.attempts[o] != n {
			l.sim.failf("channel %d begins with %d attempts of %d; there were %d", c.id, n, o, c.attempts[o])
		}
	}
	for o := s.Floor; o < s.Limit; o++ {
		if l.skip.Contains(o) != (c.flag(o)&done != 0) {
			l.sim.failf("channel %d begins with offset %d done: %v", c.id, o, l.skip.Contains(o))
		}
	}
}

// Limit implements partition.Lane.
func (l *lane) Limit(limit int64) {
	if limit < l.limit || limit > l.c.part.handOver {
		l.sim.failf("channel %d: limit %d behind %d, hand-over %d", l.c.id, limit, l.limit, l.c.part.handOver)
	}
	l.limit = limit
}

// Raised implements partition.Lane.
func (l *lane) Raised(b partition.Barrier) {
	if !slices.Contains(l.c.part.barriers, b) || b.Offset < l.limit {
		l.sim.failf("channel %d is told of a barrier %v at limit %d; those of its partition are %v", l.c.id, b, l.limit, l.c.part.barriers)
	}
}

// Skip implements partition.Lane.
func (l *lane) Skip(from, to int64) { l.skip.Add(from, to) }

// Due implements partition.Lane.
func (l *lane) Due(es []parked.Entry) (taken int) {
	taken = min(len(es), max(0, l.window()-len(l.flight)-len(l.due)))
	l.wants = taken < len(es)
	for _, e := range es[:taken] {
		if e.DueNs > l.sim.now {
			l.sim.failf("channel %d: offset %d is offered at %d, before it is due at %d", l.c.id, e.Offset, l.sim.now, e.DueNs)
		}
		if l.pending(e.Offset) {
			continue
		}
		if want, ok := l.c.parked[e.Offset]; !ok || want != e {
			l.sim.failf("channel %d is offered %+v; parked is %+v", l.c.id, e, want)
		}
		l.due = append(l.due, e)
	}
	return taken
}

// pending reports whether the offset stands in the next report.
func (l *lane) pending(o int64) bool {
	for _, e := range l.parked {
		if e.Offset == o {
			return true
		}
	}
	for _, u := range l.unparked {
		if u == o {
			return true
		}
	}
	return false
}

// Reset implements partition.Lane.
func (l *lane) Reset(s partition.Start) {
	l.flight, l.due, l.wants = l.flight[:0], l.due[:0], true
	l.finished, l.parked, l.unparked, l.attempts = l.finished[:0], l.parked[:0], l.unparked[:0], l.attempts[:0]
	l.take(s)
}

// Collect implements partition.Lane.
func (l *lane) Collect(d *partition.Delta) (more bool) {
	left := l.sim.o.deltaMax
	d.Finished, l.finished = move(d.Finished, l.finished, &left)
	d.Parked, l.parked = move(d.Parked, l.parked, &left)
	d.Unparked, l.unparked = move(d.Unparked, l.unparked, &left)
	d.Attempts, l.attempts = move(d.Attempts, l.attempts, &left)
	return l.dirty()
}

// move takes at most *left items from the front of src.
func move[T any](dst, src []T, left *int) (to, rest []T) {
	n := min(len(src), *left)
	*left -= n
	dst = append(dst, src[:n]...)
	return dst, src[:copy(src, src[n:])]
}

// dirty reports whether there is something to report.
func (l *lane) dirty() bool {
	return len(l.finished)+len(l.parked)+len(l.unparked)+len(l.attempts) > 0
}

// Stop implements partition.Lane.
func (l *lane) Stop(error) {
	l.stopped = true
	if l.c.lane == l {
		l.c.lane = nil
	}
}

// Floor implements partition.Lane.
func (l *lane) Floor() int64 { return l.cursor }

// pump takes up to n messages from the log, after those that are due.
func (l *lane) pump(n int) {
	from, to := int64(0), int64(-1) // offsets of the batch read last
	for len(l.due) > 0 {
		e := l.due[0]
		if e.Offset < from || e.Offset > to {
			from, to = e.Offset, l.read(e.Offset, 1)
		}
		l.due = l.due[1:]
		l.sim.count(DueDelivered, 1)
		l.deliver(delivery{offset: e.Offset, attempts: e.Attempts + 1, parked: true})
	}
	for n > 0 && len(l.flight) < l.window() {
		l.cursor = l.skip.NextMissing(l.cursor)
		if l.cursor >= l.limit {
			return
		}
		n -= l.pumpOnce(n)
	}
}

// pumpOnce takes messages out of what one read returns.
func (l *lane) pumpOnce(n int) (took int) {
	last := l.read(l.cursor, 1+l.sim.rng.IntN(8<<10))
	for l.cursor <= last && l.cursor < l.limit && took < n && len(l.flight) < l.window() {
		o := l.cursor
		l.cursor++
		if l.skip.Contains(o) {
			continue
		}
		took++
		if l.c.flag(o)&done != 0 || o < l.c.floor {
			l.sim.failf("channel %d: offset %d comes again although it is done", l.c.id, o)
		}
		if due := l.c.part.dueOf(o); due > l.sim.now {
			l.park(parked.Entry{Offset: o, DueNs: due})
			continue
		}
		l.deliver(delivery{offset: o, attempts: l.c.attempts[o] + 1})
	}
	return took
}

// read reads and checks the batch that holds an offset and those that follow,
// and returns the last offset.
func (l *lane) read(o int64, maxBytes int) (last int64) {
	batches, chunk, err := l.log.ReadChunk(l.batches[:0], o, maxBytes)
	defer chunk.Release()
	l.batches = batches
	l.sim.check("read topic", err)
	last = l.sim.holds(l.c.part, l.batches, o)
	clear(l.batches)
	return last
}

// deliver gives a message to the client.
func (l *lane) deliver(d delivery) {
	c := l.c
	if due := c.part.dueOf(d.offset); due > l.sim.now {
		l.sim.failf("channel %d: offset %d is delivered at %d, before it is due at %d", c.id, d.offset, l.sim.now, due)
	}
	if c.flag(d.offset)&delivered != 0 {
		l.sim.count(Redelivered, 1)
	}
	c.set(d.offset, delivered)
	l.flight = append(l.flight, d)
	l.sim.note(evDeliver, int64(c.id), d.offset, int64(d.attempts))
}

// remove takes a delivery out of flight.
func (l *lane) remove(i int) delivery {
	d := l.flight[i]
	last := len(l.flight) - 1
	l.flight[i] = l.flight[last]
	l.flight = l.flight[:last]
	for i, a := range l.attempts {
		if a.Offset == d.offset {
			l.attempts = append(l.attempts[:i], l.attempts[i+1:]...)
			break
		}
	}
	return d
}

// finish ends a delivery.
func (l *lane) finish(i int) {
	d := l.remove(i)
	l.c.set(d.offset, finished)
	l.ended = append(l.ended, d.offset)
	if d.parked {
		l.unparked = append(l.unparked, d.offset)
	} else if n := len(l.finished); n > 0 && l.finished[n-1].To == d.offset {
		l.finished[n-1].To++
	} else {
		l.finished = append(l.finished, offsets.Range{From: d.offset, To: d.offset + 1})
	}
	l.m.Dirty(l)
}

// finishedIsDone checks that the channel knows all that was finished, once
// everything is reported.
func (l *lane) finishedIsDone() {
	for _, o := range l.ended {
		if !l.c.settled(o) {
			l.sim.failf("channel %d: offset %d was finished, and is not after the lanes have reported", l.c.id, o)
		}
	}
}

// requeue puts a message back, to come again later, or at once with one more
// attempt.
func (l *lane) requeue(i int, delay int64) {
	if delay > 0 {
		d := l.remove(i)
		l.park(parked.Entry{Offset: d.offset, DueNs: l.sim.now + delay, Attempts: d.attempts})
		return
	}
	d := l.remove(i)
	if !d.parked {
		l.attempts = append(l.attempts, partition.Attempt{Offset: d.offset, N: d.attempts})
		l.m.Dirty(l)
	}
	d.attempts++
	l.flight = append(l.flight, d)
}

// park puts a message aside.
func (l *lane) park(e parked.Entry) {
	l.c.set(e.Offset, putAside)
	l.c.aside[e.Offset] = e.DueNs
	l.parked = append(l.parked, e)
	l.m.Dirty(l)
}

// idle reports whether the lane has nothing left to do for now.
func (l *lane) idle() bool {
	return len(l.flight)+len(l.due) == 0 && !l.dirty() && l.skip.NextMissing(l.cursor) >= l.limit
}
