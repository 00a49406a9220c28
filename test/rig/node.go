//go:build linux

package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience bounds every wait for something that must come.
const Patience = 60 * time.Second

// Node is one data folder and the process on it, if there is one.
type Node struct {
	Bin   string
	Dir   string   // its data is in the folder data below it
	Flags []string // for serve, after the defaults: --data-path and loopback addresses with port 0
	// Args are in place of serve and its defaults: another command that serves, and
	// says so in its log. Flags come behind them.
	Args []string
	Env  []string // on top of this process's
	// Through is a command that runs the binary, such as ip netns exec NAME;
	// empty: none.
	Through []string
	// Dial opens connections to the node; nil: as net.Dialer does.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	Cmd     *exec.Cmd
	Started time.Time
	Log     *Log
	Addrs   Addrs

	exited chan struct{} // closed when the process has been waited for
	web    *http.Client
}

// Addrs is where a node listens, once it serves.
type Addrs struct{ TCP, HTTP, Admin string }

// NewNode describes a node on dir; the process is started by Start.
func NewNode(bin, dir string, flags ...string) *Node {
	n := &Node{Bin: bin, Dir: dir, Flags: flags}
	n.web = &http.Client{
		Timeout: Patience,
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 16, DisableCompression: true,
			DialContext: n.dial,
		},
	}
	return n
}

func (n *Node) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if n.Dial != nil {
		return n.Dial(ctx, network, addr)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

// Launch starts the process and does not wait for it to serve.
func (n *Node) Launch() error {
	args := slices.Clone(n.Args)
	if args == nil {
		args = n.serve()
	}
	argv := slices.Concat(n.Through, []string{n.Bin}, args, n.Flags)
	n.Cmd = exec.Command(argv[0], argv[1:]...)
	n.Cmd.Env = append(os.Environ(), n.Env...)
	// dies with the test, even when the test is killed
	n.Cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	n.Log = &Log{served: make(chan struct{})}
	n.Cmd.Stderr = n.Log
	n.Started = time.Now()
	if err := n.Cmd.Start(); err != nil {
		return fmt.Errorf("start node: %w", err)
	}
	n.exited = make(chan struct{})
	cmd, exited := n.Cmd, n.exited
	go func() {
		cmd.Wait() // the state is read from ProcessState
		close(exited)
	}()
	return nil
}

// serve is the command of a node.
func (n *Node) serve() []string {
	return []string{
		"serve", "--data-path", filepath.Join(n.Dir, "data"),
		"--tcp-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0",
		"--lookup-tcp-address=", "--lookup-http-address=", "--nsqadmin-http-address=",
	}
}

// ErrExited tells that the process ended before it served.
var ErrExited = errors.New("node exited")

// Start launches the process and waits until it serves.
func (n *Node) Start() error {
	if err := n.Launch(); err != nil {
		return err
	}
	select {
	case <-n.Log.served:
		n.Addrs = n.Log.Addrs()
		return nil
	case <-n.exited:
		return fmt.Errorf("%w with %d: %s", ErrExited, n.Cmd.ProcessState.ExitCode(), n.Log.Tail(5))
	case <-time.After(Patience):
		n.Kill()
		return fmt.Errorf("node does not serve after %s: %s", Patience, n.Log.Tail(5))
	}
}

// Served is closed when the process listens.
func (l *Log) Served() <-chan struct{} { return l.served }

// Exited is closed when the process that was launched last has ended.
func (n *Node) Exited() <-chan struct{} { return n.exited }

// MustStart starts the node, or ends the test.
func (n *Node) MustStart(t *testing.T) {
	t.Helper()
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	life := *n
	t.Cleanup(func() {
		if !life.Alive() && life.Cmd.ProcessState.ExitCode() > 0 {
			t.Errorf("the node ended by itself with %d", life.Cmd.ProcessState.ExitCode())
		}
		life.Kill()
		if t.Failed() {
			t.Logf("last lines of the node:\n%s", life.Log.Tail(20))
		}
	})
}

// Kill ends the process with SIGKILL, if it lives, and waits for its end.
func (n *Node) Kill() {
	if n.Cmd == nil {
		return
	}
	n.Cmd.Process.Kill() // it may have ended
	<-n.exited
}

// Stop asks the process to end and returns how long it took and its exit code.
func (n *Node) Stop() (took time.Duration, code int, err error) {
	begin := time.Now()
	if err := n.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, 0, fmt.Errorf("stop node: %w", err)
	}
	select {
	case <-n.exited:
		return time.Since(begin), n.Cmd.ProcessState.ExitCode(), nil
	case <-time.After(Patience):
		n.Kill()
		return 0, 0, fmt.Errorf("node has not stopped after %s", Patience)
	}
}

// Alive says whether the process still runs.
func (n *Node) Alive() bool {
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// Post returns status and body of a POST to nsqd's HTTP API.
func (n *Node) Post(path string, body []byte) (int, string, error) {
	return answer(n.web.Post("http://"+n.Addrs.HTTP+path, "application/octet-stream", bytes.NewReader(body)))
}

// Get is the same for GET.
func (n *Node) Get(path string) (int, string, error) {
	return answer(n.web.Get("http://" + n.Addrs.HTTP + path))
}

func answer(resp *http.Response, err error) (int, string, error) {
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// Admin is a GET at the admin address.
func (n *Node) Admin(path string) (int, string, error) {
	return answer(n.web.Get("http://" + n.Addrs.Admin + path))
}

// AdminPost is a POST of JSON at the admin address.
func (n *Node) AdminPost(path string, body []byte) (int, string, error) {
	return answer(n.web.Post("http://"+n.Addrs.Admin+path, "application/json", bytes.NewReader(body)))
}

// MustPost wants 200.
func (n *Node) MustPost(t *testing.T, path string, body []byte) {
	t.Helper()
	status, text, err := n.Post(path, body)
	if err != nil || status != 200 {
		t.Fatalf("POST %s: %d %s %v", path, status, text, err)
	}
}

// Metric reads one value without labels from /metrics.
func (n *Node) Metric(name string) (float64, error) {
	_, text, err := n.Admin("/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("no metric %s", name)
}

// MustMetric is Metric, or ends the test.
func (n *Node) MustMetric(t *testing.T, name string) float64 {
	t.Helper()
	v, err := n.Metric(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Stats is the part of /stats that the tests read.
type Stats struct {
	Health string
	Topics []struct {
		Name     string `json:"topic_name"`
		Depth    int64
		Messages int64 `json:"message_count"`
		Channels []ChannelStats
	}
}

// ChannelStats is the part of a channel in /stats that the tests read.
type ChannelStats struct {
	Name     string `json:"channel_name"`
	Depth    int64
	InFlight int64 `json:"in_flight_count"`
	Deferred int64 `json:"deferred_count"`
	Messages int64 `json:"message_count"`
	Requeued int64 `json:"requeue_count"`
	TimedOut int64 `json:"timeout_count"`
	Clients  []ClientStats
}

// ClientStats is the part of a client in /stats that the tests read.
type ClientStats struct {
	ID       string `json:"client_id"`
	InFlight int64  `json:"in_flight_count"`
	Messages int64  `json:"message_count"`
	Finished int64  `json:"finish_count"`
	Requeued int64  `json:"requeue_count"`
}

// Unfinished is what the channel still holds.
func (c ChannelStats) Unfinished() int64 { return c.Depth + c.InFlight + c.Deferred }

// Stats reads /stats; query is what follows its parameters, beginning with &.
func (n *Node) Stats(query string) (s Stats, err error) {
	err = n.GetJSON("/stats?format=json&include_mem=false"+query, &s)
	return s, err
}

// GetJSON reads what nsqd's HTTP API answers to a GET.
func (n *Node) GetJSON(path string, to any) error {
	status, text, err := n.Get(path)
	if err != nil {
		return err
	}
	if status != 200 {
		return fmt.Errorf("GET %s: %d %s", path, status, text)
	}
	return json.Unmarshal([]byte(text), to)
}

// Channel reads the figures of one channel; nil when there is none.
func (n *Node) Channel(topic, channel string) (*ChannelStats, error) {
	s, err := n.Stats("&topic=" + topic + "&channel=" + channel)
	if err != nil {
		return nil, err
	}
	if len(s.Topics) == 0 || len(s.Topics[0].Channels) == 0 {
		return nil, nil
	}
	return &s.Topics[0].Channels[0], nil
}

// Memory reads a line of /proc/PID/status in bytes: VmRSS, or VmHWM for the
// most since the start.
func (n *Node) Memory(line string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.Cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(text)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == line+":" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no line %s", line)
}

// Eventually polls until the condition holds; what describes it on failure.
func Eventually(t *testing.T, what string, holds func() (bool, error)) {
	t.Helper()
	if err := Await(Patience, holds); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// Await polls every 5 ms until the condition holds.
func Await(limit time.Duration, holds func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := holds()
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s (%w)", limit, errors.Join(err, errStill))
		}
		<-tick.C
	}
}

var errStill = errors.New("condition does not hold")

// Log keeps what the process wrote to stderr.
type Log struct {
	served chan struct{}

	mu      sync.Mutex
	text    bytes.Buffer
	where   Addrs
	partial int // bytes of text already searched
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	rest := l.text.Bytes()[l.partial:]
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		l.line(rest[:i])
		rest, l.partial = rest[i+1:], l.partial+i+1
	}
}

func (l *Log) line(text []byte) {
	var line struct {
		Msg, TCP, HTTP, Admin string
	}
	if json.Unmarshal(text, &line) == nil && line.Msg == "listening" {
		l.where = Addrs{line.TCP, line.HTTP, line.Admin}
		close(l.served)
	}
}

// Addrs is where the node listens; empty until it does.
func (l *Log) Addrs() Addrs {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.where
}

// String is everything so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Tail is the last n lines.
func (l *Log) Tail(n int) string {
	var lines []string
	for s := bufio.NewScanner(strings.NewReader(l.String())); s.Scan(); {
		lines = append(lines, s.Text())
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Command runs the binary to its end and returns its output and exit code.
func Command(t testing.TB, bin string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.Command(bin, args...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// MustDial opens an NSQ connection that ends with the test.
func (n *Node) MustDial(t *testing.T) *Wire {
	t.Helper()
	w, err := Dial(n.Addrs.TCP, "plain", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// FromEnv is a variable that a runner sets; without it the test is skipped, which
// the runner refuses.
func FromEnv(t testing.TB, name, runner string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Skipf("%s is not set: run %s", name, runner)
	}
	return value
}

// DataDir makes a folder below parent (empty: the system's temporary one) that
// survives the test when it failed.
func DataDir(t testing.TB, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "tidings-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("data folder kept: %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	return dir
}
