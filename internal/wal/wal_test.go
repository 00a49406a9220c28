package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/vfs"
)

const dir = "data/wal"

// everything is a read budget without bound.
const everything = math.MaxInt

// newFS returns a file system with a durable data folder.
func newFS(t testing.TB) *vfs.Mem {
	t.Helper()
	fs := vfs.NewMem()
	if err := errors.Join(fs.MkdirAll("data"), fs.SyncDir("")); err != nil {
		t.Fatal(err)
	}
	return fs
}

// mustOpen opens a log or ends the test.
func mustOpen(t testing.TB, fs vfs.FS, o Options) *WAL {
	t.Helper()
	w, err := Open(fs, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// entry makes an entry whose data tells its index and term.
func entry(index, term uint64, size int) Entry {
	data := bytes.Repeat([]byte{byte(index)}, max(size, 16))
	binary.BigEndian.PutUint64(data, index)
	binary.BigEndian.PutUint64(data[8:], term)
	return Entry{Index: index, Term: term, Type: int32(index % 3), Data: data}
}

func entries(first, last, term uint64, size int) []Entry {
	var es []Entry
	for i := first; i <= last; i++ {
		es = append(es, entry(i, term, size))
	}
	return es
}

// commit submits, and drives the steps until it is durable.
func commit(t testing.TB, w *WAL, a Append) {
	t.Helper()
	done := false
	a.Sync = true
	a.Done = func(err error) {
		if err != nil {
			t.Fatal(err)
		}
		done = true
	}
	w.Submit(a)
	step(t, w)
	if !done {
		t.Fatal("Done was not called")
	}
}

// step is one pass of the hot path.
func step(t testing.TB, w *WAL) {
	t.Helper()
	if err := w.pass(); err != nil {
		t.Fatal(err)
	}
}

// maintain does all background work.
func maintain(t testing.TB, w *WAL) {
	t.Helper()
	for {
		did, err := w.Maintain()
		if err != nil {
			t.Fatal(err)
		}
		if !did {
			return
		}
	}
}

func read(t testing.TB, w *WAL, shard uint32) []Entry {
	t.Helper()
	first := w.First(shard)
	if first == 0 {
		return nil
	}
	last, _ := w.Last(shard)
	es, err := w.Entries(shard, first, last+1, everything)
	if err != nil {
		t.Fatal(err)
	}
	return es
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s (-want +got):\n%s", what, cmp.Diff(want, got))
	}
}

func TestReopen(t *testing.T) {
	fs := newFS(t)
	w := mustOpen(t, fs, Options{SegmentSize: MinSegmentSize})
	hard := HardState{Term: 3, Vote: 7, Commit: 2}
	commit(t, w, Append{Shard: 1, Entries: entries(1, 3, 1, 20), Hard: &hard})
	commit(t, w, Append{Shard: 4, Entries: entries(10, 90, 1, 100)}) // several groups would not fit: oversize
	commit(t, w, Append{Shard: 1, Entries: entries(3, 4, 2, 20)})    // replaces 3
	want := append(entries(1, 2, 1, 20), entries(3, 4, 2, 20)...)
	equal(t, "before", read(t, w, 1), want)
	fs.Crash(nil)

	w = mustOpen(t, fs, Options{SegmentSize: MinSegmentSize})
	equal(t, "shard 1", read(t, w, 1), want)
	equal(t, "shard 4", read(t, w, 4), entries(10, 90, 1, 100))
	equal(t, "shards", w.Shards(), []uint32{1, 4})
	if got, ok := w.Hard(1); !ok || got != hard {
		t.Fatalf("HardState %v %v", got, ok)
	}
	for index, term := range map[uint64]uint64{1: 1, 2: 1, 3: 2, 4: 2} {
		if got, err := w.Term(1, index); err != nil || got != term {
			t.Fatalf("term of %d: %d %v", index, got, err)
		}
	}
	if s := w.Stats(); s.CutBytes != 0 {
		t.Fatalf("cut %d bytes", s.CutBytes)
	}
}

func TestUnsyncedIsNotDone(t *testing.T) {
	fs := newFS(t)
	w := mustOpen(t, fs, Options{})
	var done []string
	tell := func(s string) func(error) {
		return func(err error) { done = append(done, fmt.Sprint(s, err)) }
	}
	w.Submit(Append{Shard: 1, Hard: &HardState{Commit: 1}, Done: tell("a")})
	w.Submit(Append{Shard: 1, Entries: entries(1, 1, 1, 1), Sync: true, Done: tell("b")})
	w.Submit(Append{Shard: 1, Hard: &HardState{Commit: 2}, Done: tell("c")})
	w.Finish()
	equal(t, "submitted", done, []string(nil))
	if err := w.Write(); err != nil {
		t.Fatal(err)
	}
	w.Finish()
	equal(t, "written", done, []string{"a<nil>"})
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	w.Finish()
	equal(t, "synced", done, []string{"a<nil>", "b<nil>", "c<nil>"})
	if s := w.Stats(); s.Syncs != 1 || s.Writes != 1 {
		t.Fatalf("%d syncs, %d writes", s.Syncs, s.Writes)
	}
	w.Submit(Append{Shard: 1, Hard: &HardState{Commit: 3}})
	step(t, w)
	if s := w.Stats(); s.Syncs != 1 || s.Writes != 2 {
		t.Fatalf("commit-only HardState: %d syncs, %d writes", s.Syncs, s.Writes)
	}
}

func TestEntries(t *testing.T) {
	fs := newFS(t)
	w := mustOpen(t, fs, Options{SegmentSize: 512 << 10})
	for i := uint64(1); i <= 200; i++ {
		w.Submit(Append{Shard: 1, Entries: entries(i, i, 1, 3000), Sync: true})
		w.Submit(Append{Shard: 2, Entries: entries(i, i, 1, 5000), Sync: true})
		if i%7 == 0 {
			step(t, w)
		}
	}
	all := entries(1, 200, 1, 3000)
	check := func() {
		t.Helper()
		for _, r := range [][3]int{{1, 201, everything}, {1, 201, 1}, {57, 201, 9000}, {190, 201, everything}, {196, 199, 3000}, {5, 5, 1}} {
			lo, hi := r[0], r[1]
			want := all[lo-1 : hi-1]
			if n := max(1, r[2]/3000); len(want) > n {
				want = want[:n]
			}
			got, err := w.Entries(1, uint64(lo), uint64(hi), r[2])
			if err != nil {
				t.Fatal(err)
			}
			if len(got) == 0 {
				got = []Entry{}
			}
			equal(t, fmt.Sprint(r), got, want)
		}
	}
	check() // 197 to 200 are not written yet
	step(t, w)
	check()
	w.Release(1, 50)
	if _, err := w.Entries(1, 50, 52, everything); !errors.Is(err, ErrCompacted) {
		t.Fatal(err)
	}
	if _, err := w.Entries(1, 200, 202, everything); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	equal(t, "first", w.First(1), uint64(51))
	if term, err := w.Term(1, 50); err != nil || term != 1 {
		t.Fatal(term, err)
	}
	if _, err := w.Term(1, 49); !errors.Is(err, ErrCompacted) {
		t.Fatal(err)
	}
}

// A log leaves the file that grows for the first spare, at the first write
// that finds one in stock and needs no sync for it.
func TestLeaveGrowing(t *testing.T) {
	fs := newFS(t)
	o := Options{SegmentSize: 8 * MinSegmentSize, Spares: 2}
	w := mustOpen(t, fs, o)
	next := uint64(0)
	put := func() {
		next++
		w.Submit(Append{Shard: 1, Entries: []Entry{entry(next, 1, 100)}, Sync: true})
		if err := w.Write(); err != nil {
			t.Fatal(err)
		}
	}
	put()
	maintain(t, w)
	put() // what was written before is not durable
	equal(t, "segments", w.Stats().Segments, 1)
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	syncs := w.Stats().Syncs
	put()
	equal(t, "segments", w.Stats().Segments, 2)
	equal(t, "syncs of the roll", w.Stats().Syncs, syncs)
	step(t, w)

	// The spares become as large as a segment.
	var limits []int64
	for len(limits) < 5 {
		if sequence, limit := w.current().sequence, w.writer.limit; sequence == uint64(2+len(limits)) {
			limits = append(limits, limit/MinSegmentSize)
		}
		put()
		step(t, w)
		maintain(t, w)
	}
	equal(t, "sizes", limits, []int64{1, 2, 4, 8, 8})
	fs.Crash(nil)
	w = mustOpen(t, fs, o)
	last, _ := w.Last(1)
	equal(t, "last", last, next)
	equal(t, "limit", w.writer.limit, o.SegmentSize)
}

func TestRecycle(t *testing.T) {
	fs := newFS(t)
	o := Options{SegmentSize: MinSegmentSize}
	w := mustOpen(t, fs, o)
	maintain(t, w)
	if s := w.Stats(); s.Spares != 2 {
		t.Fatalf("%d spares", s.Spares)
	}
	hard := HardState{Term: 5, Vote: 2, Commit: 1}
	commit(t, w, Append{Shard: 9, Hard: &hard})
	for i := uint64(1); i <= 300; i++ {
		commit(t, w, Append{Shard: 1, Entries: entries(i, i, 1, 200)})
		if i > 30 {
			w.Release(1, i-30)
		}
		maintain(t, w)
	}
	s := w.Stats()
	if s.Recycles < 10 || s.Segments > 5 || w.Size() > 5*MinSegmentSize {
		t.Fatalf("%+v", s)
	}
	equal(t, "tail", read(t, w, 1), entries(271, 300, 1, 200))
	fs.Crash(nil)
	w = mustOpen(t, fs, o)
	if got, _ := w.Hard(9); got != hard {
		t.Fatalf("HardState of the silent shard: %v", got)
	}
	last, _ := w.Last(1)
	equal(t, "last", last, uint64(300))
	if w.First(1) > 271 {
		t.Fatalf("first is %d", w.First(1))
	}
}

func TestRun(t *testing.T) {
	fs := newFS(t)
	w := mustOpen(t, fs, Options{SegmentSize: MinSegmentSize})
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- w.Run(ctx) }()
	done := make(chan error, 100)
	for i := uint64(1); i <= 100; i++ {
		w.Submit(Append{Shard: 1, Entries: entries(i, i, 1, 100), Sync: true, Done: func(err error) { done <- err }})
	}
	for range 100 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	w.Submit(Append{Shard: 1, Done: func(err error) { done <- err }})
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = mustOpen(t, fs, Options{SegmentSize: MinSegmentSize})
	equal(t, "entries", read(t, w, 1), entries(1, 100, 1, 100))
}

// After a second of silence the log declares itself durable, once.
func TestIdleMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newFS(t)
		w := mustOpen(t, fs, Options{SegmentSize: MinSegmentSize, Spares: -1})
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- w.Run(ctx) }()
		done := make(chan error, 1)
		w.Submit(Append{Shard: 1, Entries: entries(1, 1, 1, 100), Sync: true, Done: func(err error) { done <- err }})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		w.Submit(Append{Shard: 1, Hard: &HardState{Commit: 1}}) // rides along
		synctest.Wait()
		if s := w.Stats(); s.Writes != 1 || s.Syncs != 1 || s.SyncBuckets != [len(SyncBounds) + 1]uint64{1} {
			t.Fatalf("busy: %+v", s)
		}
		time.Sleep(3 * idleAfter)
		synctest.Wait()
		idle := w.Stats()
		if idle.Writes != 3 || idle.Syncs != 3 {
			t.Fatalf("idle: %+v", idle)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := w.Stats(); s.Writes != idle.Writes || s.Syncs != idle.Syncs {
			t.Fatalf("idle for long: %+v", s)
		}
		stop()
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
		if s := w.Stats(); s.Writes != idle.Writes {
			t.Fatalf("stopped: %+v", s)
		}
		marks := 0
		if err := Inspect(fs, dir, func(f Frame) error {
			if f.Kind == KindGroup && f.Group == frameSize {
				marks++
				equal(t, "durable", f.Durable, f.Offset)
			}
			return nil
		}); err != nil || marks != 1 {
			t.Fatal(marks, err)
		}
	})
}

// Steady state allocates nothing per append.
func TestAllocations(t *testing.T) {
	w := mustOpen(t, newFS(t), Options{SegmentSize: 16 << 20, Spares: -1})
	batch := []Entry{{Term: 1, Data: make([]byte, 500)}}
	done := func(error) {}
	n := testing.AllocsPerRun(1000, func() {
		batch[0].Index++
		w.Submit(Append{Shard: 1, Entries: batch, Sync: true, Done: done})
		if err := w.pass(); err != nil {
			t.Fatal(err)
		}
	})
	if n >= 1 { // the file system and the anchors allocate now and then
		t.Fatalf("%v allocations", n)
	}
}

// Shards submit, read and release at once, while the log rolls and recycles.
func TestConcurrentShards(t *testing.T) {
	fs := newFS(t)
	w := mustOpen(t, fs, Options{SegmentSize: MinSegmentSize})
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- w.Run(ctx) }()
	const shards, n = 4, 300
	answers := make(chan error, shards)
	for id := range uint32(shards) {
		go func() { answers <- useShard(w, id, n) }()
	}
	for range shards {
		if err := <-answers; err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if s := w.Stats(); s.Rolls < 20 || s.Recycles+s.Removed < 10 {
		t.Fatalf("%+v", s)
	}
	fs.Crash(nil)
	w = mustOpen(t, fs, Options{SegmentSize: MinSegmentSize})
	for id := range uint32(shards) {
		if last, _ := w.Last(id); last != n {
			t.Fatalf("shard %d ends at %d", id, last)
		}
	}
}

func useShard(w *WAL, id uint32, n uint64) error {
	done := make(chan error, 1)
	for i := uint64(1); i <= n; i++ {
		w.Submit(Append{Shard: id, Entries: []Entry{entry(i, 1, 200)}, Sync: true, Done: func(err error) { done <- err }})
		from := max(w.First(id), 1)
		es, err := w.Entries(id, from, i+1, everything)
		if err != nil {
			return err
		}
		for k, e := range es {
			if want := entry(from+uint64(k), 1, 200); !bytes.Equal(e.Data, want.Data) {
				return fmt.Errorf("entry %d of shard %d is %x", want.Index, id, e.Data)
			}
		}
		if err := <-done; err != nil {
			return err
		}
		if i > 20 {
			w.Release(id, i-20)
		}
	}
	return nil
}
