package broker

import (
	"context"
	"fmt"

	"github.com/tidings-io/tidings/internal/fault"
)

// Forward is Ingest for an edge: it makes the topic on first use, and returns how many
// partitions the topic has. The session is the edge's origin; its positions are those
// of the messages that the edge has taken for the topic, and each partition passes all
// of them.
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
	if err != nil {
		return 0, fmt.Errorf("forward to topic %s: %w", in.Topic, err)
	}
	return partitions, nil
}
