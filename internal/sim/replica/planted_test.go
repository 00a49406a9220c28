//go:build faults

package replica

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/plant"
)

// planted are the bugs that several nodes must catch, and in how many seeds at
// the latest.
var planted = []struct {
	name   string
	within uint64
	run    func(*testing.T, uint64) (Counts, uint64, error)
}{
	{"apply-term", 200, run},
	{"vote-lost", 200, run},
	{"snapshot-skips-tail", 60, run},
	{"checkpoint-without-flush", 60, run},
	{"wal-ack-before-sync", 100, run},
	{"forward-doubled", 20, run},
	{"barrier-ignored", 20, runRaises},
	{"start-at-hand-over", 20, runRaises},
	{"moved-ignored", 20, runRaises},
	{"moved-forgotten", 100, runRaises},
	{"spool-twice", 20, runEdges},
	{"spool-trims-early", 20, runEdges},
}

func TestPlantedBugsAreCaught(t *testing.T) {
	for _, bug := range planted {
		t.Run(bug.name, func(t *testing.T) {
			defer plant.Set()
			for seed := range bug.within {
				plant.Set(bug.name)
				_, _, err := bug.run(t, seed)
				var f *Failure
				if !errors.As(err, &f) {
					continue
				}
				if left := plant.Unasked(); len(left) > 0 {
					t.Fatalf("no code asks for %q", left)
				}
				plant.Set()
				if _, _, err := bug.run(t, seed); err != nil {
					t.Fatalf("seed %d fails without the bug: %v", seed, err)
				}
				text, _, _ := strings.Cut(f.Text, "\n")
				fmt.Fprintf(os.Stdout, "caught: %s by seed %d, step %d: %s\n", bug.name, seed, f.Step, text)
				return
			}
			t.Fatalf("not caught within %d seeds", bug.within)
		})
	}
}
