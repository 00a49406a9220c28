//go:build linux

package node_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// keyedPublisher publishes under keys of its own, some ahead of the answers, until it
// is told to stop.
type keyedPublisher struct {
	name string
	w    *rig.Wire
	stop chan struct{}
	sent int
	err  error
}

const (
	publisherKeys  = 4
	publisherAhead = 32
)

func (p *keyedPublisher) run(topic string) {
	room := make(chan struct{}, publisherAhead)
	answered := make(chan error, 1)
	left := make(chan int, 1)
	go func() {
		want := -1
		for n := 0; n != want; {
			select {
			case want = <-left:
				continue
			default:
			}
			if want < 0 && len(room) == 0 { // nothing to read
				time.Sleep(100 * time.Microsecond)
				continue
			}
			kind, data, err := p.w.Read()
			if err != nil || kind == rig.FrameError {
				answered <- fmt.Errorf("answer %d of %s: %s %w", n, p.name, data, err)
				return
			}
			if string(data) == "OK" {
				n++
				<-room
			}
		}
		answered <- nil
	}()
	next := make([]int, publisherKeys)
	for going := true; going; {
		select {
		case <-p.stop:
			going = false
		case p.err = <-answered:
			return
		case room <- struct{}{}:
			k := p.sent % publisherKeys
			key := fmt.Sprintf("%s-%d", p.name, k)
			fmt.Fprintf(p.w.W, "PUB %s key=%s\n", topic, key)
			p.w.Sized(fmt.Appendf(nil, "%s/%d", key, next[k]))
			if p.err = p.w.W.Flush(); p.err != nil {
				return
			}
			next[k]++
			p.sent++
		}
	}
	left <- p.sent
	p.err = <-answered
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

	stop := make(chan struct{})
	var all sync.WaitGroup
	var publishers []*keyedPublisher
	for i := range 6 {
		p := &keyedPublisher{name: fmt.Sprintf("p%d", i), w: c.dial(i % 3), stop: stop}
		publishers = append(publishers, p)
		all.Go(func() { p.run("orders") })
	}
	more := func(n int) {
		from := got.count()
		eventually(t, "messages go on", func() bool { return got.count() >= from+n })
	}
	more(100)
	for step, count := range []int{3, 12} {
		c.post(step, fmt.Sprintf("/topic/partitions?topic=orders&partitions=%d", count), "", http.StatusOK)
		more(200)
	}
	close(stop)
	all.Wait()
	sent := 0
	for _, p := range publishers {
		if p.err != nil {
			t.Errorf("publisher %s: %v", p.name, p.err)
		}
		sent += p.sent
	}
	eventually(t, "all is consumed", func() bool { return got.count() >= sent })
	if n := got.count(); n != sent {
		t.Errorf("%d messages for %d", n, sent)
	}
	if keys := got.inOrder(t); keys != 6*publisherKeys {
		t.Errorf("%d keys", keys)
	}
	for i, end := range c.ends("orders") {
		if i > 0 && end == 0 {
			t.Logf("nothing went to partition %d", i)
		}
	}
	eventually(t, "the figures say so", func() bool {
		count, depth, _, waiting := c.sums("orders")
		return count == int64(sent) && depth == 0 && waiting == int64(sent) // of the idle channel
	})
}
