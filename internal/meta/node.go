package meta

import (
	"cmp"
	"fmt"
	"slices"
)

// NodeState is what a node is to the cluster.
type NodeState uint8

// The states of a node. Whether a member is up is not metadata: leases say so.
const (
	NodeMember NodeState = iota // belongs to the cluster, up or down
	NodeGone                    // replaced by a new incarnation; its Raft id is never used again
)

// String is "member" or "gone".
func (s NodeState) String() string {
	if s == NodeGone {
		return "gone"
	}
	return "member"
}

// Node is one incarnation of a node, a name on one disk; immutable. Addresses
// are host:port, at most MaxAddress bytes, and empty where there is none.
type Node struct {
	ID        uint64 // Raft id: new for every disk that the name lives on
	Name      string // unique among the members, at most MaxName bytes
	Addr      string // where other nodes reach it
	TCP       string // NSQ protocol
	HTTP      string // nsqd's HTTP API
	Broadcast string // host that lookups name
	Boot      uint64 // the process as it last announced itself; 0: never
	State     NodeState
}

// Bounds of what a Node holds and of a cluster, in bytes and counts.
const (
	MaxName    = 64
	MaxAddress = 300
	MaxNodes   = 64
)

// maxGone is how many replaced incarnations are remembered.
const maxGone = 64

// sameAddresses reports whether two incarnations are reached in the same way.
func (n *Node) sameAddresses(o *Node) bool {
	return n.Addr == o.Addr && n.TCP == o.TCP && n.HTTP == o.HTTP && n.Broadcast == o.Broadcast
}

// Shard is a Raft group: who is to be in it, and how many partitions it
// carries. Who is in it now stands in the group's own log; its leader brings
// the two together.
type Shard struct {
	ID         uint32 // GroupID is metadata
	Partitions int    // of durable topics
	// Voters are the Raft ids of the voting members that the group is to have.
	// The first is preferred as leader. Shared: do not change it.
	Voters   []uint64
	Learners []uint64 // … that copy and do not vote
	// Began are the voters with which the group of a shard that was added began; nil
	// for those of the founding. A replica that comes late has to begin with the same,
	// whoever was replaced since.
	Began []uint64
}

// Preferred is the Raft id of the voter that is to lead, 0 without voters.
func (s *Shard) Preferred() uint64 {
	if len(s.Voters) == 0 {
		return 0
	}
	return s.Voters[0]
}

// Node finds an incarnation by Raft id: a member, or one that is gone.
func (v *View) Node(id uint64) (Node, bool) {
	if n := v.byID[id]; n != nil {
		return *n, true
	}
	return Node{}, false
}

// NodeNamed finds a member by name.
func (v *View) NodeNamed(name string) (Node, bool) {
	if n := v.byName[name]; n != nil {
		return *n, true
	}
	return Node{}, false
}

// Shard finds a group by id: a data shard, or metadata itself under GroupID.
func (v *View) Shard(id uint32) (Shard, bool) {
	if id == GroupID {
		return v.Meta, v.Formed()
	}
	i, ok := v.findShard(id)
	if !ok {
		return Shard{}, false
	}
	return v.Shards[i], true
}

func (v *View) findShard(id uint32) (int, bool) {
	return slices.BinarySearchFunc(v.Shards, id, func(s Shard, id uint32) int { return cmp.Compare(s.ID, id) })
}

// setNodes replaces both tables of nodes and makes their indexes anew; the
// slices are the view's from then on.
func (v *View) setNodes(members, gone []Node) {
	v.Nodes, v.Gone = members, gone
	v.byID = make(map[uint64]*Node, len(members)+len(gone))
	v.byName = make(map[string]*Node, len(members))
	for i := range gone {
		v.byID[gone[i].ID] = &gone[i]
	}
	for i := range members {
		v.byID[members[i].ID] = &members[i]
		v.byName[members[i].Name] = &members[i]
	}
}

// Founding is how a cluster begins: what its founding members agreed upon
// before there was metadata.
type Founding struct {
	Cluster string // id, 32 hex characters
	Nodes   []Node // members, by name
	// Voters of every group, as Raft ids; index 0 is metadata, and the first of
	// each is preferred as leader.
	Voters [][]uint64
}

// Check reports what is wrong with a founding; nil when nothing is.
func (f *Founding) Check() error {
	if len(f.Nodes) == 0 || len(f.Nodes) > MaxNodes || len(f.Voters) < 2 || len(f.Voters) > maxShards+1 {
		return fmt.Errorf("check founding: %d nodes, %d groups", len(f.Nodes), len(f.Voters))
	}
	known := make(map[uint64]bool, len(f.Nodes))
	for i, n := range f.Nodes {
		if known[n.ID] || i > 0 && f.Nodes[i-1].Name >= n.Name || n.State != NodeMember {
			return fmt.Errorf("check founding: node %q is there twice or out of order", n.Name)
		}
		known[n.ID] = true
	}
	for id, voters := range f.Voters {
		if len(voters) == 0 {
			return fmt.Errorf("check founding: shard %d has no voter", id)
		}
		for i, v := range voters {
			if !known[v] || slices.Contains(voters[:i], v) {
				return fmt.Errorf("check founding: shard %d has the voter %x that is no node, or twice", id, v)
			}
		}
	}
	return nil
}

// Layout distributes the groups of a new cluster: metadata votes on all nodes,
// each of the data shards on replicas of them (all, if there are fewer). First
// voters rotate over the nodes, so that leaders do.
func Layout(nodes []Node, shards, replicas int) [][]uint64 {
	n := len(nodes)
	voters := make([][]uint64, 0, shards+1)
	group := func(first, count int) {
		ids := make([]uint64, count)
		for i := range ids {
			ids[i] = nodes[(first+i)%n].ID
		}
		voters = append(voters, ids)
	}
	group(shards%n, n)
	for i := range shards {
		group(i%n, min(max(replicas, 1), n))
	}
	return voters
}
