package bench

import "context"

// drain measures W3: a backlog on a channel without consumers, then consumers
// that finish each message.
func (m *measurement) drain(ctx context.Context) error {
	w := m.Workload
	const channel = "drain"
	if err := m.Target.Prepare(ctx, m.topic, []string{channel}); err != nil {
		return err
	}
	defer m.drop(ctx, m.topic)
	counts, err := m.backlog(ctx, "fill")
	if err != nil {
		return err
	}
	if err := m.rest(ctx); err != nil {
		return err
	}
	l := newLedger(counts)
	m.Progress.begin("drain", l.total)
	in := newIntake(m.Progress)
	defer in.close()
	in.add(l)
	m.begin()
	for range w.Consumers {
		if err := in.join(ctx, m.Target, m.topic, channel, l, w.Window, nil); err != nil {
			return err
		}
	}
	if err := in.wait(ctx, w.Patience); err != nil {
		return err
	}
	m.end(in.delivered(), in.ended())
	m.row.Verdict = in.verdict()
	return nil
}
