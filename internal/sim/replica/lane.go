package replica

import (
	"strings"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/broker/partition"
)

func splitLines(s string) []string { return strings.Split(s, "\n") }

// lane delivers a channel: it finishes and parks messages as it likes. It
// implements partition.Lane.
type lane struct {
	c       *Cluster
	m       *partition.Machine
	begun   bool
	floor   int64
	limit   int64
	done    offsets.Set
	handled map[int64]bool // due messages that it has taken and not yet reported
	report  partition.Delta
}

func (l *lane) Begin(s partition.Start) {
	l.begun = true
	l.floor, l.limit = s.Floor, s.Limit
	l.done.Clear()
	for _, r := range s.Skip {
		l.done.Add(r.From, r.To)
	}
	l.report, l.handled = partition.Delta{}, make(map[int64]bool)
	l.floor = l.done.AdvanceFloor(l.floor)
}

func (l *lane) Reset(s partition.Start) { l.Begin(s) }
func (l *lane) Limit(limit int64)       { l.limit = limit }
func (l *lane) Floor() int64            { return l.floor }
func (l *lane) Stop(error)              { l.begun, l.handled, l.report = false, nil, partition.Delta{} }

func (l *lane) Raised(partition.Barrier) {}

func (l *lane) Skip(from, to int64) {
	if from = max(from, l.floor); from < to {
		l.done.Add(from, to)
		l.floor = l.done.AdvanceFloor(l.floor)
	}
}

func (l *lane) Due(es []parked.Entry) int {
	for _, e := range es {
		if l.handled[e.Offset] {
			continue
		}
		l.handled[e.Offset] = true
		if l.c.chance(3) {
			l.report.Parked = append(l.report.Parked, parked.Entry{Offset: e.Offset, DueNs: l.c.now + 1 + l.c.rng.Int64N(5e9), Attempts: e.Attempts + 1})
		} else {
			l.report.Unparked = append(l.report.Unparked, e.Offset)
		}
	}
	if l.dirty() {
		l.m.Dirty(l)
	}
	return len(es)
}

// work finishes or parks some messages from the log.
func (l *lane) work() {
	for range 1 + l.c.rng.IntN(8) {
		if l.floor >= l.limit {
			return
		}
		o := l.floor + l.c.rng.Int64N(min(l.limit-l.floor, 20))
		if l.done.Contains(o) {
			continue
		}
		switch {
		case l.c.chance(6):
			l.report.Parked = append(l.report.Parked, parked.Entry{Offset: o, DueNs: l.c.now + 1 + l.c.rng.Int64N(20e9), Attempts: 1})
		default:
			l.report.Finished = append(l.report.Finished, offsets.Range{From: o, To: o + 1})
			l.c.Counts.Finished++
		}
		l.done.Add(o, o+1)
		l.floor = l.done.AdvanceFloor(l.floor)
	}
}

func (l *lane) dirty() bool {
	r := &l.report
	return l.begun && len(r.Finished)+len(r.Parked)+len(r.Unparked)+len(r.Attempts) > 0
}

func (l *lane) Collect(d *partition.Delta) bool {
	d.Finished = append(d.Finished, l.report.Finished...)
	d.Parked = append(d.Parked, l.report.Parked...)
	d.Unparked = append(d.Unparked, l.report.Unparked...)
	l.report, l.handled = partition.Delta{}, make(map[int64]bool)
	return false
}

// consume lets the lanes of a leader work, after attaching those that are
// missing.
func (c *Cluster) consume() {
	s := c.rng.IntN(groups)
	n := c.leader(s)
	if n == nil {
		return
	}
	g := n.groups[s]
	topic := c.shards[s].busy()
	g.Query(func(v *partition.View) {
		if v == nil || !v.Leading() {
			return
		}
		p, _ := v.Partition(partition.Key{Topic: topic})
		for _, ch := range p.Channels {
			l := g.lanes[ch.ID]
			switch {
			case ch.Lane == nil || l == nil:
				l = &lane{c: c, m: g.Machine}
				g.lanes[ch.ID] = l
				g.Attach(topic, 0, ch.ID, l)
			case l.begun:
				l.work()
				if l.dirty() {
					g.Dirty(l)
				}
			}
		}
	})
}
