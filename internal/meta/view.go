package meta

import (
	"cmp"
	"slices"
	"strings"
	"sync"
)

// EphemeralSuffix ends the name of a topic or channel that lives in memory
// only and goes with its last user.
const EphemeralSuffix = "#ephemeral"

// Topic is a topic as meta knows it; immutable.
type Topic struct {
	// ID is unique over the cluster's life and never used again: a topic that
	// is deleted and made anew has another one. It is the incarnation that
	// logs, commands and message ids carry.
	ID   uint64
	Name string
	// Seed keys the bijection of the topic's message ids; random, drawn anew
	// for each incarnation.
	Seed      uint64
	Created   uint64 // index of the entry that made it
	CreatedNs int64  // leader's unix ns of that entry
	// Partitions names the shard of each partition; empty for an ephemeral
	// topic, which no shard carries.
	Partitions []uint32
	// Active is how many of them, from the first on, messages are published to: all,
	// unless their number is being raised.
	Active int
	// Raised is how many there were before each raise; nil: as many as at birth.
	Raised   []uint32
	Paused   bool
	Ack      Ack
	Deleting bool // marked; gone once every shard has closed it
	// Boot is the process that an ephemeral topic lives and dies with; 0 for a
	// durable one.
	Boot     uint64
	Channels []*Channel // by name
}

// Channel is a channel as meta knows it; immutable.
type Channel struct {
	ID        uint64 // unique over the cluster's life, never used again
	Name      string
	CreatedNs int64 // leader's unix ns of the entry that made it
	Paused    bool
	Deleting  bool // marked; gone once every shard has closed it
	// MaxAttempts is how often a message is delivered, at most; 0: no limit. What is not
	// finished by then goes to the topic named DeadLetter, which is empty without a
	// limit.
	MaxAttempts uint16
	DeadLetter  string
}

// Ephemeral reports whether the topic lives in memory only.
func (t *Topic) Ephemeral() bool { return strings.HasSuffix(t.Name, EphemeralSuffix) }

// Channel finds a channel by name.
func (t *Topic) Channel(name string) (*Channel, bool) {
	i, ok := t.findChannel(name)
	if !ok {
		return nil, false
	}
	return t.Channels[i], true
}

// ChannelID finds a channel by id.
func (t *Topic) ChannelID(id uint64) (*Channel, bool) {
	for _, c := range t.Channels {
		if c.ID == id {
			return c, true
		}
	}
	return nil, false
}

func (t *Topic) findChannel(name string) (int, bool) {
	return slices.BinarySearchFunc(t.Channels, name, func(c *Channel, name string) int {
		return cmp.Compare(c.Name, name)
	})
}

// with returns the topic with a channel put in, or replaced by name.
func (t *Topic) with(c *Channel) *Topic {
	next := *t
	i, ok := t.findChannel(c.Name)
	if ok {
		next.Channels = slices.Clone(t.Channels)
		next.Channels[i] = c
		return &next
	}
	next.Channels = make([]*Channel, 0, len(t.Channels)+1)
	next.Channels = append(append(append(next.Channels, t.Channels[:i]...), c), t.Channels[i:]...)
	return &next
}

// without returns the topic with a channel taken out.
func (t *Topic) without(c *Channel) *Topic {
	next := *t
	next.Channels = slices.DeleteFunc(slices.Clone(t.Channels), func(o *Channel) bool { return o.ID == c.ID })
	return &next
}

// buckets is how many parts each table has. At 10,000 topics a bucket holds
// forty; the arrays of pointers that every change copies are 2 KiB each.
const buckets = 256

type nameBucket struct{ topics map[string]*Topic }

type idBucket struct{ topics map[uint64]*Topic }

// View is the metadata at one moment; immutable, for any goroutine.
type View struct {
	Cluster string  // id of the cluster, 32 hex characters; empty: not formed yet
	Feature uint32  // commands up to this level may be proposed
	Index   uint64  // entry of the last change
	Nodes   []Node  // members, by name
	Gone    []Node  // incarnations that were replaced, oldest first; the last 64
	Meta    Shard   // the metadata group itself
	Shards  []Shard // data shards, by id

	byID   map[uint64]*Node // members, and those in Gone
	byName map[string]*Node // members

	origins []*origin // requests that were answered, by boot id

	lastID uint64 // highest topic or channel id given out
	lastNs int64  // leader's time of the last entry
	count  int
	names  [buckets]*nameBucket
	ids    [buckets]*idBucket

	once   sync.Once
	sorted []*Topic // made by the first Topics
}

// Formed reports whether the cluster has an id and shards: topics can be made.
func (v *View) Formed() bool { return v.Cluster != "" }

// Knew reports whether a topic or channel id has been given out as of this view:
// one that it does not have then was deleted, and one above is not known here yet.
func (v *View) Knew(id uint64) bool { return id <= v.lastID }

// Len is the number of topics, those being deleted included.
func (v *View) Len() int { return v.count }

// Topic finds a topic by name.
func (v *View) Topic(name string) (*Topic, bool) {
	b := v.names[nameHash(name)]
	if b == nil {
		return nil, false
	}
	t, ok := b.topics[name]
	return t, ok
}

// TopicID finds a topic by id.
func (v *View) TopicID(id uint64) (*Topic, bool) {
	b := v.ids[id%buckets]
	if b == nil {
		return nil, false
	}
	t, ok := b.topics[id]
	return t, ok
}

// Topics lists the topics by name. The slice is shared: do not change it.
func (v *View) Topics() []*Topic {
	v.once.Do(func() {
		list := make([]*Topic, 0, v.count)
		for _, b := range v.names {
			if b == nil {
				continue
			}
			for _, t := range b.topics {
				list = append(list, t)
			}
		}
		slices.SortFunc(list, byName)
		v.sorted = list
	})
	return v.sorted
}

// orphans lists the ephemeral topics of all processes but the one named, in no
// order.
func (v *View) orphans(boot uint64) []*Topic {
	return v.ephemeral(func(b uint64) bool { return b != boot })
}

// ephemeral lists the ephemeral topics of some processes, in no order. It
// leaves the list of Topics alone: a view in the making has none.
func (v *View) ephemeral(of func(boot uint64) bool) []*Topic {
	var list []*Topic
	for _, b := range v.ids {
		if b == nil {
			continue
		}
		for _, t := range b.topics {
			if t.Boot != 0 && of(t.Boot) {
				list = append(list, t)
			}
		}
	}
	return list
}

func byName(a, b *Topic) int { return cmp.Compare(a.Name, b.Name) }

// Diff calls fn for every topic incarnation that differs between two views, by
// id: before is nil for one that is new, after for one that is gone. The cost
// is that of the changed buckets.
func Diff(before, after *View, fn func(before, after *Topic)) {
	var changed []uint64
	for i := range buckets {
		b, a := before.ids[i], after.ids[i]
		if a == b {
			continue
		}
		if b != nil {
			for id, t := range b.topics {
				if now, _ := after.TopicID(id); now != t {
					changed = append(changed, id)
				}
			}
		}
		if a != nil {
			for id := range a.topics {
				if _, was := before.TopicID(id); !was {
					changed = append(changed, id)
				}
			}
		}
	}
	slices.Sort(changed)
	for _, id := range changed {
		b, _ := before.TopicID(id)
		a, _ := after.TopicID(id)
		fn(b, a)
	}
}

// nameHash is FNV-1a, folded to a bucket.
func nameHash(name string) uint32 {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return (h ^ h>>16) % buckets
}
