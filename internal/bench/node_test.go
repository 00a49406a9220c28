package bench_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/bench"
	"github.com/tidings-io/tidings/internal/cli"
	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/vfs"
)

// TestMain lets the test binary be the program that a comparison starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "serve" || os.Args[1] == "version") {
		os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr))
	}
	if dir := os.Getenv(parentOf); dir != "" {
		os.Exit(parent(dir))
	}
	os.Exit(m.Run())
}

// short cuts a workload to a moment's work.
func short(t *testing.T, name string) bench.Workload {
	t.Helper()
	w, err := bench.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	w.Count, w.Publishers, w.Channels = min(w.Count, 5000), min(w.Publishers, 4), min(w.Channels, 3)
	w.Topics = min(w.Topics, 3)
	w.Duration, w.Deferred, w.Unfinished, w.Delay = 500*time.Millisecond, 1000, 1000, 4*time.Second
	w.Patience = 30 * time.Second
	return w
}

// startNode runs a node in this process.
func startNode(t *testing.T) *bench.NSQ {
	t.Helper()
	cfg := config.Default()
	cfg.DataPath, cfg.TCPAddress, cfg.HTTPAddress, cfg.AdminAddress = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0", ""
	cfg.LookupTCPAddress, cfg.LookupHTTPAddress, cfg.NSQAdminHTTPAddress = "", "", ""
	cfg.WALSegmentSize = 4 << 20
	n, err := node.New(node.Options{Config: cfg, FS: vfs.Default(), LogLevel: new(slog.LevelVar), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- n.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("node: %v", err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatal("node ended before it served")
	}
	return &bench.NSQ{TCP: n.Addrs().TCP, HTTP: n.Addrs().HTTP}
}

func TestOurNodePasses(t *testing.T) {
	target := startNode(t)
	for _, name := range bench.Names() {
		w := short(t, name)
		if name == "memory" || w.Clustered() {
			continue // below, against processes of their own
		}
		t.Run(name, func(t *testing.T) {
			row, err := bench.Run{Workload: w, Target: target, System: "node", Processes: bench.Processes{os.Getpid()}}.Do(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if row.Failure != "" || row.Verdict != (bench.Verdict{}) {
				t.Errorf("%s %+v", row.Failure, row.Verdict)
			}
			if row.Messages == 0 || row.RSS == 0 {
				t.Errorf("nothing measured: %+v", row)
			}
		})
	}
}

func TestComparisonOfOurselves(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	q, err := bench.ParseRequirement("memory.first_publish_ms<=60000")
	if err != nil {
		t.Fatal(err)
	}
	c := bench.Comparison{
		Self: self, Dir: t.TempDir(), Rounds: 2, Require: []bench.Requirement{q},
		Workloads: []bench.Workload{short(t, "memory"), short(t, "batch")},
	}
	r, err := c.Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if bad := r.Bad(); len(bad) > 0 {
		t.Error(bad)
	}
	if len(r.Runs) != 4 || len(r.Rows) != 2 || len(r.LeftOut) != len(bench.Peers()) {
		t.Errorf("%d runs, %d rows, left out %v", len(r.Runs), len(r.Rows), r.LeftOut)
	}
	left, err := os.ReadDir(c.Dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestPeerThatDoesNotStartFailsItsRows(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := bench.Comparison{
		Self: self, Dir: t.TempDir(), Rounds: 1, Peers: map[string]string{"nats-server": "/bin/false"},
		Workloads: []bench.Workload{short(t, "batch")},
	}
	r, err := c.Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if bad := r.Bad(); len(bad) != 3 { // nats, jetstream, jetstream-always
		t.Errorf("got %q", bad)
	}
}

func TestFloor(t *testing.T) {
	dir := t.TempDir()
	limits, err := bench.Floor{Dir: dir, Duration: 20 * time.Millisecond}.Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range limits {
		if l.Rate == 0 && l.P50 == 0 {
			t.Errorf("%s measured nothing", l.Name)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
