package lookup

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/front/lookup"
)

// producers counts those of an answer.
func producers(k *talk, path string) int {
	k.t.Helper()
	_, got := k.do("GET " + path)
	var answer struct{ Producers []json.RawMessage }
	if err := json.Unmarshal([]byte(got), &answer); err != nil {
		k.t.Fatalf("%s: %q: %v", path, got, err)
	}
	return len(answer.Producers)
}

func count(path string, want int) step {
	return func(k *talk) {
		k.t.Helper()
		if got := producers(k, path); got != want {
			k.t.Fatalf("%s: %d producers, want %d", path, got, want)
		}
	}
}

// eventually2 is count, repeated until it is so.
func eventually2(path string, want int) step {
	return func(k *talk) {
		k.t.Helper()
		for end := time.Now().Add(patience); producers(k, path) != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				count(path, want)(k)
				return
			}
		}
	}
}

// answers wants a status and, anywhere in the body, a text.
func answers(line string, status int, part string) step {
	return func(k *talk) {
		k.t.Helper()
		res, got := k.do(line)
		if res.StatusCode != status || !strings.Contains(got, k.expand(part)) {
			k.t.Fatalf("%s: want %d …%s…\n got %d %s", k.expand(line), status, k.expand(part), res.StatusCode, got)
		}
		k.headers(line, res, got)
	}
}

// redirected wants a redirect to the path without its last slash.
func redirected(line string, status int, to string) step {
	return func(k *talk) {
		k.t.Helper()
		res, _ := k.do(line)
		if res.StatusCode != status || res.Header.Get("Location") != to {
			k.t.Fatalf("%s: want %d to %s, got %d to %s", line, status, to, res.StatusCode, res.Header.Get("Location"))
		}
	}
}

// TestHTTPRouting holds what is true of every path.
func TestHTTPRouting(t *testing.T) {
	rows := []row{
		rule("unknown path", get("/nothing", 404, message("NOT_FOUND"))),
		rule("root", get("/", 404, message("NOT_FOUND"))),
		rule("unknown path under a known one", post("/topic/rename?topic=$t", 404, message("NOT_FOUND"))),
		rule("trailing slash, GET", redirected("GET /topics/", 301, "/topics")),
		rule("trailing slash, POST", redirected("POST /topic/create/", 307, "/topic/create")),
		rule("ping", get("/ping", 200, "OK")),
		rule("info", answers("GET /info", 200, `{"version":"1.3.0"}`)),
		rule("pprof", answers("GET /debug/pprof", 200, "goroutine")),
		rule("pprof cmdline", answers("GET /debug/pprof/cmdline", 200, "")),
		rule("pprof heap", answers("GET /debug/pprof/heap?debug=1", 200, "heap profile")),
		rule("pprof symbol, POST", answers("POST /debug/pprof/symbol", 200, "num_symbols")),
	}
	for path, method := range map[string]string{
		"/ping": "GET", "/info": "GET", "/debug": "GET", "/lookup": "GET", "/topics": "GET", "/channels": "GET", "/nodes": "GET",
		"/topic/create": "POST", "/topic/delete": "POST", "/topic/tombstone": "POST", "/channel/create": "POST", "/channel/delete": "POST",
		"/debug/pprof/goroutine": "GET", "/debug/pprof/block": "GET", "/debug/pprof/threadcreate": "GET",
	} {
		wrong := "GET"
		if method == "GET" {
			wrong = "POST"
		}
		rows = append(rows,
			rule("method "+wrong+" on "+path, request(wrong+" "+path+"?topic=$t&channel=c", 405, message("METHOD_NOT_ALLOWED"))),
			rule("method DELETE on "+path, request("DELETE "+path, 405, message("METHOD_NOT_ALLOWED"))))
	}
	for _, path := range []string{
		"GET /lookup", "GET /channels", "POST /topic/create", "POST /topic/delete", "POST /topic/tombstone", "POST /channel/create", "POST /channel/delete",
	} {
		rows = append(rows,
			rule(path+" without a topic", request(path, 400, message("MISSING_ARG_TOPIC"))),
			rule(path+" with a query that can't be decoded", request(path+"?topic=%zz", 400, message("INVALID_REQUEST"))),
			rule(path+" with a semicolon", request(path+"?topic=$t;x=1", 400, message("INVALID_REQUEST"))))
	}
	for _, path := range []string{"POST /channel/create", "POST /channel/delete"} {
		rows = append(rows,
			rule(path+" with a bad topic", request(path+"?topic=a%2Bb&channel=c", 400, message("INVALID_ARG_TOPIC"))),
			rule(path+" without a channel", request(path+"?topic=$t", 400, message("MISSING_ARG_CHANNEL"))),
			rule(path+" with a bad channel", request(path+"?topic=$t&channel=a%2Bb", 400, message("INVALID_ARG_CHANNEL"))))
	}
	runRows(t, targets(t), rows)
}

// TestHTTP holds the API of section 5, as far as it speaks of nsqds that have
// registered.
func TestHTTP(t *testing.T) {
	deleted := []step{nsqd, does("REGISTER $t c"), post("/topic/delete?topic=$t", 200, "")}
	rows := []row{
		rule("lookup of an unknown topic", get("/lookup?topic=$t", 404, message("TOPIC_NOT_FOUND"))),
		rule("lookup of what can be no topic", get("/lookup?topic=a%2Bb", 404, message("TOPIC_NOT_FOUND"))),
		rule("lookup takes the first topic", nsqd, does("REGISTER $t"), get("/lookup?topic=$t&topic=other", 200, `{"channels":[],"producers":[`+shown+`}]}`)),
		rule("lookup of two nsqds", nsqd, does("REGISTER $t a"), other, nsqd, does("REGISTER $t b"), count("/lookup?topic=$t", 2), get("/channels?topic=$t", 200, `{"channels":["a","b"]}`)),
		rule("channels of an unknown topic", get("/channels?topic=$t", 200, `{"channels":[]}`)),
		rule("topics", nsqd, does("REGISTER $t"), has("GET /topics", "topics", `"$t"`, true)),
		rule("topics without one", has("GET /topics", "topics", `"$t"`, false)),
		rule("topics with a query that can't be decoded", answers("GET /topics?x=%zz", 200, `{"topics":[`)),
		rule("nodes", nsqd, does("REGISTER $t c"), has("GET /nodes", "producers", shown+`,"tombstones":[false],"topics":["$t"]}`, true)),
		rule("debug", nsqd, does("REGISTER $t c"), answers("GET /debug", 200, `"channel:$t:c":[{"broadcast_address":"$h","hostname":"$t-host","http_port":4151,"id":"$r","last_update":`),
			answers("GET /debug", 200, `"tcp_port":4150,"tombstoned":false,"tombstoned_at":-6795364578871345152,"topology_region":"r1","topology_zone":"z1","version":"1.3.0"}`),
			answers("GET /debug", 200, `"topic:$t:":[{"broadcast_address":"$h"`), answers("GET /debug", 200, `"client::":[{`)),

		alone("create a topic", post("/topic/create?topic=$t", 200, ""), found(``, ``), has("GET /topics", "topics", `"$t"`, true)),
		alone("create a topic twice", post("/topic/create?topic=$t", 200, ""), post("/topic/create?topic=$t", 200, ""), found(``, ``)),
		rule("create a bad topic", post("/topic/create?topic=a%2Bb", 400, message("INVALID_ARG_TOPIC"))),
		rule("create a topic without a name", post("/topic/create?topic=", 400, message("INVALID_ARG_TOPIC"))),
		alone("create a channel makes its topic", post("/channel/create?topic=$t&channel=c", 200, ""), found(`"c"`, ``)),

		rule("delete an unknown topic", post("/topic/delete?topic=$t", 200, "")),
		rule("delete what can be no topic", post("/topic/delete?topic=a%2Bb", 200, "")),
		rule("delete a topic", join(deleted, get("/lookup?topic=$t", 404, message("TOPIC_NOT_FOUND")), get("/channels?topic=$t", 200, `{"channels":[]}`),
			has("GET /nodes", "producers", shown+`,"tombstones":[],"topics":[]}`, true))...),
		rule("a deleted topic comes back with a registration", join(deleted, does("REGISTER $t"), found(``, shown+`}`))...),
		rule("unregister behind a delete", join(deleted, does("UNREGISTER $t c"), does("UNREGISTER $t"), get("/lookup?topic=$t", 404, message("TOPIC_NOT_FOUND")))...),
		rule("end behind a delete", join(deleted, gone, eventuallyGone)...),
		rule("delete all topics by a star", nsqd, does("REGISTER $t c"), differs("a star is a name like others: a typing error should not forget everything",
			[]step{}, []step{post("/topic/delete?topic=*", 200, ""), found(`"c"`, shown+`}`)})),
		rule("lookup of a star", nsqd, does("REGISTER $t c"), differs("a star is a name like others",
			[]step{answers("GET /lookup?topic=*", 200, `"c"`)}, []step{get("/lookup?topic=*", 404, message("TOPIC_NOT_FOUND"))})),
		rule("delete an unknown channel", post("/channel/delete?topic=$t&channel=c", 404, message("CHANNEL_NOT_FOUND"))),
		rule("delete a channel", nsqd, does("REGISTER $t c"), does("REGISTER $t d"), post("/channel/delete?topic=$t&channel=c", 200, ""), found(`"d"`, shown+`}`), post("/channel/delete?topic=$t&channel=c", 404, message("CHANNEL_NOT_FOUND"))),

		rule("tombstone without a node", post("/topic/tombstone?topic=$t", 400, message("MISSING_ARG_NODE"))),
		rule("tombstone of an unknown topic", post("/topic/tombstone?topic=$t&node=$h:4151", 200, "")),
		rule("tombstone of an unknown node", nsqd, does("REGISTER $t"), post("/topic/tombstone?topic=$t&node=$h:4152", 200, ""), found(``, shown+`}`)),
		rule("tombstone by the TCP port", nsqd, does("REGISTER $t"), post("/topic/tombstone?topic=$t&node=$h:4150", 200, ""), found(``, shown+`}`)),
		rule("tombstone", nsqd, does("REGISTER $t c"), post("/topic/tombstone?topic=$t&node=$h:4151", 200, ""), found(`"c"`, ``),
			has("GET /nodes", "producers", shown+`,"tombstones":[true],"topics":["$t"]}`, true)),
		rule("a tombstone is one topic's", nsqd, does("REGISTER $t"), does("REGISTER $t-2"), post("/topic/tombstone?topic=$t&node=$h:4151", 200, ""), found(``, ``),
			get("/lookup?topic=$t-2", 200, `{"channels":[],"producers":[`+shown+`}]}`)),
		rule("a tombstone outlives another registration", nsqd, does("REGISTER $t"), post("/topic/tombstone?topic=$t&node=$h:4151", 200, ""), does("REGISTER $t c"), found(`"c"`, ``)),
		rule("a tombstone goes with the registration", nsqd, does("REGISTER $t"), post("/topic/tombstone?topic=$t&node=$h:4151", 200, ""), does("UNREGISTER $t"), does("REGISTER $t"), found(``, shown+`}`)),
		rule("a tombstone goes with the connection", nsqd, does("REGISTER $t"), post("/topic/tombstone?topic=$t&node=$h:4151", 200, ""), gone, other, nsqd, does("REGISTER $t"), eventually("GET /lookup?topic=$t", 200, `{"channels":[],"producers":[`+shown+`}]}`)),
	}
	runRows(t, targets(t), rows)
}

// eventuallyGone waits until the row's nsqd is in no list.
func eventuallyGone(k *talk) {
	k.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, got := k.do("GET /nodes"); !strings.Contains(got, k.expand(`"$h"`)) {
			return
		}
		if time.Now().After(end) {
			k.t.Fatal("the nsqd is still listed")
		}
	}
}

// join makes one list of steps.
func join(first []step, more ...step) []step { return append(append([]step{}, first...), more...) }

// TestTimes holds what comes with time, on a server with short ones.
func TestTimes(t *testing.T) {
	at, ok := given("TIDINGS_LOOKUP_SHORT")
	short := []target{at}
	if _, real := given("TIDINGS_LOOKUP"); real && !ok {
		t.Fatal("name a server with short times as well: TIDINGS_LOOKUP_SHORT_TCP, TIDINGS_LOOKUP_SHORT_HTTP")
	}
	if !ok {
		cfg := config.Default()
		cfg.InactiveTimeout, cfg.TombstoneLifetime = 300*time.Millisecond, 300*time.Millisecond
		short = []target{
			startAlone(t, lookup.Options{InactiveTimeout: cfg.InactiveTimeout, TombstoneLifetime: cfg.TombstoneLifetime}),
			startNode(t, cfg),
		}
	}
	runRows(t, short, []row{
		rule("an nsqd that does not ping is left out", nsqd, does("REGISTER $t c"), eventually("GET /lookup?topic=$t", 200, `{"channels":["c"],"producers":[]}`),
			has("GET /nodes", "producers", shown+`,"tombstones":[false],"topics":["$t"]}`, false)),
		rule("a ping brings it back", nsqd, does("REGISTER $t c"), eventually("GET /lookup?topic=$t", 200, `{"channels":["c"],"producers":[]}`),
			pinging(`{"channels":["c"],"producers":[`+shown+`}]}`)),
		rule("a tombstone passes", nsqd, does("REGISTER $t c"), post("/topic/tombstone?topic=$t&node=$h:4151", 200, ""), pinging(`{"channels":["c"],"producers":[`+shown+`}]}`)),
	})
}

// pinging pings until the row's topic is found so.
func pinging(want string) step {
	return func(k *talk) {
		k.t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			does("PING")(k)
			res, got := k.do("GET /lookup?topic=$t")
			if res.StatusCode == 200 && got == k.expand(want) {
				return
			}
			if time.Now().After(end) {
				k.t.Fatalf("want %s\n got %s", k.expand(want), got)
			}
		}
	}
}
