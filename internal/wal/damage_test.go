package wal

import (
	"errors"
	"fmt"
	"path"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

// damageOptions make small segments; entries of 600 bytes fill one with four
// groups or five.
var damageOptions = Options{SegmentSize: MinSegmentSize, Spares: 5}

// written is a log with a known layout.
type written struct {
	fs     *vfs.Mem
	groups []Frame // of entry groups, oldest first; group i holds entry i+1 of shard 1
	marks  []Frame
}

// writeLog commits n entries of shard 1, one group each, and stops, cleanly or
// not. Recycled segments hold frames of earlier lives behind their end.
func writeLog(t testing.TB, n uint64, clean, recycled bool) *written {
	t.Helper()
	lw := &written{fs: newFS(t)}
	w := mustOpen(t, lw.fs, damageOptions)
	if recycled {
		maintain(t, w)
		// Groups of the same size, so that stale ones lie where new ones end.
		// The first one is alone in the segment that grows.
		for i := uint64(1); i <= 201; i++ {
			commit(t, w, Append{Shard: 2, Entries: []Entry{entry(i, 1, 600)}})
			w.Release(2, i)
			maintain(t, w)
		}
	}
	for i := uint64(1); i <= n; i++ {
		commit(t, w, Append{Shard: 1, Entries: []Entry{entry(i, 1, 600)}})
	}
	maintain(t, w)
	if grows := w.current().grows; grows == recycled {
		t.Fatalf("the last segment began as an empty file: %v", grows)
	}
	if clean {
		if err := w.Mark(); err != nil {
			t.Fatal(err)
		}
	}
	lw.fs.Crash(nil)
	lw.inspect(t)
	if got := uint64(len(lw.groups)); got != n {
		t.Fatalf("%d groups", got)
	}
	return lw
}

func (lw *written) inspect(t testing.TB) {
	t.Helper()
	var group Frame
	if err := Inspect(lw.fs, dir, func(f Frame) error {
		switch {
		case f.Kind == KindGroup && f.Group == frameSize:
			lw.marks = append(lw.marks, f)
		case f.Kind == KindGroup:
			group = f
		case f.Kind == KindEntry && f.Shard == 1:
			lw.groups = append(lw.groups, group)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// last is the newest group.
func (lw *written) last() Frame { return lw.groups[len(lw.groups)-1] }

// inLast returns the entry groups of the last segment.
func (lw *written) inLast() []Frame {
	var in []Frame
	for _, g := range lw.groups {
		if g.Segment == lw.last().Segment {
			in = append(in, g)
		}
	}
	return in
}

func (lw *written) flip(t testing.TB, segment string, offset int64) {
	t.Helper()
	if err := lw.fs.Flip(path.Join(dir, segment), offset, 3); err != nil {
		t.Fatal(err)
	}
}

func (lw *written) overwrite(t testing.TB, segment string, change func(vfs.File) error) {
	t.Helper()
	f, err := lw.fs.OpenReadWrite(path.Join(dir, segment))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(change(f), f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// damageCase is a row of the table in replication.md.
type damageCase struct {
	name   string
	n      uint64 // entries; 0 is 22
	clean  bool
	change func(t testing.TB, lw *written) // does the damage
	// What is expected: the index of the last entry that is left, whether the
	// rest is cut with a warning, or refused.
	kept   func(lw *written) uint64
	refuse bool
	silent bool // nothing is lost, so nothing is said
}

func keepAll(lw *written) uint64     { return uint64(len(lw.groups)) }
func keepButOne(lw *written) uint64  { return keepAll(lw) - 1 }
func beforeLast(lw *written) uint64  { return keepAll(lw) - uint64(len(lw.inLast())) }
func keepNothing(lw *written) uint64 { return 0 }
func middle(lw *written) (int, Frame) {
	for i := len(lw.groups) / 2; ; i++ {
		// Not the first group of a segment.
		if g := lw.groups[i]; g.Segment == lw.groups[i-1].Segment {
			return i, g
		}
	}
}
func beforeMiddle(lw *written) uint64 { i, _ := middle(lw); return uint64(i) }
func beforeMiddleSegment(lw *written) uint64 {
	_, g := middle(lw)
	n := uint64(0)
	for lw.groups[n].Segment != g.Segment {
		n++
	}
	return n
}

const inPayload = 2*frameSize + 100 // offset in a group

var damageCases = []damageCase{
	{name: "none", kept: keepAll, silent: true, change: func(testing.TB, *written) {}},
	{name: "none, clean", clean: true, kept: keepAll, silent: true, change: func(testing.TB, *written) {}},
	{name: "flip in the last write", kept: keepButOne, change: func(t testing.TB, lw *written) {
		lw.flip(t, lw.last().Segment, lw.last().Offset+inPayload)
	}},
	{name: "flip in the head of the last write", kept: keepButOne, change: func(t testing.TB, lw *written) {
		lw.flip(t, lw.last().Segment, lw.last().Offset+24)
	}},
	{name: "flip in the frame header of the last write", kept: keepButOne, change: func(t testing.TB, lw *written) {
		lw.flip(t, lw.last().Segment, lw.last().Offset+frameSize+32)
	}},
	{name: "zeroed sector in the last write", kept: keepButOne, change: func(t testing.TB, lw *written) {
		sector := (lw.last().Offset + 511) &^ 511
		lw.overwrite(t, lw.last().Segment, func(f vfs.File) error { _, err := f.WriteAt(make([]byte, 512), sector); return err })
	}},
	{name: "last segment cut short in the last write", kept: keepButOne, change: func(t testing.TB, lw *written) {
		lw.overwrite(t, lw.last().Segment, func(f vfs.File) error { return f.Truncate(lw.last().Offset + 100) })
	}},
	{name: "flip in the last write below the mark", clean: true, kept: keepButOne, refuse: true, change: func(t testing.TB, lw *written) {
		lw.flip(t, lw.last().Segment, lw.last().Offset+inPayload)
	}},
	{name: "flip in the mark", clean: true, kept: keepAll, silent: true, change: func(t testing.TB, lw *written) {
		lw.flip(t, lw.marks[0].Segment, lw.marks[0].Offset+8)
	}},
	{name: "flip in the last segment", refuse: true, kept: beforeLast, change: func(t testing.TB, lw *written) {
		lw.flip(t, lw.last().Segment, lw.inLast()[0].Offset+inPayload)
	}},
	{name: "flip in a head in the last segment", refuse: true, kept: beforeLast, change: func(t testing.TB, lw *written) {
		lw.flip(t, lw.last().Segment, lw.inLast()[0].Offset+24)
	}},
	{name: "zeroed sector in the last segment", refuse: true, kept: beforeLast, change: func(t testing.TB, lw *written) {
		lw.overwrite(t, lw.last().Segment, func(f vfs.File) error { _, err := f.WriteAt(make([]byte, 512), 512); return err })
	}},
	{name: "flip in an earlier segment", refuse: true, kept: beforeMiddle, change: func(t testing.TB, lw *written) {
		_, g := middle(lw)
		lw.flip(t, g.Segment, g.Offset+inPayload)
	}},
	{name: "flip in an earlier segment, clean", clean: true, refuse: true, kept: beforeMiddle, change: func(t testing.TB, lw *written) {
		_, g := middle(lw)
		lw.flip(t, g.Segment, g.Offset+frameSize+16)
	}},
	{name: "earlier segment cut short", refuse: true, kept: beforeMiddle, change: func(t testing.TB, lw *written) {
		_, g := middle(lw)
		lw.overwrite(t, g.Segment, func(f vfs.File) error { return f.Truncate(g.Offset + 1) })
	}},
	{name: "earlier segment missing", refuse: true, kept: beforeMiddleSegment, change: func(t testing.TB, lw *written) {
		_, g := middle(lw)
		if err := errors.Join(lw.fs.Remove(path.Join(dir, g.Segment)), lw.fs.SyncDir(dir)); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "last segment missing", refuse: true, kept: beforeLast, change: func(t testing.TB, lw *written) {
		if err := errors.Join(lw.fs.Remove(path.Join(dir, lw.last().Segment)), lw.fs.SyncDir(dir)); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "flip in the header of an earlier segment", refuse: true, kept: beforeMiddleSegment, change: func(t testing.TB, lw *written) {
		_, g := middle(lw)
		lw.flip(t, g.Segment, 24)
	}},
	{name: "flip in the header of the last segment", refuse: true, kept: beforeLast, change: func(t testing.TB, lw *written) {
		lw.flip(t, lw.last().Segment, 33)
	}},
	{name: "zeroed header of the last segment", refuse: true, kept: beforeLast, change: func(t testing.TB, lw *written) {
		lw.overwrite(t, lw.last().Segment, func(f vfs.File) error { _, err := f.WriteAt(make([]byte, 512), 0); return err })
	}},
	{name: "flip in the only header", n: 2, refuse: true, kept: keepNothing, change: func(t testing.TB, lw *written) {
		lw.flip(t, lw.last().Segment, 24)
	}},
}

func TestDamage(t *testing.T) {
	for _, recycled := range []bool{false, true} {
		for _, c := range damageCases {
			if recycled && c.n > 0 {
				continue // the only segment is never a recycled one
			}
			t.Run(fmt.Sprintf("%s, recycled %v", c.name, recycled), func(t *testing.T) {
				n := c.n
				if n == 0 {
					n = 22
				}
				lw := writeLog(t, n, c.clean, recycled)
				if n == 22 && len(lw.inLast()) < 2 {
					t.Fatalf("%d groups in the last segment", len(lw.inLast()))
				}
				c.change(t, lw)
				lw.check(t, c)
			})
		}
	}
}

func (lw *written) check(t *testing.T, c damageCase) {
	t.Helper()
	kept := c.kept(lw)
	report, err := Verify(lw.fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := Open(lw.fs, dir, damageOptions)
	if !c.refuse {
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "entries", read(t, w, 1), entries(1, kept, 1, 600))
		cut := w.Stats().CutBytes
		if (cut == 0) != c.silent && c.name != "flip in the mark" {
			t.Fatalf("cut %d bytes", cut)
		}
		if cut > 0 && (report.Cut == nil || report.Cut.Size != cut || report.Cut.Segment != lw.last().Segment) {
			t.Fatalf("reported %+v, cut %d", report.Cut, cut)
		}
		lw.goOn(t, w, kept)
		return
	}
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) {
		t.Fatalf("opened with %v", err)
	}
	equal(t, "verified", report.Damage.Error(), corrupt.Error())
	if len(corrupt.Lost) == 1 {
		equal(t, "lost", corrupt.Lost, []Lost{{1, kept + 1, keepAll(lw)}})
	} else if kept > 0 && c.name != "last segment missing" {
		t.Fatalf("lost: %v", corrupt.Lost)
	}
	lw.repair(t, corrupt, kept)
}

// repair checks that only the second, applied, repair changes anything, and
// that the log opens after it.
func (lw *written) repair(t *testing.T, corrupt *CorruptError, kept uint64) {
	t.Helper()
	for _, apply := range []bool{false, true} {
		r, err := Repair(lw.fs, dir, apply)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "repair names", r.Damage.Error(), corrupt.Error())
		if apply {
			for _, name := range r.Moved {
				if _, err := lw.fs.Stat(name); err != nil {
					t.Fatal(err)
				}
			}
		} else if len(r.Moved) > 0 {
			t.Fatalf("moved %v", r.Moved)
		}
	}
	lw.fs.Crash(nil)
	w, err := Open(lw.fs, dir, damageOptions)
	if err != nil {
		t.Fatal(err)
	}
	var want []Entry
	if kept > 0 {
		want = entries(1, kept, 1, 600)
	}
	equal(t, "repaired", read(t, w, 1), want)
	lw.goOn(t, w, kept)
}

// goOn writes on after a recovery and recovers again.
func (lw *written) goOn(t *testing.T, w *WAL, kept uint64) {
	t.Helper()
	for i := kept + 1; i <= kept+10; i++ {
		commit(t, w, Append{Shard: 1, Entries: []Entry{entry(i, 2, 600)}})
		maintain(t, w)
		lw.fs.Crash(nil)
		w = mustOpen(t, lw.fs, damageOptions)
		if last, _ := w.Last(1); last != i {
			t.Fatalf("last is %d, want %d", last, i)
		}
		if s := w.Stats(); s.CutBytes > 0 {
			t.Fatalf("cut %d bytes of what was durable", s.CutBytes)
		}
	}
	var want []Entry
	if kept > 0 {
		want = entries(1, kept, 1, 600)
	}
	equal(t, "grown", read(t, w, 1), append(want, entries(kept+1, kept+10, 2, 600)...))
}
