package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/meta"
)

const (
	// promoteLag is how many entries a learner may be behind the commit index
	// when it becomes a voter.
	promoteLag = 256
	// transferLag is how many a voter may be behind to be made leader.
	transferLag = 64
	// settled is how long a node must have been live before it is made leader.
	settled = 3 * time.Second
	// calmAfter is how long a node must not have stalled before it is.
	calmAfter = time.Minute
)

// Progress is what the leader of a group knows of another member.
type Progress struct {
	Match  uint64 // highest index that it is known to hold
	Active bool   // heard from within an election timeout
	// Installing says that it is given a snapshot: Match stands still meanwhile.
	Installing bool
}

// Group is one Raft group on this node, as its loop sees it.
type Group struct {
	Shard   uint32
	Leads   bool   // this node leads and serves
	Leader  uint64 // Raft id, 0 when unknown
	Term    uint64
	Commit  uint64
	Applied uint64
	// Voters and Learners are the members as they are: Raft ids, sorted.
	Voters, Learners []uint64
	// Changing says that a change of the membership is under way, or its joint
	// phase is not over.
	Changing bool
	// Transferring says that the leadership is being handed over.
	Transferring bool
	// Progress of the other members, on the leader only.
	Progress map[uint64]Progress
	// CatchUp is the session in which this node gets the group's state; nil: it
	// needs none.
	CatchUp *CatchUp
}

// CatchUp is how far a replica has come that gets the state of its group.
type CatchUp struct {
	Stage string        // receive, sync, install
	Bytes int64         // so far
	Total int64         // about how many they will be; 0 while it is not known
	Since time.Duration // that it has begun
}

// rate is what has come per second, in bytes, on the average.
func (c *CatchUp) rate() uint64 {
	if c.Since <= 0 || c.Bytes <= 0 {
		return 0
	}
	return uint64(float64(c.Bytes) / c.Since.Seconds())
}

// ChangeKind is what happens to a member.
type ChangeKind uint8

// The kinds of changes.
const (
	AddLearner ChangeKind = iota + 1 // it copies the group from now on
	Promote                          // the learner votes
	Remove                           // it is no member any more
)

// String is the kind as a verb.
func (k ChangeKind) String() string {
	switch k {
	case AddLearner:
		return "add learner"
	case Promote:
		return "promote"
	case Remove:
		return "remove"
	}
	return "change nothing"
}

// Change is a change of one member of one group.
type Change struct {
	Shard uint32
	Kind  ChangeKind
	Node  uint64 // Raft id
}

// NextChange is the next step that brings the members of a group that this
// node leads to what metadata wants: at most one, and none while another is
// under way. Without one it returns why it waits, empty when nothing is left to
// do.
//
// The order is: voters that are gone are removed, so that a lost disk does not
// count in quorums for longer than it must; then new members come as learners,
// and vote once they have caught up.
func NextChange(v *meta.View, leases []Lease, g Group) (c Change, ok bool, waits string) {
	want, known := v.Shard(g.Shard)
	if !known || !g.Leads {
		return Change{}, false, ""
	}
	if g.Changing || g.Transferring {
		return Change{}, false, fmt.Sprintf("shard %d: a change is under way", g.Shard)
	}
	change := func(kind ChangeKind, id uint64) (Change, bool, string) {
		return Change{Shard: g.Shard, Kind: kind, Node: id}, true, ""
	}
	for _, id := range g.Voters {
		if wanted(want, id) {
			continue
		}
		if id == g.Leader {
			return Change{}, false, fmt.Sprintf("shard %d: its leader is to leave it", g.Shard)
		}
		if !g.survives(id) {
			return Change{}, false, fmt.Sprintf("shard %d: no majority answers without %s", g.Shard, nodeName(v, id))
		}
		return change(Remove, id)
	}
	for _, id := range g.Learners {
		if !wanted(want, id) {
			return change(Remove, id)
		}
	}
	for _, id := range slices.Concat(want.Voters, want.Learners) {
		if slices.Contains(g.Voters, id) || slices.Contains(g.Learners, id) {
			continue
		}
		if leaseOf(leases, id).State == LeaseLive {
			return change(AddLearner, id)
		}
		waits = fmt.Sprintf("shard %d: %s is not live", g.Shard, nodeName(v, id))
	}
	for _, id := range want.Voters {
		if !slices.Contains(g.Learners, id) {
			continue
		}
		p := g.Progress[id]
		if p.Active && !p.Installing && p.Match+promoteLag >= g.Commit {
			return change(Promote, id)
		}
		waits = fmt.Sprintf("shard %d: %s catches up, %d of %d entries", g.Shard, nodeName(v, id), p.Match, g.Commit)
	}
	return Change{}, false, waits
}

func wanted(s meta.Shard, id uint64) bool {
	return slices.Contains(s.Voters, id) || slices.Contains(s.Learners, id)
}

// survives reports whether the voters that answer are a majority of those that
// are left without one.
func (g *Group) survives(without uint64) bool {
	left, active := 0, 0
	for _, id := range g.Voters {
		if id == without {
			continue
		}
		left++
		if id == g.Leader || g.Progress[id].Active {
			active++
		}
	}
	return active > left/2
}

// nodeName is a node as a reader knows it.
func nodeName(v *meta.View, id uint64) string {
	n, ok := v.Node(id)
	if !ok {
		return fmt.Sprintf("node %x", id)
	}
	if n.State == meta.NodeGone {
		return n.Name + " (replaced)"
	}
	return n.Name
}

// canLead reports whether a member is fit to be made leader.
func (g *Group) canLead(leases []Lease, id uint64) bool {
	l, p := leaseOf(leases, id), g.Progress[id]
	return slices.Contains(g.Voters, id) && p.Active && !p.Installing && p.Match+transferLag >= g.Commit &&
		l.State == LeaseLive && l.Since >= settled && l.Sync < StallSync && l.Calm >= calmAfter
}
