package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
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
	batch     int
	delimiter string
	json      bool
}

func newPub(s streams) *cobra.Command {
	var o pubOptions
	cmd := &cobra.Command{
		Use:   "pub TOPIC [BODY|-]",
		Short: "Publish messages",
		Long: `Publish one message, or one for each line of standard input when BODY is "-" or
missing. A message is on the node's disk when the command says so.`,
		Example: `  tidings pub orders 'hello'
  tidings pub orders --delay 10m 'remind me'
  tail -f app.log | tidings pub logs -
  tidings pub invoices --delimiter '' - < invoice.json`,
		Args: args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, a []string) error {
			o.topic = a[0]
			if err := o.check(); err != nil {
				return err
			}
			if len(a) == 2 && a[1] != "-" {
				return o.repeat(cmd.Context(), s, []byte(a[1]))
			}
			return o.stream(cmd.Context(), s)
		},
	}
	o.srv = serverFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "key stored with the message; decides its partition")
	f.StringVar(&o.id, "id", "", "the publisher's name for the message, stored with it")
	f.DurationVar(&o.delay, "delay", 0, "deliver only after this time")
	f.IntVar(&o.count, "count", 1, "publish BODY this many times")
	f.Float64Var(&o.rate, "rate", 0, "at most this many messages a second (0: no limit)")
	f.IntVar(&o.batch, "batch", 1, "messages to a request; a batch is stored whole or not at all")
	f.StringVar(&o.delimiter, "delimiter", `\n`, "what ends a message on standard input; empty: all input is one message")
	jsonFlag(cmd, &o.json)
	return cmd
}

func (o *pubOptions) check() error {
	switch {
	case o.count < 1:
		return usagef("--count: at least 1")
	case o.batch < 1:
		return usagef("--batch: at least 1")
	case o.rate < 0:
		return usagef("--rate: at least 0")
	case o.delay < 0:
		return usagef("--delay: at least 0")
	case o.batch > 1 && o.delay > 0:
		return usagef("--delay and --batch do not go together")
	}
	return nil
}

// repeat publishes one body, --count times.
func (o *pubOptions) repeat(ctx context.Context, s streams, body []byte) error {
	p := publisher{pubOptions: o, start: time.Now()}
	for range o.count {
		if err := p.add(ctx, body); err != nil {
			return p.fail(err)
		}
	}
	return p.finish(ctx, s)
}

// stream publishes what standard input holds.
func (o *pubOptions) stream(ctx context.Context, s streams) error {
	p := publisher{pubOptions: o, start: time.Now()}
	delimiter := strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\0`, "\x00", `\r`, "\r").Replace(o.delimiter)
	r := bufio.NewReaderSize(s.in, 64<<10)
	for {
		body, err := readMessage(r, delimiter)
		if err != nil && err != io.EOF {
			return p.fail(fmt.Errorf("read standard input: %w", err))
		}
		if len(body) > 0 {
			for range o.count {
				if err := p.add(ctx, body); err != nil {
					return p.fail(err)
				}
			}
		}
		if err == io.EOF {
			return p.finish(ctx, s)
		}
	}
}

// maxInput bounds one message of standard input.
const maxInput = 1 << 30

func readMessage(r *bufio.Reader, delimiter string) ([]byte, error) {
	if delimiter == "" {
		body, err := io.ReadAll(io.LimitReader(r, maxInput))
		if err == nil {
			err = io.EOF
		}
		return body, err
	}
	last := delimiter[len(delimiter)-1]
	var body []byte
	for {
		part, err := r.ReadSlice(last)
		body = append(body, part...)
		if len(body) > maxInput {
			return nil, errors.New("message longer than 1 GiB")
		}
		if bytes.HasSuffix(body, []byte(delimiter)) {
			return body[:len(body)-len(delimiter)], nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return body, err
		}
	}
}

// publisher gathers a batch and sends it.
type publisher struct {
	*pubOptions
	start   time.Time
	sent    int // messages acknowledged
	waiting [][]byte
}

func (p *publisher) add(ctx context.Context, body []byte) error {
	p.waiting = append(p.waiting, body)
	if len(p.waiting) < p.batch {
		return nil
	}
	return p.send(ctx)
}

func (p *publisher) send(ctx context.Context) error {
	if len(p.waiting) == 0 {
		return nil
	}
	if err := p.pace(ctx); err != nil {
		return err
	}
	q := url.Values{"topic": {p.topic}}
	if p.key != "" {
		q.Set("key", p.key)
	}
	if p.id != "" {
		q.Set("id", p.id)
	}
	path, body := "/pub", p.waiting[0]
	if p.batch > 1 {
		q.Set("binary", "true")
		path, body = "/mpub", binaryBatch(p.waiting)
	} else if p.delay > 0 {
		q.Set("defer", strconv.FormatInt(p.delay.Milliseconds(), 10))
	}
	if _, err := p.srv.call(ctx, http.MethodPost, path, q, nil, body); err != nil {
		return err
	}
	p.sent += len(p.waiting)
	p.waiting = p.waiting[:0]
	return nil
}

// pace waits until the rate allows the next message.
func (p *publisher) pace(ctx context.Context) error {
	if p.rate == 0 {
		return nil
	}
	due := p.start.Add(time.Duration(float64(p.sent) / p.rate * float64(time.Second)))
	select {
	case <-time.After(time.Until(due)):
		return nil
	case <-ctx.Done():
		return failf(exitFailure, "interrupted")
	}
}

// fail adds what was acknowledged before the error.
func (p *publisher) fail(err error) error {
	if p.sent == 0 {
		return err
	}
	return failf(exitCode(err), "after %d acknowledged messages: %w", p.sent, err)
}

func (p *publisher) finish(ctx context.Context, s streams) error {
	if err := p.send(ctx); err != nil {
		return p.fail(err)
	}
	if p.json {
		return printJSON(s.out, map[string]any{"topic": p.topic, "published": p.sent})
	}
	noun := "messages"
	if p.sent == 1 {
		noun = "message"
	}
	fmt.Fprintf(s.err, "published %d %s to %s\n", p.sent, noun, p.topic)
	return nil
}

// binaryBatch is the body of MPUB: count, then size and body of each.
func binaryBatch(bodies [][]byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(bodies)))
	for _, b := range bodies {
		out = binary.BigEndian.AppendUint32(out, uint32(len(b)))
		out = append(out, b...)
	}
	return out
}
