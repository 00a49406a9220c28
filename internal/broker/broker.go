// Package broker is topics and channels as the fronts see them: publish a
// batch, open a subscription, create, delete, pause and empty, query the state.
// It knows no protocol, no socket and no file.
//
// It joins what its sub-packages keep apart: metadata decides which topics and
// channels exist (meta), the shards decide positions (partition), and the
// channels deliver what is committed (delivery).
//
// Locks: Broker.mu guards the table of topics, Topic.mu a topic's channels;
// both are held only for look-ups and for calls that put something into an
// inbox, never across a wait. Broker.mu comes before Topic.mu.
package broker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/grow"
	"github.com/tidings-io/tidings/internal/meta"
)

// Message is one message to publish.
type Message = partition.Message

// Options of a Broker. Zero values mean the default beside the field.
type Options struct {
	Meta     *meta.Machine
	Machines []*partition.Machine // data shards 1, 2, …, in order

	// Peers reach the leaders of shards on other nodes; nil: this node leads all.
	Peers Peers
	// Boot is this process among those that publish to a shard, with Peers: its
	// boot id, not 0.
	Boot uint64

	// Ack is when publishes to topics that say nothing about it are acknowledged;
	// AckDefault means AckQuorum. It counts with Peers only.
	Ack meta.Ack
	// Local keeps what topics with meta.AckLocal are given, and brings it to the cluster
	// (Forward); nil: they are like any other.
	Local Local

	MaxConsumers     int           // per channel; 0: no limit
	MemQueueSize     int           // waiting messages of an ephemeral topic or channel; 10,000
	WaitOnDisconnect bool          // nsqd's way: a lost consumer's messages wait for their timeout
	MaxRequeueDelay  time.Duration // longer delays of REQ are clamped; 1 h
	LatencyWindow    time.Duration // of the time from publish to FIN; 0: not measured
	MaxCreateBytes   int64         // of publishes that wait for their topic's creation, all together; 32 MiB
	Clock            func() int64  // unix ns; default the system's
	// Health says why the node can't take publishes; nil while it can.
	Health func() error
	// Prepare is asked which channels a topic that is being made is to have, and
	// calls done once with their names, on any goroutine; publishes to the topic
	// wait for it. It must not block. Nil: none.
	Prepare func(topic string, done func(channels []string))
	// Changed is called when a channel that lives in memory only has come or
	// gone; what metadata knows is told by its Watch. It must not block.
	Changed func()
	Logger  *slog.Logger
}

func (o *Options) fill() {
	if o.MemQueueSize <= 0 {
		o.MemQueueSize = 10000
	}
	if o.MaxRequeueDelay <= 0 {
		o.MaxRequeueDelay = time.Hour
	}
	if o.MaxCreateBytes <= 0 {
		o.MaxCreateBytes = 32 << 20
	}
	if o.Clock == nil {
		o.Clock = func() int64 { return time.Now().UnixNano() }
	}
	if o.Health == nil {
		o.Health = func() error { return nil }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Broker is the node's topics and channels. Its methods may be called from any
// goroutine once Recover has returned.
type Broker struct {
	o Options

	mu       sync.RWMutex
	topics   map[string]*Topic    // in use since the start; the rest is in meta only
	creating map[string]*creation // publishes that wait for their topic

	createBytes int64 // of the publishes in creating

	machines  grow.List[*partition.Machine] // by shard, from 1 on
	upstreams grow.List[*upstream]          // the same; none without Peers
	began     time.Time
	tasks     tasks
	relays    *relays // towards other nodes
	mirrors   mirrors // of their consumers

	announced announced // ephemeral channels

	markPatience, announcedFor time.Duration // see the constants

	lastLocal atomic.Uint64 // last id given to something that lives in memory only
	exiting   atomic.Bool

	raising sync.Mutex // without Peers: held by who raises partitions

	ages ages // of oldest messages, see Figures

	deleted deletions // by other nodes
}

// New makes a broker; Recover makes it ready.
func New(o Options) *Broker {
	o.fill()
	b := &Broker{o: o, topics: make(map[string]*Topic), creating: make(map[string]*creation), began: time.Now(), markPatience: markPatience, announcedFor: announcedFor}
	b.relays = newRelays(b)
	b.mirrors = mirrors{b: b, nodes: make(map[uint64]*mirrorNode), former: make(map[uint64]uint64)}
	for _, m := range o.Machines {
		b.AddShard(m)
	}
	return b
}

// AddShard takes on the shard behind the last one: its partition machine, whose group
// does not run yet. It is called before metadata shows a topic on the shard, by one
// goroutine at a time.
func (b *Broker) AddShard(m *partition.Machine) {
	if b.o.Peers != nil {
		u := b.newUpstream(uint32(b.machines.Len())+1, m)
		b.upstreams.Add(u)
		b.tasks.spawn(func(ctx context.Context) { u.pump(ctx) })
		b.tasks.spawn(func(ctx context.Context) { u.follow(ctx) })
	}
	b.machines.Add(m)
}

// localID is an id for a topic or channel that lives in memory only. Its top
// bit keeps it apart from those that metadata gives.
func (b *Broker) localID() uint64 { return b.lastLocal.Add(1) | localIDs }

const localIDs = 1 << 63

// Health is nil, or why the node can't take publishes.
func (b *Broker) Health() error { return b.o.Health() }

// find returns the topic's handle, making it from metadata when this is its
// first use; nil when there is no such topic, or publishes still wait for its
// creation: those come first.
func (b *Broker) find(name string) *Topic {
	b.mu.RLock()
	t := b.topics[name]
	b.mu.RUnlock()
	if t != nil {
		return t
	}
	if _, ok := b.o.Meta.View().Topic(name); !ok {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.findLocked(name)
}

func (b *Broker) findLocked(name string) *Topic {
	if t := b.topics[name]; t != nil {
		return t
	}
	m, ok := b.o.Meta.View().Topic(name)
	if !ok || m.Deleting || b.creating[name] != nil {
		return nil
	}
	t := b.newTopic(m)
	t.unprepared.Store(b.young(m))
	b.topics[name] = t
	t.catchUp()
	return t
}

// ready returns the topic if it is there and has the channels that it is to have
// from its beginning.
func (b *Broker) ready(name string) *Topic {
	if t := b.find(name); t != nil && !t.unprepared.Load() {
		return t
	}
	return nil
}

// machine is the shard that holds a partition.
func (b *Broker) machine(shard uint32) *partition.Machine { return b.machines.All()[shard-1] }

// ensureTopic returns the topic, creating it when there is none, with a number of
// partitions; 0: as usual.
func (b *Broker) ensureTopic(ctx context.Context, name string, partitions int) (*Topic, error) {
	if t := b.ready(name); t != nil {
		return t, nil
	}
	if !ValidTopic(name) {
		return nil, fault.New(fault.InvalidTopic, "topic name %q is not valid", name)
	}
	got := make(chan error, 1)
	b.mu.Lock()
	first := b.await(name, waitingPublish{created: func(err error) { got <- err }})
	if c := b.creating[name]; c.partitions == 0 {
		c.partitions = partitions
	}
	b.mu.Unlock()
	if first {
		b.create(name)
	}
	if err := wait(ctx, got); err != nil {
		return nil, fmt.Errorf("create topic %s: %w", name, err)
	}
	if t := b.find(name); t != nil {
		return t, nil
	}
	return nil, fault.New(fault.Deleting, "topic %s is being deleted", name)
}

// wait returns what comes out of got, or a timeout when ctx ends first.
func wait(ctx context.Context, got <-chan error) error {
	select {
	case err := <-got:
		return err
	case <-ctx.Done():
		return fault.Wrap(fault.Timeout, ctx.Err())
	}
}

// do has a command done on the partition and waits until it is fact.
func (t *Topic) do(ctx context.Context, p *part, c partition.Command) error {
	if p.up != nil {
		return p.up.order(ctx, t.name, c)
	}
	got := make(chan error, 1)
	p.machine.Do(c, func(err error) { got <- err })
	return wait(ctx, got)
}

// give has a command done on the partition; done is told when it is fact.
func (t *Topic) give(p *part, c partition.Command, done func(error)) {
	if p.up == nil {
		p.machine.Do(c, done)
		return
	}
	t.b.tasks.spawn(func(ctx context.Context) { done(p.up.order(ctx, t.name, c)) })
}

// awaitCall runs a call that answers through a callback, and waits for it.
func awaitCall(ctx context.Context, call func(done func(error))) error {
	got := make(chan error, 1)
	call(func(err error) { got <- err })
	return wait(ctx, got)
}

// Exit makes every further publish, creation and subscription fail with
// fault.Exiting, and closes all channels: nothing is delivered any more, but
// FIN, REQ and TOUCH are still taken.
func (b *Broker) Exit() {
	b.exiting.Store(true)
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, t := range b.topics {
		t.stop(fault.Exiting)
	}
}

// Settle waits until every answer (FIN, REQ) given so far is durable. With Peers it
// passes over shards that another node leads.
func (b *Broker) Settle(ctx context.Context) error {
	if b.o.Peers != nil {
		b.relayRest(ctx)
	}
	for _, m := range b.machines.All() {
		err := awaitCall(ctx, func(done func(error)) { m.Settle(done) })
		if err != nil && (b.o.Peers == nil || fault.CodeOf(err) != fault.NotLeader) {
			return fmt.Errorf("settle deliveries: %w", err)
		}
	}
	return nil
}

// codec makes the ids of a topic's messages.
func codec(t *meta.Topic) delivery.Codec { return delivery.NewCodec(t.Seed, t.ID) }
