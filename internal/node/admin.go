package node

import (
	"context"
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/front/admin"
	"github.com/tidings-io/tidings/internal/front/nsq"
	"github.com/tidings-io/tidings/internal/transport"
	"github.com/tidings-io/tidings/internal/version"
	"github.com/tidings-io/tidings/internal/wal"
)

// origins is where the settings come from.
type origins struct {
	of   map[string]string // by file key
	file string
}

// adminSelf is what the admin front tells of this node, also while it starts.
func (n *Node) adminSelf() admin.Self {
	return admin.Self{
		Node: n.selfName(), Version: version.String(), NSQVersion: version.NSQ, StartedAt: n.start.UnixMilli(),
		Alone: n.member == nil, Addresses: n.addresses(),
		Limits: admin.Limits{MaxMsgBytes: int64(n.cfg.MaxMsgSize), MaxDeferMs: n.cfg.MaxDeferTimeout.Milliseconds()},
	}
}

func (n *Node) selfName() string {
	if n.member != nil {
		return n.member.self.Name
	}
	return n.name()
}

func (n *Node) addresses() admin.Addresses {
	a := n.Addrs()
	out := admin.Addresses{TCP: a.TCP, HTTP: a.HTTP, HTTPS: a.HTTPS, Admin: a.Admin, LookupTCP: a.LookupTCP, LookupHTTP: a.LookupHTTP}
	if n.member != nil {
		out.Cluster = n.member.self.Addr
	}
	_, _, out.Broadcast = n.broadcast()
	return out
}

// adminConfig is the settings for people.
func (n *Node) adminConfig() admin.Config {
	out := admin.Config{File: n.from.file, Settings: []admin.Setting{}}
	for _, f := range config.Describe(n.cfg.Fields(), n.from.of) {
		out.Settings = append(out.Settings, admin.Setting(f))
	}
	return out
}

// adminEngine is what the admin front shows of the open node.
func (n *Node) adminEngine() admin.Engine {
	e := admin.Engine{
		Broker: n.broker, Meta: n.meta, Figures: n.nodeFigures, Host: n.hostFigures, Lookup: n.adminLookup, LeaderChanges: n.leaderChanges,
		ConsumerCounts: n.consumerCounts, Consumers: n.consumersOf, DefaultAck: "quorum",
		MaxMsgSize: int64(n.cfg.MaxMsgSize), MaxBodySize: int64(n.cfg.MaxBodySize), MaxDeferMs: n.cfg.MaxDeferTimeout.Milliseconds(),
	}
	e.Recovered = n.caughtUp.Load
	if n.member != nil {
		e.Peers, e.DefaultAck = adminPeers{n.member}, n.cfg.Ack
	}
	return e
}

func (n *Node) consumerCounts() map[admin.ChannelName]int {
	counts := n.nsq.ConsumerCounts()
	out := make(map[admin.ChannelName]int, len(counts))
	for at, c := range counts {
		out[admin.ChannelName(at)] = c
	}
	return out
}

func (n *Node) consumersOf(topic, channel string) []admin.Consumer {
	list := n.nsq.Consumers(topic, channel)
	out := make([]admin.Consumer, 0, len(list))
	for i := range list {
		out = append(out, consumerOf(&list[i]))
	}
	return out
}

func consumerOf(c *nsq.Consumer) admin.Consumer {
	return admin.Consumer{
		ClientID: c.ClientID, Hostname: c.Hostname, RemoteAddress: c.RemoteAddress, UserAgent: c.UserAgent,
		ConnectedAt: c.Connected.UnixMilli(), Ready: c.Ready, InFlight: c.InFlight, Delivered: c.Delivered,
		Finished: c.Finished, Requeued: c.Requeued, TimedOut: c.TimedOut, SampleRate: c.SampleRate, TLS: c.TLS,
		Compression: c.Compression, AuthIdentity: c.Identity, Region: c.Region, Zone: c.Zone,
	}
}

func (n *Node) leaderChanges(id uint32) (count uint64, lastAt int64) {
	g, ok := n.groups.At(int(id))
	if !ok {
		return 0, 0
	}
	s := g.Status()
	return s.Elections, s.ElectedAt / 1e6
}

// nodeFigures are this node's own.
func (n *Node) nodeFigures() admin.NodeFigures {
	front, store, log := n.nsq.Snapshot(), n.store.Stats(), n.wal.Stats()
	f := admin.NodeFigures{
		Name: n.selfName(), Version: version.String(), StartedAt: n.start.UnixMilli(), Ready: true, Addresses: n.addresses(),
		Connections: front.Connections, Delivered: front.MessagesDeliveredTotal,
		DiskFree: n.reserve.free.Load(), DiskReserve: n.reserve.limit.Load(), ReserveReached: n.reserve.Reached(),
		Goroutines: runtime.NumGoroutine(), Memory: runtimeBytes(), DamageStays: n.member == nil,
	}
	l := n.wal.Latency(time.Now())
	f.SyncMs = float64(max(l.Current, l.Median)) / float64(time.Millisecond)
	if err := n.ready(); err != nil {
		f.Ready, f.NotReadyReason = false, err.Error()
	}
	f.Log = logSync(&log)
	f.Log.LogBytes, f.Log.TailBytes = n.wal.Size(), store.TailBytes
	f.Log.Segments, f.Log.Damage = int(store.Segments), store.CorruptBatches
	if n.member != nil {
		s := n.member.mender.Stats()
		f.RepairsPending, f.RepairsLost = s.Pending, s.Lost
	}
	if s := n.spool.stats(); s != nil {
		f.Spool = &admin.Spool{
			Depth: s.Depth, OldestAgeMs: s.OldestAge, Bytes: s.Bytes, LimitBytes: s.Limit,
			Forwarded: s.Forwarded, Refused: s.Refused, Connected: s.Connected, Error: s.Error,
		}
	}
	return f
}

// logSync sums the syncs up.
func logSync(s *wal.Stats) admin.LogSync {
	out := admin.LogSync{Syncs: s.Syncs, MaxMs: ms(s.SyncMax), Recycled: s.Recycles, CutBytes: s.CutBytes}
	if s.Syncs == 0 {
		return out
	}
	out.MeanMs = ms(s.SyncTime) / float64(s.Syncs)
	quantile := func(q float64) float64 {
		total := uint64(0)
		for i, bound := range wal.SyncBounds {
			if total += s.SyncBuckets[i]; float64(total) >= q*float64(s.Syncs) {
				return min(bound*1000, out.MaxMs)
			}
		}
		return out.MaxMs
	}
	out.P50Ms, out.P99Ms = quantile(0.5), quantile(0.99)
	return out
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// runtimeBytes is the memory that the Go runtime has from the operating system,
// less what it has given back.
func runtimeBytes() int64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
}

// producersMax bounds the producers that the admin API lists.
const producersMax = 1000

// adminLookup is where this node is registered, and who is found through it.
func (n *Node) adminLookup() admin.Lookup {
	out := admin.Lookup{Served: n.lookups.front.Serves(), Lookupds: []admin.Lookupd{}, Producers: []admin.Producer{}}
	for _, l := range n.lookups.registrar.Links() {
		d := admin.Lookupd{Address: l.Address, Connected: l.HTTP != ""}
		if !d.Connected {
			d.Error = "not registered there now; the log says why"
		}
		out.Lookupds = append(out.Lookupds, d)
	}
	for _, p := range (catalog{n}).Nodes() {
		out.Producers = append(out.Producers, admin.Producer{
			Hostname: p.Hostname, BroadcastAddress: p.BroadcastAddress, TCPPort: p.TCPPort, HTTPPort: p.HTTPPort,
			Version: p.Version, RemoteAddress: p.RemoteAddress, Member: true,
		})
	}
	for _, p := range n.lookups.front.Registered() {
		topics := p.Topics
		out.Producers = append(out.Producers, admin.Producer{
			Hostname: p.Hostname, BroadcastAddress: p.BroadcastAddress, TCPPort: p.TCPPort, HTTPPort: p.HTTPPort,
			Version: p.Version, RemoteAddress: p.RemoteAddress, Topics: &topics, LastPingAt: p.LastPing.UnixMilli(), Tombstones: p.Tombstones,
		})
	}
	out.Total = len(out.Producers)
	out.Producers = out.Producers[:min(len(out.Producers), producersMax)]
	return out
}

// adminPeers is how the admin front reaches the other members.
type adminPeers struct{ mb *member }

// Others lists the members that may live.
func (p adminPeers) Others() []admin.Peer {
	var out []admin.Peer
	for _, m := range p.mb.n.live(p.mb.n.meta.View()) {
		if m.ID != p.mb.self.ID {
			out = append(out, admin.Peer{ID: m.ID, Name: m.Name})
		}
	}
	return out
}

// Leader is the leader of a shard as this node knows it.
func (p adminPeers) Leader(shard uint32) (id uint64, self bool) { return p.mb.leader(shard) }

// Ask asks another member.
func (p adminPeers) Ask(ctx context.Context, id uint64, question []byte) ([]byte, error) {
	return p.mb.transport.Call(ctx, transport.Peer{ID: id}, methodAdmin, question)
}

// handleAdmin answers what the admin fronts of other members ask.
func (mb *member) handleAdmin() {
	mb.transport.Handle(methodAdmin, func(ctx context.Context, from transport.From, request []byte) ([]byte, error) {
		switch {
		case !from.Known:
			return nil, fault.New(fault.Forbidden, "ask for figures: %s is no member", from.Name)
		case mb.n.admin == nil:
			return nil, fault.New(fault.Unsupported, "ask for figures: the node %s serves no admin address", mb.self.Name)
		}
		return mb.n.admin.Answer(ctx, request)
	})
}
