// Package offsets holds sets of message offsets as sorted ranges: what a
// channel has finished above its floor.
package offsets

import (
	"slices"
	"sort"
)

// Range is the offsets From ≤ o < To.
type Range struct{ From, To int64 }

// Set is a set of offsets ≥ 0, kept as sorted ranges that neither overlap nor
// touch. The zero value is an empty set. Looking up takes O(log n) over the n
// ranges; adding at either end is O(1) amortised, in the middle it moves the
// ranges behind (16 bytes each). A Set has one owner; it is not safe for
// concurrent use.
type Set struct {
	// ranges is sorted; ranges[i].To < ranges[i+1].From, so there is always
	// at least one missing offset between two ranges.
	ranges []Range
	// count is the number of offsets in ranges.
	count int64
}

// Add puts the offsets from ≤ o < to into the set and returns how many of
// them were not in it before. Offsets below zero are ignored.
func (s *Set) Add(from, to int64) int64 {
	from = max(from, 0)
	if from >= to {
		return 0
	}
	// Appending, or growing the last range, is by far the most frequent.
	n := len(s.ranges)
	if n == 0 || s.ranges[n-1].To < from {
		s.ranges = append(s.ranges, Range{from, to})
		s.count += to - from
		return to - from
	}
	// ranges[lo:hi] overlap or touch [from, to).
	lo := s.search(from)
	hi := lo
	was := int64(0)
	for hi < n && s.ranges[hi].From <= to {
		was += s.ranges[hi].To - s.ranges[hi].From
		hi++
	}
	if lo == hi {
		s.ranges = slices.Insert(s.ranges, lo, Range{from, to})
		s.count += to - from
		return to - from
	}
	merged := Range{min(from, s.ranges[lo].From), max(to, s.ranges[hi-1].To)}
	s.ranges[lo] = merged
	s.ranges = slices.Delete(s.ranges, lo+1, hi)
	added := merged.To - merged.From - was
	s.count += added
	return added
}

// search returns the first range that ends at or behind offset: the one that
// holds offset, touches it from below, or is the next above it.
func (s *Set) search(offset int64) int {
	return sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].To >= offset })
}

// at returns the first range with an offset ≥ offset.
func (s *Set) at(offset int64) int {
	return sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].To > offset })
}

// Contains reports whether offset is in the set.
func (s *Set) Contains(offset int64) bool {
	i := s.at(offset)
	return i < len(s.ranges) && s.ranges[i].From <= offset
}

// Covers reports whether all of from ≤ o < to are in the set; an empty span
// is covered.
func (s *Set) Covers(from, to int64) bool {
	if from >= to {
		return true
	}
	i := s.at(from)
	return i < len(s.ranges) && s.ranges[i].From <= from && to <= s.ranges[i].To
}

// NextMissing returns the first offset ≥ from that is not in the set.
func (s *Set) NextMissing(from int64) int64 {
	i := s.at(from)
	if i < len(s.ranges) && s.ranges[i].From <= from {
		return s.ranges[i].To
	}
	return from
}

// AdvanceFloor removes everything below floor, takes the range that then
// begins at floor out of the set, and returns where that range ended: the new
// floor. Without such a range the floor is returned as it was.
func (s *Set) AdvanceFloor(floor int64) int64 {
	s.Cut(floor)
	if len(s.ranges) == 0 || s.ranges[0].From != floor {
		return floor
	}
	to := s.ranges[0].To
	s.drop(1)
	return to
}

// Cut removes all offsets below the given one.
func (s *Set) Cut(below int64) {
	i := s.at(below)
	s.drop(i)
	if len(s.ranges) > 0 && s.ranges[0].From < below {
		s.count -= below - s.ranges[0].From
		s.ranges[0].From = below
	}
}

// drop removes the first n ranges. A short rest is moved to the front, so that
// a set that fills and empties allocates nothing; a long one stays where it
// is, so that absorbing one leading range of thousands moves nothing.
func (s *Set) drop(n int) {
	for _, r := range s.ranges[:n] {
		s.count -= r.To - r.From
	}
	rest := s.ranges[n:]
	if len(rest) <= n {
		rest = s.ranges[:copy(s.ranges, rest)]
	}
	s.ranges = rest
}

// Clear empties the set.
func (s *Set) Clear() { *s = Set{} }

// Len is the number of ranges.
func (s *Set) Len() int { return len(s.ranges) }

// Count is the number of offsets.
func (s *Set) Count() int64 { return s.count }

// Ranges is the set as sorted disjoint ranges. It is a view: not to be
// changed, and valid until the next change of the set.
func (s *Set) Ranges() []Range { return s.ranges }

// Clone returns an independent copy.
func (s *Set) Clone() Set {
	return Set{ranges: slices.Clone(s.ranges), count: s.count}
}
