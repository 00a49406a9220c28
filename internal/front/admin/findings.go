package admin

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
)

// How grave a finding is.
const (
	severityCritical = "critical"
	severityWarning  = "warning"
	severityInfo     = "info"
)

// From when on something is a finding.
const (
	lagMax       = 10_000 // entries
	stuckAge     = 15 * time.Second
	unservedAge  = 10 * time.Second
	growingFor   = 8 * time.Second
	growingMin   = 1000 // messages
	timeoutsMin  = 0.5  // per second
	spoolAge     = 30 * time.Second
	spoolNear    = 0.8 // of the limit
	findingsEach = 400 // of topics and channels; what is beyond is not looked at
)

// findings are what is wrong, the gravest first.
func (x *sample) findings() []Finding {
	var b findings
	x.nodeFindings(&b)
	x.shardFindings(&b)
	for i := range x.topics {
		if len(b.list) > findingsEach {
			break
		}
		x.topicFindings(&b, &x.topics[i])
	}
	grade := map[string]int{severityCritical: 0, severityWarning: 1, severityInfo: 2}
	slices.SortStableFunc(b.list, func(p, q Finding) int { return cmp.Compare(grade[p.Severity], grade[q.Severity]) })
	return append([]Finding{}, b.list...)
}

type findings struct{ list []Finding }

type values = map[string]any

func (b *findings) add(severity, code string, on Target, v values, next, text string, args ...any) {
	f := Finding{Severity: severity, Code: code, Text: fmt.Sprintf(text, args...), Next: next, Target: on, Values: v, Link: on.link()}
	f.ID = code + ":" + f.Target.id()
	if f.Values == nil {
		f.Values = values{}
	}
	b.list = append(b.list, f)
}

func (t *Target) id() string {
	id := t.Topic + "/" + t.Channel + "/" + t.Node
	if t.Shard != nil {
		id += "/" + strconv.FormatUint(uint64(*t.Shard), 10)
	}
	return id
}

// link is the page in the console.
func (t *Target) link() string {
	switch {
	case t.Channel != "":
		return "/topics/" + url.PathEscape(t.Topic) + "/channels/" + url.PathEscape(t.Channel)
	case t.Topic != "":
		return "/topics/" + url.PathEscape(t.Topic)
	case t.Node != "":
		return "/nodes/" + url.PathEscape(t.Node)
	}
	return "/shards"
}

func (x *sample) nodeFindings(b *findings) {
	silent := make(map[string]string)
	for _, m := range x.missing {
		silent[m.Node] = m.Reason
	}
	for i := range x.status.Nodes {
		n := &x.status.Nodes[i]
		on := Target{Node: n.Name}
		switch {
		case n.State == "gone":
			continue
		case n.Lease == cluster.LeaseLapsed.String() && !n.Self:
			b.add(severityCritical, "node_down", on, values{"age_ms": n.RenewedMs}, "start it again, or look at its log",
				"node %s has not been heard of for %s", n.Name, seconds(n.RenewedMs))
			continue
		case n.Lease == cluster.LeaseLapsed.String():
			b.add(severityCritical, "node_down", on, values{"age_ms": n.RenewedMs}, "look at the network between the nodes",
				"node %s, which tells this, cannot renew its lease: it is cut off, or metadata has no leader", n.Name)
		case n.Lease == cluster.LeaseUnknown.String() && !n.Self:
			b.add(severityWarning, "node_unknown", on, nil, "", "node %s has not been heard of yet", n.Name)
			continue
		}
		if reason, ok := silent[n.Name]; ok {
			b.add(severityWarning, "node_silent", on, values{"reason": reason}, "", "node %s did not tell all of its figures: %s", n.Name, reason)
		}
		if r := x.reports[n.Name]; r != nil {
			r.findings(b, on)
		}
	}
}

func seconds(ms int64) string {
	return (time.Duration(max(ms, 0)) * time.Millisecond).Round(time.Second).String()
}

// findings of one node.
func (r *report) findings(b *findings, on Target) {
	f := &r.node
	switch {
	case f.ReserveReached:
		b.add(severityCritical, "disk_reserve", on, values{"free_bytes": f.DiskFree}, "consume, empty or delete something, or free disk space",
			"node %s takes no publishes: its disk is full down to the reserve, %d bytes are free", f.Name, f.DiskFree)
	case f.DiskReserve > 0 && f.DiskFree < 2*f.DiskReserve:
		b.add(severityWarning, "disk_low", on, values{"free_bytes": f.DiskFree}, "free disk space, or add some",
			"node %s: less than twice the disk reserve is free, %d bytes", f.Name, f.DiskFree)
	case !f.Ready:
		b.add(severityWarning, "not_ready", on, values{"reason": f.NotReadyReason}, "", "node %s is not ready: %s", f.Name, f.NotReadyReason)
	}
	if f.SyncMs >= float64(cluster.StallSync/time.Millisecond) {
		b.add(severityWarning, "disk_slow", on, values{"sync_ms": f.SyncMs}, "look at what else uses the disk",
			"node %s: its disk takes %.0f ms for a sync", f.Name, f.SyncMs)
	}
	switch {
	case f.RepairsLost > 0:
		b.add(severityCritical, "damage", on, values{"places": f.RepairsLost}, "`tidings log verify` names the files",
			"node %s: %d damaged places in segment files that no other replica could give", f.Name, f.RepairsLost)
	case f.RepairsPending > 0:
		b.add(severityWarning, "repairs_pending", on, values{"places": f.RepairsPending}, "",
			"node %s: %d damaged places in segment files are being fetched from other replicas", f.Name, f.RepairsPending)
	case f.DamageStays && f.Log.Damage > 0:
		b.add(severityCritical, "damage", on, values{"places": f.Log.Damage}, "`tidings log verify` names the files",
			"node %s: %d damaged places in segment files were skipped", f.Name, f.Log.Damage)
	}
	if f.Spool != nil {
		f.Spool.findings(b, on)
	}
}

// findings of a node's own spool. One that is nearly full is behind, too; only the
// graver is told.
func (s *Spool) findings(b *findings, on Target) {
	age := time.Duration(s.OldestAgeMs) * time.Millisecond
	switch {
	case s.Depth == 0:
	case float64(s.Bytes) >= spoolNear*float64(s.LimitBytes):
		b.add(severityCritical, "spool_full", on, values{"bytes": s.Bytes, "limit_bytes": s.LimitBytes, "depth": s.Depth},
			"bring the node back to the others, or raise its --spool-size",
			"node %s: its own spool is nearly full, with %d of %d bytes; beyond, publishes to topics with ack local are refused", on.Node, s.Bytes, s.LimitBytes)
	case age >= spoolAge:
		b.add(severityWarning, "spool_behind", on, values{"depth": s.Depth, "age_ms": s.OldestAgeMs}, "its page says what it waits for",
			"node %s: %d messages in its own spool are not in the cluster yet, the oldest for %s", on.Node, s.Depth, seconds(s.OldestAgeMs))
	}
}

func (x *sample) shardFindings(b *findings) {
	for i := range x.status.Shards {
		s := &x.status.Shards[i]
		id := s.ID
		if s.Leader == "" {
			b.add(severityCritical, "shard_no_leader", Target{Shard: &id}, nil, "a majority of its replicas must be up",
				"shard %d has no leader: its topics take no publishes", id)
		}
		for _, r := range s.Replicas {
			on := Target{Shard: &id, Node: r.Node}
			switch {
			case !r.Live:
			case r.CatchUp != nil:
				b.add(severityInfo, "replica_catching_up", on, values{"bytes": r.CatchUp.Bytes, "total_bytes": r.CatchUp.Total}, "",
					"shard %d: node %s gets its state from another replica", id, r.Node)
			case r.Lag > lagMax && s.Leader != "":
				b.add(severityWarning, "replica_behind", on, values{"lag": r.Lag}, "look at the node's disk and network",
					"shard %d: node %s is %d entries behind", id, r.Node, r.Lag)
			}
		}
	}
}

func (x *sample) topicFindings(b *findings, t *topicSum) {
	on := Target{Topic: t.Name}
	switch {
	case t.Waiting > 0 && t.Paused:
		b.add(severityInfo, "topic_paused", on, values{"waiting": t.Waiting}, "tidings topic resume "+quote(t.Name),
			"topic %s is paused, %d messages wait", t.Name, t.Waiting)
	case t.Waiting > 0 && len(t.channels) == 0:
		b.add(severityInfo, "topic_no_channel", on, values{"waiting": t.Waiting}, "the first channel gets them",
			"topic %s has no channel, %d messages wait", t.Name, t.Waiting)
	}
	for i := range t.channels {
		x.channelFindings(b, &t.channels[i])
	}
}

// stuck says that consumers are there, messages wait, and none is finished.
func (c *ChannelRow) stuck() bool {
	return !c.Paused && c.Consumers > 0 && c.Backlog+c.InFlight > 0 && c.OldestAgeMs != nil &&
		*c.OldestAgeMs >= stuckAge.Milliseconds() && c.OutRate != nil && *c.OutRate == 0
}

func (x *sample) channelFindings(b *findings, c *ChannelRow) {
	on := Target{Topic: c.Topic, Channel: c.Name}
	age := int64(0)
	if c.OldestAgeMs != nil {
		age = *c.OldestAgeMs
	}
	growing, grows := x.growing[ChannelName{c.Topic, c.Name}]
	switch {
	case c.Backlog > 0 && c.Paused:
		b.add(severityInfo, "channel_paused", on, values{"backlog": c.Backlog, "age_ms": age}, "tidings channel resume "+quote(c.Topic)+" "+quote(c.Name),
			"channel %s of topic %s is paused, %d messages wait", c.Name, c.Topic, c.Backlog)
	case c.Backlog > 0 && c.Consumers == 0 && age >= unservedAge.Milliseconds():
		b.add(severityWarning, "channel_no_consumers", on, values{"backlog": c.Backlog, "age_ms": age}, "start a consumer, or delete the channel",
			"channel %s of topic %s has no consumer, %d messages wait, the oldest for %s", c.Name, c.Topic, c.Backlog, seconds(age))
	case c.stuck():
		b.add(severityWarning, "channel_stuck", on, values{"backlog": c.Backlog, "age_ms": age, "consumers": c.Consumers}, "look at its messages and its consumers",
			"channel %s of topic %s is stuck: %d consumers finish nothing, %d messages wait, the oldest for %s", c.Name, c.Topic, c.Consumers, c.Backlog, seconds(age))
	case grows && c.Backlog >= growingMin && x.at.Sub(growing.since) >= growingFor:
		rate := float64(c.Backlog-growing.from) / x.at.Sub(growing.since).Seconds()
		b.add(severityWarning, "channel_growing", on, values{"backlog": c.Backlog, "rate": rate}, "add consumers, or make them faster",
			"channel %s of topic %s falls behind: %d messages wait, %.0f more each second", c.Name, c.Topic, c.Backlog, rate)
	}
	if c.TimeoutRate != nil && *c.TimeoutRate >= timeoutsMin {
		b.add(severityWarning, "channel_timeouts", on, values{"rate": *c.TimeoutRate}, "let consumers ask for a longer msg_timeout, or TOUCH",
			"channel %s of topic %s: %.1f deliveries each second run out of time", c.Name, c.Topic, *c.TimeoutRate)
	}
}
