package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/seglog"
)

// TopicFigures is a topic's state as pages and metrics show it.
type TopicFigures struct {
	TopicStats
	ID uint64 // incarnation
	// Parts are the partitions that this node counts: those it leads, and none
	// of an ephemeral topic.
	Parts []partition.PartitionView
	// Oldest is when the oldest unfinished message of each channel was
	// published, unix ns, by the channel's place in Channels: 0 when there is
	// none, or it is not known yet. Deferred messages do not count before they
	// are due and a lane has been given them.
	Oldest []int64
}

// Figures returns the topics of a filter, by name, with what this node knows of
// them: with Peers what it leads, what it counted while it led, and what lives in
// its memory. Shards that do
// not answer before ctx ends are left out; the error names them beside the
// figures of the others.
func (b *Broker) Figures(ctx context.Context, f Filter) ([]TopicFigures, error) {
	states, err := b.unfinished(ctx, f)
	reads := maxAgeReads
	selected := b.selected(f)
	out := make([]TopicFigures, 0, len(selected))
	channels := 0
	for _, m := range selected {
		channels += len(m.Channels)
	}
	rooms := &rooms{stats: make([]ChannelStats, 0, channels), oldest: make([]int64, 0, channels)}
	for _, m := range selected {
		out = append(out, b.figuresOf(m, f, states, rooms, &reads))
	}
	if f == (Filter{}) {
		b.ages.sweep()
	}
	return out, err
}

// rooms is where the figures of channels stand, all in one piece.
type rooms struct {
	stats  []ChannelStats
	oldest []int64
}

// partState is a partition with its log, if a channel has something left there.
type partState struct {
	partition.PartitionView
	log  *seglog.Log
	past bool // this node does not lead it: it only has counts of when it did
}

func (b *Broker) figuresOf(m *meta.Topic, f Filter, states map[partition.Key]*partState, rooms *rooms, reads *int) TopicFigures {
	t := TopicFigures{ID: m.ID}
	parts := make([]*partState, 0, 4)
	var counted []partition.PartitionView
	for i := range m.Partitions {
		switch s := states[partition.Key{Topic: m.ID, Partition: int32(i)}]; {
		case s == nil:
		case s.past:
			counted = append(counted, s.PartitionView)
		default:
			parts = append(parts, s)
			t.Parts = append(t.Parts, s.PartitionView)
		}
	}
	counted = append(counted, t.Parts...)
	b.mu.RLock()
	used := b.topics[m.Name]
	b.mu.RUnlock()
	if used == nil || used.idleHere() {
		t.TopicStats = b.restingStats(m, f, used, counted, rooms)
	} else {
		views := make(map[partition.Key]partition.PartitionView, len(counted))
		for _, pv := range counted {
			views[pv.Key] = pv
		}
		t.TopicStats = b.topicStats(m, f, views)
	}
	from := len(rooms.oldest)
	for i := range t.Channels {
		rooms.oldest = append(rooms.oldest, b.oldest(m, &t.Channels[i], parts, reads))
	}
	t.Oldest = rooms.oldest[from:len(rooms.oldest):len(rooms.oldest)]
	return t
}

// idleHere says that no channel of the topic is in use in this process, and that
// the topic does not live in its memory.
func (t *Topic) idleHere() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mem == nil && len(t.channels) == 0
}

// restingStats is topicStats, without latencies, for a topic that is idle here: all
// is in the views.
func (b *Broker) restingStats(m *meta.Topic, f Filter, t *Topic, views []partition.PartitionView, rooms *rooms) TopicStats {
	s := TopicStats{ID: m.ID, Name: m.Name, Paused: m.Paused}
	if b.o.Peers != nil && !m.Ephemeral() {
		s.Ack = b.ackOf(m.Ack).String()
	}
	for i := range views {
		s.Depth += views[i].Depth()
		s.MessageCount += views[i].MessageCount
		s.MessageBytes += views[i].MessageBytes
		s.LogBytes += views[i].LogBytes
	}
	from := len(rooms.stats)
	for _, mc := range m.Channels { // by name
		if !mc.Deleting && (f.Channel == "" || f.Channel == mc.Name) {
			rooms.stats = append(rooms.stats, t.durableStats(mc, nil, views))
		}
	}
	s.Channels = rooms.stats[from:len(rooms.stats):len(rooms.stats)]
	return s
}

// unfinished asks all shards at once for their partitions, and for the logs of
// those where a channel has something left.
func (b *Broker) unfinished(ctx context.Context, f Filter) (map[partition.Key]*partState, error) {
	if f.Topic != "" {
		return b.unfinishedOf(ctx, f)
	}
	machines := b.machines.All()
	lists := make([][]partState, len(machines))
	errs := make([]error, len(machines))
	var all sync.WaitGroup
	for i, m := range machines {
		all.Go(func() {
			var list []partState
			p := part{machine: m}
			err := p.query(ctx, func(v *partition.View) {
				if b.counts(v) {
					v.Each(func(pv partition.PartitionView) { list = append(list, stateOf(v, pv)) })
					return
				}
				v.EachCounted(func(pv partition.PartitionView) { list = append(list, partState{PartitionView: pv, past: true}) })
			})
			if err != nil { // the query may still run, and owns the list
				errs[i] = fault.Wrap(fault.CodeOf(err), errShard{uint32(i + 1), err})
				return
			}
			lists[i] = list
		})
	}
	all.Wait()
	n := 0
	for _, list := range lists {
		n += len(list)
	}
	states := make(map[partition.Key]*partState, n)
	for _, list := range lists {
		for k := range list {
			states[list[k].Key] = &list[k]
		}
	}
	return states, errors.Join(errs...)
}

// unfinishedOf is unfinished for one topic.
func (b *Broker) unfinishedOf(ctx context.Context, f Filter) (map[partition.Key]*partState, error) {
	states := make(map[partition.Key]*partState)
	t := b.find(f.Topic)
	if t == nil {
		return states, nil
	}
	var errs []error
	for _, p := range t.parts() {
		s := new(partState)
		found := false
		err := p.query(ctx, func(v *partition.View) {
			if !b.counts(v) {
				s.past = true
				s.PartitionView, found = v.Counted(p.key)
			} else if pv, ok := v.Partition(p.key); ok {
				*s, found = stateOf(v, pv), true
			}
		})
		if err != nil { // the query may still run, and owns what it fills
			errs = append(errs, err)
		} else if found {
			states[p.key] = s
		}
	}
	return states, errors.Join(errs...)
}

func stateOf(v *partition.View, pv partition.PartitionView) partState {
	s := partState{PartitionView: pv}
	if unfinishedIn(&pv) {
		s.log = v.Log(pv.Key)
	}
	return s
}

// errShard is why a shard told nothing.
type errShard struct {
	shard uint32
	err   error
}

// Error names the shard.
func (e errShard) Error() string { return fmt.Sprintf("shard %d: %v", e.shard, e.err) }

// Unwrap is the reason.
func (e errShard) Unwrap() error { return e.err }

func unfinishedIn(pv *partition.PartitionView) bool {
	return slices.ContainsFunc(pv.Channels, func(c partition.ChannelView) bool { return c.Backlog > 0 })
}

// oldest is the time of the channel's oldest unfinished message.
func (b *Broker) oldest(m *meta.Topic, s *ChannelStats, parts []*partState, reads *int) int64 {
	oldest := int64(0)
	note := func(part int32, id uint64, offset int64, log delivery.Log) {
		if ns := b.ages.time(agePlace{m.ID, id, part}, offset, log, reads); ns > 0 && (oldest == 0 || ns < oldest) {
			oldest = ns
		}
	}
	if durable, ok := m.Channel(s.Name); ok {
		for _, p := range parts {
			for i := range p.Channels {
				if cv := &p.Channels[i]; cv.ID == durable.ID && cv.Backlog > 0 && p.log != nil {
					note(p.Partition, cv.ID, cv.Floor, p.log)
				}
			}
		}
	}
	if s.Depth+s.InFlight == 0 {
		return oldest
	}
	if c := b.inUse(m, s.Name); c != nil {
		for _, f := range c.ch.Fronts() {
			note(f.Partition, c.id|heldPlace, f.Offset, f.Log)
		}
	}
	return oldest
}

// heldPlace tells the place of a lane's front from that of the shard's floor.
const heldPlace = 1 << 62

// inUse is the channel if it is in use here.
func (b *Broker) inUse(m *meta.Topic, name string) *channelInUse {
	b.mu.RLock()
	t := b.topics[m.Name]
	b.mu.RUnlock()
	if t == nil || t.id != m.ID {
		return nil
	}
	return t.lookup(name)
}

// maxAgeReads bounds how many batches one call of Figures reads for the times of
// oldest messages. What is beyond keeps the time of the message that was oldest
// before, which is not later.
const maxAgeReads = 1024

// ages remembers when the oldest unfinished messages were published, so that
// only those are read that have changed.
type ages struct {
	mu    sync.Mutex
	round uint32
	known map[agePlace]*age
	last  readTime // channels of a topic often stand at the same message
}

type agePlace struct {
	topic, channel uint64
	partition      int32
}

type age struct {
	offset, ns int64
	round      uint32
}

type readTime struct {
	topic      uint64
	partition  int32
	offset, ns int64
}

// time is when the message at offset was published, unix ns; 0 when that can't
// be told.
func (a *ages) time(at agePlace, offset int64, log delivery.Log, reads *int) int64 {
	a.mu.Lock()
	known := a.known[at]
	if known != nil {
		known.round = a.round
		if known.offset == offset {
			defer a.mu.Unlock()
			return known.ns
		}
	}
	last := a.last
	a.mu.Unlock()
	if last.topic != at.topic || last.partition != at.partition || last.offset != offset {
		found := false
		if *reads > 0 {
			*reads--
			last = readTime{topic: at.topic, partition: at.partition, offset: offset}
			last.ns, found = publishedAt(log, offset)
		}
		if !found {
			if known != nil {
				return known.ns
			}
			return 0
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil {
		a.known = make(map[agePlace]*age)
	}
	a.last = last
	a.known[at] = &age{offset: offset, ns: last.ns, round: a.round}
	return last.ns
}

// sweep forgets what was not asked for since the last sweep.
func (a *ages) sweep() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for at, k := range a.known {
		if k.round != a.round {
			delete(a.known, at)
		}
	}
	a.round++
}

// publishedAt reads the time of the message at offset, or of the next one.
func publishedAt(log delivery.Log, offset int64) (int64, bool) {
	var room [4]seglog.Batch
	batches, chunk, err := log.ReadChunk(room[:0], offset, 1)
	defer chunk.Release()
	if err != nil || len(batches) == 0 {
		return 0, false
	}
	return batches[0].TimeNs + max(offset-batches[0].Base, 0), true
}
