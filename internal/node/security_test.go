package node_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	gonsq "github.com/nsqio/go-nsq"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/vfs"
)

// selfSigned writes a certificate and its key, and returns the files and what
// trusts it.
func selfSigned(t *testing.T) (certFile, keyFile string, trust *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	save := func(name, kind string, b []byte) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	certFile, keyFile = save("cert.pem", "CERTIFICATE", der), save("key.pem", "PRIVATE KEY", private)
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return certFile, keyFile, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
}

// A node of which everything is wanted: TLS, deflate inside it, AUTH at TCP and
// HTTP.
func TestSecureNode(t *testing.T) {
	grants := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("secret") != "s" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `{"ttl":60,"identity":"me","authorizations":[{"topic":".*","channels":[".*"],"permissions":["publish"]}]}`)
	}))
	defer grants.Close()
	c := settings(t)
	var trust *tls.Config
	c.TLSCert, c.TLSKey, trust = selfSigned(t)
	c.TLSRequired, c.HTTPSAddress = "true", "127.0.0.1:0"
	c.AuthHTTPAddresses = config.List{grants.Listener.Addr().String()}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	c.AdminAddress = "127.0.0.1:0"
	r := start(t, c, vfs.Default())
	a := r.Addrs()

	cfg := gonsq.NewConfig()
	cfg.TlsV1, cfg.TlsConfig, cfg.Deflate, cfg.AuthSecret = true, trust, true, "s"
	p, err := gonsq.NewProducer(a.TCP, cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.SetLoggerLevel(gonsq.LogLevelMax)
	defer p.Stop()
	if err := p.Publish("t", []byte("x")); err != nil {
		t.Fatal(err)
	}

	_, port, _ := net.SplitHostPort(a.HTTPS)
	if status, body := r.request("POST", "http://"+a.HTTP+"/pub?topic=t", "x"); status != 403 || !strings.Contains(body, `"https_port": `+port) {
		t.Errorf("plain: %d %s", status, body)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: trust}}
	defer client.CloseIdleConnections()
	get := func(path, secret string, to any) int {
		req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+a.HTTPS+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if secret != "" {
			req.Header.Set("Authorization", "Bearer "+secret)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_ = json.NewDecoder(resp.Body).Decode(to)
		return resp.StatusCode
	}
	var stats struct {
		Producers []struct {
			TLS, Deflate, Snappy, Authed bool
			Identity                     string `json:"auth_identity"`
		}
	}
	if status := get("/stats?format=json", "", &stats); status != 401 {
		t.Errorf("without a secret: %d", status)
	}
	if status := get("/stats?format=json", "s", &stats); status != 200 || len(stats.Producers) != 1 {
		t.Fatalf("%d %+v", status, stats)
	}
	if s := stats.Producers[0]; !s.TLS || !s.Deflate || s.Snappy || !s.Authed || s.Identity != "me" {
		t.Errorf("%+v", s)
	}
	if status, body := r.request("GET", "http://"+a.Admin+"/metrics", ""); status != 200 || !strings.Contains(body, "\ntidings_auth_queries_total 2\n") || !strings.Contains(body, "\ntidings_auth_query_failures_total 0\n") {
		t.Errorf("metrics: %d %s", status, body)
	}
	for path, want := range map[string]float64{"tls_required": 2, "tls_min_version": tls.VersionTLS12} {
		var got float64
		if status := get("/config/"+path, "s", &got); status != 200 || got != want {
			t.Errorf("%s: %d %v", path, status, got)
		}
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}

// A certificate that is renewed is shown to who comes next, over HTTPS and by
// NSQ's upgrade, without a restart.
func TestCertificatesAreRenewed(t *testing.T) {
	c := settings(t)
	var first *tls.Config
	c.TLSCert, c.TLSKey, first = selfSigned(t)
	c.HTTPSAddress = "127.0.0.1:0"
	r := start(t, c, vfs.Default())
	at := r.Addrs()
	web := func(trust *tls.Config) error {
		conn, err := tls.Dial("tcp", at.HTTPS, trust)
		if err == nil {
			conn.Close()
		}
		return err
	}
	upgrade := func(trust *tls.Config) error {
		cfg := gonsq.NewConfig()
		cfg.TlsV1, cfg.TlsConfig = true, trust
		p, err := gonsq.NewProducer(at.TCP, cfg)
		if err != nil {
			return err
		}
		defer p.Stop()
		p.SetLoggerLevel(gonsq.LogLevelMax)
		return p.Ping()
	}
	if err := errors.Join(web(first), upgrade(first)); err != nil {
		t.Fatal(err)
	}
	cert, key, second := selfSigned(t)
	for from, to := range map[string]string{cert: c.TLSCert, key: c.TLSKey} {
		copyFile(t, from, to)
	}
	for end := time.Now().Add(time.Minute); web(second) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the new certificate is not shown")
		}
	}
	if err := upgrade(second); err != nil {
		t.Error(err)
	}
	if web(first) == nil || upgrade(first) == nil {
		t.Error("the old certificate is still shown")
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}

// Files that are half written leave the certificate that there is.
func TestCertificatesHalfWritten(t *testing.T) {
	cert, key, _ := selfSigned(t)
	now := time.Now()
	current, err := node.Certificates(cert, key, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	first := current()
	step := func(from, to string, changes bool) {
		t.Helper()
		before := current()
		if from == "" {
			if err := os.WriteFile(to, []byte("half of a "), 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			copyFile(t, from, to)
		}
		if current() != before {
			t.Error("files are read before a second has passed")
		}
		now = now.Add(time.Second)
		if got := current() != before; got != changes {
			t.Errorf("%s: changed: %v", from, got)
		}
	}
	newCert, newKey, _ := selfSigned(t)
	step("", key, false)
	step(newCert, cert, false) // its key is not there yet
	step(newKey, key, true)
	now = now.Add(time.Second)
	if a, b := current(), current(); a != b || a == first || string(a.Certificates[0].Certificate[0]) == string(first.Certificates[0].Certificate[0]) {
		t.Error("the new certificate is not in force")
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestBadCertificates(t *testing.T) {
	cert, key, _ := selfSigned(t)
	for want, set := range map[string]func(c *config.Config){
		"load --tls-cert and --tls-key": func(c *config.Config) { c.TLSCert, c.TLSKey = key, cert },
		"load --tls-root-ca-file":       func(c *config.Config) { c.TLSRootCAFile = filepath.Join(t.TempDir(), "absent") },
		"no certificate in":             func(c *config.Config) { c.TLSRootCAFile = key },
	} {
		c := settings(t)
		set(&c)
		if _, err := build(c, vfs.Default()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A node on unix sockets, twice in the same place: a socket that nobody listens
// on any more is in nobody's way, one that is in use is.
func TestUnixSockets(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no unix sockets")
	}
	dir := t.TempDir()
	c := settings(t)
	c.TCPAddress, c.HTTPAddress = filepath.Join(dir, "tcp.sock"), filepath.Join(dir, "http.sock")
	left, err := net.Listen("unix", c.TCPAddress)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()

	r := start(t, c, vfs.Default())
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.HTTPAddress)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Post("http://node/pub?topic=t", "", strings.NewReader("x"))
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
	nc, err := net.Dial("unix", c.TCPAddress)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	fmt.Fprint(nc, "  V2PUB t\n\x00\x00\x00\x01x")
	answer := make([]byte, 10)
	if _, err := nc.Read(answer); err != nil || string(answer[8:]) != "OK" {
		t.Fatalf("%q %v", answer, err)
	}

	other := settings(t)
	other.TCPAddress = c.TCPAddress
	if _, err := build(other, vfs.Default()); err == nil || !strings.Contains(err.Error(), "--tcp-address") {
		t.Errorf("a socket in use is taken: %v", err)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
	again := start(t, c, vfs.Default())
	if err := again.close(); err != nil {
		t.Error(err)
	}
}
