package lookup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
)

const (
	// headerPatience, requestPatience and idlePatience bound how long a client
	// may take to send a request's head, to send its body and take the answer,
	// and to keep a connection without a request.
	headerPatience  = 10 * time.Second
	requestPatience = time.Minute
	idlePatience    = 2 * time.Minute
	// headerBytesMax bounds a request's head, bodyBytesMax what is read of a
	// body: nobody looks at it.
	headerBytesMax = 64 << 10
	bodyBytesMax   = 1 << 20
	// createPatience bounds the wait for the making of a topic or channel.
	createPatience = 30 * time.Second
)

// httpError is an answer with {"message": code}.
type httpError struct {
	status int
	code   string
}

func (e *httpError) Error() string { return e.code }

func bad(code string) error { return &httpError{http.StatusBadRequest, code} }

// endpoint answers a request: nil is an empty 200, a string a raw body,
// everything else JSON.
type endpoint func(ctx context.Context, f *Front, q url.Values) (any, error)

var routes = map[string]map[string]endpoint{
	"/ping":            {"GET": ping},
	"/info":            {"GET": info},
	"/debug":           {"GET": debug},
	"/lookup":          {"GET": lookup},
	"/topics":          {"GET": topics},
	"/channels":        {"GET": channels},
	"/nodes":           {"GET": nodes},
	"/topic/create":    {"POST": createTopic},
	"/topic/delete":    {"POST": deleteTopic},
	"/topic/tombstone": {"POST": tombstone},
	"/channel/create":  {"POST": createChannel},
	"/channel/delete":  {"POST": deleteChannel},
}

// pprofRoutes are nsqlookupd's, GET only but for symbol.
var pprofRoutes = map[string]http.Handler{
	"/debug/pprof":              http.HandlerFunc(pprof.Index),
	"/debug/pprof/cmdline":      http.HandlerFunc(pprof.Cmdline),
	"/debug/pprof/symbol":       http.HandlerFunc(pprof.Symbol),
	"/debug/pprof/profile":      http.HandlerFunc(pprof.Profile),
	"/debug/pprof/heap":         pprof.Handler("heap"),
	"/debug/pprof/goroutine":    pprof.Handler("goroutine"),
	"/debug/pprof/block":        pprof.Handler("block"),
	"/debug/pprof/threadcreate": pprof.Handler("threadcreate"),
}

// serveHTTP serves until ctx ends.
func (f *Front) serveHTTP(ctx context.Context) error {
	server := &http.Server{
		Handler:           f.handler(),
		ReadHeaderTimeout: headerPatience,
		ReadTimeout:       requestPatience,
		IdleTimeout:       idlePatience,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          slog.NewLogLogger(f.log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	err := server.Serve(f.o.HTTP)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve HTTP: %w", err)
}

// handler is the API as an http.Handler.
func (f *Front) handler() http.Handler {
	table := make(map[string]map[string]http.Handler)
	for path, methods := range routes {
		table[path] = make(map[string]http.Handler)
		for method, e := range methods {
			table[path][method] = f.serve(e)
		}
	}
	for path, h := range pprofRoutes {
		table[path] = map[string]http.Handler{"GET": h}
	}
	table["/debug/pprof/symbol"]["POST"] = pprofRoutes["/debug/pprof/symbol"]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// without it go-nsq takes the answer for one of an old version, and
		// finds nobody in it
		w.Header().Set("X-NSQ-Content-Type", "nsq; version=1.0")
		r.Body = http.MaxBytesReader(w, r.Body, bodyBytesMax)
		methods := table[r.URL.Path]
		switch h := methods[r.Method]; {
		case h != nil:
			h.ServeHTTP(w, r)
		case methods == nil:
			f.lost(w, r, table)
		default:
			w.Header().Set("Allow", allowed(methods))
			if r.Method != "OPTIONS" {
				f.fail(w, &httpError{http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED"})
			}
		}
	})
}

// lost answers a path that is not there, or is but for its last slash.
func (f *Front) lost(w http.ResponseWriter, r *http.Request, table map[string]map[string]http.Handler) {
	trimmed := strings.TrimSuffix(r.URL.Path, "/")
	if table[trimmed][r.Method] == nil || trimmed == r.URL.Path {
		f.fail(w, &httpError{http.StatusNotFound, "NOT_FOUND"})
		return
	}
	to := *r.URL
	to.Path = trimmed
	status := http.StatusMovedPermanently
	if r.Method != "GET" {
		status = http.StatusTemporaryRedirect
	}
	http.Redirect(w, r, to.String(), status)
}

func allowed(methods map[string]http.Handler) string {
	names := []string{"OPTIONS"}
	for m := range methods {
		names = append(names, m)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// serve wraps an endpoint: query, deadline, answer.
func (f *Front) serve(handle endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(requestPatience))
		ctx, cancel := context.WithTimeout(r.Context(), createPatience)
		defer cancel()
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			query = nil // said when it is looked at
		}
		data, err := handle(ctx, f, query)
		if err != nil {
			f.fail(w, err)
			return
		}
		f.succeed(w, data)
	})
}

func (f *Front) succeed(w http.ResponseWriter, data any) {
	switch d := data.(type) {
	case nil:
	case string:
		_, _ = w.Write([]byte(d))
	default:
		body, err := json.Marshal(d)
		if err != nil {
			f.fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = w.Write(body)
	}
}

func (f *Front) fail(w http.ResponseWriter, err error) {
	var h *httpError
	if !errors.As(err, &h) {
		status, code := fault.CodeOf(err).HTTP()
		h = &httpError{status, code}
		f.log.Warn("answer request", "status", status, "error", err)
	}
	if h.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	body, _ := json.Marshal(struct {
		Message string `json:"message"`
	}{h.code})
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(h.status)
	_, _ = w.Write(body)
}

func ping(context.Context, *Front, url.Values) (any, error) { return "OK", nil }

func info(_ context.Context, f *Front, _ url.Values) (any, error) {
	return map[string]string{"version": f.o.Version}, nil
}

func debug(_ context.Context, f *Front, _ url.Values) (any, error) { return f.registry.debug(), nil }

func topics(_ context.Context, f *Front, _ url.Values) (any, error) {
	return map[string][]string{"topics": f.topics()}, nil
}

// arg is a parameter that has to be there.
func arg(q url.Values, name string) (string, error) {
	if q == nil {
		return "", bad("INVALID_REQUEST")
	}
	v, ok := q[name]
	if !ok {
		return "", bad("MISSING_ARG_" + strings.ToUpper(name))
	}
	return v[0], nil
}

func channels(_ context.Context, f *Front, q url.Values) (any, error) {
	topic, err := arg(q, "topic")
	if err != nil {
		return nil, err
	}
	return map[string][]string{"channels": f.channels(topic)}, nil
}

func lookup(_ context.Context, f *Front, q url.Values) (any, error) {
	topic, err := arg(q, "topic")
	if err != nil {
		return nil, err
	}
	producers, ok := f.producers(topic)
	if !ok {
		return nil, &httpError{http.StatusNotFound, "TOPIC_NOT_FOUND"}
	}
	return struct {
		Channels  []string `json:"channels"`
		Producers []Peer   `json:"producers"`
	}{f.channels(topic), producers}, nil
}

func nodes(_ context.Context, f *Front, _ url.Values) (any, error) {
	return map[string][]*listed{"producers": f.nodes()}, nil
}

func createTopic(ctx context.Context, f *Front, q url.Values) (any, error) {
	topic, err := arg(q, "topic")
	if err != nil {
		return nil, err
	}
	if !broker.ValidTopic(topic) {
		return nil, bad("INVALID_ARG_TOPIC")
	}
	f.log.Info("create topic", "topic", topic)
	return nil, creation(f.catalog.CreateTopic(ctx, topic))
}

// creation is the error of one, as it is told.
func creation(err error) error {
	switch {
	case errors.Is(err, errFull):
		return &httpError{http.StatusServiceUnavailable, "OVERLOADED"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return fault.Wrap(fault.Timeout, err)
	}
	return err
}

// topicChannel are the parameters that name a channel.
func topicChannel(q url.Values) (topic, channel string, err error) {
	if topic, err = arg(q, "topic"); err != nil {
		return "", "", err
	}
	if !broker.ValidTopic(topic) {
		return "", "", bad("INVALID_ARG_TOPIC")
	}
	if channel, err = arg(q, "channel"); err != nil {
		return "", "", err
	}
	if !broker.ValidChannel(channel) {
		return "", "", bad("INVALID_ARG_CHANNEL")
	}
	return topic, channel, nil
}

func createChannel(ctx context.Context, f *Front, q url.Values) (any, error) {
	topic, channel, err := topicChannel(q)
	if err != nil {
		return nil, err
	}
	f.log.Info("create channel", "topic", topic, "channel", channel)
	return nil, creation(f.catalog.CreateChannel(ctx, topic, channel))
}

// deleteTopic forgets what has been registered for a topic. A topic of our own
// stays: who deletes it means to, and asks nsqd's API.
func deleteTopic(_ context.Context, f *Front, q url.Values) (any, error) {
	topic, err := arg(q, "topic")
	if err != nil {
		return nil, err
	}
	_, own := f.catalog.Topic(topic)
	f.log.Info("forget registrations of topic", "topic", topic, "own_stays", own)
	f.registry.dropTopic(topic)
	return nil, nil
}

// deleteChannel is deleteTopic for a channel.
func deleteChannel(_ context.Context, f *Front, q url.Values) (any, error) {
	topic, channel, err := topicChannel(q)
	if err != nil {
		return nil, err
	}
	known := f.channelKnown(topic, channel)
	f.registry.dropChannel(topic, channel)
	if !known {
		return nil, &httpError{http.StatusNotFound, "CHANNEL_NOT_FOUND"}
	}
	f.log.Info("forget registrations of channel", "topic", topic, "channel", channel, "own_stays", f.channelKnown(topic, channel))
	return nil, nil
}

func tombstone(ctx context.Context, f *Front, q url.Values) (any, error) {
	topic, err := arg(q, "topic")
	if err != nil {
		return nil, err
	}
	node, err := arg(q, "node")
	if err != nil {
		return nil, err
	}
	f.log.Info("set tombstone", "topic", topic, "node", node, "producers", f.tombstone(ctx, topic, node))
	return nil, nil
}
