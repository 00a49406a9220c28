package node

import "github.com/tidings-io/tidings/internal/telemetry"

// figures are the counts of the parts that telemetry does not know.
func (n *Node) figures() []telemetry.Figure {
	f := n.nsq.Snapshot()
	s := n.store.Stats()
	list := []telemetry.Figure{
		{Name: "nsq_connections", Help: "Open NSQ TCP connections.", Value: float64(f.Connections)},
		{Name: "nsq_consumers", Help: "Open NSQ TCP connections with a subscription.", Value: float64(f.Consumers)},
		{Name: "nsq_connections_total", Help: "NSQ TCP connections accepted.", Counter: true, Value: float64(f.ConnectionsTotal)},
		{Name: "nsq_publish_failures_total", Help: "Publishes over TCP that were refused.", Counter: true, Value: float64(f.PublishesFailedTotal)},
		{Name: "nsq_delivered_records_total", Help: "Messages written to consumers.", Counter: true, Value: float64(f.MessagesDeliveredTotal)},
		{Name: "nsq_delivered_bytes_total", Help: "Bytes of message bodies written to consumers.", Counter: true, Value: float64(f.BytesDeliveredTotal)},
		{Name: "nsq_errors_total", Help: "Error frames that closed a connection.", Counter: true, Value: float64(f.RefusalsTotal)},
		{Name: "nsq_back_pressure_total", Help: "Times that a publish had to wait for room.", Counter: true, Value: float64(f.BackPressureTotal)},
		{Name: "nsq_buffered_bytes", Help: "Bytes of message bodies that are being read or wait to be stored.", Value: float64(f.BufferedBytes)},
		{Name: "http_requests_total", Help: "Requests to nsqd's HTTP API.", Counter: true, Value: float64(f.HTTPRequestsTotal)},
		{Name: "http_request_failures_total", Help: "Requests to nsqd's HTTP API that were answered with an error.", Counter: true, Value: float64(f.HTTPRequestsFailedTotal)},
		{Name: "auth_queries_total", Help: "Questions to auth servers, for clients of NSQ's TCP and HTTP.", Counter: true, Value: float64(f.AuthQueriesTotal)},
		{Name: "auth_query_failures_total", Help: "Questions to auth servers without a valid answer.", Counter: true, Value: float64(f.AuthQueriesFailedTotal)},
		{Name: "tail_bytes", Help: "Bytes of messages in memory that are in no segment file yet.", Value: float64(s.TailBytes)},
		{Name: "segments", Help: "Segment files of all topics.", Value: float64(s.Segments)},
		{Name: "segments_dead", Help: "Segment files that go when two more checkpoints are complete.", Value: float64(s.DeadFiles)},
		{Name: "segment_flushed_bytes_total", Help: "Bytes moved from memory to segment files.", Counter: true, Value: float64(s.FlushedBytes)},
		{Name: "segment_damage_total", Help: "Damaged places found in segment files.", Counter: true, Value: float64(s.CorruptBatches)},
	}
	if n.member == nil {
		return list
	}
	m := n.member.mender.Stats()
	return append(list,
		telemetry.Figure{Name: "repairs_pending", Help: "Damaged places in segment files that are being fetched from other replicas.", Value: float64(m.Pending)},
		telemetry.Figure{Name: "repairs_lost", Help: "Damaged places in segment files that no other replica could give.", Value: float64(m.Lost)},
		telemetry.Figure{Name: "repairs_total", Help: "Damaged places in segment files that were made whole.", Counter: true, Value: float64(m.Repaired)},
		telemetry.Figure{Name: "repaired_bytes_total", Help: "Bytes fetched from other replicas for repairs.", Counter: true, Value: float64(m.Bytes)},
	)
}
