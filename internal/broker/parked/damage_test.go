package parked

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/vfs"
)

// spilled is a set of n entries, due at their offsets, all in one run.
func spilled(t testing.TB, fs vfs.FS, n int64) *Set {
	t.Helper()
	s := New(fs, testDir, testPrefix)
	for i := range n {
		s.Add(Entry{Offset: i, DueNs: i, Attempts: 1})
	}
	spillAll(t, s, 0)
	return s
}

func TestDamagedRunIsNotDelivered(t *testing.T) {
	const n = 5000
	mem := vfs.NewMem()
	s := spilled(t, mem, n)
	name := byName(t, mem)[0]
	state := s.Snapshot().Append(nil)
	size, err := mem.DurableSize(name)
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < size; at += 997 {
		if err := mem.Flip(name, at, 3); err != nil {
			t.Fatal(err)
		}
		s, _, err := Restore(mem, testDir, testPrefix, state)
		if at < headerSize {
			if code := fault.CodeOf(err); code != fault.Corrupt {
				t.Errorf("flip at %d: restore: %v", at, err)
			}
		} else {
			checkDamaged(t, s, at, n)
		}
		if err := mem.Flip(name, at, 3); err != nil {
			t.Fatal(err)
		}
	}
}

// checkDamaged reads until the damage, and sees that all before it is right.
func checkDamaged(t *testing.T, s *Set, at, n int64) {
	t.Helper()
	got := s.TakeDue(math.MaxInt64, int(n), nil)
	if int64(len(got)) == n || !errors.Is(s.Err(), fault.Corrupt) {
		t.Errorf("flip at %d: %d entries, Err = %v", at, len(got), s.Err())
	}
	for i, e := range got {
		if want := (Entry{int64(i), int64(i), 1}); e != want {
			t.Fatalf("flip at %d: entry %d = %v", at, i, e)
		}
	}
	if more := s.TakeDue(math.MaxInt64, 1, nil); len(more) > 0 || s.NextDue() != math.MaxInt64 {
		t.Errorf("flip at %d: goes on behind the damage: %v", at, more)
	}
	if err := s.Each(func(Entry) error { return nil }); !errors.Is(err, fault.Corrupt) {
		t.Errorf("flip at %d: Each: %v", at, err)
	}
}

func TestRestoreRefusesWrongRun(t *testing.T) {
	mem := vfs.NewMem()
	state := spilled(t, mem, 5000).Snapshot().Append(nil)
	name := byName(t, mem)[0]
	whole, err := vfs.ReadFile(mem, name)
	if err != nil {
		t.Fatal(err)
	}
	newer := appendHeader(nil)
	newer[11] = 9
	newer = binary.BigEndian.AppendUint32(newer[:12], crc32.Checksum(newer[:12], castagnoli))
	tests := []struct {
		name string
		data []byte
		want fault.Code
	}{
		{"cut", whole[:len(whole)-1], fault.Corrupt},
		{"longer", append(slices.Clone(whole), 0), fault.Corrupt},
		{"empty", nil, fault.Corrupt},
		{"other file", make([]byte, len(whole)), fault.Corrupt},
		{"newer format", append(newer, whole[headerSize:]...), fault.Unsupported},
	}
	for _, tt := range tests {
		if err := vfs.WriteFileAtomic(mem, name, tt.data); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Restore(mem, testDir, testPrefix, state); fault.CodeOf(err) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if err := mem.Remove(name); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Restore(mem, testDir, testPrefix, state); fault.CodeOf(err) != fault.Storage {
		t.Errorf("missing: %v", err)
	}
	if _, _, err := Restore(mem, testDir, testPrefix, []byte{9}); fault.CodeOf(err) != fault.Unsupported {
		t.Errorf("newer state: %v", err)
	}
}

// TestFailedSpillLosesNothing: any step of a spill may fail.
func TestFailedSpillLosesNothing(t *testing.T) {
	ops := map[string]vfs.Op{
		"mkdir": vfs.OpMkdir, "create": vfs.OpCreate, "write": vfs.OpWrite,
		"sync": vfs.OpSync, "rename": vfs.OpRename, "sync dir": vfs.OpSyncDir,
	}
	for name, op := range ops {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewMem()
			disk := vfs.NewFault(mem)
			s := New(disk, testDir, testPrefix)
			for i := range int64(100) {
				s.Add(Entry{Offset: i, DueNs: i})
			}
			trouble := disk.Fail(op, "", syscall.ENOSPC)
			sp := s.PrepareSpill(10)
			full := op&(vfs.OpSync|vfs.OpSyncDir) == 0 // a failed sync is never tried again
			if err := sp.Write(); !errors.Is(err, fault.Storage) || errors.Is(err, syscall.ENOSPC) != full {
				t.Fatalf("Write: %v", err)
			}
			s.Commit(sp)
			trouble.Disarm()
			if names, err := mem.ReadDir(testDir); err == nil && len(names) > 0 {
				t.Errorf("left: %v", names)
			}
			if s.MemLen() != 100 {
				t.Errorf("in memory: %d", s.MemLen())
			}
			spillAll(t, s, 10)
			if got := drain(t, s, 200); len(got) != 100 || s.Len() != 0 {
				t.Errorf("%d delivered, %d left", len(got), s.Len())
			}
		})
	}
}

// TestTroubleWhileReading: an I/O error is no damage, and it sticks too.
func TestTroubleWhileReading(t *testing.T) {
	disk := vfs.NewFault(vfs.NewMem())
	s := spilled(t, disk, 10)
	disk.Fail(vfs.OpRead, "", syscall.EIO)
	if got := s.TakeDue(math.MaxInt64, 10, nil); len(got) > 0 || fault.CodeOf(s.Err()) != fault.Storage || !errors.Is(s.Err(), syscall.EIO) {
		t.Errorf("%v, Err = %v", got, s.Err())
	}
}

func TestEachStopsWhereAsked(t *testing.T) {
	s := spilled(t, vfs.NewMem(), 10)
	stop := errors.New("enough")
	n := 0
	if err := s.Each(func(Entry) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
}

// TestSweepLeavesOthersAlone: only runs, and only unknown ones.
func TestSweepLeavesOthersAlone(t *testing.T) {
	mem := vfs.NewMem()
	if err := Sweep(mem, testDir); err != nil {
		t.Errorf("no folder: %v", err)
	}
	known := spilled(t, mem, 10)
	unknown := New(mem, testDir, "8-0-1")
	unknown.Add(Entry{})
	spillAll(t, unknown, 0)
	for _, name := range []string{"notes.txt", "7-0-3-0000000000000009.parked.tmp"} {
		if err := vfs.WriteFileAtomic(mem, testDir+"/"+name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(mem, testDir, known); err != nil {
		t.Fatal(err)
	}
	want := []string{testDir + "/" + known.Files()[0], testDir + "/notes.txt"}
	if got := byName(t, mem); !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
}

// TestMemoryOfSpilled holds the bound that the design promises: some bits for
// an entry that is in a run.
func TestMemoryOfSpilled(t *testing.T) {
	const n, stride = 1 << 20, 10 // one message of ten is parked
	s := New(vfs.OS{}, t.TempDir()+"/parked", testPrefix)
	before := heapSize()
	for i := range int64(n) {
		s.Add(Entry{Offset: i * stride, DueNs: i * 7919 % n})
		if s.MemLen() >= 1<<17 {
			spillAll(t, s, 1<<10)
		}
	}
	spillAll(t, s, 0)
	got := s.TakeDue(100, 1000, nil) // some of it is read
	grown := heapSize() - before
	t.Logf("%d entries in %d runs: %d KiB", s.Len(), len(s.runs), grown>>10)
	if s.Len() != n || len(got) != 101 || grown > 4<<20 {
		t.Errorf("%d entries, %d taken, %d bytes of memory", s.Len(), len(got), grown)
	}
	runtime.KeepAlive(s)
}

func heapSize() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// FuzzRestore: hostile bytes are refused or make a sound set whose encoding is
// stable.
func FuzzRestore(f *testing.F) {
	s := New(vfs.NewMem(), testDir, testPrefix)
	for i := range int64(20) {
		s.Add(Entry{Offset: i * 300, DueNs: -i, Attempts: uint16(i)})
	}
	f.Add(s.Snapshot().Append(nil))
	spillAll(f, s, 5)
	s.Remove(3000)
	s.Remove(600)
	f.Add(s.Snapshot().Append(nil))
	mem := vfs.NewMem()
	f.Fuzz(func(t *testing.T, b []byte) {
		s, rest, err := Restore(mem, testDir, testPrefix, b)
		if err != nil {
			return
		}
		state := s.Snapshot().Append(nil)
		again, left, err := Restore(mem, testDir, testPrefix, state)
		if err != nil || len(left) > 0 || len(rest) >= len(b) {
			t.Fatalf("restore again: %v, %d left", err, len(left))
		}
		if again.Len() != s.Len() || again.NextDue() != s.NextDue() {
			t.Fatal("restored again, the set differs")
		}
	})
}

// FuzzChunk: hostile bytes never get past the checksum into a panic, and what
// was written comes back.
func FuzzChunk(f *testing.F) {
	seed, _ := appendChunk(nil, 1, 16, []Entry{{5, 7, 1}, {3, 9, 0}}, chunkSizeMax)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		openChunk(b, 1, 16)
		c := chunk{rest: b}
		var entries []Entry
		for e, ok := c.next(); ok; e, ok = c.next() {
			entries = append(entries, e)
		}
		slices.SortFunc(entries, Entry.compare)
		for pos := int64(0); len(entries) > 0; {
			encoded, n := appendChunk(nil, 2, pos, entries, chunkSizeMax)
			payload, err := openChunk(append(bytes.Clone(encoded), "behind"...), 2, pos)
			if err != nil {
				t.Fatal(err)
			}
			c := chunk{rest: payload}
			for _, want := range entries[:n] {
				if got, ok := c.next(); !ok || got != want {
					t.Fatalf("%v, want %v", got, want)
				}
			}
			entries, pos = entries[n:], pos+int64(len(encoded))
		}
	})
}

func BenchmarkAddRemove(b *testing.B) {
	s := New(vfs.NewMem(), testDir, testPrefix)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		s.Add(Entry{Offset: i, DueNs: i})
		if i >= 10_000 {
			s.Remove(i - 10_000)
		}
	}
}

func BenchmarkSpill(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		s := New(vfs.NewMem(), testDir, testPrefix)
		for i := range int64(1 << 16) {
			s.Add(Entry{Offset: i, DueNs: i * 7919 % (1 << 16)})
		}
		b.StartTimer()
		sp := s.PrepareSpill(1 << 15)
		b.StopTimer()
		if err := sp.Write(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		s.Commit(sp)
	}
}

// TestRunsOutliveTwoCheckpoints: recovery may go back to the older of the last
// two checkpoints, so a run stays until both do without it.
func TestRunsOutliveTwoCheckpoints(t *testing.T) {
	s := spilled(t, vfs.NewMem(), 10)
	name := s.path(0)
	publish := func(want ...string) []byte {
		t.Helper()
		sn := s.Snapshot()
		state := sn.Append(nil)
		if got := sn.Published(); !slices.Equal(got, want) {
			t.Errorf("free: %v, want %v", got, want)
		}
		return state
	}
	publish() // names the run
	abandoned := s.Snapshot()
	s.Clear()
	abandoned.Append(nil) // its checkpoint never completes
	if got := s.Files(); len(got) != 1 {
		t.Errorf("files of the cleared set: %v", got)
	}
	one := publish() // the first without
	s, _, err := Restore(s.fs, testDir, testPrefix, one)
	if err != nil {
		t.Fatal(err)
	}
	s.Snapshot()  // never completes either
	publish(name) // the second without
	publish()
	if got := s.Files(); len(got) != 0 {
		t.Errorf("files: %v", got)
	}
}
