package vfs_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/vfs"
)

// makers lists the file systems that must behave alike as long as nothing
// crashes. Each returns an empty folder on a fresh one.
var makers = map[string]func(t *testing.T) (vfs.FS, string){
	"OS":  func(t *testing.T) (vfs.FS, string) { return vfs.OS{}, t.TempDir() },
	"Mem": func(t *testing.T) (vfs.FS, string) { return memRoot(t, vfs.NewMem()) },
}

func memRoot(t *testing.T, fsys vfs.FS) (vfs.FS, string) {
	t.Helper()
	must(t, fsys.MkdirAll("/root"))
	return fsys, "/root"
}

func TestConformance(t *testing.T) {
	for name, maker := range makers {
		t.Run(name, func(t *testing.T) {
			for name, test := range conformance {
				t.Run(name, func(t *testing.T) {
					fsys, root := maker(t)
					test(t, fsys, root)
				})
			}
		})
	}
}

var conformance = map[string]func(t *testing.T, fsys vfs.FS, root string){
	"ReadWrite":    conformReadWrite,
	"Sparse":       conformSparse,
	"Truncate":     conformTruncate,
	"CreateAgain":  conformCreateAgain,
	"Rename":       conformRename,
	"RenameFolder": conformRenameFolder,
	"Remove":       conformRemove,
	"RemoveAll":    conformRemoveAll,
	"OpenRemoved":  conformOpenRemoved,
	"Folders":      conformFolders,
	"Missing":      conformMissing,
	"Closed":       conformClosed,
	"ReadOnly":     conformReadOnly,
	"Lock":         conformLock,
	"Usage":        conformUsage,
	"Whole":        conformWhole,
	"Concurrent":   conformConcurrent,
	"Large":        conformLarge,
}

func conformReadWrite(t *testing.T, fsys vfs.FS, root string) {
	name := path.Join(root, "f")
	f := must1(fsys.Create(name))(t)
	write(t, f, "hello world", 0)
	write(t, f, "WORLD", 6)
	must(t, f.SyncData())
	write(t, f, "!", 11)
	wantContent(t, fsys, name, "hello WORLD!")

	b := make([]byte, 5)
	if n, err := f.ReadAt(b, 6); n != 5 || err != nil {
		t.Errorf("ReadAt = %d, %v", n, err)
	}
	if n, err := f.ReadAt(b, 10); n != 2 || err != io.EOF {
		t.Errorf("ReadAt over the end = %d, %v; want 2, EOF", n, err)
	}
	if n, err := f.ReadAt(b, 50); n != 0 || err != io.EOF {
		t.Errorf("ReadAt behind the end = %d, %v; want 0, EOF", n, err)
	}
	if n, err := f.WriteAt(nil, 3); n != 0 || err != nil {
		t.Errorf("WriteAt nothing = %d, %v", n, err)
	}
	if _, err := f.ReadAt(b, -1); err == nil {
		t.Error("ReadAt at a negative offset did not fail")
	}
	if _, err := f.WriteAt(b, -1); err == nil {
		t.Error("WriteAt at a negative offset did not fail")
	}
	must(t, f.Sync())
	must(t, f.Close())
	wantContent(t, fsys, name, "hello WORLD!")

	f = must1(fsys.OpenReadWrite(name))(t)
	write(t, f, "J", 0)
	must(t, f.Close())
	wantContent(t, fsys, name, "Jello WORLD!")
}

func conformSparse(t *testing.T, fsys vfs.FS, root string) {
	name := path.Join(root, "f")
	f := must1(fsys.Create(name))(t)
	defer f.Close()
	write(t, f, "end", 10_000)
	want := append(make([]byte, 10_000), "end"...)
	wantContent(t, fsys, name, string(want))
	must(t, f.Sync())
	write(t, f, "mid", 5_000)
	copy(want[5_000:], "mid")
	wantContent(t, fsys, name, string(want))
}

func conformTruncate(t *testing.T, fsys vfs.FS, root string) {
	name := path.Join(root, "f")
	f := must1(fsys.Create(name))(t)
	defer f.Close()
	write(t, f, string(bytes.Repeat([]byte("x"), 9_000)), 0)
	must(t, f.Sync())
	must(t, f.Truncate(3))
	wantContent(t, fsys, name, "xxx")
	must(t, f.Truncate(5_000))
	wantContent(t, fsys, name, "xxx"+string(make([]byte, 4_997)))
	must(t, f.Sync())
	wantContent(t, fsys, name, "xxx"+string(make([]byte, 4_997)))
	must(t, f.Truncate(0))
	write(t, f, "y", 2)
	wantContent(t, fsys, name, "\x00\x00y")
	if size := must1(f.Size())(t); size != 3 {
		t.Errorf("Size = %d, want 3", size)
	}
	if err := f.Truncate(-1); err == nil {
		t.Error("Truncate to a negative size did not fail")
	}
}

func conformCreateAgain(t *testing.T, fsys vfs.FS, root string) {
	name := path.Join(root, "f")
	first := must1(fsys.Create(name))(t)
	defer first.Close()
	write(t, first, "old content", 0)
	must(t, first.Sync())
	must(t, fsys.SyncDir(root))
	second := must1(fsys.Create(name))(t)
	defer second.Close()
	wantContent(t, fsys, name, "")
	write(t, second, "new", 0)
	if size := must1(first.Size())(t); size != 3 {
		t.Errorf("Size by the first handle = %d, want 3: both are one file", size)
	}
	must(t, second.Sync())
	wantContent(t, fsys, name, "new")
}

func conformRename(t *testing.T, fsys vfs.FS, root string) {
	a, b := path.Join(root, "a"), path.Join(root, "b")
	put(t, fsys, a, "A")
	put(t, fsys, b, "B")
	old := must1(fsys.Open(b))(t)
	defer old.Close()
	must(t, fsys.Rename(a, b))
	wantContent(t, fsys, b, "A")
	wantNames(t, fsys, root, "b")
	if got := readAll(t, old); got != "B" {
		t.Errorf("a handle of the replaced file reads %q", got)
	}
	must(t, fsys.Rename(b, b))
	wantContent(t, fsys, b, "A")
	must(t, fsys.SyncDir(root))
	wantContent(t, fsys, b, "A")

	put(t, fsys, a, "again")
	must(t, fsys.Rename(a, path.Join(root, "c")))
	must(t, fsys.Rename(b, a))
	wantNames(t, fsys, root, "a", "c")
	must(t, fsys.SyncDir(root))
	wantNames(t, fsys, root, "a", "c")
	wantContent(t, fsys, a, "A")
	wantContent(t, fsys, path.Join(root, "c"), "again")

	must(t, fsys.MkdirAll(path.Join(root, "d")))
	wantErr(t, fsys.Rename(a, path.Join(root, "d")), fs.ErrExist)
	must(t, fsys.Rename(a, path.Join(root, "d", "a")))
	wantContent(t, fsys, path.Join(root, "d", "a"), "A")
	must(t, fsys.SyncDir(path.Join(root, "d")))
	wantNames(t, fsys, root, "c", "d")
	wantContent(t, fsys, path.Join(root, "d", "a"), "A")
}

func conformRenameFolder(t *testing.T, fsys vfs.FS, root string) {
	from, to := path.Join(root, "from"), path.Join(root, "to")
	must(t, fsys.MkdirAll(path.Join(from, "deep")))
	put(t, fsys, path.Join(from, "deep", "f"), "F")
	f := must1(fsys.OpenReadWrite(path.Join(from, "deep", "f")))(t)
	defer f.Close()
	must(t, fsys.Rename(from, to))
	wantContent(t, fsys, path.Join(to, "deep", "f"), "F")
	wantNames(t, fsys, root, "to")
	must(t, fsys.SyncDir(root))
	write(t, f, "G", 0)
	must(t, f.Sync())
	wantContent(t, fsys, path.Join(to, "deep", "f"), "G")
	wantNames(t, fsys, to, "deep")
	if err := fsys.Rename(to, path.Join(to, "deep", "in")); err == nil {
		t.Error("renaming a folder into itself did not fail")
	}
}

func conformRemove(t *testing.T, fsys vfs.FS, root string) {
	name := path.Join(root, "f")
	put(t, fsys, name, "x")
	must(t, fsys.Remove(name))
	wantErr(t, fsys.Remove(name), fs.ErrNotExist)
	put(t, fsys, name, "y")
	must(t, fsys.SyncDir(root))
	must(t, fsys.Remove(name))
	wantNames(t, fsys, root)
	put(t, fsys, name, "z")
	wantContent(t, fsys, name, "z")
	must(t, fsys.SyncDir(root))
	wantContent(t, fsys, name, "z")

	dir := path.Join(root, "d")
	must(t, fsys.MkdirAll(dir))
	put(t, fsys, path.Join(dir, "f"), "x")
	if err := fsys.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove of a full folder: %v", err)
	}
	must(t, fsys.SyncDir(dir))
	must(t, fsys.Remove(path.Join(dir, "f")))
	must(t, fsys.Remove(dir))
	wantNames(t, fsys, root, "f")
	must(t, fsys.SyncDir(root))
	wantNames(t, fsys, root, "f")
}

func conformRemoveAll(t *testing.T, fsys vfs.FS, root string) {
	dir := path.Join(root, "d")
	must(t, fsys.MkdirAll(path.Join(dir, "e", "f")))
	put(t, fsys, path.Join(dir, "e", "x"), "x")
	put(t, fsys, path.Join(dir, "y"), "y")
	must(t, fsys.SyncDir(root))
	must(t, fsys.SyncDir(dir))
	put(t, fsys, path.Join(dir, "z"), "z")
	must(t, fsys.RemoveAll(dir))
	wantNames(t, fsys, root)
	must(t, fsys.RemoveAll(dir))
	must(t, fsys.RemoveAll(path.Join(dir, "deeper")))

	must(t, fsys.MkdirAll(dir))
	wantNames(t, fsys, dir)
	put(t, fsys, path.Join(dir, "y"), "new")
	must(t, fsys.SyncDir(root))
	wantNames(t, fsys, dir, "y")
	wantContent(t, fsys, path.Join(dir, "y"), "new")

	put(t, fsys, path.Join(root, "file"), "x")
	must(t, fsys.RemoveAll(path.Join(root, "file")))
	wantNames(t, fsys, root, "d")
}

func conformOpenRemoved(t *testing.T, fsys vfs.FS, root string) {
	name := path.Join(root, "f")
	for _, synced := range []bool{false, true} {
		f := must1(fsys.Create(name))(t)
		write(t, f, "alive", 0)
		if synced {
			must(t, f.Sync())
			must(t, fsys.SyncDir(root))
		}
		must(t, fsys.Remove(name))
		must(t, fsys.SyncDir(root))
		write(t, f, "A", 0)
		must(t, f.Sync())
		if got := readAll(t, f); got != "Alive" {
			t.Errorf("a handle of a removed file reads %q", got)
		}
		must(t, f.Close())
	}
	wantNames(t, fsys, root)
}

func conformFolders(t *testing.T, fsys vfs.FS, root string) {
	must(t, fsys.MkdirAll(path.Join(root, "b", "c")))
	must(t, fsys.MkdirAll(path.Join(root, "b", "c")))
	must(t, fsys.MkdirAll(path.Join(root, "a")+"/"))
	put(t, fsys, path.Join(root, "f"), "1234")
	wantNames(t, fsys, root, "a", "b", "f")
	wantNames(t, fsys, path.Join(root, "b"), "c")
	if info := must1(fsys.Stat(path.Join(root, "b")))(t); !info.IsDir {
		t.Error("Stat of a folder does not say so")
	}
	want := vfs.Info{Size: 4}
	if info := must1(fsys.Stat(path.Join(root, "f")))(t); info != want {
		t.Errorf("Stat = %+v, want %+v", info, want)
	}
	if err := fsys.MkdirAll(path.Join(root, "f", "x")); err == nil {
		t.Error("MkdirAll below a file did not fail")
	}
	if _, err := fsys.Create(path.Join(root, "a")); err == nil {
		t.Error("Create over a folder did not fail")
	}
	if _, err := fsys.Create(path.Join(root, "f", "x")); err == nil {
		t.Error("Create below a file did not fail")
	}
	must(t, vfs.MkdirSynced(fsys, path.Join(root, "m", "n", "o")))
	must(t, vfs.MkdirSynced(fsys, path.Join(root, "m", "n", "o")))
	wantNames(t, fsys, path.Join(root, "m", "n"), "o")
}

func conformMissing(t *testing.T, fsys vfs.FS, root string) {
	name := path.Join(root, "missing")
	_, err := fsys.Open(name)
	wantErr(t, err, fs.ErrNotExist)
	_, err = fsys.OpenReadWrite(name)
	wantErr(t, err, fs.ErrNotExist)
	_, err = fsys.Stat(name)
	wantErr(t, err, fs.ErrNotExist)
	_, err = fsys.ReadDir(name)
	wantErr(t, err, fs.ErrNotExist)
	_, err = fsys.Create(path.Join(name, "f"))
	wantErr(t, err, fs.ErrNotExist)
	_, err = fsys.Usage(name)
	wantErr(t, err, fs.ErrNotExist)
	_, err = fsys.Lock(path.Join(name, "lock"))
	wantErr(t, err, fs.ErrNotExist)
	wantErr(t, fsys.SyncDir(name), fs.ErrNotExist)
	wantErr(t, fsys.Rename(name, path.Join(root, "x")), fs.ErrNotExist)
	_, err = vfs.ReadFile(fsys, name)
	wantErr(t, err, fs.ErrNotExist)
}

func conformClosed(t *testing.T, fsys vfs.FS, root string) {
	f := must1(fsys.Create(path.Join(root, "f")))(t)
	must(t, f.Close())
	wantErr(t, f.Close(), fs.ErrClosed)
	wantErr(t, f.Sync(), fs.ErrClosed)
	wantErr(t, f.SyncData(), fs.ErrClosed)
	wantErr(t, f.Truncate(1), fs.ErrClosed)
	_, err := f.Size()
	wantErr(t, err, fs.ErrClosed)
	_, err = f.ReadAt(make([]byte, 1), 0)
	wantErr(t, err, fs.ErrClosed)
	_, err = f.WriteAt([]byte("x"), 0)
	wantErr(t, err, fs.ErrClosed)
}

func conformReadOnly(t *testing.T, fsys vfs.FS, root string) {
	name := path.Join(root, "f")
	put(t, fsys, name, "x")
	f := must1(fsys.Open(name))(t)
	defer f.Close()
	if _, err := f.WriteAt([]byte("y"), 0); err == nil {
		t.Error("WriteAt on a file opened for reading did not fail")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("Truncate on a file opened for reading did not fail")
	}
	wantContent(t, fsys, name, "x")
}

func conformLock(t *testing.T, fsys vfs.FS, root string) {
	name := path.Join(root, "lock")
	held := must1(fsys.Lock(name))(t)
	_, err := fsys.Lock(name)
	wantErr(t, err, vfs.ErrLocked)
	must(t, held.Close())
	held = must1(fsys.Lock(name))(t)
	must(t, held.Close())
	wantNames(t, fsys, root, "lock")
}

func conformUsage(t *testing.T, fsys vfs.FS, root string) {
	u := must1(fsys.Usage(root))(t)
	if u.Total <= 0 || u.Free <= 0 || u.Free > u.Total {
		t.Errorf("Usage = %+v", u)
	}
}

func conformWhole(t *testing.T, fsys vfs.FS, root string) {
	name := path.Join(root, "f")
	for _, text := range []string{"first", "", "third, longer than the first"} {
		must(t, vfs.WriteFileAtomic(fsys, name, []byte(text)))
		wantContent(t, fsys, name, text)
		wantNames(t, fsys, root, "f")
	}
	dir := path.Join(root, "d")
	must(t, fsys.MkdirAll(dir))
	if err := vfs.WriteFileAtomic(fsys, dir, nil); err == nil {
		t.Error("WriteFileAtomic over a folder did not fail")
	}
	wantNames(t, fsys, root, "d", "f")
}

func conformConcurrent(t *testing.T, fsys vfs.FS, root string) {
	f := must1(fsys.Create(path.Join(root, "shared")))(t)
	defer f.Close()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			own := path.Join(root, string(rune('a'+i)))
			for j := range 20 {
				line := bytes.Repeat([]byte{byte('a' + i)}, 700)
				if _, err := f.WriteAt(line, int64(4*j+i)*700); err != nil {
					t.Error(err)
				}
				if j%5 == 0 {
					if err := errors.Join(f.SyncData(), fsys.SyncDir(root)); err != nil {
						t.Error(err)
					}
				}
				if err := vfs.WriteFileAtomic(fsys, own, line); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got := readAll(t, f)
	for i := range 4 {
		for j := range 20 {
			at := (4*j + i) * 700
			if got[at] != byte('a'+i) || got[at+699] != byte('a'+i) {
				t.Fatalf("line %d of writer %d was overwritten", j, i)
			}
		}
	}
	wantNames(t, fsys, root, "a", "b", "c", "d", "shared")
}

// conformLarge overwrites, appends and reads at odd offsets against a plain
// slice of bytes.
func conformLarge(t *testing.T, fsys vfs.FS, root string) {
	f := must1(fsys.Create(path.Join(root, "f")))(t)
	defer f.Close()
	var want []byte
	for i := range 200 {
		off := (i * 7919) % (len(want) + 1)
		p := bytes.Repeat([]byte{byte(i)}, 1+(i*631)%5000)
		write(t, f, string(p), int64(off))
		if need := off + len(p); need > len(want) {
			want = append(want, make([]byte, need-len(want))...)
		}
		copy(want[off:], p)
		switch i % 25 {
		case 3:
			must(t, f.SyncData())
		case 17:
			want = want[:len(want)/2]
			must(t, f.Truncate(int64(len(want))))
		}
	}
	if got := readAll(t, f); got != string(want) {
		t.Error("content differs")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must1[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func wantErr(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("error is %v, want one that matches %v", err, target)
	}
}

func write(t *testing.T, f vfs.File, text string, off int64) {
	t.Helper()
	if n, err := f.WriteAt([]byte(text), off); n != len(text) || err != nil {
		t.Fatalf("WriteAt = %d, %v; want %d", n, err, len(text))
	}
}

// put makes a file with its content, synced; its name is not.
func put(t *testing.T, fsys vfs.FS, name, text string) {
	t.Helper()
	f := must1(fsys.Create(name))(t)
	write(t, f, text, 0)
	must(t, f.Sync())
	must(t, f.Close())
}

func readAll(t *testing.T, f vfs.File) string {
	t.Helper()
	b := make([]byte, must1(f.Size())(t))
	if _, err := f.ReadAt(b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(b)
}

func wantContent(t *testing.T, fsys vfs.FS, name, want string) {
	t.Helper()
	got, err := vfs.ReadFile(fsys, name)
	must(t, err)
	if string(got) != want {
		t.Errorf("%s differs (-want +got):\n%s", name, cmp.Diff(want, string(got)))
	}
	if info := must1(fsys.Stat(name))(t); info.Size != int64(len(want)) {
		t.Errorf("Stat size of %s = %d, want %d", name, info.Size, len(want))
	}
}

func wantNames(t *testing.T, fsys vfs.FS, dir string, want ...string) {
	t.Helper()
	got := must1(fsys.ReadDir(dir))(t)
	if len(got) == 0 && len(want) == 0 {
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names in %s (-want +got):\n%s", dir, diff)
	}
}
