package replica

import (
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
	pb "go.etcd.io/raft/v3/raftpb"
)

// node is the engine over one disk.
type node struct {
	c      *Cluster
	id     int
	disk   *vfs.Mem
	raftID uint64
	voters []uint64 // of new groups
	join   bool     // it was added later
	doomed bool     // it crashes at the end of the step, and comes back at once
	life   int

	// of this life; wal is nil while the node is down
	wal     *wal.WAL
	store   *seglog.Store
	groups  []*group
	flusher *shard.Flusher

	forwarders []*forwarder // by shard
	client     *client      // nil without Options.Raises
	jobs       []*edgeJob   // calls of edges

	known [edgeTopics]int // partitions of the edges' topics, as this node's metadata has it
}

// group is a replica of a shard: the group, its machine, and what the run wants
// to know of them.
type group struct {
	*shard.Group
	*partition.Machine
	n      *node
	s      int
	model  *model
	last   uint64 // index applied, or restored, last
	term   uint64 // of the leadership
	behind uint64 // the leader that said so; 0: nobody

	leading bool
	lanes   map[uint64]*lane // by channel

	consumers [len(keyedChannels)]*consumer // of the topic with keys, while it leads
	stale     bool                          // keep the next entry back
	kept      []byte                        // one that was kept back
}

func (n *node) up() bool { return n.wal != nil }

func shardDir(s int) string { return fmt.Sprintf("data/shards/%d", s+1) }

// open starts a life.
func (n *node) open() (err error) {
	n.life++
	c := n.c
	if err := vfs.MkdirSynced(n.disk, "data/shards"); err != nil {
		return err
	}
	w, err := wal.Open(n.disk, "data/wal", wal.Options{SegmentSize: c.walSegment, Spares: 1})
	if err != nil {
		return err
	}
	if n.store, err = seglog.Open(n.disk, "data/topics", seglog.Options{SegmentSize: c.logSegment, TailBytes: 8 << 10}); err != nil {
		return err
	}
	n.groups = nil
	var all []*shard.Group
	for s, m := range c.shards {
		g := &group{n: n, s: s, model: m, lanes: make(map[uint64]*lane)}
		g.Machine = partition.New(partition.Options{
			Shard: uint32(s) + 1, Store: n.store, FS: n.disk, Dir: path.Join(shardDir(s), "parked"),
			TailBytes: 8 << 10, ParkedMax: 16, CompactBytes: 4 << 10, Follower: true,
		})
		g.Group, err = shard.Open(shard.Options{
			ID: uint32(s) + 1, RaftID: n.raftID, Dir: shardDir(s), FS: n.disk, WAL: w, Machine: recorder{g.Machine, g},
			Async: c.o.Async, Clock: func() int64 { return c.now },
			CheckpointBytes: c.checkpoint, CheckpointAge: 20 * time.Second, MaxEntryBytes: 4 << 10,
			KeepBytes: c.keep, PinBytes: c.pin, ChunkBytes: c.chunk, Voters: n.voters, Join: n.join,
			Send:   func(m *pb.Message) { c.net.send(n.id, s, m) },
			Behind: func(leader uint64) { g.behind = leader },
		})
		if err != nil {
			return err
		}
		n.groups = append(n.groups, g)
		all = append(all, g.Group)
	}
	n.flusher = shard.NewFlusher(shard.FlusherOptions{
		Store: n.store, WAL: w, Groups: all, Clock: func() int64 { return c.now },
		TailLimit: 64 << 10, CheckpointBytes: c.checkpoint, CompactEvery: time.Second,
		Sweep: func() error { return n.store.Sweep(func(seglog.LogID) bool { return false }) },
	})
	n.forwarders = nil
	for s := range groups {
		n.forwarders = append(n.forwarders, c.newForwarder(n, s))
	}
	if c.keyed != nil {
		n.client = c.newClient(n)
	}
	n.forgets()
	n.wal = w
	return nil
}

// restart starts the node after a crash.
func (n *node) restart() {
	for {
		if !n.c.o.Quiet && n.c.net.lossy && n.c.chance(6) {
			n.disk.FailAfter(1+n.c.rng.Int64N(30), nil)
		}
		err := n.open()
		if err == nil {
			return
		}
		if !n.disk.Tripped() {
			n.c.failf("open node %d: %v", n.id, err)
		}
		n.disk.Crash(n.c.rng)
	}
}

// wipe gives the node an empty disk and a new Raft id, and starts it.
func (n *node) wipe(raftID uint64) {
	n.disk, n.raftID, n.join, n.voters = vfs.NewMem(), raftID, true, nil
	n.c.addr[raftID] = n.id
	n.restart()
}

// crash is a power failure.
func (n *node) crash() {
	if !n.up() {
		return
	}
	n.c.Counts.Crashes++
	n.c.note(1, uint64(n.id))
	n.end()
	n.disk.Crash(n.c.rng)
}

// end forgets the process.
func (n *node) end() {
	n.wal, n.groups = nil, nil
	for _, f := range n.forwarders {
		f.end()
	}
	n.forwarders = nil
	if n.client != nil {
		n.client.end()
	}
	for _, s := range n.c.sess {
		s.gone(n)
	}
}

// close ends the node for good.
func (n *node) close() {
	for _, g := range n.groups {
		g.Close(fault.Exiting)
	}
	n.c.check(errors.Join(n.store.Close(), n.wal.Close()))
}

// did looks at the outcome of a step: an error is a crash within an operation,
// or a finding.
func (n *node) did(what string, err error) bool {
	if n.disk.Tripped() {
		n.c.Counts.InOp++
		n.crash()
		return false
	}
	if err != nil {
		n.c.failf("%s on node %d: %v", what, n.id, err)
	}
	if n.doomed {
		n.doomed = false
		n.crash()
		n.restart()
	}
	return n.up()
}

func (n *node) stepGroup(s int) {
	if !n.up() {
		return
	}
	_, _, err := n.groups[s].Step(n.c.now)
	n.did("step group", err)
}

func (n *node) stepWAL(k int) {
	if !n.up() {
		return
	}
	var err error
	switch k {
	case 0, 1:
		err = n.wal.Write()
	case 2:
		err = n.wal.Sync()
	case 3:
		n.wal.Finish()
	case 4:
		_, err = n.wal.Maintain()
	}
	n.did("step log", err)
}

func (n *node) stepFlusher() {
	if !n.up() {
		return
	}
	_, err := n.flusher.Step()
	n.did("flush", err)
}

// idle reports whether no lane has something to say.
func (g *group) idle() bool {
	for _, l := range g.lanes {
		if l.dirty() {
			return false
		}
	}
	return true
}

// recorder stands between a group and its machine.
type recorder struct {
	*partition.Machine
	g *group
}

// Restore implements shard.Machine.
func (r recorder) Restore(index uint64, state []byte) error {
	r.g.last = index
	return r.Machine.Restore(index, state)
}

// Replace implements shard.Portable.
func (r recorder) Replace(index uint64, state []byte) error {
	if index <= r.g.last {
		r.g.n.c.failf("shard %d of node %d: a state of %d replaces one of %d", r.g.s+1, r.g.n.id, index, r.g.last)
	}
	r.g.last = index
	r.g.n.c.Counts.Installs++
	r.g.n.c.note(2, uint64(r.g.n.id), index)
	return r.Machine.Replace(index, state)
}

// staleToken goes with an entry that was built in an earlier term.
type staleToken struct{}

// Drain implements shard.Machine. An entry may be kept back until another
// leadership of this node, as a message that is late would be.
func (r recorder) Drain(term uint64, now int64, maxBytes int) ([]byte, any) {
	g := r.g
	if g.kept != nil && termOf(g.kept) != term {
		data := g.kept
		g.kept = nil
		g.n.c.Counts.Stale++
		return data, staleToken{}
	}
	data, token := r.Machine.Drain(term, now, maxBytes)
	if g.stale && len(data) > 0 && g.kept == nil {
		g.stale, g.kept = false, append([]byte(nil), data...)
		r.Machine.Drop(token, fault.NotLeader)
		return nil, nil
	}
	return data, token
}

// Drop implements shard.Machine.
func (r recorder) Drop(token any, err error) {
	if _, ok := token.(staleToken); ok {
		return
	}
	r.Machine.Drop(token, err)
}

// Synced implements shard.Syncer.
func (r recorder) Synced(token any) {
	if _, ok := token.(staleToken); !ok {
		r.Machine.Synced(token)
	}
}

// Apply implements shard.Machine.
func (r recorder) Apply(e shard.Entry, token any) error {
	g := r.g
	if e.Index <= g.last {
		g.n.c.failf("shard %d of node %d applies entry %d behind %d", g.s+1, g.n.id, e.Index, g.last)
	}
	g.last = e.Index
	g.model.apply(e, g.n)
	if _, ok := token.(staleToken); ok {
		token = nil
	}
	g.model.applying = e.Index
	return r.Machine.Apply(e, token)
}

// Lead implements shard.Machine.
func (r recorder) Lead(term uint64) {
	g := r.g
	g.model.lead(term, g.n)
	g.n.doomed = g.n.c.electoral && g.n.c.chance(2)
	g.term, g.leading = term, true
	r.Machine.Lead(term)
	for _, topic := range []uint64{g.model.kept(), g.model.busy()} {
		g.openTopic(topic)
	}
	g.leadKeyed()
}

// openTopic opens a topic. When the entry is lost it is tried again, now or
// later.
func (g *group) openTopic(topic uint64) {
	g.Do(partition.Open{Key: partition.Key{Topic: topic}, Name: "t"}, func(err error) {
		if err != nil && g.leading && g.n.c.chance(2) {
			g.openTopic(topic)
		}
	})
}

// Follow implements shard.Machine.
func (r recorder) Follow() {
	r.g.leading = false
	clear(r.g.consumers[:])
	if r.g.Status().Inflight > 0 {
		r.g.n.c.Counts.Tails++
	}
	r.Machine.Follow()
}
