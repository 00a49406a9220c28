//go:build !linux

package bench

import "time"

func fineTimer() {}

func snooze(d time.Duration) { time.Sleep(d) }
