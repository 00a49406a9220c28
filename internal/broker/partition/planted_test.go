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
