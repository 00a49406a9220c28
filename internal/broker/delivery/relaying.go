package delivery

import (
	"slices"
	"time"
)

// Relay is all that goes to and comes from one leader for one channel, at the node
// where the consumers are. Its methods may be called from any goroutine.
type Relay struct {
	ch   *Channel
	wake func()

	// Guarded by Channel.mu.
	lanes    []*Lane // whose partitions the leader leads
	nextLane int     // whose answers come first
	mirrors  map[uint64]*mirror
	all      []*mirror // the same, oldest first
	todo     []*mirror // those that have something to tell
	out      []relayOp // answers of the request that is out
	isOut    bool      // a request is out
	outSince int64     // unix ns
	failed   bool      // and failed: nothing is told before Retry
	woken    bool      // since Collect
	hasty    bool      // since Collect, something was answered that is more than FIN
	lingers  bool      // timer is set, for FINs that wait for company
	opsSince int64     // unix ns when the first of them was given; 0: long ago
	late     bool      // it has fired since Collect
	timer    Timer
}

// FINs alone are told after lingerFor, or as soon as there is something else to tell,
// such as that the window they have opened is open, or lingerMax of them: mostly a
// pull follows that takes them along.
const (
	lingerFor = time.Millisecond
	lingerMax = 2048
)

// mirror is what a consumer has with one leader, as its own node sees it. It is idle
// when the leader may have something and is not asked: then share asks it.
type mirror struct {
	r      *Relay
	s      *Subscription
	id     uint64
	queued bool // in Relay.todo
	told   bool // the leader was told of it
	reopen bool // and is to be told, again or for the first time
	waits  bool // the leader has nothing, and rings
	rung   bool // it rang while it was asked
	asked  bool // a request with a pull is out
	off    bool // the leader is to be told that the window is closed
	want   int64
	// pulling is what is asked for; with want it is the part of the subscription's
	// promised.
	pulling int64

	closing  bool
	abnormal bool
	ended    bool // by the server
	closeOut bool // the request that is out closes it
}

// NewRelay makes the relay to one leader. wake is called when Collect would return
// something and no request is out; under the channel's lock: it must not block, nor
// call into this package.
func (c *Channel) NewRelay(wake func()) *Relay {
	return &Relay{ch: c, wake: wake, mirrors: make(map[uint64]*mirror)}
}

// Retry lets Collect go on after Failed.
func (r *Relay) Retry() {
	c := r.ch
	c.mu.Lock()
	r.failed = false
	if len(r.lanes) > 0 {
		c.shareAll()
	}
	r.call()
	c.ring()
	c.unlock()
}

// Forgo gives up the answers that are to be told, if the channel is closed. It is for a
// node that leads no more: nobody looks for the leader of a channel that has ended here.
func (r *Relay) Forgo() {
	c := r.ch
	c.mu.Lock()
	defer c.unlock()
	if c.closed == nil {
		return
	}
	for _, l := range r.lanes {
		clear(l.ops)
		l.ops = l.ops[:0]
		l.emptyOps()
	}
}

// Renew has the leader told of all consumers and what they hold once more: it may
// have forgotten them, because it heard nothing of this node for too long.
func (r *Relay) Renew() {
	c := r.ch
	c.mu.Lock()
	r.renew()
	c.shareAll()
	r.call()
	c.ring()
	c.unlock()
}

// renew is Renew under the lock.
func (r *Relay) renew() {
	for _, m := range r.all {
		if m.told {
			m.openAnew()
		}
	}
}

// Ring says that the leader has something for mirrors that wait. Those that are not
// known are ignored.
func (r *Relay) Ring(mirrors []uint64) {
	c := r.ch
	c.mu.Lock()
	for _, id := range mirrors {
		m := r.mirrors[id]
		if m == nil {
			continue
		}
		if !m.waits {
			m.rung = m.asked
			continue
		}
		m.waits = false
		m.s.share()
		if s := m.s; m.want == 0 && (s.open() <= 0 || c.paused) {
			m.shut() // the leader need not keep it for this consumer
		}
	}
	c.ring()
	c.unlock()
}

// Emptied says that the leader has emptied the channel: what is in flight of the
// partition below the offset before is forgotten.
func (r *Relay) Emptied(part int32, before int64) {
	c := r.ch
	c.mu.Lock()
	defer c.unlock()
	l := c.lane(part)
	if l == nil || l.relay != r {
		return
	}
	for _, o := range l.looseOffsets() {
		if i := l.loose.get(o); o < before {
			s := c.subs[c.slots.slots[i].sub]
			s.release(i)
			l.drop(i)
			s.freed()
		}
	}
	l.ops = slices.DeleteFunc(l.ops, func(op relayOp) bool { return op.offset < before })
	c.ring()
}

// Holds reports whether messages of the relay's partitions are in flight here, or
// answers to them not told yet.
func (r *Relay) Holds() bool {
	r.ch.mu.Lock()
	defer r.ch.mu.Unlock()
	for _, l := range r.lanes {
		if l.loose.len()+len(l.ops) > 0 {
			return true
		}
	}
	return len(r.out) > 0
}

// Busy reports whether there is something to tell, or a request is out.
func (r *Relay) Busy() bool {
	r.ch.mu.Lock()
	defer r.ch.mu.Unlock()
	return r.isOut || r.pending()
}

// pending reports whether there may be something to tell.
func (r *Relay) pending() bool {
	if len(r.todo) > 0 {
		return true
	}
	return r.queuedOps() > 0
}

// queuedOps is how many answers are to be told.
func (r *Relay) queuedOps() (n int) {
	for _, l := range r.lanes {
		n += len(l.ops)
	}
	return n
}

// call wakes whoever sends what Collect returns, or has them woken in a moment.
func (r *Relay) call() {
	switch n := r.queuedOps(); {
	case r.isOut || r.failed || r.woken || n == 0 && len(r.todo) == 0:
	case len(r.todo) == 0 && !r.hasty && !r.late && n < lingerMax:
		r.linger()
	default:
		r.woken = true
		r.wake()
	}
}

// linger sets the timer.
func (r *Relay) linger() {
	switch {
	case r.lingers:
		return
	case r.timer == nil:
		r.timer = r.ch.cfg.AfterFunc(lingerFor, r.lingered)
	default:
		r.timer.Reset(lingerFor)
	}
	r.lingers = true
}

// lingered has told what has waited, unless it is on its way.
func (r *Relay) lingered() {
	c := r.ch
	c.mu.Lock()
	defer c.unlock()
	if left := r.opsSince + int64(lingerFor) - c.now(); left > 0 && !r.isOut {
		r.timer.Reset(time.Duration(left)) // it was set for others, which have been told
		return
	}
	r.lingers, r.late = false, !r.isOut
	r.call()
}

// mirror is the consumer's mirror here, made if make is set; else nil when it has
// none.
func (r *Relay) mirror(s *Subscription, create bool) *mirror {
	for _, m := range s.mirrors {
		if m.r == r && !m.ended {
			return m
		}
	}
	if !create {
		return nil
	}
	for _, m := range s.mirrors {
		if m.r == r && !m.closeOut {
			m.revive()
			return m
		}
	}
	m := &mirror{r: r, s: s, id: r.ch.cfg.MirrorID(), reopen: true, closing: s.closed}
	s.mirrors = append(s.mirrors, m)
	r.mirrors[m.id] = m
	r.all = append(r.all, m)
	return m
}

// revive undoes end: the relay has lanes again before the leader was told.
func (m *mirror) revive() {
	m.ended, m.closing = false, m.s.closed
	m.openAnew()
}

// reviveAll is revive for all consumers. One whose end is on its way is left until
// that has failed; it may have another mirror meanwhile, of which nobody was told, and
// which may have been ended as well.
func (r *Relay) reviveAll() {
	for _, m := range slices.Clone(r.all) {
		if !m.ended || m.closeOut {
			continue
		}
		if x := r.mirror(m.s, false); x != nil {
			if x.told {
				m.forget()
				continue
			}
			x.forget()
		}
		m.revive()
	}
}

// reopen has the leader told what the consumer holds.
func (r *Relay) reopen(s *Subscription) {
	r.mirror(s, true).openAnew()
	r.call()
}

// openAnew has the leader told of m once more. It takes what it was told before for
// void: it rings no more before the next pull.
func (m *mirror) openAnew() {
	if m.ended {
		return
	}
	m.reopen, m.waits = true, false
	m.enqueue()
}

// queue puts m among those that have something to tell.
func (m *mirror) queue() {
	m.enqueue()
	m.r.call()
}

// mayAsk reports whether the leader may have something for the consumer and is not
// asked.
func (r *Relay) mayAsk(s *Subscription) bool {
	if r.failed {
		return false
	}
	m := r.mirror(s, false)
	return m == nil || !m.waits && !m.asked && !m.closing
}

// ask has the leader asked for n messages.
func (r *Relay) ask(s *Subscription, n int64) {
	m := r.mirror(s, true)
	m.want += n
	m.off = false
	s.promised += n
	m.queue()
}

// shut has the leader told that the window is closed, unless it is not waiting for it
// to be open.
func (m *mirror) shut() {
	if m.want > 0 || m.asked || m.closing || !m.told {
		return
	}
	m.waits = false
	m.off = true
	m.queue()
}

// close ends the mirror: the consumer is closed, or the relay has no lanes. ended:
// this was the server's doing.
func (m *mirror) close(abnormal, ended bool) {
	if m.closing {
		return
	}
	m.closing, m.abnormal, m.ended = true, abnormal, ended
	m.waits, m.off = false, false
	m.s.promised -= m.want
	m.want = 0
	m.s.settle()
	m.queue()
}

// forget takes the mirror out.
func (m *mirror) forget() {
	m.s.promised -= m.want + m.pulling
	m.want, m.pulling = 0, 0
	delete(m.r.mirrors, m.id)
	m.r.all = slices.DeleteFunc(m.r.all, func(x *mirror) bool { return x == m })
	m.s.mirrors = slices.DeleteFunc(m.s.mirrors, func(x *mirror) bool { return x == m })
	m.s.freed()
}

// end is called when the relay has no lanes any more.
func (r *Relay) end() {
	for _, m := range r.all {
		m.ended, m.reopen = true, false // what is held is another mirror's from now on
		m.close(false, true)
	}
}

// Failed says that what became of the request is not known. Nothing more is collected
// before Retry.
func (r *Relay) Failed(*RelayRequest) {
	c := r.ch
	c.mu.Lock()
	defer c.unlock()
	r.isOut, r.failed = false, true
	r.putBackOps(func(*relayOp) bool { return true }, true)
	for _, m := range r.all {
		m.s.promised -= m.want + m.pulling
		m.want, m.pulling = 0, 0
		m.waits, m.rung, m.asked, m.off = false, false, false, false
		m.closeOut = false
	}
	if len(r.lanes) > 0 {
		r.reviveAll()
	}
	for _, m := range slices.Clone(r.all) { // consumers that have left may go with what follows
		if m.told || m.closing {
			m.reopen = !m.ended
			m.queue()
		}
		m.s.freed() // others may be asked instead
	}
	c.ring()
}

// putBackOps queues those answers again that were out, have not been since, and that
// which selects; for Returns see leaveRelay.
func (r *Relay) putBackOps(which func(*relayOp) bool, again bool) {
	back := make(map[*Lane][]relayOp)
	for i := range r.out {
		if op := &r.out[i]; !op.moved && op.kind != Return && which(op) {
			x := *op
			x.again, x.lane = x.again || again, nil
			back[op.lane] = append(back[op.lane], x)
		}
	}
	for l, ops := range back {
		l.ops = append(ops, l.ops...)
	}
	clear(r.out)
	r.out = r.out[:0]
}
