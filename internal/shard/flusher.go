package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tidings-io/tidings/internal/grow"
	"github.com/tidings-io/tidings/internal/wal"
)

// Tails is what the flusher needs of a node's seglog.Store.
type Tails interface {
	// OverBudget reports whether tails should be moved to files.
	OverBudget() bool
	// TailBytes is what the tails hold.
	TailBytes() int64
	// FlushOldest does one unit of that; false when there is nothing to do.
	FlushOldest() (bool, error)
}

// Compactor is a Machine with background work on its files: Compact does one
// unit of it on the flusher's goroutine and reports whether there was any.
type Compactor interface {
	Compact(now time.Time) (did bool, err error)
}

// Background is a Machine with work for the flusher's goroutine that should not
// wait for a round of compaction: one unit per call. The machine wakes the
// flusher when there is some.
type Background interface {
	Background() (did bool, err error)
}

// FlusherOptions of a flusher. Zero values mean the default beside the field.
type FlusherOptions struct {
	Store  Tails
	WAL    *wal.WAL
	Groups []*Group
	Clock  func() int64 // unix ns; default the system's
	Logger *slog.Logger // default: discards

	// TailLimit stops new proposals while tails hold more, in bytes: the
	// flusher is far behind. 64 MiB.
	TailLimit int64
	// CheckpointBytes is the groups' own; once the WAL is twice as large, the
	// shards that pin its oldest segment are checkpointed by force. 64 MiB.
	CheckpointBytes int64
	// Sweep removes files that nobody knows. It is called once, when every group
	// has published a checkpoint since the start: before, the older checkpoint
	// may name them. Nil: nothing to do.
	Sweep func() error
	// CompactEvery is the pause between two rounds of compaction. 1 minute.
	CompactEvery time.Duration
}

// Flusher moves tails to files, writes checkpoints, releases the WAL and
// compacts; one per node. Step, or Run around it, owns all fields that are not
// atomic. The WAL must outlive it.
type Flusher struct {
	o       FlusherOptions
	wake    chan struct{}
	coming  grow.List[*Group] // those of the options, and those added since
	groups  []*Group          // as this Step found them
	holding atomic.Bool       // a group waits for tails to shrink
	applied atomic.Int64      // bytes of entries, all groups, since the start

	job       *job
	unswept   map[uint32]bool  // groups of the options without a checkpoint since the start
	forcedAt  map[uint32]int64 // applied, when the shard was last forced
	compactAt int64            // unix ns
	compacted int              // groups done in this round of compaction
	pausedTo  int64            // unix ns: the disk is full
	full      bool
}

// stage is how far a checkpoint has come.
type stage uint8

const (
	stageState stage = iota // the machine writes and syncs its files
	stageManifest
	stageRelease // the one before the last goes, the WAL is released
)

// NewFlusher makes the flusher of these groups; their loops must not run yet.
func NewFlusher(o FlusherOptions) *Flusher {
	if o.Clock == nil {
		o.Clock = func() int64 { return time.Now().UnixNano() }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.TailLimit <= 0 {
		o.TailLimit = 64 << 20
	}
	if o.CheckpointBytes <= 0 {
		o.CheckpointBytes = 64 << 20
	}
	if o.CompactEvery <= 0 {
		o.CompactEvery = time.Minute
	}
	f := &Flusher{o: o, wake: make(chan struct{}, 1), forcedAt: make(map[uint32]int64), unswept: make(map[uint32]bool)}
	f.compactAt = o.Clock() + int64(o.CompactEvery)
	for _, g := range o.Groups {
		f.unswept[g.o.ID] = o.Sweep != nil
		f.Add(g)
	}
	return f
}

// Add takes on a group that is opened while the flusher runs, and has nothing to be
// swept; its loop must not run yet. Any goroutine.
func (f *Flusher) Add(g *Group) {
	g.applyHook, g.jobHook, g.held = f.noted, f.Wake, f.held
	g.releaseLog() // as before the restart
	f.coming.Add(g)
}

// Wake tells the flusher to look around.
func (f *Flusher) Wake() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// noted is called by a group's loop after it applied entries.
func (f *Flusher) noted(bytes int64) {
	f.applied.Add(bytes)
	if f.o.Store.OverBudget() {
		f.Wake()
	}
}

// held tells a group's loop to propose nothing. The flag is set before the
// bytes are read again, so that the flusher cannot shrink the tails unseen.
func (f *Flusher) held() bool {
	if f.o.Store.TailBytes() <= f.o.TailLimit {
		return false
	}
	f.holding.Store(true)
	return f.o.Store.TailBytes() > f.o.TailLimit
}

// Step does one unit of each kind of work that waits. An error is final: the
// node must stop. A full disk is none: what failed for it is tried again a
// second later.
func (f *Flusher) Step() (did bool, err error) {
	now := f.o.Clock()
	if now < f.pausedTo {
		return false, nil
	}
	f.groups = f.coming.All()
	for _, work := range []func(int64) (bool, error){f.flush, f.background, f.advance, f.compact} {
		worked, err := work(now)
		if errors.Is(err, syscall.ENOSPC) {
			return false, f.pause(now, err)
		}
		if err != nil {
			return did, fmt.Errorf("flush: %w", err)
		}
		did = did || worked
	}
	f.press()
	if did && f.full {
		f.full = false
		f.o.Logger.Info("the flusher goes on, the disk has room again")
	}
	return did, nil
}

// pause waits for room on the disk.
func (f *Flusher) pause(now int64, err error) error {
	f.pausedTo = now + retryAfter
	if !f.full {
		f.full = true
		f.o.Logger.Error("the flusher waits, the disk is full", "error", err)
	}
	if j := f.job; j != nil {
		j.err = err
		if undone := j.undo(); undone != nil {
			return fmt.Errorf("undo installation of shard %d: %w", j.m.Shard, undone)
		}
		if j.install != nil {
			j.install.in.imp.Fail()
		}
		f.job = nil
		j.group.finishJob(j)
	}
	return nil
}

// flush moves tails to files.
func (f *Flusher) flush(int64) (bool, error) {
	did := false
	if f.o.Store.OverBudget() {
		var err error
		if did, err = f.o.Store.FlushOldest(); err != nil {
			return false, err
		}
	}
	// Not only after a flush of this one: a checkpoint empties tails too.
	if f.holding.Load() && f.o.Store.TailBytes() <= f.o.TailLimit {
		f.holding.Store(false)
		for _, g := range f.groups {
			g.Wake()
		}
	}
	return did, nil
}

// advance brings a checkpoint one stage further.
func (f *Flusher) advance(int64) (bool, error) {
	if f.job == nil {
		for _, g := range f.groups {
			if f.job = g.takeJob(); f.job != nil {
				break
			}
		}
	}
	j := f.job
	if j == nil {
		return false, nil
	}
	var err error
	switch j.stage {
	case stageState:
		if j.m.State, err = j.state.Write(); err != nil {
			return false, fmt.Errorf("write state of shard %d: %w", j.m.Shard, err)
		}
	case stageManifest:
		if err = j.group.folder.write(&j.m); err != nil {
			return false, fmt.Errorf("publish checkpoint of shard %d: %w", j.m.Shard, err)
		}
		j.m.State = nil
	case stageRelease:
		if err = j.group.folder.trim(j.m.Seq, j.older.seq); err != nil {
			return false, fmt.Errorf("trim checkpoints of shard %d: %w", j.m.Shard, err)
		}
		j.state.Published()
		f.job = nil
		j.group.finishJob(j)
		if err = f.sweep(j.m.Shard); err != nil {
			return false, err
		}
	}
	j.stage++
	return true, nil
}

// sweep takes note of a shard's checkpoint and sweeps behind the last one.
func (f *Flusher) sweep(id uint32) error {
	if !f.unswept[id] {
		return nil
	}
	delete(f.unswept, id)
	if len(f.unswept) > 0 {
		return nil
	}
	if err := f.o.Sweep(); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}

// background does what machines have prepared.
func (f *Flusher) background(int64) (did bool, err error) {
	for _, g := range f.groups {
		b, ok := g.o.Machine.(Background)
		if !ok {
			continue
		}
		worked, err := b.Background()
		if err != nil {
			return did, fmt.Errorf("work for shard %d: %w", g.o.ID, err)
		}
		did = did || worked
	}
	return did, nil
}

// press forces checkpoints of the shards that pin the WAL's oldest segment
// when it has grown too long: an idle shard at once, a busy one at most every
// half CheckpointBytes of all shards' entries, because only the second
// checkpoint releases.
func (f *Flusher) press() {
	limit := 2 * f.o.CheckpointBytes
	kept := int64(0)
	for _, g := range f.groups {
		kept = max(kept, g.keeps.Load()) // the groups keep the same bytes
	}
	if f.o.WAL.Size() <= limit+kept {
		return
	}
	applied := f.applied.Load()
	for _, id := range f.o.WAL.Oldest() {
		for _, g := range f.groups {
			if g.o.ID != id || g.CheckpointDue() {
				continue
			}
			s := g.Status()
			idle := s.Applied == s.CheckpointIndex
			at, before := f.forcedAt[id]
			if s.Applied > s.ReleasedIndex && (idle || !before || applied-at >= f.o.CheckpointBytes/2) {
				f.forcedAt[id] = applied
				g.RequestCheckpoint()
			}
		}
	}
}

// compact does one unit of compaction when a round is due.
func (f *Flusher) compact(now int64) (bool, error) {
	if now < f.compactAt {
		return false, nil
	}
	for f.compacted < len(f.groups) {
		g := f.groups[f.compacted]
		c, ok := g.o.Machine.(Compactor)
		if ok {
			did, err := c.Compact(time.Unix(0, now))
			if err != nil {
				return false, fmt.Errorf("compact shard %d: %w", g.o.ID, err)
			}
			if did {
				return true, nil
			}
		}
		f.compacted++
	}
	f.compacted = 0
	f.compactAt = now + int64(f.o.CompactEvery)
	return false, nil
}

// Run is the loop over Step until ctx ends. A checkpoint that is half written
// then is left; the start removes what it finds of it.
func (f *Flusher) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		did, err := f.Step()
		if err != nil {
			return err
		}
		if did {
			continue
		}
		next := f.compactAt
		now := f.o.Clock()
		if f.pausedTo > now {
			next = f.pausedTo
		}
		timer.Reset(until(now, next))
		select {
		case <-ctx.Done():
		case <-f.wake:
		case <-timer.C:
		}
	}
	return nil
}
