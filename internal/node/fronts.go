package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tidings-io/tidings/internal/front/admin"
	"github.com/tidings-io/tidings/internal/front/nsq"
	"github.com/tidings-io/tidings/internal/telemetry"
	"github.com/tidings-io/tidings/internal/version"
)

// buildFronts makes the protocol servers on the bound sockets.
func (n *Node) buildFronts(level *slog.LevelVar, started time.Time) error {
	c := &n.cfg
	n.nsq = nsq.New(nsq.Over(n.broker), nsq.Options{
		TCP: n.fronts.tcp, HTTP: n.fronts.http, Version: version.NSQ, BroadcastAddress: c.BroadcastAddr,
		StartTime: started, Logger: n.log, LogLevel: level, Settings: n.setting, Warning: n.warning,
		MsgTimeout: c.MsgTimeout, MaxMsgTimeout: c.MaxMsgTimeout,
		MaxMsgSize: int64(c.MaxMsgSize), MaxBodySize: int64(c.MaxBodySize),
		MaxReqTimeout: c.MaxReqTimeout, MaxDeferTimeout: c.MaxDeferTimeout, MaxRdyCount: int64(c.MaxRdyCount),
		MaxHeartbeatInterval: c.MaxHeartbeatInterval,
		OutputBufferTimeout:  c.OutputBufferTimeout, MinOutputBufferTimeout: c.MinOutputBufferTimeout,
		MaxOutputBufferTimeout: c.MaxOutputBufferTimeout, MaxOutputBufferSize: int64(c.MaxOutputBufferSize),
		MaxChannelConsumers: c.MaxChannelConsumers,
		TopologyRegion:      c.TopologyRegion, TopologyZone: c.TopologyZone, DrainTimeout: c.DrainTimeout,
	})
	if n.fronts.admin != nil {
		n.admin = admin.New(admin.Options{
			Listener: n.fronts.admin, Ready: n.ready, Logger: n.log,
			Metrics: telemetry.Handler(telemetry.Sources{
				Broker: n.broker, WAL: n.wal, Groups: n.groups, Figures: n.figures,
				DiskFree: n.reserve.free.Load, ReserveReached: n.reserve.Reached,
			}),
		})
	}
	return nil
}

// setting answers GET /config for a setting by its file key.
func (n *Node) setting(key string) (any, bool) {
	for _, f := range n.cfg.Fields() {
		if f.Key() == key {
			return f.Value(), true
		}
	}
	return nil, false
}

// warning tells of damage that was skipped; it stands until the next start.
func (n *Node) warning() string {
	if damaged := n.store.Stats().CorruptBatches; damaged > 0 {
		return fmt.Sprintf("%d damaged places in segment files, what they held was skipped; `tidings log verify` names them", damaged)
	}
	return ""
}

// ready is nil, or why the node should get no traffic.
func (n *Node) ready() error {
	for _, g := range n.groups {
		if !g.Leader() {
			return errors.New("a shard has no leader here")
		}
	}
	return n.health()
}

// frontRuns lists the servers.
func (n *Node) frontRuns() []func(context.Context) error {
	runs := []func(context.Context) error{n.nsq.Run}
	if n.admin != nil {
		runs = append(runs, n.admin.Run)
	}
	return runs
}
