package nsq

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/tidings-io/tidings/internal/fault"
	metadata "github.com/tidings-io/tidings/internal/meta"
)

// saying has a refusal of what nsqd does not know answered with its reason.
func saying(err error) error {
	if fault.CodeOf(err) == fault.InvalidRequest {
		return bad(err.Error())
	}
	return err
}

// createPartitioned makes a topic with a number of partitions, which is ours.
func (f *Front) createPartitioned(ctx context.Context, topic, partitions string) error {
	n, err := partitionsArg(partitions)
	if err != nil {
		return err
	}
	return saying(f.broker.CreatePartitioned(ctx, topic, n))
}

// partitionsArg is a number of partitions.
func partitionsArg(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > metadata.MaxPartitions {
		return 0, bad("INVALID_PARTITIONS")
	}
	return n, nil
}

// topicPartitions tells where the partitions of a topic are, which is ours.
func topicPartitions(f *Front, r *http.Request, q url.Values) (any, error) {
	topic, err := topicArg(q, true)
	if err != nil {
		return nil, err
	}
	return f.broker.Layout(r.Context(), topic)
}

// raisePartitions raises their number, and answers when messages are published to all
// of them. This is ours too.
func raisePartitions(f *Front, r *http.Request, q url.Values) (any, error) {
	topic, err := topicArg(q, true)
	if err != nil {
		return nil, err
	}
	n, err := partitionsArg(q.Get("partitions"))
	if err != nil {
		return nil, err
	}
	return nil, saying(f.broker.RaisePartitions(r.Context(), topic, n))
}
