package admin

import (
	"context"
	_ "embed" // the contract
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
)

//go:embed openapi.yaml
var contract []byte

func openapi(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml; charset=utf-8")
	_, _ = w.Write(contract) // a client that is gone needs no answer
}

// apiError is an error that only this front has.
type apiError struct {
	status              int
	code, message, next string
}

// Error is the message.
func (e *apiError) Error() string { return e.message }

var errStarting = &apiError{http.StatusServiceUnavailable, "STARTING", "the node is starting", "GET /readyz says what it waits for"}

// handler answers a request for which the node must be open.
type handler func(ctx context.Context, e *Engine, r *http.Request) (any, error)

// answered makes an HTTP handler of it.
func (f *Front) answered(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		e := f.engine.Load()
		if e == nil {
			refuse(w, errStarting)
			return
		}
		v, err := h(r.Context(), e, r)
		if err != nil {
			refuse(w, e.missing(err))
			return
		}
		answer(w, http.StatusOK, v)
	}
}

// errorBody is the one shape of errors.
type errorBody struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Next    string `json:"next,omitempty"`
}

// nexts say what to do about errors.
var nexts = map[fault.Code]string{
	fault.TopicNotFound:   "GET /api/v1/topics lists what is there",
	fault.ChannelNotFound: "GET /api/v1/topics/TOPIC/channels lists what is there",
	fault.InvalidTopic:    "a name has 1 to 64 of the characters . a-z A-Z 0-9 _ - and may end in #ephemeral",
	fault.InvalidChannel:  "a name has 1 to 64 of the characters . a-z A-Z 0-9 _ - and may end in #ephemeral",
	fault.NotLeader:       "try again in a few seconds; GET /api/v1/shards shows which shard has no leader",
	fault.Unreachable:     "try again in a few seconds; GET /api/v1/nodes shows which node is down",
	fault.DiskReserve:     "consume, empty or delete something, or free disk space",
	fault.Timeout:         "it may still be done: look before you try again",
}

func bodyOf(err error) (int, errorBody) {
	if own, ok := errors.AsType[*apiError](err); ok {
		return own.status, errorBody{own.code, own.message, own.next}
	}
	code := fault.CodeOf(err)
	status, name := code.HTTP()
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		status, name = fault.Timeout.HTTP()
	}
	return status, errorBody{name, err.Error(), nexts[code]}
}

// refuse answers an error.
func refuse(w http.ResponseWriter, err error) {
	status, body := bodyOf(err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	answer(w, status, body)
}

func answer(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // a client that is gone needs no answer
}

// noPath tells a path that is not there from a method that is not.
func noPath(mux *http.ServeMux, r *http.Request) error {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		probe := *r
		probe.Method = method
		if _, pattern := mux.Handler(&probe); method != r.Method && strings.HasPrefix(pattern, method+" /api/") {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 {
		return &apiError{
			http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", r.Method + " is not for " + r.URL.Path, "use " + strings.Join(allowed, " or "),
		}
	}
	return &apiError{http.StatusNotFound, "NOT_FOUND", "there is no " + r.URL.Path, "GET /api/v1/openapi.yaml describes the API"}
}

// healthz says that the process lives and answers.
func (f *Front) healthz(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

// readyz says whether the node should get traffic, and if not, why.
func (f *Front) readyz(w http.ResponseWriter, r *http.Request) {
	err := f.o.Ready()
	if strings.Contains(r.Header.Get("Accept"), "application/json") || r.URL.Query().Get("format") == "json" {
		body := struct {
			Ready  bool   `json:"ready"`
			Reason string `json:"reason,omitempty"`
		}{Ready: err == nil}
		status := http.StatusOK
		if err != nil {
			status, body.Reason = http.StatusServiceUnavailable, err.Error()
		}
		answer(w, status, body)
		return
	}
	if err != nil {
		http.Error(w, "not ready: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// self answers also while the node starts.
func (f *Front) self(w http.ResponseWriter, _ *http.Request) {
	s := f.o.Self()
	status := f.o.Cluster()
	s.Cluster, s.Stage, s.ReadOnly, s.NowAt = status.Cluster, status.Stage, f.o.ReadOnly, time.Now().UnixMilli()
	s.GoVersion, s.Platform = runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH
	err := f.o.Ready()
	if s.Ready = err == nil; err != nil {
		s.NotReadyReason = err.Error()
	}
	answer(w, http.StatusOK, s)
}

func (f *Front) config(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, f.o.Config())
}

// levels are the names of log levels.
var levels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

func (f *Front) getLevel(w http.ResponseWriter, _ *http.Request) {
	name := "info"
	if f.o.Level != nil {
		for n, l := range levels {
			if f.o.Level.Level() == l {
				name = n
			}
		}
	}
	answer(w, http.StatusOK, LogLevel{name})
}

func (f *Front) setLevel(w http.ResponseWriter, r *http.Request) {
	var body LogLevel
	if err := decode(r, &body, maxRequest); err != nil {
		refuse(w, err)
		return
	}
	level, ok := levels[body.Level]
	if !ok || f.o.Level == nil {
		refuse(w, fault.New(fault.InvalidRequest, "level %q: want debug, info, warn or error", body.Level))
		return
	}
	f.o.Level.Set(level)
	f.o.Logger.Info("the log level was changed", "level", body.Level)
	answer(w, http.StatusOK, Done{CLI: "curl -X PUT -d " + body.Level + " http://" + orElse(f.o.Self().Addresses.HTTP, "127.0.0.1:4151") + "/config/log_level"})
}

func orElse(text, other string) string {
	if text != "" {
		return text
	}
	return other
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

// maxRequest bounds the body of most requests, in bytes.
const maxRequest = 64 << 10

// transfer hands the leadership of a shard over, and answers when another node
// leads it.
func (f *Front) transfer(w http.ResponseWriter, r *http.Request) {
	var req transferRequest
	if err := decode(r, &req, maxRequest); err != nil || req.Shard == nil || req.To == "" {
		refuse(w, fault.New(fault.InvalidRequest, `the body must be {"shard": NUMBER, "to": "NODE"}`))
		return
	}
	if err := f.o.Transfer(r.Context(), *req.Shard, req.To); err != nil {
		refuse(w, err)
		return
	}
	answer(w, http.StatusOK, struct{}{})
}

func index(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, "tidings\n\n/metrics\n/healthz\n/readyz\n/api/v1/openapi.yaml\n/debug/pprof/\n")
}

func (f *Front) lookup(_ context.Context, e *Engine, _ *http.Request) (any, error) {
	return e.Lookup(), nil
}

func (f *Front) getOverview(ctx context.Context, e *Engine, _ *http.Request) (any, error) {
	x, err := f.sampler.recent(ctx, e)
	if err != nil {
		return nil, err
	}
	return x.overview(), nil
}

func (f *Front) listTopics(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	l, err := listingOf(r.URL.Query(), topicSorts, topicStates, pageMax)
	if err != nil {
		return nil, err
	}
	x, err := f.sampler.recent(ctx, e)
	if err != nil {
		return nil, err
	}
	return x.topicPage(&l), nil
}

func (f *Front) listAllChannels(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	l, err := listingOf(r.URL.Query(), channelSorts, channelStates, pageMax)
	if err != nil {
		return nil, err
	}
	x, err := f.sampler.recent(ctx, e)
	if err != nil {
		return nil, err
	}
	return x.channelPage(&l, x.all(), true), nil
}

func (f *Front) listChannels(ctx context.Context, e *Engine, r *http.Request) (any, error) {
	l, err := listingOf(r.URL.Query(), channelSorts, channelStates, pageMax)
	if err != nil {
		return nil, err
	}
	x, t, err := f.topicSample(ctx, e, r.PathValue("topic"))
	if err != nil {
		return nil, err
	}
	return x.channelPage(&l, t.channels, false), nil
}
