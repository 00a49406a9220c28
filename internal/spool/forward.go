package spool

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/plant"
)

// Part is a part of a topic's queue for one partition upstream: what an Ingest of
// package broker is, with the origin as its session.
type Part struct {
	Topic     string
	Partition int
	Origin    Origin
	// Spread is how many partitions the topic has, as far as this spool knows; 0: it
	// does not.
	Spread   int
	From, To uint64
	Messages []Message // in order, of positions from From up to To
}

// Upstream is where a spool is forwarded to.
type Upstream interface {
	// Forward appends a part, once however often it is given, and makes the topic on
	// first use. It returns how many partitions the topic has: fewer than Spread only
	// if it has been made anew since. fault.OutOfOrder: the
	// partition has not come to From, or is beyond it and not at To; nothing was
	// done. After any other error the outcome is unknown.
	Forward(ctx context.Context, p *Part) (partitions int, err error)
}

const (
	// workers is how many topics are forwarded at the same time.
	workers = 8
	// backOffFirst and backOffMax space the attempts of a topic that can't be
	// forwarded.
	backOffFirst = 50 * time.Millisecond
	backOffMax   = 2 * time.Second
)

// Forwarder brings what a spool holds upstream. It is a step machine: Next and Answer
// do all there is to do, and whoever calls them has the goroutines, the clock and the
// network; Run is such a one.
type Forwarder struct {
	spool    *Spool
	upstream Upstream
	log      *slog.Logger
	origin   Origin

	messages, failures atomic.Uint64
	reachable          atomic.Bool

	ready chan struct{} // has something while the list may have

	mu    sync.Mutex // guards the following
	list  []*flow    // have something to do, each once
	late  []*flow    // rest because an attempt failed
	flows map[*topic]*flow
	// failing are the flows whose last attempt failed, and why; last is the one that
	// failed last.
	failing map[*flow]error
	last    *flow
}

// NewForwarder makes the forwarder of a spool that does not run yet. up and log may be
// nil: without up there is no Run, and without log silence.
func NewForwarder(s *Spool, up Upstream, log *slog.Logger) *Forwarder {
	f := &Forwarder{spool: s, upstream: up, log: log, origin: s.origin, ready: make(chan struct{}, workers), flows: make(map[*topic]*flow), failing: make(map[*flow]error)}
	if log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if plant.On("spool-twice") {
		f.origin = newOrigin() // with every start: upstream can't know what it has
	}
	s.bell = f.add
	for _, t := range s.all() {
		if s.depth(t) > 0 {
			f.add(t)
		}
	}
	return f
}

// ForwarderStats counts since the process started.
type ForwarderStats struct {
	Messages  uint64 // brought upstream
	Failures  uint64 // attempts that failed
	Connected bool   // the last attempt did not fail
	// Err is why a topic is not forwarded now, of several the one that was tried last;
	// nil: all are, or nothing was tried.
	Err error
}

// Stats tells how things are.
func (f *Forwarder) Stats() ForwarderStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return ForwarderStats{f.messages.Load(), f.failures.Load(), f.reachable.Load(), f.failing[f.last]}
}

// Run forwards until ctx ends, or the spool can't be read.
func (f *Forwarder) Run(ctx context.Context) error {
	g, working := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error { return f.work(working) })
	}
	if err := g.Wait(); ctx.Err() == nil {
		return err
	}
	return nil // the log may have ended first
}

// work gives parts upstream, one after the other, of whatever topic is next.
func (f *Forwarder) work(ctx context.Context) error {
	for {
		c, err := f.Next(time.Now())
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case c == nil:
			select {
			case <-f.ready:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		n, err := f.upstream.Forward(ctx, c.Part)
		if ctx.Err() != nil {
			return nil
		}
		if rest := f.Answer(c, n, err, time.Now()); rest > 0 {
			time.AfterFunc(rest, f.ring)
		}
	}
}

func (f *Forwarder) ring() {
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// Call is a part on its way upstream.
type Call struct {
	Part *Part
	fl   *flow
}

// Next is a part to be given upstream now, of which Answer is to be told the outcome;
// nil when there is none. Of a topic one part is under way at most, of several topics
// as many. The error is the spool's: it can't be read or written any more. It may wait
// for a disk to read, and for nothing else.
func (f *Forwarder) Next(now time.Time) (*Call, error) {
	for fl := f.take(now); fl != nil; fl = f.take(now) {
		part, err := f.proceed(fl)
		if err != nil {
			return nil, err
		}
		if part != nil {
			return &Call{Part: part, fl: fl}, nil
		}
	}
	return nil, nil
}

// Answer takes the outcome of a call, as Upstream.Forward has it. It returns for how
// long the topic rests now because it failed, or 0: Next has nothing of it before.
func (f *Forwarder) Answer(c *Call, partitions int, err error, now time.Time) (rest time.Duration) {
	fl := c.fl
	switch {
	case err != nil:
		err = fmt.Errorf("forward topic %s: %w", c.Part.Topic, err)
	case partitions < 1 || partitions > partitionsMax:
		err = fault.New(fault.InvalidRequest, "forward topic %s: upstream says that it has %d partitions", c.Part.Topic, partitions)
	default:
		fl.upstream = partitions
	}
	if err = f.answered(fl, err); err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.list = slices.Insert(f.list, 0, fl) // what has read its window is done first
		f.ring()
		return 0
	}
	fl.try = attempt{}
	f.note(fl, err)
	fl.backOff = min(max(2*fl.backOff, backOffFirst), backOffMax)
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.due = now.Add(fl.backOff)
	f.late = append(f.late, fl)
	return fl.backOff
}

// add notes that a topic has something to forward. It never waits.
func (f *Forwarder) add(t *topic) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl := f.flows[t]
	if fl == nil {
		fl = &flow{t: t}
		f.flows[t] = fl
	}
	if fl.busy {
		fl.more = true
		return
	}
	fl.busy = true
	f.enlist(fl)
}

// enlist puts a flow on the list. f.mu is held.
func (f *Forwarder) enlist(fl *flow) {
	f.list = append(f.list, fl)
	f.ring()
}

// take takes a flow off the list; nil when none has anything to do.
func (f *Forwarder) take(now time.Time) *flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late = slices.DeleteFunc(f.late, func(fl *flow) bool {
		if fl.due.After(now) {
			return false
		}
		f.enlist(fl)
		return true
	})
	if len(f.list) == 0 {
		return nil
	}
	fl := f.list[0]
	f.list = slices.Delete(f.list, 0, 1)
	fl.more = false
	return fl
}

// end is the end of an attempt that did not fail. more: there may be more to forward.
func (f *Forwarder) end(fl *flow, more bool) {
	fl.try = attempt{}
	f.note(fl, nil)
	fl.backOff = 0
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl.busy = more || fl.more; fl.busy {
		f.enlist(fl)
	}
}

// note counts and logs how an attempt ended: what changes is said once.
func (f *Forwarder) note(fl *flow, err error) {
	f.remember(fl, err)
	if err == nil {
		if !f.reachable.Swap(true) {
			f.log.Info("upstream takes messages")
		}
		if fl.refused != fault.None {
			f.log.Info("topic is forwarded again", "topic", fl.t.name)
		}
		fl.refused = fault.None
		return
	}
	f.failures.Add(1)
	code := fault.CodeOf(err)
	if again(code) {
		if f.reachable.Swap(false) || f.failures.Load() == 1 {
			f.log.Warn("upstream does not take messages; they stay in the spool", "error", err)
		}
		return
	}
	if code != fl.refused {
		fl.refused = code
		f.log.Error("upstream refuses a topic; its messages stay in the spool", "topic", fl.t.name, "error", err)
	}
}

// remember keeps why a topic is not forwarded until it is.
func (f *Forwarder) remember(fl *flow, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failing[fl], f.last = err, fl
		return
	}
	delete(f.failing, fl)
	if f.last == fl {
		f.last = nil
		for other := range f.failing {
			f.last = other
			break
		}
	}
}

// again reports whether a failure is one of the network or of a moment, and not of
// the topic.
func again(c fault.Code) bool {
	switch c {
	case fault.NotLeader, fault.Unreachable, fault.Overloaded, fault.Exiting, fault.Timeout, fault.Deleting, fault.OutOfOrder:
		return true
	}
	return false
}
