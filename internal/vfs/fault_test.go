package vfs_test

import (
	"errors"
	"io"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-io/tidings/internal/vfs"
)

func TestFaultCounts(t *testing.T) {
	f := vfs.NewFault(vfs.NewMem())
	rule := f.Add(vfs.Rule{Ops: vfs.OpWrite, After: 2, Times: 2, Err: syscall.EIO})
	file := must1(f.Create("/f"))(t)
	var got []bool
	for range 6 {
		_, err := file.WriteAt([]byte("x"), 0)
		if err != nil {
			wantErr(t, err, syscall.EIO)
		}
		got = append(got, err != nil)
	}
	for i, want := range []bool{false, false, true, true, false, false} {
		if got[i] != want {
			t.Errorf("write %d failed: %v, want %v", i, got[i], want)
		}
	}
	if rule.Hits() != 2 {
		t.Errorf("Hits = %d, want 2", rule.Hits())
	}
}

func TestFaultMatchesNames(t *testing.T) {
	f := vfs.NewFault(vfs.NewMem())
	must(t, f.MkdirAll("/wal"))
	must(t, f.MkdirAll("/topics"))
	base := f.Fail(vfs.OpCreate, "*.seg", syscall.ENOSPC)
	whole := f.Fail(vfs.OpAny, "/wal/*", syscall.EIO)
	_, err := f.Create("/topics/1.seg")
	wantErr(t, err, syscall.ENOSPC)
	_, err = f.Create("/wal/1.seg")
	wantErr(t, err, syscall.ENOSPC) // the first rule that is due
	_, err = f.Create("/wal/x")
	wantErr(t, err, syscall.EIO)
	put(t, f, "/topics/x", "")
	wantErr(t, f.Rename("/topics/x", "/wal/x"), syscall.EIO)
	whole.Disarm()
	must(t, f.Rename("/topics/x", "/wal/x"))
	if base.Hits() != 2 || whole.Hits() != 2 {
		t.Errorf("hits = %d and %d, want 2 and 2", base.Hits(), whole.Hits())
	}
}

func TestFaultEveryOperation(t *testing.T) {
	f := vfs.NewFault(vfs.NewMem())
	file := must1(f.Create("/f"))(t)
	write(t, file, "x", 0)
	boom := errors.New("boom")
	f.Fail(vfs.OpAny, "", boom)
	one := func(_ any, err error) error { return err }
	for i, err := range []error{
		one(f.Create("/g")), one(f.Open("/f")), one(f.OpenReadWrite("/f")), f.Rename("/f", "/g"),
		f.Remove("/f"), f.RemoveAll("/f"), f.MkdirAll("/d"), one(f.ReadDir("/")), one(f.Stat("/f")),
		f.SyncDir("/"), one(f.Lock("/l")), one(f.Usage("/")),
		one(file.ReadAt(make([]byte, 1), 0)), one(file.WriteAt([]byte("y"), 0)), file.Sync(),
		file.SyncData(), file.Truncate(0), one(file.Size()), file.Close(),
	} {
		if !errors.Is(err, boom) {
			t.Errorf("operation %d answers %v", i, err)
		}
	}
}

func TestFaultDamage(t *testing.T) {
	mem := vfs.NewMem()
	f := vfs.NewFault(mem)
	file := must1(f.Create("/f"))(t)
	text := []byte("abcdefgh")

	f.Add(vfs.Rule{Ops: vfs.OpWrite, Times: 1, Flip: true, Bit: 8})
	write(t, file, string(text), 0)
	wantContent(t, mem, "/f", "accdefgh")
	if string(text) != "abcdefgh" {
		t.Error("a flipped write changed the caller's bytes")
	}

	f.Add(vfs.Rule{Ops: vfs.OpWrite, Times: 1, Short: true, Bytes: 3, Err: syscall.ENOSPC})
	if n, err := file.WriteAt([]byte("ABCDEFGH"), 0); n != 3 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("short write = %d, %v", n, err)
	}
	wantContent(t, mem, "/f", "ABCdefgh")

	f.Add(vfs.Rule{Ops: vfs.OpWrite, Times: 1, Short: true})
	if n, err := file.WriteAt([]byte("x"), 0); n != 0 || !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("empty write = %d, %v", n, err)
	}

	b := make([]byte, 8)
	f.Add(vfs.Rule{Ops: vfs.OpRead, Times: 1, Flip: true, Bit: 65})
	if n, err := file.ReadAt(b, 0); n != 8 || err != nil || string(b) != "CBCdefgh" {
		t.Errorf("flipped read = %d, %v, %q", n, err, b)
	}
	f.Add(vfs.Rule{Ops: vfs.OpRead, Times: 1, Short: true, Bytes: 5})
	if n, err := file.ReadAt(b, 0); n != 5 || !errors.Is(err, io.EOF) {
		t.Errorf("short read = %d, %v", n, err)
	}
	wantContent(t, f, "/f", "ABCdefgh")

	f.Fail(vfs.OpUsage, "", syscall.ENOSPC)
	if u := must1(f.Usage("/"))(t); u.Free != 0 || u.Total == 0 {
		t.Errorf("Usage of a full disk = %+v", u)
	}
}

func TestFaultSlowSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := vfs.NewFault(vfs.NewMem())
		file := must1(f.Create("/f"))(t)
		f.Add(vfs.Rule{Ops: vfs.OpSync, Delay: 3 * time.Second})
		start := time.Now()
		must(t, file.SyncData())
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("a slow sync took %v", took)
		}
	})
}

func TestFaultConcurrent(t *testing.T) {
	f := vfs.NewFault(vfs.NewMem())
	file := must1(f.Create("/f"))(t)
	rule := f.Add(vfs.Rule{Ops: vfs.OpWrite, After: 100, Times: 50, Err: syscall.EIO})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				other := f.Fail(vfs.OpSync, "nothing", syscall.EIO)
				_, err := file.WriteAt([]byte("x"), 0)
				if err != nil && !errors.Is(err, syscall.EIO) {
					t.Error(err)
				}
				other.Disarm()
			}
		})
	}
	wg.Wait()
	if rule.Hits() != 50 {
		t.Errorf("Hits = %d, want 50", rule.Hits())
	}
}
