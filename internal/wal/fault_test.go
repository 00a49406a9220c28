package wal

import (
	"errors"
	"syscall"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

// Any failed write or sync ends the log: nothing under way is answered as done.
func TestErrorsAreSticky(t *testing.T) {
	for _, c := range []struct {
		name string
		rule vfs.Rule
	}{
		{"write", vfs.Rule{Ops: vfs.OpWrite, Path: "*.wal", Err: syscall.EIO}},
		{"sync", vfs.Rule{Ops: vfs.OpSync, Path: "*.wal", Err: syscall.EIO, Times: 1}},
		{"no space", vfs.Rule{Ops: vfs.OpWrite, Path: "*.wal", Err: syscall.ENOSPC, Short: true, Bytes: 700}},
		{"create while rolling", vfs.Rule{Ops: vfs.OpCreate, Path: "*.wal", Err: syscall.ENOSPC}},
		{"directory sync while rolling", vfs.Rule{Ops: vfs.OpSyncDir, Err: syscall.EIO}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := newFS(t)
			fs := vfs.NewFault(mem)
			w := mustOpen(t, fs, Options{SegmentSize: MinSegmentSize, Spares: -1})
			commit(t, w, Append{Shard: 1, Entries: entries(1, 3, 1, 600)})
			fs.Add(c.rule)
			var answers []error
			done := func(err error) { answers = append(answers, err) }
			for i := uint64(4); i < 9; i++ {
				w.Submit(Append{Shard: 1, Entries: entries(i, i, 1, 600), Sync: true, Done: done})
			}
			if err := w.pass(); !errors.Is(err, c.rule.Err) {
				t.Fatal(err)
			}
			w.Submit(Append{Shard: 1, Entries: entries(9, 9, 1, 600), Sync: true, Done: done})
			for _, step := range []func() error{w.Write, w.Sync, w.Mark} {
				if err := step(); !errors.Is(err, c.rule.Err) {
					t.Fatal(err)
				}
			}
			w.Finish()
			if _, err := w.Maintain(); !errors.Is(err, c.rule.Err) {
				t.Fatal(err)
			}
			if len(answers) != 6 {
				t.Fatalf("%d answers", len(answers))
			}
			for _, err := range answers {
				if !errors.Is(err, c.rule.Err) {
					t.Fatal(answers)
				}
			}
			mem.Crash(nil)
			w = mustOpen(t, mem, Options{SegmentSize: MinSegmentSize})
			if last, _ := w.Last(1); last < 3 {
				t.Fatalf("last is %d", last)
			}
		})
	}
}

// A full disk stops the making of spares, not the log, which lives on the
// spares in stock; with space again the stock fills up.
func TestNoSpaceForSpares(t *testing.T) {
	fs := vfs.NewFault(newFS(t))
	o := Options{SegmentSize: MinSegmentSize, Spares: 2}
	w := mustOpen(t, fs, o)
	maintain(t, w)
	creates := fs.Fail(vfs.OpCreate, "", syscall.ENOSPC)
	for i := uint64(1); w.Stats().Spares > 0; i++ {
		commit(t, w, Append{Shard: 1, Entries: []Entry{entry(i, 1, 600)}})
		maintain(t, w)
	}
	if s := w.Stats(); s.NoSpace == 0 || s.Rolls != 2 {
		t.Fatalf("%+v", s)
	}
	creates.Disarm()
	fs.Add(vfs.Rule{Ops: vfs.OpWrite, Path: spareNew, Err: syscall.ENOSPC, Times: 1})
	maintain(t, w)
	if _, err := fs.Stat(w.path(spareNew)); err == nil {
		t.Fatal("the unfinished spare still takes space")
	}
	maintain(t, w)
	if s := w.Stats(); s.Spares != 2 {
		t.Fatalf("%d spares", s.Spares)
	}
}

// A segment that cannot be read is not taken for a torn one.
func TestUnreadableSegmentIsDamage(t *testing.T) {
	lw := writeLog(t, 22, false, false)
	fs := vfs.NewFault(lw.fs)
	fs.Add(vfs.Rule{Ops: vfs.OpRead, Path: lw.last().Segment, After: 1, Err: syscall.EIO})
	_, err := Open(fs, dir, damageOptions)
	if _, ok := errors.AsType[*CorruptError](err); !ok {
		t.Fatal(err)
	}
}
