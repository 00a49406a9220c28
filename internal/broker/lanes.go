package broker

import (
	"context"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
)

// With Peers a channel in use has lanes on the partitions that this node leads:
// those come with each beginning of a leadership, and the machine stops them at its
// end. A channel that comes into use looks for leaderships that serve; one that
// begins to serve looks for channels in use. Whichever is second attaches the lane.

// place is a channel in use on one partition.
type place struct {
	t *Topic
	c *channelInUse
	i int // of the partition
}

// attachLed attaches lanes to what this node leads already, when the channel has
// just come into use.
func (t *Topic) attachLed(ctx context.Context, c *channelInUse) {
	for i := range t.parts {
		t.b.attach(ctx, t.parts[i].up, []place{{t, c, i}}, true)
	}
}

// attach puts lanes in the places, all of one shard, that have none of the present
// leadership. fresh as in delivery.Channel.SetLane.
func (b *Broker) attach(ctx context.Context, u *upstream, places []place, fresh bool) {
	leadership := u.serving.Load()
	if leadership == 0 || len(places) == 0 {
		return
	}
	for _, x := range places { // an ephemeral channel begins anew with each leadership
		if x.c.mem != nil {
			p := &x.t.parts[x.i]
			_ = x.t.openHere(p) // then there is no log below, and no lane
			p.machine.Do(partition.CreateChannel{Key: p.key, Channel: x.c.id, Ephemeral: true}, nil)
		}
	}
	logs := make([]delivery.Log, len(places))
	p := part{machine: u.machine}
	settle := awaitCall(ctx, func(done func(error)) { u.machine.Settle(done) }) // behind what is opened
	err := p.query(ctx, func(v *partition.View) {
		for i, x := range places {
			if l := v.Log(x.t.parts[x.i].key); l != nil {
				logs[i] = l
			}
		}
	})
	if settle != nil || err != nil {
		return // this leadership is over, or the node exits
	}
	for i, x := range places {
		if logs[i] != nil {
			x.attach(leadership, logs[i], fresh)
		}
	}
}

// attach puts a lane in the place, unless it has one of that leadership.
func (x place) attach(leadership uint64, log delivery.Log, fresh bool) {
	c, p := x.c, &x.t.parts[x.i]
	c.laneMu.Lock()
	defer c.laneMu.Unlock()
	if c.attached == nil {
		c.attached, c.begun = make([]uint64, len(x.t.parts)), make([]uint64, len(x.t.parts))
		c.lanes = make([]*delivery.Lane, len(x.t.parts))
	}
	if c.ended {
		if c.mem != nil {
			p.machine.Do(partition.DropChannel{Key: p.key, Channel: c.id}, nil)
		}
		return
	}
	if c.attached[x.i] >= leadership {
		return
	}
	shard := delivery.Shard(p.machine)
	if c.mem != nil {
		shard = c.mem
	}
	lane := c.ch.SetLane(p.key.Partition, log, shard, fresh && c.fresh, true)
	c.lanes[x.i], c.attached[x.i] = lane, leadership
	c.setRemote(x.i, len(x.t.parts), remoteLeader{})
	p.machine.Attach(p.key.Topic, p.key.Partition, c.id, lane)
	if p.up.gathered.Load() == leadership {
		lane.Open() // else whoever ends the gathering does
	}
	if p.up.leadership.Load() != leadership { // it ended meanwhile
		p.up.unassigned.Store(true)
		ring(p.up.wake)
	}
}

// detachLed takes an ephemeral channel's lanes off their shards.
func (t *Topic) detachLed(c *channelInUse) {
	c.laneMu.Lock()
	defer c.laneMu.Unlock()
	c.ended = true
	for i, lane := range c.lanes {
		if p := &t.parts[i]; lane != nil {
			p.machine.Detach(lane)
			p.machine.Do(partition.DropChannel{Key: p.key, Channel: c.id}, nil)
		}
	}
}
