package cli

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/front/admin"
)

// nodeStatus is a node of the cluster's status, with the spool that it has for topics
// with ack local, if it has one and has told of it.
type nodeStatus struct {
	cluster.NodeStatus
	Spool *admin.Spool `json:"spool,omitempty"`
}

// clusterState is cluster.Status with the nodes' spools.
type clusterState struct {
	cluster.Status
	Nodes []nodeStatus `json:"nodes"`
}

// clusterState asks a node for the cluster's status, and for what the other nodes tell
// of their spools: the first is known without asking anybody.
func (srv *server) clusterState(ctx context.Context) (st clusterState, err error) {
	if err := srv.admin(ctx, http.MethodGet, "/api/cluster", nil, &st.Status); err != nil {
		return st, err
	}
	st.Nodes = make([]nodeStatus, len(st.Status.Nodes))
	for i, n := range st.Status.Nodes {
		st.Nodes[i] = nodeStatus{NodeStatus: n}
	}
	if len(st.Nodes) < 2 {
		return st, nil // who is alone has none
	}
	var told admin.NodeList
	if srv.admin(ctx, http.MethodGet, "/api/v1/nodes", nil, &told) != nil {
		return st, nil // it is starting: the status says so
	}
	for i := range st.Nodes {
		n := &st.Nodes[i]
		if at := slices.IndexFunc(told.Items, func(r admin.NodeRow) bool { return r.RaftID == n.RaftID }); at >= 0 {
			n.Spool = told.Items[at].Spool
		}
	}
	return st, nil
}

// spoolRows are the spools as lines of a table; none where no node has one.
func spoolRows(nodes []nodeStatus) (rows [][]string) {
	for _, n := range nodes {
		s := n.Spool
		if s == nil {
			continue
		}
		oldest := "-"
		if s.Depth > 0 {
			oldest = (time.Duration(s.OldestAgeMs) * time.Millisecond).Round(100 * time.Millisecond).String()
		}
		rows = append(rows, []string{
			n.Name, num(s.Depth), oldest, size(s.Bytes) + "/" + size(s.LimitBytes),
			strconv.FormatUint(s.Forwarded, 10), strconv.FormatUint(s.Refused, 10), orDash(s.Error),
		})
	}
	return rows
}
