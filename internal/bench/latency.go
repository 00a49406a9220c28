package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
)

const endToEnd = "from the intended send to delivery, open loop"

// latency measures W5: publishers at a fixed rate, one consumer.
func (m *measurement) latency(ctx context.Context) error {
	if err := m.calibrate(ctx); err != nil {
		return err
	}
	w := m.Workload
	const channel = "latency"
	if err := m.Target.Prepare(ctx, m.topic, []string{channel}); err != nil {
		return err
	}
	defer m.drop(ctx, m.topic)
	counts := split(int(w.Rate*w.Duration.Seconds()), w.Publishers)
	in := newIntake(m.Progress)
	defer in.close()
	h := histogram()
	if err := m.listen(ctx, in, []string{channel}, counts, func(int) observer { return observeInto(h) }); err != nil {
		return err
	}
	m.Progress.begin("latency", in.ledgers[0].total)
	late, err := m.paced(ctx, counts, nil)
	if err != nil {
		return err
	}
	if err := in.wait(ctx, w.Patience); err != nil {
		return err
	}
	m.end(in.delivered(), in.ended())
	m.row.Verdict = in.verdict()
	m.row.Latency = summary(endToEnd, h)
	m.row.figure("sender_late_p99_us", late.P99)
	return nil
}

// calibrate turns a share of the server's own batch rate into a rate.
func (m *measurement) calibrate(ctx context.Context) error {
	if m.Workload.Load == 0 {
		return nil
	}
	full := m.Run
	full.Workload = defaults("batch")
	full.Workload.Size, full.Workload.Duration = m.Workload.Size, m.Workload.Duration
	row, err := full.Do(ctx)
	if err != nil {
		return fmt.Errorf("find the full rate: %w", err)
	}
	m.Workload.Rate = max(1, m.Workload.Load*row.Rate)
	m.row.Workload = m.Workload
	return nil
}

func observeInto(h *hdrhistogram.Histogram) observer {
	return func(s stamp, arrived int64) { record(h, arrived-s.intended) }
}

// paced publishes counts in an open loop, and says how late the bench itself
// was. halfway, when not nil, is called once in the middle.
func (m *measurement) paced(ctx context.Context, counts []int, halfway func() error) (*Latency, error) {
	w := m.Workload
	ps, closeAll, err := m.publishers(ctx, w.Publishers)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	m.begin()
	every := time.Duration(float64(w.Batch*w.Publishers) / w.Rate * float64(time.Second))
	g, inner := errgroup.WithContext(ctx)
	var late []*hdrhistogram.Histogram
	for i, p := range ps {
		l := pace{
			p: p, bodies: newBodies(i, w.Size, w.Batch), count: counts[i], batch: w.Batch, every: every,
			start: m.start.Add(every * time.Duration(i) / time.Duration(len(ps))), progress: m.Progress, late: histogram(),
		}
		late = append(late, l.late)
		g.Go(func() error { return l.run(inner) })
	}
	if halfway != nil {
		g.Go(func() error {
			if err := sleep(inner, w.Duration/2); err != nil {
				return err
			}
			return halfway()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return summary("sender", late...), nil
}
