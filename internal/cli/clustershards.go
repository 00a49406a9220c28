package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/cluster"
)

func newClusterShards(s streams) *cobra.Command {
	return parent("shards", "List the shards, and add data shards", newClusterShardsLs(s), newClusterShardsAdd(s))
}

func newClusterShardsLs(s streams) *cobra.Command {
	var asJSON bool
	var srv *server
	cmd := &cobra.Command{
		Use: "ls", Short: "List the shards with their leaders, partitions and replicas", Args: args(cobra.NoArgs),
		Long: `List the shards as one node sees them. Shard 0 is the metadata. LAG is in entries
of the replicated log.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := srv.clusterStatus(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				if st.Shards == nil {
					st.Shards = []cluster.ShardStatus{}
				}
				return printJSON(s.out, st.Shards)
			}
			if len(st.Shards) == 0 {
				return failf(exitFailure, "the node %s knows no shards yet: %s", st.Node, st.Waits)
			}
			return printShards(s, st.Shards)
		},
	}
	srv = adminFlags(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

// shardsAdded is what the admin API answers to adding shards.
type shardsAdded struct {
	Shards []uint32 `json:"shards"`
	Total  int      `json:"total"`
	Waits  string   `json:"waits,omitempty"`
}

func newClusterShardsAdd(s streams) *cobra.Command {
	var asJSON bool
	var srv *server
	cmd := &cobra.Command{
		Use: "add N", Short: "Add data shards to the running cluster", Args: args(cobra.ExactArgs(1)),
		Long: `Add data shards to the running cluster, or single node, and wait until they have
leaders. Every node opens them while it serves; a node that is down does when it is
back. Each has as many replicas as the shards that are there, on the nodes that
carry the fewest.

More shards let more nodes, and more cores of each, write at the same time; at the
same load each then writes smaller batches. One for every core of the cluster is
plenty. A cluster has at most 256, and shards are never taken away.

New topics, and new partitions of topics, go to the shards that carry the fewest;
what is there stays where it is.`,
		Example: `  tidings cluster shards add 4
  tidings cluster shards ls`,
		RunE: func(cmd *cobra.Command, words []string) error {
			count, err := strconv.Atoi(words[0])
			if err != nil || count < 1 {
				return usagef("cluster shards add: %q is not a number of shards from 1 on", words[0])
			}
			body, err := json.Marshal(map[string]any{"count": count})
			if err != nil {
				return err
			}
			var got shardsAdded
			if err := srv.admin(cmd.Context(), http.MethodPost, "/api/v1/shards", body, &got); err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, got)
			}
			ids := make([]string, len(got.Shards))
			for i, id := range got.Shards {
				ids[i] = strconv.FormatUint(uint64(id), 10)
			}
			fmt.Fprintf(s.err, "added shard %s; the cluster has %d data shards\n", strings.Join(ids, ", "), got.Total)
			if got.Waits != "" {
				fmt.Fprintf(s.err, "%s; `tidings cluster status` tells\n", got.Waits)
			}
			return nil
		},
	}
	srv = adminFlags(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}
