package telemetry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/telemetry"
	"github.com/tidings-io/tidings/internal/wal"
)

// now is the time of all figures here.
var now = time.Unix(1_700_000_000, 0)

// sources are figures of so many topics with three channels each.
func sources(topics int) telemetry.Sources {
	all := make([]broker.TopicFigures, topics)
	published := make(map[string]uint64, topics)
	for i := range all {
		t := &all[i]
		t.Name = fmt.Sprintf("topic-%05d", i)
		t.MessageCount, t.MessageBytes, t.Depth, t.LogBytes = 10, 1000, 1, 2000
		for _, name := range []string{"archive", "audit", "live" + fmt.Sprint(i) + "#ephemeral"} {
			t.Channels = append(t.Channels, broker.ChannelStats{
				Name: name, Depth: 2, InFlight: 1, Deferred: 1, MessageCount: 10, RequeueCount: 1, TimeoutCount: 1,
			})
			t.Oldest = append(t.Oldest, now.Add(-time.Duration(i+1)*time.Second).UnixNano())
		}
		published[t.Name] = 7
	}
	return telemetry.Sources{
		Topics: func(context.Context) ([]broker.TopicFigures, error) { return all, nil },
		Consumers: func() map[telemetry.Channel]int {
			return map[telemetry.Channel]int{{Topic: "topic-00000", Channel: "audit"}: 4}
		},
		Published: func() map[string]map[string]uint64 { return map[string]map[string]uint64{"nsq": published} },
		Durations: func() telemetry.Histogram {
			return telemetry.Histogram{Bounds: []float64{0.001, 0.01}, Counts: []uint64{3, 2, 1}, Sum: 0.5}
		},
		WAL: func() (wal.Stats, int64) { return wal.Stats{Syncs: 3}, 1 << 20 },
		Groups: func() []shard.Status {
			return []shard.Status{
				{ID: 0, Leader: true, LeaderID: 1, Commit: 10, Elections: 2, Members: []shard.Member{{ID: 1, Match: 10}, {ID: 2, Match: 7}}},
				{ID: 1, Members: []shard.Member{{ID: 1}, {ID: 2}}},
			}
		},
		NodeName: func(id uint64) string { return fmt.Sprint("n", id) },
		Limits:   func() map[string]uint64 { return map[string]uint64{"disk_reserve": 1} },
		Figures:  func() []telemetry.Figure { return []telemetry.Figure{{Name: "ready", Help: "Ready.", Value: 1}} },
		Clock:    func() time.Time { return now },
	}
}

// families gathers what is scraped, by name.
func families(t testing.TB, s telemetry.Sources) map[string]*dto.MetricFamily {
	t.Helper()
	list, err := telemetry.Registry(s).Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]*dto.MetricFamily)
	for _, f := range list {
		out[f.GetName()] = f
	}
	return out
}

// value finds a series by its labels, "name=value".
func value(t *testing.T, f *dto.MetricFamily, labels ...string) float64 {
	t.Helper()
	for _, m := range f.GetMetric() {
		var have []string
		for _, l := range m.GetLabel() {
			have = append(have, l.GetName()+"="+l.GetValue())
		}
		if strings.Join(have, ",") == strings.Join(labels, ",") {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Errorf("%s has no series %v", f.GetName(), labels)
	return 0
}

func TestLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(telemetry.Registry(sources(3)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// The cap holds, and nothing is lost by it.
func TestCap(t *testing.T) {
	const topics = 50_000
	all := families(t, sources(topics))
	series := 0
	for name, f := range all {
		n := len(f.GetMetric())
		series += n
		if n > 2002 {
			t.Errorf("%s has %d series", name, n)
		}
	}
	if series > 30_000 {
		t.Errorf("%d series", series)
	}
	for name, want := range map[string]float64{
		"tidings_publish_records_total": 7 * topics, "tidings_stored_records_total": 10 * topics,
		"tidings_channel_backlog_records": 2 * 3 * topics, "tidings_channel_consumers": 4, "tidings_topics": topics,
		"tidings_channels": 3 * topics, "tidings_unlabelled_topics": topics - 2000,
	} {
		got := 0.0
		for _, m := range all[name].GetMetric() {
			got += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
		if got != want {
			t.Errorf("%s sums to %v, want %v", name, got, want)
		}
	}
	oldest := all["tidings_channel_oldest_unfinished_age_seconds"]
	if got := value(t, oldest, "channel=_other", "topic=_other"); got != topics {
		t.Errorf("the oldest of the others is %v s old", got)
	}
}

func TestValues(t *testing.T) {
	all := families(t, sources(2))
	for _, x := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"tidings_channel_oldest_unfinished_age_seconds", []string{"channel=audit", "topic=topic-00001"}, 2},
		{"tidings_channel_backlog_records", []string{"channel=_ephemeral", "topic=topic-00000"}, 2},
		{"tidings_channel_consumers", []string{"channel=audit", "topic=topic-00000"}, 4},
		{"tidings_publish_records_total", []string{"proto=nsq", "topic=topic-00001"}, 7},
		{"tidings_follower_lag_records", []string{"node=n2", "shard=0"}, 3},
		{"tidings_elections_total", []string{"shard=0"}, 2},
		{"tidings_limit_reached_total", []string{"limit=disk_reserve"}, 1},
		{"tidings_shard_leaders", nil, 1},
		{"tidings_shards_without_leader", nil, 1},
		{"tidings_figures_incomplete", nil, 0},
	} {
		if f := all[x.name]; f == nil {
			t.Errorf("there is no %s", x.name)
		} else if got := value(t, f, x.labels...); got != x.want {
			t.Errorf("%s%v is %v, want %v", x.name, x.labels, got, x.want)
		}
	}
	h := all["tidings_publish_duration_seconds"].GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != 6 || h.GetBucket()[1].GetCumulativeCount() != 5 {
		t.Errorf("histogram %v", h)
	}
}

// A shard that is stuck takes its own topics from a scrape, and nothing else.
func TestStuckShard(t *testing.T) {
	s := sources(1)
	whole := s.Topics
	s.Topics = func(ctx context.Context) ([]broker.TopicFigures, error) {
		list, _ := whole(ctx)
		return list, errors.New("shard 2 did not answer")
	}
	all := families(t, s)
	if value(t, all["tidings_figures_incomplete"]) != 1 || value(t, all["tidings_stored_records_total"], "topic=topic-00000") != 10 {
		t.Error("the rest is missing")
	}
}

func BenchmarkScrape50000Topics(b *testing.B) {
	r := telemetry.Registry(sources(50_000))
	for b.Loop() {
		if _, err := r.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
