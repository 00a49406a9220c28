// Package admin is the node's own HTTP front: metrics, health, profiles. The
// admin API and the console will live here too.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/fault"
)

// Options of a Front.
type Options struct {
	Listener net.Listener
	Metrics  http.Handler // answers /metrics
	// Ready is nil, or why the node should get no traffic.
	Ready  func() error
	Logger *slog.Logger
	// Cluster is the cluster as this node sees it.
	Cluster func() cluster.Status
	// Transfer gives the leadership of a shard that this node leads to a
	// member, by name, and waits until it is given.
	Transfer func(ctx context.Context, shard uint32, to string) error
	// Imports takes over what another server had; nil as long as the node starts.
	Imports func() Importer
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
	mux.HandleFunc("GET /api/cluster", f.cluster)
	mux.HandleFunc("POST /api/cluster/transfer", f.transfer)
	f.imports(mux)
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

// cluster answers the cluster as this node sees it, as JSON.
func (f *Front) cluster(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, f.o.Cluster())
}

// transferRequest is the body of POST /api/cluster/transfer.
type transferRequest struct {
	Shard *uint32 `json:"shard"`
	To    string  `json:"to"` // name of a member
}

// maxRequest bounds the body of a request, in bytes.
const maxRequest = 64 << 10

// transfer hands the leadership of a shard over, and answers when another node
// leads it.
func (f *Front) transfer(w http.ResponseWriter, r *http.Request) {
	var req transferRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil || req.Shard == nil || req.To == "" {
		refuse(w, fault.New(fault.InvalidRequest, `the body must be {"shard": NUMBER, "to": "NODE"}`))
		return
	}
	if err := f.o.Transfer(r.Context(), *req.Shard, req.To); err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, struct{}{})
}

// refuse answers an error: its code's name and its text.
func refuse(w http.ResponseWriter, err error) {
	status, code := fault.CodeOf(err).HTTP()
	answer(w, status, map[string]string{"code": code, "message": err.Error()})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // a client that is gone needs no answer
}

func index(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, "tidings\n\n/metrics\n/healthz\n/readyz\n/api/cluster\n/debug/pprof/\n")
}
