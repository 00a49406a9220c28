package nsq

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"path"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/fault"
	metadata "github.com/tidings-io/tidings/internal/meta"
)

const (
	// headerPatience, requestPatience and idlePatience bound how long a client
	// may take to send a request's head, to send its body and take the answer,
	// and to keep a connection without a request.
	headerPatience  = 10 * time.Second
	requestPatience = time.Minute
	idlePatience    = 2 * time.Minute
	// headerBytesMax bounds a request's head.
	headerBytesMax = 64 << 10
	// brokerPatience bounds the wait for the broker.
	brokerPatience = 30 * time.Second
	// strayBytesMax is how much is read of a body that nobody asked for.
	strayBytesMax = 1 << 20
)

// httpError is an answer with {"message": text}.
type httpError struct {
	status int
	text   string
}

func (e *httpError) Error() string { return e.text }

// bad is status 400 with a code.
func bad(code string) error { return &httpError{http.StatusBadRequest, code} }

// endpoint answers a request: nil is an empty 200, a string or bytes a raw
// body, everything else JSON.
type endpoint func(f *Front, r *http.Request, query url.Values) (any, error)

// route is one path of the API.
type route struct {
	path   string
	method string
	handle endpoint
	need   need // the grant it takes
	body   bool // looks at its body before its parameters, and bounds it
	plain  bool // errors are text
	loose  bool // a query that can't be decoded is no error
}

var routes = []route{
	{path: "/ping", method: "GET", handle: ping, need: needsNothing, plain: true, loose: true},
	{path: "/info", method: "GET", handle: info, loose: true},
	{path: "/stats", method: "GET", handle: stats},
	{path: "/pub", method: "POST", handle: httpPub, need: needsTopic, body: true},
	{path: "/mpub", method: "POST", handle: httpMPub, need: needsTopic, body: true},
	{path: PathEdge, method: "POST", handle: httpEdge, need: needsTopic, body: true},
	{path: "/topic/create", method: "POST", handle: createTopic, need: needsTopic},
	{path: "/topic/partitions", method: "GET", handle: topicPartitions},
	{path: "/topic/partitions", method: "POST", handle: raisePartitions, need: needsTopic},
	{path: "/topic/delete", method: "POST", handle: deleteTopic, need: needsTopic},
	{path: "/topic/empty", method: "POST", handle: emptyTopic, need: needsTopic},
	{path: "/topic/pause", method: "POST", handle: pauseTopic(true), need: needsTopic},
	{path: "/topic/unpause", method: "POST", handle: pauseTopic(false), need: needsTopic},
	{path: "/channel/create", method: "POST", handle: createChannel, need: needsChannel},
	{path: "/channel/delete", method: "POST", handle: channelCall(Broker.DeleteChannel), need: needsChannel},
	{path: "/channel/empty", method: "POST", handle: channelCall(Broker.EmptyChannel), need: needsChannel},
	{path: "/channel/pause", method: "POST", handle: channelCall(pauseChannel(true)), need: needsChannel},
	{path: "/channel/unpause", method: "POST", handle: channelCall(pauseChannel(false)), need: needsChannel},
	{path: "/config/{option}", method: "GET", handle: getConfig, loose: true},
	{path: "/config/{option}", method: "PUT", handle: putConfig, need: needsAll, body: true},
	{path: "/debug/setblockrate", method: "PUT", handle: setBlockRate, need: needsAll, plain: true, loose: true},
	{path: "/debug/freememory", method: "POST", handle: freeMemory, need: needsAll, plain: true, loose: true},
}

// pprofRoutes are nsqd's, GET only.
var pprofRoutes = map[string]http.Handler{
	"/debug/pprof/":             http.HandlerFunc(pprof.Index),
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
		IdleTimeout:       idlePatience,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          slog.NewLogLogger(f.log.Handler(), slog.LevelDebug),
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range f.httpListeners() {
		g.Go(func() error {
			if err := server.Serve(l); ctx.Err() == nil { // not stopped by ctx
				return fmt.Errorf("serve HTTP: %w", err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), f.o.DrainTimeout+killAfter)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
		return nil
	})
	return g.Wait()
}

// httpListeners are those for HTTP and HTTPS, where they are served.
func (f *Front) httpListeners() (all []net.Listener) {
	if f.o.HTTP != nil {
		all = append(all, f.o.HTTP)
	}
	if f.o.HTTPS != nil {
		all = append(all, tls.NewListener(f.o.HTTPS, f.o.TLS))
	}
	return all
}

// handler is the API as an http.Handler.
func (f *Front) handler() http.Handler {
	table := make(map[string]map[string]http.Handler)
	add := func(path, method string, h http.Handler) {
		if table[path] == nil {
			table[path] = make(map[string]http.Handler)
		}
		table[path][method] = h
	}
	for i := range routes {
		if routes[i].path == PathEdge && f.o.Forward == nil {
			continue
		}
		add(routes[i].path, routes[i].method, f.serve(&routes[i]))
	}
	for path, h := range pprofRoutes {
		add(path, "GET", f.guarded(needsAll, h))
	}
	add("/debug/pprof/symbol", "POST", f.guarded(needsAll, pprofRoutes["/debug/pprof/symbol"]))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.metrics.requests.Add(1)
		w.Header().Set("X-NSQ-Content-Type", "nsq; version=1.0")
		if f.o.TLSRequired == TLSAlways && r.TLS == nil {
			f.wantTLS(w)
			return
		}
		path := r.URL.Path
		if rest, ok := strings.CutPrefix(path, "/config/"); ok && rest != "" && !strings.Contains(rest, "/") {
			path = "/config/{option}"
		}
		methods := table[path]
		switch h := methods[r.Method]; {
		case h != nil:
			h.ServeHTTP(w, r)
		case methods == nil:
			f.lost(w, r, table)
		case r.Method == "OPTIONS":
			w.Header().Set("Allow", allowed(methods))
		default:
			w.Header().Set("Allow", allowed(methods))
			f.fail(w, &httpError{http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED"}, false)
		}
	})
}

// wantTLS answers a request that came in clear, in nsqd's words: its tools read
// the port and come again.
func (f *Front) wantTLS(w http.ResponseWriter) {
	f.metrics.requestsFailed.Add(1)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(http.StatusForbidden)
	fmt.Fprintf(w, `{"message": "TLS_REQUIRED", "https_port": %d}`, max(port(f.o.HTTPS), 0))
}

// lost answers a path that is not there: one that differs from another only in
// its last slash, in case, or in what path.Clean takes out, leads there.
func (f *Front) lost(w http.ResponseWriter, r *http.Request, table map[string]map[string]http.Handler) {
	clean := strings.TrimSuffix(path.Clean(r.URL.Path), "/")
	for known, methods := range table {
		if methods[r.Method] == nil || !strings.EqualFold(clean, strings.TrimSuffix(known, "/")) {
			continue
		}
		to := *r.URL
		to.Path = known
		status := http.StatusMovedPermanently
		if r.Method != "GET" {
			status = http.StatusTemporaryRedirect
		}
		http.Redirect(w, r, to.String(), status)
		return
	}
	f.fail(w, &httpError{http.StatusNotFound, "NOT_FOUND"}, false)
}

// allowed lists the methods of a path, in nsqd's order.
func allowed(methods map[string]http.Handler) string {
	names := []string{"OPTIONS"}
	for m := range methods {
		names = append(names, m)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// serve wraps an endpoint: deadlines, query, body, answer.
func (f *Front) serve(rt *route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		deadline := time.Now().Add(requestPatience)
		_ = rc.SetReadDeadline(deadline)
		_ = rc.SetWriteDeadline(deadline)
		defer func() {
			_ = rc.SetReadDeadline(time.Time{})
			_ = rc.SetWriteDeadline(time.Time{})
		}()
		ctx, cancel := context.WithTimeout(r.Context(), brokerPatience)
		defer cancel()
		r = r.WithContext(ctx)
		if !rt.body {
			r.Body = http.MaxBytesReader(w, r.Body, strayBytesMax)
		}
		query, err := url.ParseQuery(r.URL.RawQuery)
		if rt.loose {
			err = nil
		}
		if err != nil && !rt.body {
			f.fail(w, bad("INVALID_REQUEST"), rt.plain)
			return
		}
		if err != nil {
			query = nil // said when it is its turn
		}
		var data any
		if err = f.admit(r, rt.need, query); err == nil {
			data, err = rt.handle(f, r, query)
		}
		if err != nil {
			f.fail(w, err, rt.plain)
			return
		}
		f.succeed(w, data)
	})
}

// succeed writes status 200.
func (f *Front) succeed(w http.ResponseWriter, data any) {
	var body []byte
	switch d := data.(type) {
	case nil:
	case string:
		body = []byte(d)
	case []byte:
		body = d
	default:
		var err error
		if body, err = json.Marshal(d); err != nil {
			f.fail(w, err, false)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
	}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body)
}

// fail writes an error with its status.
func (f *Front) fail(w http.ResponseWriter, err error, plain bool) {
	f.metrics.requestsFailed.Add(1)
	var h *httpError
	if !errors.As(err, &h) {
		status, text := fault.CodeOf(err).HTTP()
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			status, text = fault.Timeout.HTTP()
		}
		h = &httpError{status, text}
	}
	if h.status >= 500 {
		f.log.Warn("answer request", "status", h.status, "error", err)
	}
	if h.status == http.StatusUnauthorized {
		w.Header()["Www-Authenticate"] = []string{"Bearer", `Basic realm="tidings"`}
	}
	if h.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	if plain {
		w.WriteHeader(h.status)
		_, _ = w.Write([]byte(h.text))
		return
	}
	body, _ := json.Marshal(struct {
		Message string `json:"message"`
	}{h.text})
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(h.status)
	_, _ = w.Write(body)
}

func ping(f *Front, _ *http.Request, _ url.Values) (any, error) {
	if err := f.broker.Health(); err != nil {
		return nil, &httpError{http.StatusInternalServerError, "NOK - " + err.Error()}
	}
	if f.o.Warning != nil {
		if w := f.o.Warning(); w != "" {
			return "OK - " + w, nil
		}
	}
	return "OK", nil
}

// topicArg is the topic parameter; the name's form is checked if check is set.
func topicArg(q url.Values, check bool) (string, error) {
	if q == nil {
		return "", bad("INVALID_REQUEST")
	}
	topic, ok := q["topic"]
	if !ok {
		return "", bad("MISSING_ARG_TOPIC")
	}
	if check && !validName([]byte(topic[0])) {
		return "", bad("INVALID_TOPIC")
	}
	return topic[0], nil
}

func createTopic(f *Front, r *http.Request, q url.Values) (any, error) {
	topic, err := topicArg(q, true)
	if err != nil {
		return nil, err
	}
	ack, ok := metadata.ParseAck(q.Get("ack"))
	if !ok {
		return nil, fault.New(fault.InvalidRequest, "ack must be quorum, leader, local or default")
	}
	if q.Has("partitions") {
		err = f.createPartitioned(r.Context(), topic, q.Get("partitions"))
	} else {
		err = f.broker.CreateTopic(r.Context(), topic)
	}
	if err != nil || !q.Has("ack") {
		return nil, err
	}
	return nil, f.broker.SetAck(r.Context(), topic, ack)
}

// known is for nsqd's calls that do not check a name: one that cannot be is
// not found.
func known(err error) error {
	if fault.CodeOf(err) == fault.InvalidTopic {
		return fault.TopicNotFound
	}
	return err
}

func deleteTopic(f *Front, r *http.Request, q url.Values) (any, error) {
	topic, err := topicArg(q, false)
	if err != nil {
		return nil, err
	}
	if q.Get("share") == "node" || f.o.Tombstoned != nil && f.o.Tombstoned(topic) {
		f.log.Warn("deletion of a topic passed over: only this node's share is meant, and the data is the cluster's",
			"topic", topic, "remote", r.RemoteAddr)
		return nil, nil
	}
	return nil, known(f.broker.DeleteTopic(r.Context(), topic))
}

func emptyTopic(f *Front, r *http.Request, q url.Values) (any, error) {
	topic, err := topicArg(q, true)
	if err != nil {
		return nil, err
	}
	return nil, f.broker.EmptyTopic(r.Context(), topic)
}

func pauseTopic(paused bool) endpoint {
	return func(f *Front, r *http.Request, q url.Values) (any, error) {
		topic, err := topicArg(q, false)
		if err != nil {
			return nil, err
		}
		return nil, known(f.broker.PauseTopic(r.Context(), topic, paused))
	}
}

func pauseChannel(paused bool) func(Broker, context.Context, string, string) error {
	return func(b Broker, ctx context.Context, topic, channel string) error {
		return b.PauseChannel(ctx, topic, channel, paused)
	}
}

// channelArgs are the parameters of a call that names a channel.
func channelArgs(q url.Values) (topic, channel string, err error) {
	topics, ok := q["topic"]
	if !ok {
		return "", "", bad("MISSING_ARG_TOPIC")
	}
	if !validName([]byte(topics[0])) {
		return "", "", bad("INVALID_ARG_TOPIC")
	}
	channels, ok := q["channel"]
	if !ok {
		return "", "", bad("MISSING_ARG_CHANNEL")
	}
	if !validName([]byte(channels[0])) {
		return "", "", bad("INVALID_ARG_CHANNEL")
	}
	return topics[0], channels[0], nil
}

// channelCall is an endpoint for a call that names a channel.
func channelCall(call func(b Broker, ctx context.Context, topic, channel string) error) endpoint {
	return func(f *Front, r *http.Request, q url.Values) (any, error) {
		topic, channel, err := channelArgs(q)
		if err != nil {
			return nil, err
		}
		return nil, call(f.broker, r.Context(), topic, channel)
	}
}

// createChannel makes a channel, or finds it, and limits its attempts if asked to:
// max_attempts and dead_letter are ours.
func createChannel(f *Front, r *http.Request, q url.Values) (any, error) {
	topic, channel, err := channelArgs(q)
	if err != nil {
		return nil, err
	}
	limit := q.Has("max_attempts")
	attempts, err := strconv.Atoi(q.Get("max_attempts"))
	switch {
	case limit && (err != nil || attempts < 0 || attempts > metadata.MaxAttempts):
		return nil, bad("INVALID_MAX_ATTEMPTS")
	case !limit && q.Has("dead_letter"):
		return nil, bad("INVALID_DEAD_LETTER") // without a limit nothing goes there
	}
	if err := f.broker.CreateChannel(r.Context(), topic, channel); err != nil || !limit {
		return nil, err
	}
	err = f.broker.SetMaxAttempts(r.Context(), topic, channel, attempts, q.Get("dead_letter"))
	switch fault.CodeOf(err) {
	case fault.InvalidRequest, fault.InvalidTopic:
		return nil, bad("INVALID_DEAD_LETTER")
	}
	return nil, err
}

func setBlockRate(_ *Front, _ *http.Request, q url.Values) (any, error) {
	rate, err := strconv.Atoi(q.Get("rate"))
	if err != nil {
		return nil, bad("invalid block rate : " + err.Error())
	}
	runtime.SetBlockProfileRate(rate)
	return nil, nil
}

func freeMemory(*Front, *http.Request, url.Values) (any, error) {
	debug.FreeOSMemory()
	return nil, nil
}
