package replica

import (
	"errors"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/shard"
)

// forwarder publishes to a shard for the clients of one process, wherever its
// leader is: it numbers what it sends, and sends again what was not answered.
// The network may lose, repeat and reorder its calls.
type forwarder struct {
	c     *Cluster
	n     *node
	s     int
	life  int    // of the node
	boot  uint64 // producer id
	epoch uint64
	seq   uint64
	made  int
	open  []*parcel // not answered, in order
	to    uint64    // Raft id of the leader that open was sent to; 0: none
	again bool      // all of open is to be sent again
	since int64     // when something was sent or done last
}

// parcel is a publish on its way.
type parcel struct {
	pub  *pub
	seq  uint64
	sent bool
}

const (
	parcelsMax    = 12    // in a forwarder
	forwardWaitNs = 400e6 // an answer that takes longer is lost
	resendNs      = 20e6  // between a refusal and what is sent again
)

func (c *Cluster) newForwarder(n *node, s int) *forwarder {
	c.boots++
	return &forwarder{c: c, n: n, s: s, life: n.life, boot: c.boots, epoch: 1}
}

// forward gives a forwarder publishes.
func (c *Cluster) forward() {
	n := c.nodes[c.rng.IntN(len(c.nodes))]
	if !n.up() {
		return
	}
	f := n.forwarders[c.rng.IntN(groups)]
	for range 1 + c.rng.IntN(3) {
		f.take(1+c.rng.IntN(3), 20+c.rng.IntN(300))
	}
	f.step()
}

// take takes a publish of a client.
func (f *forwarder) take(count, size int) {
	if len(f.open) >= parcelsMax {
		return
	}
	p := f.c.shards[f.s].newPub(count, size)
	if f.c.chance(4) {
		p.due = f.c.now + f.c.rng.Int64N(20e9)
	}
	p.alone = f.c.chance(6)
	f.made++
	p.boot, p.place = f.boot, f.made
	f.seq++
	f.open = append(f.open, &parcel{pub: p, seq: f.seq})
}

// stepForwarders lets the forwarders of a node go on.
func (n *node) stepForwarders() {
	if !n.up() {
		return
	}
	for _, f := range n.forwarders {
		f.step()
	}
}

// step sends what is to be sent.
func (f *forwarder) step() {
	leader := f.n.groups[f.s].Status().LeaderID
	if leader == 0 || len(f.open) == 0 {
		return
	}
	switch {
	case leader != f.to:
		f.to, f.again = leader, true
	case f.again && f.c.now-f.since < resendNs:
		return
	case f.c.now-f.since > forwardWaitNs:
		f.again = true
	}
	if f.again && f.c.net.lossy && f.c.chance(60) {
		f.giveUp()
		return
	}
	var batch []*partition.Publish
	for i, p := range f.open {
		if p.sent && !f.again {
			continue
		}
		if p.sent {
			f.c.Counts.Resends++
		}
		p.sent = true
		batch = append(batch, f.publish(p, i == 0))
	}
	f.again = false
	if len(batch) > 0 {
		f.since = f.c.now
		f.call(batch)
	}
}

// publish is what goes to the leader; its answer comes back over the network.
func (f *forwarder) publish(p *parcel, oldest bool) *partition.Publish {
	return &partition.Publish{
		Topic: p.pub.topic, Messages: p.pub.messages(), AckLeader: p.pub.alone,
		Link: partition.Link{Producer: f.boot, Epoch: f.epoch, Seq: p.seq, Oldest: oldest},
	}
}

// call sends publishes to the leader, some at a time.
func (f *forwarder) call(batch []*partition.Publish) {
	to, ok := f.c.addr[f.to]
	for ok && len(batch) > 0 {
		n := min(len(batch), 1+f.c.rng.IntN(4))
		some, raftID := batch[:n], f.to
		f.c.net.put(packet{from: f.n.id, to: to, raftID: raftID, call: func() { f.arrive(f.c.nodes[to], some) }})
		batch = batch[n:]
	}
}

// arrive is a call at the node that was taken for the leader.
func (f *forwarder) arrive(n *node, batch []*partition.Publish) {
	for _, p := range batch {
		copied := *p // a call may come twice
		reply := &reply{f: f, from: n, life: n.life, link: p.Link, alone: p.AckLeader}
		copied.Done = reply
		if err := n.groups[f.s].Publish(&copied); err != nil {
			reply.Published(0, err)
			return // what comes behind it would be out of order
		}
	}
}

// reply carries an answer back. It implements partition.Completion.
type reply struct {
	f     *forwarder
	from  *node
	life  int // of it
	link  partition.Link
	alone bool
	done  bool
}

func (r *reply) Published(base int64, err error) {
	f := r.f
	if r.done {
		f.c.failf("publish %+v to shard %d is answered twice on node %d", r.link, f.s+1, r.from.id)
	}
	r.done = true
	switch {
	case errors.Is(err, fault.OutOfOrder):
		f.c.Counts.OutOfOrder++
	case err == nil && base < 0 && !r.alone:
		f.c.Counts.Repeats++
	case err == nil && base < 0:
		f.c.Counts.Alone++ // or came again
	}
	f.c.net.put(packet{from: r.from.id, to: f.n.id, raftID: f.n.raftID, call: func() { f.answered(r.link, base, err) }})
}

// answered takes an answer.
func (f *forwarder) answered(l partition.Link, base int64, err error) {
	if f.n.life != f.life || !f.n.up() || l.Epoch != f.epoch {
		return
	}
	i := slices.IndexFunc(f.open, func(p *parcel) bool { return p.seq == l.Seq })
	if i < 0 {
		return
	}
	if err != nil && !errors.Is(err, fault.TopicNotFound) {
		f.again = true
		return
	}
	f.since = f.c.now
	p := f.open[i]
	f.open = slices.Delete(f.open, i, i+1)
	p.pub.Published(base, err)
}

// giveUp begins a new epoch: of what was sent the outcome stays unknown.
func (f *forwarder) giveUp() {
	f.c.Counts.GaveUp++
	f.epoch++
	f.seq = 0
	f.open = slices.DeleteFunc(f.open, func(p *parcel) bool {
		if p.sent {
			p.pub.Published(0, shard.ErrUnknown)
			return true
		}
		f.seq++
		p.seq = f.seq
		return false
	})
}

// end is the end of the process.
func (f *forwarder) end() {
	for _, p := range f.open {
		if p.sent {
			p.pub.Published(0, shard.ErrUnknown)
		} else {
			p.pub.Published(0, fault.Exiting)
		}
	}
	f.open = nil
}
