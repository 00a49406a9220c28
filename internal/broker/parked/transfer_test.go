package parked

import (
	"math/rand/v2"
	"path"
	"slices"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

// readOut reads all entries of a snapshot.
func readOut(t *testing.T, sn *Snapshot) []Entry {
	t.Helper()
	var list []Entry
	for r := sn.Reader(); ; {
		left := r.Left()
		e, ok, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			if left != 0 {
				t.Fatalf("%d entries are left at the end", left)
			}
			return list
		}
		list = append(list, e)
	}
}

// spill moves all but a few entries to a run.
func spill(t *testing.T, s *Set, keep int) {
	t.Helper()
	sp := s.PrepareSpill(keep)
	if sp == nil {
		t.Fatal("nothing to spill")
	}
	if err := sp.Write(); err != nil {
		t.Fatal(err)
	}
	s.Commit(sp)
}

// each is what a set holds.
func each(t *testing.T, s *Set) []Entry {
	t.Helper()
	var list []Entry
	if err := s.Each(func(e Entry) error { list = append(list, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return list
}

// A set that is read by one replica and built by another is the same, wherever
// its entries were and are; what happens to the first meanwhile does not show.
func TestSetIsCarriedToAnotherReplica(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		from, to := vfs.NewMem(), vfs.NewMem()
		s := small(New(from, testDir, testPrefix))
		add := func(n int) {
			for range n {
				s.Add(Entry{Offset: rng.Int64N(3000), DueNs: rng.Int64N(1e6), Attempts: uint16(rng.IntN(5))})
			}
		}
		for range 3 {
			add(100)
			spill(t, s, 20)
			s.TakeDue(rng.Int64N(1e6), 30, nil) // out, and still in the set
			for range 20 {
				s.Remove(rng.Int64N(3000))
			}
			add(10)
		}
		want := each(t, s)
		s.Hold()
		sn := s.Snapshot()
		add(50)
		s.Clear()
		for range 3 {
			for _, name := range s.Snapshot().Published() {
				t.Errorf("seed %d: %s goes while the set is held", seed, name)
			}
		}
		got := readOut(t, sn)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: read %d entries, the set had %d", seed, len(got), len(want))
		}
		s.Unhold()
		freed := s.Snapshot().Published()
		if len(freed) != 3 {
			t.Errorf("seed %d: freed are %q", seed, freed)
		}

		b := NewBuilder(to, "staging", testPrefix, 9, rng.IntN(len(want)))
		for _, e := range got {
			if err := b.Add(e); err != nil {
				t.Fatal(err)
			}
		}
		if b.Add(got[0]) == nil {
			t.Error("an offset is taken twice")
		}
		state, names, err := b.Finish()
		if err != nil || len(names) != 1 {
			t.Fatalf("runs %q: %v", names, err)
		}
		if err := vfs.MkdirSynced(to, testDir); err != nil {
			t.Fatal(err)
		}
		if err := to.Rename(path.Join("staging", names[0]), path.Join(testDir, names[0])); err != nil {
			t.Fatal(err)
		}
		built, rest, err := Restore(to, testDir, testPrefix, state)
		if err != nil || len(rest) > 0 {
			t.Fatalf("restore: %v, %d bytes are left", err, len(rest))
		}
		if now := each(t, built); !slices.Equal(now, want) || built.Len() != int64(len(want)) {
			t.Fatalf("seed %d: %d entries, the set had %d", seed, len(now), len(want))
		}
		built.Remove(want[0].Offset) // it lives
		if err := SweepBut(to, testDir, nil); err != nil {
			t.Fatal(err)
		}
		if left, _ := to.ReadDir(testDir); len(left) > 0 {
			t.Errorf("left are %q", left)
		}
	}
}
