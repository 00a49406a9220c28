//go:build linux

package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/tidings-io/tidings/test/rig"
)

// envNumber reads a number that the runner or its user has set.
func envNumber(t *testing.T, name string, fallback uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return fallback
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// scenario is a cluster under load.
type scenario struct {
	*testCluster
	*load
	t   *testing.T
	rng *rand.Rand
}

// newScenario starts a cluster, and the load on it; it returns when every topic
// is published to.
func newScenario(t *testing.T, o options) *scenario {
	t.Helper()
	seed := envNumber(t, "CHAOS_SEED", rand.Uint64()>>16)
	t.Logf("seed %d", seed)
	h := newHistory(publishers, topicNames...)
	c := newCluster(t, h, o)
	l, err := newLoad(c, seed)
	if err != nil {
		t.Fatal(err)
	}
	l.lenient = o.lenient
	s := &scenario{testCluster: c, load: l, t: t, rng: rand.New(rand.NewPCG(seed, 1))}
	l.begin()
	t.Cleanup(func() { // before the nodes end
		if !l.ended(l.stop) {
			l.end()
		}
		if !l.ended(l.leave) {
			l.leaveAll()
		}
	})
	if err := s.flows(h.now()); err != nil {
		t.Fatalf("publishing does not begin: %v\n%s", err, h.report())
	}
	return s
}

// flows waits until every topic has acknowledged a publish since.
func (s *scenario) flows(since instant) error {
	return rig.Await(rig.Patience, func() (bool, error) {
		s.h.mu.Lock()
		defer s.h.mu.Unlock()
		for topic, acks := range s.h.acks {
			if len(acks) == 0 || acks[len(acks)-1] <= since {
				return false, fmt.Errorf("no publish to %s was acknowledged", topicNames[topic])
			}
		}
		return true, nil
	})
}

// hold keeps a fault, and the load, for a while. How long is what the scenario is
// about.
func (s *scenario) hold(d time.Duration) { time.Sleep(d) }

// around runs a fault from begin to end, and excuses what comes again then.
func (s *scenario) around(what string, do func() error) error {
	from := s.h.mark("-- %s", what)
	err := do()
	to := s.h.mark("-- %s is over", what)
	s.h.excuse(from-changeWindow, to+changeWindow, what)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// finish ends the load on a cluster without faults and checks everything.
func (s *scenario) finish() error {
	if err := s.settle(); err != nil {
		return err
	}
	s.end()
	if err := rig.Await(rig.Patience, func() (bool, error) {
		n := s.h.missing(s.h.now())
		return n == 0, fmt.Errorf("%d acknowledged messages have not come", n)
	}); err != nil {
		s.h.mark("waited for messages: %v", err) // check says which
	} else if err := s.drained(); err != nil {
		return err
	}
	s.leaveAll()
	s.h.check()
	for topic, name := range topicNames {
		ops := s.h.operations(topic)
		if got := linear(ops); got != porcupine.Ok {
			s.h.refused(0, "history of topic %s, %d operations, is not linearizable: %s", name, len(ops), got)
		}
		if topic == 0 {
			fmt.Printf("figure: %s: porcupine: %d publishes and reads of one partition can have happened one by one\n", s.t.Name(), len(ops))
		}
	}
	return s.agree()
}

// drained waits until /stats of all nodes together say that the consumed
// channels are empty.
func (s *scenario) drained() error {
	return rig.Await(rig.Patience, func() (bool, error) {
		left := ""
		for _, m := range s.members {
			stats, err := m.Stats("&include_clients=false")
			if err != nil {
				return false, err
			}
			for _, topic := range stats.Topics {
				for _, ch := range topic.Channels {
					if n := ch.Unfinished(); n > 0 && ch.Name != archive {
						left += fmt.Sprintf(" %d on %s/%s at node %s;", n, topic.Name, ch.Name, m.host.name)
					}
				}
			}
		}
		return left == "", fmt.Errorf("unfinished:%s", left)
	})
}

// verdict finishes the scenario and fails the test if anything is wrong.
func (s *scenario) verdict(err error) {
	s.t.Helper()
	if err == nil {
		err = s.finish()
	}
	if kinds := s.h.kinds(); err != nil || len(kinds) > 0 {
		s.t.Errorf("%v\n%s", err, s.h.report())
	}
	y := s.h.tally
	s.mu.Lock()
	changes := s.changes
	s.mu.Unlock()
	fmt.Printf("figure: %s: %d messages acknowledged, lost %d; %d leader changes; outcome unknown of %d, %d sent again, %d of them in the log more than once; %d deliveries, %d redelivered; slowest publish %s\n",
		s.t.Name(), y.acked, s.h.kinds()["lost"], changes, y.unknown, y.repeats, y.doubled, y.deliveries, y.redelivered, y.slowest.Round(time.Millisecond))
}
