package broker

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/broker/wire"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// A lane stops at a barrier, behind which stand messages of keys that were published
// to other partitions before. It goes on when the channel has finished, in all
// partitions of the barrier's number, what stands before their barriers. That is asked
// only while a consumer waits for what the lane holds back.

// heldFirst and heldMax are how long is waited between two such questions.
const (
	heldFirst = 20 * time.Millisecond
	heldMax   = 250 * time.Millisecond
)

// held has the barriers looked at where the channel's lanes stand.
func (t *Topic) held(c *channelInUse) {
	if !c.passing.Swap(true) {
		t.b.tasks.spawn(func(ctx context.Context) { t.pass(ctx, c) })
	}
}

// pass releases lanes as long as any stands at a barrier while consumers wait.
func (t *Topic) pass(ctx context.Context, c *channelInUse) {
	known := make(passes)
	var standing []delivery.Standing
	for wait := heldFirst; ; wait = min(2*wait, heldMax) {
		standing = c.ch.Standing(standing[:0])
		if len(standing) == 0 {
			c.passing.Store(false)
			// What came to stand in between did not find anybody at it.
			if standing = c.ch.Standing(standing); len(standing) == 0 || c.passing.Swap(true) {
				return
			}
		}
		for _, s := range standing {
			if t.passed(ctx, c, s.Count, known) {
				c.releaseLane(s)
				wait = heldFirst / 2
			}
		}
		if pause(ctx, wait) != nil {
			return
		}
	}
}

// releaseLane lets the lane go on that stands at a barrier.
func (c *channelInUse) releaseLane(s delivery.Standing) {
	c.laneMu.Lock()
	defer c.laneMu.Unlock()
	if int(s.Part) < len(c.lanes) && c.lanes[s.Part] != nil {
		c.lanes[s.Part].Release(s.Count)
	}
}

// passes are the partitions where a channel is known to have come past the barrier of
// a number; it stays past it.
type passes map[pass]bool

type pass struct {
	count uint32
	part  int32
}

// passed reports whether the channel has finished what stands before the barriers of
// that number, in all its partitions, as far as this node can find out.
func (t *Topic) passed(ctx context.Context, c *channelInUse, count uint32, known passes) bool {
	m, ok := t.b.o.Meta.View().TopicID(t.id)
	switch {
	case !ok || int(count) > len(m.Partitions):
		return false
	case count <= firstCount(m):
		return true
	}
	t.follow(m)
	t.passedHere(ctx, c, count, known)
	if t.b.o.Peers != nil {
		t.passedThere(ctx, c, count, known)
	}
	for i := range int32(count) {
		if !known[pass{count, i}] {
			return false
		}
	}
	return true
}

// firstCount is the number of partitions with which the topic was made.
func firstCount(m *meta.Topic) uint32 {
	if len(m.Raised) > 0 {
		return m.Raised[0]
	}
	return uint32(len(m.Partitions))
}

// passedHere asks this node's shards, whether they lead or not: what a replica knows
// to be passed is.
func (t *Topic) passedHere(ctx context.Context, c *channelInUse, count uint32, known passes) {
	by := make(map[*partition.Machine][]int32)
	for i, p := range t.parts()[:count] {
		if !known[pass{count, int32(i)}] {
			by[p.machine] = append(by[p.machine], int32(i))
		}
	}
	for machine, parts := range by {
		for _, i := range passedOn(ctx, machine, t.id, c.id, count, parts) {
			known[pass{count, i}] = true
		}
	}
}

// passedOn lists which of the partitions, all of one shard, the channel has passed.
func passedOn(ctx context.Context, machine *partition.Machine, topic, channel uint64, count uint32, parts []int32) []int32 {
	got := make(chan []int32, 1)
	p := part{machine: machine}
	err := p.query(ctx, func(v *partition.View) {
		var out []int32
		for _, i := range parts {
			if v.Passed(partition.Key{Topic: topic, Partition: i}, channel, count) {
				out = append(out, i)
			}
		}
		got <- out
	})
	if err != nil {
		return nil
	}
	select {
	case out := <-got:
		return out
	default: // the shard has ended
		return nil
	}
}

// passedThere asks the leaders of the other partitions, each once.
func (t *Topic) passedThere(ctx context.Context, c *channelInUse, count uint32, known passes) {
	ctx, cancel := context.WithTimeout(ctx, ringTimeout)
	defer cancel()
	by := make(map[uint64][]int32)
	for i, p := range t.parts()[:count] {
		if known[pass{count, int32(i)}] {
			continue
		}
		if id, self := p.up.leader(); id != 0 && !self {
			by[id] = append(by[id], int32(i))
		}
	}
	answers := make(chan []int32, len(by))
	for id, parts := range by {
		q := passedQuestion{topic: t.id, channel: c.id, count: count, parts: parts}
		t.b.o.Peers.Call(ctx, id, MethodPassed, q.encode(), func(reply []byte, err error) {
			var out []int32
			if err == nil {
				out, _ = decodePassed(reply) // not understood: asked again
			}
			answers <- out
		})
	}
	for range by {
		select {
		case out := <-answers:
			for _, i := range out {
				known[pass{count, i}] = true
			}
		case <-ctx.Done():
			return
		}
	}
}

// passedQuestion asks a leader which partitions a channel has passed. On a wire, behind
// the format: topic, channel, number of partitions, count of partitions, each. The
// answer, behind the format: a count, and the partitions that are passed.
type passedQuestion struct {
	topic, channel uint64
	count          uint32
	parts          []int32
}

func (q *passedQuestion) encode() []byte {
	b := wire.AppendUints([]byte{relayFormat}, q.topic, q.channel, uint64(q.count))
	return appendParts(b, q.parts)
}

func appendParts(b []byte, parts []int32) []byte {
	b = wire.AppendUints(b, uint64(len(parts)))
	for _, i := range parts {
		b = wire.AppendUints(b, uint64(i))
	}
	return b
}

func readParts(r *wire.Reader) []int32 {
	var parts []int32
	for range r.Count() {
		parts = append(parts, int32(r.UpTo(partition.PartitionsMax-1)))
		if r.Bad {
			return nil
		}
	}
	return parts
}

func decodePassedQuestion(b []byte) (*passedQuestion, error) {
	const what = "question for barriers"
	r, err := beginRelay(b, what)
	if err != nil {
		return nil, err
	}
	q := &passedQuestion{topic: r.Uint(), channel: r.Uint(), count: uint32(r.UpTo(math.MaxUint32))}
	q.parts = readParts(r)
	if r.Bad || len(r.B) > 0 {
		return nil, r.Malformed(what)
	}
	return q, nil
}

func decodePassed(b []byte) ([]int32, error) {
	const what = "answer to a question for barriers"
	r, err := beginRelay(b, what)
	if err != nil {
		return nil, err
	}
	parts := readParts(r)
	if r.Bad || len(r.B) > 0 {
		return nil, r.Malformed(what)
	}
	return parts, nil
}

// servePassed answers such a question as far as this node has the partitions.
func (b *Broker) servePassed(request []byte, respond func([]byte, error)) {
	q, err := decodePassedQuestion(request)
	if err != nil {
		respond(nil, err)
		return
	}
	m, ok := b.o.Meta.View().TopicID(q.topic)
	if !ok {
		respond(nil, fault.Wrap(fault.TopicNotFound, fmt.Errorf("look at barriers: this node knows of no topic %d", q.topic)))
		return
	}
	b.tasks.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, ringTimeout)
		defer cancel()
		by := make(map[uint32][]int32)
		for _, i := range q.parts {
			if int(i) < len(m.Partitions) {
				by[m.Partitions[i]] = append(by[m.Partitions[i]], i)
			}
		}
		var out []int32
		for shard, parts := range by {
			out = append(out, passedOn(ctx, b.machine(shard), q.topic, q.channel, q.count, parts)...)
		}
		respond(appendParts([]byte{relayFormat}, out), nil)
	})
}
