package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/turn"
	"github.com/tidings-io/tidings/internal/wal"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Group is one Raft group on this node. Step is its loop, which Run and Drive
// are around, and owns the library, the machine and every field below "loop";
// all exported methods but Step may be called from any goroutine.
type Group struct {
	o      Options
	folder folder
	turn   *turn.Turn    // to call Step; Run is its regular
	ended  chan struct{} // closed when Run has returned

	// set by NewFlusher, before the loop runs
	applyHook func(bytes int64) // entries were applied
	held      func() bool       // tails are far over budget: propose nothing
	jobHook   func()            // a checkpoint waits to be written

	leads  atomic.Bool  // serving, for any goroutine
	forced atomic.Bool  // a checkpoint was asked for
	keeps  atomic.Int64 // bytes of the WAL that are kept for other replicas

	mu     sync.Mutex
	in     inbox
	status Status
	lead   chan struct{} // closed while serving
	job    *job          // waits for the flusher

	// loop
	armed     int64 // unix ns for which Run's timer is set
	submitted bool  // an append, quietly, since the log was driven last

	node     *raft.RawNode
	log      storage
	syncer   Syncer // the machine, if it wants to know
	failed   error  // sticky
	alone    bool   // this replica is the only member
	hupped   bool   // campaigned, as the only member does once at start
	replayTo uint64
	nextTick int64

	leader  bool   // the library says so
	serving bool   // and its own no-op of term is applied
	term    uint64 // of that leadership
	leadID  uint64
	// elections counts the leaders that followed on each other, as report saw
	// them; the last one came at electedAt, unix ns.
	elections   uint64
	electedAt   int64
	electedLast uint64

	applied, appliedTerm uint64
	proposals            []proposal // in flight, oldest first
	placed               int        // how many of them have an index

	hard     hardState // as last handed to the WAL
	sequence uint64    // of the last append that waits for a sync
	appends  []*appendWait
	spare    []*appendWait // to use again
	waiting  *raft.Ready   // synchronous mode: accepted, not yet durable

	newest, older point // the last two checkpoints
	lastSeq       uint64
	bytes         int64 // of entries applied since the newest was taken
	changedAt     int64 // unix ns of the first apply since then; 0: none
	retryAt       int64 // no checkpoint before, after one that failed
	writing       bool  // one is with the flusher
	damaged       []string
	void          entryID // as in the manifest

	p peers
}

// proposal is an entry on its way from Drain to Apply. index is 0 until the
// library has put it into the log.
type proposal struct {
	index  uint64
	token  any
	synced bool // the machine was told
}

// appendWait is an append that the WAL has not made durable yet, and what the
// library wants to hear then.
type appendWait struct {
	sequence uint64
	then     []*pb.Message
	entries  []wal.Entry // the WAL's until it is durable
	done     func(error) // tells the group
}

// newAppend takes one that was used before, or makes it.
func (g *Group) newAppend() *appendWait {
	if n := len(g.spare); n > 0 {
		w := g.spare[n-1]
		g.spare = g.spare[:n-1]
		return w
	}
	w := &appendWait{}
	w.done = func(err error) { g.appended(w.sequence, err) }
	return w
}

// entriesKept is how many entries' room an appendWait keeps for its next use.
const entriesKept = 64

// freeAppend takes the oldest append, which is durable, off the list.
func (g *Group) freeAppend() (then []*pb.Message) {
	w := g.appends[0]
	g.appends = slices.Delete(g.appends, 0, 1)
	then, w.then = w.then, nil
	clear(w.entries)
	if w.entries = w.entries[:0]; cap(w.entries) > entriesKept {
		w.entries = nil
	}
	g.spare = append(g.spare, w)
	return then
}

// point is where a checkpoint stands.
type point struct {
	seq, index, term uint64
	taken            int64
	conf             *pb.ConfState
}

// inbox is what other goroutines left for the loop.
type inbox struct {
	durable   uint64        // highest durable append
	err       error         // of the WAL
	messages  []*pb.Message // of other replicas
	calls     []func()
	published *job
}

// Receive takes a message of another replica.
func (g *Group) Receive(m *pb.Message) {
	g.mu.Lock()
	g.in.messages = append(g.in.messages, m)
	g.mu.Unlock()
	g.Wake()
}

// Step does everything that can be done at the time now (unix ns) without
// waiting: it takes completions, ticks, drains the machine and proposes, and
// handles what the library has ready until it is quiet. did says whether
// anything happened; when not, nothing will before next unless Wake is called.
// An error is final: the node must stop.
func (g *Group) Step(now int64) (did bool, next int64, err error) {
	if g.failed != nil {
		return false, Never, g.failed
	}
	defer func() {
		if p := recover(); p != nil {
			err = g.panicked(p)
		}
		if err != nil {
			g.failed = fmt.Errorf("run shard %d: %w", g.o.ID, err)
			did, next, err = false, Never, g.failed
		}
	}()
	return g.pass(now)
}

// ErrForgotten says that a replica lacks entries that it has answered for.
var ErrForgotten = errors.New("this node's files are older than what it has told the others, as after an old copy was put back: " +
	"move its data folder away and start it empty, and it gets everything from the others")

// panicked turns what the library throws into an error; a bug of ours stays a
// panic.
func (g *Group) panicked(p any) error {
	switch p := p.(type) {
	case raftPanic:
		if g.log.err != nil {
			return fmt.Errorf("%s: %w", p.text, g.log.err)
		}
		if strings.HasPrefix(p.text, "tocommit(") { // a leader knows more of this log than is in it
			return fmt.Errorf("%w (%s)", ErrForgotten, p.text)
		}
		return errors.New(p.text)
	case error:
		if g.log.err != nil && errors.Is(p, g.log.err) {
			return p
		}
	}
	panic(p)
}

// passRounds bounds the work of one Step, so that a long replay can be left.
const passRounds = 64

func (g *Group) pass(now int64) (did bool, next int64, err error) {
	g.p.now = now
	if did, err = g.receive(now); err != nil {
		return false, Never, err
	}
	if g.p.installing() {
		did = g.goOn() || did
		g.report()
		return did, Never, nil
	}
	ticked, next, err := g.tick(now)
	if err != nil {
		return false, Never, err
	}
	did = did || ticked
	next = min(next, g.o.Machine.Tick(now), g.serveReads())
	for round := 0; ; round++ {
		proposed := g.propose(now)
		handled, err := g.ready(now)
		if err != nil {
			return false, Never, err
		}
		if !proposed && !handled || round == passRounds {
			break
		}
		did = true
	}
	taken, due := g.checkpoint(now)
	g.report()
	if !did && !taken {
		// Drain may have changed when the machine wants to be called, even
		// where it had nothing to propose.
		next = min(next, g.o.Machine.Tick(now))
	}
	return did || taken, min(next, due), nil
}

// receive takes what other goroutines left.
func (g *Group) receive(now int64) (did bool, err error) {
	g.mu.Lock()
	in := g.in
	g.in = inbox{durable: in.durable}
	g.mu.Unlock()
	if in.err != nil {
		return false, fault.Wrap(fault.Storage, fmt.Errorf("append to WAL: %w", in.err))
	}
	for _, call := range in.calls {
		call()
	}
	if in.published != nil {
		if err := g.published(in.published, now); err != nil {
			return false, err
		}
	}
	did = len(in.calls) > 0 || len(in.messages) > 0 || in.published != nil
	for len(g.appends) > 0 && g.appends[0].sequence <= in.durable {
		did = true
		g.synced(g.appends[0].entries)
		if err := g.deliver(g.freeAppend()); err != nil {
			return did, err
		}
	}
	if g.p.installing() {
		return did, nil
	}
	return did, g.deliver(in.messages)
}

// deliver hands messages to the library, or to the replica they are for.
func (g *Group) deliver(messages []*pb.Message) error {
	for _, m := range messages {
		if m.GetTo() != g.o.RaftID {
			g.send(m)
			continue
		}
		if m.GetType() == pb.MsgSnap && !g.behind(m) {
			continue
		}
		err := g.node.Step(m)
		if err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) && !errors.Is(err, raft.ErrProposalDropped) {
			return fmt.Errorf("step %s: %w", m.GetType(), err)
		}
	}
	return nil
}

func (g *Group) send(m *pb.Message) {
	if m.GetType() == pb.MsgSnap {
		g.signalled(m.GetTo())
	}
	if g.o.Send != nil {
		g.o.Send(m)
	}
}

// tick lets the library's time pass. A replica that is alone needs no time: it
// campaigns once, when it has applied what it knows as committed.
func (g *Group) tick(now int64) (did bool, next int64, err error) {
	if g.applied < g.replayTo {
		return false, Never, nil
	}
	if g.p.removed {
		return false, Never, nil
	}
	if g.alone {
		if g.leader || g.hupped {
			return false, Never, nil
		}
		g.hupped = true
		if err := g.node.Campaign(); err != nil {
			return false, Never, fmt.Errorf("campaign: %w", err)
		}
		return true, Never, nil
	}
	if g.nextTick == 0 {
		g.nextTick = tickAfter(now)
	}
	if now < g.nextTick {
		return false, g.nextTick, nil
	}
	g.node.Tick()
	g.nextTick = tickAfter(now)
	g.ticked(now)
	return true, g.nextTick, nil
}

// tickAfter is the next tick. All groups of a node tick at the same moments, so
// that their heartbeats to a peer leave in one write.
func tickAfter(now int64) int64 { return now - now%tickInterval + tickInterval }

// propose makes one entry of what waits in the machine.
func (g *Group) propose(now int64) bool {
	if g.p.handover.holds() {
		return g.goOver()
	}
	if !g.serving || len(g.proposals) >= g.o.MaxInflight || g.held != nil && g.held() {
		return false
	}
	data, token := g.o.Machine.Drain(g.term, now, g.o.MaxEntryBytes)
	if len(data) == 0 {
		return false
	}
	if err := g.node.Propose(data); err != nil {
		g.o.Machine.Drop(token, fault.Wrap(fault.NotLeader, err))
		return true
	}
	g.proposals = append(g.proposals, proposal{token: token})
	return true
}

// place gives proposals the index at which the library put them.
func (g *Group) place(entries []*pb.Entry) {
	for _, e := range entries {
		if g.placed == len(g.proposals) {
			return
		}
		if g.leader && e.GetTerm() == g.term && e.GetType() == pb.EntryNormal && len(e.Data) > 0 {
			g.proposals[g.placed].index = e.GetIndex()
			g.placed++
		}
	}
}

// synced tells the machine which of its entries are durable here. What is
// written in a term stands on all that was written before.
func (g *Group) synced(entries []wal.Entry) {
	if g.syncer == nil || !g.leader || len(entries) == 0 {
		return
	}
	last := &entries[len(entries)-1]
	if last.Term != g.term {
		return
	}
	for i := range g.proposals[:g.placed] {
		p := &g.proposals[i]
		if p.index <= last.Index && !p.synced {
			p.synced = true
			g.syncer.Synced(p.token)
		}
	}
}

// token takes the token of an entry that is applied, nil when it is not ours.
func (g *Group) token(e *pb.Entry) any {
	if g.placed == 0 || g.proposals[0].index != e.GetIndex() || g.term != e.GetTerm() {
		return nil
	}
	token := g.proposals[0].token
	g.proposals = slices.Delete(g.proposals, 0, 1)
	g.placed--
	return token
}

// role follows the library's soft state.
func (g *Group) role(soft *raft.SoftState) {
	if soft == nil {
		return
	}
	g.leadID = soft.Lead
	leader := soft.RaftState == raft.StateLeader
	if leader == g.leader {
		return
	}
	if g.leader = leader; leader {
		g.term = g.node.BasicStatus().GetTerm()
		return
	}
	g.unlead(fault.Wrap(fault.NotLeader, fmt.Errorf("lead shard %d: leadership was lost: %w", g.o.ID, ErrUnknown)))
}

// unlead ends what a leadership had begun.
func (g *Group) unlead(err error) {
	dropped := g.proposals
	g.proposals, g.placed = nil, 0
	for _, p := range dropped {
		g.o.Machine.Drop(p.token, err)
	}
	g.changeLost(err)
	g.handedOver()
	if !g.serving {
		return
	}
	g.serving = false
	g.leads.Store(false)
	g.mu.Lock()
	g.lead = make(chan struct{})
	g.mu.Unlock()
	g.o.Machine.Follow()
}

// serve begins a leadership.
func (g *Group) serve() {
	g.serving = true
	g.leads.Store(true)
	g.o.Machine.Lead(g.term)
	g.mu.Lock()
	close(g.lead)
	g.mu.Unlock()
}

// stop drops what is in flight; err is nil for a clean end.
func (g *Group) stop(err error) {
	if err == nil {
		err = fault.New(fault.Exiting, "run shard %d: the node shuts down", g.o.ID)
	}
	if g.failed == nil {
		g.failed = err
	}
	g.leader = false
	g.unlead(err)
	g.report()
	close(g.ended)
}

// Exec calls fn on the loop, between two entries, and waits for it. fn must
// not block.
func (g *Group) Exec(ctx context.Context, fn func()) error {
	done := make(chan struct{})
	g.call(func() { fn(); close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-g.ended:
		return fault.New(fault.Exiting, "query shard %d: the shard has stopped", g.o.ID)
	}
}

// call has the loop run fn, unless it has ended.
func (g *Group) call(fn func()) {
	g.mu.Lock()
	g.in.calls = append(g.in.calls, fn)
	g.mu.Unlock()
	g.Wake()
}

// Leader reports whether this replica leads and serves.
func (g *Group) Leader() bool { return g.leads.Load() }

// LeadReady waits until this replica leads and serves: its own no-op is
// applied. It returns ctx's error, or fault.Exiting once Run has ended.
func (g *Group) LeadReady(ctx context.Context) error {
	for !g.leads.Load() {
		g.mu.Lock()
		lead := g.lead
		g.mu.Unlock()
		select {
		case <-lead:
		case <-ctx.Done():
			return ctx.Err()
		case <-g.ended:
			return fault.New(fault.Exiting, "lead shard %d: the shard has stopped", g.o.ID)
		}
	}
	return nil
}

// Status is a group at a glance.
type Status struct {
	ID       uint32
	Leader   bool   // this replica leads and serves
	LeaderID uint64 // Raft id of the leader, 0 when unknown
	Term     uint64
	Commit   uint64
	Applied  uint64
	Inflight int // proposals between propose and apply

	// Elections is how often a leader was there whom this replica had not seen
	// as the last one before; ElectedAt is when that was last, unix ns.
	Elections uint64
	ElectedAt int64

	CheckpointIndex uint64 // of the newest that is durable
	CheckpointTime  int64  // unix ns when its state was taken
	CheckpointSeq   uint64
	PendingBytes    int64  // of entries since it, that a start would replay
	ReleasedIndex   uint64 // of the checkpoint before it: nothing older is kept

	// Damaged names checkpoint files that were passed over at start.
	Damaged []string

	// Removed: this replica is not a member any more.
	Removed bool
	// Members are the replicas as of what is applied; what the leader knows of
	// their progress is filled in only where this replica leads, every tick.
	Members []Member
	// CatchUp is the session in which this replica gets a state, if there is
	// one; Sessions are those in which it gives one.
	CatchUp  *Progress
	Sessions []Progress
}

// Status is the state after the last Step.
func (g *Group) Status() Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status
}

// report publishes the status. What the library would tell of term and commit
// stands in hard as well.
func (g *Group) report() {
	if g.leadID != 0 && g.leadID != g.electedLast {
		g.electedLast, g.electedAt = g.leadID, g.p.now
		g.elections++
	}
	s := Status{
		ID: g.o.ID, Leader: g.serving, LeaderID: g.leadID,
		Term: g.hard.Term, Commit: g.hard.Commit, Applied: g.applied,
		Elections: g.elections, ElectedAt: g.electedAt,
		Inflight:        len(g.proposals),
		CheckpointIndex: g.newest.index, CheckpointTime: g.newest.taken, CheckpointSeq: g.newest.seq,
		ReleasedIndex: g.older.index, PendingBytes: g.bytes, Damaged: g.damaged,
		Removed: g.p.removed, Members: g.p.members,
	}
	g.reportSessions(&s)
	g.mu.Lock()
	moved := g.status.LeaderID != s.LeaderID || g.status.Leader != s.Leader ||
		s.LeaderID != 0 && g.status.Term != s.Term
	g.status = s
	g.mu.Unlock()
	if moved && g.o.LeaderMoved != nil {
		g.o.LeaderMoved()
	}
}

// only reports whether id is the only member.
func only(conf *pb.ConfState, id uint64) bool {
	return slices.Equal(conf.GetVoters(), []uint64{id}) && len(conf.GetVotersOutgoing()) == 0 &&
		len(conf.GetLearners()) == 0 && len(conf.GetLearnersNext()) == 0
}
