package vfs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

func TestMemLosesWhatWasNotSynced(t *testing.T) {
	m := vfs.NewMem()
	f := must1(m.Create("/f"))(t)
	write(t, f, "durable", 0)
	must(t, f.Sync())
	must(t, m.SyncDir("/"))
	write(t, f, "DUR", 0)
	write(t, f, "able and more", 3)
	must(t, f.Truncate(9))
	put(t, m, "/nameless", "synced, but its name is not")
	must(t, m.Rename("/f", "/g"))

	loss := m.Crash(nil)

	wantNames(t, m, "/", "f")
	wantContent(t, m, "/f", "durable")
	want := vfs.Loss{Files: 1, Changes: 3, Pieces: 2, Names: 2}
	if loss != want {
		t.Errorf("loss = %+v, want %+v", loss, want)
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, vfs.ErrCrashed) {
		t.Errorf("a handle from before the crash answers %v", err)
	}
	wantErr(t, f.Close(), vfs.ErrCrashed)
}

func TestMemRenameNeedsSyncedBytes(t *testing.T) {
	m := vfs.NewMem()
	put(t, m, "/name", "old")
	must(t, m.SyncDir("/"))
	f := must1(m.Create("/tmp"))(t)
	write(t, f, "new", 0)
	must(t, m.Rename("/tmp", "/name"))
	must(t, m.SyncDir("/"))
	m.Crash(nil)
	wantContent(t, m, "/name", "") // the name moved, the bytes were never synced
	wantNames(t, m, "/", "name")
}

func TestMemFoldersNeedTheirOwnSync(t *testing.T) {
	m := vfs.NewMem()
	must(t, m.MkdirAll("/a/b"))
	put(t, m, "/a/b/f", "x")
	must(t, m.SyncDir("/a/b"))
	must(t, m.SyncDir("/"))
	m.Crash(nil)
	wantNames(t, m, "/a") // b was made, but /a was not synced

	must(t, vfs.MkdirSynced(m, "/a/b/c"))
	m.Crash(nil)
	wantNames(t, m, "/a/b", "c")
}

func TestMemRenameAcrossFoldersIsAtomic(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(200) {
		m := vfs.NewMem()
		must(t, m.MkdirAll("/a"))
		must(t, m.MkdirAll("/b"))
		put(t, m, "/a/f", "x")
		for _, dir := range []string{"/", "/a", "/b"} {
			must(t, m.SyncDir(dir))
		}
		put(t, m, "/a/first", "")
		put(t, m, "/b/first", "")
		must(t, m.Rename("/a/f", "/b/f"))
		if seed%4 == 0 {
			must(t, m.SyncDir("/a"))
		}
		m.Crash(rand.New(rand.NewPCG(seed, 0)))
		inA := slices.Contains(must1(m.ReadDir("/a"))(t), "f")
		inB := slices.Contains(must1(m.ReadDir("/b"))(t), "f")
		if inA == inB {
			t.Fatalf("seed %d: in the old folder %v, in the new %v", seed, inA, inB)
		}
		if seed%4 == 0 && inA {
			t.Fatalf("seed %d: a synced rename was lost", seed)
		}
		seen[fmt.Sprint(inA)]++
	}
	if len(seen) != 2 {
		t.Errorf("saw only %v", seen)
	}
}

func TestMemTearsAtSectors(t *testing.T) {
	torn := 0
	for seed := range uint64(100) {
		m := vfs.NewMem()
		put(t, m, "/f", strings.Repeat("a", 4096))
		must(t, m.SyncDir("/"))
		f := must1(m.OpenReadWrite("/f"))(t)
		write(t, f, strings.Repeat("b", 4096), 0)
		torn += m.Crash(rand.New(rand.NewPCG(seed, 0))).Torn
		got := must1(vfs.ReadFile(m, "/f"))(t)
		for i := 0; i < len(got); i += 512 {
			if s := got[i : i+512]; bytes.Count(s, []byte("a"))%512 != 0 {
				t.Fatalf("seed %d: sector at %d is mixed", seed, i)
			}
		}
	}
	if torn < 20 {
		t.Errorf("only %d of 100 writes were torn", torn)
	}
}

func TestMemIsDeterministic(t *testing.T) {
	run := func() (string, vfs.Loss) {
		m := vfs.NewMem()
		rng := rand.New(rand.NewPCG(7, 7))
		var total vfs.Loss
		for i := range 300 {
			name := fmt.Sprintf("/f%d", rng.IntN(5))
			f, err := m.OpenReadWrite(name)
			if err != nil {
				f = must1(m.Create(name))(t)
			}
			write(t, f, strings.Repeat(string(rune('a'+i%26)), 1+rng.IntN(3000)), int64(rng.IntN(2000)))
			switch rng.IntN(10) {
			case 0:
				must(t, f.Sync())
			case 1:
				must(t, m.SyncDir("/"))
			case 2:
				must(t, m.Rename(name, "/renamed"))
			case 3:
				total = m.Crash(rng)
			}
		}
		return dump(t, m), total
	}
	a, lossA := run()
	b, lossB := run()
	if a != b || lossA != lossB {
		t.Error("two runs of one seed differ")
	}
}

func TestMemFailAfter(t *testing.T) {
	// A sequence with every kind of operation, interrupted before each of them.
	steps := func(m *vfs.Mem) error {
		if err := m.MkdirAll("/d"); err != nil {
			return err
		}
		f, err := m.Create("/d/tmp")
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(bytes.Repeat([]byte("n"), 2000), 0); err != nil {
			return err
		}
		if err := f.Truncate(1500); err != nil {
			return err
		}
		return errors.Join(f.Sync(), m.Rename("/d/tmp", "/d/f"), m.SyncDir("/d"),
			m.SyncDir("/"), m.Remove("/d/f"), m.RemoveAll("/d"))
	}
	m := vfs.NewMem()
	must(t, steps(m))
	total := m.Ops()
	if total != 10 {
		t.Fatalf("the steps are %d operations, want 10", total)
	}
	outcomes := map[string]bool{}
	for n := range total {
		for seed := range uint64(30) {
			m := vfs.NewMem()
			m.FailAfter(n+1, nil)
			wantErr(t, steps(m), vfs.ErrCrashed)
			if !m.Tripped() || m.Ops() != n+1 {
				t.Fatalf("tripped %v after %d operations, want %d", m.Tripped(), m.Ops(), n+1)
			}
			if _, err := m.ReadDir("/"); !errors.Is(err, vfs.ErrCrashed) {
				t.Fatalf("reading a crashed file system: %v", err)
			}
			m.Crash(rand.New(rand.NewPCG(seed, uint64(n))))
			state := dump(t, m)
			outcomes[state] = true
			if n == 8 && !strings.Contains(state, "/d/f 1500") && state != "/d/\n" {
				t.Fatalf("interrupted remove left:\n%s", state)
			}
		}
	}
	if len(outcomes) < 8 {
		t.Errorf("only %d different outcomes", len(outcomes))
	}
	want := errors.New("out of luck")
	m.FailAfter(2, want)
	must(t, m.MkdirAll("/x"))
	wantErr(t, m.MkdirAll("/y"), want)
	m.FailAfter(0, nil)
	must(t, m.MkdirAll("/z"))
}

func TestMemCapacity(t *testing.T) {
	m := vfs.NewMem()
	m.SetCapacity(1000)
	f := must1(m.Create("/f"))(t)
	n, err := f.WriteAt(make([]byte, 1200), 0)
	if n != 1000 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("WriteAt over the capacity = %d, %v", n, err)
	}
	wantErr(t, f.Truncate(1001), syscall.ENOSPC)
	write(t, f, "in place", 500)
	if u := must1(m.Usage("/"))(t); u != (vfs.Usage{Total: 1000}) {
		t.Errorf("Usage = %+v", u)
	}
	must(t, m.Remove("/f"))
	if u := must1(m.Usage("/"))(t); u.Free != 0 {
		t.Errorf("%d bytes free although a handle holds the removed file", u.Free)
	}
	must(t, f.Close())
	if u := must1(m.Usage("/"))(t); u.Free != 1000 {
		t.Errorf("%d bytes free after the last handle closed", u.Free)
	}
	put(t, m, "/g", strings.Repeat("g", 300))
	must(t, m.SyncDir("/"))
	put(t, m, "/h", strings.Repeat("h", 300))
	m.Crash(nil)
	if u := must1(m.Usage("/"))(t); u.Free != 700 {
		t.Errorf("%d bytes free after the crash, want 700", u.Free)
	}
}

func TestMemFlip(t *testing.T) {
	m := vfs.NewMem()
	put(t, m, "/f", strings.Repeat("\x00", 6000))
	must(t, m.SyncDir("/"))
	f := must1(m.OpenReadWrite("/f"))(t)
	write(t, f, "over", 10)
	must(t, f.Truncate(100))
	for _, off := range []int64{5, 11, 200, 5000} { // clean, overwritten, cut, cut with its page
		must(t, m.Flip("/f", off, 3))
	}
	wantErr(t, m.Flip("/f", 6000, 0), fs.ErrInvalid)
	if size := must1(m.DurableSize("/f"))(t); size != 6000 {
		t.Errorf("DurableSize = %d", size)
	}
	if got := readAll(t, f); got[5] != 8 || got[10:14] != "over" {
		t.Errorf("newest bytes are %q", got[:20])
	}
	m.Crash(nil)
	got := must1(vfs.ReadFile(m, "/f"))(t)
	for i, b := range got {
		want := byte(0)
		if i == 5 || i == 11 || i == 200 || i == 5000 {
			want = 8
		}
		if b != want {
			t.Fatalf("byte %d is %d, want %d", i, b, want)
		}
	}
}

func TestMemLockEndsWithCrash(t *testing.T) {
	m := vfs.NewMem()
	old := must1(m.Lock("/lock"))(t)
	must(t, m.SyncDir("/"))
	m.Crash(nil)
	held := must1(m.Lock("/lock"))(t)
	wantErr(t, old.Close(), vfs.ErrCrashed)
	_, err := m.Lock("/lock")
	wantErr(t, err, vfs.ErrLocked)
	must(t, held.Close())
}

func TestMemKillKeepsThePageCache(t *testing.T) {
	m := vfs.NewMem()
	m.SetCapacity(1000)
	f := must1(m.Create("/f"))(t)
	write(t, f, "not synced", 0)
	_ = must1(m.Lock("/lock"))(t)
	put(t, m, "/removed", "held by a handle")
	_ = must1(m.Open("/removed"))(t)
	must(t, m.Remove("/removed"))
	m.Kill()
	wantErr(t, f.Sync(), vfs.ErrCrashed)
	wantContent(t, m, "/f", "not synced")
	must(t, must1(m.Lock("/lock"))(t).Close())
	if u := must1(m.Usage("/"))(t); u.Free != 990 {
		t.Errorf("%d bytes free after the kill, want 990", u.Free)
	}
	m.Crash(nil)
	wantNames(t, m, "/")
}

// dump lists every name with the size and a digest of its content.
func dump(t *testing.T, m *vfs.Mem) string {
	t.Helper()
	var b strings.Builder
	var visit func(dir string)
	visit = func(dir string) {
		for _, base := range must1(m.ReadDir(dir))(t) {
			name := path.Join(dir, base)
			if must1(m.Stat(name))(t).IsDir {
				fmt.Fprintf(&b, "%s/\n", name)
				visit(name)
				continue
			}
			data := must1(vfs.ReadFile(m, name))(t)
			sum := 0
			for i, c := range data {
				sum += (i + 1) * int(c)
			}
			fmt.Fprintf(&b, "%s %d %x\n", name, len(data), sum)
		}
	}
	visit("/")
	return b.String()
}

// BenchmarkMemAppendSync is the simulator's hot path: a small write and a sync.
func BenchmarkMemAppendSync(b *testing.B) {
	m := vfs.NewMem()
	f, err := m.Create("/wal")
	if err != nil {
		b.Fatal(err)
	}
	frame := bytes.Repeat([]byte("x"), 300)
	b.ReportAllocs()
	off := int64(0)
	for b.Loop() {
		if _, err := f.WriteAt(frame, off); err != nil {
			b.Fatal(err)
		}
		if err := f.SyncData(); err != nil {
			b.Fatal(err)
		}
		off = (off + 300) % (64 << 10)
	}
}

// TestMemJoinsAppends covers the journal of a file that is appended to for long
// without a sync.
func TestMemJoinsAppends(t *testing.T) {
	for seed := range uint64(20) {
		m := vfs.NewMem()
		put(t, m, "/f", "head")
		must(t, m.SyncDir("/"))
		f := must1(m.OpenReadWrite("/f"))(t)
		want := []byte("head")
		for i := range 3000 {
			line := fmt.Sprintf("line %d\n", i)
			write(t, f, line, int64(len(want)))
			want = append(want, line...)
		}
		m.Crash(rand.New(rand.NewPCG(seed, 1)))
		got := must1(vfs.ReadFile(m, "/f"))(t)
		if len(got) > len(want) || !bytes.HasPrefix(got, []byte("head")) {
			t.Fatalf("seed %d: %d bytes left of %d", seed, len(got), len(want))
		}
		for i, b := range got {
			if b != want[i] && b != 0 {
				t.Fatalf("seed %d: byte %d was never written", seed, i)
			}
		}
	}
}
