package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// pubOptions are the flags of `tidings pub`.
type pubOptions struct {
	srv       *server
	topic     string
	key, id   string
	delay     time.Duration
	count     int
	rate      float64 // messages per second; 0: as fast as they are acknowledged
	batch     int     // messages to a request; 0: as many as wait
	delimiter string
	lines     bool // the delimiter was not chosen: LF or CRLF
	json      bool
}

func newPub(s streams) *cobra.Command {
	var o pubOptions
	cmd := &cobra.Command{
		Use:   "pub TOPIC [BODY|-]",
		Short: "Publish messages",
		Long: `Publish one message, or one for each line of standard input when BODY is "-" or
missing. Messages are stored in the order they come in; those that wait while a
request is on its way go together with the next one. All are on the node's disk
when the command ends with success; after an error it says how many are.

A line ends with LF or CR LF; empty lines are skipped, since NSQ has no empty
messages. With --delimiter a message ends with exactly that.`,
		Example: `  tidings pub orders 'hello'
  tidings pub orders --delay 10m 'remind me'
  tail -f app.log | tidings pub logs
  tidings pub invoices --delimiter '' < invoice.pdf
  find . -print0 | tidings pub files --delimiter '\0'
  tidings pub load --count 100000 --rate 5000 'x'`,
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			o.topic = a[0]
			o.lines = !cmd.Flags().Changed("delimiter")
			stdin := len(a) == 1 || a[1] == "-"
			if err := o.check(stdin); err != nil {
				return err
			}
			if stdin {
				return o.stream(cmd.Context(), s)
			}
			return o.repeat(cmd.Context(), s, []byte(a[1]))
		},
	}
	o.srv = serverFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "key stored with each message; decides its partition")
	f.StringVar(&o.id, "id", "", "your name for the one message, stored with it")
	f.DurationVar(&o.delay, "delay", 0, "deliver only after this time")
	f.IntVar(&o.count, "count", 1, "publish each message this many times")
	f.Float64Var(&o.rate, "rate", 0, "at most this many messages a second (0: no limit)")
	f.IntVar(&o.batch, "batch", 0, "messages to a request, stored whole or not at all (0: as many as wait)")
	f.StringVar(&o.delimiter, "delimiter", `\n`, `what ends a message on standard input; \n, \r, \t, \0 and \\ are known; empty: all input is one message`)
	jsonFlag(cmd, &o.json)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(cmd, o.srv, a, 1)
	}
	return cmd
}

func (o *pubOptions) check(stdin bool) error {
	switch {
	case o.count < 1:
		return usagef("--count %d: want at least 1", o.count)
	case o.batch < 0:
		return usagef("--batch %d: want at least 0", o.batch)
	case !(o.rate >= 0): // NaN too
		return usagef("--rate %v: want at least 0", o.rate)
	case o.delay < 0:
		return usagef("--delay %s: want at least 0", o.delay)
	case o.batch > 1 && o.delay > 0:
		return usagef("--delay and --batch do not go together")
	case o.id != "" && (o.count > 1 || o.batch > 1 || stdin && (o.lines || o.delimiter != "")):
		return usagef("--id names one message: give it as BODY, or all of standard input with --delimiter ''")
	}
	return nil
}

// repeat publishes one body, --count times.
func (o *pubOptions) repeat(ctx context.Context, s streams, body []byte) error {
	if len(body) == 0 {
		return usagef("the message is empty, and NSQ has no empty messages")
	}
	return o.publish(ctx, s, o.count, func(q *intake) error {
		for range o.count {
			if !q.put(body) {
				break
			}
		}
		return nil
	})
}

// stream publishes what standard input holds.
func (o *pubOptions) stream(ctx context.Context, s streams) error {
	limit, err := o.srv.setting(ctx, "max_msg_size")
	if err != nil {
		return err
	}
	r := newSplitter(s.in, o.delimiter, limit)
	if o.lines {
		r = newLineSplitter(s.in, limit)
	}
	if isTerminal(s.in) && isTerminal(s.err) {
		fmt.Fprintf(s.err, "each line becomes a message of %s; Ctrl-D ends\n", o.topic)
	}
	return o.publish(ctx, s, 0, func(q *intake) error {
		for {
			body, err := r.next()
			if err != nil {
				return err
			}
			if len(body) == 0 {
				q.skip()
				continue
			}
			for range o.count {
				if !q.put(body) {
					return nil
				}
			}
		}
	})
}

// publish sends what fill puts into the intake, total messages or (0) as many
// as there are, and says what became of it.
// fill may sit in a read that nothing can end; then it is left behind.
func (o *pubOptions) publish(ctx context.Context, s streams, total int, fill func(*intake) error) error {
	q := newIntake()
	defer context.AfterFunc(ctx, q.stop)()
	go func() { q.finish(fill(q)) }()
	p := publisher{pubOptions: o, progress: newProgress(s.err, total)}
	err := p.run(ctx, q)
	p.progress.end()
	q.stop()
	if err == nil && ctx.Err() != nil {
		err = failf(exitFailure, "interrupted")
	}
	if err != nil {
		if p.sent > 0 {
			return failf(exitCode(err), "after %d acknowledged %s: %w", p.sent, plural(p.sent, "message"), err)
		}
		return err
	}
	if o.json {
		return printJSON(s.out, map[string]any{"topic": o.topic, "published": p.sent})
	}
	skipped := ""
	if n := q.skipped(); n > 0 {
		skipped = fmt.Sprintf(" (%d empty skipped)", n)
	}
	fmt.Fprintf(s.err, "published %d %s to %s%s\n", p.sent, plural(p.sent, "message"), o.topic, skipped)
	return nil
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// unescape reads the escapes of --delimiter.
func unescape(text string) string {
	return strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\t`, "\t", `\0`, "\x00", `\r`, "\r").Replace(text)
}
