package broker

import (
	"testing"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/meta"
)

// TestStatsWhileAChannelComesIntoUse: from the making of its lane to the moment
// when that begins a channel shows what the shard knows of it, and the same after.
func TestStatsWhileAChannelComesIntoUse(t *testing.T) {
	for _, fresh := range []bool{false, true} {
		x := newBells(2)
		c := &channelInUse{name: "audit", id: 5}
		c.ch = delivery.NewChannel(delivery.Config{Topic: "orders", Name: "audit", Fresh: fresh})
		if !fresh {
			c.before = 70
		}
		views := make([]partition.PartitionView, 2)
		for i := range views {
			views[i].Key = x.topic.part(i).key
			views[i].Channels = []partition.ChannelView{{ID: 4, Backlog: 1}, {ID: 5, Backlog: int64(50 - 30*i)}}
		}
		check := func(when string) {
			t.Helper()
			s := x.topic.durableStats(&meta.Channel{ID: 5, Name: "audit"}, c, views)
			if s.Depth != 70 || s.MessageCount != 70 {
				t.Errorf("fresh %v, %s: depth %d, %d messages", fresh, when, s.Depth, s.MessageCount)
			}
		}
		var lanes []*delivery.Lane
		for _, p := range x.topic.parts() {
			lanes = append(lanes, c.ch.AddLane(p.key.Partition, nil, p.machine))
		}
		check("before the lanes begin")
		lanes[0].Begin(partition.Start{Floor: 10, Limit: 60})
		check("when one has begun")
		lanes[1].Begin(partition.Start{Limit: 20})
		check("when both have begun")
	}
}
