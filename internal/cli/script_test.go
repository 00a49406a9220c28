package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tidings-io/tidings/internal/nsqdata/nsqdatatest"
	"github.com/tidings-io/tidings/internal/tools"
)

func TestMain(m *testing.M) {
	program := func() { os.Exit(Main(os.Args, os.Stdin, os.Stdout, os.Stderr)) }
	programs := map[string]func(){"tidings": program, "nsqd": program, "nsqlookupd": program, "nsqadmin": program}
	for _, t := range tools.All() {
		programs[t.Name] = program
	}
	testscript.Main(m, programs)
}

// The scripts in testdata/script are what a user types. Beside testscript's own
// commands they have
//
//	node start NAME [serve|dev|edge|nsqd|nsqlookupd|nsqadmin] [FLAG...]   a real node; its addresses become
//	    TIDINGS_SERVER, $NAME_http, $NAME_https, $NAME_tcp, its output $WORK/NAME.log
//	node spawn NAME …       the same without waiting for it; node await NAME waits
//	node stop|kill NAME     SIGTERM, which has to end with exit code 0, or SIGKILL
//	code N COMMAND...       run a command, which has to end with exit code N
//	until REGEXP COMMAND... run a command until its output matches
//	wants FILE N            wait until the file has N lines
//	flip GLOB TEXT|OFFSET   flip a bit of a file where the text stands
//	bytes FILE N TEXT...    write a file of N times the text, with Go's escapes
//	ports NAME...           ports for a cluster's nodes, whose seeds have to be known before
//	nsqd-left sigterm|sigkill DIR   the data folder of a real nsqd that was ended so
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:      "testdata/script",
		Deadline: time.Now().Add(20 * patience),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"node": cmdNode, "code": cmdCode, "until": cmdUntil, "wants": cmdWants, "flip": cmdFlip, "bytes": cmdBytes,
			"nsqd-left": cmdNSQDLeft, "ports": cmdPorts,
		},
		Setup: func(env *testscript.Env) error {
			env.Values[nodesKey{}] = &nodes{running: make(map[string]*testNode)}
			env.Setenv("TIDINGS_SERVER", "127.0.0.1:1") // nobody there
			env.Setenv("GORACE", "atexit_sleep_ms=0")   // or each of hundreds of processes sleeps a second
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "sh" {
				_, err := exec.LookPath("sh")
				return err == nil && runtime.GOOS != "windows", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
	})
}

// patience bounds every wait of a script.
const patience = 15 * time.Second

type nodesKey struct{}

type nodes struct{ running map[string]*testNode }

type testNode struct {
	kind string // the command
	cmd  *exec.Cmd
	log  *safeLog
	done chan struct{} // closed when the process has ended and err is set
	err  error
}

// safeLog is a process's standard error, readable while it is written.
type safeLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *safeLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *safeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// eventually calls try until it reports true.
func eventually(ts *testscript.TestScript, what func() string, try func() bool) {
	for end := time.Now().Add(patience); !try(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("waited %s in vain: %s", patience, what())
		}
	}
}

func cmdNode(ts *testscript.TestScript, neg bool, a []string) {
	if neg || len(a) < 2 {
		ts.Fatalf("usage: node start|spawn|await|stop|kill NAME [serve|dev|nsqd] [FLAG...]")
	}
	all := ts.Value(nodesKey{}).(*nodes)
	switch a[0] {
	case "start":
		spawnNode(ts, all, a[1], a[2:])
		awaitNode(ts, all, a[1])
	case "spawn":
		spawnNode(ts, all, a[1], a[2:])
	case "await":
		awaitNode(ts, all, a[1])
	case "stop", "kill":
		n := all.running[a[1]]
		if n == nil {
			ts.Fatalf("node %s does not run", a[1])
		}
		delete(all.running, a[1])
		sig := os.Signal(syscall.SIGTERM)
		if a[0] == "kill" {
			sig = os.Kill
		}
		ts.Check(n.cmd.Process.Signal(sig))
		<-n.done
		ts.Check(os.WriteFile(ts.MkAbs(a[1]+".log"), []byte(n.log.String()), 0o600))
		if a[0] == "stop" && n.err != nil {
			ts.Fatalf("node %s: %v\n%s", a[1], n.err, n.log)
		}
	default:
		ts.Fatalf("unknown: node %s", a[0])
	}
}

func spawnNode(ts *testscript.TestScript, all *nodes, name string, words []string) {
	kind := "serve"
	if len(words) > 0 && !strings.HasPrefix(words[0], "-") {
		kind, words = words[0], words[1:]
	}
	args := []string{
		kind, "--data-path=" + name, "--wal-segment-size=1MiB", "--admin-address=127.0.0.1:0", "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0", "--log-level=info",
		"--lookup-tcp-address=127.0.0.1:0", "--lookup-http-address=127.0.0.1:0", "--nsqadmin-http-address=127.0.0.1:0",
	}
	switch kind {
	case "nsqlookupd":
		args = []string{kind, "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0"}
	case "nsqadmin":
		args = []string{kind, "--http-address=127.0.0.1:0"}
	case "edge":
		args = []string{kind, "--data-path=" + name, "--tcp-address=127.0.0.1:0", "--http-address=127.0.0.1:0", "--admin-address=127.0.0.1:0"}
	}
	program, err := exec.LookPath("tidings")
	ts.Check(err)
	n := &testNode{kind: kind, cmd: exec.Command(program, append(args, words...)...), log: &safeLog{}, done: make(chan struct{})}
	n.cmd.Dir = ts.MkAbs(".")
	n.cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("HOME"))
	n.cmd.Stderr = n.log
	ts.Check(n.cmd.Start())
	go func() { n.err = n.cmd.Wait(); close(n.done) }()
	all.running[name] = n
	ts.Defer(func() {
		n.cmd.Process.Kill() // it may have ended
		<-n.done
	})
}

// awaitNode waits until the node listens, and tells the script where.
func awaitNode(ts *testscript.TestScript, all *nodes, name string) {
	n := all.running[name]
	if n == nil {
		ts.Fatalf("node %s does not run", name)
	}
	var at struct{ TCP, HTTP, HTTPS, Admin, LookupTCP, LookupHTTP, NSQAdmin string }
	eventually(ts, n.log.String, func() bool {
		select {
		case <-n.done:
			ts.Fatalf("node %s ended: %v\n%s", name, n.err, n.log)
		default:
		}
		for line := range strings.Lines(n.log.String()) {
			var entry struct {
				Msg, TCP, HTTP, HTTPS, Admin, NSQAdmin string

				LookupTCP  string `json:"lookup_tcp"`
				LookupHTTP string `json:"lookup_http"`
			}
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "listening" {
				at.TCP, at.HTTP, at.HTTPS, at.Admin = entry.TCP, entry.HTTP, entry.HTTPS, entry.Admin
				at.LookupTCP, at.LookupHTTP, at.NSQAdmin = entry.LookupTCP, entry.LookupHTTP, entry.NSQAdmin
				return true
			}
		}
		return false
	})
	if n.kind != "nsqlookupd" && n.kind != "nsqadmin" {
		ts.Setenv("TIDINGS_SERVER", at.HTTP)
	}
	ts.Setenv(name+"_lookup_tcp", at.LookupTCP)
	ts.Setenv(name+"_lookup_http", at.LookupHTTP)
	ts.Setenv(name+"_nsqadmin", at.NSQAdmin)
	ts.Setenv(name+"_http", at.HTTP)
	ts.Setenv(name+"_https", at.HTTPS)
	ts.Setenv(name+"_tcp", at.TCP)
	ts.Setenv(name+"_admin", at.Admin)
}

// cmdCode runs a command whose exit code is known.
func cmdCode(ts *testscript.TestScript, neg bool, a []string) {
	if neg || len(a) < 2 {
		ts.Fatalf("usage: code N COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(a[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(a[1], a[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%s: %v", a[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// cmdUntil runs a command again and again until its output matches.
func cmdUntil(ts *testscript.TestScript, neg bool, a []string) {
	if neg || len(a) < 2 {
		ts.Fatalf("usage: until REGEXP COMMAND [ARG...]")
	}
	re, err := regexp.Compile("(?m)" + a[0])
	ts.Check(err)
	var out []byte
	eventually(ts, func() string { return string(out) }, func() bool {
		cmd := exec.Command(a[1], a[2:]...)
		cmd.Dir = ts.MkAbs(".")
		cmd.Env = os.Environ()
		for _, name := range []string{envServer, envAdmin, envContext, "XDG_CONFIG_HOME"} {
			cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
		}
		out, _ = cmd.CombinedOutput() // tried again
		return re.Match(out)
	})
}

// cmdWants waits until a file has so many lines.
func cmdWants(ts *testscript.TestScript, neg bool, a []string) {
	if neg || len(a) != 2 {
		ts.Fatalf("usage: wants FILE LINES")
	}
	want, err := strconv.Atoi(a[1])
	ts.Check(err)
	var text []byte
	eventually(ts, func() string { return string(text) }, func() bool {
		text, _ = os.ReadFile(ts.MkAbs(a[0])) // not there yet
		return bytes.Count(text, []byte("\n")) >= want
	})
}

// cmdFlip flips a bit of a file, behind the first place where the text stands,
// or (with a number) at that place.
func cmdFlip(ts *testscript.TestScript, neg bool, a []string) {
	if neg || len(a) != 2 {
		ts.Fatalf("usage: flip GLOB TEXT|OFFSET")
	}
	files, err := filepath.Glob(ts.MkAbs(a[0]))
	ts.Check(err)
	for _, name := range files {
		b, err := os.ReadFile(name)
		ts.Check(err)
		at, err := strconv.Atoi(a[1])
		if err != nil {
			at = bytes.Index(b, []byte(a[1]))
		}
		if at < 0 || at >= len(b) {
			continue
		}
		b[at] ^= 1
		ts.Check(os.WriteFile(name, b, 0o600))
		return
	}
	ts.Fatalf("%q is in none of %q", a[1], files)
}

// cmdBytes writes a file that a script can't hold: long, or with bytes that are
// no text.
func cmdBytes(ts *testscript.TestScript, neg bool, a []string) {
	if neg || len(a) < 3 || len(a)%2 == 0 {
		ts.Fatalf("usage: bytes FILE COUNT TEXT [COUNT TEXT...]")
	}
	var out []byte
	for pair := range slices.Chunk(a[1:], 2) {
		n, err := strconv.Atoi(pair[0])
		ts.Check(err)
		text, err := strconv.Unquote(`"` + pair[1] + `"`)
		ts.Check(err)
		out = append(out, strings.Repeat(text, n)...)
	}
	ts.Check(os.WriteFile(ts.MkAbs(a[0]), out, 0o600))
}

// cmdNSQDLeft writes what a real nsqd left: see internal/nsqdata/testdata.
func cmdNSQDLeft(ts *testscript.TestScript, neg bool, a []string) {
	if neg || len(a) != 2 {
		ts.Fatalf("usage: nsqd-left sigterm|sigkill DIR")
	}
	_, err := nsqdatatest.Unpack(filepath.Join("..", "nsqdata", "testdata", "nsqd-1.3.0-"+a[0]+".json"), ts.MkAbs(a[1]))
	ts.Check(err)
}

// cmdPorts sets each name to a port that nobody listens on. They are below those
// that systems give to who asks for any port, so that no other test gets one
// before its node does.
func cmdPorts(ts *testscript.TestScript, neg bool, a []string) {
	if neg || len(a) == 0 {
		ts.Fatalf("usage: ports NAME...")
	}
	for _, name := range a {
		for {
			port := strconv.Itoa(10_000 + rand.IntN(20_000))
			l, err := net.Listen("tcp", "127.0.0.1:"+port)
			if err != nil {
				continue
			}
			ts.Check(l.Close())
			ts.Setenv(name, port)
			break
		}
	}
}
