package edge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/front/nsq"
	"github.com/tidings-io/tidings/internal/spool"
	"github.com/tidings-io/tidings/internal/vfs"
)

const patience = 20 * time.Second

// fakeNode is a node of whose HTTP API only what an edge uses is there.
type fakeNode struct {
	*httptest.Server

	mu     sync.Mutex
	status int    // 0: takes
	text   string // of a refusal
	plain  bool   // does not answer as a node does
	auth   []string
	topics []string
	at     map[string]uint64
	bodies []string
}

func newFakeNode(t *testing.T, secure bool) *fakeNode {
	n := &fakeNode{at: make(map[string]uint64)}
	n.Server = httptest.NewUnstartedServer(n)
	if secure {
		n.StartTLS()
	} else {
		n.Start()
	}
	t.Cleanup(n.Close)
	return n
}

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.auth = append(n.auth, r.Header.Get("Authorization"))
	if !n.plain {
		w.Header().Set("X-NSQ-Content-Type", "nsq; version=1.0")
	}
	q := r.URL.Query()
	var from, to uint64
	fmt.Sscan(q.Get("from"), &from)
	fmt.Sscan(q.Get("to"), &to)
	body, _ := io.ReadAll(r.Body)
	msgs, err := spool.Messages(body, 1000)
	at := q.Get("topic") + q.Get("origin") + q.Get("partition")
	switch {
	case n.status != 0:
		w.WriteHeader(n.status)
		fmt.Fprintf(w, `{"message":%q}`, n.text)
		return
	case r.URL.Path != "/edge" || r.Method != "POST" || err != nil || len(q.Get("origin")) != 32:
		w.WriteHeader(http.StatusBadRequest)
	case to <= n.at[at]:
	case from != n.at[at]:
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"message":"OUT_OF_ORDER"}`)
		return
	default:
		n.at[at] = to
		n.topics = append(n.topics, q.Get("topic"))
		for _, m := range msgs {
			n.bodies = append(n.bodies, string(m.Body))
		}
	}
	fmt.Fprint(w, `{"partitions":1}`)
}

func (n *fakeNode) answer(status int, text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status, n.text = status, text
}

func (n *fakeNode) got() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.bodies)
}

// running is an edge that serves.
type running struct {
	*Edge
	t                *testing.T
	tcp, http, admin string
}

func start(t *testing.T, o Options) *running {
	t.Helper()
	r := &running{t: t}
	for _, l := range []struct {
		to *net.Listener
		is *string
	}{{&o.TCP, &r.tcp}, {&o.HTTP, &r.http}, {&o.Admin, &r.admin}} {
		var err error
		if *l.to, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		*l.is = (*l.to).Addr().String()
	}
	o.Dir, o.SpoolSize, o.Logger = "edge", 1<<20, slog.New(slog.DiscardHandler)
	if o.FS == nil {
		o.FS = vfs.NewMem()
	}
	var err error
	if r.Edge, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(patience):
			t.Error("the edge does not stop")
		}
	})
	return r
}

func (r *running) ask(method, at, path, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://"+at+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func (r *running) publish(topic, body string) {
	r.t.Helper()
	if status, text := r.ask("POST", r.http, "/pub?topic="+url.QueryEscape(topic), body); status != 200 {
		r.t.Fatalf("publish: %d %s", status, text)
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestSecureUpstream: nodes with TLS and AUTH get the secret, and the next node is
// asked when one fails.
func TestSecureUpstream(t *testing.T) {
	node := newFakeNode(t, true)
	roots := x509.NewCertPool()
	roots.AddCert(node.Certificate())
	r := start(t, Options{
		Upstream: []string{"127.0.0.1:1", node.URL}, Secret: "s3cret",
		TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	})
	for i := range 3 {
		r.publish("orders", fmt.Sprint(i))
	}
	eventually(t, "all is upstream", func() bool { return len(node.got()) == 3 })
	if got := node.got(); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("upstream has %q", got)
	}
	if slices.ContainsFunc(node.auth, func(a string) bool { return a != "Bearer s3cret" }) {
		t.Errorf("the node saw %q", node.auth)
	}
}

// TestRefusals: what a node refuses stays in the spool, and is told.
func TestRefusals(t *testing.T) {
	node := newFakeNode(t, false)
	r := start(t, Options{Upstream: []string{node.URL}})
	for _, row := range []struct {
		status int
		text   string
		want   fault.Code
	}{
		{403, "UNAUTHORIZED", fault.Forbidden},
		{401, "AUTH_FIRST", fault.Forbidden},
		{404, "NOT_FOUND", fault.Unsupported},
		{413, "MSG_TOO_BIG", fault.MessageTooBig},
		{400, "INVALID_KEY", fault.InvalidRequest},
		{503, "NO_LEADER", fault.NotLeader},
		{301, "", fault.Internal},
	} {
		node.answer(row.status, row.text)
		if row.status == 503 {
			r.publish("orders", "x")
		}
		_, err := newUpstream([]string{node.URL}, "", nil).Forward(t.Context(), &spool.Part{Topic: "orders"})
		if code := fault.CodeOf(err); code != row.want && row.status != 301 || err == nil {
			t.Errorf("%d %s becomes %v", row.status, row.text, err)
		}
	}
	eventually(t, "a failure shows", func() bool { return r.forward.Stats().Failures > 0 })
	status, text := r.ask("GET", r.admin, "/metrics", "")
	for _, want := range []string{"tidings_edge_spool_records 1", `tidings_edge_spool_topic_records{topic="orders"} 1`, "tidings_edge_upstream_connected 0", "tidings_edge_spool_oldest_age_seconds "} {
		if status != 200 || !strings.Contains(text, want) {
			t.Errorf("/metrics (%d) has no %s", status, want)
		}
	}
	node.answer(0, "")
	eventually(t, "it is forwarded", func() bool { return len(node.got()) == 1 })
	eventually(t, "the spool is empty", func() bool {
		var s struct{ Spool nsq.SpoolStats }
		_, text := r.ask("GET", r.http, "/stats?format=json", "")
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			t.Fatal(err)
		}
		return s.Spool.Depth == 0 && s.Spool.Connected && s.Spool.Forwarded == 1
	})
	if _, text := r.ask("GET", r.http, "/stats", ""); !strings.Contains(text, "\nSpool: depth: 0 ") {
		t.Errorf("/stats says %s", text)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, text := r.ask("GET", r.admin, path, ""); status != 200 {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
}

// TestNotANode: somebody else's answer is that of nobody.
func TestNotANode(t *testing.T) {
	node := newFakeNode(t, false)
	node.plain = true
	node.answer(404, "NOT_FOUND")
	if _, err := newUpstream([]string{node.URL}, "", nil).Forward(t.Context(), &spool.Part{Topic: "orders"}); fault.CodeOf(err) != fault.Unreachable {
		t.Errorf("a stranger's answer becomes %v", err)
	}
	if _, err := New(Options{}); err == nil {
		t.Error("an edge without upstream is made")
	}
}

// TestOnlyPublishes: all that an nsqd does beside publishes is refused with a word.
func TestOnlyPublishes(t *testing.T) {
	r := start(t, Options{Upstream: []string{"127.0.0.1:1"}})
	r.publish("orders", "x")
	for _, path := range []string{
		"/topic/delete?topic=orders", "/topic/empty?topic=orders", "/topic/pause?topic=orders", "/channel/create?topic=orders&channel=c",
		"/channel/delete?topic=orders&channel=c", "/channel/empty?topic=orders&channel=c", "/channel/pause?topic=orders&channel=c",
		"/topic/create?topic=orders&ack=leader",
	} {
		if status, text := r.ask("POST", r.http, path, ""); status != http.StatusNotImplemented || !strings.Contains(text, "UNSUPPORTED") {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if status, text := r.ask("POST", r.http, "/topic/create?topic=other", ""); status != 200 {
		t.Errorf("/topic/create: %d %s", status, text)
	}
	if status, _ := r.ask("POST", r.http, "/edge?topic=orders", ""); status != http.StatusNotFound {
		t.Errorf("an edge of an edge: %d", status)
	}
	if status, text := r.ask("GET", r.http, "/ping", ""); status != 200 || text != "OK" {
		t.Errorf("/ping: %d %s", status, text)
	}
	c, err := net.Dial("tcp", r.tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "  V2SUB orders audit\n")
	answer, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(answer), "E_SUB_FAILED SUB failed this is an edge: it takes publishes only") {
		t.Errorf("SUB is answered with %q, %v", answer, err)
	}
	d, err := net.Dial("tcp", r.tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	big := strings.Repeat("x", 900<<10)
	size := func(n int) string { return string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) }
	fmt.Fprint(d, "  V2")
	for range 2 {
		fmt.Fprintf(d, "PUB orders\n%s%s", size(len(big)), big)
	}
	answer, err = io.ReadAll(d)
	if err != nil || !strings.Contains(string(answer), "OK") || !strings.Contains(string(answer), "E_PUB_FAILED PUB failed spool is full") {
		t.Errorf("a full spool answers %q, %v", answer, err)
	}
}
