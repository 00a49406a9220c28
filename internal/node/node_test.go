package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/vfs"
)

// settings are small and on ports of their own.
func settings(t *testing.T) config.Config {
	c := config.Default()
	c.DataPath = t.TempDir()
	c.TCPAddress, c.HTTPAddress, c.AdminAddress = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.LookupTCPAddress, c.LookupHTTPAddress, c.NSQAdminHTTPAddress = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.WALSegmentSize = 1 << 20
	c.DrainTimeout = 10 * time.Millisecond
	return c
}

func build(c config.Config, fs vfs.FS) (*node.Node, error) {
	return node.New(node.Options{
		Config: c, FS: fs, Logger: slog.New(slog.DiscardHandler), LogLevel: new(slog.LevelVar),
	})
}

// running is a node that serves.
type running struct {
	*node.Node
	t     *testing.T
	stop  func()
	ended chan error
}

func start(t *testing.T, c config.Config, fs vfs.FS) *running {
	t.Helper()
	n, err := build(c, fs)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Node: n, t: t, stop: cancel, ended: make(chan error, 1)}
	ready := make(chan struct{})
	go func() { r.ended <- n.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-r.ended:
		t.Fatalf("node ended before it served: %v", err)
	}
	t.Cleanup(cancel)
	return r
}

// close stops the node and returns why it ended.
func (r *running) close() error {
	r.stop()
	return <-r.ended
}

func (r *running) request(method, url, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

func (r *running) publish(topic, body string) (int, string) {
	r.t.Helper()
	return r.request("POST", "http://"+r.Addrs().HTTP+"/pub?topic="+topic, body)
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: did not come true", what)
		}
	}
}

func TestRestartKeepsMessages(t *testing.T) {
	c := settings(t)
	r := start(t, c, vfs.Default())
	if code, text := r.publish("orders", "hello"); code != 200 {
		t.Fatal(code, text)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	r = start(t, c, vfs.Default())
	if _, text := r.request("GET", "http://"+r.Addrs().HTTP+"/stats?topic=orders", ""); !strings.Contains(text, "depth: 1") {
		t.Fatal(text)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}

// TestMetadataAnswersAfterTheEnd: who asks metadata for something while the node
// stops, as a channel that is being made does, is not left waiting.
func TestMetadataAnswersAfterTheEnd(t *testing.T) {
	r := start(t, settings(t), vfs.OS{})
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	var answer error
	r.MakeTopic("late", func(err error) { answer = err })
	if fault.CodeOf(answer) != fault.Exiting {
		t.Errorf("answered with %v", answer)
	}
}

func TestSynchronousStorage(t *testing.T) {
	c := settings(t)
	c.SyncStorage = true
	r := start(t, c, vfs.Default())
	if code, text := r.publish("orders", "hello"); code != 200 {
		t.Fatal(code, text)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}

func TestBusyPortNamesTheFlag(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := settings(t)
	c.HTTPAddress = l.Addr().String()
	if _, err := build(c, vfs.Default()); err == nil || !strings.Contains(err.Error(), "--http-address") {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(c.DataPath, "NODE")); err == nil {
		t.Fatal("the data folder was made although the node can't serve")
	}
}

func TestDataFolderInUse(t *testing.T) {
	c := settings(t)
	r := start(t, c, vfs.Default())
	if _, err := build(c, vfs.Default()); err == nil || !strings.Contains(err.Error(), "by another process") {
		t.Fatalf("got %v", err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	r = start(t, c, vfs.Default())
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}

func TestIdentityIsGuarded(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"not a node's identity": func(dir string) error { return os.WriteFile(filepath.Join(dir, "NODE"), []byte("{}"), 0o600) },
		"invalid character":     func(dir string) error { return os.WriteFile(filepath.Join(dir, "NODE"), []byte("garbage"), 0o600) },
		"use a newer binary": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "NODE"), []byte(`{"format_version":99,"raft_id":1,"data_shards":8}`), 0o600)
		},
		"but no NODE file": func(dir string) error { return os.Remove(filepath.Join(dir, "NODE")) },
	} {
		t.Run(name, func(t *testing.T) {
			c := settings(t)
			if err := start(t, c, vfs.Default()).close(); err != nil {
				t.Fatal(err)
			}
			if err := damage(c.DataPath); err != nil {
				t.Fatal(err)
			}
			if _, err := build(c, vfs.Default()); err == nil || !strings.Contains(err.Error(), name) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// TestSyncErrorStopsTheNode: what a failed sync left behind can't be known, so
// the node ends and says so; nobody is told OK.
func TestSyncErrorStopsTheNode(t *testing.T) {
	fs := vfs.NewFault(vfs.Default())
	r := start(t, settings(t), fs)
	fs.Fail(vfs.OpSync, "*.wal", syscall.EIO)
	if code, text := r.publish("orders", "lost"); code == 200 {
		t.Fatalf("acknowledged: %s", text)
	}
	if err := <-r.ended; !errors.Is(err, syscall.EIO) {
		t.Fatalf("ended with %v", err)
	}
}

// fullDisk reports as much free space as it is told.
type fullDisk struct {
	vfs.FS
	mu   sync.Mutex
	free int64
}

func (f *fullDisk) Usage(string) (vfs.Usage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return vfs.Usage{Total: 1 << 30, Free: f.free}, nil
}

func (f *fullDisk) set(free int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.free = free
}

func TestDiskReserve(t *testing.T) {
	fs := &fullDisk{FS: vfs.Default(), free: 1 << 30}
	r := start(t, settings(t), fs)
	if code, text := r.publish("orders", "a"); code != 200 {
		t.Fatal(code, text)
	}
	fs.set(1 << 20)
	eventually(t, "refused", func() bool {
		code, text := r.publish("orders", "b")
		return code == 503 && strings.Contains(text, "DISK_RESERVE")
	})
	if code, text := r.request("GET", "http://"+r.Addrs().HTTP+"/ping", ""); code != 500 || !strings.HasPrefix(text, "NOK - disk reserve") {
		t.Fatal(code, text)
	}
	if code, text := r.request("GET", "http://"+r.Addrs().Admin+"/readyz", ""); code != 503 || !strings.Contains(text, "disk reserve") {
		t.Fatal(code, text)
	}
	if code, text := r.request("POST", "http://"+r.Addrs().HTTP+"/topic/empty?topic=orders", ""); code != 200 {
		t.Fatalf("a full disk can't be drained: %d %s", code, text)
	}
	fs.set(1 << 30)
	eventually(t, "goes on", func() bool {
		code, _ := r.publish("orders", "c")
		return code == 200
	})
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}

func TestMetricsAndHealth(t *testing.T) {
	r := start(t, settings(t), vfs.Default())
	if code, text := r.publish("orders", "hello"); code != 200 {
		t.Fatal(code, text)
	}
	admin := "http://" + r.Addrs().Admin
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/": "<title>tidings"} {
		if code, text := r.request("GET", admin+path, ""); code != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	_, text := r.request("GET", admin+"/metrics", "")
	for _, want := range []string{
		`tidings_publish_records_total{proto="http",topic="orders"} 1`, `tidings_stored_bytes_total{topic="orders"} 5`,
		"tidings_log_sync_duration_seconds_count", "tidings_log_sync_duration_max_seconds", "tidings_shard_leaders 9",
		"tidings_build_info",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}

func TestStopUnderLoad(t *testing.T) {
	r := start(t, settings(t), vfs.Default())
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					r.publish(fmt.Sprint("t", i), "x")
				}
			}
		})
	}
	eventually(t, "load", func() bool { code, _ := r.publish("probe", "x"); return code == 200 })
	began := time.Now()
	if err := r.close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("stop took %v", took)
	}
	close(stop)
	wg.Wait()
}
