package replica

import (
	"encoding/binary"
	"fmt"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
)

// The topics that edges bring messages to. Their partitions lie in the shards by turns,
// and nobody consumes them: all stays in the logs.
const (
	edgeTopics = 2
	edgeTopic  = 8000 // the first one
	edgeParts  = 6    // at most
	edgeKeys   = 7
	edgesMax   = 3
)

// edges are the edges of a run, what was given to them, and the metadata of their
// topics, which nodes learn of late.
type edges struct {
	c       *Cluster
	list    []*edge
	net     edgeNet
	initial [edgeTopics]int
	active  [edgeTopics]int // partitions, as metadata knows it
	raises  bool            // there may be more of them later
	msgs    []*edgeMsg
	came    map[edgePlace]uint64 // how far a session has come, as somebody was told
	dark    int64                // until when the whole cluster is down; 0: it is not
}

// edgePlace is where a session has a position.
type edgePlace struct {
	session     partition.Session
	topic, part int
}

// edgeMsg is a message that was given to an edge.
type edgeMsg struct {
	edge, topic int
	number      int    // rising, by edge and topic
	name        []byte // what decides on its partition; nil: nothing does
	outcome     int
}

func (m *edgeMsg) String() string {
	return fmt.Sprintf("message %d of edge %d to topic %d", m.number, m.edge, m.topic)
}

func newEdges(c *Cluster) *edges {
	x := &edges{c: c, raises: c.chance(2), came: make(map[edgePlace]uint64)}
	x.net.x = x
	for t := range x.active {
		x.initial[t] = 1 + c.rng.IntN(2)
	}
	x.active = x.initial
	for i := range 1 + c.rng.IntN(edgesMax) {
		x.list = append(x.list, newEdge(x, i))
	}
	return x
}

func edgeKey(topic, p int) partition.Key {
	return partition.Key{Topic: edgeTopic + uint64(topic), Partition: int32(p)}
}

// random does one thing.
func (x *edges) random() {
	c := x.c
	if x.dark != 0 && c.now > x.dark {
		x.light()
	}
	e := x.list[c.rng.IntN(len(x.list))]
	n := c.nodes[c.rng.IntN(len(c.nodes))]
	if c.chance(1200) {
		x.spell()
		return
	}
	switch k := c.rng.IntN(1000); {
	case k < 50:
		e.publish(1 + c.rng.IntN(2))
	case k < 280:
		e.stepLog(c.rng.IntN(5))
	case k < 450:
		x.forward()
	case k < 670:
		x.net.deliver()
	case k < 890:
		x.serve()
	case k < 900:
		e.tick()
	case k < 902 && c.chance(3):
		x.learn(n)
	case k < 930:
		x.raise()
	case k < 935:
		c.now += c.rng.Int64N(40e6)
	case c.chance(c.calm):
		x.disturb(e)
	}
}

// forward lets all edges go on, and serve all nodes with what edges gave them.
func (x *edges) forward() {
	for _, e := range x.list {
		e.forward()
	}
}

func (x *edges) serve() {
	for _, n := range x.c.nodes {
		n.serveEdges()
	}
}

// spell is a time in which nodes have much done, as they do in what time edges wait for
// answers: steps that come one by one leave a cluster without leaders for long.
func (x *edges) spell() {
	c := x.c
	x.light()
	c.net.healAll()
	for range 100 + c.rng.IntN(150) {
		if x.dark != 0 && c.now > x.dark {
			x.light()
		}
		c.round()
		x.serve()
		x.forward()
		for _, e := range x.list {
			if c.chance(4) {
				e.publish(1)
			}
			for range 4 {
				e.stepLog(c.rng.IntN(5))
			}
			if c.chance(60) {
				e.tick()
			}
			if c.chance(30) {
				x.disturb(e)
			}
		}
		for range 4 {
			x.net.deliver()
		}
		n := c.nodes[c.rng.IntN(len(c.nodes))]
		switch k := c.rng.IntN(120); {
		case k == 0:
			c.disturb(n)
		case k < 3:
			x.learn(n)
		case k < 12:
			x.raise()
		case k < 14:
			c.handOver()
		case !n.up() && k < 20:
			n.restart()
		}
	}
}

// disturb does one of the rare things.
func (x *edges) disturb(e *edge) {
	c := x.c
	switch k := c.rng.IntN(40); {
	case !e.up():
		if k < 30 {
			e.restart()
		}
	case k < 3:
		e.crash(c.chance(3))
	case k < 8:
		e.disk.FailAfter(1+c.rng.Int64N(40), nil)
	case k < 14:
		e.cut()
	case k < 28:
		e.heal()
	case k < 30:
		e.publish(80)
	case k < 31 && x.dark == 0 && c.chance(4):
		x.blackout()
	}
}

// blackout takes all nodes down.
func (x *edges) blackout() {
	x.c.Counts.Blackouts++
	x.dark = x.c.now + 2e8 + x.c.rng.Int64N(8e8)
	for _, n := range x.c.nodes {
		n.crash()
	}
}

// light starts what is still down after a blackout.
func (x *edges) light() {
	x.dark = 0
	for _, n := range x.c.nodes {
		if !n.up() {
			n.restart()
		}
	}
}

// raise gives a topic more partitions, or has a leader see that there are.
func (x *edges) raise() {
	t := x.c.rng.IntN(edgeTopics)
	if x.raises && x.active[t] < edgeParts && x.c.chance(60) {
		x.active[t] = min(x.active[t]+1+x.c.rng.IntN(2), edgeParts)
		x.c.Counts.EdgeRaises++
		x.c.note(20, uint64(t), uint64(x.active[t]))
	}
	p := x.c.rng.IntN(x.active[t])
	if l := x.c.leader(p % groups); l != nil {
		l.groups[p%groups].Do(partition.Raise{Key: edgeKey(t, p), Count: uint32(x.active[t])}, nil)
	}
}

// learn has a node see how many partitions the topics have.
func (x *edges) learn(n *node) {
	if n.up() {
		n.known = x.active
	}
}

// forgets is called when a node starts: it reads its metadata anew, and may not see
// what was committed last.
func (n *node) forgets() {
	x := n.c.edges
	if x == nil {
		return
	}
	n.jobs = nil
	for t := range n.known {
		n.known[t] = max(n.known[t], x.initial[t])
		if less := n.known[t] - x.initial[t]; less > 0 {
			n.known[t] -= n.c.rng.IntN(less + 1)
		}
	}
}

// round lets all do what they can.
func (x *edges) round() {
	for _, n := range x.c.nodes {
		x.learn(n)
	}
	x.serve()
	x.forward()
	for _, e := range x.list {
		for k := range 5 {
			e.stepLog(k)
		}
		if x.c.chance(50) {
			e.tick()
		}
	}
	x.net.flush()
}

// finish brings upstream what edges have, and compares it with what they were given.
func (x *edges) finish() {
	x.light()
	for _, e := range x.list {
		e.disk.FailAfter(0, nil)
		e.heal()
		if !e.up() {
			e.restart()
		}
	}
	for end := x.c.now + 300e9; !x.done(); {
		if x.c.now > end {
			x.c.failf("edges do not come to rest: %s", x.describe())
		}
		x.c.round()
		x.round()
	}
	if !x.c.Settle(180e9) {
		x.c.failf("the cluster does not come to rest behind its edges: %s", x.c.describe())
	}
	x.verify()
	for _, e := range x.list {
		x.c.check(e.spool.Close())
	}
}

func (x *edges) done() bool {
	for _, e := range x.list {
		if !e.up() || e.open > 0 || len(e.calls) > 0 || e.spool.Stats("").Depth > 0 {
			return false
		}
	}
	return true
}

// describe is for a failure.
func (x *edges) describe() (text string) {
	for _, e := range x.list {
		text += fmt.Sprintf("\n  edge %d: up %v", e.id, e.up())
		if e.up() {
			text += fmt.Sprintf(", %d publishes and %d calls not answered, %+v, %+v", e.open, len(e.calls), e.spool.Stats(""), e.f.Stats())
		}
	}
	return text
}

// verify looks for every message in the logs.
func (x *edges) verify() {
	seen := make(map[*edgeMsg]string)
	for t := range edgeTopics {
		for p := range x.active[t] {
			x.verifyPartition(t, p, seen)
		}
	}
	for _, m := range x.msgs {
		if _, there := seen[m]; m.outcome == acked && !there {
			x.c.failf("%s, which was acknowledged, is in no partition", m)
		}
	}
	for at, position := range x.came {
		for _, n := range x.c.nodes {
			got := uint64(0)
			n.groups[at.part%groups].Query(func(v *partition.View) { got = v.Session(edgeKey(at.topic, at.part), at.session) })
			n.stepGroup(at.part % groups)
			if got < position {
				x.c.failf("node %d has a session at %d in partition %d of topic %d that had come to %d", n.id, got, at.part, at.topic, position)
			}
		}
	}
}

// verifyPartition reads a partition's log.
func (x *edges) verifyPartition(t, p int, seen map[*edgeMsg]string) {
	c := x.c
	n := c.leader(p % groups)
	g := n.groups[p%groups]
	var log *seglog.Log
	g.Query(func(v *partition.View) { log = v.Log(edgeKey(t, p)) })
	n.stepGroup(p % groups)
	if log == nil {
		return
	}
	last := make(map[int]*edgeMsg) // by edge
	for offset := int64(0); offset < log.End(); {
		batches, err := log.Read(offset, 64<<10)
		c.check(err)
		if len(batches) == 0 || batches[0].Base != offset {
			c.failf("partition %d of topic %d has no message at offset %d of %d", p, t, offset, log.End())
		}
		for _, b := range batches {
			it := record.Records(b.Data)
			var r record.Record
			for it.Next(&r) {
				at := fmt.Sprintf("%d of partition %d", b.Base+int64(r.Delta), p)
				m := x.msgs[binary.BigEndian.Uint64(r.Value)]
				was, twice := seen[m]
				before := last[m.edge]
				switch {
				case twice:
					c.failf("%s stands at %s and at %s", m, was, at)
				case m.topic != t || !x.belongs(m, p):
					c.failf("%s stands at %s of topic %d, where it does not belong", m, at, t)
				case m.outcome == refused:
					c.failf("%s, which was refused, stands at %s", m, at)
				case before != nil && before.number > m.number:
					c.failf("%s stands at %s, behind %s", m, at, before)
				}
				seen[m], last[m.edge] = at, m
			}
			c.check(it.Err())
			offset = b.Last() + 1
		}
	}
}

// belongs reports whether a partition is that of a message by one of the numbers that
// the topic has had.
func (x *edges) belongs(m *edgeMsg, p int) bool {
	for n := x.initial[m.topic]; n <= x.active[m.topic]; n++ {
		if m.name == nil && p == 0 || m.name != nil && int(record.Murmur2(m.name)&0x7fffffff)%n == p {
			return true
		}
	}
	return false
}
