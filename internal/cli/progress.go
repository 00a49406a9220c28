package cli

import (
	"fmt"
	"io"
	"time"
)

// progress shows on a terminal how far a long piece of work is.
type progress struct {
	w     io.Writer // nil: nobody looks
	total int       // 0: not known
	start time.Time
	shown time.Time // zero: nothing on the line yet
}

// newProgress shows nothing unless w is a terminal and the work takes over a
// second.
func newProgress(w io.Writer, total int) *progress {
	p := &progress{total: total, start: time.Now()}
	if isTerminal(w) {
		p.w = w
	}
	return p
}

// at says how much is done.
func (p *progress) at(done int) {
	now := time.Now()
	if p.w == nil || now.Sub(p.start) < time.Second || now.Sub(p.shown) < time.Second/4 {
		return
	}
	p.shown = now
	rate := float64(done) / now.Sub(p.start).Seconds()
	line := fmt.Sprintf("%d messages, %.0f/s", done, rate)
	if p.total > 0 && rate > 0 {
		left := time.Duration(float64(p.total-done) / rate * float64(time.Second))
		line = fmt.Sprintf("%d of %d messages, %.0f/s, %s left", done, p.total, rate, left.Round(time.Second))
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", line)
}

// end clears the line.
func (p *progress) end() {
	if !p.shown.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
