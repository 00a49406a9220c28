//go:build linux

package chaos

import (
	"fmt"
	"testing"
	"time"
)

// volatileEnv makes files lose at the kill exactly what was not synced.
func volatileEnv(plants string) func(int) []string {
	return func(i int) []string {
		return []string{fmt.Sprintf("TIDINGS_VFS=volatile:%d", i+1), "TIDINGS_PLANT=" + plants}
	}
}

// blackout kills all nodes at once and starts them again.
func (s *scenario) blackout() error {
	return s.around("all nodes are killed at once", func() error {
		for _, m := range s.members {
			m.troubled("killed with all")
		}
		for _, m := range s.members {
			m.Cmd.Process.Kill()
		}
		for _, m := range s.members {
			m.Kill() // waits
		}
		return s.launchAll()
	})
}

// All nodes are killed at once under load, and un-synced bytes are lost: nothing
// acknowledged is.
func TestAllKilled(t *testing.T) {
	s := newScenario(t, options{bin: faultsBinary(t), env: volatileEnv("")})
	rounds := scale(20, 2)
	var err error
	for round := 0; round < rounds && err == nil; round++ {
		s.hold(time.Duration(500+s.rng.IntN(1500)) * time.Millisecond)
		if err = s.blackout(); err == nil {
			if err = s.settle(); err == nil {
				err = s.flowsAgain()
			}
		}
	}
	s.verdict(err)
	fmt.Printf("note: all nodes killed at once %d times, un-synced bytes thrown away, lost %d\n", rounds, s.h.kinds()["lost"])
}

// The suite is worth nothing if it misses what it is for.
func TestPlantedBugsAreCaught(t *testing.T) {
	for _, bug := range []struct {
		name   string
		do     func(s *scenario) error
		caught func(s *scenario) int // messages
	}{
		{"nosync", (*scenario).blackout, (*scenario).lostMessages},
		{"ack-before-quorum", (*scenario).lonelyDeath, (*scenario).lostMessages},
		{"forward-doubled", (*scenario).lonelyDeath, (*scenario).doubledMessages},
	} {
		t.Run(bug.name, func(t *testing.T) {
			s := newScenario(t, options{bin: faultsBinary(t), env: volatileEnv(bug.name), lenient: true, patience: 10 * time.Second})
			const limit = 4
			for round := 1; round <= limit; round++ {
				s.hold(time.Second)
				err := bug.do(s)
				if err == nil {
					err = s.settle()
				}
				switch caught := bug.caught(s); {
				case caught > 0:
					fmt.Printf("note: planted bug %s caught in round %d: %d messages\n", bug.name, round, caught)
					return
				case err != nil: // recovery met half a state
					fmt.Printf("note: planted bug %s caught in round %d: %.60s\n", bug.name, round, err)
					return
				}
			}
			t.Errorf("the suite has not caught the planted bug %s in %d rounds\n%s", bug.name, limit, s.h.report())
		})
	}
}

func (s *scenario) lostMessages() int { return s.h.missingSoon() }

// doubledMessages waits for what is on its way.
func (s *scenario) doubledMessages() int {
	s.h.missingSoon()
	return s.h.kinds()["doubled"]
}

// lonelyDeath cuts a leader off from the others, and kills it.
func (s *scenario) lonelyDeath() error {
	return s.around("a leader is alone, then killed", func() error { return s.isolateAndKill(s.anyLeader()) })
}

// isolateAndKill lets a leader serve its own clients for a moment without the
// others, and kills it before they see each other again.
func (s *scenario) isolateAndKill(m *member) error {
	m.troubled("cut off")
	if err := s.net.isolate(m.host); err != nil {
		return err
	}
	s.hold(time.Second)
	m.kill()
	if err := s.flowsAgain(); err != nil {
		return err
	}
	if err := s.net.heal(); err != nil {
		return err
	}
	return m.restart()
}

// missingSoon is how many messages that are acknowledged by now do not come while
// later ones do.
func (h *history) missingSoon() int {
	by := h.now()
	left, same := h.missing(by), 0
	for same < 20 && left > 0 {
		time.Sleep(100 * time.Millisecond)
		if now := h.missing(by); now == left {
			same++
		} else {
			left, same = now, 0
		}
	}
	return left
}
