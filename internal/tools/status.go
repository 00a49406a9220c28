package tools

import (
	"log"
	"slices"
	"sync"
	"time"
)

// status logs how long requests take, once for so many of them. It is safe for
// concurrent use.
type status struct {
	every  int // 0: never
	prefix string
	log    *log.Logger

	mu   sync.Mutex
	took []time.Duration
}

// note counts a request.
func (s *status) note(took time.Duration) {
	if s == nil || s.every <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = append(s.took, took)
	if len(s.took) < s.every {
		return
	}
	slices.Sort(s.took)
	var sum time.Duration
	for _, d := range s.took {
		sum += d
	}
	n := len(s.took)
	s.log.Printf("%s finished %d - 99th: %.02fms - 95th: %.02fms - avg: %.02fms", s.prefix, n,
		millis(s.took[(n-1)*99/100]), millis(s.took[(n-1)*95/100]), millis(sum)/float64(n))
	s.took = s.took[:0]
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// statuses has one status for each destination, if there are several, and one
// for all.
type statuses struct {
	each []*status
	all  *status
}

func newStatuses(every int, addrs []string, l *log.Logger) statuses {
	s := statuses{each: make([]*status, len(addrs)), all: &status{every: every, prefix: "[aggregate]:", log: l}}
	if len(addrs) > 1 {
		for i, a := range addrs {
			s.each[i] = &status{every: every, prefix: "[" + a + "]:", log: l}
		}
	}
	return s
}
