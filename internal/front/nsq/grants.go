package nsq

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidings-io/tidings/internal/auth"
)

// authenticated is the answer to AUTH, in nsqd's order.
type authenticated struct {
	Identity        string `json:"identity"`
	IdentityURL     string `json:"identity_url"`
	PermissionCount int    `json:"permission_count"`
}

// authenticate handles AUTH: it asks what the client's secret allows. Why that
// could not be found out is for the log only.
func authenticate(c *conn, w [][]byte) error {
	if len(w) != 1 {
		return refuse("E_INVALID", "AUTH invalid number of parameters")
	}
	secret, err := c.body("AUTH")
	if err != nil {
		return err
	}
	switch {
	case c.grants.Len() > 0:
		return refuse("E_INVALID", "AUTH already set")
	case c.front.o.Auth == nil:
		return refuse("E_AUTH_DISABLED", "AUTH disabled")
	}
	c.secret = string(secret)
	if err := c.ask(); err != nil {
		return err
	}
	if c.grants.Len() == 0 {
		return refuse("E_UNAUTHORIZED", "AUTH no authorizations found")
	}
	answer, err := json.Marshal(authenticated{c.grants.Identity, c.grants.IdentityURL, c.grants.Len()})
	if err != nil {
		return refuse("E_AUTH_ERROR", "AUTH error %s", err)
	}
	return c.answer(appendFrame(nil, frameResponse, string(answer)))
}

// ask gets the client's grants from an auth server. What was read before goes
// on meanwhile.
func (c *conn) ask() error {
	if err := c.settle(); err != nil {
		return err
	}
	who := auth.Who{Secret: c.secret}
	if c.net.RemoteAddr().Network() == "tcp" {
		who.RemoteIP, _, _ = net.SplitHostPort(c.remote)
	}
	if c.upgraded != nil && c.upgraded.tls != nil {
		state := c.upgraded.tls.ConnectionState()
		who.TLS = true
		if len(state.PeerCertificates) > 0 {
			who.CommonName = state.PeerCertificates[0].Subject.CommonName
		}
	}
	grants, err := c.front.o.Auth.Ask(c.ctx, who)
	if err != nil {
		c.front.log.Warn("ask for grants", "remote", c.remote, "error", err)
		return refuse("E_AUTH_FAILED", "AUTH failed")
	}
	c.grants, c.granted = grants, ""
	c.mu.Lock()
	c.meta.grants = grants
	c.mu.Unlock()
	return nil
}

// authorize refuses a command that the client has no grant for. Grants that
// have expired are asked for again. An empty channel is a publish.
func (c *conn) authorize(command, topic, channel string) error {
	if c.front.o.Auth == nil {
		return nil
	}
	if c.grants.Len() == 0 {
		return refuse("E_AUTH_FIRST", "AUTH required before %s", command)
	}
	if !time.Now().Before(c.grants.Expires) {
		if err := c.ask(); err != nil {
			return err
		}
	}
	if channel == "" && topic == c.granted {
		return nil
	}
	if !c.grants.Allows(topic, channel) {
		return refuse("E_UNAUTHORIZED", "AUTH failed for %s on %q %q", command, topic, channel)
	}
	if channel == "" {
		c.granted = topic
	}
	return nil
}

// need is the grant that a path of the HTTP API takes: the one that does the
// same over TCP.
type need uint8

const (
	needsAny     need = iota // a secret that has grants
	needsNothing             //
	needsTopic               // to publish to the topic
	needsChannel             // to subscribe to the channel
	needsAll                 // everything: it concerns the whole node
)

// admit refuses a request that has no grant, with the codes of TCP.
func (f *Front) admit(r *http.Request, n need, q url.Values) error {
	if f.grants == nil || n == needsNothing {
		return nil
	}
	secret := secretOf(r)
	if secret == "" {
		return &httpError{http.StatusUnauthorized, "AUTH_FIRST"}
	}
	who := auth.Who{Secret: secret, TLS: r.TLS != nil}
	who.RemoteIP, _, _ = net.SplitHostPort(r.RemoteAddr) // fails on a unix socket, which has none
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		who.CommonName = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	grants, err := f.grants.Grants(r.Context(), who)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			f.log.Warn("ask for grants", "remote", r.RemoteAddr, "error", err)
		}
		return &httpError{http.StatusUnauthorized, "AUTH_FAILED"}
	}
	if !n.met(grants, q) {
		return &httpError{http.StatusForbidden, "UNAUTHORIZED"}
	}
	return nil
}

// met reports whether grants suffice. A name that is missing is the endpoint's
// business.
func (n need) met(g *auth.Grants, q url.Values) bool {
	topic, channel := q.Get("topic"), q.Get("channel")
	switch {
	case g.Len() == 0:
		return false
	case n == needsAll:
		return g.Everything()
	case n == needsTopic && topic != "":
		return g.Allows(topic, "")
	case n == needsChannel && topic != "" && channel != "":
		return g.Allows(topic, channel)
	}
	return true
}

// secretOf is what a request shows: a bearer token, or the password of basic
// authentication, whose user name does not count.
func secretOf(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// guarded is a handler that is only reached with the grant it needs.
func (f *Front) guarded(n need, h http.Handler) http.Handler {
	if f.grants == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := f.admit(r, n, r.URL.Query()); err != nil {
			f.fail(w, err, false)
			return
		}
		h.ServeHTTP(w, r)
	})
}
