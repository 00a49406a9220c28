package lookup

import (
	"context"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/front/lookup"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/vfs"
)

// target is a server under test.
type target struct {
	name      string
	tcp, http string // of the lookup
	real      bool   // nsqlookupd itself
	// node is our node as /lookup shows it, without the closing brace; empty for
	// an nsqlookupd that stands alone. nsqd is its own HTTP address.
	node, nsqd string
}

// given is the running nsqlookupd that the environment names, if it does.
func given(prefix string) (target, bool) {
	at := target{name: "given", tcp: os.Getenv(prefix + "_TCP"), http: os.Getenv(prefix + "_HTTP"), real: true}
	return at, at.tcp != "" && at.http != ""
}

// targets are a lookup of ours that stands alone, and one of a node; or the one
// that is given.
func targets(t *testing.T) []target {
	if at, ok := given("TIDINGS_LOOKUP"); ok {
		return []target{at}
	}
	return []target{startAlone(t, lookup.Options{}), startNode(t, config.Default())}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// during runs something until the test ends, or stop is called.
func during(t *testing.T, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return stop
}

func startAlone(t *testing.T, o lookup.Options) target {
	t.Helper()
	o.TCP, o.HTTP, o.BroadcastAddress = listen(t), listen(t), "127.0.0.1"
	at := target{name: "alone", tcp: o.TCP.Addr().String(), http: o.HTTP.Addr().String()}
	during(t, lookup.New(o).Run)
	return at
}

// ownNode is a node of ours that runs in this process.
type ownNode struct {
	node.Addrs
	stop func()
	data string
}

// start runs a node on ports of its own.
func start(t *testing.T, cfg config.Config) ownNode {
	t.Helper()
	const any = "127.0.0.1:0"
	if cfg.DataPath == config.Default().DataPath {
		cfg.DataPath = t.TempDir()
	}
	cfg.WALSegmentSize, cfg.DrainTimeout = 1<<20, 50*time.Millisecond
	cfg.TCPAddress, cfg.HTTPAddress, cfg.AdminAddress = any, any, ""
	cfg.LookupTCPAddress, cfg.LookupHTTPAddress, cfg.NSQAdminHTTPAddress = any, any, ""
	n, err := node.New(node.Options{Config: cfg, FS: vfs.Default(), LogLevel: new(slog.LevelVar), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	stop := during(t, func(ctx context.Context) error { return n.Run(ctx, func() { close(ready) }) })
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatal("the node does not serve")
	}
	return ownNode{n.Addrs(), stop, cfg.DataPath}
}

func startNode(t *testing.T, cfg config.Config) target {
	t.Helper()
	cfg.TopologyZone, cfg.TopologyRegion = "z2", "r2"
	n := start(t, cfg)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	_, tcp, _ := net.SplitHostPort(n.TCP)
	_, http, _ := net.SplitHostPort(n.HTTP)
	return target{
		name: "node", tcp: n.LookupTCP, http: n.LookupHTTP, nsqd: n.HTTP,
		node: `{"remote_address":"` + n.TCP + `","hostname":"` + host + `","broadcast_address":"127.0.0.1","tcp_port":` + tcp +
			`,"http_port":` + http + `,"version":"1.3.0","topology_zone":"z2","topology_region":"r2"`,
	}
}
