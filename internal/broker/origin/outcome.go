package origin

import (
	"cmp"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// Outcome is what a publisher is to be told.
type Outcome struct {
	Completion partition.Completion // may be nil
	Base       int64
	Err        error
	// Publish has the publish back that was refused with fault.Moved, as Add got it;
	// nil: it was not, or nobody wants it back (partition.Publish.Moved). It comes
	// behind the outcomes of all that was added before it.
	Publish *partition.Publish
}

// Tell tells the publisher.
func (o *Outcome) Tell() {
	switch {
	case o.Publish != nil:
		o.Publish.Moved(o.Publish)
	case o.Completion != nil:
		o.Completion.Published(o.Base, o.Err)
	}
}

// settle gives a publish its answer.
func (g *Origin) settle(e *entry, base int64, err error) {
	e.settled = true
	g.bytes -= e.bytes
	e.outcome = Outcome{Completion: e.done, Base: base, Err: err}
	if e.moved != nil && err != nil && fault.CodeOf(err) == fault.Moved {
		e.outcome = Outcome{Err: err, Publish: &partition.Publish{
			Topic: e.topic, Partition: e.partition, Messages: e.messages, Done: e.done,
			AckLeader: e.ackLeader, Mapping: e.mapping, Moved: e.moved,
		}}
		at, _ := slices.BinarySearchFunc(g.moved, e, func(x, e *entry) int { return cmp.Compare(x.added, e.added) })
		g.moved = slices.Insert(g.moved, at, e)
	}
	e.messages = nil
	switch {
	case e.local > 0:
		g.lingering = append(g.lingering, e)
	case e.outcome.Publish == nil:
		g.tell(e)
	}
}

// unlinger is called when the machine has answered the last copy of a publish that
// had its outcome.
func (g *Origin) unlinger(e *entry) {
	g.lingering = slices.DeleteFunc(g.lingering, func(x *entry) bool { return x == e })
	if e.outcome.Completion != nil {
		g.tell(e)
	}
}

func (g *Origin) tell(e *entry) {
	g.outcomes = append(g.outcomes, e.outcome)
	e.outcome = Outcome{}
}

// tellMoved gives back what was refused with fault.Moved, as far as all that was
// added before has been told.
func (g *Origin) tellMoved() {
	n := 0
	for n < len(g.moved) && !g.awaited(g.moved[n]) {
		g.tell(g.moved[n])
		n++
	}
	g.moved = slices.Delete(g.moved, 0, n)
}

// awaited reports whether a publish that was added before e, or a copy of e itself,
// is still out.
func (g *Origin) awaited(e *entry) bool {
	return slices.ContainsFunc(g.lingering, upTo(e.added)) || g.queued(e.added-1)
}

// upTo selects the first n publishes that were added.
func upTo(n uint64) func(*entry) bool { return func(e *entry) bool { return e.added <= n } }

// queued reports whether one of the first n publishes that were added has no answer.
func (g *Origin) queued(n uint64) bool {
	for _, e := range g.queue {
		if e.added > n {
			return false
		}
		if !e.settled {
			return true
		}
	}
	return false
}

// Added counts the publishes that Add has taken, those included that RefuseLocal took
// out again.
func (g *Origin) Added() uint64 { return g.added }

// Answered reports whether the first n publishes that were added have all been among
// the Outcomes, or will be with the next: none of them is queued, the machine of this
// node has a copy of none, and none waits to be given back.
func (g *Origin) Answered(n uint64) bool {
	if len(g.moved) > 0 {
		g.tellMoved()
	}
	return !g.queued(n) && !slices.ContainsFunc(g.lingering, upTo(n)) && !slices.ContainsFunc(g.moved, upTo(n))
}

// Outcomes moves what publishers are to be told behind dst.
func (g *Origin) Outcomes(dst []Outcome) []Outcome {
	if len(g.moved) > 0 {
		g.tellMoved()
	}
	dst = append(dst, g.outcomes...)
	clear(g.outcomes)
	g.outcomes = g.outcomes[:0]
	return dst
}
