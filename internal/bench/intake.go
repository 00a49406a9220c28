package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// graceTime is how long consumers stay after the last expected message, for
// one that should not come.
const graceTime = 100 * time.Millisecond

// intake is the consumers of a run, on one channel or more.
type intake struct {
	progress *Progress
	ledgers  []*ledger
	open     atomic.Int64  // channels that are not complete
	whole    chan struct{} // closed when open falls to 0
	failed   chan error    // the first consumer's error
	moved    chan struct{} // rung after deliveries, for a publisher that waits
	stopping atomic.Bool
	wg       sync.WaitGroup

	mu        sync.Mutex
	consumers []Consumer
	last      time.Time // when the last channel became complete
}

func newIntake(p *Progress) *intake {
	return &intake{progress: p, whole: make(chan struct{}), failed: make(chan error, 1), moved: make(chan struct{}, 1)}
}

// observer sees every message for the first time it comes, with the moment of
// its arrival in Unix nanoseconds.
type observer func(s stamp, arrived int64)

// add books one more channel. All channels are added before consumers start.
func (in *intake) add(l *ledger) {
	in.ledgers = append(in.ledgers, l)
	in.open.Add(1)
}

// consume starts one consumer, of several servers one at each, on a channel of
// its own ledger.
func (in *intake) consume(ctx context.Context, t Target, topic, channel string, l *ledger, window int, o observer) error {
	in.add(l)
	n := 1
	if t, ok := t.(wide); ok {
		n = t.everywhere()
	}
	for range n {
		if err := in.join(ctx, t, topic, channel, l, window, o); err != nil {
			return err
		}
	}
	return nil
}

// join starts a consumer on a channel whose ledger was added.
func (in *intake) join(ctx context.Context, t Target, topic, channel string, l *ledger, window int, o observer) error {
	c, err := t.Consumer(ctx, topic, channel, window)
	if err != nil {
		return fmt.Errorf("connect consumer: %w", err)
	}
	in.start(c, l, o)
	return nil
}

// start reads a connected consumer until the intake is closed.
func (in *intake) start(c Consumer, l *ledger, o observer) {
	in.mu.Lock()
	in.consumers = append(in.consumers, c)
	in.mu.Unlock()
	in.wg.Go(func() {
		if err := in.read(c, l, o); !in.stopping.Load() {
			select {
			case in.failed <- err:
			default:
			}
		}
	})
}

// read hands on what comes until the consumer fails or is closed.
func (in *intake) read(c Consumer, l *ledger, o observer) error {
	v := l.view()
	var each func(stamp)
	var arrived int64
	if o != nil {
		each = func(s stamp) { o(s, arrived) }
	}
	var ms []Message
	for {
		var err error
		ms, err = c.Receive(ms[:0])
		if o != nil {
			arrived = time.Now().UnixNano()
		}
		before := l.complete()
		v.take(ms, each)
		if err != nil {
			return err
		}
		if err := c.Finish(ms); err != nil {
			return err
		}
		in.progress.add(len(ms))
		if !before && l.complete() {
			l.once.Do(in.channelDone)
		}
		select {
		case in.moved <- struct{}{}:
		default:
		}
	}
}

func (in *intake) channelDone() {
	if in.open.Add(-1) > 0 {
		return
	}
	in.mu.Lock()
	in.last = time.Now()
	in.mu.Unlock()
	close(in.whole)
}

// delivered is how many different messages have come, over all channels.
func (in *intake) delivered() int64 {
	var n int64
	for _, l := range in.ledgers {
		n += l.unique.Load()
	}
	return n
}

// slowest is how many messages the channel that is furthest behind has got.
func (in *intake) slowest() int64 {
	n := int64(-1)
	for _, l := range in.ledgers {
		if u := l.unique.Load(); n < 0 || u < n {
			n = u
		}
	}
	return n
}

// errStalled is a publisher that waited for consumers in vain; the ledgers know
// more.
var errStalled = errors.New("deliveries have stopped")

// wait returns when every channel is complete, or nothing has come for as long
// as patience; then the ledgers tell what is missing.
func (in *intake) wait(ctx context.Context, patience time.Duration) error {
	tick := time.NewTicker(min(patience, time.Second) / 4)
	defer tick.Stop()
	seen, since := in.delivered(), time.Now()
	for {
		select {
		case <-in.whole:
			return sleep(ctx, graceTime)
		case err := <-in.failed:
			return cause(ctx, fmt.Errorf("consume: %w", err))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			if n := in.delivered(); n != seen {
				seen, since = n, time.Now()
			} else if time.Since(since) >= patience {
				return nil
			}
		}
	}
}

// ended is when the last channel became complete; now if none did.
func (in *intake) ended() time.Time {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.last.IsZero() {
		return time.Now()
	}
	return in.last
}

// close ends all consumers. It may be called twice.
func (in *intake) close() {
	in.stopping.Store(true)
	in.mu.Lock()
	for _, c := range in.consumers {
		_ = c.Close() // it is read no more
	}
	in.mu.Unlock()
	in.wg.Wait()
}

// verdict closes the consumers and adds up what the ledgers found.
func (in *intake) verdict() Verdict {
	in.close()
	var v Verdict
	for _, l := range in.ledgers {
		v = v.add(l.verdict())
	}
	return v
}
