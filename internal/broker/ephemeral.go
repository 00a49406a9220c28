package broker

import (
	"slices"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// memoryTopic is an ephemeral topic: its messages are in memory, on this node,
// and gone with it. All of its channels live in memory too.
type memoryTopic struct {
	t      *Topic
	log    *delivery.MemoryLog
	shard  *delivery.Memory
	clock  func() int64
	maxLag int64
}

func newMemoryTopic(t *Topic) *memoryTopic {
	n := int64(t.b.o.MemQueueSize)
	return &memoryTopic{
		t: t, log: delivery.NewMemoryLog(n, 0), shard: t.newMemory(), clock: t.b.o.Clock, maxLag: n,
	}
}

// awayFrom is why an ephemeral topic of another node is not served here, and the
// Raft id of that node, 0 when it is gone.
func (b *Broker) awayFrom(m *meta.Topic) (error, uint64) {
	for _, n := range b.o.Meta.View().Nodes {
		if n.Boot == m.Boot {
			return fault.New(fault.NotLeader, "topic %s lives on node %s", m.Name, n.Name), n.ID
		}
	}
	return fault.New(fault.NotLeader, "topic %s lives on another node", m.Name), 0
}

func (t *Topic) newMemory() *delivery.Memory {
	return delivery.NewMemory(delivery.MemoryOptions{Clock: t.b.o.Clock})
}

// publish answers at once: nothing has to become durable.
func (m *memoryTopic) publish(msgs []Message, done partition.Completion) error {
	now := m.clock()
	var bodies int64
	for i := range msgs {
		bodies += int64(len(msgs[i].Body))
	}
	base := m.log.Append(partition.AppendBatch(nil, msgs, now), int32(len(msgs)), bodies, now)
	if done != nil {
		done.Published(base, nil)
	}
	return nil
}

// attach begins a channel on the topic.
func (m *memoryTopic) attach(c *channelInUse) {
	cfg := m.t.channelConfig(c)
	cfg.MaxLag = m.maxLag
	cfg.Fresh = true
	if IsEphemeral(c.name) {
		cfg.Idle = func() { m.t.idle(c) }
	}
	c.id = m.t.b.localID()
	c.ch = delivery.NewChannel(cfg)
	lane := c.ch.AddLane(0, m.log, m.shard)
	c.lanes = []*delivery.Lane{lane}
	m.log.Attach(lane)
}

func (m *memoryTopic) detach(c *channelInUse) {
	for _, lane := range c.lanes {
		m.log.Detach(lane, fault.ChannelNotFound)
	}
}

func (m *memoryTopic) stats(s *TopicStats) {
	st := m.log.Stats()
	s.Depth, s.MessageCount, s.MessageBytes, s.LogBytes = st.Depth, st.MessageCount, st.MessageBytes, st.Bytes
	s.Paused = st.Paused
}

// emptyMemory drops all that a channel which lives in memory has been given.
func (t *Topic) emptyMemory(c *channelInUse) {
	c.laneMu.Lock()
	lanes := slices.Clone(c.lanes)
	c.laneMu.Unlock()
	for i, lane := range lanes {
		if lane == nil {
			continue
		}
		if t.mem != nil {
			t.mem.log.EmptyLane(lane)
			continue
		}
		p := t.part(i)
		p.machine.Do(partition.Empty{Key: p.key, Channel: c.id}, func(error) {})
	}
}
