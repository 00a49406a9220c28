// Package turn decides which goroutine drives a step machine. Work that is
// given to a machine calls for a driver; whoever finds the turn free may take
// it and drive the machine itself, instead of waking a goroutine for that.
package turn

import "sync/atomic"

// Turn is the right to drive one machine. One goroutine has it at a time. One
// goroutine, the regular, waits at the Bell for the turns that nobody else
// takes. All methods may be called from any goroutine, those from Heard on only
// by who has the turn.
//
// Nothing that is called for is forgotten. A caller leaves its work where the
// driver looks for it, and then calls. It finds the turn
//
//   - free: it rings the bell. The token stays in it until the regular takes
//     it, and the regular then takes the turn, or asks for it.
//   - taken: it marks the turn as called. The driver can't give a marked turn
//     back: Leave refuses, and clears the mark, so that the driver looks
//     again, after the work was left; or it hands the turn over, which rings
//     the bell after the work was left.
//   - marked already: the mark is cleared only by the driver, before it looks
//     (Heard, Leave), or by HandOver, before it rings.
//
// Every change of the state is one atomic operation, so a call is before or
// behind the driver's clearing of the mark, never between. What one driver did
// before it gave the turn back happened before what the next one does: the
// state's operations order them.
type Turn struct {
	state atomic.Int32
	bell  chan struct{}
}

// The states of a turn.
const (
	free   int32 = iota
	taken        // somebody drives
	called       // and there is more to do
	wanted       // and the regular waits for the turn
)

// New makes a free turn.
func New() *Turn { return &Turn{bell: make(chan struct{}, 1)} }

// Bell is where the regular waits. A token says: take the turn.
func (t *Turn) Bell() <-chan struct{} { return t.bell }

// Ring puts a token into the bell; one that is there already is enough.
func (t *Turn) Ring() {
	select {
	case t.bell <- struct{}{}:
	default:
	}
}

// Call says that there is something to do. It never waits.
func (t *Turn) Call() {
	for {
		switch t.state.Load() {
		case free:
			t.Ring()
			return
		case taken:
			if t.state.CompareAndSwap(taken, called) {
				return
			}
		default:
			return
		}
	}
}

// TakeOrCall takes the turn, or calls whoever has it.
func (t *Turn) TakeOrCall() bool { return t.takeOr(called) }

// TakeOrWant is TakeOrCall for the regular: it makes sure that a turn that it
// does not get is handed over, and the bell rung, at the end of the drive that
// goes on.
func (t *Turn) TakeOrWant() bool { return t.takeOr(wanted) }

// takeOr takes a free turn, or moves it up to the mark.
func (t *Turn) takeOr(mark int32) bool {
	for {
		switch s := t.state.Load(); {
		case s == free:
			if t.state.CompareAndSwap(free, taken) {
				return true
			}
		case s >= mark || t.state.CompareAndSwap(s, mark):
			return false
		}
	}
}

// Seize waits for the turn; only the regular may.
func (t *Turn) Seize() {
	for !t.TakeOrWant() {
		<-t.bell
	}
}

// Heard clears the calls that came so far: the driver is about to look for
// what they were about.
func (t *Turn) Heard() { t.state.CompareAndSwap(called, taken) }

// Leave gives the turn back, to the regular if it wants it. False: there was
// a call since Heard; the driver still has the turn, and looks again or hands
// over.
func (t *Turn) Leave() bool {
	if t.state.CompareAndSwap(taken, free) {
		return true
	}
	if t.state.CompareAndSwap(called, taken) {
		return false
	}
	t.HandOver() // taken can become called, and both wanted; wanted stays
	return true
}

// HandOver gives the turn back and rings for the regular.
func (t *Turn) HandOver() {
	t.state.Store(free)
	t.Ring()
}
