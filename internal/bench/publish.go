package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
)

// publish measures W1 and W2: publishers in a closed loop, nobody consuming.
// What was acknowledged is read back afterwards.
func (m *measurement) publish(ctx context.Context) error {
	w := m.Workload
	ps, closeAll, err := m.publishers(ctx, w.Publishers)
	if err != nil {
		return err
	}
	defer closeAll()
	if err := m.Target.Prepare(ctx, m.topic, nil); err != nil {
		return err
	}
	before, err := m.received(ctx)
	if err != nil {
		return err
	}
	counts, acked := split(w.Count, w.Publishers), make([]int, w.Publishers)
	var answers []*hdrhistogram.Histogram
	m.Progress.begin("publish", int64(w.Count))
	m.begin()
	g, inner := errgroup.WithContext(ctx)
	for i, p := range ps {
		l := loop{
			p: p, bodies: newBodies(i, w.Size, w.Batch), count: counts[i], batch: w.Batch, inFlight: w.InFlight,
			until: m.start.Add(w.Duration), progress: m.Progress,
		}
		if w.InFlight == 1 {
			l.answers = histogram()
			answers = append(answers, l.answers)
		}
		g.Go(func() (err error) { acked[i], err = l.run(inner); return err })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	var sent int64
	for _, n := range acked {
		sent += int64(n)
	}
	m.end(sent, time.Now())
	if answers != nil {
		m.row.Latency = summary("from send to answer, closed loop", answers...)
	}
	return m.readBack(ctx, acked, before)
}

// received asks a target that only counts; 0 for others.
func (m *measurement) received(ctx context.Context) (int64, error) {
	c, ok := m.Target.(counter)
	if !ok {
		return 0, nil
	}
	n, err := c.Received(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask for count: %w", err)
	}
	return n, nil
}

// readBack verifies a publish workload: by reading all, or by the count of a
// server that keeps nothing.
func (m *measurement) readBack(ctx context.Context, acked []int, before int64) error {
	defer m.drop(ctx, m.topic)
	if _, ok := m.Target.(counter); !ok {
		return m.verify(ctx, acked)
	}
	after, err := m.received(ctx)
	if err != nil {
		return err
	}
	switch missing := m.row.Messages - (after - before); {
	case missing > 0:
		m.row.Lost = missing
	case missing < 0:
		m.row.Duplicated = -missing
	}
	return nil
}
