package node

import (
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/shard"
)

// raftMessage is a message of the Raft library.
type raftMessage = pb.Message

// group is an open group, nil before the groups are open and where there is
// none of that id.
func (mb *member) group(id uint32) *shard.Group {
	if !mb.begun.Load() {
		return nil
	}
	g, _ := mb.n.groups.At(int(id))
	return g
}

// receive hands a Raft message of a member to its group.
func (mb *member) receive(from uint64, id uint32, m *raftMessage) {
	g := mb.group(id)
	if g == nil || m.GetFrom() != from || m.GetTo() != mb.self.ID {
		return
	}
	g.Receive(m)
}

// unreachable tells a group that messages to a member were lost.
func (mb *member) unreachable(id uint32, peer uint64) {
	if g := mb.group(id); g != nil {
		g.Unreachable(peer)
	}
}

// engine is the groups of this node as cluster.Agent sees and moves them.
type engine struct {
	mb *member

	mu           sync.Mutex
	changing     map[uint32]bool
	transferring map[uint32]bool
}

// Groups is the state of every group.
func (e *engine) Groups() []cluster.Group {
	if !e.mb.begun.Load() {
		return nil
	}
	groups := e.mb.n.groups.All()
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]cluster.Group, 0, len(groups))
	for _, g := range groups {
		s := g.Status()
		list = append(list, cluster.Group{
			Shard: s.ID, Leads: s.Leader, Leader: s.LeaderID, Term: s.Term, Commit: s.Commit, Applied: s.Applied,
			Changing: e.changing[s.ID], Transferring: e.transferring[s.ID],
		})
		c := &list[len(list)-1]
		if p := s.CatchUp; p != nil {
			c.CatchUp = &cluster.CatchUp{
				Stage: p.Stage, Bytes: p.Bytes, Total: p.Total, Since: time.Since(time.Unix(0, p.Started)),
			}
		}
		for _, m := range s.Members {
			if m.Learner {
				c.Learners = append(c.Learners, m.ID)
			} else {
				c.Voters = append(c.Voters, m.ID)
			}
			if s.Leader {
				if c.Progress == nil {
					c.Progress = make(map[uint64]cluster.Progress, len(s.Members))
				}
				c.Progress[m.ID] = cluster.Progress{Match: m.Match, Active: m.Active, Installing: m.State == "snapshot"}
			}
		}
		slices.Sort(c.Voters)
		slices.Sort(c.Learners)
	}
	return list
}

// ops are the changes as the groups name them.
var ops = map[cluster.ChangeKind]shard.ChangeOp{
	cluster.AddLearner: shard.AddLearner, cluster.Promote: shard.Promote, cluster.Remove: shard.Remove,
}

// Change begins a change of a group's members.
func (e *engine) Change(c cluster.Change) error {
	op, ok := ops[c.Kind]
	g := e.mb.group(c.Shard)
	if g == nil || !ok {
		return fmt.Errorf("shard %d: cannot %s", c.Shard, c.Kind)
	}
	e.mark(&e.changing, c.Shard, true)
	g.ProposeChange(shard.Change{Op: op, ID: c.Node}, func(err error) {
		e.mark(&e.changing, c.Shard, false)
		if err != nil {
			e.mb.n.log.Warn("the members of a shard were not changed", "shard", c.Shard, "change", c.Kind.String(), "error", err)
		}
	})
	return nil
}

// Transfer begins to hand over a group's leadership.
func (e *engine) Transfer(t cluster.Transfer) error {
	g := e.mb.group(t.Shard)
	if g == nil {
		return fmt.Errorf("there is no shard %d", t.Shard)
	}
	e.mark(&e.transferring, t.Shard, true)
	g.HandOver(t.To, func(err error) {
		e.mark(&e.transferring, t.Shard, false)
		if err != nil {
			e.mb.n.log.Warn("a shard was not handed over", "shard", t.Shard, "error", err)
		}
	})
	return nil
}

// moves reports whether a group's leadership is being handed over.
func (e *engine) moves(id uint32) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.transferring[id]
}

func (e *engine) mark(set *map[uint32]bool, id uint32, on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if *set == nil {
		*set = make(map[uint32]bool)
	}
	if on {
		(*set)[id] = true
	} else {
		delete(*set, id)
	}
}

// Sync is how the WAL's syncs are doing.
func (e *engine) Sync() time.Duration {
	l := e.mb.n.wal.Latency(time.Now())
	if r := e.mb.n.reserve; r != nil && r.Reached() {
		return cluster.FullSync
	}
	return max(l.Current, l.Median)
}

// leaveFull hands the groups that this node leads to others while its disk is
// full down to the reserve: it would refuse every publish.
func (mb *member) leaveFull() {
	if !mb.n.reserve.Reached() {
		return
	}
	leases := mb.agent.Load().Leases()
	fit := func(id uint64) bool {
		return slices.ContainsFunc(leases, func(l cluster.Lease) bool {
			return l.RaftID == id && l.State == cluster.LeaseLive && l.Sync < cluster.StallSync
		})
	}
	for i, g := range mb.n.groups.All() {
		s := g.Status()
		var to []uint64
		for _, m := range s.Members {
			if m.ID != mb.self.ID && !m.Learner && m.Active && m.State == "replicate" && fit(m.ID) {
				to = append(to, m.ID)
			}
		}
		if !s.Leader || len(to) == 0 || mb.engine.moves(s.ID) {
			continue
		}
		mb.n.log.Warn("handing over a shard, since the disk is full down to the reserve", "shard", s.ID)
		_ = mb.engine.Transfer(cluster.Transfer{Shard: s.ID, To: to[i%len(to)]}) // the group is there
	}
}
