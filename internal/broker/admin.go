package broker

import (
	"context"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// CreateTopic makes the topic; one that is there is left as it is.
func (b *Broker) CreateTopic(ctx context.Context, name string) error {
	if b.exiting.Load() {
		return fault.Exiting
	}
	_, err := b.ensureTopic(ctx, name, 0)
	return err
}

// CreatePartitioned makes the topic with a number of partitions, 1 to
// meta.MaxPartitions. fault.InvalidRequest when that is out of range, more than one
// for an ephemeral topic, or when the topic is there and has another number of them.
func (b *Broker) CreatePartitioned(ctx context.Context, name string, partitions int) error {
	switch {
	case b.exiting.Load():
		return fault.Exiting
	case partitions < 1 || partitions > meta.MaxPartitions:
		return fault.New(fault.InvalidRequest, "create topic %s: %d partitions: want 1 to %d", name, partitions, meta.MaxPartitions)
	case IsEphemeral(name) && partitions > 1:
		return fault.New(fault.InvalidRequest, "create topic %s: it lives in memory only, and has one partition", name)
	}
	t, err := b.ensureTopic(ctx, name, partitions)
	if err != nil {
		return err
	}
	if m, ok := b.o.Meta.View().TopicID(t.id); ok && !m.Ephemeral() && len(m.Partitions) != partitions {
		return fault.New(fault.InvalidRequest, "create topic %s: it is there, with %d partitions", name, len(m.Partitions))
	}
	return nil
}

// CreateChannel makes the channel on a topic that is there.
func (b *Broker) CreateChannel(ctx context.Context, topic, name string) error {
	if b.exiting.Load() {
		return fault.Exiting
	}
	for again := true; ; again = false {
		t, err := b.existing(ctx, topic)
		if err != nil {
			return err
		}
		if !ValidChannel(name) {
			return fault.New(fault.InvalidChannel, "channel name %q is not valid", name)
		}
		if t.mem == nil && t.away == nil && !IsEphemeral(name) {
			err = t.createChannel(ctx, name)
		} else {
			var c *channelInUse
			if c, err = t.ensureChannel(ctx, name); err == nil {
				c.kept.Store(true)
			}
		}
		if !again || fault.CodeOf(err) != fault.TopicNotFound || !b.upToDate(ctx) {
			return err
		}
		// the topic was deleted, and may have been made anew, as others know already
	}
}

// existing finds a topic. With Peers one that is not there may have been made
// through another node a moment ago: then metadata is looked at anew.
func (b *Broker) existing(ctx context.Context, topic string) (*Topic, error) {
	if !ValidTopic(topic) {
		return nil, fault.New(fault.InvalidTopic, "topic name %q is not valid", topic)
	}
	t := b.current(topic)
	if t == nil && b.upToDate(ctx) {
		t = b.current(topic)
	}
	if t == nil {
		return nil, fault.New(fault.TopicNotFound, "topic %s not found", topic)
	}
	return t, nil
}

// current is find without a topic that is deleted, of which only watchMeta does not
// know yet.
func (b *Broker) current(topic string) *Topic {
	t := b.find(topic)
	if t == nil || b.o.Peers == nil {
		return t
	}
	if m, ok := b.o.Meta.View().TopicID(t.id); ok && !m.Deleting {
		return t
	}
	b.mu.Lock()
	if b.topics[topic] == t {
		delete(b.topics, topic)
	}
	b.mu.Unlock()
	t.stop(fault.New(fault.TopicNotFound, "topic %s is deleted", topic))
	return b.find(topic)
}

// lookAnew bounds how long upToDate waits.
const lookAnew = 3 * time.Second

// upToDate waits until this node knows what any node knew when it was called, and
// reports whether that can be more than before. Without a leader of metadata it
// does not.
func (b *Broker) upToDate(ctx context.Context) bool {
	if b.o.Peers == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, lookAnew)
	defer cancel()
	return awaitCall(ctx, b.o.Meta.Sync) == nil
}

// DeleteTopic removes the topic with its messages and channels, and ends its
// subscriptions: fault.TopicNotFound. One that was deleted through another node a
// moment ago is no error.
func (b *Broker) DeleteTopic(ctx context.Context, name string) error {
	return b.deleting(ctx, name, "", func() (uint64, func(func(error)), error) {
		t, err := b.existing(ctx, name)
		if err != nil {
			return 0, nil, err
		}
		return t.id, func(done func(error)) { b.dropTopic(t, done) }, nil
	})
}

// dropTopic runs a deletion to its end, whoever waits for it: the topic is
// marked in metadata, then closed by its shards, then forgotten. Its handle
// stays in the table until it is marked: a publish in between would make another
// for the same incarnation, which nobody would take out again.
func (b *Broker) dropTopic(t *Topic, done func(error)) {
	b.o.Meta.DeleteTopic(t.id, func(err error) {
		if err != nil {
			done(err)
			return
		}
		b.mu.Lock()
		if b.topics[t.name] == t {
			delete(b.topics, t.name)
		}
		b.mu.Unlock()
		t.stop(fault.New(fault.TopicNotFound, "topic %s is deleted", t.name))
		b.closeTopic(t, done)
	})
}

// closeTopic closes the partitions of a topic that is marked, and forgets it.
func (b *Broker) closeTopic(t *Topic, done func(error)) {
	t.followView()
	forget := func() {
		b.o.Meta.FinishDeleteTopic(t.id, func(err error) {
			b.forgotten(t.name)
			done(err)
		})
	}
	parts := t.parts()
	left := newCountdown(len(parts), func(err error) {
		if err != nil {
			done(err)
			return
		}
		forget()
	})
	for _, p := range parts {
		t.give(p, partition.Close{Key: p.key}, left.done)
	}
}

// DeleteChannel removes the channel and ends its subscriptions. One that was deleted
// through another node a moment ago is no error.
func (b *Broker) DeleteChannel(ctx context.Context, topic, name string) error {
	return b.deleting(ctx, topic, name, func() (uint64, func(func(error)), error) {
		if done, err := b.changeInMemory(ctx, memoryDelete, topic, name); done {
			return 0, nil, err
		}
		t, m, err := b.existingChannel(ctx, topic, name)
		if err != nil {
			return 0, nil, err
		}
		if m != nil {
			return m.ID, func(done func(error)) { t.dropChannel(m, done) }, nil
		}
		c := t.lookup(name) // in memory only
		if c == nil {
			return 0, nil, channelNotFound(topic, name)
		}
		t.end(c)
		return 0, nil, nil
	})
}

// end takes a channel that lives in memory only out of use.
func (t *Topic) end(c *channelInUse) {
	mine, last := t.forget(c)
	if !mine {
		return
	}
	t.b.changed()
	c.ch.Close(fault.New(fault.ChannelNotFound, "channel %s is deleted", c.name))
	t.detach(c)
	if t.mem != nil && last {
		t.b.dropTopic(t, func(error) {})
	}
}

func (t *Topic) dropChannel(m *meta.Channel, done func(error)) {
	t.b.o.Meta.DeleteChannel(t.id, m.ID, func(err error) {
		if err != nil {
			done(err)
			return
		}
		// one that is only being made finds out by itself
		if c := t.lookup(m.Name); c != nil && c.id == m.ID {
			t.forget(c)
			c.ch.Close(fault.New(fault.ChannelNotFound, "channel %s is deleted", m.Name))
		}
		t.closeChannel(m, done)
	})
}

// closeChannel drops a channel that is marked from its shards, and forgets it.
func (t *Topic) closeChannel(m *meta.Channel, done func(error)) {
	t.followView()
	parts := t.parts()
	left := newCountdown(len(parts), func(err error) {
		if err != nil {
			done(err)
			return
		}
		t.forgetMissed(m.ID)
		t.b.o.Meta.FinishDeleteChannel(t.id, m.ID, done)
	})
	for _, p := range parts {
		t.open(p)
		t.give(p, partition.DropChannel{Key: p.key, Channel: m.ID}, left.done)
	}
}

// existingChannel finds a channel: m is nil for one that lives in memory only.
func (b *Broker) existingChannel(ctx context.Context, topic, name string) (t *Topic, m *meta.Channel, err error) {
	if t, err = b.existing(ctx, topic); err != nil {
		return nil, nil, err
	}
	if !ValidChannel(name) {
		return nil, nil, fault.New(fault.InvalidChannel, "channel name %q is not valid", name)
	}
	known := func() *meta.Channel {
		if mt, ok := b.o.Meta.View().TopicID(t.id); ok {
			if mc, ok := mt.Channel(name); ok && !mc.Deleting {
				return mc
			}
		}
		return nil
	}
	if m = known(); m == nil && t.lookup(name) == nil && b.upToDate(ctx) {
		m = known()
	}
	if m == nil && t.lookup(name) == nil {
		return nil, nil, channelNotFound(topic, name)
	}
	return t, m, nil
}

func channelNotFound(topic, name string) error {
	return fault.New(fault.ChannelNotFound, "channel %s of topic %s not found", name, topic)
}

// EmptyTopic drops the messages that wait in the topic because no channel has
// been given them. Its channels keep what they have.
func (b *Broker) EmptyTopic(ctx context.Context, name string) error {
	t, err := b.existing(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case t.away != nil:
		return t.orderHome(ctx, memoryEmpty)
	case t.mem != nil:
		t.mem.log.Empty()
		return nil
	}
	return t.each(ctx, func(p *part) partition.Command { return partition.EmptyTopic{Key: p.key} })
}

// EmptyChannel drops all that the channel has been given: waiting, in flight
// and deferred.
func (b *Broker) EmptyChannel(ctx context.Context, topic, name string) error {
	if done, err := b.changeInMemory(ctx, memoryEmpty, topic, name); done {
		return err
	}
	t, m, err := b.existingChannel(ctx, topic, name)
	if err != nil {
		return err
	}
	if m == nil {
		if c := t.lookup(name); c != nil {
			t.emptyMemory(c)
		}
		return nil
	}
	return t.each(ctx, func(p *part) partition.Command { return partition.Empty{Key: p.key, Channel: m.ID} })
}

// each proposes a command on every partition and waits for all.
func (t *Topic) each(ctx context.Context, command func(*part) partition.Command) error {
	t.followView()
	return awaitCall(ctx, func(done func(error)) {
		parts := t.parts()
		left := newCountdown(len(parts), done)
		for _, p := range parts {
			t.open(p)
			t.give(p, command(p), left.done)
		}
	})
}

// PauseTopic stops (or resumes) the hand-over of messages to the topic's
// channels. It survives a restart.
func (b *Broker) PauseTopic(ctx context.Context, name string, paused bool) error {
	t, err := b.existing(ctx, name)
	if err != nil {
		return err
	}
	err = awaitCall(ctx, func(done func(error)) { b.o.Meta.PauseTopic(t.id, paused, done) })
	if err != nil {
		return err
	}
	switch {
	case t.away != nil:
		_ = t.orderHome(ctx, memoryPause) // it hears of it from metadata too
		return nil
	case t.mem != nil:
		t.mem.log.SetPaused(paused)
		return nil
	}
	return t.each(ctx, func(p *part) partition.Command { return partition.PauseTopic{Key: p.key, Paused: paused} })
}

// PauseChannel stops (or resumes) the channel's deliveries. It survives a
// restart.
func (b *Broker) PauseChannel(ctx context.Context, topic, name string, paused bool) error {
	verb := memoryResume
	if paused {
		verb = memoryPause
	}
	if done, err := b.changeInMemory(ctx, verb, topic, name); done {
		return err
	}
	t, m, err := b.existingChannel(ctx, topic, name)
	if err != nil {
		return err
	}
	if m != nil {
		err := awaitCall(ctx, func(done func(error)) { b.o.Meta.PauseChannel(t.id, m.ID, paused, done) })
		if err != nil {
			return err
		}
	}
	c := t.lookup(name)
	switch {
	case c == nil: // it looks when it comes into use
	case m == nil:
		c.ch.SetPaused(paused)
	default:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.followMeta(c)
	}
	return nil
}
