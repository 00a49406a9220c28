package tools

import (
	"context"
	"errors"
	"flag"
	"log"
	"strings"

	"github.com/nsqio/go-nsq"
)

// source is where a utility consumes from: the flags that all consuming
// utilities share.
type source struct {
	tool          string
	channel       string
	maxInFlight   int
	nsqds, lookup list
	config        *nsq.Config
}

// newSource prepares a consumer of go-nsq's. attempts is after how many tries
// it finishes a message by itself, 0: never. The flag consumer-opt changes it.
func newSource(tool, channel string, attempts uint16) source {
	s := source{tool: tool, channel: channel, config: nsq.NewConfig()}
	s.config.MaxAttempts = attempts
	return s
}

func (s *source) define(fs *flag.FlagSet) {
	fs.StringVar(&s.channel, "channel", s.channel, "NSQ channel to consume from")
	fs.IntVar(&s.maxInFlight, "max-in-flight", 200, "how many messages may be unfinished at a time")
	fs.Var(&s.nsqds, "nsqd-tcp-address", "TCP address of an nsqd (may be given multiple times)")
	fs.Var(&s.lookup, "lookupd-http-address", "HTTP address of an nsqlookupd (may be given multiple times)")
	fs.Var(&clientOpt{s.config}, "consumer-opt", "NAME,VALUE of an option of go-nsq's consumer (may be given multiple times, see https://pkg.go.dev/github.com/nsqio/go-nsq#Config)")
}

func (s *source) check(topics ...string) error {
	if err := oneKind("--nsqd-tcp-address", s.nsqds, s.lookup); err != nil {
		return err
	}
	if !nsq.IsValidChannelName(s.channel) {
		return usagef("--channel %q: %s", s.channel, nameRule)
	}
	for _, t := range topics {
		if !nsq.IsValidTopicName(t) {
			return usagef("--topic %q: %s", t, nameRule)
		}
	}
	if s.maxInFlight < 1 {
		return usagef("--max-in-flight %d: want at least 1", s.maxInFlight)
	}
	s.config.MaxInFlight = s.maxInFlight
	s.config.UserAgent = userAgent(s.tool)
	if err := s.config.Validate(); err != nil {
		return usagef("--consumer-opt: %w", err)
	}
	return nil
}

// nameRule is what a topic's or a channel's name has to be.
const nameRule = "a name has 1 to 64 of the characters . a-z A-Z 0-9 _ - and may end in #ephemeral"

// oneKind wants either addresses of nsqds or of nsqlookupds.
func oneKind(flagName string, nsqds, lookup list) error {
	switch {
	case len(nsqds) == 0 && len(lookup) == 0:
		return usagef("%s or --lookupd-http-address is needed", flagName)
	case len(nsqds) > 0 && len(lookup) > 0:
		return usagef("give %s or --lookupd-http-address, not both", flagName)
	}
	return nil
}

// consumer builds a consumer that is not connected.
func (s *source) consumer(env Env, topic string, level nsq.LogLevel) (*nsq.Consumer, error) {
	c, err := nsq.NewConsumer(topic, s.channel, s.config)
	if err != nil {
		return nil, usagef("consume topic %s, channel %s: %w", topic, s.channel, err)
	}
	c.SetLogger(log.New(env.Err, "", log.LstdFlags), level)
	return c, nil
}

// connect connects a consumer that has its handlers: to every nsqd named, or
// to those that the nsqlookupds name, now and later.
func (s *source) connect(c *nsq.Consumer) error {
	for _, addr := range s.nsqds {
		if err := c.ConnectToNSQD(addr); err != nil && !errors.Is(err, nsq.ErrAlreadyConnected) {
			return errorf(ErrUnreachable, "connect to nsqd at %s: %w", addr, err)
		}
	}
	for _, addr := range s.lookup {
		if err := c.ConnectToNSQLookupd(addr); err != nil {
			return usagef("--lookupd-http-address %s: %w", addr, err)
		}
	}
	return nil
}

// consume runs one consumer for each topic until ctx ends, and returns when
// every message that they were given has its answer.
func (s *source) consume(ctx context.Context, env Env, topics []string, attach func(topic string, c *nsq.Consumer)) error {
	var running []*nsq.Consumer
	defer func() {
		for _, c := range running {
			c.Stop()
		}
		for _, c := range running {
			<-c.StopChan
		}
	}()
	for _, topic := range topics {
		c, err := s.consumer(env, topic, nsq.LogLevelInfo)
		if err != nil {
			return err
		}
		attach(topic, c)
		running = append(running, c)
		if err := s.connect(c); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// baseURL is an HTTP address as a URL: HOST:PORT, or with a scheme.
func baseURL(addr string) string {
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	return strings.TrimSuffix(addr, "/")
}
