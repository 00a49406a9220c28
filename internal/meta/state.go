package meta

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// The state in a checkpoint, integers as uvarints, strings as length and bytes:
//
//	format, cluster, feature, index, last id, last time
//	format 1:
//	  count of nodes:  id, name
//	  count of shards: id
//	format 2:
//	  count of nodes:  id, name, addr, tcp, http, broadcast, boot
//	  count of gone:   the same
//	  voters, learners of metadata, each a count of ids
//	  count of shards: id, voters, learners
//	  count of origins, by boot: boot, last, low
//	                   count of done, by number: number, topic, channel
//	count of topics, by id: id, name, seed, created, created time, boot,
//	                   flags, count of partitions: shard
//	                   with flag 16: active partitions, count of raises: partitions before
//	                   count of channels: id, name, created time, flags,
//	                   with flag 4: max attempts, dead-letter topic
//	with shards that were added: count of those, by id: id, voters of its beginning
//
// flags: 1 paused, 2 deleting; of a topic 16: it was made with fewer partitions; of a
// channel 4: its attempts are limited. Programs before those features can't read them. How many partitions a shard carries is counted
// anew. A cluster writes the format of its feature level, so that one of level
// 1 can still go back to a program that knows no more.
const (
	stateFormat1 = 1
	stateFormat2 = 2
)

// ErrState says that the state in a checkpoint cannot be read.
var ErrState = errors.New("malformed metadata state")

const (
	flagPaused = 1 << iota
	flagDeleting
	flagAckQuorum // of a topic
	flagAckLeader // of a topic
	flagRaised    // of a topic: it has had fewer partitions
	flagAckLocal  // of a topic

	topicFlags = flagPaused | flagDeleting | flagRaised

	flagLimited = 1 << 2 // of a channel

	channelFlags = flagPaused | flagDeleting | flagLimited
)

// ackFlags are the flags of a topic's Ack.
var ackFlags = [acks]uint64{AckQuorum: flagAckQuorum, AckLeader: flagAckLeader, AckLocal: flagAckLocal}

func flags(paused, deleting bool) uint64 {
	var f uint64
	if paused {
		f |= flagPaused
	}
	if deleting {
		f |= flagDeleting
	}
	return f
}

func (v *View) format() uint64 {
	if v.Feature < 2 {
		return stateFormat1
	}
	return stateFormat2
}

// encode returns the state; equal views give equal bytes.
func (v *View) encode() []byte {
	b := binary.AppendUvarint(make([]byte, 0, 256+128*v.count), v.format())
	b = appendString(b, v.Cluster)
	b = appendUints(b, uint64(v.Feature), v.Index, v.lastID, uint64(v.lastNs))
	if v.format() == stateFormat1 {
		b = v.encodeNodes1(b)
	} else {
		b = v.encodeNodes2(b)
	}
	topics := slices.Clone(v.Topics())
	slices.SortFunc(topics, func(a, b *Topic) int { return cmp.Compare(a.ID, b.ID) })
	b = binary.AppendUvarint(b, uint64(len(topics)))
	for _, t := range topics {
		b = t.encode(b)
	}
	return v.encodeAdded(b)
}

func (v *View) encodeNodes1(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(v.Nodes)))
	for _, n := range v.Nodes {
		b = appendString(binary.AppendUvarint(b, n.ID), n.Name)
	}
	b = binary.AppendUvarint(b, uint64(len(v.Shards)))
	for _, s := range v.Shards {
		b = binary.AppendUvarint(b, uint64(s.ID))
	}
	return b
}

func (v *View) encodeNodes2(b []byte) []byte {
	for _, list := range [][]Node{v.Nodes, v.Gone} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for i := range list {
			b = list[i].append(b)
		}
	}
	b = appendList(appendList(b, v.Meta.Voters), v.Meta.Learners)
	b = binary.AppendUvarint(b, uint64(len(v.Shards)))
	for _, s := range v.Shards {
		b = appendList(appendList(binary.AppendUvarint(b, uint64(s.ID)), s.Voters), s.Learners)
	}
	b = binary.AppendUvarint(b, uint64(len(v.origins)))
	for _, o := range v.origins {
		b = appendUints(b, o.Boot, o.Last, o.Low, uint64(len(o.Done)))
		for _, d := range o.Done {
			b = appendUints(b, d.Number, d.Topic, d.Channel)
		}
	}
	return b
}

func (t *Topic) encode(b []byte) []byte {
	b = appendString(binary.AppendUvarint(b, t.ID), t.Name)
	f := flags(t.Paused, t.Deleting) | ackFlags[t.Ack]
	if len(t.Raised) > 0 {
		f |= flagRaised
	}
	b = appendUints(b, t.Seed, t.Created, uint64(t.CreatedNs), t.Boot, f, uint64(len(t.Partitions)))
	for _, shard := range t.Partitions {
		b = binary.AppendUvarint(b, uint64(shard))
	}
	if len(t.Raised) > 0 {
		b = appendUints(b, uint64(t.Active), uint64(len(t.Raised)))
		for _, was := range t.Raised {
			b = binary.AppendUvarint(b, uint64(was))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(t.Channels)))
	for _, c := range t.Channels {
		b = appendString(binary.AppendUvarint(b, c.ID), c.Name)
		b = c.encode(b)
	}
	return b
}

// encode writes what follows id and name.
func (c *Channel) encode(b []byte) []byte {
	f := flags(c.Paused, c.Deleting)
	if c.MaxAttempts == 0 {
		return appendUints(b, uint64(c.CreatedNs), f)
	}
	return appendString(appendUints(b, uint64(c.CreatedNs), f|flagLimited, uint64(c.MaxAttempts)), c.DeadLetter)
}

func appendUints(b []byte, list ...uint64) []byte {
	for _, v := range list {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// decodeView reads what encode wrote.
func decodeView(b []byte) (*View, error) {
	r := reader{b: b}
	format := r.uint()
	if format != stateFormat1 && format != stateFormat2 {
		return nil, fmt.Errorf("read format %d: %w", format, ErrState)
	}
	c := begin(&View{})
	v := c.view
	v.Cluster, v.Feature = r.string(), uint32(r.uint())
	v.Index, v.lastID, v.lastNs = r.uint(), r.uint(), int64(r.uint())
	if format == stateFormat1 {
		r.nodes1(v)
	} else {
		r.nodes2(v)
	}
	if r.bad || format != v.format() || !v.ordered() {
		return nil, fmt.Errorf("read nodes and shards: %w", ErrState)
	}
	c.shards = true
	last := uint64(0)
	for range r.count() {
		t := r.topic()
		if _, twice := v.Topic(t.Name); r.bad || twice || t.ID <= last || t.ID > v.lastID {
			return nil, fmt.Errorf("read topic behind id %d: %w", last, ErrState)
		}
		last = t.ID
		c.put(t)
		for _, id := range t.Partitions {
			c.load(id, 1)
		}
	}
	r.added(c)
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("read fields: %w", ErrState)
	}
	return v, nil
}

func (r *reader) nodes1(v *View) {
	var nodes []Node
	for range r.count() {
		nodes = append(nodes, Node{ID: r.uint(), Name: r.string()})
	}
	v.setNodes(nodes, nil)
	for range r.count() {
		v.Shards = append(v.Shards, Shard{ID: uint32(r.uint())})
	}
	v.alone()
}

func (r *reader) nodes2(v *View) {
	lists := make([][]Node, 2)
	for i := range lists {
		for range r.count() {
			n := r.node()
			n.State = NodeState(i)
			lists[i] = append(lists[i], n)
		}
	}
	v.setNodes(lists[0], lists[1])
	v.Meta = Shard{ID: GroupID, Voters: r.list(), Learners: r.list()}
	for range r.count() {
		v.Shards = append(v.Shards, Shard{ID: uint32(r.uint()), Voters: r.list(), Learners: r.list()})
	}
	for range r.count() {
		o := &origin{Boot: r.uint(), Last: r.uint(), Low: r.uint()}
		for range r.count() {
			o.Done = append(o.Done, done{r.uint(), r.uint(), r.uint()})
		}
		v.origins = append(v.origins, o)
		if r.bad {
			return
		}
	}
}

// ordered reports whether the tables stand in the order that look-ups need.
func (v *View) ordered() bool {
	rising := func(n int, less func(i int) bool) bool {
		for i := 1; i < n; i++ {
			if !less(i) {
				return false
			}
		}
		return true
	}
	for _, o := range v.origins {
		if !rising(len(o.Done), func(i int) bool { return o.Done[i-1].Number < o.Done[i].Number }) {
			return false
		}
	}
	return len(v.byID) == len(v.Nodes)+len(v.Gone) &&
		rising(len(v.Nodes), func(i int) bool { return v.Nodes[i-1].Name < v.Nodes[i].Name }) &&
		rising(len(v.Shards), func(i int) bool { return v.Shards[i-1].ID < v.Shards[i].ID }) &&
		rising(len(v.origins), func(i int) bool { return v.origins[i-1].Boot < v.origins[i].Boot })
}

func (r *reader) topic() *Topic {
	t := &Topic{
		ID: r.uint(), Name: r.string(),
		Seed: r.uint(), Created: r.uint(), CreatedNs: int64(r.uint()), Boot: r.uint(),
	}
	f := r.uint()
	t.Paused, t.Deleting = f&flagPaused != 0, f&flagDeleting != 0
	for t.Ack < acks-1 && ackFlags[t.Ack] != f&^topicFlags {
		t.Ack++
	}
	r.bad = r.bad || ackFlags[t.Ack] != f&^topicFlags
	for range r.count() {
		t.Partitions = append(t.Partitions, uint32(r.uint()))
	}
	t.Active = len(t.Partitions)
	if f&flagRaised != 0 {
		t.Active = int(min(r.uint(), maxPartitions))
		for range r.count() {
			t.Raised = append(t.Raised, uint32(min(r.uint(), maxPartitions)))
		}
		r.bad = r.bad || len(t.Raised) == 0
	}
	r.bad = r.bad || !t.validRaises()
	for range r.count() {
		c := r.channel()
		if n := len(t.Channels); n > 0 && t.Channels[n-1].Name >= c.Name {
			r.bad = true
		}
		t.Channels = append(t.Channels, c)
		if r.bad {
			break
		}
	}
	return t
}

func (r *reader) channel() *Channel {
	c := &Channel{ID: r.uint(), Name: r.string(), CreatedNs: int64(r.uint())}
	f := r.uint()
	r.bad = r.bad || f > channelFlags
	c.Paused, c.Deleting = f&flagPaused != 0, f&flagDeleting != 0
	if f&flagLimited != 0 {
		attempts := r.uint()
		c.DeadLetter = r.string()
		r.bad = r.bad || attempts == 0 || !validDeadLetter(attempts, c.DeadLetter)
		c.MaxAttempts = uint16(attempts)
	}
	return c
}
