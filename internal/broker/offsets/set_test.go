package offsets

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// model is the naive set: one map entry per offset.
type model map[int64]bool

func (m model) ranges() []Range {
	var rs []Range
	for o := range int64(span) {
		if !m[o] {
			continue
		}
		if n := len(rs); n > 0 && rs[n-1].To == o {
			rs[n-1].To++
		} else {
			rs = append(rs, Range{o, o + 1})
		}
	}
	return rs
}

// span bounds the offsets of the model test.
const span = 200

func TestSetAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Set
		m := model{}
		offset := rapid.Int64Range(0, span-1)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				from := rapid.Int64Range(-3, span-1).Draw(t, "from")
				to := min(from+rapid.Int64Range(-1, 12).Draw(t, "length"), span)
				added := int64(0)
				for o := max(from, 0); o < to; o++ {
					if !m[o] {
						m[o] = true
						added++
					}
				}
				if got := s.Add(from, to); got != added {
					t.Fatalf("Add(%d, %d) = %d, want %d", from, to, got, added)
				}
			},
			"cut": func(t *rapid.T) {
				below := offset.Draw(t, "below") / 4
				for o := range below {
					delete(m, o)
				}
				s.Cut(below)
			},
			"advance": func(t *rapid.T) {
				floor := offset.Draw(t, "floor") / 4
				want := floor
				for m[want] {
					want++
				}
				for o := range want {
					delete(m, o)
				}
				if got := s.AdvanceFloor(floor); got != want {
					t.Fatalf("AdvanceFloor(%d) = %d, want %d", floor, got, want)
				}
			},
			"clone": func(*rapid.T) {
				c := s.Clone()
				s.Add(0, span)
				s = c
			},
			"": func(t *rapid.T) { checkSet(t, &s, m, offset.Draw(t, "probe")) },
		})
	})
}

func checkSet(t *rapid.T, s *Set, m model, probe int64) {
	want := m.ranges()
	if diff := cmp.Diff(want, append([]Range(nil), s.Ranges()...)); diff != "" {
		t.Fatalf("ranges (-want +got):\n%s", diff)
	}
	if s.Len() != len(want) || s.Count() != int64(len(m)) {
		t.Fatalf("Len %d, Count %d, want %d, %d", s.Len(), s.Count(), len(want), len(m))
	}
	if s.Contains(probe) != m[probe] {
		t.Fatalf("Contains(%d) = %v", probe, s.Contains(probe))
	}
	missing := probe
	for m[missing] {
		missing++
	}
	if got := s.NextMissing(probe); got != missing {
		t.Fatalf("NextMissing(%d) = %d, want %d", probe, got, missing)
	}
	if !s.Covers(probe, missing) || s.Covers(probe, missing+1) {
		t.Fatalf("Covers is wrong at [%d, %d)", probe, missing)
	}
	enc := s.Append(nil)
	got, rest, err := Decode(append(enc, 7, 8))
	if err != nil || !bytes.Equal(rest, []byte{7, 8}) {
		t.Fatalf("Decode: %v, rest %v", err, rest)
	}
	if !bytes.Equal(got.Append(nil), enc) || got.Count() != s.Count() {
		t.Fatal("decoded set differs")
	}
}

func TestDecodeRefuses(t *testing.T) {
	huge := bytes.Repeat([]byte{0xff}, 9)
	tests := map[string][]byte{
		"nothing":           {},
		"count beyond":      {5, 1, 1},
		"huge count":        append(append([]byte{}, huge...), 1),
		"touching ranges":   {2, 1, 1, 0, 1},
		"empty range":       {1, 1, 0},
		"cut in a range":    {1, 1},
		"overflowing start": append(append([]byte{1}, huge...), 1, 1),
		"overflowing end":   append(append([]byte{1, 1}, huge...), 0x7f),
		"long-winded":       {0x81, 0x00, 1, 1},
	}
	for name, b := range tests {
		if _, _, err := Decode(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	var s Set
	s.Add(0, math.MaxInt64)
	if got, _, err := Decode(s.Append(nil)); err != nil || got.Count() != math.MaxInt64 {
		t.Errorf("largest set: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	var s Set
	s.Add(3, 9)
	s.Add(100, 1<<40)
	f.Add(s.Append(nil))
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, rest, err := Decode(b)
		if err != nil {
			return
		}
		if used := b[:len(b)-len(rest)]; !bytes.Equal(s.Append(nil), used) {
			t.Fatalf("%x is not the one encoding of its set", used)
		}
		last, count := int64(-1), int64(0)
		for _, r := range s.Ranges() {
			if r.From <= last && last != -1 || r.From < 0 || r.To <= r.From {
				t.Fatalf("bad range %v behind %d", r, last)
			}
			last, count = r.To, count+r.To-r.From
		}
		if count != s.Count() {
			t.Fatalf("Count %d, want %d", s.Count(), count)
		}
	})
}

// BenchmarkAddRandom finishes 16k offsets in random order: up to thousands of
// ranges at a time.
func BenchmarkAddRandom(b *testing.B) {
	perm := rand.New(rand.NewPCG(1, 2)).Perm(16384)
	b.ReportAllocs()
	for b.Loop() {
		var s Set
		for _, o := range perm {
			s.Add(int64(o), int64(o)+1)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/16384, "ns/add")
}

// BenchmarkAddInOrder is the common case: finish in order, floor follows.
func BenchmarkAddInOrder(b *testing.B) {
	var s Set
	floor := int64(0)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		s.Add(i, i+1)
		floor = s.AdvanceFloor(floor)
	}
}
