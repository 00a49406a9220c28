package delivery

import (
	"testing"

	"pgregory.net/rapid"
)

// windowOfOne is a topic with many partitions, led by several nodes, of which one has
// messages at a time, and consumers whose window is one message.
type windowOfOne struct {
	*fleet
	t    *rapid.T
	subs []*Subscription
	left int
}

func newWindowOfOne(t *rapid.T) *windowOfOne {
	const partitions = 12
	w := &windowOfOne{t: t, fleet: newFleet(rapid.IntRange(1, 4).Draw(t, "nodes"), partitions, Config{})}
	for p := range w.parts {
		w.lead(t, p, rapid.IntRange(0, len(w.nodes)-1).Draw(t, "leader"))
	}
	w.carry(t)
	for range rapid.IntRange(1, 3).Draw(t, "consumers") {
		n := w.nodes[rapid.IntRange(0, len(w.nodes)-1).Draw(t, "node")]
		s, err := n.ch.Subscribe(SubOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.SetWindow(1)
		w.subs = append(w.subs, s)
	}
	return w
}

// bounded: no consumer has more than one message in flight, at all leaders together.
func (w *windowOfOne) bounded() {
	w.t.Helper()
	for _, s := range w.subs {
		if s.inFlightCount+s.promised > 1 {
			w.t.Fatalf("%d in flight and %d promised with a window of 1", s.inFlightCount, s.promised)
		}
	}
	flying := int64(0)
	for _, n := range w.nodes {
		flying += n.ch.inFlight
	}
	if flying > int64(len(w.subs)) {
		w.t.Fatalf("%d in flight at leaders, for %d consumers with a window of 1", flying, len(w.subs))
	}
}

// consume has consumers take and finish all that is left. No time passes: what needs a
// timer to go on stalls.
func (w *windowOfOne) consume() {
	w.t.Helper()
	for round := 0; w.left > 0; round++ {
		before := w.left
		w.carry(w.t)
		for _, s := range w.subs {
			w.bounded()
			ds, err := s.Take(nil, 1<<20)
			if err != nil {
				w.t.Fatal(err)
			}
			w.bounded()
			for i := range ds {
				if ds[i].Attempts != 1 {
					w.t.Fatalf("attempt %d", ds[i].Attempts)
				}
				if err := s.Finish(ds[i].ID); err != nil {
					w.t.Fatal(err)
				}
				w.left--
			}
		}
		if w.left == before && !w.busy() || round > patientRounds {
			w.t.Fatalf("stall with %d messages left", w.left)
		}
	}
}

// busy reports whether anybody has something to tell.
func (w *windowOfOne) busy() (busy bool) {
	w.all(func(l *link) { busy = busy || l.woken || l.out || len(l.rings) > 0 })
	return busy
}

// TestWindowOfOneOverManyPartitions: whichever partition has the messages, consumers
// that take one at a time go on getting them, and never have more than one.
func TestWindowOfOneOverManyPartitions(t *testing.T) {
	setRapid(t, "checks", "100")
	rapid.Check(t, windowOfOneRun)
}

func windowOfOneRun(t *rapid.T) {
	w := newWindowOfOne(t)
	for range rapid.IntRange(1, 8).Draw(t, "phases") {
		p := rapid.IntRange(0, len(w.parts)-1).Draw(t, "partition")
		if rapid.IntRange(0, 3).Draw(t, "move") == 0 {
			w.lead(t, p, rapid.IntRange(0, len(w.nodes)-1).Draw(t, "leader"))
		}
		if rapid.Bool().Draw(t, "quiet") {
			w.carry(t) // else it is published while others are still asked
		}
		n := rapid.IntRange(1, 20).Draw(t, "messages")
		w.publish(p, n)
		w.left += n
		if rapid.Bool().Draw(t, "collect") {
			w.collect(t)
		}
		w.consume()
	}
}
