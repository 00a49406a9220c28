package delivery

import (
	"slices"

	"github.com/tidings-io/tidings/internal/broker/offsets"
)

// addSkip adds a range at or above the cursor to what the cursor skips. Nearly
// always it is the highest one.
func (l *Lane) addSkip(r offsets.Range) {
	r.From = max(r.From, l.cursor)
	if r.From >= r.To {
		return
	}
	at, _ := slices.BinarySearchFunc(l.skip, r.From, func(x offsets.Range, from int64) int {
		if x.To < from {
			return -1
		}
		return 1
	})
	end := at
	for end < len(l.skip) && l.skip[end].From <= r.To {
		r.From, r.To = min(r.From, l.skip[end].From), max(r.To, l.skip[end].To)
		l.skipped -= l.skip[end].To - l.skip[end].From
		end++
	}
	l.skip = slices.Replace(l.skip, at, end, r)
	l.skipped += r.To - r.From
}

// dropLag gives up the oldest messages when more than Config.MaxLag wait.
func (l *Lane) dropLag() {
	c := l.ch
	if c.cfg.MaxLag <= 0 || l.backlog() <= c.cfg.MaxLag {
		return
	}
	for l.backlog() > c.cfg.MaxLag {
		to := min(l.cursor+l.backlog()-c.cfg.MaxLag, l.limit)
		if len(l.skip) > 0 {
			to = min(to, max(l.skip[0].From, l.cursor))
		}
		c.dropped += uint64(to - l.cursor)
		l.forgetLoose(l.cursor, to)
		l.finishRange(l.cursor, to)
		l.moveTo(to)
		l.jumpSkip()
	}
}
