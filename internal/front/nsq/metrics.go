package nsq

import (
	"sync/atomic"

	"github.com/tidings-io/tidings/internal/auth"
)

// metrics are the front's counters, since the process started.
type metrics struct {
	connections     atomic.Uint64
	publishes       atomic.Uint64
	published       atomic.Uint64
	publishedBytes  atomic.Uint64
	publishesFailed atomic.Uint64
	delivered       atomic.Uint64
	deliveredBytes  atomic.Uint64
	answers         atomic.Uint64
	answersFailed   atomic.Uint64
	refusals        atomic.Uint64
	heartbeats      atomic.Uint64
	backPressure    atomic.Uint64
	requests        atomic.Uint64
	requestsFailed  atomic.Uint64

	consumersRefused atomic.Uint64
	durations        durations
	tcp, http        tallies
}

// Metrics are the front's figures at one moment. Counts run since the process
// started.
type Metrics struct {
	// Connections and Consumers are open now; ConnectionsTotal were accepted.
	Connections, Consumers int
	ConnectionsTotal       uint64
	// PublishesTotal are calls of the broker, MessagesPublishedTotal and
	// BytesPublishedTotal what was in them, PublishesFailedTotal those it
	// refused (over TCP).
	PublishesTotal, MessagesPublishedTotal, BytesPublishedTotal, PublishesFailedTotal uint64
	// MessagesDeliveredTotal and BytesDeliveredTotal were written to consumers.
	MessagesDeliveredTotal, BytesDeliveredTotal uint64
	// AnswersTotal are FIN, REQ and TOUCH; AnswersFailedTotal were refused.
	AnswersTotal, AnswersFailedTotal uint64
	// RefusalsTotal are error frames that closed a connection.
	RefusalsTotal   uint64
	HeartbeatsTotal uint64
	// BackPressureTotal counts each time that a publish had to wait for room.
	BackPressureTotal uint64
	// HTTPRequestsTotal and HTTPRequestsFailedTotal (status 400 and above).
	HTTPRequestsTotal, HTTPRequestsFailedTotal uint64
	// AuthQueriesTotal are questions to auth servers, for clients of TCP and
	// HTTP; AuthQueriesFailedTotal got no valid answer.
	AuthQueriesTotal, AuthQueriesFailedTotal uint64
	// ConsumersRefusedTotal are subscriptions beyond MaxChannelConsumers.
	ConsumersRefusedTotal uint64
	// BufferedBytes are bodies being read or waiting for the broker;
	// BufferedBytesMax is their limit.
	BufferedBytes, BufferedBytesMax int64
}

// Snapshot returns the figures of the moment.
func (f *Front) Snapshot() Metrics {
	conns := f.snapshot()
	consumers := 0
	for _, c := range conns {
		if c.sub.Load() != nil {
			consumers++
		}
	}
	m := &f.metrics
	var asked auth.Stats
	if f.o.Auth != nil {
		asked = f.o.Auth.Stats()
	}
	return Metrics{
		Connections: len(conns), Consumers: consumers,
		ConnectionsTotal: m.connections.Load(),
		PublishesTotal:   m.publishes.Load(), MessagesPublishedTotal: m.published.Load(),
		BytesPublishedTotal: m.publishedBytes.Load(), PublishesFailedTotal: m.publishesFailed.Load(),
		MessagesDeliveredTotal: m.delivered.Load(), BytesDeliveredTotal: m.deliveredBytes.Load(),
		AnswersTotal: m.answers.Load(), AnswersFailedTotal: m.answersFailed.Load(),
		RefusalsTotal: m.refusals.Load(), HeartbeatsTotal: m.heartbeats.Load(), BackPressureTotal: m.backPressure.Load(),
		HTTPRequestsTotal: m.requests.Load(), HTTPRequestsFailedTotal: m.requestsFailed.Load(),
		AuthQueriesTotal: asked.Asked, AuthQueriesFailedTotal: asked.Failed,
		ConsumersRefusedTotal: m.consumersRefused.Load(),
		BufferedBytes:         f.budget.used.Load(), BufferedBytesMax: f.budget.limit,
	}
}
