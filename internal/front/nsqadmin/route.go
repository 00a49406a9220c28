package nsqadmin

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// params are the parts of a path that stand for something.
type params struct{ topic, channel, node, option string }

// endpoint answers a request.
type endpoint func(r *http.Request, p params) (any, error)

// route is a path below the base path, by its segments, and what is done there
// by method. A segment that begins with a colon stands for something.
type route struct {
	segments []string
	methods  map[string]http.Handler // nil: a page's
}

// pages are the paths of nsqadmin's pages, and of what pages are made of.
var pages = []string{
	"/", "/topics", "/topics/:topic", "/topics/:topic/:channel", "/nodes", "/nodes/:node", "/counter", "/lookup",
}

var assets = []string{"/static/:asset", "/fonts/:asset"}

// routes lists what there is.
func (f *Front) routes() []route {
	read := func(e endpoint) map[string]endpoint { return map[string]endpoint{"GET": e} }
	api := map[string]map[string]endpoint{
		"/ping":                       read(ping),
		"/api/topics":                 {"GET": f.topicList, "POST": f.acting(f.createTopic)},
		"/api/topics/:topic":          {"GET": f.topic, "POST": f.acting(f.action), "DELETE": f.acting(f.deletion)},
		"/api/topics/:topic/:channel": {"GET": f.channel, "POST": f.acting(f.action), "DELETE": f.acting(f.deletion)},
		"/api/nodes":                  read(f.nodeList),
		"/api/nodes/:node":            {"GET": f.node, "DELETE": f.acting(f.tombstoneNode)},
		"/api/counter":                read(f.counter),
		"/api/graphite":               read(f.graphite),
		"/config/:option":             {"GET": f.config, "PUT": f.config},
	}
	var list []route
	for at, methods := range api {
		x := route{segments: f.segments(at), methods: make(map[string]http.Handler)}
		for m, e := range methods {
			x.methods[m] = f.serve(x, e)
		}
		list = append(list, x)
	}
	shown, own := f.o.Pages, pages
	if shown == nil {
		shown = f.page()
	} else {
		own = slices.Concat(pages, assets)
	}
	for _, at := range own {
		list = append(list, route{f.segments(at), map[string]http.Handler{"GET": shown}})
	}
	if f.o.ProxyGraphite && f.o.GraphiteURL != nil {
		list = append(list, route{f.segments("/render"), map[string]http.Handler{"GET": f.render()}})
	}
	return list
}

// segments is a path below the base path, in parts.
func (f *Front) segments(at string) []string {
	return strings.Split(path.Join(f.o.BasePath, at), "/")[1:]
}

// matches reports whether a path is the route's. The names of its parts keep
// their case; fold says whether that of the others counts.
func (x *route) matches(parts []string, fold bool) bool {
	return slices.EqualFunc(x.segments, parts, func(want, got string) bool {
		switch {
		case strings.HasPrefix(want, ":"):
			return got != ""
		case fold:
			return strings.EqualFold(want, got)
		}
		return want == got
	})
}

func (x *route) params(parts []string) (p params) {
	for i, s := range x.segments {
		switch s {
		case ":topic":
			p.topic = parts[i]
		case ":channel":
			p.channel = parts[i]
		case ":node":
			p.node = parts[i]
		case ":option":
			p.option = parts[i]
		}
	}
	return p
}

func find(routes []route, at string, fold bool) *route {
	parts := strings.Split(at, "/")[1:]
	for i := range routes {
		if routes[i].matches(parts, fold) {
			return &routes[i]
		}
	}
	return nil
}

// handler is the API as an http.Handler.
func (f *Front) handler() http.Handler {
	routes := f.routes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer f.caught(w, r)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerPatience + requestPatience))
		w.Header().Set("X-NSQ-Content-Type", "nsq; version=1.0")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		r.Body = http.MaxBytesReader(w, r.Body, bodyBytesMax+1) // PUT /config wants to see one too many
		if !strings.HasPrefix(r.URL.Path, "/") {                // OPTIONS *
			f.fail(w, r, &httpError{http.StatusNotFound, "NOT_FOUND"})
			return
		}
		x := find(routes, r.URL.Path, false)
		if x == nil {
			f.lost(w, r, routes)
			return
		}
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		if h := x.methods[method]; h != nil {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Allow", x.allowed())
		if r.Method != http.MethodOptions {
			f.fail(w, r, &httpError{http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED"})
		}
	})
}

// caught answers what should not have happened.
func (f *Front) caught(w http.ResponseWriter, r *http.Request) {
	switch v := recover(); v {
	case nil:
	case http.ErrAbortHandler: // a proxied answer broke off
		panic(v)
	default:
		f.log.Error("panic in request", "method", r.Method, "path", r.URL.Path, "panic", v)
		f.fail(w, r, &httpError{http.StatusInternalServerError, "INTERNAL_ERROR"})
	}
}

// lost answers a path that is not there, or is but for slashes and case.
func (f *Front) lost(w http.ResponseWriter, r *http.Request, routes []route) {
	clean := path.Clean(r.URL.Path)
	x := find(routes, clean, true)
	if x == nil && f.o.Beside != nil {
		c := http.NewResponseController(w) // the deadlines are for answers that end
		_, _ = c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Time{})
		f.o.Beside.ServeHTTP(w, r)
		return
	}
	if x == nil {
		f.fail(w, r, &httpError{http.StatusNotFound, "NOT_FOUND"})
		return
	}
	parts := strings.Split(clean, "/")[1:]
	for i, s := range x.segments {
		if !strings.HasPrefix(s, ":") {
			parts[i] = s
		}
	}
	to := url.URL{Path: "/" + strings.Join(parts, "/"), RawQuery: r.URL.RawQuery}
	status := http.StatusMovedPermanently
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		status = http.StatusTemporaryRedirect
	}
	http.Redirect(w, r, to.String(), status)
}

func (x *route) allowed() string {
	names := []string{http.MethodOptions}
	for m := range x.methods {
		names = append(names, m)
		if m == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// serve wraps an endpoint.
func (f *Front) serve(x route, handle endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		data, err := handle(r, x.params(strings.Split(r.URL.Path, "/")[1:]))
		if err != nil {
			f.fail(w, r, err)
		} else {
			f.succeed(w, r, data)
		}
		f.log.Debug("request", "method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr, "took", time.Since(started), "error", err)
	})
}

// acting guards what changes something: from who may not, and from pages of
// other sites, which could make a browser on this network ask for it.
func (f *Front) acting(handle endpoint) endpoint {
	return func(r *http.Request, p params) (any, error) {
		if !f.mayAct(r) || r.Header.Get("Sec-Fetch-Site") == "cross-site" {
			return nil, &httpError{http.StatusForbidden, "FORBIDDEN"}
		}
		return handle(r, p)
	}
}
