package lookup

import (
	"context"
	"net"
	"slices"
	"strconv"
)

// Peer is an nsqd, or one of our nodes, as nsqlookupd's answers name it.
type Peer struct {
	// RemoteAddress is where a registered nsqd's connection comes from, and for
	// one of our nodes where its TCP protocol is reached.
	RemoteAddress    string `json:"remote_address"`
	Hostname         string `json:"hostname"`
	BroadcastAddress string `json:"broadcast_address"`
	TCPPort          int    `json:"tcp_port"`
	HTTPPort         int    `json:"http_port"`
	Version          string `json:"version"`
	TopologyZone     string `json:"topology_zone"`
	TopologyRegion   string `json:"topology_region"`
}

// same reports whether both are reached in the same place: clients would
// connect to it twice.
func (p *Peer) same(o *Peer) bool {
	return p.BroadcastAddress == o.BroadcastAddress && p.TCPPort == o.TCPPort
}

// called reports whether node, as tools write it, is this one: the broadcast
// address and the HTTP port. Brackets around an IPv6 address may be left out,
// as nsqlookupd wants it.
func (p *Peer) called(node string) bool {
	port := strconv.Itoa(p.HTTPPort)
	return node == p.BroadcastAddress+":"+port || node == net.JoinHostPort(p.BroadcastAddress, port)
}

// Topic is what the Catalog tells of a topic.
type Topic struct {
	Channels []string // in any order
	Nodes    []Peer   // that live and hold the topic
}

// Catalog is what the node, or the cluster it belongs to, serves itself. Its
// queries answer from local state, without waiting: a real nsqd holds up the first
// publish to a topic for the answer. Nodes that belong to one cluster answer
// alike. Its methods are called from any goroutine.
type Catalog interface {
	// Topics lists the topics, in any order.
	Topics() []string
	// Topic finds a topic by name.
	Topic(name string) (Topic, bool)
	// Nodes lists the nodes that live, also those that hold no topic.
	Nodes() []Peer
	// CreateTopic makes the topic; one that is there is left as it is.
	CreateTopic(ctx context.Context, topic string) error
	// CreateChannel makes the channel, and its topic; what is there is left as
	// it is.
	CreateChannel(ctx context.Context, topic, channel string) error
	// Tombstone tells the other nodes of a tombstone that was set here, on one
	// of them or on this one; node is as tools write it. They get to Front.Hide.
	Tombstone(ctx context.Context, topic, node string)
}

// nothing is the Catalog of an nsqlookupd that stands alone: creation is a key
// in its registry.
type nothing struct{ r *registry }

func (nothing) Topics() []string           { return nil }
func (nothing) Topic(string) (Topic, bool) { return Topic{}, false }
func (nothing) Nodes() []Peer              { return nil }

func (nothing) Tombstone(context.Context, string, string) {}

func (n nothing) CreateTopic(_ context.Context, topic string) error {
	return n.r.add(topic, "")
}

func (n nothing) CreateChannel(_ context.Context, topic, channel string) error {
	return n.r.add(topic, channel)
}

// union is what stands in one list or both, sorted; not nil.
func union(a, b []string) []string {
	all := append(append([]string{}, a...), b...) // never null in JSON
	slices.Sort(all)
	return slices.Compact(all)
}
