package broker

import (
	"context"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// Session names what is taken over from another server.
type Session = partition.Session

// Ingest is a part of what is taken over from another server, for one topic: see
// partition.Ingest for positions and sessions.
type Ingest struct {
	Topic    string
	Session  Session
	From, To uint64
	// Handed: the other server had handed the messages to its channels; those that
	// Channels does not name get none of them. Otherwise the messages are the
	// topic's, and Channels is empty.
	Handed   bool
	Channels []IngestChannel
	Messages []Message // without due times
}

// IngestChannel is where a channel stands in the messages of an Ingest, by their
// place in it.
type IngestChannel struct {
	Name     string
	Finished []offsets.Range     // rising
	Attempts []partition.Attempt // rising, not among the finished
}

// Ingest appends what is taken over to the first partition of a topic that is there,
// and waits until it is fact. What was done before under the same session is done
// once: it may be given again after any error. Channels that are not there, because
// they were deleted since, are passed over. fault.OutOfOrder: the session has not
// come to From, or is beyond it and not at To.
func (b *Broker) Ingest(ctx context.Context, in *Ingest) error {
	if b.exiting.Load() {
		return fault.Exiting
	}
	t, err := b.existing(in.Topic)
	switch {
	case err != nil:
		return err
	case t.away != nil:
		return t.away
	case t.mem != nil:
		return fault.New(fault.InvalidTopic, "topic %s lives in memory only: nothing can be taken over into it", in.Topic)
	case in.To < in.From, uint64(len(in.Messages)) > in.To-in.From, !in.Handed && len(in.Channels) > 0:
		return fault.New(fault.InvalidRequest, "take over messages of topic %s: positions %d to %d can't be those of %d messages", in.Topic, in.From, in.To, len(in.Messages))
	}
	p := &t.parts[0]
	c := partition.Ingest{Key: p.key, Session: in.Session, From: in.From, To: in.To, Handed: in.Handed}
	if c.Channels, err = t.ingestChannels(in); err != nil {
		return err
	}
	if len(in.Messages) > 0 {
		c.Batch = partition.AppendBatch(nil, in.Messages, b.o.Clock())
	}
	t.open(p)
	return t.do(ctx, p, c)
}

// ingestChannels finds the channels, by id.
func (t *Topic) ingestChannels(in *Ingest) ([]partition.IngestChannel, error) {
	m, ok := t.b.o.Meta.View().TopicID(t.id)
	if !ok {
		return nil, fault.New(fault.TopicNotFound, "topic %s is deleted", t.name)
	}
	var out []partition.IngestChannel
	for i := range in.Channels {
		c := &in.Channels[i]
		if !c.valid(int64(len(in.Messages))) {
			return nil, fault.New(fault.InvalidRequest, "take over messages of topic %s: what is said of channel %s is not in order", t.name, c.Name)
		}
		if mc, ok := m.Channel(c.Name); ok && !mc.Deleting {
			out = append(out, partition.IngestChannel{Channel: mc.ID, Finished: c.Finished, Attempts: c.Attempts})
		}
	}
	slices.SortFunc(out, func(a, b partition.IngestChannel) int {
		if a.Channel < b.Channel {
			return -1
		}
		return 1
	})
	for i := 1; i < len(out); i++ {
		if out[i].Channel == out[i-1].Channel {
			return nil, fault.New(fault.InvalidRequest, "take over messages of topic %s: a channel is named twice", t.name)
		}
	}
	return out, nil
}

// valid reports whether all is said in order, and of one of n messages.
func (c *IngestChannel) valid(n int64) bool {
	last := int64(0)
	for _, r := range c.Finished {
		if r.From < last || r.To <= r.From || r.To > n {
			return false
		}
		last = r.To
	}
	last = -1
	for _, a := range c.Attempts {
		if a.Offset <= last || a.Offset >= n {
			return false
		}
		last = a.Offset
	}
	return true
}
