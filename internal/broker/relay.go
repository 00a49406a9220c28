package broker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/seglog"
)

const (
	// relayPause is how long a conversation rests that was not understood; twice as
	// long each time until relayPauseMax: there may be one for each of very many
	// channels, and the other node may be gone for long. relayTimeout is how long it
	// waits for an answer.
	relayPause    = 20 * time.Millisecond
	relayPauseMax = time.Second
	relayTimeout  = 2 * time.Second
	ringTimeout   = time.Second
	// relayItems is about how many things one request tells, and requestBytes about how
	// many bytes most requests have at most.
	relayItems   = 4096
	requestBytes = 256
)

// relays is what this node says to the leaders of its consumers' partitions.
type relays struct {
	b      *Broker
	bell   chan struct{}
	chunks *seglog.ChunkPool // for what leaders reply

	mu            sync.Mutex
	queue         []sending
	conversations map[uint64]*conversation // by id
	last          uint64                   // id given last, to a conversation or a mirror
	lives         map[uint64]uint64        // by Raft id of leaders: see lived
}

// sending is somebody who has something to send.
type sending interface {
	send(ctx context.Context, b *Broker)
}

func newRelays(b *Broker) *relays {
	return &relays{
		b: b, bell: make(chan struct{}, 1), chunks: seglog.NewChunkPool(seglog.PoisonChunks), conversations: make(map[uint64]*conversation), lives: make(map[uint64]uint64),
	}
}

// id is a number that no other conversation or mirror of this process has.
func (r *relays) id() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	return r.last
}

// push has s called soon. It may be called under a channel's lock.
func (r *relays) push(s sending) {
	r.mu.Lock()
	r.queue = append(r.queue, s)
	r.mu.Unlock()
	ring(r.bell)
}

func (r *relays) conversation(id uint64) *conversation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conversations[id]
}

func (r *relays) all() []*conversation {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*conversation, 0, len(r.conversations))
	for _, c := range r.conversations {
		out = append(out, c)
	}
	return out
}

// run sends what waits, and keeps order among mirrors and conversations.
func (r *relays) run(ctx context.Context) {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for {
		r.mu.Lock()
		todo := r.queue
		r.queue = nil
		r.mu.Unlock()
		for _, s := range todo {
			s.send(ctx, r.b)
		}
		if len(todo) > 0 {
			ring(r.bell) // what came meanwhile is next, and the tick has its turn too
		}
		select {
		case <-r.bell:
		case now := <-tick.C:
			r.alive(ctx)
			r.sweep()
			r.b.mirrors.sweep(now)
			r.b.sweepAnnounced(now)
		case <-ctx.Done():
			return
		}
	}
}

// alive tells the leaders that have this node's consumers that it is there.
func (r *relays) alive(ctx context.Context) {
	r.tell(ctx, presence{from: r.b.self()}, func(node, life uint64, err error) {
		if err == nil {
			r.lived(node, life)
		}
	})
}

// lived notes in which life a leader knows this node; each reply says so. When it is
// another than the last, the leader had given this node up, or is another process: it
// has forgotten all consumers, also those of channels that nothing is said about at
// the moment, and is told anew.
func (r *relays) lived(node, life uint64) {
	if life == 0 {
		return
	}
	r.mu.Lock()
	was := r.lives[node]
	r.lives[node] = life
	r.mu.Unlock()
	if was == 0 || was == life {
		return
	}
	for _, v := range r.all() {
		if v.node == node && v.used.Load() {
			v.relay.Renew()
			v.wake()
		}
	}
}

// tell sends a presence to all nodes that have been told of consumers, and each
// answer to the function; the returned channel is closed when all are in.
func (r *relays) tell(ctx context.Context, p presence, each func(node, life uint64, err error)) <-chan struct{} {
	nodes := make(map[uint64]bool)
	for _, v := range r.all() {
		if v.used.Load() {
			nodes[v.node] = true
		}
	}
	all := make(chan struct{})
	left := newCountdown(len(nodes), func(error) { close(all) })
	for id := range nodes {
		ctx, cancel := context.WithTimeout(ctx, ringTimeout)
		r.b.o.Peers.Call(ctx, id, MethodPresence, p.encode(), func(reply []byte, err error) {
			cancel()
			life := uint64(0)
			if err == nil {
				life, err = decodePresenceReply(reply)
			}
			each(id, life, err)
			left.done(nil)
		})
	}
	return all
}

// sweep forgets the conversations about channels that are no more, and the leaders
// with which none is left.
func (r *relays) sweep() {
	for _, c := range r.all() {
		if c.c.ch.Err() != nil && c.rests() && c.c.ch.Stats().Consumers == 0 {
			r.mu.Lock()
			delete(r.conversations, c.id)
			r.mu.Unlock()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lives) == 0 {
		return
	}
	with := make(map[uint64]bool, len(r.lives))
	for _, c := range r.conversations {
		with[c.node] = true
	}
	for node := range r.lives {
		if !with[node] {
			delete(r.lives, node)
		}
	}
}

// sender is this process among the nodes.
func (b *Broker) self() sender { return sender{b.o.Meta.Node().ID, b.o.Boot} }

// conversation is what is said about one channel to one leader.
type conversation struct {
	b     *Broker
	t     *Topic
	c     *channelInUse
	id    uint64
	node  uint64 // Raft id of the leader
	relay *delivery.Relay
	used  atomic.Bool // something was told

	mu      sync.Mutex
	request delivery.RelayRequest
	number  uint64 // of the last request
	out     bool
	queued  bool
	woken   bool          // since it was collected from last
	resting bool          // after a failure
	pause   time.Duration // the next such rest; 0: relayPause
	rest    *time.Timer   // that ends the present one
	moves   uint64        // partitions that came to this leader
	asked   uint64        // moves when the request was collected
	settled uint64        // moves of which all is told
}

// converse is the conversation with a leader about the channel. c.laneMu is held.
func (t *Topic) converse(c *channelInUse, node uint64) *conversation {
	if v := c.conversations[node]; v != nil {
		return v
	}
	r := t.b.relays
	v := &conversation{b: t.b, t: t, c: c, node: node, id: r.id()}
	v.relay = c.ch.NewRelay(v.wake)
	if c.conversations == nil {
		c.conversations = make(map[uint64]*conversation)
	}
	c.conversations[node] = v
	r.mu.Lock()
	r.conversations[v.id] = v
	r.mu.Unlock()
	return v
}

// wake has the conversation go on. It is called under the channel's lock.
func (v *conversation) wake() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.woken = true
	v.goOn()
}

// goOn has what there is to tell sent, if there may be any. v.mu is held.
func (v *conversation) goOn() {
	if v.woken && !v.queued && !v.out && !v.resting {
		v.queued = true
		v.b.relays.push(v)
	}
}

// moved says that a partition has come to this leader.
func (v *conversation) moved() {
	v.mu.Lock()
	v.moves++
	v.pause = 0
	cut := v.resting && v.rest.Stop()
	v.mu.Unlock()
	if cut {
		v.rested()
	}
	v.wake()
}

// rested ends the rest after a failure.
func (v *conversation) rested() {
	v.mu.Lock()
	v.resting = false
	v.mu.Unlock()
	v.relay.Retry()
	v.wake()
}

// told reports whether all that was held of partitions which have come to this
// leader is told.
func (v *conversation) told() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.settled == v.moves
}

// rests reports whether there is nothing on its way.
func (v *conversation) rests() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.out && !v.queued && !v.resting
}

// send sends what there is to tell.
func (v *conversation) send(ctx context.Context, b *Broker) {
	v.mu.Lock()
	v.queued = false
	if v.out || v.resting {
		v.mu.Unlock()
		return
	}
	v.out, v.woken = true, false
	v.asked = v.moves
	v.mu.Unlock()
	q := &v.request
	if !v.relay.Collect(q, relayItems) {
		v.done(true)
		return
	}
	v.used.Store(true)
	v.number++ // of this goroutine's, while the request is out
	r := relayed{
		from: b.self(), conversation: v.id, number: v.number, topic: v.t.id, channel: v.c.name, RelayRequest: *q,
	}
	if !IsEphemeral(v.c.name) && v.t.away == nil {
		r.channelID = v.c.id
	}
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	var chunk *seglog.Chunk
	room := func(n int) []byte {
		chunk = v.b.relays.chunks.Get(n)
		return chunk.Bytes()
	}
	b.o.Peers.CallInto(ctx, v.node, MethodRelay, appendRelayed(make([]byte, 0, requestBytes), &r), room, func(reply []byte, err error) {
		cancel()
		if err != nil { // chunk may still be written to: the garbage collector takes it
			v.failed(err)
			return
		}
		v.answered(reply, chunk)
		chunk.Release()
	})
}

// answered takes the leader's reply, which stands in the chunk.
func (v *conversation) answered(reply []byte, chunk *seglog.Chunk) {
	p := answers.Get().(*relayAnswer)
	err := decodeRelayReply(reply, p)
	if err == nil {
		p.Chunk = chunk
		defer v.b.relays.lived(v.node, p.life) // after the reply has had its effect
		err = p.refused
	}
	defer func() { p.reset(); answers.Put(p) }()
	if err != nil {
		v.failed(err)
		return
	}
	q := &v.request
	all := len(q.Holds)+len(q.Ops) < relayItems
	v.relay.Answered(q, &p.RelayReply)
	v.mu.Lock()
	v.woken, v.pause = true, 0
	v.mu.Unlock()
	v.done(all)
}

// done ends a request; all says that it left nothing that is held untold.
func (v *conversation) done(all bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.out = false
	if all {
		v.settled = v.asked
	}
	v.goOn()
}

// failed has the conversation go on a little later.
func (v *conversation) failed(err error) {
	v.relay.Failed(&v.request)
	v.mu.Lock()
	pause := max(v.pause, relayPause)
	if pause == relayPauseMax && fault.CodeOf(err) == fault.NotLeader && fault.CodeOf(v.c.ch.Err()) == fault.ChannelNotFound {
		defer v.relay.Forgo()
	}
	v.pause = min(2*pause, relayPauseMax)
	v.out, v.resting = false, true
	v.rest = time.AfterFunc(pause, v.rested)
	v.mu.Unlock()
	switch fault.CodeOf(err) {
	case fault.NotLeader, fault.Unreachable, fault.Timeout, fault.Exiting, fault.TopicNotFound, fault.ChannelNotFound:
	default:
		v.b.o.Logger.Warn("relay channel", "topic", v.t.name, "channel", v.c.name, "error", err)
	}
}

// serveRing takes what a leader has to say.
func (b *Broker) serveRing(request []byte, respond func([]byte, error)) {
	r, err := decodeRung(request)
	if err != nil {
		respond(nil, err)
		return
	}
	if r.to == b.self() {
		by := make(map[uint64][]uint64)
		for _, x := range r.bells {
			by[x.conversation] = append(by[x.conversation], x.mirror)
		}
		for _, x := range r.emptied {
			if v := b.relays.conversation(x.conversation); v != nil {
				v.relay.Emptied(x.part, x.before)
			}
		}
		for id, mirrors := range by {
			if v := b.relays.conversation(id); v != nil {
				v.relay.Ring(mirrors)
			}
		}
	}
	respond(errorReply(nil), nil)
}

// places are the channels in use on the partitions of a shard.
func (b *Broker) places(u *upstream) (places []place) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, t := range b.topics {
		for i, p := range t.parts() {
			if p.up == u {
				for _, c := range t.inUse() {
					places = append(places, place{t, c, i})
				}
			}
		}
	}
	return places
}

// assign has the channel's messages of the place come from whoever leads, when that
// is another node, and returns the conversation with it.
func (x place) assign() *conversation {
	u := x.t.part(x.i).up
	moves := u.moves.Load() // before the leader is looked up
	x.c.laneMu.Lock()
	defer x.c.laneMu.Unlock()
	if x.c.ended || u.leadership.Load() != 0 {
		return nil
	}
	leader, self := u.leader()
	if self {
		return nil // its lane comes with the leadership
	}
	part := int32(x.i)
	if leader == 0 {
		// The last leader may go on, out of sight. It is not told that its consumers
		// here have left it: it would give others what they hold.
		if x.c.setRemote(x.i, remoteLeader{}); !x.c.ch.HasRelay(part) {
			x.c.ch.SetRemote(part, nil)
		}
		return nil
	}
	v := x.t.converse(x.c, leader)
	x.c.ch.SetRemote(part, v.relay)
	if x.c.setRemote(x.i, remoteLeader{leader, moves}) {
		v.relay.Renew() // the same as before may be another process, or have led anew
		v.moved()
	}
	return v
}

// remoteLeader is who leads a partition, by its Raft id, and upstream.moves when that
// was seen; 0: nobody.
type remoteLeader struct{ node, moves uint64 }

// setRemote notes who leads a partition for the channel, and reports whether that is
// new. c.laneMu is held.
func (c *channelInUse) setRemote(i int, leader remoteLeader) bool {
	c.room(i)
	was := c.remote[i]
	c.remote[i] = leader
	return was != leader
}

// relayAll has all channels in use on the shard follow its leader, another node, and
// tells that when it knows all that consumers here hold.
func (u *upstream) relayAll(ctx context.Context, leader uint64, change uint64) {
	var with []*conversation
	for _, x := range u.b.places(u) {
		if v := x.assign(); v != nil && v.node == leader {
			with = append(with, v)
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := time.Duration(0); ; pause = relayPause {
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if u.changes.Load() != change {
			return
		}
		told := true
		for _, v := range with {
			told = told && v.told()
		}
		if !told {
			continue
		}
		p := presence{from: u.b.self(), shard: u.shard}
		err := awaitCall(ctx, func(done func(error)) {
			ctx, cancel := context.WithTimeout(ctx, ringTimeout)
			u.b.o.Peers.Call(ctx, leader, MethodPresence, p.encode(), func(reply []byte, err error) {
				cancel()
				if err == nil {
					_, err = decodePresenceReply(reply)
				}
				done(err)
			})
		})
		if err == nil {
			return
		}
	}
}

// follows looks whether the shard has another leader, and has the channels in use
// follow it. u.mu is not held.
func (u *upstream) follows() {
	moves := u.moves.Load()
	leader, self := u.leader()
	u.mu.Lock()
	same := leader == u.followed && self == u.followedSelf && moves == u.followedMoves && !u.unassigned.Swap(false)
	u.followed, u.followedSelf, u.followedMoves = leader, self, moves
	u.mu.Unlock()
	if same {
		return
	}
	change := u.changes.Add(1)
	if self {
		return
	}
	u.b.tasks.spawn(func(ctx context.Context) {
		if leader == 0 {
			for _, x := range u.b.places(u) {
				x.assign()
			}
			return
		}
		u.relayAll(ctx, leader, change)
	})
}

// relayRest tells leaders the last answers of consumers, as long as ctx lives, and
// then that this node is gone.
func (b *Broker) relayRest(ctx context.Context) {
	timer := time.NewTicker(time.Millisecond)
	defer timer.Stop()
	for {
		rest := true
		for _, v := range b.relays.all() {
			rest = rest && v.rests() && !v.relay.Busy()
		}
		if rest {
			break
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
	select {
	case <-b.relays.tell(ctx, presence{from: b.self(), gone: true}, func(uint64, uint64, error) {}):
	case <-ctx.Done():
	}
}
