package shard

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever sends, all together send as much as they may, and rest is not saved up.
func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(1 << 20)
		send := func(senders, chunks int) time.Duration {
			began := time.Now()
			var wg sync.WaitGroup
			for range senders {
				wg.Go(func() {
					for range chunks {
						if err := l.Wait(t.Context(), 64<<10); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			return time.Since(began)
		}
		for range 2 { // 10 MiB; the last chunk is under way when its sender goes on
			if d := send(4, 40); d < 9900*time.Millisecond || d > 10*time.Second {
				t.Errorf("10 MiB took %s", d)
			}
			time.Sleep(time.Minute)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Wait(ctx, 1<<30); err != nil {
			t.Error(err)
		}
		if err := l.Wait(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it waited for %v", err)
		}
	})
}

func TestNoLimiter(t *testing.T) {
	l := NewLimiter(0)
	for range 1000 {
		if err := l.Wait(t.Context(), 1<<40); err != nil {
			t.Fatal(err)
		}
	}
}
