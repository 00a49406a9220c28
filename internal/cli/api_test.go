package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// run is a command line in this process.
func run(t *testing.T, words ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Main(append([]string{"tidings"}, words...), strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// What a node, or something else, may answer, and what the user is told.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		alien  bool // not a node: without NSQ's header
		code   int
		text   string
	}{
		{"denied", 403, `{"message":"FORBIDDEN"}`, false, exitDenied, "the node refused, status 403: FORBIDDEN"},
		{"unauthorized", 401, `{"message":"UNAUTHORIZED"}`, false, exitDenied, "status 401"},
		{"conflict", 409, `{"message":"EXISTS"}`, false, exitConflict, "status 409: EXISTS"},
		{"reserve", 503, `{"message":"DISK_RESERVE"}`, false, exitFailure, "disk is full down to its reserve; consume, empty or delete something"},
		{"stopping", 503, `{"message":"EXITING"}`, false, exitUnreachable, "the node is shutting down"},
		{"late", 503, `{"message":"TIMEOUT"}`, false, exitTimeout, "it may still be done"},
		{"big", 413, `{"message":"MSG_TOO_BIG"}`, false, exitFailure, "larger than the node takes"},
		{"unknown", 500, "no JSON", false, exitFailure, "status 500: no JSON"},
		{"alien", 200, "<html>", true, exitUnreachable, "answers, but not as a node does (status 200)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !c.alien {
					w.Header().Set("X-NSQ-Content-Type", "nsq; version=1.0")
				}
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			}))
			defer srv.Close()
			code, out, errOut := run(t, "pub", "orders", "x", "--server", srv.URL)
			if code != c.code || !strings.Contains(errOut, c.text) || out != "" {
				t.Errorf("exit code %d, want %d\n%s%s", code, c.code, out, errOut)
			}
		})
	}
}

func TestNoAnswerIsATimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	code, _, errOut := run(t, "topic", "ls", "--server", l.Addr().String(), "--timeout", "50ms")
	if code != exitTimeout || !strings.Contains(errOut, "no answer from "+l.Addr().String()+" within 50ms; it may still be done") {
		t.Errorf("exit code %d\n%s", code, errOut)
	}
	if _, err := dialPeer(context.Background(), l.Addr().String(), 50*time.Millisecond, access{}); exitCode(err) != exitTimeout {
		t.Errorf("dial: %v", err)
	}
}

func TestServerAddresses(t *testing.T) {
	for addr, want := range map[string]string{
		"localhost": "localhost:4151", "localhost:80": "localhost:80", "http://h:1/": "h:1", "https://h": "h:4151", "https://h:2/": "h:2", "10.0.0.1": "10.0.0.1:4151",
		"[::1]:5": "[::1]:5", "::1": "[::1]:4151", "[::1]": "[::1]:4151", ":4151": ":4151",
	} {
		srv := &server{flag: "server", port: defaultPort, addr: addr}
		if got, err := srv.host(); err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", addr, got, err, want)
		}
	}
	for _, addr := range []string{"", "ftp://h", "h:http", "h/path", "a b", "user@h:1", "h:99999"} {
		srv := &server{flag: "server", port: defaultPort, addr: addr}
		if got, err := srv.host(); exitCode(err) != exitUsage {
			t.Errorf("%q: %s %v", addr, got, err)
		}
	}
}

func TestErrorFrames(t *testing.T) {
	for text, want := range map[string]int{
		"E_BAD_TOPIC SUB topic name \"a b\" is not valid":                  exitUsage,
		"E_UNAUTHORIZED AUTH failed":                                       exitDenied,
		"E_AUTH_FIRST AUTH required before SUB":                            exitDenied,
		"E_SUB_FAILED SUB failed channel has as many consumers as allowed": exitConflict,
		"E_INVALID cannot SUB in current state":                            exitFailure,
	} {
		if err := nsqError(text); exitCode(err) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// A splitter gives what strings.Split would, however the input arrives.
func FuzzSplitter(f *testing.F) {
	f.Add("a\nb\r\n\nc", "\n")
	f.Add("a;;b;;;c;", ";;")
	f.Add("", "x")
	f.Fuzz(func(t *testing.T, text, delimiter string) {
		if delimiter == "" || strings.Contains(delimiter, `\`) {
			return
		}
		sp := newSplitter(oneByte{strings.NewReader(text)}, delimiter, 0)
		var got []string
		for {
			body, err := sp.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(body))
		}
		want := strings.Split(text, delimiter)
		if want[len(want)-1] == "" {
			want = want[:len(want)-1]
		}
		if strings.Join(got, "\x00|") != strings.Join(want, "\x00|") || len(got) != len(want) {
			t.Fatalf("%q by %q: %q, want %q", text, delimiter, got, want)
		}
	})
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1)]) }

func TestSplitterBounds(t *testing.T) {
	for text, ok := range map[string]bool{
		strings.Repeat("x", 100): true, strings.Repeat("x", 101): false,
		strings.Repeat("x", 100) + "\r\n": true, strings.Repeat("x", 101) + "\n": false,
		strings.Repeat("x", 1<<20): false,
	} {
		_, err := newLineSplitter(strings.NewReader(text), 100).next()
		if (err == nil) != ok {
			t.Errorf("%d bytes: %v", len(text), err)
		}
	}
}
