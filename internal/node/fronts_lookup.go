package node

import (
	"context"
	"net"
	"os"
	"strconv"

	"github.com/tidings-io/tidings/internal/front/lookup"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/version"
)

// lookups is how the node is found: its own nsqlookupd, and those it registers
// with.
type lookups struct {
	self      lookup.Peer
	front     *lookup.Front // knows the tombstones, also where it listens nowhere
	registrar *lookup.Registrar
}

// buildLookups makes both on the bound sockets.
func (n *Node) buildLookups() {
	c := &n.cfg
	l := &n.lookups
	l.self = n.peer()
	l.front = lookup.New(lookup.Options{
		TCP: n.fronts.lookupTCP, HTTP: n.fronts.lookupHTTP, Catalog: catalog{n}, Version: version.NSQ,
		BroadcastAddress: l.self.BroadcastAddress, InactiveTimeout: c.InactiveTimeout, TombstoneLifetime: c.TombstoneLifetime,
		Logger: n.log,
	})
	l.registrar = lookup.NewRegistrar(lookup.RegistrarOptions{
		Self: l.self, Addresses: c.LookupdTCPAddresses, Offer: n.offer,
		ConnectTimeout: c.HTTPConnectTimeout, RequestTimeout: c.HTTPRequestTimeout, Logger: n.log,
	})
	n.meta.Watch(func(_, _ *meta.View) { n.namesChanged() })
}

// lookupAddrs adds where the lookup listens.
func (n *Node) lookupAddrs(a *Addrs) {
	if l := n.fronts.lookupTCP; l != nil {
		a.LookupTCP = l.Addr().String()
	}
	if l := n.fronts.lookupHTTP; l != nil {
		a.LookupHTTP = l.Addr().String()
	}
}

// peer is this node as lookups name it.
func (n *Node) peer() lookup.Peer {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	tcp, http := inet(n.fronts.tcp), inet(n.fronts.http)
	p := lookup.Peer{
		Hostname: host, BroadcastAddress: n.cfg.BroadcastAddr, TCPPort: n.cfg.BroadcastTCP, HTTPPort: n.cfg.BroadcastHTTP,
		Version: version.NSQ, TopologyZone: n.cfg.TopologyZone, TopologyRegion: n.cfg.TopologyRegion,
	}
	switch {
	case p.BroadcastAddress != "":
	case tcp.IP.IsLoopback(): // by its name nobody reaches it, the machine itself included
		p.BroadcastAddress = tcp.IP.String()
	default:
		p.BroadcastAddress = host
	}
	if p.TCPPort == 0 {
		p.TCPPort = tcp.Port
	}
	if p.HTTPPort == 0 {
		p.HTTPPort = http.Port
	}
	p.RemoteAddress = net.JoinHostPort(p.BroadcastAddress, strconv.Itoa(p.TCPPort))
	return p
}

// broadcast is where clients are told to reach the node.
func (n *Node) broadcast() (tcp, http, host string) {
	p := n.peer()
	at := func(port int) string { return net.JoinHostPort(p.BroadcastAddress, strconv.Itoa(port)) }
	return at(p.TCPPort), at(p.HTTPPort), p.BroadcastAddress
}

// inet is where a listener listens; zero if that is no TCP port.
func inet(l net.Listener) net.TCPAddr {
	if l != nil {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			return *a
		}
	}
	return net.TCPAddr{}
}

// offer is what the node registers for: the topics that it holds.
func (n *Node) offer() map[lookup.Name]uint64 {
	topics := n.broker.TopicNames()
	out := make(map[lookup.Name]uint64, 2*len(topics))
	for _, t := range topics {
		channels, ok := n.broker.ChannelNames(t.Name)
		if !ok || !n.holds(t.Name) {
			continue
		}
		out[lookup.Name{Topic: t.Name}] = t.ID
		for _, c := range channels {
			out[lookup.Name{Topic: t.Name, Channel: c.Name}] = c.ID
		}
	}
	return out
}

// namesChanged is told by metadata, and by the broker of channels that metadata
// does not know.
func (n *Node) namesChanged() {
	if r := n.lookups.registrar; r != nil {
		r.Changed()
	}
	if n.member != nil {
		n.member.presence.changed()
	}
}

// prepareChannels asks the nsqlookupds for the channels of a topic that is being
// made.
func (n *Node) prepareChannels(topic string, done func(channels []string)) {
	r := n.lookups.registrar
	if r == nil || len(r.Addresses()) == 0 {
		done(nil)
		return
	}
	go func() { done(r.Channels(context.Background(), topic)) }() // which bounds the wait itself
}

// tombstoned reports whether a deletion of the topic is meant for this node's
// share of it.
func (n *Node) tombstoned(topic string) bool {
	return n.lookups.front.Tombstoned(topic, n.lookups.self)
}
