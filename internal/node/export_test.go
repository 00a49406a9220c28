package node

import (
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/tidings-io/tidings/internal/meta"
)

// MakeTopic asks metadata for a topic.
func (n *Node) MakeTopic(name string, done func(error)) {
	n.meta.CreateTopic(name, func(_ *meta.Topic, err error) { done(err) })
}

// Certificates reads a certificate's files, again when they change and a second
// of the clock has passed.
func Certificates(cert, key string, clock func() time.Time) (current func() *tls.Config, err error) {
	c, err := newCertificates(cert, key, "", new(tls.Config), clock, slog.New(slog.DiscardHandler))
	return c.current, err
}
