package node

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// recheckCertificates is how often the files of certificates are looked at, at
// most.
const recheckCertificates = time.Second

// certificates are what clients are shown, and the authorities of theirs. The
// files are read again when they change, so that a certificate is renewed
// without a restart: the next handshake uses what is there, and connections that
// are open stay. Files that cannot be used, half written ones say, leave the old
// ones in force and are tried again.
type certificates struct {
	cert, key, authorities string // files; authorities may be empty
	base                   *tls.Config
	clock                  func() time.Time
	log                    *slog.Logger

	mu      sync.Mutex // guards the following
	have    *tls.Config
	seen    [3]fileMark // what the files looked like when they were read
	checked time.Time
	failed  bool // the newest files cannot be used
}

// fileMark tells one state of a file from the next.
type fileMark struct {
	modified time.Time
	size     int64
}

// newCertificates reads the files for the first time. base holds the rest of the
// configuration and is not changed.
func newCertificates(cert, key, authorities string, base *tls.Config, clock func() time.Time, log *slog.Logger) (*certificates, error) {
	c := &certificates{cert: cert, key: key, authorities: authorities, base: base, clock: clock, log: log}
	return c, c.load(clock())
}

// config is that of a server, which asks for the files at each handshake.
func (c *certificates) config() *tls.Config {
	o := c.base.Clone()
	o.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current(), nil }
	return o
}

// current is what the newest usable files hold. It is the same configuration
// until they change, so that clients can resume their sessions.
func (c *certificates) current() *tls.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock()
	if now.Sub(c.checked) < recheckCertificates {
		return c.have
	}
	c.checked = now
	if !c.failed && c.marks() == c.seen {
		return c.have
	}
	switch err := c.load(now); {
	case err != nil && !c.failed:
		c.failed = true
		c.log.Warn("changed certificates cannot be used, the old ones stay", "error", err)
	case err == nil:
		c.failed = false
		c.log.Info("certificates were read again", "cert", c.cert, "expires", c.have.Certificates[0].Leaf.NotAfter)
	}
	return c.have
}

// load reads the files; mu is held, or nobody else has c yet.
func (c *certificates) load(now time.Time) error {
	seen := c.marks() // before they are read: what changes meanwhile is read again
	cert, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("load --tls-cert and --tls-key: %w", err)
	}
	pool, err := certPool(c.authorities)
	if err != nil {
		return err
	}
	have := c.base.Clone()
	have.Certificates, have.ClientCAs = []tls.Certificate{cert}, pool
	c.have, c.seen, c.checked = have, seen, now
	return nil
}

// marks are the files as they are now; of one that cannot be seen, zero.
func (c *certificates) marks() (m [3]fileMark) {
	for i, name := range []string{c.cert, c.key, c.authorities} {
		if info, err := os.Stat(name); name != "" && err == nil {
			m[i] = fileMark{info.ModTime(), info.Size()}
		}
	}
	return m
}
