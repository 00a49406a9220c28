package nsqadmin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVersionsCompare(t *testing.T) {
	t.Parallel()
	order := []string{"", "0.3.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0", "1.2.1", "1.10.0"}
	for i, a := range order {
		for j, b := range order {
			want := 0
			switch {
			case i < j:
				want = -1
			case i > j:
				want = 1
			}
			if got := compareVersions(a, b); got != want {
				t.Errorf("%q and %q: %d, want %d", a, b, got, want)
			}
		}
	}
	for _, same := range [][2]string{{"1.3.0+x", "1.3.0+y"}, {"nonsense", "0.0.0"}, {"1.2", ""}, {"1.2.x", ""}} {
		if got := compareVersions(same[0], same[1]); got != 0 {
			t.Errorf("%q: %d", same, got)
		}
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"127.0.0.1:4161": true, "host:1": true, "[::1]:4161": true, "": false, "host": false, "host:http": false, "host:70000": false,
		"http://host:1": false, "host/x:1": false, "host?x:1": false, "user@host:1": false, "ho st:1": false, "host#x:1": false,
	} {
		if got := isAddress(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// What others say may be half of what is expected; nothing of it ends a request
// with a panic.
func TestHalfAnswers(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{}`, `{"topics":null}`, `{"topics":[null]}`, `{"topics":[{"channels":[null]}]}`, `{"topics":[{"topic_name":"t","channels":[{"clients":[null]}]}]}`,
		`{"topics":[{"topic_name":"t","e2e_processing_latency":null,"channels":[{"channel_name":"c","e2e_processing_latency":{"percentiles":[null]}}]}]}`,
		`{"producers":[null,{"topics":["t"],"tombstones":[]}]}`, `{"topics":["t"],"producers":[{"broadcast_address":"a/b?c","http_port":1}]}`, `{"version":3}`, `[]`,
	} {
		up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }))
		addr := up.Listener.Addr().String()
		for _, o := range []Options{{LookupdHTTPAddresses: []string{addr}}, {NSQDHTTPAddresses: []string{addr}}} {
			h := New(o).handler()
			for _, path := range []string{"/api/topics", "/api/topics?inactive=true", "/api/topics/t", "/api/topics/t/c", "/api/nodes", "/api/nodes/" + addr, "/api/nodes/:0", "/api/counter"} {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
				if w.Code == http.StatusInternalServerError || !json.Valid(w.Body.Bytes()) {
					t.Errorf("%s of %s: %d %s", path, text, w.Code, w.Body)
				}
			}
		}
		up.Close()
	}
}

// The sums leave what they are made of as it is.
func TestSumsLeaveTheirParts(t *testing.T) {
	t.Parallel()
	one := func(node string) *topicStats {
		return &topicStats{Node: node, TopicName: "t", Depth: 1, Channels: []*channelStats{{
			Node: node, ChannelName: "c", Depth: 2, Clients: []*clientStats{{Node: node}},
			Latency: &latency{Count: 1, Percentiles: []map[string]float64{{"quantile": 0.5, "value": 3, "min": 3, "max": 3, "average": 3, "count": 1}}},
		}}}
	}
	parts, sum := []*topicStats{one("a"), one("b"), one("c")}, &topicStats{TopicName: "t"}
	for _, p := range parts {
		sum.add(p)
	}
	for i, node := range []string{"a", "b", "c"} {
		if d := cmp.Diff(one(node), parts[i]); d != "" {
			t.Error(d)
		}
	}
	c := sum.Channels[0]
	if sum.Depth != 3 || c.Depth != 6 || c.Node != "*" || len(c.NodeStats) != 3 || len(c.Clients) != 3 || c.Latency.Count != 3 || len(sum.NodeStats) != 3 {
		t.Errorf("%+v %+v", sum, c)
	}
}

func TestPagesMayBeReplaced(t *testing.T) {
	t.Parallel()
	console := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("console " + r.URL.Path)) })
	h := New(Options{BasePath: "/nsq", Pages: console, LookupdHTTPAddresses: []string{"127.0.0.1:1"}}).handler()
	for path, want := range map[string]string{
		"/nsq": "console /nsq", "/nsq/topics/t": "console /nsq/topics/t", "/nsq/static/main.js": "console /nsq/static/main.js",
		"/nsq/ping": "OK", "/nsq/api/nothing": "NOT_FOUND", "/static/main.js": "NOT_FOUND",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestWhatIsBeside(t *testing.T) {
	t.Parallel()
	beside := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("beside " + r.URL.Path)) })
	h := New(Options{Beside: beside, LookupdHTTPAddresses: []string{"127.0.0.1:1"}}).handler()
	for path, want := range map[string]string{
		"/assets/app.js": "beside /assets/app.js", "/api/v1/topics/t": "beside /api/v1/topics/t", "/topics/t/channels/c": "beside /topics/t/channels/c",
		"/ping": "OK", "/PING": "Moved", "/": "nsqadmin's API",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}
