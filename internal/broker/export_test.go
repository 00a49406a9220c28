package broker

// ChannelPaused reports whether a channel in use holds its messages back.
func (b *Broker) ChannelPaused(topic, channel string) bool {
	return b.find(topic).lookup(channel).ch.Stats().Paused
}
