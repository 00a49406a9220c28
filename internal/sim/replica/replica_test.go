package replica

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"testing/cryptotest"
)

var (
	seeds  = flag.Int("seeds", 12, "how many seeds TestSeeds runs")
	steps  = flag.Int("steps", 40000, "steps of a run")
	part   = flag.Int("part", 0, "of parts, which share of the seeds TestSeeds runs")
	parts  = flag.Int("parts", 1, "into how many processes the seeds are split")
	stride = flag.Int64("stride", 5, "how many operations of a disk lie between two crashes that TestCrashInEveryStageOfASession tries")
	seed   = flag.Uint64("seed", 0, "the seed that TestSeed runs")
)

// run runs one seed. The Raft library draws its election timeouts from the
// process-wide source of randomness: that comes from the seed too. Odd seeds
// take the library's asynchronous discipline, half of either have five nodes, a third
// of all a topic whose number of partitions is raised, and a twelfth, which take twice
// as long, edges.
func run(t *testing.T, seed uint64) (Counts, uint64, error) {
	return runWith(t, seed, Options{Raises: seed/4%3 == 2, Edges: seed/4%12 == 1})
}

// runRaises is run, with raises.
func runRaises(t *testing.T, seed uint64) (Counts, uint64, error) {
	return runWith(t, seed, Options{Raises: true})
}

// runEdges is run, with edges.
func runEdges(t *testing.T, seed uint64) (Counts, uint64, error) {
	return runWith(t, seed, Options{Edges: true})
}

func runWith(t *testing.T, seed uint64, o Options) (Counts, uint64, error) {
	cryptotest.SetGlobalRandom(t, seed)
	o.Seed, o.Steps, o.Async, o.Nodes = seed, *steps, seed%2 == 1, 3+2*int(seed/2%2)
	return Run(o)
}

func TestSeed(t *testing.T) {
	counts, hash, err := run(t, *seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d: hash %016x, %v", *seed, hash, &counts)
}

func TestSeeds(t *testing.T) {
	var total Counts
	n := 0
	if testing.Short() {
		*seeds = min(*seeds, 4)
	}
	for seed := *part; seed < *seeds; seed += *parts {
		counts, _, err := run(t, uint64(seed))
		if err != nil {
			t.Fatal(err)
		}
		total.Add(counts)
		n++
	}
	fmt.Fprintf(os.Stdout, "counts: seeds=%d %v\n", n, &total)
	if missing := total.Missing(); n >= 500 && len(missing) > 0 {
		t.Errorf("%d seeds never met %q", n, missing)
	}
}

// TestSeedsWithEdges is TestSeeds with edges in all of them.
func TestSeedsWithEdges(t *testing.T) {
	var total Counts
	n := 0
	if testing.Short() {
		*seeds = min(*seeds, 4)
	}
	for seed := *part; seed < *seeds; seed += *parts {
		counts, _, err := runEdges(t, uint64(seed))
		if err != nil {
			t.Fatal(err)
		}
		total.Add(counts)
		n++
	}
	fmt.Fprintf(os.Stdout, "counts: seeds=%d %v\n", n, &total)
}

// TestSeedsWithRaises is TestSeeds with a topic whose number of partitions rises.
func TestSeedsWithRaises(t *testing.T) {
	var total Counts
	n := 0
	if testing.Short() {
		*seeds = min(*seeds, 4)
	}
	for seed := *part; seed < *seeds; seed += *parts {
		counts, _, err := runRaises(t, uint64(seed))
		if err != nil {
			t.Fatal(err)
		}
		total.Add(counts)
		n++
	}
	fmt.Fprintf(os.Stdout, "counts: seeds=%d %v\n", n, &total)
	for what, n := range map[string]int64{
		"raises": total.Raises, "moved": total.Moved, "released": total.Released, "delivered": total.Delivered,
	} {
		if n == 0 {
			t.Errorf("none %s", what)
		}
	}
}

func TestSeedWithEdges(t *testing.T) {
	counts, hash, err := runEdges(t, *seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d: hash %016x, %v", *seed, hash, &counts)
}

func TestSeedWithRaises(t *testing.T) {
	counts, hash, err := runRaises(t, *seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d: hash %016x, %v", *seed, hash, &counts)
}

// The same seed gives the same run, event by event.
func TestSameSeedSameTrace(t *testing.T) {
	n := uint64(10)
	if testing.Short() {
		n = 2
	}
	for seed := range n {
		a, hashA, errA := run(t, seed)
		b, hashB, errB := run(t, seed)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a != b || hashA != hashB {
			t.Errorf("seed %d: two runs differ: %016x and %016x", seed, hashA, hashB)
		}
	}
}
