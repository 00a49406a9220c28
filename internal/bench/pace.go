package bench

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// pace publishes at a fixed rate, whatever the server does: an open loop.
// Messages that fell due while it was held up are sent at once, stamped with
// the moment at which they were meant to go.
type pace struct {
	p        Publisher
	bodies   *bodies
	count    int // messages
	batch    int
	every    time.Duration // between commands
	start    time.Time
	progress *Progress
	late     *hdrhistogram.Histogram // how late this process itself was
}

// run sends in one goroutine and reads the answers in another.
func (l *pace) run(ctx context.Context) error {
	commands := (l.count + l.batch - 1) / l.batch
	sent := make(chan error, 1)
	go func() { sent <- l.send(ctx, commands) }()
	for range commands {
		if err := l.p.Await(); err != nil {
			_ = l.p.Close() // the sender must not go on alone
			return cause(ctx, errors.Join(err, <-sent))
		}
	}
	return <-sent
}

func (l *pace) send(ctx context.Context, commands int) error {
	// A thread of its own lets it sleep by the kernel's fine timer. It is not
	// unlocked, so that it ends with this goroutine.
	runtime.LockOSThread()
	fineTimer()
	left := l.count
	for i := 0; i < commands; {
		now := time.Now()
		if ctx.Err() != nil {
			_ = l.p.Close() // wakes the goroutine that awaits answers
			return context.Cause(ctx)
		}
		due := l.start.Add(time.Duration(i) * l.every)
		if wait := due.Sub(now); wait > 0 {
			snooze(min(wait, 50*time.Millisecond))
			continue
		}
		for ; i < commands && !due.After(now); i++ {
			n := min(l.batch, left)
			record(l.late, int64(now.Sub(due)))
			if err := l.p.Send(l.bodies.next(n, due.UnixNano())); err != nil {
				return cause(ctx, err)
			}
			left -= n
			due = due.Add(l.every)
		}
		if err := l.p.Flush(); err != nil {
			return cause(ctx, err)
		}
	}
	return nil
}
