package delivery

import "time"

// arm sets the channel's timer to fire at the given unix ns at the latest. An
// earlier setting stays: it fires, finds nothing, and sets the timer anew.
func (c *Channel) arm(at int64) {
	if c.closed != nil || (c.armedAt != 0 && c.armedAt <= at) {
		return
	}
	c.armedAt = at
	d := time.Duration(max(at-c.now(), 0))
	if c.timer == nil {
		c.timer = c.cfg.AfterFunc(d, c.onTimer)
		return
	}
	c.timer.Reset(d)
}

// onTimer handles everything that is due and sets the timer to the next.
func (c *Channel) onTimer() {
	c.mu.Lock()
	defer c.unlock()
	if c.closed != nil {
		return
	}
	now := c.now()
	c.armedAt = 0
	for _, s := range c.subs {
		if s != nil {
			s.expire(now)
		}
	}
	for _, l := range c.lanes {
		if l.retryAt != 0 && l.retryAt <= now {
			l.retryAt = 0
		}
	}
	c.expireClaims(now)
	c.ring()
	if next := c.nextTimer(); next != 0 {
		c.arm(next)
	}
}

// nextTimer is the earliest unix ns at which something is to be done; 0: never.
func (c *Channel) nextTimer() int64 {
	next := c.claimsAt
	earlier := func(at int64) {
		if at != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	for _, s := range c.subs {
		if s != nil && s.inFlight.head != 0 {
			earlier(c.slots.slots[s.inFlight.head].deadline)
		}
		if s != nil && s.pulled.head != 0 {
			earlier(c.slots.slots[s.pulled.head].deadline)
		}
	}
	for _, l := range c.lanes {
		earlier(l.retryAt)
	}
	return next
}

// expireClaims gives up claims that have stood for claimPatience or more: made
// before the claims were looked at last.
func (c *Channel) expireClaims(now int64) {
	if c.claimsAt == 0 || c.claimsAt > now {
		return
	}
	c.claimsAt = 0
	for _, s := range c.subs {
		if s != nil && s.claim > 0 && s.claimEpoch != c.claimsEpoch {
			s.unclaim()
		}
	}
	c.claimsEpoch++
	if c.claimed > 0 {
		c.claimsAt = now + int64(claimPatience)
	}
}
