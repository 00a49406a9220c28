package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// stopped measures W7: for the first half of twice the duration all channels
// consume, for the second half one of them takes nothing. The others' p99 must
// not move. At the end the stopped one gets the rest, and all are verified.
func (m *measurement) stopped(ctx context.Context) error {
	w := m.Workload
	names := channelNames(w.Channels)
	if err := m.Target.Prepare(ctx, m.topic, names); err != nil {
		return err
	}
	defer m.drop(ctx, m.topic)
	w.Duration *= 2
	m.Workload = w
	counts := split(int(w.Rate*w.Duration.Seconds()), w.Publishers)
	in := newIntake(m.Progress)
	defer in.close()
	before, during, err := m.listenStopped(ctx, in, names, counts)
	if err != nil {
		return err
	}
	m.Progress.begin("all, then one stopped", in.ledgers[0].total*int64(w.Channels))
	late, err := m.paced(ctx, counts, func() error { return setWindow(in.consumers[0], 0) })
	if err != nil {
		return err
	}
	m.end(in.delivered(), time.Now())
	if err := setWindow(in.consumers[0], nsqWindow); err != nil {
		return err
	}
	if err := in.wait(ctx, w.Patience); err != nil {
		return err
	}
	m.row.Verdict = in.verdict()
	m.row.Latency = summary("the other channels while one is stopped; "+endToEnd, during...)
	all := summary("", before...)
	m.row.figure("before_p99_us", all.P99)
	m.row.figure("p99_ratio", m.row.Latency.P99/all.P99)
	m.row.figure("sender_late_p99_us", late.P99)
	return nil
}

// listenStopped starts the consumers; those of the channels that go on book
// their latencies before and after the middle apart.
func (m *measurement) listenStopped(ctx context.Context, in *intake, names []string, counts []int) (before, during []*hdrhistogram.Histogram, err error) {
	half := uint64(counts[0] / 2)
	err = m.listen(ctx, in, names, counts, func(channel int) observer {
		if channel == 0 {
			return nil
		}
		a, b := histogram(), histogram()
		before, during = append(before, a), append(during, b)
		return func(s stamp, arrived int64) {
			if s.sequence < half {
				record(a, arrived-s.intended)
			} else {
				record(b, arrived-s.intended)
			}
		}
	})
	return before, during, err
}

func setWindow(c Consumer, n int) error {
	p, ok := c.(pausable)
	if !ok {
		return fmt.Errorf("stop a channel: %T can't", c)
	}
	return p.SetWindow(n)
}
