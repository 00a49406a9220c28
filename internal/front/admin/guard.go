package admin

import (
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// guarded keeps away what a page of another site could make a browser send: it
// looks at the name that the request is for, and at what only a page of our own
// can add to a request that changes something.
func (f *Front) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !f.hostAllowed(r.Host) {
			refuse(w, &apiError{
				http.StatusForbidden, "FORBIDDEN_HOST", "this node is not known as " + r.Host,
				"use an IP address or localhost, or name the host with --admin-hosts",
			})
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead && strings.HasPrefix(r.URL.Path, "/api/") {
			if err := f.mayChange(r); err != nil {
				refuse(w, err)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// hostAllowed refuses names on a loopback listener that anybody could make point
// there (DNS rebinding).
func (f *Front) hostAllowed(hostport string) bool {
	if !f.loopback {
		return true
	}
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host) != nil {
		return true
	}
	return slices.ContainsFunc(f.o.Hosts, func(h string) bool { return strings.EqualFold(h, host) })
}

// mayChange is nil if the request may change something.
func (f *Front) mayChange(r *http.Request) error {
	if f.o.ReadOnly {
		return &apiError{http.StatusForbidden, "READ_ONLY", "this node's admin API is read-only", "start the node without --admin-read-only, or ask another one"}
	}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "application/json" && r.Header.Get("X-Tidings") == "" {
		return &apiError{
			http.StatusForbidden, "FORBIDDEN_REQUEST", "a request that changes something needs Content-Type: application/json, or the header X-Tidings",
			"add the header X-Tidings: 1",
		}
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
			return &apiError{http.StatusForbidden, "FORBIDDEN_ORIGIN", "requests of pages from " + origin + " are refused", ""}
		}
	}
	return nil
}

// onLoopback reports whether only this machine reaches the listener.
func onLoopback(l net.Listener) bool {
	if l == nil {
		return false
	}
	switch a := l.Addr().(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}
