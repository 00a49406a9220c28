package node_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/config"
)

// found is what a node's lookup says of a topic: where its producers speak NSQ.
func (c *trio) found(i int, topic string) (nodes []string) {
	c.t.Helper()
	code, text := c.ask("GET", "http://"+c.nodes[i].Addrs().LookupHTTP+"/lookup?topic="+topic)
	if code != http.StatusOK {
		c.t.Fatalf("look up %s: %d %s", topic, code, text)
	}
	var answer struct {
		Producers []struct {
			TCP string `json:"remote_address"`
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		c.t.Fatal(err)
	}
	for _, p := range answer.Producers {
		nodes = append(nodes, p.TCP)
	}
	return nodes
}

func (c *trio) ask(method, at string) (int, string) {
	c.t.Helper()
	req, err := http.NewRequest(method, at, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// untilFound waits until nodes name the same producers of a topic.
func (c *trio) untilFound(topic string, want []string, at ...int) {
	c.t.Helper()
	want = slices.Sorted(slices.Values(want))
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		all := true
		var last []string
		for _, i := range at {
			last = c.found(i, topic)
			sorted := slices.Sorted(slices.Values(last))
			all = all && slices.Equal(sorted, want)
		}
		if all {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("want %v, got %v", want, last)
		}
	}
}

// Every member names all live members that hold a topic, and a tombstone that
// is set at one is known to all.
func TestClusterLookup(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.startAll()
	c.until(0, "it is healthy", healthy)
	var all []string
	for _, n := range c.nodes {
		all = append(all, n.Addrs().TCP)
	}
	if code, text := c.ask("POST", "http://"+c.nodes[1].Addrs().LookupHTTP+"/topic/create?topic=orders"); code != http.StatusOK {
		t.Fatal(code, text)
	}
	for i := range c.nodes { // each has to have heard of the topic
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			if _, text := c.ask("GET", "http://"+c.nodes[i].Addrs().LookupHTTP+"/topics"); strings.Contains(text, "orders") {
				break
			}
			if time.Now().After(end) {
				t.Fatal("a member does not know the topic")
			}
		}
	}
	c.untilFound("orders", all, 0, 1, 2)
	if code, text := c.ask("POST", "http://"+c.nodes[2].Addrs().LookupHTTP+"/channel/create?topic=orders&channel=audit"); code != http.StatusOK {
		t.Fatal(code, text)
	}
	for i := range c.nodes {
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			_, text := c.ask("GET", "http://"+c.nodes[i].Addrs().LookupHTTP+"/channels?topic=orders")
			if text == `{"channels":["audit"]}` {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s says %s", c.names[i], text)
			}
		}
	}
	var texts []string
	for _, n := range c.nodes {
		_, text := c.ask("GET", "http://"+n.Addrs().LookupHTTP+"/nodes")
		texts = append(texts, text)
	}
	if texts[0] != texts[1] || texts[1] != texts[2] {
		t.Errorf("they answer differently:\n%s", strings.Join(texts, "\n"))
	}

	// nsqadmin asks one lookup for the tombstone, then the node for the deletion
	node := c.nodes[2].Addrs()
	if code, text := c.ask("POST", "http://"+c.nodes[0].Addrs().LookupHTTP+"/topic/tombstone?topic=orders&node="+url.QueryEscape(node.HTTP)); code != http.StatusOK {
		t.Fatal(code, text)
	}
	for i := range c.nodes {
		if got := c.found(i, "orders"); len(got) != 2 || slices.Contains(got, node.TCP) {
			t.Errorf("with a tombstone %s says %v", c.names[i], got)
		}
	}
	if code, text := c.ask("POST", "http://"+node.HTTP+"/topic/delete?topic=orders"); code != http.StatusOK || text != "" {
		t.Errorf("%d %s", code, text)
	}
	if code, _ := c.ask("GET", "http://"+node.LookupHTTP+"/lookup?topic=orders"); code != http.StatusOK {
		t.Errorf("the topic is gone: %d", code)
	}

	c.stop(1)
	if c.log.has("was not told that this node leaves") { // a busy machine
		c.untilFound("orders", all[:1], 0, 2)
	}
	for _, i := range []int{0, 2} { // it has said so before it went: nobody waits for its lease
		if got := c.found(i, "orders"); !slices.Equal(got, all[:1]) {
			t.Errorf("without a member %s says %v", c.names[i], got)
		}
	}
	// one that comes back is told of what was set meanwhile, and is named again
	if code, text := c.ask("POST", "http://"+c.nodes[0].Addrs().LookupHTTP+"/topic/tombstone?topic=orders&node="+url.QueryEscape(c.nodes[0].Addrs().HTTP)); code != http.StatusOK {
		t.Fatal(code, text)
	}
	c.serves(c.start(1))
	c.untilFound("orders", []string{c.nodes[1].Addrs().TCP}, 0, 1, 2)
}

// What a member knows alone, all of them say: its place in the topology, and the
// ephemeral channels of its consumers.
func TestClusterLookupOfOthers(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.tune = func(cfg *config.Config) { cfg.TopologyRegion, cfg.TopologyZone = "r-"+cfg.Node, "z-"+cfg.Node }
	c.startAll()
	c.until(0, "it is healthy", healthy)
	same := func(path, want string) {
		t.Helper()
		for i, n := range c.nodes {
			for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
				code, text := c.ask("GET", "http://"+n.Addrs().LookupHTTP+path)
				if code == http.StatusOK && strings.Contains(text, want) {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%s says %s, want %s", c.names[i], text, want)
				}
			}
		}
	}
	for _, name := range c.names {
		same("/nodes", `"topology_zone":"z-`+name+`","topology_region":"r-`+name+`"`)
	}
	if code, text := c.ask("POST", "http://"+c.nodes[1].Addrs().LookupHTTP+"/channel/create?topic=orders&channel=audit"); code != http.StatusOK {
		t.Fatal(code, text)
	}
	tails := make([]net.Conn, 2)
	for i := range tails {
		tails[i] = subscribe(t, c.nodes[i].Addrs().TCP, "orders", "tail#ephemeral")
	}
	other := subscribe(t, c.nodes[2].Addrs().TCP, "orders", "other#ephemeral")
	defer other.Close()
	same("/channels?topic=orders", `{"channels":["audit","other#ephemeral","tail#ephemeral"]}`)
	tails[0].Close()
	same("/lookup?topic=orders", `{"channels":["audit","other#ephemeral","tail#ephemeral"]`)
	tails[1].Close()
	same("/channels?topic=orders", `{"channels":["audit","other#ephemeral"]}`)
}

// subscribe is a consumer that takes nothing.
func subscribe(t *testing.T, addr, topic, channel string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(conn, "  V2SUB "+topic+" "+channel+"\n"); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 10)
	if _, err := io.ReadFull(conn, answer); err != nil || string(answer[8:]) != "OK" {
		t.Fatalf("%q %v", answer, err)
	}
	conn.SetDeadline(time.Time{})
	return conn
}
