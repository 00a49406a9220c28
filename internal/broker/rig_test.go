package broker_test

import (
	"context"
	"fmt"
	"path"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
)

// rig is a broker over a real engine on a file system in memory.
type rig struct {
	t  *testing.T
	fs *vfs.Mem
	*broker.Broker
	meta     *meta.Machine
	machines []*partition.Machine
	stop     func()
	options  func(*broker.Options) // changes them; may be nil
}

func newRig(t *testing.T) *rig { return newRigWith(t, nil) }

func newRigWith(t *testing.T, options func(*broker.Options)) *rig {
	r := &rig{t: t, fs: vfs.NewMem(), options: options}
	r.start()
	t.Cleanup(func() { r.stop() })
	return r
}

// restart kills the process, losing what was not synced, and starts anew.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.fs.Crash(nil)
	r.start()
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (r *rig) start() {
	r.t.Helper()
	t := r.t
	if err := vfs.MkdirSynced(r.fs, "data"); err != nil {
		t.Fatal(err)
	}
	log := must[*wal.WAL](t)(wal.Open(r.fs, "data/wal", wal.Options{SegmentSize: 1 << 20}))
	store := must[*seglog.Store](t)(seglog.Open(r.fs, "data/topics", seglog.Options{}))
	var groups []*shard.Group
	open := func(id uint32, m shard.Machine, g **shard.Group) {
		*g = must[*shard.Group](t)(shard.Open(shard.Options{
			ID: id, RaftID: 7, Dir: path.Join("data/shards", fmt.Sprint(id)), FS: r.fs, WAL: log, Machine: m, Async: true,
		}))
		groups = append(groups, *g)
	}
	var mg *shard.Group
	r.meta = must[*meta.Machine](t)(meta.New(meta.Options{Shards: 2, Wake: func() { mg.Wake() }}))
	open(meta.GroupID, r.meta, &mg)
	r.machines = nil
	for id := uint32(1); id <= 2; id++ {
		var g *shard.Group
		m := partition.New(partition.Options{
			Shard: id, Store: store, FS: r.fs, Dir: path.Join("data/shards", fmt.Sprint(id), "parked"),
			Wake: func() { g.Wake() },
		})
		open(id, m, &g)
		r.machines = append(r.machines, m)
	}
	flusher := shard.NewFlusher(shard.FlusherOptions{Store: store, WAL: log, Groups: groups})
	o := broker.Options{Meta: r.meta, Machines: r.machines}
	if r.options != nil {
		r.options(&o)
	}
	r.Broker = broker.New(o)

	var engine, below errgroup.Group
	ctx, cancel := context.WithCancel(context.Background())
	logCtx, cancelLog := context.WithCancel(context.Background())
	below.Go(func() error { return log.Run(logCtx) })
	engine.Go(func() error { return flusher.Run(ctx) })
	var above errgroup.Group
	aboveCtx, cancelAbove := context.WithCancel(context.Background())
	above.Go(func() error { return r.Run(aboveCtx) })
	for _, g := range groups {
		engine.Go(func() error { return g.Run(ctx) })
	}
	r.stop = func() {
		cancelAbove()
		if err := above.Wait(); err != nil {
			t.Error(err)
		}
		cancel()
		if err := engine.Wait(); err != nil {
			t.Error(err)
		}
		cancelLog()
		if err := below.Wait(); err != nil {
			t.Error(err)
		}
		r.stop = func() {}
	}
	for _, g := range groups {
		if err := g.LeadReady(r.ctx()); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Recover(r.ctx()); err != nil {
		t.Fatal(err)
	}
}

// ctx bounds one step of a test.
func (r *rig) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	r.t.Cleanup(cancel)
	return ctx
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) publish(topic string, bodies ...string) {
	r.t.Helper()
	msgs := make([]broker.Message, len(bodies))
	for i, b := range bodies {
		msgs[i].Body = []byte(b)
	}
	r.ok(r.PublishWait(r.ctx(), topic, msgs))
}

// consumer is a subscription that remembers what it was given.
type consumer struct {
	*rig
	sub  *delivery.Subscription
	bell chan struct{}
}

func (r *rig) subscribe(topic, channel string, window int) *consumer {
	r.t.Helper()
	c := &consumer{rig: r, bell: make(chan struct{}, 1)}
	sub, err := r.Subscribe(r.ctx(), topic, channel, delivery.SubOptions{
		MsgTimeout: time.Minute, MaxMsgTimeout: 15 * time.Minute,
		Notify: func() {
			select {
			case c.bell <- struct{}{}:
			default:
			}
		},
	})
	r.ok(err)
	c.sub = sub
	sub.SetWindow(window)
	return c
}

// take waits for n messages and finishes them.
func (c *consumer) take(n int) (bodies []string) {
	c.t.Helper()
	ctx := c.ctx()
	for len(bodies) < n {
		got, err := c.sub.Take(nil, 1<<20)
		c.ok(err)
		for _, d := range got {
			bodies = append(bodies, string(d.Body))
			c.ok(c.sub.Finish(d.ID))
		}
		if len(got) > 0 {
			continue
		}
		select {
		case <-c.bell:
		case <-ctx.Done():
			c.t.Fatalf("only %d of %d messages came: %q", len(bodies), n, bodies)
		}
	}
	return bodies
}

// stats returns one topic.
func (r *rig) stats(topic string) broker.TopicStats {
	r.t.Helper()
	all, err := r.Stats(r.ctx(), broker.Filter{Topic: topic})
	r.ok(err)
	if len(all) != 1 {
		r.t.Fatalf("%d topics named %s", len(all), topic)
	}
	return all[0]
}

// eventually waits until the condition holds.
func (r *rig) eventually(what string, condition func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: did not come true", what)
		}
		time.Sleep(time.Millisecond)
	}
}
