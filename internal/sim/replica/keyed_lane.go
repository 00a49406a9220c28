package replica

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
)

// got is what a channel's consumers were given, wherever they were.
type got struct {
	k        *keyed
	places   map[*keyedPub]place
	finished map[*keyedPub]bool
	last     map[order]*keyedPub // the latest that was given for the first time
}

// order is what the messages of one key and one process stand in.
type order struct{ key, client, life int }

// place is a message's in the topic.
type place struct {
	part   int32
	offset int64
}

// deliver checks a delivery.
func (g *got) deliver(p *keyedPub, at place) {
	c := g.k.c
	if was, again := g.places[p]; again {
		if was != at {
			c.failf("%s stands at %v and at %v", p, was, at)
		}
		return
	}
	g.places[p] = at
	c.Counts.Delivered++
	if p.key == keyedKeys {
		return
	}
	o := order{p.key, p.client, p.life}
	if was := g.last[o]; was != nil && was.seq > p.seq {
		c.failf("%s, at %v, is delivered behind %s, at %v", p, at, was, g.places[was])
	}
	g.last[o] = p
	for _, before := range g.k.pubs {
		if before.key == p.key && before.client == p.client && before.life == p.life && before.seq < p.seq &&
			before.outcome == acked && int32(before.part) != at.part && !g.finished[before] {
			c.failf("%s, at %v, is delivered before %s, of partition %d, is finished", p, at, before, before.part)
		}
	}
}

// consumer is a channel's at the leader of a shard, and who consumes there.
type consumer struct {
	g      *group
	at     int // of keyedChannels
	ch     *delivery.Channel
	sub    *delivery.Subscription
	lanes  map[int32]*delivery.Lane
	timers []*simTimer
	have   []inHand
	asks   []*ask
	held   bool // a lane was said to stand
}

// inHand is a message that the consumer has not finished.
type inHand struct {
	id   delivery.ID
	part int32
	pub  *keyedPub
}

// ask is whether a channel has passed a barrier on all partitions.
type ask struct {
	lane   *delivery.Lane
	count  uint32
	passed []bool
}

// simTimer is a timer that consume looks at.
type simTimer struct {
	c   *Cluster
	at  int64
	set bool
	f   func()
}

func (t *simTimer) Reset(d time.Duration) bool {
	was := t.set
	t.at, t.set = t.c.now+int64(d), true
	return was
}

func (t *simTimer) Stop() bool {
	was := t.set
	t.set = false
	return was
}

func newConsumer(g *group, at int) *consumer {
	c := g.n.c
	x := &consumer{g: g, at: at, lanes: make(map[int32]*delivery.Lane)}
	x.ch = delivery.NewChannel(delivery.Config{
		Topic: "keyed", Name: "c", Codec: delivery.NewCodec(keyedTopic, 1), Clock: func() int64 { return c.now },
		AfterFunc: func(d time.Duration, f func()) delivery.Timer {
			t := &simTimer{c: c, f: f}
			t.Reset(d)
			x.timers = append(x.timers, t)
			return t
		},
		Held: func(int32, uint32) { x.held = true },
	})
	var err error
	x.sub, err = x.ch.Subscribe(delivery.SubOptions{MsgTimeout: 15 * time.Minute, MaxMsgTimeout: 15 * time.Minute})
	c.check(err)
	x.sub.SetWindow(1 + c.rng.IntN(4))
	return x
}

// consume lets the consumers at a leader work, after attaching the lanes that are
// missing.
func (g *group) consume() {
	if !g.leading || !g.n.up() {
		return
	}
	for i := range g.consumers {
		g.Query(func(v *partition.View) {
			if v != nil && v.Leading() && g.consumers[i] != nil {
				g.consumers[i].attach(v)
			}
		})
		if x := g.consumers[i]; x != nil {
			x.work()
		}
		if !g.leading { // the node has crashed
			return
		}
	}
}

// attach brings lanes, once more where that was lost on its way, and now and then in
// the place of those that are there.
func (x *consumer) attach(v *partition.View) {
	c := x.g.n.c
	for p := x.g.s; p < c.keyed.parts; p += groups {
		part := int32(p)
		pv, _ := v.Partition(partKey(p))
		for _, ch := range pv.Channels {
			again := ch.Lane == nil && c.chance(10) || c.net.lossy && c.chance(200)
			if ch.ID != keyedChannels[x.at] || x.lanes[part] != nil && !again {
				continue
			}
			l := x.ch.SetLane(part, v.Log(partKey(p)), x.g.Machine, false, false)
			x.lanes[part] = l
			x.have = slices.DeleteFunc(x.have, func(h inHand) bool { return h.part == part })
			x.g.Attach(keyedTopic, part, ch.ID, l)
		}
	}
}

// work takes messages, finishes some, and has lanes released.
func (x *consumer) work() {
	c, n := x.g.n.c, x.g.n
	for _, t := range x.timers {
		if t.set && t.at <= c.now {
			t.set = false
			t.f()
		}
	}
	ds, err := x.sub.Take(nil, 1<<16)
	if err != nil {
		n.did("take", err)
		return
	}
	for i := range ds {
		x.take(&ds[i])
	}
	for len(x.have) > 0 && !c.chance(3) {
		i := c.rng.IntN(len(x.have))
		c.check(x.sub.Finish(x.have[i].id))
		c.keyed.got[x.at].finished[x.have[i].pub] = true
		x.have = slices.Delete(x.have, i, i+1)
	}
	x.release()
}

func (x *consumer) take(d *delivery.Delivery) {
	k := x.g.n.c.keyed
	part, offset, _ := delivery.NewCodec(keyedTopic, 1).Parse(d.ID)
	p := k.pubs[binary.BigEndian.Uint64(d.Body)]
	k.c.note(13, uint64(x.at), uint64(part), uint64(offset))
	k.got[x.at].deliver(p, place{part, offset})
	x.have = append(x.have, inHand{d.ID, part, p})
}

// release asks whether barriers are passed, where lanes stand, and lets those go on
// whose are.
func (x *consumer) release() {
	c := x.g.n.c
	standing := x.ch.Standing(nil)
	if len(standing) > 0 && !x.held {
		c.failf("nobody was told that lanes stand: %v", standing)
	}
	x.held = len(standing) > 0
	x.asks = slices.DeleteFunc(x.asks, func(a *ask) bool {
		return !slices.ContainsFunc(standing, func(s delivery.Standing) bool { return x.lanes[s.Part] == a.lane && s.Count == a.count })
	})
	for _, s := range standing {
		l := x.lanes[s.Part]
		i := slices.IndexFunc(x.asks, func(a *ask) bool { return a.lane == l })
		if i < 0 {
			i = len(x.asks)
			x.asks = append(x.asks, &ask{lane: l, count: s.Count, passed: make([]bool, s.Count)})
		}
		if x.ask(x.asks[i]) {
			c.Counts.Released++
			l.Release(s.Count)
		}
	}
}

// ask asks any replicas of the partitions that are not known to be passed, and reports
// whether all are.
func (x *consumer) ask(a *ask) bool {
	c := x.g.n.c
	all := true
	for p := range a.passed {
		if a.passed[p] {
			continue
		}
		all = false
		if n := c.nodes[c.rng.IntN(len(c.nodes))]; n.up() {
			n.groups[p%groups].Query(func(v *partition.View) {
				a.passed[p] = a.passed[p] || v != nil && v.Passed(partKey(p), keyedChannels[x.at], a.count)
			})
		}
	}
	return all
}
