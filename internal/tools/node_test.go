package tools_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/cli"
	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/tools"
	"github.com/tidings-io/tidings/internal/vfs"
)

// TestMain lets the test binary be the program that a test kills.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "nsq_to_file" {
		os.Exit(cli.Main(os.Args, os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// patience bounds every wait for something that must come.
const patience = 30 * time.Second

// server is a node of our own, in this process.
type server struct{ tcp, http string }

func startNode(t *testing.T) server {
	t.Helper()
	cfg := config.DefaultNSQD()
	cfg.DataPath, cfg.TCPAddress, cfg.HTTPAddress, cfg.AdminAddress = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0", ""
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
	return server{n.Addrs().TCP, n.Addrs().HTTP}
}

// post wants 200.
func (s server) post(t *testing.T, path string, body []byte) {
	t.Helper()
	resp, err := http.Post("http://"+s.http+path, "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Fatalf("POST %s: %d %s", path, resp.StatusCode, text)
	}
}

// topic makes a topic with one channel, and publishes lines to it.
func (s server) topic(t *testing.T, topic, channel string, lines ...string) {
	t.Helper()
	s.post(t, "/topic/create?topic="+topic, nil)
	if channel != "" {
		s.post(t, "/channel/create?topic="+topic+"&channel="+channel, nil)
	}
	s.publish(t, topic, lines...)
}

func (s server) publish(t *testing.T, topic string, lines ...string) {
	t.Helper()
	if len(lines) > 0 {
		s.post(t, "/mpub?topic="+topic, []byte(strings.Join(lines, "\n")))
	}
}

// channel is what /stats tells of a channel.
type channel struct {
	Name     string `json:"channel_name"`
	Depth    int    `json:"depth"`
	InFlight int    `json:"in_flight_count"`
	Deferred int    `json:"deferred_count"`
	Messages int    `json:"message_count"`
	Requeued int    `json:"requeue_count"`
	Clients  int    `json:"client_count"`
	Details  []struct {
		Finished int `json:"finish_count"`
	} `json:"clients"`
}

func (c channel) unfinished() int { return c.Depth + c.InFlight + c.Deferred }

// stats lists the channels of a topic.
func (s server) stats(t *testing.T, topic string) []channel {
	t.Helper()
	resp, err := http.Get("http://" + s.http + "/stats?format=json&topic=" + topic)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var all struct {
		Topics []struct {
			Channels []channel `json:"channels"`
		} `json:"topics"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	if len(all.Topics) == 0 {
		return nil
	}
	return all.Topics[0].Channels
}

// channel is one of them; zero if it is not there.
func (s server) channel(t *testing.T, topic, name string) channel {
	t.Helper()
	for _, c := range s.stats(t, topic) {
		if c.Name == name {
			return c
		}
	}
	return channel{}
}

// lookup is an nsqlookupd that knows what it was told.
type lookup struct {
	http string

	mu    sync.Mutex
	nodes []server
	topic []string
}

func startLookup(t *testing.T, nodes ...server) *lookup {
	t.Helper()
	l := &lookup{nodes: nodes}
	web := httptest.NewServer(l)
	t.Cleanup(web.Close)
	l.http = strings.TrimPrefix(web.URL, "http://")
	return l
}

func (l *lookup) set(topics ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.topic = topics
}

func (l *lookup) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.Header().Set("X-NSQ-Content-Type", "nsq; version=1.0")
	answer := map[string]any{}
	switch topic := r.URL.Query().Get("topic"); {
	case r.URL.Path == "/topics":
		answer["topics"] = l.topic
	case r.URL.Path == "/lookup" && strings.Contains(" "+strings.Join(l.topic, " ")+" ", " "+topic+" "):
		var producers []map[string]any
		for _, n := range l.nodes {
			host, tcp, _ := net.SplitHostPort(n.tcp)
			_, web, _ := net.SplitHostPort(n.http)
			tcpPort, _ := strconv.Atoi(tcp)
			httpPort, _ := strconv.Atoi(web)
			producers = append(producers, map[string]any{"broadcast_address": host, "tcp_port": tcpPort, "http_port": httpPort})
		}
		answer["producers"] = producers
	default:
		w.WriteHeader(http.StatusNotFound)
		answer["message"] = "TOPIC_NOT_FOUND"
	}
	json.NewEncoder(w).Encode(answer)
}

// run is a utility that runs in this process.
type run struct {
	t     *testing.T
	out   safe
	errs  safe
	stop  context.CancelFunc
	ended chan struct{}
	err   error // after ended
}

// safe is a buffer that is read while it is written.
type safe struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safe) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safe) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func tool(t *testing.T, name string) tools.Tool {
	t.Helper()
	for _, tool := range tools.All() {
		if tool.Name == name {
			return tool
		}
	}
	t.Fatalf("there is no %s", name)
	return tools.Tool{}
}

// start runs a utility until it ends, or the test does.
func start(t *testing.T, in io.Reader, hangup <-chan os.Signal, name string, words ...string) *run {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	r := &run{t: t, stop: stop, ended: make(chan struct{})}
	what := tool(t, name)
	go func() {
		defer close(r.ended)
		r.err = what.Run(ctx, tools.Env{In: in, Out: &r.out, Err: &r.errs, Hangup: hangup}, words)
	}()
	t.Cleanup(func() {
		stop()
		r.wait()
		if t.Failed() {
			t.Logf("%s %q: %v\n%s", name, words, r.err, &r.errs)
		}
	})
	return r
}

// wait waits for the end.
func (r *run) wait() error {
	r.t.Helper()
	select {
	case <-r.ended:
		return r.err
	case <-time.After(patience):
		r.t.Fatalf("it does not end\n%s", &r.errs)
		return nil
	}
}

// end asks it to end, which has to be without an error.
func (r *run) end() {
	r.t.Helper()
	r.stop()
	if err := r.wait(); err != nil {
		r.t.Fatal(err)
	}
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// finished waits until the consumers that a channel has now have finished so
// many messages, and none is left.
func (s server) finished(t *testing.T, topic, name string, messages int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d messages of %s/%s finished", messages, topic, name), func() bool {
		c, done := s.channel(t, topic, name), 0
		for _, client := range c.Details {
			done += client.Finished
		}
		return done >= messages && c.unfinished() == 0
	})
}

func numbered(n int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf("m%06d", i)
	}
	return lines
}
