package nsq

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/accept"
	"github.com/tidings-io/tidings/internal/auth"
	"github.com/tidings-io/tidings/internal/broker"
)

// Options are the front's settings. Zero values become nsqd's defaults.
type Options struct {
	// TCP and HTTP are the listeners; the front closes them. Either may be nil.
	TCP, HTTP net.Listener
	// HTTPS is a listener for HTTP inside TLS; it needs TLS. The front closes it;
	// it may be nil.
	HTTPS net.Listener
	// TLS is offered to TCP clients, and is what HTTPS speaks; nil: none.
	TLS *tls.Config
	// TLSRequired says who must use it.
	TLSRequired TLSRequired
	// NoSnappy and NoDeflate keep a compression from being offered.
	NoSnappy, NoDeflate bool
	// Auth is asked what TCP clients may do, once they have shown a secret with
	// AUTH; nil: everybody may do everything.
	Auth *auth.Client
	// HTTPAuth asks the same of HTTP requests, which show their secret in the
	// header Authorization.
	HTTPAuth bool
	// Version is a semantic version as nsqd's clients compare it.
	Version string
	// BroadcastAddress is the host name that clients should use; "" is the
	// machine's own.
	BroadcastAddress string
	// StartTime is when the process started; zero is now.
	StartTime time.Time
	Logger    *slog.Logger
	// LogLevel is what /config/log_level shows and sets; nil: it is fixed.
	LogLevel *slog.LevelVar
	// Settings answers GET /config/NAME for options that the front does not
	// know itself, by nsqd's configuration names; may be nil.
	Settings func(name string) (value any, ok bool)
	// Lookupds are the nsqlookupds that the node registers with, SetLookupds
	// changes them; nil: /config/nsqlookupd_tcp_addresses is empty and fixed.
	Lookupds    func() []string
	SetLookupds func(addresses []string)
	// Tombstoned reports whether a tombstone hides this node from the lookups
	// of a topic: then a deletion of the topic is meant for this node's share
	// only, and is passed over. May be nil.
	Tombstoned func(topic string) bool
	// Warning is what /ping says behind its OK of something that is wrong while
	// serving goes on, "" for nothing; may be nil.
	Warning func() string

	// NodeName is this node's name, and Peers the other members of its cluster, for
	// /stats?scope=cluster; nil: there are none.
	NodeName string
	Peers    Peers

	// Forward takes what edges bring; nil: there is nothing to bring it to. It is
	// broker.Forward.
	Forward func(ctx context.Context, in *broker.Ingest) (partitions int, err error)
	// Spool is the state of the spool, which /stats shows; nil, or a nil answer: there is
	// none.
	Spool func() *SpoolStats

	MsgTimeout      time.Duration // default of a consumer
	MaxMsgTimeout   time.Duration
	MaxMsgSize      int64 // bytes
	MaxBodySize     int64 // bytes
	MaxReqTimeout   time.Duration
	MaxDeferTimeout time.Duration // of DPUB and HTTP defer; not in nsqd
	MaxRdyCount     int64

	HeartbeatInterval      time.Duration // default of a client
	MaxHeartbeatInterval   time.Duration
	OutputBufferTimeout    time.Duration // default of a client
	MinOutputBufferTimeout time.Duration
	MaxOutputBufferTimeout time.Duration
	MaxOutputBufferSize    int64 // bytes
	MaxDeflateLevel        int
	// MaxChannelConsumers is the broker's limit, for the error's text.
	MaxChannelConsumers int

	TopologyRegion, TopologyZone string

	// Quantiles are those of the time from publish to FIN that /stats and Report
	// show, where the broker measures it.
	Quantiles []float64

	// MaxBufferedBytes bounds the memory of all bodies that are being read or
	// wait for the broker's answer.
	MaxBufferedBytes int64
	// PublishPatience is how long a publish waits for room before it fails.
	PublishPatience time.Duration
	// DrainTimeout is how long Run waits, when it ends, for consumers to
	// answer what they have in flight.
	DrainTimeout time.Duration
}

// TLSRequired says which clients are refused without TLS; the numbers are
// nsqd's, which /config shows.
type TLSRequired int

// The values of TLSRequired.
const (
	TLSOptional   TLSRequired = iota // nobody
	TLSExceptHTTP                    // TCP clients; nsqd calls it tcp-https
	TLSAlways                        // TCP and HTTP clients
)

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// withDefaults fills in nsqd's defaults.
func (o Options) withDefaults() Options {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	orDefault(&o.Version, "1.3.0")
	orDefault(&o.BroadcastAddress, host)
	if o.StartTime.IsZero() {
		o.StartTime = time.Now()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	orDefault(&o.MsgTimeout, time.Minute)
	orDefault(&o.MaxMsgTimeout, 15*time.Minute)
	orDefault(&o.MaxMsgSize, 1<<20)
	orDefault(&o.MaxBodySize, 5<<20)
	orDefault(&o.MaxReqTimeout, time.Hour)
	orDefault(&o.MaxDeferTimeout, 365*24*time.Hour)
	orDefault(&o.MaxRdyCount, 2500)
	orDefault(&o.HeartbeatInterval, 30*time.Second)
	orDefault(&o.MaxHeartbeatInterval, time.Minute)
	orDefault(&o.OutputBufferTimeout, 250*time.Millisecond)
	orDefault(&o.MinOutputBufferTimeout, 25*time.Millisecond)
	orDefault(&o.MaxOutputBufferTimeout, 30*time.Second)
	orDefault(&o.MaxOutputBufferSize, 64<<10)
	orDefault(&o.MaxDeflateLevel, 6)
	orDefault(&o.MaxBufferedBytes, 64<<20)
	orDefault(&o.PublishPatience, 5*time.Second)
	orDefault(&o.DrainTimeout, 500*time.Millisecond)
	return o
}

// killAfter is how long after DrainTimeout a connection that still waits for
// the broker or for its client is cut.
const killAfter = 750 * time.Millisecond

// Front serves NSQ's TCP protocol and nsqd's HTTP API.
type Front struct {
	o       Options
	broker  Broker
	log     *slog.Logger
	budget  *budget
	grants  *auth.Cache // of HTTP requests; nil: they need none
	metrics metrics

	memCache memoryCache
	// stopping reports whether Run's ctx has ended. Set by Run before anything
	// else.
	stopping func() bool

	mu       sync.Mutex // guards the following
	conns    map[*conn]struct{}
	draining bool

	handlers  sync.WaitGroup // of connections
	answerers []*answerer
	turn      atomic.Uint64 // whose next connection it is
	// publishers is the number given last to a connection, or a publish over HTTP.
	publishers atomic.Uint64
}

// New makes a front; it serves when Run is called.
func New(b Broker, o Options) *Front {
	f := &Front{o: o.withDefaults(), broker: b, conns: map[*conn]struct{}{}}
	f.log = f.o.Logger
	f.answerers = newAnswerers()
	f.stopping = func() bool { return false }
	f.budget = newBudget(f.o.MaxBufferedBytes, f.o.PublishPatience, &f.metrics.backPressure)
	if f.o.HTTPAuth && f.o.Auth != nil {
		f.grants = auth.NewCache(f.o.Auth)
	}
	return f
}

// Run serves until ctx ends, then stops accepting, lets consumers answer what
// they hold for up to DrainTimeout, sends the answers of publishes that were
// read, and closes all connections.
//
// The broker may close its channels as soon as ctx has ended: what is in flight
// can still be answered.
func (f *Front) Run(ctx context.Context) error {
	whole := ctx
	f.stopping = func() bool { return whole.Err() != nil }
	g, ctx := errgroup.WithContext(ctx)
	if f.o.TCP != nil {
		g.Go(func() error { return accept.Loop(ctx, f.o.TCP, f.log, f.welcome) })
	}
	if f.o.HTTP != nil || f.o.HTTPS != nil {
		g.Go(func() error { return f.serveHTTP(ctx) })
	}
	g.Go(func() error {
		<-ctx.Done()
		f.drain()
		for _, a := range f.answerers {
			a.close()
		}
		return nil
	})
	for _, a := range f.answerers {
		g.Go(func() error { a.run(); return nil })
	}
	return g.Wait()
}

// welcome starts a connection's goroutines.
func (f *Front) welcome(nc net.Conn) {
	c := newConn(f, nc)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.draining {
		nc.Close()
		return
	}
	f.conns[c] = struct{}{}
	f.metrics.connections.Add(1)
	f.handlers.Go(func() {
		c.run()
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
	})
}

// snapshot lists the connections of the moment.
func (f *Front) snapshot() []*conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]*conn, 0, len(f.conns))
	for c := range f.conns {
		all = append(all, c)
	}
	return all
}

// drain ends all connections in good order, and by force when that takes long.
func (f *Front) drain() {
	f.mu.Lock()
	f.draining = true
	f.mu.Unlock()
	until := time.Now().Add(f.o.DrainTimeout)
	for _, c := range f.snapshot() {
		c.drain(until)
	}
	force := time.AfterFunc(f.o.DrainTimeout+killAfter, func() {
		for _, c := range f.snapshot() {
			c.kill()
		}
	})
	defer force.Stop()
	f.handlers.Wait()
}
