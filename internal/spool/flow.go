package spool

import (
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/plant"
	"github.com/tidings-io/tidings/internal/record"
)

// flow is a topic being forwarded. Who took it off the list has it, until its call is
// answered, or the log has written, or it goes to sleep; what is not listed below is
// theirs.
type flow struct {
	t    *topic
	busy bool      // under Forwarder.mu: it is listed, late, or somebody has it
	more bool      // under Forwarder.mu: it has got something to do meanwhile
	due  time.Time // under Forwarder.mu: when the next attempt is made, if it is late

	// next is how far each partition has come, by their number; nil: not known.
	next     []uint64
	upstream int // partitions that the topic has now; 0: not known
	backOff  time.Duration
	refused  fault.Code // that was logged last
	try      attempt
}

// attempt brings one window of a topic upstream.
type attempt struct {
	stage          stage
	floor, durable uint64
	spread         int      // partitions that messages from floor on are spread over
	found          []uint64 // how far partitions have come, from the first on
	finder         *finder  // of the partition behind these; nil: it has not begun
	want           int      // of them; in stageRaise, where it is the number from floor on
	failed         error    // the log's
	w              window
	part           int // of the window, that is given to now
}

// stage is what an attempt does.
type stage uint8

const (
	stageBegin  stage = iota
	stageFind         // finds out how far each partition has come
	stageChange       // looks whether there is another number of partitions
	stageRaise        // finds out how far those that are new have come
	stageTaken        // the number is written down
	stageGive         // gives each partition its messages of a window
)

// proceed takes a flow to the next part that is to be given upstream; nil when it
// waits for the log, or has ended: somebody else may have it then.
func (f *Forwarder) proceed(fl *flow) (*Part, error) {
	a := &fl.try
	for {
		if a.failed != nil {
			return nil, a.failed
		}
		switch a.stage {
		case stageBegin:
			a.floor, a.durable, a.spread = f.spool.progress(fl.t)
			if a.floor == a.durable {
				f.end(fl, false)
				return nil, nil
			}
			a.stage = stageFind
			if a.spread == 0 {
				f.write(fl, 1)
				return nil, nil
			}
		case stageFind:
			switch {
			case len(fl.next) == a.spread:
				a.stage = stageChange
			case len(a.found) > 0 && a.finder == nil && fl.upstream < a.spread: // the topic has been made anew
				f.write(fl, fl.upstream)
				return nil, nil
			case len(a.found) < a.spread:
				return f.ask(fl), nil
			default:
				fl.next = a.found[:a.spread]
			}
		case stageChange:
			if !f.change(fl) {
				if err := f.read(fl); err != nil {
					return nil, err
				}
			}
		case stageRaise:
			if len(a.found) < a.want {
				return f.ask(fl), nil
			}
			a.stage = stageTaken
			f.write(fl, a.want)
			return nil, nil
		case stageTaken:
			fl.next = a.found
			if err := f.read(fl); err != nil {
				return nil, err
			}
		case stageGive:
			if part := f.give(fl); part != nil {
				return part, nil
			}
			f.spool.advance(fl.t, &a.w)
			f.messages.Add(uint64(len(a.w.msgs)))
			f.end(fl, true)
			return nil, nil
		}
	}
}

// answered takes what came of the part that proceed returned. An error ends the
// attempt.
func (f *Forwarder) answered(fl *flow, err error) error {
	a := &fl.try
	missing := fault.CodeOf(err) == fault.OutOfOrder
	if a.stage == stageGive {
		switch {
		case missing:
			fl.next = nil // it is found out how far each has come
		case plant.On("spool-trims-early"):
			err = nil // what was given is let go of, whoever has it
			fallthrough
		case err == nil:
			fl.next[a.part] = a.w.to
		}
		return err
	}
	x := a.finder
	if err != nil && (!missing || x.stage == findSkip) {
		return err
	}
	if x.answer(!missing); x.stage == findSkip {
		f.log.Error("upstream has lost messages that it had taken", "topic", fl.t.name, "partition", len(a.found), "messages", a.floor-x.low)
	}
	if x.found() {
		a.found, a.finder = append(a.found, x.low), nil
	}
	return nil
}

// write makes it durable that messages from floor on are spread over so many
// partitions. The flow goes on when it is: the caller does not have it any more.
func (f *Forwarder) write(fl *flow, partitions int) {
	fl.try.spread = partitions
	f.spool.spread(fl.t, partitions, func(err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		fl.try.failed = err
		f.enlist(fl)
	})
}

// ask is the next question of how far the next partition has come.
func (f *Forwarder) ask(fl *flow) *Part {
	a := &fl.try
	if a.finder == nil {
		a.finder = newFinder(a.floor, a.durable)
	}
	from, to := a.finder.question()
	return f.part(fl, len(a.found), from, to)
}

// change begins to take another number of partitions up, at a position that none of
// them has passed; false when there is none, or it is not yet time.
func (f *Forwarder) change(fl *flow) bool {
	a, now := &fl.try, fl.upstream
	if now == 0 || now == a.spread || now > a.spread && slices.Max(fl.next) > a.floor {
		return false
	}
	a.stage, a.want = stageRaise, now
	a.found = slices.Clone(fl.next[:min(now, a.spread)])
	return true
}

// read reads the window that is given next.
func (f *Forwarder) read(fl *flow) (err error) {
	fl.try.stage = stageGive
	fl.try.w, err = f.spool.window(fl.t)
	return err
}

// give is the part of the window for the next partition that has not come to its end;
// nil when all have.
func (f *Forwarder) give(fl *flow) *Part {
	a := &fl.try
	for ; a.part < len(fl.next); a.part++ {
		if fl.next[a.part] >= a.w.to {
			continue
		}
		part := f.part(fl, a.part, fl.next[a.part], a.w.to)
		for i := int(part.From - a.w.from); i < len(a.w.msgs); i++ {
			if partitionOf(a.w.names[i], len(fl.next)) == a.part {
				part.Messages = append(part.Messages, a.w.msgs[i])
			}
		}
		return part
	}
	return nil
}

func (f *Forwarder) part(fl *flow, p int, from, to uint64) *Part {
	return &Part{Topic: fl.t.name, Partition: p, Origin: f.origin, Spread: max(fl.upstream, fl.try.spread), From: from, To: to}
}

// partitionOf is the partition, among n, of what a name decides on, or nothing does: as
// broker.Publish chooses.
func partitionOf(name []byte, n int) int {
	if n == 1 || name == nil {
		return 0
	}
	return int(record.Murmur2(name)&0x7fffffff) % n
}

// finder finds how far a partition has come, which is at floor or beyond: whatever is
// below is upstream. A partition that does not know the origin, because it is new, or
// the topic was made anew, or it has seen too many origins since, is told that.
type finder struct {
	stage          findStage
	floor, durable uint64
	low, high      uint64 // it has come to low, and not to high
	step           uint64 // from low, of the search near floor
	probe          uint64 // what was asked about last
}

// findStage is what a finder does.
type findStage uint8

const (
	findClaim findStage = iota // tells the partition that all below floor was done
	findLost                   // looks for how much of that it has
	findSkip                   // brings it to floor: the rest is lost
	findNear                   // looks for how far beyond floor it is
)

func newFinder(floor, durable uint64) *finder {
	return &finder{floor: floor, durable: durable}
}

// question is what to ask: whether the partition comes from one position to the other.
func (x *finder) question() (from, to uint64) {
	switch x.stage {
	case findClaim:
		return 0, x.floor
	case findSkip:
		return x.low, x.floor
	}
	x.probe = x.low + (x.high-x.low)/2
	if x.step > 0 {
		x.probe = x.low + x.step
	}
	return x.probe, x.probe
}

// answer takes whether it does.
func (x *finder) answer(yes bool) {
	switch x.stage {
	case findClaim, findSkip:
		if yes {
			// Most often it is at floor, or a window beyond it: look near floor first.
			x.stage, x.low, x.high, x.step = findNear, x.floor, x.durable+1, 1
		} else {
			// Upstream has lost what it had answered for, and so is what the spool let
			// go of.
			x.stage, x.low, x.high = findLost, 0, x.floor
		}
	case findLost, findNear:
		if yes {
			x.low, x.step = x.probe, 2*x.step
		} else {
			x.high, x.step = x.probe, 0
		}
	}
	if x.step > 0 && x.low+x.step >= x.high {
		x.step = 0
	}
	if x.stage == findLost && x.low+1 >= x.high {
		x.stage = findSkip
	}
}

// found reports whether low is how far the partition has come.
func (x *finder) found() bool { return x.stage == findNear && x.low+1 >= x.high }
