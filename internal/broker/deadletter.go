package broker

import (
	"context"
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// DeadLetterTopic is the topic that gets a channel's dead letters where none is named.
// It may be too long to be valid.
func DeadLetterTopic(topic, channel string) string { return topic + "." + channel + ".dead" }

// SetMaxAttempts limits how often messages of a channel are delivered, to at most
// meta.MaxAttempts times; 0: no limit. What nobody has finished by then is published
// to the topic deadLetter, and then finished in the channel: at least once, and with
// key and body as it was. An empty name keeps the one that is set, or means
// DeadLetterTopic. It survives a restart. fault.TopicNotFound, fault.ChannelNotFound,
// fault.InvalidTopic, fault.InvalidRequest; fault.Unsupported for a channel that
// lives in memory only.
func (b *Broker) SetMaxAttempts(ctx context.Context, topic, channel string, attempts int, deadLetter string) error {
	t, m, err := b.existingChannel(ctx, topic, channel)
	if err != nil {
		return err
	}
	if m == nil || t.mem != nil || t.away != nil {
		return fault.New(fault.Unsupported, "limit the attempts of channel %s of topic %s: it lives in memory only", channel, topic)
	}
	if deadLetter, err = checkDeadLetter(topic, m, attempts, deadLetter); err != nil {
		return err
	}
	err = awaitCall(ctx, func(done func(error)) {
		b.o.Meta.SetDeadLetter(t.id, m.ID, uint16(attempts), deadLetter, done)
	})
	if err != nil {
		return err
	}
	if c := t.lookup(channel); c != nil && c.id == m.ID {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.followMeta(c)
	}
	return nil
}

// checkDeadLetter returns the name of the dead-letter topic.
func checkDeadLetter(topic string, m *meta.Channel, attempts int, name string) (string, error) {
	switch {
	case attempts < 0 || attempts > meta.MaxAttempts:
		return "", fault.New(fault.InvalidRequest, "max attempts %d: want 0, for no limit, to %d", attempts, meta.MaxAttempts)
	case attempts == 0 && name != "":
		return "", fault.New(fault.InvalidRequest, "dead-letter topic %s: without max attempts nothing goes there", name)
	case attempts == 0:
		return "", nil
	case name == "" && m.DeadLetter != "":
		return m.DeadLetter, nil
	case name == "":
		if name = DeadLetterTopic(topic, m.Name); !ValidTopic(name) {
			return "", fault.New(fault.InvalidRequest, "the name %s is too long for a topic: name the dead-letter topic", name)
		}
	}
	switch {
	case !ValidTopic(name):
		return "", fault.New(fault.InvalidTopic, "dead-letter topic name %q is not valid", name)
	case IsEphemeral(name):
		return "", fault.New(fault.InvalidRequest, "dead-letter topic %s: it would keep nothing", name)
	case name == topic:
		return "", fault.New(fault.InvalidRequest, "dead-letter topic %s: the channel would get its own dead letters", name)
	}
	return name, nil
}

// How dead letters are moved: so many of a partition at once, and after a failure
// with growing pauses.
const (
	deadLetterBatch    = 64
	deadLetterBytes    = 4 << 20 // of bodies at once; one always fits
	deadLetterPause    = 100 * time.Millisecond
	deadLetterPauseMax = 10 * time.Second
)

// spent is delivery.Config.Spent of a channel.
func (t *Topic) spent(c *channelInUse) {
	if !c.moving.Swap(true) {
		t.b.tasks.spawn(func(ctx context.Context) { t.moveDeadLetters(ctx, c) })
	}
}

// moveDeadLetters moves what is spent to the dead-letter topic, until nothing is, or
// the channel or the node ends. One of it runs for a channel.
func (t *Topic) moveDeadLetters(ctx context.Context, c *channelInUse) {
	for pause := deadLetterPause; ctx.Err() == nil && c.ch.Err() == nil && !t.b.exiting.Load(); {
		list := c.ch.DeadLetters(deadLetterBatch)
		if len(list) == 0 {
			c.moving.Store(false)
			if len(c.ch.DeadLetters(1)) == 0 || c.moving.Swap(true) {
				return
			}
			continue
		}
		to := t.deadLetterTopic(c)
		moved, err := 0, error(nil)
		if to != "" { // else the channel learns that too, and delivers them again
			moved, err = t.moveSome(ctx, c, to, list)
		}
		if moved > 0 && err == nil {
			pause = deadLetterPause
			continue
		}
		if err != nil && ctx.Err() == nil && !t.b.exiting.Load() {
			t.b.o.Logger.Warn("move messages to the dead-letter topic", "topic", t.name, "channel", c.name, "to", to, "error", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, deadLetterPauseMax)
	}
}

// deadLetterTopic is where dead letters of the channel go; empty: they have no place.
func (t *Topic) deadLetterTopic(c *channelInUse) string {
	if mt, ok := t.b.o.Meta.View().TopicID(t.id); ok {
		if m, ok := mt.ChannelID(c.id); ok {
			return m.DeadLetter
		}
	}
	return ""
}

// moveSome publishes dead letters, from the first on, and finishes each whose publish
// is acknowledged. It returns how many are finished, and the first error.
func (t *Topic) moveSome(ctx context.Context, c *channelInUse, to string, list []delivery.DeadLetter) (moved int, first error) {
	type sent struct {
		letter delivery.DeadLetter
		answer publishWait
	}
	failed := func(err error) {
		if first == nil {
			first = err
		}
	}
	var out []sent
	size := 0
	for _, d := range list {
		key, body, ok, err := c.ch.ReadDeadLetter(d)
		switch {
		case err != nil:
			failed(err)
			continue
		case !ok:
			c.ch.FinishDeadLetter(d, true)
			moved++
			continue
		}
		if size += len(body); size > deadLetterBytes && len(out) > 0 {
			break
		}
		s := sent{d, make(publishWait, 1)}
		if err := t.b.Publish(to, []Message{{Body: body, Key: key}}, s.answer); err != nil {
			failed(err)
			break
		}
		out = append(out, s)
	}
	for _, s := range out {
		if err := wait(ctx, s.answer); err != nil {
			failed(err)
			continue
		}
		c.ch.FinishDeadLetter(s.letter, false)
		moved++
	}
	return moved, first
}

// useLimited brings the channels with a limit into use that have a partition on the
// shard (0: any), which this node has begun to lead: what is spent already is moved
// without a consumer. They come one after the other.
func (b *Broker) useLimited(shard uint32) {
	type place struct{ topic, channel string }
	var all []place
	for _, m := range b.o.Meta.View().Topics() {
		if m.Deleting || shard != 0 && !slices.Contains(m.Partitions, shard) {
			continue
		}
		for _, c := range m.Channels {
			if c.MaxAttempts > 0 && !c.Deleting {
				all = append(all, place{m.Name, c.Name})
			}
		}
	}
	if len(all) == 0 {
		return
	}
	b.tasks.spawn(func(ctx context.Context) {
		for _, x := range all {
			if ctx.Err() == nil && !b.exiting.Load() {
				b.use(ctx, x.topic, x.channel)
			}
		}
	})
}

// use brings a channel into use.
func (b *Broker) use(ctx context.Context, topic, channel string) {
	t := b.find(topic)
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience) // the making goes on
	defer cancel()
	if _, err := t.ensureChannel(ctx, channel); err != nil && !b.exiting.Load() {
		b.o.Logger.Warn("look for dead letters", "topic", topic, "channel", channel, "error", err)
	}
}
