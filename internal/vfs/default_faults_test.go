//go:build faults

package vfs

import (
	"path/filepath"
	"testing"
	"time"
)

// How slow syncs are is read anew at each of them.
func TestSlowness(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "slow")
	set := func(text string) {
		t.Helper()
		if err := WriteFileAtomic(OS{}, filepath.ToSlash(file), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if got := slowness(file); got != 0 {
		t.Errorf("without the file: %s", got)
	}
	set("120ms\n")
	if got := slowness(file); got != 120*time.Millisecond {
		t.Errorf("got %s", got)
	}
	f := NewFault(OS{})
	f.Add(Rule{Ops: OpSync, Wait: func() time.Duration { return slowness(file) }})
	h, err := f.Create(filepath.ToSlash(filepath.Join(dir, "x")))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	begin := time.Now()
	if err := h.SyncData(); err != nil || time.Since(begin) < 120*time.Millisecond {
		t.Errorf("sync took %s: %v", time.Since(begin), err)
	}
}
