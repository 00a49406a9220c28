package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/meta"
)

// reconcileAgain is how long a leadership that could not be reconciled waits.
const reconcileAgain = 200 * time.Millisecond

// follow brings the shard in line with metadata whenever this node begins to lead
// it, and then lets consumers have it.
func (u *upstream) follow(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-u.led:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if leadership := u.leadership.Load(); leadership != 0 && leadership != u.serving.Load() {
			if err := u.reconcile(ctx, u.b.o.Meta.View); err != nil {
				timer.Reset(reconcileAgain)
				if ctx.Err() == nil && u.leadership.Load() == leadership {
					u.b.o.Logger.Warn("bring shard in line with metadata", "shard", u.shard, "error", err)
				}
				continue
			}
			if u.serve(leadership) {
				u.b.attach(ctx, u, u.b.places(u), false)
				u.gather(ctx, leadership)
				u.b.useLimited(u.shard)
			} else {
				timer.Reset(0)
			}
		}
	}
}

// serve lets lanes be attached in a leadership, unless it is over.
func (u *upstream) serve(leadership uint64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.leadership.Load() != leadership {
		return false
	}
	u.serving.Store(leadership)
	return true
}

// reconcile makes what metadata says true on the shard, which this node leads: who
// was about to do it may have died. The view may be older than the shard's state;
// what it does not know yet is left alone, and what it knows wrongly is put right
// when the change comes (watch), or has come (following).
func (u *upstream) reconcile(ctx context.Context, metadata func() *meta.View) error {
	known := make(map[partition.Key]shardPartition)
	p := part{machine: u.machine}
	err := p.query(ctx, func(v *partition.View) {
		v.Each(func(pv partition.PartitionView) { known[pv.Key] = shardPartition{u.machine, pv} })
	})
	if err != nil {
		return fmt.Errorf("read shard state: %w", err)
	}
	view := metadata()
	var todo []task
	for _, m := range view.Topics() {
		if m.Ephemeral() || m.Deleting {
			continue
		}
		var t *Topic
		for i, shard := range m.Partitions {
			if shard != u.shard {
				continue
			}
			if t == nil {
				t = u.b.newTopic(m)
			}
			todo = append(todo, t.part(i).reconcile(t, m, view, known[t.part(i).key])...)
		}
	}
	for key := range known {
		m, ok := view.TopicID(key.Topic)
		if !ok && view.Knew(key.Topic) || ok && (m.Deleting || int(key.Partition) >= len(m.Partitions)) {
			todo = append(todo, func(done func(error)) { u.machine.Do(partition.Close{Key: key}, done) })
		}
	}
	return awaitCall(ctx, func(done func(error)) {
		left := newCountdown(len(todo), done)
		for _, f := range todo {
			f(func(err error) {
				switch fault.CodeOf(err) {
				case fault.TopicNotFound, fault.ChannelNotFound: // gone, and the view is older
					err = nil
				}
				left.done(err)
			})
		}
	})
}
