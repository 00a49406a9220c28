// Package importer takes the backlog of an nsqd, from its data folder, over into a
// node or a cluster. It may end at any moment, as may the node: when it is run again
// it goes on where it was, and nothing is there twice.
//
// For each topic the target remembers how far the import has come, under a name that
// follows from the contents of the topic's queues. Its positions are:
//
//	0                 the topic and its channels are made, and those paused that are
//	                  to be; nothing is given to channels before
//	1 … h             the h messages that channels have yet to get, each once
//	h+1               the topic is paused, if it is to be
//	h+2 … h+1+w       the w messages that wait in the topic
package importer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/nsqdata"
)

// Target is where the messages go; *broker.Broker is one. Errors carry a fault.Code.
type Target interface {
	BeginIngest(ctx context.Context, s *broker.IngestStart) error
	PauseTopic(ctx context.Context, topic string, paused bool) error
	Ingest(ctx context.Context, in *broker.Ingest) error
}

// Options of an Importer. Zero values mean the default beside the field.
type Options struct {
	Target Target
	// Patience is how long a target that can't be reached, or has no leader, is
	// asked again: 30 s.
	Patience time.Duration
	Limits   nsqdata.Limits // of a batch: 2,048 messages, 256 KiB
	// Progress, which may be nil, is told how many messages more were read by Survey,
	// or brought into the target; Passed, how many an earlier import has brought.
	Progress, Passed func(messages int)
	// Keep is how many index entries, of 16 bytes, of surveys are kept between Survey
	// and Import; beyond it a topic is read once more: 4,194,304.
	Keep int
}

// MessageMax is the size up to which messages can be taken over, bytes.
const MessageMax = 16 << 20

// Importer imports topics, one after the other. It is for one goroutine.
type Importer struct {
	o    Options
	kept int
}

// New makes an importer.
func New(o Options) *Importer {
	if o.Patience <= 0 {
		o.Patience = 30 * time.Second
	}
	if o.Limits.Messages <= 0 {
		o.Limits.Messages = 2048
	}
	if o.Limits.Bytes <= 0 {
		o.Limits.Bytes = 256 << 10
	}
	if o.Keep <= 0 {
		o.Keep = 4 << 20
	}
	if o.Progress == nil {
		o.Progress = func(int) {}
	}
	if o.Passed == nil {
		o.Passed = func(int) {}
	}
	return &Importer{o: o}
}

// Survey reads what a topic holds, and whether it can be taken over.
func (i *Importer) Survey(ctx context.Context, t *nsqdata.Topic) (*nsqdata.Survey, error) {
	s, err := t.Survey(ctx, i.o.Progress)
	if err != nil {
		return nil, fmt.Errorf("read topic %s: %w", t.Name, err)
	}
	if s.Largest > MessageMax {
		return nil, fmt.Errorf("read topic %s: it holds a message of %d bytes; up to %d can be taken over", t.Name, s.Largest, MessageMax)
	}
	if i.kept += s.Entries(); i.kept > i.o.Keep {
		i.kept -= s.Entries()
		s.Forget()
	}
	return s, nil
}

// Outcome is what became of a topic.
type Outcome struct {
	Before int64 // messages that an earlier import has brought
	Now    int64 // messages that this one has
}

// Import takes a topic over, or goes on with it.
func (i *Importer) Import(ctx context.Context, s *nsqdata.Survey) (Outcome, error) {
	r := run{i: i, s: s, marker: 1 + uint64(s.Handed)}
	r.end = r.marker + 1 + uint64(s.Topical)
	if err := r.run(ctx); err != nil {
		return r.out, fmt.Errorf("import topic %s: %w", s.Topic.Name, err)
	}
	return r.out, nil
}

// run is the import of one topic.
type run struct {
	i   *Importer
	s   *nsqdata.Survey
	out Outcome
	// at is the next position; marker that of the topic's pause, end the first
	// behind all.
	at, marker, end uint64
}

func (r *run) run(ctx context.Context) error {
	if err := r.find(ctx); err != nil {
		return err
	}
	r.out.Before = int64(r.at) - min(int64(r.at), 1)
	if r.at > r.marker {
		r.out.Before--
	}
	r.i.o.Passed(int(r.out.Before))
	if r.at == r.end {
		return nil
	}
	if err := r.resurvey(ctx); err != nil {
		return err
	}
	if r.at == 0 {
		if err := r.begin(ctx); err != nil {
			return err
		}
	}
	if r.at < r.marker {
		for b, err := range r.s.HandedBatches(ctx, int64(r.at-1), r.i.o.Limits) {
			if err == nil {
				err = r.give(ctx, 1, b, true)
			}
			if err != nil {
				return err
			}
		}
	}
	if r.at == r.marker {
		if err := r.pauseTopic(ctx); err != nil {
			return err
		}
	}
	if r.at < r.end {
		for b, err := range r.s.TopicalBatches(ctx, int64(r.at-r.marker-1), r.i.o.Limits) {
			if err == nil {
				err = r.give(ctx, r.marker+1, b, false)
			}
			if err != nil {
				return err
			}
		}
	}
	if r.at != r.end {
		return fmt.Errorf("ends at position %d, want %d: its queues change while they are read", r.at, r.end)
	}
	return nil
}

// resurvey surveys the topic once more, where the survey was too large to be kept.
func (r *run) resurvey(ctx context.Context) error {
	if !r.s.Forgot() {
		return nil
	}
	s, err := r.s.Topic.Survey(ctx, nil)
	if err != nil {
		return err
	}
	if s.Session != r.s.Session {
		return errors.New("its queues change while they are read")
	}
	r.s = s
	return nil
}

// find asks how far an earlier import has come.
func (r *run) find(ctx context.Context) error {
	done, err := r.reached(ctx, r.end)
	if done {
		r.at = r.end
	}
	if done || err != nil {
		return err
	}
	if begun, err := r.reached(ctx, 1); !begun || err != nil {
		return err
	}
	low, high := uint64(1), r.end // reached, and not
	for low+1 < high {
		middle := low + (high-low)/2
		done, err := r.reached(ctx, middle)
		if err != nil {
			return err
		}
		if done {
			low = middle
		} else {
			high = middle
		}
	}
	r.at = low
	return nil
}

// reached asks whether an earlier import has come to a position.
func (r *run) reached(ctx context.Context, p uint64) (bool, error) {
	err := r.try(ctx, func(ctx context.Context) error {
		return r.i.o.Target.Ingest(ctx, r.ingest(p, p))
	})
	switch fault.CodeOf(err) {
	case fault.None:
		return true, nil
	case fault.OutOfOrder, fault.TopicNotFound:
		return false, nil
	}
	return false, err
}

// begin makes the topic and its channels.
func (r *run) begin(ctx context.Context) error {
	t := r.s.Topic
	start := &broker.IngestStart{Topic: t.Name, Session: r.s.Session}
	for _, c := range t.Channels {
		start.Channels = append(start.Channels, broker.IngestNew{Name: c.Name, Paused: c.Paused})
	}
	if err := r.try(ctx, func(ctx context.Context) error { return r.i.o.Target.BeginIngest(ctx, start) }); err != nil {
		return err
	}
	r.at = 1
	return nil
}

// pauseTopic pauses the topic, when all that its channels had been given is there.
func (r *run) pauseTopic(ctx context.Context) error {
	if r.s.Topic.Paused {
		err := r.try(ctx, func(ctx context.Context) error { return r.i.o.Target.PauseTopic(ctx, r.s.Topic.Name, true) })
		if err != nil {
			return err
		}
	}
	return r.mark(ctx)
}

// mark passes a position without a message.
func (r *run) mark(ctx context.Context) error { return r.take(ctx, r.ingest(r.at, r.at+1)) }

// give brings a batch, whose places begin at a position.
func (r *run) give(ctx context.Context, base uint64, b *nsqdata.Batch, handed bool) error {
	from := base + uint64(b.From)
	in := r.ingest(from, from+uint64(len(b.Bodies)))
	in.Handed = handed
	in.Messages = make([]broker.Message, len(b.Bodies))
	for i, body := range b.Bodies {
		in.Messages[i].Body = body
	}
	for _, share := range b.Channels {
		c := broker.IngestChannel{Name: share.Channel}
		for _, f := range share.Finished {
			c.Finished = append(c.Finished, offsets.Range(f))
		}
		for _, a := range share.Attempts {
			c.Attempts = append(c.Attempts, partition.Attempt{Offset: a.Place, N: a.N})
		}
		in.Channels = append(in.Channels, c)
	}
	if err := r.take(ctx, in); err != nil {
		return err
	}
	r.out.Now += int64(len(b.Bodies))
	r.i.o.Progress(len(b.Bodies))
	return nil
}

func (r *run) ingest(from, to uint64) *broker.Ingest {
	return &broker.Ingest{Topic: r.s.Topic.Name, Session: r.s.Session, From: from, To: to}
}

// take has the target take what is next.
func (r *run) take(ctx context.Context, in *broker.Ingest) error {
	err := r.try(ctx, func(ctx context.Context) error { return r.i.o.Target.Ingest(ctx, in) })
	if errors.Is(err, fault.OutOfOrder) {
		return fmt.Errorf("another import of the same messages is under way: %w", err)
	}
	if err == nil {
		r.at = in.To
	}
	return err
}

// try does something until it is done, or can't be: whatever a target is asked may
// be asked twice.
func (r *run) try(ctx context.Context, f func(context.Context) error) error {
	deadline := time.Now().Add(r.i.o.Patience)
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f(ctx)
		if !again(err) || ctx.Err() != nil || time.Now().Add(pause).After(deadline) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// again reports whether what failed may succeed a moment later.
func again(err error) bool {
	switch fault.CodeOf(err) {
	case fault.NotLeader, fault.Unreachable, fault.Overloaded, fault.Exiting, fault.Timeout, fault.Deleting:
		return true
	}
	return false
}
