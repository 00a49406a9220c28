package node

import (
	"context"
	"net"
	"net/http"
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
	if n.showsMore() {
		beside := http.NewServeMux()
		beside.Handle("/api/v1/", n.admin.Handler())
		beside.Handle("/", n.console)
		o.Pages, o.Beside = n.console, beside
	}
	own := n.reachOwn()
	o.Reach = func(addr string) (network, address string) {
		if l := own[addr]; l != nil {
			return reachable(l)
		}
		return "tcp", addr
	}
	if l := n.fronts.lookupHTTP; l != nil {
		_, at := reachable(l)
		o.LookupdHTTPAddresses = []string{at}
	} else {
		_, at, _ := n.broadcast()
		o.NSQDHTTPAddresses = []string{at}
	}
	n.nsqadmin = nsqadmin.New(o)
}

// showsMore reports whether the console and the API that it needs stand at
// nsqadmin's port too: where there is an admin address, and nobody reaches the
// one who does not reach the other.
func (n *Node) showsMore() bool {
	if n.admin == nil || n.fronts.admin == nil {
		return false
	}
	own := func(l net.Listener) bool { a := inet(l); return a.IP.IsLoopback() }
	return own(n.fronts.nsqadmin) || !own(n.fronts.admin)
}

// reachOwn are the listeners of this node by the addresses that clients are told,
// at which the node itself may not reach them: they may be those of another
// network, or listen on a loopback address or a unix socket.
func (n *Node) reachOwn() map[string]net.Listener {
	_, http, host := n.broadcast()
	own := map[string]net.Listener{http: n.fronts.http}
	if l := n.fronts.https; l != nil {
		own[net.JoinHostPort(host, strconv.Itoa(inet(l).Port))] = l
	}
	return own
}

// reachable is where this machine reaches a listener.
func reachable(l net.Listener) (network, address string) {
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return l.Addr().Network(), l.Addr().String()
	}
	host := a.IP.String()
	if a.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "tcp", net.JoinHostPort(host, strconv.Itoa(a.Port))
}

// isMemberHTTP reports whether a node of ours takes HTTP requests at an address.
// Whoever else has registered here is not to see what callers show.
func (n *Node) isMemberHTTP(addr string) bool {
	for _, p := range (catalog{n}).Nodes() {
		if addr == net.JoinHostPort(p.BroadcastAddress, strconv.Itoa(p.HTTPPort)) {
			return true
		}
	}
	return false
}
