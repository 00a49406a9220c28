package seglog

import (
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

// damaged is one way to spoil a segment of twelve batches of three records, and
// the offsets that must then be reported; every other batch must be read.
type damaged struct {
	name  string
	spoil func(t *testing.T, f vfs.File, frames []frame, size int64)
	lost  [][2]int64
}

func flip(at func(fs []frame, size int64) int64) func(*testing.T, vfs.File, []frame, int64) {
	return func(t *testing.T, f vfs.File, frames []frame, size int64) {
		t.Helper()
		var b [1]byte
		pos := at(frames, size)
		if n, _ := f.ReadAt(b[:], pos); n == 0 {
			return // no footer in an open segment
		}
		b[0] ^= 0x10
		if _, err := f.WriteAt(b[:], pos); err != nil {
			t.Fatal(err)
		}
	}
}

var damages = []damaged{
	{"segment header", flip(func([]frame, int64) int64 { return 9 }), nil},
	{"prefix crc", flip(func(fs []frame, _ int64) int64 { return fs[5].pos }), [][2]int64{{15, 17}}},
	{"prefix count", flip(func(fs []frame, _ int64) int64 { return fs[5].pos + 7 }), [][2]int64{{15, 17}}},
	{"prefix raft index", flip(func(fs []frame, _ int64) int64 { return fs[5].pos + 15 }), [][2]int64{{15, 17}}},
	{"prefix time", flip(func(fs []frame, _ int64) int64 { return fs[5].pos + 20 }), [][2]int64{{15, 17}}},
	{"base offset", flip(func(fs []frame, _ int64) int64 { return fs[5].pos + prefixSize + 7 }), [][2]int64{{15, 17}}},
	{"batch length", flip(func(fs []frame, _ int64) int64 { return fs[5].pos + prefixSize + 11 }), [][2]int64{{15, 17}}},
	{"epoch", flip(func(fs []frame, _ int64) int64 { return fs[5].pos + prefixSize + 13 }), [][2]int64{{15, 17}}},
	{"magic", flip(func(fs []frame, _ int64) int64 { return fs[5].pos + prefixSize + 16 }), [][2]int64{{15, 17}}},
	{"batch crc", flip(func(fs []frame, _ int64) int64 { return fs[5].pos + prefixSize + 17 }), [][2]int64{{15, 17}}},
	{"attributes", flip(func(fs []frame, _ int64) int64 { return fs[5].pos + prefixSize + 21 }), [][2]int64{{15, 17}}},
	{"body", flip(func(fs []frame, _ int64) int64 { return fs[5].next() - 4 }), [][2]int64{{15, 17}}},
	{"first batch", flip(func(fs []frame, _ int64) int64 { return fs[0].pos + 2 }), [][2]int64{{0, 2}}},
	{"first body", flip(func(fs []frame, _ int64) int64 { return fs[0].next() - 1 }), [][2]int64{{0, 2}}},
	{"last batch", flip(func(fs []frame, _ int64) int64 { return fs[11].pos + 2 }), [][2]int64{{33, 35}}},
	{"last body", flip(func(fs []frame, _ int64) int64 { return fs[11].next() - 1 }), [][2]int64{{33, 35}}},
	{"two places", func(t *testing.T, f vfs.File, fs []frame, size int64) {
		flip(func(fs []frame, _ int64) int64 { return fs[2].pos + 30 })(t, f, fs, size)
		flip(func(fs []frame, _ int64) int64 { return fs[7].next() - 9 })(t, f, fs, size)
	}, [][2]int64{{6, 8}, {21, 23}}},
	{"neighbours", func(t *testing.T, f vfs.File, fs []frame, size int64) {
		flip(func(fs []frame, _ int64) int64 { return fs[2].pos })(t, f, fs, size)
		flip(func(fs []frame, _ int64) int64 { return fs[3].pos })(t, f, fs, size)
		flip(func(fs []frame, _ int64) int64 { return fs[4].next() - 1 })(t, f, fs, size)
	}, [][2]int64{{6, 11}, {12, 14}}},
	{"a hole of zeros", func(t *testing.T, f vfs.File, fs []frame, _ int64) {
		from, to := fs[3].pos+100, fs[6].pos+50
		if _, err := f.WriteAt(make([]byte, to-from), from); err != nil {
			t.Fatal(err)
		}
	}, [][2]int64{{9, 11}, {12, 20}}},
	{"cut short", func(t *testing.T, f vfs.File, fs []frame, _ int64) {
		must(t, f.Truncate(fs[8].pos+300))
	}, [][2]int64{{24, 26}, {27, 35}}},
	{"cut in a prefix", func(t *testing.T, f vfs.File, fs []frame, _ int64) {
		must(t, f.Truncate(fs[8].pos+3))
	}, [][2]int64{{24, 35}}},
	{"empty", func(t *testing.T, f vfs.File, _ []frame, _ int64) { must(t, f.Truncate(0)) }, [][2]int64{{0, 35}}},
	{"footer magic", flip(func(_ []frame, size int64) int64 { return size }), nil},
	{"footer mark", flip(func(_ []frame, size int64) int64 { return size + 9 }), nil},
	{"footer length", flip(func(_ []frame, size int64) int64 { return size + 1 }), nil},
}

// damagedLog makes a log whose first segment, of 4 KiB batches, was sealed or
// not, spoils its file and restores it.
func damagedLog(t *testing.T, d damaged, sealed bool) (*Store, *Log, []Batch) {
	fs := disk()
	s := open(t, fs, Options{SegmentSize: 12*(3*1024+200) + headerSize})
	l := s.New(testID, 0)
	want := fill(l, 12, 3, 1024, 1)
	if sealed {
		want = append(want, fill(l, 3, 3, 1024, 13)...)
	}
	state := checkpoint(t, l, 20, 0)
	if l.segs[0].last != 35 || l.segs[0].sealed != sealed {
		t.Fatalf("segment ends at %d, sealed %v", l.segs[0].last, l.segs[0].sealed)
	}
	size := l.segs[0].size
	f, err := fs.OpenReadWrite(l.path(l.segs[0]))
	must(t, err)
	var frames []frame
	w := walk(f, l.seed, viewOf(l.segs[0]), mark{}, false)
	for {
		it, ok, err := w.next()
		must(t, err)
		if !ok {
			break
		}
		frames = append(frames, it.frame)
	}
	d.spoil(t, f, frames, size)
	must(t, f.Close())
	s = open(t, fs, Options{})
	l, err = s.Restore(testID, state)
	must(t, err)
	return s, l, want
}

func (d *damaged) hits(b Batch) bool {
	for _, r := range d.lost {
		if b.Last() >= r[0] && b.Base <= r[1] {
			return true
		}
	}
	return false
}

func TestDamage(t *testing.T) {
	for _, d := range damages {
		for _, sealed := range []bool{true, false} {
			name := d.name + "/open"
			if sealed {
				name = d.name + "/sealed"
			}
			t.Run(name, func(t *testing.T) {
				s, l, all := damagedLog(t, d, sealed)
				var want []Batch
				for _, b := range all {
					if !d.hits(b) {
						want = append(want, b)
					}
				}
				for _, maxBytes := range []int{1, 7000, 1 << 20, 5000} {
					got, lost := readAll(t, l, 0, maxBytes)
					wantBatches(t, got, want)
					wantLost(t, lost, d.lost)
				}
				if n := s.Stats().CorruptBatches; n != int64(len(d.lost)) {
					t.Errorf("%d damaged places counted, want %d", n, len(d.lost))
				}
				damagedAppend(t, s, l, want)
			})
		}
	}
}

// damagedAppend requires that a damaged log goes on taking batches.
func damagedAppend(t *testing.T, s *Store, l *Log, want []Batch) {
	want = append(want, fill(l, 5, 3, 100, 30)...)
	state := checkpoint(t, l, 40, 0)
	l.Published()
	got, _ := readAll(t, l, 0, 4000)
	wantBatches(t, got, want)
	must(t, s.Close())
	s = open(t, s.fs, Options{})
	l, err := s.Restore(testID, state)
	must(t, err)
	got, _ = readAll(t, l, 0, 4000)
	wantBatches(t, got, want)
}

func wantLost(t *testing.T, got []*CorruptError, want [][2]int64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d errors, want %v: %v", len(got), want, got)
	}
	for i := range got {
		if got[i].First != want[i][0] || got[i].Last != want[i][1] {
			t.Errorf("lost %d–%d, want %v", got[i].First, got[i].Last, want[i])
		}
	}
}

// TestDamageEverywhere flips each byte of a file in turn: at most the batch that
// holds it is lost, and nothing that was read is wrong.
func TestDamageEverywhere(t *testing.T) {
	fs := disk()
	s := open(t, fs, Options{})
	l := s.New(testID, 0)
	want := fill(l, 6, 2, 30, 1)
	state := checkpoint(t, l, 20, 0)
	name, size := l.path(l.segs[0]), l.segs[0].size
	must(t, s.Close())
	f, err := fs.OpenReadWrite(name)
	must(t, err)
	for pos := range size {
		flip(func([]frame, int64) int64 { return pos })(t, f, nil, 0)
		s := open(t, fs, Options{})
		l, err := s.Restore(testID, state)
		must(t, err)
		got, lost := readAll(t, l, 0, 1<<20)
		if len(got) < 5 || len(lost) > 1 || len(got)+len(lost) < 6 {
			t.Fatalf("byte %d: %d batches, %v", pos, len(got), lost)
		}
		for _, b := range got {
			if err := equal(b, want[b.Base/2]); err != nil {
				t.Fatalf("byte %d: %v", pos, err)
			}
		}
		report, err := Verify(fs, "/data/topics")
		if err != nil || report.Batches != int64(len(got)) || report.Unfinished+len(report.Damaged) != 1 {
			t.Fatalf("byte %d: %v %+v", pos, err, report)
		}
		must(t, s.Close())
		flip(func([]frame, int64) int64 { return pos })(t, f, nil, 0)
	}
}

// TestMissingFile loses a whole segment.
func TestMissingFile(t *testing.T) {
	fs := disk()
	s := open(t, fs, Options{SegmentSize: 4 << 10})
	l := s.New(testID, 0)
	want := fill(l, 30, 2, 300, 1)
	state := checkpoint(t, l, 30, 0)
	gone, last := viewOf(l.segs[1]), viewOf(l.segs[len(l.segs)-1])
	must(t, fs.Remove(l.path(gone.seg)))
	must(t, fs.Remove(l.path(last.seg)))
	s = open(t, fs, Options{SegmentSize: 4 << 10})
	l, err := s.Restore(testID, state)
	must(t, err)
	_, lost := readAll(t, l, 0, 1000)
	wantLost(t, lost, [][2]int64{{gone.first, gone.last}, {last.first, last.last}})
	more := fill(l, 3, 2, 300, 31)
	checkpoint(t, l, 40, 0)
	got, _ := readAll(t, l, want[29].Last()+1, 1000)
	wantBatches(t, got, more)
}

// TestStrayFile puts one partition's file where another's belongs.
func TestStrayFile(t *testing.T) {
	fs := disk()
	s := open(t, fs, Options{})
	a, b := s.New(LogID{1, 0}, 0), s.New(LogID{1, 1}, 0)
	fill(a, 3, 2, 30, 1)
	fill(b, 3, 2, 30, 1)
	checkpoint(t, a, 9, 0)
	state := checkpoint(t, b, 9, 0)
	must(t, s.Close())
	must(t, fs.Rename(a.path(a.segs[0]), b.path(b.segs[0])))
	s = open(t, fs, Options{})
	b, err := s.Restore(b.ID(), state)
	must(t, err)
	got, lost := readAll(t, b, 0, 1<<20)
	if len(got) != 0 || len(lost) != 1 {
		t.Fatalf("read %d batches of another partition, %v", len(got), lost)
	}
}
