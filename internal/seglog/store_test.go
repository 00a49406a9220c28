package seglog

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/vfs"
)

func drain(t testing.TB, s *Store) {
	t.Helper()
	for {
		did, err := s.FlushOldest()
		must(t, err)
		if !did {
			return
		}
	}
}

func segments(t testing.TB, fs vfs.FS, l *Log) []string {
	t.Helper()
	names, err := readDir(fs, l.dir())
	must(t, err)
	return names
}

// TestManyLogs holds 10,000 topics with one small message each to their budget.
func TestManyLogs(t *testing.T) {
	const n = 10_000
	fs := disk()
	s := open(t, fs, Options{TailBytes: 64 << 20})
	data := body(1, 10, 1)
	before, heap := fs.Ops(), heapBytes()
	logs := make([]*Log, n)
	for i := range logs {
		logs[i] = s.New(LogID{uint64(i + 1), 0}, 0)
		logs[i].Append(Batch{Count: 1, Index: 5, TimeNs: 1, Data: data})
	}
	if per := (heapBytes() - heap) / n; per > 800 {
		t.Errorf("a log with one message takes %d bytes", per)
	}
	states := make([][]byte, n)
	for i, l := range logs {
		states[i] = checkpoint(t, l, 9, 4096)
		l.Published()
	}
	runtime.KeepAlive(logs)
	s = open(t, fs, Options{})
	began := time.Now()
	for i := range states {
		l, err := s.Restore(LogID{uint64(i + 1), 0}, states[i])
		must(t, err)
		if bs, err := l.Read(0, 1); err != nil || len(bs) != 1 {
			t.Fatal(bs, err)
		}
	}
	t.Logf("%d restores in %v", n, time.Since(began))
	if ops := fs.Ops() - before; ops != 0 {
		t.Errorf("%d changes to the file system", ops)
	}
}

func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestBudget flushes the oldest first, and small tails only when nothing else
// is left.
func TestBudget(t *testing.T) {
	s := open(t, disk(), Options{TailBytes: 1 << 20})
	small := s.New(LogID{1, 0}, 0)
	big := s.New(LogID{2, 0}, 0)
	late := s.New(LogID{3, 0}, 0)
	fill(small, 2, 1, 500, 1)
	fill(big, 100, 1, 7000, 1)
	fill(late, 60, 1, 7000, 1)
	if !s.OverBudget() {
		t.Fatal("not over budget")
	}
	drain(t, s)
	if small.tailSize() == 0 || big.tailSize() >= late.tailSize() || s.TailBytes() > 1<<19 {
		t.Errorf("tails %d, %d, %d, all %d", small.tailSize(), big.tailSize(), late.tailSize(), s.TailBytes())
	}
	if sum := small.tailSize() + big.tailSize() + late.tailSize(); sum != s.TailBytes() {
		t.Errorf("tails are %d, counted %d", sum, s.TailBytes())
	}
}

// TestManySmallTails flushes tails that are all small, each file synced in time.
func TestManySmallTails(t *testing.T) {
	s := open(t, disk(), Options{TailBytes: 100 << 10})
	var logs []*Log
	for i := range 300 {
		l := s.New(LogID{uint64(i + 1), 0}, 0)
		fill(l, 3, 1, 200, 1)
		logs = append(logs, l)
	}
	drain(t, s)
	if s.TailBytes() > 50<<10 || len(s.dirty) > s.dirtyMax() {
		t.Errorf("tails %d bytes, %d files dirty", s.TailBytes(), len(s.dirty))
	}
	for _, l := range logs {
		got, _ := readAll(t, l, 0, 1000)
		if len(got) != 3 {
			t.Fatalf("log %v has %d batches", l.ID(), len(got))
		}
	}
}

// TestManyLogsShareASync: where the volume can be synced as a whole, a
// checkpoint of many logs does that, once.
func TestManyLogsShareASync(t *testing.T) {
	d := disk()
	s := open(t, d, Options{})
	var logs []*Log
	for i := range 300 {
		l := s.New(LogID{uint64(i + 1), 0}, 0)
		fill(l, 3, 1, 200, 1)
		logs = append(logs, l)
	}
	if err := s.Flush(logs, 3, 0); err != nil {
		t.Fatal(err)
	}
	for _, l := range logs {
		checkpoint(t, l, 3, 0)
	}
	if st := s.Stats(); st.Syncs != 1 || st.WholeSyncs != 1 {
		t.Errorf("%d syncs, %d of the volume", st.Syncs, st.WholeSyncs)
	}
	l := s.New(LogID{1000, 0}, 0) // a single one does without
	fill(l, 3, 1, 200, 4)
	if err := s.Flush([]*Log{l}, 6, 0); err != nil {
		t.Fatal(err)
	}
	checkpoint(t, l, 6, 0)
	if st := s.Stats(); st.WholeSyncs != 1 || st.Syncs < 2 {
		t.Errorf("%d syncs, %d of the volume", st.Syncs, st.WholeSyncs)
	}
}

// opens counts files that were opened.
type opens struct {
	*vfs.Mem
	n int
}

func (o *opens) Open(name string) (vfs.File, error) {
	o.n++
	return o.Mem.Open(name)
}

func (o *opens) OpenReadWrite(name string) (vfs.File, error) {
	o.n++
	return o.Mem.OpenReadWrite(name)
}

// TestReadFilesStayOpen beside any number of files that wait for a sync.
func TestReadFilesStayOpen(t *testing.T) {
	d := &opens{Mem: disk()}
	s := open(t, d, Options{OpenFiles: 2})
	l := s.New(testID, 0)
	want := fill(l, 3, 1, 100, 1)
	checkpoint(t, l, 3, 0)
	var logs []*Log
	for i := range uint64(10) {
		busy := s.New(LogID{i + 1, 0}, 0)
		fill(busy, 3, 1, 100, 1)
		logs = append(logs, busy)
	}
	must(t, s.Flush(logs, 3, 0))
	if len(s.dirty) != len(logs) {
		t.Fatalf("%d files wait for a sync", len(s.dirty))
	}
	for range 3 {
		got, _ := readAll(t, l, 0, 100)
		wantBatches(t, got, want)
	}
	if d.n > 0 {
		t.Errorf("files were opened %d times", d.n)
	}
	for _, busy := range logs {
		checkpoint(t, busy, 3, 0)
	}
	if n := s.files.open(); n > 2 || s.files.waiting != 0 {
		t.Errorf("%d files are open, %d wait", n, s.files.waiting)
	}
	must(t, s.Close())
	if n := s.files.open(); n > 0 {
		t.Errorf("%d files stay open", n)
	}
}

// volumes is a disk that tells which volumes were opened, and may refuse.
type volumes struct {
	*vfs.Mem
	opened []string
	refuse error
}

func (v *volumes) OpenVolume(dir string) (vfs.Volume, error) {
	v.opened = append(v.opened, dir)
	if v.refuse != nil {
		return nil, v.refuse
	}
	return v.Mem.OpenVolume(dir)
}

// TestVolumeIsTheLogsOwn: the folder of the logs may be mounted apart from the
// one it is in, and a sync of that other volume would keep nothing.
func TestVolumeIsTheLogsOwn(t *testing.T) {
	d := &volumes{Mem: disk()}
	s := open(t, d, Options{})
	l := s.New(testID, 0)
	fill(l, 3, 1, 100, 1)
	must(t, s.Flush([]*Log{l}, 3, 0))
	if len(d.opened) != 1 || d.opened[0] != "/data/topics" {
		t.Errorf("opened %q", d.opened)
	}
}

// TestVolumeThatDoesNotOpen: what was written by then is still known to be
// without a sync.
func TestVolumeThatDoesNotOpen(t *testing.T) {
	for seed := range uint64(20) { // a crash may keep what was not synced
		d := &volumes{Mem: disk(), refuse: syscall.EMFILE}
		s := open(t, d, Options{})
		l := s.New(testID, 0)
		want := fill(l, 3, 1, 100, 1)
		if err := s.Flush([]*Log{l}, 3, 0); !errors.Is(err, syscall.EMFILE) {
			t.Fatalf("flush: %v", err)
		}
		d.refuse = nil
		state, err := l.Checkpoint(3, 0)
		must(t, err)
		d.Crash(rand.New(rand.NewPCG(seed, 1)))
		l, err = open(t, d, Options{}).Restore(testID, state)
		must(t, err)
		got, lost := readAll(t, l, 0, 100)
		if len(lost) > 0 {
			t.Fatalf("seed %d: lost %v", seed, lost)
		}
		wantBatches(t, got, want)
	}
}

// TestVolumeThatCannotSync: logs are synced one by one, and the volume is asked
// once.
func TestVolumeThatCannotSync(t *testing.T) {
	d := &volumes{Mem: disk(), refuse: errors.ErrUnsupported}
	s := open(t, d, Options{WholeSyncFrom: 1})
	var logs []*Log
	for i := range uint64(3) {
		l := s.New(LogID{i + 1, 0}, 0)
		fill(l, 3, 1, 100, 1)
		logs = append(logs, l)
	}
	must(t, s.Flush(logs, 3, 0))
	for _, l := range logs {
		checkpoint(t, l, 3, 0)
	}
	if st := s.Stats(); st.WholeSyncs != 0 || st.Syncs < 6 || len(s.dirty) > 0 || len(d.opened) != 1 {
		t.Errorf("%d syncs, %d of the volume, %d files dirty, opened %q", st.Syncs, st.WholeSyncs, len(s.dirty), d.opened)
	}
}

// TestFinishedIsNeverWritten keeps what is finished before the flush out of the
// files, and what is parked in.
func TestFinishedIsNeverWritten(t *testing.T) {
	s := open(t, disk(), Options{})
	l := s.New(testID, 0)
	want := fill(l, 100, 1, 100, 1)
	l.SetPinned(func(first, last int64) bool { return first <= 40 && 40 <= last })
	l.AdvanceStart(90)
	checkpoint(t, l, 100, 0)
	got, _ := readAll(t, l, 0, 1<<20)
	wantBatches(t, got, append(slices.Clone(want[40:41]), want[90:]...))
	if l.Start() != 90 || l.End() != 100 {
		t.Errorf("start %d, end %d", l.Start(), l.End())
	}
	got, _ = readAll(t, l, 41, 1<<20)
	wantBatches(t, got, want[90:])
}

// TestOpenFiles reads more segments than may be open.
func TestOpenFiles(t *testing.T) {
	s := open(t, disk(), Options{SegmentSize: 2 << 10, OpenFiles: 4})
	l := s.New(testID, 0)
	want := fill(l, 200, 1, 200, 1)
	checkpoint(t, l, 200, 0)
	if len(l.segs) < 20 {
		t.Fatalf("%d segments", len(l.segs))
	}
	got, _ := readAll(t, l, 0, 1<<10)
	wantBatches(t, got, want)
	for i, w := range slices.Backward(want) {
		bs, err := l.Read(int64(i), 1)
		if err != nil || len(bs) != 1 || equal(bs[0], w) != nil {
			t.Fatalf("read %d: %v %v", i, bs, err)
		}
	}
	if n := s.Stats().OpenFiles; n > 4 {
		t.Errorf("%d files open", n)
	}
}

// TestDeadFiles removes a file when two complete checkpoints do not name it.
func TestDeadFiles(t *testing.T) {
	fs := disk()
	s := open(t, fs, Options{SegmentSize: 4 << 10})
	l := s.New(testID, 0)
	fill(l, 50, 1, 300, 1)
	checkpoint(t, l, 50, 0)
	l.Published()
	all := segments(t, fs, l)
	l.AdvanceStart(45)
	checkpoint(t, l, 50, 0)
	l.Published()
	if got := segments(t, fs, l); !slices.Equal(got, all) {
		t.Errorf("files %v after one checkpoint, want all of %v", got, all)
	}
	checkpoint(t, l, 50, 0) // never complete
	checkpoint(t, l, 50, 0)
	l.Published()
	if got := segments(t, fs, l); len(got) != len(l.segs) || len(got) == len(all) {
		t.Errorf("files %v after two checkpoints", got)
	}
}

// TestDrop gives a log up; its folder goes two checkpoints later.
func TestDrop(t *testing.T) {
	fs := disk()
	s := open(t, fs, Options{SegmentSize: 4 << 10})
	l := s.New(testID, 0)
	fill(l, 50, 1, 300, 1)
	checkpoint(t, l, 40, 0)
	l.Drop()
	l.Append(batchAt(50, 1, 10, 60))
	if bs, err := l.Read(0, 1<<20); len(bs) > 0 || err != nil {
		t.Errorf("read %d batches of a dropped log, %v", len(bs), err)
	}
	for i, want := range []bool{false, false, true} {
		if done := l.Published(); done != want {
			t.Errorf("checkpoint %d: done %v", i, done)
		}
	}
	names, err := fs.ReadDir("/data/topics")
	if err != nil || len(names) > 0 || s.TailBytes() != 0 || len(s.logs) != 0 {
		t.Errorf("left: %v %v, tails %d", names, err, s.TailBytes())
	}
}

// TestSweep removes what nobody knows and nothing else.
func TestSweep(t *testing.T) {
	fs := disk()
	s := open(t, fs, Options{})
	for i := range 3 {
		l := s.New(LogID{uint64(i/2 + 1), int32(i % 2)}, 0)
		fill(l, 3, 1, 100, 1)
		checkpoint(t, l, 10, 0)
	}
	must(t, s.Close())
	s = open(t, fs, Options{})
	must(t, s.Sweep(func(id LogID) bool { return id == LogID{1, 1} }))
	topics, _ := fs.ReadDir("/data/topics")
	parts, _ := fs.ReadDir("/data/topics/1")
	if !slices.Equal(topics, []string{"1"}) || !slices.Equal(parts, []string{"1"}) {
		t.Errorf("left: topics %v, partitions %v", topics, parts)
	}
}

// TestSweepOfEmptyLog removes what an older checkpoint than the restored one has
// named of a log that is empty since and does not change any more.
func TestSweepOfEmptyLog(t *testing.T) {
	fs := disk()
	s := open(t, fs, Options{})
	l := s.New(testID, 0)
	fill(l, 3, 1, 100, 1)
	checkpoint(t, l, 10, 0)
	l.AdvanceStart(l.End())
	state := checkpoint(t, l, 11, 0)
	must(t, s.Close())
	s = open(t, fs, Options{})
	l, err := s.Restore(testID, state)
	must(t, err)
	must(t, s.Sweep(func(LogID) bool { return true }))
	if names, err := fs.ReadDir(path.Join("/data/topics", testID.String())); err != nil || len(names) > 0 {
		t.Errorf("left: %q %v", names, err)
	}
	if got := l.End(); got != 3 {
		t.Errorf("the log ends at %d, want 3", got)
	}
}

// TestCompact leaves one forgotten message of many segments in one small file.
func TestCompact(t *testing.T) {
	fs := disk()
	s := open(t, fs, Options{SegmentSize: 16 << 10})
	l := s.New(testID, 0)
	want := fill(l, 600, 1, 300, 1)
	state := checkpoint(t, l, 600, 0)
	l.Published()
	keep := func(first, last int64) bool {
		for _, o := range []int64{70, 300, 310, 595, 599} {
			if first <= o && o <= last {
				return true
			}
		}
		return false
	}
	now := time.Unix(0, want[599].TimeNs)
	if did, err := l.Compact(now, keep); did || err != nil {
		t.Fatalf("compacted young segments: %v", err)
	}
	now = now.Add(compactAge + compactPause)
	for did := true; did; {
		var err error
		did, err = l.Compact(now, keep)
		must(t, err)
	}
	got, _ := readAll(t, l, 0, 1000)
	for i, o := range []int64{70, 300, 310} {
		if got[i].Base != o {
			t.Errorf("batch %d is %d, want %d", i, got[i].Base, o)
		}
	}
	wantBatches(t, got[len(got)-1:], want[599:])
	if len(l.segs) > 3 || s.Stats().KeptBytes*10 > s.Stats().CompactedBytes {
		t.Errorf("%d segments, %+v", len(l.segs), s.Stats())
	}
	older, err := open(t, fs, Options{}).Restore(testID, state)
	must(t, err)
	got, _ = readAll(t, older, 0, 1<<20)
	wantBatches(t, got, want)
	now = now.Add(time.Hour)
	if did, err := l.Compact(now, keep); did || err != nil {
		t.Errorf("compacted the result again: %v", err)
	}
}

// TestReplay ignores what the log has, and refuses what cannot be.
func TestReplay(t *testing.T) {
	s := open(t, disk(), Options{})
	l := s.New(testID, 0)
	b := batchAt(0, 4, 10, 7)
	l.Append(b)
	l.Append(b)
	if bs, _ := l.Read(0, 1<<20); len(bs) != 1 {
		t.Errorf("%d batches after a replay", len(bs))
	}
	defer func() {
		if recover() == nil {
			t.Error("an overlap was taken")
		}
	}()
	l.Append(batchAt(2, 4, 10, 8))
}

// TestSyncError is final: the kernel may have dropped the bytes.
func TestSyncError(t *testing.T) {
	fs := disk()
	s := open(t, fs, Options{})
	l := s.New(testID, 0)
	fill(l, 3, 1, 100, 1)
	broken := errors.New("broken")
	for n := int64(1); ; n++ { // every operation in turn, until a sync is hit
		fs.FailAfter(n, broken)
		if _, err := l.Checkpoint(3, 0); !errors.Is(err, broken) {
			t.Fatal("the checkpoint did not fail:", err)
		}
		fs.FailAfter(0, nil)
		if s.failed != nil {
			break
		}
	}
	if _, err := l.Checkpoint(3, 0); !errors.Is(err, broken) {
		t.Errorf("a checkpoint after a failed sync: %v", err)
	}
	if _, err := s.FlushOldest(); !errors.Is(err, broken) {
		t.Errorf("a flush after a failed sync: %v", err)
	}
}

// TestSyncErrorOfAFullDisk is as final as any other, of a file, a folder and
// the volume: whoever waits for room and tries again must not take it for a
// write that found none.
func TestSyncErrorOfAFullDisk(t *testing.T) {
	for name, o := range map[string]Options{"one by one": {}, "volume": {WholeSyncFrom: 1}} {
		t.Run(name, func(t *testing.T) {
			hit := 0
			for n := int64(1); ; n++ { // every operation in turn
				fs := disk()
				s := open(t, fs, o)
				l := s.New(testID, 0)
				fill(l, 3, 1, 100, 1)
				fs.FailAfter(n, syscall.ENOSPC)
				err := s.Flush([]*Log{l}, 3, 0)
				if err == nil {
					_, err = l.Checkpoint(3, 0)
				}
				fs.FailAfter(0, nil)
				if err == nil {
					break
				}
				if s.failed == nil {
					continue
				}
				hit++
				_, again := s.FlushOldest()
				if again == nil || errors.Is(err, syscall.ENOSPC) || errors.Is(again, syscall.ENOSPC) {
					t.Errorf("operation %d: %v, then %v", n, err, again)
				}
			}
			if hit == 0 {
				t.Error("no sync was hit")
			}
		})
	}
}

// TestSyncSize bounds what is written between two syncs.
func TestSyncSize(t *testing.T) {
	s := open(t, disk(), Options{})
	l := s.New(testID, 0)
	data := body(1, 1<<20, 1)
	for i := range int64(20) {
		l.Append(Batch{Base: i, Count: 1, Index: uint64(i + 1), Data: data})
	}
	drain(t, s)
	if n := s.Stats().Syncs; n != 2 || l.segs[0].unsynced >= syncBytesMax {
		t.Errorf("%d syncs, %d bytes un-synced", n, l.segs[0].unsynced)
	}
}

// TestState refuses what is not a state.
func TestState(t *testing.T) {
	s := open(t, disk(), Options{SegmentSize: 2 << 10})
	l := s.New(testID, 0)
	fill(l, 20, 1, 300, 1)
	checkpoint(t, l, 20, 0)
	fill(l, 2, 1, 300, 21)
	state := checkpoint(t, l, 22, 4096)
	for n := range state {
		if _, err := s.Restore(testID, state[:n]); !errors.Is(err, errNoState) {
			t.Fatalf("took the first %d of %d bytes: %v", n, len(state), err)
		}
	}
	if _, err := s.Restore(testID, append(state, 0)); !errors.Is(err, errNoState) {
		t.Errorf("took a byte too many: %v", err)
	}
	if _, err := l.Checkpoint(21, 0); err == nil {
		t.Error("a checkpoint went back")
	}
}

func FuzzRestore(f *testing.F) {
	s, _ := Open(disk(), "/data/topics", Options{})
	l := s.New(testID, 0)
	fill(l, 3, 1, 10, 1)
	f.Add(l.appendState(nil, 2, 4096, []savedSegment{{first: 0, last: 5, size: 100, sealed: true}}))
	f.Fuzz(func(t *testing.T, state []byte) {
		s, _ := Open(disk(), "/data/topics", Options{})
		if l, err := s.Restore(testID, state); err == nil && l.End() >= 0 {
			_, _ = l.Checkpoint(1<<63, 1<<20)
		}
	})
}

func FuzzFrame(f *testing.F) {
	b := batchAt(7, 2, 20, 3)
	f.Add(appendFrame(nil, 1, &b), []byte{})
	f.Fuzz(func(t *testing.T, data, more []byte) {
		fs := disk()
		file, err := fs.Create("/data/x")
		must(t, err)
		_, _ = file.WriteAt(data, headerSize)
		w := walk(file, 1, anyOffset(headerSize+int64(len(data))), mark{}, false)
		defer w.free()
		for pos := int64(headerSize); ; {
			it, ok, err := w.next()
			if err != nil || !ok {
				break
			}
			if it.pos != pos || it.end <= pos || it.end > headerSize+int64(len(data)) {
				t.Fatalf("item at %d–%d after %d", it.pos, it.end, pos)
			}
			pos = it.end
		}
		_, _ = parseHeader(more)
		_, _ = parseFooter(more, 1, 40)
	})
}

// TestConcurrentReaders reads beside appends, flushes, checkpoints, compaction
// and the removal of files.
func TestConcurrentReaders(t *testing.T) {
	disk := disk()
	s := open(t, disk, Options{SegmentSize: 16 << 10, TailBytes: 16 << 10, OpenFiles: 3})
	l := s.New(testID, 0)
	const total = 3000
	var kept sync.Map // pinned offsets
	l.SetPinned(func(first, last int64) bool {
		for o := first; o <= last; o++ {
			if _, ok := kept.Load(o); ok {
				return true
			}
		}
		return false
	})
	var applied atomic.Uint64
	var wg sync.WaitGroup
	var stop atomic.Bool
	wg.Go(func() { // the shard loop
		for i := range int64(total) {
			if i%50 == 0 {
				kept.Store(i, true)
			}
			l.Append(batchAt(i, 1, 200, uint64(i+1)))
			applied.Store(uint64(i + 1))
			if i%20 == 0 && i > 1000 {
				l.AdvanceStart(i - 1000)
			}
		}
		stop.Store(true)
	})
	wg.Go(func() { // the flusher
		for round := 0; !stop.Load(); round++ {
			if _, err := s.FlushOldest(); err != nil {
				t.Error(err)
			}
			if round%3 == 0 {
				if _, err := l.Checkpoint(applied.Load(), 1000); err != nil {
					t.Error(err)
				}
				l.Published()
			}
			now := time.Unix(0, int64(applied.Load())*1000).Add(time.Hour + time.Duration(round)*compactRetry)
			start := l.Start()
			if _, err := l.Compact(now, func(first, last int64) bool { return last >= start || l.needed(first, last) }); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range 3 {
		wg.Go(func() { readBeside(t, l, &stop, int64(i)) })
	}
	wg.Wait()
	for o := int64(0); o < total; o += 50 {
		bs, err := l.Read(o, 1)
		if err != nil || len(bs) != 1 || bs[0].Base != o {
			t.Fatalf("pinned %d: %v %v", o, bs, err)
		}
	}
}

// readBeside goes through the log again and again.
func readBeside(t *testing.T, l *Log, stop *atomic.Bool, seed int64) {
	rng := rand.New(rand.NewPCG(uint64(seed), 0))
	for !stop.Load() {
		from := l.Start() + rng.Int64N(max(1, l.End()-l.Start()))
		for range 20 {
			start := l.Start()
			bs, err := l.Read(from, 1+rng.IntN(20_000))
			if err != nil {
				t.Error(err)
				return
			}
			if len(bs) == 0 {
				break
			}
			if from >= start && from >= l.Start() && bs[0].Base != from {
				t.Errorf("read at %d gave %d", from, bs[0].Base)
			}
			for _, b := range bs {
				if err := equal(b, batchAt(b.Base, 1, 200, uint64(b.Base+1))); err != nil {
					t.Error(err)
				}
			}
			from = bs[len(bs)-1].Last() + 1
		}
	}
}

// TestOS runs a log on the real file system.
func TestOS(t *testing.T) {
	dir := t.TempDir() + "/topics"
	s, err := Open(vfs.OS{}, dir, Options{SegmentSize: 32 << 10})
	must(t, err)
	l := s.New(testID, 0)
	want := fill(l, 300, 2, 300, 1)
	state := checkpoint(t, l, 250, 0)
	fill(l, 10, 1, 10, 301)
	checkpoint(t, l, 310, 0)
	must(t, s.Close())
	s, err = Open(vfs.OS{}, dir, Options{SegmentSize: 32 << 10})
	must(t, err)
	l, err = s.Restore(testID, state)
	must(t, err)
	for _, b := range want[250:] {
		l.Append(b)
	}
	checkpoint(t, l, 300, 0)
	l.Published()
	got, _ := readAll(t, l, 0, 4000)
	wantBatches(t, got, want)
	must(t, s.Close())
	report, err := Verify(vfs.OS{}, dir)
	if err != nil || report.Batches != 300 || len(report.Damaged)+report.Unfinished > 0 || report.Sealed == 0 {
		t.Errorf("verify: %v %+v", err, report)
	}
	if _, err := (vfs.OS{}).Stat(dir + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func ExampleCorruptError() {
	err := &CorruptError{ID: testID, First: 3, Last: 5, File: "topics/77/3/00000000000000000000.seg", Pos: 1234, Reason: "batch checksum"}
	fmt.Println(err)
	// Output: read topics/77/3/00000000000000000000.seg at byte 1234: batch checksum (offsets 3 to 5)
}

// TestFullDiskLeavesNoFile: a segment that could not be begun takes no room.
func TestFullDiskLeavesNoFile(t *testing.T) {
	fs := disk()
	s := open(t, fs, Options{TailBytes: 1})
	l := s.New(testID, 0)
	want := fill(l, 3, 1, 100, 1)
	fs.SetCapacity(10)
	if _, err := s.FlushOldest(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("flush to a full disk: %v", err)
	}
	if names, _ := fs.ReadDir(path.Join("/data/topics", testID.String())); len(names) > 0 {
		t.Errorf("left: %q", names)
	}
	fs.SetCapacity(0)
	for s.OverBudget() {
		_, err := s.FlushOldest()
		must(t, err)
	}
	got, _ := readAll(t, l, 0, 1000)
	wantBatches(t, got, want)
}

// TestFlushToRealFiles writes batches of all sizes, some from where they stand,
// over several segments, and reads them back.
func TestFlushToRealFiles(t *testing.T) {
	dir := t.TempDir() + "/topics"
	s, err := Open(vfs.OS{}, dir, Options{SegmentSize: 1 << 20, TailBytes: 1})
	must(t, err)
	l := s.New(testID, 0)
	rng := rand.New(rand.NewPCG(1, 2))
	var want []Batch
	for i := range uint64(200) {
		size := 1 << rng.IntN(17)
		want = append(want, fill(l, 1, 1+rng.IntN(3), size+rng.IntN(size), i+1)...)
		if rng.IntN(20) == 0 {
			drain(t, s)
		}
	}
	state, err := l.Checkpoint(1<<40, 0)
	must(t, err)
	got, lost := readAll(t, l, 0, 100_000)
	if len(lost) > 0 || s.Stats().Sealed < 3 {
		t.Fatalf("lost %v, sealed %d", lost, s.Stats().Sealed)
	}
	wantBatches(t, got, want)
	must(t, s.Close())
	report, err := Verify(vfs.OS{}, dir)
	if err != nil || len(report.Damaged) > 0 || report.Batches != int64(len(want)) {
		t.Fatalf("verify: %+v, %v", report, err)
	}
	s, err = Open(vfs.OS{}, dir, Options{})
	must(t, err)
	defer s.Close()
	l, err = s.Restore(testID, state)
	must(t, err)
	got, _ = readAll(t, l, 0, 100_000)
	wantBatches(t, got, want)
}
