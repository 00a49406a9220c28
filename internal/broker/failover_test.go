package broker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/origin"
)

// stream is what one node publishes, and what it was told.
type stream struct {
	node uint64
	told []error // by number
}

// publishUntil publishes numbers, some of them under way at once, until ctx ends.
func (c *clusterRig) publishUntil(ctx context.Context, s *stream) error {
	type answer struct {
		at  int
		err error
	}
	answers := make(chan answer, 64)
	waiting, next := 0, 0
	m := c.node(s.node)
	for ctx.Err() == nil || waiting > 0 {
		if waiting < 16 && ctx.Err() == nil {
			at := next
			body := fmt.Appendf(nil, "%d-%d", s.node, at)
			err := m.Publish("orders", []broker.Message{{Body: body}}, completionFunc(func(err error) { answers <- answer{at, err} }))
			next++
			s.told = append(s.told, errNoAnswer)
			if err == nil {
				waiting++
				continue
			}
			s.told[at] = err
		}
		select {
		case a := <-answers:
			waiting--
			if s.told[a.at] != errNoAnswer { //nolint:errorlint // our own
				return fmt.Errorf("node %d, publish %d: answered twice", s.node, a.at)
			}
			s.told[a.at] = a.err
		case <-time.After(30 * time.Second):
			return fmt.Errorf("node %d: %d publishes are not answered", s.node, waiting)
		}
	}
	return nil
}

var errNoAnswer = errors.New("no answer")

type completionFunc func(error)

func (f completionFunc) Published(_ int64, err error) { f(err) }

// TestFailovers: whatever happens to the leader, what is acknowledged is there once
// and in order, and what is refused for certain is not.
func TestFailovers(t *testing.T) {
	t.Parallel()
	c := withTopic(t, 1)
	one := c.node(1)
	one.ok(one.CreateChannel(one.ctx(), "orders", "audit"))
	s := c.shardOf("orders")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var publishers errgroup.Group
	streams := []*stream{{node: 1}, {node: 2}, {node: 3}}
	for _, x := range streams {
		publishers.Go(func() error { return c.publishUntil(ctx, x) })
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 6 {
		leader := c.leaderOf(s)
		if i%3 == 2 { // cut it off, until another one leads
			c.setCut(leader, true)
			c.until("another one leads", func() bool {
				for id := uint64(1); id <= 3; id++ {
					if id != leader && c.node(id).groups[s].Leader() {
						return true
					}
				}
				return false
			})
			c.setCut(leader, false)
			continue
		}
		c.leads(s, 1+(leader+uint64(r.IntN(2)))%3)
	}
	cancel()
	if err := publishers.Wait(); err != nil {
		t.Fatal(err)
	}
	c.check(s, streams)
}

func (c *clusterRig) leaderOf(s uint32) (leader uint64) {
	c.until("there is a leader", func() bool {
		for id := uint64(1); id <= 3; id++ {
			if c.node(id).groups[s].Leader() {
				leader = id
				return true
			}
		}
		return false
	})
	return leader
}

// check reads the topic at its leader and compares it with what publishers know.
func (c *clusterRig) check(s uint32, streams []*stream) {
	c.t.Helper()
	m := c.node(c.leaderOf(s))
	m.publish("orders", "end")
	consumer := m.subscribe("orders", "audit", 2000)
	last := map[uint64]int{1: -1, 2: -1, 3: -1}
	seen := make(map[string]bool)
	var bodies []string
	for len(bodies) == 0 || bodies[len(bodies)-1] != "end" {
		bodies = append(bodies, consumer.take(1)...)
	}
	for _, body := range bodies[:len(bodies)-1] {
		if seen[body] {
			c.t.Errorf("%s came twice", body)
		}
		seen[body] = true
		var node uint64
		var at int
		if _, err := fmt.Sscanf(body, "%d-%d", &node, &at); err != nil {
			c.t.Fatalf("%q: %v", body, err)
		}
		if at < last[node] {
			c.t.Errorf("%s came behind %d", body, last[node])
		}
		last[node] = at
	}
	acknowledged, unknown := 0, 0
	for _, x := range streams {
		for at, err := range x.told {
			body := fmt.Sprintf("%d-%d", x.node, at)
			switch {
			case err == nil:
				acknowledged++
				if !seen[body] {
					c.t.Errorf("%s is acknowledged and lost", body)
				}
			case errors.Is(err, origin.ErrUnknown):
				unknown++
			case seen[body]:
				c.t.Errorf("%s was refused (%v) and came", body, err)
			}
		}
	}
	c.t.Logf("%d acknowledged, %d unknown, %d seen", acknowledged, unknown, len(seen))
	if acknowledged == 0 {
		c.t.Error("nothing was acknowledged")
	}
}
