package shard

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/vfs"
)

// A shard at rest must not pin the WAL: it is checkpointed by force.
func TestIdleShardDoesNotPinTheWAL(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		r := newRig(t, async, 2)
		r.mustOpen()
		r.put(1, 1)
		r.settle()
		for v := range uint64(3000) {
			r.put(0, v)
			r.settle()
			if _, err := r.wal.Maintain(); err != nil {
				t.Fatal(err)
			}
		}
		if s := r.groups[1].Status(); s.ReleasedIndex != s.Applied {
			t.Errorf("the idle shard holds on to entries above %d of %d", s.ReleasedIndex, s.Applied)
		}
		if size := r.wal.Size(); size > 6*8192 {
			t.Errorf("the WAL has grown to %d bytes", size)
		}
		if n := r.ledgers[1].published; n > 4 {
			t.Errorf("the idle shard was checkpointed %d times", n)
		}
	})
}

// A group that held back for the tails goes on when a checkpoint has emptied
// them, and not only when they were flushed for being too big.
func TestHeldGroupGoesOnAfterACheckpoint(t *testing.T) {
	r := newRig(t, true, 1)
	r.mustOpen()
	r.put(0, 1)
	r.settle()
	g := r.groups[0]
	r.tails.budget, r.tails.bytes = 1<<40, 1<<40
	r.put(0, 2)
	if _, _, err := g.Step(r.now); err != nil {
		t.Fatal(err)
	}
	if s := g.Status(); s.Inflight > 0 {
		t.Fatal("it proposes while the tails are full")
	}
	for len(g.turn.Bell()) > 0 {
		<-g.turn.Bell()
	}
	r.tails.bytes = 0
	if _, err := r.flusher.Step(); err != nil {
		t.Fatal(err)
	}
	if len(g.turn.Bell()) == 0 {
		t.Error("nobody tells the group that there is room")
	}
}

// The WAL keeps what the older of two checkpoints needs.
func TestReleaseStaysBehindTheOlder(t *testing.T) {
	r := newRig(t, true, 1)
	r.fill()
	s := r.groups[0].Status()
	if s.ReleasedIndex >= s.CheckpointIndex {
		t.Fatalf("status %+v", s)
	}
	if first := r.wal.First(0); first != s.ReleasedIndex+1 {
		t.Errorf("the WAL begins at %d, the older checkpoint stands at %d", first, s.ReleasedIndex)
	}
}

func TestCheckpointByAge(t *testing.T) {
	r := newRig(t, true, 1)
	r.mustOpen()
	r.put(0, 1)
	r.settle()
	l := r.ledgers[0]
	r.now += int64(time.Minute) - 1
	r.settle()
	if l.published != 0 {
		t.Error("a checkpoint came early")
	}
	r.now++
	r.settle()
	if l.published != 1 {
		t.Errorf("%d checkpoints after a minute", l.published)
	}
	r.now += int64(time.Hour)
	r.settle()
	if l.published != 1 {
		t.Errorf("%d checkpoints, and nothing has changed", l.published)
	}
	r.groups[0].RequestCheckpoint()
	if !r.groups[0].CheckpointDue() {
		t.Error("a requested checkpoint is not due")
	}
	r.settle()
	if l.published != 2 || r.groups[0].CheckpointDue() {
		t.Errorf("%d checkpoints after a request, due %v", l.published, r.groups[0].CheckpointDue())
	}
}

// The state is that of the moment it was taken, whatever is applied meanwhile.
func TestCheckpointBesideTraffic(t *testing.T) {
	r := newRig(t, true, 1)
	r.mustOpen()
	r.settle()
	want := []uint64{}
	put := func() {
		v := uint64(len(want)) + 1
		want = append(want, v)
		r.put(0, v)
		for range 3 {
			if _, _, err := r.groups[0].Step(r.now); err != nil {
				t.Fatal(err)
			}
			if err := r.persist(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 5 { // the stages of a checkpoint, and entries between them
		r.groups[0].RequestCheckpoint()
		put()
		for range 3 {
			if did, err := r.flusher.Step(); err != nil || !did {
				t.Fatal(did, err)
			}
			put()
		}
	}
	r.crash(nil)
	r.mustOpen()
	r.settle()
	if got := r.ledgers[0].list; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFullDiskIsWaitedFor(t *testing.T) {
	r := newRig(t, true, 1)
	r.mustOpen()
	r.put(0, 1)
	r.settle()
	r.ledgers[0].failState = &fullDisk{}
	r.groups[0].RequestCheckpoint()
	r.settle()
	if r.ledgers[0].published != 0 || !r.groups[0].CheckpointDue() {
		t.Fatalf("%d checkpoints, due %v", r.ledgers[0].published, r.groups[0].CheckpointDue())
	}
	r.now += int64(2 * time.Second)
	r.settle()
	if r.ledgers[0].published != 1 {
		t.Errorf("%d checkpoints once there is room", r.ledgers[0].published)
	}
}

type fullDisk struct{}

func (*fullDisk) Error() string { return "write segment: no space left on device" }
func (*fullDisk) Unwrap() error { return syscall.ENOSPC }

// A sync that failed is not tried again, whatever it says.
func TestSyncOfAFullDiskIsNotWaitedFor(t *testing.T) {
	for name, op := range map[string]vfs.Op{"write": vfs.OpWrite, "sync": vfs.OpSync, "sync folder": vfs.OpSyncDir} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, true, 1)
			disk := vfs.NewFault(r.fs)
			r.options = func(o *Options) { o.FS = disk }
			r.mustOpen()
			r.put(0, 1)
			r.settle()
			rule := disk.Fail(op, "", syscall.ENOSPC)
			r.groups[0].RequestCheckpoint()
			if err := r.tryToSettle(); (err == nil) != (op == vfs.OpWrite) || rule.Hits() == 0 {
				t.Errorf("after %d hits: %v", rule.Hits(), err)
			}
		})
	}
}

func TestFlusherStopsOnAnError(t *testing.T) {
	r := newRig(t, true, 1)
	r.mustOpen()
	r.settle()
	broken := errors.New("input/output error")
	r.ledgers[0].failState = broken
	r.groups[0].RequestCheckpoint()
	if err := r.tryToSettle(); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

// Far over budget nothing is proposed until the flusher has caught up.
func TestProposalsWaitForTails(t *testing.T) {
	r := newRig(t, true, 1)
	r.mustOpen()
	r.settle()
	r.tails.bytes = 100 << 20
	r.tails.err = &fullDisk{}
	r.put(0, 1)
	r.settle()
	if len(r.ledgers[0].acked) > 0 {
		t.Error("acknowledged while tails are over their limit")
	}
	r.tails.err = nil
	r.now += int64(2 * time.Second)
	r.settle()
	if len(r.ledgers[0].acked) != 1 || r.tails.flushes != 1 {
		t.Errorf("acknowledged %v after %d flushes", r.ledgers[0].acked, r.tails.flushes)
	}
}

// Files that nobody knows go once every shard has a checkpoint of this life.
func TestSweepComesBehindAllCheckpoints(t *testing.T) {
	r := newRig(t, true, 2)
	r.mustOpen()
	sweeps := 0
	r.flusher = NewFlusher(FlusherOptions{
		Store: r.tails, WAL: r.wal, Groups: r.groups, Clock: func() int64 { return r.now },
		Sweep: func() error { sweeps++; return nil },
	})
	for i, want := range []int{0, 1, 1} {
		r.settle()
		r.groups[i%2].RequestCheckpoint()
		r.settle()
		if sweeps != want {
			t.Errorf("after checkpoint %d: %d sweeps", i+1, sweeps)
		}
	}
}

// worker is a ledger with work for the flusher.
type worker struct {
	ledger
	units, rounds int
}

func (w *worker) Background() (bool, error) {
	w.units = max(w.units-1, -1)
	return w.units >= 0, nil
}

func (w *worker) Compact(time.Time) (bool, error) {
	w.rounds++
	return w.rounds%3 != 0, nil
}

func TestFlusherWorksForMachines(t *testing.T) {
	r := newRig(t, true, 1)
	w := &worker{units: 5}
	r.options = func(o *Options) { o.Machine = w }
	r.mustOpen()
	r.settle()
	if w.units > 0 || w.rounds != 0 {
		t.Errorf("%d units are left, %d compactions", w.units, w.rounds)
	}
	r.now += int64(time.Minute)
	r.settle()
	if w.rounds != 3 {
		t.Errorf("%d compactions in a round of three", w.rounds)
	}
}
