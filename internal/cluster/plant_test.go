//go:build faults

package cluster

import (
	"testing"

	"github.com/tidings-io/tidings/internal/plant"
)

// The model must see each rule of forming that is broken. from is where the
// search begins, so that the test is quick; any beginning finds them in the end.
func TestModelCatchesPlantedBugs(t *testing.T) {
	defer plant.Set()
	for _, bug := range []struct {
		name string
		from uint64
	}{
		{"cluster-any-ticket", 800},
		{"cluster-keep-asking", 3400},
		{"cluster-form-by-majority", 1500},
	} {
		plant.Set(bug.name)
		err := formingSeeds(bug.from, bug.from+40000, make(map[string]int))
		if err == nil {
			t.Errorf("%s was not noticed", bug.name)
		} else {
			t.Logf("%s: %.150s", bug.name, err.Error())
		}
		if left := plant.Unasked(); left != nil {
			t.Errorf("no code asked for %v", left)
		}
	}
}
