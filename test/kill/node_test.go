//go:build linux

package kill

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for something that must come.
const patience = 60 * time.Second

// plainBinary is the tidings binary under test; tests that need it say so by name
// when they can't run. test/kill/run refuses a run in which that happened.
func plainBinary(t *testing.T) string {
	t.Helper()
	return fromEnv(t, "KILL_BINARY")
}

// faultsBinary is the binary built with -tags faults.
func faultsBinary(t *testing.T) string {
	t.Helper()
	return fromEnv(t, "KILL_FAULTS")
}

func fromEnv(t *testing.T, name string) string {
	t.Helper()
	path := os.Getenv(name)
	if path == "" {
		t.Skipf("%s is not set: run test/kill/run", name)
	}
	return path
}

// node is one data folder and the process on it, if there is one.
type node struct {
	bin   string
	dir   string
	flags []string
	env   []string

	cmd     *exec.Cmd
	started time.Time
	exited  chan struct{} // closed when the process has been waited for
	log     *nodeLog
	addrs   addrs
}

type addrs struct{ TCP, HTTP, Admin string }

// newNode describes a node on dir; the process is started by start.
func newNode(bin, dir string, flags ...string) *node {
	return &node{bin: bin, dir: dir, flags: append(flags, strings.Fields(os.Getenv("KILL_FLAGS"))...)}
}

// dataDir makes a folder that survives the test when it failed.
func dataDir(t *testing.T) string {
	t.Helper()
	parent := os.Getenv("KILL_KEEP")
	dir, err := os.MkdirTemp(parent, "tidings-kill-")
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

// launch starts the process and does not wait for it to serve.
func (n *node) launch() error {
	args := append([]string{
		"serve", "--data-path", filepath.Join(n.dir, "data"),
		"--tcp-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0",
	}, n.flags...)
	n.cmd = exec.Command(n.bin, args...)
	n.cmd.Env = append(os.Environ(), n.env...)
	// dies with the test, even when the test is killed
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	n.log = &nodeLog{served: make(chan struct{})}
	n.cmd.Stderr = n.log
	n.started = time.Now()
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("start node: %w", err)
	}
	n.exited = make(chan struct{})
	cmd, exited := n.cmd, n.exited
	go func() {
		cmd.Wait() // the state is read from ProcessState
		close(exited)
	}()
	return nil
}

// errExited tells that the process ended before it served.
var errExited = errors.New("node exited")

// start launches the process and waits until it serves.
func (n *node) start() error {
	if err := n.launch(); err != nil {
		return err
	}
	select {
	case <-n.log.served:
		n.addrs = n.log.addrs()
		return nil
	case <-n.exited:
		return fmt.Errorf("%w with %d: %s", errExited, n.cmd.ProcessState.ExitCode(), n.log.tail(5))
	case <-time.After(patience):
		n.kill()
		return fmt.Errorf("node does not serve after %s: %s", patience, n.log.tail(5))
	}
}

// mustStart starts the node, or ends the test.
func (n *node) mustStart(t *testing.T) {
	t.Helper()
	if err := n.start(); err != nil {
		t.Fatal(err)
	}
	life := *n
	t.Cleanup(func() {
		if !life.alive() && life.cmd.ProcessState.ExitCode() > 0 {
			t.Errorf("the node ended by itself with %d", life.cmd.ProcessState.ExitCode())
		}
		life.kill()
		if t.Failed() {
			t.Logf("last lines of the node:\n%s", life.log.tail(20))
		}
	})
}

// kill ends the process with SIGKILL, if it lives, and waits for its end.
func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	n.cmd.Process.Kill() // it may have ended
	<-n.exited
}

// stop asks the process to end and returns how long it took and its exit code.
func (n *node) stop() (took time.Duration, code int, err error) {
	begin := time.Now()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, 0, fmt.Errorf("stop node: %w", err)
	}
	select {
	case <-n.exited:
		return time.Since(begin), n.cmd.ProcessState.ExitCode(), nil
	case <-time.After(patience):
		n.kill()
		return 0, 0, fmt.Errorf("node has not stopped after %s", patience)
	}
}

// alive says whether the process still runs.
func (n *node) alive() bool {
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// web talks to the node's HTTP addresses.
var web = &http.Client{
	Timeout:   patience,
	Transport: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true},
}

// post returns status and body of a POST to nsqd's HTTP API.
func (n *node) post(path string, body []byte) (int, string, error) {
	return answer(web.Post("http://"+n.addrs.HTTP+path, "application/octet-stream", bytes.NewReader(body)))
}

// get is the same for GET.
func (n *node) get(path string) (int, string, error) {
	return answer(web.Get("http://" + n.addrs.HTTP + path))
}

func answer(resp *http.Response, err error) (int, string, error) {
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// mustPost wants 200.
func (n *node) mustPost(t *testing.T, path string, body []byte) {
	t.Helper()
	status, text, err := n.post(path, body)
	if err != nil || status != 200 {
		t.Fatalf("POST %s: %d %s %v", path, status, text, err)
	}
}

// metric reads one value without labels from /metrics.
func (n *node) metric(name string) (float64, error) {
	_, text, err := answer(web.Get("http://" + n.addrs.Admin + "/metrics"))
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

func (n *node) mustMetric(t *testing.T, name string) float64 {
	t.Helper()
	v, err := n.metric(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// stats is the part of /stats that the tests read.
type stats struct {
	Health string
	Topics []struct {
		Name     string `json:"topic_name"`
		Depth    int64
		Messages int64 `json:"message_count"`
		Channels []channelStats
	}
}

type channelStats struct {
	Name     string `json:"channel_name"`
	Depth    int64
	InFlight int64 `json:"in_flight_count"`
	Deferred int64 `json:"deferred_count"`
	Messages int64 `json:"message_count"`
	Requeued int64 `json:"requeue_count"`
	TimedOut int64 `json:"timeout_count"`
	Clients  []clientStats
}

type clientStats struct {
	ID       string `json:"client_id"`
	InFlight int64  `json:"in_flight_count"`
	Messages int64  `json:"message_count"`
	Finished int64  `json:"finish_count"`
	Requeued int64  `json:"requeue_count"`
}

// unfinished is what the channel still holds.
func (c channelStats) unfinished() int64 { return c.Depth + c.InFlight + c.Deferred }

func (n *node) stats(query string) (s stats, err error) {
	err = n.getJSON("/stats?format=json&include_mem=false"+query, &s)
	return s, err
}

func (n *node) getJSON(path string, to any) error {
	status, text, err := n.get(path)
	if err != nil {
		return err
	}
	if status != 200 {
		return fmt.Errorf("GET %s: %d %s", path, status, text)
	}
	return json.Unmarshal([]byte(text), to)
}

// channel reads the figures of one channel; nil when there is none.
func (n *node) channel(topic, channel string) (*channelStats, error) {
	s, err := n.stats("&topic=" + topic + "&channel=" + channel)
	if err != nil {
		return nil, err
	}
	if len(s.Topics) == 0 || len(s.Topics[0].Channels) == 0 {
		return nil, nil
	}
	return &s.Topics[0].Channels[0], nil
}

// memory reads a line of /proc/PID/status in bytes: VmRSS, or VmHWM for the
// most since the start.
func (n *node) memory(line string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
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

// eventually polls until the condition holds; what describes it on failure.
func eventually(t *testing.T, what string, holds func() (bool, error)) {
	t.Helper()
	if err := await(patience, holds); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// await polls every 5 ms until the condition holds.
func await(limit time.Duration, holds func() (bool, error)) error {
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

// nodeLog keeps what the process wrote to stderr.
type nodeLog struct {
	served chan struct{}

	mu      sync.Mutex
	text    bytes.Buffer
	where   addrs
	partial int // bytes of text already searched
}

func (l *nodeLog) Write(p []byte) (int, error) {
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

func (l *nodeLog) line(text []byte) {
	var line struct {
		Msg, TCP, HTTP, Admin string
	}
	if json.Unmarshal(text, &line) == nil && line.Msg == "listening" {
		l.where = addrs{line.TCP, line.HTTP, line.Admin}
		close(l.served)
	}
}

func (l *nodeLog) addrs() addrs {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.where
}

// String is everything so far.
func (l *nodeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// tail is the last n lines.
func (l *nodeLog) tail(n int) string {
	var lines []string
	for s := bufio.NewScanner(strings.NewReader(l.String())); s.Scan(); {
		lines = append(lines, s.Text())
	}
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// command runs the binary to its end and returns its output and exit code.
func command(t *testing.T, bin string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.Command(bin, args...)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}
