package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/broker"
)

// subOptions are the flags of `tidings sub`.
type subOptions struct {
	srv       *server
	topic     string
	channel   string
	follow    bool
	limit     int64
	window    int
	delimiter string
	json      bool
}

func newSub(s streams) *cobra.Command {
	var o subOptions
	cmd := &cobra.Command{
		Use:   "sub TOPIC",
		Short: "Consume messages",
		Long: `Consume a topic's messages and write each on a line of standard output. A
message is finished after it has been written; what could not be written goes
back to its channel.

With -C the messages come from that channel, and the command ends when all that
was there at its start is finished, here or by other consumers, unless --follow
keeps it waiting for more. Without -C it makes a channel of its own that is gone
with it, and follows what is published from now on.

With --json a line is an object with id, timestamp_ns, attempts, and body, or
body_base64 where the body is not UTF-8.`,
		Example: `  tidings sub orders -C audit --follow
  tidings sub orders -C audit --limit 10 --json
  tidings sub files -C sweep --delimiter '\0' | xargs -0 rm`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			o.topic = a[0]
			switch {
			case o.limit < 0:
				return usagef("--limit %d: want at least 0", o.limit)
			case o.window < 1:
				return usagef("--max-in-flight %d: want at least 1", o.window)
			}
			return o.run(cmd.Context(), s)
		},
	}
	o.srv = serverFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.channel, "channel", "C", "", "channel to consume from, made if missing")
	f.BoolVarP(&o.follow, "follow", "f", false, "wait for more when the backlog is done")
	f.Int64VarP(&o.limit, "limit", "n", 0, "end after this many messages (0: no limit)")
	f.IntVar(&o.window, "max-in-flight", 200, "messages on their way at a time")
	f.StringVar(&o.delimiter, "delimiter", `\n`, `what is written after each message; \n, \r, \t, \0 and \\ are known`)
	jsonFlag(cmd, &o.json)
	o.completions(cmd)
	return cmd
}

// completions offers topics, and the topic's channels for -C.
func (o *subOptions) completions(cmd *cobra.Command) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(cmd, o.srv, a, 1)
	}
	err := cmd.RegisterFlagCompletionFunc("channel", func(cmd *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(a) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, o.srv, a[:1], 2)
	})
	if err != nil {
		panic("cli: " + err.Error()) // the flag was defined above
	}
}

// Between two tries to reach a node that went away while --follow waits.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 2 * time.Second
)

func (o *subOptions) run(ctx context.Context, s streams) error {
	if err := o.prepare(ctx); err != nil {
		return err
	}
	// a reader that has gone away is an error of Write, so that there is time
	// to give back what it did not read
	signal.Ignore(syscall.SIGPIPE)
	p := &printer{out: s.out, json: o.json, after: []byte(unescape(o.delimiter))}
	wait := retryFirst
	for {
		connections := p.connections
		err := o.consume(ctx, s, p)
		switch {
		case errors.Is(err, syscall.EPIPE):
			return nil // whoever read has had enough
		case ctx.Err() != nil && !o.follow:
			return failf(exitFailure, "interrupted after %d %s", p.printed, plural(int(p.printed), "message"))
		case err == nil, ctx.Err() != nil:
			return nil
		case !o.follow || p.connections == 0 || exitCode(err) != exitUnreachable && exitCode(err) != exitTimeout:
			return err
		}
		if connections < p.connections {
			wait = retryFirst
			fmt.Fprintf(s.err, "tidings: %v; trying until it is back\n", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		wait = min(2*wait, retryMost)
	}
}

// prepare chooses the channel, and refuses what would surprise.
func (o *subOptions) prepare(ctx context.Context) error {
	// names become words of a command: nothing else may get there
	if !broker.ValidTopic(o.topic) {
		return usagef("topic %q: %s", o.topic, nameRule)
	}
	if o.channel != "" && !broker.ValidChannel(o.channel) {
		return usagef("channel %q: %s", o.channel, nameRule)
	}
	st, err := o.srv.stats(ctx, o.topic, "")
	if err != nil {
		return err
	}
	var t topicStat
	for _, x := range st.Topics {
		if x.Name == o.topic {
			t = x
		}
	}
	switch {
	case o.channel != "" && t.Name == "" && !o.follow:
		return failf(exitNotFound, "topic %s not found; `tidings topic ls` lists what is there, --follow waits for it", o.topic)
	case o.channel != "":
		return nil
	case len(t.Channels) == 0 && t.Depth > 0:
		return failf(exitConflict, "topic %s has no channel and %d waiting %s, which its first channel takes: name that channel with -C",
			o.topic, t.Depth, plural(int(t.Depth), "message"))
	}
	o.follow = true
	o.channel = fmt.Sprintf("sub-%s#ephemeral", strings.ToLower(rand.Text()[:8]))
	return nil
}

// backlog says how many messages there are to finish now.
func (o *subOptions) backlog(ctx context.Context) (int64, error) {
	c, err := o.srv.channel(ctx, o.topic, o.channel)
	if err != nil {
		return 0, err
	}
	n := c.Depth + c.InFlight
	if c.Paused && n > 0 {
		return 0, failf(exitConflict, "channel %s of topic %s is paused with %d waiting %s; `tidings channel resume %s %s` lets them flow, --follow waits",
			o.channel, o.topic, n, plural(int(n), "message"), o.topic, o.channel)
	}
	return n, nil
}

// consume lives as long as one connection: it returns nil when enough was
// printed or ctx ended.
func (o *subOptions) consume(ctx context.Context, s streams, out *printer) error {
	addr, err := o.srv.tcpAddr(ctx)
	if err != nil {
		return err
	}
	conn, err := dialPeer(ctx, addr, o.srv.timeout, o.srv.a)
	if err != nil {
		return err
	}
	defer conn.conn.Close()
	if err := conn.subscribe(o.topic, o.channel, o.srv.timeout); err != nil {
		return err
	}
	if out.connections == 0 && o.follow && isTerminal(s.err) {
		fmt.Fprintf(s.err, "following %s on channel %s; Ctrl-C ends\n", o.topic, o.channel)
	}
	out.connections++
	c := consumption{subOptions: o, conn: conn, out: out, goal: -1}
	if o.limit > 0 {
		c.goal = o.limit - out.printed
	}
	if !o.follow {
		n, err := o.backlog(ctx)
		if err != nil || n == 0 {
			return err
		}
		if c.goal < 0 || n < c.goal {
			c.goal = n
		}
	}
	return c.run(ctx)
}
