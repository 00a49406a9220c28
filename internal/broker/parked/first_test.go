package parked

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidings-io/tidings/internal/vfs"
)

// First shows what TakeDue would give, and changes nothing.
func TestFirstIsWhatComesNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New(vfs.NewMem(), "parked", "set")
		for range rapid.IntRange(0, 60).Draw(t, "entries") {
			s.Add(Entry{
				Offset: rapid.Int64Range(0, 50).Draw(t, "offset"), DueNs: rapid.Int64Range(1, 20).Draw(t, "due"),
				Attempts: uint16(rapid.IntRange(0, 3).Draw(t, "attempts")),
			})
		}
		for range rapid.IntRange(0, 5).Draw(t, "removals") {
			s.Remove(rapid.Int64Range(0, 50).Draw(t, "offset"))
		}
		out := s.TakeDue(5, rapid.IntRange(0, 3).Draw(t, "out"), nil)
		n := rapid.IntRange(0, 70).Draw(t, "n")
		var got []Entry
		if err := s.First(n, func(e Entry) bool { got = append(got, e); return true }); err != nil {
			t.Fatal(err)
		}
		var want []Entry
		if err := s.Each(func(e Entry) error {
			if !slices.Contains(out, e) {
				want = append(want, e)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if want = want[:min(n, len(want))]; !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}
