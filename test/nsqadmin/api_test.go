package nsqadmin

import (
	"fmt"
	"strings"
	"testing"
)

// TestRouting holds what is true of every path.
func TestRouting(t *testing.T) {
	t.Parallel()
	rows := []row{
		rule("ping", get("/ping", 200, "OK")),
		rule("unknown path", get("/nothing", 404, message("NOT_FOUND"))),
		rule("unknown path of the API", get("/api/nothing", 404, message("NOT_FOUND"))),
		rule("a path too long", get("/api/topics/a/b/c", 404, message("NOT_FOUND"))),
		rule("trailing slash", redirected("GET /api/topics/", 301, "/api/topics")),
		rule("trailing slash, POST", redirected("POST /api/topics/", 307, "/api/topics")),
		rule("trailing slash with a query", redirected("GET /api/topics/?inactive=true", 301, "/api/topics?inactive=true")),
		rule("double slash", redirected("GET //api/topics", 301, "/api/topics")),
		rule("case of a path", redirected("GET /API/Topics/Orders", 301, "/api/topics/Orders")),
		rule("no redirect to another site", redirected("GET //example.com/..//ping", 301, "/ping")),
		rule("a page is HTML", page("/")),
		rule("options", options("/api/topics/orders", "DELETE", "GET", "OPTIONS", "POST")),
		rule("options of nothing", request("OPTIONS /nothing", "", 404, message("NOT_FOUND"))),
		rule("head", differs("HEAD is GET without a body: it is how many probes ask",
			[]step{status("HEAD /ping", 405)}, []step{status("HEAD /ping", 200), status("HEAD /api/topics", 200)})),
		rule("a panic of ours would be JSON", get("/config/nothing", 400, message("INVALID_OPTION"))),
		rule("query that can't be decoded", get("/api/topics?inactive=%zz", 400, message(`invalid URL escape "%zz"`))),
		rule("gzip", zipped),
	}
	for _, at := range []string{"/topics", "/topics/orders", "/topics/orders/audit", "/nodes", "/nodes/x:1", "/counter", "/lookup"} {
		rows = append(rows, rule("page "+at, page(at)))
	}
	for path, methods := range map[string]string{
		"/ping": "POST PUT DELETE", "/api/topics": "PUT DELETE", "/api/topics/orders": "PUT", "/api/topics/orders/audit": "PUT",
		"/api/nodes": "POST DELETE", "/api/nodes/x:1": "POST", "/api/counter": "POST", "/api/graphite": "POST", "/config/log_level": "POST DELETE", "/": "POST",
	} {
		for m := range strings.FieldsSeq(methods) {
			rows = append(rows, rule("method "+m+" on "+path, request(m+" "+path, "", 405, message("METHOD_NOT_ALLOWED"))))
		}
	}
	runRows(t, overLookupd(t), rows)
}

func status(line string, want int) step {
	return func(k *talk) {
		k.t.Helper()
		if res, _ := k.do(line, ""); res.StatusCode != want {
			k.t.Fatalf("%s: want %d, got %d", line, want, res.StatusCode)
		}
	}
}

func redirected(line string, want int, to string) step {
	return func(k *talk) {
		k.t.Helper()
		res, _ := k.do(line, "")
		if res.StatusCode != want || res.Header.Get("Location") != to {
			k.t.Fatalf("%s: want %d to %s, got %d to %s", line, want, to, res.StatusCode, res.Header.Get("Location"))
		}
	}
}

func page(path string) step {
	return func(k *talk) {
		k.t.Helper()
		res, got := k.do("GET "+path, "")
		if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") || !strings.Contains(got, "<html") {
			k.t.Fatalf("%s: %d %s\n%s", path, res.StatusCode, res.Header.Get("Content-Type"), got)
		}
		if realProgram() == "" && (strings.Contains(got, "src=") || strings.Contains(got, "http://") || strings.Contains(got, "https://")) {
			k.t.Errorf("the page asks for something elsewhere:\n%s", got)
		}
	}
}

func options(path string, want ...string) step {
	return func(k *talk) {
		k.t.Helper()
		res, got := k.do("OPTIONS "+path, "")
		allowed := strings.Split(strings.ReplaceAll(res.Header.Get("Allow"), " ", ""), ",")
		for _, m := range want {
			if !strings.Contains(res.Header.Get("Allow"), m) {
				k.t.Errorf("%s is not among %q", m, allowed)
			}
		}
		if res.StatusCode != 200 || got != "" {
			k.t.Errorf("%d %s", res.StatusCode, got)
		}
	}
}

// zipped wants an answer to be compressed for who asks for it: Go's client does,
// and undoes it.
func zipped(k *talk) {
	k.t.Helper()
	res, got := k.do("GET /api/topics/orders", "")
	if !res.Uncompressed || !strings.HasPrefix(got, "{") {
		k.t.Errorf("compressed %v: %s", res.Uncompressed, got)
	}
	res, got = k.do("GET /api/topics/orders", "", "Accept-Encoding: identity")
	if res.Header.Get("Content-Encoding") != "" || !strings.HasPrefix(got, "{") {
		k.t.Errorf("%q %s", res.Header, got)
	}
}

// TestAnswers holds the shapes of all answers over an nsqlookupd, as golden
// files.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const ownNumbers = "the channels that are summed are not those that the nodes show: nsqadmin adds to what the first node said, and leaves that out of the sum's nodes"
	runRows(t, overLookupd(t), []row{
		rule("topics", golden("/api/topics", "topics")),
		rule("topics asks each nsqlookupd once", status("GET /api/topics", 200), askedAtMost("L", 1), askedAtMost("A", 0)),
		rule("inactive topics", golden("/api/topics?inactive=true", "inactive")),
		rule("inactive=yes is not true", get("/api/topics?inactive=yes", 200, `{"topics":["idle","none","orders","quiet"],"message":""}`)),
		rule("inactive topics do not ask about each active one", differs("nsqadmin asks for the producers of every topic",
			nil, []step{status("GET /api/topics?inactive=true", 200), askedAtMost("L", 5)})),
		rule("a topic of two nodes", differs(ownNumbers,
			[]step{golden("/api/topics/orders", "topic.nsqadmin")}, []step{golden("/api/topics/orders", "topic")})),
		rule("a topic without channels", golden("/api/topics/plain", "topic-plain")),
		rule("a channel of two nodes", differs("the least of a percentile is the least of the nodes, not the largest of the last",
			[]step{answers("GET /api/topics/orders/audit", "", 200, `"min":`, `"hostname":"","topic_name":"orders","channel_name":"audit","depth":13,`)}, []step{golden("/api/topics/orders/audit", "channel")})),
		rule("an unknown channel", differs("nsqadmin panics", []step{get("/api/topics/orders/absent", 500, message("INTERNAL_ERROR"))},
			[]step{get("/api/topics/orders/absent", 404, message("CHANNEL_NOT_FOUND"))})),
		rule("an unknown topic", answers("GET /api/topics/absent", "", 502, "UPSTREAM_ERROR: failed to query any nsqlookupd: ", "TOPIC_NOT_FOUND")),
		rule("a topic without producers", get("/api/topics/idle", 502, message("UPSTREAM_ERROR: failed to query any nsqd: "))),
		rule("a channel without producers", get("/api/topics/idle/a", 502, message("UPSTREAM_ERROR: failed to query any nsqd: "))),
		rule("a name with odd characters", answers("GET /api/topics/a%3Fb%23c%20d%26e", "", 502, "UPSTREAM_ERROR"), asked("L", "/lookup?topic=a%3Fb%23c+d%26e")),
		rule("a slash in a name is a slash", answers("GET /api/topics/a%2Fb", "", 502, "UPSTREAM_ERROR"), asked("L", "/lookup?topic=a")),
		rule("dots are a name", answers("GET /api/topics/%2e%2e", "", 502, "UPSTREAM_ERROR"), asked("L", "/lookup?topic=..")),
		rule("nodes", golden("/api/nodes", "nodes")),
		rule("a node", golden("/api/nodes/$A", "node")),
		rule("an unknown node", get("/api/nodes/127.0.0.1:1", 404, message("NODE_NOT_FOUND"))),
		rule("counter", goldenSorted("/api/counter", "counter")),
	})
}

// TestNothing holds what is null and what is empty where there is nothing.
func TestNothing(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.l.answers = map[string]string{
		"GET /topics": `{"topics":[]}`, "GET /nodes": `{"producers":[]}`, "GET /channels": `{"channels":[]}`,
	}
	runRows(t, s.with(t, "-lookupd-http-address=$L"), []row{
		rule("no topics", get("/api/topics", 200, `{"topics":null,"message":""}`)),
		rule("no inactive topics", get("/api/topics?inactive=true", 200, `{"topics":{},"message":""}`)),
		rule("no nodes", get("/api/nodes", 200, `{"nodes":null,"message":""}`)),
		rule("counter of no nodes", get("/api/counter", 502, message("UPSTREAM_ERROR: failed to query any nsqd: "))),
	})
}

// TestOverNSQD holds the same over an nsqd that is named by address.
func TestOverNSQD(t *testing.T) {
	t.Parallel()
	s := newStage(t).with(t, "-nsqd-http-address=$A")
	runRows(t, s, []row{
		rule("topics", get("/api/topics", 200, `{"topics":["orders","plain"],"message":""}`)),
		rule("inactive topics", get("/api/topics?inactive=true", 200, `{"topics":{},"message":""}`)),
		rule("a topic", golden("/api/topics/orders", "nsqd-topic")),
		rule("a channel", golden("/api/topics/orders/audit", "nsqd-channel")),
		rule("an unknown topic", get("/api/topics/absent", 502, message("UPSTREAM_ERROR: failed to query any nsqd: "))),
		rule("nodes", golden("/api/nodes", "nsqd-nodes")),
		rule("a node", golden("/api/nodes/$A", "nsqd-node")),
		rule("counter", golden("/api/counter", "nsqd-counter")),
		rule("pause", request("POST /api/topics/orders", `{"action":"pause"}`, 200, fine), told("A", "POST /topic/pause?topic=orders"), told("L")),
		rule("delete", request("DELETE /api/topics/orders", "", 200, fine), told("A", "POST /topic/delete?topic=orders")),
		rule("delete of an unknown topic tells nobody", request("DELETE /api/topics/absent", "", 200, fine), nothingTold),
		rule("create a topic", differs("nsqadmin makes nothing where there is no nsqlookupd, and says that all is well",
			[]step{request("POST /api/topics", `{"topic":"new"}`, 200, fine), nothingTold},
			[]step{request("POST /api/topics", `{"topic":"new"}`, 200, fine), told("A", "POST /topic/create?topic=new")})),
		rule("create a channel", differs("nsqadmin fails",
			[]step{answers("POST /api/topics", `{"topic":"new","channel":"c"}`, 502, "UPSTREAM_ERROR")},
			[]step{request("POST /api/topics", `{"topic":"new","channel":"c"}`, 200, fine), told("A", "POST /topic/create?topic=new", "POST /channel/create?channel=c&topic=new")})),
		rule("a secret goes to who is named by address", differs("nsqadmin has no way to reach an nsqd that wants one",
			nil, []step{request("POST /api/topics/orders", `{"action":"pause"}`, 200, fine, "Authorization: Bearer s"), shown("A", "Bearer s")})),
		rule("a password goes to nobody", request("POST /api/topics/orders", `{"action":"pause"}`, 200, fine, "Authorization: Basic YWxpY2U6c2VjcmV0"), shown("A", "")),
		rule("nsqlookupds may be named later", request("PUT /config/nsqlookupd_http_addresses", "[]", 200, "[]"), get("/api/topics", 200, `{"topics":["orders","plain"],"message":""}`)),
	})
}

// TestActions holds what is told to whom.
func TestActions(t *testing.T) {
	t.Parallel()
	const odd = "POST /api/topics/a%20b%3F%26x=1"
	var rows []row
	for _, action := range []string{"pause", "unpause", "empty"} {
		rows = append(rows,
			rule(action+" a topic", request("POST /api/topics/orders", `{"action":"`+action+`"}`, 200, fine),
				told("A", "POST /topic/"+action+"?topic=orders"), told("B", "POST /topic/"+action+"?topic=orders"), told("L")),
			rule(action+" a channel", request("POST /api/topics/orders/audit", `{"action":"`+action+`"}`, 200, fine),
				told("A", "POST /channel/"+action+"?channel=audit&topic=orders"), told("B", "POST /channel/"+action+"?channel=audit&topic=orders"), told("L")))
	}
	node := func(topic string) []string {
		if realProgram() != "" {
			return []string{"POST /topic/delete?topic=" + topic}
		}
		return []string{"POST /topic/delete?share=node&topic=" + topic}
	}
	rows = append(rows,
		rule("delete a topic", request("DELETE /api/topics/orders", "", 200, fine), told("L", "POST /topic/delete?topic=orders"),
			told("A", "POST /topic/delete?topic=orders"), told("B", "POST /topic/delete?topic=orders")),
		rule("delete a channel", request("DELETE /api/topics/orders/audit", "", 200, fine), told("L", "POST /channel/delete?channel=audit&topic=orders"),
			told("A", "POST /channel/delete?channel=audit&topic=orders"), told("B", "POST /channel/delete?channel=audit&topic=orders")),
		rule("delete an inactive topic", request("DELETE /api/topics/idle", "", 200, fine), told("L", "POST /topic/delete?topic=idle"), told("A")),
		rule("delete an unknown topic", answers("DELETE /api/topics/absent", "", 502, "UPSTREAM_ERROR: failed to query any nsqlookupd"), nothingTold),
		rule("delete without a name", request("DELETE /api/topics", "", 405, message("METHOD_NOT_ALLOWED"))),
		rule("create a topic", request("POST /api/topics", `{"topic":"new"}`, 200, fine), told("L", "POST /topic/create?topic=new"), told("A"), told("B")),
		rule("create a topic, channel empty", request("POST /api/topics", `{"topic":"new","channel":""}`, 200, fine), told("L", "POST /topic/create?topic=new")),
		rule("create a channel", request("POST /api/topics", `{"topic":"orders","channel":"new"}`, 200, fine),
			told("L", "POST /topic/create?topic=orders", "POST /channel/create?channel=new&topic=orders"),
			told("A", "POST /channel/create?channel=new&topic=orders"), told("B", "POST /channel/create?channel=new&topic=orders")),
		rule("create an ephemeral topic", request("POST /api/topics", `{"topic":"new#ephemeral"}`, 200, fine), told("L", "POST /topic/create?topic=new%23ephemeral")),
		rule("create a bad topic", request("POST /api/topics", `{"topic":"a b"}`, 400, message("INVALID_TOPIC")), nothingTold),
		rule("create no topic", request("POST /api/topics", `{}`, 400, message("INVALID_TOPIC")), nothingTold),
		rule("create a bad channel", request("POST /api/topics", `{"topic":"orders","channel":"a b"}`, 400, message("INVALID_CHANNEL")), nothingTold),
		rule("create with an empty body", request("POST /api/topics", ``, 400, message("EOF")), nothingTold),
		rule("create with no JSON", request("POST /api/topics", `topic=x`, 400, message("invalid character 'o' in literal true (expecting 'r')")), nothingTold),
		rule("action with an empty body", request("POST /api/topics/orders", ``, 400, message("EOF")), nothingTold),
		rule("unknown action", request("POST /api/topics/orders", `{"action":"explode"}`, 400, message("INVALID_ACTION")), nothingTold),
		rule("no action", request("POST /api/topics/orders/audit", `{}`, 400, message("INVALID_ACTION")), nothingTold),
		rule("action on an unknown topic", answers("POST /api/topics/absent", `{"action":"pause"}`, 502, "UPSTREAM_ERROR"), nothingTold),
		rule("a name goes on as one name", answers(odd, `{"action":"pause"}`, 502, "UPSTREAM_ERROR"), asked("L", "/lookup?topic=a+b%3F%26x%3D1")),
		rule("body too big", differs("nsqadmin reads any body into memory", nil,
			[]step{request("POST /api/topics", `{"topic":"`+strings.Repeat("x", 2<<20)+`"}`, 413, message("BODY_TOO_BIG")), nothingTold})),

		rule("tombstone", request("DELETE /api/nodes/$A", `{"topic":"orders"}`, 200, fine),
			func(k *talk) {
				told("L", "POST /topic/tombstone?node="+strings.ReplaceAll(k.a.addr(), ":", "%3A")+"&topic=orders")(k)
			}, told("A", node("orders")...), told("B")),
		rule("tombstone with no JSON", request("DELETE /api/nodes/$A", `x`, 400, message("INVALID_BODY")), nothingTold),
		rule("tombstone without a body", request("DELETE /api/nodes/$A", ``, 400, message("INVALID_BODY")), nothingTold),
		rule("tombstone of a bad topic", request("DELETE /api/nodes/$A", `{"topic":"a b"}`, 400, message("INVALID_TOPIC")), nothingTold),
		rule("tombstone of a node that is not there", answers("DELETE /api/nodes/127.0.0.1:1", `{"topic":"orders"}`, 502, "UPSTREAM_ERROR: failed to query any nsqd: "),
			told("L", "POST /topic/tombstone?node=127.0.0.1%3A1&topic=orders")),
		rule("a page of another site can't act", differs("nsqadmin does what any page in the operator's browser asks for",
			[]step{request("POST /api/topics/orders", `{"action":"pause"}`, 200, fine, "Sec-Fetch-Site: cross-site")},
			[]step{request("POST /api/topics/orders", `{"action":"pause"}`, 403, message("FORBIDDEN"), "Sec-Fetch-Site: cross-site"), nothingTold})),
		rule("a secret goes to nobody who has registered", request("POST /api/topics/orders", `{"action":"pause"}`, 200, fine, "Authorization: Bearer s"), shown("A", ""), shown("L", "")),
		rule("an own page can act", request("POST /api/topics/orders", `{"action":"pause"}`, 200, fine, "Sec-Fetch-Site: same-origin", "Origin: http://example.com")),
	)
	runRows(t, overLookupd(t), rows)
}

// shown wants an upstream to have seen this in Authorization.
func shown(name, want string) step {
	return func(k *talk) {
		k.t.Helper()
		for _, f := range k.fakes() {
			f.mu.Lock()
			for _, h := range f.headers {
				if got := h.Get("Authorization"); f.name == name && got != want {
					k.t.Errorf("$%s was shown %q", name, got)
				}
			}
			if f.name == name && len(f.headers) == 0 {
				k.t.Errorf("$%s was not asked", name)
			}
			f.mu.Unlock()
		}
	}
}

// TestManyTopics: a list of ten thousand costs no more requests than one of
// ten.
func TestManyTopics(t *testing.T) {
	t.Parallel()
	const n = 10000
	var names, tombstones []string
	for i := range n {
		names, tombstones = append(names, fmt.Sprintf(`"t%05d"`, i)), append(tombstones, "false")
	}
	s := newStage(t)
	s.l.answers = map[string]string{
		"GET /topics":              `{"topics":["idle",` + strings.Join(names, ",") + `]}`,
		"GET /nodes":               s.expand(`{"producers":[` + peerA + `,"tombstones":[` + strings.Join(tombstones, ",") + `],"topics":[` + strings.Join(names, ",") + `]}]}`),
		"GET /channels?topic=idle": `{"channels":["c"]}`,
		"GET /lookup?topic=idle":   `{"channels":["c"],"producers":[]}`,
		"GET /lookup":              s.expand(`{"channels":["c"],"producers":[` + peerA + `}]}`),
	}
	few := []step{get("/api/topics?inactive=true", 200, `{"topics":{"idle":["c"]},"message":""}`)}
	runRows(t, s.with(t, "-lookupd-http-address=$L"), []row{
		rule("all", get("/api/topics", 200, `{"topics":["idle",`+strings.Join(names, ",")+`],"message":""}`), askedAtMost("L", 1), askedAtMost("A", 0)),
		rule("inactive ones", differs("nsqadmin asks about each topic", nil, append(few, askedAtMost("L", 3)))),
		rule("a node", answers("GET /api/nodes", "", 200, `{"topic":"t09999","tombstoned":false}`), askedAtMost("L", 1)),
	})
}

// TestBasePath: everything is below it, and nothing beside it.
func TestBasePath(t *testing.T) {
	t.Parallel()
	runRows(t, overLookupd(t, "-base-path=nsq/admin/"), []row{
		rule("ping", get("/nsq/admin/ping", 200, "OK")),
		rule("topics", get("/nsq/admin/api/topics", 200, `{"topics":["idle","none","orders","quiet"],"message":""}`)),
		rule("page", page("/nsq/admin")),
		rule("page with a slash", redirected("GET /nsq/admin/", 301, "/nsq/admin")),
		rule("config", get("/nsq/admin/config/base_path", 200, "/nsq/admin")),
		rule("not without it", get("/api/topics", 404, message("NOT_FOUND")), get("/ping", 404, message("NOT_FOUND")), get("/", 404, message("NOT_FOUND"))),
		rule("action", request("POST /nsq/admin/api/topics/orders", `{"action":"pause"}`, 200, fine), told("A", "POST /topic/pause?topic=orders")),
	})
}

// TestAdmins: who may act is in a header.
func TestAdmins(t *testing.T) {
	t.Parallel()
	acts := func(status int, want string, headers ...string) (steps []step) {
		for line, body := range map[string]string{
			"POST /api/topics": `{"topic":"orders"}`, "POST /api/topics/orders": `{"action":"pause"}`, "POST /api/topics/orders/audit": `{"action":"empty"}`,
			"DELETE /api/topics/orders": ``, "DELETE /api/topics/orders/audit": ``, "DELETE /api/nodes/$A": `{"topic":"orders"}`,
		} {
			steps = append(steps, request(line, body, status, want, headers...))
		}
		return steps
	}
	no := message("FORBIDDEN")
	runRows(t, overLookupd(t, "-admin-user=alice", "-admin-user=bob"), []row{
		rule("nobody", append(acts(403, no), nothingTold)...),
		rule("somebody else", append(acts(403, no, "X-Forwarded-User: mallory"), nothingTold)...),
		rule("an empty name", append(acts(403, no, "X-Forwarded-User: "), nothingTold)...),
		rule("the first admin", acts(200, fine, "X-Forwarded-User: alice")...),
		rule("the second admin", acts(200, fine, "X-Forwarded-User: bob")...),
		rule("another header", append(acts(403, no, "X-Remote-User: alice"), nothingTold)...),
		rule("forbidden comes before a bad body", request("POST /api/topics", `x`, 403, no)),
		rule("reading is for all", get("/api/topics", 200, `{"topics":["idle","none","orders","quiet"],"message":""}`)),
	})
	runRows(t, overLookupd(t, "-admin-user=alice", "-acl-http-header=X-Remote-User"), []row{
		rule("header of one's own", acts(200, fine, "X-Remote-User: alice")...),
		rule("not the usual header", append(acts(403, no, "X-Forwarded-User: alice"), nothingTold)...),
	})
}

// TestConfig: settings can be read, and two changed.
func TestConfig(t *testing.T) {
	t.Parallel()
	put := func(option, body string, status int, want string) step {
		return request("PUT /config/"+option, body, status, want)
	}
	runRows(t, overLookupd(t, "-statsd-interval=30s", "-admin-user=alice"), []row{
		rule("list", get("/config/nsqlookupd_http_addresses", 200, `["$L"]`)),
		rule("list of none", get("/config/nsqd_http_addresses", 200, `[]`)),
		rule("users", get("/config/admin_users", 200, `["alice"]`)),
		rule("text", get("/config/acl_http_header", 200, `X-Forwarded-User`), get("/config/statsd_prefix", 200, `nsq.%s`), get("/config/base_path", 200, `/`),
			get("/config/http_address", 200, `127.0.0.1:0`), get("/config/graphite_url", 200, ``), get("/config/allow_config_from_cidr", 200, `127.0.0.1/8`),
			get("/config/statsd_counter_format", 200, `stats.counters.%s.count`), get("/config/statsd_gauge_format", 200, `stats.gauges.%s`),
			get("/config/log_prefix", 200, `[nsqadmin] `), get("/config/notification_http_endpoint", 200, ``), get("/config/http_client_tls_cert", 200, ``)),
		rule("truth", get("/config/proxy_graphite", 200, `false`), get("/config/http_client_tls_insecure_skip_verify", 200, `false`)),
		rule("duration", get("/config/statsd_interval", 200, `30000000000`), get("/config/http_client_connect_timeout", 200, `2000000000`), get("/config/http_client_request_timeout", 200, `5000000000`)),
		rule("unknown", get("/config/nothing", 400, message("INVALID_OPTION")), get("/config/version", 400, message("INVALID_OPTION"))),
		rule("flag's name is not the option's", get("/config/lookupd-http-address", 400, message("INVALID_OPTION"))),
		rule("log level", get("/config/log_level", 200, `2`), put("log_level", "debug", 200, `1`), put("log_level", "WARN", 200, `3`), put("log_level", "error", 200, `4`),
			put("log_level", "fatal", 200, `5`), get("/config/log_level", 200, `5`), put("log_level", "info", 200, `2`)),
		rule("bad log level", put("log_level", "loud", 400, message("INVALID_VALUE")), get("/config/log_level", 200, `2`)),
		rule("addresses", func(k *talk) {
			put("nsqlookupd_http_addresses", k.expand(`["$L","127.0.0.1:1"]`), 200, `["$L","127.0.0.1:1"]`)(k)
			answers("GET /api/topics", "", 200, `"message":"WARNING: `)(k)
			put("nsqlookupd_http_addresses", k.expand(`["$L"]`), 200, `["$L"]`)(k)
			get("/api/topics", 200, `{"topics":["idle","none","orders","quiet"],"message":""}`)(k)
		}),
		rule("bad addresses", put("nsqlookupd_http_addresses", "x", 400, message("INVALID_VALUE")), put("nsqlookupd_http_addresses", `"x"`, 400, message("INVALID_VALUE"))),
		rule("addresses that are none", differs("nsqadmin takes anything, and asks there",
			nil, []step{put("nsqlookupd_http_addresses", `["127.0.0.1:1/x?"]`, 400, message("INVALID_VALUE")), put("nsqlookupd_http_addresses", `["http://x:1"]`, 400, message("INVALID_VALUE"))})),
		rule("setting that can't be changed", put("base_path", "/x", 400, message("INVALID_OPTION"))),
		rule("empty value", put("log_level", "", 413, message("INVALID_VALUE"))),
		rule("huge value", put("log_level", strings.Repeat("x", 2<<20), 413, message("INVALID_VALUE"))),
	})
	runRows(t, overLookupd(t, "-allow-config-from-cidr=10.0.0.0/8"), []row{
		rule("from elsewhere", get("/config/log_level", 403, message("FORBIDDEN")), put("log_level", "debug", 403, message("FORBIDDEN"))),
	})
	runRows(t, overLookupd(t, "-allow-config-from-cidr="), []row{rule("from everywhere", get("/config/log_level", 200, "2"))})
}
