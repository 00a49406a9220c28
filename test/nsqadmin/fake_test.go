package nsqadmin

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fake is an upstream that answers what a table says, and notes what it was
// asked to do.
type fake struct {
	*httptest.Server
	name string // as rows call it: $L, $A, $B

	mu      sync.Mutex
	answers map[string]string // by "METHOD path?query", or without the query
	done    []string          // POSTs
	asked   []string          // GETs
	bodies  []string          // of POSTs
	headers []http.Header
}

func newFake(t *testing.T, name string, answers map[string]string) *fake {
	t.Helper()
	f := &fake{name: name, answers: answers}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) addr() string { return f.Listener.Addr().String() }

func (f *fake) port() string {
	_, port, _ := net.SplitHostPort(f.addr())
	return port
}

// ServeHTTP answers with the text of the table; "STATUS text" where it begins
// with a number.
func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	line := r.URL.Path
	if r.URL.RawQuery != "" {
		line += "?" + r.URL.Query().Encode()
	}
	f.mu.Lock()
	f.headers = append(f.headers, r.Header)
	if r.Method == http.MethodGet {
		f.asked = append(f.asked, line)
	} else {
		f.done = append(f.done, r.Method+" "+line)
		f.bodies = append(f.bodies, string(body))
	}
	text, ok := f.answers[r.Method+" "+line]
	if !ok {
		text, ok = f.answers[r.Method+" "+r.URL.Path]
	}
	f.mu.Unlock()
	status := http.StatusOK
	if head, rest, _ := strings.Cut(text, " "); len(head) == 3 {
		if n, err := strconv.Atoi(head); err == nil {
			status, text = n, rest
		}
	}
	if !ok && r.Method == http.MethodGet {
		status, text = http.StatusNotFound, `{"message":"NOT_FOUND"}`
	}
	w.Header().Set("X-NSQ-Content-Type", "nsq; version=1.0")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// take returns what the fake was told since the last call.
func (f *fake) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	done := f.done
	f.done, f.asked, f.bodies, f.headers = nil, nil, nil, nil
	return done
}

// stage is an nsqadmin over fakes: one nsqlookupd and two nsqds.
type stage struct {
	at   string // the nsqadmin, HOST:PORT and base path
	l    *fake
	a, b *fake
	more []*fake
}

func (s *stage) fakes() []*fake {
	var all []*fake
	for _, f := range append([]*fake{s.l, s.a, s.b}, s.more...) {
		if f != nil {
			all = append(all, f)
		}
	}
	return all
}

// expand puts the addresses of fakes for their names.
func (s *stage) expand(text string) string {
	for _, f := range s.fakes() {
		text = strings.ReplaceAll(text, "$"+f.name+":port", f.port())
		text = strings.ReplaceAll(text, "$"+f.name, f.addr())
	}
	return text
}

// hide is the way back.
func (s *stage) hide(text string) string {
	for _, f := range s.fakes() {
		text = strings.ReplaceAll(text, f.addr(), "$"+f.name)
		text = strings.ReplaceAll(text, strings.ReplaceAll(f.addr(), ":", "%3A"), "$"+f.name)
		text = strings.ReplaceAll(text, `"http_port":`+f.port(), `"http_port":"$`+f.name+`:port"`)
	}
	return text
}

// newStage makes the fakes; with starts an nsqadmin over them.
func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{a: newFake(t, "A", nsqdA()), b: newFake(t, "B", nsqdB())}
	s.l = newFake(t, "L", nil)
	s.l.answers = map[string]string{
		"GET /topics":               `{"topics":["orders","idle","quiet","none","orders"]}`,
		"GET /channels?topic=idle":  `{"channels":["z","a"]}`,
		"GET /channels?topic=none":  `{"channels":[]}`,
		"GET /channels?topic=quiet": `{"channels":["q"]}`,
		"GET /lookup?topic=orders":  s.expand(`{"channels":["audit","mail"],"producers":[` + peerA + `},` + peerB + `},` + peerA + `}]}`),
		"GET /lookup?topic=plain":   s.expand(`{"channels":[],"producers":[` + peerA + `}]}`),
		"GET /lookup?topic=idle":    `{"channels":["z","a"],"producers":[]}`,
		"GET /lookup?topic=none":    `{"channels":[],"producers":[]}`,
		"GET /lookup?topic=quiet":   `{"channels":["q"],"producers":[]}`,
		"GET /lookup":               `404 {"message":"TOPIC_NOT_FOUND"}`,
		"GET /nodes": s.expand(`{"producers":[` + peerB + `,"tombstones":[false],"topics":["orders"]},` +
			peerA + `,"tombstones":[false,true,false],"topics":["plain","quiet","orders"]}]}`),
	}
	for _, f := range s.fakes() {
		for k, v := range f.answers {
			f.answers[k] = s.expand(v)
		}
	}
	return s
}

func (s *stage) with(t *testing.T, words ...string) *stage {
	t.Helper()
	for i, w := range words {
		words[i] = s.expand(w)
	}
	s.at = start(t, words...)
	return s
}

// overLookupd is an nsqadmin over the stage's nsqlookupd.
func overLookupd(t *testing.T, words ...string) *stage {
	return newStage(t).with(t, append([]string{"-lookupd-http-address=$L"}, words...)...)
}

const (
	peerA = `{"remote_address":"10.0.0.1:1111","hostname":"a-host","broadcast_address":"127.0.0.1","tcp_port":4150,"http_port":$A:port,"version":"1.3.0","topology_zone":"z1","topology_region":"r1"`
	peerB = `{"remote_address":"10.0.0.2:2222","hostname":"b-host","broadcast_address":"127.0.0.1","tcp_port":5150,"http_port":$B:port,"version":"1.2.1"`
)

const (
	noLatency = `"e2e_processing_latency":{"count":0,"percentiles":null}`
	clients   = `[{"client_id":"c1","hostname":"h1","version":"V2","remote_address":"10.0.0.9:3333","state":3,"ready_count":7,"in_flight_count":2,"message_count":40,"finish_count":30,"requeue_count":3,"connect_ts":1700000000,"sample_rate":10,"deflate":true,"snappy":false,"user_agent":"x/1","authed":true,"auth_identity":"me","auth_identity_url":"http://me","topology_zone":"z2","topology_region":"r1","pub_counts":[],"tls":true,"tls_cipher_suite":"TLS_X","tls_version":"TLS1.3","tls_negotiated_protocol":"p","tls_negotiated_protocol_is_mutual":true},` +
		`{"client_id":"c0","hostname":"h0","version":"V2","remote_address":"10.0.0.8:3334","state":3,"ready_count":1,"in_flight_count":0,"message_count":0,"finish_count":0,"requeue_count":0,"connect_ts":1700000000,"sample_rate":0,"deflate":false,"snappy":true,"user_agent":"y/2","topology_zone":"z1","topology_region":"r1","pub_counts":[],"tls":false,"tls_cipher_suite":"","tls_version":"","tls_negotiated_protocol":"","tls_negotiated_protocol_is_mutual":false}]`
	plainTopic = `{"topic_name":"plain","channels":[],"depth":3,"backend_depth":1,"message_count":9,"message_bytes":90,"paused":true,` + noLatency + `}`
)

// ordersA is the topic orders of nsqd A, with or without the clients of its
// channel audit.
func ordersA(clients string) string {
	return `{"topic_name":"orders","channels":[` +
		`{"channel_name":"audit","depth":12,"backend_depth":4,"in_flight_count":3,"deferred_count":2,"message_count":100,"requeue_count":5,"timeout_count":6,"client_count":2,"clients":` + clients + `,"paused":false,"zone_local_msg_count":7,"region_local_msg_count":8,"e2e_processing_latency":{"count":10,"percentiles":[{"quantile":0.99,"value":5000},{"quantile":0.5,"value":1000}]}},` +
		`{"channel_name":"mail","depth":0,"backend_depth":0,"in_flight_count":0,"deferred_count":0,"message_count":1,"requeue_count":0,"timeout_count":0,"client_count":0,"clients":` + none(clients) + `,"paused":true,` + noLatency + `}],` +
		`"depth":5,"backend_depth":2,"message_count":100,"message_bytes":1000,"paused":false,"e2e_processing_latency":{"count":10,"percentiles":[{"quantile":0.99,"value":5000},{"quantile":0.5,"value":1000}]}}`
}

func none(clients string) string {
	if clients == "null" {
		return clients
	}
	return "[]"
}

// ordersB is that of nsqd B.
func ordersB(clients string) string {
	return `{"topic_name":"orders","channels":[` +
		`{"channel_name":"audit","depth":1,"backend_depth":0,"in_flight_count":0,"deferred_count":0,"message_count":20,"requeue_count":0,"timeout_count":0,"client_count":0,"clients":` + none(clients) + `,"paused":true,"global_msg_count":2,"e2e_processing_latency":{"count":30,"percentiles":[{"quantile":0.99,"value":9000},{"quantile":0.5,"value":2000}]}}],` +
		`"depth":0,"backend_depth":0,"message_count":20,"message_bytes":200,"paused":false,` + noLatency + `}`
}

func stats(topics ...string) string {
	return `{"version":"1.3.0","health":"OK","start_time":1700000000,"topics":[` + strings.Join(topics, ",") + `],"memory":{},"producers":null}`
}

// nsqdA answers /stats as nsqd does, for what the tables ask.
func nsqdA() map[string]string {
	const brief = "GET /stats?format=json&include_clients=false"
	return map[string]string{
		"GET /info":              `{"version":"1.3.0","broadcast_address":"127.0.0.1","hostname":"a-host","http_port":$A:port,"tcp_port":4150,"start_time":1700000000,"topology_zone":"z1","topology_region":"r1"}`,
		brief:                    stats(ordersA("null"), plainTopic),
		"GET /stats?format=json": stats(ordersA(clients), plainTopic),
		brief + "&topic=orders":  stats(ordersA("null")),
		brief + "&topic=plain":   stats(plainTopic),
		brief + "&topic=absent":  `{"topics":null}`,
		"GET /stats?channel=audit&format=json&topic=orders":  stats(ordersA(clients)),
		"GET /stats?channel=absent&format=json&topic=orders": stats(`{"topic_name":"orders","channels":[],"depth":5,"backend_depth":2,"message_count":100,"message_bytes":1000,"paused":false,` + noLatency + `}`),
	}
}

func nsqdB() map[string]string {
	const brief = "GET /stats?format=json&include_clients=false"
	return map[string]string{
		"GET /info":              `{"version":"1.2.1","broadcast_address":"127.0.0.1","hostname":"b-host","http_port":$B:port,"tcp_port":5150}`,
		brief:                    stats(ordersB("null")),
		"GET /stats?format=json": stats(ordersB("[]")),
		brief + "&topic=orders":  stats(ordersB("null")),
		brief + "&topic=absent":  `{"topics":null}`,
		"GET /stats?channel=audit&format=json&topic=orders":  stats(ordersB("[]")),
		"GET /stats?channel=absent&format=json&topic=orders": stats(`{"topic_name":"orders","channels":[],` + noLatency + `}`),
	}
}

// indented is JSON as golden files hold it, in the order it came in.
func indented(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	raw := json.RawMessage(text)
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(raw); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return out.String()
}
