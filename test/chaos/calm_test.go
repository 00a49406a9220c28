//go:build linux

package chaos

import (
	"testing"
	"time"
)

// Without a fault nothing at all may go wrong.
func TestCalm(t *testing.T) {
	s := newScenario(t, options{bin: plainBinary(t)})
	s.hold(3 * time.Second)
	s.verdict(nil)
	if y := s.h.tally; y.unknown+y.redelivered > 0 {
		t.Errorf("in a calm cluster %d publishes had no good answer and %d messages came again\n%s", y.unknown, y.redelivered, s.h.report())
	}
}
