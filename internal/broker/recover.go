package broker

import (
	"context"
	"fmt"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/meta"
)

// shardPartition is a partition as its shard knows it.
type shardPartition struct {
	machine *partition.Machine
	view    partition.PartitionView
}

// task is something to do; it calls done once.
type task func(done func(error))

// Recover makes what metadata says true on the shards, after a start: a crash
// may have come between the two. The groups must lead.
func (b *Broker) Recover(ctx context.Context) error {
	if b.o.Peers != nil {
		return nil // done by Run, for each shard when this node begins to lead it
	}
	known := make(map[partition.Key]shardPartition)
	for _, m := range b.machines.All() {
		p := part{machine: m}
		err := p.query(ctx, func(v *partition.View) {
			v.Each(func(pv partition.PartitionView) { known[pv.Key] = shardPartition{m, pv} })
		})
		if err != nil {
			return fmt.Errorf("read shard state: %w", err)
		}
	}
	var todo []task
	view := b.o.Meta.View()
	for _, m := range view.Topics() {
		todo = append(todo, b.reconcile(m, known)...)
	}
	for key, sp := range known {
		if m, ok := view.TopicID(key.Topic); !ok || int(key.Partition) >= len(m.Partitions) {
			todo = append(todo, func(done func(error)) { sp.machine.Do(partition.Close{Key: key}, done) })
		}
	}
	err := awaitCall(ctx, func(done func(error)) {
		left := newCountdown(len(todo), done)
		for _, f := range todo {
			f(left.done)
		}
	})
	if err != nil {
		return fmt.Errorf("reconcile shards with metadata: %w", err)
	}
	for _, m := range view.Topics() {
		if t := b.find(m.Name); m.Raising() && t != nil {
			if err := b.finishRaise(ctx, t); err != nil {
				return fmt.Errorf("raise partitions of topic %s: %w", m.Name, err)
			}
		}
	}
	b.useLimited(0)
	return nil
}

// reconcile lists what is left to do for one topic.
func (b *Broker) reconcile(m *meta.Topic, known map[partition.Key]shardPartition) (todo []task) {
	if m.Ephemeral() {
		return nil
	}
	t := b.newTopic(m)
	if m.Deleting {
		return []task{func(done func(error)) { b.closeTopic(t, done) }}
	}
	for _, c := range m.Channels {
		if c.Deleting {
			todo = append(todo, func(done func(error)) { t.closeChannel(c, done) })
		}
	}
	for _, p := range t.parts() {
		todo = append(todo, p.reconcile(t, m, b.o.Meta.View(), known[p.key])...)
	}
	return todo
}

// reconcile lists what is left to do for one partition, on this node. Channels that
// the view is too old to know are left alone.
func (p *part) reconcile(t *Topic, m *meta.Topic, view *meta.View, sp shardPartition) (todo []task) {
	later := func(c partition.Command) {
		todo = append(todo, func(done func(error)) {
			if err := t.openHere(p); err != nil {
				done(err)
				return
			}
			if p.up != nil {
				p.up.following(c, done)
				return
			}
			p.machine.Do(c, done)
		})
	}
	has := make(map[uint64]bool, len(sp.view.Channels))
	for _, c := range sp.view.Channels {
		has[c.ID] = true
		if mc, ok := m.ChannelID(c.ID); !c.Ephemeral && (ok && mc.Deleting || !ok && view.Knew(c.ID)) {
			later(partition.DropChannel{Key: p.key, Channel: c.ID})
		}
	}
	for _, c := range m.Channels {
		if !has[c.ID] && !c.Deleting {
			create := partition.CreateChannel{Key: p.key, Channel: c.ID}
			if int(p.key.Partition) >= m.Active { // nothing was published there before
				create.From.Where = partition.AtStart
			}
			later(create)
		}
	}
	if active := uint32(m.Active); len(m.Raised) > 0 && int(p.key.Partition) < m.Active && sp.view.Count < active {
		later(partition.Raise{Key: p.key, Count: active})
	}
	if sp.view.Paused != m.Paused {
		later(partition.PauseTopic{Key: p.key, Paused: m.Paused})
	}
	return todo
}
