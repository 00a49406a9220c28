package meta

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/tidings-io/tidings/internal/fault"
)

// kindAddShards is a command of feature level 2: data shards behind those that are
// there. Its payload, integers as uvarints:
//
//	was      how many data shards there must be
//	count    of new shards, each: a count of voters, and their Raft ids, the one that
//	         is preferred as leader first
const kindAddShards kind = 32

// MaxDataShards is how many data shards a cluster may have. Every shard is a Raft
// group with a log, a checkpoint and heartbeats on each of its nodes, rested or not;
// and the more groups share the load, the smaller are the batches that each writes.
// One for each core of a large cluster is more than enough.
const MaxDataShards = 256

// AddShards adds data shards with these voters, Raft ids, of which the first is
// preferred as leader; View.Place chooses them. was is the number of data shards that
// they were chosen for. fault.InvalidRequest when there is another number by then, when
// there would be more than MaxDataShards, or when a voter is no member;
// fault.Unsupported in a cluster of feature level 1.
func (m *Machine) AddShards(was int, voters [][]uint64, done func(error)) {
	unfit := func(ids []uint64) bool { return len(ids) == 0 || len(ids) > MaxNodes }
	if was < 0 || len(voters) == 0 || len(voters) > MaxDataShards || slices.ContainsFunc(voters, unfit) {
		if done != nil {
			done(fault.New(fault.InvalidRequest, "add %d shards to %d: a cluster has 1 to %d, each with 1 to %d voters", len(voters), was, MaxDataShards, MaxNodes))
		}
		return
	}
	m.askError(command{Kind: kindAddShards, Was: uint64(was), Voters: voters}, done)
}

// addShards adds the shards of a command, or none of them.
func (c *change) addShards(cmd *command) result {
	refuse := func(format string, args ...any) result {
		return result{err: fault.New(fault.InvalidRequest, "add shards: "+format, args...)}
	}
	have := len(c.view.Shards)
	switch {
	case !c.view.Formed():
		return result{err: fault.New(fault.NotLeader, "add shards: the cluster is not formed")}
	case uint64(have) != cmd.Was:
		return refuse("the cluster has %d by now, not %d", have, cmd.Was)
	case have+len(cmd.Voters) > MaxDataShards:
		return refuse("%d and %d more are more than the %d that a cluster may have", have, len(cmd.Voters), MaxDataShards)
	}
	for _, voters := range cmd.Voters {
		for i, id := range voters {
			if n, ok := c.view.Node(id); !ok || n.State != NodeMember || slices.Contains(voters[:i], id) {
				return refuse("the voter %016x is no member, or is there twice", id)
			}
		}
	}
	c.touched = true
	c.cloneShards()
	for i, voters := range cmd.Voters {
		c.view.Shards = append(c.view.Shards, Shard{ID: uint32(have+i) + 1, Voters: voters, Began: voters})
	}
	return result{}
}

// Place chooses voters for n more data shards: for each as many as the present ones
// have, those with the fewest replicas, and as preferred leader the one of them that is
// preferred by the fewest shards. Members that are down are chosen only when there are
// not enough others. fault.InvalidRequest when there would be more than MaxDataShards,
// fault.Unreachable when a new shard would have no majority.
func (v *View) Place(n int, down func(raftID uint64) bool) ([][]uint64, error) {
	switch {
	case !v.Formed() || len(v.Shards) == 0:
		return nil, fault.New(fault.NotLeader, "add shards: the cluster is not formed")
	case n < 1 || len(v.Shards)+n > MaxDataShards:
		return nil, fault.New(fault.InvalidRequest, "add %d shards: the cluster has %d, and may have 1 to %d", n, len(v.Shards), MaxDataShards)
	}
	replicas := 1
	carries, leads := make(map[uint64]int), make(map[uint64]int)
	for _, s := range append(slices.Clone(v.Shards), v.Meta) {
		leads[s.Preferred()]++
		if s.ID == GroupID {
			continue
		}
		replicas = max(replicas, len(s.Voters))
		for _, id := range slices.Concat(s.Voters, s.Learners) {
			carries[id]++
		}
	}
	nodes := slices.Clone(v.Nodes)
	out := make([][]uint64, n)
	for i := range out {
		slices.SortStableFunc(nodes, func(a, b Node) int {
			return cmp.Or(order(down(a.ID), down(b.ID)), cmp.Compare(carries[a.ID], carries[b.ID]), cmp.Compare(leads[a.ID], leads[b.ID]), cmp.Compare(a.Name, b.Name))
		})
		chosen := slices.Clone(nodes[:min(replicas, len(nodes))])
		up := 0
		for _, m := range chosen {
			if !down(m.ID) {
				up++
			}
			carries[m.ID]++
		}
		if up <= len(chosen)/2 {
			return nil, fault.New(fault.Unreachable, "add %d shards: %d of the %d nodes that would carry one are up, and a majority is needed", n, up, len(chosen))
		}
		slices.SortStableFunc(chosen, func(a, b Node) int {
			return cmp.Or(order(down(a.ID), down(b.ID)), cmp.Compare(leads[a.ID], leads[b.ID]), cmp.Compare(a.Name, b.Name))
		})
		leads[chosen[0].ID]++
		for _, m := range chosen {
			out[i] = append(out[i], m.ID)
		}
	}
	return out, nil
}

// order puts false before true.
func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// appendVoters encodes the voters of new shards.
func appendVoters(p []byte, voters [][]uint64) []byte {
	p = binary.AppendUvarint(p, uint64(len(voters)))
	for _, ids := range voters {
		p = appendList(p, ids)
	}
	return p
}

// voters reads what appendVoters wrote.
func (r *reader) voters() (voters [][]uint64) {
	n := r.count()
	r.bad = r.bad || n == 0 || n > MaxDataShards
	for range n {
		if r.bad {
			return nil
		}
		ids := r.list()
		r.bad = r.bad || len(ids) == 0 || len(ids) > MaxNodes
		voters = append(voters, ids)
	}
	return voters
}

// encodeAdded writes, behind all else of a state, what the shards that were added
// began with; nothing where none was, so that older programs read it.
func (v *View) encodeAdded(b []byte) []byte {
	var added []Shard
	for _, s := range v.Shards {
		if s.Began != nil {
			added = append(added, s)
		}
	}
	if len(added) == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(added)))
	for _, s := range added {
		b = appendList(binary.AppendUvarint(b, uint64(s.ID)), s.Began)
	}
	return b
}

// added reads what encodeAdded wrote.
func (r *reader) added(c *change) {
	if len(r.b) == 0 {
		return
	}
	c.cloneShards()
	n := r.count()
	r.bad = r.bad || n == 0
	for range n {
		i, ok := c.view.findShard(uint32(r.uint()))
		began := r.list()
		if r.bad = r.bad || !ok || len(began) == 0; r.bad {
			return
		}
		c.view.Shards[i].Began = began
	}
}

// grow lets Options.Grow open what a view adds, before anybody sees the view.
func (m *Machine) grow(old, next *View) error {
	if m.o.Grow == nil || len(next.Shards) <= len(old.Shards) {
		return nil
	}
	return m.o.Grow(next.Shards)
}
