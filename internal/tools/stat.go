package tools

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nsqio/go-nsq"
)

func statTool() Tool {
	return Tool{
		Name: "nsq_stat", Short: "Print a channel's figures, over and over",
		Long: `Ask all nodes that have a topic for the figures of one of its channels, and
print the sums as a line every --interval. Rates are messages a second since the
line before. A node that does not answer is told of on standard error, and the
others count.`,
		Example: `  tidings nsq_stat -topic orders -channel audit -nsqd-http-address 127.0.0.1:4151
  tidings nsq_stat -topic orders -channel audit -interval 10s -count 6 -lookupd-http-address 127.0.0.1:4161`,
		make: func() command { return &stat{wait: sleep} },
	}
}

// stat is nsq_stat.
type stat struct {
	web
	topic, channel string
	nsqds, lookup  list
	interval       time.Duration
	count          count

	wait func(ctx context.Context, d time.Duration) error
}

// count is how many lines to print, if that was said.
type count struct {
	given bool
	n     int
}

func (c *count) String() string { return "" }

func (c *count) Set(text string) (err error) {
	c.n, err = strconv.Atoi(text)
	if err != nil {
		return errors.New("want a number")
	}
	c.given = true
	return nil
}

func (s *stat) define(fs *flag.FlagSet) {
	fs.StringVar(&s.topic, "topic", "", "NSQ topic")
	fs.StringVar(&s.channel, "channel", "", "NSQ channel")
	fs.Var(&s.nsqds, "nsqd-http-address", "HTTP address of an nsqd, without a scheme (may be given multiple times)")
	fs.Var(&s.lookup, "lookupd-http-address", "HTTP address of an nsqlookupd, without a scheme (may be given multiple times)")
	fs.DurationVar(&s.interval, "interval", 2*time.Second, "how long from one line to the next")
	fs.Var(&s.count, "count", "print so many lines (default: until it is stopped)")
	s.web.define(fs, 5*time.Second)
}

func (s *stat) check() error {
	if s.topic == "" || s.channel == "" {
		return usagef("--topic and --channel are needed")
	}
	if err := oneKind("--nsqd-http-address", s.nsqds, s.lookup); err != nil {
		return err
	}
	for _, addr := range slices.Concat(s.nsqds, s.lookup) {
		if strings.HasPrefix(addr, "http") && strings.Contains(addr, "://") {
			return usagef("%q: want HOST:PORT, without a scheme", addr)
		}
	}
	switch {
	case !nsq.IsValidTopicName(s.topic):
		return usagef("--topic %q: %s", s.topic, nameRule)
	case !nsq.IsValidChannelName(s.channel):
		return usagef("--channel %q: %s", s.channel, nameRule)
	case s.interval <= 0:
		return usagef("--interval %s: want more than 0", s.interval)
	case s.count.given && s.count.n <= 0:
		return usagef("--count %d: want at least 1", s.count.n)
	}
	return s.web.check()
}

// figures are a channel's, of one node or of all; the names are NSQ's.
type figures struct {
	Depth    int64 `json:"depth"`
	Backend  int64 `json:"backend_depth"`
	InFlight int64 `json:"in_flight_count"`
	Deferred int64 `json:"deferred_count"`
	Requeued int64 `json:"requeue_count"`
	TimedOut int64 `json:"timeout_count"`
	Messages int64 `json:"message_count"`
	Clients  int64 `json:"client_count"`
}

func (f *figures) add(o figures) {
	f.Depth += o.Depth
	f.Backend += o.Backend
	f.InFlight += o.InFlight
	f.Deferred += o.Deferred
	f.Requeued += o.Requeued
	f.TimedOut += o.TimedOut
	f.Messages += o.Messages
	f.Clients += o.Clients
}

// headEvery is after how many lines the head is printed again.
const headEvery = 25

func (s *stat) run(ctx context.Context, env Env) error {
	client := s.client(1)
	var last figures
	for i := 0; !s.count.given || i <= s.count.n; i++ {
		if i > 0 {
			if s.wait(ctx, s.interval) != nil {
				return nil
			}
		}
		now, err := s.ask(ctx, env, client)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case i%headEvery == 0:
			if err := printHead(env.Out); err != nil {
				return err
			}
		}
		if i > 0 {
			if err := s.print(env.Out, last, now); err != nil {
				return err
			}
		}
		last = now
	}
	return nil
}

// ask sums the channel's figures over all nodes that have the topic.
func (s *stat) ask(ctx context.Context, env Env, client *http.Client) (sum figures, err error) {
	nodes, failed := []string(s.nsqds), []error(nil)
	if len(s.lookup) > 0 {
		if nodes, failed, err = lookupProducers(ctx, client, s.lookup, s.topic); err != nil {
			return figures{}, err
		}
	}
	type reply struct {
		Topics []struct {
			Name     string `json:"topic_name"`
			Channels []struct {
				Name string `json:"channel_name"`
				figures
			} `json:"channels"`
		} `json:"topics"`
	}
	q := url.Values{"format": {"json"}, "topic": {s.topic}, "channel": {s.channel}, "include_clients": {"false"}}
	answers, silent := askAll[reply](ctx, client, nodes, "/stats?"+q.Encode())
	if len(answers) == 0 {
		return figures{}, fmt.Errorf("no node has answered: %w", errors.Join(silent...))
	}
	if ctx.Err() == nil {
		for _, err := range append(failed, silent...) {
			fmt.Fprintf(env.Err, "nsq_stat: %v\n", err)
		}
	}
	found := false
	for _, a := range answers {
		for _, t := range a.Topics {
			for _, c := range t.Channels {
				if t.Name == s.topic && c.Name == s.channel {
					found = true
					sum.add(c.figures)
				}
			}
		}
	}
	if !found {
		return figures{}, errorf(ErrNotFound, "no node has channel %s of topic %s", s.channel, s.topic)
	}
	return sum, nil
}

func printHead(out io.Writer) error {
	_, err := fmt.Fprintf(out, "------rate------+----------------depth----------------+--------------metadata---------------\n"+
		"%7s %7s | %7s %7s %7s %5s %5s | %7s %7s %12s %7s\n",
		"ingress", "egress", "total", "mem", "disk", "inflt", "def", "req", "t-o", "msgs", "clients")
	return err
}

func (s *stat) print(out io.Writer, last, now figures) error {
	in := now.Messages - last.Messages
	rate := func(n int64) int64 { return int64(float64(n) / s.interval.Seconds()) }
	_, err := fmt.Fprintf(out, "%7d %7d | %7d %7d %7d %5d %5d | %7d %7d %12d %7d\n",
		rate(in), rate(in-(now.Depth-last.Depth)), now.Depth, now.Depth-now.Backend, now.Backend, now.InFlight, now.Deferred,
		now.Requeued, now.TimedOut, now.Messages, now.Clients)
	return err
}

// sleep waits so long, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
