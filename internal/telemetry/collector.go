// Package telemetry turns a node's figures into Prometheus metrics. docs/metrics.md
// lists them; a test keeps it current.
package telemetry

import (
	"context"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/version"
	"github.com/tidings-io/tidings/internal/wal"
)

// statsTimeout bounds how long a scrape waits for the shards.
const statsTimeout = 5 * time.Second

// Sources is where the figures come from.
type Sources struct {
	// Topics are the figures of all topics; what could not be told in time is
	// left out and makes an error beside the rest.
	Topics func(ctx context.Context) ([]broker.TopicFigures, error)
	// Consumers is how many consumers are connected here, by channel.
	Consumers func() map[Channel]int
	// Published counts what clients have published since the process started,
	// by protocol and topic.
	Published func() map[string]map[string]uint64
	// Durations is how long publishes took: counts that are not cumulative, of
	// the bounds and of what is above.
	Durations func() Histogram
	WAL       func() (stats wal.Stats, liveBytes int64)
	// Groups are the Raft groups as they are now.
	Groups func() []shard.Status
	// NodeName names a node by its Raft id.
	NodeName func(id uint64) string
	// Limits counts how often a limit was reached since the process started, by
	// its name.
	Limits func() map[string]uint64
	// Figures are those that parts of the node name themselves.
	Figures func() []Figure
	Clock   func() time.Time // default time.Now
}

// Channel names a channel of a topic.
type Channel struct{ Topic, Channel string }

// Histogram is counts by upper bound, not cumulative; the last has no bound.
type Histogram struct {
	Bounds []float64
	Counts []uint64
	Sum    float64
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
	return promhttp.HandlerFor(Registry(s), promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// Registry gathers the node's metrics, and those of Go and the process.
func Registry(s Sources) *prometheus.Registry {
	if s.Clock == nil {
		s.Clock = time.Now
	}
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), &collector{s})
	return r
}

type collector struct{ Sources }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tidings_"+name, help, labels, nil)
}

var (
	buildInfo       = desc("build_info", "Version of the running binary; always 1.", "version", "go_version")
	publishRecords  = desc("publish_records_total", "Messages of clients of this node that were acknowledged, by protocol (nsq, http).", "topic", "proto")
	publishDuration = desc("publish_duration_seconds", "Time from taking a publish off a client to its acknowledgement, of one publish in sixteen.")
	storedRecords   = desc("stored_records_total", "Messages stored in partitions while this node led them.", "topic")
	storedBytes     = desc("stored_bytes_total", "Bytes of message bodies stored in partitions while this node led them.", "topic")
	topicWaiting    = desc("topic_waiting_records", "Messages that no channel has been given yet.", "topic")
	topicLogBytes   = desc("topic_log_bytes", "Bytes kept for the topic, in memory and files.", "topic")
	channelBacklog  = desc("channel_backlog_records", "Messages that wait for a consumer of the channel.", "topic", "channel")
	channelOldest   = desc("channel_oldest_unfinished_age_seconds", "Time since the oldest unfinished message of the channel was published, 0 without one. Deferred messages do not count before they are due.", "topic", "channel")
	channelInFlight = desc("channel_in_flight_records", "Messages that consumers of the channel hold.", "topic", "channel")
	channelDeferred = desc("channel_deferred_records", "Messages that wait for their time.", "topic", "channel")
	channelRecords  = desc("channel_records_total", "Messages given to the channel.", "topic", "channel")
	channelRequeued = desc("channel_requeued_records_total", "Messages given back by consumers.", "topic", "channel")
	channelTimedOut = desc("channel_timed_out_records_total", "Deliveries that ran out of time.", "topic", "channel")
	channelDead     = desc("channel_dead_lettered_records_total", "Messages that had all the attempts of the channel and went to its dead-letter topic.", "topic", "channel")
	channelClients  = desc("channel_consumers", "Consumers of the channel that are connected to this node.", "topic", "channel")
	topicCount      = desc("topics", "Topics, those included that have no labels of their own.")
	channelCount    = desc("channels", "Channels of all topics.")
	unlabelled      = desc("unlabelled_topics", "Topics beyond the first 2,000 by name, which are summed under the label _other.")
	incomplete      = desc("figures_incomplete", "1 when a shard did not tell its figures in time: its topics are missing here.")
	syncDuration    = desc("log_sync_duration_seconds", "Time to make one group write of the write-ahead log durable.")
	syncMax         = desc("log_sync_duration_max_seconds", "Longest time to make one group write durable since the node started.")
	walBytes        = desc("log_bytes", "Bytes in live segments of the write-ahead log.")
	walRecycles     = desc("log_segments_recycled_total", "Segments of the write-ahead log that were used again.")
	walCut          = desc("log_cut_bytes", "Bytes of a torn last write that were cut when the node started.")
	shardLeaders    = desc("shard_leaders", "Raft groups that this node leads, metadata included.")
	shardOrphans    = desc("shards_without_leader", "Raft groups of this node that have no leader as it knows.")
	elections       = desc("elections_total", "Leaders that followed on each other in a Raft group, as this node saw them.", "shard")
	followerLag     = desc("follower_lag_records", "Log records of a Raft group that this node leads which a follower does not have yet.", "shard", "node")
	limitReached    = desc("limit_reached_total", "Times that a limit was reached.", "limit")
)

// Describe sends nothing: which series there are depends on the topics.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// sink is where the values go.
type sink struct{ ch chan<- prometheus.Metric }

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (s sink) counter(d *prometheus.Desc, v float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

// Collect reads all figures once.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := sink{ch}
	s.gauge(buildInfo, 1, version.String(), runtime.Version())
	c.log(s)
	c.groups(s)
	for limit, n := range c.Limits() {
		s.counter(limitReached, float64(n), limit)
	}
	for _, f := range c.Figures() {
		if f.Counter {
			s.counter(desc(f.Name, f.Help), f.Value)
		} else {
			s.gauge(desc(f.Name, f.Help), f.Value)
		}
	}
	c.topics(s)
}

// log is the write-ahead log, and what waits for it.
func (c *collector) log(s sink) {
	st, live := c.WAL()
	s.ch <- histogram(syncDuration, Histogram{Bounds: wal.SyncBounds[:], Counts: st.SyncBuckets[:], Sum: st.SyncTime.Seconds()})
	s.gauge(syncMax, st.SyncMax.Seconds())
	s.gauge(walBytes, float64(live))
	s.counter(walRecycles, float64(st.Recycles))
	s.gauge(walCut, float64(st.CutBytes))
	s.ch <- histogram(publishDuration, c.Durations())
}

func histogram(d *prometheus.Desc, h Histogram) prometheus.Metric {
	buckets := make(map[float64]uint64, len(h.Bounds))
	total := uint64(0)
	for i, n := range h.Counts {
		if total += n; i < len(h.Bounds) {
			buckets[h.Bounds[i]] = total
		}
	}
	return prometheus.MustNewConstHistogram(d, total, h.Sum, buckets)
}

// groups are the Raft groups.
func (c *collector) groups(s sink) {
	leads, orphans := 0, 0
	for _, g := range c.Groups() {
		id := strconv.FormatUint(uint64(g.ID), 10)
		s.counter(elections, float64(g.Elections), id)
		if !g.Leader && g.LeaderID == 0 && len(g.Members) > 0 {
			orphans++
		}
		if !g.Leader {
			continue
		}
		leads++
		for _, m := range g.Members {
			if m.ID != g.LeaderID {
				s.gauge(followerLag, float64(g.Commit-min(g.Commit, m.Match)), id, c.NodeName(m.ID))
			}
		}
	}
	s.gauge(shardLeaders, float64(leads))
	s.gauge(shardOrphans, float64(orphans))
}

// topics are topics and channels.
func (c *collector) topics(s sink) {
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	topics, err := c.Topics(ctx)
	s.gauge(incomplete, boolValue(err != nil))
	sums := sum(topics, c.Consumers())
	s.gauge(topicCount, float64(len(topics)))
	s.gauge(channelCount, float64(sums.channelCount))
	s.gauge(unlabelled, float64(sums.unlabelled))
	for name, t := range sums.topics {
		s.counter(storedRecords, float64(t.MessageCount), name)
		s.counter(storedBytes, float64(t.MessageBytes), name)
		s.gauge(topicWaiting, float64(t.Depth), name)
		s.gauge(topicLogBytes, float64(t.LogBytes), name)
	}
	now := c.Clock().UnixNano()
	for at, x := range sums.channels {
		age := int64(0)
		if x.oldest > 0 {
			age = max(now-x.oldest, 0)
		}
		s.gauge(channelBacklog, float64(x.Depth), at.Topic, at.Channel)
		s.gauge(channelOldest, time.Duration(age).Seconds(), at.Topic, at.Channel)
		s.gauge(channelInFlight, float64(x.InFlight), at.Topic, at.Channel)
		s.gauge(channelDeferred, float64(x.Deferred), at.Topic, at.Channel)
		s.counter(channelRecords, float64(x.MessageCount), at.Topic, at.Channel)
		s.counter(channelRequeued, float64(x.RequeueCount), at.Topic, at.Channel)
		s.counter(channelTimedOut, float64(x.TimeoutCount), at.Topic, at.Channel)
		s.counter(channelDead, float64(x.DeadLetterCount), at.Topic, at.Channel)
		s.gauge(channelClients, float64(x.consumers), at.Topic, at.Channel)
	}
	for proto, counts := range c.Published() {
		for name, n := range sums.published(counts) {
			s.counter(publishRecords, float64(n), name, proto)
		}
	}
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
