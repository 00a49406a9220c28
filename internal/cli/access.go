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

// access is what the context and the environment say, for the node at addr. The
// environment wins, unless the context was named on the command line. An
// https:// server is spoken to in TLS at its TCP address as well.
func (c *namedContext) access(addr string, explicit bool) (a access, err error) {
	choose := func(inContext, key, env string) (value, where string) {
		if own := os.Getenv(env); own != "" && (inContext == "" || !explicit) {
			return own, env
		}
		return inContext, key
	}
	secret, where := choose(c.SecretFile, "secret_file", envSecret)
	if a.secret = secret; where != envSecret && secret != "" {
		if a.secret, err = readSecret(secret); err != nil {
			return a, err
		}
	}
	if !strings.HasPrefix(addr, "https://") {
		return a, nil
	}
	a.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if file, where := choose(c.CAFile, "ca_file", envCA); file != "" {
		if a.tls.RootCAs, err = readAuthorities(file, where); err != nil {
			return a, err
		}
	}
	cert, certWhere := choose(c.CertFile, "cert_file", envCert)
	key, _ := choose(c.KeyFile, "key_file", envKey)
	if cert == "" && key == "" {
		return a, nil
	}
	if cert == "" || key == "" {
		return a, usagef("a certificate goes with its key: set both %s and %s, or cert_file and key_file of the context", envCert, envKey)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return a, usagef("%s: %w", certWhere, err)
	}
	a.tls.Certificates = []tls.Certificate{pair}
	return a, nil
}

// secretMax bounds a secret's file, in bytes.
const secretMax = 64 << 10

// readSecret is the first line of the file.
func readSecret(file string) (string, error) {
	info, err := os.Stat(file)
	if err == nil && (info.IsDir() || info.Size() > secretMax) {
		err = fmt.Errorf("%s holds no secret: want a file with one line", file)
	}
	if err != nil {
		return "", usagef("secret_file: %w", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", usagef("secret_file: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", usagef("secret_file: the first line of %s is empty", file)
	}
	return line, nil
}

// readAuthorities reads a PEM file; where says who named it.
func readAuthorities(file, where string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, usagef("%s: %w", where, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, usagef("%s: there is no certificate in %s", where, file)
	}
	return pool, nil
}

// named is the TLS configuration for the node at addr, HOST:PORT.
func (a access) named(addr string) *tls.Config {
	c := a.tls.Clone()
	c.ServerName, _, _ = net.SplitHostPort(addr)
	return c
}
