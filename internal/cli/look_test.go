package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	gonsq "github.com/nsqio/go-nsq"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/vfs"
)

// nodeInside is a node in this process.
func nodeInside(t *testing.T) node.Addrs {
	t.Helper()
	c := config.Default()
	c.DataPath, c.WALSegmentSize, c.DrainTimeout = t.TempDir(), 1<<20, 10*time.Millisecond
	const free = "127.0.0.1:0"
	c.TCPAddress, c.HTTPAddress, c.AdminAddress, c.LookupTCPAddress, c.LookupHTTPAddress, c.NSQAdminHTTPAddress = free, free, free, "", "", ""
	n, err := node.New(node.Options{Config: c, FS: vfs.Default(), Logger: slog.New(slog.DiscardHandler), LogLevel: new(slog.LevelVar)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- n.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("node ended before it served: %v", err)
	}
	at := n.Addrs()
	contexts(t, "")
	t.Setenv(envServer, at.HTTP)
	t.Setenv(envAdmin, at.Admin)
	return at
}

// holder consumes one message and keeps it until the test ends.
func holder(t *testing.T, tcp, topic, channel string) {
	t.Helper()
	c, err := gonsq.NewConsumer(topic, channel, gonsq.NewConfig())
	if err != nil {
		t.Fatal(err)
	}
	c.SetLoggerLevel(gonsq.LogLevelMax)
	held, enough := make(chan struct{}, 10), make(chan struct{})
	c.AddHandler(gonsq.HandlerFunc(func(*gonsq.Message) error {
		held <- struct{}{}
		<-enough
		return nil
	}))
	if err := c.ConnectToNSQD(tcp); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(enough)
		c.Stop()
		<-c.StopChan
	})
	<-held
}

// What consumers hold shows who, for how long and until when.
func TestPeekInFlight(t *testing.T) {
	at := nodeInside(t)
	for _, words := range [][]string{{"topic", "create", "orders"}, {"channel", "create", "orders", "billing"}, {"pub", "orders", "first"}, {"pub", "orders", "second"}} {
		if code, _, errOut := run(t, words...); code != exitOK {
			t.Fatalf("%q: %s", words, errOut)
		}
	}
	holder(t, at.TCP, "orders", "billing")
	_, out, errOut := run(t, "channel", "peek", "orders", "billing", "--state", "in-flight")
	for _, text := range []string{"0/0  ", "  attempts=1  consumer=127.0.0.1:", "  held=", "  timeout_in=", "  first\n"} {
		if !strings.Contains(out, text) {
			t.Errorf("%q is not in %q (%s)", text, out, errOut)
		}
	}
	if !strings.Contains(errOut, "1 message in flight; that is all") {
		t.Errorf("told %q", errOut)
	}
	_, out, _ = run(t, "channel", "peek", "orders", "billing", "--state", "in_flight", "--json")
	var m jsonStored
	if err := json.Unmarshal([]byte(out), &m); err != nil || m.State != "in_flight" || *m.Attempts != 1 || m.Consumer == "" || m.DeadlineAt <= m.DeliveredAt || m.DeliveredAt == 0 || *m.Body != "first" {
		t.Errorf("%v: %s", err, out)
	}
	_, out, _ = run(t, "channel", "peek", "orders", "billing")
	if !strings.Contains(out, "second") || strings.Contains(out, "first") {
		t.Errorf("queued: %q", out)
	}
}

// What the admin API may answer, and what the user is told.
func TestAnswersOfTheAdminAPI(t *testing.T) {
	contexts(t, "")
	for _, c := range []struct {
		name   string
		status int
		body   string
		code   int
		text   string
	}{
		{"denied", 403, `{"code": "FORBIDDEN_HOST", "message": "this node is not known as x", "next": "name the host with --admin-hosts"}`, exitDenied, "tidings: this node is not known as x; name the host with --admin-hosts\n"},
		{"missing", 404, `{"code": "TOPIC_NOT_FOUND", "message": "topic orders not found", "next": "GET /api/v1/topics lists what is there"}`, exitNotFound, "topic orders not found; `tidings topic ls` lists what is there\n"},
		{"leaderless", 503, `{"code": "NO_LEADER", "message": "partition 3 has no leader", "next": "try again in a few seconds; GET /api/v1/shards shows it"}`, exitUnreachable, "partition 3 has no leader\n"},
		{"late", 503, `{"code": "TIMEOUT", "message": "not answered in time"}`, exitTimeout, "not answered in time"},
		{"conflict", 409, `{"code": "X", "message": "in the way"}`, exitConflict, "in the way"},
		{"crowded", 503, `{"code": "TOO_MANY_VIEWERS", "message": "too many streams are open on this node", "next": "close some"}`, exitFailure, "too many streams are open on this node; close some"},
		{"broken", 500, `{}`, exitFailure, "status 500"},
		{"no JSON", 200, `[`, exitFailure, "can't be read"},
	} {
		for _, words := range [][]string{{"topic", "peek", "orders"}, {"topic", "tail", "orders"}, {"channel", "peek", "orders", "c"}, {"top", "--once"}} {
			if c.status == http.StatusOK && words[1] == "tail" {
				continue // which reads no answer but a stream
			}
			t.Run(c.name+"/"+strings.Join(words[:2], " "), func(t *testing.T) {
				srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(c.status)
					fmt.Fprint(w, c.body)
				}))
				defer srv.Close()
				code, out, errOut := run(t, append(words, "--admin", srv.URL)...)
				if code != c.code || !strings.Contains(errOut, c.text) || out != "" {
					t.Errorf("exit code %d, want %d\n%s%s", code, c.code, out, errOut)
				}
			})
		}
	}
}

// A part that did not answer is an error, after what did.
func TestPeekWithAPartMissing(t *testing.T) {
	contexts(t, "")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"items": [{"partition": 0, "offset": 7, "timestamp_ns": "1", "body": "aGVsbG8="}], "next": "abc", "gaps": [{"partition": 0, "first": 0, "last": 6, "reason": "deleted"}],
			"scanned": {"records": 1}, "missing": [{"node": "partition 1", "reason": "no leader"}]}`)
	}))
	defer srv.Close()
	code, out, errOut := run(t, "topic", "peek", "orders", "--admin", srv.URL)
	if code != exitUnreachable || !strings.Contains(out, "hello") || !strings.Contains(errOut, "a part is missing: partition 1: no leader") || !strings.Contains(errOut, "partition 0: offsets 0 to 6 are deleted\n") {
		t.Errorf("exit code %d\n%s%s", code, out, errOut)
	}
}

// A stream that does not begin is a timeout.
func TestTailTimesOut(t *testing.T) {
	contexts(t, "")
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(release)
	for _, words := range [][]string{{"topic", "tail", "orders"}, {"topic", "peek", "orders"}, {"channel", "peek", "orders", "c"}, {"top", "--once"}} {
		code, _, errOut := run(t, append(words, "--admin", srv.URL, "--timeout", "50ms")...)
		if code != exitTimeout || !strings.Contains(errOut, "within 50ms") {
			t.Errorf("%q: exit code %d\n%s", words, code, errOut)
		}
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 11, 21, 20, 0, 0, 0, time.FixedZone("", 3600))
	for text, want := range map[string]string{
		"2026-11-21T08:00:00.123Z": "2026-11-21T08:00:00.123Z", "2026-11-21T08:00:00+02:00": "2026-11-21T06:00:00Z",
		"2026-11-21T08:00": "2026-11-21T07:00:00Z", "2026-11-21 08:00:30": "2026-11-21T07:00:30Z", "2026-11-21": "2026-11-20T23:00:00Z",
		"90m": "2026-11-21T17:30:00Z", "-90m": "2026-11-21T17:30:00Z",
	} {
		got, err := parseTime(text, now)
		if err != nil || got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%s: %s %v, want %s", text, got.UTC().Format(time.RFC3339Nano), err, want)
		}
	}
	for _, text := range []string{"", "now", "21.11.2026", "1795288382"} {
		if got, err := parseTime(text, now); err == nil {
			t.Errorf("%q: %s", text, got)
		}
	}
}
