//go:build linux

package kill

import (
	"fmt"
	"testing"
	"time"
)

// SIGTERM under load: a clean end, and what the server had counted as finished
// stays finished.
func TestStopUnderLoad(t *testing.T) {
	l := newLoop(newNode(plainBinary(t), dataDir(t), loopFlags...), seed(t), 0)
	var slowest time.Duration
	const stops = 4
	for round := range stops {
		took, err := l.stopRound(round == 0)
		if err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, l.report())
		}
		slowest = max(slowest, took)
	}
	if err := l.settleAll(); err != nil || l.broken() {
		t.Fatalf("%v\n%s\nlast lines of the node:\n%s", err, l.report(), l.node.Log.Tail(20))
	}
	within(t, "a clean stop", slowest, 5*time.Second)
	fmt.Printf("figure: SIGTERM under load: %d stops, slowest %s; %d messages acknowledged, lost %d; %d counted as finished, of these redelivered %d, of the others %d\n",
		stops, slowest.Round(time.Millisecond), l.tally.acked, l.kinds()["lost"], l.tally.dead, l.kinds()["undead"], l.tally.redelivered)
}

// stopRound lives one life under load and ends it with SIGTERM.
func (l *loop) stopRound(first bool) (time.Duration, error) {
	crowd, err := l.revive(first)
	if err != nil {
		return 0, err
	}
	defer l.node.Kill()
	load := l.publish()
	time.Sleep(time.Duration(400+l.rng.IntN(600)) * time.Millisecond) // the moment of the stop
	l.stops(crowd.consumers)
	took, code, err := l.node.Stop()
	if err == nil && code != 0 {
		err = fmt.Errorf("stopped node exits with %d: %s", code, l.node.Log.Tail(5))
	}
	l.stopLoad()
	load.Wait()
	crowd.leave()
	l.settle()
	return took, err
}
