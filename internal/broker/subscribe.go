package broker

import (
	"context"
	"fmt"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// subscribeTries bounds how often a subscription starts over because its topic
// or channel was deleted, or its ephemeral channel ended, under its hands.
const subscribeTries = 10

// Subscribe opens a subscription to the channel; topic and channel are made
// where they are missing. Errors: fault.InvalidTopic, fault.InvalidChannel,
// fault.TooManyConsumers, fault.Exiting, fault.Timeout.
func (b *Broker) Subscribe(ctx context.Context, topic, channel string, o delivery.SubOptions) (*delivery.Subscription, error) {
	if !ValidChannel(channel) {
		return nil, fault.New(fault.InvalidChannel, "channel name %q is not valid", channel)
	}
	var err error
	for range subscribeTries {
		var t *Topic
		var c *channelInUse
		if b.exiting.Load() {
			return nil, fault.Exiting
		}
		if t, err = b.ensureTopic(ctx, topic, 0); err == nil {
			if c, err = t.ensureChannel(ctx, channel); err == nil {
				var sub *delivery.Subscription
				if sub, err = c.ch.Subscribe(o); err == nil {
					return sub, nil
				}
			}
		}
		switch fault.CodeOf(err) {
		case fault.Deleting, fault.TopicNotFound, fault.ChannelNotFound:
		default:
			return nil, err
		}
	}
	return nil, fmt.Errorf("subscribe to channel %s of topic %s: %w", channel, topic, err)
}

// makeEphemeral starts a channel that lives in memory, on a durable topic. Only
// that it exists is replicated, because that moves the hand-over cursor.
func (t *Topic) makeEphemeral(ctx context.Context, c *channelInUse) error {
	c.id = t.b.localID()
	cfg := t.channelConfig(c)
	cfg.MaxLag = int64(t.b.o.MemQueueSize)
	cfg.Fresh = true
	cfg.Idle = func() { t.idle(c) }
	c.ch = delivery.NewChannel(cfg)
	c.mem = t.newMemory()
	if t.b.o.Peers != nil {
		c.fresh = true // lanes come when the channel is ready
		return t.openElsewhere(ctx, c)
	}
	return t.addLanes(ctx, c)
}

// idle ends an ephemeral channel whose last consumer has left.
func (t *Topic) idle(c *channelInUse) {
	if c.ch.Stats().Consumers == 0 {
		t.end(c)
	}
}

// detach takes an ephemeral channel's lanes off their shards and log.
func (t *Topic) detach(c *channelInUse) {
	if t.mem != nil {
		t.mem.detach(c)
		return
	}
	if t.b.o.Peers != nil {
		t.detachLed(c)
		return
	}
	for i, lane := range c.lanes {
		p := t.part(i)
		p.machine.Detach(lane)
		p.machine.Do(partition.DropChannel{Key: p.key, Channel: c.id}, func(error) {})
	}
}
