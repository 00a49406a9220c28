package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const root = `{"topic":".*","channels":[".*"],"permissions":["subscribe","publish"]}`

// says is a server that gives one answer, and notes what it was asked.
func says(t *testing.T, status int, body string) (address string, asked func() url.Values) {
	t.Helper()
	var mu sync.Mutex
	var last url.Values
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		last = r.URL.Query()
		last.Set("path", r.URL.Path)
		mu.Unlock()
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), func() url.Values {
		mu.Lock()
		defer mu.Unlock()
		return last
	}
}

func ask(t *testing.T, o Options) (*Grants, error) {
	t.Helper()
	c := New(o)
	t.Cleanup(c.http.CloseIdleConnections)
	g, err := c.Ask(context.Background(), Who{RemoteIP: "10.0.0.1", TLS: true, CommonName: "cn", Secret: "s&cret"})
	if s := c.Stats(); s.Asked != 1 || s.Failed == 1 != (err != nil) {
		t.Errorf("%+v, %v", s, err)
	}
	return g, err
}

func TestTheQuestion(t *testing.T) {
	address, asked := says(t, 200, `{"ttl":5,"identity":"me","identity_url":"http://me","authorizations":[`+root+`]}`)
	want := url.Values{"remote_ip": {"10.0.0.1"}, "tls": {"true"}, "secret": {"s&cret"}, "common_name": {"cn"}, "path": {"/auth"}}
	g, err := ask(t, Options{Addresses: []string{address}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, asked()); d != "" {
		t.Error(d)
	}
	if g.Identity != "me" || g.IdentityURL != "http://me" || g.Len() != 1 || time.Until(g.Expires) > 5*time.Second {
		t.Errorf("%+v", g)
	}
	if _, err = ask(t, Options{Addresses: []string{"http://" + address + "/else?x=1"}}); err != nil {
		t.Fatal(err)
	}
	want.Set("path", "/else")
	want.Set("x", "1")
	if d := cmp.Diff(want, asked()); d != "" {
		t.Error(d)
	}
}

// A posted question is what nsqd posts.
func TestThePostedQuestion(t *testing.T) {
	var got url.Values
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %v", r.Method, r.Header)
		}
		if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, `{"ttl":5}`)
	}))
	defer s.Close()
	if _, err := ask(t, Options{Addresses: []string{s.Listener.Addr().String()}, Method: "post"}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(url.Values{"remote_ip": {"10.0.0.1"}, "tls": {"true"}, "secret": {"s&cret"}, "common_name": {"cn"}}, got); d != "" {
		t.Error(d)
	}
}

// Whatever a server does wrong is an error, which does not tell the secret.
func TestWrongServers(t *testing.T) {
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down.Close()
	wrong := map[string]string{"down": down.Addr().String()}
	for name, answer := range map[string]string{
		"no JSON":             `OK`,
		"empty":               ``,
		"ttl missing":         `{"authorizations":[` + root + `]}`,
		"ttl zero":            `{"ttl":0,"authorizations":[` + root + `]}`,
		"ttl negative":        `{"ttl":-1,"authorizations":[` + root + `]}`,
		"ttl a text":          `{"ttl":"5","authorizations":[` + root + `]}`,
		"ttl a fraction":      `{"ttl":0.5,"authorizations":[` + root + `]}`,
		"ttl beyond 64 bits":  `{"ttl":99999999999999999999,"authorizations":[` + root + `]}`,
		"unknown permission":  `{"ttl":5,"authorizations":[` + root + `,{"topic":"a","channels":["b"],"permissions":["admin"]}]}`,
		"bad topic":           `{"ttl":5,"authorizations":[{"topic":"(","channels":["b"],"permissions":["publish"]}]}`,
		"bad channel":         `{"ttl":5,"authorizations":[{"topic":"a","channels":["*"],"permissions":["publish"]}]}`,
		"larger than allowed": `{"ttl":5,"identity":"` + strings.Repeat("x", answerBytesMax) + `"}`,
	} {
		wrong[name], _ = says(t, 200, answer)
	}
	wrong["403"], _ = says(t, 403, `no`)
	wrong["403 with a port"], _ = says(t, 403, `{"https_port":1}`)
	wrong["500"], _ = says(t, 500, `{"ttl":5,"authorizations":[`+root+`]}`)
	good, _ := says(t, 200, `{"ttl":5,"authorizations":[`+root+`]}`)
	for name, address := range wrong {
		t.Run(name, func(t *testing.T) {
			g, err := ask(t, Options{Addresses: []string{address}})
			if err == nil || g != nil {
				t.Fatalf("%+v", g)
			}
			if strings.Contains(err.Error(), "cret") || !strings.Contains(err.Error(), address) {
				t.Errorf("%v", err)
			}
			for range 5 { // the first server that is asked is any
				if _, err := ask(t, Options{Addresses: []string{address, good}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestSlowServer(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer s.Close()
	defer close(release)
	good, _ := says(t, 200, `{"ttl":5,"authorizations":[`+root+`]}`)
	slow := s.Listener.Addr().String()
	if _, err := ask(t, Options{Addresses: []string{slow}, RequestTimeout: 20 * time.Millisecond}); err == nil {
		t.Error("no error")
	}
	if _, err := ask(t, Options{Addresses: []string{slow, good}, RequestTimeout: time.Second}); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := New(Options{Addresses: []string{slow, good}}).Ask(ctx, Who{}); err == nil {
		t.Error("asked after the end")
	}
}

// A server that wants HTTPS names its port, as nsqd's own API does.
func TestMoveToHTTPS(t *testing.T) {
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"ttl":5}`) }))
	defer secure.Close()
	port := secure.Listener.Addr().(*net.TCPAddr).Port
	address, _ := says(t, 403, fmt.Sprintf(`{"message": "TLS_REQUIRED", "https_port": %d}`, port))
	if _, err := ask(t, Options{Addresses: []string{address}, TLS: secure.Client().Transport.(*http.Transport).TLSClientConfig}); err != nil {
		t.Error(err)
	}
}

// An hour is kept, and so is what does not fit into a duration.
func TestTTL(t *testing.T) {
	now := time.Now()
	for ttl, least := range map[string]time.Duration{"3600": time.Hour, "9223372036854775807": 200 * 365 * 24 * time.Hour} {
		g, err := parse([]byte(`{"ttl":`+ttl+`}`), now)
		if err != nil || g.Expires.Sub(now) < least {
			t.Errorf("%s: %v %v", ttl, g, err)
		}
	}
}

func TestGrants(t *testing.T) {
	g, err := parse([]byte(`{"ttl":1,"authorizations":[
		{"topic":"^logs$","channels":[".*"],"permissions":["publish"]},
		{"topic":"ord","channels":["^c1$","^c2"],"permissions":["subscribe","publish"]},
		{"topic":"^none$","permissions":["subscribe","publish"]}]}`), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		topic, channel string
		want           bool
	}{
		{"logs", "", true},
		{"logs", "c", false},  // publish only
		{"logs2", "", false},  // anchored
		{"orders", "", false}, // no expression for channels matches the empty name
		{"orders", "c1", true},
		{"reorder", "c22", true}, // not anchored
		{"orders", "c3", false},
		{"none", "", false}, // no channels at all
		{"none", "c", false},
		{"other", "", false},
	} {
		if got := g.Allows(c.topic, c.channel); got != c.want {
			t.Errorf("%s %q: %v", c.topic, c.channel, got)
		}
	}
	if g.Everything() {
		t.Error("everything")
	}
	all, err := parse([]byte(`{"ttl":1,"authorizations":[`+root+`]}`), time.Now())
	if err != nil || !all.Everything() || (*Grants)(nil).Len() != 0 {
		t.Errorf("%v %v", all, err)
	}
}

// counted is a server that counts questions, and waits for gate before it
// answers.
func counted(t *testing.T, gate chan struct{}, answer func() string) (*Cache, *atomic.Int32) {
	t.Helper()
	n := new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n.Add(1)
		<-gate
		_, _ = io.WriteString(w, answer())
	}))
	t.Cleanup(s.Close)
	c := New(Options{Addresses: []string{s.Listener.Addr().String()}})
	t.Cleanup(c.http.CloseIdleConnections)
	return NewCache(c), n
}

func TestCacheAsksOnce(t *testing.T) {
	gate := make(chan struct{})
	cache, asked := counted(t, gate, func() string { return `{"ttl":3600,"authorizations":[` + root + `]}` })
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if g, err := cache.Grants(context.Background(), Who{Secret: "a"}); err != nil || g.Len() != 1 {
				t.Error(g, err)
			}
		})
	}
	for asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := cache.Grants(gone, Who{Secret: "a"}); err == nil { // does not wait for the others' question
		t.Error("no error")
	}
	close(gate)
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if _, err := cache.Grants(context.Background(), Who{Secret: "a", TLS: true}); err != nil || asked.Load() != 2 {
		t.Errorf("another client: asked %d times, %v", asked.Load(), err)
	}
}

// What fails is asked again, and so is what has expired.
func TestCacheForgets(t *testing.T) {
	gate := make(chan struct{})
	close(gate)
	var ttl atomic.Int64
	cache, asked := counted(t, gate, func() string { return fmt.Sprintf(`{"ttl":%d}`, ttl.Load()) })
	for range 3 {
		if _, err := cache.Grants(context.Background(), Who{}); err == nil {
			t.Fatal("no error")
		}
	}
	if n := asked.Load(); n != 3 || len(cache.entries) != 0 {
		t.Errorf("asked %d times, %d entries", n, len(cache.entries))
	}
	ttl.Store(3600)
	g, err := cache.Grants(context.Background(), Who{})
	if err != nil {
		t.Fatal(err)
	}
	g.Expires = time.Now()
	if again, err := cache.Grants(context.Background(), Who{}); err != nil || again == g || asked.Load() != 5 {
		t.Errorf("%p %p %v, asked %d times", g, again, err, asked.Load())
	}
}

func TestCacheIsBounded(t *testing.T) {
	gate := make(chan struct{})
	close(gate)
	cache, _ := counted(t, gate, func() string { return `{"ttl":3600}` })
	for i := range entriesMax + 10 {
		e, _ := cache.entry(Who{Secret: fmt.Sprint(i)})
		e.grants = &Grants{Expires: time.Now().Add(time.Hour)}
		close(e.done)
	}
	if n := len(cache.entries); n > entriesMax {
		t.Errorf("%d entries", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"ttl":5,"identity":"me","authorizations":[` + root + `]}`))
	f.Add([]byte(`{"ttl":1e300}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		g, err := parse(body, time.Now())
		if err == nil && !time.Now().Before(g.Expires) && g.Expires.Before(time.Now().Add(-time.Minute)) {
			t.Errorf("expired at once: %s", body)
		}
		if err == nil {
			g.Allows("t", "c")
			g.Everything()
		}
	})
}
