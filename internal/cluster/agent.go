package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// ErrReplaced says that the cluster has given this node's name to another disk:
// the node must stop, and may come back with an empty folder.
var ErrReplaced = errors.New("this node was replaced by another of its name")

// Engine is the groups of this node, as the agent sees and moves them. Its
// methods must not block: they begin what Groups later shows.
type Engine interface {
	// Groups is the state of every group, by shard.
	Groups() []Group
	// Change begins a change of a group's members. An error is logged, and the
	// change planned anew.
	Change(Change) error
	// Transfer begins to hand over a group's leadership.
	Transfer(Transfer) error
	// Sync is the slowest sync of the WAL in the last seconds.
	Sync() time.Duration
}

// AgentOptions of an Agent. Zero values mean the default beside the field.
type AgentOptions struct {
	Identity Identity // of a formed node
	Seeds    []Peer   // for the answers to Hello
	Meta     *meta.Machine
	Engine   Engine
	Network  Network
	Interval time.Duration // between renewals and plans; LeaseInterval
	Clock    func() int64  // ns, only rising; default the system's
	Logger   *slog.Logger  // default: discards
}

// Agent is a member at work: it renews the node's lease, keeps the leases of
// all while it leads metadata, moves members and leaders of the groups that it
// leads, answers the other nodes, and forwards requests for metadata.
type Agent struct {
	o    AgentOptions
	ctx  context.Context // of the requests that are forwarded
	stop context.CancelFunc

	mu       sync.Mutex
	former   *Former // answers Hello and Form from the disk
	table    *Leases // while this node leads metadata
	term     uint64  // of that leadership
	seen     int64   // when the table was last looked at
	known    []Lease // as the last answer to a renewal had them
	knownAt  int64
	waits    []string
	moved    int64  // time of the last transfer; far back at first
	tries    tries  // transfers that have not come to anything yet
	hint     uint64 // Raft id of the leader of metadata as another member told; 0: none did
	asked    int    // members, for the hint
	closed   bool
	forwards sync.WaitGroup
}

// NewAgent returns an Agent that Run starts; Serve and Forward may be called at
// once.
func NewAgent(o AgentOptions) (*Agent, error) {
	if o.Identity.Stage != Formed {
		return nil, fmt.Errorf("make agent: node %s is %s", o.Identity.Name, o.Identity.Stage)
	}
	if o.Interval <= 0 {
		o.Interval = LeaseInterval
	}
	if o.Clock == nil {
		o.Clock = clock()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	former, err := NewFormer(FormerOptions{Identity: o.Identity, Self: o.Meta.Node(), Seeds: o.Seeds})
	if err != nil {
		return nil, err
	}
	a := &Agent{o: o, former: former, moved: o.Clock() - int64(time.Hour)}
	a.ctx, a.stop = context.WithCancel(context.Background())
	return a, nil
}

// Run works until ctx ends, which is no error, or the node is replaced.
func (a *Agent) Run(ctx context.Context) error {
	defer a.close()
	timer := time.NewTimer(UntilNext(a.o.Interval))
	defer timer.Stop()
	for {
		if err := a.round(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		timer.Reset(UntilNext(a.o.Interval))
	}
}

// close ends the requests under way.
func (a *Agent) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.stop()
	a.forwards.Wait()
}

// round renews, watches the leases and moves what is due.
func (a *Agent) round(ctx context.Context) error {
	self, view := a.o.Meta.Node(), a.o.Meta.View()
	if n, ok := view.Node(self.ID); ok && n.State == meta.NodeGone {
		return fmt.Errorf("run node %s: %w", self.Name, ErrReplaced)
	}
	groups := a.o.Engine.Groups()
	a.lead(groups)
	a.renew(ctx, groups)
	for _, boot := range a.lapsed(view.Nodes) {
		a.drop(boot)
	}
	a.move(view, groups)
	return nil
}

// lead begins a table of leases with each leadership of metadata, and drops it
// with its end.
func (a *Agent) lead(groups []Group) {
	leads, term := false, uint64(0)
	for _, g := range groups {
		if g.Shard == meta.GroupID {
			leads, term = g.Leads, g.Term
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !leads:
		a.table = nil
	case a.table == nil || a.term != term:
		now := a.o.Clock()
		a.table, a.term, a.seen = NewLeases(now), term, now
	}
}

// leases is the table as of now, nil while this node does not lead metadata; mu
// is held. A process that has stood still (a stopped machine, a debugger) has
// taken no renewals meanwhile: it cannot know who lives, and begins anew. A
// round looks here at least every interval.
func (a *Agent) leases(now int64) *Leases {
	if a.table == nil {
		return nil
	}
	if now-a.seen > int64(LeaseTerm/2) {
		a.table = NewLeases(now)
	}
	a.seen = now
	return a.table
}

func (a *Agent) lapsed(members []meta.Node) []uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.o.Clock()
	table := a.leases(now)
	if table == nil {
		return nil
	}
	return table.Lapsed(now, members)
}

// drop ends what lived with a process that is gone. When metadata does not take
// it, the next round tries again, unless the process has come back.
func (a *Agent) drop(boot uint64) {
	a.o.Logger.Warn("a node's lease has lapsed", "boot", fmt.Sprintf("%016x", boot))
	a.o.Meta.DropBoot(boot, func(err error) {
		if err == nil {
			return
		}
		a.o.Logger.Info("what lived with a process was not ended, and is tried again", "boot", fmt.Sprintf("%016x", boot), "error", err)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.table != nil {
			a.table.Again(boot)
		}
	})
}

// renew renews this node's lease at the leader of metadata.
func (a *Agent) renew(ctx context.Context, groups []Group) {
	r := Renewal{Cluster: a.o.Identity.Cluster, Node: a.o.Meta.Node(), SyncNs: uint64(max(0, a.o.Engine.Sync()))}
	for _, g := range groups {
		r.Positions = append(r.Positions, g.position())
	}
	if a.take(r) {
		return
	}
	limited, cancel := context.WithTimeout(ctx, a.o.Interval)
	defer cancel()
	for range 2 { // the second time, whom the first one has named
		to, ok := a.leader(groups)
		if !ok {
			to, ok = a.anyone()
		}
		if !ok || a.offer(limited, to, r) {
			return
		}
	}
}

// offer renews the lease at a node, and reports whether that was the leader, or
// has named none.
func (a *Agent) offer(ctx context.Context, to Peer, r Renewal) (done bool) {
	body, err := a.o.Network.Call(ctx, to, MethodLease, r.encode())
	var answer RenewalAnswer
	if err == nil {
		answer, err = decodeRenewalAnswer(body)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.o.Logger.Debug("the lease was not renewed", "at", to.Name, "error", err)
		a.hint = 0
		return true
	}
	if len(answer.Leases) > 0 {
		a.known, a.knownAt = answer.Leases, a.o.Clock()
		return true
	}
	named := answer.Leader != 0 && answer.Leader != a.hint
	a.hint = answer.Leader
	return !named
}

// anyone is one of the other members after the other: a node that is in no group
// yet hears from no leader, and asks who leads.
func (a *Agent) anyone() (Peer, bool) {
	members := a.o.Identity.Members
	for range members {
		a.asked++
		if n := members[a.asked%len(members)]; n.Name != a.o.Identity.Name {
			return Peer{Name: n.Name, Addr: n.Addr}, true
		}
	}
	return Peer{}, false
}

// take takes a renewal if this node leads metadata: false when it does not. A
// member that has changed its process or addresses is announced.
func (a *Agent) take(r Renewal) bool {
	a.mu.Lock()
	now := a.o.Clock()
	table := a.leases(now)
	if table == nil {
		a.mu.Unlock()
		return false
	}
	fresh := table.Renew(now, r)
	a.mu.Unlock()
	view := a.o.Meta.View()
	if n, ok := view.Node(r.Node.ID); fresh && ok && n.State == meta.NodeMember && !view.Announced(r.Node) {
		a.o.Meta.UpdateNode(r.Node, nil)
	}
	return true
}

// leader is the node that leads metadata, as far as this one knows.
func (a *Agent) leader(groups []Group) (Peer, bool) {
	for _, g := range groups {
		if g.Shard == meta.GroupID && g.Leader != 0 {
			return a.peer(g.Leader)
		}
	}
	a.mu.Lock()
	hint := a.hint
	a.mu.Unlock()
	if hint == 0 || hint == a.o.Identity.RaftID {
		return Peer{}, false
	}
	return a.peer(hint)
}

// peer is where a Raft id is reached: metadata says so, or the disk while there
// is none.
func (a *Agent) peer(id uint64) (Peer, bool) {
	if n, ok := a.o.Meta.View().Node(id); ok {
		return Peer{Name: n.Name, Addr: n.Addr}, true
	}
	for _, n := range a.o.Identity.Members {
		if n.ID == id {
			return Peer{Name: n.Name, Addr: n.Addr}, true
		}
	}
	return Peer{}, false
}

// Leases is the table of leases as this node knows it: its own while it leads
// metadata, else what the leader answered last.
func (a *Agent) Leases() []Lease {
	nodes := a.o.Meta.View().Nodes
	ids := make([]uint64, len(nodes))
	for i, n := range nodes {
		ids[i] = n.ID
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.o.Clock()
	if table := a.leases(now); table != nil {
		return table.List(now, ids)
	}
	list := slices.Clone(a.known)
	for i, l := range list {
		list[i] = l.aged(time.Duration(now - a.knownAt))
	}
	return list
}

// move begins the changes of members and the transfer that are due.
func (a *Agent) move(view *meta.View, groups []Group) {
	leases := a.Leases()
	var waits []string
	for _, g := range groups {
		c, ok, wait := NextChange(view, leases, g)
		if wait != "" {
			waits = append(waits, wait)
		}
		if !ok {
			continue
		}
		waits = append(waits, fmt.Sprintf("shard %d: %s %s", c.Shard, c.Kind, nodeName(view, c.Node)))
		a.o.Logger.Info("changing the members of a shard", "shard", c.Shard, "change", c.Kind.String(), "node", nodeName(view, c.Node))
		if err := a.o.Engine.Change(c); err != nil {
			a.o.Logger.Warn("the members of a shard were not changed", "shard", c.Shard, "error", err)
		}
	}
	now := a.o.Clock()
	a.mu.Lock()
	a.waits = waits
	a.tries.settle(groups)
	t, ok := NextTransfer(view, leases, groups, time.Duration(now-a.moved), func(t Transfer) bool { return a.tries.barred(now, t) })
	if ok {
		a.moved = now
		a.tries.begin(now, t)
	}
	a.mu.Unlock()
	if !ok {
		return
	}
	a.o.Logger.Info("handing over a shard", "shard", t.Shard, "to", nodeName(view, t.To))
	if err := a.o.Engine.Transfer(t); err != nil {
		a.o.Logger.Warn("a shard was not handed over", "shard", t.Shard, "error", err)
	}
}

// Status is the cluster as this node sees it.
func (a *Agent) Status() Status {
	a.mu.Lock()
	waits := slices.Clone(a.waits)
	a.mu.Unlock()
	return Build(a.o.Meta.Node(), a.o.Meta.View(), a.Leases(), a.o.Engine.Groups(), waits)
}

// forwardFor is how long a request is tried: a publish waits no longer for a
// leader either.
const forwardFor = 5 * time.Second

// Forward carries a request to the leader of metadata, as meta.Options.Forward
// wants it: again and again while there is no leader or the outcome is unknown,
// for five seconds.
func (a *Agent) Forward(request []byte, done func(answer []byte, err error)) {
	a.mu.Lock()
	closed := a.closed
	if !closed {
		a.forwards.Add(1)
	}
	a.mu.Unlock()
	go func() {
		if closed {
			done(nil, fault.New(fault.Exiting, "change metadata: the node shuts down"))
			return
		}
		defer a.forwards.Done()
		ctx, cancel := context.WithTimeout(a.ctx, forwardFor)
		defer cancel()
		done(a.forward(ctx, request))
	}()
}

func (a *Agent) forward(ctx context.Context, request []byte) ([]byte, error) {
	last := error(fault.New(fault.NotLeader, "change metadata: no leader is known"))
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		answer, err := a.once(ctx, request)
		if err == nil {
			err = meta.Refused(answer)
			if fault.CodeOf(err) != fault.NotLeader {
				return answer, nil
			}
		}
		if ctx.Err() == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			if a.ctx.Err() != nil {
				return nil, fault.New(fault.Exiting, "change metadata: the node shuts down")
			}
			return nil, &fault.Error{Code: fault.NotLeader, Text: "change metadata", Cause: last}
		}
	}
}

// once asks the leader of metadata once, which may be this node.
func (a *Agent) once(ctx context.Context, request []byte) ([]byte, error) {
	to, ok := a.leader(a.o.Engine.Groups())
	if !ok {
		return nil, fault.New(fault.NotLeader, "change metadata: no leader is known")
	}
	limited, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if to.Name == a.o.Identity.Name {
		return a.submit(limited, request)
	}
	return a.o.Network.Call(limited, to, MethodMeta, request)
}

// submit has this node's metadata answer a request.
func (a *Agent) submit(ctx context.Context, request []byte) ([]byte, error) {
	got := make(chan []byte, 1)
	a.o.Meta.Submit(request, func(answer []byte) { got <- answer })
	select {
	case answer := <-got:
		return answer, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
