package admin

import (
	"cmp"
	"slices"
)

const (
	overviewRows = 10
	findingsMax  = 100
)

// overview is the sample at a glance.
func (x *sample) overview() *Overview {
	x.overviewOnce.Do(func() {
		o := &Overview{
			At: x.at.UnixMilli(), Cluster: x.view.Cluster, Nodes: x.nodeRows(), Missing: x.missing,
			Oldest: []ChannelRow{}, Backlogs: []ChannelRow{}, Busiest: []TopicRow{},
		}
		o.Totals = x.totals()
		for i := range x.status.Shards {
			s := &x.status.Shards[i]
			o.Shards.Total++
			o.Shards.Leaderless += b2i(s.Leader == "")
			for _, r := range s.Replicas {
				if !r.Live || r.Lag > lagMax || r.CatchUp != nil {
					o.Shards.Behind++
					break
				}
			}
		}
		all := x.all()
		o.Oldest = top(all, func(c *ChannelRow) float64 { return ageOf(c.OldestAgeMs) })
		o.Backlogs = top(all, func(c *ChannelRow) float64 { return float64(c.Backlog) - 0.5 })
		o.Busiest = top(x.rows(), func(t *TopicRow) float64 { return rate(t.InRate) - 1e-9 })
		o.Findings = x.findings()
		o.Healthy = !slices.ContainsFunc(o.Findings, func(f Finding) bool { return f.Severity != severityInfo })
		if n := len(o.Findings); n > findingsMax {
			o.Findings, o.FindingsMore = o.Findings[:findingsMax], n-findingsMax
		}
		x.overviewIs = o
	})
	return x.overviewIs
}

// rows lists the topics without their channels.
func (x *sample) rows() []TopicRow {
	out := make([]TopicRow, len(x.topics))
	for i := range x.topics {
		out[i] = x.topics[i].TopicRow
	}
	return out
}

// top is the rows with the largest values that are not negative.
func top[T any](rows []T, value func(*T) float64) []T {
	best := make([]*T, 0, overviewRows+1)
	for i := range rows {
		r := &rows[i]
		v := value(r)
		if v < 0 || len(best) == overviewRows && v <= value(best[overviewRows-1]) {
			continue
		}
		at, _ := slices.BinarySearchFunc(best, v, func(b *T, v float64) int { return cmp.Or(cmp.Compare(v, value(b)), -1) })
		best = slices.Insert(best, at, r)
		best = best[:min(len(best), overviewRows)]
	}
	out := make([]T, 0, len(best))
	for _, r := range best {
		out = append(out, *r)
	}
	return out
}

func (x *sample) totals() Totals {
	t := Totals{Topics: len(x.topics), Channels: x.channels}
	for i := range x.topics {
		s := &x.topics[i]
		t.Consumers += s.Consumers
		t.Backlog += s.Backlog
		t.Waiting += s.Waiting
		t.InFlight += s.InFlight
		t.Deferred += s.Deferred
		t.LogBytes += s.LogBytes
		addKnown(&t.InRate, s.InRate)
		addKnown(&t.InBytesRate, s.InBytesRate)
		addKnown(&t.OutRate, s.OutRate)
		for k := range s.channels {
			c := &s.channels[k]
			addKnown(&t.RequeueRate, c.RequeueRate)
			addKnown(&t.TimeoutRate, c.TimeoutRate)
			if c.OldestAgeMs != nil && (t.OldestAgeMs == nil || *c.OldestAgeMs > *t.OldestAgeMs) {
				t.OldestAgeMs, t.Oldest = c.OldestAgeMs, &Target{Topic: c.Topic, Channel: c.Name}
			}
		}
	}
	for _, r := range x.reports {
		t.Connections += r.node.Connections
	}
	if x.rated { // of nothing there is none
		for _, r := range []**float64{&t.InRate, &t.InBytesRate, &t.OutRate, &t.RequeueRate, &t.TimeoutRate} {
			addRate(r, 0)
		}
		for _, n := range x.nodeRates {
			addRate(&t.DeliveredRate, n.delivered)
		}
	}
	return t
}

func addKnown(sum **float64, r *float64) {
	if r != nil {
		addRate(sum, *r)
	}
}
