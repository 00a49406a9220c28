package replica

import (
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/plant"
)

// The topic with keys. Its partitions lie in the shards by turns.
const (
	keyedTopic = 7000
	keyedKeys  = 9
	keyedParts = 8 // at most
)

// keyedChannels are the topic's channels.
var keyedChannels = [...]uint64{1, 2}

// keyed is a topic whose messages have keys, with several partitions, whose number is
// raised while it is used. It plays metadata, which all nodes learn of late, and who
// carries out a raise; clients and consumers are those of the broker, in small.
type keyed struct {
	c       *Cluster
	initial int // partitions with which the topic is made
	parts   int // that metadata knows
	active  int // by which messages with keys are spread
	started [keyedParts][len(keyedChannels)]bool
	pubs    []*keyedPub
	made    [keyedKeys]int
	got     [len(keyedChannels)]*got
}

func newKeyed(c *Cluster) *keyed {
	k := &keyed{c: c, initial: 1 + c.rng.IntN(3)}
	k.parts = k.initial
	for i := range k.got {
		k.got[i] = &got{k: k, places: make(map[*keyedPub]place), finished: make(map[*keyedPub]bool), last: make(map[order]*keyedPub)}
	}
	return k
}

func partKey(p int) partition.Key { return partition.Key{Topic: keyedTopic, Partition: int32(p)} }

// random does one thing.
func (k *keyed) random() {
	n := k.c.nodes[k.c.rng.IntN(len(k.c.nodes))]
	if !n.up() {
		return
	}
	s := k.c.rng.IntN(groups)
	switch x := k.c.rng.IntN(100); {
	case x < 22:
		n.client.publish()
	case x < 45:
		n.client.step()
	case x < 47:
		n.client.turn()
	case x < 88:
		n.groups[s].consume()
	case x < 94:
		k.coordinate()
	default:
		k.reconcile(n.groups[s])
	}
}

// coordinate takes a raise one step further, or begins one.
func (k *keyed) coordinate() {
	if k.parts == k.active {
		if k.parts < keyedParts && k.c.chance(25) {
			k.parts = min(k.parts+1+k.c.rng.IntN(3), keyedParts)
			k.c.note(11, uint64(k.parts))
		}
		return
	}
	if k.c.net.lossy && k.c.chance(20) { // another node leads metadata
		clear(k.started[k.active:])
	}
	ready := true
	for p := k.active; p < k.parts; p++ {
		for i := range keyedChannels {
			if !k.started[p][i] && !k.late(i) {
				ready = false
				k.start(p, i, partition.AtStart)
			}
		}
	}
	if ready {
		k.active = k.parts
		k.c.Counts.Raises++
		k.c.note(12, uint64(k.active))
	}
}

// late reports whether a channel's start on a new partition is not waited for: a bug.
func (k *keyed) late(channel int) bool {
	return channel > 0 && k.active > 0 && plant.On("start-at-hand-over")
}

// start commits a channel's start on a partition.
func (k *keyed) start(p, channel int, from partition.Where) {
	l := k.c.leader(p % groups)
	if l == nil {
		return
	}
	g := l.groups[p%groups]
	g.openKeyed(p)
	g.Do(partition.CreateChannel{Key: partKey(p), Channel: keyedChannels[channel], From: partition.From{Where: from}}, func(err error) {
		k.started[p][channel] = k.started[p][channel] || err == nil
	})
}

// openKeyed opens a partition that was not there when the group's machine began to
// lead.
func (g *group) openKeyed(p int) {
	o := partition.Open{Key: partKey(p), Name: "keyed"}
	if p < g.n.c.keyed.initial {
		o.Count = uint32(g.n.c.keyed.initial)
	}
	g.Do(o, nil)
}

// leadKeyed is called when the replica begins to lead.
func (g *group) leadKeyed() {
	k := g.n.c.keyed
	if k == nil {
		return
	}
	for p := g.s; p < k.parts; p += groups {
		g.openKeyed(p)
	}
	for i := range g.consumers {
		g.consumers[i] = newConsumer(g, i)
	}
}

// reconcile has a leader see how many partitions there are by now.
func (k *keyed) reconcile(g *group) {
	if !g.leading {
		return
	}
	g.Query(func(v *partition.View) {
		if v == nil || !v.Leading() {
			return
		}
		for p := g.s; p < k.active; p += groups {
			pv, ok := v.Partition(partKey(p))
			switch {
			case !ok:
				g.openKeyed(p)
			case int(pv.Count) < k.active:
				g.Do(partition.Raise{Key: partKey(p), Count: uint32(k.active)}, nil)
			}
			for i := range keyedChannels {
				if k.late(i) && !k.started[p][i] {
					k.start(p, i, partition.AtHandOver)
				}
			}
		}
	})
}

// round lets all do what they can.
func (k *keyed) round() {
	k.coordinate()
	for _, n := range k.c.nodes {
		for range 3 {
			n.client.step()
		}
		for _, g := range n.groups {
			k.reconcile(g)
			for range 6 {
				g.consume()
			}
		}
	}
}

// finish lets consumers come to the end, and compares what they were given with what
// was published.
func (k *keyed) finish() {
	for end := k.c.now + 300e9; !k.done(); {
		if k.c.now > end {
			k.failRest()
		}
		k.c.round()
		k.round()
	}
	if !k.c.Settle(180e9) {
		k.c.failf("the cluster does not come to rest behind its consumers: %s", k.c.describe())
	}
	for _, g := range k.got {
		for _, p := range k.pubs {
			if _, there := g.places[p]; there && p.outcome == refused {
				k.c.failf("%s was refused, and is delivered", p)
			}
		}
	}
}

// done reports whether all has an answer, and was finished by every channel.
func (k *keyed) done() bool {
	if k.parts != k.active {
		return false
	}
	for _, n := range k.c.nodes {
		if n.client.busy() {
			return false
		}
	}
	for _, g := range k.got {
		for _, p := range k.pubs {
			if p.outcome == acked && !g.finished[p] {
				return false
			}
		}
	}
	return true
}

// failRest names something that is not done.
func (k *keyed) failRest() {
	for i, g := range k.got {
		for _, p := range k.pubs {
			if p.outcome == acked && !g.finished[p] {
				_, there := g.places[p]
				k.c.failf("channel %d: %s, which was acknowledged at %d of partition %d, is not finished; delivered: %v",
					keyedChannels[i], p, p.base, p.part, there)
			}
		}
	}
	for _, n := range k.c.nodes {
		if n.client.busy() {
			k.c.failf("the client of node %d is not done: %d out, %d held, %d back", n.id, n.client.out, len(n.client.held), len(n.client.back))
		}
	}
	k.c.failf("a raise to %d does not end", k.parts)
}
