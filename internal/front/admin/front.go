// Package admin is the node's own HTTP front: the admin API that openapi.yaml
// describes, metrics, health and profiles, and the console where there is one.
//
// Any node answers for the whole cluster: it asks the others over the cluster's
// links (Engine.Peers) and adds up. All figures come from samples, taken when
// somebody asks and at most once a second while somebody watches, so that twenty
// pages cost what one costs.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
)

// Options of a Front.
type Options struct {
	Listener net.Listener
	Metrics  http.Handler // answers /metrics
	// Console answers all paths that are nothing else; nil: there is none.
	Console http.Handler
	// Ready is nil, or why the node should get no traffic.
	Ready  func() error
	Logger *slog.Logger
	// Level is the level of the log, changed through the API; nil: it is fixed.
	Level *slog.LevelVar
	// Cluster is the cluster as this node sees it.
	Cluster func() cluster.Status
	// Transfer gives the leadership of a shard that this node leads to a
	// member, by name, and waits until it is given.
	Transfer func(ctx context.Context, shard uint32, to string) error
	// AddShards adds so many data shards to the cluster, and returns their ids when
	// this node has them and they have leaders; waits says what is still to come when
	// that takes long.
	AddShards func(ctx context.Context, count int) (ids []uint32, waits string, err error)
	// Imports takes over what another server had; nil as long as the node starts.
	Imports func() Importer
	// Self tells what this node is; the front fills in the rest.
	Self func() Self
	// Config tells the settings.
	Config func() Config
	// ReadOnly refuses every change.
	ReadOnly bool
	// Hosts are names that requests may be for, besides localhost and IP
	// addresses, where the listener is on a loopback address.
	Hosts []string
}

// Front serves the admin address.
type Front struct {
	o        Options
	server   http.Server
	engine   atomic.Pointer[Engine] // nil before Open
	sampler  sampler
	hub      hub
	tails    atomic.Int32  // live tails
	refused  atomic.Uint64 // streams, because there were too many
	stop     context.CancelFunc
	ctx      context.Context // ends with Run: streams end with it
	loopback bool
}

// New makes the front; Run serves.
func New(o Options) *Front {
	f := &Front{o: o, loopback: onLoopback(o.Listener)}
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.sampler.f, f.hub.f = f, f
	f.server = http.Server{
		Handler: f.guarded(f.routes()), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return f
}

// Open gives the front what the node has opened; before, it answers health and
// little else.
func (f *Front) Open(e Engine) { f.engine.Store(&e) }

// Handler is what the front serves, for another listener: the console's at
// nsqadmin's port.
func (f *Front) Handler() http.Handler { return f.server.Handler }

// Run serves until ctx ends.
func (f *Front) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		f.stop()
		f.server.Close()
	})()
	defer f.stop()
	err := f.server.Serve(f.o.Listener)
	f.hub.end()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve admin address: %w", err)
}

// routes are all paths.
func (f *Front) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", f.o.Metrics)
	mux.HandleFunc("GET /healthz", f.healthz)
	mux.HandleFunc("GET /readyz", f.readyz)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	// What `tidings cluster` asks, also of a node that is starting.
	mux.HandleFunc("GET /api/cluster", f.cluster)
	mux.HandleFunc("POST /api/cluster/transfer", f.transfer)
	f.imports(mux)
	f.api(mux)
	if f.o.Console != nil {
		mux.Handle("/", f.o.Console) // it refuses other methods itself
	} else {
		mux.HandleFunc("GET /{$}", index)
	}
	return mux
}

// api are the paths of openapi.yaml.
func (f *Front) api(mux *http.ServeMux) {
	const v1, topic, channel = "/api/v1", "/api/v1/topics/{topic}", "/api/v1/topics/{topic}/channels/{channel}"
	get := func(path string, h handler) { mux.HandleFunc("GET "+path, f.answered(h)) }
	post := func(path string, h handler) { mux.HandleFunc("POST "+path, f.answered(h)) }
	mux.HandleFunc("GET "+v1+"/self", f.self)
	mux.HandleFunc("GET "+v1+"/openapi.yaml", openapi)
	mux.HandleFunc("GET "+v1+"/config", f.config)
	mux.HandleFunc("GET "+v1+"/log-level", f.getLevel)
	mux.HandleFunc("PUT "+v1+"/log-level", f.setLevel)
	get(v1+"/overview", f.getOverview)
	get(v1+"/history", f.getHistory)
	get(v1+"/topics", f.listTopics)
	post(v1+"/topics", f.createTopic)
	get(topic, f.getTopic)
	mux.HandleFunc("PATCH "+topic, f.answered(f.setTopic))
	mux.HandleFunc("DELETE "+topic, f.answered(f.topicChange(verbDelete, true)))
	mux.HandleFunc("PATCH "+channel, f.answered(f.setChannel))
	mux.HandleFunc("DELETE "+channel, f.answered(f.topicChange(verbDelete, true)))
	for _, at := range []string{topic, channel} {
		post(at+"/pause", f.topicChange(verbPause, false))
		post(at+"/resume", f.topicChange(verbResume, false))
		post(at+"/empty", f.topicChange(verbEmpty, true))
	}
	get(v1+"/channels", f.listAllChannels)
	get(topic+"/channels", f.listChannels)
	post(topic+"/channels", f.createChannel)
	get(channel, f.getChannel)
	get(channel+"/consumers", f.listConsumers)
	get(channel+"/messages", f.peek)
	get(topic+"/messages", f.browse)
	post(topic+"/messages", f.publish)
	get(topic+"/messages/{partition}/{offset}", f.getMessage)
	mux.HandleFunc("GET "+topic+"/messages/{partition}/{offset}/body", f.getBody)
	mux.HandleFunc("GET "+topic+"/tail", f.tail)
	get(v1+"/nodes", f.listNodes)
	get(v1+"/nodes/{node}", f.getNode)
	get(v1+"/shards", f.listShards)
	post(v1+"/shards", f.addShards)
	post(v1+"/shards/{shard}/transfer", f.transferShard)
	get(v1+"/lookup", f.lookup)
	get(v1+"/diagnosis", f.diagnosis)
	mux.HandleFunc("GET "+v1+"/events", f.events)
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) { refuse(w, noPath(mux, r)) })
}
