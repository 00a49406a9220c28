package tools

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"

	"github.com/nsqio/go-nsq"
)

func tailTool() Tool {
	return Tool{
		Name: "nsq_tail", Short: "Print topics' messages as they come",
		Long: `Consume topics and print each message as a line on standard output. Without
--channel that is a channel of its own, which is gone when it ends: nobody else
misses a message, and it prints what is published from then on.

With -n it ends after so many messages, of all topics together. What was printed
is finished, and nothing else is.`,
		Example: `  tidings nsq_tail -topic orders -nsqd-tcp-address 127.0.0.1:4150
  tidings nsq_tail -topic orders -topic audit -print-topic -n 10 -lookupd-http-address 127.0.0.1:4161`,
		make: func() command { return &tail{source: newSource("nsq_tail", "", 0)} },
	}
}

// tail is nsq_tail.
type tail struct {
	source
	topics     list
	total      int
	printTopic bool

	mu        sync.Mutex
	out       io.Writer
	consumers []*nsq.Consumer
	shown     int
	err       error  // the first of out
	enough    func() // ends the run
}

func (t *tail) define(fs *flag.FlagSet) {
	t.source.define(fs)
	fs.Lookup("channel").Usage = "NSQ channel to consume from (default: one that is gone with the program)"
	fs.Var(&t.topics, "topic", "NSQ topic to consume (may be given multiple times)")
	fs.IntVar(&t.total, "n", 0, "end after so many messages (0: do not end)")
	fs.BoolVar(&t.printTopic, "print-topic", false, "print the topic before each message")
}

func (t *tail) check() error {
	switch {
	case len(t.topics) == 0:
		return usagef("--topic is needed")
	case t.total < 0:
		return usagef("--n %d: want at least 0", t.total)
	}
	if t.channel == "" {
		t.channel = fmt.Sprintf("tail%06d#ephemeral", rand.IntN(1000000))
	}
	if t.total > 0 && t.maxInFlight > t.total {
		t.maxInFlight = t.total // what is not shown is not asked for
	}
	return t.source.check(t.topics...)
}

func (t *tail) run(ctx context.Context, env Env) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	t.out, t.enough = env.Out, stop
	err := t.consume(ctx, env, t.topics, func(topic string, c *nsq.Consumer) {
		t.mu.Lock()
		t.consumers = append(t.consumers, c)
		t.mu.Unlock()
		c.AddHandler(nsq.HandlerFunc(func(m *nsq.Message) error { return t.show(topic, m) }))
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return fmt.Errorf("write to standard output: %w", t.err)
	}
	return err
}

// show prints a message. What comes when there is enough goes back to its
// channel.
func (t *tail) show(topic string, m *nsq.Message) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil || t.total > 0 && t.shown >= t.total {
		m.DisableAutoResponse()
		m.RequeueWithoutBackoff(0)
		return nil
	}
	line := make([]byte, 0, len(topic)+len(m.Body)+4)
	if t.printTopic {
		line = append(append(line, topic...), " | "...)
	}
	line = append(append(line, m.Body...), '\n')
	if _, err := t.out.Write(line); err != nil {
		t.err = err
		t.enough()
		m.DisableAutoResponse()
		m.RequeueWithoutBackoff(0)
		return nil
	}
	t.shown++
	t.askForTheRest()
	return nil
}

// askForTheRest closes the windows of the consumers as the end comes nearer, so
// that they are given no message that is not shown.
func (t *tail) askForTheRest() {
	rest := t.total - t.shown
	if t.total == 0 || rest >= t.maxInFlight {
		return
	}
	for _, c := range t.consumers {
		c.ChangeMaxInFlight(rest)
	}
	if rest == 0 {
		t.enough()
	}
}
