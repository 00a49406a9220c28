//go:build faults

package partition

import (
	"testing"

	"github.com/tidings-io/tidings/internal/plant"
)

// TestPlantedApplyTerm: with the bug an entry of a leadership that is over is
// applied, so the tests that forbid it would notice.
func TestPlantedApplyTerm(t *testing.T) {
	for _, planted := range []string{"", "apply-term"} {
		plant.Set(planted)
		r := newRig(t)
		r.must(Open{Key: one})
		r.send(one, bodies(3)...)
		r.propose()
		r.stale()
		if got := r.m.partitions[one].end == 3; got != (planted != "") {
			t.Errorf("planted %q: applied %v", planted, got)
		}
	}
	plant.Set()
}

// TestPlantedForwardDoubled: without the check of what came again, a publish is
// there twice, and the random test sees it.
func TestPlantedForwardDoubled(t *testing.T) {
	defer plant.Set()
	for _, planted := range []string{"", "forward-doubled"} {
		plant.Set(planted)
		found := 0
		for seed := range uint64(20) {
			if _, err := processes(t, seed); err != nil {
				found++
			}
		}
		if got := found > 0; got != (planted != "") {
			t.Errorf("planted %q: found in %d of 20 seeds", planted, found)
		}
	}
}

// TestPlantedIngestDoubled: what is taken over twice is there twice.
func TestPlantedIngestDoubled(t *testing.T) {
	defer plant.Set()
	for _, planted := range []string{"", "ingest-doubled"} {
		plant.Set(planted)
		r, _ := ingestable(t)
		r.must(handed(0))
		end := r.m.partitions[one].end
		r.must(handed(0))
		if got := r.m.partitions[one].end != end; got != (planted != "") {
			t.Errorf("planted %q: doubled %v", planted, got)
		}
	}
}
