package broker_test

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
)

const clusterShards = 2

// clusterRig is three brokers over real groups in one process. Raft ids are 1, 2
// and 3, names n1, n2 and n3.
type clusterRig struct {
	t   *testing.T
	mu  sync.Mutex
	up  map[uint64]*member // by Raft id
	cut map[uint64]bool    // from all others
}

// member is one node of it; a rig, so that its helpers work.
type member struct {
	*rig
	c      *clusterRig
	id     uint64
	groups []*shard.Group // by shard, metadata first
	halt   func()
	blind  atomic.Uint64   // takes this one for every shard's leader, whoever is; 0: looks
	talks  [4]atomic.Int64 // requests about consumers here, by the Raft id of who was asked
}

func newCluster(t *testing.T) *clusterRig {
	c := &clusterRig{t: t, up: make(map[uint64]*member), cut: make(map[uint64]bool)}
	for id := uint64(1); id <= 3; id++ {
		c.boot(id)
	}
	t.Cleanup(func() {
		for id := uint64(1); id <= 3; id++ {
			if m := c.node(id); m != nil {
				m.halt()
			}
		}
	})
	c.until("all shards have leaders that everybody knows", func() bool {
		for s := range uint32(clusterShards + 1) {
			for id := uint64(1); id <= 3; id++ {
				if leader, _ := c.node(id).Leader(s); leader == 0 || !c.node(leader).groups[s].Leader() {
					return false
				}
			}
		}
		return true
	})
	return c
}

// node is a node that is up; nil when it is not.
func (c *clusterRig) node(id uint64) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up[id]
}

// reach is a node as another one sees it: nil when it is down or cut off.
func (c *clusterRig) reach(from, to uint64) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	if from != to && (c.cut[from] || c.cut[to]) {
		return nil
	}
	return c.up[to]
}

func (c *clusterRig) setCut(id uint64, cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut[id] = cut
}

func (c *clusterRig) until(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("not in time: %s", what)
		}
	}
}

// leads moves the leadership of a shard to a node, and waits until all know.
func (c *clusterRig) leads(s uint32, to uint64) {
	c.t.Helper()
	c.until("the leadership has moved", func() bool {
		for id := uint64(1); id <= 3; id++ {
			if m := c.node(id); m != nil && m.groups[s].Leader() && id != to {
				_ = m.groups[s].TransferLeader(m.ctx(), to)
			}
		}
		if !c.node(to).groups[s].Leader() {
			return false
		}
		for id := uint64(1); id <= 3; id++ {
			if m := c.node(id); m != nil {
				if leader, _ := m.Leader(s); leader != to {
					return false
				}
			}
		}
		return true
	})
}

// founding is alike on all nodes.
func founding() *meta.Founding {
	f := &meta.Founding{Cluster: "0123456789abcdef0123456789abcdef"}
	for id := uint64(1); id <= 3; id++ {
		f.Nodes = append(f.Nodes, meta.Node{ID: id, Name: fmt.Sprint("n", id), Boot: 100 + id})
	}
	for range clusterShards + 1 {
		f.Voters = append(f.Voters, []uint64{1, 2, 3})
	}
	return f
}

func (c *clusterRig) boot(id uint64) *member {
	t := c.t
	t.Helper()
	m := &member{rig: &rig{t: t, fs: vfs.NewMem()}, c: c, id: id}
	if err := vfs.MkdirSynced(m.fs, "data"); err != nil {
		t.Fatal(err)
	}
	log := must[*wal.WAL](t)(wal.Open(m.fs, "data/wal", wal.Options{SegmentSize: 1 << 20}))
	store := must[*seglog.Store](t)(seglog.Open(m.fs, "data/topics", seglog.Options{}))
	m.groups = make([]*shard.Group, clusterShards+1)
	open := func(s uint32, machine shard.Machine) {
		m.groups[s] = must[*shard.Group](t)(shard.Open(shard.Options{
			ID: s, RaftID: id, Dir: path.Join("data/shards", fmt.Sprint(s)), FS: m.fs, WAL: log, Machine: machine,
			Async: true, Voters: []uint64{1, 2, 3},
			Send: func(msg *pb.Message) {
				if to := c.reach(id, msg.GetTo()); to != nil {
					to.groups[s].Receive(proto.Clone(msg).(*pb.Message))
				}
			},
		}))
	}
	node := founding().Nodes[id-1]
	m.meta = must[*meta.Machine](t)(meta.New(meta.Options{
		Node: node, Founding: founding(), Wake: func() { m.groups[0].Wake() }, Forward: m.forward,
	}))
	open(meta.GroupID, m.meta)
	for s := uint32(1); s <= clusterShards; s++ {
		machine := partition.New(partition.Options{
			Shard: s, Store: store, FS: m.fs, Dir: path.Join("data/shards", fmt.Sprint(s), "parked"), Follower: true,
			Wake:  func() { m.groups[s].Wake() },
			Leads: func(leads bool) { m.Leads(s, leads) },
		})
		open(s, machine)
		m.machines = append(m.machines, machine)
	}
	flusher := shard.NewFlusher(shard.FlusherOptions{Store: store, WAL: log, Groups: m.groups})
	m.Broker = broker.New(broker.Options{Meta: m.meta, Machines: m.machines, Peers: m, Boot: node.Boot})
	m.SetMarkPatience(time.Millisecond)
	m.SetAnnouncedFor(3 * time.Second)

	var above, engine, below errgroup.Group
	aboveCtx, cancelAbove := context.WithCancel(context.Background())
	ctx, cancel := context.WithCancel(context.Background())
	logCtx, cancelLog := context.WithCancel(context.Background())
	below.Go(func() error { return log.Run(logCtx) })
	engine.Go(func() error { return flusher.Run(ctx) })
	for _, g := range m.groups {
		engine.Go(func() error { return g.Run(ctx) })
	}
	above.Go(func() error { return m.Run(aboveCtx) })
	c.mu.Lock()
	c.up[id] = m
	c.mu.Unlock()
	m.halt = func() {
		c.mu.Lock()
		delete(c.up, id)
		c.mu.Unlock()
		m.Exit()
		cancelAbove()
		if err := above.Wait(); err != nil {
			t.Error(err)
		}
		cancel()
		if err := engine.Wait(); err != nil {
			t.Error(err)
		}
		for _, machine := range m.machines {
			machine.Close(fault.Exiting)
		}
		m.meta.Close(fault.Exiting)
		cancelLog()
		if err := below.Wait(); err != nil {
			t.Error(err)
		}
	}
	return m
}

// Leader implements broker.Peers.
func (m *member) Leader(s uint32) (id uint64, self bool) {
	if id := m.blind.Load(); id != 0 {
		return id, false
	}
	return m.groups[s].Status().LeaderID, m.groups[s].Leader()
}

// Others implements broker.Peers.
func (m *member) Others() (ids []uint64) {
	for id := uint64(1); id <= 3; id++ {
		if id != m.id && m.c.reach(m.id, id) != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

var errCut = errors.New("the link is cut")

// Call implements broker.Peers: what comes back from a node that is cut off
// meanwhile is lost.
func (m *member) Call(ctx context.Context, node uint64, method broker.Method, request []byte, done func([]byte, error)) {
	m.CallInto(ctx, node, method, request, func(n int) []byte { return make([]byte, n) }, done)
}

// CallInto implements broker.Peers.
func (m *member) CallInto(ctx context.Context, node uint64, method broker.Method, request []byte, room func(int) []byte, done func([]byte, error)) {
	if method == broker.MethodRelay {
		m.talks[node].Add(1)
	}
	to := m.c.reach(m.id, node)
	if to == nil {
		go done(nil, fmt.Errorf("%w: %w", broker.ErrNotSent, errCut))
		return
	}
	once := sync.OnceFunc(func() { done(nil, errCut) })
	stop := context.AfterFunc(ctx, once)
	to.Serve(ctx, method, slices.Clone(request), func(reply []byte, sent func(), err error) {
		reply = append(room(len(reply))[:0], reply...)
		if sent != nil {
			sent()
		}
		if !stop() {
			return
		}
		if m.c.reach(m.id, node) != to {
			go done(nil, errCut)
			return
		}
		go done(reply, err)
	})
}

// forward is meta.Options.Forward.
func (m *member) forward(request []byte, done func([]byte, error)) {
	go func() {
		for range 1000 {
			leader, _ := m.Leader(meta.GroupID)
			if to := m.c.reach(m.id, leader); to != nil {
				got := make(chan []byte, 1)
				to.meta.Submit(request, func(answer []byte) { got <- answer })
				if answer := <-got; fault.CodeOf(meta.Refused(answer)) != fault.NotLeader {
					done(answer, nil)
					return
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
		done(nil, fault.NotLeader)
	}()
}
