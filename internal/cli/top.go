package cli

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/front/admin"
	"github.com/tidings-io/tidings/internal/top"
)

func newTop(s streams) *cobra.Command {
	var o top.Options
	var once, asJSON bool
	var srv *server
	cmd := &cobra.Command{
		Use: "top", Short: "Watch the cluster live: rates, backlogs, what is wrong now", Args: args(cobra.NoArgs),
		Long: `Watch the cluster live on the terminal: what goes in and out, what waits and for
how long, what is wrong now, and the topics, channels, nodes or findings below,
once a second. Enter goes from a topic to its channels and from a channel to its
consumers, / filters, the arrows choose the column to sort by, p pauses, ? lists
the keys. Nothing is changed.

With --once it prints one snapshot and ends; no terminal is needed. With --json
beside it, that is an object with overview, and topics or channels, as the admin
API has them. NO_COLOR in the environment turns colours off.`,
		Example: `  tidings top
  tidings top --view channels --sort -oldest
  tidings top --once --filter 'orders*'
  tidings top --once --json | jq .overview.findings`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Check(); err != nil {
				return usagef("%w", err)
			}
			switch {
			case o.Limit < 1 || o.Limit > 1000:
				return usagef("--limit %d: want a number from 1 to 1000", o.Limit)
			case !once && (asJSON || cmd.Flags().Changed("limit")):
				return usagef("--json and --limit go with --once")
			case !once && (!isTerminal(s.in) || !isTerminal(s.out) || os.Getenv("TERM") == "dumb"):
				return usagef("top wants a terminal; --once prints a snapshot anywhere")
			}
			// first the question who is there: it fails in words, and where the
			// node is found is known from then on
			if err := srv.admin(cmd.Context(), http.MethodGet, apiRoot+"self", nil, new(admin.Self)); err != nil {
				return err
			}
			o.Source, o.Plain = adminSource{srv}, os.Getenv("NO_COLOR") != ""
			if !once {
				return top.Run(cmd.Context(), o, s.in, s.out)
			}
			return topOnce(cmd.Context(), s, o, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.View, "view", "topics", "what is listed: "+strings.Join(top.Views(), ", "))
	f.StringVar(&o.Sort, "sort", "", "the column to sort by, such as backlog, oldest or in_rate; with - before it the largest come first")
	f.StringVar(&o.Filter, "filter", "", "only names that have this text, or match it with * and ?")
	f.IntVarP(&o.Limit, "limit", "n", 50, "with --once: most rows of the list")
	f.BoolVar(&once, "once", false, "print one snapshot and end")
	jsonFlag(cmd, &asJSON)
	srv = adminFlags(cmd)
	topCompletions(cmd, &o)
	return cmd
}

func topCompletions(cmd *cobra.Command, o *top.Options) {
	must(cmd.RegisterFlagCompletionFunc("view", cobra.FixedCompletions(top.Views(), cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("sort", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var keys []string
		for _, k := range top.Sorts(o.View) {
			keys = append(keys, k, "-"+k)
		}
		slices.Sort(keys)
		return keys, cobra.ShellCompDirectiveNoFileComp
	}))
}

func topOnce(ctx context.Context, s streams, o top.Options, asJSON bool) error {
	snap, err := top.Take(ctx, o)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(s.out, snap)
	}
	return snap.Print(s.out, o)
}

// adminSource is the admin API as top asks it.
type adminSource struct{ srv *server }

// Watch opens a stream of events.
func (a adminSource) Watch(ctx context.Context, watches []string, on func(kind string, data []byte)) error {
	stream, err := a.srv.events(ctx, apiRoot+"events", url.Values{"watch": watches})
	if err != nil {
		return err
	}
	defer stream.close()
	for {
		kind, data, err := stream.next()
		if err != nil {
			return err
		}
		on(kind, data)
	}
}

// Get asks once.
func (a adminSource) Get(ctx context.Context, path string, query url.Values, v any) error {
	return a.srv.adminQuery(ctx, http.MethodGet, apiRoot+path, query, nil, v)
}
