package node

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/front/lookup"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/transport"
	"github.com/tidings-io/tidings/internal/version"
)

// catalog is what a node tells of its own in lookups, or of its cluster: from
// metadata and the leases, so that all members answer alike, but for ephemeral
// channels, which only their own node knows.
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

// live lists the members whose lease has not lapsed, this node among them. One
// that a new leader has not heard of yet counts as live: a consumer that tries
// to reach it in vain loses less than one that is not told of it.
func (n *Node) live(view *meta.View) []meta.Node {
	if n.member == nil {
		return []meta.Node{n.meta.Node()}
	}
	lapsed := make(map[uint64]bool)
	for _, l := range n.member.agent.Load().Leases() {
		lapsed[l.RaftID] = l.State == cluster.LeaseLapsed
	}
	return slices.DeleteFunc(slices.Clone(view.Nodes), func(m meta.Node) bool {
		return lapsed[m.ID] && m.ID != n.member.self.ID
	})
}

// peerOf is a node as lookups name it. This one alone tells more of itself than
// the members of a cluster know of each other.
func (n *Node) peerOf(m *meta.Node) lookup.Peer {
	if n.member == nil {
		return n.lookups.self
	}
	p := lookup.Peer{RemoteAddress: m.TCP, Hostname: m.Name, BroadcastAddress: m.Broadcast, Version: version.NSQ}
	p.TCPPort, p.HTTPPort = portOf(m.TCP), portOf(m.HTTP)
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

// tombstone is what members tell each other of one.
type tombstone struct {
	Topic string `json:"topic"`
	Node  string `json:"node"` // host:http_port
}

// Tombstone tells the other members of a tombstone that was set here. It waits
// for them: the deletion that the tombstone guards from comes next, and may go
// to any of them.
func (c catalog) Tombstone(ctx context.Context, topic, node string) {
	mb := c.n.member
	if mb == nil {
		return
	}
	request, err := json.Marshal(tombstone{topic, node})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tombstonePatience)
	defer cancel()
	var wg sync.WaitGroup
	for _, m := range c.n.live(c.n.meta.View()) {
		if m.ID == mb.self.ID {
			continue
		}
		wg.Go(func() {
			if _, err := mb.transport.Call(ctx, transport.Peer{ID: m.ID, Name: m.Name, Addr: m.Addr}, methodTombstone, request); err != nil {
				c.n.log.Warn("a member was not told of a tombstone", "member", m.Name, "topic", topic, "node", node, "error", err)
			}
		})
	}
	wg.Wait()
}

// handleTombstones takes note of tombstones that were set at other members.
func (mb *member) handleTombstones() {
	mb.transport.Handle(methodTombstone, func(_ context.Context, from transport.From, request []byte) ([]byte, error) {
		var t tombstone
		if err := json.Unmarshal(request, &t); err != nil || !from.Known {
			return nil, fault.New(fault.Forbidden, "set a tombstone: %s is no member, or asks wrongly", from.Name)
		}
		if !mb.n.opened.Load() {
			return nil, fault.New(fault.Exiting, "set a tombstone: the node is starting")
		}
		mb.n.lookups.front.Hide(t.Topic, t.Node)
		return nil, nil
	})
}
