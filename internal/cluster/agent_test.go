package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/shard"
)

// rig is three members over one metadata log: the first leads everything.
type rig struct {
	t      *testing.T
	net    *network
	nodes  []meta.Node
	agents []*Agent
	metas  []*meta.Machine
	wake   chan struct{}
	stops  []context.CancelFunc

	mu     sync.Mutex
	groups [][]Group
	moves  []Transfer
	term   uint64
	index  uint64
	log    []shard.Entry // the whole log, for a machine that comes late
}

// engine is the groups of one node of the rig.
type engine struct {
	r *rig
	i int
}

func (e engine) Groups() []Group {
	e.r.mu.Lock()
	defer e.r.mu.Unlock()
	return slices.Clone(e.r.groups[e.i])
}

func (e engine) Change(c Change) error {
	e.r.mu.Lock()
	defer e.r.mu.Unlock()
	e.r.groups[e.i][c.Shard].take(c)
	return nil
}

func (e engine) Transfer(m Transfer) error {
	e.r.mu.Lock()
	defer e.r.mu.Unlock()
	e.r.moves = append(e.r.moves, m)
	return nil
}

func (e engine) Sync() time.Duration { return time.Millisecond }

// within runs fn in a bubble of its own time, with three members at work.
func within(t *testing.T, fn func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, net: newNetwork(), nodes: testNodes(), wake: make(chan struct{}, 1), term: 1, index: 1}
		for i := range r.nodes {
			r.nodes[i].Boot = uint64(100 + i)
		}
		voters := meta.Layout(r.nodes, 3, 3)
		for i, n := range r.nodes {
			r.add(Identity{
				Name: n.Name, RaftID: n.ID, Stage: Formed, Cluster: testCluster, Attempt: Attempt{1, 1},
				Members: r.nodes, Voters: voters,
			}, r.nodes[i])
		}
		r.lead(0)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go r.pump(ctx)
		for i := range r.agents {
			r.run(i)
		}
		fn(r)
		for i := range r.agents {
			r.stop(i)
		}
	})
}

// add makes a node: its metadata, and its agent.
func (r *rig) add(id Identity, n meta.Node) {
	r.t.Helper()
	i := len(r.agents)
	var agent *Agent
	m, err := meta.New(meta.Options{
		Node: n, Founding: id.Founding(), Wake: r.ring,
		Forward: func(b []byte, done func([]byte, error)) { agent.Forward(b, done) },
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := m.Restore(1, nil); err != nil {
		r.t.Fatal(err)
	}
	for _, e := range r.log {
		if err := m.Apply(e, nil); err != nil {
			r.t.Fatal(err)
		}
	}
	agent, err = NewAgent(AgentOptions{
		Identity: id, Seeds: seedsOf(r.nodes), Meta: m, Engine: engine{r, i}, Network: r.net.of(n.Name),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.agents, r.metas = append(r.agents, agent), append(r.metas, m)
	r.groups, r.stops = append(r.groups, nil), append(r.stops, nil)
	r.mu.Unlock()
}

func (r *rig) ring() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// lead makes a node the leader of all groups.
func (r *rig) lead(leader int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.groups {
		r.groups[i] = nil
		for id := range uint32(4) {
			g := lead(id)
			g.Leads, g.Leader, g.Term = i == leader, r.nodes[leader].ID, r.term
			g.Progress[11] = Progress{Match: 1000, Active: true}
			g.Progress[23] = Progress{Match: 1000, Active: true}
			r.groups[i] = append(r.groups[i], g)
		}
	}
	for i, m := range r.metas {
		if i == leader {
			m.Lead(r.term)
		}
	}
	r.ring()
}

// pump is the loop of the metadata group of all nodes.
func (r *rig) pump(ctx context.Context) {
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		for again := true; again; {
			r.mu.Lock()
			again = r.pass()
			r.mu.Unlock()
		}
	}
}

func (r *rig) pass() (did bool) {
	for i, m := range r.metas {
		if !r.groups[i][0].Leads {
			continue
		}
		data, token := m.Drain(r.term, int64(r.index), 1<<20)
		if data == nil {
			continue
		}
		did = true
		r.index++
		e := shard.Entry{Index: r.index, Term: r.term, Data: slices.Clone(data)}
		r.log = append(r.log, e)
		for k, other := range r.metas {
			var own any
			if k == i {
				own = token
			}
			if err := other.Apply(e, own); err != nil {
				r.t.Error(err)
			}
		}
	}
	for _, m := range r.metas {
		m.Tick(0)
	}
	return did
}

func (r *rig) run(i int) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	agent := r.agents[i]
	r.net.listen(agent.o.Meta.Node().Addr, agent.Serve)
	go func() { done <- agent.Run(ctx) }()
	r.stops[i] = func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, ErrReplaced) {
			r.t.Error(err)
		}
	}
}

// stop ends a node.
func (r *rig) stop(i int) {
	if r.stops[i] != nil {
		r.stops[i]()
		r.stops[i] = nil
		r.net.listen(r.agents[i].o.Meta.Node().Addr, nil)
	}
}

// later lets time pass until all has settled.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func state(s Status, node string) string {
	for _, n := range s.Nodes {
		if n.Name == node && n.State == "member" {
			return n.Lease
		}
	}
	return "none"
}

func TestLeasesAreSeenEverywhere(t *testing.T) {
	within(t, func(r *rig) {
		later(3 * time.Second)
		for _, a := range r.agents {
			s := a.Status()
			if state(s, "a") != "live" || state(s, "b") != "live" || state(s, "c") != "live" || !s.Healthy {
				t.Errorf("status %+v", s)
			}
		}
		var topic *meta.Topic
		r.metas[2].CreateTopic("home-c#ephemeral", func(got *meta.Topic, err error) { topic = got })
		later(time.Second)
		if topic == nil || r.metas[0].View().Len() != 1 {
			t.Fatal("a node that does not lead could not make a topic")
		}
		r.stop(2)
		later(LeaseTerm + 2*time.Second)
		for _, a := range r.agents[:2] {
			if s := a.Status(); state(s, "c") != "lapsed" || s.Healthy {
				t.Errorf("status %+v", s)
			}
		}
		if r.metas[0].View().Len() != 0 {
			t.Error("the ephemeral topic outlived its home")
		}
	})
}

// Leaders are moved one at a time, not before the others are settled.
func TestAgentSpreadsLeaders(t *testing.T) {
	within(t, func(r *rig) {
		later(settled - time.Second)
		r.mu.Lock()
		if len(r.moves) > 0 {
			t.Errorf("moved at once: %v", r.moves)
		}
		r.mu.Unlock()
		later(3 * time.Second)
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.moves) == 0 || r.moves[0].To == 11 {
			t.Errorf("moves %v", r.moves)
		}
	})
}

func TestRequestsWaitForALeader(t *testing.T) {
	within(t, func(r *rig) {
		later(time.Second)
		r.mu.Lock()
		for i := range r.groups {
			for k := range r.groups[i] {
				r.groups[i][k].Leads, r.groups[i][k].Leader = false, 0
			}
		}
		r.metas[0].Follow()
		r.mu.Unlock()
		var got error
		answered := false
		r.metas[1].CreateTopic("orders", func(_ *meta.Topic, err error) { got, answered = err, true })
		later(2 * time.Second)
		if answered {
			t.Fatalf("answered without a leader: %v", got)
		}
		r.mu.Lock()
		r.term++
		r.mu.Unlock()
		r.lead(2)
		later(2 * time.Second)
		if _, ok := r.metas[1].View().Topic("orders"); !ok || !answered || got != nil {
			t.Errorf("answered %v: %v", answered, got)
		}
		r.mu.Lock()
		for i := range r.groups {
			r.groups[i][0].Leads, r.groups[i][0].Leader = false, 0
		}
		r.metas[2].Follow()
		r.mu.Unlock()
		answered = false
		r.metas[1].CreateTopic("more", func(_ *meta.Topic, err error) { got, answered = err, true })
		later(forwardFor + time.Second)
		if !answered || !errors.Is(got, fault.NotLeader) {
			t.Errorf("given up: %v, %v", answered, got)
		}
	})
}

// A wiped node gets its name and places back, through a member that does not
// lead, once its lease has lapsed.
func TestWipedNodeComesBack(t *testing.T) {
	within(t, func(r *rig) {
		later(2 * time.Second)
		r.stop(2)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		fresh := meta.Node{ID: 23, Name: "c", Addr: r.nodes[2].Addr, Boot: 999}
		var disk Identity
		seeds := []Peer{{Addr: r.nodes[1].Addr}, {Addr: r.nodes[0].Addr}, {Addr: r.nodes[2].Addr}}
		f := formNode(ctx, t, r.net, fresh, seeds, &disk)
		later(time.Second)
		if s := f.Status(); s.Stage != "empty" || s.Waits == "" {
			t.Errorf("it came in while the member may be alive: %+v", s)
		}
		later(LeaseTerm)
		if disk.Stage != Formed || disk.Cluster != testCluster || disk.Voters != nil || disk.Attempt != (Attempt{1, 1}) {
			t.Fatalf("disk %+v, %v", disk, f.Status().Notes)
		}
		v := r.metas[0].View()
		if n, _ := v.NodeNamed("c"); n.ID != 23 || len(v.Gone) != 1 || !slices.Contains(v.Meta.Voters, 23) {
			t.Errorf("metadata has %+v", n)
		}
		r.add(disk, fresh)
		r.mu.Lock()
		r.groups[3] = slices.Clone(r.groups[1])
		r.mu.Unlock()
		r.run(3)
		later(10 * time.Second)
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, g := range r.groups[0] {
			if !slices.Equal(g.Voters, []uint64{11, 12, 23}) || len(g.Learners) > 0 {
				t.Errorf("shard %d has the voters %v, learners %v", g.Shard, g.Voters, g.Learners)
			}
		}
		if n, _ := r.metas[1].View().NodeNamed("c"); n.Boot != 999 {
			t.Errorf("its process is not announced: %+v", n)
		}
	})
}

// The disk that was replaced does not go on.
func TestReplacedNodeStops(t *testing.T) {
	within(t, func(r *rig) {
		later(time.Second)
		r.metas[0].ReplaceNode(13, meta.Node{ID: 23, Name: "c", Addr: "x:1"}, nil)
		later(time.Second)
		if err := r.agents[2].round(context.Background()); !errors.Is(err, ErrReplaced) {
			t.Errorf("it goes on: %v", err)
		}
		if _, err := r.agents[0].Serve(context.Background(), "c", MethodLease,
			Renewal{Cluster: testCluster, Node: r.nodes[2]}.encode()); err == nil {
			t.Error("its lease was renewed")
		}
		if _, err := r.agents[0].Serve(context.Background(), "c", MethodLease, Renewal{Cluster: "other"}.encode()); err == nil {
			t.Error("a lease of another cluster was renewed")
		}
		if _, err := r.agents[0].Serve(context.Background(), "x", MethodMeta, nil); err == nil {
			t.Error("a stranger may ask")
		}
	})
}

// Who holds a certificate for one name cannot have the place of another.
func TestStrangerCannotJoinInAnothersName(t *testing.T) {
	within(t, func(r *rig) {
		later(2 * time.Second)
		r.stop(2)
		later(2 * LeaseTerm) // c would be replaced, if it asked itself
		ask := func(from string, n meta.Node) (JoinAnswer, error) {
			b, err := r.agents[0].Serve(context.Background(), from, MethodJoin, Join{Cluster: testCluster, Was: 13, Node: n}.encode())
			if err != nil {
				return JoinAnswer{}, err
			}
			return decodeJoinAnswer(b)
		}
		fresh := meta.Node{ID: 23, Name: "c", Addr: r.nodes[2].Addr}
		if a, err := ask("x", fresh); err == nil {
			t.Errorf("a stranger asked, and got %+v", a)
		}
		lost := fresh
		lost.Addr = ""
		if a, err := ask("c", lost); err != nil || a.Reason == "" {
			t.Errorf("a node without an address got %+v, %v", a, err)
		}
		if n, _ := r.metas[0].View().NodeNamed("c"); n.ID != 13 {
			t.Errorf("metadata has %+v", n)
		}
		if a, err := ask("c", fresh); err != nil || a.Reason != "" {
			t.Errorf("the node itself got %+v, %v", a, err)
		}
	})
}

// A leader of metadata that stood still, and still leads, knows of nobody
// whether he lives: it drops no process, and lets nobody be replaced.
func TestLeaderThatStoodStill(t *testing.T) {
	within(t, func(r *rig) {
		later(3 * time.Second)
		r.metas[2].CreateTopic("home-c#ephemeral", nil)
		later(time.Second)
		a := r.agents[0]
		late := r.agents[0].o.Clock() + int64(LeaseTerm) + second
		a.mu.Lock()
		if state := a.leases(late).State(late, 13); state != LeaseUnknown {
			t.Errorf("after it stood still, node c is %s", state)
		}
		a.mu.Unlock()
		for _, boot := range a.table.Lapsed(late, r.metas[0].View().Nodes) {
			t.Errorf("the process %d is to be dropped", boot)
		}
	})
}

// A process whose end metadata did not take is ended at the next round.
func TestLapsedProcessIsDroppedAgain(t *testing.T) {
	within(t, func(r *rig) {
		later(3 * time.Second)
		r.metas[2].CreateTopic("home-c#ephemeral", nil)
		later(time.Second)
		r.stop(2)
		r.stop(0) // rounds are made by hand
		round := func() {
			time.Sleep(time.Second)
			if err := r.agents[0].round(context.Background()); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		r.metas[0].Follow() // takes no request, and the agent forwards none
		for range 7 {
			round()
		}
		r.agents[0].mu.Lock()
		if state := r.agents[0].table.State(r.agents[0].o.Clock(), 13); state != LeaseLapsed || r.metas[0].View().Len() != 1 {
			t.Errorf("node c is %s, %d topics", state, r.metas[0].View().Len())
		}
		r.agents[0].mu.Unlock()
		r.metas[0].Lead(r.term)
		round()
		if n := r.metas[0].View().Len(); n != 0 {
			t.Errorf("%d topics are left", n)
		}
	})
}

// Addresses that nobody could use do not get into metadata.
func TestLeaseWithBadAddresses(t *testing.T) {
	within(t, func(r *rig) {
		later(time.Second)
		for what, change := range map[string]func(*meta.Node){
			"no cluster address": func(n *meta.Node) { n.Addr = "" },
			"cluster address":    func(n *meta.Node) { n.Addr = "10.0.0.3" },
			"tcp address":        func(n *meta.Node) { n.TCP = "x:0" },
			"http address":       func(n *meta.Node) { n.HTTP = "x:70000" },
			"broadcast":          func(n *meta.Node) { n.Broadcast = "a b" },
			"control characters": func(n *meta.Node) { n.TCP = "a\x1b[31m:4150" },
		} {
			n := r.nodes[2]
			n.Boot = 500
			change(&n)
			if _, err := r.agents[0].Serve(context.Background(), "c", MethodLease, Renewal{Cluster: testCluster, Node: n}.encode()); err == nil {
				t.Errorf("%s: %+v was taken", what, n)
			}
		}
		later(time.Second)
		if n, _ := r.metas[0].View().NodeNamed("c"); n.Boot == 500 {
			t.Errorf("metadata has %+v", n)
		}
	})
}
