package compat

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/vfs"
)

// startServer returns the addresses of the server under test: the one named by
// TIDINGS_COMPAT_TCP and TIDINGS_COMPAT_HTTP, or a node of our own on port 0
// that lives as long as the test.
func startServer(t *testing.T) (tcpAddr, httpAddr string) {
	t.Helper()
	tcpAddr, httpAddr = os.Getenv("TIDINGS_COMPAT_TCP"), os.Getenv("TIDINGS_COMPAT_HTTP")
	if tcpAddr != "" && httpAddr != "" {
		return tcpAddr, httpAddr
	}
	return startOwn(t)
}

// againstNSQD says that the server under test is a real nsqd, where the
// deliberate differences take nsqd's side.
func againstNSQD() bool {
	return os.Getenv("TIDINGS_COMPAT_NSQD") == "1" || os.Getenv("TIDINGS_COMPAT_NSQD_PROGRAM") != ""
}

// startOwn starts our own node with nsqd's defaults, on ports of its own.
func startOwn(t *testing.T) (tcpAddr, httpAddr string) {
	t.Helper()
	cfg := config.DefaultNSQD()
	cfg.TCPAddress, cfg.HTTPAddress = "127.0.0.1:0", "127.0.0.1:0"
	cfg.MaxChannelConsumers = 2
	cfg.Snappy, cfg.Deflate = false, false
	a, _ := startNode(t, t.TempDir(), cfg)
	return a.TCP, a.HTTP
}

// startNode starts our own node on a data folder; stop ends it before the test
// does.
func startNode(t *testing.T, dir string, cfg config.Config) (_ node.Addrs, stop func()) {
	t.Helper()
	cfg.DataPath, cfg.AdminAddress = dir, ""
	cfg.WALSegmentSize = 4 << 20
	level := new(slog.LevelVar)
	n, err := node.New(node.Options{
		Config: cfg, FS: vfs.Default(), LogLevel: level, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- n.Run(ctx, func() { close(ready) }) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("node: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatal("node ended before it served")
	}
	return n.Addrs(), stop
}
