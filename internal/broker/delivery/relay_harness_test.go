package delivery

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/seglog"
)

// fleet is a channel on several nodes, with everything around it: what is replicated
// is one state per partition, and the test carries what nodes tell each other.
type fleet struct {
	clock *handClock
	parts []*fleetPart
	nodes []*fleetNode
	last  uint64 // mirror id
	// chunks is what replies stand in.
	chunks *seglog.ChunkPool

	// delivered is told of each message that a leader gives away, and when it was asked
	// to; answered of each answer that a leader has done.
	delivered func(part int32, offset int64, attempts uint16, asked int64)
	answered  func(part int32, offset int64, kind OpKind)
	trace     func(format string, args ...any)
	noHolds   bool // planted: leaders are not told what consumers hold
	noReopen  bool // planted: a mirror that is opened anew keeps what it had
	hasty     bool // planted: lanes open at once
	forgetful bool // planted: what became of a lost request is taken for done
}

// fleetPart is a partition.
type fleetPart struct {
	log    *memLog
	state  *durable
	leader int // node; -1: none
	term   uint64
	lane   *Lane
	limit  int64
}

// fleetNode is one node.
type fleetNode struct {
	f       *fleet
	id      int
	ch      *Channel
	shard   *memShard
	links   []*link // to each leader
	mirrors map[mirrorKey]*Subscription
	leads   []int    // which node it takes for each partition's leader; -1: none
	terms   []uint64 // and in which term
}

type mirrorKey struct {
	node int
	id   uint64
}

// link is what a node has with one leader.
type link struct {
	from, to *fleetNode
	relay    *Relay
	woken    bool
	out      bool
	rests    bool
	q, sent  RelayRequest
	reply    *RelayReply // nil: the request is on its way
	rings    []uint64    // on their way back
	moves    int         // partitions that came to this leader
	asked    int
	told     int // moves of which all was told
}

func newFleet(nodes, parts int, cfg Config) *fleet {
	f := &fleet{clock: &handClock{now: int64(time.Hour)}, chunks: seglog.NewChunkPool(true)}
	f.delivered = func(int32, int64, uint16, int64) {}
	f.answered = func(int32, int64, OpKind) {}
	f.trace = func(string, ...any) {}
	for range parts {
		f.parts = append(f.parts, &fleetPart{log: &memLog{}, state: newDurable(), leader: -1})
	}
	for id := range nodes {
		n := &fleetNode{f: f, id: id, shard: newShard(), mirrors: make(map[mirrorKey]*Subscription), leads: make([]int, parts), terms: make([]uint64, parts)}
		n.shard.lenient = true
		cfg.Topic, cfg.Name, cfg.Codec = "t", "c", testCodec
		cfg.Clock, cfg.AfterFunc = f.clock.clock, f.clock.afterFunc
		cfg.MirrorID = func() uint64 { f.last++; return f.last }
		n.ch = NewChannel(cfg)
		for p := range n.leads {
			n.leads[p] = -1
		}
		f.nodes = append(f.nodes, n)
	}
	for _, n := range f.nodes {
		for _, to := range f.nodes {
			l := &link{from: n, to: to}
			l.relay = n.ch.NewRelay(func() { l.woken = true })
			n.links = append(n.links, l)
		}
	}
	return f
}

// lead makes a node the leader of a partition; -1: nobody. The new lane is shut and
// has not begun. What the old leader has collected is written.
func (f *fleet) lead(t fataler, p, node int) {
	t.Helper()
	f.trace("partition %d: node %d leads", p, node)
	part := f.parts[p]
	if part.leader >= 0 {
		old := f.nodes[part.leader]
		old.shard.commit(t)
		part.lane.Stop(fault.NotLeader)
		delete(old.shard.lanes, part.lane)
		delete(old.shard.dirty, part.lane)
		old.leads[p] = -1
	}
	part.leader, part.lane = node, nil
	part.term++
	if node < 0 {
		return
	}
	n := f.nodes[node]
	n.leads[p], n.terms[p] = node, part.term
	part.lane = n.ch.SetLane(int32(p), part.log, n.shard, false, true)
}

// begin begins the new leader's lane.
func (f *fleet) begin(p int) {
	part := f.parts[p]
	if part.lane == nil || part.lane.begun {
		return
	}
	f.nodes[part.leader].shard.lanes[part.lane] = part.state
	f.trace("partition %d begins at node %d: %+v", p, part.leader, part.state.start(part.limit))
	st := part.state.start(part.limit)
	st.Term = part.term
	part.lane.Begin(st)
}

// follows reports whether the node knows who leads the partition.
func (n *fleetNode) follows(p int) bool {
	part := n.f.parts[p]
	return part.leader == n.id || n.leads[p] == part.leader && n.terms[p] == part.term
}

// follow has a node follow the partition's leader, which may be the same as before.
func (n *fleetNode) follow(p int) {
	if n.follows(p) {
		return
	}
	leader, term := n.f.parts[p].leader, n.f.parts[p].term
	n.terms[p] = term
	n.f.trace("partition %d: node %d follows %d", p, n.id, leader)
	n.leads[p] = leader
	if leader < 0 {
		n.ch.SetRemote(int32(p), nil)
		return
	}
	l := n.links[leader]
	n.ch.SetRemote(int32(p), l.relay)
	l.relay.Renew()
	l.moves++
	l.woken = true
}

// open opens the lane when all nodes have told its leader what their consumers hold,
// and reports whether it is open.
func (f *fleet) open(p int) bool {
	part := f.parts[p]
	if part.lane == nil || !part.lane.begun {
		return false
	}
	for _, n := range f.nodes {
		if n.id == part.leader {
			continue
		}
		if f.hasty {
			break
		}
		if n.leads[p] != part.leader || n.terms[p] != part.term || n.links[part.leader].told != n.links[part.leader].moves {
			return false
		}
	}
	if part.lane.shut {
		f.trace("partition %d opens at node %d", p, part.leader)
		part.lane.Open()
	}
	return true
}

// publish appends n messages to a partition.
func (f *fleet) publish(p, n int) {
	part := f.parts[p]
	part.limit = part.log.publish(n, 3)
	if part.lane != nil && part.lane.begun {
		part.lane.Limit(part.limit)
	}
}

// send takes what there is to tell, if the relay called, and reports whether there
// was something.
func (l *link) send(most int) bool {
	if !l.woken || l.out || l.rests {
		return false
	}
	l.woken = false
	l.asked = l.moves
	if !l.relay.Collect(&l.q, most) {
		l.told = l.asked
		return false
	}
	l.out, l.reply = true, nil
	l.sent = RelayRequest{
		Opens: slices.Clone(l.q.Opens), Parts: slices.Clone(l.q.Parts), Ops: slices.Clone(l.q.Ops),
		Closes: slices.Clone(l.q.Closes), Pulls: slices.Clone(l.q.Pulls),
	}
	for _, h := range l.q.Holds {
		l.sent.Holds = append(l.sent.Holds, MirrorHolds{Mirror: h.Mirror, Messages: slices.Clone(h.Messages)})
	}
	l.from.f.trace("%d>%d sends %+v", l.from.id, l.to.id, l.sent)
	return true
}

// arrive has the leader do the request. It reports false if it refused.
func (l *link) arrive(t fataler) bool {
	t.Helper()
	n, q := l.to, &l.sent
	leads := func(part int32) bool {
		p := n.f.parts[part]
		return p.leader == n.id && p.lane.begun
	}
	any := slices.ContainsFunc(n.f.parts, func(p *fleetPart) bool { return p.leader == n.id })
	refuse := len(q.Opens)+len(q.Pulls) > 0 && !any
	refuse = refuse || any && slices.ContainsFunc(q.Closes, func(x MirrorClose) bool { return x.Moved })
	for _, h := range q.Holds {
		refuse = refuse || slices.ContainsFunc(h.Messages, func(m HeldMessage) bool { return !leads(m.Part) })
	}
	refuse = refuse || slices.ContainsFunc(q.Ops, func(o RelayedOp) bool { return !leads(o.Part) })
	if refuse {
		return false
	}
	l.reply = l.serve(t)
	l.reply.lend(n.f.chunks)
	n.f.trace("%d>%d arrives, reply %+v", l.from.id, l.to.id, *l.reply)
	return true
}

// lend puts the bodies into a chunk.
func (p *RelayReply) lend(pool *seglog.ChunkPool) {
	var all []byte
	each := func(fn func(m *RelayedMessage)) {
		for i := range p.Pulled {
			for j := range p.Pulled[i].Messages {
				fn(&p.Pulled[i].Messages[j])
			}
		}
	}
	each(func(m *RelayedMessage) { all = append(all, m.Body...) })
	if len(all) == 0 {
		return
	}
	p.Chunk = pool.Get(len(all))
	copy(p.Chunk.Bytes(), all)
	at := 0
	each(func(m *RelayedMessage) {
		m.Body = p.Chunk.Bytes()[at : at+len(m.Body)]
		at += len(m.Body)
	})
}

// serve is the leader's side.
func (l *link) serve(t fataler) *RelayReply {
	t.Helper()
	n, q, p := l.to, &l.sent, &RelayReply{}
	unknown, reopened := make(map[uint64]bool), make(map[uint64]bool)
	mirror := func(id uint64) *Subscription {
		s := n.mirrors[mirrorKey{l.from.id, id}]
		if s == nil && !unknown[id] {
			unknown[id] = true
			p.Unknown = append(p.Unknown, id)
		}
		return s
	}
	lose := func(id uint64, lost []HeldMessage) {
		for _, h := range lost {
			p.Lost = append(p.Lost, HoldLost{Mirror: id, Part: h.Part, Offset: h.Offset})
		}
	}
	for _, o := range q.Opens {
		if s := n.mirrors[mirrorKey{l.from.id, o.Mirror}]; s != nil {
			if !n.f.noReopen {
				lose(o.Mirror, s.Reopen(holdsOf(q, o.Mirror), q.Parts, nil))
				reopened[o.Mirror] = true
			}
			continue
		}
		s, err := n.ch.Subscribe(SubOptions{
			MsgTimeout: o.MsgTimeout, MaxMsgTimeout: o.MaxMsgTimeout, SampleRate: o.SampleRate, Relayed: true,
			Notify: func() { l.rings = append(l.rings, o.Mirror) },
		})
		if err != nil {
			t.Fatalf("open mirror: %v", err)
		}
		n.mirrors[mirrorKey{l.from.id, o.Mirror}] = s
	}
	for _, h := range q.Holds {
		if s := mirror(h.Mirror); s != nil && !n.f.noHolds && !reopened[h.Mirror] {
			lose(h.Mirror, s.Adopt(h.Messages, nil))
		}
	}
	for i, o := range q.Ops {
		s := mirror(o.Mirror)
		if s == nil {
			continue
		}
		errs := make([]error, 1)
		s.Do([]Op{{Kind: o.Kind, ID: testCodec.ID(o.Part, o.Offset), Delay: o.Delay, Attempts: o.Attempts}}, errs)
		if errs[0] != nil {
			p.Failures = append(p.Failures, OpFailure{Index: i, Owner: fault.CodeOf(errs[0]) == fault.NotOwner})
			continue
		}
		n.f.answered(o.Part, o.Offset, o.Kind)
	}
	for _, x := range q.Closes {
		key := mirrorKey{l.from.id, x.Mirror}
		if s := n.mirrors[key]; s != nil {
			delete(n.mirrors, key)
			if x.Ended {
				s.Abandon()
			} else {
				s.Close(x.Abnormal)
			}
		}
	}
	for _, x := range q.Pulls {
		if s := mirror(x.Mirror); s != nil {
			p.Pulled = append(p.Pulled, n.pull(t, s, x, l.relay.outSince))
		}
	}
	return p
}

// holdsOf is what a mirror holds.
func holdsOf(q *RelayRequest, mirror uint64) []HeldMessage {
	for _, h := range q.Holds {
		if h.Mirror == mirror {
			return h.Messages
		}
	}
	return nil
}

// pull answers one pull.
func (n *fleetNode) pull(t fataler, s *Subscription, x MirrorPull, asked int64) MirrorPulled {
	t.Helper()
	ds, waits, err := s.Pull(nil, x.N, 1<<20)
	if err != nil {
		t.Fatalf("pull: %v", err)
	}
	if len(ds) > x.N || !waits && x.N > 0 && len(ds) == 0 {
		t.Fatalf("pull of %d: %d messages, waits %v", x.N, len(ds), waits)
	}
	out := MirrorPulled{Mirror: x.Mirror, Waits: waits}
	for i := range ds {
		d := &ds[i]
		part, offset := d.Part, d.Offset
		n.f.delivered(part, offset, d.Attempts, asked)
		out.Messages = append(out.Messages, RelayedMessage{
			Part: part, Offset: offset, TimeNs: d.TimeNs, Attempts: d.Attempts, Body: bytes.Clone(d.Body),
		})
	}
	return out
}

// finish brings the reply.
func (l *link) finish() {
	l.out = false
	l.from.f.trace("%d>%d answered", l.from.id, l.to.id)
	l.relay.Answered(&l.q, l.reply)
	l.reply.Chunk.Release() // and what nobody holds is overwritten
	l.told = l.asked
	l.reply = nil
	l.woken = true
}

// fail loses the request or the reply.
func (l *link) fail() {
	l.from.f.trace("%d>%d fails", l.from.id, l.to.id)
	l.out, l.rests, l.reply = false, true, nil
	if l.from.f.forgetful {
		l.relay.Answered(&l.q, &RelayReply{})
		return
	}
	l.relay.Failed(&l.q)
}

// retry lets the relay go on after fail.
func (l *link) retry() {
	l.rests = false
	l.relay.Retry()
	l.woken = true
}

// bring brings the rings that are on their way.
func (l *link) bring() bool {
	if len(l.rings) == 0 {
		return false
	}
	rings := l.rings
	l.rings = nil
	l.relay.Ring(rings)
	return true
}

// all calls fn for every link between two nodes.
func (f *fleet) all(fn func(l *link)) {
	for _, n := range f.nodes {
		for _, l := range n.links {
			if l.to != n {
				fn(l)
			}
		}
	}
}

// carry brings everything that is on its way, until nothing is, and opens lanes.
func (f *fleet) carry(t fataler) {
	t.Helper()
	for round, again := 0, true; again; round++ {
		if round > 1000 {
			t.Fatalf("nodes never stop talking")
		}
		again = false
		for p := range f.parts {
			f.begin(p)
			for _, n := range f.nodes {
				n.follow(p)
			}
		}
		f.all(func(l *link) {
			if l.rests {
				l.retry()
			}
			if l.relay.lingers { // no test waits for its timer
				l.relay.opsSince = 0
				l.relay.lingered()
			}
			if l.bring() || l.send(1000) {
				again = true
			}
			switch {
			case !l.out:
			case l.reply != nil || l.arrive(t):
				l.finish()
			default:
				l.fail()
			}
		})
		for p, part := range f.parts {
			if part.lane != nil && part.lane.shut && f.open(p) {
				again = true
			}
		}
	}
}

// collect writes what leaders have to report, and offers them what is due.
func (f *fleet) collect(t fataler) {
	t.Helper()
	for _, n := range f.nodes {
		n.shard.collect(t)
	}
	for _, p := range f.parts {
		if p.lane != nil && p.lane.begun {
			f.nodes[p.leader].shard.offer(p.lane, f.clock.now)
		}
	}
}

// subscribe adds a consumer to a node.
func (n *fleetNode) subscribe(t testing.TB, window int, o SubOptions) *Subscription {
	t.Helper()
	s, err := n.ch.Subscribe(o)
	if err != nil {
		t.Fatal(err)
	}
	s.SetWindow(window)
	return s
}

// tolerate takes out of a delta what a partition ignores: an adopted message may have
// been finished before, which the lane cannot know.
func (s *durable) tolerate(d *partition.Delta) {
	d.Unparked = slices.DeleteFunc(d.Unparked, func(o int64) bool {
		_, ok := s.parked[o]
		return !ok && !slices.ContainsFunc(d.Parked, func(e parked.Entry) bool { return e.Offset == o })
	})
	d.Parked = slices.DeleteFunc(d.Parked, func(e parked.Entry) bool {
		_, ok := s.parked[e.Offset]
		return !ok && (e.Offset < s.floor || s.ranges.Contains(e.Offset))
	})
}
