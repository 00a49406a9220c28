package broker

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/latency"
	"github.com/tidings-io/tidings/internal/meta"
)

// TopicStats is a topic's state. Counts run since the process started.
type TopicStats struct {
	ID           uint64 // given to no other topic
	Name         string
	Depth        int64 // messages that no channel has been given
	MessageCount int64
	MessageBytes int64 // of bodies
	LogBytes     int64 // kept, in memory and files
	Paused       bool
	Oldest       time.Duration  // at an edge: age of the oldest message of Depth
	Ack          string         // quorum or leader; empty without Peers, and for an ephemeral topic
	Channels     []ChannelStats // by name
	// Latency is that of all channels, also of those that a Filter leaves out;
	// nil without Options.LatencyWindow, or without a channel.
	Latency *latency.Snapshot
}

// ChannelStats is a channel's state. Counts run since the process started.
type ChannelStats struct {
	ID           uint64 // given to no other channel
	Name         string
	Depth        int64 // could be delivered now
	InFlight     int64
	Deferred     int64
	MessageCount int64 // given to the channel
	RequeueCount int64
	TimeoutCount int64
	Paused       bool
	Ephemeral    bool
	// MaxAttempts is how often a message is delivered at most; 0: no limit. With one,
	// messages go to the topic DeadLetter then, and DeadLetterCount says how many did.
	MaxAttempts     uint16
	DeadLetter      string
	DeadLetterCount int64
	// Latency is how long messages took from their publish to their FIN here;
	// nil without Options.LatencyWindow.
	Latency *latency.Snapshot
	// Subscriptions are those of consumers here, in the order they came.
	Subscriptions []*delivery.Subscription
}

// Filter says which topics and channels Stats returns; empty fields are all.
type Filter struct{ Topic, Channel string }

// Stats returns the topics, by name. With Peers, where things stand is told by the
// node that leads them, and what passed is counted by the one that led then, so that
// sums over nodes are right.
// ctx bounds the wait for the shards.
func (b *Broker) Stats(ctx context.Context, f Filter) ([]TopicStats, error) {
	out, _, err := b.StatsLed(ctx, f)
	return out, err
}

// selected are the topics that a filter names.
func (b *Broker) selected(f Filter) []*meta.Topic {
	view := b.o.Meta.View()
	if f.Topic == "" {
		return slices.DeleteFunc(slices.Clone(view.Topics()), func(t *meta.Topic) bool { return t.Deleting })
	}
	if m, ok := view.Topic(f.Topic); ok && !m.Deleting {
		return []*meta.Topic{m}
	}
	return nil
}

// partitionViews fills states with what this node tells of partitions, and led with
// the terms in which it leads their shards.
func (b *Broker) partitionViews(ctx context.Context, f Filter, states map[partition.Key]partition.PartitionView, led map[uint32]uint64) error {
	if f.Topic != "" {
		t := b.find(f.Topic)
		if t == nil {
			return nil
		}
		for _, p := range t.parts() {
			err := p.query(ctx, func(v *partition.View) {
				look := v.Counted
				if b.counts(v) {
					look, led[v.Shard()] = v.Partition, v.Term()
				}
				if pv, ok := look(p.key); ok {
					states[p.key] = pv
				}
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, m := range b.machines.All() {
		p := part{machine: m}
		err := p.query(ctx, func(v *partition.View) {
			each := v.EachCounted
			if b.counts(v) {
				each, led[v.Shard()] = v.Each, v.Term()
			}
			each(func(pv partition.PartitionView) { states[pv.Key] = pv })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// counts reports whether this node tells where the partitions of a shard stand.
func (b *Broker) counts(v *partition.View) bool { return b.o.Peers == nil || v.Leading() }

func (b *Broker) topicStats(m *meta.Topic, f Filter, states map[partition.Key]partition.PartitionView) TopicStats {
	b.mu.RLock()
	t := b.topics[m.Name]
	b.mu.RUnlock()
	s := TopicStats{ID: m.ID, Name: m.Name, Paused: m.Paused}
	if b.o.Peers != nil && !m.Ephemeral() {
		s.Ack = b.ackOf(m.Ack).String()
	}
	var views []partition.PartitionView
	for i := range m.Partitions {
		if pv, ok := states[partition.Key{Topic: m.ID, Partition: int32(i)}]; ok {
			views = append(views, pv)
			s.Depth += pv.Depth()
			s.MessageCount += pv.MessageCount
			s.MessageBytes += pv.MessageBytes
			s.LogBytes += pv.LogBytes
		}
	}
	if t != nil && t.mem != nil {
		t.mem.stats(&s)
	}
	inUse := make(map[string]*channelInUse)
	if t != nil {
		inUse = t.inUse()
	}
	add := func(name string, c *channelInUse, stats func() ChannelStats) {
		took := b.latency(c)
		s.addLatency(took)
		if f.Channel == "" || f.Channel == name {
			one := stats()
			one.Latency = took
			s.Channels = append(s.Channels, one)
		}
	}
	for _, mc := range m.Channels {
		if c := inUse[mc.Name]; !mc.Deleting {
			add(mc.Name, c, func() ChannelStats { return t.durableStats(mc, c, views) })
		}
		delete(inUse, mc.Name)
	}
	for name, c := range inUse {
		add(name, c, func() ChannelStats { return memoryStats(c) })
	}
	slices.SortFunc(s.Channels, func(a, b ChannelStats) int { return cmp.Compare(a.Name, b.Name) })
	return s
}

// latency is that of a channel, nil while it is not in use.
func (b *Broker) latency(c *channelInUse) *latency.Snapshot {
	switch {
	case b.o.LatencyWindow <= 0:
		return nil
	case c == nil:
		return &latency.Snapshot{}
	}
	return c.ch.Latency()
}

func (s *TopicStats) addLatency(one *latency.Snapshot) {
	if one == nil {
		return
	}
	if s.Latency == nil {
		s.Latency = &latency.Snapshot{}
	}
	s.Latency.Add(one)
}

// inUse is a copy of the table of channels that are ready.
func (t *Topic) inUse() map[string]*channelInUse {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[string]*channelInUse, len(t.channels))
	for name, c := range t.channels {
		select {
		case <-c.ready:
			out[name] = c
		default:
		}
	}
	return out
}

// durableStats joins what is replicated of a channel with what is local. t is
// nil for a topic that is not in use.
func (t *Topic) durableStats(mc *meta.Channel, c *channelInUse, views []partition.PartitionView) ChannelStats {
	s := ChannelStats{ID: mc.ID, Name: mc.Name, Paused: mc.Paused, MaxAttempts: mc.MaxAttempts, DeadLetter: mc.DeadLetter}
	for i := range views {
		for _, cv := range views[i].Channels {
			if cv.ID != mc.ID {
				continue
			}
			s.Deferred += cv.Parked
			if c == nil {
				s.Depth += cv.Backlog
				missed := int64(0)
				if t != nil {
					missed = t.missedOn(views[i].Key.Partition, mc.ID)
				}
				s.MessageCount += max(given(&views[i])-max(missed, cv.Missed), 0)
			}
		}
	}
	if c != nil {
		delivers := make([]int32, 0, len(views))
		fresh := false
		local := c.ch.StatsBy(func(part int32, does, finds bool) {
			if does {
				delivers = append(delivers, part)
			}
			fresh = fresh || finds
		})
		s.fill(c, local)
		s.Deferred = max(s.Deferred-local.Held, 0)
		s.awaited(mc.ID, views, delivers, fresh)
	}
	return s
}

// awaited adds what waits on partitions where the channel in use does not deliver
// yet; fresh: it is not in the count of messages either.
func (s *ChannelStats) awaited(channel uint64, views []partition.PartitionView, delivers []int32, fresh bool) {
	for i := range views {
		if slices.Contains(delivers, views[i].Partition) {
			continue
		}
		for _, cv := range views[i].Channels {
			if cv.ID == channel {
				s.Depth += cv.Backlog
				if fresh {
					s.MessageCount += cv.Backlog
				}
			}
		}
	}
}

func memoryStats(c *channelInUse) ChannelStats {
	s := ChannelStats{ID: c.id, Name: c.name, Ephemeral: true}
	local := c.ch.Stats()
	s.fill(c, local)
	s.Deferred = local.Deferred
	s.Paused = local.Paused
	return s
}

func (s *ChannelStats) fill(c *channelInUse, local delivery.Stats) {
	s.Depth = local.Depth
	s.InFlight = local.InFlight
	s.MessageCount = c.before + int64(local.MessageCount)
	s.RequeueCount = int64(local.RequeueCount)
	s.TimeoutCount = int64(local.TimeoutCount)
	s.DeadLetterCount = int64(local.DeadLetterCount)
	s.Subscriptions = c.ch.Subscriptions(nil)
}
