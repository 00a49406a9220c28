package transport

import (
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"
)

// quiet logs what may come again and again: the same about the same at most every
// quietFor, with the number of times that were left out.
type quiet struct {
	log *slog.Logger

	mu   sync.Mutex
	last map[string]said
}

type said struct {
	at   time.Time
	left int
}

const (
	quietFor = 30 * time.Second
	quietMax = 256 // things remembered
)

func newQuiet(log *slog.Logger) *quiet { return &quiet{log: log, last: make(map[string]said)} }

// warn logs text about something with an error that may be nil.
func (q *quiet) warn(text, about string, err error, more ...any) {
	reason := reasonOf(err)
	left, ok := q.due(text + "\x00" + about + "\x00" + reason)
	if !ok {
		return
	}
	args := append([]any{"peer", about}, more...)
	if reason != "" {
		args = append(args, "error", reason)
	}
	if left > 0 {
		args = append(args, "repeated", left)
	}
	q.log.Warn(text, args...)
}

func (q *quiet) due(key string) (left int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	s, known := q.last[key]
	if known && now.Sub(s.at) < quietFor {
		s.left++
		q.last[key] = s
		return 0, false
	}
	if !known && len(q.last) >= quietMax {
		clear(q.last)
	}
	q.last[key] = said{at: now}
	return s.left, true
}

// reasonOf is the text of an error without what differs each time: the ports
// of connections.
func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op != "dial" && op.Err != nil {
		return strings.ReplaceAll(err.Error(), op.Error(), op.Op+": "+op.Err.Error())
	}
	return err.Error()
}
