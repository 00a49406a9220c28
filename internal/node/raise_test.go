//go:build linux

package node_test

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/tidings-io/tidings/test/rig"
)

// keyedPublisher publishes under keys of its own, some ahead of the answers. Before
// its part n it waits for parts[n].
type keyedPublisher struct {
	name  string
	w     *rig.Wire
	parts []chan struct{}
}

const (
	publisherKeys  = 3
	publisherAhead = 16
	publisherPart  = 60 // messages
)

// run publishes all parts.
func (p *keyedPublisher) run(topic string) error {
	room := make(chan struct{}, publisherAhead)
	total := publisherPart * len(p.parts)
	answered := make(chan error, 1)
	go func() {
		for n := range total {
			kind, data, err := p.w.Read()
			if err != nil || kind != rig.FrameResponse {
				answered <- fmt.Errorf("answer %d: %s %w", n, data, err)
				return
			}
			<-room
		}
		answered <- nil
	}()
	for n := range total {
		if n%publisherPart == 0 {
			<-p.parts[n/publisherPart]
		}
		select {
		case room <- struct{}{}:
		case err := <-answered:
			return err
		}
		key := fmt.Sprintf("%s-%d", p.name, n%publisherKeys)
		fmt.Fprintf(p.w.W, "PUB %s key=%s\n", topic, key)
		p.w.Sized(fmt.Appendf(nil, "%s/%d", key, n/publisherKeys))
		if err := p.w.W.Flush(); err != nil {
			return err
		}
	}
	return <-answered
}

// The number of partitions rises while publishers at all nodes go on: a consumer of
// one message at a time gets each key's messages in order, each once.
func TestRaiseUnderKeyedLoad(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.startAll()
	c.until(0, "all is well", healthy)
	c.post(0, "/topic/create?topic=orders", "", http.StatusOK)
	c.post(0, "/channel/create?topic=orders&channel=audit", "", http.StatusOK)
	c.post(0, "/channel/create?topic=orders&channel=idle", "", http.StatusOK)
	var got taken
	consumer := c.dial(1)
	if err := consumer.Subscribe("orders", "audit", 1); err != nil {
		t.Fatal(err)
	}
	go got.take(consumer)
	defer func() {
		if t.Failed() {
			c.standing("orders", "audit", got.count())
		}
	}()

	raises := []int{3, 12}
	parts := make([]chan struct{}, len(raises)+2) // the last is behind all raises
	for i := range parts {
		parts[i] = make(chan struct{})
	}
	var all sync.WaitGroup
	const publishers = 6
	for i := range publishers {
		p := &keyedPublisher{fmt.Sprintf("p%d", i), c.dial(i % 3), parts}
		all.Go(func() {
			if err := p.run("orders"); err != nil {
				t.Errorf("publisher %s: %v", p.name, err)
			}
		})
	}
	close(parts[0])
	for i, count := range raises {
		eventually(t, "some is consumed", func() bool { return got.count() >= 20*(i+1) })
		close(parts[i+1])
		c.post(i, fmt.Sprintf("/topic/partitions?topic=orders&partitions=%d", count), "", http.StatusOK)
	}
	close(parts[len(raises)+1])
	all.Wait()
	total := publishers * publisherPart * len(parts)
	for got.count() < total { // it may take long, but it goes on
		was := got.count()
		eventually(t, "more is consumed", func() bool { return got.count() >= min(was+20, total) })
	}
	if n := got.count(); n != total {
		t.Errorf("%d messages for %d", n, total)
	}
	if keys := got.inOrder(t); keys != publishers*publisherKeys {
		t.Errorf("%d keys", keys)
	}
	eventually(t, "the figures say so", func() bool {
		depth, waiting := c.sums("orders")
		return depth == 0 && waiting == int64(total) // of the idle channel
	})
}

// standing logs where a channel stands, for a test that has failed.
func (c *trio) standing(topic, channel string, got int) {
	c.t.Logf("%d messages came", got)
	for i := range c.names {
		resp, err := http.Get("http://" + c.nodes[i].Addrs().Admin + "/api/v1/topics/" + topic + "/channels/" + channel)
		if err != nil {
			c.t.Log(err)
			continue
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		c.t.Logf("%s: %s", c.names[i], text)
	}
}
