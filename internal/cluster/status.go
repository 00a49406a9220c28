package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/meta"
)

// Status is a cluster as one node sees it, for `cluster status` and `cluster
// nodes`.
type Status struct {
	Cluster string `json:"cluster"`         // id; empty while it is being formed
	Stage   string `json:"stage"`           // of this node's disk: empty, accepted, formed
	Node    string `json:"node"`            // who tells this
	Feature uint32 `json:"feature_level"`   // of the commands that all members know
	Healthy bool   `json:"healthy"`         // every group has its leader and all its members
	Waits   string `json:"waits,omitempty"` // the first of Notes
	// Notes say what is missing, for people, one thing each.
	Notes  []string      `json:"notes,omitempty"`
	Nodes  []NodeStatus  `json:"nodes"`
	Shards []ShardStatus `json:"shards"`
}

// NodeStatus is one member, or an incarnation that was replaced.
type NodeStatus struct {
	Name      string `json:"name"`
	RaftID    string `json:"raft_id"` // 16 hex characters
	State     string `json:"state"`   // member, gone
	Lease     string `json:"lease"`   // live, lapsed, unknown; empty for one that is gone
	Self      bool   `json:"self,omitempty"`
	Addr      string `json:"cluster_address"`
	TCP       string `json:"tcp_address,omitempty"`
	HTTP      string `json:"http_address,omitempty"`
	Broadcast string `json:"broadcast_address,omitempty"`
	// RenewedMs is the age of the lease in ms, -1 when it was never seen.
	RenewedMs int64   `json:"lease_age_ms"`
	LiveMs    int64   `json:"live_ms"` // without a break
	SyncMs    float64 `json:"sync_ms"` // the slowest of its last syncs
	Leads     int     `json:"leads"`   // groups, metadata included
	Replicas  int     `json:"replicas"`
}

// ShardStatus is one group.
type ShardStatus struct {
	ID         uint32          `json:"shard"`            // 0: metadata
	Leader     string          `json:"leader,omitempty"` // name; empty: none is known
	Preferred  string          `json:"preferred_leader"` // name
	Term       uint64          `json:"term"`
	Commit     uint64          `json:"commit"`
	Partitions int             `json:"partitions"`
	Replicas   []ReplicaStatus `json:"replicas"`
}

// ReplicaStatus is one member of a group.
type ReplicaStatus struct {
	Node string `json:"node"`
	// Role is voter or learner as metadata wants it.
	Role    string `json:"role"`
	Applied uint64 `json:"applied"`
	// Lag is how many entries it is behind the group's commit index.
	Lag  uint64 `json:"lag"`
	Live bool   `json:"live"`
	// CatchUp is how far it has come with the state of its group, while it gets
	// that from another replica.
	CatchUp *CatchUpStatus `json:"catch_up,omitempty"`
}

// CatchUpStatus is a session in which a replica gets the state of its group.
type CatchUpStatus struct {
	Stage string `json:"stage"`       // receive, sync, install
	Bytes uint64 `json:"bytes"`       // so far
	Total uint64 `json:"total_bytes"` // about how many they will be; 0 while it is not known
	Rate  uint64 `json:"bytes_per_second"`
}

// Build makes the status of a formed cluster from metadata, the leases as this
// node knows them, and its own groups. waits are the notes of NextChange.
func Build(self meta.Node, v *meta.View, leases []Lease, groups []Group, waits []string) Status {
	s := Status{Cluster: v.Cluster, Stage: Formed.String(), Node: self.Name, Feature: v.Feature}
	b := builder{view: v, leases: leases, groups: groups, self: self.ID}
	if !v.Formed() {
		s.Notes = append(s.Notes, "waiting for the metadata of the cluster: no leader has begun it yet")
	} else {
		for _, shard := range slices.Concat([]meta.Shard{v.Meta}, v.Shards) {
			s.Shards = append(s.Shards, b.shard(shard))
		}
	}
	for _, n := range slices.Concat(v.Nodes, v.Gone) {
		s.Nodes = append(s.Nodes, b.node(n, s.Shards))
	}
	s.Notes = append(append(s.Notes, b.notes...), waits...)
	s.finish()
	return s
}

// FormingStatus is the status of a node that belongs to no cluster yet.
func FormingStatus(f *Former) Status {
	id := f.Identity()
	s := Status{Cluster: id.Cluster, Stage: id.Stage.String(), Node: id.Name, Notes: slices.Clone(f.Status())}
	s.finish()
	s.Healthy = false
	return s
}

func (s *Status) finish() {
	s.Healthy = len(s.Notes) == 0
	if !s.Healthy {
		s.Waits = s.Notes[0]
	}
}

type builder struct {
	view   *meta.View
	leases []Lease
	groups []Group
	self   uint64
	notes  []string
}

// position is how far a node is in a group: this node from its own loop,
// another as its last renewal said.
func (b *builder) position(node uint64, shard uint32) (Position, bool) {
	if node == b.self {
		for _, g := range b.groups {
			if g.Shard == shard {
				return g.position(), true
			}
		}
	}
	for _, p := range leaseOf(b.leases, node).Positions {
		if p.Shard == shard {
			return p, true
		}
	}
	return Position{}, false
}

// position is how far this node is in the group.
func (g *Group) position() Position {
	p := Position{Shard: g.Shard, Leads: g.Leads, Term: g.Term, Applied: g.Applied, Commit: g.Commit}
	if c := g.CatchUp; c != nil {
		p.Session = Session{Stage: c.Stage, Bytes: uint64(max(c.Bytes, 0)), Total: uint64(max(c.Total, 0)), Rate: c.rate()}
	}
	return p
}

func (b *builder) live(node uint64) bool {
	return node == b.self || leaseOf(b.leases, node).State == LeaseLive
}

func (b *builder) shard(s meta.Shard) ShardStatus {
	st := ShardStatus{ID: s.ID, Partitions: s.Partitions, Preferred: nodeName(b.view, s.Preferred())}
	members := slices.Concat(s.Voters, s.Learners)
	for _, id := range members {
		p, _ := b.position(id, s.ID)
		st.Commit = max(st.Commit, p.Commit)
		if p.Leads && b.live(id) && p.Term >= st.Term {
			st.Leader, st.Term = nodeName(b.view, id), p.Term
		}
	}
	for _, id := range members {
		p, known := b.position(id, s.ID)
		r := ReplicaStatus{Node: nodeName(b.view, id), Role: "voter", Applied: p.Applied, Live: b.live(id)}
		if slices.Contains(s.Learners, id) {
			r.Role = "learner"
		}
		if known {
			r.Lag = st.Commit - min(st.Commit, p.Applied)
		} else {
			r.Lag = st.Commit
		}
		if x := p.Session; x.Stage != "" && r.Live {
			r.CatchUp = (*CatchUpStatus)(&x)
			b.notes = append(b.notes, fmt.Sprintf("shard %d: %s catches up, %s", s.ID, r.Node, r.CatchUp.text()))
		}
		st.Replicas = append(st.Replicas, r)
	}
	if st.Leader == "" {
		b.notes = append(b.notes, fmt.Sprintf("shard %d has no leader", s.ID))
	}
	return st
}

// text is the session in a few words.
func (c *CatchUpStatus) text() string {
	const mb = 1e6
	if c.Stage != "receive" {
		return c.Stage
	}
	return fmt.Sprintf("%.0f of %.0f MB at %.1f MB/s", float64(c.Bytes)/mb, float64(max(c.Total, c.Bytes))/mb, float64(c.Rate)/mb)
}

func (b *builder) node(n meta.Node, shards []ShardStatus) NodeStatus {
	st := NodeStatus{
		Name: n.Name, RaftID: fmt.Sprintf("%016x", n.ID), State: n.State.String(), Self: n.ID == b.self,
		Addr: n.Addr, TCP: n.TCP, HTTP: n.HTTP, Broadcast: n.Broadcast, RenewedMs: -1,
	}
	if n.State == meta.NodeGone {
		return st
	}
	l := leaseOf(b.leases, n.ID)
	st.Lease = l.State.String()
	if l.Boot != 0 {
		st.RenewedMs, st.LiveMs = l.Age.Milliseconds(), l.Since.Milliseconds()
		st.SyncMs = float64(l.Sync%FullSync) / float64(time.Millisecond)
	}
	for _, s := range shards {
		if s.Leader == n.Name {
			st.Leads++
		}
		if slices.ContainsFunc(s.Replicas, func(r ReplicaStatus) bool { return r.Node == n.Name }) {
			st.Replicas++
		}
	}
	switch {
	case l.State == LeaseUnknown && n.ID != b.self:
		b.notes = append(b.notes, fmt.Sprintf("node %s has not been heard of yet", n.Name))
	case l.State == LeaseLapsed && n.ID == b.self:
		b.notes = append(b.notes, fmt.Sprintf("node %s cannot renew its lease: it is cut off, or metadata has no leader", n.Name))
	case l.State == LeaseLapsed && l.Boot == 0:
		b.notes = append(b.notes, fmt.Sprintf("node %s has not been heard of", n.Name))
	case l.State == LeaseLapsed:
		b.notes = append(b.notes, fmt.Sprintf("node %s has not been heard of for %s", n.Name, l.Age.Round(time.Second)))
	case l.State == LeaseLive && l.Sync >= FullSync:
		b.notes = append(b.notes, fmt.Sprintf("node %s: its disk is full down to the reserve", n.Name))
	case l.State == LeaseLive && l.Sync >= StallSync:
		b.notes = append(b.notes, fmt.Sprintf("node %s: its disk takes %s for a sync", n.Name, l.Sync.Round(time.Millisecond)))
	}
	return st
}
