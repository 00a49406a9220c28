package origin

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// ErrUnknown is in the chain of the error of a publish that was given up while a
// copy of it may still be done.
var ErrUnknown = errors.New("the outcome is unknown")

// Options of an Origin. Zero values mean the default beside the field.
type Options struct {
	Shard    uint32
	Producer uint64 // boot id of this process
	// Bytes bounds what waits for its answer, bodies, keys and ids together:
	// 32 MiB. One publish is always taken.
	Bytes int64
	// CallBytes and Calls bound one call to another node, and how many of them
	// are under way: 1 MiB, 4.
	CallBytes int64
	Calls     int
	// Patience is how long a publish waits for a leader from the moment when the
	// last one was lost, and for any progress: 5 s.
	Patience time.Duration
}

func (o *Options) fill() {
	if o.Bytes <= 0 {
		o.Bytes = 32 << 20
	}
	if o.CallBytes <= 0 {
		o.CallBytes = 1 << 20
	}
	if o.Calls <= 0 {
		o.Calls = 4
	}
	if o.Patience <= 0 {
		o.Patience = 5 * time.Second
	}
}

const (
	// messageBytes is what a message takes beside body, key and id.
	messageBytes = 16
	// retryOrder, retryFull and retryLost are the pauses before the next run: after
	// a gap, when the leader is overloaded, when it leads no more.
	retryOrder = int64(2 * time.Millisecond)
	retryFull  = int64(5 * time.Millisecond)
	retryLost  = int64(10 * time.Millisecond)
	// newLeader is how long a leader that has just been found is given at least.
	newLeader = int64(time.Second)
)

// Fate is what became of one copy of a publish.
type Fate uint8

// The fates. The numbers are part of the wire's format.
const (
	Done    Fate = 1 // it is in the log
	Refused Fate = 2 // it is not, and its number is used: its topic is gone, or has more partitions
	NotUsed Fate = 3 // it is not, and its number is free
	Unknown Fate = 4 // it may be, now or later
)

// Answer is what came back for one copy.
type Answer struct {
	Fate Fate
	Base int64 // of Done: offset of the first message; -1: it was done before
	Err  error // of all others
}

// entry is a publish in the queue.
type entry struct {
	topic     uint64
	partition int32
	mapping   uint32
	moved     func(*partition.Publish)
	name      string // of the topic
	messages  []partition.Message
	done      partition.Completion
	bytes     int64
	ackLeader bool
	added     uint64 // its place among all that were added

	// open counts the copies of which it is not known that they are not done.
	open int
	// local counts the copies that this node's machine has not answered: as long
	// as there is one, the messages' bytes belong to it.
	local   int
	settled bool
	refused error   // the leader does not take it, and that will not pass
	last    error   // why the last copy was not used
	outcome Outcome // of a settled one, to be told when local is 0
	copy    Local   // the first copy for this node's machine
}

// Local is a copy for the machine of this node. It is its own Completion.
type Local struct {
	partition.Publish
	entry *entry
	run   uint64
	owner Owner
}

// Owner is told what the machine of this node has answered.
type Owner interface {
	// LocalDone is called by the machine's loop; the owner calls AnswerLocal.
	LocalDone(l *Local, base int64, err error)
}

// Published hands the machine's answer on.
func (l *Local) Published(base int64, err error) { l.owner.LocalDone(l, base, err) }

// Call is a request to another node: some publishes with consecutive numbers.
type Call struct {
	Leader  uint64 // Raft id of the node to ask
	shard   uint32
	link    partition.Link // of the first
	run     uint64
	entries []*entry
}

// Origin is the queue of one process towards one shard.
type Origin struct {
	o     Options
	owner Owner

	epoch uint64
	first uint64 // number of the first in the queue
	queue []*entry
	bytes int64 // of those in the queue that have no answer
	idle  bool  // all in the queue have one

	run     uint64
	next    int   // the place in the queue from which nothing was sent in this run
	out     int   // calls and local copies of this run that have no answer
	stalled bool  // the run is at its end: nothing more is sent
	retryAt int64 // before which the next one does not begin; unix ns

	leader  uint64
	self    bool
	lostAt  int64 // since when there is no leader; 0: there is one
	movedAt int64 // of the last answer, or when the queue began to fill

	added     uint64   // publishes ever
	moved     []*entry // refused with fault.Moved and not given back, as they were added
	lingering []*entry // answered, while this node's machine has a copy
	outcomes  []Outcome

	resent, raised uint64
}

// New makes an Origin with no leader since now (unix ns).
func New(o Options, owner Owner, now int64) *Origin {
	o.fill()
	return &Origin{o: o, owner: owner, epoch: 1, first: 1, run: 1, lostAt: now, idle: true}
}

// Idle reports whether every publish has its answer.
func (g *Origin) Idle() bool { return g.idle }

// Self reports whether this node leads, as it was told last.
func (g *Origin) Self() bool { return g.self }

// Leader is the Raft id of the leader, as it was told last; 0: none.
func (g *Origin) Leader() uint64 { return g.leader }

// Run is the number of the present run; what was sent in another one needs no
// answer any more.
func (g *Origin) Run() uint64 { return g.run }

// Pending reports whether something waits to be sent.
func (g *Origin) Pending() bool { return g.stalled || g.next < len(g.queue) }

// Bytes is how much waits for an answer.
func (g *Origin) Bytes() int64 { return g.bytes }

// Resent counts copies beyond the first.
func (g *Origin) Resent() uint64 { return g.resent }

// Raised counts the epochs that were given up.
func (g *Origin) Raised() uint64 { return g.raised }

// Lead says who leads: its Raft id, 0 for none, and whether it is this node. A
// change begins a new run.
func (g *Origin) Lead(id uint64, self bool, now int64) {
	self = self && id != 0
	if id == g.leader && self == g.self {
		return
	}
	g.leader, g.self = id, self
	if id == 0 {
		g.lostAt = now
	} else {
		g.lostAt = 0
		g.movedAt = max(g.movedAt, now-int64(g.o.Patience)+newLeader)
	}
	g.rerun()
}

// Refuses reports whether there has been no leader for longer than the patience.
func (g *Origin) Refuses(now int64) bool {
	return g.lostAt != 0 && now-g.lostAt >= int64(g.o.Patience)
}

// Add takes a publish into the queue: its Topic, Partition, Messages, Done, AckLeader,
// Mapping and Moved.
// name is the topic's. fault.Overloaded when too much waits, fault.NotLeader when
// there has been no leader for longer than the patience; nothing was taken then.
func (g *Origin) Add(p *partition.Publish, name string, now int64) error {
	if g.Refuses(now) {
		return fault.New(fault.NotLeader, "publish to topic %s: shard %d has no leader", name, g.o.Shard)
	}
	size := sizeOf(p.Messages)
	if g.bytes > 0 && g.bytes+size > g.o.Bytes {
		return fault.New(fault.Overloaded, "publish to topic %s: %d bytes wait for shard %d", name, g.bytes, g.o.Shard)
	}
	if g.idle {
		g.idle = false
		g.movedAt = max(g.movedAt, now)
	}
	g.bytes += size
	g.added++
	g.queue = append(g.queue, &entry{
		topic: p.Topic, partition: p.Partition, name: name, messages: p.Messages, done: p.Done,
		ackLeader: p.AckLeader, mapping: p.Mapping, moved: p.Moved, bytes: size, added: g.added,
	})
	return nil
}

func sizeOf(messages []partition.Message) int64 {
	n := int64(0)
	for i := range messages {
		m := &messages[i]
		n += int64(len(m.Body)+len(m.Key)+len(m.ID)) + messageBytes
	}
	return n
}

// ready reports whether something can be sent now, beginning the next run if it
// is time.
func (g *Origin) ready(now int64) bool {
	if g.stalled && g.out == 0 && now >= g.retryAt {
		g.rerun()
	}
	return !g.stalled && g.leader != 0 && g.next < len(g.queue)
}

// NextLocal is the next copy for the machine of this node, nil when there is
// none, or another node leads. The machine gets it at once, before anything else
// is asked of the Origin; if it refuses it, RefuseLocal is told.
func (g *Origin) NextLocal(now int64) *Local {
	for g.self && g.ready(now) {
		e := g.queue[g.next]
		g.next++
		if e.settled {
			continue
		}
		l := &e.copy
		if l.entry != nil {
			l = &Local{} // the first one may still be the machine's
		}
		l.entry, l.run, l.owner = e, g.run, g.owner
		l.Publish = partition.Publish{
			Topic: e.topic, Partition: e.partition, Messages: e.messages, Done: l,
			Link: g.link(g.next - 1), AckLeader: e.ackLeader, Mapping: e.mapping,
		}
		g.out++
		g.sent(e)
		e.local++
		return l
	}
	return nil
}

// Next is the next call to the leader, nil when there is none, or this node leads.
func (g *Origin) Next(now int64) *Call {
	var c *Call
	size := int64(0)
	for !g.self && g.out < g.o.Calls && g.ready(now) {
		e := g.queue[g.next]
		if c != nil && (e.settled || size+e.bytes > g.o.CallBytes) {
			break
		}
		g.next++
		if e.settled {
			continue
		}
		if c == nil {
			c = &Call{Leader: g.leader, shard: g.o.Shard, link: g.link(g.next - 1), run: g.run}
		}
		size += e.bytes
		c.entries = append(c.entries, e)
		g.sent(e)
	}
	if c != nil {
		g.out++
	}
	return c
}

func (g *Origin) sent(e *entry) {
	if e.open > 0 || e.last != nil {
		g.resent++
	}
	e.open++
}

// link is the number of the publish at a place of the queue.
func (g *Origin) link(at int) partition.Link {
	return partition.Link{
		Producer: g.o.Producer, Epoch: g.epoch, Seq: g.first + uint64(at), Oldest: at == 0,
	}
}

// Answer takes the reply to a call: an answer for each of its publishes. With an
// error, or with another number of answers, all of them are unknown, unless
// notSent says that the call never left this node.
func (g *Origin) Answer(c *Call, answers []Answer, err error, notSent bool, now int64) {
	if c.run == g.run {
		g.out--
	}
	if err == nil && len(answers) != len(c.entries) {
		err = fault.New(fault.Internal, "read answer to %d publishes: it has %d", len(c.entries), len(answers))
	}
	for i, e := range c.entries {
		a := Answer{Fate: Unknown, Err: err}
		switch {
		case err == nil:
			a = answers[i]
		case notSent:
			a.Fate = NotUsed
		}
		g.answer(e, c.run, a, now)
	}
	g.trim()
}

// AnswerLocal takes what the machine of this node answered.
func (g *Origin) AnswerLocal(l *Local, base int64, err error, now int64) {
	a := Answer{Fate: FateOf(err), Base: base, Err: err}
	g.localAnswer(l, a, now)
	g.trim()
}

// FateOf is what a machine's answer says of the copy that it had taken.
func FateOf(err error) Fate {
	switch fault.CodeOf(err) {
	case fault.None:
		return Done
	case fault.TopicNotFound, fault.Moved:
		return Refused
	case fault.OutOfOrder:
		return NotUsed
	}
	return Unknown
}

// RefuseLocal says that the machine did not take the copy that NextLocal gave.
// adding: nothing was asked of the Origin since Add but NextLocal. Then, if it is
// what was added and not for lack of a leader, true is returned: the publish is out
// of the queue again, and whoever added it is to be told the error.
func (g *Origin) RefuseLocal(l *Local, err error, adding bool, now int64) (out bool) {
	e := l.entry
	last := len(g.queue) - 1
	if adding && passing(err) != retryLost && e.open == 1 && g.queue[last] == e {
		g.out--
		g.queue[last] = nil
		g.queue = g.queue[:last]
		g.next = last
		g.bytes -= e.bytes
		g.trim()
		return true
	}
	g.localAnswer(l, Answer{Fate: NotUsed, Err: err}, now)
	return false
}

func (g *Origin) localAnswer(l *Local, a Answer, now int64) {
	e := l.entry
	e.local--
	if l.run == g.run {
		g.out--
	}
	g.answer(e, l.run, a, now)
	if e.settled && e.local == 0 {
		g.unlinger(e)
	}
}

// answer takes what became of one copy.
func (g *Origin) answer(e *entry, run uint64, a Answer, now int64) {
	if a.Fate == NotUsed {
		e.open--
		e.last = a.Err
	}
	if e.settled {
		return
	}
	switch a.Fate {
	case Done, Refused:
		g.movedAt = now
		g.settle(e, a.Base, a.Err)
		return
	}
	if run != g.run {
		return
	}
	wait := passing(a.Err)
	switch {
	case a.Fate == Unknown:
		wait = max(wait, retryLost)
	case wait == 0:
		e.refused = a.Err
	}
	g.stalled = true
	g.retryAt = max(g.retryAt, now+max(wait, retryOrder))
}

// passing is how long to wait before a copy that was not taken is sent again; 0:
// that would not help.
func passing(err error) int64 {
	switch fault.CodeOf(err) {
	case fault.OutOfOrder:
		return retryOrder
	case fault.Overloaded:
		return retryFull
	case fault.NotLeader, fault.Unreachable, fault.Timeout, fault.Exiting, fault.Internal:
		return retryLost
	}
	return 0
}

// trim takes out what is answered at the front of the queue.
func (g *Origin) trim() {
	n := 0
	for n < len(g.queue) && g.queue[n].settled {
		n++
	}
	g.drop(n)
	g.first += uint64(n)
	g.next = max(g.next-n, 0)
	g.idle = len(g.queue) == 0
}

// drop takes n off the front of the queue.
func (g *Origin) drop(n int) {
	if n == len(g.queue) {
		clear(g.queue)
		g.queue = g.queue[:0]
		if cap(g.queue) > 1<<12 {
			g.queue = nil
		}
		return
	}
	clear(g.queue[:n])
	g.queue = g.queue[n:]
}

// rerun begins the next run.
func (g *Origin) rerun() {
	g.run++
	g.out, g.next, g.stalled, g.retryAt = 0, 0, false, 0
	g.trim()
	for len(g.queue) > 0 && g.queue[0].refused != nil {
		g.refuseOldest()
	}
	for _, e := range g.queue {
		e.refused = nil // those before it come first
	}
}

// refuseOldest answers the oldest publish, which the leader does not take.
func (g *Origin) refuseOldest() {
	e := g.queue[0]
	if e.open > 0 {
		g.raise(e.refused)
		return
	}
	g.settle(e, 0, e.refused)
	for _, other := range g.queue[1:] {
		if other.settled || other.open > 0 {
			g.raise(e.refused)
			return
		}
	}
	g.drop(1) // the next one gets its number
	g.idle = len(g.queue) == 0
}

// raise gives up all publishes of which a copy may be under way, and begins a new
// epoch with the others.
func (g *Origin) raise(why error) {
	rest := g.queue[:0:0]
	for _, e := range g.queue {
		switch {
		case e.settled:
		case e.open > 0:
			g.settle(e, 0, g.unknown(e, why))
		default:
			rest = append(rest, e)
		}
	}
	g.queue = rest
	g.epoch++
	g.raised++
	g.first, g.next = 1, 0
	g.idle = len(g.queue) == 0
}

func (g *Origin) unknown(e *entry, why error) error {
	cause := ErrUnknown
	if why != nil {
		cause = fmt.Errorf("%w: %w", ErrUnknown, why)
	}
	return &fault.Error{Code: fault.NotLeader, Text: "publish to topic " + e.name, Cause: cause}
}

// Tick gives up what has waited for too long, and returns when it is to be called
// next, in unix ns: to begin a run, or to give up; math.MaxInt64 when nothing
// waits.
func (g *Origin) Tick(now int64) (next int64) {
	if g.stalled && g.out == 0 && now >= g.retryAt {
		g.rerun()
	}
	if g.idle {
		return math.MaxInt64
	}
	if at := g.giveUpAt(); now >= at {
		g.GiveUp(nil)
		return math.MaxInt64
	}
	next = g.giveUpAt()
	if g.stalled && g.out == 0 {
		next = min(next, g.retryAt)
	}
	return next
}

// giveUpAt is when what waits is given up. While this node leads it is not: its
// machine answers.
func (g *Origin) giveUpAt() int64 {
	switch {
	case g.lostAt != 0:
		return g.lostAt + int64(g.o.Patience)
	case g.self:
		return math.MaxInt64
	}
	return g.movedAt + int64(g.o.Patience)
}

// GiveUp answers everything that waits: what may be under way with an unknown
// outcome, the rest with why not; nil: there is no leader.
func (g *Origin) GiveUp(why error) {
	g.run++
	g.out, g.stalled, g.retryAt = 0, false, 0
	started := false
	for _, e := range g.queue {
		started = started || e.settled || e.open > 0
		if e.settled || e.open > 0 {
			continue
		}
		err := why
		if err == nil && fault.CodeOf(e.last) == fault.Overloaded {
			err = e.last
		}
		if err == nil {
			err = fault.New(fault.NotLeader, "publish to topic %s: shard %d has no leader", e.name, g.o.Shard)
		}
		g.settle(e, 0, err)
	}
	if started {
		g.raise(why)
		return
	}
	g.drop(len(g.queue))
	g.next, g.idle = 0, true
}

// Name is the name of the topic that the copy is for.
func (l *Local) Name() string { return l.entry.name }
