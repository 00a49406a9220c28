package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"
)

// divided is a target whose topics can have several partitions.
type divided interface {
	// divide makes a topic with so many.
	divide(ctx context.Context, topic string, partitions int) error
}

// divide makes a topic with a number of partitions.
func (n *NSQ) divide(ctx context.Context, topic string, partitions int) error {
	at := fmt.Sprintf("http://%s/topic/create?topic=%s&partitions=%d", n.HTTP, url.QueryEscape(topic), partitions)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("make topic: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("make topic of %d partitions: %s", partitions, res.Status)
	}
	return nil
}

// divide implements divided where its nodes do.
func (t *nodes) divide(ctx context.Context, topic string, partitions int) error {
	d, ok := t.each[0].(divided)
	if !ok {
		return errNotDivided
	}
	return d.divide(ctx, topic, partitions)
}

var errNotDivided = errors.New("this server's topics have no partitions")

// hot measures what several partitions give one hot topic: the same publishers, in
// batches through all nodes, on a topic of one partition and on one of several. The
// rate is that of the latter.
func (m *measurement) hot(ctx context.Context) error {
	d, ok := m.Target.(divided)
	if !ok {
		return errNotDivided
	}
	var sums [2]heat
	// Once unmeasured; then in an order in which neither gains from coming late.
	for i, turn := range []int{0, 0, 1, 1, 0} {
		m.topic = m.sub(fmt.Sprintf("h%d", i))
		partitions := []int{1, m.Workload.Partitions}[turn]
		if err := d.divide(ctx, m.topic, partitions); err != nil {
			return err
		}
		got, err := m.heat(ctx, partitions)
		if err != nil {
			return err
		}
		if i > 0 {
			sums[turn].add(got)
		}
	}
	one, many := sums[0], sums[1]
	m.row.Messages, m.row.Seconds, m.row.Rate = many.messages, many.spent.Seconds(), many.rate()
	m.row.RSS, m.row.PeakRSS = m.Processes.rss()
	m.row.figure("one_partition_rate", one.rate())
	m.row.figure("rate_ratio", many.rate()/one.rate())
	if len(m.Processes) > 0 {
		m.row.Cores = many.all.Seconds() / many.spent.Seconds()
		m.row.CPUMicros = float64(many.all.Microseconds()) / float64(many.messages)
		m.row.figure("busiest_node_cores", many.busiest.Seconds()/many.spent.Seconds())
		m.row.figure("one_partition_cores", one.all.Seconds()/one.spent.Seconds())
		m.row.figure("one_partition_busiest_node_cores", one.busiest.Seconds()/one.spent.Seconds())
	}
	return nil
}

// heat is what publishing to a hot topic took.
type heat struct {
	messages int64
	spent    time.Duration
	all      time.Duration // CPU time of all nodes
	busiest  time.Duration // of the node that took most
}

func (h *heat) add(o heat) {
	h.messages += o.messages
	h.spent += o.spent
	h.all += o.all
	h.busiest += o.busiest
}

func (h heat) rate() float64 { return float64(h.messages) / h.spent.Seconds() }

// heat publishes to the topic, and reads it back.
func (m *measurement) heat(ctx context.Context, partitions int) (h heat, err error) {
	w := m.Workload
	if err := m.rest(ctx); err != nil {
		return h, err
	}
	ps, closeAll, err := m.publishers(ctx, w.Publishers)
	if err != nil {
		return h, err
	}
	defer closeAll()
	counts, acked := split(w.Count, w.Publishers), make([]int, w.Publishers)
	m.Progress.begin(fmt.Sprintf("publish to %d partitions", partitions), int64(w.Count))
	before := make([]time.Duration, len(m.Processes))
	for i, pid := range m.Processes {
		before[i] = cpuOf(pid)
	}
	began := time.Now()
	g, inner := errgroup.WithContext(ctx)
	for i, p := range ps {
		l := loop{
			p: p, bodies: newBodies(i, w.Size, w.Batch), count: counts[i], batch: w.Batch, inFlight: w.InFlight,
			until: began.Add(w.Duration), progress: m.Progress,
		}
		g.Go(func() (err error) { acked[i], err = l.run(inner); return err })
	}
	if err := g.Wait(); err != nil {
		return h, err
	}
	h.spent = time.Since(began)
	for _, n := range acked {
		h.messages += int64(n)
	}
	for i, pid := range m.Processes {
		used := cpuOf(pid) - before[i]
		h.all += used
		h.busiest = max(h.busiest, used)
	}
	return h, m.verify(ctx, acked)
}
