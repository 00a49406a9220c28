package edge

import (
	"context"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/front/nsq"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/spool"
)

// errEdge is the answer to everything but publishes.
var errEdge = fault.New(fault.Unsupported, "this is an edge: it takes publishes only")

// intake is a spool as the front sees a broker: it only publishes.
type intake struct{ *spool.Spool }

var _ nsq.Broker = intake{}

func (i intake) Drive(string) { i.Spool.Drive() }

func (i intake) Subscribe(context.Context, string, string, delivery.SubOptions) (nsq.Subscription, error) {
	return nil, errEdge
}

// CreateTopic remembers the topic: it comes to be upstream with its first message.
func (i intake) CreateTopic(_ context.Context, topic string) error {
	return i.Spool.CreateTopic(topic)
}

func (i intake) CreatePartitioned(context.Context, string, int) error     { return errEdge }
func (i intake) RaisePartitions(context.Context, string, int) error       { return errEdge }
func (i intake) SetAck(context.Context, string, meta.Ack) error           { return errEdge }
func (i intake) DeleteTopic(context.Context, string) error                { return errEdge }
func (i intake) EmptyTopic(context.Context, string) error                 { return errEdge }
func (i intake) PauseTopic(context.Context, string, bool) error           { return errEdge }
func (i intake) CreateChannel(context.Context, string, string) error      { return errEdge }
func (i intake) DeleteChannel(context.Context, string, string) error      { return errEdge }
func (i intake) EmptyChannel(context.Context, string, string) error       { return errEdge }
func (i intake) PauseChannel(context.Context, string, string, bool) error { return errEdge }
func (i intake) SetMaxAttempts(context.Context, string, string, int, string) error {
	return errEdge
}

func (i intake) Layout(context.Context, string) (broker.TopicPartitions, error) {
	return broker.TopicPartitions{}, errEdge
}

func (i intake) Publish(topic string, m []partition.Message, done partition.Completion) error {
	return i.Spool.Publish(topic, m, done)
}

// StatsLed is Stats: an edge leads no shard.
func (i intake) StatsLed(ctx context.Context, f broker.Filter) ([]broker.TopicStats, []broker.Led, error) {
	topics, err := i.Stats(ctx, f)
	return topics, nil, err
}

// Shards are none.
func (i intake) Shards(broker.Filter) []uint32 { return nil }

// Stats returns the topics: what is not known to be upstream is their depth.
func (i intake) Stats(_ context.Context, f broker.Filter) ([]broker.TopicStats, error) {
	var out []broker.TopicStats
	for _, t := range i.Spool.Stats(f.Topic).Topics {
		out = append(out, broker.TopicStats{Name: t.Name, Depth: t.Depth, MessageCount: t.Messages, MessageBytes: t.Bytes, Oldest: t.Oldest})
	}
	return out, nil
}
