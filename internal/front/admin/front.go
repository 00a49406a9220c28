// Package admin is the node's own HTTP front: metrics, health, profiles. The
// admin API and the console will live here too.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// Options of a Front.
type Options struct {
	Listener net.Listener
	Metrics  http.Handler // answers /metrics
	// Ready is nil, or why the node should get no traffic.
	Ready  func() error
	Logger *slog.Logger
}

// Front serves the admin address.
type Front struct {
	o      Options
	server http.Server
}

// New makes the front; Run serves.
func New(o Options) *Front {
	f := &Front{o: o}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", o.Metrics)
	mux.HandleFunc("GET /healthz", f.healthz)
	mux.HandleFunc("GET /readyz", f.readyz)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /{$}", index)
	f.server = http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return f
}

// Run serves until ctx ends.
func (f *Front) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { f.server.Close() })()
	err := f.server.Serve(f.o.Listener)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve admin address: %w", err)
}

// healthz says that the process lives and answers.
func (f *Front) healthz(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

// readyz says whether the node should get traffic, and if not, why.
func (f *Front) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := f.o.Ready(); err != nil {
		http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

func index(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, "tidings\n\n/metrics\n/healthz\n/readyz\n/debug/pprof/\n")
}
