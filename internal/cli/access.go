package cli

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
)

// Environment of the command line that says with what a node is reached. There
// are no flags for them: a secret on a command line is in everybody's process
// list. A context (contextfile.go) has them as well.
const (
	envSecret = "TIDINGS_SECRET" // what the node's auth servers know the user by
	envCA     = "TIDINGS_CA"     // PEM file with the authorities of nodes' certificates
	envCert   = "TIDINGS_CERT"   // PEM file with the certificate that nodes are shown
	envKey    = "TIDINGS_KEY"    // PEM file with its key
)

// access is how a node is reached that does not talk to everybody.
type access struct {
	secret string
	tls    *tls.Config // nil: in clear
}

// source is where something is found that a node is reached with.
type source struct {
	value  string // path of a file; of a secret out of the environment, the secret
	where  string // that names it: a variable, or a key of the context
	origin string // one of from…; empty: there is none
}

// sources are those of one node, by key of the context.
type sources struct{ secret, ca, cert, key source }

// sources are what the context and the environment say. The environment wins,
// unless the context was named on the command line.
func (c *namedContext) sources(explicit bool) sources {
	choose := func(inContext, key, env string) source {
		own := os.Getenv(env)
		switch {
		case own != "" && (inContext == "" || !explicit):
			return source{own, env, fromEnvironment}
		case inContext != "":
			return source{inContext, key, fromContext}
		}
		return source{}
	}
	return sources{
		secret: choose(c.SecretFile, "secret_file", envSecret),
		ca:     choose(c.CAFile, "ca_file", envCA),
		cert:   choose(c.CertFile, "cert_file", envCert),
		key:    choose(c.KeyFile, "key_file", envKey),
	}
}

// access reads what the sources name, for the node at addr. An https:// server
// is spoken to in TLS at its TCP address as well.
func (s *sources) access(addr string) (a access, err error) {
	if a.secret, err = s.secret.secret(); err != nil || !strings.HasPrefix(addr, "https://") {
		return a, err
	}
	a.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if a.tls.RootCAs, err = s.ca.authorities(); err != nil {
		return a, err
	}
	pair, err := s.pair()
	if err == nil && pair != nil {
		a.tls.Certificates = []tls.Certificate{*pair}
	}
	return a, err
}

// pair is the certificate to show with its key, nil for none.
func (s *sources) pair() (*tls.Certificate, error) {
	switch {
	case s.cert.value == "" && s.key.value == "":
		return nil, nil //nolint:nilnil // none is no error
	case s.cert.value == "" || s.key.value == "":
		return nil, usagef("a certificate goes with its key: set both %s and %s, or cert_file and key_file of the context", envCert, envKey)
	}
	pair, err := tls.LoadX509KeyPair(s.cert.value, s.key.value)
	if err != nil {
		return nil, usagef("%s: %w", s.cert.where, err)
	}
	return &pair, nil
}

// secretMax bounds a secret's file, in bytes.
const secretMax = 64 << 10

// secret is the secret: itself, or the first line of its file.
func (s source) secret() (string, error) {
	if s.origin != fromContext {
		return s.value, nil
	}
	info, err := os.Stat(s.value)
	if err == nil && (info.IsDir() || info.Size() > secretMax) {
		err = fmt.Errorf("%s holds no secret: want a file with one line", s.value)
	}
	if err != nil {
		return "", usagef("%s: %w", s.where, err)
	}
	text, err := os.ReadFile(s.value)
	if err != nil {
		return "", usagef("%s: %w", s.where, err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", usagef("%s: the first line of %s is empty", s.where, s.value)
	}
	return line, nil
}

// authorities reads a PEM file; nil, which is the system's, without one.
func (s source) authorities() (*x509.CertPool, error) {
	if s.value == "" {
		return nil, nil //nolint:nilnil // crypto/tls has it so
	}
	pem, err := os.ReadFile(s.value)
	if err != nil {
		return nil, usagef("%s: %w", s.where, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usagef("%s: there is no certificate in %s", s.where, s.value)
	}
	return pool, nil
}

// named is the TLS configuration for the node at addr, HOST:PORT.
func (a access) named(addr string) *tls.Config {
	c := a.tls.Clone()
	c.ServerName, _, _ = net.SplitHostPort(addr)
	return c
}
