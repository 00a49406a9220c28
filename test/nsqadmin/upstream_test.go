package nsqadmin

import (
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// gone is an address where nobody listens.
const gone = "127.0.0.1:1"

// TestPartialFailure: what the others say, with a warning.
func TestPartialFailure(t *testing.T) {
	t.Parallel()
	dead := gone
	s := newStage(t)
	_, port, _ := net.SplitHostPort(dead)
	s.l.answers["GET /lookup?topic=orders"] = strings.Replace(s.l.answers["GET /lookup?topic=orders"], `"http_port":`+s.b.port(), `"http_port":`+port, 1)
	s.l.answers["GET /nodes"] = strings.Replace(s.l.answers["GET /nodes"], `"http_port":`+s.b.port(), `"http_port":`+port, 1)
	warns := func(path string, parts ...string) step {
		return answers("GET "+path, "", 200, append(parts, `"message":"WARNING: `, "connect: connection refused")...)
	}
	act := func(line, body string) step {
		return answers(line, body, 200, `{"message":"WARNING: `, "connect: connection refused")
	}
	s.with(t, "-lookupd-http-address=$L", "-lookupd-http-address="+dead)
	runRows(t, s, []row{
		rule("topics", warns("/api/topics", `"topics":["idle","none","orders","quiet"]`)),
		rule("inactive topics", warns("/api/topics?inactive=true", `"idle":["a","z"]`)),
		rule("topic", warns("/api/topics/orders", `"depth":5`, `; Get`)),
		rule("channel", warns("/api/topics/orders/audit", `"depth":12`)),
		rule("nodes", warns("/api/nodes", `"nodes":[{"remote_addresses":["$L/10.0.0.1:1111"]`)),
		rule("counter", warns("/api/counter", `"message_count":100`)),
		rule("a node that lives", warns("/api/nodes/$A", `"total_messages":109`)),
		rule("a node that does not", answers("GET /api/nodes/"+dead, "", 502, "UPSTREAM_ERROR: failed to query any nsqd: ")),
		rule("create", act("POST /api/topics", `{"topic":"orders","channel":"c"}`), told("A", "POST /channel/create?channel=c&topic=orders")),
		rule("delete", act("DELETE /api/topics/orders", ``), told("A", "POST /topic/delete?topic=orders"), told("L", "POST /topic/delete?topic=orders")),
		rule("pause", act("POST /api/topics/orders", `{"action":"pause"}`), told("A", "POST /topic/pause?topic=orders")),
		rule("tombstone", act("DELETE /api/nodes/$A", `{"topic":"orders"}`)),
		rule("an upstream that refuses", func(k *talk) {
			k.a.answers["POST /topic/pause"] = `500 {"message":"INTERNAL_ERROR"}`
			answers("POST /api/topics/orders", `{"action":"pause"}`, 200, `"message":"WARNING: `, `got response 500 Internal Server Error \"{\\\"message\\\":\\\"INTERNAL_ERROR\\\"}\"`)(k)
		}),
		rule("an upstream that talks nonsense", func(k *talk) {
			k.a.mu.Lock()
			k.a.answers["GET /stats?format=json&include_clients=false&topic=orders"] = `<html>`
			k.a.mu.Unlock()
			answers("GET /api/topics/orders", "", 502, "UPSTREAM_ERROR: failed to query any nsqd: ", "invalid character '\\u003c' looking for beginning of value")(k)
		}),
	})
}

// TestTotalFailure: nobody answers.
func TestTotalFailure(t *testing.T) {
	t.Parallel()
	dead := gone
	fails := func(path, kind string) step {
		return answers("GET "+path, "", 502, `{"message":"UPSTREAM_ERROR: failed to query any `+kind+`: `, "connect: connection refused")
	}
	runRows(t, newStage(t).with(t, "-lookupd-http-address="+dead), []row{
		rule("topics", fails("/api/topics", "nsqlookupd")),
		rule("inactive topics", fails("/api/topics?inactive=true", "nsqlookupd")),
		rule("topic", fails("/api/topics/orders", "nsqlookupd")),
		rule("channel", fails("/api/topics/orders/audit", "nsqlookupd")),
		rule("nodes", fails("/api/nodes", "nsqlookupd")),
		rule("node", fails("/api/nodes/$A", "nsqlookupd")),
		rule("counter", fails("/api/counter", "nsqlookupd")),
		rule("delete", answers("DELETE /api/topics/orders", "", 502, "UPSTREAM_ERROR: failed to query any nsqlookupd: ")),
		rule("pause", answers("POST /api/topics/orders", `{"action":"pause"}`, 502, "UPSTREAM_ERROR: failed to query any nsqlookupd: ")),
		rule("create of a topic only warns", answers("POST /api/topics", `{"topic":"orders"}`, 200, `{"message":"WARNING: `)),
		rule("create of a channel", answers("POST /api/topics", `{"topic":"orders","channel":"c"}`, 502, "UPSTREAM_ERROR: ")),
		rule("ping answers all the same", get("/ping", 200, "OK")),
	})
	runRows(t, newStage(t).with(t, "-nsqd-http-address="+dead), []row{
		rule("topics of nsqds", fails("/api/topics", "nsqd")),
		rule("topic of nsqds", fails("/api/topics/orders", "nsqd")),
		rule("nodes of nsqds", fails("/api/nodes", "nsqd")),
	})
}

// TestSlow: who does not answer in time makes a warning.
func TestSlow(t *testing.T) {
	t.Parallel()
	ends := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-ends }))
	t.Cleanup(func() { close(ends); slow.Close() })
	s := newStage(t).with(t, "-lookupd-http-address=$L", "-lookupd-http-address="+slow.Listener.Addr().String(), "-http-client-request-timeout=2s")
	runRows(t, s, []row{
		rule("a slow nsqlookupd", answers("GET /api/topics", "", 200, `"topics":["idle","none","orders","quiet"]`, `"message":"WARNING: `, "Client.Timeout")),
	})
}

// TestTwoLookupds: a node that is known to both is shown once.
func TestTwoLookupds(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.more = []*fake{newFake(t, "M", map[string]string{
		"GET /topics": `{"topics":["orders","more"]}`,
		"GET /nodes":  s.expand(`{"producers":[` + peerA + `,"tombstones":[],"topics":[]}]}`),
		"GET /lookup": s.expand(`{"channels":[],"producers":[` + peerA + `}]}`),
	})}
	s.with(t, "-lookupd-http-address=$L", "-lookupd-http-address=$M")
	runRows(t, s, []row{
		rule("topics", get("/api/topics", 200, `{"topics":["idle","more","none","orders","quiet"],"message":""}`)),
		rule("nodes", func(k *talk) {
			_, got := k.do("GET /api/nodes", "")
			var answer struct {
				Nodes []struct {
					RemoteAddresses []string `json:"remote_addresses"`
				}
			}
			if err := json.Unmarshal([]byte(k.hide(got)), &answer); err != nil || len(answer.Nodes) != 2 {
				k.t.Fatalf("%v: %s", err, got)
			}
			if d := strings.Join(sorted(answer.Nodes[0].RemoteAddresses), " "); d != "$L/10.0.0.1:1111 $M/10.0.0.1:1111" {
				k.t.Error(d)
			}
		}),
		rule("a topic counts a node once", answers("GET /api/topics/orders", "", 200, `"message_count":120`)),
		rule("actions go to both", request("DELETE /api/topics/orders", "", 200, fine), told("L", "POST /topic/delete?topic=orders"),
			told("M", "POST /topic/delete?topic=orders"), told("A", "POST /topic/delete?topic=orders")),
	})
}

// TestTLSUpstream: an nsqd that refuses plain HTTP is asked over TLS.
func TestTLSUpstream(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(nil)
	t.Cleanup(secure.Close)
	_, port, _ := net.SplitHostPort(secure.Listener.Addr().String())
	begin := func(words ...string) *stage {
		s := newStage(t)
		secure.Config.Handler = s.a.Config.Handler
		plain := newFake(t, "P", map[string]string{
			"GET /info": `403 {"message":"TLS_REQUIRED","https_port":` + port + `}`, "GET /stats": `403 {"message":"TLS_REQUIRED","https_port":` + port + `}`,
			"POST /topic/pause": `403 {"message":"TLS_REQUIRED","https_port":` + port + `}`,
		})
		s.more = []*fake{plain}
		s.l.answers["GET /lookup?topic=orders"] = strings.ReplaceAll(s.l.answers["GET /lookup?topic=plain"], `"http_port":`+s.a.port(), `"http_port":`+plain.port())
		return s.with(t, append([]string{"-lookupd-http-address=$L"}, words...)...)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	works := []step{
		answers("GET /api/topics/orders", "", 200, `"depth":5`, `"message":""`),
		request("POST /api/topics/orders", `{"action":"pause"}`, 200, fine), told("A", "POST /topic/pause?topic=orders"),
	}
	runRows(t, begin("-http-client-tls-root-ca-file="+ca), []row{rule("authority", works...)})
	runRows(t, begin("-http-client-tls-insecure-skip-verify"), []row{rule("any certificate", works...)})
	runRows(t, begin(), []row{rule("unknown authority", answers("GET /api/topics/orders", "", 502, "UPSTREAM_ERROR", "x509: certificate signed by unknown authority"))})
}

// TestNotifications: every action is told.
func TestNotifications(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	n := newFake(t, "N", nil)
	s.more = []*fake{n}
	s.with(t, "-lookupd-http-address=$L", "-notification-http-endpoint=http://$N/hook?x=1")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	// tells acts, and wants these actions told, in any order: nsqadmin makes none.
	tells := func(line, body string, want ...string) row {
		return rule(line+" "+body, func(k *talk) {
			k.t.Helper()
			before := time.Now().Unix()
			res, got := k.do(line+"?q=1", body, "Authorization: Basic YWxpY2U6c2VjcmV0", "User-Agent: curl/x")
			if res.StatusCode != 200 {
				k.t.Fatalf("%d %s", res.StatusCode, got)
			}
			eventually(k, "notifications", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return len(n.bodies) >= len(want) })
			n.mu.Lock()
			bodies, header := n.bodies, n.headers[0]
			n.mu.Unlock()
			var told []string
			for _, text := range bodies {
				told = append(told, k.notice(text, before, line, host))
			}
			if a, b := strings.Join(sorted(told), "\n"), strings.Join(sorted(want), "\n"); a != b {
				k.t.Errorf("told %s\nwant %s", a, b)
			}
			if header.Get("Content-Type") != "application/json" {
				k.t.Errorf("Content-Type %q", header.Get("Content-Type"))
			}
		})
	}
	runRows(t, s, []row{
		tells("POST /api/topics", `{"topic":"orders","channel":"c"}`, `{"action":"create_topic","topic":"orders"`, `{"action":"create_channel","topic":"orders","channel":"c"`),
		tells("POST /api/topics/orders", `{"action":"pause"}`, `{"action":"pause_topic","topic":"orders"`),
		tells("POST /api/topics/orders", `{"action":"unpause"}`, `{"action":"unpause_topic","topic":"orders"`),
		tells("POST /api/topics/orders", `{"action":"empty"}`, `{"action":"empty_topic","topic":"orders"`),
		tells("POST /api/topics/orders/audit", `{"action":"pause"}`, `{"action":"pause_channel","topic":"orders","channel":"audit"`),
		tells("POST /api/topics/orders/audit", `{"action":"unpause"}`, `{"action":"unpause_channel","topic":"orders","channel":"audit"`),
		tells("POST /api/topics/orders/audit", `{"action":"empty"}`, `{"action":"empty_channel","topic":"orders","channel":"audit"`),
		tells("DELETE /api/topics/orders", ``, `{"action":"delete_topic","topic":"orders"`),
		tells("DELETE /api/topics/orders/audit", ``, `{"action":"delete_channel","topic":"orders","channel":"audit"`),
		tells("DELETE /api/nodes/$A", `{"topic":"orders"}`, `{"action":"tombstone_topic_producer","topic":"orders","node":"$A"`),
		rule("what is refused is not told", request("POST /api/topics/orders", `{"action":"x"}`, 400, message("INVALID_ACTION")), told("N")),
		rule("https behind a proxy", func(k *talk) {
			k.do("POST /api/topics/orders", `{"action":"pause"}`, "X-Scheme: https")
			eventually(k, "a notification", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return len(n.bodies) == 1 })
			n.mu.Lock()
			defer n.mu.Unlock()
			if !strings.Contains(n.bodies[0], `"url":"https://`) || strings.Contains(n.bodies[0], `"user":`) {
				k.t.Error(n.bodies[0])
			}
		}),
	})
}

// notice checks what every notification has, and returns the rest.
func (k *talk) notice(text string, after int64, line, host string) string {
	k.t.Helper()
	var n struct {
		Timestamp int64
		User      string
		RemoteIP  string `json:"remote_ip"`
		UserAgent string `json:"user_agent"`
		URL, Via  string
	}
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		k.t.Fatalf("%s: %v", text, err)
	}
	_, path, _ := strings.Cut(k.expand(line), " ")
	if ip, _, err := net.SplitHostPort(n.RemoteIP); err != nil || ip != "127.0.0.1" || n.Timestamp < after || n.Timestamp > time.Now().Unix() ||
		n.User != "alice" || n.UserAgent != "curl/x" || n.Via != host || n.URL != "http://"+k.at+path+"?q=1" {
		k.t.Errorf("%s", text)
	}
	head, _, _ := strings.Cut(text, `,"timestamp":`)
	return k.hide(head)
}

// TestGraphite: rates, and graphite's own pictures.
func TestGraphite(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	const rate = "GET /render?format=json&from=-60sec&target=sumSeries%28a.b%29&until=-30sec"
	g := newFake(t, "G", map[string]string{
		rate: `[{"target":"x","datapoints":[[60.5,1],[9,2]]}]`,
		strings.Replace(rate, "sumSeries%28a.b%29", "less", 1):  `[{"target":"x","datapoints":[[-1,1]]}]`,
		strings.Replace(rate, "sumSeries%28a.b%29", "null", 1):  `[{"target":"x","datapoints":[[null,1]]}]`,
		strings.Replace(rate, "sumSeries%28a.b%29", "none", 1):  `[]`,
		strings.Replace(rate, "sumSeries%28a.b%29", "fails", 1): `500 no`,
		"GET /render?target=y":                                  `picture`,
	})
	s.more = []*fake{g}
	s.with(t, "-lookupd-http-address=$L", "-graphite-url=http://user:secret@$G", "-proxy-graphite", "-statsd-interval=30s")
	fails := message("INTERNAL_ERROR")
	runRows(t, s, []row{
		rule("rate", get("/api/graphite?metric=rate&target=sumSeries(a.b)", 200, `{"rate":"2.02"}`)),
		rule("rate below zero", get("/api/graphite?metric=rate&target=less", 200, `{"rate":"N/A"}`)),
		rule("rate that is null", get("/api/graphite?metric=rate&target=null", 500, fails)),
		rule("rate of nothing", get("/api/graphite?metric=rate&target=none", 500, fails)),
		rule("graphite fails", get("/api/graphite?metric=rate&target=fails", 500, fails)),
		rule("no metric", get("/api/graphite?target=x", 400, message("INVALID_ARG_METRIC"))),
		rule("another metric", get("/api/graphite?metric=depth&target=x", 400, message("INVALID_ARG_METRIC"))),
		rule("no target", get("/api/graphite?metric=rate", 400, message("INVALID_ARG_TARGET"))),
		rule("bad query", get("/api/graphite?metric=%zz", 400, message("INVALID_REQUEST"))),
		rule("render", get("/render?target=y", 200, "picture"), func(k *talk) {
			g.mu.Lock()
			defer g.mu.Unlock()
			if user, password, _ := (&http.Request{Header: g.headers[0]}).BasicAuth(); user != "user" || password != "secret" {
				k.t.Errorf("graphite was shown %q", g.headers[0])
			}
		}),
		rule("render of another method", request("POST /render?target=y", "", 405, message("METHOD_NOT_ALLOWED")), nothingTold),
		rule("nothing else of graphite's", get("/render/x", 404, message("NOT_FOUND")), get("/metrics/find", 404, message("NOT_FOUND"))),
		rule("no other host", absolute("http://example.com/render?target=y", "picture")),
	})
	runRows(t, overLookupd(t), []row{
		rule("render without graphite", get("/render?target=y", 404, message("NOT_FOUND"))),
		rule("rate without graphite", get("/api/graphite?metric=rate&target=x", 500, fails)),
	})
}

// absolute asks as one asks a proxy.
func absolute(target, want string) step {
	return func(k *talk) {
		k.t.Helper()
		proxy, err := url.Parse("http://" + k.at)
		if err != nil {
			k.t.Fatal(err)
		}
		c := &http.Client{Timeout: patience, Transport: &http.Transport{Proxy: http.ProxyURL(proxy)}}
		defer c.CloseIdleConnections()
		res, err := c.Get(target)
		if err != nil {
			k.t.Fatal(err)
		}
		defer res.Body.Close()
		text := make([]byte, len(want))
		if n, _ := res.Body.Read(text); string(text[:n]) != want {
			k.t.Errorf("%d %s", res.StatusCode, text[:n])
		}
	}
}

// TestWho: it has to be told whom to ask, in one way.
func TestWho(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ words, want string }{
		"nobody to ask":        {"", "--nsqd-http-address or --lookupd-http-address required"},
		"both to ask":          {"-nsqd-http-address=x:1 -lookupd-http-address=x:2", "use --nsqd-http-address or --lookupd-http-address not both"},
		"certificate alone":    {"-nsqd-http-address=127.0.0.1:1 -http-client-tls-cert=x", "--http-client-tls-key must be specified with --http-client-tls-cert"},
		"key alone":            {"-nsqd-http-address=127.0.0.1:1 -http-client-tls-key=x", "--http-client-tls-cert must be specified with --http-client-tls-key"},
		"authority not there":  {"-nsqd-http-address=127.0.0.1:1 -http-client-tls-root-ca-file=/absent", "no such file or directory"},
		"network that is none": {"-nsqd-http-address=127.0.0.1:1 -allow-config-from-cidr=x", "allow-config-from-cidr"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := program(append([]string{"-http-address=127.0.0.1:0"}, strings.Fields(c.words)...)...).CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Fatalf("%v\nwant %s\n got %s", err, c.want, out)
			}
		})
	}
}
