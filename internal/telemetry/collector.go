// Package telemetry turns a node's figures into Prometheus metrics.
package telemetry

import (
	"context"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/version"
	"github.com/tidings-io/tidings/internal/wal"
)

// seriesMax bounds the topics and the channels that get labels of their own;
// the rest is summed under otherLabel.
const seriesMax = 2000

// otherLabel names what is beyond seriesMax; ephemeralLabel all ephemeral
// channels together, whose names are random.
const (
	otherLabel     = "_other"
	ephemeralLabel = "_ephemeral"
)

// statsTimeout bounds how long a scrape waits for the shards.
const statsTimeout = 5 * time.Second

// Sources is where the figures come from.
type Sources struct {
	Broker *broker.Broker
	WAL    *wal.WAL
	Groups []*shard.Group
	// DiskFree is the volume's free space in bytes, ReserveReached whether
	// publishing is stopped by it.
	DiskFree       func() int64
	ReserveReached func() bool
	// Figures are those that parts of the node name themselves.
	Figures func() []Figure
}

// Figure is a single value without labels.
type Figure struct {
	Name    string // behind tidings_
	Help    string
	Counter bool // or a gauge
	Value   float64
}

// Handler answers /metrics.
func Handler(s Sources) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &collector{s})
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

type collector struct{ Sources }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tidings_"+name, help, labels, nil)
}

var (
	buildInfo       = desc("build_info", "Version of the running binary; always 1.", "version", "go_version")
	publishRecords  = desc("publish_records_total", "Messages published through this node since it started.", "topic")
	publishBytes    = desc("publish_bytes_total", "Bytes of message bodies published through this node since it started.", "topic")
	topicDepth      = desc("topic_depth_records", "Messages that no channel has been given yet.", "topic")
	topicLogBytes   = desc("topic_log_bytes", "Bytes kept for the topic, in memory and files.", "topic")
	channelBacklog  = desc("channel_backlog_records", "Messages that wait for a consumer of the channel.", "topic", "channel")
	channelInFlight = desc("channel_in_flight_records", "Messages that consumers of the channel hold.", "topic", "channel")
	channelDeferred = desc("channel_deferred_records", "Messages that wait for their time.", "topic", "channel")
	channelRequeued = desc("channel_requeued_records_total", "Messages given back by consumers since the node started.", "topic", "channel")
	channelTimedOut = desc("channel_timed_out_records_total", "Deliveries that ran out of time since the node started.", "topic", "channel")
	channelClients  = desc("channel_consumers", "Consumers subscribed to the channel at this node.", "topic", "channel")
	syncDuration    = desc("log_sync_duration_seconds", "Time to make one group write of the write-ahead log durable.")
	syncMax         = desc("log_sync_duration_max_seconds", "Longest time to make one group write durable since the node started.")
	walBytes        = desc("log_bytes", "Bytes in live segments of the write-ahead log.")
	walRecycles     = desc("log_segments_recycled_total", "Segments of the write-ahead log that were used again.")
	walCut          = desc("log_cut_bytes", "Bytes of a torn last write that were cut when the node started.")
	shardLeaders    = desc("shard_leaders", "Raft groups that this node leads, metadata included.")
	diskFree        = desc("disk_free_bytes", "Free space of the data volume.")
	reserveReached  = desc("disk_reserve_reached", "1 while publishing is stopped because the disk reserve is reached.")
)

// Describe sends nothing: which series there are depends on the topics.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads all figures once.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge(buildInfo, 1, version.String(), runtime.Version())
	st := c.WAL.Stats()
	ch <- prometheus.MustNewConstHistogram(syncDuration, st.Syncs, st.SyncTime.Seconds(), cumulative(&st))
	gauge(syncMax, st.SyncMax.Seconds())
	gauge(walBytes, float64(c.WAL.Size()))
	counter(walRecycles, float64(st.Recycles))
	gauge(walCut, float64(st.CutBytes))
	leads := 0
	for _, g := range c.Groups {
		if g.Leader() {
			leads++
		}
	}
	gauge(shardLeaders, float64(leads))
	gauge(diskFree, float64(c.DiskFree()))
	gauge(reserveReached, boolValue(c.ReserveReached()))

	for _, f := range c.Figures() {
		if f.Counter {
			counter(desc(f.Name, f.Help), f.Value)
		} else {
			gauge(desc(f.Name, f.Help), f.Value)
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	topics, err := c.Broker.Stats(ctx, broker.Filter{})
	if err != nil {
		ch <- prometheus.NewInvalidMetric(topicDepth, err)
		return
	}
	byTopic, byChannel := sum(topics)
	for name, t := range byTopic {
		counter(publishRecords, float64(t.MessageCount), name)
		counter(publishBytes, float64(t.MessageBytes), name)
		gauge(topicDepth, float64(t.Depth), name)
		gauge(topicLogBytes, float64(t.LogBytes), name)
	}
	for name, s := range byChannel {
		gauge(channelBacklog, float64(s.Depth), name.topic, name.channel)
		gauge(channelInFlight, float64(s.InFlight), name.topic, name.channel)
		gauge(channelDeferred, float64(s.Deferred), name.topic, name.channel)
		counter(channelRequeued, float64(s.RequeueCount), name.topic, name.channel)
		counter(channelTimedOut, float64(s.TimeoutCount), name.topic, name.channel)
		gauge(channelClients, float64(s.consumers), name.topic, name.channel)
	}
}

// cumulative turns the WAL's buckets into Prometheus's.
func cumulative(st *wal.Stats) map[float64]uint64 {
	out := make(map[float64]uint64, len(wal.SyncBounds))
	total := uint64(0)
	for i, bound := range wal.SyncBounds {
		total += st.SyncBuckets[i]
		out[bound] = total
	}
	return out
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

type channelName struct{ topic, channel string }

type channelSum struct {
	broker.ChannelStats
	consumers int
}

// sum adds up what shares labels: everything beyond the cap, and a topic's
// ephemeral channels.
func sum(topics []broker.TopicStats) (map[string]*broker.TopicStats, map[channelName]*channelSum) {
	byTopic := make(map[string]*broker.TopicStats)
	byChannel := make(map[channelName]*channelSum)
	for i := range topics {
		t := &topics[i]
		label := t.Name
		if len(byTopic) >= seriesMax {
			label = otherLabel
		}
		s := byTopic[label]
		if s == nil {
			s = &broker.TopicStats{}
			byTopic[label] = s
		}
		s.MessageCount += t.MessageCount
		s.MessageBytes += t.MessageBytes
		s.Depth += t.Depth
		s.LogBytes += t.LogBytes
		for j := range t.Channels {
			addChannel(byChannel, label, &t.Channels[j])
		}
	}
	return byTopic, byChannel
}

func addChannel(byChannel map[channelName]*channelSum, topic string, c *broker.ChannelStats) {
	name := channelName{topic, c.Name}
	if strings.HasSuffix(c.Name, "#ephemeral") {
		name.channel = ephemeralLabel
	}
	if byChannel[name] == nil && len(byChannel) >= seriesMax {
		name = channelName{otherLabel, otherLabel}
	}
	s := byChannel[name]
	if s == nil {
		s = &channelSum{}
		byChannel[name] = s
	}
	s.Depth += c.Depth
	s.InFlight += c.InFlight
	s.Deferred += c.Deferred
	s.RequeueCount += c.RequeueCount
	s.TimeoutCount += c.TimeoutCount
	s.consumers += len(c.Subscriptions)
}
