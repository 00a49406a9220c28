package nsqadmin

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// config answers a setting, and changes one of two first.
func (f *Front) config(r *http.Request, p params) (any, error) {
	if err := f.mayConfigure(r); err != nil {
		return nil, err
	}
	if r.Method == http.MethodPut {
		if err := f.configure(r, p.option); err != nil {
			return nil, err
		}
	}
	switch p.option {
	case "nsqlookupd_http_addresses":
		return append([]string{}, *f.lookupds.Load()...), nil
	case "nsqd_http_addresses":
		return append([]string{}, f.o.NSQDHTTPAddresses...), nil
	case "base_path":
		return f.o.BasePath, nil
	case "acl_http_header":
		return f.o.ACLHeader, nil
	case "admin_users":
		return append([]string{}, f.o.AdminUsers...), nil
	case "log_level":
		return levelNumber(f.o.LogLevel.Level()), nil
	}
	if v, ok := f.o.Settings[p.option]; ok {
		return v, nil
	}
	return nil, bad("INVALID_OPTION")
}

// mayConfigure looks at where the caller is.
func (f *Front) mayConfigure(r *http.Request) error {
	if f.o.NoConfig || r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return &httpError{http.StatusForbidden, "FORBIDDEN"}
	}
	if !f.o.ConfigFrom.IsValid() {
		return nil
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return bad("INVALID_REMOTE_ADDR")
	}
	if !f.o.ConfigFrom.Contains(from.Addr().Unmap().WithZone("")) {
		return &httpError{http.StatusForbidden, "FORBIDDEN"}
	}
	return nil
}

func (f *Front) configure(r *http.Request, option string) error {
	text, err := io.ReadAll(r.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large) || err == nil && (len(text) == 0 || len(text) > bodyBytesMax):
		return &httpError{http.StatusRequestEntityTooLarge, "INVALID_VALUE"}
	case err != nil:
		return err
	}
	switch option {
	case "nsqlookupd_http_addresses":
		var addrs []string
		if json.Unmarshal(text, &addrs) != nil || slices.ContainsFunc(addrs, func(a string) bool { return !isAddress(a) }) {
			return bad("INVALID_VALUE")
		}
		f.setLookupds(addrs)
	case "log_level":
		level, ok := levels[strings.ToLower(string(text))]
		if !ok {
			return bad("INVALID_VALUE")
		}
		f.o.LogLevel.Set(level)
	default:
		return bad("INVALID_OPTION")
	}
	f.log.Info("setting changed", "setting", option, "value", string(text[:min(len(text), errorBytesMax)]), "remote", r.RemoteAddr)
	return nil
}

// isAddress reports whether text is HOST:PORT and nothing else.
func isAddress(text string) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil || strings.ContainsAny(host, "/?#@\\ ") {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError, "fatal": slog.LevelError + 4,
}

// levelNumber is a level as nsqadmin counts them: debug is 1, fatal 5.
func levelNumber(l slog.Level) int {
	switch {
	case l <= slog.LevelDebug:
		return 1
	case l <= slog.LevelInfo:
		return 2
	case l <= slog.LevelWarn:
		return 3
	case l <= slog.LevelError:
		return 4
	}
	return 5
}
