package broker

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
)

// deletedFor is how long a deletion that another node has done counts as done when this
// one is asked for it too: NSQ's tools ask all of them, one by one or at once.
const deletedFor = 10 * time.Second

// deletedMax bounds how many deletions are remembered; the oldest make room.
const deletedMax = 10_000

// deletions are the topics and channels that other nodes have deleted a moment ago, and
// the channels in memory that this one has.
type deletions struct {
	mu   sync.Mutex
	list []deletion          // as they came
	own  map[uint64]struct{} // ids of what this node deletes
	seen uint64              // index of the metadata that they are told from
}

type deletion struct {
	topic, channel string // no channel: the topic
	at             time.Time
	own            bool // this node was asked for it: a channel that lives in memory
}

// mine says that this node deletes a topic or channel.
func (d *deletions) mine(id uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.own == nil || len(d.own) >= deletedMax {
		d.own = make(map[uint64]struct{})
	}
	d.own[id] = struct{}{}
}

// notMine takes mine back.
func (d *deletions) notMine(id uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.own, id)
}

// note remembers a deletion, if it is not this node's.
func (d *deletions) note(id uint64, topic, channel string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, mine := d.own[id]; mine {
		delete(d.own, id)
		return
	}
	d.add(deletion{topic: topic, channel: channel, at: time.Now()})
}

// add remembers a deletion and forgets old ones. d.mu is held.
func (d *deletions) add(x deletion) {
	old, now := 0, x.at
	for old < len(d.list) && (now.Sub(d.list[old].at) > deletedFor || len(d.list)-old >= deletedMax) {
		old++
	}
	d.list = append(d.list[old:], x)
}

// noteOwn says that this node was asked to delete a channel that lives in memory.
func (d *deletions) noteOwn(topic, channel string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.add(deletion{topic, channel, time.Now(), true})
}

// forgetOwn takes noteOwn back.
func (d *deletions) forgetOwn(topic, channel string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = slices.DeleteFunc(d.list, func(x deletion) bool { return x.own && x.topic == topic && x.channel == channel })
}

// hasOwn reports whether this node was asked for that within deletedFor.
func (d *deletions) hasOwn(topic, channel string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.list, func(x deletion) bool {
		return x.own && x.topic == topic && x.channel == channel && time.Since(x.at) <= deletedFor
	})
}

// follow says that all deletions up to an index of metadata are noted.
func (d *deletions) follow(index uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = max(d.seen, index)
}

// has reports whether the topic, or the channel or its topic, was deleted within
// deletedFor, and up to which index of metadata that is known.
func (d *deletions) has(topic, channel string) (found bool, seen uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.list {
		if !x.own && x.topic == topic && (x.channel == "" || x.channel == channel) && time.Since(x.at) <= deletedFor {
			return true, d.seen
		}
	}
	return false, d.seen
}

// deleting deletes what find has found, a topic's or channel's id, unless another node is
// quicker. What was made anew meanwhile is deleted too.
func (b *Broker) deleting(ctx context.Context, topic, channel string, find func() (id uint64, drop func(done func(error)), err error)) error {
	for again := true; ; again = false {
		id, drop, err := find()
		if b.deletedLately(ctx, err, topic, channel) {
			return nil
		}
		if err != nil || drop == nil {
			return err
		}
		b.deleted.mine(id)
		err = awaitCall(ctx, drop)
		if code := fault.CodeOf(err); b.o.Peers == nil || code != fault.TopicNotFound && code != fault.ChannelNotFound {
			return err
		}
		b.deleted.notMine(id)
		b.deleted.note(id, topic, channel)
		if !again || !b.upToDate(ctx) {
			return nil
		}
	}
}

// deletedLately reports whether what was not found had been deleted through another
// node a moment ago. It waits until what this node knows has been looked at.
func (b *Broker) deletedLately(ctx context.Context, err error, topic, channel string) bool {
	if code := fault.CodeOf(err); b.o.Peers == nil || code != fault.TopicNotFound && code != fault.ChannelNotFound {
		return false
	}
	index := b.o.Meta.View().Index
	for end := time.Now().Add(lookAnew); ; {
		found, seen := b.deleted.has(topic, channel)
		if found || seen >= index || ctx.Err() != nil || time.Now().After(end) {
			return found
		}
		time.Sleep(time.Millisecond)
	}
}
