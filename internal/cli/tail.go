package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/front/admin"
)

// topicTail are the flags of `tidings topic tail`.
type topicTail struct {
	srv    *server
	show   messageFormat
	topic  string
	search string
	limit  int

	began   time.Time // when the stream was opened
	leftOut int64     // messages that were not shown and not told of yet
	told    time.Time // when that was told
}

func newTopicTail(s streams) *cobra.Command {
	var o topicTail
	cmd := &cobra.Command{
		Use: "tail TOPIC", Short: "Follow a topic's messages as they come, without consuming them", Args: args(cobra.ExactArgs(1)),
		Long: `Follow a topic as it grows, from its end on. Nothing is consumed, and no channel
notices. At most 200 messages and 1 MiB a second are shown; how many were left out
is told. Lines are those of ` + "`tidings topic peek`" + `. It goes on when the connection is
lost, and when the node comes back; Ctrl-C ends it.`,
		Example: `  tidings topic tail orders
  tidings topic tail orders --search '"customer":42' --json
  tidings topic tail orders --limit 1 --format json`,
		ValidArgsFunction: func(cmd *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeAdmin(cmd, o.srv, a, 1)
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			o.topic = a[0]
			switch {
			case !broker.ValidTopic(o.topic):
				return usagef("topic %q: %s", o.topic, nameRule)
			case o.limit < 0:
				return usagef("--limit %d: want at least 0", o.limit)
			}
			if err := o.show.check(cmd); err != nil {
				return err
			}
			signal.Ignore(syscall.SIGPIPE) // a reader that is gone is an error of Write
			return quiet(o.run(cmd.Context(), s))
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.search, "search", "", "only messages whose body or key has this text; hex: before hex digits for bytes")
	f.IntVarP(&o.limit, "limit", "n", 0, "end after this many messages (0: no limit)")
	o.show.flags(cmd)
	o.srv = adminFlags(cmd)
	return cmd
}

// run follows until ctx ends, enough was shown, or the topic is gone.
func (o *topicTail) run(ctx context.Context, s streams) error {
	w := &messageWriter{messageFormat: &o.show, out: s.out}
	wait, opened := retryFirst, 0
	for {
		before := opened
		done, err := o.follow(ctx, s, w, &opened)
		switch {
		case ctx.Err() != nil:
			o.tell(s, 0)
			return nil
		case done:
			o.tell(s, 0)
			return err
		case opened == 0 || exitCode(err) != exitUnreachable && exitCode(err) != exitTimeout:
			return err
		case opened > before:
			wait = retryFirst
			o.lost(s, err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		wait = min(2*wait, retryMost)
	}
}

// lost says how to see what comes while there is no stream; not where the node
// ended it as it said it would, for then the next one is there at once.
func (o *topicTail) lost(s streams, err error) {
	if time.Since(o.began) < tailHour {
		fmt.Fprintf(s.err, "tidings: %v; trying until it is back. `tidings topic peek %s --time %s` shows what comes meanwhile\n",
			err, shellWord(o.topic), time.Now().UTC().Format(time.RFC3339))
	}
}

// tailHour is about when a node ends a stream by itself.
const tailHour = 59 * time.Minute

// follow shows what one stream brings; done says that it is enough.
func (o *topicTail) follow(ctx context.Context, s streams, w *messageWriter, opened *int) (done bool, err error) {
	q := url.Values{"max_body": {strconv.Itoa(o.show.maxBody)}}
	if o.search != "" {
		q.Set("search", o.search)
	}
	stream, err := o.srv.events(ctx, apiRoot+"topics/"+o.topic+"/tail", q)
	if err != nil {
		return false, err
	}
	defer stream.close()
	o.began = time.Now()
	if *opened++; *opened == 1 {
		fmt.Fprintf(s.err, "following topic %s; Ctrl-C ends\n", o.topic)
	} else {
		fmt.Fprintf(s.err, "following topic %s again\n", o.topic)
	}
	defer o.watchReader(ctx, s, stream)()
	for {
		kind, data, err := stream.next()
		if err != nil {
			if readerGone(s.out) {
				return true, syscall.EPIPE
			}
			return false, err
		}
		switch kind {
		case "gone":
			return true, adminRefused(http.StatusNotFound, data)
		case "messages":
			var b admin.TailBatch
			if err := json.Unmarshal(data, &b); err != nil {
				return true, failf(exitFailure, "the stream of %s can't be read: %w", stream.host, err)
			}
			if err := o.batch(s, w, &b); err != nil {
				return true, err
			}
			if o.limit > 0 && w.printed >= o.limit {
				return true, nil
			}
		}
	}
}

// watchReader ends the stream when nobody reads the output any more, which a
// quiet topic would not tell.
func (o *topicTail) watchReader(ctx context.Context, s streams, stream *eventStream) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(drainPoll)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if readerGone(s.out) {
					stream.close()
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func (o *topicTail) batch(s streams, w *messageWriter, b *admin.TailBatch) error {
	items := b.Items
	if o.limit > 0 {
		items = items[:min(len(items), o.limit-w.printed)]
	}
	if err := w.write(items, b.At); err != nil {
		return err
	}
	o.leftOut += b.LeftOut
	o.tell(s, time.Second)
	for _, m := range b.Missing {
		fmt.Fprintf(s.err, "a part is missing: %s\n", m.Reason)
	}
	return nil
}

// tell says how many messages were left out, not more often than every so long.
func (o *topicTail) tell(s streams, every time.Duration) {
	if o.leftOut == 0 || time.Since(o.told) < every {
		return
	}
	fmt.Fprintf(s.err, "%d %s left out\n", o.leftOut, plural(int(o.leftOut), "message"))
	o.leftOut, o.told = 0, time.Now()
}

// completeAdmin offers the names of topics, then of the topic's channels, as the
// admin API has them.
func completeAdmin(cmd *cobra.Command, srv *server, a []string, words int) ([]string, cobra.ShellCompDirective) {
	path := ""
	switch {
	case len(a) == 0:
		path = "topics"
	case len(a) == 1 && words == 2:
		path = "topics/" + a[0] + "/channels"
	default:
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var page admin.Page[struct{ Name string }]
	if err := srv.adminQuery(cmd.Context(), http.MethodGet, apiRoot+path, url.Values{"limit": {"1000"}}, nil, &page); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names := make([]string, 0, len(page.Items))
	for _, x := range page.Items {
		names = append(names, x.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
