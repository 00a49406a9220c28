package bench

import (
	"context"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// loop is one publisher in a closed loop: a new command is sent when an older
// one has been answered.
type loop struct {
	p        Publisher
	bodies   *bodies
	count    int // messages
	batch    int
	inFlight int // commands
	until    time.Time
	progress *Progress
	answers  *hdrhistogram.Histogram // from send to answer; nil: not wanted; inFlight must be 1
	gate     func(ctx context.Context, next int) error
	turn     func() // before each command; nil: nothing
}

// run publishes until the count or the moment is reached, and returns how many
// messages were acknowledged.
func (l *loop) run(ctx context.Context) (acked int, err error) {
	timed := l.answers != nil || !l.until.IsZero()
	sent, waiting := 0, make([]int, 0, l.inFlight)
	for {
		var now time.Time
		if timed {
			now = time.Now()
		}
		more := sent < l.count && (l.until.IsZero() || now.Before(l.until))
		if !more && len(waiting) == 0 {
			return acked, nil
		}
		if more {
			n := min(l.batch, l.count-sent)
			if l.gate != nil {
				if err := l.gate(ctx, sent+n); err != nil {
					return acked, err
				}
			}
			if err := l.send(n, now); err != nil {
				return acked, cause(ctx, err)
			}
			sent += n
			waiting = append(waiting, n)
		}
		if len(waiting) < l.inFlight && more {
			continue
		}
		if err := l.p.Await(); err != nil {
			return acked, cause(ctx, err)
		}
		if l.answers != nil {
			record(l.answers, int64(time.Since(now)))
		}
		acked += waiting[0]
		l.progress.add(waiting[0])
		waiting = append(waiting[:0], waiting[1:]...)
	}
}

func (l *loop) send(n int, now time.Time) error {
	if l.turn != nil {
		l.turn()
	}
	var stamp int64
	if !now.IsZero() {
		stamp = now.UnixNano()
	}
	if err := l.p.Send(l.bodies.next(n, stamp)); err != nil {
		return err
	}
	return l.p.Flush()
}

// cause prefers the reason for which a context ended to what it broke.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
