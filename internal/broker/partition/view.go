package partition

import (
	"slices"

	"github.com/tidings-io/tidings/internal/seglog"
)

// PartitionView is a partition as statistics want it.
type PartitionView struct {
	Key
	Name     string
	Start    int64 // lowest offset kept for channels
	End      int64 // offset of the next message
	HandOver int64 // first offset not given to channels
	Paused   bool
	// Count is the number of partitions by which messages with keys come here, and
	// Barriers where it rose, by Count.
	Count    uint32
	Barriers []Barrier
	// MessageCount and MessageBytes (of bodies) were published while this node led,
	// since the process started; they stay when another one leads.
	MessageCount int64
	MessageBytes int64
	LogBytes     int64 // in tail and files
	Channels     []ChannelView
}

// Depth is how many messages wait because no channel has been given them.
func (p *PartitionView) Depth() int64 { return p.End - p.HandOver }

// ChannelView is a channel on one partition as statistics want it.
type ChannelView struct {
	ID        uint64
	Ephemeral bool
	Epoch     int64
	Floor     int64
	Limit     int64
	Ranges    int   // finished or parked ranges above the floor
	Parked    int64 // parked messages
	// Backlog is how many messages below the limit are neither finished nor
	// parked; those in flight are among them. An ephemeral channel's lane
	// knows its own, here it is 0.
	Backlog int64
	// Missed is how many of the messages that this node counts the partition had
	// given to channels before the process applied the creation of this one.
	Missed int64
	Lane   Lane // nil: not attached
}

// View reads the state on the shard's loop; it is valid during the Query only.
type View struct{ m *Machine }

// Sent is the last publish of a producer that is fact; zero but for the producer
// when none is.
func (v *View) Sent(producer uint64) Link {
	p := v.m.producers.get(producer)
	return Link{Producer: producer, Epoch: p.epoch, Seq: p.seq}
}

// Producers is how many producers the shard remembers.
func (v *View) Producers() int { return len(v.m.producers) }

// Session is how far a session has come on a partition; 0 where it is not known there.
func (v *View) Session(k Key, s Session) uint64 {
	if p := v.m.partitions[k]; p != nil {
		return p.ingests.next(s)
	}
	return 0
}

// Leading reports whether this node leads the shard.
func (v *View) Leading() bool { return v.m.leading }

// Shard is the shard's id.
func (v *View) Shard() uint32 { return v.m.o.Shard }

// Term is the term of this node's last leadership in this process, 0 without one.
func (v *View) Term() uint64 { return v.m.term }

// Partition returns one partition.
func (v *View) Partition(k Key) (PartitionView, bool) {
	p := v.m.partitions[k]
	if p == nil {
		return PartitionView{}, false
	}
	return p.view(), true
}

// Each calls f for all partitions, by topic and partition.
func (v *View) Each(f func(PartitionView)) {
	for _, p := range v.m.sorted {
		f(p.view())
	}
}

// Counted returns what a node that does not lead has counted of a partition while
// it did, and nothing else: where it stands is the leader's to say. False when it
// has counted nothing.
func (v *View) Counted(k Key) (PartitionView, bool) {
	p := v.m.partitions[k]
	if p == nil || p.messages == 0 {
		return PartitionView{}, false
	}
	return p.counted(), true
}

// EachCounted calls f for all partitions of which Counted has something, by topic
// and partition.
func (v *View) EachCounted(f func(PartitionView)) {
	for _, p := range v.m.sorted {
		if p.messages > 0 {
			f(p.counted())
		}
	}
}

func (p *partition) counted() PartitionView {
	v := PartitionView{Key: p.Key, Name: p.name, MessageCount: p.messages, MessageBytes: p.bytes}
	for _, c := range p.channels {
		v.Channels = append(v.Channels, ChannelView{ID: c.id, Ephemeral: c.ephemeral, Missed: c.missed})
	}
	return v
}

// Log returns a partition's log, for reading by any goroutine; nil when the
// partition is not open.
func (v *View) Log(k Key) *seglog.Log {
	if p := v.m.partitions[k]; p != nil {
		return p.log
	}
	return nil
}

// view describes the partition.
func (p *partition) view() PartitionView {
	v := PartitionView{
		Key: p.Key, Name: p.name, Start: p.start, End: p.end, HandOver: p.handOver, Paused: p.paused,
		Count: p.mapping.count, Barriers: slices.Clone(p.mapping.barriers),
		MessageCount: p.messages, MessageBytes: p.bytes, LogBytes: p.log.Bytes(),
		Channels: make([]ChannelView, 0, len(p.channels)),
	}
	for _, c := range p.channels {
		v.Channels = append(v.Channels, c.view(p.handOver))
	}
	return v
}

// view describes the channel.
func (c *channel) view(limit int64) ChannelView {
	v := ChannelView{
		ID: c.id, Ephemeral: c.ephemeral, Epoch: c.epoch, Floor: c.floor, Limit: limit, Ranges: c.ranges.Len(), Missed: c.missed,
	}
	if c.parked != nil {
		v.Parked = c.parked.Len()
	}
	if c.lane != nil {
		v.Lane = c.lane.lane
	}
	if !c.ephemeral {
		v.Backlog = max(0, limit-c.floor-c.ranges.Count())
	}
	return v
}
