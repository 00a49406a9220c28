package node

import (
	"context"
	"fmt"
	"net/http"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/front/nsq"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/telemetry"
	"github.com/tidings-io/tidings/internal/wal"
)

// metricsHandler answers /metrics.
func (n *Node) metricsHandler() http.Handler {
	return telemetry.Handler(telemetry.Sources{
		Topics: func(ctx context.Context) ([]broker.TopicFigures, error) {
			return n.broker.Figures(ctx, broker.Filter{})
		},
		Consumers: func() map[telemetry.Channel]int {
			counts := n.nsq.ConsumerCounts()
			out := make(map[telemetry.Channel]int, len(counts))
			for at, c := range counts {
				out[telemetry.Channel(at)] = c
			}
			return out
		},
		Published: func() map[string]map[string]uint64 {
			tcp, http := n.nsq.Published()
			return map[string]map[string]uint64{"nsq": tcp, "http": http}
		},
		Durations: func() telemetry.Histogram {
			d := n.nsq.Durations()
			return telemetry.Histogram{Bounds: nsq.DurationBounds[:], Counts: d.Buckets[:], Sum: d.Sum.Seconds()}
		},
		WAL: func() (wal.Stats, int64) { return n.wal.Stats(), n.wal.Size() },
		Groups: func() []shard.Status {
			groups := n.groups.All()
			out := make([]shard.Status, 0, len(groups))
			for _, g := range groups {
				out = append(out, g.Status())
			}
			return out
		},
		NodeName: func(id uint64) string {
			if m, ok := n.meta.View().Node(id); ok {
				return m.Name
			}
			return fmt.Sprintf("%016x", id)
		},
		Limits: n.limitsReached, Figures: n.figures,
	})
}

// limitsReached counts how often limits were reached, by name.
func (n *Node) limitsReached() map[string]uint64 {
	f := n.nsq.Snapshot()
	return map[string]uint64{
		"publish_buffer":        f.BackPressureTotal,
		"max_channel_consumers": f.ConsumersRefusedTotal,
		"disk_reserve":          n.reserve.times.Load(),
		"admin_streams":         n.admin.StreamsRefused(),
	}
}

// figures are the counts of the parts that telemetry does not know.
func (n *Node) figures() []telemetry.Figure {
	f := n.nsq.Snapshot()
	s := n.store.Stats()
	var pending, lost, repaired, bytes float64
	if n.member != nil {
		m := n.member.mender.Stats()
		pending, lost, repaired, bytes = float64(m.Pending), float64(m.Lost), float64(m.Repaired), float64(m.Bytes)
	}
	spool := n.spool.stats()
	if spool == nil {
		spool = &nsq.SpoolStats{}
	}
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	gauge := func(name, help string, v float64) telemetry.Figure {
		return telemetry.Figure{Name: name, Help: help, Value: v}
	}
	counter := func(name, help string, v float64) telemetry.Figure {
		return telemetry.Figure{Name: name, Help: help, Value: v, Counter: true}
	}
	return []telemetry.Figure{
		gauge("ready", "1 while the node takes traffic; /readyz says why not.", flag(n.ready() == nil)),
		gauge("disk_free_bytes", "Free space of the data volume.", float64(n.reserve.free.Load())),
		gauge("disk_reserve_bytes", "Free space below which publishing stops.", float64(n.reserve.limit.Load())),
		gauge("disk_reserve_reached", "1 while publishing is stopped because the disk reserve is reached.", flag(n.reserve.Reached())),
		gauge("nsq_connections", "Open NSQ TCP connections.", float64(f.Connections)),
		gauge("nsq_consumers", "Open NSQ TCP connections with a subscription.", float64(f.Consumers)),
		counter("nsq_connections_total", "NSQ TCP connections accepted.", float64(f.ConnectionsTotal)),
		counter("nsq_publish_failures_total", "Publishes over TCP that were refused.", float64(f.PublishesFailedTotal)),
		counter("nsq_delivered_records_total", "Messages written to consumers.", float64(f.MessagesDeliveredTotal)),
		counter("nsq_delivered_bytes_total", "Bytes of message bodies written to consumers.", float64(f.BytesDeliveredTotal)),
		counter("nsq_errors_total", "Error frames that closed a connection.", float64(f.RefusalsTotal)),
		gauge("nsq_buffered_bytes", "Bytes of message bodies that are being read or wait to be stored.", float64(f.BufferedBytes)),
		counter("http_requests_total", "Requests to nsqd's HTTP API.", float64(f.HTTPRequestsTotal)),
		counter("http_request_failures_total", "Requests to nsqd's HTTP API that were answered with an error.", float64(f.HTTPRequestsFailedTotal)),
		counter("auth_queries_total", "Questions to auth servers, for clients of NSQ's TCP and HTTP.", float64(f.AuthQueriesTotal)),
		counter("auth_query_failures_total", "Questions to auth servers without a valid answer.", float64(f.AuthQueriesFailedTotal)),
		gauge("tail_bytes", "Bytes of messages in memory that are in no segment file yet.", float64(s.TailBytes)),
		gauge("segments", "Segment files of all topics.", float64(s.Segments)),
		gauge("segments_dead", "Segment files that go when two more checkpoints are complete.", float64(s.DeadFiles)),
		counter("segment_flushed_bytes_total", "Bytes moved from memory to segment files.", float64(s.FlushedBytes)),
		counter("segment_damage_total", "Damaged places found in segment files.", float64(s.CorruptBatches)),
		gauge("spool_records", "Messages in this node's spool, of topics with ack local, that are not known to be in the cluster.", float64(spool.Depth)),
		gauge("spool_oldest_age_seconds", "Age of the oldest of them, 0 without one.", float64(spool.OldestAge)/1000),
		gauge("spool_bytes", "Bytes of the spool in use; space comes back in segments.", float64(spool.Bytes)),
		counter("spool_forwarded_records_total", "Messages of the spool brought to the cluster.", float64(spool.Forwarded)),
		counter("spool_refused_publishes_total", "Publishes that the spool refused, because it or the disk is full.", float64(spool.Refused)),
		gauge("repairs_pending", "Damaged places in segment files that are being fetched from other replicas.", pending),
		gauge("repairs_lost", "Damaged places in segment files that no other replica could give.", lost),
		counter("repairs_total", "Damaged places in segment files that were made whole.", repaired),
		counter("repaired_bytes_total", "Bytes fetched from other replicas for repairs.", bytes),
	}
}
