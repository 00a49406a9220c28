package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
)

const flagPartitions = "partitions"

// topicPartitions is what /topic/partitions says.
type topicPartitions struct {
	Active     int              `json:"active"`
	Partitions []partitionPlace `json:"partitions"`
}

type partitionPlace struct {
	Partition int    `json:"partition"`
	Shard     uint32 `json:"shard"`
	Leader    string `json:"leader"`
}

// partitions asks where the partitions of a topic are. Servers that do not know the
// question have none to tell.
func (srv *server) partitions(ctx context.Context, topic string) (p topicPartitions, err error) {
	body, err := srv.call(ctx, http.MethodGet, "/topic/partitions", url.Values{"topic": {topic}}, nil)
	if code := exitCode(err); err != nil && code != exitUnreachable && code != exitTimeout {
		return p, nil //nolint:nilerr // nsqd, or an edge
	}
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return p, failf(exitFailure, "read /topic/partitions of %s: %w", srv.addr, err)
	}
	return p, nil
}

// show prints the partitions of a topic that has several.
func (p *topicPartitions) show(s streams) error {
	if len(p.Partitions) < 2 {
		return nil
	}
	rows := make([][]string, 0, len(p.Partitions))
	for _, x := range p.Partitions {
		state := "active"
		if x.Partition >= p.Active {
			state = "being made"
		}
		rows = append(rows, []string{strconv.Itoa(x.Partition), strconv.FormatUint(uint64(x.Shard), 10), orDash(x.Leader), state})
	}
	if err := table(s.out, "PARTITION SHARD LEADER STATE", rows); err != nil {
		return err
	}
	_, err := fmt.Fprintln(s.out)
	return err
}

// count says how many partitions there are.
func (p *topicPartitions) count() string {
	if p.Active < len(p.Partitions) {
		return fmt.Sprintf("%d, being raised to %d", p.Active, len(p.Partitions))
	}
	return strconv.Itoa(p.Active)
}

func newTopicSet(s streams) *cobra.Command {
	var asJSON bool
	var partitions int
	var srv *server
	cmd := &cobra.Command{
		Use: "set TOPIC", Short: "Change a topic: raise the number of its partitions", Args: args(cobra.ExactArgs(1)),
		Long: `Change a topic that is there.

With --partitions N the topic gets more partitions; their number can't be lowered
again. Publishers and consumers go on meanwhile, nothing is lost, and the messages
of each key keep their order. The command waits until messages are published to all
of them; when it is interrupted before that, the raise goes on.`,
		Example: "  tidings topic set orders --partitions 12",
		ValidArgsFunction: func(cmd *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
			return complete(cmd, srv, a, 1)
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			if !cmd.Flags().Changed(flagPartitions) {
				return failf(exitUsage, "nothing to change: want --%s", flagPartitions)
			}
			q := url.Values{"topic": {a[0]}, "partitions": {strconv.Itoa(partitions)}}
			if err := srv.post(cmd.Context(), "/topic/partitions", q); err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, map[string]any{"topic": a[0], "partitions": partitions, "done": "set"})
			}
			fmt.Fprintf(s.err, "topic %s has %d partitions\n", a[0], partitions)
			return nil
		},
	}
	srv = serverFlags(cmd)
	jsonFlag(cmd, &asJSON)
	cmd.Flags().IntVar(&partitions, flagPartitions, 0, "how many partitions it is to have: more than now, at most 4096")
	return cmd
}
