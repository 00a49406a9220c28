package cli

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
)

// attemptLimit is the limit of a channel's attempts, as flags say.
type attemptLimit struct {
	most       int
	deadLetter string
}

const (
	flagMaxAttempts = "max-attempts"
	flagDeadLetter  = "dead-letter"
)

func (l *attemptLimit) flags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&l.most, flagMaxAttempts, 0, "deliver a message so often at most, then publish it to the dead-letter topic; 0: no limit")
	cmd.Flags().StringVar(&l.deadLetter, flagDeadLetter, "", "topic for messages that had all their attempts (default TOPIC.CHANNEL.dead)")
}

// given reports whether the flags say anything.
func (l *attemptLimit) given(cmd *cobra.Command) bool {
	return cmd.Flags().Changed(flagMaxAttempts) || cmd.Flags().Changed(flagDeadLetter)
}

// set puts what the flags say into the query of /channel/create.
func (l *attemptLimit) set(cmd *cobra.Command, q url.Values) error {
	switch {
	case !l.given(cmd):
		return nil
	case !cmd.Flags().Changed(flagMaxAttempts):
		return failf(exitUsage, "--%s goes with --%s", flagDeadLetter, flagMaxAttempts)
	}
	q.Set("max_attempts", strconv.Itoa(l.most))
	if l.deadLetter != "" {
		q.Set("dead_letter", l.deadLetter)
	}
	return nil
}

func newChannelSet(s streams) *cobra.Command {
	var asJSON bool
	var limit attemptLimit
	var srv *server
	cmd := &cobra.Command{
		Use: "set TOPIC CHANNEL", Short: "Change what a channel does with its messages", Args: args(cobra.ExactArgs(2)),
		Long: `Change what a channel does with its messages. It holds from now on, also for
messages that wait already, and survives restarts.

With --max-attempts N a message that N deliveries have not brought to its end
(given back, timed out, consumer lost) is published to the dead-letter topic, at
least once, with its key, and is the channel's no more. --max-attempts 0 lifts
the limit.`,
		Example: "  tidings channel set orders billing --max-attempts 5\n" +
			"  tidings channel set orders billing --max-attempts 5 --dead-letter poison\n" +
			"  tidings channel set orders billing --max-attempts 0",
		ValidArgsFunction: func(cmd *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
			return complete(cmd, srv, a, 2)
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			q := url.Values{"topic": {a[0]}, "channel": {a[1]}}
			if !limit.given(cmd) {
				return failf(exitUsage, "nothing to change: want --%s", flagMaxAttempts)
			}
			if err := limit.set(cmd, q); err != nil {
				return err
			}
			if _, err := srv.channel(cmd.Context(), a[0], a[1]); err != nil { // it must be there
				return err
			}
			if err := srv.post(cmd.Context(), "/channel/create", q); err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, map[string]string{"topic": a[0], "channel": a[1], "done": "set"})
			}
			fmt.Fprintf(s.err, "set channel %s of topic %s\n", a[1], a[0])
			return nil
		},
	}
	srv = serverFlags(cmd)
	jsonFlag(cmd, &asJSON)
	limit.flags(cmd)
	return cmd
}
