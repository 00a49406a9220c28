// Package edge is a process beside publishers: NSQ's TCP protocol and nsqd's HTTP API
// over a spool, which a forwarder brings to a node or a cluster. A publish is answered
// when it is durable here, whether or not anything can be reached.
package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/auth"
	"github.com/tidings-io/tidings/internal/front/nsq"
	"github.com/tidings-io/tidings/internal/spool"
	"github.com/tidings-io/tidings/internal/vfs"
)

// Options are the settings of an Edge.
type Options struct {
	// Upstream are the nodes to forward to, HOST:PORT of their HTTP API or a URL of
	// it; at least one.
	Upstream []string
	Secret   string      // shown to nodes with AUTH; empty: none
	TLS      *tls.Config // towards those of https://

	// ClientTLS is offered to publishers, and is what HTTPS speaks; nil: none.
	ClientTLS   *tls.Config
	TLSRequired nsq.TLSRequired // of publishers
	// Auth is asked what publishers may do; nil: everybody may do everything. HTTPAuth
	// asks the same of HTTP requests.
	Auth     *auth.Client
	HTTPAuth bool

	FS          vfs.FS
	Dir         string // of the spool
	SpoolSize   int64  // most bytes of it; at least spool.MinSize
	DiskReserve int64  // bytes of its volume that stay free; 0: none

	// TCP, HTTP, HTTPS and Admin are the listeners; the edge closes them. HTTPS, which
	// needs ClientTLS, and Admin, for metrics and health, may be nil.
	TCP, HTTP, HTTPS, Admin net.Listener

	MaxMsgSize, MaxBodySize int64 // bytes; 0 as nsqd has it
	MaxDeferTimeout         time.Duration
	Version                 string // that clients are told
	Logger                  *slog.Logger
	LogLevel                *slog.LevelVar
}

// Edge is an edge; it serves when Run is called.
type Edge struct {
	o       Options
	spool   *spool.Spool
	forward *spool.Forwarder
	front   *nsq.Front
}

// New takes the spool's folder. The error is vfs.ErrLocked where another process has
// it.
func New(o Options) (*Edge, error) {
	if len(o.Upstream) == 0 {
		return nil, errors.New("start edge: no node to forward to")
	}
	s, err := spool.Open(spool.Options{FS: o.FS, Dir: o.Dir, Size: o.SpoolSize, Reserve: o.DiskReserve, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	e := &Edge{o: o, spool: s}
	e.forward = spool.NewForwarder(s, newUpstream(o.Upstream, o.Secret, o.TLS), o.Logger)
	e.front = nsq.New(intake{s}, nsq.Options{
		TCP: o.TCP, HTTP: o.HTTP, HTTPS: o.HTTPS, TLS: o.ClientTLS, TLSRequired: o.TLSRequired, Auth: o.Auth, HTTPAuth: o.HTTPAuth,
		MaxMsgSize: o.MaxMsgSize, MaxBodySize: o.MaxBodySize, MaxDeferTimeout: o.MaxDeferTimeout,
		Version: o.Version, Logger: o.Logger, LogLevel: o.LogLevel, Spool: e.stats,
	})
	return e, nil
}

// Run serves until ctx ends. What is in the spool then stays for the next time.
func (e *Edge) Run(ctx context.Context) error {
	// Fronts first, so that every publish that was read is answered.
	rest, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, failed := errgroup.WithContext(rest)
	g.Go(func() error { return e.spool.Run(failed) })
	g.Go(func() error { return e.forward.Run(failed) })
	if e.o.Admin != nil {
		g.Go(func() error { return e.serveAdmin(failed) })
	}
	g.Go(func() error {
		defer stop()
		front, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(failed, cancel)()
		return e.front.Run(front)
	})
	return errors.Join(g.Wait(), e.spool.Close())
}

// stats is the spool as /stats shows it.
func (e *Edge) stats() *nsq.SpoolStats {
	return nsq.StatsOfSpool(e.spool, e.forward)
}

// serveAdmin answers /metrics, /healthz and /readyz.
func (e *Edge) serveAdmin(ctx context.Context) error {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{e})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := e.spool.Health(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(e.o.Logger.Handler(), slog.LevelDebug)}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(e.o.Admin); ctx.Err() == nil {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
