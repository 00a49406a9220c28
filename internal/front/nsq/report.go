package nsq

import (
	"context"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/telemetry/statsd"
)

// Report is what /stats shows, for statsd.
func (f *Front) Report(ctx context.Context) (*statsd.Report, error) {
	topics, err := f.broker.Stats(ctx, broker.Filter{})
	if err != nil {
		return nil, err
	}
	consumers := f.consumers("", false)
	r := &statsd.Report{Memory: statsd.Memory(*f.memory())}
	for i := range topics {
		t := f.topicStats(&topics[i], consumers, false)
		topic := statsd.Topic{
			ID: topics[i].ID, Name: t.Name, Ephemeral: broker.IsEphemeral(t.Name),
			MessageCount: t.MessageCount, MessageBytes: t.MessageBytes,
			Depth: t.Depth, BackendDepth: t.BackendDepth, Latency: quantiles(&t.Latency),
		}
		for j := range t.Channels {
			c := &t.Channels[j]
			topic.Channels = append(topic.Channels, statsd.Channel{
				ID: topics[i].Channels[j].ID, Name: c.Name, Ephemeral: broker.IsEphemeral(c.Name),
				MessageCount: c.MessageCount, RequeueCount: c.RequeueCount, TimeoutCount: c.TimeoutCount,
				Depth: c.Depth, BackendDepth: c.BackendDepth, InFlight: c.InFlight, Deferred: c.Deferred,
				Clients: int64(c.ClientCount), Latency: quantiles(&c.Latency),
			})
		}
		r.Topics = append(r.Topics, topic)
	}
	return r, nil
}

func quantiles(l *latencyJSON) []statsd.Quantile {
	var out []statsd.Quantile
	for _, p := range l.Percentiles {
		out = append(out, statsd.Quantile(p))
	}
	return out
}
