//go:build faults

package shard

import (
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/plant"
)

// The crash loop must see a command that is applied twice on replay.
func TestCrashLoopCatchesApplyTwice(t *testing.T) {
	plant.Set("apply-twice")
	defer plant.Set()
	eachMode(t, func(t *testing.T, async bool) {
		for seed := range uint64(20) {
			var c crashCounts
			if err := crashLoop(t, seed, async, &c); err != nil {
				if !strings.Contains(err.Error(), "twice") {
					t.Fatal(err)
				}
				return
			}
		}
		t.Error("20 seeds, and none has noticed")
	})
}

// A vote that is answered before it is durable is given twice.
func TestVoteLostIsCaught(t *testing.T) {
	plant.Set("vote-lost")
	defer plant.Set()
	eachMode(t, func(t *testing.T, async bool) {
		if first, second := voteTwice(t, async); len(first) != 1 || len(second) != 1 {
			t.Errorf("votes for %v, then for %v: the test does not see it", first, second)
		}
	})
}

// Votes that are asked for before the term is durable are seen. The synchronous
// discipline can't do that.
func TestVoteAskedEarlyIsCaught(t *testing.T) {
	plant.Set("vote-asked-early")
	defer plant.Set()
	if early, _ := askedFor(t, true); early != 2 {
		t.Errorf("%d votes asked for early: the test does not see it", early)
	}
}
