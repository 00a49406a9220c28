package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/front/admin"
)

// Bounds of what one request asks for, and of a command.
const (
	pageMessages = 200
	pageScan     = 100_000
	peekMost     = 100_000
	scanMost     = 1_000_000_000
)

const apiRoot = "/api/v1/"

// peeking is what `topic peek` and `channel peek` have in common.
type peeking struct {
	srv    *server
	show   messageFormat
	path   string // below apiRoot
	query  url.Values
	limit  int
	cursor string
	whole  bool
}

func (p *peeking) flags(cmd *cobra.Command) {
	cmd.Flags().IntVarP(&p.limit, "limit", "n", 25, "most messages that are shown")
	cmd.Flags().StringVar(&p.cursor, "cursor", "", "go on where the command before ended, as it said")
	cmd.Flags().BoolVar(&p.whole, "whole", false, "show all of each body")
	p.show.flags(cmd)
	p.srv = adminFlags(cmd)
}

func (p *peeking) check(cmd *cobra.Command) error {
	if p.limit < 1 || p.limit > peekMost {
		return usagef("--limit %d: want a number from 1 to %d", p.limit, peekMost)
	}
	if p.whole && cmd.Flags().Changed("max-body") {
		return usagef("--whole and --max-body: give one")
	}
	return p.show.check(cmd)
}

// page asks for messages from the cursor on.
func (p *peeking) page(ctx context.Context, limit int) (page admin.MessagePage, err error) {
	q := maps.Clone(p.query)
	q.Set("limit", strconv.Itoa(min(limit, pageMessages)))
	q.Set("max_body", strconv.Itoa(p.show.maxBody))
	if p.cursor != "" {
		q.Set("cursor", p.cursor)
	}
	if err = p.srv.adminQuery(ctx, http.MethodGet, apiRoot+p.path, q, nil, &page); err != nil || !p.whole {
		return page, err
	}
	for i := range page.Items {
		m := &page.Items[i]
		if !m.Truncated {
			continue
		}
		topic, _, _ := strings.Cut(strings.TrimPrefix(p.path, "topics/"), "/")
		path := fmt.Sprintf("%stopics/%s/messages/%d/%d", apiRoot, topic, m.Partition, m.Offset)
		var all admin.Message
		err := p.srv.adminQuery(ctx, http.MethodGet, path, nil, nil, &all)
		switch {
		case exitCode(err) == exitNotFound: // it was deleted meanwhile
		case err != nil:
			return page, err
		default:
			m.Body, m.Truncated = all.Body, false
		}
	}
	return page, nil
}

// saysCut tells of bodies of which only a part was shown.
func (p *peeking) saysCut(s streams, w *messageWriter) {
	switch w.cut {
	case 0:
	case 1:
		fmt.Fprintf(s.err, "1 body is cut at %d bytes; --whole shows all of it\n", p.show.maxBody)
	default:
		fmt.Fprintf(s.err, "%d bodies are cut at %d bytes; --whole shows all of them\n", w.cut, p.show.maxBody)
	}
}

// quiet is nil for a reader that has gone away: it has had enough.
func quiet(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// unanswered is an error where a part of the answer is missing.
func unanswered(missing []admin.Missing) error {
	if len(missing) == 0 {
		return nil
	}
	var why []string
	for _, m := range missing {
		why = append(why, m.Node+": "+m.Reason)
	}
	return failf(exitUnreachable, "a part is missing: %s", strings.Join(why, "; "))
}

// onward is the command line that goes on: the same flags, another start.
func onward(cmd *cobra.Command, args []string, starts []string, next ...string) string {
	words := append(strings.Fields(cmd.CommandPath()), args...)
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch {
		case slices.Contains(starts, f.Name):
		case f.Value.Type() == "bool":
			words = append(words, "--"+f.Name)
		default:
			words = append(words, "--"+f.Name, f.Value.String())
		}
	})
	words = append(words, next...)
	for i, w := range words {
		words[i] = shellWord(w)
	}
	return strings.Join(words, " ")
}

// shellWord quotes a word for a shell where it needs that.
func shellWord(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/:=,"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// topicPeek are the flags of `tidings topic peek`.
type topicPeek struct {
	peeking
	topic     string
	partition int
	offset    int64
	time      string
	from      string
	search    string
	key       string
	scan      int
}

// starts are the flags that say where to begin.
var topicStarts = []string{"cursor", "from", "offset", "time"}

func newTopicPeek(s streams) *cobra.Command {
	var o topicPeek
	cmd := &cobra.Command{
		Use: "peek TOPIC", Short: "Look at a topic's messages without consuming them", Args: args(cobra.ExactArgs(1)),
		Long: `Look at what a topic's log holds, from an offset or a time on, or search it.
Nothing is consumed, and no channel notices. Without --partition all partitions
are read, merged by time. Messages that all channels have finished are deleted in
the course of time; what was deleted is told.

A line is PARTITION/OFFSET, the time of publishing, the key if there is one, and
the body with everything escaped that is no text. With --json a line is an object
with partition, offset, id, timestamp_ns, key, size_bytes and body; key_base64 or
body_base64 where it is not UTF-8, and truncated where there is more of the body.

The end says how to go on, on standard error. A search reads at most --scan
messages.`,
		Example: `  tidings topic peek orders
  tidings topic peek orders --from latest --limit 3 --format json
  tidings topic peek orders --time 2026-11-21T08:00:00Z --json
  tidings topic peek orders --time 15m --search '"customer":42'
  tidings topic peek orders --partition 2 --offset 1204 --format hex`,
		ValidArgsFunction: func(cmd *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeAdmin(cmd, o.srv, a, 1)
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			o.topic = a[0]
			if err := o.ask(cmd, time.Now()); err != nil {
				return err
			}
			signal.Ignore(syscall.SIGPIPE) // a reader that is gone is an error of Write
			return quiet(o.run(cmd, s))
		},
	}
	o.flags(cmd)
	f := cmd.Flags()
	f.IntVar(&o.partition, "partition", 0, "one partition; all without it")
	f.Int64Var(&o.offset, "offset", 0, "begin at this offset; wants --partition where the topic has several")
	f.StringVar(&o.time, "time", "", "begin with what was published then: RFC 3339, a date, or a time back such as 15m")
	f.StringVar(&o.from, "from", "earliest", "begin at the start (earliest), or show the last messages (latest)")
	f.StringVar(&o.search, "search", "", "only messages whose body or key has this text; hex: before hex digits for bytes")
	f.StringVar(&o.key, "key", "", "only messages with exactly this key")
	f.IntVar(&o.scan, "scan", 10_000, "most messages that a search reads")
	must(cmd.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]string{"earliest", "latest"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// ask checks the flags and makes the query of them.
func (o *topicPeek) ask(cmd *cobra.Command, now time.Time) error {
	given := func(name string) bool { return cmd.Flags().Changed(name) }
	if !broker.ValidTopic(o.topic) {
		return usagef("topic %q: %s", o.topic, nameRule)
	}
	if err := o.check(cmd); err != nil {
		return err
	}
	var start []string
	for _, name := range topicStarts {
		if given(name) {
			start = append(start, "--"+name)
		}
	}
	switch {
	case len(start) > 1:
		return usagef("%s: each says where to begin; give one", strings.Join(start, " and "))
	case o.from != "earliest" && o.from != "latest":
		return usagef("--from %q: want earliest or latest", o.from)
	case o.from == "latest" && o.limit > pageMessages:
		return usagef("--from latest --limit %d: at most the last %d can be shown; --time and --offset begin further back", o.limit, pageMessages)
	case o.partition < 0 || o.offset < 0:
		return usagef("--partition and --offset: want numbers that are not negative")
	case o.scan < 1 || o.scan > scanMost:
		return usagef("--scan %d: want a number from 1 to %d", o.scan, scanMost)
	}
	o.path, o.query = "topics/"+o.topic+"/messages", url.Values{}
	if given("partition") {
		o.query.Set("partition", strconv.Itoa(o.partition))
	}
	if given("offset") {
		o.query.Set("offset", strconv.FormatInt(o.offset, 10))
	}
	if given("time") {
		at, err := parseTime(o.time, now)
		if err != nil {
			return usagef("--time %q: %w", o.time, err)
		}
		o.query.Set("time", strconv.FormatInt(max(at.UnixMilli(), 0), 10))
	}
	if o.from == "latest" {
		o.query.Set("from", o.from)
	}
	if o.search != "" {
		o.query.Set("search", o.search)
	}
	if given("key") {
		o.query.Set("key", o.key)
	}
	return nil
}

var errTime = errors.New("want RFC 3339 such as 2026-11-21T08:00:00Z, a date, or a time back such as 15m or 24h")

// parseTime reads a moment; without a zone it is in the local one.
func parseTime(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(-d.Abs()), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, "2006-01-02 15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return at, nil
		}
	}
	return time.Time{}, errTime
}

// searching says that not every message is shown.
func (o *topicPeek) searching() bool { return o.query.Has("search") || o.query.Has("key") }

func (o *topicPeek) run(cmd *cobra.Command, s streams) error {
	w := &messageWriter{messageFormat: &o.show, out: s.out}
	bar := newProgress(s.err, 0)
	read, bytes := 0, int64(0)
	var last admin.MessagePage
	for w.printed < o.limit && (read < o.scan || !o.searching()) {
		o.query.Del("scan")
		if o.searching() {
			scan := o.scan - read
			if o.from != "latest" { // which begins again with each request
				scan = min(scan, pageScan)
			}
			o.query.Set("scan", strconv.Itoa(scan))
		}
		page, err := o.page(cmd.Context(), o.limit-w.printed)
		if err != nil {
			bar.end()
			return err
		}
		stuck := page.Next == o.cursor && page.Scanned.Records == 0
		read, bytes = read+page.Scanned.Records, bytes+page.Scanned.Bytes
		bar.at(read)
		if len(page.Items) > 0 {
			bar.end()
		}
		o.gaps(s, page.Gaps)
		if err := w.write(page.Items, page.At); err != nil {
			return err
		}
		last = page
		if page.Next == "" || len(page.Missing) > 0 || stuck {
			break
		}
		o.cursor = page.Next
	}
	bar.end()
	o.end(cmd, s, w, &last, read, bytes)
	return unanswered(last.Missing)
}

// gaps tells of offsets that are not there.
func (o *topicPeek) gaps(s streams, gaps []admin.Gap) {
	for _, g := range gaps {
		fmt.Fprintf(s.err, "partition %d: offsets %d to %d are %s\n", g.Partition, g.First, g.Last, g.Reason)
	}
}

// end says what was shown and how to go on.
func (o *topicPeek) end(cmd *cobra.Command, s streams, w *messageWriter, last *admin.MessagePage, read int, bytes int64) {
	if last.Note != "" {
		fmt.Fprintln(s.err, last.Note)
	}
	o.saysCut(s, w)
	shown := fmt.Sprintf("%d %s", w.printed, plural(w.printed, "message"))
	if o.searching() {
		shown = fmt.Sprintf("found %d in %d %s that were read, %s", w.printed, read, plural(read, "message"), size(bytes))
	}
	switch {
	case last.Next != "":
		next := []string{"--cursor", last.Next}
		if o.query.Has("partition") && !o.searching() && len(last.Items) > 0 {
			next = []string{"--offset", strconv.FormatInt(last.Items[len(last.Items)-1].Offset+1, 10)}
		}
		fmt.Fprintf(s.err, "%s; go on with\n  %s\n", shown, onward(cmd, []string{o.topic}, topicStarts, next...))
	case o.from == "latest" && !o.searching() && w.printed >= o.limit:
		fmt.Fprintf(s.err, "the last %s; `tidings topic tail %s` shows what comes\n", shown, o.topic)
	default:
		fmt.Fprintf(s.err, "%s; that is the end of topic %s\n", shown, o.topic)
	}
}

// peekStates are the states of a channel's messages as the API names them.
var peekStates = map[string]string{"queued": "queued", "in-flight": "in_flight", "in_flight": "in_flight", "deferred": "deferred"}

func newChannelPeek(s streams) *cobra.Command {
	var o peeking
	var state string
	cmd := &cobra.Command{
		Use: "peek TOPIC CHANNEL", Short: "Look at a channel's messages without taking them", Args: args(cobra.ExactArgs(2)),
		Long: `Look at messages of a channel without taking them: those that wait for a consumer
(queued), the next ones first; those that consumers hold (in-flight), by deadline;
or those that wait for their time (deferred), by due time. What was looked at may
have moved on meanwhile. At most the first 1,000 of each state and partition can
be seen.

A line is PARTITION/OFFSET, the time of publishing, attempts so far, who holds it,
for how long and until when, or when it is due, and the body with everything
escaped that is no text. With --json a line is an object as of ` + "`topic peek --json`" + `
with state, attempts, consumer, delivered_at, deadline_at and due_at (unix ms).`,
		Example: `  tidings channel peek orders billing
  tidings channel peek orders billing --state in-flight
  tidings channel peek orders billing --state deferred --json`,
		ValidArgsFunction: func(cmd *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeAdmin(cmd, o.srv, a, 2)
		},
		RunE: func(cmd *cobra.Command, a []string) error {
			switch {
			case !broker.ValidTopic(a[0]):
				return usagef("topic %q: %s", a[0], nameRule)
			case !broker.ValidChannel(a[1]):
				return usagef("channel %q: %s", a[1], nameRule)
			case peekStates[state] == "":
				return usagef("--state %q: want queued, in-flight or deferred", state)
			}
			if err := o.check(cmd); err != nil {
				return err
			}
			o.path, o.query = "topics/"+a[0]+"/channels/"+a[1]+"/messages", url.Values{"state": {peekStates[state]}}
			signal.Ignore(syscall.SIGPIPE)
			return quiet(o.ofChannel(cmd, s, a, strings.ReplaceAll(peekStates[state], "_", " ")))
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&state, "state", "queued", "which messages: queued, in-flight or deferred")
	must(cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]string{"queued", "in-flight", "deferred"}, cobra.ShellCompDirectiveNoFileComp)))
	return cmd
}

// ofChannel prints messages of a channel; state is theirs, for people.
func (p *peeking) ofChannel(cmd *cobra.Command, s streams, a []string, state string) error {
	w := &messageWriter{messageFormat: &p.show, out: s.out}
	var last admin.MessagePage
	for w.printed < p.limit {
		page, err := p.page(cmd.Context(), p.limit-w.printed)
		if err != nil {
			return err
		}
		if err := w.write(page.Items, page.At); err != nil {
			return err
		}
		last = page
		if page.Next == "" || len(page.Missing) > 0 {
			break
		}
		p.cursor = page.Next
	}
	if last.Note != "" {
		fmt.Fprintln(s.err, last.Note)
	}
	p.saysCut(s, w)
	shown := fmt.Sprintf("%d %s %s", w.printed, plural(w.printed, "message"), state)
	if last.Next != "" {
		fmt.Fprintf(s.err, "%s; go on with\n  %s\n", shown, onward(cmd, a, []string{"cursor"}, "--cursor", last.Next))
	} else {
		fmt.Fprintf(s.err, "%s; that is all\n", shown)
	}
	return unanswered(last.Missing)
}
