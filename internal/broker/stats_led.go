package broker

import (
	"cmp"
	"context"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/partition"
)

// Led is a shard that this node led, in a term, when it told where the shard's
// partitions stand.
type Led struct {
	Shard uint32 `json:"shard"`
	Term  uint64 `json:"term"`
}

// ledTries is how often StatsLed begins anew because leaders moved meanwhile.
const ledTries = 5

// StatsLed is Stats, with the shards of the filter's topics that this node led while
// it looked, by shard: whoever adds up what several nodes tell sees from it whether
// each shard was counted once. Without Peers none is named.
func (b *Broker) StatsLed(ctx context.Context, f Filter) ([]TopicStats, []Led, error) {
	for try := 1; ; try++ {
		before := b.leaderships()
		states := make(map[partition.Key]partition.PartitionView)
		led := make(map[uint32]uint64)
		if err := b.partitionViews(ctx, f, states, led); err != nil {
			return nil, nil, err
		}
		var out []TopicStats
		for _, m := range b.selected(f) {
			out = append(out, b.topicStats(m, f, states))
		}
		if try < ledTries && !slices.Equal(before, b.leaderships()) {
			continue // what is local may be of another moment than what is replicated
		}
		if b.o.Peers == nil {
			return out, nil, nil
		}
		list := make([]Led, 0, len(led))
		for shard, term := range led {
			list = append(list, Led{shard, term})
		}
		slices.SortFunc(list, func(a, b Led) int { return cmp.Compare(a.Shard, b.Shard) })
		return out, list, nil
	}
}

// Shards lists the shards that carry the durable topics of a filter, rising: all of
// the cluster without a topic.
func (b *Broker) Shards(f Filter) (ids []uint32) {
	view := b.o.Meta.View()
	if f.Topic == "" {
		for _, s := range view.Shards {
			ids = append(ids, s.ID)
		}
		return ids
	}
	if m, ok := view.Topic(f.Topic); ok && !m.Deleting {
		ids = slices.Compact(slices.Sorted(slices.Values(m.Partitions)))
	}
	return ids
}

// leaderships are those of this node at this moment, by shard.
func (b *Broker) leaderships() []uint64 {
	if b.o.Peers == nil {
		return nil
	}
	all := b.upstreams.All()
	out := make([]uint64, len(all))
	for i, u := range all {
		out[i] = u.leadership.Load()
	}
	return out
}
