package tools

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"slices"
	"time"

	"github.com/nsqio/go-nsq"
)

func publishTool() Tool {
	return Tool{
		Name: "to_nsq", Short: "Publish standard input",
		Long: `Publish what stands between delimiters on standard input as messages, in order,
to every node named. Empty pieces are left out. It ends when the input does and
all is acknowledged; the first message that is refused ends it with an error.

Beyond NSQ's own: a last piece without a delimiter is published whole (NSQ's
cuts its last character; here only a newline is cut), and it does not wait for
each answer before the next message.`,
		Example: `  to_nsq -topic orders -nsqd-tcp-address 127.0.0.1:4150 < orders.txt
  printf 'one,two,three' | tidings to_nsq -delimiter , -topic orders -nsqd-tcp-address 127.0.0.1:4150`,
		make: func() command {
			return &publish{config: nsq.NewConfig(), now: time.Now, wait: sleep}
		},
	}
}

// publish is to_nsq.
type publish struct {
	topic     string
	delimiter string
	rate      int64
	nsqds     list
	config    *nsq.Config

	now  func() time.Time
	wait func(ctx context.Context, d time.Duration) error
}

func (p *publish) define(fs *flag.FlagSet) {
	fs.StringVar(&p.topic, "topic", "", "NSQ topic to publish to")
	fs.StringVar(&p.delimiter, "delimiter", "\n", "the byte between two messages")
	fs.Int64Var(&p.rate, "rate", 0, "publish at most so many messages a second (0: no bound)")
	fs.Var(&p.nsqds, "nsqd-tcp-address", "TCP address of an nsqd to publish to (may be given multiple times)")
	fs.Var(&clientOpt{p.config}, "producer-opt", "NAME,VALUE of an option of go-nsq's producer (may be given multiple times, see https://pkg.go.dev/github.com/nsqio/go-nsq#Config)")
}

func (p *publish) check() error {
	switch {
	case p.topic == "":
		return usagef("--topic is needed")
	case !nsq.IsValidTopicName(p.topic):
		return usagef("--topic %q: %s", p.topic, nameRule)
	case len(p.delimiter) != 1:
		return usagef("--delimiter %q: want a single byte", p.delimiter)
	case len(p.nsqds) == 0:
		return usagef("--nsqd-tcp-address is needed")
	case p.rate < 0:
		return usagef("--rate %d: want at least 0", p.rate)
	}
	p.config.UserAgent = userAgent("to_nsq")
	if err := p.config.Validate(); err != nil {
		return usagef("--producer-opt: %w", err)
	}
	return nil
}

// publishWindow is how many messages wait for their answer at a time, for each
// destination.
const publishWindow = 256

func (p *publish) run(ctx context.Context, env Env) error {
	logger := log.New(env.Err, "", log.LstdFlags)
	addrs := slices.Compact(slices.Sorted(slices.Values(p.nsqds)))
	var lanes []*lane
	for _, addr := range addrs {
		producer, err := nsq.NewProducer(addr, p.config)
		if err != nil {
			return usagef("publish to %s: %w", addr, err)
		}
		producer.SetLogger(logger, nsq.LogLevelInfo)
		defer producer.Stop()
		if err := producer.Ping(); err != nil {
			return errorf(ErrUnreachable, "connect to nsqd at %s: %w", addr, err)
		}
		lanes = append(lanes, &lane{producer: producer, addr: addr, answers: make(chan *nsq.ProducerTransaction, publishWindow)})
	}
	if p.rate > 0 {
		logger.Printf("at most %d messages a second", p.rate)
	}
	return p.pump(ctx, env.In, lanes)
}

// pump publishes the input to every lane, and waits for the answers.
func (p *publish) pump(ctx context.Context, in io.Reader, lanes []*lane) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	pieces, failed := make(chan []byte), make(chan error, 1)
	go func() { // nothing ends a read of a terminal but the process's end
		defer close(pieces)
		failed <- split(in, p.delimiter[0], func(piece []byte) bool {
			select {
			case pieces <- piece:
				return true
			case <-reading.Done():
				return false
			}
		})
	}()
	if err := p.publishAll(ctx, pieces, lanes); err != nil {
		return err
	}
	for _, l := range lanes {
		if err := l.settle(0); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return <-failed
}

// publishAll publishes all pieces, in step, until there are no more or ctx
// ends.
func (p *publish) publishAll(ctx context.Context, pieces <-chan []byte, lanes []*lane) error {
	pace := pacer{now: p.now}
	if p.rate > 0 {
		pace.interval = time.Second / time.Duration(p.rate)
	}
	for {
		var piece []byte
		select {
		case <-ctx.Done():
			return nil
		case next, ok := <-pieces:
			if !ok || p.wait(ctx, pace.next()) != nil {
				return nil
			}
			piece = next
		}
		for _, l := range lanes {
			if err := l.send(p.topic, piece); err != nil {
				return err
			}
		}
	}
}

// split yields what stands between delimiters, without what is empty, until
// yield says no.
func split(in io.Reader, delimiter byte, yield func([]byte) bool) error {
	r := bufio.NewReaderSize(in, 64<<10)
	for {
		piece, err := r.ReadBytes(delimiter)
		if n := len(piece); n > 0 && piece[n-1] == delimiter {
			piece = piece[:n-1]
		} else if err != nil {
			piece = bytes.TrimSuffix(piece, []byte("\n")) // of echo's
		}
		if len(piece) > 0 && !yield(piece) {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
	}
}

// pacer spreads messages evenly, and lets those come at once that were not sent
// in the second before.
type pacer struct {
	interval time.Duration // 0: no bound
	now      func() time.Time
	due      time.Time // of the next message
}

// next says how long to wait before the next message.
func (p *pacer) next() time.Duration {
	if p.interval == 0 {
		return 0
	}
	now := p.now()
	if p.due.IsZero() {
		p.due = now
	}
	if behind := now.Add(-time.Second); p.due.Before(behind) {
		p.due = behind
	}
	wait := p.due.Sub(now)
	p.due = p.due.Add(p.interval)
	return max(0, wait)
}

// lane is one destination.
type lane struct {
	producer *nsq.Producer
	addr     string
	answers  chan *nsq.ProducerTransaction
	waiting  int // messages without an answer, at most publishWindow
}

// send publishes a message, when there is room for it.
func (l *lane) send(topic string, body []byte) error {
	if err := l.settle(publishWindow - 1); err != nil {
		return err
	}
	if err := l.producer.PublishAsync(topic, body, l.answers); err != nil {
		return fmt.Errorf("publish to %s: %w", l.addr, err)
	}
	l.waiting++
	return nil
}

// settle waits until at most so many messages have no answer.
func (l *lane) settle(most int) error {
	for l.waiting > 0 {
		var a *nsq.ProducerTransaction
		if l.waiting > most {
			a = <-l.answers
		} else {
			select {
			case a = <-l.answers:
			default:
				return nil
			}
		}
		l.waiting--
		if a.Error != nil {
			return fmt.Errorf("publish to %s: %w", l.addr, a.Error)
		}
	}
	return nil
}
