package compat

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestRestart holds what sections 7 and 9 say of a restart: nsqd is killed,
// right after what it has acknowledged; our node is stopped in order, and
// killed in test/kill.
func TestRestart(t *testing.T) {
	t.Parallel() // with a server of its own
	dir := t.TempDir()
	makes := []step{post("/topic/create?topic=$t", "", 200, ""), post("/channel/create?topic=$t&channel=c", "", 200, "")}
	for _, r := range []struct {
		name          string
		before, after []step
	}{
		{
			"a pause of a topic", join(makes, post("/topic/pause?topic=$t", "", 200, "")),
			join(hello, send("SUB $t c\nRDY 1\n"), ok, publish("a"), quiet(200*time.Millisecond), post("/topic/unpause?topic=$t", "", 200, ""), msg("a")),
		},
		{
			"a pause of a channel", join(makes, post("/channel/pause?topic=$t&channel=c", "", 200, "")),
			join(hello, send("SUB $t c\nRDY 1\n"), ok, publish("a"), quiet(200*time.Millisecond), post("/channel/unpause?topic=$t&channel=c", "", 200, ""), msg("a")),
		},
		{
			"an end of a pause", join(makes, post("/channel/pause?topic=$t&channel=c", "", 200, ""), post("/channel/unpause?topic=$t&channel=c", "", 200, "")),
			[]step{wantPart("/stats?format=json&topic=$t", `"clients":[],"paused":false`)},
		},
		{"topic and channel", join(makes, written), []step{post("/channel/empty?topic=$t&channel=c", "", 200, "")}},
		{
			"an ephemeral channel is gone", join(makes, post("/channel/create?topic=$t&channel=e%23ephemeral", "", 200, "")),
			[]step{post("/channel/empty?topic=$t&channel=e%23ephemeral", "", 404, message("CHANNEL_NOT_FOUND"))},
		},
		{
			"an ephemeral topic is gone",
			[]step{post("/topic/create?topic=$t%23ephemeral", "", 200, "")},
			[]step{post("/topic/empty?topic=$t%23ephemeral", "", 404, message("TOPIC_NOT_FOUND"))},
		},
		{
			"a deleted channel stays so", join(makes, post("/channel/delete?topic=$t&channel=c", "", 200, "")),
			[]step{differs("nsqd may have it again: what it writes in the background is of a moment before", nil,
				[]step{post("/channel/empty?topic=$t&channel=c", "", 404, message("CHANNEL_NOT_FOUND"))})},
		},
		{"an acknowledged message", join(makes, publish("a")), join(hello, send("SUB $t c\nRDY 1\n"), ok, differs("nothing acknowledged is lost",
			[]step{quiet(200 * time.Millisecond)}, []step{msg("a"), attempts(1)}))},
		{"a message in flight", consuming("a"), join(hello, send("SUB $t c\nRDY 1\n"), ok, differs("what was in flight comes again, and a delivery that the server ended is no attempt",
			[]step{quiet(200 * time.Millisecond)}, []step{msg("a"), attempts(1)}))},
		{
			"a finished message", join(consuming("a"), send("FIN $i\n"), until("it is finished", func(c channelStats) bool { return c.InFlight == 0 })),
			join(hello, send("SUB $t c\nRDY 1\n"), ok, quiet(200*time.Millisecond)),
		},
		{
			"a deferred message", join(makes, hello, send("DPUB $t 3000000\n"+sized("a")), ok, until("it is deferred", func(c channelStats) bool { return c.Deferred == 1 })),
			[]step{differs("it keeps its due time", []step{until("none", func(c channelStats) bool { return c.Name == "c" && c.Deferred == 0 })},
				[]step{until("it is deferred", func(c channelStats) bool { return c.Deferred == 1 && c.Depth == 0 })})},
		},
	} {
		t.Run(r.name, func(t *testing.T) {
			topic := unique()
			for _, steps := range [][]step{r.before, r.after} {
				g := startAt(t, dir, flags{})
				k := &talk{t: t, tcp: g.tcp, http: g.http, topic: topic}
				k.conn = k.dial()
				k.main = k.conn
				for _, s := range steps {
					s(k)
				}
				g.stop()
			}
		})
	}
}

// written gives nsqd the time to write down what there is, which it does in the
// background; we have done so when we answer.
func written(*talk) {
	if againstNSQD() {
		time.Sleep(500 * time.Millisecond)
	}
}

// TestOwnFlags holds those of section 9 that are flags of ours.
func TestOwnFlags(t *testing.T) {
	t.Parallel() // with a server of its own
	if againstNSQD() {
		t.Skip("nsqd has no such flags")
	}
	startOurs(t, t.TempDir(), flags{
		"tcp-address": "127.0.0.1:0", "http-address": "127.0.0.1:0", "https-address": "",
		"requeue-on-disconnect": "false", "max-defer-timeout": "2h", "msg-timeout": "4s",
	}).run(t, []row{
		rule("max-defer-timeout reached", hello, send("DPUB $t 7200000\n"+sized("a")), ok, open),
		rule("max-defer-timeout", hello, send("DPUB $t 7200001\n"), fails("E_INVALID DPUB timeout 7200001 out of range 0-7200000"), closed),
		rule("max-defer-timeout, HTTP", post("/pub?topic=$t&defer=7200001", "a", 400, message("INVALID_DEFER"))),
		rule("http-auth is off, as nsqd's HTTP is open", request("POST /pub?topic=$t", "x", 200, "OK")),
		{"requeue-on-disconnect=false", join(consuming("a"), half, closed, other, hello, send("SUB $t c\nRDY 1\n"), ok, quiet(300*time.Millisecond), msg("a"), attempts(2))},
	})
}

// TestHTTPAuth holds section 9: with http-auth, requests need the grants of
// commands.
func TestHTTPAuth(t *testing.T) {
	t.Parallel() // with a server of its own
	if againstNSQD() {
		t.Skip("nsqd has no such flag")
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, answers[r.URL.Query().Get("secret")]) }))
	defer s.Close()
	startOurs(t, t.TempDir(), flags{
		"tcp-address": "127.0.0.1:0", "http-address": "127.0.0.1:0", "https-address": "", "http-auth": "true", "auth-http-address": s.Listener.Addr().String(),
	}).run(t, []row{
		rule("ping needs none", request("GET /ping", "", 200, "OK")),
		rule("pub without a secret", request("POST /pub?topic=$t", "x", 401, message("AUTH_FIRST"))),
		rule("pub with a bad secret", secretly("POST /pub?topic=$t", "nobody", 401)),
		rule("pub with a grant", secretly("POST /pub?topic=$t", "publisher", 200)),
		rule("pub without the grant", secretly("POST /pub?topic=$t", "subscriber", 403)),
		rule("stats without a secret", request("GET /stats", "", 401, message("AUTH_FIRST"))),
	})
}

// secretly makes a request that shows a secret.
func secretly(line, secret string, status int) step {
	return func(k *talk) {
		k.t.Helper()
		method, path, _ := strings.Cut(k.expand(line), " ")
		req, err := http.NewRequest(method, "http://"+k.http+path, strings.NewReader("x"))
		if err != nil {
			k.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		res, err := client.Do(req)
		if err != nil {
			k.t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			k.t.Errorf("%s: %d, want %d", line, res.StatusCode, status)
		}
	}
}
