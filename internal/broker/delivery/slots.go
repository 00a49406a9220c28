package delivery

// What a slot's message is doing.
const (
	stateFree     uint8 = iota
	stateInFlight       // in its subscription's list, by deadline
	stateReady          // in its lane's heap
	stateDue            // in its lane's list of due messages
	stateSpent          // in its lane's list of spent messages
)

// Flags of a slot.
const (
	// flagParked: the message is in the durable parked set as well. Its FIN is
	// an Unparked, and it does not hold the floor.
	flagParked uint16 = 1 << iota
	// flagHeldNew: and Collect has not said so yet.
	flagHeldNew
	// flagAttempts: the offset is in gather.attempts already.
	flagAttempts
	// flagLoose: the slot stands in Lane.loose, not in the table.
	flagLoose
	// flagAhead: it is loose, and the cursor of its lane will come to it.
	flagAhead
	// flagInbox: it was pulled, and its consumer has not taken it yet.
	flagInbox
	// flagPresumed: it is loose, and kept for a mirror over a loss of the leadership;
	// who says that he holds it, does.
	flagPresumed
	// flagKept is used by Reopen.
	flagKept
)

// noSub is the owner of a slot that is not in flight.
const noSub int32 = -1

// slot is the state of one unfinished message that left the log. Slots are
// values in one slice per channel and refer to each other by index, so that
// the garbage collector has nothing to follow and a delivery allocates
// nothing.
type slot struct {
	offset    int64
	deadline  int64 // unix ns; when the delivery times out
	delivered int64 // unix ns; TOUCH cannot move the deadline past it + max timeout
	lane      int32 // index in Channel.lanes
	sub       int32 // index in Channel.subs, or noSub
	prev      int32 // neighbours in the list that the slot is in; 0 = none
	next      int32
	attempts  uint16 // number of this delivery, or of the next one when not in flight
	state     uint8
	flags     uint16
}

// waits reports whether the message was delivered, and is in flight no more.
func (s *slot) waits() bool { return s.state == stateReady || s.state == stateSpent }

// slotList is a doubly linked list of slots.
type slotList struct{ head, tail int32 }

// slab owns the slots of a channel. Index 0 is never used and means none.
type slab struct {
	slots []slot
	free  int32 // head of the free slots, linked by next
	used  int
	// times is when the message of each slot was published, unix ns; 0 or none
	// where no consumer has got it since the slot was taken. For latency only.
	times []int64
}

// published notes when the message of slot i was published.
func (s *slab) published(i int32, ns int64) {
	if need := int(i) + 1 - len(s.times); need > 0 {
		s.times = append(s.times, make([]int64, need)...)
	}
	s.times[i] = ns
}

// age is how long before now the message of slot i was published; false where
// that is not known.
func (s *slab) age(i int32, now int64) (ns int64, ok bool) {
	if int(i) >= len(s.times) || s.times[i] == 0 {
		return 0, false
	}
	return now - s.times[i], true
}

// take returns a zeroed slot.
func (s *slab) take() int32 {
	s.used++
	if i := s.free; i != 0 {
		s.free = s.slots[i].next
		s.slots[i] = slot{}
		if int(i) < len(s.times) {
			s.times[i] = 0
		}
		return i
	}
	if len(s.slots) == 0 {
		s.slots = make([]slot, 1, 16)
	}
	s.slots = append(s.slots, slot{})
	return int32(len(s.slots) - 1)
}

// give returns a slot that is in no list any more.
func (s *slab) give(i int32) {
	s.used--
	s.slots[i] = slot{next: s.free}
	s.free = i
}

// pushBack appends i to the list.
func (s *slab) pushBack(l *slotList, i int32) {
	e := &s.slots[i]
	e.prev, e.next = l.tail, 0
	if l.tail != 0 {
		s.slots[l.tail].next = i
	} else {
		l.head = i
	}
	l.tail = i
}

// pushFront puts i before all others.
func (s *slab) pushFront(l *slotList, i int32) {
	e := &s.slots[i]
	e.prev, e.next = 0, l.head
	if l.head != 0 {
		s.slots[l.head].prev = i
	} else {
		l.tail = i
	}
	l.head = i
}

// insertByDeadline puts i behind the last slot whose deadline is not later.
// All deliveries of a subscription share one timeout, so this is nearly always
// the end; only a TOUCH that meets the maximum walks further, once a message.
func (s *slab) insertByDeadline(l *slotList, i int32) {
	e := &s.slots[i]
	at := l.tail
	for at != 0 && s.slots[at].deadline > e.deadline {
		at = s.slots[at].prev
	}
	if at == l.tail {
		s.pushBack(l, i)
		return
	}
	e.prev = at
	if at == 0 {
		e.next, l.head = l.head, i
	} else {
		e.next = s.slots[at].next
		s.slots[at].next = i
	}
	s.slots[e.next].prev = i
}

// unlink removes i from the list.
func (s *slab) unlink(l *slotList, i int32) {
	e := &s.slots[i]
	if e.prev != 0 {
		s.slots[e.prev].next = e.next
	} else {
		l.head = e.next
	}
	if e.next != 0 {
		s.slots[e.next].prev = e.prev
	} else {
		l.tail = e.prev
	}
	e.prev, e.next = 0, 0
}
