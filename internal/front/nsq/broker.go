package nsq

import (
	"context"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	metadata "github.com/tidings-io/tidings/internal/meta"
)

// Broker is what the front needs of the broker. Over makes one of
// broker.Broker.
type Broker interface {
	// Publish stores messages of one topic, in the order of the calls of one
	// caller, and makes the topic on first use. It does not wait: done is
	// called once, on any goroutine, unless an error is returned. msgs and what
	// they point to stay untouched until then. fault.Overloaded means that
	// nothing was taken: try again.
	Publish(topic string, msgs []partition.Message, done partition.Completion) error
	// Enqueue is Publish without waking anybody: the caller calls Drive with the
	// topic next, before it waits.
	Enqueue(topic string, msgs []partition.Message, done partition.Completion) error
	// Drive lets the broker go on with what was enqueued, on this goroutine if
	// nothing else does. Completions may be called before it returns.
	Drive(topic string)
	// Subscribe adds a consumer, and makes topic and channel on first use.
	Subscribe(ctx context.Context, topic, channel string, o delivery.SubOptions) (Subscription, error)

	CreateTopic(ctx context.Context, topic string) error
	// CreatePartitioned makes a topic with a number of partitions.
	CreatePartitioned(ctx context.Context, topic string, partitions int) error
	// RaisePartitions raises their number, and Layout tells where they are.
	RaisePartitions(ctx context.Context, topic string, partitions int) error
	Layout(ctx context.Context, topic string) (broker.TopicPartitions, error)
	SetAck(ctx context.Context, topic string, a metadata.Ack) error
	DeleteTopic(ctx context.Context, topic string) error
	EmptyTopic(ctx context.Context, topic string) error
	PauseTopic(ctx context.Context, topic string, paused bool) error
	CreateChannel(ctx context.Context, topic, channel string) error
	// SetMaxAttempts limits the deliveries of each message, 0: not at all; deadLetter,
	// if not empty, is the topic for those that nobody finishes.
	SetMaxAttempts(ctx context.Context, topic, channel string, attempts int, deadLetter string) error
	DeleteChannel(ctx context.Context, topic, channel string) error
	EmptyChannel(ctx context.Context, topic, channel string) error
	PauseChannel(ctx context.Context, topic, channel string, paused bool) error

	// Stats returns topics by name. An unknown topic gives none; an unknown
	// channel leaves its topics without channels.
	Stats(ctx context.Context, f broker.Filter) ([]broker.TopicStats, error)
	// StatsLed is Stats, with the shards that this node led meanwhile; none where
	// there are no other nodes.
	StatsLed(ctx context.Context, f broker.Filter) ([]broker.TopicStats, []broker.Led, error)
	// Shards are those that carry the filter's durable topics.
	Shards(f broker.Filter) []uint32
	// Health is nil, or why this node can't take publishes.
	Health() error
}

// Subscription is one consumer of a channel: *delivery.Subscription. Take is
// called by the connection's writer only, the rest by anyone.
type Subscription interface {
	SetWindow(n int)
	Stop()
	Take(dst []delivery.Delivery, maxBytes int) ([]delivery.Delivery, error)
	Do(ops []delivery.Op, errs []error) (failed int)
	Close(abnormal bool)
	Done() <-chan struct{}
	Stats() delivery.SubStats
}

// Over makes the front's Broker of the real one.
func Over(b *broker.Broker) Broker { return over{b} }

type over struct{ *broker.Broker }

// Subscribe hands out the subscription as the interface.
func (o over) Subscribe(ctx context.Context, topic, channel string, so delivery.SubOptions) (Subscription, error) {
	s, err := o.Broker.Subscribe(ctx, topic, channel, so)
	if err != nil {
		return nil, err
	}
	return s, nil
}
