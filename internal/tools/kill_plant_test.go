//go:build faults && linux

package tools_test

import "testing"

// The test is worth nothing if it misses a message that is finished before it
// is written.
func TestKillCatchesFinishingEarly(t *testing.T) {
	k := newKilled(t, 1, 20_000, "-sync-interval=1h", "-max-in-flight=2500")
	k.env = []string{"TIDINGS_PLANT=nsq-to-file-finishes-early"}
	for missing := 0; missing == 0; missing = k.missing() {
		if k.left() == 0 {
			t.Fatal("nobody has seen that messages are finished before they are written")
		}
		k.life(2000)
	}
}
