package shard

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

// history is what a test gave to the shards and what it was told.
type history struct {
	next  uint64
	given []map[uint64]bool // by shard: everything ever put in
	acked [][]uint64        // by shard, in order
}

// check compares what a shard holds with what was acknowledged.
func (h *history) check(shard int, list []uint64) error {
	seen := make(map[uint64]bool, len(list))
	for _, v := range list {
		if seen[v] {
			return fmt.Errorf("shard %d: %d was applied twice", shard, v)
		}
		if !h.given[shard][v] {
			return fmt.Errorf("shard %d: nobody put %d in", shard, v)
		}
		seen[v] = true
	}
	at := -1
	for _, v := range h.acked[shard] {
		i := slices.Index(list, v)
		if i < 0 {
			return fmt.Errorf("shard %d: %d was acknowledged and is lost", shard, v)
		}
		if i <= at {
			return fmt.Errorf("shard %d: %d moved before what was acknowledged earlier", shard, v)
		}
		at = i
	}
	return nil
}

// crashCounts are the rare cases that a run must have met.
type crashCounts struct {
	crashes, inOp, replays, checkpoints, fallbacks, recycles, torn int
}

// crashLoop runs a node of two shards through several lives, with steps in
// random order and crashes between and inside file operations.
func crashLoop(t testing.TB, seed uint64, async bool, c *crashCounts) error {
	const shards, lives, steps = 2, 5, 250
	rng := rand.New(rand.NewPCG(seed, 1))
	r := newRig(t, async, shards)
	r.options = func(o *Options) { o.CheckpointBytes = 256 }
	h := &history{given: []map[uint64]bool{{}, {}}, acked: make([][]uint64, shards)}
	for range lives {
		if rng.IntN(2) == 0 {
			r.fs.FailAfter(1+rng.Int64N(200), nil)
		}
		err := r.open()
		for i := 0; err == nil && i < steps; i++ {
			err = r.random(rng, h)
		}
		if err != nil && !r.fs.Tripped() {
			return err
		}
		if err != nil {
			c.inOp++
		}
		for i, l := range r.ledgers {
			h.acked[i] = append(h.acked[i], l.acked...)
			c.checkpoints += l.published
		}
		if r.wal != nil {
			c.recycles += int(r.wal.Stats().Recycles)
		}
		loss := r.fs.Crash(rng)
		c.crashes++
		c.torn += loss.Torn
		if err := r.verify(h, c); err != nil {
			return err
		}
		if rng.IntN(2) == 0 {
			r.fs.Crash(rng)
		}
	}
	return nil
}

// random does one step, chosen by rng.
func (r *rig) random(rng *rand.Rand, h *history) error {
	r.now += rng.Int64N(1e8)
	shard := rng.IntN(r.shards)
	switch rng.IntN(12) {
	case 0, 1, 2:
		for range 1 + rng.IntN(5) {
			h.next++
			h.given[shard][h.next] = true
			r.put(shard, h.next)
		}
	case 3, 4, 5:
		_, _, err := r.groups[shard].Step(r.now)
		return err
	case 6, 7:
		return r.wal.Write()
	case 8:
		return r.wal.Sync()
	case 9:
		r.wal.Finish()
	case 10:
		_, err := r.wal.Maintain()
		return err
	case 11:
		_, err := r.flusher.Step()
		return err
	}
	return nil
}

// verify starts the node after a crash and looks at what it holds.
func (r *rig) verify(h *history, c *crashCounts) error {
	if err := r.open(); err != nil {
		return err
	}
	restored := make([]int, r.shards)
	for i, l := range r.ledgers {
		restored[i] = len(l.list)
	}
	if err := r.tryToSettle(); err != nil {
		return err
	}
	for i, l := range r.ledgers {
		if len(l.list) > restored[i] {
			c.replays++
		}
		c.fallbacks += len(r.groups[i].Status().Damaged)
		if err := h.check(i, l.list); err != nil {
			return err
		}
	}
	return nil
}

func TestCrashLoop(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		seeds := uint64(60)
		if testing.Short() {
			seeds = 15
		}
		var c crashCounts
		for seed := range seeds {
			if err := crashLoop(t, seed, async, &c); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		t.Logf("%+v", c)
		if c.crashes == 0 || c.inOp == 0 || c.replays == 0 || c.checkpoints == 0 || c.recycles == 0 || c.torn == 0 {
			t.Errorf("a case was never met: %+v", c)
		}
		if c.fallbacks > 0 {
			t.Errorf("%d checkpoints were damaged by crashes alone", c.fallbacks)
		}
	})
}

// fill puts checkpoints and a tail into shard 0 and returns its numbers.
func (r *rig) fill() []uint64 {
	r.t.Helper()
	r.mustOpen()
	r.settle()
	var want []uint64
	for len(want) < 200 || r.ledgers[0].published < 3 {
		v := uint64(len(want)) + 1
		want = append(want, v)
		r.put(0, v)
		r.settle()
	}
	return want
}

func (r *rig) manifests() []string {
	r.t.Helper()
	seqs, err := folder{fs: r.fs, dir: r.dir(0)}.list()
	if err != nil {
		r.t.Fatal(err)
	}
	names := make([]string, 0, len(seqs))
	for _, seq := range seqs {
		names = append(names, folder{dir: r.dir(0)}.name(seq))
	}
	return names
}

// A flipped bit anywhere in the newest checkpoint falls back to the older one.
func TestDamagedCheckpointFallsBack(t *testing.T) {
	eachMode(t, func(t *testing.T, async bool) {
		r := newRig(t, async, 1)
		want := r.fill()
		names := r.manifests()
		if len(names) != 2 {
			t.Fatalf("kept are %v", names)
		}
		size, err := r.fs.DurableSize(names[0])
		if err != nil {
			t.Fatal(err)
		}
		r.options = func(o *Options) { o.CheckpointBytes = 1 << 30 } // the files stay as they are
		for _, offset := range []int64{0, 9, 13, 16, 20, size / 2, size - 1} {
			r.crash(nil)
			if err := r.fs.Flip(names[0], offset, 3); err != nil {
				t.Fatal(err)
			}
			r.mustOpen()
			r.settle()
			if got := r.groups[0].Status().Damaged; !slices.Equal(got, names[:1]) {
				t.Errorf("damage at %d: reported is %v", offset, got)
			}
			if !slices.Equal(r.ledgers[0].list, want) {
				t.Errorf("damage at %d: %d of %d numbers", offset, len(r.ledgers[0].list), len(want))
			}
			if err := r.fs.Flip(names[0], offset, 3); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// After a fallback the next checkpoint takes the place of the damaged one.
func TestDamagedCheckpointIsReplaced(t *testing.T) {
	r := newRig(t, true, 1)
	want := r.fill()
	names := r.manifests()
	r.crash(nil)
	if err := r.fs.Flip(names[0], 20, 0); err != nil {
		t.Fatal(err)
	}
	r.mustOpen()
	r.settle()
	r.groups[0].RequestCheckpoint()
	r.settle()
	now := r.manifests()
	if len(now) != 2 || slices.Contains(now, names[0]) {
		t.Errorf("before %v, now %v", names, now)
	}
	r.crash(nil)
	r.mustOpen()
	r.settle()
	if s := r.groups[0].Status(); len(s.Damaged) > 0 || !slices.Equal(r.ledgers[0].list, want) {
		t.Errorf("status %+v, %d of %d numbers", s, len(r.ledgers[0].list), len(want))
	}
}

func TestBothCheckpointsDamagedRefuses(t *testing.T) {
	r := newRig(t, true, 1)
	r.fill()
	names := r.manifests()
	r.crash(nil)
	for _, name := range names {
		if err := r.fs.Flip(name, 20, 0); err != nil {
			t.Fatal(err)
		}
	}
	err := r.open()
	if !errors.Is(err, ErrManifest) {
		t.Fatalf("opened with both damaged: %v", err)
	}
	for _, name := range names {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("the error does not name %s: %v", name, err)
		}
	}
}

// Missing files are refused, not taken for a new group.
func TestMissingFilesAreRefused(t *testing.T) {
	r := newRig(t, true, 1)
	r.fill()
	names := r.manifests()
	r.crash(nil)
	for _, name := range names {
		if err := r.fs.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.open(); err == nil || !strings.Contains(err.Error(), r.dir(0)) {
		t.Errorf("opened a log without a checkpoint: %v", err)
	}
}

func TestUnfinishedCheckpointIsRemoved(t *testing.T) {
	r := newRig(t, true, 1)
	r.mustOpen()
	name := folder{dir: r.dir(0)}.name(9) + vfs.TempSuffix
	f, err := r.fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Close(), r.fs.SyncDir(r.dir(0))); err != nil {
		t.Fatal(err)
	}
	r.crash(nil)
	if _, err := Verify(r.fs, path.Dir(r.dir(0))); err != nil {
		t.Fatal(err)
	}
	if _, err := r.fs.Stat(name); err != nil {
		t.Errorf("Verify has changed the folder: %v", err)
	}
	r.mustOpen()
	if _, err := r.fs.Stat(name); err == nil {
		t.Error("it is still there")
	}
}
