package broker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-io/tidings/internal/broker/origin"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// How often an upstream looks who leads: while something waits for another node's
// answer, or to be sent, and otherwise.
const (
	lookBusy     = 10 * time.Millisecond
	lookHeadless = 50 * time.Millisecond // while there is no leader
	lookIdle     = 500 * time.Millisecond
)

// upstream is this node's way to the leader of one shard, itself perhaps, and this
// node's own leadership of it.
type upstream struct {
	b       *Broker
	shard   uint32
	machine *partition.Machine
	wake    chan struct{} // rings pump
	led     chan struct{} // rings follow
	heard   chan struct{} // rings gather

	// leadership counts the beginnings of this node's leadership; 0: it does not
	// lead. serving is the one in which lanes may be attached.
	leadership, serving atomic.Uint64
	// gathered is the leadership in which lanes may deliver: other nodes have told
	// what their consumers hold.
	gathered atomic.Uint64
	// changes counts the leaders that this node has seen, and unassigned says that
	// channels in use may not know the present one.
	changes    atomic.Uint64
	unassigned atomic.Bool
	// moves counts what Moved told: the leader may be the same as before, and have begun
	// anew, perhaps after another that this node has not seen.
	moves atomic.Uint64

	// mu guards the rest. It is held while the machine takes a publish, so that
	// numbers and inbox have one order, and never across a wait, nor while anybody
	// is told anything.
	mu     sync.Mutex
	origin *origin.Origin
	began  uint64                     // leaderships that have begun
	opened map[partition.Key]struct{} // in this leadership
	ended  error                      // why nothing is taken: Run has ended
	run    runContext
	// followed is the leader that channels in use follow, and told the leadership of
	// this node in which others have told what they hold, by Raft id.
	followed      uint64
	followedSelf  bool
	followedMoves uint64
	told          map[uint64]uint64
}

// runContext ends the calls of an origin's run that is over.
type runContext struct {
	of     uint64
	ctx    context.Context
	cancel context.CancelFunc
}

func (b *Broker) newUpstream(shard uint32, m *partition.Machine) *upstream {
	u := &upstream{
		b: b, shard: shard, machine: m,
		wake: make(chan struct{}, 1), led: make(chan struct{}, 1), heard: make(chan struct{}, 1),
	}
	u.origin = origin.New(origin.Options{Shard: shard, Producer: b.o.Boot}, u, u.now())
	return u
}

// upstream is the way to a shard; nil without Peers, or when there is no such shard.
func (b *Broker) upstream(shard uint32) *upstream {
	u, _ := b.upstreams.At(int(shard) - 1)
	return u
}

// now is a time that only runs forward, in ns, above 0.
func (u *upstream) now() int64 { return int64(time.Since(u.b.began)) + 1 }

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// leadsNow is told by the machine's loop.
func (u *upstream) leadsNow(leads bool) {
	u.mu.Lock()
	u.serving.Store(0)
	u.gathered.Store(0)
	u.opened = nil
	u.unassigned.Store(true)
	if leads {
		u.began++
		u.leadership.Store(u.began)
		u.opened = make(map[partition.Key]struct{})
	} else {
		u.leadership.Store(0)
	}
	u.mu.Unlock()
	ring(u.led)
	ring(u.wake)
}

// publish takes a publish into the queue, and on to this node's machine if that
// leads: then self, and the machine is not woken. The error means that nothing was
// taken.
func (u *upstream) publish(p *partition.Publish, topic string) (self bool, err error) {
	now := u.now()
	var few [4]origin.Outcome
	passed := false
	u.mu.Lock()
	if err = u.ended; err != nil {
		u.mu.Unlock()
		return false, err
	}
	if u.origin.Idle() || u.origin.Leader() == 0 {
		u.look(now)
	}
	if err = u.origin.Add(p, topic, now); err == nil {
		passed, err = u.pass(now, true)
	}
	self = u.origin.Self()
	pending := u.origin.Pending()
	out := u.outcomes(few[:0])
	u.mu.Unlock()
	tell(out)
	if pending {
		ring(u.wake)
	}
	if passed && err != nil { // older ones, that waited
		u.machine.Wake()
	}
	return self, err
}

// leader is who leads. A node that has been elected and does not serve yet is none.
func (u *upstream) leader() (id uint64, self bool) {
	id, self = u.b.o.Peers.Leader(u.shard)
	if !self && id == u.b.o.Meta.Node().ID {
		return 0, false
	}
	return id, self
}

// hopeful reports whether a publish would be taken: there is a leader, or there was
// one a short while ago.
func (u *upstream) hopeful() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	if u.origin.Leader() == 0 {
		u.look(now)
	}
	return !u.origin.Refuses(now)
}

// look asks who leads. u.mu is held.
func (u *upstream) look(now int64) {
	id, self := u.leader()
	u.origin.Lead(id, self, now)
}

// pass gives this node's machine what is next, while it leads, and returns whether
// it took any. The error is that of a publish that was just added and is not taken.
// u.mu is held.
func (u *upstream) pass(now int64, adding bool) (passed bool, err error) {
	for l := u.origin.NextLocal(now); l != nil; l = u.origin.NextLocal(now) {
		err := u.open(partition.Key{Topic: l.Topic, Partition: l.Partition}, l.Name())
		if err == nil {
			err = u.machine.Enqueue(&l.Publish)
		}
		switch {
		case err == nil:
			passed = true
		case u.origin.RefuseLocal(l, err, adding, now):
			return passed, err
		}
	}
	return passed, nil
}

// open makes a partition known to the shard before its first use in this
// leadership; what the same goroutine does on the machine comes after it. Topics
// that metadata knows to be gone are left alone. fault.NotLeader: there is none, and
// the machine is to be asked for nothing; fault.Overloaded: the same, for now. u.mu
// is held.
func (u *upstream) open(k partition.Key, name string) error {
	if u.opened == nil {
		return fault.NotLeader
	}
	if _, ok := u.opened[k]; ok || u.b.knownGone(k.Topic) {
		return nil
	}
	leadership := u.began
	err := u.machine.Offer(partition.Open{Key: k, Name: name, Count: u.b.bornWith(k.Topic)}, func(err error) {
		if err != nil {
			u.notOpened(k, leadership)
		}
	})
	if err == nil {
		u.opened[k] = struct{}{}
	}
	return err
}

// notOpened has the partition opened anew at its next use: an entry can be dropped
// though the leadership goes on.
func (u *upstream) notOpened(k partition.Key, leadership uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.began == leadership {
		delete(u.opened, k)
	}
}

// openHere makes the partition known to the shard, which this node leads. Errors as
// those of open.
func (t *Topic) openHere(p *part) error {
	if p.up == nil {
		t.open(p)
		return nil
	}
	p.up.mu.Lock()
	defer p.up.mu.Unlock()
	return p.up.open(p.key, t.name)
}

// LocalDone takes the machine's answer, on its loop.
func (u *upstream) LocalDone(l *origin.Local, base int64, err error) {
	var few [4]origin.Outcome
	u.mu.Lock()
	u.origin.AnswerLocal(l, base, err, u.now())
	out := u.outcomes(few[:0])
	u.mu.Unlock()
	tell(out)
	if err != nil {
		ring(u.wake)
	}
}

// outcomes takes what publishers are to be told. What partitions have refused because
// there are more of them is given back before u.mu is, so that it keeps its order.
// u.mu is held.
func (u *upstream) outcomes(out []origin.Outcome) []origin.Outcome {
	out = u.origin.Outcomes(out)
	for i := range out {
		if p := out[i].Publish; p != nil {
			p.Moved(p)
			out[i] = origin.Outcome{}
		}
	}
	return out
}

func tell(out []origin.Outcome) {
	for i := range out {
		out[i].Tell()
	}
}

// pump sends to other nodes what waits, and begins again what was interrupted.
func (u *upstream) pump(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(u.step(ctx))
		select {
		case <-u.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// outgoing is a call that is ready to be sent.
type outgoing struct {
	call    *origin.Call
	request []byte
}

// step does what there is to do, and returns after what time to look again.
func (u *upstream) step(ctx context.Context) time.Duration {
	u.follows()
	u.mu.Lock()
	now := u.now()
	u.look(now)
	next := u.origin.Tick(now)
	passed, _ := u.pass(now, false) // nothing is being added
	var calls []outgoing
	for c := u.origin.Next(now); c != nil; c = u.origin.Next(now) {
		calls = append(calls, outgoing{c, c.Encode()})
	}
	over := u.newRun(ctx)
	run := u.run.ctx
	// While this node leads, its machine answers, or says that it leads no more.
	headless := u.origin.Leader() == 0
	rests := u.origin.Idle() || u.origin.Self() && !u.origin.Pending()
	out := u.outcomes(nil)
	u.mu.Unlock()
	over()
	tell(out)
	if passed {
		u.machine.Wake()
	}
	for _, c := range calls {
		u.send(run, c)
	}
	if rests {
		if headless {
			return lookHeadless
		}
		return lookIdle - time.Duration(time.Now().UnixNano())%lookIdle // all shards at the same moment
	}
	return max(min(time.Duration(next-now), lookBusy), time.Millisecond)
}

// newRun gives the calls of a new run a context of their own, and returns what ends
// that of the run before. u.mu is held.
func (u *upstream) newRun(ctx context.Context) (over func()) {
	over = func() {}
	if of := u.origin.Run(); u.run.ctx == nil || u.run.of != of {
		if u.run.cancel != nil {
			over = u.run.cancel
		}
		u.run.of = of
		u.run.ctx, u.run.cancel = context.WithCancel(ctx)
	}
	return over
}

func (u *upstream) send(run context.Context, c outgoing) {
	ctx, cancel := context.WithTimeout(run, patience)
	u.b.o.Peers.Call(ctx, c.call.Leader, MethodPublish, c.request, func(reply []byte, err error) {
		cancel()
		var answers []origin.Answer
		if err == nil {
			answers, err = origin.DecodeAnswers(reply, c.call.Count())
		}
		u.mu.Lock()
		u.origin.Answer(c.call, answers, err, errors.Is(err, ErrNotSent), u.now())
		out := u.outcomes(nil)
		u.mu.Unlock()
		tell(out)
		ring(u.wake)
	})
}

// giveUp answers everything that waits, and whatever comes from now on: nobody would
// send it.
func (u *upstream) giveUp(why error) {
	u.mu.Lock()
	u.ended = why
	u.origin.GiveUp(why)
	out := u.outcomes(nil)
	cancel := u.run.cancel
	u.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	tell(out)
}

// servePublish is the leader's side of a call: what it holds goes to the machine in
// its order.
func (b *Broker) servePublish(request []byte, respond func([]byte, error)) {
	q, err := origin.DecodeRequest(request)
	if err != nil {
		respond(nil, err)
		return
	}
	u := b.upstream(q.Shard)
	if u == nil {
		respond(nil, fault.New(fault.InvalidRequest, "publish to shard %d: there is none", q.Shard))
		return
	}
	s := &servedCall{respond: respond, answers: make([]origin.Answer, len(q.Publishes))}
	s.left.Store(int64(len(q.Publishes)))
	served := make([]servedPublish, len(q.Publishes))
	refused := 0
	u.mu.Lock()
	for i := range q.Publishes {
		p := &q.Publishes[i]
		served[i] = servedPublish{s, i}
		p.Done = &served[i]
		err := error(fault.OutOfOrder) // behind one that was refused
		if refused == 0 {
			err = u.open(partition.Key{Topic: p.Topic, Partition: p.Partition}, q.Names[p.Topic])
		}
		if err == nil {
			err = u.machine.Enqueue(p)
		}
		if err != nil {
			s.answers[i] = origin.Answer{Fate: origin.NotUsed, Err: err}
			refused++
		}
	}
	u.mu.Unlock()
	if refused < len(q.Publishes) {
		u.machine.Wake()
	}
	s.answered(int64(refused))
}

// servedCall gathers the answers to a call.
type servedCall struct {
	respond func([]byte, error)
	answers []origin.Answer
	left    atomic.Int64
}

// answered counts n more; with the last one the reply goes out.
func (s *servedCall) answered(n int64) {
	if n > 0 && s.left.Add(-n) == 0 {
		s.respond(origin.EncodeAnswers(s.answers), nil)
	}
}

// servedPublish is one publish of a call.
type servedPublish struct {
	*servedCall
	at int
}

// Published takes the machine's answer.
func (p *servedPublish) Published(base int64, err error) {
	p.answers[p.at] = origin.Answer{Fate: origin.FateOf(err), Base: base, Err: err}
	p.answered(1)
}
