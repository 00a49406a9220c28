package broker

import (
	"errors"
	"sync"
)

// countdown calls its function when n things are done, with their errors.
type countdown struct {
	then func(error)

	mu   sync.Mutex
	left int
	errs []error
}

func newCountdown(n int, then func(error)) *countdown {
	if n == 0 {
		then(nil)
	}
	return &countdown{then: then, left: n}
}

// done notes one of the n; the last one calls then.
func (c *countdown) done(err error) {
	c.mu.Lock()
	c.errs = append(c.errs, err)
	c.left--
	last := c.left == 0
	c.mu.Unlock()
	if last {
		c.then(errors.Join(c.errs...))
	}
}
