package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/grow"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/repair"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/transport"
	"github.com/tidings-io/tidings/internal/wal"
)

// member is what a node of a cluster of several has beside a single one: links
// to the others, forming and coming back, leases, the moves of members and
// leaders, and sessions for replicas that are behind.
type member struct {
	n         *Node
	self      meta.Node // as others reach it
	seeds     []cluster.Peer
	transport *transport.Transport
	forming   *cluster.Forming
	engine    engine
	sessions  sessions
	limit     *shard.Limiter // of what sessions send
	mender    *repair.Mender
	presence  *presence
	// credentials are what it shows other members.
	credentials *transport.Credentials

	// Set while the node opens its groups.
	agent  atomic.Pointer[cluster.Agent]
	begun  atomic.Bool            // the groups hear of the others
	behind grow.List[chan uint64] // by shard: the leader of a log that this replica has fallen behind
	pulls  launcher               // of what brings them up to date
}

// newMember takes the data folder and opens the links' address; nothing runs.
func newMember(n *Node) (_ *member, err error) {
	c := &n.cfg
	seeds, err := cluster.ParseSeeds(seedList(c.Seeds))
	if err != nil {
		return nil, &SettingError{"seeds", fmt.Errorf("%w, such as n1=10.0.0.1:4190,n2=10.0.0.2:4190,n3=10.0.0.3:4190", err)}
	}
	credentials, err := transport.LoadTLS(c.ClusterCA, c.ClusterCert, c.ClusterKey)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of this node: %w", err)
	}
	name := credentials.Name()
	if c.Node != "" && c.Node != name {
		return nil, &SettingError{"cluster-cert", fmt.Errorf("%s is for the node %s, not for %s", c.ClusterCert, name, c.Node)}
	}
	addr, err := clusterAddress(c.ClusterAddress, name, seeds)
	if err != nil {
		return nil, err
	}
	if n.dir, err = openClusterDir(n.fs, filepath.ToSlash(c.DataPath), name); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.dir.lock.Close())
		}
	}()
	if err = n.openMemberLog(); err != nil {
		return nil, err
	}
	var raw [8]byte
	rand.Read(raw[:])
	mb := &member{n: n, seeds: seeds, limit: shard.NewLimiter(int64(c.CatchUpRate))}
	mb.engine.mb, mb.mender = mb, mb.newMender()
	mb.self = meta.Node{
		ID: n.dir.RaftID, Name: name, Addr: addr, Boot: binary.LittleEndian.Uint64(raw[:]) | 1,
	}
	mb.self.TCP, mb.self.HTTP, mb.self.Broadcast = n.broadcast()
	mb.credentials = credentials
	if err = mb.buildTransport(credentials); err != nil {
		return nil, err
	}
	return mb, mb.buildForming()
}

// openMemberLog opens the log of a member before it speaks to the others: with a
// log that is damaged, or a group whose checkpoints all are, it comes back under
// another Raft id.
func (n *Node) openMemberLog() error {
	if !n.dir.Begun || n.dir.Stale || n.dir.Stage != cluster.Formed.String() {
		return nil // there is none, or it is given up
	}
	err := n.openLog()
	if err == nil {
		if err = n.wholeGroups(); err != nil {
			err = errors.Join(err, n.wal.Close())
		}
	}
	if _, damaged := errors.AsType[*wal.CorruptError](err); !damaged && !errors.Is(err, shard.ErrManifest) || len(n.dir.Members) < 2 {
		return err
	}
	n.wal = nil
	n.log.Error("what this node had made durable is damaged: it gives up its replicas, and gets them anew from the others", "error", err)
	return n.dir.rejoin(n.fs)
}

// wholeGroups looks for groups that cannot be opened for the damage of their
// checkpoints.
func (n *Node) wholeGroups() error {
	for id := uint32(0); id <= uint32(n.dir.DataShards); id++ {
		if err := shard.Whole(n.fs, n.shardDir(id), id); err != nil {
			return err
		}
	}
	return nil
}

// clusterAddress is where the others reach this node: as the seeds name it, else
// where it listens.
func clusterAddress(listen, name string, seeds []cluster.Peer) (string, error) {
	for _, s := range seeds {
		if s.Name == name {
			return s.Addr, nil
		}
	}
	host, _, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		return "", &SettingError{"cluster-address", fmt.Errorf("%s says not where other nodes reach this one: name it in --seeds, as %s=HOST:PORT", listen, name)}
	}
	return listen, nil
}

func (mb *member) buildTransport(credentials *transport.Credentials) (err error) {
	n := mb.n
	o := transport.Options{
		Name: mb.self.Name, RaftID: mb.self.ID, Boot: mb.self.Boot, Credentials: credentials,
		Listener: n.fronts.cluster, Logger: n.log,
		Receive: mb.receive, OnUnreachable: mb.unreachable, Authorize: authorize,
		MaxFrameBytes: max(32<<20, int(n.cfg.MaxBodySize)+1<<20),
	}
	if n.dir.Stage == cluster.Formed.String() {
		o.Cluster = n.dir.Cluster
	}
	if mb.transport, err = transport.New(o); err != nil {
		return err
	}
	for m := cluster.MethodHello; m <= cluster.MethodMeta; m++ {
		mb.transport.Handle(transport.Method(m), func(ctx context.Context, from transport.From, request []byte) ([]byte, error) {
			return mb.serve(ctx, from, m, request)
		})
	}
	mb.handleBroker()
	mb.handleSessions()
	mb.handleTransfer()
	mb.handleMend()
	mb.presence = newPresence(mb)
	mb.transport.Handle(methodPresence, mb.presence.handle)
	mb.handleAdmin()
	mb.handleStats()
	return nil
}

func (mb *member) buildForming() error {
	n := mb.n
	identity, err := n.dir.clusterIdentity()
	if err != nil {
		return err
	}
	former, err := cluster.NewFormer(cluster.FormerOptions{
		Identity: identity, Self: mb.self, Seeds: mb.seeds, Shards: n.cfg.DataShards, Replicas: n.cfg.ReplicationFactor,
	})
	if err != nil {
		return err
	}
	mb.forming = cluster.NewForming(cluster.FormingOptions{
		Former: former, Network: mb, Logger: n.log,
		Save: func(id cluster.Identity) error { return n.dir.saveCluster(n.fs, id) },
	})
	return nil
}

// authorize lets nodes make calls that are no members, and nothing else: to form
// a cluster, and to come back. Who it is its certificate says; serve looks at
// what it wants.
func authorize(_ transport.From, class transport.Class) error {
	if class != transport.Calls {
		return errors.New("it is no member of the cluster")
	}
	return nil
}

// serve answers a call about the cluster.
func (mb *member) serve(ctx context.Context, from transport.From, m cluster.Method, request []byte) ([]byte, error) {
	switch m {
	case cluster.MethodHello, cluster.MethodForm, cluster.MethodJoin:
	default:
		if !from.Known {
			return nil, fmt.Errorf("serve %s: %s is no member of the cluster", m, from.Name)
		}
	}
	if a := mb.agent.Load(); a != nil {
		return a.Serve(ctx, from.Name, m, request)
	}
	return mb.forming.Serve(ctx, from.Name, m, request)
}

// Call carries a call of the cluster to another node, or answers it here where
// the address is this node's own: a Former asks all seeds, itself included.
func (mb *member) Call(ctx context.Context, to cluster.Peer, m cluster.Method, request []byte) ([]byte, error) {
	own := transport.From{ID: mb.self.ID, Name: mb.self.Name, Boot: mb.self.Boot, Known: true}
	if to.Addr == mb.self.Addr && (to.Name == "" || to.Name == mb.self.Name) {
		return mb.serve(ctx, own, m, request)
	}
	p := transport.Peer{Name: to.Name, Addr: to.Addr}
	if known, ok := mb.memberNamed(to.Name); ok {
		p.ID = known.ID
	}
	answer, err := mb.transport.Call(ctx, p, transport.Method(m), request)
	if refused, ok := errors.AsType[*transport.RefusedError](err); ok && refused.Reason == transport.ReasonSelf {
		return mb.serve(ctx, own, m, request)
	}
	return answer, err
}

// memberNamed finds a member, so that a call to it goes over its links.
func (mb *member) memberNamed(name string) (meta.Node, bool) {
	if mb.agent.Load() == nil || name == "" {
		return meta.Node{}, false // forming: Raft ids may change
	}
	return mb.n.meta.View().NodeNamed(name)
}

// form waits until the node belongs to a cluster.
func (mb *member) form(ctx context.Context) error {
	id, err := mb.forming.Run(ctx)
	if err != nil {
		return fmt.Errorf("form or join the cluster: %w", err)
	}
	mb.transport.SetCluster(id.Cluster)
	return mb.setPeers(id.Members)
}

// setPeers makes the members the known peers.
func (mb *member) setPeers(nodes []meta.Node) error {
	peers := make([]transport.Peer, 0, len(nodes))
	for _, n := range nodes {
		if n.ID != mb.self.ID {
			peers = append(peers, transport.Peer{ID: n.ID, Name: n.Name, Addr: n.Addr})
		}
	}
	if err := mb.transport.SetPeers(peers); err != nil {
		return fmt.Errorf("link the members of the cluster: %w", err)
	}
	return nil
}

// open readies the member for the groups, which are opened next.
func (mb *member) open(m *meta.Machine) error {
	identity, err := mb.n.dir.clusterIdentity()
	if err != nil {
		return err
	}
	agent, err := cluster.NewAgent(cluster.AgentOptions{
		Identity: identity, Seeds: mb.seeds, Meta: m, Engine: &mb.engine, Network: mb, Logger: mb.n.log,
	})
	if err != nil {
		return err
	}
	mb.agent.Store(agent)
	return nil
}

// begin lets the groups, which are all open, hear of the others.
func (mb *member) begin() {
	mb.begun.Store(true)
	mb.n.meta.Watch(func(old, now *meta.View) {
		if !now.Formed() || sameNodes(old.Nodes, now.Nodes) {
			return
		}
		if err := mb.setPeers(now.Nodes); err != nil {
			mb.n.log.Warn("the links were not changed", "error", err)
		}
	})
}

func sameNodes(a, b []meta.Node) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].ID != b[i].ID || a[i].Name != b[i].Name || a[i].Addr != b[i].Addr {
			return false
		}
	}
	return true
}

// groupOptions adds to a group's options what one with others needs.
func (mb *member) groupOptions(o *shard.Options, began []uint64) error {
	identity, err := mb.n.dir.clusterIdentity()
	if err != nil {
		return err
	}
	id := o.ID
	mb.behind.Add(make(chan uint64, 1))
	mb.pulls.add(fmt.Sprintf("shard %d", id), func(ctx context.Context) error { mb.catchUp(ctx, id); return nil })
	o.Send, o.Behind = func(m *raftMessage) { mb.transport.Send(id, m) }, func(leader uint64) { mb.fellBehind(id, leader) }
	o.LeaderMoved = func() { mb.leaderMoved(id) }
	o.SendLimit = mb.limit
	o.KeepBytes = int64(mb.n.cfg.ReplicaLogSize)
	if o.KeepBytes == 0 {
		o.KeepBytes = -1
	}
	if int(id) < len(identity.Voters) {
		began = identity.Voters[id]
	}
	if slices.Contains(began, mb.self.ID) {
		o.Voters = began
	} else {
		o.Join = true
	}
	return nil
}

// run does the member's work until ctx ends, which is no error.
func (mb *member) run(ctx context.Context) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error { return mb.agent.Load().Run(ctx) })
	mb.pulls.begin(func(_ string, run func(context.Context) error) { eg.Go(func() error { return run(ctx) }) })
	eg.Go(func() error { <-ctx.Done(); mb.pulls.end(); return nil })
	eg.Go(func() error { mb.reportLatencies(ctx); return nil })
	eg.Go(func() error { mb.presence.run(ctx); return nil })
	eg.Go(func() error { return mb.n.broker.Run(ctx) })
	eg.Go(func() error { return mb.mender.Run(ctx) })
	return eg.Wait()
}

// reportLatencies tells the groups that this node leads how the disks of the
// others are doing.
func (mb *member) reportLatencies(ctx context.Context) {
	timer := time.NewTimer(cluster.UntilNext(cluster.LeaseInterval))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(cluster.UntilNext(cluster.LeaseInterval))
		mb.leaveFull()
		var leases []cluster.Lease
		for _, g := range mb.n.groups.All() {
			if !g.Leader() {
				continue
			}
			if leases == nil {
				leases = mb.agent.Load().Leases()
			}
			for _, l := range leases {
				if l.State == cluster.LeaseLive && l.RaftID != mb.self.ID {
					g.ReportLatency(l.RaftID, l.Sync)
				}
			}
		}
	}
}

// settledFor bounds how long a node that starts waits for what happened to metadata
// while it was away. One that is cut off serves with what it knew.
const settledFor = 5 * time.Second

// settled waits until this node knows the cluster's metadata, and, if its leader can be
// reached, as of now: the fronts can answer then. With less, a publish to a topic that
// the node itself acknowledges could overtake what its spool holds. It ends too with the
// engine, which may break before that.
func (mb *member) settled(ctx, engine context.Context) error {
	formed := make(chan struct{})
	told := false
	mb.n.meta.Watch(func(_, now *meta.View) {
		if now.Formed() && !told {
			told = true
			close(formed)
		}
	})
	if !mb.n.meta.View().Formed() {
		mb.n.log.Info("waiting for the metadata of the cluster")
	}
	var late, again <-chan time.Time
	synced := make(chan error, 1) // one is asked for at a time
	ask := func() { mb.n.meta.Sync(func(err error) { synced <- err }) }
	for began := formed; ; {
		select {
		case <-began:
			began, late = nil, time.After(settledFor)
			ask()
		case err := <-synced:
			if err == nil {
				return nil
			}
			again = time.After(cluster.LeaseInterval / 10)
		case <-again:
			ask()
		case <-late:
			mb.n.log.Warn("metadata may be old: its leader can't be reached")
			return nil
		case <-engine.Done():
			return context.Cause(engine)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// handOverTimeout bounds how long a stopping node tries to give its leaderships
// away.
const handOverTimeout = 3 * time.Second

// handOver gives the leaderships of this node to others that can lead at once.
func (mb *member) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	var eg errgroup.Group
	for i, g := range mb.n.groups.All() {
		s := g.Status()
		if !s.Leader {
			continue
		}
		// Spread over the others, so that no node gets all of them.
		var fit []uint64
		for _, m := range s.Members {
			if m.ID != mb.self.ID && !m.Learner && m.Active && m.State == "replicate" {
				fit = append(fit, m.ID)
			}
		}
		if len(fit) == 0 {
			continue
		}
		to := fit[i%len(fit)]
		eg.Go(func() error {
			if err := g.TransferLeader(ctx, to); err != nil {
				mb.n.log.Info("a leadership was not handed over", "shard", s.ID, "error", err)
			}
			return nil
		})
	}
	_ = eg.Wait()
}

// status is the cluster as this node sees it.
func (mb *member) status() cluster.Status {
	if a := mb.agent.Load(); a != nil && mb.begun.Load() {
		return a.Status()
	}
	return mb.forming.Status()
}

// aloneStatus is the status of a node that is a cluster of its own.
func aloneStatus(n *Node) cluster.Status {
	self := n.meta.Node()
	e := engine{mb: &member{n: n, self: self}}
	e.mb.begun.Store(true)
	leases := []cluster.Lease{{RaftID: self.ID, Boot: self.Boot, State: cluster.LeaseLive, Since: time.Since(n.start), Sync: e.Sync()}}
	return cluster.Build(self, n.meta.View(), leases, e.Groups(), nil)
}

// clusterPort is where a seed is that names no port.
const clusterPort = "4190"

// seedList are the seeds as they are given, with a port each.
func seedList(text string) []string {
	list := splitList(text)
	for i, s := range list {
		if addr := s[strings.IndexByte(s, '=')+1:]; addr != "" && !strings.Contains(addr, ":") {
			list[i] = s + ":" + clusterPort
		}
	}
	return list
}

// splitList is a list that is separated by commas, empty entries left out.
func splitList(text string) (list []string) {
	for s := range strings.SplitSeq(text, ",") {
		if s = strings.TrimSpace(s); s != "" {
			list = append(list, s)
		}
	}
	return list
}
