package config

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// TLSRequirement says which clients must use TLS.
type TLSRequirement int

// The values of TLSRequirement, with nsqd's numbers.
const (
	TLSNotRequired TLSRequirement = iota
	TLSRequiredExceptHTTP
	TLSRequired
)

// tlsVersions are nsqd's names for the versions of TLS.
var tlsVersions = map[string]uint16{"tls1.0": 0x0301, "tls1.1": 0x0302, "tls1.2": 0x0303, "tls1.3": 0x0304}

// TLSRequirement reads tls-required. A policy for client certificates requires
// TLS as well, as in nsqd.
func (c *Config) TLSRequirement() (TLSRequirement, error) {
	if strings.EqualFold(c.TLSRequired, "tcp-https") {
		return TLSRequiredExceptHTTP, nil
	}
	required, err := strconv.ParseBool(strings.ToLower(c.TLSRequired))
	switch {
	case err != nil:
		return 0, errors.New("want true, false or tcp-https")
	case required || c.TLSClientAuthPolicy != "":
		return TLSRequired, nil
	}
	return TLSNotRequired, nil
}

// MinTLSVersion reads tls-min-version: crypto/tls's number.
func (c *Config) MinTLSVersion() (uint16, error) {
	name := strings.ToLower(c.TLSMinVersion)
	if name == "" { // as in nsqd's example file
		name = "tls1.2"
	}
	v, ok := tlsVersions[name]
	if !ok {
		return 0, errors.New("want tls1.0, tls1.1, tls1.2 or tls1.3")
	}
	return v, nil
}

// TLSOffered reports whether there is a certificate to offer TLS with.
func (c *Config) TLSOffered() bool { return c.TLSCert != "" }

// validateSecurity holds the settings of TLS and AUTH against each other: what
// asks for protection and can't give it is an error, where nsqd may go on.
func (c *Config) validateSecurity() error {
	required, err := c.TLSRequirement()
	if err != nil {
		return fmt.Errorf("--tls-required %q: %w", c.TLSRequired, err)
	}
	if _, err := c.MinTLSVersion(); err != nil {
		return fmt.Errorf("--tls-min-version %q: %w", c.TLSMinVersion, err)
	}
	switch c.TLSClientAuthPolicy {
	case "", "require", "require-verify":
	default:
		return fmt.Errorf("--tls-client-auth-policy %q: want require or require-verify", c.TLSClientAuthPolicy)
	}
	switch {
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return errors.New("--tls-cert and --tls-key: want both or none")
	case required != TLSNotRequired && !c.TLSOffered():
		flag := "tls-required"
		if c.TLSClientAuthPolicy != "" {
			flag = "tls-client-auth-policy"
		}
		return fmt.Errorf("--%s: cannot require TLS client connections without --tls-cert and --tls-key", flag)
	}
	return c.validateAuth()
}

func (c *Config) validateAuth() error {
	switch c.AuthHTTPMethod {
	case "get", "post":
	default:
		return fmt.Errorf("--auth-http-request-method %q: want get or post", c.AuthHTTPMethod)
	}
	for _, a := range c.AuthHTTPAddresses {
		if strings.Contains(a, "://") {
			u, err := url.Parse(a)
			if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				return fmt.Errorf("--auth-http-address %q: want HOST:PORT or a URL such as https://auth.example/nsq", a)
			}
			continue
		}
		if err := checkAddress(a); err != nil {
			return fmt.Errorf("--auth-http-address %q: %w, or a URL", a, err)
		}
	}
	return nil
}

// IsSocketPath reports whether an address of a listener is the path of a unix
// socket. nsqd takes all for one that is not HOST:PORT; here a path has a slash
// or ends in .sock, so that a mistyped address is none.
func IsSocketPath(addr string) bool {
	return strings.Contains(addr, "/") || strings.HasSuffix(addr, ".sock")
}
