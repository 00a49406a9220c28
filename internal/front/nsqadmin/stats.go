package nsqadmin

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
)

// topicStats is what one nsqd says of a topic, or the sum of what several say.
type topicStats struct {
	Node                string          `json:"node"` // HOST:PORT; "*" for a sum
	Hostname            string          `json:"hostname"`
	TopicName           string          `json:"topic_name"`
	Depth               int64           `json:"depth"`
	MemoryDepth         int64           `json:"memory_depth"`
	BackendDepth        int64           `json:"backend_depth"`
	MessageCount        int64           `json:"message_count"`
	DeliveryMsgCount    int64           `json:"delivery_msg_count"`
	ZoneLocalMsgCount   int64           `json:"zone_local_msg_count,omitempty"`
	RegionLocalMsgCount int64           `json:"region_local_msg_count,omitempty"`
	GlobalMsgCount      int64           `json:"global_msg_count,omitempty"`
	NodeStats           []*topicStats   `json:"nodes"`
	Channels            []*channelStats `json:"channels"`
	Paused              bool            `json:"paused"`
	Latency             *latency        `json:"e2e_processing_latency"`
}

// channelStats is the same for a channel.
type channelStats struct {
	Node                string          `json:"node"`
	Hostname            string          `json:"hostname"`
	TopicName           string          `json:"topic_name"`
	ChannelName         string          `json:"channel_name"`
	Depth               int64           `json:"depth"`
	MemoryDepth         int64           `json:"memory_depth"`
	BackendDepth        int64           `json:"backend_depth"`
	InFlightCount       int64           `json:"in_flight_count"`
	DeferredCount       int64           `json:"deferred_count"`
	RequeueCount        int64           `json:"requeue_count"`
	TimeoutCount        int64           `json:"timeout_count"`
	MessageCount        int64           `json:"message_count"`
	DeliveryMsgCount    int64           `json:"delivery_msg_count,omitempty"`
	ZoneLocalMsgCount   int64           `json:"zone_local_msg_count,omitempty"`
	RegionLocalMsgCount int64           `json:"region_local_msg_count,omitempty"`
	GlobalMsgCount      int64           `json:"global_msg_count,omitempty"`
	ClientCount         int             `json:"client_count"`
	NodeStats           []*channelStats `json:"nodes"`
	Clients             []*clientStats  `json:"clients"`
	Paused              bool            `json:"paused"`
	Latency             *latency        `json:"e2e_processing_latency"`
}

// clientStats is what an nsqd says of a client.
type clientStats struct {
	Node               string        `json:"node"`
	RemoteAddress      string        `json:"remote_address"`
	Version            string        `json:"version"`
	ClientID           string        `json:"client_id"`
	Hostname           string        `json:"hostname"`
	UserAgent          string        `json:"user_agent"`
	ConnectTS          int64         `json:"connect_ts"` // seconds since 1970
	Connected          time.Duration `json:"connected"`  // nanoseconds in JSON, whole seconds
	InFlightCount      int           `json:"in_flight_count"`
	ReadyCount         int           `json:"ready_count"`
	FinishCount        int64         `json:"finish_count"`
	RequeueCount       int64         `json:"requeue_count"`
	MessageCount       int64         `json:"message_count"`
	SampleRate         int32         `json:"sample_rate"`
	Deflate            bool          `json:"deflate"`
	Snappy             bool          `json:"snappy"`
	Authed             bool          `json:"authed"`
	AuthIdentity       string        `json:"auth_identity"`
	AuthIdentityURL    string        `json:"auth_identity_url"`
	NodeTopologyRegion string        `json:"node_topology_region,omitempty"`
	NodeTopologyZone   string        `json:"node_topology_zone,omitempty"`
	TopologyRegion     string        `json:"topology_region,omitempty"`
	TopologyZone       string        `json:"topology_zone,omitempty"`

	TLS                           bool   `json:"tls"`
	TLSCipherSuite                string `json:"tls_cipher_suite"`
	TLSVersion                    string `json:"tls_version"`
	TLSNegotiatedProtocol         string `json:"tls_negotiated_protocol"`
	TLSNegotiatedProtocolIsMutual bool   `json:"tls_negotiated_protocol_is_mutual"`
}

// statsAnswer is GET /stats of an nsqd.
type statsAnswer struct {
	Topics []*topicStats `json:"topics"`
}

// UnmarshalJSON leaves out what is null: nobody can be asked about it.
func (a *statsAnswer) UnmarshalJSON(text []byte) error {
	type plain statsAnswer
	if err := json.Unmarshal(text, (*plain)(a)); err != nil {
		return err
	}
	a.Topics = slices.DeleteFunc(a.Topics, func(t *topicStats) bool { return t == nil })
	for _, t := range a.Topics {
		t.Channels = slices.DeleteFunc(t.Channels, func(c *channelStats) bool { return c == nil })
		for _, c := range t.Channels {
			c.Clients = slices.DeleteFunc(c.Clients, func(c *clientStats) bool { return c == nil })
		}
	}
	return nil
}

// of says whose numbers these are, and fills in what follows from them.
func (t *topicStats) of(p *producer, now time.Time) {
	t.Node, t.Hostname = p.http(), p.Hostname
	t.MemoryDepth = t.Depth - t.BackendDepth
	t.DeliveryMsgCount = t.ZoneLocalMsgCount + t.RegionLocalMsgCount + t.GlobalMsgCount
	for _, c := range t.Channels {
		c.Node, c.Hostname, c.TopicName = t.Node, t.Hostname, t.TopicName
		c.MemoryDepth = c.Depth - c.BackendDepth
		c.DeliveryMsgCount = c.ZoneLocalMsgCount + c.RegionLocalMsgCount + c.GlobalMsgCount
		for _, client := range c.Clients {
			client.Node, client.NodeTopologyRegion, client.NodeTopologyZone = t.Node, p.TopologyRegion, p.TopologyZone
			client.Connected = now.Truncate(time.Second).Sub(time.Unix(client.ConnectTS, 0))
		}
	}
}

// add adds a further node's numbers of the same topic, and leaves them as they
// are.
func (t *topicStats) add(a *topicStats) {
	t.Node = "*"
	t.Depth += a.Depth
	t.MemoryDepth += a.MemoryDepth
	t.BackendDepth += a.BackendDepth
	t.MessageCount += a.MessageCount
	t.DeliveryMsgCount += a.DeliveryMsgCount
	t.ZoneLocalMsgCount += a.ZoneLocalMsgCount
	t.RegionLocalMsgCount += a.RegionLocalMsgCount
	t.GlobalMsgCount += a.GlobalMsgCount
	t.Paused = t.Paused || a.Paused
	for _, c := range a.Channels {
		i := slices.IndexFunc(t.Channels, func(have *channelStats) bool { return have.ChannelName == c.ChannelName })
		if i < 0 {
			first := *c // shown as it is while it is the only one
			t.Channels = append(t.Channels, &first)
			continue
		}
		t.Channels[i].join(c)
	}
	t.NodeStats = append(t.NodeStats, a)
	if t.Latency == nil {
		t.Latency = &latency{Topic: t.TopicName}
	}
	t.Latency.add(a.Latency)
}

// join adds to a copy of a single node's numbers.
func (c *channelStats) join(a *channelStats) {
	if c.Node != "*" {
		first := *c
		c.NodeStats = []*channelStats{&first}
		c.Clients = slices.Clone(c.Clients)
		c.Latency = c.Latency.clone()
	}
	c.add(a)
}

// add adds a further node's numbers of the same channel.
func (c *channelStats) add(a *channelStats) {
	c.Node = "*"
	c.Depth += a.Depth
	c.MemoryDepth += a.MemoryDepth
	c.BackendDepth += a.BackendDepth
	c.InFlightCount += a.InFlightCount
	c.DeferredCount += a.DeferredCount
	c.RequeueCount += a.RequeueCount
	c.TimeoutCount += a.TimeoutCount
	c.MessageCount += a.MessageCount
	c.DeliveryMsgCount += a.DeliveryMsgCount
	c.ZoneLocalMsgCount += a.ZoneLocalMsgCount
	c.RegionLocalMsgCount += a.RegionLocalMsgCount
	c.GlobalMsgCount += a.GlobalMsgCount
	c.ClientCount += a.ClientCount
	c.Paused = c.Paused || a.Paused
	c.NodeStats = append(c.NodeStats, a)
	c.Clients = append(c.Clients, a.Clients...)
	if c.Latency == nil {
		c.Latency = &latency{Topic: c.TopicName, Channel: c.ChannelName}
	}
	c.Latency.add(a.Latency)
}

// sortStats puts nodes into the order of answers.
func sortStats(list []*topicStats) {
	slices.SortStableFunc(list, func(a, b *topicStats) int {
		return cmp.Or(cmp.Compare(a.Hostname, b.Hostname), cmp.Compare(a.Node, b.Node))
	})
}

// byTopology sorts clients by node, and those of a node by how near they are:
// of its zone, of its region, and the others by where they are.
func byTopology(a, b *clientStats) int {
	return cmp.Or(
		cmp.Compare(a.Node, b.Node), cmp.Compare(a.distance(), b.distance()),
		cmp.Compare(a.TopologyRegion, b.TopologyRegion), cmp.Compare(a.TopologyZone, b.TopologyZone),
		cmp.Compare(a.Hostname, b.Hostname))
}

func (c *clientStats) distance() int {
	switch {
	case c.TopologyRegion != c.NodeTopologyRegion:
		return 2
	case c.TopologyZone != c.NodeTopologyZone:
		return 1
	}
	return 0
}
