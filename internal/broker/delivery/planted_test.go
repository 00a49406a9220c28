//go:build faults

package delivery

import (
	"testing"

	"github.com/tidings-io/tidings/internal/plant"
	"pgregory.net/rapid"
)

// TestCatchesPlantedBugs: the models see what a change of leaders loses, and a part of a
// window that is left with a leader who has nothing.
func TestCatchesPlantedBugs(t *testing.T) {
	setRapid(t, "steps", "150")
	setRapid(t, "shrinktime", "0s")
	setRapid(t, "nofailfile", "true")
	setRapid(t, "checks", "1000")
	relays := relayRun(nil, &rCoverage{})
	for _, x := range []struct {
		bug, by string
		run     func(*rapid.T)
	}{
		{"hand-over-loses", "relays", relays},
		{"standing-credit", "relays", relays},
		{"standing-credit", "window of one", windowOfOneRun},
	} {
		t.Run(x.bug+" by "+x.by, func(t *testing.T) {
			defer plant.Set()
			plant.Set(x.bug)
			if !catches(t, x.run) {
				t.Error("not caught")
			}
			if names := plant.Unasked(); len(names) > 0 {
				t.Errorf("%q is never asked for", names)
			}
		})
	}
}
