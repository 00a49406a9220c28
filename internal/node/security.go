package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/tidings-io/tidings/internal/auth"
	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/front/nsq"
)

// security is how clients of the NSQ front prove who they are, and how the node
// does.
type security struct {
	tls      *tls.Config // nil: TLS is not offered
	required nsq.TLSRequired
	auth     *auth.Client  // nil: everybody may do everything
	files    *certificates // what tls shows; nil without it
	// authorities are those of clients, and of servers that are asked; nil: the
	// system's
	authorities *x509.CertPool
}

// newSecurity reads the certificates.
func newSecurity(c *config.Config, log *slog.Logger) (*security, error) {
	version, err := c.MinTLSVersion()
	if err != nil {
		return nil, err
	}
	required, err := c.TLSRequirement()
	if err != nil {
		return nil, err
	}
	authorities, err := certPool(c.TLSRootCAFile)
	if err != nil {
		return nil, err
	}
	s := &security{required: nsq.TLSRequired(required), authorities: authorities}
	if c.TLSOffered() {
		base := &tls.Config{MinVersion: version}
		switch c.TLSClientAuthPolicy {
		case "require":
			base.ClientAuth = tls.RequireAnyClientCert
		case "require-verify":
			base.ClientAuth = tls.RequireAndVerifyClientCert
		}
		s.files, err = newCertificates(c.TLSCert, c.TLSKey, c.TLSRootCAFile, base, time.Now, log)
		if err != nil {
			return nil, err
		}
		s.tls = s.files.config()
	}
	if len(c.AuthHTTPAddresses) > 0 {
		s.auth = auth.New(auth.Options{
			Addresses: c.AuthHTTPAddresses, Method: c.AuthHTTPMethod,
			ConnectTimeout: c.HTTPConnectTimeout, RequestTimeout: c.HTTPRequestTimeout,
			TLS: &tls.Config{MinVersion: version, RootCAs: authorities},
		})
	}
	return s, nil
}

// ClientSecurity is how the clients of an NSQ front prove who they are, and how the
// process does: for one that is no node.
type ClientSecurity struct {
	TLS      *tls.Config // nil: TLS is not offered
	Required nsq.TLSRequired
	Auth     *auth.Client // nil: everybody may do everything
}

// NewClientSecurity reads what c says of TLS and AUTH. Certificates are read again when
// their files change.
func NewClientSecurity(c *config.Config, log *slog.Logger) (ClientSecurity, error) {
	s, err := newSecurity(c, log)
	if err != nil {
		return ClientSecurity{}, err
	}
	return ClientSecurity{TLS: s.tls, Required: s.required, Auth: s.auth}, nil
}

// asClient is how the node asks nodes that insist on TLS: it trusts their
// authorities and its own certificate, as they are now, and shows that to who
// wants to see one.
func (s *security) asClient() *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: s.authorities}
	if s.files == nil {
		return c
	}
	now := s.files.current()
	c.Certificates = now.Certificates
	pool := now.ClientCAs
	if pool == nil {
		system, err := x509.SystemCertPool()
		if err != nil {
			return c // there are no others to trust; it will be said when one is needed
		}
		pool = system
	}
	c.RootCAs = pool.Clone()
	if own, err := x509.ParseCertificate(c.Certificates[0].Certificate[0]); err == nil { // it has been parsed before
		c.RootCAs.AddCert(own)
	}
	return c
}

// certPool reads a file of authorities; nil, which is the system's, without one.
func certPool(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("load --tls-root-ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load --tls-root-ca-file: no certificate in %s", file)
	}
	return pool, nil
}

// listen binds HOST:PORT, or the path of a unix socket.
func listen(addr string) (net.Listener, error) {
	if !config.IsSocketPath(addr) {
		return net.Listen("tcp", addr)
	}
	l, err := net.Listen("unix", addr)
	if errors.Is(err, syscall.EADDRINUSE) && leftBehind(addr) {
		if err := os.Remove(addr); err != nil {
			return nil, err
		}
		return net.Listen("unix", addr)
	}
	return l, err
}

// leftBehind reports whether a path is a socket that nobody listens on: that of
// a process that was killed.
func leftBehind(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return false
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	c.Close()
	return false
}
