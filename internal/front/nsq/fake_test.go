package nsq

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	metadata "github.com/tidings-io/tidings/internal/meta"
)

// fakeBroker is a broker without shards: topics are logs in memory, channels
// are the real ones. Completions come from another goroutine, as a shard's do.
type fakeBroker struct {
	maxConsumers int
	// refuse makes Publish fail at once; fail makes its completion fail; hold
	// keeps completions back until it is closed. Set before use.
	refuse, fail func(topic string) error
	hold         chan struct{}
	// seen gets what is stored.
	seen func(topic string, msgs []partition.Message)

	queue chan func()

	mu     sync.Mutex
	topics map[string]*fakeTopic
	health error
	// led and shards are what StatsLed and Shards tell.
	led    []broker.Led
	shards []uint32
	calls  int // of Publish
	// deleting is how many calls of Subscribe find the channel being deleted.
	deleting int
}

type fakeTopic struct {
	name         string
	log          *delivery.MemoryLog
	shard        *delivery.Memory
	count, bytes int64
	paused       bool
	channels     map[string]*fakeChannel
}

type fakeChannel struct {
	name   string
	ch     *delivery.Channel
	lane   *delivery.Lane
	paused bool
}

func newFakeBroker() *fakeBroker {
	b := &fakeBroker{topics: map[string]*fakeTopic{}, queue: make(chan func(), 1<<16)}
	go func() { // lives as long as the test binary
		for f := range b.queue {
			f()
		}
	}()
	return b
}

func (b *fakeBroker) topic(name string) *fakeTopic {
	t := b.topics[name]
	if t == nil {
		t = &fakeTopic{
			name: name, log: delivery.NewMemoryLog(1<<20, 1<<30), channels: map[string]*fakeChannel{},
			shard: delivery.NewMemory(delivery.MemoryOptions{}),
		}
		b.topics[name] = t
	}
	return t
}

func (b *fakeBroker) Enqueue(topic string, msgs []partition.Message, done partition.Completion) error {
	return b.Publish(topic, msgs, done)
}

func (b *fakeBroker) Drive(string) {}

func (b *fakeBroker) Publish(topic string, msgs []partition.Message, done partition.Completion) error {
	if b.refuse != nil {
		if err := b.refuse(topic); err != nil {
			return err
		}
	}
	b.mu.Lock()
	b.calls++
	b.mu.Unlock()
	b.queue <- func() {
		if b.hold != nil {
			<-b.hold
		}
		if b.fail != nil {
			if err := b.fail(topic); err != nil {
				done.Published(0, err)
				return
			}
		}
		done.Published(b.append(topic, msgs), nil)
	}
	return nil
}

func (b *fakeBroker) append(topic string, msgs []partition.Message) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen != nil {
		b.seen(topic, msgs)
	}
	t := b.topic(topic)
	now := time.Now().UnixNano()
	bodies := int64(0)
	for i := range msgs {
		bodies += int64(len(msgs[i].Body))
	}
	t.bytes += bodies
	t.count += int64(len(msgs))
	return t.log.Append(partition.AppendBatch(nil, msgs, now), int32(len(msgs)), bodies, now)
}

func (b *fakeBroker) channel(topic, name string) *fakeChannel {
	t := b.topic(topic)
	c := t.channels[name]
	if c == nil {
		c = &fakeChannel{name: name, ch: delivery.NewChannel(delivery.Config{
			Topic: topic, Name: name, Codec: delivery.NewCodec(1, 1), MaxConsumers: b.maxConsumers,
		})}
		c.lane = c.ch.AddLane(0, t.log, t.shard)
		t.log.Attach(c.lane)
		t.channels[name] = c
	}
	return c
}

// fakeSubscription ends an ephemeral channel with its last consumer.
type fakeSubscription struct {
	*delivery.Subscription
	b              *fakeBroker
	topic, channel string
}

func (s *fakeSubscription) Close(abnormal bool) {
	s.Subscription.Close(abnormal)
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	t := s.b.topics[s.topic]
	if t == nil || t.channels[s.channel] == nil || !broker.IsEphemeral(s.channel) || t.channels[s.channel].ch.Stats().Consumers > 0 {
		return
	}
	t.drop(s.channel)
	if broker.IsEphemeral(s.topic) && len(t.channels) == 0 {
		delete(s.b.topics, s.topic)
	}
}

func (t *fakeTopic) drop(channel string) {
	c := t.channels[channel]
	delete(t.channels, channel)
	c.ch.Close(fault.ChannelNotFound)
	t.log.Detach(c.lane, fault.ChannelNotFound)
}

func (b *fakeBroker) Subscribe(_ context.Context, topic, channel string, o delivery.SubOptions) (Subscription, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deleting > 0 {
		b.deleting--
		return nil, fault.Deleting
	}
	s, err := b.channel(topic, channel).ch.Subscribe(o)
	if err != nil {
		return nil, err
	}
	return &fakeSubscription{s, b, topic, channel}, nil
}

func (b *fakeBroker) SetAck(context.Context, string, metadata.Ack) error { return nil }

func (b *fakeBroker) SetMaxAttempts(context.Context, string, string, int, string) error { return nil }

func (b *fakeBroker) CreateTopic(_ context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.topic(name)
	return nil
}

func (b *fakeBroker) CreatePartitioned(ctx context.Context, name string, _ int) error {
	return b.CreateTopic(ctx, name)
}

func (b *fakeBroker) RaisePartitions(context.Context, string, int) error { return nil }

func (b *fakeBroker) Layout(_ context.Context, name string) (broker.TopicPartitions, error) {
	return broker.TopicPartitions{Topic: name, Active: 1}, nil
}

// on calls f for a topic that is there.
func (b *fakeBroker) on(topic string, f func(t *fakeTopic) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[topic]
	if t == nil {
		return fault.TopicNotFound
	}
	return f(t)
}

// onChannel calls f for a channel that is there.
func (b *fakeBroker) onChannel(topic, channel string, f func(t *fakeTopic, c *fakeChannel)) error {
	return b.on(topic, func(t *fakeTopic) error {
		c := t.channels[channel]
		if c == nil {
			return fault.ChannelNotFound
		}
		f(t, c)
		return nil
	})
}

func (b *fakeBroker) DeleteTopic(_ context.Context, name string) error {
	return b.on(name, func(t *fakeTopic) error {
		for channel := range t.channels {
			t.drop(channel)
		}
		delete(b.topics, name)
		return nil
	})
}

func (b *fakeBroker) EmptyTopic(_ context.Context, name string) error {
	return b.on(name, func(t *fakeTopic) error { t.log.Empty(); return nil })
}

func (b *fakeBroker) PauseTopic(_ context.Context, name string, paused bool) error {
	return b.on(name, func(t *fakeTopic) error {
		t.paused = paused
		t.log.SetPaused(paused)
		return nil
	})
}

func (b *fakeBroker) CreateChannel(_ context.Context, topic, channel string) error {
	return b.on(topic, func(*fakeTopic) error { b.channel(topic, channel); return nil })
}

func (b *fakeBroker) DeleteChannel(_ context.Context, topic, channel string) error {
	return b.onChannel(topic, channel, func(t *fakeTopic, _ *fakeChannel) { t.drop(channel) })
}

func (b *fakeBroker) EmptyChannel(_ context.Context, topic, channel string) error {
	return b.onChannel(topic, channel, func(t *fakeTopic, c *fakeChannel) { t.log.EmptyLane(c.lane) })
}

func (b *fakeBroker) PauseChannel(_ context.Context, topic, channel string, paused bool) error {
	return b.onChannel(topic, channel, func(_ *fakeTopic, c *fakeChannel) {
		c.paused = paused
		c.ch.SetPaused(paused)
	})
}

func (b *fakeBroker) StatsLed(ctx context.Context, f broker.Filter) ([]broker.TopicStats, []broker.Led, error) {
	topics, err := b.Stats(ctx, f)
	return topics, b.led, err
}

func (b *fakeBroker) Shards(broker.Filter) []uint32 { return b.shards }

func (b *fakeBroker) Stats(_ context.Context, f broker.Filter) ([]broker.TopicStats, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []broker.TopicStats
	for name, t := range b.topics {
		if f.Topic != "" && f.Topic != name {
			continue
		}
		s := broker.TopicStats{Name: name, Depth: t.log.Stats().Depth, MessageCount: t.count, MessageBytes: t.bytes, Paused: t.paused}
		for _, c := range t.channels {
			if f.Channel != "" && f.Channel != c.name {
				continue
			}
			st := c.ch.Stats()
			s.Channels = append(s.Channels, broker.ChannelStats{
				Name: c.name, Depth: st.Depth, InFlight: st.InFlight, Deferred: st.Deferred, MessageCount: int64(st.MessageCount),
				RequeueCount: int64(st.RequeueCount), TimeoutCount: int64(st.TimeoutCount), Paused: c.paused,
			})
		}
		slices.SortFunc(s.Channels, func(a, b broker.ChannelStats) int { return cmp.Compare(a.Name, b.Name) })
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b broker.TopicStats) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func (b *fakeBroker) Health() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.health
}

// exit closes all channels, as a broker does when its node stops.
func (b *fakeBroker) exit() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.topics {
		for _, c := range t.channels {
			c.ch.Close(fault.Exiting)
		}
	}
}
