package tools

import (
	"context"
	"flag"
	"log"
	"sync"
	"time"

	"github.com/nsqio/go-nsq"
)

func toNSQTool() Tool {
	return Tool{
		Name: "nsq_to_nsq", Short: "Publish topics' messages to other nodes",
		Long: `Consume topics and publish each message to another node or nsqd, to the same
topic or to --destination-topic. A message is finished when the destination has
acknowledged it, and tried again later otherwise.

Messages that are JSON objects can be held against --require-json-field and
--require-json-value: those that do not fit, or are no object, are finished and
go nowhere. --whitelist-json-field passes on the named fields only, each as it
stands in the message.

Beyond NSQ's own: it never gives a message up (NSQ's does, and finishes it,
after 5 attempts; --consumer-opt=max_attempts,5 does that), numbers keep every
digit, and a message without the field of --require-json-value does not hold up
the others.`,
		Example: `  tidings nsq_to_nsq -topic orders -nsqd-tcp-address 127.0.0.1:4150 -destination-nsqd-tcp-address 10.0.0.2:4150
  tidings nsq_to_nsq -topic orders -topic audit -lookupd-http-address 127.0.0.1:4161 -destination-nsqd-tcp-address 10.0.0.2:4150`,
		make: func() command {
			return &toNSQ{source: newSource("nsq_to_nsq", "nsq_to_nsq", 0), producerConfig: nsq.NewConfig()}
		},
	}
}

// toNSQ is nsq_to_nsq.
type toNSQ struct {
	source
	topics       list
	destinations list
	destTopic    string
	mode         string
	statusEvery  int
	filter       filter

	producerConfig *nsq.Config

	// made by run
	log       *log.Logger
	producers []*nsq.Producer // by destination
	pool      *pool
	statuses  statuses
	answers   chan *nsq.ProducerTransaction
}

func (t *toNSQ) define(fs *flag.FlagSet) {
	t.source.define(fs)
	fs.Var(&t.topics, "topic", "NSQ topic to consume (may be given multiple times)")
	fs.Var(&t.destinations, "destination-nsqd-tcp-address", "TCP address of an nsqd to publish to (may be given multiple times)")
	fs.StringVar(&t.destTopic, "destination-topic", "", "NSQ topic to publish to (default: the one that the message comes from)")
	fs.Var(&clientOpt{t.producerConfig}, "producer-opt", "NAME,VALUE of an option of go-nsq's producer (may be given multiple times, see https://pkg.go.dev/github.com/nsqio/go-nsq#Config)")
	fs.StringVar(&t.mode, "mode", modeHostpool, modeHelp)
	fs.IntVar(&t.statusEvery, "status-every", 250, "log how long publishes take, once for so many of them (0: never)")
	t.filter.define(fs)
}

func (t *toNSQ) check() error {
	if len(t.topics) == 0 {
		return usagef("--topic is needed")
	}
	if err := t.source.check(t.topics...); err != nil {
		return err
	}
	if err := choice("mode", t.mode, modeHostpool, modeRoundRobin, modeGreedy); err != nil {
		return err
	}
	switch {
	case t.destTopic != "" && !nsq.IsValidTopicName(t.destTopic):
		return usagef("--destination-topic %q: %s", t.destTopic, nameRule)
	case len(t.destinations) == 0:
		return usagef("--destination-nsqd-tcp-address is needed")
	}
	t.producerConfig.UserAgent = userAgent("nsq_to_nsq")
	if err := t.producerConfig.Validate(); err != nil {
		return usagef("--producer-opt: %w", err)
	}
	return t.filter.check()
}

func (t *toNSQ) run(ctx context.Context, env Env) error {
	t.log = log.New(env.Err, "", log.LstdFlags)
	t.pool = newPool(t.mode, t.destinations)
	t.statuses = newStatuses(t.statusEvery, t.destinations, t.log)
	for _, addr := range t.destinations {
		p, err := nsq.NewProducer(addr, t.producerConfig)
		if err != nil {
			return usagef("publish to %s: %w", addr, err)
		}
		p.SetLogger(t.log, nsq.LogLevelInfo)
		t.producers = append(t.producers, p)
	}
	t.answers = make(chan *nsq.ProducerTransaction, t.maxInFlight)
	var answering sync.WaitGroup
	for range t.producers {
		answering.Go(func() {
			for a := range t.answers {
				t.answered(a)
			}
		})
	}
	err := t.consume(ctx, env, t.topics, func(topic string, c *nsq.Consumer) {
		c.AddConcurrentHandlers(&bridge{t, topic}, len(t.producers))
	})
	for _, p := range t.producers {
		p.Stop() // every publish has its answer then
	}
	close(t.answers)
	answering.Wait()
	return err
}

// bridge hands on one topic's messages.
type bridge struct {
	*toNSQ
	topic string
}

// handover is a message on its way.
type handover struct {
	message *nsq.Message
	target  *target
	begin   time.Time
}

// HandleMessage publishes a message, or drops what is not to pass. The answer
// comes to answered.
func (b *bridge) HandleMessage(m *nsq.Message) error {
	body, pass, err := b.filter.apply(m.Body)
	if err != nil {
		b.log.Printf("ERROR: message %s of topic %s is dropped: %v", m.ID, b.topic, err)
	}
	if err != nil || !pass {
		return nil
	}
	topic := b.destTopic
	if topic == "" {
		topic = b.topic
	}
	m.DisableAutoResponse()
	h := handover{m, b.pool.take(), time.Now()}
	if err := b.producers[h.target.index].PublishAsync(topic, body, b.answers, h); err != nil {
		b.pool.put(h.target, time.Since(h.begin), err)
		m.Requeue(-1)
		return err
	}
	return nil
}

// answered finishes a message that its destination has acknowledged.
func (t *toNSQ) answered(a *nsq.ProducerTransaction) {
	h := a.Args[0].(handover)
	took := time.Since(h.begin)
	t.pool.put(h.target, took, a.Error)
	if a.Error != nil {
		t.log.Printf("ERROR: publish message %s to %s: %v", h.message.ID, h.target.addr, a.Error)
		h.message.Requeue(-1)
		return
	}
	h.message.Finish()
	t.statuses.each[h.target.index].note(took)
	t.statuses.all.note(took)
}
