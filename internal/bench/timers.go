package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// timers measures W8: many messages deferred and many unfinished; what the
// idle broker costs then, and how exactly Count further messages arrive at
// their time. At the end the deferred ones, which fall due all at once, are
// awaited, and all are verified.
func (m *measurement) timers(ctx context.Context) error {
	w := m.Workload
	due := time.Now().Add(w.Delay)
	names := []string{m.sub("deferred"), m.sub("accuracy")}
	for i := range m.heldTopics() {
		names = append(names, m.heldTopic(i))
	}
	defer m.drop(ctx, names...)
	// Made early: a server may take seconds to look after a new channel's timers.
	if err := m.Target.Prepare(ctx, m.sub("accuracy"), []string{"accuracy"}); err != nil {
		return err
	}
	held, err := m.hold(ctx)
	if err != nil {
		return err
	}
	defer held.close()
	waiting, err := m.deferAll(ctx, due)
	if err != nil {
		return err
	}
	defer waiting.close()
	if err := m.rest(ctx); err != nil {
		return err
	}
	m.Progress.begin("idle", 0)
	m.begin()
	if err := sleep(ctx, w.Duration); err != nil {
		return err
	}
	m.end(0, time.Now())
	m.row.figure("idle_cpu_percent", 100*m.row.Cores)
	if err := m.accuracy(ctx, due); err != nil {
		return err
	}
	m.Progress.begin("verify deferred", int64(w.Deferred))
	if err := sleep(ctx, time.Until(due)); err != nil {
		return err
	}
	if err := waiting.wait(ctx, w.Patience); err != nil {
		return err
	}
	if took := waiting.ended().Sub(due).Seconds(); took > 0 {
		m.row.figure("burst_rate", float64(w.Deferred)/took)
	}
	m.row.Verdict = m.row.add(waiting.verdict()).add(held.verdict())
	m.row.Messages = int64(w.Deferred + w.Unfinished + w.Count)
	return nil
}

// sub is a topic of its own for one part of the workload.
func (m *measurement) sub(name string) string { return m.topic + "_" + name }

// holder is a consumer that finishes nothing.
type holder struct{ Consumer }

// Finish does not.
func (holder) Finish([]Message) error { return nil }

// heldMax is how many messages stay unfinished on one topic: a channel of ours
// delivers no more than some 130,000 messages that nobody finishes.
const heldMax = 100_000

// hold publishes the messages that stay unfinished, and waits until they are
// with consumers.
func (m *measurement) hold(ctx context.Context) (*intake, error) {
	counts := split(m.Workload.Unfinished, m.heldTopics())
	h := newIntake(m.Progress)
	var ledgers []*ledger
	for i, n := range counts {
		l, err := m.holdOn(ctx, m.heldTopic(i), n)
		if err != nil {
			return nil, err
		}
		h.add(l)
		ledgers = append(ledgers, l)
	}
	m.Progress.begin("hold", int64(m.Workload.Unfinished))
	err := func() error {
		for i, n := range counts {
			for range (n + nsqWindow - 1) / nsqWindow {
				c, err := m.Target.Consumer(ctx, m.heldTopic(i), "held", nsqWindow)
				if err != nil {
					return fmt.Errorf("connect consumer: %w", err)
				}
				h.start(holder{c}, ledgers[i], nil)
			}
		}
		if len(counts) == 0 {
			return nil
		}
		return h.wait(ctx, m.Workload.Patience)
	}()
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// holdOn publishes n messages that will stay unfinished, and says what is
// expected of them.
func (m *measurement) holdOn(ctx context.Context, topic string, n int) (*ledger, error) {
	if err := m.Target.Prepare(ctx, topic, []string{"held"}); err != nil {
		return nil, err
	}
	counts, err := m.part(topic, n).backlog(ctx, "publish what is held")
	if err != nil {
		return nil, err
	}
	return newLedger(counts), nil
}

func (m *measurement) heldTopics() int { return (m.Workload.Unfinished + heldMax - 1) / heldMax }

func (m *measurement) heldTopic(i int) string { return m.sub(fmt.Sprintf("held%d", i)) }

// part is the measurement with another topic and count.
func (m *measurement) part(topic string, count int) *measurement {
	p := *m
	p.topic, p.Workload.Count = topic, count
	return &p
}

// deferAll publishes the deferred messages, all due at one moment, with the
// consumer that will get them.
func (m *measurement) deferAll(ctx context.Context, due time.Time) (*intake, error) {
	topic, n := m.sub("deferred"), m.Workload.Deferred
	in := newIntake(m.Progress)
	m.Progress.begin("defer", int64(n))
	if n == 0 {
		return in, nil
	}
	counts := split(n, m.Workload.Publishers)
	if err := in.consume(ctx, m.Target, topic, "deferred", deferredLedger(counts...), 0, nil); err != nil {
		return nil, err
	}
	g, inner := errgroup.WithContext(ctx)
	for p, count := range counts {
		g.Go(func() error { return m.later(inner, topic, p, count, func(int) time.Time { return due }) })
	}
	err := g.Wait()
	if err == nil && time.Until(due) < m.Settle+m.Workload.Duration+accuracyTime {
		err = fmt.Errorf("deferring took so long that the first are nearly due: ask for a delay above %s", m.Workload.Delay)
	}
	if err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// deferredLedger expects messages in any order: those due in the same
// millisecond have none.
func deferredLedger(counts ...int) *ledger {
	l := newLedger(counts)
	l.anyhow = true
	return l
}

// deferGroup is how many deferred messages are written at once, and then
// awaited.
const deferGroup = 256

// later is publisher number p of n deferred messages; when says when each is
// due.
func (m *measurement) later(ctx context.Context, topic string, p, n int, when func(i int) time.Time) error {
	t := m.part(topic, n)
	ps, closeAll, err := t.publishers(ctx, 1)
	if err != nil {
		return err
	}
	defer closeAll()
	to, ok := ps[0].(deferrer)
	if !ok {
		return fmt.Errorf("defer a message: %T can't", ps[0])
	}
	b := newBodies(p, m.Workload.Size, 1)
	for i := 0; i < n; i += deferGroup {
		k := min(deferGroup, n-i)
		for j := range k {
			due := when(i + j)
			// Rounded up, so that a message that comes at its time is not early.
			ms := (time.Until(due) + time.Millisecond - 1).Milliseconds()
			due = time.Now().Add(time.Duration(max(ms, 0)) * time.Millisecond)
			if err := to.SendLater(b.next(1, due.UnixNano())[0], max(ms, 0)); err != nil {
				return cause(ctx, err)
			}
		}
		if err := ps[0].Flush(); err != nil {
			return cause(ctx, err)
		}
		for range k {
			if err := ps[0].Await(); err != nil {
				return cause(ctx, err)
			}
		}
		m.Progress.add(k)
	}
	return nil
}

// accuracyTime is over which the messages of the accuracy part fall due.
const accuracyTime = 3 * time.Second

// accuracy defers Count messages, due one after the other, and measures how
// long after their time they arrive. One that is early counts as lost time of
// the server too: its distance is booked in the figure early_max_us.
func (m *measurement) accuracy(ctx context.Context, before time.Time) error {
	n, topic := m.Workload.Count, m.sub("accuracy")
	if time.Until(before) < accuracyTime {
		return fmt.Errorf("no time left before the deferred messages are due: ask for a delay above %s", m.Workload.Delay)
	}
	m.Progress.begin("accuracy", int64(n))
	h, early := histogram(), int64(0)
	in := newIntake(m.Progress)
	defer in.close()
	o := func(s stamp, arrived int64) {
		early = max(early, s.intended-arrived)
		record(h, arrived-s.intended)
	}
	if err := in.consume(ctx, m.Target, topic, "accuracy", deferredLedger(n), 0, o); err != nil {
		return err
	}
	start := time.Now().Add(accuracyTime / 3)
	step := accuracyTime / 2 / time.Duration(n)
	if err := m.later(ctx, topic, 0, n, func(i int) time.Time { return start.Add(time.Duration(i) * step) }); err != nil {
		return err
	}
	if err := in.wait(ctx, m.Workload.Patience); err != nil {
		return err
	}
	m.row.Verdict = m.row.add(in.verdict())
	m.row.Latency = summary("from the due time to delivery", h)
	m.row.figure("early_max_us", float64(early)/1e3)
	return nil
}
