package delivery

import (
	"time"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/seglog"
)

// Defaults of SubOptions, nsqd's own.
const (
	DefaultMsgTimeout    = time.Minute
	DefaultMaxMsgTimeout = 15 * time.Minute
)

// SubOptions describes a consumer.
type SubOptions struct {
	// MsgTimeout is how long a delivery may go without FIN, REQ or TOUCH; 0:
	// DefaultMsgTimeout.
	MsgTimeout time.Duration
	// MaxMsgTimeout is how long after its delivery TOUCH may keep a message;
	// 0: DefaultMaxMsgTimeout.
	MaxMsgTimeout time.Duration
	// SampleRate is the percentage of messages to deliver, 1..99; what falls
	// to this consumer beyond it is finished for the channel. 0: all.
	SampleRate int
	// Notify is rung when Take may return something again after it returned
	// nothing, and when the channel is closed. It is called under the
	// channel's lock: it must not block, nor call into this package.
	Notify func()
	// Failed is told of an answer that Do has taken, but the leader of the message's
	// partition, which is another node, has not: fault.NotInFlight or
	// fault.NotOwner. It is called as Notify is; nil: nobody wants to know.
	Failed func(op Op, err error)
	// Relayed says that the consumer is connected to another node, which calls Pull
	// instead of Take. Config.MaxConsumers does not count it.
	Relayed bool
	// Client is whatever the front wants to find again through
	// Subscription.Client.
	Client any
}

// What a subscription is doing.
const (
	subWaiting uint8 = iota // its last Take returned nothing: comes when rung
	subRung                 // rung since: will come
	subBusy                 // its last Take returned something: comes by itself
)

// Subscription is one consumer of a channel. Take is for one goroutine at a
// time (the connection's writer); all other methods may be called beside it.
type Subscription struct {
	ch        *Channel
	id        int32 // index in Channel.subs
	timeoutNs int64
	maxNs     int64
	sample    uint64 // 0: all
	notify    func()
	failed    func(Op, error)
	relayed   bool
	client    any
	done      chan struct{}

	// Guarded by Channel.mu.
	window        int64
	inFlightCount int64
	inFlight      slotList // by deadline
	stopped       bool     // CLS
	closed        bool
	state         uint8
	claim         int64 // messages kept for it since it was rung
	claimEpoch    uint32
	waitingOpen   int64 // its open window while it is in Channel.waiting, else 0
	prev, next    *Subscription
	messages      uint64
	finishes      uint64
	requeues      uint64
	timeouts      uint64
	// credit is how much of the last Pull is open, of a relayed subscription.
	credit int64
	pulling

	// Owned by the goroutine that calls Take.
	picks   []pick
	order   []int32 // places in picks, by lane and offset
	batches []seglog.Batch
	// chunks are what the deliveries of the last Take stand in. What a
	// subscription that takes no more holds is the garbage collector's.
	chunks []*seglog.Chunk
}

// SubStats is a snapshot of a subscription's figures.
type SubStats struct {
	Ready        int64 // the window, as RDY set it
	InFlight     int64
	MessageCount uint64 // deliveries
	FinishCount  uint64
	RequeueCount uint64
	TimeoutCount uint64
}

// Subscribe adds a consumer with a window of 0. Errors:
// fault.TooManyConsumers, or why the channel was closed.
func (c *Channel) Subscribe(o SubOptions) (*Subscription, error) {
	if o.MsgTimeout <= 0 {
		o.MsgTimeout = DefaultMsgTimeout
	}
	if o.MaxMsgTimeout <= 0 {
		o.MaxMsgTimeout = DefaultMaxMsgTimeout
	}
	if o.Notify == nil {
		o.Notify = func() {}
	}
	s := &Subscription{
		ch:        c,
		timeoutNs: int64(o.MsgTimeout),
		maxNs:     int64(o.MaxMsgTimeout),
		notify:    o.Notify,
		failed:    o.Failed,
		relayed:   o.Relayed,
		client:    o.Client,
		done:      make(chan struct{}),
	}
	if o.SampleRate > 0 && o.SampleRate < 100 {
		s.sample = uint64(o.SampleRate)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed != nil {
		return nil, c.closed
	}
	if n := c.consumer - c.relayed; c.cfg.MaxConsumers > 0 && !s.relayed && n >= c.cfg.MaxConsumers {
		return nil, fault.New(fault.TooManyConsumers, "channel %s:%s has %d consumers", c.cfg.Topic, c.cfg.Name, n)
	}
	c.enroll(s)
	s.announce()
	return s, nil
}

// enroll gives s the first free id.
func (c *Channel) enroll(s *Subscription) {
	c.consumer++
	if s.relayed {
		c.relayed++
	}
	for i, other := range c.subs {
		if other == nil {
			s.id = int32(i)
			c.subs[i] = s
			return
		}
	}
	s.id = int32(len(c.subs))
	c.subs = append(c.subs, s)
}

// Client is what SubOptions.Client was.
func (s *Subscription) Client() any { return s.client }

// Done is closed when the channel is: the consumer's connection must close.
// Channel.Err says why.
func (s *Subscription) Done() <-chan struct{} { return s.done }

// SetWindow sets how many messages the consumer may have in flight (RDY).
// Lowering it recalls nothing. Ignored after Stop.
func (s *Subscription) SetWindow(n int) {
	c := s.ch
	c.mu.Lock()
	if !s.stopped && !s.closed {
		s.window = int64(max(n, 0))
		s.narrow()
		s.changed()
	}
	c.unlock()
}

// Stop ends deliveries for good (CLS): the window becomes 0. FIN, REQ and
// TOUCH stay possible.
func (s *Subscription) Stop() {
	c := s.ch
	c.mu.Lock()
	s.stopped = true
	s.window = 0
	s.narrow()
	s.changed()
	c.unlock()
}

// Close ends the subscription. What it had in flight goes back to the channel:
// at once what was delivered for the first time, and everything after Stop or
// an orderly close; the rest after min(its remaining timeout, 1 s × 2^attempts),
// so that a poison message does not run through a fleet in milliseconds. With
// Config.WaitOnDisconnect all of it waits for its timeout instead.
func (s *Subscription) Close(abnormal bool) { s.end(abnormal, false) }

// end is Close, or Abandon.
func (s *Subscription) end(abnormal, abandoned bool) {
	c := s.ch
	c.mu.Lock()
	idle := !s.closed && c.consumer == 1 && c.closed == nil
	if !s.closed {
		s.leave(abnormal, abandoned)
	}
	c.unlock()
	if idle && c.cfg.Idle != nil {
		c.cfg.Idle()
	}
}

// leave is Close under the lock.
func (s *Subscription) leave(abnormal, abandoned bool) {
	c := s.ch
	s.closed = true
	s.window, s.credit = 0, 0
	c.consumer--
	if s.relayed {
		c.relayed--
	}
	s.changed()
	s.leaveRelays(abnormal && !s.stopped, abandoned)
	switch {
	case c.closed != nil, abandoned:
		s.returnAll(c.now(), false, false)
	case !c.cfg.WaitOnDisconnect:
		s.returnAll(c.now(), true, abnormal && !s.stopped)
	}
	s.forgetIfDone()
	c.shrink()
	c.ring()
}

// Stats returns the subscription's figures.
func (s *Subscription) Stats() SubStats {
	s.ch.mu.Lock()
	defer s.ch.mu.Unlock()
	return SubStats{
		Ready:        s.window,
		InFlight:     s.inFlightCount,
		MessageCount: s.messages,
		FinishCount:  s.finishes,
		RequeueCount: s.requeues,
		TimeoutCount: s.timeouts,
	}
}

// open is how far the window is open.
func (s *Subscription) open() int64 {
	if s.relayed {
		return s.credit
	}
	return s.window - s.inFlightCount - s.promised
}

// changed is called after the window changed: a claim that it does not cover
// any more goes to others.
func (s *Subscription) changed() {
	if s.claim > max(s.open(), 0) {
		s.unclaim()
	}
	s.share()
	s.settle()
	s.ch.ring()
}

// unclaim gives up what is kept for s.
func (s *Subscription) unclaim() {
	s.ch.claimed -= s.claim
	s.claim = 0
}

// settle puts s into the list of waiting subscriptions, or takes it out, as
// its state and window say. It is called after every change of either.
func (s *Subscription) settle() {
	c := s.ch
	var open int64
	if s.state == subWaiting && !s.closed {
		open = min(max(s.open(), 0), workMax)
	}
	if open == s.waitingOpen {
		return
	}
	if s.waitingOpen == 0 {
		c.waiting.pushBack(s)
	}
	if open == 0 {
		c.waiting.remove(s)
	}
	c.waitingOpen += open - s.waitingOpen
	s.waitingOpen = open
}

// expire takes back the deliveries whose deadline has passed.
func (s *Subscription) expire(now int64) {
	c := s.ch
	for {
		i := s.inFlight.head
		if i == 0 || c.slots.slots[i].deadline > now {
			break
		}
		s.timeouts++
		s.release(i)
		l := c.lanes[c.slots.slots[i].lane]
		if l.away() || l.doubtful(i) {
			l.drop(i) // the leader counts it, or the one before did
			continue
		}
		c.timeouts++
		l.retry(i, true)
	}
	s.expireInbox(now)
	s.share()
	s.settle()
	s.forgetIfDone()
}

// release takes slot i out of what s has in flight.
func (s *Subscription) release(i int32) {
	c := s.ch
	e := &c.slots.slots[i]
	if e.flags&flagInbox != 0 {
		c.slots.unlink(&s.pulled, i)
		e.flags &^= flagInbox // who gets the slot next has it in the other list
	} else {
		c.slots.unlink(&s.inFlight, i)
	}
	e.sub = noSub
	s.inFlightCount--
	if !c.lanes[e.lane].remote {
		c.inFlight--
	}
}

// returnAll gives everything in flight back to the lanes. counts: these
// deliveries were attempts; slowly: from the second attempt on with a delay.
func (s *Subscription) returnAll(now int64, counts, slowly bool) {
	c := s.ch
	for s.inFlight.head != 0 {
		i := s.inFlight.head
		s.release(i)
		e := &c.slots.slots[i]
		l := c.lanes[e.lane]
		if e.flags&flagPresumed != 0 { // an answer may be on its way
			l.retry(i, false)
			continue
		}
		if slowly && e.attempts > 1 {
			backoff := int64(time.Second) << min(e.attempts, 30)
			l.raise(i)
			l.park(i, now+max(min(e.deadline-now, backoff), 0))
			continue
		}
		l.retry(i, counts)
	}
}

// forgetIfDone frees the id of a closed subscription with nothing in flight.
func (s *Subscription) forgetIfDone() {
	if s.closed && s.inFlight.head == 0 && s.pulled.head == 0 && s.id != noSub && s.ch.subs[s.id] == s {
		s.ch.subs[s.id] = nil
	}
}

// subList is a doubly linked list of subscriptions.
type subList struct{ head, tail *Subscription }

func (l *subList) pushBack(s *Subscription) {
	s.prev, s.next = l.tail, nil
	if l.tail != nil {
		l.tail.next = s
	} else {
		l.head = s
	}
	l.tail = s
}

func (l *subList) remove(s *Subscription) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		l.head = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		l.tail = s.prev
	}
	s.prev, s.next = nil, nil
}

// shrink gives memory back when the last consumer has left.
func (c *Channel) shrink() {
	if c.consumer > 0 {
		return
	}
	for _, l := range c.lanes {
		l.unload()
		if l.table.empty() {
			l.table = newTable(c.limits)
			l.ready = nil
		}
	}
	if c.slots.used == 0 {
		c.slots = slab{}
	}
}
