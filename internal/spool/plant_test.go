//go:build faults

package spool

import (
	"testing"
	"testing/synctest"

	"github.com/tidings-io/tidings/internal/plant"
)

// TestCatchesTwice: the histories are worth nothing if they miss an edge that
// forwards again what it can't know to be upstream.
func TestCatchesTwice(t *testing.T) {
	defer plant.Set()
	for seed := uint64(1); seed <= 50; seed++ {
		plant.Set("spool-twice")
		found := 0
		synctest.Test(t, func(t *testing.T) { found = len(newWorld(t, seed).history(12)) })
		if names := plant.Unasked(); len(names) > 0 {
			t.Fatalf("%q is never asked for", names)
		}
		if found > 0 {
			t.Logf("seed %d finds it", seed)
			return
		}
	}
	t.Error("50 histories find nothing")
}
