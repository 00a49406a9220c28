package cli

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"
)

// verb is an action on a topic or a channel that answers nothing but success.
type verb struct {
	use, short string
	path       string // below /topic/ or /channel/
	said       string // past tense, for the user
	ask        string // question before it is done; empty: not dangerous
}

var verbs = []verb{
	{use: "create", short: "Make %s; one that is there already is left as it is", path: "create", said: "created"},
	{use: "rm", short: "Delete %s with all its messages", path: "delete", said: "deleted", ask: "delete %s with all its messages"},
	{use: "empty", short: "Drop the waiting messages of %s", path: "empty", said: "emptied", ask: "drop all waiting messages of %s"},
	{use: "pause", short: "Stop the flow of messages out of %s", path: "pause", said: "paused"},
	{use: "resume", short: "Let messages flow out of %s again", path: "unpause", said: "resumed"},
}

func newTopic(s streams) *cobra.Command {
	children := []*cobra.Command{newTopicList(s), newTopicInfo(s), newTopicSet(s), newTopicPeek(s), newTopicTail(s)}
	for _, v := range verbs {
		children = append(children, newVerb(s, v, "topic", "TOPIC"))
	}
	return parent("topic", "List, make and look after topics", children...)
}

func newChannel(s streams) *cobra.Command {
	children := []*cobra.Command{newChannelList(s), newChannelInfo(s), newChannelSet(s), newChannelPeek(s)}
	for _, v := range verbs {
		children = append(children, newVerb(s, v, "channel", "TOPIC CHANNEL"))
	}
	return parent("channel", "List, make and look after channels", children...)
}

func newVerb(s streams, v verb, noun, params string) *cobra.Command {
	var yes, asJSON bool
	var ack string
	var partitions int
	var limit attemptLimit
	var srv *server
	article := "a " + noun
	words := 1
	if noun == "channel" {
		words = 2
	}
	cmd := &cobra.Command{
		Use: v.use + " " + params, Short: fmt.Sprintf(v.short, article), Args: args(cobra.ExactArgs(words)),
		ValidArgsFunction: func(cmd *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
			return complete(cmd, srv, a, words)
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			q := url.Values{"topic": {a[0]}}
			name := "topic " + a[0]
			if words == 2 {
				q.Set("channel", a[1])
				name = "channel " + a[1] + " of topic " + a[0]
			}
			if ack != "" {
				q.Set("ack", ack)
			}
			if cmd.Flags().Changed(flagPartitions) {
				q.Set("partitions", strconv.Itoa(partitions))
			}
			if err := limit.set(cmd, q); err != nil {
				return err
			}
			if v.ask != "" {
				if err := confirm(cmd.Context(), s, yes, fmt.Sprintf(v.ask, name)); err != nil {
					return err
				}
			}
			if err := srv.post(cmd.Context(), "/"+noun+"/"+v.path, q); err != nil {
				return err
			}
			if asJSON {
				out := map[string]string{"topic": a[0], "done": v.said}
				if words == 2 {
					out["channel"] = a[1]
				}
				return printJSON(s.out, out)
			}
			fmt.Fprintf(s.err, "%s %s\n", v.said, name)
			return nil
		},
	}
	srv = serverFlags(cmd)
	jsonFlag(cmd, &asJSON)
	if v.path == "create" && words == 1 {
		cmd.Flags().StringVar(&ack, "ack", "", "when its publishes are acknowledged in a cluster: quorum, leader, local, or default, which is what the node says; also of a topic that is there")
		cmd.Flags().IntVar(&partitions, flagPartitions, 0, "how many partitions it is to have, 1 to 4096; a topic that is there must have as many (default: as the node says)")
	}
	if v.path == "create" && words == 2 {
		limit.flags(cmd)
	}
	if v.ask != "" {
		yesFlag(cmd, &yes)
	}
	return cmd
}

func newTopicList(s streams) *cobra.Command {
	var asJSON bool
	var srv *server
	cmd := &cobra.Command{
		Use: "ls", Short: "List the topics", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := srv.stats(cmd.Context(), "", "")
			if err != nil {
				return err
			}
			if asJSON {
				if st.Topics == nil {
					st.Topics = []topicStat{}
				}
				return printJSON(s.out, st.Topics)
			}
			rows := make([][]string, 0, len(st.Topics))
			for _, t := range st.Topics {
				rows = append(rows, []string{t.Name, num(t.Depth), num(t.Messages), strconv.Itoa(len(t.Channels)), paused(t.Paused)})
			}
			return table(s.out, "TOPIC DEPTH MESSAGES CHANNELS STATE", rows)
		},
	}
	srv = serverFlags(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newTopicInfo(s streams) *cobra.Command {
	var asJSON bool
	var srv *server
	cmd := &cobra.Command{
		Use: "info TOPIC", Short: "Show a topic and its channels", Args: args(cobra.ExactArgs(1)),
		ValidArgsFunction: func(cmd *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
			return complete(cmd, srv, a, 1)
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			t, err := srv.topic(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			p, err := srv.partitions(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, struct {
					topicStat
					Active     int              `json:"active_partitions,omitempty"`
					Partitions []partitionPlace `json:"partitions,omitempty"`
				}{t, p.Active, p.Partitions})
			}
			fmt.Fprintf(s.out, "topic     %s\ndepth     %d\nmessages  %d since start\nbytes     %d since start\nstate     %s\n",
				t.Name, t.Depth, t.Messages, t.Bytes, paused(t.Paused))
			if len(p.Partitions) > 1 {
				fmt.Fprintf(s.out, "parts     %s\n", p.count())
			}
			fmt.Fprintln(s.out)
			if err := p.show(s); err != nil {
				return err
			}
			return channelTable(s, t.Channels)
		},
	}
	srv = serverFlags(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newChannelList(s streams) *cobra.Command {
	var asJSON bool
	var srv *server
	cmd := &cobra.Command{
		Use: "ls TOPIC", Short: "List a topic's channels", Args: args(cobra.ExactArgs(1)),
		ValidArgsFunction: func(cmd *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
			return complete(cmd, srv, a, 1)
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			t, err := srv.topic(cmd.Context(), a[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, t.Channels)
			}
			return channelTable(s, t.Channels)
		},
	}
	srv = serverFlags(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func newChannelInfo(s streams) *cobra.Command {
	var asJSON bool
	var srv *server
	cmd := &cobra.Command{
		Use: "info TOPIC CHANNEL", Short: "Show a channel", Args: args(cobra.ExactArgs(2)),
		ValidArgsFunction: func(cmd *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
			return complete(cmd, srv, a, 2)
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			c, err := srv.channel(cmd.Context(), a[0], a[1])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, c)
			}
			_, err = fmt.Fprintf(s.out, "topic      %s\nchannel    %s\ndepth      %d\nin flight  %d\ndeferred   %d\nmessages   %d since start\nrequeued   %d since start\ntimed out  %d since start\nconsumers  %d\nstate      %s\n",
				a[0], c.Name, c.Depth, c.InFlight, c.Deferred, c.Messages, c.Requeued, c.TimedOut, c.Clients, paused(c.Paused))
			if err == nil && c.MaxAttempts > 0 {
				_, err = fmt.Fprintf(s.out, "attempts   at most %d, then to topic %s: %d since start\n", c.MaxAttempts, c.DeadLetter, c.DeadLettered)
			}
			return err
		},
	}
	srv = serverFlags(cmd)
	jsonFlag(cmd, &asJSON)
	return cmd
}

func channelTable(s streams, channels []channelStat) error {
	rows := make([][]string, 0, len(channels))
	for _, c := range channels {
		rows = append(rows, []string{
			c.Name, num(c.Depth), num(c.InFlight), num(c.Deferred), num(c.Requeued), num(c.TimedOut),
			strconv.Itoa(c.Clients), paused(c.Paused),
		})
	}
	return table(s.out, "CHANNEL DEPTH IN-FLIGHT DEFERRED REQUEUED TIMED-OUT CONSUMERS STATE", rows)
}

func num(n int64) string { return strconv.FormatInt(n, 10) }

func paused(p bool) string {
	if p {
		return "paused"
	}
	return "flowing"
}
