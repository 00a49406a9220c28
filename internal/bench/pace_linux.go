package bench

import (
	"time"

	"golang.org/x/sys/unix"
)

// fineTimer lets the calling thread's sleeps end within microseconds instead of
// the usual 50.
func fineTimer() {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // coarser sleeps are measured as lateness
}

// snooze sleeps in the kernel: the runtime's timers are rounded to a
// millisecond when nothing else goes on.
func snooze(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil) // a signal ends it early; the caller looks at the clock
}
