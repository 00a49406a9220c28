package node

import (
	"context"
	"net"
	"net/netip"
	"strconv"

	"github.com/tidings-io/tidings/internal/front/nsqadmin"
	"github.com/tidings-io/tidings/internal/version"
)

// buildNSQAdmin makes nsqadmin's API over the node's own lookup, or over the
// node alone where that does not listen.
func (n *Node) buildNSQAdmin() {
	if n.fronts.nsqadmin == nil {
		return
	}
	o := nsqadmin.Options{
		Listener: n.fronts.nsqadmin, Version: version.String(),
		ConnectTimeout: n.cfg.HTTPConnectTimeout, RequestTimeout: n.cfg.HTTPRequestTimeout,
		TLS:    n.secure.asClient(),
		Passes: n.isMemberHTTP, Tombstone: func(ctx context.Context, topic, node string) { n.lookups.front.Tombstone(ctx, topic, node) },
		ConfigFrom: netip.MustParsePrefix("127.0.0.0/8"), NoConfig: n.secure.auth != nil && n.cfg.HTTPAuth,
		Logger: n.log, LogLevel: n.level,
	}
	if l := n.fronts.lookupHTTP; l != nil {
		o.LookupdHTTPAddresses = []string{reachable(l)}
	} else {
		o.NSQDHTTPAddresses = []string{reachable(n.fronts.http)}
	}
	n.nsqadmin = nsqadmin.New(o)
}

// reachable is where this machine reaches a listener, HOST:PORT; "" if that is
// no TCP port.
func reachable(l net.Listener) string {
	a := inet(l)
	if a.Port == 0 {
		return ""
	}
	host := a.IP.String()
	if a.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(a.Port))
}

// isMemberHTTP reports whether a node of ours takes HTTP requests at an address.
// Whoever else has registered here is not to see what callers show.
func (n *Node) isMemberHTTP(addr string) bool {
	if addr == reachable(n.fronts.http) {
		return true
	}
	for _, p := range (catalog{n}).Nodes() {
		if addr == net.JoinHostPort(p.BroadcastAddress, strconv.Itoa(p.HTTPPort)) {
			return true
		}
	}
	return false
}
