package seglog

import (
	"errors"
	"path"
	"testing"
)

// graft carries what log b lacks of log a, through a staging store, and returns
// the log that takes b's place.
func graft(t *testing.T, a *Log, b *Store, from int64, index uint64) (*Log, []byte) {
	t.Helper()
	stage := open(t, b.fs, Options{SegmentSize: 4096})
	stage.dir = "/data/staging"
	staged := stage.New(testID, from)
	for offset := from; offset < a.End(); {
		var bs []Batch
		var err error
		if bs, offset, err = a.AppendNeeded(nil, offset, a.End(), 1000); err != nil {
			t.Fatal(err)
		}
		for _, x := range bs {
			staged.Append(x)
		}
	}
	checkpoint(t, staged, 1<<40, 0)
	state, err := b.Graft(testID, staged, index, a.End())
	must(t, err)
	must(t, stage.Close())
	l, err := b.RestoreGrafted(testID, state)
	must(t, err)
	return l, state
}

// A log that lacks the end gets it, and nothing else; a crash before the next
// checkpoint is complete finds the old one as it was.
func TestGraft(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		fa, fb := disk(), disk()
		o := Options{SegmentSize: 4096, TailBytes: 2048}
		sa, sb := open(t, fa, o), open(t, fb, o)
		a, b := sa.New(testID, 0), sb.New(testID, 0)
		n := 5
		if sealed {
			n = 40
		}
		all := fill(a, n, 3, 100, 1)
		for _, x := range all {
			b.Append(x)
		}
		old := checkpoint(t, b, uint64(n), 0)
		all = append(all, fill(a, 60, 3, 100, uint64(n)+1)...)
		checkpoint(t, a, uint64(len(all)), 0)

		l, state := graft(t, a, sb, b.End(), uint64(len(all)))
		got, lost := readAll(t, l, 0, 5000)
		if len(lost) > 0 {
			t.Fatal(lost)
		}
		wantBatches(t, got, all)
		if l.End() != a.End() || b.End() == 0 {
			t.Errorf("it ends at %d, the other at %d", l.End(), a.End())
		}
		if got, _ := readAll(t, b, 0, 5000); len(got) > 0 {
			t.Error("the log that it replaced can still be read")
		}
		more := fill(l, 30, 2, 100, uint64(len(all))+1)
		all = append(all, more...)
		if _, err := l.flush(1<<40, 1<<40); err != nil {
			t.Fatal(err)
		}
		wantBatches(t, first(readAll(t, l, 0, 5000)), all)

		for name, s := range map[string][]byte{"old": old, "new": state} {
			fb.Crash(nil)
			again, err := open(t, fb, o).Restore(testID, s)
			must(t, err)
			got, lost := readAll(t, again, 0, 5000)
			if len(lost) > 0 {
				t.Fatalf("%s: %v", name, lost)
			}
			want := all[:len(all)-len(more)]
			if name == "old" {
				want = all[:n]
			}
			wantBatches(t, got, want)
		}
	}
}

func first[A, B any](a A, _ B) A { return a }

// A log that was not here begins with what comes; a graft that is given up
// leaves no file.
func TestGraftOfANewLog(t *testing.T) {
	o := Options{SegmentSize: 4096, TailBytes: 2048}
	sa, sb := open(t, disk(), o), open(t, disk(), o)
	a := sa.New(testID, 0)
	all := fill(a, 50, 3, 100, 1)
	l, _ := graft(t, a, sb, 0, 50)
	wantBatches(t, first(readAll(t, l, 0, 5000)), all)
	must(t, sb.Sweep(func(LogID) bool { return false }))
	wantBatches(t, first(readAll(t, l, 0, 5000)), all)

	sc := open(t, disk(), o)
	c := sc.New(testID, 0)
	c.Append(all[0])
	checkpoint(t, c, 1, 0)
	c.Published()
	before := segments(t, sc.fs, c)
	stage := open(t, sc.fs, Options{SegmentSize: 4096})
	stage.dir = "/data/staging"
	staged := stage.New(testID, all[1].Base)
	staged.Append(all[1])
	checkpoint(t, staged, 50, 0)
	if _, err := sc.Graft(testID, staged, 50, c.End()); err != nil {
		t.Fatal(err)
	}
	must(t, sc.Sweep(func(LogID) bool { return false }))
	if now := segments(t, sc.fs, c); len(now) <= len(before) {
		t.Errorf("a sweep takes what comes with a state: %q", now)
	}
	sc.Ungraft(testID)
	c.Append(all[1])
	checkpoint(t, c, 2, 0)
	c.Published()
	wantBatches(t, first(readAll(t, c, 0, 5000)), all[:2])
	for _, name := range segments(t, sc.fs, c) {
		if path.Base(name) == segmentName(all[1].Base, 0) && len(c.segs) == 1 {
			t.Errorf("%s is left", name)
		}
	}
}

// What is not needed is not sent, also when it is damaged.
func TestAppendNeeded(t *testing.T) {
	fs := disk()
	s := open(t, fs, Options{SegmentSize: 4096, TailBytes: 2048})
	l := s.New(testID, 0)
	all := fill(l, 40, 3, 100, 1)
	checkpoint(t, l, 40, 0)
	l.SetPinned(func(first, last int64) bool { return first <= 4 && 4 <= last })
	l.AdvanceStart(60)
	must(t, fs.Flip(l.path(l.segs[0]), headerSize+prefixSize+100, 2))
	var got []Batch
	for offset := int64(0); offset < l.End(); {
		var err error
		if got, offset, err = l.AppendNeeded(got, offset, l.End(), 700); err != nil {
			t.Fatal(err)
		}
	}
	wantBatches(t, got, append([]Batch{all[1]}, all[20:]...))
	if n := l.BytesFrom(l.End()); n != 0 {
		t.Errorf("%d bytes stand behind the end", n)
	}
	if whole, half := l.BytesFrom(0), l.BytesFrom(60); half >= whole || half < whole/4 {
		t.Errorf("%d bytes, %d from the middle", whole, half)
	}
	l.SetPinned(func(int64, int64) bool { return true })
	if _, _, err := l.AppendNeeded(nil, 0, l.End(), 700); err == nil {
		t.Error("damage that is needed is passed over")
	}
}

// Wherever a segment is damaged, the batches of another replica make it whole,
// and it is so after a restart.
func TestRepair(t *testing.T) {
	o := Options{SegmentSize: 4096, TailBytes: 2048}
	peer := open(t, disk(), o).New(testID, 0)
	all := fill(peer, 60, 3, 100, 1)
	for at := int64(headerSize); at < 3900; at += 37 {
		fs := disk()
		s := open(t, fs, o)
		l := s.New(testID, 0)
		for _, b := range all {
			l.Append(b)
		}
		checkpoint(t, l, 60, 0)
		l.Published()
		for _, g := range []*segment{l.segs[1], l.segs[len(l.segs)-1]} {
			if at < g.size {
				must(t, fs.Flip(l.path(g), at, uint(at%8)))
			}
		}
		for {
			_, lost := readAll(t, l, 0, 5000)
			if len(lost) == 0 {
				break
			}
			bs, err := peer.Range(lost[0].First, lost[0].Last)
			must(t, err)
			must(t, l.Repair(lost[0].First, lost[0].Last, bs))
		}
		wantBatches(t, first(readAll(t, l, 0, 5000)), all)
		state := checkpoint(t, l, 60, 0)
		fs.Crash(nil)
		again, err := open(t, fs, o).Restore(testID, state)
		must(t, err)
		wantBatches(t, first(readAll(t, again, 0, 5000)), all)
		all2 := fill(again, 1, 2, 50, 61)
		wantBatches(t, first(readAll(t, again, all2[0].Base, 5000)), all2)
	}
}

// A segment with more damage than is repaired is left as it is: what is not
// fetched must not be taken for what nobody needs.
func TestRepairNamesOtherDamage(t *testing.T) {
	o := Options{SegmentSize: 4096, TailBytes: 2048}
	peer := open(t, disk(), o).New(testID, 0)
	all := fill(peer, 60, 3, 100, 1)
	fs := disk()
	asked := 0
	o.Mend = func(e *CorruptError) bool { asked++; return e.First < 90 }
	l := open(t, fs, o).New(testID, 0)
	for _, b := range all {
		l.Append(b)
	}
	l, err := open(t, fs, o).Restore(testID, checkpoint(t, l, 60, 0)) // no file is open
	must(t, err)
	g := l.segs[1]
	must(t, fs.Flip(l.path(g), headerSize+prefixSize+200, 2))
	must(t, fs.Flip(l.path(g), g.size-10, 2))
	must(t, fs.Remove(l.path(l.segs[2])))
	_, lost := readAll(t, l, 0, 5000)
	if len(lost) != 3 || asked == 0 || !lost[0].Mending || lost[2].Mending != (lost[2].First < 90) {
		t.Fatalf("lost %v, asked %d times", lost, asked)
	}
	repair := func(first, last int64) error {
		bs, err := peer.Range(first, last)
		must(t, err)
		return l.Repair(first, last, bs)
	}
	for _, try := range [][3]int64{
		{lost[0].First, lost[0].Last, lost[1].First},
		{lost[1].First, lost[1].Last, lost[0].First},
		{lost[2].First + 3, lost[2].Last, lost[2].First},
	} {
		err := repair(try[0], try[1])
		if other, ok := errors.AsType[*CorruptError](err); !ok || other.First != try[2] {
			t.Fatalf("repair %d to %d: %v", try[0], try[1], err)
		}
		if _, now := readAll(t, l, 0, 5000); len(now) != 3 {
			t.Fatalf("lost now %v", now)
		}
	}
	must(t, repair(lost[0].First, lost[2].Last))
	wantBatches(t, first(readAll(t, l, 0, 5000)), all)
}

// Segments of which nothing is needed any more go, and those behind them are
// repaired all the same.
func TestRepairOfSegmentsThatVanish(t *testing.T) {
	o := Options{SegmentSize: 4096, TailBytes: 2048}
	fs := disk()
	l := open(t, fs, o).New(testID, 0)
	all := fill(l, 60, 3, 100, 1)
	l, err := open(t, fs, o).Restore(testID, checkpoint(t, l, 60, 0)) // no file is open
	must(t, err)
	var rest []Batch
	vanish, mend := l.segs[1], l.segs[2]
	for _, g := range []*segment{vanish, mend} {
		must(t, fs.Remove(l.path(g)))
	}
	for _, b := range all {
		if b.Base < vanish.first || b.Base > vanish.last {
			rest = append(rest, b)
		}
	}
	var bs []Batch
	for _, b := range rest {
		if b.Base >= mend.first && b.Base <= mend.last {
			bs = append(bs, b)
		}
	}
	must(t, l.Repair(vanish.first, mend.last, bs))
	wantBatches(t, first(readAll(t, l, 0, 5000)), rest)
}

// Two replicas that hold different batches are not mixed.
func TestRepairOfReplicasThatDiffer(t *testing.T) {
	o := Options{SegmentSize: 4096, TailBytes: 2048}
	peer := open(t, disk(), o).New(testID, 0)
	fs := disk()
	l := open(t, fs, o).New(testID, 0)
	all := fill(l, 20, 3, 100, 1)
	for i, b := range all {
		if i == 2 {
			b = fill(open(t, disk(), o).New(testID, b.Base), 1, 3, 101, b.Index)[0]
		}
		peer.Append(b)
	}
	checkpoint(t, l, 20, 0)
	must(t, fs.Flip(l.path(l.segs[0]), headerSize+prefixSize+100, 2))
	_, lost := readAll(t, l, 0, 5000)
	bs, err := peer.Range(0, 14)
	must(t, err)
	if err := l.Repair(0, 14, bs); !errors.Is(err, ErrDiverged) {
		t.Errorf("repaired: %v", err)
	}
	if _, now := readAll(t, l, 0, 5000); len(now) != len(lost) || len(lost) != 1 {
		t.Errorf("lost %v, now %v", lost, now)
	}
}

func TestRepairRefusesWhatDoesNotFit(t *testing.T) {
	s := open(t, disk(), Options{SegmentSize: 4096, TailBytes: 2048})
	l := s.New(testID, 0)
	all := fill(l, 20, 3, 100, 1)
	checkpoint(t, l, 20, 0)
	broken := all[3]
	broken.Data = append([]byte(nil), broken.Data...)
	broken.Data[len(broken.Data)-1] ^= 1
	for name, bs := range map[string][]Batch{
		"outside": {all[9]}, "damaged": {broken}, "out of order": {all[4], all[3]},
	} {
		if err := l.Repair(9, 14, bs); err == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	if _, err := l.Range(0, l.End()); err == nil {
		t.Error("a log is asked for more than it has, and does not say so")
	}
	wantBatches(t, first(readAll(t, l, 0, 5000)), all)
}
