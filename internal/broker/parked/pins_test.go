package parked

import (
	"maps"
	"slices"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// offsets lists what a state of pins holds.
func (f *frozenPins) offsets() []int64 {
	var all []int64
	for _, r := range f.refs {
		for _, s := range r.block.spans(nil) {
			for o := s.from; o < s.to; o++ {
				all = append(all, r.key<<blockShift+int64(o))
			}
		}
	}
	return all
}

func TestPinsAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p pins
		want := map[int64]bool{}
		var frozen frozenPins
		var frozenWant []int64
		// Strides make blocks sparse or dense, and change between the two.
		change := func(t *rapid.T, fn func(int64)) {
			from := rapid.Int64Range(0, 3*blockSize).Draw(t, "from")
			n := rapid.Int64Range(1, 600).Draw(t, "n")
			stride := rapid.SampledFrom([]int64{1, 2, 7, 63, 64}).Draw(t, "stride")
			for i := range n {
				fn(from + i*stride)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				change(t, func(o int64) {
					if p.add(o) == want[o] {
						t.Fatalf("add(%d)", o)
					}
					want[o] = true
				})
			},
			"remove": func(t *rapid.T) {
				change(t, func(o int64) {
					if p.remove(o) != want[o] {
						t.Fatalf("remove(%d)", o)
					}
					delete(want, o)
				})
			},
			"clear": func(*rapid.T) {
				p.clear()
				clear(want)
			},
			"freeze": func(*rapid.T) {
				frozen, frozenWant = p.freeze(), slices.Sorted(maps.Keys(want))
			},
			"": func(t *rapid.T) {
				sorted := slices.Sorted(maps.Keys(want))
				if !slices.Equal(p.offsets(), sorted) || p.count != int64(len(want)) {
					t.Fatalf("holds %v (%d), want %v", p.offsets(), p.count, sorted)
				}
				if !slices.Equal(frozen.offsets(), frozenWant) {
					t.Fatal("a frozen state has changed")
				}
				first := rapid.Int64Range(0, 4*blockSize).Draw(t, "first")
				last := first + rapid.SampledFrom([]int64{-1, 0, 1, 5, 63, 64, 100, blockSize, 9 * blockSize}).Draw(t, "width")
				i, _ := slices.BinarySearch(sorted, first)
				if got := p.any(first, last); got != (i < len(sorted) && sorted[i] <= last) {
					t.Fatalf("any(%d, %d) = %v", first, last, got)
				}
				d := decoder{b: p.append(nil)}
				var again pins
				if again.decode(&d); d.failed || !slices.Equal(again.offsets(), sorted) || again.count != p.count {
					t.Fatalf("decoded %v, want %v", again.offsets(), sorted)
				}
			},
		})
	})
}

// TestPinsFromElsewhere is for the race detector.
func TestPinsFromElsewhere(t *testing.T) {
	var p pins
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range int64(2000) {
			p.any(i, i+blockSize)
		}
	})
	for i := range int64(2000) {
		p.add(i * 5)
		if i%100 == 0 {
			p.freeze()
		}
		if i >= 300 {
			p.remove((i - 300) * 5)
		}
	}
	wg.Wait()
	if p.count != 300 {
		t.Errorf("count = %d", p.count)
	}
}

func TestPinsRefuse(t *testing.T) {
	tests := map[string][]byte{
		"nothing":          {},
		"blocks beyond":    {9, 0, 1, 0, 1},
		"no span":          {1, 0, 0, 0, 0},
		"empty span":       {1, 0, 1, 0, 0},
		"touching spans":   {1, 0, 2, 0, 1, 0, 1},
		"beyond the block": {1, 0, 1, 0xff, 0x1f, 2},
		"same block twice": {2, 0, 1, 0, 1, 0, 1, 0, 1},
	}
	for name, b := range tests {
		var p pins
		d := decoder{b: b}
		if p.decode(&d); !d.failed {
			t.Errorf("%s: accepted", name)
		}
	}
	var p pins
	d := decoder{b: []byte{1, 1, 1, 0xff, 0x1f, 1, 'x'}}
	p.decode(&d)
	if diff := gocmp.Diff([]int64{2*blockSize - 1}, p.offsets()); diff != "" || string(d.b) != "x" {
		t.Errorf("last offset of a block: %s, rest %q", diff, d.b)
	}
}
