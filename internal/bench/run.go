package bench

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Run measures one workload.
type Run struct {
	Workload   Workload
	Target     Target
	System     string // the row's name for the server
	Durability string
	Promise    Promise
	Processes  Processes // the broker's; none: no CPU and memory figures
	Server     *Server   // when the bench started it and may kill it; nil otherwise
	Cluster    *Cluster  // when the target is a cluster that the bench started; nil otherwise
	Progress   *Progress
	// Settle is how long the broker is left alone before it is measured, at
	// most: where its process is known, until it does nothing any more.
	Settle time.Duration
}

// errNeedsServer says that a workload kills its server.
var errNeedsServer = errors.New("this workload kills the server: it runs against servers that the bench starts itself")

// errNeedsCluster says that a workload is for several servers.
var errNeedsCluster = errors.New("this workload is for a cluster: it runs against servers that the bench starts itself")

// Do measures. An error is a run that could not be carried out; a run that was
// and found fault has the reason in the row's Failure.
func (r Run) Do(ctx context.Context) (Row, error) {
	if err := r.Workload.Check(); err != nil {
		return Row{}, err
	}
	if r.Workload.Clustered() && r.Cluster == nil {
		return Row{}, errNeedsCluster
	}
	m := &measurement{Run: r, topic: "bench_" + randomName()}
	begun := time.Now()
	m.row = Row{ID: r.Workload.ID(), Workload: r.Workload, System: r.System, Durability: r.Durability}
	if err := m.rest(ctx); err != nil {
		return m.row, err
	}
	do := map[string]func(context.Context) error{
		"publish": m.publish, "batch": m.publish, "drain": m.drain, "fanout": m.fanout,
		"latency": m.latency, "memory": m.memory, "stopped": m.stopped, "timers": m.timers,
		"topics": m.topics, "ephemeral": m.ephemeral,
		"cluster-publish": m.publish, "cluster-batch": m.publish, "cluster-kill": m.kill,
		"cluster-delivery": m.delivery, "cluster-partitions": m.hot,
	}[r.Workload.Name]
	if err := do(ctx); err != nil {
		return m.row, fmt.Errorf("%s on %s: %w", m.row.ID, r.System, err)
	}
	m.row.judge(r.Promise)
	m.row.Took = time.Since(begun).Seconds()
	return m.row, nil
}

// measurement is a Run under way.
type measurement struct {
	Run
	topic string
	row   Row
	start time.Time
	cpu   time.Duration
}

func randomName() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// restLook is how often a broker at rest is looked at, which must twice have
// done nothing.
const restLook = 100 * time.Millisecond

// rest leaves the broker alone until what it does by itself is done, such as
// preparing files: that belongs to no message.
func (m *measurement) rest(ctx context.Context) error {
	if len(m.Processes) == 0 {
		return sleep(ctx, m.Settle)
	}
	cpu, written := m.Processes.cpu(), m.Processes.written()
	for left, idle := m.Settle, 0; left > 0 && idle < 2; left -= restLook {
		if err := sleep(ctx, min(left, restLook)); err != nil {
			return err
		}
		idle++
		c, w := m.Processes.cpu(), m.Processes.written()
		if c-cpu > clockTick || w != written {
			idle = 0
		}
		cpu, written = c, w
	}
	return ctx.Err()
}

// begin starts the clock and the CPU meter.
func (m *measurement) begin() {
	m.start = time.Now()
	m.cpu = m.Processes.cpu()
}

// end books what has happened since begin, up to the moment at.
func (m *measurement) end(messages int64, at time.Time) {
	spent := at.Sub(m.start)
	m.row.Messages, m.row.Seconds = messages, spent.Seconds()
	if spent > 0 {
		m.row.Rate = float64(messages) / spent.Seconds()
	}
	m.row.RSS, m.row.PeakRSS = m.Processes.rss()
	if len(m.Processes) == 0 {
		return
	}
	used := m.Processes.cpu() - m.cpu
	m.row.Cores = used.Seconds() / spent.Seconds()
	if messages > 0 {
		m.row.CPUMicros = float64(used.Microseconds()) / float64(messages)
	}
}

// drop removes topics; servers that are thrown away afterwards need not.
func (m *measurement) drop(ctx context.Context, topics ...string) {
	if m.Server != nil || m.Cluster != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
	defer cancel()
	for _, t := range topics {
		// A topic that stays is untidy and not wrong: the measurement stands.
		_ = m.Target.Drop(ctx, t)
	}
}

// publishers connects n publishers, all to be closed by the returned function.
func (m *measurement) publishers(ctx context.Context, n int) ([]Publisher, func(), error) {
	var ps []Publisher
	closeAll := func() {
		for _, p := range ps {
			_ = p.Close() // what it was asked for is answered or given up
		}
	}
	for range n {
		p, err := m.Target.Publisher(ctx, m.topic)
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("connect publisher: %w", err)
		}
		ps = append(ps, p)
	}
	stop := context.AfterFunc(ctx, closeAll)
	return ps, func() { stop(); closeAll() }, nil
}

// backlog publishes the workload's messages as fast as it goes, unmeasured.
func (m *measurement) backlog(ctx context.Context, label string) ([]int, error) {
	w := m.Workload
	m.Progress.begin(label, int64(w.Count))
	counts := split(w.Count, w.Publishers)
	ps, closeAll, err := m.publishers(ctx, w.Publishers)
	if err != nil {
		return nil, err
	}
	defer closeAll()
	g, ctx := errgroup.WithContext(ctx)
	for i, p := range ps {
		l := loop{p: p, bodies: newBodies(i, w.Size, w.Batch), count: counts[i], batch: w.Batch, inFlight: w.InFlight, progress: m.Progress}
		g.Go(func() error { _, err := l.run(ctx); return err })
	}
	return counts, g.Wait()
}

// verify consumes all that waits in the topic on a new channel, unmeasured.
func (m *measurement) verify(ctx context.Context, counts []int) error {
	return m.verifyAll(ctx, newLedger(counts))
}

// verifyAll consumes all that waits in the topic into a ledger.
func (m *measurement) verifyAll(ctx context.Context, l *ledger) error {
	m.Progress.begin("verify", l.total)
	in := newIntake(m.Progress)
	defer in.close()
	if err := in.consume(ctx, m.Target, m.topic, "verify", l, m.Workload.Window, nil); err != nil {
		return err
	}
	if err := in.wait(ctx, m.Workload.Patience); err != nil {
		return err
	}
	m.row.Verdict = m.row.add(in.verdict())
	return nil
}
