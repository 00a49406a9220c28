//go:build linux

package chaos

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// What publishers may see of a leader's death.
const (
	gapMedian = 3 * time.Second
	gapMax    = 5 * time.Second
)

// long says that there is time: make chaos.
func long() bool { return os.Getenv("CHAOS_LONG") != "" }

// scale is the first number in a long run, the second in CI.
func scale(all, ci int) int {
	if long() {
		return all
	}
	return ci
}

// The node that leads a topic is killed again and again, and is back before the
// next kill. A publisher at another node sees no error.
func TestLeaderKilled(t *testing.T) {
	s := newScenario(t, options{bin: plainBinary(t)})
	rounds := int(envNumber(t, "CHAOS_KILLS", uint64(scale(40, 6))))
	var gaps []time.Duration
	var err error
	for round := 0; round < rounds && err == nil; round++ {
		var gap time.Duration
		gap, err = s.killLeader(round)
		gaps = append(gaps, gap)
	}
	s.verdict(err)
	median, most := rig.Quantile(gaps, 0.5), rig.Quantile(gaps, 1)
	fmt.Printf("note: %d leaders killed, publish gap median %s max %s, lost %d\n",
		len(gaps), median.Round(10*time.Millisecond), most.Round(10*time.Millisecond), s.h.kinds()["lost"])
	if median > gapMedian || most > gapMax {
		slices.Sort(gaps)
		t.Errorf("publish gaps of %v: want a median of at most %s and a maximum of %s", gaps, gapMedian, gapMax)
	}
}

// killLeader kills the leader of a topic, starts it again when publishing to the
// topic goes on, and returns for how long it did not.
func (s *scenario) killLeader(round int) (time.Duration, error) {
	topic := s.rng.IntN(len(topicNames))
	victim := s.leader(topic + 1)
	if victim == nil {
		return 0, fmt.Errorf("round %d: nobody leads topic %s", round, topicNames[topic])
	}
	s.h.mark("-- round %d: leader of %s is killed", round, topicNames[topic])
	from := s.h.now()
	victim.kill()
	died := s.h.now()
	if err := s.flows(died); err != nil {
		return 0, fmt.Errorf("round %d: %w", round, err)
	}
	to := s.h.now()
	s.h.excuse(from-changeWindow, to+changeWindow, "leader killed")
	if err := victim.restart(); err != nil {
		return 0, fmt.Errorf("round %d: %w", round, err)
	}
	if err := s.settle(); err != nil {
		return 0, fmt.Errorf("round %d: %w", round, err)
	}
	return s.h.gap(topic, from, to), nil
}
