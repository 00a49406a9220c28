package shard

import (
	"context"
	"runtime"
	"time"
)

const (
	// inlineBytes is the largest write of the log that is done by who drives
	// the group. For more it pays to let the log's own goroutine do it and to
	// build the next entry meanwhile.
	inlineBytes = 64 << 10
	// driveCommits is how many writes of the log a Drive does before it hands
	// over to Run, and driveRounds how many steps: the caller has something
	// else to do.
	driveCommits = 1
	driveRounds  = 8
)

// finishFor bounds how long Run goes on after its context ends, to apply what
// is in flight and to propose what the machine still has to say.
const (
	finishFor  = time.Second
	finishWait = 50 * time.Millisecond
)

// Wake tells the loop that Drain has something, or a Tick is due earlier.
func (g *Group) Wake() { g.turn.Call() }

// Drive is Wake for a caller that can wait for a sync of the log. When nobody
// drives the group, the caller's goroutine does: it steps, does the log's write
// and sync if the log is idle as well, and applies what that made durable, so
// that a lone proposal is answered without a hop between goroutines. It does
// this for one write; what came meanwhile is left to Run. The machine's
// callbacks may be called from within.
//
// Nothing is forgotten:
//   - What others bring while this goroutine drives is followed by a call,
//     which Leave does not pass over; see turn.Turn.
//   - What a Step has submitted without waking the log stands in submitted,
//     which who has the turn looks at after each Step: it drives the log, or
//     hands over to Run, which does.
//   - Step is called until it did nothing, so that next is true; Run is rung
//     when that is before what its timer is set for. Run sets armed while it
//     has the turn and the timer right after; when the timer has fired Run
//     asks for the turn, and sets both anew.
//   - An error is sticky: Run is rung and meets it in its next Step. Once Run
//     has ended it keeps the turn, and Drive does nothing.
func (g *Group) Drive() {
	if !g.turn.TakeOrCall() {
		return
	}
	// One of many callers lets those who are ready to run leave their work first:
	// they find the turn taken and go on, and share the sync.
	runtime.Gosched()
	commits := 0
	for range driveRounds {
		g.turn.Heard()
		did, next, err := g.Step(g.o.Clock())
		if err != nil || g.submitted && commits == driveCommits {
			break
		}
		if g.driveLog() {
			commits++
			continue
		}
		if did {
			continue
		}
		if next < g.armed || !g.turn.Leave() {
			break
		}
		return
	}
	g.turn.HandOver()
}

// driveLog lets the log go on with what Step has submitted, here if it can.
func (g *Group) driveLog() (did bool) {
	if !g.submitted {
		return false
	}
	g.submitted = false
	return g.o.WAL.Drive(inlineBytes)
}

// Run is the loop over Step. When ctx ends it finishes what is in flight, for
// at most a second, drops the rest and returns nil; the WAL must still run
// then. An error that Drive met is returned here.
func (g *Group) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var deadline int64 // unix ns; 0: not asked to end
	done := ctx.Done()
	for {
		g.turn.Seize()
		wait, ended, err := g.turns(ctx, &deadline)
		if ended {
			g.stop(err)
			return err
		}
		if deadline != 0 {
			done = nil
		}
		timer.Reset(wait)
		select {
		case <-done:
		case <-g.turn.Bell():
		case <-timer.C:
		}
	}
}

// turns steps until there is nothing to do and the turn is given back, and
// returns how long to wait then; or until the loop has ended.
func (g *Group) turns(ctx context.Context, deadline *int64) (wait time.Duration, ended bool, err error) {
	for {
		g.turn.Heard()
		now := g.o.Clock()
		did, next, err := g.Step(now)
		if err != nil {
			return 0, true, err
		}
		did = g.driveLog() || did
		if ctx.Err() != nil {
			if *deadline == 0 {
				*deadline = now + int64(finishFor)
			}
			if now >= *deadline || !did && g.finished(now, next) {
				return 0, true, nil
			}
			next = min(next, *deadline)
		}
		if did {
			continue
		}
		g.armed = next
		if g.turn.Leave() {
			return until(now, next), false, nil
		}
	}
}

// finished reports whether nothing is in flight nor due soon.
func (g *Group) finished(now, next int64) bool {
	return !g.serving || len(g.proposals) == 0 && next-now > int64(finishWait)
}

// until is the wait from now to next, at most an hour.
func until(now, next int64) time.Duration {
	if next <= now {
		return 0
	}
	return min(time.Duration(next-now), time.Hour)
}
