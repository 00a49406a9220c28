package shard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
)

// ledger is a toy machine: a list of numbers. An entry holds the term it was
// built in and numbers; a checkpoint is the list.
type ledger struct {
	list  []uint64
	index uint64 // of the last entry
	life  uint64 // index that Restore set

	waiting []uint64
	acked   []uint64
	dropped []uint64
	dropErr error
	leads   []uint64
	follows int
	leading bool
	drains  []int // numbers per entry

	writing   int // checkpoints taken and not published
	published int
	failState error // Write returns it, once
}

func (l *ledger) Drain(term uint64, _ int64, maxBytes int) ([]byte, any) {
	if !l.leading {
		panic("drained without leading")
	}
	n := min(len(l.waiting), max(1, maxBytes/8))
	if n == 0 {
		return nil, nil
	}
	data := binary.BigEndian.AppendUint64(nil, term)
	token := slices.Clone(l.waiting[:n])
	for _, v := range token {
		data = binary.BigEndian.AppendUint64(data, v)
	}
	l.waiting = slices.Delete(l.waiting, 0, n)
	l.drains = append(l.drains, n)
	return data, token
}

func (l *ledger) Apply(e Entry, token any) error {
	if e.Index < l.index || e.Index <= l.life {
		return fmt.Errorf("entry %d comes behind %d", e.Index, l.index)
	}
	l.index = e.Index
	if term := binary.BigEndian.Uint64(e.Data); term != e.Term {
		return fmt.Errorf("entry of term %d was built in %d", e.Term, term)
	}
	for b := e.Data[8:]; len(b) > 0; b = b[8:] {
		l.list = append(l.list, binary.BigEndian.Uint64(b))
	}
	if token != nil {
		l.acked = append(l.acked, token.([]uint64)...)
	}
	return nil
}

func (l *ledger) Drop(token any, err error) {
	l.dropped = append(l.dropped, token.([]uint64)...)
	l.dropErr = err
}

func (l *ledger) Lead(term uint64) { l.leads, l.leading = append(l.leads, term), true }
func (l *ledger) Follow()          { l.follows++; l.leading = false }
func (l *ledger) Tick(int64) int64 { return Never }

func (l *ledger) Restore(index uint64, state []byte) error {
	l.index, l.life = index, index
	for b := state; len(b) > 0; b = b[8:] {
		l.list = append(l.list, binary.BigEndian.Uint64(b))
	}
	return nil
}

func (l *ledger) Checkpoint(index uint64) Checkpoint {
	if index < l.index {
		panic("checkpoint below what is applied")
	}
	l.writing++
	return &ledgerState{ledger: l, list: slices.Clone(l.list)}
}

type ledgerState struct {
	ledger *ledger
	list   []uint64
}

func (s *ledgerState) Write() ([]byte, error) {
	if err := s.ledger.failState; err != nil {
		s.ledger.failState = nil
		return nil, err
	}
	var b []byte
	for _, v := range s.list {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b, nil
}

func (s *ledgerState) Published() { s.ledger.writing--; s.ledger.published++ }

// tails stands for a node's seglog.
type tails struct {
	bytes, budget int64
	flushes       int
	err           error
}

func (t *tails) OverBudget() bool { return t.bytes > t.budget }
func (t *tails) TailBytes() int64 { return t.bytes }
func (t *tails) FlushOldest() (bool, error) {
	if t.err != nil {
		return false, t.err
	}
	t.flushes++
	t.bytes = min(t.bytes, t.budget/2)
	return true, nil
}

// rig is a node of some groups over one WAL, driven by hand.
type rig struct {
	t        testing.TB
	fs       *vfs.Mem
	disk     vfs.FS // fs as the log sees it
	async    bool
	shards   int
	now      int64
	wal      *wal.WAL
	tails    *tails
	ledgers  []*ledger
	groups   []*Group
	flusher  *Flusher
	options  func(*Options)
	segments int64
}

func newRig(t testing.TB, async bool, shards int) *rig {
	t.Helper()
	r := &rig{t: t, fs: vfs.NewMem(), async: async, shards: shards, now: 1e18, segments: 4096}
	r.disk = r.fs
	if err := vfs.MkdirSynced(r.fs, "data/shards"); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) dir(shard int) string { return fmt.Sprintf("data/shards/%d", shard) }

// open starts the node, as after a crash or a stop.
func (r *rig) open() error {
	r.wal, r.ledgers, r.groups = nil, nil, nil
	w, err := wal.Open(r.disk, "data/wal", wal.Options{SegmentSize: r.segments, Spares: 1})
	if err != nil {
		return err
	}
	r.wal, r.tails = w, &tails{budget: 1 << 20}
	for i := range r.shards {
		l := &ledger{}
		o := Options{
			ID: uint32(i), RaftID: 1, Dir: r.dir(i), FS: r.fs, WAL: w, Machine: l, Async: r.async,
			Clock: func() int64 { return r.now }, CheckpointBytes: 1024, MaxEntryBytes: 64,
		}
		if r.options != nil {
			r.options(&o)
		}
		g, err := Open(o)
		if err != nil {
			return err
		}
		r.ledgers, r.groups = append(r.ledgers, l), append(r.groups, g)
	}
	r.flusher = NewFlusher(FlusherOptions{
		Store: r.tails, WAL: w, Groups: r.groups,
		Clock: func() int64 { return r.now }, CheckpointBytes: 8192,
	})
	return nil
}

func (r *rig) mustOpen() {
	r.t.Helper()
	if err := r.open(); err != nil {
		r.t.Fatal(err)
	}
}

// persist lets the WAL do its steps.
func (r *rig) persist() error {
	err := errors.Join(r.wal.Write(), r.wal.Sync())
	r.wal.Finish()
	return err
}

// settle runs every step until nothing is left to do.
func (r *rig) settle() {
	r.t.Helper()
	if err := r.tryToSettle(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) tryToSettle() error {
	for range 10000 {
		busy := false
		for _, g := range r.groups {
			did, _, err := g.Step(r.now)
			if err != nil {
				return err
			}
			busy = busy || did
		}
		if r.wal.Pending() {
			busy = true
			if err := r.persist(); err != nil {
				return err
			}
		}
		did, err := r.flusher.Step()
		if err != nil {
			return err
		}
		if !did && !busy {
			return nil
		}
	}
	return errors.New("the node does not settle")
}

// put gives numbers to a shard.
func (r *rig) put(shard int, values ...uint64) {
	r.ledgers[shard].waiting = append(r.ledgers[shard].waiting, values...)
	r.groups[shard].Wake()
}

// crash loses what was not synced.
func (r *rig) crash(rng *rand.Rand) { r.fs.Crash(rng) }

// eachMode runs a test in both disciplines of the library.
func eachMode(t *testing.T, test func(t *testing.T, async bool)) {
	for _, async := range []bool{true, false} {
		t.Run(map[bool]string{true: "async", false: "sync"}[async], func(t *testing.T) { test(t, async) })
	}
}

// live runs the real loops until the returned function ends them.
func (r *rig) live(t testing.TB) (stop func() []error) {
	t.Helper()
	walCtx, stopWAL := context.WithCancel(context.Background())
	ctx, cancel := context.WithCancel(context.Background())
	walDone, ended := make(chan error, 1), make(chan error, len(r.groups)+1)
	go func() { walDone <- r.wal.Run(walCtx) }()
	for _, g := range r.groups {
		go func() { ended <- g.Run(ctx) }()
	}
	go func() { ended <- r.flusher.Run(ctx) }()
	return func() []error {
		cancel()
		var errs []error
		for range len(r.groups) + 1 {
			errs = append(errs, <-ended)
		}
		stopWAL()
		return append(errs, <-walDone)
	}
}
