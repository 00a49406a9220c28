package node_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/vfs"
)

// admin asks a node's nsqadmin, and wants 200 without a warning.
func (c *trio) admin(i int, method, path, body string, to any) {
	c.t.Helper()
	req, err := http.NewRequest(method, "http://"+c.nodes[i].Addrs().NSQAdmin+path, strings.NewReader(body))
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
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(text), `"message":""`) {
		c.t.Fatalf("%s %s at %s: %d %s", method, path, c.names[i], resp.StatusCode, text)
	}
	if to != nil {
		if err := json.Unmarshal(text, to); err != nil {
			c.t.Fatal(err)
		}
	}
}

// channelSum is what nsqadmin says of a channel, all nodes together.
type channelSum struct {
	Depth        int64
	MessageCount int64 `json:"message_count"`
	Paused       bool
}

// untilSum waits until a node's nsqadmin says this of a channel.
func (c *trio) untilSum(i int, path string, want channelSum) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		var got channelSum
		c.admin(i, "GET", path, "", &got)
		if got == want {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s at %s: want %+v, got %+v", path, c.names[i], want, got)
		}
	}
}

// fill publishes to every node in turn.
func (c *trio) fill(topic string, messages int) {
	c.t.Helper()
	for i := range messages {
		resp, err := http.Post("http://"+c.nodes[i%3].Addrs().HTTP+"/pub?topic="+topic, "", strings.NewReader("kept"))
		if err != nil {
			c.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			c.t.Fatal(resp.Status)
		}
	}
}

// Every member's nsqadmin shows the whole cluster; a deletion that means one
// node's share loses nothing, and one that means all is done once without a
// complaint.
func TestClusterNSQAdmin(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.startAll()
	c.until(0, "it is healthy", healthy)
	const messages = 20
	c.admin(1, "POST", "/api/topics", `{"topic":"orders","channel":"audit"}`, nil)
	c.fill("orders", messages)
	full := channelSum{Depth: messages, MessageCount: messages}
	for i := range c.nodes {
		c.untilSum(i, "/api/topics/orders/audit", full)
		var all struct{ Nodes []json.RawMessage }
		if c.admin(i, "GET", "/api/nodes", "", &all); len(all.Nodes) != 3 {
			t.Errorf("%s shows %d nodes", c.names[i], len(all.Nodes))
		}
	}

	c.admin(0, "POST", "/api/topics/orders/audit", `{"action":"pause"}`, nil)
	full.Paused = true
	c.untilSum(2, "/api/topics/orders/audit", full)
	c.admin(0, "POST", "/api/topics/orders/audit", `{"action":"unpause"}`, nil)
	full.Paused = false
	c.untilSum(2, "/api/topics/orders/audit", full)
	c.admin(2, "POST", "/api/topics/orders/audit", `{"action":"empty"}`, nil)
	c.untilSum(1, "/api/topics/orders/audit", channelSum{MessageCount: messages})
	c.admin(1, "DELETE", "/api/topics/orders/audit", "", nil)
	c.admin(1, "DELETE", "/api/topics/orders", "", nil)
	for i := range c.nodes {
		for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			var topics struct{ Topics []string }
			if c.admin(i, "GET", "/api/topics", "", &topics); len(topics.Topics) == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s still knows %v", c.names[i], topics.Topics)
			}
		}
	}
	c.oneNodesShare(messages)
}

// oneNodesShare deletes a topic on every node, one by one, and as an nsqlookupd
// does: it stays as it is.
func (c *trio) oneNodesShare(messages int) {
	c.t.Helper()
	c.admin(1, "POST", "/api/topics", `{"topic":"mail","channel":"out"}`, nil)
	c.fill("mail", messages)
	for i := range c.nodes {
		c.untilSum(i, "/api/topics/mail/out", channelSum{Depth: int64(messages), MessageCount: int64(messages)})
	}
	for i := range c.nodes {
		c.admin((i+1)%3, "DELETE", "/api/nodes/"+c.nodes[i].Addrs().HTTP, `{"topic":"mail"}`, nil)
		for j := range c.nodes {
			for _, path := range []string{"/topic/delete?topic=mail", "/channel/delete?topic=mail&channel=out"} {
				if code, text := c.ask("POST", "http://"+c.nodes[j].Addrs().LookupHTTP+path); code != http.StatusOK {
					c.t.Fatal(code, text)
				}
			}
		}
	}
	var none struct{ Topics map[string][]string }
	c.admin(0, "GET", "/api/topics?inactive=true", "", &none)
	if got := none.Topics["mail"]; len(got) != 1 || got[0] != "out" {
		c.t.Errorf("with a tombstone on every node these are inactive: %v", none.Topics)
	}
	var depth int64 // with a tombstone on each they are found by their own names only
	for _, n := range c.nodes {
		var node struct {
			Topics []struct {
				Name     string `json:"topic_name"`
				Channels []channelSum
			}
		}
		c.admin(0, "GET", "/api/nodes/"+n.Addrs().HTTP, "", &node)
		for _, t := range node.Topics {
			for _, ch := range t.Channels {
				depth += ch.Depth
			}
		}
	}
	if depth != int64(messages) {
		c.t.Errorf("%d of %d messages are there", depth, messages)
	}
}

// A node that takes nothing without TLS and a secret shows itself to who has the
// secret, and to nobody else.
func TestSecureNSQAdmin(t *testing.T) {
	t.Parallel()
	grants := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("secret") != "s" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `{"ttl":60,"identity":"me","authorizations":[{"topic":".*","channels":[".*"],"permissions":["subscribe","publish"]}]}`)
	}))
	defer grants.Close()
	c := settings(t)
	c.TLSCert, c.TLSKey, _ = selfSigned(t)
	c.TLSRequired, c.HTTPSAddress = "true", "127.0.0.1:0"
	c.AuthHTTPAddresses = config.List{grants.Listener.Addr().String()}
	r := start(t, c, vfs.Default())
	ask := func(method, path, body, secret string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.Addrs().NSQAdmin+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if secret != "" {
			req.Header.Set("Authorization", "Bearer "+secret)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	if code, text := ask("POST", "/api/topics", `{"topic":"orders","channel":"audit"}`, "s"); code != 200 || text != `{"message":""}` {
		t.Fatal(code, text)
	}
	if code, text := ask("GET", "/api/topics/orders/audit", "", "s"); code != 200 || !strings.Contains(text, `"channel_name":"audit"`) {
		t.Error(code, text)
	}
	for _, secret := range []string{"", "wrong"} {
		if code, text := ask("GET", "/api/topics/orders/audit", "", secret); code != 502 || !strings.Contains(text, "got response 401") {
			t.Errorf("%q: %d %s", secret, code, text)
		}
		if code, text := ask("DELETE", "/api/topics/orders/audit", "", secret); code != 200 || !strings.Contains(text, "got response 401") {
			t.Errorf("%q: %d %s", secret, code, text)
		}
		if code, text := ask("GET", "/config/log_level", "", secret); code != 403 {
			t.Errorf("%q: %d %s", secret, code, text)
		}
	}
	if code, text := ask("GET", "/api/topics/orders/audit", "", "s"); code != 200 {
		t.Error(code, text)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}

// A node reaches itself, whatever clients are told, and wherever it listens.
func TestNSQAdminReachesItsNode(t *testing.T) {
	t.Parallel()
	for name, tune := range map[string]func(*config.Config){
		"broadcast":   func(c *config.Config) { c.BroadcastAddr, c.BroadcastHTTP = "nobody.invalid", 1 },
		"unix socket": func(c *config.Config) { c.HTTPAddress = filepath.Join(t.TempDir(), "http.sock") },
		"unix socket, no lookup": func(c *config.Config) {
			c.HTTPAddress, c.LookupHTTPAddress = filepath.Join(t.TempDir(), "http.sock"), ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "unix") && runtime.GOOS == "windows" {
				return
			}
			c := settings(t)
			tune(&c)
			r := start(t, c, vfs.Default())
			at := "http://" + r.Addrs().NSQAdmin
			if code, text := r.request("POST", at+"/api/topics", `{"topic":"orders","channel":"audit"}`); code != 200 || text != `{"message":""}` {
				t.Fatal(code, text)
			}
			if code, text := r.request("GET", at+"/api/topics/orders/audit", ""); code != 200 || !strings.Contains(text, `"message":""`) {
				t.Error(code, text)
			}
			if err := r.close(); err != nil {
				t.Error(err)
			}
		})
	}
}
