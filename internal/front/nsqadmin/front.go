package nsqadmin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Options are the front's settings. Zero values become nsqadmin's defaults.
type Options struct {
	// Listener takes the requests; the front closes it.
	Listener net.Listener
	// LookupdHTTPAddresses and NSQDHTTPAddresses are who is asked, each
	// HOST:PORT. The latter count only where there are none of the former.
	LookupdHTTPAddresses, NSQDHTTPAddresses []string
	// BasePath is what stands before every path; "/".
	BasePath string
	// Pages answers what people look at: the paths of nsqadmin's pages, below
	// BasePath, and /static/NAME and /fonts/NAME. nil: one page that leads to
	// the API.
	Pages http.Handler
	// Beside answers what is no path of nsqadmin's, such as what Pages consists
	// of; it may stream. nil: nothing is there.
	Beside http.Handler
	// Version is what the page names.
	Version string

	// GraphiteURL is where /api/graphite asks and, with ProxyGraphite, what
	// answers /render; nil: nobody.
	GraphiteURL   *url.URL
	ProxyGraphite bool
	// StatsdInterval is how often nsqds push to statsd, at least a second; 60 s.
	StatsdInterval time.Duration

	// ConnectTimeout and RequestTimeout bound each request to an upstream; 2 s
	// and 5 s. TLS is for those that ask for it, nil: the system's.
	ConnectTimeout, RequestTimeout time.Duration
	TLS                            *tls.Config
	// Reach is where an upstream's HOST:PORT is reached from here, in the words of
	// net.Dial; nil: over TCP, as it is called.
	Reach func(addr string) (network, address string)
	// Passes reports whether the bearer token of a caller is passed on to an
	// nsqd at HOST:PORT. nil: to nobody, for who registers with an nsqlookupd
	// could ask for it.
	Passes func(addr string) bool
	// Tombstone sets a tombstone where there is no nsqlookupd to ask; nil: none
	// can be set.
	Tombstone func(ctx context.Context, topic, node string)

	// ACLHeader names the caller, X-Forwarded-User; AdminUsers are those who may
	// change something, if there are any.
	ACLHeader  string
	AdminUsers []string
	// NotificationURL is where actions are told; "": nowhere.
	NotificationURL string

	// ConfigFrom is who may use /config; invalid: everybody. NoConfig: nobody.
	ConfigFrom netip.Prefix
	NoConfig   bool
	// Settings are the values of GET /config that the front does not know
	// itself, by their names in nsqadmin's configuration file.
	Settings map[string]any
	LogLevel *slog.LevelVar // changed by PUT /config/log_level; nil: fixed

	Clock  func() time.Time // default time.Now
	Logger *slog.Logger
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (o Options) withDefaults() Options {
	o.BasePath = path.Clean("/" + o.BasePath)
	orDefault(&o.StatsdInterval, time.Minute)
	o.StatsdInterval = max(o.StatsdInterval, time.Second)
	orDefault(&o.ConnectTimeout, 2*time.Second)
	orDefault(&o.RequestTimeout, 5*time.Second)
	orDefault(&o.ACLHeader, "X-Forwarded-User")
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.LogLevel == nil {
		o.LogLevel = new(slog.LevelVar)
	}
	return o
}

const (
	// headerPatience, requestPatience and idlePatience bound how long a client
	// may take to send a request's head, to send its body and take the answer,
	// and to keep a connection without a request.
	headerPatience  = 10 * time.Second
	requestPatience = time.Minute
	idlePatience    = 2 * time.Minute
	// answerPatience bounds the making of an answer, upstreams included.
	answerPatience = 2 * time.Minute
	// headerBytesMax bounds a request's head, bodyBytesMax its body.
	headerBytesMax = 64 << 10
	bodyBytesMax   = 1 << 20
)

// Front serves nsqadmin's API.
type Front struct {
	o        Options
	log      *slog.Logger
	client   *client
	lookupds atomic.Pointer[[]string] // changed by PUT /config
	notices  chan notice
	host     string // this machine
	server   http.Server
}

// New makes a front; it serves when Run is called.
func New(o Options) *Front {
	f := &Front{o: o.withDefaults(), notices: make(chan notice, noticesMax)}
	f.log, f.client = f.o.Logger, newClient(&f.o)
	f.setLookupds(f.o.LookupdHTTPAddresses)
	f.host, _ = os.Hostname() // nameless then
	f.server = http.Server{
		Handler:           f.handler(),
		ReadHeaderTimeout: headerPatience,
		ReadTimeout:       requestPatience,
		IdleTimeout:       idlePatience,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          slog.NewLogLogger(f.log.Handler(), slog.LevelDebug),
	}
	return f
}

// Run serves until ctx ends, and then tells the notification endpoint what it
// has not been told yet, if it answers soon.
func (f *Front) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer context.AfterFunc(ctx, func() { f.server.Close() })()
		err := f.server.Serve(f.o.Listener)
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("serve nsqadmin's API: %w", err)
	})
	g.Go(func() error { f.notify(ctx); return nil })
	defer f.client.http.CloseIdleConnections()
	return g.Wait()
}

func (f *Front) setLookupds(addrs []string) {
	addrs = slices.Clone(addrs)
	f.lookupds.Store(&addrs)
}

// mayAct reports whether the caller may change something.
func (f *Front) mayAct(r *http.Request) bool {
	return len(f.o.AdminUsers) == 0 || slices.Contains(f.o.AdminUsers, r.Header.Get(f.o.ACLHeader))
}
