package lookup

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/accept"
)

// Options are the front's settings. Zero values become nsqlookupd's defaults.
type Options struct {
	// TCP and HTTP are the listeners; the front closes them. Either may be nil.
	TCP, HTTP net.Listener
	// Catalog is what the node serves itself; nil for an nsqlookupd that stands
	// alone.
	Catalog Catalog
	// Version is a semantic version as NSQ's tools compare it; 1.3.0.
	Version string
	// BroadcastAddress is the host name by which nsqds reach the HTTP API; "" is
	// the machine's own.
	BroadcastAddress string
	// InactiveTimeout is how long after its last ping an nsqd is named; 5 min.
	InactiveTimeout time.Duration
	// TombstoneLifetime is how long a tombstone hides a node; 45 s.
	TombstoneLifetime time.Duration
	// MaxNames bounds the names of topics and channels that are registered, all
	// together; 1,048,576.
	MaxNames int
	Clock    func() time.Time // default time.Now
	Logger   *slog.Logger
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// hostName is the machine's name, or one that means the machine itself.
func hostName() string {
	if host, err := os.Hostname(); err == nil {
		return host
	}
	return "localhost"
}

func (o Options) withDefaults() Options {
	orDefault(&o.Version, "1.3.0")
	orDefault(&o.BroadcastAddress, hostName())
	orDefault(&o.InactiveTimeout, 5*time.Minute)
	orDefault(&o.TombstoneLifetime, 45*time.Second)
	orDefault(&o.MaxNames, 1<<20)
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Front serves nsqlookupd's TCP protocol and HTTP API.
type Front struct {
	o        Options
	log      *slog.Logger
	registry *registry
	catalog  Catalog

	mu     sync.Mutex // guards the following
	conns  map[net.Conn]struct{}
	closed bool

	handlers sync.WaitGroup // of connections
}

// New makes a front; it serves when Run is called.
func New(o Options) *Front {
	f := &Front{o: o.withDefaults(), conns: make(map[net.Conn]struct{})}
	f.log, f.registry, f.catalog = f.o.Logger, newRegistry(&f.o), f.o.Catalog
	if f.catalog == nil {
		f.catalog = nothing{f.registry}
	}
	return f
}

// Run serves until ctx ends, then closes everything at once: who registers here
// and who looks up here has another nsqlookupd, or waits for this one.
func (f *Front) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if f.o.TCP != nil {
		g.Go(func() error { return accept.Loop(ctx, f.o.TCP, f.log, f.welcome) })
	}
	if f.o.HTTP != nil {
		g.Go(func() error { return f.serveHTTP(ctx) })
	}
	g.Go(func() error {
		<-ctx.Done()
		f.mu.Lock()
		f.closed = true
		for nc := range f.conns {
			nc.Close()
		}
		f.mu.Unlock()
		f.handlers.Wait()
		return nil
	})
	return g.Wait()
}

// welcome starts a connection's goroutine.
func (f *Front) welcome(nc net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		nc.Close()
		return
	}
	f.conns[nc] = struct{}{}
	f.handlers.Go(func() {
		newConn(f, nc).run()
		nc.Close()
		f.mu.Lock()
		delete(f.conns, nc)
		f.mu.Unlock()
	})
}

// port is where a listener listens, 0 without one.
func port(l net.Listener) int {
	if l != nil {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			return a.Port
		}
	}
	return 0
}

// Tombstoned reports whether a tombstone hides one of our own nodes from the
// lookups of a topic. NSQ's tools set one before they delete a topic on one
// node: what they mean is that node's share.
func (f *Front) Tombstoned(topic string, node Peer) bool { return f.registry.hides(topic, &node) }

// topics lists the names of all topics.
func (f *Front) topics() []string { return union(f.catalog.Topics(), f.registry.topicNames()) }

// channels lists the channels of a topic; none for an unknown one.
func (f *Front) channels(topic string) []string {
	own, _ := f.catalog.Topic(topic)
	return union(own.Channels, f.registry.channelNames(topic))
}

// producers lists who can be asked for a topic; false if there is no such
// topic. That of a known topic may be empty.
func (f *Front) producers(topic string) ([]Peer, bool) {
	own, isOwn := f.catalog.Topic(topic)
	registered, known := f.registry.find(topic)
	if !isOwn && !known {
		return nil, false
	}
	nodes := f.catalog.Nodes()
	registered = slices.DeleteFunc(registered, func(p Peer) bool { return standsIn(nodes, &p) })
	peers := append(make([]Peer, 0, 1), registered...) // never null in JSON
	for _, n := range own.Nodes {
		if !f.registry.hides(topic, &n) {
			peers = append(peers, n)
		}
	}
	slices.SortFunc(peers, byAddress)
	return peers, true
}

// standsIn reports whether one of our own nodes is meant: it may have
// registered here as well.
func standsIn(nodes []Peer, p *Peer) bool {
	return slices.ContainsFunc(nodes, func(n Peer) bool { return n.same(p) })
}

func byAddress(a, b Peer) int {
	return cmp.Or(cmp.Compare(a.BroadcastAddress, b.BroadcastAddress), cmp.Compare(a.TCPPort, b.TCPPort),
		cmp.Compare(a.RemoteAddress, b.RemoteAddress))
}

// nodes lists all who can be asked for anything.
func (f *Front) nodes() []*listed {
	own := f.catalog.Nodes()
	out := make([]*listed, 0, len(own))
	for _, n := range own {
		out = append(out, list(n))
	}
	for _, topic := range union(f.catalog.Topics(), nil) {
		t, _ := f.catalog.Topic(topic)
		for _, n := range t.Nodes {
			if i := slices.IndexFunc(own, func(o Peer) bool { return o.same(&n) }); i >= 0 {
				out[i].add(topic, f.registry.hides(topic, &n))
			}
		}
	}
	for _, l := range f.registry.list() {
		if !standsIn(own, &l.Peer) {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *listed) int { return byAddress(a.Peer, b.Peer) })
	return out
}

// tombstone hides a node from a topic's lookups, ours or a registered one, and
// says how many there are.
func (f *Front) tombstone(ctx context.Context, topic, node string) int {
	return f.Tombstone(ctx, topic, node) + f.registry.tombstone(topic, node)
}

// Tombstone sets a tombstone on our own nodes that are called node, and says how
// many there are. The others of them are told.
func (f *Front) Tombstone(ctx context.Context, topic, node string) int {
	own := f.Hide(topic, node, 0)
	if own > 0 {
		f.catalog.Tombstone(ctx, topic, node)
	}
	return own
}

// Hide sets a tombstone on our own nodes that are called node, a broadcast
// address and an HTTP port, and says how many there are. age is how long ago it
// was set elsewhere. Nobody else is told.
func (f *Front) Hide(topic, node string, age time.Duration) (n int) {
	own, _ := f.catalog.Topic(topic)
	for i := range own.Nodes {
		if p := &own.Nodes[i]; p.called(node) {
			f.registry.hide(topic, p, age)
			n++
		}
	}
	return n
}

// channelKnown reports whether there is such a channel, whose ever it is.
func (f *Front) channelKnown(topic, channel string) bool {
	return slices.Contains(f.channels(topic), channel)
}
