package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// The number of a topic's partitions is raised in steps (ADR 0019): metadata gives the
// new ones their shards; the leader of metadata starts all channels on them, and says
// that they are active; each leader puts a barrier into its partitions; each node
// publishes by the new number once all by the old one is answered (reroute.go); and
// channels pass a barrier when they have all that is before it in any partition
// (passed.go).

// raiseLook is how often who waits for a raise looks whether it is at its end.
const raiseLook = 5 * time.Millisecond

// RaisePartitions raises the number of a topic's partitions, to at most
// meta.MaxPartitions, and waits until messages are published to all of them. When ctx
// ends first it goes on all the same: fault.Timeout. Asked again it waits for the
// same raise. fault.TopicNotFound; fault.InvalidRequest for what can't be raised so:
// see meta.Machine.RaiseTopic.
func (b *Broker) RaisePartitions(ctx context.Context, topic string, count int) error {
	if b.exiting.Load() {
		return fault.Exiting
	}
	t, err := b.existing(ctx, topic)
	if err != nil {
		return err
	}
	err = awaitCall(ctx, func(done func(error)) {
		b.o.Meta.RaiseTopic(t.id, count, func(_ *meta.Topic, err error) { done(err) })
	})
	if err != nil {
		return err
	}
	if b.o.Peers == nil {
		return b.raiseAlone(ctx, t)
	}
	timer := time.NewTicker(raiseLook)
	defer timer.Stop()
	for {
		m, ok := b.o.Meta.View().TopicID(t.id)
		switch {
		case !ok || m.Deleting:
			return fault.New(fault.TopicNotFound, "topic %s was deleted while its partitions were raised", topic)
		case !m.Raising():
			return nil
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return fault.Wrap(fault.Timeout, fmt.Errorf("raise partitions of topic %s to %d: it goes on: %w", topic, count, ctx.Err()))
		}
	}
}

// raiseAlone is the rest of a raise on a node that is alone. It goes on when the
// caller gives up.
func (b *Broker) raiseAlone(ctx context.Context, t *Topic) error {
	got := make(chan error, 1)
	whole := context.WithoutCancel(ctx)
	go func() {
		b.raising.Lock()
		defer b.raising.Unlock()
		got <- b.finishRaise(whole, t)
	}()
	return wait(ctx, got)
}

// finishRaise prepares the new partitions of a topic that is being raised, and makes
// them active. Alone, the topic's use follows at once.
func (b *Broker) finishRaise(ctx context.Context, t *Topic) error {
	m, ok := b.o.Meta.View().TopicID(t.id)
	if !ok || m.Deleting {
		return fault.New(fault.TopicNotFound, "topic %s is deleted", t.name)
	}
	if m.Raising() {
		if err := t.prepareRaise(ctx, m); err != nil {
			return err
		}
		err := awaitCall(ctx, func(done func(error)) { b.o.Meta.ActivateTopic(t.id, len(m.Partitions), done) })
		if err != nil || b.o.Peers != nil {
			return err
		}
	}
	if b.o.Peers == nil {
		return t.activateAlone(ctx)
	}
	return nil
}

// prepareRaise commits the starts of the topic's channels on the partitions that are
// not active yet. Channels that are made from now on start there by themselves: the
// metadata in which they are made names these partitions.
func (t *Topic) prepareRaise(ctx context.Context, m *meta.Topic) error {
	t.follow(m)
	for i := m.Active; i < len(m.Partitions); i++ {
		p := t.part(i)
		t.open(p)
		if err := t.startAll(ctx, p, m.Channels); err != nil {
			return fmt.Errorf("start channels on partition %d of topic %s: %w", i, t.name, err)
		}
		if m.Paused {
			if err := t.do(ctx, p, partition.PauseTopic{Key: p.key, Paused: true}); err != nil {
				return fmt.Errorf("pause partition %d of topic %s: %w", i, t.name, err)
			}
		}
	}
	return nil
}

// startAll commits the starts of channels on a new partition, from its beginning.
func (t *Topic) startAll(ctx context.Context, p *part, channels []*meta.Channel) error {
	return awaitCall(ctx, func(done func(error)) {
		left := newCountdown(len(channels), done)
		for _, c := range channels {
			if c.Deleting {
				left.done(nil)
				continue
			}
			create := partition.CreateChannel{Key: p.key, Channel: c.ID, From: partition.From{Where: partition.AtStart}}
			t.give(p, create, func(err error) {
				if fault.CodeOf(err) == fault.ChannelNotFound { // deleted meanwhile
					err = nil
				}
				left.done(err)
			})
		}
	})
}

// follow makes the partitions known that metadata has given the topic. They take no
// publishes before they are active.
func (t *Topic) follow(m *meta.Topic) {
	t.routing.Lock()
	defer t.routing.Unlock()
	if l := t.layout.Load(); len(m.Partitions) > len(l.parts) && t.mem == nil && t.away == nil {
		next := t.b.layoutOf(m, l.parts)
		next.active, next.rerouting = l.active, l.rerouting
		t.layout.Store(next)
	}
}

// followView is follow with the present metadata.
func (t *Topic) followView() {
	if m, ok := t.b.o.Meta.View().TopicID(t.id); ok {
		t.follow(m)
	}
}

// active takes what metadata says of the topic's active partitions: the shards that
// this node leads get their barriers, and the topic's use here, if there is any, goes
// over. t is nil when there is none.
func (b *Broker) active(t *Topic, m *meta.Topic) {
	b.led(m, func(u *upstream, k partition.Key) {
		if int(k.Partition) < m.Active {
			b.tasks.spawn(func(ctx context.Context) { u.raise(ctx, k, m) })
		}
	})
	if t == nil {
		return
	}
	t.follow(m)
	b.tasks.spawn(func(ctx context.Context) { t.useNew(ctx) })
	t.reroute(nil)
}

// raise puts the barrier of the active partitions into one that this node leads, again
// and again while it does. Who leads later does it when it begins to.
func (u *upstream) raise(ctx context.Context, k partition.Key, m *meta.Topic) {
	leadership := u.leadership.Load()
	for leadership != 0 && leadership == u.leadership.Load() {
		err := u.tryRaise(ctx, k, m)
		if err == nil || fault.CodeOf(err) == fault.TopicNotFound || pause(ctx, reconcileAgain) != nil {
			return
		}
		u.b.o.Logger.Warn("put barrier", "topic", m.Name, "partition", k.Partition, "error", err)
	}
}

func (u *upstream) tryRaise(ctx context.Context, k partition.Key, m *meta.Topic) error {
	return awaitCall(ctx, func(done func(error)) {
		u.mu.Lock()
		err := u.open(k, m.Name)
		u.mu.Unlock()
		if err != nil {
			done(err)
			return
		}
		u.machine.Do(partition.Raise{Key: k, Count: uint32(m.Active)}, done)
	})
}

// useNew has the channels in use consume from partitions that they have no part in
// yet.
func (t *Topic) useNew(ctx context.Context) {
	for _, c := range t.inUse() {
		if c.err != nil {
			continue
		}
		for i, p := range t.parts() {
			if c.knows(i) {
				continue
			}
			t.b.attach(ctx, p.up, []place{{t, c, i}}, false)
			place{t, c, i}.assign()
			if !c.knows(i) { // nobody leads, in this moment
				p.up.unassigned.Store(true)
				ring(p.up.wake)
			}
		}
	}
}

// knows reports whether the channel has something to do with partition i.
func (c *channelInUse) knows(i int) bool {
	c.laneMu.Lock()
	defer c.laneMu.Unlock()
	return i < len(c.attached) && (c.attached[i] != 0 || c.remote[i].node != 0)
}

// activateAlone has the use of a topic go over to its active partitions, on a node
// that is alone: their barriers come behind all that was published by the number
// before.
func (t *Topic) activateAlone(ctx context.Context) error {
	m, ok := t.b.o.Meta.View().TopicID(t.id)
	if !ok || m.Deleting {
		return fault.New(fault.TopicNotFound, "topic %s is deleted", t.name)
	}
	t.follow(m)
	for _, c := range t.inUse() {
		if err := t.addLanes(ctx, c); err != nil {
			return err
		}
	}
	if m.Active == t.layout.Load().active {
		return nil
	}
	r := t.hold()
	t.entered()
	err := t.each(ctx, func(p *part) partition.Command {
		return partition.Raise{Key: p.key, Count: uint32(m.Active)}
	})
	if err != nil {
		t.abandon(r, err)
		return err
	}
	t.release(r, t.b.layoutOf(m, t.parts()))
	return nil
}
