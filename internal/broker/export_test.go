package broker

import (
	"context"
	"time"

	"github.com/tidings-io/tidings/internal/meta"
)

// SetMarkPatience makes the broker finish deletions of others sooner; before Run.
func (b *Broker) SetMarkPatience(d time.Duration) { b.markPatience = d }

// ChannelPaused reports whether a channel in use holds its messages back.
func (b *Broker) ChannelPaused(topic, channel string) bool {
	return b.find(topic).lookup(channel).ch.Stats().Paused
}

// Reconcile brings a shard in line with metadata as of the view.
func (b *Broker) Reconcile(ctx context.Context, shard uint32, view *meta.View) error {
	return b.upstream(shard).reconcile(ctx, func() *meta.View { return view })
}
