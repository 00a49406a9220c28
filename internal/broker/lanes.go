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
	for i, p := range t.parts() {
		t.b.attach(ctx, p.up, []place{{t, c, i}}, true)
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
			p := x.t.part(x.i)
			_ = x.t.openHere(p) // then there is no log below, and no lane
			p.machine.Do(partition.CreateChannel{Key: p.key, Channel: x.c.id, Ephemeral: true}, nil)
		}
	}
	logs := make([]delivery.Log, len(places))
	p := part{machine: u.machine}
	settle := awaitCall(ctx, func(done func(error)) { u.machine.Settle(done) }) // behind what is opened
	err := p.query(ctx, func(v *partition.View) {
		for i, x := range places {
			if l := v.Log(x.t.part(x.i).key); l != nil {
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
	c, p := x.c, x.t.part(x.i)
	c.laneMu.Lock()
	defer c.laneMu.Unlock()
	c.room(x.i)
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
	c.setRemote(x.i, remoteLeader{})
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
		if p := t.part(i); lane != nil {
			p.machine.Detach(lane)
			p.machine.Do(partition.DropChannel{Key: p.key, Channel: c.id}, nil)
		}
	}
}

// room makes room for what is known of partition i. c.laneMu is held.
func (c *channelInUse) room(i int) {
	if n := i + 1 - len(c.lanes); n > 0 {
		c.lanes = append(c.lanes, make([]*delivery.Lane, n)...)
		c.attached = append(c.attached, make([]uint64, n)...)
		c.begun = append(c.begun, make([]uint64, n)...)
		c.remote = append(c.remote, make([]remoteLeader, n)...)
	}
}

// addLanes gives the channel lanes on the partitions where it has none, on a node that
// is alone. One that is durable has started there; one that lives in memory starts now.
func (t *Topic) addLanes(ctx context.Context, c *channelInUse) error {
	had := len(c.lanes)
	for _, p := range t.parts()[had:] {
		shard := delivery.Shard(p.machine)
		if c.mem != nil {
			shard = c.mem
			create := partition.CreateChannel{Key: p.key, Channel: c.id, Ephemeral: true}
			if had > 0 { // the partition is new
				create.From.Where = partition.AtStart
			}
			t.open(p)
			if err := t.do(ctx, p, create); err != nil {
				return err
			}
		}
		log, err := p.log(ctx)
		if err != nil {
			return err
		}
		lane := c.ch.AddLane(p.key.Partition, log, shard)
		c.laneMu.Lock()
		c.lanes = append(c.lanes, lane)
		c.laneMu.Unlock()
		p.machine.Attach(p.key.Topic, p.key.Partition, c.id, lane)
	}
	return nil
}

// addLate is addLanes for partitions that have come while the channel came into use.
func (t *Topic) addLate(ctx context.Context, c *channelInUse) {
	if t.mem != nil || t.away != nil {
		return
	}
	t.b.raising.Lock()
	defer t.b.raising.Unlock()
	if err := t.addLanes(ctx, c); err != nil && c.ch.Err() == nil {
		t.b.o.Logger.Warn("consume from new partitions", "topic", t.name, "channel", c.name, "error", err)
	}
}
