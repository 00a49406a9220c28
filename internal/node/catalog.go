package node

import (
	"context"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/front/lookup"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/version"
)

// catalog is what a node tells of its own in lookups, or of its cluster: from
// metadata, the leases, and what members say of themselves, so that all of them
// answer alike.
type catalog struct{ n *Node }

// Topics lists the topics.
func (c catalog) Topics() []string { return names(c.n.broker.TopicNames()) }

// Topic names the live nodes that hold the topic.
func (c catalog) Topic(name string) (lookup.Topic, bool) {
	channels, ok := c.n.broker.ChannelNames(name)
	if !ok {
		return lookup.Topic{}, false
	}
	t := lookup.Topic{Channels: names(channels)}
	view := c.n.meta.View()
	m, ok := view.Topic(name)
	if !ok {
		return t, true // deleted in this moment
	}
	for _, node := range c.n.live(view) {
		if holds(view, m, &node) {
			t.Nodes = append(t.Nodes, c.n.peerOf(&node))
		}
		if c.n.member != nil {
			said, _ := c.n.member.presence.of(node.ID)
			t.Channels = append(t.Channels, said.Ephemeral[name]...)
		}
	}
	return t, true
}

// Nodes lists the live nodes.
func (c catalog) Nodes() []lookup.Peer {
	var out []lookup.Peer
	for _, node := range c.n.live(c.n.meta.View()) {
		out = append(out, c.n.peerOf(&node))
	}
	return out
}

// CreateTopic makes the topic.
func (c catalog) CreateTopic(ctx context.Context, topic string) error {
	return c.n.broker.CreateTopic(ctx, topic)
}

// CreateChannel makes the topic and the channel.
func (c catalog) CreateChannel(ctx context.Context, topic, channel string) error {
	if err := c.n.broker.CreateTopic(ctx, topic); err != nil {
		return err
	}
	return c.n.broker.CreateChannel(ctx, topic, channel)
}

func names(list []broker.Named) []string {
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = n.Name
	}
	return out
}

// live lists the members whose lease has not lapsed, this node among them, but
// for those that are about to leave. One that a new leader has not heard of yet
// counts as live: a consumer that tries to reach it in vain loses less than one
// that is not told of it.
func (n *Node) live(view *meta.View) []meta.Node {
	if n.member == nil {
		return []meta.Node{n.meta.Node()}
	}
	lapsed := make(map[uint64]bool)
	for _, l := range n.member.agent.Load().Leases() {
		lapsed[l.RaftID] = l.State == cluster.LeaseLapsed
	}
	return slices.DeleteFunc(slices.Clone(view.Nodes), func(m meta.Node) bool {
		_, leaving := n.member.presence.of(m.ID)
		return leaving || lapsed[m.ID] && m.ID != n.member.self.ID
	})
}

// peerOf is a node as lookups name it. A member goes by its name there, not by
// its host's.
func (n *Node) peerOf(m *meta.Node) lookup.Peer {
	if n.member == nil {
		return n.lookups.self
	}
	p := lookup.Peer{RemoteAddress: m.TCP, Hostname: m.Name, BroadcastAddress: m.Broadcast, Version: version.NSQ}
	p.TCPPort, p.HTTPPort = portOf(m.TCP), portOf(m.HTTP)
	said, _ := n.member.presence.of(m.ID)
	p.TopologyZone, p.TopologyRegion = said.Zone, said.Region
	return p
}

func portOf(addr string) int {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return 0
	}
	return n
}

// holds reports whether a node has a replica of a topic, or is the home of one
// that lives in memory.
func holds(view *meta.View, t *meta.Topic, n *meta.Node) bool {
	if t.Ephemeral() {
		return t.Boot == n.Boot
	}
	return slices.ContainsFunc(t.Partitions, func(id uint32) bool {
		s, _ := view.Shard(id)
		return slices.Contains(s.Voters, n.ID) || slices.Contains(s.Learners, n.ID)
	})
}

// holds reports whether this node has a replica of a topic.
func (n *Node) holds(topic string) bool {
	if n.member == nil {
		return true
	}
	view := n.meta.View()
	t, ok := view.Topic(topic)
	return ok && holds(view, t, &n.member.self)
}

// tombstonePatience bounds the telling of a tombstone, all members together.
const tombstonePatience = 2 * time.Second

// Tombstone tells the other members of a tombstone that was set here. It waits
// for them: the deletion that the tombstone guards from comes next, and may go
// to any of them.
func (c catalog) Tombstone(ctx context.Context, topic, node string) {
	mb := c.n.member
	if mb == nil {
		return
	}
	mb.presence.tombstoned(topic, node)
	ctx, cancel := context.WithTimeout(ctx, tombstonePatience)
	defer cancel()
	for member, err := range mb.presence.tellAll(ctx) {
		c.n.log.Warn("a member was not told of a tombstone, and will be when it is reached", "peer", member, "topic", topic, "node", node, "error", err)
	}
}
