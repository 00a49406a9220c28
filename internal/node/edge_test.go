package node_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	gonsq "github.com/nsqio/go-nsq"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/edge"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/vfs"
)

// fixHTTP gives each node an HTTP address that it comes back to.
func (c *trio) fixHTTP() (addresses []string) {
	c.t.Helper()
	host, _, _ := net.SplitHostPort(c.addrs[0])
	byName := make(map[string]string)
	for _, name := range c.names {
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			c.t.Fatal(err)
		}
		defer l.Close() // only now: or two get the same
		byName[name] = l.Addr().String()
		addresses = append(addresses, byName[name])
	}
	c.tune = func(cfg *config.Config) { cfg.HTTPAddress = byName[cfg.Node] }
	return addresses
}

// newEdge runs an edge and returns its HTTP address.
func newEdge(t *testing.T, upstream []string) string {
	t.Helper()
	return runEdge(t, edge.Options{Upstream: upstream}).HTTP.Addr().String()
}

// runEdge runs an edge with some options, and returns them with its listeners.
func runEdge(t *testing.T, o edge.Options) edge.Options {
	t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	o.FS, o.Dir, o.SpoolSize, o.Logger = vfs.NewMem(), "edge", 64<<20, slog.New(slog.DiscardHandler)
	o.TCP, o.HTTP = listen(), listen()
	if o.ClientTLS != nil {
		o.HTTPS = listen()
	}
	e, err := edge.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("edge: %v", err)
		}
	})
	return o
}

// An edge of which everything is wanted: TLS, and grants for publishers over TCP and
// HTTP. It needs nobody upstream for that.
func TestSecureEdge(t *testing.T) {
	t.Parallel()
	grants := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("secret") != "s" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `{"ttl":60,"identity":"me","authorizations":[{"topic":"^orders$","channels":[".*"],"permissions":["publish"]}]}`)
	}))
	defer grants.Close()
	set := config.DefaultEdge()
	var trust *tls.Config
	set.TLSCert, set.TLSKey, trust = selfSigned(t)
	set.TLSRequired, set.AuthHTTPAddresses = "true", config.List{grants.Listener.Addr().String()}
	set.Upstream = config.List{"127.0.0.1:1"}
	if err := set.Validate(); err != nil {
		t.Fatal(err)
	}
	clients := set.Clients()
	secure, err := node.NewClientSecurity(&clients, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	o := runEdge(t, edge.Options{
		Upstream: set.Upstream, ClientTLS: secure.TLS, TLSRequired: secure.Required, Auth: secure.Auth, HTTPAuth: set.HTTPAuth,
	})

	publish := func(topic string, change func(*gonsq.Config)) error {
		cfg := gonsq.NewConfig()
		cfg.TlsV1, cfg.TlsConfig, cfg.AuthSecret = true, trust, "s"
		change(cfg)
		p, err := gonsq.NewProducer(o.TCP.Addr().String(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		p.SetLoggerLevel(gonsq.LogLevelMax)
		defer p.Stop()
		return p.Publish(topic, []byte("x"))
	}
	as := func(*gonsq.Config) {}
	if err := publish("orders", as); err != nil {
		t.Errorf("a publish is refused: %v", err)
	}
	if err := publish("bills", as); err == nil || !strings.Contains(err.Error(), "E_UNAUTHORIZED") {
		t.Errorf("a publish without a grant: %v", err)
	}
	if err := publish("orders", func(c *gonsq.Config) { c.AuthSecret = "" }); err == nil {
		t.Error("a publish without a secret is taken")
	}
	if err := publish("orders", func(c *gonsq.Config) { c.TlsV1 = false }); err == nil {
		t.Error("a publish without TLS is taken")
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: trust}}
	defer web.CloseIdleConnections()
	for _, x := range []struct {
		url, secret string
		want        int
	}{
		{"https://" + o.HTTPS.Addr().String() + "/pub?topic=orders", "s", http.StatusOK},
		{"https://" + o.HTTPS.Addr().String() + "/pub?topic=bills", "s", http.StatusForbidden},
		{"https://" + o.HTTPS.Addr().String() + "/pub?topic=orders", "", http.StatusUnauthorized},
		{"http://" + o.HTTP.Addr().String() + "/pub?topic=orders", "s", http.StatusForbidden},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", x.url, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		if x.secret != "" {
			req.Header.Set("Authorization", "Bearer "+x.secret)
		}
		resp, err := web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != x.want {
			t.Errorf("POST %s with secret %q: %d %s, want %d", x.url, x.secret, resp.StatusCode, text, x.want)
		}
	}
}

// TestEdgeAndCluster: an edge forwards once and in order to a cluster that is not
// there at first, whose nodes stop one after the other, and that is wholly down for a
// while. Its publishers notice nothing.
func TestEdgeAndCluster(t *testing.T) {
	c := newTrio(t, "n1", "n2", "n3")
	at := newEdge(t, c.fixHTTP())
	ctx, cancel := context.WithCancel(t.Context())
	sent := 0
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for ctx.Err() == nil {
			resp, err := http.Post("http://"+at+"/pub?topic=orders", "", strings.NewReader(fmt.Sprint(sent)))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Errorf("a publish is answered with %d", resp.StatusCode)
				return
			}
			sent++
			time.Sleep(time.Millisecond) // some hundreds a second are enough
		}
	})
	c.startAll()
	for i := range c.names {
		c.stop(i)
		c.serves(c.start(i))
	}
	c.stopAll()
	c.startAll()
	cancel()
	publisher.Wait()
	var spool struct {
		Spool struct{ Depth, Forwarded int }
	}
	for end := time.Now().Add(time.Minute); spool.Spool.Forwarded == 0 || spool.Spool.Depth > 0; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + at + "/stats?format=json")
		if err != nil {
			t.Fatal(err)
		}
		err = json.NewDecoder(resp.Body).Decode(&spool)
		resp.Body.Close()
		if err != nil || time.Now().After(end) {
			t.Fatalf("it is not forwarded: %+v, %v", spool, err)
		}
	}
	c.expect("orders", sent)
}

// expect consumes a topic at the first node, which has to hold the numbers from 0 on.
func (c *trio) expect(topic string, n int) {
	c.t.Helper()
	conf := gonsq.NewConfig()
	conf.MaxInFlight = 1
	consumer, err := gonsq.NewConsumer(topic, "all", conf)
	if err != nil {
		c.t.Fatal(err)
	}
	consumer.SetLoggerLevel(gonsq.LogLevelMax)
	got := make(chan string)
	consumer.AddHandler(gonsq.HandlerFunc(func(m *gonsq.Message) error {
		got <- string(m.Body)
		return nil
	}))
	if err := consumer.ConnectToNSQD(c.nodes[0].Addrs().TCP); err != nil {
		c.t.Fatal(err)
	}
	defer func() {
		go func() {
			for range got { // lets the handler end
			}
		}()
		consumer.Stop()
		<-consumer.StopChan
		close(got)
	}()
	for i := range n {
		select {
		case body := <-got:
			if body != fmt.Sprint(i) {
				c.t.Fatalf("message %d is %s", i, body)
			}
		case <-time.After(time.Minute):
			c.t.Fatalf("only %d of %d messages come", i, n)
		}
	}
	select {
	case body := <-got:
		c.t.Errorf("message %s comes behind the last", body)
	case <-time.After(50 * time.Millisecond):
	}
}
