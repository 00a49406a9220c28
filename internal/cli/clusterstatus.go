package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/cluster"
)

// admin sends a request to the admin API and reads the answer into v.
func (srv *server) admin(ctx context.Context, method, path string, body []byte, v any) error {
	return srv.adminQuery(ctx, method, path, nil, body, v)
}

// adminQuery is admin with a query.
func (srv *server) adminQuery(ctx context.Context, method, path string, query url.Values, body []byte, v any) error {
	resp, answer, err := srv.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	if err := notAdmin(resp); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return adminRefused(resp.StatusCode, answer)
	}
	if err := json.Unmarshal(answer, v); err != nil {
		return failf(exitFailure, "the answer of %s can't be read: %w", resp.Request.URL.Host, err)
	}
	return nil
}

// notAdmin is nil if the answer is one of an admin address.
func notAdmin(resp *http.Response) error {
	kind := resp.Header.Get("Content-Type")
	if resp.Header.Get("X-NSQ-Content-Type") == "" && (strings.HasPrefix(kind, "application/json") || strings.HasPrefix(kind, "text/event-stream")) {
		return nil
	}
	return failf(exitUnreachable, "%s answers, but not as a node does (status %d); is it the node's admin address?", resp.Request.URL.Host, resp.StatusCode)
}

// adminRefused turns an error answer of the admin API into words.
func adminRefused(status int, answer []byte) error {
	var refusal struct{ Code, Message, Next string }
	if err := json.Unmarshal(answer, &refusal); err != nil || refusal.Message == "" {
		refusal.Message = fmt.Sprintf("status %d", status)
	}
	code := exitFailure
	switch {
	case status == http.StatusNotFound:
		code = exitNotFound
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		code = exitDenied
	case status == http.StatusConflict:
		code = exitConflict
	case refusal.Code == "TIMEOUT":
		code = exitTimeout
	case slices.Contains([]string{"NO_LEADER", "UNREACHABLE", "STARTING", "EXITING"}, refusal.Code):
		code = exitUnreachable
	case status < http.StatusInternalServerError:
		code = exitUsage
	}
	switch next := refusal.Next; {
	case refusal.Code == "TOPIC_NOT_FOUND":
		refusal.Message += "; `tidings topic ls` lists what is there"
	case refusal.Code == "CHANNEL_NOT_FOUND":
		refusal.Message += "; `tidings channel ls TOPIC` lists what is there"
	case next != "" && !strings.HasPrefix(next, "GET ") && !strings.Contains(next, "; GET "): // those are for programs
		refusal.Message += "; " + next
	}
	return failf(code, "%s", refusal.Message)
}

func (srv *server) clusterStatus(ctx context.Context) (st cluster.Status, err error) {
	err = srv.admin(ctx, http.MethodGet, "/api/cluster", nil, &st)
	return st, err
}

// errUnhealthy ends `cluster status --check` of a cluster that misses something.
var errUnhealthy = errors.New("the cluster is not healthy")

func newClusterStatus(s streams) *cobra.Command {
	var asJSON, check bool
	var srv *server
	cmd := &cobra.Command{
		Use: "status", Short: "Show who leads what, what is behind and what is missing", Args: args(cobra.NoArgs),
		Long: `Show the cluster as one node sees it: who lives, who leads which shard, how far
each replica is, and what is missing. Shard 0 is the metadata. LAG is in entries
of the replicated log. SPOOLED is what a node acknowledged alone, for topics with
ack local, and has yet to bring to the cluster; nodes that have no such spool are
not listed there.`,
		Example: `  tidings cluster status
  tidings cluster status --admin 10.0.0.2:4180 --json
  tidings cluster status --check && echo all is well`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := srv.clusterState(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(s.out, st)
			} else {
				err = printClusterStatus(s, st)
			}
			if err == nil && check && !st.Healthy {
				return failf(exitFailure, "%w: %s", errUnhealthy, st.Waits)
			}
			return err
		},
	}
	srv = adminFlags(cmd)
	jsonFlag(cmd, &asJSON)
	cmd.Flags().BoolVar(&check, "check", false, "exit with 1 when anything is missing")
	return cmd
}

func printClusterStatus(s streams, st clusterState) error {
	id := st.Cluster
	if id == "" {
		id = "none yet"
	}
	health := "healthy"
	if !st.Healthy {
		health = "NOT HEALTHY"
	}
	fmt.Fprintf(s.out, "cluster %s, %s, as node %s sees it\n", id, health, st.Node)
	for _, n := range st.Notes {
		fmt.Fprintf(s.out, "  ! %s\n", n)
	}
	if len(st.Nodes) == 0 {
		return nil
	}
	fmt.Fprintln(s.out)
	if err := printNodes(s, st.Nodes); err != nil {
		return err
	}
	fmt.Fprintln(s.out)
	return printShards(s, st.Shards)
}

func printShards(s streams, shards []cluster.ShardStatus) error {
	rows := make([][]string, 0, len(shards))
	for _, sh := range shards {
		var replicas []string
		for _, r := range sh.Replicas {
			text := r.Node
			switch {
			case !r.Live:
				text += "(down)"
			case r.Lag > 0:
				text += "(-" + num(int64(r.Lag)) + ")"
			}
			if r.Role != "voter" {
				text += "[" + r.Role + "]"
			}
			replicas = append(replicas, text)
		}
		rows = append(rows, []string{
			strconv.FormatUint(uint64(sh.ID), 10), orDash(sh.Leader), orDash(sh.Preferred), strconv.FormatUint(sh.Term, 10),
			num(int64(sh.Commit)), strconv.Itoa(sh.Partitions), orDash(strings.Join(replicas, " ")),
		})
	}
	return table(s.out, "SHARD LEADER PREFERRED TERM COMMIT PARTITIONS REPLICAS(LAG)", rows)
}

func printNodes(s streams, nodes []nodeStatus) error {
	rows := make([][]string, 0, len(nodes))
	for _, n := range nodes {
		state := n.Lease
		if n.State != "member" {
			state = n.State
		}
		age := "-"
		if n.RenewedMs >= 0 && n.State == "member" && !n.Self {
			age = (time.Duration(n.RenewedMs) * time.Millisecond).Round(100 * time.Millisecond).String()
		}
		rows = append(rows, []string{
			n.Name, orDash(state), age, strconv.Itoa(n.Leads), strconv.Itoa(n.Replicas), fmt.Sprintf("%.1f ms", n.SyncMs),
			orDash(n.Addr), orDash(n.TCP), orDash(n.HTTP),
		})
	}
	if err := table(s.out, "NODE STATE SEEN LEADS REPLICAS SYNC CLUSTER TCP HTTP", rows); err != nil {
		return err
	}
	spools := spoolRows(nodes)
	if len(spools) == 0 {
		return nil
	}
	fmt.Fprintln(s.out)
	return table(s.out, "NODE SPOOLED OLDEST BYTES FORWARDED REFUSED ERROR", spools)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func newClusterNodes(s streams) *cobra.Command {
	var asJSON bool
	var srv *server
	cmd := &cobra.Command{
		Use: "nodes", Short: "List the nodes, where they are and whether they live", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := srv.clusterState(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, st.Nodes)
			}
			if len(st.Nodes) == 0 {
				return failf(exitFailure, "the node %s belongs to no cluster yet: %s", st.Node, st.Waits)
			}
			return printNodes(s, st.Nodes)
		},
	}
	srv = adminFlags(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newClusterTransfer(s streams) *cobra.Command {
	var asJSON bool
	var id uint32
	var to string
	var srv *server
	cmd := &cobra.Command{
		Use: "transfer --shard N --to NODE", Short: "Hand the leadership of a shard to another node", Args: args(cobra.NoArgs),
		Long: `Hand the leadership of a shard to another node, and wait until that node leads.
Nothing is lost and nothing is refused meanwhile. The cluster gives a shard back
to its preferred leader after a while.`,
		Example: `  tidings cluster transfer --shard 3 --to n2`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("shard") || to == "" {
				return usagef("cluster transfer: say what to hand over with --shard, and to whom with --to")
			}
			body, err := json.Marshal(map[string]any{"shard": id, "to": to})
			if err != nil {
				return err
			}
			if err := srv.admin(cmd.Context(), http.MethodPost, "/api/cluster/transfer", body, new(struct{})); err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, map[string]any{"shard": id, "leader": to})
			}
			fmt.Fprintf(s.err, "shard %d is led by %s\n", id, to)
			return nil
		},
	}
	cmd.Flags().Uint32Var(&id, "shard", 0, "shard; 0 is the metadata")
	cmd.Flags().StringVar(&to, "to", "", "node that shall lead")
	srv = adminFlags(cmd)
	completeFlag(cmd, "shard", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return completeShards(cmd, srv)
	})
	completeFlag(cmd, "to", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return completeNodes(cmd, srv)
	})
	jsonFlag(cmd, &asJSON)
	return cmd
}
