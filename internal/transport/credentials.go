package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// nodeURI is what a node's name stands behind in its certificate.
const nodeURI = "tidings://node/"

// ValidName says whether a node can have this name: 1 to 64 letters, digits,
// '.', '_' and '-', beginning with a letter or digit.
func ValidName(name string) bool {
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._-", r)) {
			return false
		}
	}
	return len(name) >= 1 && len(name) <= 64
}

// Credentials are a node's certificate and key, and the authorities whose
// certificates it accepts.
type Credentials struct {
	files [3]string // CA, certificate, key; empty when they came from memory

	mu      sync.Mutex
	have    bundle
	seen    [3]fileMark // what the files looked like when they were loaded
	checked time.Time
	failed  error // why the newest files can't be used
}

// bundle is what one set of files holds; it is never changed.
type bundle struct {
	roots *x509.CertPool
	cert  *tls.Certificate
	name  string
}

type fileMark struct {
	modified time.Time
	size     int64
}

// recheck is how often the files are looked at, at most.
const recheck = time.Second

// LoadTLS reads PEM files: the authorities' certificates (one or several, so that
// they can be rotated too), this node's certificate, and its key. The files are
// read again when they change, so that new connections use what is there now;
// files that can't be used leave the old ones in force, and Err says so.
func LoadTLS(ca, cert, key string) (*Credentials, error) {
	c := &Credentials{files: [3]string{ca, cert, key}}
	if err := c.load(time.Now()); err != nil {
		return nil, err
	}
	return c, nil
}

// NewCredentials makes credentials from PEM text.
func NewCredentials(ca, cert, key []byte) (*Credentials, error) {
	b, err := parseBundle(ca, cert, key)
	if err != nil {
		return nil, err
	}
	return &Credentials{have: b}, nil
}

func parseBundle(ca, cert, key []byte) (bundle, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return bundle{}, errors.New("load authorities: no certificate in it")
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return bundle{}, fmt.Errorf("load certificate and key: %w", err)
	}
	name, err := nodeName(pair.Leaf)
	if err != nil {
		return bundle{}, fmt.Errorf("load certificate: %w", err)
	}
	return bundle{roots, &pair, name}, nil
}

// load reads the files; mu is held, or nobody else has c yet.
func (c *Credentials) load(now time.Time) error {
	var text [3][]byte
	var seen [3]fileMark
	for i, name := range c.files {
		info, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("load certificates: %w", err)
		}
		seen[i] = fileMark{info.ModTime(), info.Size()}
		if text[i], err = os.ReadFile(name); err != nil {
			return fmt.Errorf("load certificates: %w", err)
		}
	}
	b, err := parseBundle(text[0], text[1], text[2])
	if err == nil && c.have.cert != nil && b.name != c.have.name {
		err = fmt.Errorf("load certificate: it is for node %q now, this is node %q", b.name, c.have.name)
	}
	if err != nil {
		return fmt.Errorf("%w (in %s)", err, strings.Join(c.files[:], ", "))
	}
	c.have, c.seen, c.checked = b, seen, now
	return nil
}

// current is the newest usable bundle.
func (c *Credentials) current() bundle {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); c.files[0] != "" && now.Sub(c.checked) >= recheck {
		c.checked = now
		if c.failed != nil || c.changed() {
			c.failed = c.load(now)
		}
	}
	return c.have
}

func (c *Credentials) changed() bool {
	for i, name := range c.files {
		info, err := os.Stat(name)
		if err != nil || !info.ModTime().Equal(c.seen[i].modified) || info.Size() != c.seen[i].size {
			return true
		}
	}
	return false
}

// Name is the node's name in its certificate.
func (c *Credentials) Name() string { return c.current().name }

// Expires is the end of the certificate that is in force.
func (c *Credentials) Expires() time.Time { return c.current().cert.Leaf.NotAfter }

// Err says why files that have changed could not be used; nil when all is well.
func (c *Credentials) Err() error {
	c.current()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// server is the configuration for an accepted connection.
func (c *Credentials) server() *tls.Config {
	b := c.current()
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		Certificates:                []tls.Certificate{*b.cert},
		ClientAuth:                  tls.RequireAnyClientCert, // verified below
		VerifyConnection:            b.verifier(x509.ExtKeyUsageClientAuth),
		SessionTicketsDisabled:      true, // every connection shows its certificate
		DynamicRecordSizingDisabled: true,
	}
}

// client is the configuration for a dialed connection. The library's own check
// is for host names; ours, VerifyConnection, is for nodes, whose addresses may
// change.
func (c *Credentials) client() *tls.Config {
	b := c.current()
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		Certificates:                []tls.Certificate{*b.cert},
		InsecureSkipVerify:          true,
		VerifyConnection:            b.verifier(x509.ExtKeyUsageServerAuth),
		DynamicRecordSizingDisabled: true,
	}
}

// verifier checks a peer's chain, its validity now, and that it is a node's.
func (b bundle) verifier(usage x509.ExtKeyUsage) func(tls.ConnectionState) error {
	return func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errors.New("check the peer's certificate: there is none")
		}
		between := x509.NewCertPool()
		for _, c := range s.PeerCertificates[1:] {
			between.AddCert(c)
		}
		leaf := s.PeerCertificates[0]
		_, err := leaf.Verify(x509.VerifyOptions{
			Roots: b.roots, Intermediates: between, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{usage},
		})
		if err == nil {
			_, err = nodeName(leaf)
		}
		if err != nil {
			return fmt.Errorf("check the peer's certificate: %w", err)
		}
		return nil
	}
}

// nodeName reads the node's name from a certificate.
func nodeName(c *x509.Certificate) (string, error) {
	for _, u := range c.URIs {
		if name, ok := strings.CutPrefix(u.String(), nodeURI); ok && ValidName(name) {
			return name, nil
		}
	}
	return "", fmt.Errorf("certificate %q names no node (no URI %sNAME)", c.Subject.CommonName, nodeURI)
}
