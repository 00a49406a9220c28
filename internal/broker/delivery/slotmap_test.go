package delivery

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestSlotMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m slotMap
		want := make(map[int64]int32)
		base := rapid.Int64Range(0, 1<<62).Draw(t, "base")
		offset := rapid.OneOf(
			rapid.Map(rapid.Int64Range(0, 40), func(o int64) int64 { return base + o }),
			rapid.Map(rapid.Int64Range(0, 20), func(o int64) int64 { return o << 13 }), // all at home in one place
		)
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			o := offset.Draw(t, "offset")
			if rapid.Bool().Draw(t, "set") {
				slot := rapid.Int32Range(1, 1000).Draw(t, "slot")
				m.set(o, slot)
				want[o] = slot
			} else {
				m.remove(o)
				delete(want, o)
			}
			o = offset.Draw(t, "asked")
			if got := m.get(o); got != want[o] || m.len() != len(want) {
				t.Fatalf("%d has slot %d, want %d; %d entries, want %d", o, got, want[o], m.len(), len(want))
			}
		}
		if got, want := m.offsets(), slices.Sorted(maps.Keys(want)); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}
