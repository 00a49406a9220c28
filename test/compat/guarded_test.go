package compat

import (
	"bufio"
	"compress/flate"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"

	"github.com/tidings-io/tidings/internal/config"
)

// guarded is a server that was started with flags of nsqd's.
type guarded struct {
	tcp, http, https string
	stop             func() // before the test ends; a program is killed
}

// flags are nsqd's, by name, with their values; a list has commas.
type flags = map[string]string

// startWith starts our own node with flags, or the nsqd that
// TIDINGS_COMPAT_NSQD_PROGRAM names.
func startWith(t *testing.T, f flags) guarded {
	t.Helper()
	return startAt(t, t.TempDir(), f)
}

// startAt is startWith on a data folder.
func startAt(t *testing.T, dir string, f flags) guarded {
	t.Helper()
	f = maps.Clone(f)
	for _, name := range []string{"tcp-address", "http-address", "https-address"} {
		if f[name] == "" {
			f[name] = "127.0.0.1:0"
		}
	}
	if program := os.Getenv("TIDINGS_COMPAT_NSQD_PROGRAM"); program != "" {
		return startProgram(t, program, dir, f)
	}
	return startOurs(t, dir, f)
}

// startOurs starts our own node with flags.
func startOurs(t *testing.T, dir string, f flags) guarded {
	t.Helper()
	cfg, _, err := config.Load(config.Source{Flags: f, NSQD: true})
	if err != nil {
		t.Fatal(err)
	}
	a, stop := startNode(t, dir, cfg)
	return guarded{a.TCP, a.HTTP, a.HTTPS, stop}
}

var listens = regexp.MustCompile(` (TCP|HTTP|HTTPS): listening on (\S+)`)

// startProgram starts a real nsqd, and reads from its log where it listens.
func startProgram(t *testing.T, program, dir string, f flags) (g guarded) {
	t.Helper()
	args := []string{"-data-path=" + dir}
	for name, value := range f {
		if name != "auth-http-address" {
			args = append(args, "-"+name+"="+value)
			continue
		}
		for one := range strings.SplitSeq(value, ",") {
			args = append(args, "-"+name+"="+one)
		}
	}
	cmd := exec.Command(program, args...)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	g.stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	lines := bufio.NewScanner(log)
	for g.tcp == "" || g.http == "" || g.https == "" && f["tls-cert"] != "" {
		if !lines.Scan() {
			t.Fatalf("%s ended", program)
		}
		m := listens.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		*map[string]*string{"TCP": &g.tcp, "HTTP": &g.http, "HTTPS": &g.https}[m[1]] = m[2]
	}
	go func() { _, _ = io.Copy(io.Discard, log) }()
	return g
}

func (g guarded) run(t *testing.T, rows []row) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			k := &talk{t: t, tcp: g.tcp, http: g.http, topic: unique()}
			k.conn = k.dial()
			k.main = k.conn
			for _, s := range r.steps {
				s(k)
			}
		})
	}
}

// pair is a certificate in files and in memory; it signs itself.
type pair struct {
	cert, key string
	tls.Certificate
}

func makePair(t *testing.T, name string) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
	for file, block := range map[string]*pem.Block{p.cert: {Type: "CERTIFICATE", Bytes: der}, p.key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// --- steps

// secure does the TLS handshake as a client.
func secure(certs ...tls.Certificate) step {
	return func(k *talk) {
		k.t.Helper()
		c := tls.Client(k.conn, &tls.Config{InsecureSkipVerify: true, Certificates: certs})
		c.SetDeadline(time.Now().Add(patience))
		if err := c.Handshake(); err != nil {
			k.t.Fatalf("handshake: %v", err)
		}
		k.conn = c
	}
}

// securedBy does the TLS handshake in one version.
func securedBy(version uint16) step {
	return func(k *talk) {
		k.t.Helper()
		c := tls.Client(k.conn, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
		c.SetDeadline(time.Now().Add(patience))
		if err := c.Handshake(); err != nil {
			k.t.Fatalf("handshake: %v", err)
		}
		k.conn = c
	}
}

// unsecured wants the handshake, or the first read after it, to fail.
func unsecured(config *tls.Config) step {
	return func(k *talk) {
		k.t.Helper()
		c := tls.Client(k.conn, config)
		c.SetDeadline(time.Now().Add(patience))
		if c.Handshake() == nil {
			if n, err := c.Read(make([]byte, 1)); err == nil {
				k.t.Fatalf("the handshake succeeds, %d bytes", n)
			}
		}
	}
}

// packed is a connection with a compression on it, from other packages than the
// server's.
type packed struct {
	net.Conn
	r io.Reader
	w io.Writer
}

func (p *packed) Read(b []byte) (int, error) { return p.r.Read(b) }

func (p *packed) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	if f, ok := p.w.(*flate.Writer); ok && err == nil {
		err = f.Flush()
	}
	return n, err
}

func snappied(k *talk) {
	k.conn = &packed{k.conn, snappy.NewReader(k.conn), snappy.NewWriter(k.conn)} //nolint:staticcheck // unbuffered on purpose
}

func deflated(k *talk) {
	w, err := flate.NewWriter(k.conn, 3)
	if err != nil {
		k.t.Fatal(err)
	}
	k.conn = &packed{k.conn, flate.NewReader(k.conn), w}
}

// works publishes and consumes small and large messages.
func works(k *talk) {
	k.t.Helper()
	large := strings.Repeat("0123456789abcdef", 20_000)
	for _, s := range []step{
		send("PUB $t\n" + sized("small")), ok,
		send("MPUB $t\n" + sized(multi("a", large))), ok,
		send("PUB nonsense\n" + sized("x") + "NOP\n"), ok,
		send("SUB $t c\n"), ok, send("RDY 1\n"), msg("small"), send("FIN $i\n"), msg("a"), send("FIN $i\n"), msg(large), send("FIN $i\n"),
		send("CLS\n"), resp("CLOSE_WAIT"),
	} {
		s(k)
	}
}

// seen works, and wants /stats to show the consumer with exactly these of tls,
// snappy and deflate.
func seen(names ...string) step {
	return func(k *talk) {
		k.t.Helper()
		for _, s := range []step{send("SUB $t seen\n"), ok} {
			s(k)
		}
		var want []string
		for _, name := range []string{"deflate", "snappy", "tls"} {
			want = append(want, fmt.Sprintf(`%q:%v`, name, slices.Contains(names, name)))
		}
		if slices.Contains(names, "tls") {
			want = append(want, `"tls_version":"TLS1.3"`, `"tls_negotiated_protocol":""`)
		}
		wantPart("/stats?format=json&topic=$t&channel=seen", want...)(k)
	}
}

// --- tables

// TestSeen holds sections 2 and 4: what was negotiated is really on, alone and
// combined.
func TestSeen(t *testing.T) {
	t.Parallel() // with servers of its own
	p := makePair(t, "server")
	ask := func(fields string) []step {
		return []step{hello, identify(`{"feature_negotiation":true,` + fields + `}`), func(k *talk) {
			if f, err := k.read(); err != nil || f.kind != 0 || !strings.HasPrefix(string(f.data), "{") {
				k.t.Fatalf("%s %v", f, err)
			}
		}}
	}
	startWith(t, flags{"tls-cert": p.cert, "tls-key": p.key}).run(t, []row{
		{"nothing", join(hello, identify(`{"feature_negotiation":false,"tls_v1":true,"snappy":true}`), ok, seen())},
		{"tls", join(ask(`"tls_v1":true`), secure(), ok, seen("tls"))},
		{"snappy", join(ask(`"snappy":true`), snappied, ok, seen("snappy"))},
		{"deflate", join(ask(`"deflate":true`), deflated, ok, seen("deflate"))},
		{"tls and snappy", join(ask(`"tls_v1":true,"snappy":true`), secure(), ok, snappied, ok, seen("tls", "snappy"))},
		{"tls and deflate", join(ask(`"tls_v1":true,"deflate":true`), secure(), ok, deflated, ok, seen("tls", "deflate"))},
		rule("TLS 1.1 without tls-min-version", join(ask(`"tls_v1":true`), differs("TLS begins at 1.2",
			[]step{securedBy(tls.VersionTLS11), ok}, []step{unsecured(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})}))...),
	})
	startWith(t, flags{"tls-cert": p.cert, "tls-key": p.key, "tls-min-version": "tls1.0"}).run(t, []row{
		{"TLS 1.0 with tls-min-version=tls1.0", join(ask(`"tls_v1":true`), securedBy(tls.VersionTLS10), ok)},
	})
	startWith(t, flags{"tls-cert": p.cert, "tls-key": p.key, "tls-min-version": "tls1.3"}).run(t, []row{
		{"TLS 1.2 with tls-min-version=tls1.3", join(ask(`"tls_v1":true`), unsecured(&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}))},
	})
}

// TestUpgrades holds section 2's upgrade order and stream formats.
func TestUpgrades(t *testing.T) {
	p := makePair(t, "server")
	ask := func(fields string, want map[string]any) []step {
		return []step{hello, identify(`{"feature_negotiation":true,` + fields + `}`), negotiated(want)}
	}
	type m = map[string]any
	startWith(t, flags{"tls-cert": p.cert, "tls-key": p.key, "tls-min-version": "tls1.2", "max-deflate-level": "6"}).run(t, []row{
		rule("none asked", join(ask(`"snappy":false`, nil), step(works))...),
		rule("no negotiation", hello, identify(`{"tls_v1":true,"snappy":true}`), ok, works),
		rule("tls", join(ask(`"tls_v1":true`, m{"tls_v1": true}), secure(), step(ok), step(works))...),
		rule("snappy", join(ask(`"snappy":true`, m{"snappy": true}), step(snappied), step(ok), step(works))...),
		rule("deflate", join(ask(`"deflate":true`, m{"deflate": true}), step(deflated), step(ok), step(works))...),
		rule("deflate level", join(ask(`"deflate":true,"deflate_level":2`, m{"deflate": true, "deflate_level": 2.0}), step(deflated), step(ok), step(works))...),
		rule("deflate level above the limit", join(ask(`"deflate":true,"deflate_level":9`, m{"deflate": true}), step(deflated), step(ok), step(works))...),
		rule("level without deflate", join(ask(`"deflate_level":2`, nil), step(works))...),
		rule("tls and snappy", join(ask(`"tls_v1":true,"snappy":true`, m{"tls_v1": true, "snappy": true}), secure(), step(ok), step(snappied), step(ok), step(works))...),
		rule("tls and deflate", join(ask(`"tls_v1":true,"deflate":true`, m{"tls_v1": true, "deflate": true}), secure(), step(ok), step(deflated), step(ok), step(works))...),
		rule("snappy and deflate", hello, identify(`{"feature_negotiation":true,"tls_v1":true,"snappy":true,"deflate":true}`),
			fails("E_IDENTIFY_FAILED cannot enable both deflate and snappy compression"), closed),
		rule("compression in a second IDENTIFY", join(ask(`"tls_v1":true`, m{"tls_v1": true}), secure(), step(ok),
			identify(`{"feature_negotiation":true,"snappy":true}`), negotiated(m{"snappy": true}), step(snappied), step(ok), step(works))...),
		rule("version below the limit", join(ask(`"tls_v1":true`, m{"tls_v1": true}),
			unsecured(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}))...),
		rule("no handshake", join(ask(`"tls_v1":true`, m{"tls_v1": true}), send("PUB $t\n"+sized("no handshake at all")), step(func(k *talk) {
			b, err := io.ReadAll(k.conn)
			if err != nil || !strings.Contains(string(b), "E_IDENTIFY_FAILED IDENTIFY failed tls: ") {
				k.t.Errorf("%q %v", b, err)
			}
		}))...),
		rule("error inside tls", join(ask(`"tls_v1":true,"snappy":true`, m{"tls_v1": true, "snappy": true}), secure(), step(ok), step(snappied), step(ok),
			send("X\n"), fails("E_INVALID invalid command X"))...),
	})
}

// TestTLSRequired holds section 1's and section 4's rules for servers that want
// TLS.
func TestTLSRequired(t *testing.T) {
	p, known, stranger := makePair(t, "server"), makePair(t, "known"), makePair(t, "stranger")
	begin := []step{hello, identify(`{"feature_negotiation":true,"tls_v1":true}`), negotiated(map[string]any{"tls_v1": true})}
	refused := func(name, command string) row {
		return rule(name, hello, send(command), fails("E_INVALID cannot "+name+" in current state (TLS required)"), closed)
	}
	commands := []row{
		refused("PUB", "PUB $t\n"+sized("x")), refused("MPUB", "MPUB $t\n"+sized(multi("x"))), refused("DPUB", "DPUB $t 1\n"+sized("x")),
		refused("SUB", "SUB $t c\n"), refused("AUTH", "AUTH\n"+sized("x")), refused("NOP", "NOP\n"), refused("RDY", "RDY 1\n"),
		refused("FIN", "FIN 0123456789abcdef\n"), refused("REQ", "REQ 0123456789abcdef 0\n"), refused("TOUCH", "TOUCH 0123456789abcdef\n"), refused("CLS", "CLS\n"),
		refused("X", "X\n"), refused("", "\n"),
		rule("without tls_v1", hello, identify(`{"feature_negotiation":true}`), negotiated(nil), send("NOP\n"),
			fails("E_INVALID cannot NOP in current state (TLS required)"), closed),
		rule("second word", hello, send("NOP x\n"), fails("E_INVALID cannot NOP in current state (TLS required)"), closed),
	}
	none := unsecured(&tls.Config{InsecureSkipVerify: true})
	as := func(c pair) step {
		return unsecured(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{c.Certificate}})
	}
	for _, c := range []struct {
		name  string
		flags flags
		http  bool // stays open
		rows  []row
	}{
		{"true", flags{"tls-required": "true"}, false, append(commands, rule("tls", join(begin, secure(), step(ok), step(works))...))},
		{"tcp-https", flags{"tls-required": "tcp-https"}, true, append(commands, rule("tls", join(begin, secure(), step(ok), step(works))...))},
		{"require", flags{"tls-client-auth-policy": "require"}, false, append(commands,
			rule("no certificate", join(begin, none)...),
			rule("any certificate", join(begin, secure(stranger.Certificate), step(ok), step(works))...))},
		{"require-verify", flags{"tls-client-auth-policy": "require-verify", "tls-root-ca-file": known.cert}, false, append(commands,
			rule("no certificate", join(begin, none)...),
			rule("a stranger's certificate", join(begin, as(stranger))...),
			rule("a known certificate", join(begin, secure(known.Certificate), step(ok), step(works))...))},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.flags["tls-cert"], c.flags["tls-key"] = p.cert, p.key
			g := startWith(t, c.flags)
			_, port, _ := net.SplitHostPort(g.https)
			answer := request("GET /ping", "", 403, `{"message": "TLS_REQUIRED", "https_port": `+port+`}`)
			if c.http {
				answer = request("GET /ping", "", 200, "OK")
			}
			g.run(t, append(c.rows, rule("plain HTTP", answer)))
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{known.Certificate}}}}
			defer client.CloseIdleConnections()
			resp, err := client.Get("https://" + g.https + "/ping")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "OK" {
				t.Errorf("HTTPS: %q %v", b, err)
			}
		})
	}
}

// TestGrants holds section 3, with the question asked both ways.
func TestGrants(t *testing.T) {
	for _, method := range []string{"get", "post"} {
		t.Run(method, func(t *testing.T) {
			asked := make(chan url.Values, 1000)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				q := r.URL.Query()
				if r.Method == "POST" {
					if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
						t.Errorf("question: %v", err)
					}
				}
				q.Set("path", r.URL.Path)
				q.Set("method", strings.ToLower(r.Method))
				asked <- q
				fmt.Fprint(w, answers[q.Get("secret")])
			}))
			defer s.Close()
			address := s.Listener.Addr().String()
			startWith(t, flags{"auth-http-address": address, "auth-http-request-method": method}).run(t, grantRows())
			q := <-asked
			for name, want := range map[string]string{"remote_ip": "127.0.0.1", "tls": "false", "common_name": "", "path": "/auth", "method": method} {
				if _, there := q[name]; !there || q.Get(name) != want {
					t.Errorf("question: %v, want %s %q", q, name, want)
				}
			}
		})
	}
}

const everything = `{"topic":".*","channels":[".*"],"permissions":["subscribe","publish"]}`

// answers are what the auth server says to each secret; to others, nothing.
var answers = map[string]string{
	"root":       `{"ttl":60,"identity":"me","identity_url":"http://me","authorizations":[` + everything + `]}`,
	"nothing":    `{"ttl":60,"authorizations":[]}`,
	"publisher":  `{"ttl":60,"authorizations":[{"topic":"^compat","channels":[".*"],"permissions":["publish"]}]}`,
	"subscriber": `{"ttl":60,"authorizations":[{"topic":"compat","channels":["^c$","^d"],"permissions":["subscribe"]}]}`,
	"channels":   `{"ttl":60,"authorizations":[{"topic":".*","channels":["c"],"permissions":["subscribe","publish"]}]}`,
	"second":     `{"ttl":60,"authorizations":[{"topic":"^no$","channels":[],"permissions":[]},` + everything + `]}`,
	"short":      `{"ttl":1,"authorizations":[` + everything + `]}`,
	"no ttl":     `{"authorizations":[` + everything + `]}`,
	"negative":   `{"ttl":-1,"authorizations":[` + everything + `]}`,
	"permission": `{"ttl":60,"authorizations":[{"topic":".*","channels":[".*"],"permissions":["admin"]}]}`,
	"topic":      `{"ttl":60,"authorizations":[{"topic":"(","channels":[".*"],"permissions":["publish"]}]}`,
	"channel":    `{"ttl":60,"authorizations":[{"topic":".*","channels":["*"],"permissions":["publish"]}]}`,
}

func grantRows() []row {
	auth := func(secret string, count int) []step {
		return []step{hello, send("AUTH\n" + sized(secret)), resp(fmt.Sprintf(`{"identity":"","identity_url":"","permission_count":%d}`, count))}
	}
	first := func(command, line string) row {
		return rule(command+" first", hello, send(line), fails("E_AUTH_FIRST AUTH required before "+command), closed)
	}
	failed := func(secret string) row {
		return rule("answer "+secret, hello, send("AUTH\n"+sized(secret)), fails("E_AUTH_FAILED AUTH failed"), closed)
	}
	no := func(command, channel string) step {
		return fails("E_UNAUTHORIZED AUTH failed for " + command + ` on "$t" "` + channel + `"`)
	}
	pub, mpub, dpub := "PUB $t\n"+sized("x"), "MPUB $t\n"+sized(multi("x")), "DPUB $t 1\n"+sized("x")
	return []row{
		rule("auth_required", hello, identify(`{"feature_negotiation":true}`), negotiated(map[string]any{"auth_required": true})),
		rule("identity", hello, send("AUTH\n"+sized("root")), resp(`{"identity":"me","identity_url":"http://me","permission_count":1}`), send(pub), ok),
		rule("already set", join(auth("publisher", 1), send("AUTH\n"+sized("root")), fails("E_INVALID AUTH already set"), step(closed))...),
		rule("no grants", hello, send("AUTH\n"+sized("nothing")), fails("E_UNAUTHORIZED AUTH no authorizations found"), closed),
		first("PUB", pub), first("MPUB", mpub), first("DPUB", dpub), first("SUB", "SUB $t c\n"),
		failed("unknown"), failed("no ttl"), failed("negative"), failed("permission"), failed("topic"), failed("channel"),
		rule("publisher", join(auth("publisher", 1), send(pub), step(ok), send(mpub), step(ok), send(dpub), step(ok), send("SUB $t c\n"), no("SUB", "c"), step(closed))...),
		rule("publisher elsewhere", join(auth("publisher", 1), send("PUB other\n"+sized("x")), fails(`E_UNAUTHORIZED AUTH failed for PUB on "other" ""`), step(closed))...),
		rule("subscriber", join(auth("subscriber", 1), send("SUB $t c\n"), step(ok), send(pub), no("PUB", ""), step(closed))...),
		rule("expressions are not anchored", join(auth("subscriber", 1), send("SUB x_$t d2\n"), step(ok))...),
		rule("channel without a grant", join(auth("subscriber", 1), send("SUB $t e\n"), no("SUB", "e"), step(closed))...),
		rule("publish needs an expression for the empty channel", join(auth("channels", 1), send(pub), no("PUB", ""), step(closed))...),
		rule("MPUB unauthorized", join(auth("subscriber", 1), send(mpub), no("MPUB", ""), step(closed))...),
		rule("DPUB unauthorized", join(auth("subscriber", 1), send(dpub), no("DPUB", ""), step(closed))...),
		rule("second grant", join(auth("second", 2), send(pub), step(ok))...),
		rule("a bad body comes before a missing grant", hello, send("PUB $t\n"+sized("")), fails("E_BAD_MESSAGE PUB invalid message body size 0"), closed),
		rule("but not that of MPUB", hello, send("MPUB $t\n"+sized("")), fails("E_AUTH_FIRST AUTH required before MPUB"), closed),
		rule("a bad name comes first", hello, send("SUB $t+ c\n"), fails(`E_BAD_TOPIC SUB topic name "$t+" is not valid`), closed),
		rule("asked again", join(auth("short", 1), send(pub), step(ok), step(func(*talk) { time.Sleep(1100 * time.Millisecond) }), send(pub), step(ok))...),
		rule("HTTP is open", request("POST /pub?topic=$t", "x", 200, "OK")),
	}
}

// TestNoAuthServer: nothing listens where grants are to be asked for.
func TestNoAuthServer(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	startWith(t, flags{"auth-http-address": l.Addr().String()}).run(t, []row{
		rule("AUTH", hello, send("AUTH\n"+sized("root")), fails("E_AUTH_FAILED AUTH failed"), closed),
	})
}
