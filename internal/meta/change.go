package meta

import (
	"maps"
	"slices"
)

// change builds the next view from one: what it touches is copied once.
type change struct {
	view    *View
	touched bool
	names   [buckets]bool // copied already
	ids     [buckets]bool
	shards  bool
	origins map[uint64]*origin // copied already, by boot id
}

// begin starts a change; the old view stays as it is.
func begin(v *View) *change {
	return &change{view: &View{
		Cluster: v.Cluster, Feature: v.Feature, Index: v.Index,
		Nodes: v.Nodes, Gone: v.Gone, Meta: v.Meta, Shards: v.Shards, byID: v.byID, byName: v.byName,
		origins: v.origins, lastID: v.lastID, lastNs: v.lastNs, count: v.count, names: v.names, ids: v.ids,
	}}
}

// id gives out the next topic or channel id.
func (c *change) id() uint64 {
	c.touched = true
	c.view.lastID++
	return c.view.lastID
}

// put adds a topic or replaces the one of the same name.
func (c *change) put(t *Topic) {
	if old, ok := c.view.Topic(t.Name); !ok {
		c.view.count++
	} else if old.ID != t.ID {
		delete(c.idBucket(old.ID).topics, old.ID)
	}
	c.nameBucket(t.Name).topics[t.Name] = t
	c.idBucket(t.ID).topics[t.ID] = t
}

// remove takes a topic away, and its partitions from their shards.
func (c *change) remove(t *Topic) {
	delete(c.nameBucket(t.Name).topics, t.Name)
	delete(c.idBucket(t.ID).topics, t.ID)
	c.view.count--
	for _, id := range t.Partitions {
		c.load(id, -1)
	}
}

// assign chooses the shard of each of n partitions: the least used, the lowest
// id among equals, so that partitions go round.
func (c *change) assign(n int) []uint32 {
	chosen := make([]uint32, n)
	for i := range chosen {
		least := 0
		for k, s := range c.view.Shards {
			if s.Partitions < c.view.Shards[least].Partitions {
				least = k
			}
		}
		chosen[i] = c.view.Shards[least].ID
		c.load(chosen[i], 1)
	}
	return chosen
}

// load counts partitions on a shard.
func (c *change) load(id uint32, by int) {
	c.cloneShards()
	if i, ok := c.view.findShard(id); ok {
		c.view.Shards[i].Partitions += by
	}
}

func (c *change) cloneShards() {
	if !c.shards {
		c.view.Shards, c.shards = slices.Clone(c.view.Shards), true
	}
}

func (c *change) nameBucket(name string) *nameBucket {
	c.touched = true
	i := nameHash(name)
	if !c.names[i] {
		c.names[i] = true
		next := &nameBucket{topics: make(map[string]*Topic)}
		if old := c.view.names[i]; old != nil {
			next.topics = maps.Clone(old.topics)
		}
		c.view.names[i] = next
	}
	return c.view.names[i]
}

func (c *change) idBucket(id uint64) *idBucket {
	c.touched = true
	i := id % buckets
	if !c.ids[i] {
		c.ids[i] = true
		next := &idBucket{topics: make(map[uint64]*Topic)}
		if old := c.view.ids[i]; old != nil {
			next.topics = maps.Clone(old.topics)
		}
		c.view.ids[i] = next
	}
	return c.view.ids[i]
}
