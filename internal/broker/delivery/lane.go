package delivery

import (
	"sync/atomic"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
)

// limits are the bounds of one lane.
type limits struct {
	// ring is how far below the cursor a message may stay in the table's ring;
	// a power of two. What falls behind is held.
	ring int
	// old is how many messages that fell behind may be in flight or ready;
	// beyond it the cursor stands still.
	old int
	// due is how many due messages of the parked set wait for a consumer.
	due int64
	// gaps is how many finished ranges there may be above the floor; beyond it
	// the lowest unfinished messages are held until half of them are left.
	gaps int
}

// defaultLimits are everybody's; tests take smaller ones.
var defaultLimits = limits{ring: 64 << 10, old: 64 << 10, due: 1024, gaps: 8 << 10}

// What Lane.calls asks of the shard.
const (
	callDirty uint8 = 1 << iota
	callWanted
	callSpent // Config.Spent, rather
	callHeld  // Config.Held
)

var _ partition.Lane = (*Lane)(nil)

// Lane is a channel's side of one partition. The methods of partition.Lane
// are called on the shard loop; they take the channel's lock for a moment.
type Lane struct {
	ch    *Channel
	log   Log
	shard Shard
	part  int32
	index int32 // in Channel.lanes
	fresh bool  // the first Begin counts what waits into MessageCount

	// remote: the partition is led by another node; what follows but relay, loose and
	// ops is not used. Never changes.
	remote bool

	// Guarded by Channel.mu.
	live   bool // between Begin and Stop
	begun  bool // Begin was called
	shut   bool // nothing is delivered before Open
	dead   bool // another lane has its place
	calls  uint8
	table  table
	gather gather

	cursor  int64 // the next offset to deliver for the first time
	limit   int64 // messages below it are visible
	skip    []offsets.Range
	skipped int64            // offsets in skip
	numbers map[int64]uint16 // number of the next delivery, of offsets at or above the cursor, where it is not 1

	ahead    *readAhead // nil: nothing was read since there is a consumer
	loading  bool       // a Take is reading the log without the lock
	readSize int        // bytes to read next
	gen      uint32     // rises when a read under way is of no use any more
	retryAt  int64      // unix ns until which a failed log is left alone; 0: it works

	ready      offsetHeap
	readyCount int64 // slots in stateReady; the heap may hold stale offsets too
	due        slotList
	dueCount   int64
	refused    bool // Due took less than it was given
	spent      slotList
	spentCount int64

	held    int64 // slots with flagParked
	heldDue int64 // DueNs of what this lane parked while it holds it

	holds
	relay *Relay // to the leader, of a remote lane; nil: nobody is known to lead
	looseSlots
}

// readAhead is what a lane has read of its log and not delivered yet. Most
// lanes of a node with very many channels have none.
type readAhead struct {
	loaded  []seglog.Batch // what the log returned, from batch on
	batch   int
	chunk   *seglog.Chunk // where loaded stands; nil: in memory of its own
	records record.Iter   // over loaded[batch], if reading
	record  record.Record
	reading bool
	peeked  bool // record holds the record that comes next
}

// ended reports whether nothing is left of it.
func (r *readAhead) ended() bool { return r == nil || r.batch >= len(r.loaded) }

// letGo gives back what was read, but not what subscriptions keep of it.
func (r *readAhead) letGo() {
	clear(r.loaded[min(r.batch, len(r.loaded)):])
	r.loaded, r.batch = r.loaded[:0], 0
	r.reading, r.peeked = false, false
	r.chunk.Release()
	r.chunk = nil
}

// Begin starts the lane: this node leads, and delivers from st on.
func (l *Lane) Begin(st partition.Start) {
	c := l.ch
	l.restart(func() {
		if l.dead {
			return
		}
		l.heldDue = heldMark(c.now())
		l.begin(st)
		l.live = true
		if l.fresh {
			c.messages += uint64(max(l.backlog(), 0))
			l.fresh = false
		}
	})
}

// restart runs fn, which calls reset, under the lock; what a Memory has
// deferred for the lane is forgotten with it.
func (l *Lane) restart(fn func()) {
	c := l.ch
	if m, ok := l.shard.(*Memory); ok {
		m.forget(l)
	} else {
		c.mu.Lock()
	}
	fn()
	c.ring()
	c.unlock()
}

// Reset is Empty: everything in flight, requeued and due is forgotten, and
// answers to it fail.
func (l *Lane) Reset(st partition.Start) {
	l.restart(func() {
		if !l.dead {
			l.ch.messages += uint64(max(st.Limit-l.limit, 0))
			if l.ch.cfg.Emptied != nil {
				l.ch.cfg.Emptied(l.part, st.Floor)
			}
		}
		l.reset(st)
		l.emptied = st.Floor
	})
}

// Limit moves the visible end.
func (l *Lane) Limit(limit int64) {
	c := l.ch
	c.mu.Lock()
	if limit > l.limit && l.live {
		c.messages += uint64(max(limit-max(l.limit, l.cursor), 0))
		l.limit = limit
		l.dropLag()
		c.ring()
	}
	c.unlock()
}

// Skip takes the offsets from ≤ o < to out of what the cursor will deliver:
// they were parked or finished at apply.
func (l *Lane) Skip(from, to int64) {
	c := l.ch
	c.mu.Lock()
	from = max(from, l.cursor)
	if from < to {
		l.passLoose(from, to)
		l.addSkip(offsets.Range{From: from, To: to})
	}
	c.unlock()
}

// Due brings messages of the parked set whose time has come, and returns how
// many of them, from the first on, the lane has taken.
func (l *Lane) Due(es []parked.Entry) (taken int) {
	c := l.ch
	c.mu.Lock()
	defer c.unlock()
	if !l.live {
		return 0
	}
	for _, e := range es {
		if e.DueNs == l.heldDue || l.adoptDue(e) || l.find(e.Offset) != 0 {
			// Parked while it is in flight or ready here: it is delivered from
			// here, or was finished or parked anew since.
			taken++
			continue
		}
		if l.dueCount >= c.limits.due || !l.takeDue(e) {
			l.refused = true
			break
		}
		taken++
	}
	c.ring()
	return taken
}

// takeDue puts a parked message into the list of due ones.
func (l *Lane) takeDue(e parked.Entry) bool {
	c := l.ch
	i := c.slots.take()
	s := &c.slots.slots[i]
	s.offset, s.lane, s.sub = e.Offset, l.index, noSub
	s.attempts = next(e.Attempts)
	s.flags = flagParked
	if !l.table.put(&c.slots, i) {
		c.slots.give(i)
		return false
	}
	l.held++
	if !l.spend(i) {
		s.state = stateDue
		l.dueCount++
		c.slots.pushBack(&l.due, i)
	}
	return true
}

// Stop ends the lane: leadership was lost, or the channel or topic is gone. What it
// had in flight is forgotten, but when another node will lead (fault.NotLeader),
// consumers that are connected here keep what they hold.
func (l *Lane) Stop(err error) {
	c := l.ch
	l.restart(func() {
		if !l.dead && c.closed == nil && c.cfg.MirrorID != nil && fault.CodeOf(err) == fault.NotLeader {
			c.replace(&Lane{ch: c, part: l.part, remote: true})
			return
		}
		l.reset(partition.Start{Floor: l.cursor, Limit: l.cursor})
		l.live = false
	})
}

// Floor is the lowest offset that this lane still needs from the log. For
// lanes whose shard is a Memory that includes the deferred ones, roughly.
func (l *Lane) Floor() int64 {
	c := l.ch
	c.mu.Lock()
	floor := l.cursor
	if o, ok := l.table.lowestOpen(l.cursor); ok {
		floor = min(floor, o)
	}
	m, ok := l.shard.(*Memory)
	if ok { // what Memory will be told
		for _, o := range l.gather.held {
			floor = min(floor, o)
		}
		for i := range l.gather.parked {
			floor = min(floor, l.gather.parked[i].Offset)
		}
	}
	c.mu.Unlock()
	if ok {
		floor = min(floor, m.floor(l))
	}
	return floor
}

// reset forgets all and starts anew from st.
func (l *Lane) reset(st partition.Start) {
	c := l.ch
	l.table.each(func(i int32) {
		if s := &c.slots.slots[i]; s.state == stateInFlight {
			sub := c.subs[s.sub]
			sub.release(i)
			sub.settle()
			sub.forgetIfDone()
		}
		c.slots.give(i)
	})
	for _, o := range l.looseOffsets() {
		i := l.loose.get(o)
		sub := c.subs[c.slots.slots[i].sub]
		sub.release(i)
		sub.settle()
		sub.forgetIfDone()
		c.slots.give(i)
	}
	l.looseSlots = looseSlots{term: l.term, startFloor: st.Floor, startSkip: st.Skip}
	l.table = newTable(c.limits)
	l.gather = gather{}
	l.ready, l.readyCount = nil, 0
	l.due, l.dueCount, l.refused = slotList{}, 0, false
	l.spent, l.spentCount = slotList{}, 0
	l.held = 0
	l.unload()
	l.gen++
	l.loading = false
	l.retryAt = 0
	l.cursor, l.limit = st.Floor, st.Limit
	l.skip, l.skipped = nil, 0
	for _, r := range st.Skip {
		l.addSkip(r)
	}
	l.setBarriers(st.Barriers)
	l.numbers = nil
	if len(st.Attempts) > 0 {
		l.numbers = make(map[int64]uint16, len(st.Attempts))
		for o, n := range st.Attempts {
			l.numbers[o] = next(n)
		}
	}
}

// find returns the slot of offset; 0 when it has none.
func (l *Lane) find(offset int64) int32 {
	if i := l.table.find(&l.ch.slots, offset); i != 0 {
		return i
	}
	return l.loose.get(offset)
}

// rests reports whether the lane delivers nothing for now.
func (l *Lane) rests() bool { return l.shut || l.retryAt != 0 }

// work is how many messages a Take could get from this lane now.
func (l *Lane) work() int64 {
	if !l.live || l.rests() {
		return 0
	}
	n := l.readyCount + l.dueCount
	if l.loading && l.ahead.ended() {
		return n
	}
	if backlog := l.beforeHold(); backlog > 0 && l.table.hasRoom(&l.ch.slots, l.cursor) {
		n += backlog
	}
	return n
}

// backlog is how many messages from the cursor on are visible and not in flight.
func (l *Lane) backlog() int64 { return l.limit - l.cursor - l.skipped - l.aheadCount }

// depth is how many messages wait: like work, whatever hinders them, and those that
// wait to be dead letters.
func (l *Lane) depth() int64 { return l.readyCount + l.dueCount + l.spentCount + max(l.backlog(), 0) }

// dirty asks the shard to collect.
func (l *Lane) dirty() {
	if !l.gather.announced {
		l.gather.announced = true
		l.calls |= callDirty
		l.ch.calls = true
	}
}

// wantDue tells the shard that there is room for due messages again.
func (l *Lane) wantDue() {
	if l.refused && l.dueCount <= l.ch.limits.due/2 {
		l.refused = false
		l.calls |= callWanted
		l.ch.calls = true
	}
}

// finishSlot ends the message of slot i, which is in no list any more.
func (l *Lane) finishSlot(i int32) {
	s := &l.ch.slots.slots[i]
	offset, flags := s.offset, s.flags
	if flags&flagLoose != 0 {
		l.finishLoose(i)
		return
	}
	l.drop(i)
	switch {
	case flags&flagHeldNew != 0:
		l.gather.finishRange(offset, offset+1)
	case flags&flagParked != 0:
		l.gather.unparked = append(l.gather.unparked, offset)
	default:
		l.gather.finish(&l.table, offset)
	}
	l.dirty()
}

// retry makes slot i, which is in no list, ready to be delivered again, or spent.
// counts: the delivery that ended was an attempt.
func (l *Lane) retry(i int32, counts bool) {
	if counts {
		l.raise(i)
	}
	s := &l.ch.slots.slots[i]
	if s.flags&flagLoose != 0 {
		l.retryLoose(i, counts)
		return
	}
	if !l.spend(i) {
		l.makeReady(i)
	}
	if counts {
		l.gatherAttempts(i)
	}
}

// makeReady puts slot i, which is in no list, into the heap.
func (l *Lane) makeReady(i int32) {
	s := &l.ch.slots.slots[i]
	s.state = stateReady
	l.readyCount++
	l.ready.push(s.offset)
}

// gatherAttempts has the next Collect tell how many attempts slot i has had.
func (l *Lane) gatherAttempts(i int32) {
	s := &l.ch.slots.slots[i]
	if s.flags&(flagHeldNew|flagAttempts) == 0 {
		s.flags |= flagAttempts
		l.gather.attempts = append(l.gather.attempts, s.offset)
		l.dirty()
	}
}

// raise counts an attempt.
func (l *Lane) raise(i int32) {
	s := &l.ch.slots.slots[i]
	s.attempts = next(s.attempts)
}

// next is the number of the delivery after n attempts.
func next(n uint16) uint16 { return n + min(1, ^n) }

// park defers the message of slot i, which is in no list, until due, after an attempt
// that raise has counted; the lane forgets it and gets it back through Due. One that is
// spent is not deferred.
func (l *Lane) park(i int32, due int64) {
	s := &l.ch.slots.slots[i]
	if s.flags&flagLoose != 0 {
		l.parkLoose(i, due)
		return
	}
	if l.spend(i) {
		l.gatherAttempts(i)
		return
	}
	l.gather.parked = append(l.gather.parked, parked.Entry{Offset: s.offset, DueNs: l.dueTime(due), Attempts: s.attempts - 1})
	l.drop(i)
	l.dirty()
}

// dueTime keeps due times apart from the mark of held messages.
func (l *Lane) dueTime(due int64) int64 {
	if due == l.heldDue {
		return due + 1
	}
	return due
}

// drop gives slot i back.
func (l *Lane) drop(i int32) {
	c := l.ch
	switch flags := c.slots.slots[i].flags; {
	case flags&flagLoose != 0:
		l.unloose(i)
		c.slots.give(i)
		return
	case flags&flagParked != 0:
		l.held--
	}
	l.table.remove(&c.slots, i)
	c.slots.give(i)
}

// hold parks the message of slot i durably while it stays in flight or ready
// here: so that it pins neither floor nor ranges, and so that after a crash it
// is delivered at once.
func (l *Lane) hold(i int32) {
	s := &l.ch.slots.slots[i]
	if s.flags&flagParked != 0 {
		return
	}
	l.gather.held = append(l.gather.held, s.offset)
	s.flags |= flagParked | flagHeldNew
	l.held++
	l.table.close(s.offset)
	l.dirty()
}

// finishRange ends offsets at or above the cursor that are not delivered.
func (l *Lane) finishRange(from, to int64) {
	if from < to {
		l.gather.finishRange(from, to)
		l.dirty()
	}
}

// heldMarks counts lanes' lives in this process.
var heldMarks atomic.Int64

// heldMark is a due time in the past that no other lane and no earlier life of
// this one uses for what it holds: a lane must not mistake what its
// predecessor held for its own.
func heldMark(now int64) int64 {
	return now - heldMarks.Add(1)%1_000_000
}
