package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// topicsConsumers is how many connections consume the one topic, at most: as
// many as the many topics have, while that is a number one would choose.
const topicsConsumers = 8

// topics measures what it costs that messages are spread over many topics: the
// same messages in the same batches over the same publishing connections, to
// one topic and to many in turn, each consumed afterwards. The rate is that of
// publishing, the CPU that of publishing and consuming.
func (m *measurement) topics(ctx context.Context) error {
	w := m.Workload
	one, many := []string{m.sub("one")}, make([]string, w.Topics)
	for i := range many {
		many[i] = m.sub(fmt.Sprintf("t%d", i))
	}
	defer m.drop(ctx, append(many, one...)...)
	m.Progress.begin("make topics", int64(w.Topics)+1)
	for _, t := range append(many, one...) {
		if err := m.Target.Prepare(ctx, t, []string{"c"}); err != nil {
			return err
		}
		m.Progress.add(1)
	}
	// Once unmeasured, since a server's first minute is not its usual one; then
	// the two in an order in which neither gains from coming late.
	var s [2]spent
	for i, turn := range []int{0, 0, 1, 1, 0} {
		names := [][]string{one, many}[turn]
		got, err := m.spread(ctx, names, max(1, w.Count/2))
		if err != nil {
			return err
		}
		if i > 0 {
			s[turn].add(got)
		}
	}
	m.row.RSS, m.row.PeakRSS = m.Processes.rss()
	m.compareTopics(s[0], s[1])
	return nil
}

// compareTopics books what the many topics took, and how it compares with one.
func (m *measurement) compareTopics(one, many spent) {
	m.row.Messages, m.row.Seconds, m.row.Rate = many.messages, many.publishing.Seconds(), many.rate()
	m.row.figure("one_topic_rate", one.rate())
	m.row.figure("rate_ratio", many.rate()/one.rate())
	m.row.figure("drain_rate", many.drainRate())
	m.row.figure("drain_rate_ratio", many.drainRate()/one.drainRate())
	if one.cpu > 0 && many.cpu > 0 {
		m.row.CPUMicros = many.cpuMicros()
		m.row.figure("one_topic_cpu_us", one.cpuMicros())
		m.row.figure("cpu_ratio", many.cpuMicros()/one.cpuMicros())
	}
}

// spent is what publishing and consuming some messages took.
type spent struct {
	messages             int64
	publishing, draining time.Duration
	cpu                  time.Duration // of the broker, for both
}

func (s *spent) add(o spent) {
	s.messages += o.messages
	s.publishing += o.publishing
	s.draining += o.draining
	s.cpu += o.cpu
}

func (s spent) rate() float64      { return float64(s.messages) / s.publishing.Seconds() }
func (s spent) drainRate() float64 { return float64(s.messages) / s.draining.Seconds() }
func (s spent) cpuMicros() float64 { return float64(s.cpu.Microseconds()) / float64(s.messages) }

// spread publishes count messages to the topics in turn, a batch to each, and
// then consumes them. Consumers are connected before and ask for nothing yet.
func (m *measurement) spread(ctx context.Context, topics []string, count int) (s spent, err error) {
	w := m.Workload
	turns, ledgers := plan(topics, split(count, w.Publishers), w.Batch)
	in := newIntake(m.Progress)
	defer in.close()
	if err := m.ready(ctx, in, topics, ledgers); err != nil {
		return s, err
	}
	m.Progress.begin(fmt.Sprintf("publish to %d", len(topics)), int64(count))
	began, cpu := time.Now(), m.Processes.cpu()
	if err := m.publishTurns(ctx, topics[0], turns); err != nil {
		return s, err
	}
	s.messages, s.publishing = int64(count), time.Since(began)
	if err := m.rest(ctx); err != nil {
		return s, err
	}
	m.Progress.begin(fmt.Sprintf("drain %d", len(topics)), int64(count))
	began = time.Now()
	for _, c := range in.consumers {
		if err := setWindow(c, nsqWindow); err != nil {
			return s, err
		}
	}
	if err := in.wait(ctx, w.Patience); err != nil {
		return s, err
	}
	s.draining, s.cpu = in.ended().Sub(began), m.Processes.cpu()-cpu
	m.row.Verdict = m.row.add(in.verdict())
	return s, nil
}

// ready connects the consumers of all topics.
func (m *measurement) ready(ctx context.Context, in *intake, topics []string, ledgers []*ledger) error {
	each := 1
	if len(topics) == 1 {
		each = min(m.Workload.Topics, topicsConsumers)
	}
	for _, l := range ledgers {
		if l.total > 0 { // a channel that gets nothing is never complete
			in.add(l)
		}
	}
	for i, t := range topics {
		for range each {
			if err := in.join(ctx, m.Target, t, "c", ledgers[i], -1, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// turns is what one publisher sends: to each topic in turn a batch. A topic's
// messages have a publisher number and sequences of their own, so that one that
// comes on another topic is not of this run there.
type turns struct {
	topics []string
	stamps []stamp
	at     int
	count  int // messages
}

// plan deals counts[p] messages of publisher p out to the topics, and makes the
// ledgers that expect them.
func plan(topics []string, counts []int, batch int) ([]*turns, []*ledger) {
	n, publishers := len(topics), len(counts)
	expected := make([][]int, n)
	for t := range expected {
		expected[t] = make([]int, publishers)
	}
	var all []*turns
	for p, count := range counts {
		r := &turns{topics: topics, stamps: make([]stamp, n), at: p * n / publishers, count: count}
		for t := range r.stamps {
			r.stamps[t].publisher = uint32(t*publishers + p)
		}
		for t, left := r.at, count; left > 0; t, left = (t+1)%n, left-batch {
			expected[t][p] += min(batch, left)
		}
		all = append(all, r)
	}
	ledgers := make([]*ledger, n)
	for t := range ledgers {
		ledgers[t] = newLedger(expected[t])
		ledgers[t].first = uint32(t * publishers)
	}
	return all, ledgers
}

// publishTurns publishes what the turns say, each on a connection of its own.
func (m *measurement) publishTurns(ctx context.Context, first string, all []*turns) error {
	w := m.Workload
	ps, closeAll, err := m.part(first, w.Count).publishers(ctx, len(all))
	if err != nil {
		return err
	}
	defer closeAll()
	g, ctx := errgroup.WithContext(ctx)
	for i, r := range all {
		to, ok := ps[i].(wanderer)
		if !ok {
			return fmt.Errorf("publish to several topics: %T can't", ps[i])
		}
		l := loop{p: ps[i], bodies: newBodies(i, w.Size, w.Batch), count: r.count, batch: w.Batch, inFlight: w.InFlight, progress: m.Progress}
		l.turn = func() { r.turn(to, l.bodies) }
		g.Go(func() error { _, err := l.run(ctx); return err })
	}
	return g.Wait()
}

// turn goes over to the next topic; b goes on where that topic was left.
func (r *turns) turn(to wanderer, b *bodies) {
	to.SetTopic(r.topics[r.at])
	b.stamp = r.stamps[r.at]
	r.stamps[r.at].sequence += uint64(len(b.slots)) // only the last batch is smaller
	r.at = (r.at + 1) % len(r.topics)
}
