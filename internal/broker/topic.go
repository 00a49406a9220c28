package broker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// Topic is a topic in use.
type Topic struct {
	b     *Broker
	name  string
	id    uint64 // incarnation
	codec delivery.Codec
	// layout is how publishes are spread. Who replaces it holds routing, which is
	// taken under an upstream's lock and never the other way round. entering counts
	// the publishes with a key that look at it.
	layout   atomic.Pointer[layout]
	entering atomic.Int64
	routing  sync.Mutex
	moved    func(*partition.Publish) // movedBack, once
	mem      *memoryTopic             // instead of partitions' machines, for an ephemeral topic
	ack      atomic.Uint32            // meta.Ack
	away     error                    // instead of either, for one that lives on another node, with the Raft id
	home     uint64                   // of that, 0 when it is gone
	// unprepared: another node has made it a moment ago, and the channels that it
	// is to have may not be there yet (see prepare).
	unprepared atomic.Bool

	mu       sync.Mutex
	undriven *part // top of those that something was enqueued for that no drive has set out for
	gone     error // why the topic takes nothing any more
	channels map[string]*channelInUse
	// missed is how many messages of this process's time a partition had given to
	// channels when the process made one on it, where it is more than none.
	missed map[madeOn]int64
}

// madeOn is a channel's start on a partition.
type madeOn struct {
	channel   uint64
	partition int32
}

// part is one partition of a topic.
type part struct {
	key     partition.Key
	machine *partition.Machine
	up      *upstream // nil without Peers
	opened  sync.Once
	// undriven: it is among Topic.undriven, above another. Guarded by Topic.mu.
	undriven bool
	below    *part
}

// channelInUse is a channel that has, or had, consumers in this process.
type channelInUse struct {
	name  string
	id    uint64
	ready chan struct{} // closed when the rest is set
	err   error         // why it could not be made
	ch    *delivery.Channel
	lanes []*delivery.Lane // by partition; with Peers nil where this node never led
	// before is how many messages the channel was given since the process
	// started, before it came into use here.
	before  int64
	moving  atomic.Bool // somebody moves its dead letters
	passing atomic.Bool // somebody looks at barriers where its lanes stand
	kept    atomic.Bool // somebody made it by itself: it stays without consumers

	// With Peers: lanes come and go with this node's leadership.
	laneMu   sync.Mutex       // guards lanes and the rest; held for calls that do not wait
	attached []uint64         // by partition: the leadership that its lane is of
	begun    []uint64         // the same, once the lane has begun
	remote   []remoteLeader   // by partition: the other node that leads it
	ended    bool             // no lane any more
	fresh    bool             // made by this process: what waits counts as given
	mem      *delivery.Memory // the shard of its lanes, for an ephemeral one
	// conversations are with other nodes that lead partitions, by Raft id.
	conversations map[uint64]*conversation
}

func (b *Broker) newTopic(m *meta.Topic) *Topic {
	t := &Topic{b: b, name: m.Name, id: m.ID, codec: codec(m), channels: make(map[string]*channelInUse)}
	t.layout.Store(&layout{})
	t.moved = t.movedBack
	switch {
	case m.Ephemeral() && b.o.Peers != nil && m.Boot != b.o.Meta.Node().Boot:
		t.away, t.home = b.awayFrom(m)
		return t
	case m.Ephemeral():
		t.mem = newMemoryTopic(t)
		return t
	}
	t.ack.Store(uint32(m.Ack))
	t.layout.Store(b.layoutOf(m, nil))
	return t
}

// open makes the partition known to its shard before its first use since the
// process started; what follows on the same machine comes after it. With Peers
// whoever leads the shard does it.
func (t *Topic) open(p *part) {
	if p.up != nil {
		return
	}
	p.opened.Do(func() {
		p.machine.Do(partition.Open{Key: p.key, Name: t.name, Count: t.b.bornWith(t.id)}, func(error) {})
	})
}

// publish hands a batch to one of the topic's partitions.
func (t *Topic) publish(msgs []Message, done partition.Completion) error {
	return t.publishAs(msgs, done, true)
}

// enqueue is publish without waking the shard: Broker.Drive comes next.
func (t *Topic) enqueue(msgs []Message, done partition.Completion) error {
	return t.publishAs(msgs, done, false)
}

func (t *Topic) publishAs(msgs []Message, done partition.Completion, wake bool) error {
	switch {
	case t.mem != nil:
		return t.mem.publish(msgs, done)
	case t.away != nil:
		return t.publishHome(msgs, done)
	case t.local():
		return t.b.o.Local.Publish(t.name, msgs, done)
	case hasKey(msgs):
		return t.keyed(msgs, done, wake)
	}
	return t.publishIn(t.layout.Load(), msgs, done, wake)
}

// publishIn publishes by a layout. Without wake, Broker.Drive comes next. That does not
// find a topic that was deleted meanwhile. A deletion wakes the shards after it has set
// gone, so what is enqueued before that is seen; what comes later has to wake its shard
// here.
func (t *Topic) publishIn(l *layout, msgs []Message, done partition.Completion, wake bool) error {
	p := t.b.choose(l, msgs, done)
	mapping := uint32(0)
	if hasKey(msgs) {
		mapping = uint32(l.active)
	}
	if p.up != nil {
		self, err := t.publishUp(p, msgs, done, mapping)
		switch {
		case err != nil || !self:
			return err
		case wake:
			p.machine.Wake()
			return nil
		}
	} else {
		t.open(p)
		q := &partition.Publish{
			Topic: p.key.Topic, Partition: p.key.Partition, Messages: msgs, Done: done, Mapping: mapping, Moved: t.moved,
		}
		if wake {
			return p.machine.Publish(q)
		}
		if err := p.machine.Enqueue(q); err != nil {
			return err
		}
	}
	t.enqueued(p)
	return nil
}

// enqueued notes that drive is to let the partition's shard go on, or wakes that when
// the topic is gone.
func (t *Topic) enqueued(p *part) {
	t.mu.Lock()
	gone := t.gone != nil
	if !p.undriven {
		p.undriven, p.below, t.undriven = true, t.undriven, p
	}
	t.mu.Unlock()
	if gone {
		p.machine.Wake()
	}
}

// drive lets those of the topic's shards go on that something was enqueued for:
// the work and the syncs of the others must not delay the publisher's answer.
// Who takes the mark away drives after that, so a publisher that finds it taken
// needs nothing more: its publish stood in the inbox before. They are taken one by
// one, the last one that was enqueued for first: what this publisher waits for must
// not wait for a sync that another one's drive is at.
func (t *Topic) drive() {
	for more := true; more; {
		t.mu.Lock()
		p := t.undriven
		if p == nil {
			t.mu.Unlock()
			return
		}
		t.undriven = p.below
		p.undriven, p.below = false, nil
		more = t.undriven != nil
		t.mu.Unlock()
		p.machine.Drive()
	}
}

// stop ends all deliveries of the topic.
func (t *Topic) stop(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone = err
	for _, c := range t.channels {
		select {
		case <-c.ready:
			if c.ch != nil {
				c.ch.Close(err)
			}
		default:
		}
	}
}

// forget takes the channel out of the table, unless another of its name is
// there; last says that no other is left.
func (t *Topic) forget(c *channelInUse) (mine, last bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mine = t.channels[c.name] == c; mine {
		delete(t.channels, c.name)
	}
	return mine, len(t.channels) == 0
}

// lookup is the channel if it is in use.
func (t *Topic) lookup(name string) *channelInUse {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.channels[name]
	if c == nil {
		return nil
	}
	select {
	case <-c.ready:
		if c.err != nil {
			return nil
		}
		return c
	default:
		return nil
	}
}

// ensureChannel returns the channel in use, making it where there is none.
func (t *Topic) ensureChannel(ctx context.Context, name string) (*channelInUse, error) {
	if t.away != nil && t.home == 0 {
		return nil, t.away
	}
	t.mu.Lock()
	if t.gone != nil {
		err := t.gone
		t.mu.Unlock()
		return nil, err
	}
	c := t.channels[name]
	if c == nil {
		c = &channelInUse{name: name, ready: make(chan struct{})}
		t.channels[name] = c
		t.mu.Unlock()
		// the making goes on when this caller gives up: others may wait for it
		go t.makeChannel(context.WithoutCancel(ctx), c)
	} else {
		t.mu.Unlock()
	}
	select {
	case <-c.ready:
		return c, c.err
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Timeout, ctx.Err())
	}
}

// createChannel makes a durable channel without bringing it into use: that
// comes with its first consumer, and until then it costs next to nothing.
func (t *Topic) createChannel(ctx context.Context, name string) error {
	if t.lookup(name) != nil {
		return nil
	}
	got := make(chan error, 1)
	// It goes on when this caller gives up: a channel that metadata knows, and
	// no partition, would miss what is published until its first consumer comes.
	whole := context.WithoutCancel(ctx)
	go func() {
		m, err := t.metaChannel(whole, name)
		if err == nil {
			_, err = t.start(whole, m)
		}
		if err == nil {
			err = t.stillThere(whole, m)
		}
		got <- err
	}()
	if err := wait(ctx, got); err != nil {
		return fmt.Errorf("create channel %s of topic %s: %w", name, t.name, err)
	}
	return nil
}

// started is what a channel finds on the partitions of its topic.
type started struct {
	fresh bool  // a partition did not know the channel
	given int64 // messages that it was given since the process started
}

// start commits the channel's start on every partition. It may run several times
// at once for one channel, and once more after it has failed half-way.
func (t *Topic) start(ctx context.Context, m *meta.Channel) (st started, err error) {
	t.followView()
	for _, p := range t.parts() {
		t.open(p)
		known, given, missed, err := p.channelBefore(ctx, m.ID)
		switch {
		case err != nil:
			return st, err
		case p.up != nil && p.up.leadership.Load() == 0: // what it was given is counted where it is led
		case known:
			st.given += max(given-max(missed, t.missedOn(p.key.Partition, m.ID)), 0)
		default:
			st.fresh = true
			t.miss(p.key.Partition, m.ID, given) // before anybody can find it known
		}
		if err := t.do(ctx, p, partition.CreateChannel{Key: p.key, Channel: m.ID}); err != nil {
			return st, err
		}
	}
	return st, nil
}

// miss notes how many messages a partition has given to channels that this one
// is not among. Of several who look before it is, the last one is right.
func (t *Topic) miss(partition int32, channel uint64, given int64) {
	if given == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.missed == nil {
		t.missed = make(map[madeOn]int64)
	}
	on := madeOn{channel, partition}
	t.missed[on] = max(t.missed[on], given)
}

// missedOn is how many messages of this process's time the partition had given
// to channels before the process made this one on it; 0 for a channel that was
// there before the process.
func (t *Topic) missedOn(partition int32, channel uint64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.missed[madeOn{channel, partition}]
}

// forgetMissed lets go of what miss has noted of a channel, which is deleted.
func (t *Topic) forgetMissed(channel uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.parts() {
		delete(t.missed, madeOn{channel, int32(i)})
	}
}

func (t *Topic) makeChannel(ctx context.Context, c *channelInUse) {
	var err error
	switch {
	case t.mem != nil:
		t.mem.attach(c)
	case t.away != nil:
		err = t.makeAway(ctx, c)
	case IsEphemeral(c.name):
		err = t.makeEphemeral(ctx, c)
	default:
		err = t.makeDurable(ctx, c)
	}
	switch {
	case !t.ready(c, err):
	case t.b.o.Peers == nil:
		t.addLate(ctx, c)
	default:
		t.attachLed(ctx, c)
		for i := range t.parts() {
			place{t, c, i}.assign()
		}
	}
}

// ready ends the making of a channel, and reports whether it succeeded.
func (t *Topic) ready(c *channelInUse, err error) bool {
	if t.mem != nil || IsEphemeral(c.name) {
		defer t.b.changed()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	defer close(c.ready)
	if err == nil {
		err = t.takenAway(c)
	}
	if err != nil {
		c.err = fmt.Errorf("create channel %s of topic %s: %w", c.name, t.name, err)
		delete(t.channels, c.name)
		return false
	}
	t.followMeta(c)
	if t.b.o.Peers != nil && IsEphemeral(c.name) {
		t.b.announced.note(t, c, time.Now())
	}
	return true
}

// takenAway is why a channel that was just made is none: the topic is gone, or the
// channel is marked, and who did that did not find it. t.mu is held.
func (t *Topic) takenAway(c *channelInUse) error {
	if t.gone != nil || c.id == 0 || c.id&localIDs != 0 {
		return t.gone
	}
	if mt, ok := t.b.o.Meta.View().TopicID(t.id); ok {
		if m, ok := mt.ChannelID(c.id); ok && !m.Deleting {
			return nil
		}
	}
	return fault.New(fault.ChannelNotFound, "channel %s is deleted", c.name)
}

// followMeta pauses or resumes a channel, and limits its attempts, as its metadata
// says by now: a change that was made while the channel came into use did not find
// it, and of several at once the last one here need not be the last one there. t.mu
// is held.
func (t *Topic) followMeta(c *channelInUse) {
	if mt, ok := t.b.o.Meta.View().TopicID(t.id); ok {
		if m, ok := mt.ChannelID(c.id); ok {
			c.ch.SetPaused(m.Paused)
			c.ch.SetMaxAttempts(m.MaxAttempts)
		}
	}
}

// makeDurable brings a channel that metadata knows, or is told of now, into
// use: its start is committed on every partition before it serves.
func (t *Topic) makeDurable(ctx context.Context, c *channelInUse) error {
	m, err := t.metaChannel(ctx, c.name)
	if err != nil {
		return err
	}
	c.id = m.ID
	st, err := t.start(ctx, m)
	if err != nil {
		return err
	}
	c.before = st.given
	cfg := t.channelConfig(c)
	cfg.Fresh = st.fresh
	c.ch = delivery.NewChannel(cfg)
	if t.b.o.Peers != nil {
		c.fresh = st.fresh
		return t.stillThere(ctx, m) // lanes come when the channel is ready
	}
	if err := t.addLanes(ctx, c); err != nil {
		return err
	}
	if err := t.stillThere(ctx, m); err != nil {
		c.ch.Close(err)
		return err
	}
	return nil
}

// stillThere undoes the making of a channel that was deleted meanwhile: its
// start may have come to the shards behind its end.
func (t *Topic) stillThere(ctx context.Context, m *meta.Channel) error {
	if mt, ok := t.b.o.Meta.View().TopicID(t.id); ok {
		if now, ok := mt.ChannelID(m.ID); ok && !now.Deleting {
			return nil
		}
	}
	t.forgetMissed(m.ID)
	gone := fault.New(fault.ChannelNotFound, "channel %s is deleted", m.Name)
	for _, p := range t.parts() {
		if err := t.do(ctx, p, partition.DropChannel{Key: p.key, Channel: m.ID}); err != nil && fault.CodeOf(err) != fault.TopicNotFound {
			return err
		}
	}
	return gone
}

// metaChannel makes the channel in metadata, or finds it there. One that is
// being deleted is waited for.
func (t *Topic) metaChannel(ctx context.Context, name string) (*meta.Channel, error) {
	type answer struct {
		c   *meta.Channel
		err error
	}
	for pause := deletionPoll; ; pause = min(2*pause, deletionPollMax) {
		got := make(chan answer, 1)
		t.b.o.Meta.CreateChannel(t.id, name, func(c *meta.Channel, err error) { got <- answer{c, err} })
		select {
		case a := <-got:
			if fault.CodeOf(a.err) != fault.Deleting || a.c == nil {
				return a.c, a.err
			}
		case <-ctx.Done():
			return nil, fault.Wrap(fault.Timeout, ctx.Err())
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fault.Wrap(fault.Timeout, ctx.Err())
		}
	}
}

// deletionPoll is when a name that is being deleted is asked for again at first, and
// deletionPollMax how seldom in the end: each time costs an entry of metadata, and
// with Peers it may take as long as a shard has no leader.
const (
	deletionPoll    = 5 * time.Millisecond
	deletionPollMax = 320 * time.Millisecond
)

func (t *Topic) channelConfig(c *channelInUse) delivery.Config {
	o := &t.b.o
	return delivery.Config{
		Topic: t.name, Name: c.name, Codec: t.codec, Clock: o.Clock,
		MaxConsumers: o.MaxConsumers, WaitOnDisconnect: o.WaitOnDisconnect,
		MaxRequeueDelay: o.MaxRequeueDelay, LatencyWindow: o.LatencyWindow, Logger: o.Logger, MirrorID: t.b.relays.id,
		Spent:   func() { t.spent(c) },
		Held:    func(int32, uint32) { t.held(c) },
		Emptied: func(part int32, before int64) { t.b.emptiedHere(c, part, before) },
	}
}

// channelBefore asks whether the shard knows the channel, how many messages the
// partition has given to channels since the process started, and how many of them
// before it knew this one.
func (p *part) channelBefore(ctx context.Context, id uint64) (known bool, count, missed int64, err error) {
	err = p.query(ctx, func(v *partition.View) {
		pv, ok := v.Partition(p.key)
		if !ok {
			return
		}
		count = given(&pv)
		for _, c := range pv.Channels {
			if c.ID == id {
				known, missed = true, c.Missed
			}
		}
	})
	return known, count, missed, err
}

// given is how many messages of this process's time the partition has handed
// to its channels.
func given(pv *partition.PartitionView) int64 { return max(pv.MessageCount-pv.Depth(), 0) }

func (p *part) query(ctx context.Context, f func(*partition.View)) error {
	done := make(chan struct{})
	p.machine.Query(func(v *partition.View) {
		if v != nil {
			f(v)
		}
		close(done)
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fault.Wrap(fault.Timeout, ctx.Err())
	}
}

// log is the partition's log, which the lanes read.
func (p *part) log(ctx context.Context) (log delivery.Log, err error) {
	err = p.query(ctx, func(v *partition.View) {
		if l := v.Log(p.key); l != nil {
			log = l
		}
	})
	if err == nil && log == nil {
		err = fault.New(fault.TopicNotFound, "partition is closed")
	}
	return log, err
}
