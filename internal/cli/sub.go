package cli

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/nsqio/go-nsq"
	"github.com/spf13/cobra"
)

// subOptions are the flags of `tidings sub`.
type subOptions struct {
	srv     *server
	topic   string
	channel string
	follow  bool
	limit   int
	window  int
	json    bool
}

func newSub(s streams) *cobra.Command {
	var o subOptions
	cmd := &cobra.Command{
		Use:   "sub TOPIC",
		Short: "Consume messages",
		Long: `Consume a topic's messages and write each on a line of standard output. A
message is finished after it has been written.

With -C the messages come from that channel, and the command ends when all that
was there at its start is finished, unless --follow keeps it waiting for more.
Without -C it makes a channel of its own that is gone with it, and follows what
is published from now on.`,
		Example: `  tidings sub orders -C audit --follow
  tidings sub orders -C audit --limit 10 --json`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			o.topic = a[0]
			if o.limit < 0 || o.window < 1 {
				return usagef("--limit: at least 0; --max-in-flight: at least 1")
			}
			return o.run(cmd.Context(), s)
		},
	}
	o.srv = serverFlags(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.channel, "channel", "C", "", "channel to consume from, made if missing")
	f.BoolVarP(&o.follow, "follow", "f", false, "wait for more when the backlog is done")
	f.IntVarP(&o.limit, "limit", "n", 0, "end after this many messages (0: no limit)")
	f.IntVar(&o.window, "max-in-flight", 200, "messages on their way at a time")
	jsonFlag(cmd, &o.json)
	return cmd
}

func (o *subOptions) run(ctx context.Context, s streams) error {
	backlog, err := o.prepare(ctx)
	if err != nil {
		return err
	}
	if o.channel != "" && !o.follow && backlog == 0 {
		return nil
	}
	addr, err := o.srv.tcpAddr(ctx)
	if err != nil {
		return err
	}
	p := &printer{out: bufio.NewWriter(s.out), json: o.json, limit: o.limit, done: make(chan struct{})}
	if !o.follow && (p.limit == 0 || backlog < int64(p.limit)) {
		p.backlog = backlog
	}
	consumer, err := o.consumer()
	if err != nil {
		return err
	}
	consumer.AddHandler(p)
	if err := consumer.ConnectToNSQD(addr); err != nil {
		return failf(exitUnreachable, "can't subscribe at %s: %w", addr, err)
	}
	o.wait(ctx, p)
	consumer.Stop()
	<-consumer.StopChan
	return p.err()
}

// prepare chooses the channel and says how many messages wait for it now.
func (o *subOptions) prepare(ctx context.Context) (backlog int64, err error) {
	st, err := o.srv.stats(ctx, o.topic, "")
	if err != nil {
		return 0, err
	}
	var t topicStat
	for _, x := range st.Topics {
		if x.Name == o.topic {
			t = x
		}
	}
	if o.channel == "" {
		if len(t.Channels) == 0 && t.Depth > 0 {
			return 0, failf(exitConflict, "topic %s has no channel and %d waiting messages, which its first channel takes: name that channel with -C", o.topic, t.Depth)
		}
		o.follow = true
		o.channel = fmt.Sprintf("sub-%s#ephemeral", rand.Text()[:8])
		return 0, nil
	}
	for _, c := range t.Channels {
		if c.Name == o.channel {
			return c.Depth + c.InFlight, nil
		}
	}
	if o.follow {
		return 0, nil
	}
	// the channel is made by the first subscription and takes what waits
	return t.Depth, nil
}

func (o *subOptions) consumer() (*nsq.Consumer, error) {
	cfg := nsq.NewConfig()
	cfg.MaxInFlight = o.window
	if o.limit > 0 {
		cfg.MaxInFlight = min(o.window, o.limit)
	}
	cfg.MaxAttempts = 0 // a message is shown however often it was tried
	cfg.UserAgent = "tidings-sub"
	c, err := nsq.NewConsumer(o.topic, o.channel, cfg)
	if err != nil {
		return nil, usagef("%w", err)
	}
	c.SetLogger(log.New(io.Discard, "", 0), nsq.LogLevelError)
	return c, nil
}

// wait returns when enough is printed, the backlog has gone elsewhere, or the
// user has had enough.
func (o *subOptions) wait(ctx context.Context, p *printer) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.done:
			return
		case <-tick.C:
			if o.follow {
				continue
			}
			// other consumers of the channel may have had a share of it
			if c, err := o.srv.channel(ctx, o.topic, o.channel); err == nil && c.Depth+c.InFlight == 0 {
				return
			}
		}
	}
}

// printer writes messages; go-nsq finishes each after HandleMessage returned.
type printer struct {
	mu      sync.Mutex
	out     *bufio.Writer
	json    bool
	limit   int   // 0: none
	backlog int64 // 0: no end; else done after this many
	printed int64
	failed  error
	ended   bool
	done    chan struct{}
}

// HandleMessage writes one message, or requeues it when the output is gone or
// enough was written.
func (p *printer) HandleMessage(m *nsq.Message) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		m.RequeueWithoutBackoff(0)
		return nil
	}
	if err := p.write(m); err != nil {
		p.failed = failf(exitFailure, "write message: %w", err)
		p.end()
		m.RequeueWithoutBackoff(0)
		return nil
	}
	p.printed++
	if (p.limit > 0 && p.printed >= int64(p.limit)) || (p.backlog > 0 && p.printed >= p.backlog) {
		p.end()
	}
	return nil
}

func (p *printer) end() {
	p.ended = true
	close(p.done)
}

func (p *printer) write(m *nsq.Message) error {
	if p.json {
		line := map[string]any{"id": string(m.ID[:]), "timestamp_ns": m.Timestamp, "attempts": m.Attempts}
		if utf8.Valid(m.Body) {
			line["body"] = string(m.Body)
		} else {
			line["body_base64"] = base64.StdEncoding.EncodeToString(m.Body)
		}
		if err := json.NewEncoder(p.out).Encode(line); err != nil {
			return err
		}
		return p.out.Flush()
	}
	if _, err := p.out.Write(m.Body); err != nil {
		return err
	}
	if err := p.out.WriteByte('\n'); err != nil {
		return err
	}
	return p.out.Flush()
}

func (p *printer) err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}
