package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// leadMax is how many messages publishers may be ahead of the slowest channel
// when both run at once. Servers that push without asking cut off consumers
// that fall behind; all systems get the same bound.
const leadMax = 8192

// fanout measures W4: one topic, a consumer on each of many channels, live. The
// rate counts deliveries.
func (m *measurement) fanout(ctx context.Context) error {
	names := channelNames(m.Workload.Channels)
	if err := m.Target.Prepare(ctx, m.topic, names); err != nil {
		return err
	}
	return m.live(ctx, names)
}

// live publishes and consumes at once, with a consumer on each channel.
func (m *measurement) live(ctx context.Context, names []string) error {
	w := m.Workload
	defer m.drop(ctx, m.topic)
	counts := split(w.Count, w.Publishers)
	in := newIntake(m.Progress)
	defer in.close()
	m.Progress.begin("publish and consume", int64(w.Count)*int64(w.Channels))
	if err := m.listen(ctx, in, names, counts, nil); err != nil {
		return err
	}
	ps, closeAll, err := m.publishers(ctx, w.Publishers)
	if err != nil {
		return err
	}
	defer closeAll()
	m.begin()
	g, inner := errgroup.WithContext(ctx)
	for i, p := range ps {
		l := loop{
			p: p, bodies: newBodies(i, w.Size, w.Batch), count: counts[i], batch: w.Batch, inFlight: w.InFlight,
			gate: m.lead(in, w.Publishers),
		}
		g.Go(func() error { _, err := l.run(inner); return err })
	}
	if err := g.Wait(); err != nil && !errors.Is(err, errStalled) {
		return err
	}
	if err := in.wait(ctx, w.Patience); err != nil {
		return err
	}
	m.end(in.delivered(), in.ended())
	m.row.Verdict = in.verdict()
	return nil
}

func channelNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("c%d", i)
	}
	return names
}

// listen starts one consumer on each channel. observe, when not nil, makes the
// observer of a channel.
func (m *measurement) listen(ctx context.Context, in *intake, names []string, counts []int, observe func(channel int) observer) error {
	for range names {
		in.add(newLedger(counts))
	}
	for i, name := range names {
		var o observer
		if observe != nil {
			o = observe(i)
		}
		if err := in.join(ctx, m.Target, m.topic, name, in.ledgers[i], m.Workload.Window, o); err != nil {
			return err
		}
	}
	return nil
}

// lead makes the gate of one of n publishers, each of which may be its share of
// leadMax ahead of the slowest channel.
func (m *measurement) lead(in *intake, n int) func(context.Context, int) error {
	patience := m.Workload.Patience
	return func(ctx context.Context, next int) error {
		// The channel's count is over all publishers, who advance alike.
		for begun := time.Now(); int64(next)*int64(n)-in.slowest() > leadMax; {
			select {
			case <-in.moved:
			case err := <-in.failed:
				return fmt.Errorf("consume: %w", err)
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Millisecond): // another publisher took the bell
			}
			if time.Since(begun) > patience {
				return errStalled
			}
		}
		return nil
	}
}
