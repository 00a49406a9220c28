//go:build faults

package vfs_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

// A sync of the volume makes all names and bytes real: of files that are open and
// of closed ones, new, renamed and removed, in new folders too.
func TestVolatileVolume(t *testing.T) {
	disk := vfs.NewMem()
	v := vfs.NewVolatile(disk)
	write := func(name, text string) vfs.File {
		t.Helper()
		f := must1(v.Create(name))(t)
		n := must1(f.(vfs.VectorWriter).WriteVectorAt([][]byte{[]byte(text[:2]), nil, []byte(text[2:])}, 3))(t)
		if n != len(text) {
			t.Fatalf("%d of %d bytes", n, len(text))
		}
		return f
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(v.MkdirAll("/a/b"))
	open := write("/a/b/open", "still open")
	check(write("/a/b/was", "closed").Close())
	check(v.Rename("/a/b/was", "/a/now"))
	check(write("/a/gone", "removed").Close())
	check(v.Remove("/a/gone"))
	volume := must1(v.OpenVolume("/a"))(t)
	if _, err := vfs.ReadFile(disk, "/a/b/open"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before the sync it is real: %v", err)
	}
	check(volume.Sync())
	must1(open.WriteAt([]byte("later"), 0))(t) // lost
	check(v.MkdirAll("/a/lost"))
	disk.Crash(nil)
	for name, want := range map[string]string{"/a/b/open": "\x00\x00\x00still open", "/a/now": "\x00\x00\x00closed"} {
		if got, err := vfs.ReadFile(disk, name); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"/a/gone", "/a/b/was", "/a/lost"} {
		if _, err := disk.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if names, err := disk.ReadDir("/a"); err != nil || len(names) < 2 {
		t.Errorf("/a holds %q, %v", names, err)
	}
}

// Without such a call below there is none.
func TestVolatileWithoutVolume(t *testing.T) {
	v := vfs.NewVolatile(vfs.NewFault(vfs.NewMem()))
	if _, err := v.OpenVolume("/"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a volume: %v", err)
	}
}
