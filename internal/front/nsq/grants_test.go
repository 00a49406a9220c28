package nsq

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/auth"
)

const rootGrant = `{"topic":".*","channels":[".*"],"permissions":["subscribe","publish"]}`

// authServer knows secrets and what they allow.
type authServer struct {
	*httptest.Server
	mu    sync.Mutex
	gives map[string]string // secret -> whole answer
	asked []url.Values
	stall chan struct{} // not nil: answers wait until it is closed
}

func newAuthServer(t *testing.T) *authServer {
	s := &authServer{gives: map[string]string{
		"root":    `{"ttl":3600,"identity":"me","identity_url":"http://me","authorizations":[` + rootGrant + `]}`,
		"nothing": `{"ttl":3600,"authorizations":[]}`,
		"writer":  `{"ttl":3600,"authorizations":[{"topic":"^t$","channels":[".*"],"permissions":["publish"]}]}`,
		"reader":  `{"ttl":3600,"authorizations":[{"topic":"^t$","channels":["^c$"],"permissions":["subscribe"]}]}`,
		"broken":  `{"ttl":3600,"authorizations":[{"topic":"(","channels":[],"permissions":[]}]}`,
		"no ttl":  `{"authorizations":[` + rootGrant + `]}`,
	}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.Query())
		answer, ok := s.gives[r.URL.Query().Get("secret")]
		stall := s.stall
		s.mu.Unlock()
		if stall != nil {
			<-stall
		}
		if !ok {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *authServer) give(secret, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gives[secret] = answer
}

func (s *authServer) questions() []url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

func (s *authServer) client() *auth.Client {
	return auth.New(auth.Options{Addresses: []string{s.Listener.Addr().String()}})
}

// guard starts a front that asks s.
func guard(t *testing.T, b Broker, s *authServer) *running {
	return start(t, b, Options{Auth: s.client(), HTTPAuth: true})
}

func (p *peer) auth(secret string) *peer {
	p.t.Helper()
	p.send("AUTH\n" + sized(secret))
	f, err := p.frame()
	if err != nil || !strings.HasPrefix(f, `0:{"identity"`) {
		p.t.Fatalf("answer to AUTH: %q %v", f, err)
	}
	return p
}

func TestAuth(t *testing.T) {
	s := newAuthServer(t)
	r := guard(t, newFakeBroker(), s)
	for secret, want := range map[string]string{
		"root":    `0:{"identity":"me","identity_url":"http://me","permission_count":1}`,
		"nothing": "1:E_UNAUTHORIZED AUTH no authorizations found",
		"unknown": "1:E_AUTH_FAILED AUTH failed",
		"broken":  "1:E_AUTH_FAILED AUTH failed",
		"no ttl":  "1:E_AUTH_FAILED AUTH failed",
	} {
		p := r.dial()
		p.send("AUTH\n" + sized(secret))
		p.want(want)
		if strings.HasPrefix(want, "1:") {
			p.wantClosed()
			continue
		}
		p.send("AUTH\n" + sized(secret))
		p.want("1:E_INVALID AUTH already set")
		p.wantClosed()
	}
	q := s.questions()[0]
	if q.Get("remote_ip") != "127.0.0.1" || q.Get("tls") != "false" || q.Get("common_name") != "" {
		t.Errorf("%v", q)
	}
	if n := r.dial().identify(`{"feature_negotiation":true}`); !n.AuthRequired {
		t.Error("auth_required is false")
	}
}

func TestAuthShowsInStats(t *testing.T) {
	r := guard(t, newFakeBroker(), newAuthServer(t))
	p := r.dial().auth("root")
	p.send("SUB t c\n")
	p.want("0:OK")
	req, _ := http.NewRequest("GET", "http://"+r.http+"/stats?format=json", nil)
	req.SetBasicAuth("", "root")
	if _, body := r.do(req); !strings.Contains(body, `"authed":true,"auth_identity":"me","auth_identity_url":"http://me"`) {
		t.Error(body)
	}
}

// What an auth server learns of a client that uses TLS.
func TestAuthTellsOfTLS(t *testing.T) {
	s, a := newAuthServer(t), newAuthority(t)
	config := a.server()
	config.ClientAuth = tls.RequireAndVerifyClientCert
	p, err := start(t, newFakeBroker(), Options{Auth: s.client(), TLS: config}).dial().secure(a.client(a.named("somebody")))
	if err != nil {
		t.Fatal(err)
	}
	p.want("0:OK")
	p.auth("root")
	if q := s.questions()[0]; q.Get("tls") != "true" || q.Get("common_name") != "somebody" {
		t.Errorf("%v", q)
	}
}

// doings are commands with the HTTP requests that do the same, and the codes
// for both without the grant.
var doings = []struct {
	name    string
	command string
	path    string // POST
}{
	{"PUB", "PUB t\n" + sized("x"), "/pub?topic=t"},
	{"DPUB", "DPUB t 10\n" + sized("x"), "/pub?topic=t&defer=10"},
	{"MPUB", "MPUB t\n" + sized(multi("x")), "/mpub?topic=t"},
	{"SUB", "SUB t c\n", "/channel/create?topic=t&channel=c"},
}

// TCP and HTTP give the same answer to the same secret.
func TestTCPAndHTTPAgree(t *testing.T) {
	b := newFakeBroker()
	r := guard(t, b, newAuthServer(t))
	if err := b.CreateTopic(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	status := map[string]int{"OK": 200, "AUTH_FIRST": 401, "AUTH_FAILED": 401, "UNAUTHORIZED": 403}
	for _, secret := range []string{"", "root", "nothing", "writer", "reader", "unknown", "broken", "no ttl"} {
		for _, d := range doings {
			t.Run(secret+" "+d.name, func(t *testing.T) {
				p := r.dial()
				if secret != "" {
					p.send("AUTH\n" + sized(secret))
				}
				p.send(d.command)
				f, err := p.frame()
				if secret != "" && strings.HasPrefix(f, "0:") {
					f, err = p.frame()
				}
				if err != nil {
					t.Fatal(err)
				}
				code, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(f, "0:"), "1:E_"), " ")
				var header []string
				if secret != "" {
					header = []string{"Authorization", "Bearer " + secret}
				}
				got, body := r.post(d.path, "x", header...)
				if got != status[code] || code != "OK" && body != `{"message":"`+code+`"}` {
					t.Errorf("TCP: %s; HTTP: %d %s", f, got, body)
				}
			})
		}
	}
}

func TestAuthTexts(t *testing.T) {
	r := guard(t, newFakeBroker(), newAuthServer(t))
	for _, d := range doings {
		p := r.dial()
		p.send(d.command)
		p.want("1:E_AUTH_FIRST AUTH required before " + d.name)
		p.wantClosed()
	}
	p := r.dial().auth("reader")
	p.send("PUB t\n" + sized("x"))
	p.want(`1:E_UNAUTHORIZED AUTH failed for PUB on "t" ""`)
	p = r.dial().auth("writer")
	p.send("SUB t c\n")
	p.want(`1:E_UNAUTHORIZED AUTH failed for SUB on "t" "c"`)
	p = r.dial().auth("writer")
	p.send("PUB other\n" + sized(strings.Repeat("x", inlineBytesMax+1)))
	p.want(`1:E_UNAUTHORIZED AUTH failed for PUB on "other" ""`)
	// A bad body comes before a missing grant, except for MPUB's.
	p = r.dial()
	p.send("PUB t\n" + sized(""))
	p.want("1:E_BAD_MESSAGE PUB invalid message body size 0")
	p = r.dial()
	p.send("MPUB t\n" + sized(""))
	p.want("1:E_AUTH_FIRST AUTH required before MPUB")
}

// What was published before a command without a grant is answered.
func TestGrantedBeforeRefused(t *testing.T) {
	p := guard(t, newFakeBroker(), newAuthServer(t)).dial().auth("writer")
	p.send("PUB t\n" + sized("x") + "PUB t\n" + sized("y") + "PUB u\n" + sized("z"))
	p.want("0:OK", "0:OK", `1:E_UNAUTHORIZED AUTH failed for PUB on "u" ""`)
	p.wantClosed()
}

// The other paths of the HTTP API.
func TestGrantsOfHTTP(t *testing.T) {
	b := newFakeBroker()
	r := guard(t, b, newAuthServer(t))
	if err := b.CreateTopic(t.Context(), "t"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		secret, method, path string
		want                 int
	}{
		{"", "GET", "/ping", 200},
		{"", "GET", "/info", 401},
		{"", "GET", "/nosuch", 404},
		{"nothing", "GET", "/stats", 403},
		{"reader", "GET", "/stats", 200},
		{"reader", "GET", "/config/log_level", 200},
		{"reader", "PUT", "/config/log_level", 403},
		{"reader", "GET", "/debug/pprof/cmdline", 403},
		{"", "GET", "/debug/pprof/", 401},
		{"root", "GET", "/debug/pprof/cmdline", 200},
		{"root", "PUT", "/config/log_level", 200},
		{"writer", "POST", "/pub", 400},
		{"writer", "POST", "/topic/create?topic=t", 200},
		{"writer", "POST", "/topic/create?topic=u", 403},
		{"writer", "POST", "/topic/pause?topic=t", 200},
		{"writer", "POST", "/topic/unpause?topic=t", 200},
		{"writer", "POST", "/topic/empty?topic=t", 200},
		{"reader", "POST", "/topic/delete?topic=t", 403},
		{"writer", "POST", "/channel/create?topic=t&channel=c", 403},
		{"reader", "POST", "/channel/create?topic=t&channel=c", 200},
		{"reader", "POST", "/channel/pause?topic=t&channel=c", 200},
		{"reader", "POST", "/channel/unpause?topic=t&channel=c", 200},
		{"reader", "POST", "/channel/empty?topic=t&channel=c", 200},
		{"reader", "POST", "/channel/delete?topic=t&channel=d", 403},
		{"reader", "POST", "/channel/delete?topic=t&channel=c", 200},
		{"reader", "POST", "/channel/delete?topic=t", 400},
		{"writer", "POST", "/topic/delete?topic=t", 200},
	} {
		req, err := http.NewRequest(c.method, "http://"+r.http+c.path, strings.NewReader("info"))
		if err != nil {
			t.Fatal(err)
		}
		if c.secret != "" {
			req.SetBasicAuth("whoever", c.secret)
		}
		if got, body := r.do(req); got != c.want {
			t.Errorf("%q %s %s: %d %s, want %d", c.secret, c.method, c.path, got, body, c.want)
		}
	}
}

// As nsqd: AUTH guards TCP, and HTTP is open.
func TestHTTPWithoutHTTPAuth(t *testing.T) {
	r := start(t, newFakeBroker(), Options{Auth: newAuthServer(t).client()})
	if status, body := r.post("/pub?topic=t", "x"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

// A grant that is taken away ends publishing when it has expired, at TCP and at
// HTTP, and one that is given comes into effect.
func TestGrantsChangeInFlight(t *testing.T) {
	s := newAuthServer(t)
	const short = `{"ttl":1,"authorizations":[{"topic":"^%s$","channels":[".*"],"permissions":["publish"]}]}`
	s.give("x", fmt.Sprintf(short, "t"))
	r := guard(t, newFakeBroker(), s)
	p := r.dial().auth("x")
	p.send("PUB t\n" + sized("x"))
	p.want("0:OK")
	if status, _ := r.post("/pub?topic=t", "x", "Authorization", "bearer x"); status != 200 {
		t.Fatal(status)
	}
	s.give("x", fmt.Sprintf(short, "u"))
	eventually(t, "the grant ends at TCP", func() bool {
		p.send("PUB t\n" + sized("x"))
		f, err := p.frame()
		if err != nil {
			t.Fatal(err)
		}
		return f == `1:E_UNAUTHORIZED AUTH failed for PUB on "t" ""`
	})
	p.wantClosed()
	eventually(t, "the grant ends at HTTP", func() bool {
		status, body := r.post("/pub?topic=t", "x", "Authorization", "Bearer x")
		return status == 403 && body == `{"message":"UNAUTHORIZED"}`
	})
	if status, _ := r.post("/pub?topic=u", "x", "Authorization", "Bearer x"); status != 200 {
		t.Error(status)
	}
	if n := len(s.questions()); n < 4 {
		t.Errorf("asked %d times", n)
	}
}

// When the auth server is gone, grants last as long as it said, and then
// nothing is let through.
func TestAuthServerGoesAway(t *testing.T) {
	s := newAuthServer(t)
	s.give("x", `{"ttl":1,"authorizations":[`+rootGrant+`]}`)
	r := guard(t, newFakeBroker(), s)
	p, long := r.dial().auth("x"), r.dial().auth("root")
	s.Close()
	eventually(t, "the grant ends", func() bool {
		p.send("PUB t\n" + sized("x"))
		f, err := p.frame()
		if err != nil {
			t.Fatal(err)
		}
		return f == "1:E_AUTH_FAILED AUTH failed"
	})
	long.send("PUB t\n" + sized("x"))
	long.want("0:OK")
	fresh := r.dial()
	fresh.send("AUTH\n" + sized("root"))
	fresh.want("1:E_AUTH_FAILED AUTH failed")
	if status, body := r.post("/pub?topic=t", "x", "Authorization", "Bearer root"); status != 401 || body != `{"message":"AUTH_FAILED"}` {
		t.Errorf("%d %s", status, body)
	}
}

// A server that does not answer holds up its own client only, neither others
// nor the end of the front.
func TestStalledAuthServer(t *testing.T) {
	s := newAuthServer(t)
	r := start(t, newFakeBroker(), Options{Auth: s.client(), DrainTimeout: 10 * time.Millisecond})
	good := r.dial().auth("root")
	s.mu.Lock()
	s.stall = make(chan struct{})
	s.mu.Unlock()
	t.Cleanup(func() { close(s.stall) }) // before the server is closed, after the front has stopped
	p := r.dial()
	p.send("AUTH\n" + sized("root"))
	eventually(t, "asked", func() bool { return len(s.questions()) == 2 })
	good.send("PUB t\n" + sized("x"))
	good.want("0:OK")
	r.stop()
	p.wantClosed()
}

// A publish with grants costs no allocation.
func TestGrantedPublishAllocates(t *testing.T) {
	s := newAuthServer(t)
	r := start(t, newQuietBroker(), Options{Auth: s.client()})
	p := r.dial().auth("root")
	out, in := []byte(strings.Repeat("PUB topic\n"+sized("x"), 100)), make([]byte, 100*len(okFrame))
	p.SetDeadline(time.Time{})
	wantNoAllocs(t, 100, func() { exchange(t, p, out, in) })
}
