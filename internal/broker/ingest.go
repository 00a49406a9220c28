package broker

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// Session names what is taken over from another server.
type Session = partition.Session

// Ingest is a part of what is taken over from another server, or from an edge, for
// one topic: see partition.Ingest for positions and sessions.
type Ingest struct {
	Topic string
	// Partition is where the messages go, from 0 on; each has its own position in
	// the session.
	Partition int
	Session   Session
	// Spread, which Forward alone looks at, is how many partitions the giver knows of;
	// 0: it does not say.
	Spread   int
	From, To uint64
	// Handed: the other server had handed the messages to its channels; those that
	// Channels does not name get none of them. Otherwise the messages are the
	// topic's, and Channels is empty.
	Handed   bool
	Channels []IngestChannel
	Messages []Message // without due times if they were handed
}

// IngestChannel is where a channel stands in the messages of an Ingest, by their
// place in it.
type IngestChannel struct {
	Name     string
	Finished []offsets.Range     // rising
	Attempts []partition.Attempt // rising, not among the finished
}

// IngestStart begins to take a topic over from another server.
type IngestStart struct {
	Topic    string
	Session  Session
	Channels []IngestNew
}

// IngestNew is a channel that the topic is to have.
type IngestNew struct {
	Name   string
	Paused bool // it is paused here too, whether or not it was there
}

// BeginIngest makes the topic, and those of the channels that are not there, all at
// once: what waits in the topic is given to all of them. The session has come to
// position 1 then; of one that has, it changes nothing but pauses, so it is for those
// that have not.
func (b *Broker) BeginIngest(ctx context.Context, s *IngestStart) error {
	if b.exiting.Load() {
		return fault.Exiting
	}
	for _, c := range s.Channels {
		if !ValidChannel(c.Name) || IsEphemeral(c.Name) {
			return fault.New(fault.InvalidChannel, "channel name %q is not valid", c.Name)
		}
	}
	t, err := b.ensureTopic(ctx, s.Topic, 0)
	switch {
	case err != nil:
		return err
	case t.away != nil:
		return t.away
	case t.mem != nil:
		return errInMemory(s.Topic)
	}
	got := make(chan error, 1)
	// It goes on when this caller gives up, as createChannel does.
	whole := context.WithoutCancel(ctx)
	go func() { got <- t.beginIngest(whole, s) }()
	if err := wait(ctx, got); err != nil {
		return fmt.Errorf("create channels of topic %s: %w", s.Topic, err)
	}
	return nil
}

func errInMemory(topic string) error {
	return fault.New(fault.InvalidTopic, "topic %s lives in memory only: nothing can be taken over into it", topic)
}

func (t *Topic) beginIngest(ctx context.Context, s *IngestStart) error {
	made := make([]*meta.Channel, len(s.Channels))
	create := partition.Ingest{Session: s.Session, To: 1, Create: true}
	for i, c := range s.Channels {
		m, err := t.metaChannel(ctx, c.Name)
		if err == nil && c.Paused {
			err = t.b.PauseChannel(ctx, t.name, c.Name, true)
		}
		if err != nil {
			return err
		}
		made[i] = m
		create.Channels = append(create.Channels, partition.IngestChannel{Channel: m.ID})
	}
	if err := byID(t.name, create.Channels); err != nil {
		return err
	}
	t.followView()
	for _, p := range t.parts() {
		t.open(p)
		if err := t.noteMissed(ctx, p, made); err != nil {
			return err
		}
		create.Key = p.key
		if err := t.do(ctx, p, create); err != nil {
			return err
		}
	}
	for _, m := range made {
		if err := t.stillThere(ctx, m); err != nil && fault.CodeOf(err) != fault.ChannelNotFound {
			return err
		}
	}
	return nil
}

// noteMissed notes what the partition had given to channels before these are made.
func (t *Topic) noteMissed(ctx context.Context, p *part, channels []*meta.Channel) error {
	for _, m := range channels {
		known, given, _, err := p.channelBefore(ctx, m.ID)
		if err != nil {
			return err
		}
		if !known && (p.up == nil || p.up.leadership.Load() != 0) {
			t.miss(p.key.Partition, m.ID, given)
		}
	}
	return nil
}

// Ingest appends what is taken over to a partition of a topic that is there, and
// waits until it is fact. What was done before under the same session is done
// once: it may be given again after any error. Channels that are not there, because
// they were deleted since, are passed over. fault.OutOfOrder: the session has not
// come to From, or is beyond it and not at To.
func (b *Broker) Ingest(ctx context.Context, in *Ingest) error {
	if b.exiting.Load() {
		return fault.Exiting
	}
	t, err := b.existing(ctx, in.Topic)
	switch {
	case err != nil:
		return err
	case t.away != nil:
		return t.away
	case t.mem != nil:
		return errInMemory(in.Topic)
	case in.To < in.From, uint64(len(in.Messages)) > in.To-in.From, !in.Handed && len(in.Channels) > 0:
		return fault.New(fault.InvalidRequest, "take over messages of topic %s: positions %d to %d can't be those of %d messages", in.Topic, in.From, in.To, len(in.Messages))
	}
	p := t.part(in.Partition)
	if p == nil {
		return fault.New(fault.InvalidRequest, "take over messages of topic %s: there is no partition %d of %d", in.Topic, in.Partition, len(t.parts()))
	}
	if in.Handed && slices.ContainsFunc(in.Messages, func(m Message) bool { return m.DueNs != 0 }) {
		return fault.New(fault.InvalidRequest, "take over messages of topic %s: what channels have been given can't be deferred", in.Topic)
	}
	c := partition.Ingest{Key: p.key, Session: in.Session, From: in.From, To: in.To, Handed: in.Handed}
	all := false
	if c.Channels, all, err = t.ingestChannels(in); err == nil && !all && b.o.Peers != nil {
		// One may have been made through another node a moment ago: its messages must not
		// be lost for it.
		if !b.upToDate(ctx) {
			return fault.New(fault.NotLeader, "take over messages of topic %s: whether all channels are there can't be known", in.Topic)
		}
		c.Channels, _, err = t.ingestChannels(in)
	}
	if err != nil {
		return err
	}
	if len(in.Messages) > 0 {
		c.Batch = partition.AppendBatch(nil, in.Messages, b.o.Clock())
	}
	t.open(p)
	return t.do(ctx, p, c)
}

// ingestChannels finds the channels, by id, and reports whether all are there.
func (t *Topic) ingestChannels(in *Ingest) (out []partition.IngestChannel, all bool, err error) {
	m, ok := t.b.o.Meta.View().TopicID(t.id)
	if !ok {
		return nil, false, fault.New(fault.TopicNotFound, "topic %s is deleted", t.name)
	}
	for i := range in.Channels {
		c := &in.Channels[i]
		if !c.valid(int64(len(in.Messages))) {
			return nil, false, fault.New(fault.InvalidRequest, "take over messages of topic %s: what is said of channel %s is not in order", t.name, c.Name)
		}
		if mc, ok := m.Channel(c.Name); ok && !mc.Deleting {
			out = append(out, partition.IngestChannel{Channel: mc.ID, Finished: c.Finished, Attempts: c.Attempts})
		}
	}
	return out, len(out) == len(in.Channels), byID(t.name, out)
}

// byID sorts channels by id, each of which may be there once.
func byID(topic string, channels []partition.IngestChannel) error {
	slices.SortFunc(channels, func(a, b partition.IngestChannel) int { return cmp.Compare(a.Channel, b.Channel) })
	for i := 1; i < len(channels); i++ {
		if channels[i].Channel == channels[i-1].Channel {
			return fault.New(fault.InvalidRequest, "take over messages of topic %s: a channel is named twice", topic)
		}
	}
	return nil
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

// Partitions is how many partitions a topic has: fault.TopicNotFound.
func (b *Broker) Partitions(ctx context.Context, topic string) (int, error) {
	t, err := b.existing(ctx, topic)
	switch {
	case err != nil:
		return 0, err
	case t.away != nil:
		return 0, t.away
	case t.mem != nil:
		return 0, errInMemory(topic)
	}
	return t.layout.Load().active, nil
}
