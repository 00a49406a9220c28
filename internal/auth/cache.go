package auth

import (
	"context"
	"sync"
	"time"
)

// entriesMax bounds how many clients' grants a Cache keeps.
const entriesMax = 4096

// Cache keeps the grants of clients that have no connection to keep them in,
// such as those of HTTP, until they expire. What fails is not kept. Requests of
// one client that come together ask once.
type Cache struct {
	client *Client

	mu      sync.Mutex
	entries map[Who]*entry
}

// entry is a question that is being asked, or its answer.
type entry struct {
	done   chan struct{} // closed when the following are set
	grants *Grants
	err    error
}

// NewCache makes an empty cache of what client answers.
func NewCache(client *Client) *Cache {
	return &Cache{client: client, entries: make(map[Who]*entry)}
}

// Grants returns a client's grants, which have not expired or have just come.
// The error is Client.Ask's, or ctx's.
func (c *Cache) Grants(ctx context.Context, w Who) (*Grants, error) {
	for {
		e, mine := c.entry(w)
		if mine {
			c.fill(ctx, w, e)
		}
		select {
		case <-e.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch {
		case e.err != nil:
			return nil, e.err
		case mine || time.Now().Before(e.grants.Expires):
			return e.grants, nil
		}
		c.drop(w, e)
	}
}

// entry is the client's; mine says that the caller has to fill it.
func (c *Cache) entry(w Who) (e *entry, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e = c.entries[w]; e != nil {
		return e, false
	}
	if len(c.entries) >= entriesMax {
		c.makeRoom()
	}
	e = &entry{done: make(chan struct{})}
	c.entries[w] = e
	return e, true
}

// makeRoom drops what has expired, or else anything that is not being asked.
func (c *Cache) makeRoom() {
	now, before := time.Now(), len(c.entries)
	var some Who
	for w, e := range c.entries {
		select {
		case <-e.done:
			some = w
			if e.err != nil || !now.Before(e.grants.Expires) {
				delete(c.entries, w)
			}
		default:
		}
	}
	if len(c.entries) == before {
		delete(c.entries, some)
	}
}

// fill asks. It goes on when the request that began it is gone: others may wait
// for the answer, and the client's timeouts end it.
func (c *Cache) fill(ctx context.Context, w Who, e *entry) {
	e.grants, e.err = c.client.Ask(context.WithoutCancel(ctx), w)
	if e.err != nil {
		c.drop(w, e)
	}
	close(e.done)
}

// drop takes an entry out, unless another is in its place.
func (c *Cache) drop(w Who, e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[w] == e {
		delete(c.entries, w)
	}
}
