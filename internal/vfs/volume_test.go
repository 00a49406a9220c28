package vfs_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

func TestVolumeSyncKeepsBytesAndNames(t *testing.T) {
	m := vfs.NewMem()
	if err := m.MkdirAll("a/b"); err != nil {
		t.Fatal(err)
	}
	v, err := m.OpenVolume("a")
	if err != nil {
		t.Fatal(err)
	}
	f := must1(m.Create("a/b/kept"))(t)
	must1(f.WriteAt([]byte("synced"), 0))(t)
	if err := v.Sync(); err != nil {
		t.Fatal(err)
	}
	m.FailAfter(1, nil)
	if err := v.Sync(); !errors.Is(err, vfs.ErrCrashed) {
		t.Errorf("sync at the moment of the crash: %v", err)
	}
	m.Crash(rand.New(rand.NewPCG(1, 1)))
	if b, err := vfs.ReadFile(m, "a/b/kept"); err != nil || string(b) != "synced" {
		t.Errorf("after the crash: %q, %v", b, err)
	}
	if err := v.Sync(); !errors.Is(err, vfs.ErrCrashed) {
		t.Errorf("volume of an earlier life: %v", err)
	}
}

func TestVolumeOfTheSystem(t *testing.T) {
	s, ok := vfs.FS(vfs.OS{}).(vfs.VolumeSyncer)
	if !ok {
		t.Skip("this system has no such call")
	}
	if _, err := s.OpenVolume(t.TempDir() + "/missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing folder: %v", err)
	}
	v, err := s.OpenVolume(t.TempDir())
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Sync(); err != nil {
		t.Error(err)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	if err := v.Sync(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("closed volume: %v", err)
	}
}
