package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/front/admin"
	"github.com/tidings-io/tidings/internal/front/console"
	"github.com/tidings-io/tidings/internal/front/nsq"
	"github.com/tidings-io/tidings/internal/version"
)

// buildAdmin makes the node's own front. It answers before the node serves, so
// that one can see what it waits for. In a cluster it is there without an address
// too: the fronts of the others ask it.
func (n *Node) buildAdmin() {
	n.console = console.New(console.Options{ReadOnly: n.cfg.AdminReadOnly})
	if n.fronts.admin != nil || n.member != nil {
		n.metrics = &lateHandler{}
		n.admin = admin.New(admin.Options{
			Listener: n.fronts.admin, Ready: n.ready, Logger: n.log, Level: n.level, Metrics: n.metrics,
			Cluster: n.clusterStatus, Transfer: n.transfer, AddShards: n.addShards, Imports: n.imports, Self: n.adminSelf, Config: n.adminConfig,
			ReadOnly: n.cfg.AdminReadOnly, Hosts: n.cfg.AdminHosts,
			Console: n.console,
		})
	}
}

// lateHandler answers once it has a handler.
type lateHandler struct{ h atomic.Pointer[http.Handler] }

// ServeHTTP answers, or says that the node is starting.
func (l *lateHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := l.h.Load(); h != nil {
		(*h).ServeHTTP(w, r)
		return
	}
	http.Error(w, "the node is starting", http.StatusServiceUnavailable)
}

// buildFronts makes the protocol servers on the bound sockets.
func (n *Node) buildFronts() error {
	c := &n.cfg
	n.buildLookups()
	n.buildNSQAdmin()
	n.nsq = nsq.New(nsq.Over(n.broker), nsq.Options{
		TCP: n.fronts.tcp, HTTP: n.fronts.http, HTTPS: n.fronts.https, TLS: n.secure.tls, TLSRequired: n.secure.required,
		NoSnappy: !c.Snappy, NoDeflate: !c.Deflate, MaxDeflateLevel: c.MaxDeflateLevel, Auth: n.secure.auth, HTTPAuth: c.HTTPAuth,
		Version: version.NSQ, BroadcastAddress: n.lookups.self.BroadcastAddress,
		Lookupds: n.lookups.registrar.Addresses, SetLookupds: n.lookups.registrar.SetAddresses, Tombstoned: n.tombstoned, Forward: n.broker.Forward,
		StartTime: n.start, Logger: n.log, LogLevel: n.level, Settings: n.setting, Warning: n.warning,
		MsgTimeout: c.MsgTimeout, MaxMsgTimeout: c.MaxMsgTimeout,
		MaxMsgSize: int64(c.MaxMsgSize), MaxBodySize: int64(c.MaxBodySize),
		MaxReqTimeout: c.MaxReqTimeout, MaxDeferTimeout: c.MaxDeferTimeout, MaxRdyCount: int64(c.MaxRdyCount),
		MaxHeartbeatInterval: c.MaxHeartbeatInterval,
		OutputBufferTimeout:  c.OutputBufferTimeout, MinOutputBufferTimeout: c.MinOutputBufferTimeout,
		MaxOutputBufferTimeout: c.MaxOutputBufferTimeout, MaxOutputBufferSize: int64(c.MaxOutputBufferSize),
		MaxChannelConsumers: c.MaxChannelConsumers,
		TopologyRegion:      c.TopologyRegion, TopologyZone: c.TopologyZone, DrainTimeout: c.DrainTimeout, Quantiles: n.quantiles(),
		NodeName: n.selfName(), Peers: n.statsPeers(), Spool: n.spool.stats,
	})
	n.buildStatsd()
	if n.metrics != nil {
		h := n.metricsHandler()
		n.metrics.h.Store(&h)
	}
	if n.admin != nil {
		n.admin.Open(n.adminEngine())
	}
	n.opened.Store(true)
	return nil
}

// clusterStatus is the cluster as this node sees it; of one node where it is
// alone.
func (n *Node) clusterStatus() cluster.Status {
	switch {
	case n.member != nil:
		return n.member.status()
	case !n.opened.Load():
		return cluster.Status{Notes: []string{"the node is starting"}}
	}
	return aloneStatus(n)
}

// transfer gives the leadership of a shard to a member.
func (n *Node) transfer(ctx context.Context, id uint32, to string) error {
	if n.member == nil || !n.opened.Load() {
		return fault.New(fault.InvalidRequest, "hand over shard %d: this node is alone, or starting", id)
	}
	return n.member.transfer(ctx, id, to)
}

// imports is who takes over what another server had; nil while the node starts.
func (n *Node) imports() admin.Importer {
	if !n.opened.Load() {
		return nil
	}
	return n.broker
}

// setting answers GET /config for a setting by its file key, as nsqd does:
// what it works out itself is shown as it came out.
func (n *Node) setting(key string) (any, bool) {
	switch key {
	case "tls_required":
		return n.secure.required, true
	case "tls_min_version":
		version, err := n.cfg.MinTLSVersion()
		return version, err == nil
	case "id":
		number, err := n.cfg.NodeNumber(n.lookups.self.Hostname)
		return number, err == nil
	case "broadcast_tcp_port":
		return n.lookups.self.TCPPort, true
	case "broadcast_http_port":
		return n.lookups.self.HTTPPort, true
	case "statsd_prefix":
		return n.statsdPrefix(), true
	case "e2e_processing_latency_percentiles":
		quantiles, err := n.cfg.Quantiles()
		return quantiles, err == nil
	}
	for _, f := range append(n.cfg.Fields(), n.cfg.Unused.Fields()...) {
		if f.Key() == key && !f.Hidden {
			return f.Raw(), true
		}
	}
	return nil, false
}

// warning tells of damage that was skipped; it stands until the next start.
func (n *Node) warning() string {
	if n.member != nil {
		switch s := n.member.mender.Stats(); {
		case s.Lost > 0:
			return fmt.Sprintf("%d damaged places in segment files that no other replica could give; `tidings log verify` names them", s.Lost)
		case s.Pending > 0:
			return fmt.Sprintf("%d damaged places in segment files are being fetched from other replicas", s.Pending)
		}
		return ""
	}
	if damaged := n.store.Stats().CorruptBatches; damaged > 0 {
		return fmt.Sprintf("%d damaged places in segment files, what they held was skipped; `tidings log verify` names them", damaged)
	}
	return ""
}

// ready is nil, or why the node should get no traffic.
func (n *Node) ready() error {
	if !n.opened.Load() {
		if s := n.clusterStatus(); s.Waits != "" {
			return errors.New(s.Waits)
		}
		return errors.New("the node is starting")
	}
	for _, g := range n.groups.All() {
		if n.member != nil {
			if id, _ := n.member.leader(g.Status().ID); id == 0 && !n.unused(g.Status().ID) {
				return fmt.Errorf("shard %d has no leader", g.Status().ID)
			}
		} else if !g.Leader() && !n.unused(g.Status().ID) {
			return errors.New("a shard has no leader here")
		}
	}
	return n.health()
}

// unused reports whether a shard was added to the cluster and carries nothing yet: its
// first leader takes a moment to be found, and nobody waits for it.
func (n *Node) unused(id uint32) bool {
	s, ok := n.meta.View().Shard(id)
	return ok && s.Began != nil && s.Partitions == 0
}

// frontRuns lists the servers.
func (n *Node) frontRuns() []func(context.Context) error {
	runs := []func(context.Context) error{n.nsq.Run, n.lookups.registrar.Run, n.lookups.front.Run}
	if n.statsd != nil {
		runs = append(runs, n.statsd.Run)
	}
	if n.nsqadmin != nil {
		runs = append(runs, n.nsqadmin.Run)
	}
	return runs
}
