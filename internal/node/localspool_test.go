package node_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/front/admin"
)

// spoolDepth is how many messages a node's spool has yet to bring to the cluster; -1: it
// has no spool.
func (c *trio) spoolDepth(i int) int {
	c.t.Helper()
	code, text := c.ask("GET", "http://"+c.nodes[i].Addrs().HTTP+"/stats?format=json")
	var s struct{ Spool *struct{ Depth int } }
	if err := json.Unmarshal([]byte(text), &s); code != http.StatusOK || err != nil {
		c.t.Fatalf("stats: %d %s %v", code, text, err)
	}
	if s.Spool == nil {
		return -1
	}
	return s.Spool.Depth
}

// spoolShown is a node's spool as the admin API of node i shows it; nil: there is none.
func (c *trio) spoolShown(i int, node string) *admin.Spool {
	c.t.Helper()
	a := &api{c.t, "http://" + c.nodes[i].Addrs().Admin, readContract(c.t)}
	var d admin.NodeDetail
	a.ok("GET", "/api/v1/nodes/"+node, "", &d)
	return d.Spool
}

// With ack local a node takes publishes though it is alone, also to a topic that it
// does not know if that is its default, keeps them when it stops, and brings them to
// the cluster in order and once.
func TestAckLocal(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.startAll()
	c.until(0, "all is well", healthy)
	const at, each = 2, 30
	if d := c.spoolDepth(at); d != -1 {
		t.Errorf("a spool of %d messages that nobody has asked for", d)
	}
	c.post(at, "/topic/create?topic=orders&ack=local", "", http.StatusOK)
	sent := 0
	publish := func() {
		for range each {
			c.publish(at, "orders", fmt.Sprint(sent))
			sent++
		}
	}
	publish()
	c.stop(0)
	c.stop(1)
	publish() // nobody else is there
	if d := c.spoolDepth(at); d < each {
		t.Errorf("%d messages in the spool, want %d at least", d, each)
	}
	eventually(t, "the node tells of its spool, and what it waits for", func() bool {
		s := c.spoolShown(at, c.names[at])
		return s != nil && s.Depth >= each && s.OldestAgeMs > 0 && s.Bytes > 0 && s.LimitBytes == 1<<30 && !s.Connected && s.Error != ""
	})
	c.stop(at)
	c.tune = func(cfg *config.Config) { cfg.Ack = "local" }
	c.startAll()
	publish()
	c.stop(0)
	c.stop(1)
	for i := range each {
		c.publish(at, "bills", fmt.Sprint(i)) // no topic of that name was ever made
	}
	c.start(0)
	c.serves(c.start(1))
	c.serves(c.nodes[0])
	eventually(t, "all is brought to the cluster", func() bool { return c.spoolDepth(at) == 0 })
	eventually(t, "any node tells that it was brought", func() bool {
		s := c.spoolShown(0, c.names[at])
		return s != nil && s.Depth == 0 && s.Forwarded >= each && s.Connected && s.Error == ""
	})
	if s := c.spoolShown(0, c.names[0]); s != nil {
		t.Errorf("a spool that nobody has asked for: %+v", s)
	}
	c.expect("orders", sent)
	c.expect("bills", each)
}

// A spool that is full refuses, and says so.
func TestAckLocalFull(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.tune = func(cfg *config.Config) { cfg.Ack, cfg.SpoolSize = "local", 1<<20 }
	c.startAll()
	c.publish(2, "orders", "first")
	eventually(t, "it is brought to the cluster", func() bool { return c.spoolDepth(2) == 0 })
	c.stop(0)
	c.stop(1)
	big := string(make([]byte, 100<<10))
	for end := time.Now().Add(time.Minute); ; {
		resp, err := http.Post("http://"+c.nodes[2].Addrs().HTTP+"/pub?topic=orders", "", strings.NewReader(big))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode == http.StatusServiceUnavailable && strings.Contains(string(text), "SPOOL_FULL") {
			break
		}
		if resp.StatusCode != http.StatusOK || time.Now().After(end) {
			t.Fatalf("a publish is answered with %d %s", resp.StatusCode, text)
		}
	}
}
