package sim

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"testing/cryptotest"
)

var (
	seeds = flag.Int("seeds", 40, "how many seeds TestSeeds runs")
	steps = flag.Int("steps", 3000, "steps of a run")
	part  = flag.Int("part", 0, "of parts, which share of the seeds TestSeeds runs")
	parts = flag.Int("parts", 1, "into how many processes the seeds are split")
	seed  = flag.Uint64("seed", 0, "the seed that TestSeed runs")
)

// run runs one seed. The Raft library draws its election timeouts from the
// process-wide source of randomness, and the log its identity: both come from
// the seed too.
func run(t *testing.T, seed uint64) (Result, error) {
	cryptotest.SetGlobalRandom(t, seed)
	return Run(seed, *steps)
}

func TestSeed(t *testing.T) {
	r, err := run(t, *seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d: hash %016x, %v", *seed, r.Hash, &r.Counts)
}

func TestSeeds(t *testing.T) {
	var total Counts
	n, taken := 0, 0
	if testing.Short() {
		*seeds = min(*seeds, 8)
	}
	for seed := *part; seed < *seeds; seed += *parts {
		r, err := run(t, uint64(seed))
		if err != nil {
			t.Fatal(err)
		}
		n++
		taken += r.Steps
		total.Add(&r.Counts)
	}
	fmt.Fprintf(os.Stdout, "counts: seeds=%d steps=%d %v\n", n, taken, &total)
	if missing := total.Missing(); n >= 500 && len(missing) > 0 {
		t.Errorf("%d seeds never met %q", n, missing)
	}
}

// The same seed gives the same run, event by event.
func TestSameSeedSameTrace(t *testing.T) {
	n := uint64(10)
	if testing.Short() {
		n = 2
	}
	for seed := range n {
		a, errA := run(t, seed)
		b, errB := run(t, seed)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a != b {
			t.Errorf("seed %d: two runs differ: %016x and %016x", seed, a.Hash, b.Hash)
		}
	}
}
