//go:build faults

package seglog

import (
	"testing"

	"github.com/tidings-io/tidings/internal/plant"
)

// TestPlantedCheckpoint proves that the scenario below sees a checkpoint that
// does not flush or sync.
func TestPlantedCheckpoint(t *testing.T) {
	for _, planted := range []string{"", "checkpoint-without-flush"} {
		plant.Set(planted)
		fs := disk()
		s := open(t, fs, Options{TailBytes: 8 << 10})
		l := s.New(testID, 0)
		fill(l, 40, 1, 200, 1)
		drain(t, s) // some in a file, un-synced, some in the tail
		state := checkpoint(t, l, 40, 0)
		fs.Crash(nil)
		l, err := open(t, fs, Options{}).Restore(testID, state)
		must(t, err)
		got, _ := readAll(t, l, 0, 1<<20)
		if lost := len(got) != 40; lost != (planted != "") {
			t.Errorf("planted %q: %d of 40 batches", planted, len(got))
		}
	}
	plant.Set()
}
