package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// Authority makes the certificates of a cluster's nodes. Keys are ECDSA P-256.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// certSkew is how long before now certificates become valid, for nodes whose
// clocks are slow.
const certSkew = time.Hour

// NewAuthority makes a new one whose own certificate ends after validity.
func NewAuthority(now time.Time, validity time.Duration) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make authority's key: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "tidings cluster authority"},
		NotBefore: now.Add(-certSkew), NotAfter: now.Add(validity),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make authority's certificate: %w", err)
	}
	return &Authority{cert, key}, nil
}

// ParseAuthority reads what PEM returned.
func ParseAuthority(cert, key []byte) (*Authority, error) {
	block, _ := pem.Decode(cert)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("read authority: no PEM certificate")
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	block, _ = pem.Decode(key)
	if block == nil {
		return nil, errors.New("read authority: no PEM key")
	}
	anyKey, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	ec, ok := anyKey.(*ecdsa.PrivateKey)
	switch {
	case !ok:
		return nil, fmt.Errorf("read authority: key is %T, not ECDSA", anyKey)
	case !ec.PublicKey.Equal(parsed.PublicKey):
		return nil, errors.New("read authority: certificate and key do not belong together")
	case !parsed.IsCA:
		return nil, errors.New("read authority: the certificate is not that of an authority")
	}
	return &Authority{parsed, ec}, nil
}

// Expires is the end of the authority's own certificate.
func (a *Authority) Expires() time.Time { return a.cert.NotAfter }

// PEM returns the certificate, for all nodes, and the key, which is the secret
// that makes nodes.
func (a *Authority) PEM() (cert, key []byte, err error) {
	return pemPair(a.cert.Raw, a.key)
}

// Issue makes a node's certificate and key, valid for validity but not longer
// than the authority itself. hosts are DNS names and addresses under which other
// TLS clients may reach the node; between nodes only the name counts.
func (a *Authority) Issue(name string, hosts []string, now time.Time, validity time.Duration) (cert, key []byte, err error) {
	if !ValidName(name) {
		return nil, nil, fmt.Errorf("make certificate: %q is not a node name (letters, digits, '.', '_', '-', at most 64)", name)
	}
	if !now.Before(a.cert.NotAfter) {
		return nil, nil, fmt.Errorf("make certificate for %s: the authority has expired at %s", name, a.cert.NotAfter.Format(time.RFC3339))
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key of %s: %w", name, err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, nil, err
	}
	end := now.Add(validity)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-certSkew), NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{{Scheme: "tidings", Host: "node", Path: "/" + name}},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate of %s: %w", name, err)
	}
	return pemPair(der, private)
}

func pemPair(der []byte, private *ecdsa.PrivateKey) (cert, key []byte, err error) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

func serialNumber() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}
