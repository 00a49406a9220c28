package node

import (
	"strconv"
	"time"

	"github.com/tidings-io/tidings/internal/telemetry/statsd"
)

// quantiles are those of the time from publish to FIN; none: it is not measured.
func (n *Node) quantiles() []float64 {
	list, _ := n.cfg.Quantiles() // Validate has looked
	return list
}

// latencyWindow is over how long that time is kept; 0: it is not measured.
func (n *Node) latencyWindow() time.Duration {
	if len(n.quantiles()) == 0 {
		return 0
	}
	return n.cfg.LatencyWindow
}

func (n *Node) statsdPrefix() string {
	self := &n.lookups.self
	return statsd.Prefix(n.cfg.StatsdPrefix, self.BroadcastAddress, strconv.Itoa(self.HTTPPort))
}

// buildStatsd makes what reports to a statsd daemon, where there is one.
func (n *Node) buildStatsd() {
	c := &n.cfg
	if c.StatsdAddress == "" {
		return
	}
	n.statsd = statsd.New(statsd.Options{
		Address: c.StatsdAddress, Prefix: n.statsdPrefix(), Interval: c.StatsdInterval, PacketSize: c.StatsdUDPPacketSize,
		MemStats: c.StatsdMemStats, ExcludeEphemeral: c.StatsdExcludeEphemeral, Source: n.nsq.Report, Logger: n.log,
	})
}
