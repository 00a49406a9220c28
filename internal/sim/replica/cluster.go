package replica

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/vfs"
	pb "go.etcd.io/raft/v3/raftpb"
)

const groups = 3

// Options of a run.
type Options struct {
	Seed  uint64
	Steps int
	Nodes int  // 3 when it is 0
	Async bool // the library's asynchronous storage writes
	// Quiet leaves all disturbances to the caller.
	Quiet bool
	// Raises adds a topic whose number of partitions is raised.
	Raises bool
	// Edges adds edges, and the topics that they bring messages to.
	Edges bool
	// PinBytes and KeepBytes as in shard.Options; 0: chosen by the seed.
	PinBytes, KeepBytes int64
}

// Failure is what a run has found.
type Failure struct {
	Seed uint64
	Step int
	Text string
}

// Error names the seed.
func (f *Failure) Error() string {
	return fmt.Sprintf("seed %d, step %d: %s", f.Seed, f.Step, f.Text)
}

// Cluster is a run.
type Cluster struct {
	o      Options
	rng    *rand.Rand
	now    int64
	step   int
	nodes  []*node
	net    network
	shards [groups]*model
	keyed  *keyed // nil: there is none
	edges  *edges // nil: there are none
	sess   []*session
	raftID uint64 // the last one given
	boots  uint64 // forwarders so far
	addr   map[uint64]int
	change *replacement
	Counts Counts
	hash   uint64

	walSegment, logSegment, checkpoint int64
	keep, pin                          int64
	chunk                              int  // bytes
	calm                               int  // one in so many disturbances takes place
	held                               bool // no session makes a step
	electoral                          bool // who votes or wins an election often crashes
}

// New makes a cluster whose nodes are up and have no leader yet.
func New(o Options) *Cluster {
	c := &Cluster{
		o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x5eed)), now: 1e18, addr: make(map[uint64]int),
		walSegment: 16 << 10, logSegment: 8 << 10, checkpoint: 6 << 10,
		keep: -1, pin: 1 << 30, calm: 1, chunk: 2 << 10,
	}
	if !o.Quiet {
		c.walSegment <<= c.rng.IntN(2)
		c.checkpoint <<= c.rng.IntN(3)
		c.calm = 2 << c.rng.IntN(4)
		c.electoral = c.chance(4)
		c.chunk <<= c.rng.IntN(6)
		if c.chance(3) {
			c.keep = 32 << 10
		}
		if c.chance(4) {
			c.pin = 24 << 10
		}
	}
	if o.KeepBytes != 0 {
		c.keep = o.KeepBytes
	}
	if o.PinBytes != 0 {
		c.pin = o.PinBytes
	}
	n := o.Nodes
	if n == 0 {
		n = 3
	}
	if n > 3 {
		c.Counts.Fives++
	}
	c.nodes = make([]*node, n)
	c.net.c, c.net.lossy = c, !o.Quiet
	c.net.healAll()
	for i := range c.shards {
		c.shards[i] = newModel(c, uint32(i)+1)
	}
	if o.Raises {
		c.keyed = newKeyed(c)
	}
	if o.Edges {
		c.edges = newEdges(c)
	}
	var voters []uint64
	for range c.nodes {
		voters = append(voters, c.newRaftID())
	}
	for i := range c.nodes {
		c.nodes[i] = &node{c: c, id: i, disk: vfs.NewMem(), raftID: voters[i], voters: voters}
		c.addr[voters[i]] = i
		c.check(c.nodes[i].open())
	}
	return c
}

func (c *Cluster) newRaftID() uint64 {
	c.raftID++
	return 0x100 + c.raftID
}

// Run does the steps, then lets everything heal and compares the replicas.
func Run(o Options) (counts Counts, hash uint64, err error) {
	var c *Cluster
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(*Failure)
			if !ok {
				f = &Failure{Seed: o.Seed, Text: fmt.Sprintf("panic: %v\n%s", p, debug.Stack())}
				if c != nil {
					f.Step = c.step
				}
			}
			err = f
		}
	}()
	c = New(o)
	if o.Edges {
		o.Steps /= 3 // there are rounds too
	}
	for c.step = range o.Steps {
		c.random()
	}
	c.Finish()
	return c.Counts, c.hash, nil
}

func (c *Cluster) failf(format string, args ...any) {
	panic(&Failure{Seed: c.o.Seed, Step: c.step, Text: fmt.Sprintf(format, args...)})
}

func (c *Cluster) check(err error) {
	if err != nil {
		c.failf("%v", err)
	}
}

func (c *Cluster) chance(n int) bool { return c.rng.IntN(n) == 0 }

// note mixes an event into the trace.
func (c *Cluster) note(values ...uint64) {
	for _, v := range values {
		c.hash = (c.hash ^ v) * 0x100000001b3
	}
}

// random does one thing.
func (c *Cluster) random() {
	c.now += c.rng.Int64N(4e5)
	if c.keyed != nil && c.chance(4) {
		c.keyed.random()
		return
	}
	if c.edges != nil && c.chance(3) {
		c.edges.random()
		return
	}
	n := c.nodes[c.rng.IntN(len(c.nodes))]
	switch k := c.rng.IntN(1000); {
	case k < 60:
		c.publish()
	case k < 110:
		c.forward()
	case k < 120:
		n.stepForwarders()
	case k < 160:
		c.consume()
	case k < 420:
		c.net.deliver()
	case k < 650:
		n.stepGroup(c.rng.IntN(groups))
	case k < 840:
		n.stepWAL(c.rng.IntN(5))
	case k < 920:
		n.stepFlusher()
	case k < 975:
		c.stepSession()
	case k < 980:
		c.now += c.rng.Int64N(40e6)
	case k < 992:
		c.ask(n)
	case c.chance(c.calm):
		c.disturb(n)
	}
}

// ask does one of the things that an operator or a client asks for.
func (c *Cluster) ask(n *node) {
	switch k := c.rng.IntN(20); {
	case k < 2 && c.electoral:
		c.rush()
	case k < 2:
		c.handOver()
	case k < 12:
		c.command()
	case !n.up():
	case k < 16:
		c.readIndex(n)
	default:
		n.groups[c.rng.IntN(groups)].RequestCheckpoint()
	}
}

// disturb does one of the rare things.
func (c *Cluster) disturb(n *node) {
	switch k := c.rng.IntN(40); {
	case !n.up():
		if k < 25 {
			n.restart()
		}
	case k < 4:
		n.crash()
	case k < 7:
		n.disk.FailAfter(1+c.rng.Int64N(60), nil)
	case k < 11:
		c.net.cut()
	case k < 28:
		c.net.heal()
	case k < 30:
		c.replace(n)
	case k < 36:
		if l := c.leader(c.rng.IntN(groups)); l != nil {
			l.groups[c.rng.IntN(groups)].stale = true
		}
	}
}

// up counts the nodes that run.
func (c *Cluster) up() (n int) {
	for _, o := range c.nodes {
		if o.up() {
			n++
		}
	}
	return n
}

// leader is the node that leads a shard; nil when none says so.
func (c *Cluster) leader(s int) *node {
	var best *node
	term := uint64(0)
	for _, n := range c.nodes {
		if n.up() && n.groups[s].leading && n.groups[s].term > term {
			best, term = n, n.groups[s].term
		}
	}
	return best
}

// handOver asks a leader to give its leadership away.
func (c *Cluster) handOver() {
	s := c.rng.IntN(groups)
	n := c.leader(s)
	if n == nil {
		return
	}
	to := c.nodes[c.rng.IntN(len(c.nodes))].raftID
	g := n.groups[s]
	g.HandOver(to, func(err error) {
		if err == nil {
			c.Counts.Transfers++
		}
	})
}

// rush has two replicas stand for election at once.
func (c *Cluster) rush() {
	s, a := c.rng.IntN(groups), c.rng.IntN(len(c.nodes))
	for i := range 2 {
		n := c.nodes[(a+i)%len(c.nodes)]
		if !n.up() {
			continue
		}
		if st := n.groups[s].Status(); !st.Removed && st.Term > 0 {
			n.groups[s].Receive(&pb.Message{
				Type: pb.MsgTimeoutNow.Enum(), To: new(n.raftID), From: new(c.nodes[(a+2)%len(c.nodes)].raftID), Term: new(st.Term),
			})
		}
	}
}

// readIndex asks any replica for what is committed: it must have applied all
// that was acknowledged before.
func (c *Cluster) readIndex(n *node) {
	s := c.rng.IntN(groups)
	m, g := c.shards[s], n.groups[s]
	if g.Status().Removed {
		return
	}
	before := m.acked
	g.Read(c.now+3e9, func(index uint64, err error) {
		if err != nil {
			return
		}
		c.Counts.Reads++
		if index < before || g.last < before {
			c.failf("shard %d: a read at index %d on node %d (applied %d) misses entry %d, which was acknowledged before",
				s+1, index, n.id, g.last, before)
		}
	})
}

// Settle lets time pass until all nodes that are up are quiet and agree on a
// leader that has applied everything, at most for the time given.
func (c *Cluster) Settle(limit int64) bool {
	for end := c.now + limit; c.now < end; {
		c.round()
		if c.quiet() {
			return true
		}
	}
	return false
}

// round lets every part do what it can, once, and time pass.
func (c *Cluster) round() {
	c.now += 10e6
	for _, n := range c.nodes {
		if !n.up() {
			continue
		}
		for s := range groups {
			n.stepGroup(s)
		}
		for k := range 5 {
			n.stepWAL(k)
		}
		for range 4 {
			n.stepFlusher()
		}
		n.stepForwarders()
	}
	c.net.flush()
	for range 8 {
		if !c.held {
			c.stepSession()
		}
	}
	if c.change != nil {
		c.change.step()
	}
}

// quiet reports whether every replica that is up has applied the same.
func (c *Cluster) quiet() bool {
	if len(c.sess) > 0 || c.change != nil {
		return false
	}
	for s := range groups {
		l := c.leader(s)
		if l == nil || l.groups[s].Status().Inflight > 0 || !l.groups[s].idle() {
			return false
		}
		want := l.groups[s].Status()
		for _, n := range c.nodes {
			if !n.up() {
				continue
			}
			if len(n.forwarders[s].open) > 0 {
				return false
			}
			if st := n.groups[s].Status(); st.Applied != want.Applied || st.LeaderID != l.raftID || st.Commit != want.Commit {
				return false
			}
		}
	}
	return true
}

// Finish heals everything and compares the replicas.
func (c *Cluster) Finish() {
	c.net.lossy, c.electoral = false, false
	c.net.healAll()
	for _, n := range c.nodes {
		n.disk.FailAfter(0, nil)
		if !n.up() {
			n.restart()
		}
	}
	if !c.Settle(180e9) {
		c.failf("the cluster does not come to rest: %s", c.describe())
	}
	if c.keyed != nil {
		c.keyed.finish()
	}
	if c.edges != nil {
		c.edges.finish()
	}
	for s, m := range c.shards {
		m.verify(c.leader(s))
		prints := make([]string, len(c.nodes))
		for i, n := range c.nodes {
			prints[i] = n.groups[s].fingerprint()
		}
		for i := 1; i < len(c.nodes); i++ {
			if prints[i] != prints[0] {
				c.failf("shard %d: nodes 0 and %d differ:\n%s", s+1, i, difference(prints[0], prints[i]))
			}
		}
	}
	for _, n := range c.nodes {
		n.close()
	}
}

// describe is for a failure.
func (c *Cluster) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d sessions, change %v", len(c.sess), c.change != nil)
	for _, n := range c.nodes {
		for s, g := range n.groups {
			st := g.Status()
			fmt.Fprintf(&b, "\n  node %d (%x) shard %d: leader %x term %d commit %d applied %d inflight %d removed %v members %+v session %+v idle %v, %d publishes on their way",
				n.id, n.raftID, s+1, st.LeaderID, st.Term, st.Commit, st.Applied, st.Inflight, st.Removed, st.Members, st.CatchUp, g.idle(), len(n.forwarders[s].open))
		}
	}
	return b.String()
}

// publish gives a publish to a leader.
func (c *Cluster) publish() {
	s := c.rng.IntN(groups)
	if n := c.leader(s); n != nil {
		c.Publish(n, s, 1+c.rng.IntN(3), 20+c.rng.IntN(300))
	}
}

// Publish publishes messages to both topics of a shard through a node.
func (c *Cluster) Publish(n *node, s, count, size int) {
	m := c.shards[s]
	p := m.newPub(count, size)
	if c.chance(4) {
		p.due = c.now + c.rng.Int64N(20e9)
	}
	err := n.groups[s].Publish(&partition.Publish{Topic: p.topic, Messages: p.messages(), Done: p})
	if err != nil {
		p.Published(0, err)
	}
}

// command gives a leader a change of a channel, or of a topic.
func (c *Cluster) command() {
	s := c.rng.IntN(groups)
	n := c.leader(s)
	if n == nil {
		return
	}
	if c.chance(6) {
		n.groups[s].openTopic(c.shards[s].kept())
		n.groups[s].openTopic(c.shards[s].busy())
	}
	k := partition.Key{Topic: c.shards[s].busy()}
	channel := uint64(1 + c.rng.IntN(3))
	var cmd partition.Command
	switch c.rng.IntN(6) {
	case 0:
		cmd = partition.DropChannel{Key: k, Channel: channel}
	case 1:
		cmd = partition.Empty{Key: k, Channel: channel}
	case 2:
		cmd = partition.PauseTopic{Key: k, Paused: c.chance(2)}
	default:
		cmd = partition.CreateChannel{Key: k, Channel: channel}
	}
	n.groups[s].Do(cmd, nil)
}
