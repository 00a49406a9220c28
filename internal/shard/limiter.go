package shard

import (
	"context"
	"sync"
	"time"
)

// DefaultSendRate is what a node sends to replicas that catch up, in bytes per
// second, where nothing else is said.
const DefaultSendRate = 64 << 20

// Limiter bounds what goes out to replicas that catch up, so that the node's
// clients and the other replicas are not starved. One is shared by all groups of
// a node. A nil Limiter bounds nothing.
type Limiter struct {
	rate int64 // bytes per second

	mu   sync.Mutex
	free time.Time // when all that was let through has gone out at that rate
}

// limiterSlack is how far the limiter lets a sender get ahead: about what fits
// into one wake-up of a busy machine.
const limiterSlack = 20 * time.Millisecond

// NewLimiter returns a Limiter of that many bytes per second; nil, which bounds
// nothing, for 0 or less.
func NewLimiter(bytesPerSecond int64) *Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &Limiter{rate: bytesPerSecond}
}

// Wait waits until n bytes more may be sent, or ctx ends, whose error it returns.
// Who comes first goes first. Any goroutine.
func (l *Limiter) Wait(ctx context.Context, n int) error {
	if l == nil {
		return ctx.Err()
	}
	now := time.Now()
	l.mu.Lock()
	if l.free.Before(now) {
		l.free = now
	}
	wait := l.free.Sub(now) - limiterSlack
	l.free = l.free.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	l.mu.Unlock()
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
