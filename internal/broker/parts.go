package broker

import (
	"context"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/record"
)

// layout is the partitions of a topic as publishes go by them; immutable, but for
// what the parts themselves hold. An ephemeral topic has none.
type layout struct {
	parts []*part
	// active is how many of them, from the first on, take publishes.
	active int
	// rerouting has publishes with keys wait; nil: they need not.
	rerouting *rerouting
}

// parts are the partitions of the topic; their number may rise at any time.
func (t *Topic) parts() []*part { return t.layout.Load().parts }

// part is the partition with that number, nil when this node knows of none.
func (t *Topic) part(n int) *part {
	if parts := t.parts(); n >= 0 && n < len(parts) {
		return parts[n]
	}
	return nil
}

// layoutOf extends parts to what metadata says of the topic.
func (b *Broker) layoutOf(m *meta.Topic, parts []*part) *layout {
	parts = slices.Clip(parts)
	for i := len(parts); i < len(m.Partitions); i++ {
		shard := m.Partitions[i]
		parts = append(parts, &part{
			key:     partition.Key{Topic: m.ID, Partition: int32(i)},
			machine: b.machine(shard), up: b.upstream(shard),
		})
	}
	return &layout{parts: parts, active: m.Active}
}

// Publisher is a Completion that says who publishes: what has neither key nor id goes
// to the same partition for all publishes of one, as long as that has a leader and
// their number is the same, and so keeps its order. Numbers that follow each other go
// to partitions that do.
type Publisher interface {
	partition.Completion
	Publisher() uint64
}

// routeOf is what decides on the partition of a batch: the key of its first message,
// its id when there is only that; nil: nothing does.
func routeOf(msgs []Message) []byte {
	if len(msgs) == 0 {
		return nil
	}
	if msgs[0].Key != nil {
		return msgs[0].Key
	}
	return msgs[0].ID
}

// hasKey reports whether the order of a batch's key matters.
func hasKey(msgs []Message) bool { return len(msgs) > 0 && msgs[0].Key != nil }

// bornWith is the number of partitions with which a topic was made, while that is as
// many as it has; 0: it is not, or this node does not know the topic.
func (b *Broker) bornWith(topic uint64) uint32 {
	if m, ok := b.o.Meta.View().TopicID(topic); ok && len(m.Raised) == 0 {
		return uint32(len(m.Partitions))
	}
	return 0
}

// choose is the partition for a batch: by the hash of its key or id as Kafka's clients do
// it, else the publisher's.
func (b *Broker) choose(l *layout, msgs []Message, done partition.Completion) *part {
	if l.active == 1 {
		return l.parts[0]
	}
	if route := routeOf(msgs); route != nil {
		return l.parts[int(record.Murmur2(route)&0x7fffffff)%l.active]
	}
	who := b.o.Boot // not the same on all nodes
	if p, ok := done.(Publisher); ok {
		who += p.Publisher()
	}
	return l.anyPart(int(who % uint64(l.active)))
}

// anyPart is the partition with that number, or the next after it that has a leader.
func (l *layout) anyPart(first int) *part {
	for i := range l.active {
		if p := l.parts[(first+i)%l.active]; p.up == nil || p.up.hopeful() {
			return p
		}
	}
	return l.parts[first]
}

// TopicPartitions are the partitions of a topic.
type TopicPartitions struct {
	Topic string `json:"topic"`
	// Active is how many of them, from the first on, messages are published to: all,
	// unless their number is being raised.
	Active     int              `json:"active"`
	Partitions []PartitionPlace `json:"partitions"` // by number
}

// PartitionPlace is where a partition is.
type PartitionPlace struct {
	Partition int    `json:"partition"`
	Shard     uint32 `json:"shard"`
	Leader    string `json:"leader"` // name of the node; empty: none is known
}

// Layout tells where the partitions of a topic are; of an ephemeral topic there are
// none. fault.TopicNotFound.
func (b *Broker) Layout(ctx context.Context, topic string) (TopicPartitions, error) {
	t, err := b.existing(ctx, topic)
	if err != nil {
		return TopicPartitions{}, err
	}
	view := b.o.Meta.View()
	m, ok := view.TopicID(t.id)
	if !ok {
		return TopicPartitions{}, fault.New(fault.TopicNotFound, "topic %s not found", topic)
	}
	out := TopicPartitions{Topic: topic, Active: m.Active, Partitions: make([]PartitionPlace, len(m.Partitions))}
	for i, shard := range m.Partitions {
		leader := b.o.Meta.Node()
		if b.o.Peers != nil {
			id, self := b.o.Peers.Leader(shard)
			if !self {
				leader, _ = view.Node(id)
			}
		}
		out.Partitions[i] = PartitionPlace{Partition: i, Shard: shard, Leader: leader.Name}
	}
	return out, nil
}
