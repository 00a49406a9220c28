package broker

import (
	"context"
	"fmt"

	"github.com/tidings-io/tidings/internal/fault"
)

// Forward is Ingest for an edge: it makes the topic on first use, and returns how many
// partitions the topic has. The session is the edge's origin; its positions are those
// of the messages that the edge has taken for the topic, and each partition passes all
// of them. They are fewer than Spread only where the topic has been made anew: the edge
// then gives the new one all that no partition has taken, so a node that has not yet
// seen a raise must not say so. fault.NotLeader: that can't be known, or nothing is.
func (b *Broker) Forward(ctx context.Context, in *Ingest) (partitions int, err error) {
	if in.Handed {
		return 0, fault.New(fault.InvalidRequest, "forward to topic %s: an edge has no channels", in.Topic)
	}
	err = b.Ingest(ctx, in)
	if fault.CodeOf(err) == fault.TopicNotFound {
		if err = b.CreateTopic(ctx, in.Topic); err == nil {
			err = b.Ingest(ctx, in)
		}
	}
	if err == nil {
		partitions, err = b.Partitions(ctx, in.Topic)
	}
	if err == nil && partitions < in.Spread && b.o.Peers != nil {
		partitions, err = b.partitionsByNow(ctx, in.Topic)
	}
	if err != nil {
		return 0, fmt.Errorf("forward to topic %s: %w", in.Topic, err)
	}
	return partitions, nil
}

// partitionsByNow is how many partitions metadata has a topic use, of all that any node
// knew when it was called; this node's own publishers may still be on their way there.
func (b *Broker) partitionsByNow(ctx context.Context, topic string) (int, error) {
	if !b.upToDate(ctx) {
		return 0, fault.New(fault.NotLeader, "how many partitions topic %s has can't be known", topic)
	}
	t, err := b.existing(ctx, topic)
	if err != nil {
		return 0, err
	}
	m, ok := b.o.Meta.View().TopicID(t.id)
	if !ok {
		return 0, fault.New(fault.TopicNotFound, "topic %s is deleted", topic)
	}
	return m.Active, nil
}
