package replica

import (
	"slices"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/spool"
)

// edgeNet carries calls and answers between edges and nodes, or loses them.
type edgeNet struct {
	x     *edges
	queue []edgePacket
}

type edgePacket struct {
	e    *edge
	node int
	call func() // what it does there
}

// put takes what goes one way or the other.
func (w *edgeNet) put(p edgePacket) {
	c := w.x.c
	if p.e.down[p.node] || c.net.lossy && c.chance(25) {
		c.Counts.EdgeLost++
		return
	}
	w.queue = append(w.queue, p)
	if c.net.lossy && c.chance(40) {
		c.Counts.EdgeDoubled++
		w.queue = append(w.queue, p)
	}
}

// deliver hands a few over, mostly the oldest.
func (w *edgeNet) deliver() {
	c := w.x.c
	for range 1 + c.rng.IntN(8) {
		if len(w.queue) == 0 {
			return
		}
		i := 0
		if c.net.lossy && c.chance(4) {
			i = c.rng.IntN(len(w.queue))
		}
		w.hand(i)
	}
}

func (w *edgeNet) hand(i int) {
	p := w.queue[i]
	w.queue = slices.Delete(w.queue, i, i+1)
	if !p.e.down[p.node] {
		p.call()
	}
}

// flush hands over all that is on its way now.
func (w *edgeNet) flush() {
	for n := len(w.queue); n > 0 && len(w.queue) > 0; n-- {
		w.hand(0)
	}
}

// How long an edge waits for an answer, a node tries to give a command to a leader, one
// such try lasts, and what lies between two.
const (
	edgeCallNs  = int64(400e6)
	edgeServeNs = int64(250e6)
	edgeTryNs   = int64(150e6)
	edgePauseNs = int64(20e6)
)

// edgeCall is a part on its way to a node.
type edgeCall struct {
	e        *edge
	life     int // of the edge
	call     *spool.Call
	topic    int
	node     int // that it was given to
	deadline int64
}

// alive reports whether somebody waits for the answer.
func (a *edgeCall) alive() bool {
	return a.e.life == a.life && a.e.up() && slices.Contains(a.e.calls, a)
}

// gone reports whether the call is to be dropped where it is: its connection has ended
// with the life of the edge. Where partitions never become more a call may outlive its
// edge by any time; where they do, it may be taken behind a raise which the edge's next
// life has seen (ADR 0018).
func (a *edgeCall) gone() bool { return a.e.x.raises && (a.e.life != a.life || !a.e.up()) }

// send gives a part to the node whose turn it is.
func (e *edge) send(call *spool.Call) {
	a := &edgeCall{e: e, life: e.life, call: call, node: e.turn % len(e.down), deadline: e.x.c.now + edgeCallNs}
	a.topic = int(call.Part.Topic[len(call.Part.Topic)-1] - '0')
	e.calls = append(e.calls, a)
	e.x.net.put(edgePacket{e, a.node, a.arrive})
}

// arrive is the call at its node.
func (a *edgeCall) arrive() {
	n, c := a.e.x.c.nodes[a.node], a.e.x.c
	p := a.call.Part
	switch {
	case a.gone():
	case !n.up():
		a.answer(0, fault.Unreachable)
	case p.Partition >= n.known[a.topic]:
		a.answer(0, fault.InvalidRequest)
	default:
		in := partition.Ingest{Key: edgeKey(a.topic, p.Partition), Session: p.Origin, From: p.From, To: p.To}
		if len(p.Messages) > 0 {
			in.Batch = partition.AppendBatch(nil, p.Messages, c.now)
		}
		n.jobs = append(n.jobs, &edgeJob{a: a, n: n, in: in, deadline: c.now + edgeServeNs})
	}
}

// answer sends the answer to the edge.
func (a *edgeCall) answer(partitions int, err error) {
	a.e.x.net.put(edgePacket{a.e, a.node, func() { a.reply(partitions, err) }})
}

// reply is the answer at the edge, or that there is none.
func (a *edgeCall) reply(partitions int, err error) {
	if !a.alive() {
		return
	}
	e, c := a.e, a.e.x.c
	i := slices.Index(e.calls, a)
	if i > 0 {
		c.Counts.EdgeReordered++
	}
	e.calls = slices.Delete(e.calls, i, i+1)
	p := a.call.Part
	c.note(23, uint64(e.id), uint64(p.Partition), p.From, p.To, uint64(fault.CodeOf(err)))
	switch fault.CodeOf(err) {
	case fault.None:
		if len(p.Messages) > 0 {
			c.Counts.EdgeForwarded++
		}
	case fault.OutOfOrder:
	default:
		e.turn++
	}
	e.f.Answer(a.call, partitions, err, e.clock())
}

// edgeJob is a call at a node: what broker.Forward does there.
type edgeJob struct {
	a        *edgeCall
	n        *node
	in       partition.Ingest
	deadline int64
	tries    int   // so far
	until    int64 // when the try that is under way counts as lost; 0: there is none
	next     int64 // when there may be another one
	ended    bool
}

// partitions is how many partitions the topic has, as the node may say it.
func (j *edgeJob) partitions() (int, error) {
	n, t, c := j.n, j.a.topic, j.n.c
	if n.known[t] < j.a.call.Part.Spread {
		c.Counts.EdgeAhead++
		if c.net.lossy && c.chance(3) {
			return 0, fault.NotLeader
		}
		n.known[t] = c.edges.active[t]
	}
	return n.known[t], nil
}

// serveEdges lets the calls at a node go on.
func (n *node) serveEdges() {
	if !n.up() {
		return
	}
	for _, j := range n.jobs {
		j.step()
		if !n.up() {
			return
		}
	}
	n.jobs = slices.DeleteFunc(n.jobs, func(j *edgeJob) bool { return j.ended })
}

// step gives the command to who leads the shard, again and again.
func (j *edgeJob) step() {
	c, n := j.n.c, j.n
	if j.until != 0 && c.now > j.until {
		j.until, j.next = 0, c.now
	}
	switch {
	case j.ended || j.until != 0 || c.now < j.next:
		return
	case j.a.gone():
		j.ended = true
		return
	case c.now > j.deadline:
		j.ended = true
		j.a.answer(0, fault.NotLeader)
		return
	}
	s := int(j.in.Partition) % groups
	id := n.groups[s].Status().LeaderID
	to, ok := c.addr[id]
	if !ok {
		j.next = c.now + edgePauseNs
		return
	}
	j.tries++
	try := j.tries
	j.until = c.now + edgeTryNs
	if id == n.raftID {
		j.take(n, func(err error) { j.tried(try, err) })
		return
	}
	c.Counts.EdgeRouted++
	life := n.life
	c.net.put(packet{from: n.id, to: to, raftID: id, call: func() {
		l := c.nodes[to]
		if j.a.gone() {
			return
		}
		j.take(l, func(err error) {
			c.net.put(packet{from: l.id, to: n.id, raftID: n.raftID, call: func() {
				if n.life == life {
					j.tried(try, err)
				}
			}})
		})
	}})
}

// take is the command at who was taken for the leader.
func (j *edgeJob) take(l *node, done func(error)) {
	g := l.groups[int(j.in.Partition)%groups]
	g.Do(j.in, func(err error) {
		switch fault.CodeOf(err) {
		case fault.TopicNotFound:
			g.Do(partition.Open{Key: j.in.Key, Name: "edges"}, nil)
			err = fault.NotLeader // it is tried again
		default:
			j.decided(err)
		}
		done(err)
	})
}

// decided compares what became of a command with how far its session had come.
func (j *edgeJob) decided(err error) {
	x := j.a.e.x
	at := edgePlace{j.in.Session, j.a.topic, int(j.in.Partition)}
	switch fault.CodeOf(err) {
	case fault.None:
		switch {
		case j.in.To > x.came[at]:
			x.came[at] = j.in.To
		case len(j.in.Batch) > 0:
			x.c.Counts.EdgeRepeats++
		}
	case fault.OutOfOrder:
		x.c.Counts.EdgeMissing++
		if j.in.To <= x.came[at] {
			x.c.failf("a session that had come to %d in partition %d of topic %d does not know of %d", x.came[at], at.part, at.topic, j.in.To)
		}
	}
}

// tried is what came of a try.
func (j *edgeJob) tried(try int, err error) {
	if j.ended || try != j.tries || !j.n.up() {
		return
	}
	j.until = 0
	switch fault.CodeOf(err) {
	case fault.NotLeader, fault.Unreachable, fault.Overloaded, fault.Exiting, fault.Timeout:
		j.next = j.n.c.now + edgePauseNs
		return
	}
	j.ended = true
	partitions := 0
	if err == nil {
		partitions, err = j.partitions()
	}
	j.a.answer(partitions, err)
}
