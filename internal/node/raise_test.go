//go:build linux

package node_test

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"

	"github.com/tidings-io/tidings/internal/front/admin"
	"github.com/tidings-io/tidings/test/rig"
)

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
	var got rig.Ordered
	consumer := c.dial(1)
	if err := consumer.Subscribe("orders", "audit", 1); err != nil {
		t.Fatal(err)
	}
	go got.Consume(consumer)
	defer func() {
		if t.Failed() {
			c.standing("orders", "audit")
		}
	}()

	const publishers, keys, part = 6, 3, 60
	raises := []int{3, 12}
	begin := make([]chan struct{}, len(raises)+2) // of the parts; the last is behind all raises
	for i := range begin {
		begin[i] = make(chan struct{})
	}
	var all sync.WaitGroup
	for i := range publishers {
		p := rig.NewKeyed(c.dial(i%3), "orders", fmt.Sprintf("p%d", i), keys, 16)
		all.Go(func() {
			for n := range begin {
				<-begin[n]
				if err := p.Publish(part); err != nil {
					t.Errorf("publisher %s: %v", p.Name, err)
				}
			}
		})
	}
	came := func(n int) func() bool {
		return func() bool { count, _ := got.Count(); return count >= n }
	}
	admins := &api{t, "http://" + c.nodes[2].Addrs().Admin, readContract(t)}
	close(begin[0])
	for i, count := range raises {
		eventually(t, "some is consumed", came(20*(i+1)))
		close(begin[i+1])
		if i == 0 {
			c.post(1, fmt.Sprintf("/topic/partitions?topic=orders&partitions=%d", count), "", http.StatusOK)
		} else {
			admins.ok("PATCH", "/api/v1/topics/orders", fmt.Sprintf(`{"partitions": %d}`, count), nil)
		}
	}
	var d admin.TopicDetail
	eventually(t, "another node knows", func() bool {
		admins.ok("GET", "/api/v1/topics/orders", "", &d)
		return d.Active == 12 && len(d.Partitions) == 12
	})
	admins.refused("PATCH", "/api/v1/topics/orders", `{"partitions": 12000}`, http.StatusBadRequest, "INVALID_REQUEST")
	c.post(0, "/topic/partitions?topic=orders&partitions=11", "", http.StatusBadRequest)
	close(begin[len(raises)+1])
	all.Wait()
	total := publishers * part * len(begin)
	for !came(total)() { // it may take long, but it goes on
		was, _ := got.Count()
		eventually(t, "more is consumed", came(min(was+20, total)))
	}
	if count, repeats := got.Count(); count != total || repeats != 0 || got.Keys() != publishers*keys {
		t.Errorf("%d messages of %d keys for %d of %d, and %d once more", count, got.Keys(), total, publishers*keys, repeats)
	}
	for _, p := range got.Problems() {
		t.Error(p)
	}
	eventually(t, "the figures say so", func() bool {
		depth, waiting := c.sums("orders")
		return depth == 0 && waiting == int64(total) // of the idle channel
	})
}

// standing logs where a channel stands, for a test that has failed.
func (c *trio) standing(topic, channel string) {
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
