package broker

import (
	"context"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

const (
	// markPatience is how long who marked a topic or channel as deleted has for
	// bringing that to its end, before the leader of metadata does it.
	markPatience = 10 * time.Second
	// markLook is how often it looks for such marks, while there are any.
	markLook = time.Second
)

// watch follows what other nodes do to topics and channels: those that go take
// their consumers here with them, pauses take effect, and the shards that this node
// leads are told, in case that who did it can't. It owns what it knows of marks.
type watch struct {
	b     *Broker
	seen  *meta.View
	marks map[uint64]*mark // by topic or channel id
	// raises are the topics that are being raised; true: this node is at it.
	raises map[uint64]bool
}

// mark is a deletion that has not come to its end.
type mark struct {
	topic   uint64
	channel uint64 // 0: the topic itself
	since   time.Time
	busy    bool // it is being finished here
}

func (b *Broker) watchMeta(ctx context.Context) {
	w := &watch{b: b, seen: &meta.View{}, marks: make(map[uint64]*mark), raises: make(map[uint64]bool)}
	changed := make(chan struct{}, 1)
	b.o.Meta.Watch(func(_, _ *meta.View) { ring(changed) })
	finished, raised := make(chan uint64), make(chan uint64)
	var look <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			now := b.o.Meta.View()
			meta.Diff(w.seen, now, w.differs)
			w.seen = now
			w.b.deleted.follow(now.Index)
			w.raise(ctx, raised)
		case id := <-finished:
			if m := w.marks[id]; m != nil {
				m.busy = false
			}
		case id := <-raised:
			if _, ok := w.raises[id]; ok {
				w.raises[id] = false
			}
		case <-look:
			w.finish(ctx, finished)
			w.raise(ctx, raised)
			look = nil
		}
		if len(w.marks)+len(w.raises) == 0 {
			look = nil
		} else if look == nil {
			look = time.After(markLook)
		}
	}
}

// differs takes one topic that is not as it was.
func (w *watch) differs(before, after *meta.Topic) {
	switch {
	case after == nil:
		if !before.Deleting {
			w.b.deleted.note(before.ID, before.Name, "")
		}
		delete(w.marks, before.ID)
		delete(w.raises, before.ID)
		for _, c := range before.Channels {
			delete(w.marks, c.ID)
		}
		w.b.topicGone(before)
		w.b.forgotten(before.Name)
		return
	case before == nil:
		before = &meta.Topic{ID: after.ID, Name: after.Name}
	}
	if after.Deleting {
		if !before.Deleting {
			w.marks[after.ID] = &mark{topic: after.ID, since: time.Now()}
			w.b.deleted.note(after.ID, after.Name, "")
			w.b.topicGone(after)
		}
		delete(w.raises, after.ID)
		return
	}
	w.b.mu.RLock()
	t := w.b.topics[after.Name]
	w.b.mu.RUnlock()
	if t != nil && t.id != after.ID {
		t = nil
	}
	if t != nil {
		t.ack.Store(uint32(after.Ack))
	}
	w.partitions(t, before, after)
	if before.Paused != after.Paused {
		w.b.topicPaused(t, after)
	}
	w.channels(t, before, after)
}

// channels looks for those that are gone, marked, paused or resumed.
func (w *watch) channels(t *Topic, before, after *meta.Topic) {
	for _, was := range before.Channels {
		if _, ok := after.ChannelID(was.ID); !ok {
			if !was.Deleting {
				w.b.deleted.note(was.ID, after.Name, was.Name)
			}
			delete(w.marks, was.ID)
			w.b.channelGone(t, after, was)
		}
	}
	for _, is := range after.Channels {
		was, ok := before.ChannelID(is.ID)
		if ok && *was == *is {
			continue
		}
		if is.Deleting {
			if !ok || !was.Deleting {
				w.marks[is.ID] = &mark{topic: after.ID, channel: is.ID, since: time.Now()}
				w.b.deleted.note(is.ID, after.Name, is.Name)
				w.b.channelGone(t, after, is)
			}
			continue
		}
		if t == nil {
			continue
		}
		if c := t.lookup(is.Name); c != nil && c.id == is.ID {
			t.mu.Lock()
			t.followMeta(c)
			t.mu.Unlock()
		}
	}
}

// led calls f for the partitions of a topic that this node leads.
func (b *Broker) led(m *meta.Topic, f func(u *upstream, k partition.Key)) {
	for i, shard := range m.Partitions {
		if u := b.upstream(shard); u != nil && u.leadership.Load() != 0 {
			f(u, partition.Key{Topic: m.ID, Partition: int32(i)})
		}
	}
}

// topicGone ends the use of a topic that is deleted, or marked.
func (b *Broker) topicGone(m *meta.Topic) {
	b.mu.Lock()
	t := b.topics[m.Name]
	if t != nil && t.id == m.ID {
		delete(b.topics, m.Name)
	} else {
		t = nil
	}
	b.mu.Unlock()
	if t != nil {
		t.stop(fault.New(fault.TopicNotFound, "topic %s is deleted", m.Name))
	}
	b.led(m, func(u *upstream, k partition.Key) { u.machine.Do(partition.Close{Key: k}, nil) })
}

// topicPaused stops or resumes the hand-over. t is nil when the topic is not in use.
func (b *Broker) topicPaused(t *Topic, m *meta.Topic) {
	if t != nil && t.mem != nil {
		t.mem.log.SetPaused(m.Paused)
	}
	b.led(m, func(u *upstream, k partition.Key) {
		u.machine.Do(partition.PauseTopic{Key: k, Paused: m.Paused}, nil)
	})
}

// channelGone ends the use of a channel that is deleted, or marked. t is nil when
// its topic is not in use.
func (b *Broker) channelGone(t *Topic, mt *meta.Topic, m *meta.Channel) {
	if t != nil {
		if c := t.lookup(m.Name); c != nil && c.id == m.ID {
			t.forget(c)
			c.ch.Close(fault.New(fault.ChannelNotFound, "channel %s is deleted", m.Name))
		}
		t.forgetMissed(m.ID)
	}
	b.led(mt, func(u *upstream, k partition.Key) {
		u.machine.Do(partition.DropChannel{Key: k, Channel: m.ID}, nil)
	})
}

// finish brings deletions to their end whose author has not, if this node leads
// metadata.
func (w *watch) finish(ctx context.Context, finished chan<- uint64) {
	if _, self := w.b.o.Peers.Leader(meta.GroupID); !self {
		return
	}
	for id, m := range w.marks {
		if m.busy || time.Since(m.since) < w.b.markPatience {
			continue
		}
		mt, ok := w.seen.TopicID(m.topic)
		if !ok || mt.Ephemeral() && m.channel != 0 {
			continue
		}
		m.busy = true
		w.b.tasks.spawn(func(context.Context) {
			err := awaitCall(ctx, func(done func(error)) { w.b.finishMark(mt, m.channel, done) })
			if err != nil && ctx.Err() == nil {
				w.b.o.Logger.Warn("finish deletion", "topic", mt.Name, "channel", m.channel, "error", err)
			}
			select {
			case finished <- id:
			case <-ctx.Done():
			}
		})
	}
}

// finishMark ends the deletion of a topic, or of one of its channels.
func (b *Broker) finishMark(mt *meta.Topic, channel uint64, done func(error)) {
	t := b.newTopic(mt)
	if channel == 0 {
		b.closeTopic(t, done)
		return
	}
	c, ok := mt.ChannelID(channel)
	if !ok {
		done(nil)
		return
	}
	t.closeChannel(c, done)
}

// partitions looks whether their number is being raised, or has been. t is nil when
// the topic is not in use.
func (w *watch) partitions(t *Topic, before, after *meta.Topic) {
	if after.Raising() {
		if _, ok := w.raises[after.ID]; !ok {
			w.raises[after.ID] = false
		}
		if t != nil {
			t.follow(after)
		}
	} else {
		delete(w.raises, after.ID)
	}
	if before.Active < after.Active && len(after.Raised) > 0 {
		w.b.active(t, after)
	}
}

// raise brings raises to their end, if this node leads metadata. Of one that fails, or
// whose leader of metadata dies, more is heard when it is looked again.
func (w *watch) raise(ctx context.Context, raised chan<- uint64) {
	if len(w.raises) == 0 {
		return
	}
	if _, self := w.b.o.Peers.Leader(meta.GroupID); !self {
		return
	}
	for id, busy := range w.raises {
		m, ok := w.seen.TopicID(id)
		if busy || !ok {
			continue
		}
		w.raises[id] = true
		w.b.tasks.spawn(func(context.Context) {
			if err := w.b.finishRaise(ctx, w.b.newTopic(m)); err != nil && ctx.Err() == nil {
				w.b.o.Logger.Warn("raise partitions", "topic", m.Name, "error", err)
			}
			select {
			case raised <- id:
			case <-ctx.Done():
			}
		})
	}
}
