package sim

import (
	"fmt"
	"strings"
)

// kind is what an event is.
type kind uint8

const (
	evPublish kind = iota
	evAnswer
	evCommand
	evStep
	evWrite
	evSync
	evFinish
	evMaintain
	evMark
	evFlush
	evClock
	evPump
	evDone
	evPark
	evRequeue
	evAttach
	evCheckpoint
	evCapacity
	evArm
	evCrash
	evKill
	evStop
	evOpen
	evFlip
	evApply
	evLead
	evLook
	evDeliver
	evDue
	evDrain
	evPublished
	kinds
)

var kindNames = [kinds]string{
	"publish", "answer", "command", "step", "wal write", "wal sync", "wal finish", "wal maintain", "wal mark",
	"flush", "clock", "pump", "finish", "park", "requeue", "attach", "ask checkpoint", "capacity", "arm crash",
	"crash", "kill", "clean stop", "open", "flip", "apply", "lead", "look", "deliver", "due", "drain", "published",
}

// event is one thing that happened, with up to three numbers that tell more.
type event struct {
	step    int
	kind    kind
	a, b, c int64
}

// traceKept is how many events a failure shows.
const traceKept = 40

// trace is the history of a run: a hash over everything, and the last events.
type trace struct {
	hash uint64
	ring [traceKept]event
	n    int
}

// add notes an event.
func (t *trace) add(e event) {
	t.ring[t.n%traceKept] = e
	t.n++
	for _, v := range [...]uint64{uint64(e.step)<<8 | uint64(e.kind), uint64(e.a), uint64(e.b), uint64(e.c)} {
		t.hash = (t.hash ^ v) * 0x9e3779b97f4a7c15
		t.hash ^= t.hash >> 29
	}
}

// String lists the last events, oldest first.
func (t *trace) String() string {
	var b strings.Builder
	for i := max(0, t.n-traceKept); i < t.n; i++ {
		e := t.ring[i%traceKept]
		fmt.Fprintf(&b, "  step %d: %s %d %d %d\n", e.step, kindNames[e.kind], e.a, e.b, e.c)
	}
	return b.String()
}
