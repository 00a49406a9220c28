package admin

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/fault"
)

// nodeRows lists the nodes of a sample: members, then those that are gone.
func (x *sample) nodeRows() []NodeRow {
	rows := make([]NodeRow, 0, len(x.status.Nodes))
	for i := range x.status.Nodes {
		rows = append(rows, x.nodeRow(&x.status.Nodes[i]))
	}
	return rows
}

func (x *sample) nodeRow(n *cluster.NodeStatus) NodeRow {
	row := NodeRow{Name: n.Name, RaftID: n.RaftID, Self: n.Self, Leads: n.Leads, Replicas: n.Replicas, State: "unknown"}
	row.Addresses = &Addresses{TCP: n.TCP, HTTP: n.HTTP, Cluster: n.Addr, Broadcast: n.Broadcast}
	switch {
	case n.State == "gone":
		row.State = "gone"
		return row
	case n.Self || n.Lease == cluster.LeaseLive.String():
		row.State = "live"
	case n.Lease == cluster.LeaseLapsed.String():
		row.State = "down"
	}
	if n.RenewedMs >= 0 {
		seen, live := n.RenewedMs, n.LiveMs
		row.SeenMs, row.LiveMs = &seen, &live
	}
	sync := n.SyncMs
	row.SyncMs = &sync
	r := x.reports[n.Name]
	if r == nil {
		return row
	}
	row.Answered = true
	f := &r.node
	row.Ready, row.NotReadyReason, row.Version, row.StartedAt = &f.Ready, f.NotReadyReason, f.Version, f.StartedAt
	row.Addresses = &f.Addresses
	row.Connections, row.SyncMs, row.DiskFree, row.ReserveReached = &f.Connections, &f.SyncMs, &f.DiskFree, &f.ReserveReached
	row.Memory, row.Goroutines, row.Spool = &f.Memory, &f.Goroutines, f.Spool
	consumers := 0
	for i := range r.topics {
		for k := range r.topics[i].channels {
			consumers += int(r.topics[i].channels[k].consumers)
		}
	}
	row.Consumers = &consumers
	if at, ok := x.nodeRates[n.Name]; ok {
		row.InRate, row.InBytesRate, row.DeliveredRate = &at.in, &at.bytes, &at.delivered
	}
	return row
}

// shards lists the groups.
func (x *sample) shards(e *Engine) []Shard {
	list := make([]Shard, 0, len(x.status.Shards))
	for i := range x.status.Shards {
		list = append(list, shardOf(&x.status.Shards[i], e))
	}
	return list
}

func shardOf(s *cluster.ShardStatus, e *Engine) Shard {
	out := Shard{
		Shard: s.ID, Metadata: s.ID == 0, Leader: s.Leader, Preferred: s.Preferred, Term: s.Term, Commit: s.Commit,
		Partitions: s.Partitions, Replicas: make([]Replica, 0, len(s.Replicas)),
	}
	if e != nil {
		out.LeaderChanges, out.LeaderSinceAt = e.LeaderChanges(s.ID)
	}
	for _, r := range s.Replicas {
		p := Replica{Node: r.Node, Role: r.Role, Applied: r.Applied, Lag: r.Lag, Live: r.Live}
		if c := r.CatchUp; c != nil {
			p.CatchUp = &CatchUp{Stage: c.Stage, Bytes: c.Bytes, Total: c.Total, Rate: c.Rate}
		}
		out.Replicas = append(out.Replicas, p)
	}
	return out
}

// leaders are the names of the leaders, by shard.
func (x *sample) leaders() map[uint32]string {
	out := make(map[uint32]string, len(x.status.Shards))
	for i := range x.status.Shards {
		out[x.status.Shards[i].ID] = x.status.Shards[i].Leader
	}
	return out
}

func (x *sample) nodeState(e *Engine) NodeState {
	s := NodeState{At: x.at.UnixMilli(), Nodes: make(map[string]NodeRow), Shards: make(map[string]Shard), Missing: x.missing}
	for _, n := range x.nodeRows() {
		name := n.Name
		if n.State == "gone" {
			name = n.RaftID
		}
		s.Nodes[name] = n
	}
	for _, sh := range x.shards(e) {
		s.Shards[strconv.FormatUint(uint64(sh.Shard), 10)] = sh
	}
	return s
}

func (f *Front) listNodes(ctx context.Context, e *Engine, _ *http.Request) (any, error) {
	x, err := f.sampler.get(ctx, e, samplePeriod)
	if err != nil {
		return nil, err
	}
	return NodeList{At: x.at.UnixMilli(), Items: x.nodeRows(), Missing: x.missing}, nil
}

func (f *Front) getNode(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	x, err := f.sampler.get(ctx, e, samplePeriod)
	if err != nil {
		return nil, err
	}
	name := r.PathValue("node")
	rows := x.nodeRows()
	slices.SortStableFunc(rows, func(a, b NodeRow) int { // of several of a name, the member
		return cmp.Compare(b2i(a.State == "gone"), b2i(b.State == "gone"))
	})
	i := slices.IndexFunc(rows, func(n NodeRow) bool { return n.Name == name || n.RaftID == name })
	if i < 0 {
		return nil, &apiError{http.StatusNotFound, "NODE_NOT_FOUND", "the cluster has no node " + name, "GET /api/v1/nodes lists them"}
	}
	d := NodeDetail{NodeRow: rows[i], At: x.at.UnixMilli(), Shards: []NodeReplica{}}
	if rep := x.reports[rows[i].Name]; rep != nil && rows[i].State != "gone" {
		d.Log = &rep.node.Log
	}
	for _, s := range x.shards(e) {
		for _, p := range s.Replicas {
			if p.Node == rows[i].Name && rows[i].State != "gone" {
				d.Shards = append(d.Shards, NodeReplica{Shard: s.Shard, Leads: s.Leader == p.Node, Role: p.Role, Applied: p.Applied, Lag: p.Lag})
			}
		}
	}
	return d, nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (f *Front) listShards(ctx context.Context, e *Engine, _ *http.Request) (any, error) {
	x, err := f.sampler.get(ctx, e, samplePeriod)
	if err != nil {
		return nil, err
	}
	return ShardList{At: x.at.UnixMilli(), Items: x.shards(e)}, nil
}

// shardParam reads a shard out of the path.
func shardParam(r *http.Request) (uint32, error) {
	n, err := strconv.ParseUint(r.PathValue("shard"), 10, 32)
	if err != nil {
		return 0, fault.New(fault.InvalidRequest, "shard %q: want a number", r.PathValue("shard"))
	}
	return uint32(n), nil
}
