package cli

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"strings"
)

// Environment of the command line beside TIDINGS_SERVER. There are no flags for
// them: a secret on a command line is in everybody's process list.
const (
	envSecret = "TIDINGS_SECRET" // what the node's auth servers know the user by
	envCA     = "TIDINGS_CA"     // PEM file with the authorities of nodes' certificates
)

// access is how a node is reached that does not talk to everybody.
type access struct {
	secret string
	tls    *tls.Config // nil: in clear
}

// access reads the environment. An https:// server is spoken to in TLS at its
// TCP address as well.
func (srv *server) access() (a access, err error) {
	a.secret = os.Getenv(envSecret)
	if !strings.HasPrefix(srv.addr, "https://") {
		return a, nil
	}
	a.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	file := os.Getenv(envCA)
	if file == "" {
		return a, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return a, usagef("%s: %w", envCA, err)
	}
	a.tls.RootCAs = x509.NewCertPool()
	if !a.tls.RootCAs.AppendCertsFromPEM(pem) {
		return a, usagef("%s: there is no certificate in %s", envCA, file)
	}
	return a, nil
}

// transport is http's, made once a server needs its own.
func (srv *server) transport(config *tls.Config) {
	if srv.http.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig = config
		srv.http.Transport = t
	}
}

// named is the TLS configuration for the node at addr, HOST:PORT.
func (a access) named(addr string) *tls.Config {
	c := a.tls.Clone()
	c.ServerName, _, _ = net.SplitHostPort(addr)
	return c
}
