package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/plant"
	"github.com/tidings-io/tidings/internal/record"
)

// Part is a part of a topic's queue for one partition upstream: what an Ingest of
// package broker is, with the origin as its session.
type Part struct {
	Topic     string
	Partition int
	Origin    Origin
	From, To  uint64
	Messages  []Message // in order, of positions from From up to To
}

// Upstream is where a spool is forwarded to.
type Upstream interface {
	// Forward appends a part, once however often it is given, and makes the topic on
	// first use. It returns how many partitions the topic has. fault.OutOfOrder: the
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

// Forwarder brings what a spool holds upstream.
type Forwarder struct {
	spool    *Spool
	upstream Upstream
	log      *slog.Logger
	origin   Origin

	messages, failures atomic.Uint64
	reachable          atomic.Bool

	mu    sync.Mutex // guards the following
	ready chan struct{}
	list  []*flow // have something to do, each once
	flows map[*topic]*flow
	// failing are the flows whose last attempt failed, and why; last is the one that
	// failed last.
	failing map[*flow]error
	last    *flow
}

// flow is a topic being forwarded. A worker has it, or the list, or a timer, or
// nobody; what is not listed below is the worker's.
type flow struct {
	t    *topic
	busy bool // under Forwarder.mu: somebody has it
	more bool // under Forwarder.mu: it has got something to do meanwhile

	// next is how far each partition has come, by their number; nil: not known.
	next     []uint64
	upstream int // partitions that the topic has now; 0: not known
	backOff  time.Duration
	refused  fault.Code // that was logged last
}

// NewForwarder makes the forwarder of a spool that does not run yet.
func NewForwarder(s *Spool, up Upstream, log *slog.Logger) *Forwarder {
	f := &Forwarder{spool: s, upstream: up, log: log, origin: s.origin, ready: make(chan struct{}, workers), flows: make(map[*topic]*flow), failing: make(map[*flow]error)}
	if log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	if plant.On("spool-twice") {
		f.origin = newOrigin() // with every start: upstream can't know what it has
	}
	s.bell = f.add
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
	for _, t := range f.spool.all() {
		if f.spool.depth(t) > 0 {
			f.add(t)
		}
	}
	g, working := errgroup.WithContext(ctx)
	for range workers {
		g.Go(func() error { return f.work(working) })
	}
	if err := g.Wait(); ctx.Err() == nil {
		return err
	}
	return nil // the log may have ended first
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
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

// take takes a flow off the list.
func (f *Forwarder) take(ctx context.Context) *flow {
	for {
		f.mu.Lock()
		if len(f.list) > 0 {
			fl := f.list[0]
			f.list = slices.Delete(f.list, 0, 1)
			fl.more = false
			f.mu.Unlock()
			return fl
		}
		f.mu.Unlock()
		select {
		case <-f.ready:
		case <-ctx.Done():
			return nil
		}
	}
}

// work forwards windows of whatever topic is next.
func (f *Forwarder) work(ctx context.Context) error {
	for {
		fl := f.take(ctx)
		if fl == nil {
			return nil
		}
		more, err := f.step(ctx, fl)
		if ctx.Err() != nil {
			return nil
		}
		if bad := (*spoolError)(nil); errors.As(err, &bad) {
			return err
		}
		f.note(fl, err)
		if err != nil {
			fl.backOff = min(max(2*fl.backOff, backOffFirst), backOffMax)
			time.AfterFunc(fl.backOff, func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.enlist(fl)
			})
			continue
		}
		fl.backOff = 0
		f.mu.Lock()
		if fl.busy = more || fl.more; fl.busy {
			f.enlist(fl)
		}
		f.mu.Unlock()
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

// spoolError is an error of the spool itself.
type spoolError struct{ err error }

func (e *spoolError) Error() string { return e.err.Error() }
func (e *spoolError) Unwrap() error { return e.err }

// step brings one window of a topic upstream, and reports whether there may be more.
func (f *Forwarder) step(ctx context.Context, fl *flow) (more bool, err error) {
	floor, durable, spread := f.spool.progress(fl.t)
	if floor == durable {
		return false, nil
	}
	if err := f.settle(ctx, fl, floor, durable, spread); err != nil {
		return false, err
	}
	w, err := f.spool.window(fl.t)
	if err != nil {
		return false, &spoolError{err}
	}
	for p := range fl.next {
		if fl.next[p] >= w.to {
			continue
		}
		if err := f.give(ctx, fl, p, &w); err != nil {
			if fault.CodeOf(err) == fault.OutOfOrder {
				fl.next = nil // it is found out how far each has come
			}
			return false, err
		}
	}
	f.spool.advance(fl.t, &w)
	f.messages.Add(uint64(len(w.msgs)))
	return true, nil
}

// settle finds out how far each partition has come, and takes another number of
// partitions up at a position that none of them has passed.
func (f *Forwarder) settle(ctx context.Context, fl *flow, floor, durable uint64, spread int) error {
	if spread == 0 {
		if err := f.spread(fl, 1); err != nil {
			return err
		}
		spread = 1
	}
	if len(fl.next) != spread {
		var next []uint64
		for p := 0; p < spread; p++ {
			at, err := f.locate(ctx, fl, p, floor, durable)
			if err != nil {
				return err
			}
			next = append(next, at)
			if fl.upstream < spread { // the topic has been made anew
				spread = fl.upstream
				if err := f.spread(fl, spread); err != nil {
					return err
				}
			}
		}
		fl.next = next
	}
	now := fl.upstream
	if now == 0 || now == spread || now > spread && slices.Max(fl.next) > floor {
		return nil
	}
	next := fl.next[:min(now, spread)]
	for p := spread; p < now; p++ {
		at, err := f.locate(ctx, fl, p, floor, durable)
		if err != nil {
			return err
		}
		next = append(next, at)
	}
	if err := f.spread(fl, now); err != nil {
		return err
	}
	fl.next = next
	return nil
}

func (f *Forwarder) spread(fl *flow, partitions int) error {
	if err := f.spool.spread(fl.t, partitions); err != nil {
		return &spoolError{err}
	}
	return nil
}

// give brings a partition its messages of a window.
func (f *Forwarder) give(ctx context.Context, fl *flow, p int, w *window) error {
	part := f.part(fl, p, fl.next[p], w.to)
	for i := int(part.From - w.from); i < len(w.msgs); i++ {
		if partitionOf(w.names[i], len(fl.next)) == p {
			part.Messages = append(part.Messages, w.msgs[i])
		}
	}
	if err := f.forward(ctx, fl, part); err != nil {
		return err
	}
	fl.next[p] = w.to
	return nil
}

func (f *Forwarder) part(fl *flow, p int, from, to uint64) *Part {
	return &Part{Topic: fl.t.name, Partition: p, Origin: f.origin, From: from, To: to}
}

func (f *Forwarder) forward(ctx context.Context, fl *flow, p *Part) error {
	n, err := f.upstream.Forward(ctx, p)
	if err != nil {
		return fmt.Errorf("forward topic %s: %w", p.Topic, err)
	}
	if n < 1 || n > partitionsMax {
		return fault.New(fault.InvalidRequest, "forward topic %s: upstream says that it has %d partitions", p.Topic, n)
	}
	fl.upstream = n
	return nil
}

// partitionOf is the partition, among n, of what a name decides on, or nothing does: as
// broker.Publish chooses.
func partitionOf(name []byte, n int) int {
	if n == 1 || name == nil {
		return 0
	}
	return int(record.Murmur2(name)&0x7fffffff) % n
}

// locate finds how far a partition has come, which is at floor or beyond: whatever is
// below is upstream. A partition that does not know the origin, because it is new, or
// the topic was made anew, or it has seen too many origins since, is told that.
func (f *Forwarder) locate(ctx context.Context, fl *flow, p int, floor, durable uint64) (uint64, error) {
	err := f.forward(ctx, fl, f.part(fl, p, 0, floor))
	if fault.CodeOf(err) == fault.OutOfOrder {
		err = f.skip(ctx, fl, p, floor)
	}
	if err != nil {
		return 0, err
	}
	// Most often it is at floor, or a window beyond it: look near floor first.
	low, high := floor, durable+1
	for step := uint64(1); low+step < high; step *= 2 {
		done, err := f.reached(ctx, fl, p, low+step)
		switch {
		case err != nil:
			return 0, err
		case !done:
			high = low + step
		default:
			low += step
		}
	}
	return f.between(ctx, fl, p, low, high)
}

// between finds how far a partition has come: to low, and not to high.
func (f *Forwarder) between(ctx context.Context, fl *flow, p int, low, high uint64) (uint64, error) {
	for low+1 < high {
		middle := low + (high-low)/2
		done, err := f.reached(ctx, fl, p, middle)
		if err != nil {
			return 0, err
		}
		if done {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// skip brings a partition to floor that remembers less: upstream has lost what it had
// answered for, and so is what the spool let go of.
func (f *Forwarder) skip(ctx context.Context, fl *flow, p int, floor uint64) error {
	at, err := f.between(ctx, fl, p, 0, floor)
	if err != nil {
		return err
	}
	f.log.Error("upstream has lost messages that it had taken", "topic", fl.t.name, "partition", p, "messages", floor-at)
	return f.forward(ctx, fl, f.part(fl, p, at, floor))
}

// reached asks whether a partition has come to a position.
func (f *Forwarder) reached(ctx context.Context, fl *flow, p int, position uint64) (bool, error) {
	err := f.forward(ctx, fl, f.part(fl, p, position, position))
	if fault.CodeOf(err) == fault.OutOfOrder {
		return false, nil
	}
	return err == nil, err
}
