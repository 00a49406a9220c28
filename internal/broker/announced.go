package broker

import (
	"context"
	"sync"
	"time"
)

// An ephemeral channel begins at all leaders before its consumer is told that it is
// subscribed, and goes with its last consumer. One whose consumer never comes, because
// that has left meanwhile, or its node has died, would stay. So each node remembers the
// channels that nobody consumes yet: those that are there without a consumer, because
// somebody has made them so, it announces again and again, and those of which nothing
// is heard for announcedFor it ends.

// announcedFor is how long an ephemeral channel stays without a consumer and without
// being announced again: longer than the making of a channel and the first word of its
// consumer take together.
const announcedFor = 2 * patience

// announced are the ephemeral channels of this node that may have no consumer yet.
type announced struct {
	mu       sync.Mutex
	channels map[*channelInUse]*announcement
}

type announcement struct {
	t    *Topic
	at   time.Time // the last one, or the making
	busy bool      // it is being told to the leaders
}

// note takes on a channel that was just made, or announced by another node.
func (a *announced) note(t *Topic, c *channelInUse, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x := a.channels[c]; x != nil {
		x.at = now
		return
	}
	if a.channels == nil {
		a.channels = make(map[*channelInUse]*announcement)
	}
	a.channels[c] = &announcement{t: t, at: now}
}

func (a *announced) forget(c *channelInUse) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.channels, c)
}

// list is the channels, and when each was announced last. Those that are being told to
// the leaders are left out.
func (a *announced) list() map[*channelInUse]announcement {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[*channelInUse]announcement, len(a.channels))
	for c, x := range a.channels {
		if !x.busy {
			out[c] = *x
		}
	}
	return out
}

// setBusy says whether a channel is being told to the leaders.
func (a *announced) setBusy(c *channelInUse, busy bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if x := a.channels[c]; x != nil {
		x.busy = busy
	}
}

// sweepAnnounced looks at the channels that may have no consumer yet.
func (b *Broker) sweepAnnounced(now time.Time) {
	for c, x := range b.announced.list() {
		consumers := c.ch.Stats().Consumers > 0
		switch {
		case c.ch.Err() != nil, consumers && x.t.allTold(c):
			b.announced.forget(c)
		case consumers, c.kept.Load():
			b.announceAgain(x.t, c)
		case now.Sub(x.at) > b.announcedFor:
			b.announced.forget(c)
			x.t.idle(c)
		}
	}
}

// allTold reports whether the leaders elsewhere know of the channel's consumers here.
func (t *Topic) allTold(c *channelInUse) bool {
	leaders := t.leadersElsewhere()
	c.laneMu.Lock()
	defer c.laneMu.Unlock()
	for _, id := range leaders {
		if v := c.conversations[id]; v == nil || !v.told() || !v.rests() {
			return false
		}
	}
	return true
}

// announceAgain tells the leaders elsewhere that the channel is there.
func (b *Broker) announceAgain(t *Topic, c *channelInUse) {
	leaders := t.leadersElsewhere()
	if len(leaders) == 0 {
		return
	}
	b.announced.setBusy(c, true)
	b.tasks.spawn(func(ctx context.Context) {
		defer b.announced.setBusy(c, false)
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		for _, id := range leaders {
			if err := t.openAt(ctx, c, id); err != nil && !again(err) {
				b.o.Logger.Debug("announce channel", "topic", t.name, "channel", c.name, "node", id, "error", err)
			}
		}
	})
}

// leadersElsewhere are the other nodes, by Raft id, each once, that lead partitions of
// the topic, or the one where it lives.
func (t *Topic) leadersElsewhere() (ids []uint64) {
	if t.away != nil {
		if t.home != 0 {
			ids = append(ids, t.home)
		}
		return ids
	}
	seen := make(map[uint64]bool)
	for _, p := range t.parts() {
		if id, self := p.up.leader(); id != 0 && !self && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}
