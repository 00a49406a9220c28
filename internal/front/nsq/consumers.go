package nsq

import "time"

// Consumer is a connection with a subscription, as pages show it.
type Consumer struct {
	Topic, Channel                string
	ClientID, Hostname, UserAgent string
	RemoteAddress                 string
	Connected                     time.Time
	Ready, InFlight               int64
	Delivered, Finished           uint64
	Requeued, TimedOut            uint64
	SampleRate                    int32 // percent; 0: all
	TLS                           bool
	Compression                   string // snappy, deflate or none
	Identity                      string // that auth servers gave it
	Region, Zone                  string
}

// ChannelName names a channel of a topic.
type ChannelName struct{ Topic, Channel string }

// ConsumerCounts is how many connections are subscribed to each channel.
func (f *Front) ConsumerCounts() map[ChannelName]int {
	out := make(map[ChannelName]int)
	for _, c := range f.snapshot() {
		if sub := c.sub.Load(); sub != nil {
			out[ChannelName{sub.topic, sub.channel}]++
		}
	}
	return out
}

// Consumers lists the connections that are subscribed to a channel, in no order.
func (f *Front) Consumers(topic, channel string) []Consumer {
	var out []Consumer
	for _, c := range f.snapshot() {
		if sub := c.sub.Load(); sub != nil && sub.topic == topic && sub.channel == channel {
			out = append(out, c.consumer(sub))
		}
	}
	return out
}

// consumer describes the connection.
func (c *conn) consumer(sub *subscribed) Consumer {
	c.mu.Lock()
	m := c.meta
	c.mu.Unlock()
	st := sub.Stats()
	out := Consumer{
		Topic: sub.topic, Channel: sub.channel, ClientID: m.clientID, Hostname: m.hostname, UserAgent: m.userAgent,
		RemoteAddress: c.remote, Connected: c.since, Ready: st.Ready, InFlight: st.InFlight,
		Delivered: st.MessageCount, Finished: st.FinishCount, Requeued: st.RequeueCount, TimedOut: st.TimeoutCount,
		SampleRate: m.sampleRate, TLS: m.transport.tls, Region: m.region, Zone: m.zone,
	}
	switch {
	case m.transport.snappy:
		out.Compression = "snappy"
	case m.transport.deflate:
		out.Compression = "deflate"
	}
	if m.grants != nil {
		out.Identity = m.grants.Identity
	}
	return out
}
