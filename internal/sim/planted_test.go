//go:build faults

package sim

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/plant"
)

// planted are the bugs that a simulator of one node must catch, and in how
// many seeds at the latest.
var planted = []struct {
	name   string
	within uint64
}{
	{"wal-ack-before-sync", 50},
	{"nosync", 20},
	{"wal-hardstate-not-carried", 100},
	{"wal-stale-frame", 100},
	{"wal-cut-middle", 20},
	{"checkpoint-without-flush", 20},
	{"apply-twice", 20},
	{"ingest-doubled", 200},
}

func TestPlantedBugsAreCaught(t *testing.T) {
	for _, bug := range planted {
		t.Run(bug.name, func(t *testing.T) {
			defer plant.Set()
			for seed := range bug.within {
				plant.Set(bug.name)
				_, err := run(t, seed)
				var f *Failure
				if !errors.As(err, &f) {
					continue
				}
				if left := plant.Unasked(); len(left) > 0 {
					t.Fatalf("no code asks for %q", left)
				}
				plant.Set()
				if _, err := run(t, seed); err != nil {
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
