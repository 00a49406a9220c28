//go:build linux

package node_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/front/admin"
	"github.com/tidings-io/tidings/test/rig"
)

// post posts to a node's HTTP API and expects a status.
func (c *trio) post(i int, path, body string, want int) {
	c.t.Helper()
	resp, err := http.Post("http://"+c.nodes[i].Addrs().HTTP+path, "text/plain", strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		text, _ := io.ReadAll(resp.Body)
		c.t.Fatalf("%s: %s answers %d %s, want %d", c.names[i], path, resp.StatusCode, text, want)
	}
}

// ends are the ends of a topic's partitions, once all are known.
func (c *trio) ends(topic string) (ends []int64) {
	c.t.Helper()
	a := &api{c.t, "http://" + c.nodes[0].Addrs().Admin, readContract(c.t)}
	eventually(c.t, "all partitions are known", func() bool {
		var d admin.TopicDetail
		a.ok("GET", "/api/v1/topics/"+topic, "", &d)
		ends = ends[:0]
		for _, p := range d.Partitions {
			if !p.Known { // its leader may just be moving
				return false
			}
			ends = append(ends, p.End)
		}
		return len(ends) > 0
	})
	return ends
}

// dial opens a connection to a node.
func (c *trio) dial(i int) *rig.Wire {
	c.t.Helper()
	w, err := rig.Dial(c.nodes[i].Addrs().TCP, "client", 0)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(w.Close)
	return w
}

// sums adds up what the nodes say of a topic: what waits in it, and what its channels
// have not finished.
func (c *trio) sums(topic string) (depth, waiting int64) {
	c.t.Helper()
	for i := range c.names {
		resp, err := http.Get("http://" + c.nodes[i].Addrs().HTTP + "/stats?format=json&topic=" + topic)
		if err != nil {
			c.t.Fatal(err)
		}
		var s rig.Stats
		err = json.NewDecoder(resp.Body).Decode(&s)
		resp.Body.Close()
		if err != nil || len(s.Topics) != 1 {
			c.t.Fatalf("%s: %v, %+v", c.names[i], err, s)
		}
		depth += s.Topics[0].Depth
		for _, ch := range s.Topics[0].Channels {
			waiting += ch.Unfinished()
		}
	}
	return depth, waiting
}

// A topic of several partitions: the key decides where a message goes, a connection
// without keys stays in one partition, requests go round; consumers anywhere get all
// of it, and what the nodes say of it adds up.
func TestTopicOfSeveralPartitions(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.tune = func(cfg *config.Config) { cfg.DefaultPartitions = 3 }
	c.startAll()
	c.until(0, "all is well", healthy)
	c.post(1, "/topic/create?topic=orders&partitions=6", "", http.StatusOK)
	c.post(2, "/topic/create?topic=orders&partitions=6", "", http.StatusOK)
	c.post(2, "/topic/create?topic=orders&partitions=5", "", http.StatusBadRequest)
	c.post(0, "/topic/create?topic=other&partitions=0", "", http.StatusBadRequest)
	c.post(0, "/topic/create?topic=live%23ephemeral&partitions=2", "", http.StatusBadRequest)
	for _, name := range c.names {
		c.post(0, "/channel/create?topic=orders&channel=at-"+name, "", http.StatusOK)
	}
	w := c.dial(1)
	for range 5 {
		if err := w.Publish("orders", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	at := -1
	for i, end := range c.ends("orders") {
		if end == 5 && at < 0 {
			at = i
		} else if end != 0 {
			t.Fatalf("a connection's messages went to several partitions: %v", c.ends("orders"))
		}
	}
	c.post(2, "/topic/empty?topic=orders", "", http.StatusOK)
	for _, name := range c.names {
		c.post(2, "/channel/empty?topic=orders&channel=at-"+name, "", http.StatusOK)
	}
	for i := range 12 {
		c.post(i%3, "/pub?topic=round", "x", http.StatusOK)
	}
	for i, end := range c.ends("round") {
		if end == 0 {
			t.Errorf("nothing went to partition %d: %v", i, c.ends("round"))
		}
	}
	c.keyed()
}

// keyed publishes under keys at all nodes and consumes at all of them.
func (c *trio) keyed() {
	t := c.t
	t.Helper()
	const keys, each = 24, 10
	before := c.ends("orders")
	var all sync.WaitGroup
	for k := range keys {
		p := rig.NewKeyed(c.dial(k%3), "orders", fmt.Sprintf("k%d", k), 1, each)
		all.Go(func() {
			if err := p.Publish(each); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i, end := range c.ends("orders") {
		if got := end - before[i]; got%each != 0 {
			t.Errorf("partition %d got %d messages: a key's went to several", i, got)
		}
	}
	eventually(t, "before consumers all wait in the channels", func() bool { // a partition that moves is in no node's figures, or in two
		depth, waiting := c.sums("orders")
		return depth == 0 && waiting == 3*keys*each
	})
	everywhere := make([]rig.Ordered, len(c.names))
	for i := range c.names {
		w := c.dial(i)
		if err := w.Subscribe("orders", "at-"+c.names[i], 1); err != nil {
			t.Fatal(err)
		}
		go everywhere[i].Consume(w)
	}
	for i := range everywhere {
		got := &everywhere[i]
		for consumed := 0; consumed < keys*each; { // it may take long, but it goes on
			eventually(t, "more is consumed", func() bool {
				count, _ := got.Count()
				return count >= min(consumed+10, keys*each)
			})
			consumed, _ = got.Count()
		}
		if count, repeats := got.Count(); count != keys*each || repeats != 0 || len(got.Problems()) > 0 {
			t.Errorf("%s: %d messages for %d, %d of them again; %v", c.names[i], count, keys*each, repeats, got.Problems())
		}
	}
	eventually(t, "the figures say so", func() bool {
		depth, waiting := c.sums("orders")
		return depth == 0 && waiting == 0
	})
}
