package broker

import "time"

// SetMarkPatience makes the broker finish deletions of others sooner; before Run.
func (b *Broker) SetMarkPatience(d time.Duration) { b.markPatience = d }

// ChannelPaused reports whether a channel in use holds its messages back.
func (b *Broker) ChannelPaused(topic, channel string) bool {
	return b.find(topic).lookup(channel).ch.Stats().Paused
}
