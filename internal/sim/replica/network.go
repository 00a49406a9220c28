package replica

import (
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"
)

// network carries messages between nodes, or loses them.
type network struct {
	c     *Cluster
	queue []packet
	lossy bool
	down  [][]bool // from, to
}

type packet struct {
	from, to int
	shard    int
	raftID   uint64 // whom it is for
	m        *pb.Message
	call     func() // instead of a message: what it does there
}

// packetsMax bounds what is on its way for each node of a lossy network: the
// oldest are lost. A whole network must lose nothing, or what was repeated before
// it was whole can crowd out the rest for ever: the library answers every
// rejection with another append.
const packetsMax = 130

// send takes a message from a node.
func (w *network) send(from, shard int, m *pb.Message) {
	if m.GetType() == pb.MsgVoteResp && !m.GetReject() && w.c.electoral && w.c.chance(2) {
		w.c.nodes[from].doomed = true // what it has just said must hold
	}
	to, ok := w.c.addr[m.GetTo()]
	if ok {
		w.put(packet{from: from, to: to, shard: shard, raftID: m.GetTo(), m: proto.Clone(m).(*pb.Message)})
	}
}

// put takes what goes from one node to another.
func (w *network) put(p packet) {
	if w.down[p.from][p.to] {
		return
	}
	if w.lossy && w.c.chance(40) {
		return
	}
	if w.lossy && len(w.queue) >= packetsMax*len(w.c.nodes) {
		w.queue = w.queue[1:]
	}
	w.queue = append(w.queue, p)
	if w.lossy && w.c.chance(30) {
		w.queue = append(w.queue, p)
	}
}

// deliver hands a few messages over, mostly the oldest.
func (w *network) deliver() {
	for range 1 + w.c.rng.IntN(6) {
		if len(w.queue) == 0 {
			return
		}
		i := 0
		if w.lossy && w.c.chance(8) {
			i = w.c.rng.IntN(len(w.queue))
		}
		w.hand(i)
	}
}

func (w *network) hand(i int) {
	p := w.queue[i]
	w.queue = append(w.queue[:i:i], w.queue[i+1:]...)
	n := w.c.nodes[p.to]
	if w.down[p.from][p.to] || !n.up() || n.raftID != p.raftID {
		return
	}
	if p.call != nil {
		p.call()
		return
	}
	n.groups[p.shard].Receive(p.m)
}

// flush hands over all that is on its way now.
func (w *network) flush() {
	for n := len(w.queue); n > 0 && len(w.queue) > 0; n-- {
		w.hand(0)
	}
}

// cut takes links down: all of a node, or one way between two.
func (w *network) cut() {
	a := w.c.rng.IntN(len(w.down))
	w.c.Counts.Cuts++
	if w.c.chance(2) {
		w.isolate(a)
		return
	}
	w.down[a][(a+1+w.c.rng.IntN(len(w.down)-1))%len(w.down)] = true
}

// isolate takes all links of a node down.
func (w *network) isolate(a int) {
	for b := range w.down {
		if b != a {
			w.down[a][b], w.down[b][a] = true, true
		}
	}
}

// heal brings the links of a node up.
func (w *network) heal() {
	a := w.c.rng.IntN(len(w.down))
	for b := range w.down {
		w.down[a][b], w.down[b][a] = false, false
	}
}

func (w *network) healAll() {
	w.down = make([][]bool, len(w.c.nodes))
	for a := range w.down {
		w.down[a] = make([]bool, len(w.c.nodes))
	}
}
