package repair

import (
	"context"
	"fmt"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/seglog"
)

// Replica is a shard on this node. Any goroutine; both wait for the shard's loop
// or flusher, until ctx ends at the latest.
type Replica interface {
	// Log is the log of a partition, nil when that is not open here.
	Log(ctx context.Context, k partition.Key) (*seglog.Log, error)
	// Repair puts batches where the log is damaged, as seglog.Log.Repair does.
	Repair(ctx context.Context, k partition.Key, first, last int64, batches []seglog.Batch) error
}

// Of is the replica that a machine holds.
func Of(m *partition.Machine) Replica { return machine{m} }

type machine struct{ m *partition.Machine }

func (r machine) Log(ctx context.Context, k partition.Key) (*seglog.Log, error) {
	type answer struct {
		log *seglog.Log
		err error
	}
	got := make(chan answer, 1)
	r.m.Query(func(v *partition.View) {
		if v == nil {
			got <- answer{err: fault.Exiting}
			return
		}
		got <- answer{log: v.Log(k)}
	})
	select {
	case a := <-got:
		return a.log, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("find partition %d/%d: %w", k.Topic, k.Partition, ctx.Err())
	}
}

func (r machine) Repair(ctx context.Context, k partition.Key, first, last int64, batches []seglog.Batch) error {
	got := make(chan error, 1)
	r.m.Repair(k, first, last, batches, func(err error) { got <- err })
	select {
	case err := <-got:
		return err
	case <-ctx.Done():
		return fmt.Errorf("repair partition %d/%d: %w", k.Topic, k.Partition, ctx.Err())
	}
}
