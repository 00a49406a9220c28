package replica

import (
	"errors"
	"io"
	"slices"

	"github.com/tidings-io/tidings/internal/shard"
)

// session drives a transfer: what a node does with CatchUp and Serve, one step
// at a time.
type session struct {
	c        *Cluster
	s        int
	receiver *node
	sender   *node
	in       *shard.Incoming
	out      *shard.Outgoing
	stage    stage
	chunks   int
	buf      []byte
}

type stage uint8

const (
	stageBegin  stage = iota // waits for the receiver's loop
	stageAsk                 // has an Incoming
	stageOpen                // waits for the sender's loop
	stagePull                // has an Outgoing
	stageSync                // all chunks are there
	stageStored              // and durable
	stageInstall
	stageEnd
)

// stepSession begins what is wanted, and takes a session one step further.
func (c *Cluster) stepSession() {
	c.beginSessions()
	if c.change != nil && c.chance(4) {
		c.change.step()
	}
	c.sess = slices.DeleteFunc(c.sess, func(x *session) bool { return x.stage == stageEnd })
	if len(c.sess) > 0 {
		c.sess[c.rng.IntN(len(c.sess))].step()
	}
}

// beginSessions begins what replicas have asked for.
func (c *Cluster) beginSessions() {
	for _, n := range c.nodes {
		if !n.up() {
			continue
		}
		for s, g := range n.groups {
			if g.behind != 0 {
				from := g.behind
				g.behind = 0
				c.begin(n, s, from)
			}
		}
	}
}

func (c *Cluster) begin(n *node, s int, from uint64) {
	to, ok := c.addr[from]
	for _, x := range c.sess {
		if x.receiver == n && x.s == s && x.stage != stageEnd {
			return
		}
	}
	if !ok || !c.nodes[to].up() {
		return
	}
	x := &session{c: c, s: s, receiver: n, sender: c.nodes[to]}
	c.sess = append(c.sess, x)
	c.Counts.Sessions++
	n.groups[s].Group.Import(from, func(in *shard.Incoming, err error) {
		if err != nil {
			x.stage = stageEnd
			return
		}
		if x.stage == stageEnd { // the sender is gone
			n.did("abort session", in.Abort())
			return
		}
		x.in, x.stage = in, stageAsk
	})
}

// step is one of the driver's steps.
func (x *session) step() {
	c := x.c
	if x.stage > stageAsk && x.stage < stageInstall && (c.net.down[x.sender.id][x.receiver.id] || c.net.lossy && c.chance(200)) {
		x.abort()
		return
	}
	switch x.stage {
	case stageAsk:
		if !x.sender.up() {
			x.abort()
			return
		}
		x.stage = stageOpen
		x.sender.groups[x.s].Group.Export(x.receiver.raftID, x.in.Request(), func(out *shard.Outgoing, err error) {
			if err != nil {
				x.abort()
				return
			}
			if x.stage == stageEnd { // the receiver is gone
				out.Close(false)
				return
			}
			x.out, x.stage = out, stagePull
		})
	case stagePull:
		x.pull()
	case stageSync:
		err := x.in.Sync()
		if !x.receiver.did("sync session", err) {
			return
		}
		x.stage = stageStored
	case stageStored:
		x.stage = stageInstall
		x.in.Install(func(err error) {
			if err != nil {
				c.Counts.Overtaken++
				x.abort()
				return
			}
			x.stage = stageEnd
			if x.out != nil { // else the sender is gone
				x.out.Close(true)
			}
		})
	}
}

// pull carries one chunk.
func (x *session) pull() {
	var err error
	x.buf, err = x.out.Next(x.buf[:0])
	switch {
	case errors.Is(err, io.EOF):
		x.c.failf("a session has no end")
	case errors.Is(err, shard.ErrSession):
		x.c.Counts.PinsLost++
		x.abort()
		return
	case err != nil:
		x.sender.did("read session", err)
		return
	}
	x.chunks++
	whole, err := x.in.Put(x.buf)
	if x.receiver.disk.Tripped() {
		x.receiver.did("write session", nil)
		return
	}
	if err != nil {
		if !errors.Is(err, shard.ErrSession) {
			x.c.failf("write session: %v", err)
		}
		x.c.Counts.Overtaken++
		x.abort()
		return
	}
	if whole {
		x.stage = stageSync
	}
}

// abort ends the session on both sides.
func (x *session) abort() {
	if x.stage == stageEnd {
		return
	}
	x.stage = stageEnd
	x.c.Counts.Aborted++
	if x.in != nil {
		x.receiver.did("abort session", x.in.Abort())
	}
	if x.out != nil {
		x.out.Close(false)
	}
}

// gone ends the session because one side has crashed.
func (x *session) gone(n *node) {
	if x.stage == stageEnd {
		return
	}
	switch n {
	case x.receiver:
		x.stage = stageEnd
		if x.out != nil {
			x.out.Close(false)
		}
	case x.sender:
		x.out = nil
		if x.stage < stageInstall {
			x.abort()
		}
	}
}

// replacement brings a member whose disk was lost back under a new Raft id.
type replacement struct {
	c    *Cluster
	n    *node
	old  uint64
	lead [groups]*node // who was asked, and in which life
	life [groups]int
	done [groups]bool
}

// replace takes a node's disk away.
func (c *Cluster) replace(n *node) {
	if c.change != nil || c.up() < len(c.nodes) {
		return
	}
	c.change = &replacement{c: c, n: n, old: n.raftID}
	n.end()
	n.wipe(c.newRaftID())
	c.Counts.Replaced++
}

// step asks the leaders for what is to be done next.
func (r *replacement) step() {
	left := 0
	for s := range groups {
		if r.done[s] {
			continue
		}
		left++
		l := r.c.leader(s)
		if l == nil || r.lead[s] == l && r.life[s] == l.life {
			continue
		}
		change, ok := r.next(l.groups[s].Status().Members)
		switch {
		case !ok:
		case change == shard.Change{}:
			r.done[s] = true
		default:
			r.lead[s], r.life[s] = l, l.life
			l.groups[s].ProposeChange(change, func(error) { r.lead[s] = nil })
		}
	}
	if left == 0 {
		r.c.change = nil
	}
}

// next is the change that brings the members nearer; none at the end, and false
// while the learner is not there yet.
func (r *replacement) next(members []shard.Member) (shard.Change, bool) {
	var fresh *shard.Member
	for i, m := range members {
		if m.ID == r.old {
			return shard.Change{Op: shard.Remove, ID: r.old}, true
		}
		if m.ID == r.n.raftID {
			fresh = &members[i]
		}
	}
	switch {
	case fresh == nil:
		return shard.Change{Op: shard.AddLearner, ID: r.n.raftID}, true
	case !fresh.Learner:
		return shard.Change{}, true
	case fresh.State != "replicate":
		return shard.Change{}, false
	}
	return shard.Change{Op: shard.Promote, ID: fresh.ID}, true
}
