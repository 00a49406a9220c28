package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/tidings-io/tidings/internal/broker/origin"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// keyedPub is a publish of one message as its publisher knows it.
type keyedPub struct {
	id      int
	key     int // keyedKeys: none
	seq     int // of its key
	life    int // of its client; only what one client publishes has an order
	client  int
	outcome int
	part    int   // where it was sent last
	base    int64 // -1: it was not told
}

func (p *keyedPub) String() string {
	return fmt.Sprintf("publish %d (key %d, number %d, of node %d)", p.id, p.key, p.seq, p.client)
}

// message is the publish's.
func (p *keyedPub) message() partition.Message {
	m := partition.Message{Body: binary.BigEndian.AppendUint64(nil, uint64(p.id))}
	if p.key < keyedKeys {
		m.Key = []byte{byte(p.key)}
	}
	return m
}

// client publishes at one node, through an origin for each shard. When the topic has
// more partitions it lets all that is out be answered first, and publishes anew what
// came back before what it has held meanwhile.
type client struct {
	k       *keyed
	n       *node
	life    int
	mapping int // 0: it has not seen the topic
	turning bool
	all     int // publishes without an answer
	out     int // of them, those with keys
	back    []*keyedPub
	held    []*keyedPub
	ports   []*port
}

// clientMax bounds what a client has under way.
const clientMax = 24

func (c *Cluster) newClient(n *node) *client {
	cl := &client{k: c.keyed, n: n, life: n.life}
	for s := range groups {
		c.boots++
		p := &port{cl: cl, s: s}
		p.origin = origin.New(origin.Options{Shard: uint32(s) + 1, Producer: c.boots, CallBytes: 200}, p, c.now)
		cl.ports = append(cl.ports, p)
	}
	return cl
}

func (cl *client) busy() bool { return cl.all > 0 || cl.turning || len(cl.held)+len(cl.back) > 0 }

// publish publishes something.
func (cl *client) publish() {
	k := cl.k
	if cl.mapping == 0 {
		cl.mapping = k.active
	}
	for range 1 + k.c.rng.IntN(3) {
		if cl.mapping == 0 || cl.all+len(cl.held) >= clientMax {
			return
		}
		p := &keyedPub{id: len(k.pubs), key: k.c.rng.IntN(keyedKeys + 1), life: cl.life, client: cl.n.id}
		k.pubs = append(k.pubs, p)
		if p.key < keyedKeys {
			k.made[p.key]++
			p.seq = k.made[p.key]
			if cl.turning {
				cl.held = append(cl.held, p)
				continue
			}
		}
		cl.send(p)
	}
}

// turn has the client see that there are more partitions.
func (cl *client) turn() {
	cl.turning = cl.turning || cl.mapping > 0 && cl.mapping < cl.k.active
}

// step lets the client go on.
func (cl *client) step() {
	for _, p := range cl.ports {
		p.step()
	}
	if !cl.turning || cl.out > 0 {
		return
	}
	cl.turning, cl.mapping = false, cl.k.active
	again := append(cl.back, cl.held...)
	cl.back, cl.held = nil, nil
	for _, p := range again {
		cl.send(p)
	}
}

// send gives a publish to the origin of its shard.
func (cl *client) send(p *keyedPub) {
	pub := &partition.Publish{Topic: keyedTopic, Messages: []partition.Message{p.message()}, Done: keyedDone{cl, p}}
	p.part = cl.k.c.rng.IntN(cl.mapping)
	if p.key < keyedKeys {
		p.part = int(crc32.ChecksumIEEE([]byte{byte(p.key)})>>8) % cl.mapping
		pub.Mapping = uint32(cl.mapping)
		pub.Moved = func(*partition.Publish) { cl.moved(p) }
	}
	pub.Partition = int32(p.part)
	cl.count(p, 1)
	if err := cl.ports[p.part%groups].add(pub); err != nil {
		cl.answered(p, 0, err)
	}
}

func (cl *client) count(p *keyedPub, n int) {
	cl.all += n
	if p.key < keyedKeys {
		cl.out += n
	}
}

// moved takes a publish back.
func (cl *client) moved(p *keyedPub) {
	cl.k.c.Counts.Moved++
	cl.count(p, -1)
	cl.back = append(cl.back, p)
	cl.turning = true
}

func (cl *client) answered(p *keyedPub, base int64, err error) {
	cl.count(p, -1)
	p.base = base
	switch {
	case p.outcome != open:
		cl.k.c.failf("%s is answered twice", p)
	case err == nil:
		p.outcome = acked
	case errors.Is(err, origin.ErrUnknown):
		p.outcome = unknown
	default:
		p.outcome = refused
	}
}

// end is the end of the process.
func (cl *client) end() {
	for _, p := range cl.k.pubs {
		if p.client == cl.n.id && p.life == cl.life && p.outcome == open {
			p.outcome = unknown
		}
	}
}

// keyedDone is told the outcome of a publish.
type keyedDone struct {
	cl *client
	p  *keyedPub
}

func (d keyedDone) Published(base int64, err error) { d.cl.answered(d.p, base, err) }

// port is a client's way to one shard: what the broker has around an Origin.
type port struct {
	cl     *client
	s      int
	origin *origin.Origin
	calls  []*keyedCall
}

// keyedCall is a call on its way.
type keyedCall struct {
	p        *port
	call     *origin.Call
	request  []byte
	deadline int64
	arrived  bool
	answered bool
}

// callNs is how long a call waits for its answer.
const callNs = int64(1e9)

func (p *port) alive() bool { return p.cl.n.up() && p.cl.n.life == p.cl.life }

func (p *port) add(pub *partition.Publish) error {
	if err := p.origin.Add(pub, "keyed", p.cl.k.c.now); err != nil {
		return err
	}
	err := p.pass(true)
	p.tell()
	return err
}

// step does what there is to do.
func (p *port) step() {
	n, now := p.cl.n, p.cl.k.c.now
	g := n.groups[p.s]
	id := g.Status().LeaderID
	self := id == n.raftID
	if self && !g.leading {
		id, self = 0, false
	}
	p.origin.Lead(id, self, now)
	p.origin.Tick(now)
	_ = p.pass(false)
	for c := p.origin.Next(now); c != nil; c = p.origin.Next(now) {
		p.send(&keyedCall{p: p, call: c, request: c.Encode(), deadline: now + callNs})
	}
	for len(p.calls) > 0 && (p.calls[0].answered || p.calls[0].deadline < now) {
		c := p.calls[0]
		p.calls = p.calls[1:]
		c.reply(nil, fault.Timeout)
	}
	p.tell()
}

func (p *port) pass(adding bool) error {
	now := p.cl.k.c.now
	for l := p.origin.NextLocal(now); l != nil; l = p.origin.NextLocal(now) {
		if err := p.cl.n.groups[p.s].Publish(&l.Publish); err != nil && p.origin.RefuseLocal(l, err, adding, now) {
			return err
		}
	}
	return nil
}

// LocalDone implements origin.Owner.
func (p *port) LocalDone(l *origin.Local, base int64, err error) {
	if p.alive() {
		p.origin.AnswerLocal(l, base, err, p.cl.k.c.now)
		p.tell()
	}
}

func (p *port) tell() {
	for _, o := range p.origin.Outcomes(nil) {
		o.Tell()
	}
}

// send puts a call on the network.
func (p *port) send(c *keyedCall) {
	to, ok := p.cl.k.c.addr[c.call.Leader]
	if !ok {
		p.origin.Answer(c.call, nil, fault.Unreachable, true, p.cl.k.c.now)
		return
	}
	p.calls = append(p.calls, c)
	p.cl.k.c.net.put(packet{from: p.cl.n.id, to: to, raftID: c.call.Leader, call: func() { c.arrive(p.cl.k.c.nodes[to]) }})
}

// arrive is the call at the node that was taken for the leader.
func (c *keyedCall) arrive(n *node) {
	if c.arrived {
		return // a call may be repeated on its way, and is not taken twice
	}
	c.arrived = true
	q, err := origin.DecodeRequest(c.request)
	if err != nil {
		c.p.cl.k.c.failf("read call: %v", err)
	}
	s := &served{c: c, n: n, life: n.life, left: len(q.Publishes), answers: make([]origin.Answer, len(q.Publishes))}
	var refused error
	for i := range q.Publishes {
		pub := &q.Publishes[i]
		pub.Done = servedOne{s, i}
		if refused == nil {
			refused = n.groups[c.p.s].Publish(pub)
			err = refused
		} else {
			err = fault.OutOfOrder
		}
		if err != nil {
			s.answer(i, origin.Answer{Fate: origin.NotUsed, Err: err})
		}
	}
}

// served gathers the answers to a call.
type served struct {
	c       *keyedCall
	n       *node
	life    int
	left    int
	answers []origin.Answer
}

type servedOne struct {
	s *served
	i int
}

func (o servedOne) Published(base int64, err error) {
	o.s.answer(o.i, origin.Answer{Fate: origin.FateOf(err), Base: base, Err: err})
}

func (s *served) answer(i int, a origin.Answer) {
	s.answers[i] = a
	if s.left--; s.left > 0 {
		return
	}
	home, reply := s.c.p.cl.n, origin.EncodeAnswers(s.answers)
	home.c.net.put(packet{from: s.n.id, to: home.id, raftID: home.raftID, call: func() { s.c.reply(reply, nil) }})
}

// reply takes the answer to a call, or that there was none.
func (c *keyedCall) reply(b []byte, err error) {
	if c.answered || !c.p.alive() {
		return
	}
	c.answered = true
	var answers []origin.Answer
	if err == nil {
		answers, err = origin.DecodeAnswers(b, c.call.Count())
	}
	c.p.origin.Answer(c.call, answers, err, false, c.p.cl.k.c.now)
	c.p.tell()
}
