package meta

import (
	"cmp"
	"slices"

	"github.com/tidings-io/tidings/internal/fault"
)

// applyLevel2 makes a command of feature level 2 fact. On a cluster of level 1
// it does nothing, on every replica alike: nobody may propose it there.
func (c *change) applyLevel2(cmd *command, index uint64, now int64) result {
	if c.view.Feature < 2 {
		return result{err: fault.New(fault.Unsupported, "change metadata: the cluster has feature level %d, this needs 2", c.view.Feature)}
	}
	switch cmd.Kind {
	case kindReplaceNode:
		return c.replaceNode(cmd)
	case kindUpdateNode:
		return c.updateNode(cmd)
	case kindAddShards:
		return c.addShards(cmd)
	case kindDropBoot:
		c.dropBoot(cmd.Boot)
		return result{}
	}
	return c.request(cmd, index, now)
}

// found begins a cluster with the members that agreed to it.
func (c *change) found(cmd *command) result {
	if c.view.Formed() {
		return result{} // by an earlier leader, with the same founding
	}
	c.touched = true
	f := cmd.Founding
	c.view.Cluster, c.view.Feature = f.Cluster, uint32(cmd.Feature)
	c.view.setNodes(f.Nodes, nil)
	c.view.Meta = Shard{ID: GroupID, Voters: f.Voters[0]}
	c.view.Shards, c.shards = make([]Shard, len(f.Voters)-1), true
	for i := range c.view.Shards {
		c.view.Shards[i] = Shard{ID: uint32(i) + 1, Voters: f.Voters[i+1]}
	}
	return result{}
}

// replaceNode gives a member's name, and its places in all groups, to a new
// incarnation.
func (c *change) replaceNode(cmd *command) result {
	node := cmd.Node
	old, ok := c.view.NodeNamed(node.Name)
	if !ok {
		return result{err: fault.New(fault.InvalidRequest, "replace node %s: no member has this name", node.Name)}
	}
	if old.ID == node.ID {
		return result{} // done already
	}
	if old.ID != cmd.Was {
		return result{err: fault.New(fault.InvalidRequest, "replace node %s: its member is %x, not %x", node.Name, old.ID, cmd.Was)}
	}
	if known, ok := c.view.Node(node.ID); ok {
		return result{err: fault.New(fault.InvalidRequest, "replace node %s: the Raft id %x belongs to %s, %s", node.Name, node.ID, known.Name, known.State)}
	}
	c.dropBoot(old.Boot)
	old.State = NodeGone
	gone := append(slices.Clone(c.view.Gone), old)
	c.setNode(node, gone[max(0, len(gone)-maxGone):])
	c.view.Meta = c.view.Meta.replaced(old.ID, node.ID)
	c.cloneShards()
	for i, s := range c.view.Shards {
		c.view.Shards[i] = s.replaced(old.ID, node.ID)
	}
	return result{}
}

// replaced returns the shard with a member exchanged in its place.
func (s Shard) replaced(old, id uint64) Shard {
	swap := func(list []uint64) []uint64 {
		i := slices.Index(list, old)
		if i < 0 {
			return list
		}
		list = slices.Clone(list)
		list[i] = id
		return list
	}
	s.Voters, s.Learners = swap(s.Voters), swap(s.Learners)
	return s
}

// updateNode changes a member's addresses and process. The process before it
// must be the one that whoever asked for the change knew, so that two updates
// under way cannot end with the older.
func (c *change) updateNode(cmd *command) result {
	node := cmd.Node
	old, ok := c.view.Node(node.ID)
	switch {
	case !ok || old.State != NodeMember:
		return result{err: fault.New(fault.InvalidRequest, "update node %s: the Raft id %x is no member's", node.Name, node.ID)}
	case old.Boot == node.Boot && old.sameAddresses(&node):
		return result{}
	case old.Boot != cmd.Was:
		return result{err: fault.New(fault.InvalidRequest, "update node %s: another change came before", old.Name)}
	}
	if old.Boot != node.Boot { // on the same disk: the process before has ended
		c.dropBoot(old.Boot)
		c.forget(old.Boot)
	}
	node.Name, node.State = old.Name, NodeMember
	c.setNode(node, c.view.Gone)
	return result{}
}

// setNode puts a member in the place of the one that has its name.
func (c *change) setNode(node Node, gone []Node) {
	c.touched = true
	members := slices.Clone(c.view.Nodes)
	i, _ := slices.BinarySearchFunc(members, node.Name, func(n Node, name string) int { return cmp.Compare(n.Name, name) })
	members[i] = node
	c.view.setNodes(members, gone)
}

// dropBoot ends what lives and dies with a process: its ephemeral topics. What
// is remembered of its requests stays: it may only be cut off, and send them
// again when it is back.
func (c *change) dropBoot(boot uint64) {
	if boot == 0 {
		return
	}
	for _, t := range c.view.topicsOf(boot) {
		c.remove(t)
	}
}

// booted reports whether a member runs as that process, as far as metadata
// knows.
func (v *View) booted(boot uint64) bool {
	return slices.ContainsFunc(v.Nodes, func(n Node) bool { return n.Boot == boot })
}

// topicsOf lists the ephemeral topics of a process, in no order.
func (v *View) topicsOf(boot uint64) []*Topic {
	return v.ephemeral(func(b uint64) bool { return b == boot })
}
