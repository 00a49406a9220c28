package delivery

import (
	"bytes"
	"errors"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
)

// A message is spent when as many of its deliveries have ended as its channel allows,
// and nobody has finished it. No consumer gets it any more; it is held, so that it
// pins nothing, and keeps its attempts through the parked set: a lane that begins
// later finds it spent again. It leaves when who moves dead letters finishes it, or
// when the limit is raised.

// DeadLetter names a spent message.
type DeadLetter struct {
	Partition int32
	Offset    int64
	Attempts  uint16 // deliveries that it had
}

// SetMaxAttempts sets how often a message is delivered at most; 0: as often as it
// takes. What waits and has had so many deliveries is spent at once, what is in flight
// when its delivery ends; what has had fewer waits again.
func (c *Channel) SetMaxAttempts(n uint16) {
	c.mu.Lock()
	defer c.unlock()
	if c.maxAttempts == n {
		return
	}
	c.maxAttempts = n
	for _, l := range c.lanes {
		if !l.away() {
			l.limitChanged()
		}
	}
	c.ring()
}

// beyond reports whether the channel's limit forbids the delivery of that number.
func (c *Channel) beyond(number uint16) bool { return c.maxAttempts != 0 && number > c.maxAttempts }

// spend takes the message of slot i, which is in no list, out of what is delivered, if
// it has had all its attempts; false if it has not.
func (l *Lane) spend(i int32) bool {
	c := l.ch
	s := &c.slots.slots[i]
	if !c.beyond(s.attempts) {
		return false
	}
	s.state = stateSpent
	c.slots.pushBack(&l.spent, i)
	l.spentCount++
	l.hold(i)
	l.calls |= callSpent
	c.calls = true
	return true
}

// unspend takes slot i out of the list of spent ones.
func (l *Lane) unspend(i int32) {
	l.ch.slots.unlink(&l.spent, i)
	l.spentCount--
}

// limitChanged applies a new limit to what waits.
func (l *Lane) limitChanged() {
	c := l.ch
	l.table.each(func(i int32) {
		s := &c.slots.slots[i]
		switch beyond := c.beyond(s.attempts); {
		case s.state == stateReady && beyond:
			l.readyCount-- // its offset in the heap is stale now
			l.spend(i)
		case s.state == stateDue && beyond:
			c.slots.unlink(&l.due, i)
			l.dueCount--
			l.spend(i)
		case s.state == stateSpent && !beyond:
			l.unspend(i)
			l.makeReady(i)
		}
	})
	l.wantDue()
}

// DeadLetters lists up to n spent messages of each partition, those that are spent
// longest first.
func (c *Channel) DeadLetters(n int) []DeadLetter {
	var list []DeadLetter
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lanes {
		i := l.spent.head
		for k := 0; i != 0 && k < n; k++ {
			e := &c.slots.slots[i]
			list = append(list, DeadLetter{Partition: l.part, Offset: e.offset, Attempts: e.attempts - 1})
			i = e.next
		}
	}
	return list
}

// ReadDeadLetter returns the key (nil: none) and the body of a dead letter, the
// caller's own; ok is false for one that is not in the log any more, or damaged. With
// an error (fault.Storage; fault.NotLeader when the partition is not delivered from
// here any more) it may be there later. It reads files.
func (c *Channel) ReadDeadLetter(d DeadLetter) (key, body []byte, ok bool, err error) {
	c.mu.Lock()
	l := c.lane(d.Partition)
	if l == nil || l.away() {
		c.mu.Unlock()
		return nil, nil, false, fault.NotLeader
	}
	log := l.log
	c.mu.Unlock()
	batches, chunk, err := log.ReadChunk(nil, d.Offset, 1)
	defer chunk.Release()
	if corrupt, is := errors.AsType[*seglog.CorruptError](err); is && !corrupt.Mending {
		return nil, nil, false, nil
	}
	if err != nil {
		return nil, nil, false, fault.Wrap(fault.Storage, err)
	}
	if len(batches) == 0 {
		return nil, nil, false, nil
	}
	var r record.Record
	for it := record.Records(batches[0].Data); it.Next(&r); {
		if batches[0].Base+int64(r.Delta) == d.Offset {
			return bytes.Clone(r.Key), bytes.Clone(r.Value), true, nil
		}
	}
	return nil, nil, false, nil
}

// FinishDeadLetter finishes a dead letter: lost says that it could not be read, which
// counts as skipped. It changes nothing for one that is not spent any more.
func (c *Channel) FinishDeadLetter(d DeadLetter, lost bool) {
	c.mu.Lock()
	defer c.unlock()
	l := c.lane(d.Partition)
	if l == nil || l.away() {
		return
	}
	i := l.find(d.Offset)
	if i == 0 || c.slots.slots[i].state != stateSpent {
		return
	}
	if lost {
		c.skipped++
		l.warn("skip message that is not in the log", d.Offset, d.Offset, nil)
	} else {
		c.deadLettered++
	}
	l.unspend(i)
	l.finishSlot(i)
}
