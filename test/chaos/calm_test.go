//go:build linux

package chaos

import (
	"testing"
	"time"
)

// Without a fault no publisher may notice anything, not even that leaderships
// move to where they are wanted.
func TestCalm(t *testing.T) {
	s := newScenario(t, options{bin: plainBinary(t)})
	s.hold(2 * time.Second)
	s.verdict(nil)
	if y := s.h.tally; y.unknown > 0 {
		t.Errorf("in a calm cluster %d publishes had no good answer\n%s", y.unknown, s.h.report())
	}
}
