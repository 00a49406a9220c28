package delivery

import (
	"math"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/plant"
)

// holds is what keeps a lane from delivering from the log what stands behind a
// barrier: the messages of a key behind it may have older ones in other partitions,
// which the channel has not finished. Whoever knows that it has calls Release.
//
// What was delivered before, and deferred messages whose time has come, are not held.
type holds struct {
	barriers []partition.Barrier // not released, by Count
	released uint32              // all barriers of so many partitions are
	told     bool                // Config.Held was called for this standing
}

// Standing is a lane that has come to a barrier, and that has more for a consumer
// whose window is open.
type Standing struct {
	Part  int32
	Count uint32 // of the barrier
}

// Raised adds a barrier. What stands behind it becomes visible after this call.
func (l *Lane) Raised(b partition.Barrier) {
	c := l.ch
	c.mu.Lock()
	if l.live && b.Count > l.released {
		l.barriers = append(l.barriers, b)
		c.held++
	}
	c.unlock()
}

// Release lets the lane deliver what stands behind the barriers of up to count
// partitions. It may come before the barriers do, and holds for all lanes that take
// the place of this one. Any goroutine may call it.
func (l *Lane) Release(count uint32) {
	c := l.ch
	c.mu.Lock()
	defer c.unlock()
	if count <= l.released {
		return
	}
	l.released = count
	l.setBarriers(l.barriers)
	if now := c.lane(l.part); now != nil && now != l {
		now.released = max(now.released, count)
		now.setBarriers(now.barriers)
	}
	c.ring()
}

// setBarriers replaces the barriers by those that are not released.
func (l *Lane) setBarriers(all []partition.Barrier) {
	was := l.standsAt()
	l.ch.held -= len(l.barriers)
	l.barriers = nil
	for i, b := range all {
		if b.Count > l.released {
			l.barriers = all[i:]
			break
		}
	}
	l.ch.held += len(l.barriers)
	l.told = l.told && l.standsAt() == was
}

// wall is the offset from which on the lane delivers nothing from the log.
func (l *Lane) wall() int64 {
	if len(l.barriers) == 0 || plant.On("barrier-ignored") {
		return math.MaxInt64
	}
	return l.barriers[0].Offset
}

// visible is the offset before which the lane may deliver from the log.
func (l *Lane) visible() int64 { return min(l.limit, l.wall()) }

// beforeHold is backlog without what stands behind a barrier. Like it, it may be less
// than that for a moment, and below 0.
func (l *Lane) beforeHold() int64 {
	hold := l.wall()
	if hold >= l.limit {
		return l.backlog()
	}
	if hold <= l.cursor {
		return 0
	}
	n := hold - l.cursor
	for _, r := range l.skip {
		if r.From >= hold {
			break
		}
		n -= min(r.To, hold) - r.From
	}
	if l.aheadCount > 0 {
		for _, o := range l.looseOffsets() {
			if o < hold && l.ch.slots.slots[l.loose.get(o)].flags&flagAhead != 0 {
				n--
			}
		}
	}
	return n
}

// stands reports whether the lane has come to a barrier and has something behind it
// that a consumer waits for.
func (l *Lane) stands() bool {
	c := l.ch
	return len(l.barriers) > 0 && l.live && !l.shut && l.wall() < l.limit && l.beforeHold() <= 0 && l.backlog() > 0 &&
		c.waiting.head != nil && !c.paused && c.closed == nil
}

// noteStanding has Config.Held called for the lanes that have begun to stand.
func (c *Channel) noteStanding() {
	if c.cfg.Held == nil {
		return
	}
	for _, l := range c.lanes {
		if !l.told && l.stands() {
			l.told = true
			l.calls |= callHeld
			c.calls = true
		}
	}
}

// Standing appends the lanes that stand at a barrier now. When one that Config.Held
// was called for is not among them, Held is called again when it stands once more.
func (c *Channel) Standing(dst []Standing) []Standing {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lanes {
		if l.told = l.stands(); l.told {
			dst = append(dst, Standing{Part: l.part, Count: l.standsAt()})
		}
	}
	return dst
}

// standsAt is the number of partitions of the barrier that the lane stands at.
func (l *Lane) standsAt() uint32 {
	if len(l.barriers) == 0 {
		return math.MaxUint32
	}
	return l.barriers[0].Count
}
