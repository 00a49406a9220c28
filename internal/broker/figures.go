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
// them: with Peers what it leads, and what lives in its memory. Shards that do
// not answer before ctx ends are left out; the error names them beside the
// figures of the others.
func (b *Broker) Figures(ctx context.Context, f Filter) ([]TopicFigures, error) {
	states, logs, err := b.unfinished(ctx, f)
	reads := maxAgeReads
	selected := b.selected(f)
	out := make([]TopicFigures, 0, len(selected))
	for _, m := range selected {
		t := TopicFigures{TopicStats: b.topicStats(m, f, states), ID: m.ID}
		for i := range m.Partitions {
			if pv, ok := states[partition.Key{Topic: m.ID, Partition: int32(i)}]; ok {
				t.Parts = append(t.Parts, pv)
			}
		}
		t.Oldest = make([]int64, len(t.Channels))
		for i := range t.Channels {
			t.Oldest[i] = b.oldest(m, &t, &t.Channels[i], logs, &reads)
		}
		out = append(out, t)
	}
	if f == (Filter{}) {
		b.ages.sweep()
	}
	return out, err
}

// unfinished asks all shards at once for their partitions, and for the logs of
// those where a channel has something left.
func (b *Broker) unfinished(ctx context.Context, f Filter) (map[partition.Key]partition.PartitionView, map[partition.Key]*seglog.Log, error) {
	states := make(map[partition.Key]partition.PartitionView)
	logs := make(map[partition.Key]*seglog.Log)
	if f.Topic != "" {
		err := b.partitionViews(ctx, f, states)
		for k, pv := range states {
			if unfinishedIn(&pv) {
				p := part{key: k, machine: b.machineOf(k)}
				if p.machine == nil {
					continue
				}
				err = errors.Join(err, p.query(ctx, func(v *partition.View) { logs[k] = v.Log(k) }))
			}
		}
		return states, logs, err
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	errs := make([]error, len(b.o.Machines))
	for i, m := range b.o.Machines {
		all.Go(func() {
			var list []partition.PartitionView
			var found []*seglog.Log
			p := part{machine: m}
			if errs[i] = p.query(ctx, func(v *partition.View) {
				if !b.counts(v) {
					return
				}
				v.Each(func(pv partition.PartitionView) {
					var log *seglog.Log
					if unfinishedIn(&pv) {
						log = v.Log(pv.Key)
					}
					list, found = append(list, pv), append(found, log)
				})
			}); errs[i] != nil { // the query may still run, and owns the lists
				errs[i] = fault.Wrap(fault.CodeOf(errs[i]), errShard{uint32(i + 1), errs[i]})
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for k := range list {
				states[list[k].Key] = list[k]
				if found[k] != nil {
					logs[list[k].Key] = found[k]
				}
			}
		})
	}
	all.Wait()
	return states, logs, errors.Join(errs...)
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

// machineOf finds the shard of a partition by metadata; nil when it is gone.
func (b *Broker) machineOf(k partition.Key) *partition.Machine {
	m, ok := b.o.Meta.View().TopicID(k.Topic)
	if !ok || int(k.Partition) >= len(m.Partitions) {
		return nil
	}
	return b.machine(m.Partitions[k.Partition])
}

func unfinishedIn(pv *partition.PartitionView) bool {
	return slices.ContainsFunc(pv.Channels, func(c partition.ChannelView) bool { return c.Backlog > 0 })
}

// oldest is the time of the channel's oldest unfinished message.
func (b *Broker) oldest(m *meta.Topic, t *TopicFigures, s *ChannelStats, logs map[partition.Key]*seglog.Log, reads *int) int64 {
	oldest := int64(0)
	note := func(part int32, id uint64, offset int64, log delivery.Log) {
		if ns := b.ages.time(agePlace{m.ID, id, part}, offset, log, reads); ns > 0 && (oldest == 0 || ns < oldest) {
			oldest = ns
		}
	}
	durable, ok := m.Channel(s.Name)
	if ok {
		for i := range t.Parts {
			for _, cv := range t.Parts[i].Channels {
				if cv.ID == durable.ID && cv.Backlog > 0 && logs[t.Parts[i].Key] != nil {
					note(t.Parts[i].Partition, cv.ID, cv.Floor, logs[t.Parts[i].Key])
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
	known map[agePlace]age
}

type agePlace struct {
	topic, channel uint64
	partition      int32
}

type age struct {
	offset, ns int64
	round      uint32
}

// time is when the message at offset was published, unix ns; 0 when that can't
// be told.
func (a *ages) time(at agePlace, offset int64, log delivery.Log, reads *int) int64 {
	a.mu.Lock()
	known, ok := a.known[at]
	a.mu.Unlock()
	if !ok || known.offset != offset {
		if *reads > 0 {
			*reads--
			if ns, found := publishedAt(log, offset); found {
				known.offset, known.ns, ok = offset, ns, true
			}
		}
		if !ok {
			return 0
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	known.round = a.round
	if a.known == nil {
		a.known = make(map[agePlace]age)
	}
	a.known[at] = known
	return known.ns
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
