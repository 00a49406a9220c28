package broker

import (
	"context"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// waitingPublish is a publish, or somebody else, waiting for a topic to be.
type waitingPublish struct {
	msgs    []Message
	bytes   int64
	done    partition.Completion
	created func(error) // instead of the rest
}

// creation is a topic on its way into metadata, with those who wait for it.
type creation struct {
	waiting []waitingPublish
	topic   *Topic // its handle, if there is one already
	late    bool   // it has a task that gives it up
	// partitions is how many it is to have; 0: as usual.
	partitions int
}

// Publish appends the messages to a partition of the topic, as one batch with
// consecutive offsets, all or none; the topic is made on first use. It does not
// wait: done is called when the batch is committed, on any goroutine, and
// must not block. Publishes of one caller to one topic keep their order. The
// messages' bytes must not change before done. An error means that nothing was
// done and done is not called: fault.Overloaded (try again), fault.DiskReserve,
// fault.Exiting, fault.InvalidTopic.
//
// With several messages the key of the first decides the partition, or its id when it
// has no key; see Publisher for those that have neither.
func (b *Broker) Publish(topic string, msgs []Message, done partition.Completion) error {
	if b.exiting.Load() {
		return fault.Exiting
	}
	if t := b.ready(topic); t != nil {
		return t.publish(msgs, done)
	}
	return b.publishFirst(topic, msgs, done)
}

// Enqueue is Publish without waking the topic's shard: the caller calls Drive
// before it waits for anything. It holds no lock that done could need.
func (b *Broker) Enqueue(topic string, msgs []Message, done partition.Completion) error {
	if b.exiting.Load() {
		return fault.Exiting
	}
	if t := b.ready(topic); t != nil {
		return t.enqueue(msgs, done)
	}
	return b.publishFirst(topic, msgs, done)
}

// Drive lets the shards of the topic go on with what was enqueued: on this
// goroutine where nothing else drives a shard, so that a lone publisher waits
// for no other goroutine, else on the shard's own. Completions may be called
// before it returns. It may take as long as a sync of the log.
func (b *Broker) Drive(topic string) {
	if t := b.find(topic); t != nil {
		t.drive()
	}
}

// publishFirst is Publish to a topic that was not there: it is made, or what is
// missing of it.
func (b *Broker) publishFirst(topic string, msgs []Message, done partition.Completion) error {
	if !ValidTopic(topic) {
		return fault.New(fault.InvalidTopic, "topic name %q is not valid", topic)
	}
	if taken, err := b.publishUnknown(topic, msgs, done); taken {
		return err
	}
	w := waitingPublish{msgs: msgs, done: done, bytes: bodyBytes(msgs)}
	b.mu.Lock()
	if t := b.findLocked(topic); t != nil && !t.unprepared.Load() {
		defer b.mu.Unlock()
		return t.publish(msgs, done)
	}
	if b.createBytes+w.bytes > b.o.MaxCreateBytes {
		b.mu.Unlock()
		return fault.New(fault.Overloaded, "too many publishes wait for the creation of their topics")
	}
	first := b.await(topic, w)
	b.mu.Unlock()
	if first {
		b.create(topic)
	}
	return nil
}

// await lines w up for the topic's creation and reports whether it is the
// first to do so, who has to call create. b.mu is held.
func (b *Broker) await(name string, w waitingPublish) (first bool) {
	b.createBytes += w.bytes
	c := b.creating[name]
	if c == nil {
		c = &creation{}
		b.creating[name] = c
		first = true
	}
	c.waiting = append(c.waiting, w)
	return first
}

// create asks for a topic that others wait for. When the name is still being
// deleted, forgotten asks again. With Peers that may take as long as a shard has no
// leader: who waits is told after a while.
func (b *Broker) create(name string) {
	if m, ok := b.o.Meta.View().Topic(name); ok && !m.Deleting && b.young(m) {
		b.prepare(m, func(t *Topic) { b.made(name, t, nil) })
		return
	}
	b.mu.RLock()
	partitions := 0
	if c := b.creating[name]; c != nil {
		partitions = c.partitions
	}
	b.mu.RUnlock()
	b.o.Meta.CreatePartitioned(name, partitions, func(m *meta.Topic, err error) {
		if err == nil && b.o.Prepare != nil {
			b.prepare(m, func(t *Topic) { b.made(name, t, nil) })
			return
		}
		if fault.CodeOf(err) != fault.Deleting {
			b.made(name, nil, err)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if c := b.creating[name]; c != nil && b.o.Peers != nil && !c.late {
			c.late = true
			b.tasks.spawn(func(ctx context.Context) { b.giveUpCreation(ctx, name, c, patience, err) })
		}
	})
}

// made ends the creation of a topic. t is its handle, if there is one already.
func (b *Broker) made(name string, t *Topic, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.creating[name]; c != nil {
		c.topic = t
	}
	b.created(name, err)
}

// giveUpCreation answers those who wait for a topic, unless it is made in time.
func (b *Broker) giveUpCreation(ctx context.Context, name string, c *creation, after time.Duration, err error) {
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		err = fault.Exiting
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.creating[name] == c {
		b.created(name, err)
	}
}

// created lets go on, in order, what waited for the topic. b.mu is held.
func (b *Broker) created(name string, err error) {
	c := b.creating[name]
	delete(b.creating, name)
	if c == nil {
		return
	}
	t := b.adopt(name, c.topic)
	if err == nil && t == nil {
		err = fault.New(fault.TopicNotFound, "topic %s was deleted again", name)
	}
	for _, w := range c.waiting {
		b.createBytes -= w.bytes
		if w.created != nil {
			w.created(err)
			continue
		}
		err := err
		if err == nil {
			err = t.publish(w.msgs, w.done)
		}
		if err != nil && w.done != nil {
			w.done.Published(0, err)
		}
	}
	if t != nil { // and not before: who comes now is behind those who waited
		t.unprepared.Store(false)
	}
}

// adopt puts the handle of a topic that has been made into the table, unless the
// topic has gone meanwhile, and finds the one that is in use. b.mu is held.
func (b *Broker) adopt(name string, t *Topic) *Topic {
	m, ok := b.o.Meta.View().Topic(name)
	if t != nil && ok && m.ID == t.id && !m.Deleting && b.topics[name] == nil {
		b.topics[name] = t
		t.catchUp()
	}
	return b.findLocked(name)
}

// forgotten begins again the creation of a name whose deletion has ended.
func (b *Broker) forgotten(name string) {
	b.mu.Lock()
	again := b.creating[name] != nil
	b.mu.Unlock()
	if again {
		b.create(name)
	}
}

// publishWait is a Completion for those who wait.
type publishWait chan error

// Published hands the outcome over.
func (w publishWait) Published(_ int64, err error) { w <- err }

// PublishWait publishes and returns when the messages are committed. When ctx
// ends first the error is fault.Timeout and the outcome unknown.
func (b *Broker) PublishWait(ctx context.Context, topic string, msgs []Message) error {
	w := make(publishWait, 1)
	if err := b.Publish(topic, msgs, w); err != nil {
		return err
	}
	return wait(ctx, w)
}
