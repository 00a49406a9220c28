package nsq

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	signed := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	})
	a.cert, a.key = signed.Leaf, signed.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

func (a *authority) sign(c *x509.Certificate) tls.Certificate {
	a.t.Helper()
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// named is a certificate for a server on this machine, or for a client.
func (a *authority) named(name string) tls.Certificate {
	return a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) server() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{a.named("server")}, MinVersion: tls.VersionTLS12, ClientCAs: a.pool()}
}

func (a *authority) client(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: a.pool(), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12, Certificates: certs}
}

// identify sends an IDENTIFY that negotiates, and returns the answer.
func (p *peer) identify(body string) negotiation {
	p.t.Helper()
	p.send("IDENTIFY\n" + sized(body))
	f, err := p.frame()
	var n negotiation
	if err != nil || !strings.HasPrefix(f, "0:") || json.Unmarshal([]byte(f[2:]), &n) != nil {
		p.t.Fatalf("answer to IDENTIFY: %q, %v", f, err)
	}
	return n
}

// secure identifies with TLS and does the handshake.
func (p *peer) secure(config *tls.Config) (*peer, error) {
	p.t.Helper()
	if n := p.identify(`{"feature_negotiation":true,"tls_v1":true}`); !n.TLSv1 {
		p.t.Fatal("TLS is not offered")
	}
	c := tls.Client(p.Conn, config)
	c.SetDeadline(time.Now().Add(patience))
	if err := c.Handshake(); err != nil {
		return nil, err
	}
	return &peer{p.t, c}, nil
}

func TestUpgradesThatAreNotOffered(t *testing.T) {
	r := start(t, newFakeBroker(), Options{NoSnappy: true, NoDeflate: true})
	p := r.dial()
	n := p.identify(`{"feature_negotiation":true,"tls_v1":true,"snappy":true,"deflate":true,"deflate_level":3}`)
	if n.TLSv1 || n.Snappy || n.Deflate || n.AuthRequired || n.DeflateLevel != 6 || n.MaxDeflateLevel != 6 {
		t.Errorf("%+v", n)
	}
	p.send("PUB t\n" + sized("x"))
	p.want("0:OK")
}

func TestBothCompressions(t *testing.T) {
	p := start(t, newFakeBroker(), Options{}).dial()
	p.send("IDENTIFY\n" + sized(`{"feature_negotiation":true,"snappy":true,"deflate":true}`))
	p.want("1:E_IDENTIFY_FAILED cannot enable both deflate and snappy compression")
	p.wantClosed()
}

func TestDeflateLevel(t *testing.T) {
	for body, want := range map[string]int{
		`"deflate":true`: 4, `"deflate":true,"deflate_level":2`: 2, `"deflate":true,"deflate_level":9`: 4,
		`"deflate":true,"deflate_level":-1`: 4, `"deflate_level":2`: 4,
	} {
		p := start(t, newFakeBroker(), Options{MaxDeflateLevel: 4}).dial()
		if n := p.identify(`{"feature_negotiation":true,` + body + `}`); n.DeflateLevel != want {
			t.Errorf("%s: level %d, want %d", body, n.DeflateLevel, want)
		}
	}
}

// Without feature_negotiation there is no upgrade.
func TestNoNegotiationNoUpgrade(t *testing.T) {
	p := start(t, newFakeBroker(), Options{TLS: newAuthority(t).server()}).dial()
	p.send("IDENTIFY\n" + sized(`{"tls_v1":true,"snappy":true}`) + "PUB t\n" + sized("x"))
	p.want("0:OK", "0:OK")
}

func TestTLSRequired(t *testing.T) {
	a := newAuthority(t)
	for _, required := range []TLSRequired{TLSExceptHTTP, TLSAlways} {
		r := start(t, newFakeBroker(), Options{TLS: a.server(), TLSRequired: required})
		for _, command := range []string{"PUB t\n" + sized("x"), "NOP\n", "SUB t c\n", "AUTH\n" + sized("s"), "nonsense\n"} {
			p := r.dial()
			p.send(command)
			name, _, _ := strings.Cut(strings.TrimSpace(command), " ")
			name, _, _ = strings.Cut(name, "\n")
			p.want("1:E_INVALID cannot " + name + " in current state (TLS required)")
			p.wantClosed()
		}
		p := r.dial()
		p.identify(`{"feature_negotiation":true,"snappy":false}`)
		p.send("NOP\n")
		p.want("1:E_INVALID cannot NOP in current state (TLS required)")

		secure, err := r.dial().secure(a.client())
		if err != nil {
			t.Fatal(err)
		}
		secure.want("0:OK")
		secure.send("PUB t\n" + sized("x"))
		secure.want("0:OK")

		status, body := r.get("/ping")
		if required == TLSExceptHTTP && (status != 200 || body != "OK") {
			t.Errorf("tcp-https: plain HTTP: %d %s", status, body)
		}
		if required == TLSAlways && (status != 403 || body != `{"message": "TLS_REQUIRED", "https_port": 0}`) {
			t.Errorf("plain HTTP: %d %s", status, body)
		}
	}
}

func TestHTTPS(t *testing.T) {
	a := newAuthority(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, newFakeBroker(), Options{TLS: a.server(), TLSRequired: TLSAlways, HTTPS: l})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if status, body := r.post("/pub?topic=t", "x"); status != 403 || body != `{"message": "TLS_REQUIRED", "https_port": `+port+`}` {
		t.Errorf("%d %s", status, body)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: a.client()}}
	defer client.CloseIdleConnections()
	res, err := client.Post("https://"+l.Addr().String()+"/pub?topic=t", "", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "OK" || res.Header.Get("X-NSQ-Content-Type") == "" {
		t.Errorf("%s %v", b, err)
	}
}

// The certificate policies, over TCP: what they refuse is refused.
func TestClientCertificates(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	for _, c := range []struct {
		name   string
		policy tls.ClientAuthType
		certs  []tls.Certificate
		good   bool
	}{
		{"none wanted", tls.NoClientCert, nil, true},
		{"any, none shown", tls.RequireAnyClientCert, nil, false},
		{"any, a stranger's", tls.RequireAnyClientCert, []tls.Certificate{stranger.named("x")}, true},
		{"verified, none shown", tls.RequireAndVerifyClientCert, nil, false},
		{"verified, a stranger's", tls.RequireAndVerifyClientCert, []tls.Certificate{stranger.named("x")}, false},
		{"verified, a known one", tls.RequireAndVerifyClientCert, []tls.Certificate{a.named("x")}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := a.server()
			config.ClientAuth = c.policy
			r := start(t, newFakeBroker(), Options{TLS: config, TLSRequired: TLSAlways})
			p, err := r.dial().secure(a.client(c.certs...))
			if err == nil { // TLS 1.3 tells a client of a refusal when it reads
				var f string
				if f, err = p.frame(); err == nil && f != "0:OK" {
					t.Fatalf("first frame: %s", f)
				}
			}
			if (err == nil) != c.good {
				t.Errorf("good %v: %v", c.good, err)
			}
		})
	}
}

func TestMinTLSVersion(t *testing.T) {
	a := newAuthority(t)
	config := a.server()
	config.MinVersion = tls.VersionTLS13
	r := start(t, newFakeBroker(), Options{TLS: config})
	old := a.client()
	old.MaxVersion = tls.VersionTLS12
	if _, err := r.dial().secure(old); err == nil {
		t.Error("TLS 1.2 is accepted")
	}
	if _, err := r.dial().secure(a.client()); err != nil {
		t.Error(err)
	}
}

// A failed handshake is told in clear, as nsqd does.
func TestFailedHandshake(t *testing.T) {
	p := start(t, newFakeBroker(), Options{TLS: newAuthority(t).server()}).dial()
	p.identify(`{"feature_negotiation":true,"tls_v1":true}`)
	p.send("PUB t\n" + sized("this is no ClientHello"))
	b, err := io.ReadAll(p)
	if err != nil || !strings.Contains(string(b), "E_IDENTIFY_FAILED IDENTIFY failed tls: ") {
		t.Errorf("%q %v", b, err)
	}
}

// What comes in clear behind an IDENTIFY that begins TLS is never a command.
func TestNothingIsInjectedBeforeTLS(t *testing.T) {
	b := newFakeBroker()
	a := newAuthority(t)
	p := start(t, b, Options{TLS: a.server()}).dial()
	p.send("IDENTIFY\n" + sized(`{"feature_negotiation":true,"tls_v1":true}`) + "PUB injected\n" + sized("x"))
	if _, err := p.frame(); err != nil { // the answer to IDENTIFY
		t.Fatal(err)
	}
	c := tls.Client(p.Conn, a.client())
	c.SetDeadline(time.Now().Add(patience))
	if err := c.Handshake(); err == nil {
		t.Error("the handshake succeeds")
	}
	p.wantClosed()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.topics) > 0 {
		t.Error("the command was done")
	}
}

// hasty sends the first bytes of a handshake together with what was to be sent
// before, as a client may that does not wait for the answer to IDENTIFY.
type hasty struct {
	net.Conn
	before string
	answer []byte // read and thrown away first
}

func (h *hasty) Write(b []byte) (int, error) {
	n, err := h.Conn.Write(append([]byte(h.before), b...))
	n -= len(h.before)
	h.before = ""
	return n, err
}

func (h *hasty) Read(b []byte) (int, error) {
	if h.answer == nil {
		h.answer = []byte{}
		p := peer{Conn: h.Conn}
		if _, err := p.frame(); err != nil {
			return 0, err
		}
	}
	return h.Conn.Read(b)
}

func TestHandshakeAheadOfTheAnswer(t *testing.T) {
	a := newAuthority(t)
	p := start(t, newFakeBroker(), Options{TLS: a.server()}).dial()
	c := tls.Client(&hasty{Conn: p.Conn, before: "IDENTIFY\n" + sized(`{"feature_negotiation":true,"tls_v1":true}`)}, a.client())
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	secure := &peer{t, c}
	secure.want("0:OK")
}

// A second IDENTIFY may answer and compress, and not begin TLS or a compression
// again.
func TestUpgradesAreDoneOnce(t *testing.T) {
	a := newAuthority(t)
	r := start(t, newFakeBroker(), Options{TLS: a.server()})
	for _, again := range []string{`"tls_v1":true`, `"tls_v1":true,"snappy":true`} {
		p, err := r.dial().secure(a.client())
		if err != nil {
			t.Fatal(err)
		}
		p.want("0:OK")
		p.identify(`{"feature_negotiation":true}`)
		p.send("IDENTIFY\n" + sized(`{"feature_negotiation":true,`+again+`}`))
		p.want("1:E_IDENTIFY_FAILED IDENTIFY failed connection is upgraded already")
		if _, err := p.frame(); !errors.Is(err, io.EOF) { // close_notify came
			t.Errorf("end of the connection: %v", err)
		}
	}
}

// A heartbeat and its deadline work inside TLS; a client that stalls in the
// handshake holds up nobody's end.
func TestStalledHandshake(t *testing.T) {
	r := start(t, newFakeBroker(), Options{TLS: newAuthority(t).server(), DrainTimeout: 10 * time.Millisecond})
	p := r.dial()
	p.identify(`{"feature_negotiation":true,"tls_v1":true}`)
	r.stop()
	p.wantClosed() // and start's cleanup wants Run to end
}

func TestHeartbeatInsideTLS(t *testing.T) {
	a := newAuthority(t)
	r := start(t, newFakeBroker(), Options{TLS: a.server(), HeartbeatInterval: 500 * time.Millisecond})
	p, err := r.dial().secure(a.client())
	if err != nil {
		t.Fatal(err)
	}
	p.want("0:OK", "0:_heartbeat_", "0:_heartbeat_")
	p.wantClosed() // nothing was said for two intervals
}

// overUnix dials a unix socket, whatever the address.
func overUnix(path string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
}

func TestUnixSocket(t *testing.T) {
	b := newFakeBroker()
	dir := t.TempDir()
	var l [2]net.Listener
	for i, name := range []string{"tcp.sock", "http.sock"} {
		var err error
		if l[i], err = net.Listen("unix", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	r := startOn(t, b, Options{TCP: l[0], HTTP: l[1]})
	nc, err := net.Dial("unix", r.tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	p := &peer{t, nc}
	p.send("  V2PUB t\n" + sized("x"))
	p.want("0:OK")
	p.send("nonsense\n")
	p.want("1:E_INVALID invalid command nonsense")
	p.wantClosed()

	client := &http.Client{Transport: &http.Transport{DialContext: overUnix(r.http)}}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://unix/info")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var info infoJSON
	if err := json.NewDecoder(res.Body).Decode(&info); err != nil || info.TCPPort != -1 || info.HTTPPort != -1 {
		t.Errorf("%+v %v", info, err)
	}
}
