package edge

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tidings-io/tidings/internal/version"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tidings_"+name, help, labels, nil)
}

// topicsLabelled is how many topics have figures of their own, by name.
const topicsLabelled = 2000

var (
	buildInfo   = desc("build_info", "Version of the running binary; always 1.", "version", "go_version")
	published   = desc("edge_published_records_total", "Messages taken into the spool since the start.", "topic")
	topicDepth  = desc("edge_spool_topic_records", "Messages of a topic in the spool that are not known to be upstream.", "topic")
	topicOldest = desc("edge_spool_topic_oldest_age_seconds", "Age of the oldest of them, 0 without one.", "topic")
	depth       = desc("edge_spool_records", "Messages in the spool that are not known to be upstream.")
	oldest      = desc("edge_spool_oldest_age_seconds", "Age of the oldest message in the spool, 0 without one.")
	used        = desc("edge_spool_bytes", "Bytes of the spool in use; space comes back in segments.")
	limit       = desc("edge_spool_limit_bytes", "Bytes that the spool may use.")
	refused     = desc("edge_refused_publishes_total", "Publishes that were refused, because the spool or the disk is full or the topic can't be.")
	forwarded   = desc("edge_forwarded_records_total", "Messages brought upstream since the start.")
	failures    = desc("edge_forward_failures_total", "Attempts to bring messages upstream that failed.")
	connected   = desc("edge_upstream_connected", "1 when upstream took what it was given last.")
	syncMax     = desc("log_sync_duration_max_seconds", "Longest time to make one group write durable since the start.")
)

// collector reads an edge's figures.
type collector struct{ e *Edge }

// Describe sends nothing: which series there are depends on the topics.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads all figures once.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	s, f := c.e.spool.Stats(""), c.e.forward.Stats()
	gauge(buildInfo, 1, version.String(), runtime.Version())
	gauge(depth, float64(s.Depth))
	gauge(oldest, s.Oldest.Seconds())
	gauge(used, float64(s.Bytes))
	gauge(limit, float64(s.Limit))
	gauge(syncMax, s.Log.SyncMax.Seconds())
	counter(refused, float64(s.Refused))
	counter(forwarded, float64(f.Messages))
	counter(failures, float64(f.Failures))
	up := 0.0
	if f.Connected {
		up = 1
	}
	gauge(connected, up)
	for _, t := range s.Topics[:min(len(s.Topics), topicsLabelled)] {
		counter(published, float64(t.Messages), t.Name)
		gauge(topicDepth, float64(t.Depth), t.Name)
		gauge(topicOldest, t.Oldest.Seconds(), t.Name)
	}
}
