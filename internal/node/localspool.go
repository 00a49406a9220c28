package node

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/front/nsq"
	"github.com/tidings-io/tidings/internal/spool"
)

// localSpool is this node's own spool, for topics of which it acknowledges itself what
// it takes (meta.AckLocal): it keeps that through any split, and brings it to the
// cluster. It costs nothing before the first of such publishes; a folder that is there
// is opened with the node.
type localSpool struct {
	n *Node

	mu     sync.Mutex
	s      atomic.Pointer[spool.Spool]
	f      *spool.Forwarder
	err    error         // why it can't be opened
	ended  bool          // Run has returned, or is about to
	opened chan struct{} // closed when it is open
}

func newLocalSpool(n *Node) *localSpool {
	return &localSpool{n: n, opened: make(chan struct{})}
}

// Publish implements broker.Local.
func (l *localSpool) Publish(topic string, msgs []partition.Message, done partition.Completion) error {
	s := l.s.Load()
	if s == nil {
		var err error
		if s, err = l.open(); err != nil {
			return err
		}
	}
	return s.Publish(topic, msgs, done)
}

func (l *localSpool) dir() string { return path.Join(l.n.dir.path, "spool") }

// open opens the spool, once.
func (l *localSpool) open() (*spool.Spool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s := l.s.Load(); {
	case l.ended:
		return nil, fault.Exiting
	case s != nil || l.err != nil:
		return s, l.err
	}
	s, err := spool.Open(spool.Options{
		FS: l.n.fs, Dir: l.dir(), Size: int64(l.n.cfg.SpoolSize), Reserve: l.n.reserve.limit.Load(), Logger: l.n.log,
	})
	if err != nil {
		l.err = fault.Wrap(fault.Storage, fmt.Errorf("open the node's spool: %w", err))
		return nil, l.err
	}
	l.f = spool.NewForwarder(s, homeward{l.n.broker}, l.n.log)
	l.s.Store(s)
	close(l.opened)
	return s, nil
}

// Run brings to the cluster what is there and what comes, until ctx ends; the rest
// stays for the next time.
func (l *localSpool) Run(ctx context.Context) error {
	if _, err := l.n.fs.ReadDir(l.dir()); err == nil {
		if _, err := l.open(); err != nil {
			return err
		}
	}
	var err error
	select {
	case <-ctx.Done():
	case <-l.opened:
		g, running := errgroup.WithContext(ctx)
		g.Go(func() error { return l.s.Load().Run(running) })
		g.Go(func() error { return l.f.Run(running) })
		err = g.Wait()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if s := l.s.Load(); s != nil {
		err = errors.Join(err, s.Close())
	}
	return err
}

// stats is the spool as /stats shows it; nil while there is none. A nil l has none.
func (l *localSpool) stats() *nsq.SpoolStats {
	if l == nil {
		return nil
	}
	s := l.s.Load()
	if s == nil {
		return nil
	}
	return nsq.StatsOfSpool(s, l.f) // f was set before s
}

// homePatience bounds one part's way to the cluster, which waits up to 5 s for a leader.
const homePatience = 10 * time.Second

// homeward brings a spool's messages to the cluster through this node's broker.
type homeward struct{ b *broker.Broker }

var _ spool.Upstream = homeward{}

// Forward implements spool.Upstream.
func (h homeward) Forward(ctx context.Context, p *spool.Part) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, homePatience)
	defer cancel()
	return h.b.Forward(ctx, &broker.Ingest{
		Topic: p.Topic, Partition: p.Partition, Session: p.Origin, Spread: p.Spread, From: p.From, To: p.To, Messages: p.Messages,
	})
}
