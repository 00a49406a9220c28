package broker

import (
	"context"
	"time"

	"github.com/tidings-io/tidings/internal/meta"
)

// SetMarkPatience makes the broker finish deletions of others sooner; before Run.
func (b *Broker) SetMarkPatience(d time.Duration) { b.markPatience = d }

// SetAnnouncedFor has channels end sooner that were announced and have no consumer;
// before Run.
func (b *Broker) SetAnnouncedFor(d time.Duration) { b.announcedFor = d }

// Announce has a channel begin at another node, as if a consumer here were to follow.
func (b *Broker) Announce(ctx context.Context, topic, channel string, node uint64) error {
	return b.find(topic).openAt(ctx, &channelInUse{name: channel}, node)
}

// InUse is how many channels of a topic are in use on this node.
func (b *Broker) InUse(topic string) int { return len(b.find(topic).inUse()) }

// ChannelPaused reports whether a channel in use holds its messages back.
func (b *Broker) ChannelPaused(topic, channel string) bool {
	return b.find(topic).lookup(channel).ch.Stats().Paused
}

// Reconcile brings a shard in line with metadata as of the view.
func (b *Broker) Reconcile(ctx context.Context, shard uint32, view *meta.View) error {
	return b.upstream(shard).reconcile(ctx, func() *meta.View { return view })
}
