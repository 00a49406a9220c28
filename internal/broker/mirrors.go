package broker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/fault"
)

const (
	// pullBytes bounds the bodies in one reply to a relay, and messagesBytes what one
	// consumer gets of them.
	pullBytes     = 1 << 20
	messagesBytes = 512 << 10
	// silence is after how long without a word a node's consumers are taken for gone:
	// a lease's length.
	silence = 5 * time.Second
	// aliveEvery is how often a node says that it is there.
	aliveEvery = time.Second
	// servedFor is how long what is known of a conversation is kept that has no
	// consumers: a request that was on its way for longer is answered by nobody.
	servedFor = time.Minute
)

// mirrors are the consumers of other nodes on what this node leads.
type mirrors struct {
	b *Broker

	mu     sync.Mutex
	nodes  map[uint64]*mirrorNode // by Raft id
	former map[uint64]uint64      // by Raft id: the process before the present one
	tidied time.Time              // when served was last looked through; only sweep's
}

// mirrorNode is one life of another node, as far as it has consumers here: from its
// first word until it is silent for too long, or another process.
type mirrorNode struct {
	sender
	life uint64    // names it, among those of all processes of this node too
	seen time.Time // guarded by mirrors.mu

	mu      sync.Mutex
	over    bool // it has no mirrors any more, and gets none
	subs    map[uint64]*mirror
	served  map[uint64]*served // by conversation
	bells   []*mirror          // to be told
	emptied []emptied          // the same
	queued  bool               // among those that have something to send
	out     bool               // a ring is on its way
}

// served is what a conversation of the node has come to.
type served struct {
	mu   sync.Mutex // held while a request is done: they come one after the other
	last uint64     // number of the last one that was begun
	used time.Time  // guarded by mirrorNode.mu
}

// conversation is what is known of one.
func (n *mirrorNode) conversation(id uint64) *served {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.served[id]
	if c == nil {
		c = &served{}
		n.served[id] = c
	}
	c.used = time.Now()
	return c
}

// tidy forgets conversations that have no consumers and were not used for servedFor:
// their channels are gone, or their leaders are others by now.
func (n *mirrorNode) tidy(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	consume := make(map[uint64]bool, len(n.served))
	for _, m := range n.subs {
		consume[m.conversation] = true
	}
	for id, c := range n.served {
		if !consume[id] && now.Sub(c.used) > servedFor {
			delete(n.served, id)
		}
	}
}

// mirror is one consumer of another node.
type mirror struct {
	id           uint64
	conversation uint64
	sub          *delivery.Subscription
	c            *channelInUse
	rung         bool // among the node's bells; guarded by its mu
}

// node is the sender's present life; that of the process before is over. nil: that
// process is the sender, of a request that was late.
func (ms *mirrors) node(from sender) *mirrorNode {
	ms.mu.Lock()
	if ms.former[from.node] == from.boot {
		ms.mu.Unlock()
		return nil
	}
	n, old := ms.nodes[from.node], (*mirrorNode)(nil)
	if n == nil || n.boot != from.boot {
		if old = n; old != nil {
			ms.former[from.node] = old.boot
		}
		n = &mirrorNode{
			sender: from, life: ms.b.o.Boot + ms.b.relays.id(), subs: make(map[uint64]*mirror), served: make(map[uint64]*served),
		}
		ms.nodes[from.node] = n
	}
	n.seen = time.Now()
	ms.mu.Unlock()
	if old != nil {
		old.abandon()
	}
	return n
}

// gone ends what a life of a node had.
func (ms *mirrors) gone(from sender) {
	ms.mu.Lock()
	n := ms.nodes[from.node]
	if n != nil && n.boot == from.boot {
		delete(ms.nodes, from.node)
		ms.former[from.node] = from.boot
	} else {
		n = nil
	}
	ms.mu.Unlock()
	if n != nil {
		n.abandon()
	}
}

// sweep ends what nodes had that have been silent for too long, and forgets mirrors
// of channels that are no more.
func (ms *mirrors) sweep(now time.Time) {
	var silent, live []*mirrorNode
	ms.mu.Lock()
	for id, n := range ms.nodes {
		if now.Sub(n.seen) > silence {
			silent = append(silent, n)
			delete(ms.nodes, id)
		} else {
			live = append(live, n)
		}
	}
	ms.mu.Unlock()
	for _, n := range silent {
		n.abandon()
	}
	tidy := now.Sub(ms.tidied) > servedFor
	if tidy {
		ms.tidied = now
	}
	for _, n := range live {
		if tidy {
			n.tidy(now)
		}
		for _, m := range n.list() {
			select {
			case <-m.sub.Done():
				n.drop(m.id)
				m.sub.Close(false)
			default:
			}
		}
	}
}

func (n *mirrorNode) list() []*mirror {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]*mirror, 0, len(n.subs))
	for _, m := range n.subs {
		out = append(out, m)
	}
	return out
}

func (n *mirrorNode) drop(id uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.subs, id)
}

func (n *mirrorNode) get(id uint64) *mirror {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.subs[id]
}

// abandon gives back what the node's consumers held: it is not known whether they
// are gone or only out of reach, so no attempt is counted.
func (n *mirrorNode) abandon() {
	n.mu.Lock()
	n.over = true
	n.mu.Unlock()
	for _, m := range n.list() {
		n.drop(m.id)
		m.sub.Abandon()
	}
}

// serveRelay is the leader's side of a request.
func (b *Broker) serveRelay(request []byte, respond func(reply []byte, sent func(), err error)) {
	q := requests.Get().(*relayed)
	if err := decodeRelayed(request, q); err != nil {
		respond(nil, nil, err)
		return
	}
	b.tasks.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		p := replies.Get().(*relayReply)
		err := b.relay(ctx, q, p)
		requests.Put(q)
		respond(p.encode(err), func() { p.reset(); replies.Put(p) }, nil)
	})
}

// relay does a request. An error means that nothing of it is done, or that what is
// may be done once more.
func (b *Broker) relay(ctx context.Context, q *relayed, p *relayReply) error {
	if b.exiting.Load() {
		return fault.Exiting
	}
	t, err := b.relayedTopic(q)
	if err != nil {
		return err
	}
	if err := t.leadsAll(q); err != nil {
		return err
	}
	if q.farewell() && IsEphemeral(q.channel) && t.lookup(q.channel) == nil {
		// The channel has gone with its last consumer: it must not come back for this.
		n := b.mirrors.node(q.from)
		if n == nil {
			return errFormer(q, t)
		}
		p.life = n.life
		return nil
	}
	c, err := t.ensureChannel(ctx, q.channel)
	if err != nil {
		return err
	}
	if IsEphemeral(q.channel) && (q.conversation == 0 || len(q.Opens)+len(q.Closes) > 0) {
		b.announced.note(t, c, time.Now())
	}
	if q.channelID != 0 && c.id != q.channelID {
		return fault.New(fault.ChannelNotFound, "channel %s of topic %s is another one", q.channel, t.name)
	}
	if len(q.Holds)+len(q.Ops) > 0 {
		if err := t.lanesBegun(ctx, c, q); err != nil {
			return err
		}
	}
	n := b.mirrors.node(q.from)
	if n == nil {
		return errFormer(q, t)
	}
	p.life = n.life
	v := n.conversation(q.conversation)
	v.mu.Lock()
	defer v.mu.Unlock()
	if q.number < v.last { // its node has given it up
		return fault.New(fault.Timeout, "relay channel %s of topic %s: a later request was first", q.channel, t.name)
	}
	v.last = q.number
	r := relaying{n: n, c: c, p: p}
	for i := range q.Opens {
		if err := r.open(b, q, &q.Opens[i]); err != nil {
			return err
		}
	}
	r.holds(q.Holds)
	r.ops(q.Ops)
	r.closes(q.Closes)
	r.pulls(q.Pulls)
	if c.ch.Err() != nil {
		return c.ch.Err()
	}
	return nil
}

// errFormer answers a request that comes later than its process has ended.
func errFormer(q *relayed, t *Topic) error {
	return fault.New(fault.Exiting, "relay channel %s of topic %s: the node has another process by now", q.channel, t.name)
}

// farewell reports whether the request only says that consumers have left.
func (q *relayed) farewell() bool {
	return len(q.Closes) > 0 && len(q.Opens)+len(q.Holds)+len(q.Ops)+len(q.Pulls) == 0
}

// relayedTopic finds the topic of a request.
func (b *Broker) relayedTopic(q *relayed) (*Topic, error) {
	view := b.o.Meta.View()
	m, ok := view.TopicID(q.topic)
	if !ok && !view.Knew(q.topic) {
		return nil, fault.New(fault.NotLeader, "relay channel %s: this node does not know the topic yet", q.channel)
	}
	if ok && !m.Deleting {
		if t := b.find(m.Name); t != nil && t.id == q.topic {
			return t, nil
		}
	}
	return nil, fault.New(fault.TopicNotFound, "relay channel %s: the topic is deleted", q.channel)
}

// leadsAll reports why this node cannot do a request: it does not lead, or not yet,
// what the request is about.
func (t *Topic) leadsAll(q *relayed) error {
	refused := fault.New(fault.NotLeader, "relay channel %s of topic %s: this node does not lead its partitions", q.channel, t.name)
	if t.mem != nil {
		return nil
	}
	leads := func(part int32) bool {
		p := t.part(int(part))
		return p != nil && p.up != nil && p.up.serving.Load() != 0
	}
	some, leader := false, false
	for i := range t.parts() {
		p := t.part(i)
		some = some || leads(int32(i))
		leader = leader || p.up != nil && p.up.leadership.Load() != 0
	}
	leaving := len(q.Opens)+len(q.Pulls) == 0 && len(q.Closes) > 0 // consumers may leave whoever leads
	if !some && !leaving {
		return refused
	}
	if leader && slices.ContainsFunc(q.Closes, func(x delivery.MirrorClose) bool { return x.Moved }) {
		// Its node was first to see that the leadership has moved, or has lost sight of
		// this one: what its consumers hold is theirs until this node knows too.
		return fault.New(fault.NotLeader, "relay channel %s of topic %s: this node still leads", q.channel, t.name)
	}
	for i := range q.Holds {
		for j := range q.Holds[i].Messages {
			if !leads(q.Holds[i].Messages[j].Part) {
				return refused
			}
		}
	}
	for i := range q.Ops {
		if !leads(q.Ops[i].Part) {
			return refused
		}
	}
	return nil
}

// lanesBegun waits until the channel's lanes on the partitions that a request speaks
// of have begun: before that they know nothing, and forget what they are told.
func (t *Topic) lanesBegun(ctx context.Context, c *channelInUse, q *relayed) error {
	if t.mem != nil {
		return nil
	}
	asked := make([]bool, len(t.parts()))
	for i := range q.Holds {
		for j := range q.Holds[i].Messages {
			asked[q.Holds[i].Messages[j].Part] = true
		}
	}
	for i := range q.Ops {
		asked[q.Ops[i].Part] = true
	}
	for i := range asked {
		if !asked[i] {
			continue
		}
		p := t.part(i)
		leadership := p.up.serving.Load()
		c.laneMu.Lock()
		attached := leadership != 0 && len(c.attached) > i && c.attached[i] == leadership
		begun := attached && c.begun[i] == leadership
		c.laneMu.Unlock()
		if !attached {
			return fault.New(fault.NotLeader, "relay channel %s of topic %s: its deliveries have not begun", c.name, t.name)
		}
		if begun {
			continue
		}
		if err := awaitCall(ctx, func(done func(error)) { p.machine.Settle(done) }); err != nil {
			return fault.Wrap(fault.NotLeader, err)
		}
		c.laneMu.Lock()
		if c.attached[i] == leadership {
			c.begun[i] = leadership
		}
		c.laneMu.Unlock()
	}
	return nil
}

// relaying is a request that is being done.
type relaying struct {
	n *mirrorNode
	c *channelInUse
	p *relayReply

	unknown map[uint64]bool
	// reopened are those whose holds are adopted already. Once more would be wrong: what
	// was lost to them then is free since.
	reopened map[uint64]bool
}

// open gives a consumer of another node a subscription here. One that has it already
// did not hear of that: what it does not say it holds was lost on the way.
func (r *relaying) open(b *Broker, q *relayed, o *delivery.MirrorOpen) error {
	if old := r.n.get(o.Mirror); old != nil && old.c == r.c {
		var held []delivery.HeldMessage
		for i := range q.Holds {
			if q.Holds[i].Mirror == o.Mirror {
				held = append(held, q.Holds[i].Messages...)
			}
		}
		lost := old.sub.Reopen(held, q.Parts, nil)
		for i := range lost {
			r.p.lose(o.Mirror, &lost[i])
		}
		if r.reopened == nil {
			r.reopened = make(map[uint64]bool)
		}
		r.reopened[o.Mirror] = true
		return nil
	} else if old != nil { // of a channel that is gone
		r.n.drop(old.id)
		old.sub.Close(false)
	}
	m, n := &mirror{id: o.Mirror, conversation: q.conversation, c: r.c}, r.n
	sub, err := r.c.ch.Subscribe(delivery.SubOptions{
		MsgTimeout: o.MsgTimeout, MaxMsgTimeout: o.MaxMsgTimeout, SampleRate: o.SampleRate, Relayed: true,
		Notify: func() { b.ringMirror(n, m) },
	})
	if err != nil {
		return err
	}
	m.sub = sub
	r.n.mu.Lock()
	over := r.n.over
	if !over {
		r.n.subs[m.id] = m
	}
	r.n.mu.Unlock()
	if over { // given up while the request was being done: nobody would ever end it
		sub.Abandon()
		return fault.New(fault.Timeout, "relay channel %s: its node was silent for too long", q.channel)
	}
	return nil
}

// mirror finds a consumer, and says so when it is not known.
func (r *relaying) mirror(id uint64) *mirror {
	if m := r.n.get(id); m != nil && m.c == r.c {
		return m
	}
	if !r.unknown[id] {
		if r.unknown == nil {
			r.unknown = make(map[uint64]bool)
		}
		r.unknown[id] = true
		r.p.unknownMirror(id)
	}
	return nil
}

func (r *relaying) holds(list []delivery.MirrorHolds) {
	for i := range list {
		m := r.mirror(list[i].Mirror)
		if m == nil || r.reopened[list[i].Mirror] {
			continue
		}
		lost := m.sub.Adopt(list[i].Messages, nil)
		for j := range lost {
			r.p.lose(m.id, &lost[j])
		}
	}
}

// ops does answers in their order, those of one consumer that follow each other
// under one lock.
func (r *relaying) ops(list []delivery.RelayedOp) {
	for from := 0; from < len(list); {
		to := from + 1
		for to < len(list) && list[to].Mirror == list[from].Mirror {
			to++
		}
		if m := r.mirror(list[from].Mirror); m != nil {
			m.sub.DoRelayed(list[from:to], func(i int, err error) { r.p.fail(from+i, err) })
		}
		from = to
	}
}

func (r *relaying) closes(list []delivery.MirrorClose) {
	for _, x := range list {
		if m := r.n.get(x.Mirror); m != nil && m.c == r.c {
			r.n.drop(m.id)
			if x.Ended {
				m.sub.Abandon()
			} else {
				m.sub.Close(x.Abnormal)
			}
		}
	}
}

// scratch is what requests are done with, one after the other.
type scratch struct{ got []delivery.Delivery }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// pulls gives consumers what they have room for, until the reply is full.
func (r *relaying) pulls(list []delivery.MirrorPull) {
	room := scratches.Get().(*scratch)
	defer scratches.Put(room)
	got := room.got[:0]
	defer func() { room.got = got[:0] }()
	for _, x := range list {
		m := r.mirror(x.Mirror)
		if m == nil {
			continue
		}
		left := min(messagesBytes, pullBytes-len(r.p.b))
		if left <= 0 {
			r.p.pull(x.Mirror, false, nil)
			continue
		}
		var waits bool
		var err error
		got, waits, err = m.sub.Pull(got[:0], x.N, left)
		if err != nil {
			waits = true // the channel is closed, or its log fails: the leader rings
		}
		r.p.pull(x.Mirror, waits, got)
		clear(got)
	}
}

// ringMirror has a consumer's node told that there is something for it. It is called
// under the channel's lock.
func (b *Broker) ringMirror(n *mirrorNode, m *mirror) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ring(m)
	n.enqueue(b)
}

// ring puts a bell among those to be told. n.mu is held.
func (n *mirrorNode) ring(m *mirror) {
	if !m.rung {
		m.rung = true
		n.bells = append(n.bells, m)
	}
}

// emptiedHere tells the nodes that have consumers of a channel that it was emptied.
// It is called under the channel's lock.
func (b *Broker) emptiedHere(c *channelInUse, part int32, before int64) {
	b.mirrors.mu.Lock()
	nodes := make([]*mirrorNode, 0, len(b.mirrors.nodes))
	for _, n := range b.mirrors.nodes {
		nodes = append(nodes, n)
	}
	b.mirrors.mu.Unlock()
	for _, n := range nodes {
		n.mu.Lock()
		for _, m := range n.subs {
			if x := (emptied{m.conversation, part, before}); m.c == c && !slices.Contains(n.emptied, x) {
				n.emptied = append(n.emptied, x)
			}
		}
		n.enqueue(b)
		n.mu.Unlock()
	}
}

// enqueue has what is to be told sent, if there is any. n.mu is held.
func (n *mirrorNode) enqueue(b *Broker) {
	if !n.queued && !n.out && len(n.bells)+len(n.emptied) > 0 {
		n.queued = true
		b.relays.push(n)
	}
}

// send tells the node what is to be told.
func (n *mirrorNode) send(ctx context.Context, b *Broker) {
	n.mu.Lock()
	n.queued = false
	bells, emptied := n.bells, n.emptied
	if n.out || len(bells)+len(emptied) == 0 {
		n.mu.Unlock()
		return
	}
	n.out = true
	n.bells, n.emptied = nil, nil
	r := rung{to: n.sender, emptied: emptied}
	for _, m := range bells {
		m.rung = false
		r.bells = append(r.bells, bell{m.conversation, m.id})
	}
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, ringTimeout)
	b.o.Peers.Call(ctx, n.node, MethodRing, r.encode(), func(_ []byte, err error) {
		cancel()
		n.mu.Lock()
		defer n.mu.Unlock()
		n.out = false
		if err == nil {
			n.enqueue(b)
			return
		}
		for _, m := range bells {
			if n.subs[m.id] == m {
				n.ring(m)
			}
		}
		n.emptied = append(emptied, n.emptied...)
		time.AfterFunc(relayPause, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			if len(n.subs) > 0 {
				n.enqueue(b)
			}
		})
	})
}

// servePresence takes a node's word that it is there, that it is gone, or that it has
// told all it holds of a shard.
func (b *Broker) servePresence(request []byte, respond func([]byte, error)) {
	p, err := decodePresence(request)
	switch {
	case err != nil:
		respond(nil, err)
	case p.gone:
		b.mirrors.gone(p.from)
		respond(presenceReply(0), nil)
	case p.shard != 0:
		if err := b.told(p); err != nil {
			respond(errorReply(err), nil)
			return
		}
		respond(presenceReply(0), nil)
	default:
		life := uint64(0)
		if n := b.mirrors.node(p.from); n != nil {
			life = n.life
		}
		respond(presenceReply(life), nil)
	}
}

// told notes that a node has told what its consumers hold of a shard.
func (b *Broker) told(p *presence) error {
	u := b.upstream(p.shard)
	if u == nil || u.serving.Load() == 0 {
		return fault.New(fault.NotLeader, "take what consumers hold of shard %d: this node does not lead it", p.shard)
	}
	u.mu.Lock()
	if u.told == nil {
		u.told = make(map[uint64]uint64)
	}
	u.told[p.from.node] = u.serving.Load()
	u.mu.Unlock()
	ring(u.heard)
	return nil
}

// gatherFor is how long a new leader waits for what the consumers of other nodes
// hold, before it delivers.
const gatherFor = time.Second

// gather waits until all nodes that can be reached have told what their consumers
// hold of the shard, and lets its lanes deliver.
func (u *upstream) gather(ctx context.Context, leadership uint64) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for until := time.Now().Add(gatherFor); !u.heardAll(leadership) && time.Now().Before(until); {
		timer.Reset(relayPause)
		select {
		case <-u.heard:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if u.leadership.Load() != leadership {
			return
		}
	}
	u.gathered.Store(leadership)
	u.b.openLanes(u)
}

func (u *upstream) heardAll(leadership uint64) bool {
	others := u.b.o.Peers.Others()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, id := range others {
		if u.told[id] != leadership {
			return false
		}
	}
	return true
}

// openLanes lets the lanes on a shard deliver.
func (b *Broker) openLanes(u *upstream) {
	for _, x := range b.places(u) {
		x.open(u)
	}
}

// open lets the lane in the place deliver, if it is of a leadership in which that is
// allowed.
func (x place) open(u *upstream) {
	x.c.laneMu.Lock()
	defer x.c.laneMu.Unlock()
	if len(x.c.attached) > x.i && x.c.lanes[x.i] != nil && x.c.attached[x.i] == u.gathered.Load() {
		x.c.lanes[x.i].Open()
	}
}
