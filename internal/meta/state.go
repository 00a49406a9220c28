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
//	format 1, cluster, feature, index, last id, last time
//	count of nodes:    id, name
//	count of shards:   id
//	count of topics, by id: id, name, seed, created, created time, boot,
//	                   flags, count of partitions: shard
//	                   count of channels: id, name, created time, flags
//
// flags: 1 paused, 2 deleting. How many partitions a shard carries is counted
// anew.
const stateFormat = 1

// ErrState says that the state in a checkpoint cannot be read.
var ErrState = errors.New("malformed metadata state")

const (
	flagPaused = 1 << iota
	flagDeleting
)

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

// encode returns the state; equal views give equal bytes.
func (v *View) encode() []byte {
	b := binary.AppendUvarint(make([]byte, 0, 256+128*v.count), stateFormat)
	b = appendString(b, v.Cluster)
	b = appendUints(b, uint64(v.Feature), v.Index, v.lastID, uint64(v.lastNs), uint64(len(v.Nodes)))
	for _, n := range v.Nodes {
		b = appendString(binary.AppendUvarint(b, n.ID), n.Name)
	}
	b = binary.AppendUvarint(b, uint64(len(v.Shards)))
	for _, s := range v.Shards {
		b = binary.AppendUvarint(b, uint64(s.ID))
	}
	topics := slices.Clone(v.Topics())
	slices.SortFunc(topics, func(a, b *Topic) int { return cmp.Compare(a.ID, b.ID) })
	b = binary.AppendUvarint(b, uint64(len(topics)))
	for _, t := range topics {
		b = t.encode(b)
	}
	return b
}

func (t *Topic) encode(b []byte) []byte {
	b = appendString(binary.AppendUvarint(b, t.ID), t.Name)
	b = appendUints(b, t.Seed, t.Created, uint64(t.CreatedNs), t.Boot,
		flags(t.Paused, t.Deleting), uint64(len(t.Partitions)))
	for _, shard := range t.Partitions {
		b = binary.AppendUvarint(b, uint64(shard))
	}
	b = binary.AppendUvarint(b, uint64(len(t.Channels)))
	for _, c := range t.Channels {
		b = appendString(binary.AppendUvarint(b, c.ID), c.Name)
		b = appendUints(b, uint64(c.CreatedNs), flags(c.Paused, c.Deleting))
	}
	return b
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
	if format := r.uint(); format != stateFormat {
		return nil, fmt.Errorf("read format %d: %w", format, ErrState)
	}
	c := begin(&View{})
	v := c.view
	v.Cluster, v.Feature = r.string(), uint32(r.uint())
	v.Index, v.lastID, v.lastNs = r.uint(), r.uint(), int64(r.uint())
	for range r.count() {
		v.Nodes = append(v.Nodes, Node{ID: r.uint(), Name: r.string()})
	}
	for range r.count() {
		v.Shards = append(v.Shards, Shard{ID: uint32(r.uint())})
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
	if r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("read fields: %w", ErrState)
	}
	return v, nil
}

func (r *reader) topic() *Topic {
	t := &Topic{
		ID: r.uint(), Name: r.string(),
		Seed: r.uint(), Created: r.uint(), CreatedNs: int64(r.uint()), Boot: r.uint(),
	}
	t.Paused, t.Deleting = r.flags()
	for range r.count() {
		t.Partitions = append(t.Partitions, uint32(r.uint()))
	}
	for range r.count() {
		c := &Channel{ID: r.uint(), Name: r.string(), CreatedNs: int64(r.uint())}
		c.Paused, c.Deleting = r.flags()
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

func (r *reader) flags() (paused, deleting bool) {
	f := r.uint()
	r.bad = r.bad || f > flagPaused|flagDeleting
	return f&flagPaused != 0, f&flagDeleting != 0
}
