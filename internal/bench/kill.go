package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// kill measures the second half of W9: publishers at all nodes of a cluster,
// while the node that leads what they publish to is killed and started again,
// some times over. What was acknowledged must be there in the end.
func (m *measurement) kill(ctx context.Context) error {
	w := m.Workload
	if err := m.Target.Prepare(ctx, m.topic, nil); err != nil {
		return err
	}
	s := newSiege(m)
	m.Progress.begin("publish and kill", int64(w.Kills))
	m.begin()
	s.start(ctx)
	gaps, err := m.kills(ctx, s)
	s.end()
	if err != nil {
		return err
	}
	spent := time.Since(m.start)
	m.row.Messages, m.row.Seconds = s.acked.Load(), spent.Seconds()
	m.row.Rate = float64(m.row.Messages) / spent.Seconds()
	m.Processes = m.Cluster.Processes() // others than in the beginning: their CPU time is not told
	m.row.RSS, m.row.PeakRSS = m.Processes.rss()
	m.row.figure("kills", float64(len(gaps)))
	m.row.figure("gap_median_ms", median(gaps))
	m.row.figure("gap_max_ms", slices.Max(gaps))
	var answers []*hdrhistogram.Histogram
	counts, unsure := make([]int, w.Publishers), make([][]uint64, w.Publishers)
	failed := 0
	for i, p := range s.publishers {
		answers = append(answers, p.answers)
		counts[i], unsure[i] = int(p.bodies.stamp.sequence), p.unsure
		failed += len(p.unsure)
	}
	m.row.figure("unacknowledged", float64(failed))
	m.row.Latency = summary("from send to answer of what was acknowledged, closed loop, kills included", answers...)
	l := newLedger(counts)
	l.doubt(unsure)
	return m.verifyAll(ctx, l)
}

// kills kills the leader again and again, and returns for each time how long no
// publish was acknowledged, in ms.
func (m *measurement) kills(ctx context.Context, s *siege) (gaps []float64, err error) {
	w := m.Workload
	if err := s.fresh(ctx, w.Patience); err != nil {
		return nil, err
	}
	if err := sleep(ctx, w.Duration); err != nil {
		return nil, err
	}
	for range w.Kills {
		leader, err := m.Cluster.Leader(ctx, m.topic)
		if err != nil {
			return nil, err
		}
		node := m.Cluster.nodes[leader]
		s.gap.Store(0)
		if err := node.Kill(); err != nil {
			return nil, err
		}
		// It stays away until the others go on without it.
		if err := s.fresh(ctx, w.Patience); err != nil {
			return nil, err
		}
		if err := node.start(ctx); err != nil {
			return nil, err
		}
		if err := m.Cluster.Whole(ctx); err != nil {
			return nil, err
		}
		s.round.Add(1)
		if err := sleep(ctx, w.Duration); err != nil {
			return nil, err
		}
		gaps = append(gaps, s.longest().Seconds()*1e3)
		m.Progress.add(1)
	}
	return gaps, nil
}

// siege is publishers that go on whatever happens to the servers.
type siege struct {
	m          *measurement
	publishers []*besieger
	wg         sync.WaitGroup
	stopping   atomic.Bool
	round      atomic.Int64 // in each, publishers connect anew: all nodes have some again
	cancel     context.CancelFunc

	begun time.Time
	// In nanoseconds since begun:
	last atomic.Int64 // when a publish was acknowledged last
	gap  atomic.Int64 // the longest time without one
	sent atomic.Int64 // when the latest of those that are acknowledged was sent

	acked   atomic.Int64
	trouble atomic.Pointer[error] // the last publisher's
}

// besieger is one of them. Each publish is another message, so that one which was
// not acknowledged may come or not, but never twice.
type besieger struct {
	bodies  *bodies
	unsure  []uint64 // sequences that were not acknowledged
	answers *hdrhistogram.Histogram
}

func newSiege(m *measurement) *siege {
	s := &siege{m: m, begun: time.Now()}
	for i := range m.Workload.Publishers {
		s.publishers = append(s.publishers, &besieger{bodies: newBodies(i, m.Workload.Size, 1), answers: histogram()})
	}
	return s
}

func (s *siege) now() int64 { return int64(time.Since(s.begun)) }

func (s *siege) start(ctx context.Context) {
	ctx, s.cancel = context.WithCancel(ctx)
	s.last.Store(s.now())
	for _, p := range s.publishers {
		s.wg.Go(func() { s.publish(ctx, p) })
	}
}

// end lets the publishers get the answers that they wait for.
func (s *siege) end() {
	s.stopping.Store(true)
	s.wg.Wait()
	s.cancel()
}

// retryPause is how long a publisher waits before it tries the next node.
const retryPause = 10 * time.Millisecond

func (s *siege) publish(ctx context.Context, p *besieger) {
	for !s.stopping.Load() && ctx.Err() == nil {
		conn, err := s.m.Target.Publisher(ctx, s.m.topic)
		if err == nil {
			err = s.publishTo(ctx, conn, p)
			_ = conn.Close() // it has failed, or everything is answered
		}
		if err != nil {
			s.trouble.Store(&err)
			_ = sleep(ctx, retryPause) // the loop looks at the context
		}
	}
}

// publishTo publishes over one connection until that fails, or the round ends.
func (s *siege) publishTo(ctx context.Context, conn Publisher, p *besieger) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	patience := s.m.Cluster.spec.Answers
	timer := time.AfterFunc(patience, func() { _ = conn.Close() })
	defer timer.Stop()
	for round := s.round.Load(); !s.stopping.Load() && s.round.Load() == round; {
		timer.Reset(patience)
		sent := s.now()
		sequence := p.bodies.stamp.sequence
		if err := errors.Join(conn.Send(p.bodies.next(1, 0)), conn.Flush()); err != nil {
			p.unsure = append(p.unsure, sequence)
			return err
		}
		if err := conn.Await(); err != nil {
			p.unsure = append(p.unsure, sequence)
			return err
		}
		now := s.now()
		record(p.answers, now-sent)
		s.acked.Add(1)
		raise(&s.gap, now-s.last.Swap(now))
		raise(&s.sent, sent)
	}
	return nil
}

// raise sets v to at least n.
func raise(v *atomic.Int64, n int64) {
	for old := v.Load(); n > old && !v.CompareAndSwap(old, n); old = v.Load() {
	}
}

// longest is the longest time without an acknowledgement since gap was reset,
// one that lasts included.
func (s *siege) longest() time.Duration {
	return time.Duration(max(s.gap.Load(), s.now()-s.last.Load()))
}

// fresh waits until a publish that is sent from now on is acknowledged.
func (s *siege) fresh(ctx context.Context, patience time.Duration) error {
	for from := s.now(); s.sent.Load() < from; {
		if waited := time.Duration(s.now() - from); waited > patience {
			err := errors.New("no answer at all")
			if p := s.trouble.Load(); p != nil {
				err = *p
			}
			return fmt.Errorf("no publish was acknowledged for %s: %w", patience, err)
		}
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
