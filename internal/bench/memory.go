package bench

import (
	"context"
	"fmt"
	"time"
)

// memory measures W6: what a queued message costs in memory, and how long after
// kill -9 and a new start the first publish is answered and the first message
// delivered. All that was acknowledged before must still be there.
func (m *measurement) memory(ctx context.Context) error {
	w := m.Workload
	if m.Server == nil {
		return errNeedsServer
	}
	const channel = "memory"
	if err := m.Target.Prepare(ctx, m.topic, []string{channel}); err != nil {
		return err
	}
	idle, _ := m.Processes.rss()
	m.begin()
	counts, err := m.backlog(ctx, "fill")
	if err != nil {
		return err
	}
	m.end(int64(w.Count), time.Now())
	if err := m.rest(ctx); err != nil {
		return err
	}
	m.row.RSS, m.row.PeakRSS = m.Processes.rss()
	m.row.figure("idle_rss_bytes", float64(idle))
	m.row.figure("bytes_per_message", float64(m.row.RSS-idle)/float64(w.Count))

	m.Progress.begin("kill and start", 0)
	if err := m.Server.Restart(ctx); err != nil {
		return err
	}
	if err := m.firstPublish(ctx); err != nil {
		return err
	}
	return m.firstDelivery(ctx, channel, counts)
}

// firstPublish publishes to a topic of its own until it is answered.
func (m *measurement) firstPublish(ctx context.Context) error {
	started := m.Server.Started()
	for {
		err := m.tryPublish(ctx)
		if err == nil {
			m.row.figure("first_publish_ms", float64(time.Since(started).Microseconds())/1e3)
			return nil
		}
		if time.Since(started) > m.Workload.Patience {
			return fmt.Errorf("publish after restart: %w", err)
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

func (m *measurement) tryPublish(ctx context.Context) error {
	topic := m.topic + "_again"
	if err := m.Target.Prepare(ctx, topic, nil); err != nil {
		return err
	}
	p, err := m.Target.Publisher(ctx, topic)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }() // its one message is answered or failed
	if err := p.Send(newBodies(0, m.Workload.Size, 1).next(1, 0)); err != nil {
		return err
	}
	if err := p.Flush(); err != nil {
		return err
	}
	return p.Await()
}

// firstDelivery notes when the backlog begins to come, and verifies it.
func (m *measurement) firstDelivery(ctx context.Context, channel string, counts []int) error {
	var first time.Time
	l := newLedger(counts)
	m.Progress.begin("verify", l.total)
	in := newIntake(m.Progress)
	defer in.close()
	o := func(_ stamp, arrived int64) {
		if first.IsZero() {
			first = time.Unix(0, arrived)
		}
	}
	if err := in.consume(ctx, m.Target, m.topic, channel, l, m.Workload.Window, o); err != nil {
		return err
	}
	if err := in.wait(ctx, m.Workload.Patience); err != nil {
		return err
	}
	m.row.Verdict = in.verdict()
	if !first.IsZero() {
		m.row.figure("first_delivery_ms", float64(first.Sub(m.Server.Started()).Microseconds())/1e3)
	}
	return nil
}
