package node

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/vfs"
)

// reservePoll is how often free space is asked for. A volume that fills at
// 2 GB/s loses 200 MB between two looks, less than the reserve of a volume of
// that speed; the write-ahead log's spare segments are stock beyond it. While so much
// is free beyond the reserve that such a volume takes seconds to fill, it is asked for
// less often.
const (
	reservePoll  = 100 * time.Millisecond
	reserveRest  = time.Second
	reserveAmple = 8 << 30 // bytes beyond the reserve
)

// reserve watches the free space of the data volume. Publishing stops while it
// is below the reserve; finishing, emptying and checkpoints go on, so a full
// disk can be drained.
type reserve struct {
	fs       vfs.FS
	dir      string
	segment  int64  // bytes of one WAL segment
	fixed    int64  // from the configuration; 0: computed
	pressure func() // asks for checkpoints, which release space
	log      *slog.Logger
	reached  atomic.Bool
	free     atomic.Int64
	limit    atomic.Int64  // bytes below which it is reached
	times    atomic.Uint64 // that it was reached
}

// Reached reports whether publishing has to stop.
func (r *reserve) Reached() bool { return r.reached.Load() }

func (r *reserve) bytes(total int64) int64 { return reserveBytes(r.fixed, r.segment, total) }

// reserveBytes is the reserve for a volume of the given size: three WAL segments
// and a checkpoint's worth, or five percent of the volume up to 1 GiB, whichever
// is more; fixed where that is not 0.
func reserveBytes(fixed, segment, total int64) int64 {
	if fixed > 0 {
		return fixed
	}
	return max(3*segment+min(segment, 16<<20), min(total/20, 1<<30))
}

// DiskReserve is the free space, in bytes, below which a node with these settings
// takes no publishes on a volume of so many bytes.
func DiskReserve(c *config.Config, total int64) int64 {
	return reserveBytes(int64(c.DiskReserve), segmentBytes(c, total), total)
}

func (r *reserve) look() {
	u, err := r.fs.Usage(r.dir)
	if err != nil {
		r.log.Warn("read free disk space", "dir", r.dir, "error", err)
		return
	}
	r.free.Store(u.Free)
	limit := r.bytes(u.Total)
	r.limit.Store(limit)
	below := u.Free < limit
	if below != r.reached.Swap(below) {
		if below {
			r.times.Add(1)
			r.log.Error("disk reserve reached: publishing stops until space is freed", "dir", r.dir, "free_bytes", u.Free, "reserve_bytes", limit)
		} else {
			r.log.Info("disk space is back: publishing goes on", "dir", r.dir, "free_bytes", u.Free, "reserve_bytes", limit)
		}
	}
}

// Run looks until ctx ends.
func (r *reserve) Run(ctx context.Context) error {
	tick := time.NewTimer(reservePoll)
	defer tick.Stop()
	var asked time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			r.look()
			if r.free.Load()-r.limit.Load() > reserveAmple {
				tick.Reset(cluster.UntilNext(reserveRest))
			} else {
				tick.Reset(reservePoll)
			}
			if r.Reached() && now.Sub(asked) >= 250*time.Millisecond {
				asked = now
				r.pressure()
			}
		}
	}
}
