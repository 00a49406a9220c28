package compat

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// request makes one HTTP request ("METHOD /path?query") and wants a status and
// an exact body.
func request(line, body string, status int, want string) step {
	return func(k *talk) {
		k.t.Helper()
		res, got := k.do(line, body)
		if res.StatusCode != status || got != k.expand(want) {
			k.t.Fatalf("%s: want %d %q\n      got %d %q", k.expand(line), status, k.expand(want), res.StatusCode, got)
		}
		k.headers(line, res)
	}
}

// eventually repeats a request until the status and a part of the body are there.
func eventually(line string, status int, part string) step {
	return func(k *talk) {
		k.t.Helper()
		deadline := time.Now().Add(patience)
		for {
			res, got := k.do(line, "")
			if res.StatusCode == status && strings.Contains(got, k.expand(part)) {
				return
			}
			if time.Now().After(deadline) {
				k.t.Fatalf("%s: want %d %q\n      got %d %q", k.expand(line), status, part, res.StatusCode, got)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

var client = &http.Client{
	Timeout:       patience,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (k *talk) do(line, body string) (*http.Response, string) {
	k.t.Helper()
	method, path, _ := strings.Cut(k.expand(line), " ")
	host, over := k.http, client
	if network(k.http) == "unix" {
		host = "unix"
		over = &http.Client{Timeout: patience, Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", k.http)
			},
		}}
	}
	req, err := http.NewRequest(method, "http://"+host+path, strings.NewReader(body))
	if err != nil {
		k.t.Fatal(err)
	}
	res, err := over.Do(req)
	if err != nil {
		k.t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		k.t.Fatal(err)
	}
	return res, string(got)
}

// headers checks what go-nsq and nsqadmin need on every answer.
func (k *talk) headers(line string, res *http.Response) {
	k.t.Helper()
	plain := strings.Contains(line, "/ping") || strings.Contains(line, "/debug/")
	if plain && againstNSQD() {
		return // nsqd leaves it out there
	}
	if got := res.Header.Get("X-NSQ-Content-Type"); got != "nsq; version=1.0" {
		k.t.Errorf("%s: X-NSQ-Content-Type is %q", line, got)
	}
	if got := res.Header.Get("Content-Type"); !plain && res.StatusCode >= 400 && got != "application/json; charset=utf-8" {
		k.t.Errorf("%s: Content-Type is %q", line, got)
	}
}

// redirected wants a redirect to the path without its last slash.
func redirected(line string, status int, to string) step {
	return func(k *talk) {
		k.t.Helper()
		res, _ := k.do(line, "")
		if res.StatusCode != status || res.Header.Get("Location") != to {
			k.t.Fatalf("%s: want %d to %s, got %d to %s", line, status, to, res.StatusCode, res.Header.Get("Location"))
		}
	}
}

func message(code string) string { return `{"message":"` + code + `"}` }

// post is a step that posts a body and wants an answer.
func post(path, body string, status int, want string) step {
	return request("POST "+path, body, status, want)
}

// TestHTTPRouting holds the general rules of section 4.
func TestHTTPRouting(t *testing.T) {
	rows := []row{
		rule("unknown path", request("GET /nothing", "", 404, message("NOT_FOUND"))),
		rule("root", request("GET /", "", 404, message("NOT_FOUND"))),
		rule("unknown path under a known one", request("POST /topic/rename?topic=$t", "", 404, message("NOT_FOUND"))),
		rule("case matters", request("POST /pub/x?topic=$t", "x", 404, message("NOT_FOUND"))),
		rule("another case leads to the known one", redirected("GET /Stats?a=b", 301, "/stats?a=b")),
		rule("a double slash is taken out", redirected("POST /topic//create?topic=x", 307, "/topic/create?topic=x")),
		rule("a dot is taken out", redirected("GET /./stats", 301, "/stats")),
		rule("a slash that lacks", redirected("GET /debug/pprof", 301, "/debug/pprof/")),
		rule("another case with another method", request("POST /Stats", "", 404, message("NOT_FOUND"))),
		rule("query not decodable, ping", request("GET /ping?x=%zz", "", 200, "OK")),
		rule("query not decodable, config", request("GET /config/max_rdy_count?x=%zz", "", 200, "2500")),
		rule("query not decodable, info", func(k *talk) {
			if res, _ := k.do("GET /info?x=a;b", ""); res.StatusCode != 200 {
				k.t.Errorf("%d", res.StatusCode)
			}
		}),
		rule("methods of a path", func(k *talk) {
			for line, want := range map[string]string{"GET /pub": "OPTIONS, POST", "OPTIONS /config/id": "GET, OPTIONS, PUT", "POST /ping": "GET, OPTIONS"} {
				if res, _ := k.do(line, ""); res.Header.Get("Allow") != want {
					k.t.Errorf("%s: Allow is %q, want %q", line, res.Header.Get("Allow"), want)
				}
			}
		}),
		rule("trailing slash, GET", redirected("GET /stats/", 301, "/stats")),
		rule("trailing slash, POST", redirected("POST /pub/", 307, "/pub")),
		rule("ping", request("GET /ping", "", 200, "OK")),
	}
	for path, method := range map[string]string{
		"/ping": "GET", "/info": "GET", "/stats": "GET", "/pub": "POST", "/mpub": "POST",
		"/topic/create": "POST", "/topic/delete": "POST", "/topic/empty": "POST", "/topic/pause": "POST", "/topic/unpause": "POST",
		"/channel/create": "POST", "/channel/delete": "POST", "/channel/empty": "POST", "/channel/pause": "POST", "/channel/unpause": "POST",
		"/debug/freememory": "POST", "/debug/setblockrate": "PUT", "/debug/pprof/heap": "GET",
	} {
		wrong := "GET"
		if method == "GET" {
			wrong = "POST"
		}
		rows = append(rows,
			rule("method "+wrong+" on "+path, request(wrong+" "+path+"?topic=$t&channel=c", "", 405, message("METHOD_NOT_ALLOWED"))),
			rule("method DELETE on "+path, request("DELETE "+path, "", 405, message("METHOD_NOT_ALLOWED"))))
	}
	rows = append(rows,
		rule("method POST on /config", post("/config/log_level", "info", 405, message("METHOD_NOT_ALLOWED"))))
	runRows(t, rows)
}

// TestHTTPPub holds /pub and /mpub of section 4.
func TestHTTPPub(t *testing.T) {
	big := strings.Repeat("b", 1<<20)
	n64, n65 := strings.Repeat("n", 64), strings.Repeat("n", 65)
	gets := func(bodies ...string) []step {
		out := []step{hello, send("SUB $t c\nRDY 100\n"), ok}
		for _, b := range bodies {
			out = append(out, msg(b))
		}
		return append(out, quiet(100*time.Millisecond))
	}
	rows := []row{
		{"pub", join(post("/pub?topic=$t", "hello\nworld\n", 200, "OK"), gets("hello\nworld\n"))},
		{"pub body looks like a form", join(post("/pub?topic=$t", "topic=other&a=b", 200, "OK"), gets("topic=other&a=b"))},
		rule("pub topic in the body is not looked at", post("/pub", "topic=$t", 400, message("MISSING_ARG_TOPIC"))),
		rule("pub empty", post("/pub?topic=$t", "", 400, message("MSG_EMPTY"))),
		rule("pub empty is looked at before the topic", post("/pub", "", 400, message("MSG_EMPTY"))),
		rule("pub without a topic", post("/pub", "x", 400, message("MISSING_ARG_TOPIC"))),
		rule("pub topic empty", post("/pub?topic=", "x", 400, message("INVALID_TOPIC"))),
		rule("pub topic with a bad character", post("/pub?topic=a%2Bb", "x", 400, message("INVALID_TOPIC"))),
		rule("pub topic of 65 bytes", post("/pub?topic="+n65, "x", 400, message("INVALID_TOPIC"))),
		rule("pub topic of 64 bytes", post("/pub?topic="+n64, "x", 200, "OK")),
		rule("pub ephemeral topic", post("/pub?topic=$t%23ephemeral", "x", 200, "OK")),
		{"pub first topic counts", join(post("/pub?topic=$t&topic=a%2Bb", "x", 200, "OK"), gets("x"))},
		rule("pub query not decodable", post("/pub?topic=$t&x=%zz", "x", 400, message("INVALID_REQUEST"))),
		rule("pub query with a semicolon", post("/pub?topic=$t;x=1", "x", 400, message("INVALID_REQUEST"))),
		{"pub of the limit", join(post("/pub?topic=$t", big, 200, "OK"), gets(big))},
		rule("pub over the limit", post("/pub?topic=$t", big+"b", 413, message("MSG_TOO_BIG"))),
		rule("pub over the limit, chunked", chunked("/pub?topic=$t", big+"b", 413, message("MSG_TOO_BIG"))),
		{"pub chunked", join(chunked("/pub?topic=$t", "abc", 200, "OK"), gets("abc"))},
		rule("pub size is looked at before the topic", post("/pub", big+"b", 413, message("MSG_TOO_BIG"))),
		rule("pub defer negative", post("/pub?topic=$t&defer=-1", "x", 400, message("INVALID_DEFER"))),
		rule("pub defer is a word", post("/pub?topic=$t&defer=soon", "x", 400, message("INVALID_DEFER"))),
		rule("pub defer empty", post("/pub?topic=$t&defer=", "x", 400, message("INVALID_DEFER"))),
		rule("pub defer is a fraction", post("/pub?topic=$t&defer=1.5", "x", 400, message("INVALID_DEFER"))),
		{"pub defer 0", join(post("/pub?topic=$t&defer=0", "x", 200, "OK"), gets("x"))},
		rule("pub defer at max-req-timeout", post("/pub?topic=$t&defer=3600000", "x", 200, "OK")),
		rule("pub defer over max-req-timeout", differs("deferred up to max-defer-timeout, 365 days",
			[]step{post("/pub?topic=$t&defer=3600001", "x", 400, message("INVALID_DEFER"))},
			[]step{post("/pub?topic=$t&defer=3600001", "x", 200, "OK")})),
		rule("pub defer out of range", post("/pub?topic=$t&defer=31536000001", "x", 400, message("INVALID_DEFER"))),
		rule("pub that is refused", post("/pub?topic=$t&defer=soon", "x", 400, message("INVALID_DEFER")), differs("makes no topic; nsqd makes it first",
			[]step{post("/topic/empty?topic=$t", "", 200, "")}, []step{post("/topic/empty?topic=$t", "", 404, message("TOPIC_NOT_FOUND"))})),
		rule("pub defer comes later", hello, send("SUB $t c\nRDY 1\n"), ok, post("/pub?topic=$t&defer=2500", "x", 200, "OK"), quiet(500*time.Millisecond), msg("x"), attempts(1)),
		rule("pub key and id", post("/pub?topic=$t&key=user-42&id=inv-991", "x", 200, "OK")),

		{"mpub text", join(post("/mpub?topic=$t", "a\nb\nc", 200, "OK"), gets("a", "b", "c"))},
		{"mpub text with a last newline", join(post("/mpub?topic=$t", "a\nb\n", 200, "OK"), gets("a", "b"))},
		{"mpub text drops empty lines", join(post("/mpub?topic=$t", "\na\n\n\nb\n\n", 200, "OK"), gets("a", "b"))},
		{"mpub text keeps carriage returns", join(post("/mpub?topic=$t", "a\r\nb\r\n", 200, "OK"), gets("a\r", "b\r"))},
		{"mpub empty", join(post("/mpub?topic=$t", "", 200, "OK"), gets())},
		{"mpub only newlines", join(post("/mpub?topic=$t", "\n\n\n", 200, "OK"), gets())},
		rule("mpub without a topic", post("/mpub", "x", 400, message("MISSING_ARG_TOPIC"))),
		rule("mpub topic with a bad character", post("/mpub?topic=a%2Bb", "x", 400, message("INVALID_TOPIC"))),
		rule("mpub query not decodable", post("/mpub?topic=$t&x=%zz", "x", 400, message("INVALID_REQUEST"))),
		rule("mpub one message over the limit", post("/mpub?topic=$t", "a\n"+big+"b\n", 413, message("MSG_TOO_BIG"))),
		{"mpub error publishes nothing", join(post("/mpub?topic=$t", "a\n"+big+"b\n", 413, message("MSG_TOO_BIG")), gets())},
		{"mpub one message of the limit", join(post("/mpub?topic=$t", big+"\n", 200, "OK"), gets(big))},
		rule("mpub of the limit", post("/mpub?topic=$t", strings.Repeat(big[:1<<20-1]+"\n", 5), 200, "OK")),
		rule("mpub over the limit", post("/mpub?topic=$t", strings.Repeat(big[:1<<20-1]+"\n", 5)+"x", 413, message("BODY_TOO_BIG"))),
		rule("mpub over the limit, chunked", chunked("/mpub?topic=$t", strings.Repeat(big[:1<<20-1]+"\n", 5)+"x", 413, message("BODY_TOO_BIG"))),
		rule("mpub size is looked at before the topic", post("/mpub", strings.Repeat(big, 5)+"x", 413, message("BODY_TOO_BIG"))),
		{"mpub binary=true", join(post("/mpub?topic=$t&binary=true", multi("a\n", "b"), 200, "OK"), gets("a\n", "b"))},
		{"mpub binary=1", join(post("/mpub?topic=$t&binary=1", multi("a", "b"), 200, "OK"), gets("a", "b"))},
		{"mpub binary of any other value is true", join(post("/mpub?topic=$t&binary=yes", multi("a"), 200, "OK"), gets("a"))},
		{"mpub binary without a value is true", join(post("/mpub?topic=$t&binary", multi("a"), 200, "OK"), gets("a"))},
		{"mpub binary=false", join(post("/mpub?topic=$t&binary=false", "a\nb", 200, "OK"), gets("a", "b"))},
		{"mpub binary=0", join(post("/mpub?topic=$t&binary=0", "a\nb", 200, "OK"), gets("a", "b"))},
		rule("mpub binary empty", post("/mpub?topic=$t&binary=true", "", 413, message("BAD_BODY"))),
		rule("mpub binary count zero", post("/mpub?topic=$t&binary=true", be32(0), 413, message("BAD_BODY"))),
		rule("mpub binary count negative", post("/mpub?topic=$t&binary=true", "\xff\xff\xff\xff", 413, message("BAD_BODY"))),
		rule("mpub binary count over the limit", post("/mpub?topic=$t&binary=true", be32((5<<20-4)/5+1), 413, message("BAD_BODY"))),
		rule("mpub binary count larger than the content", post("/mpub?topic=$t&binary=true", be32(2)+sized("a"), 413, message("BAD_MESSAGE"))),
		{"mpub binary count smaller than the content", join(post("/mpub?topic=$t&binary=true", be32(1)+sized("a")+sized("b"), 200, "OK"), gets("a"))},
		rule("mpub binary message size zero", post("/mpub?topic=$t&binary=true", be32(1)+be32(0), 413, message("BAD_MESSAGE"))),
		rule("mpub binary message over the limit", post("/mpub?topic=$t&binary=true", be32(1)+be32(1<<20+1), 413, message("BAD_MESSAGE"))),
		rule("mpub binary message cut short", post("/mpub?topic=$t&binary=true", be32(1)+be32(5)+"ab", 413, message("BAD_MESSAGE"))),
		rule("mpub binary over the limit", post("/mpub?topic=$t&binary=true", multi(big, big, big, big, big), 413, message("BODY_TOO_BIG"))),
	}
	runRows(t, rows)
}

// chunked posts without a Content-Length.
func chunked(path, body string, status int, want string) step {
	return func(k *talk) {
		k.t.Helper()
		req, err := http.NewRequest("POST", "http://"+k.http+k.expand(path), io.MultiReader(strings.NewReader(body)))
		if err != nil {
			k.t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			k.t.Fatal(err)
		}
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		if err != nil {
			k.t.Fatal(err)
		}
		if res.StatusCode != status || string(got) != want {
			k.t.Fatalf("want %d %q\n  got %d %q", status, want, res.StatusCode, got)
		}
		k.headers(path, res)
	}
}

// TestHTTPTopic holds /topic/* of section 4.
func TestHTTPTopic(t *testing.T) {
	n64, n65 := strings.Repeat("n", 64), strings.Repeat("n", 65)
	rows := []row{
		rule("create", post("/topic/create?topic=$t", "", 200, ""), post("/topic/pause?topic=$t", "", 200, "")),
		rule("create is idempotent", post("/topic/create?topic=$t", "", 200, ""), post("/topic/create?topic=$t", "", 200, "")),
		rule("create without a topic", post("/topic/create", "", 400, message("MISSING_ARG_TOPIC"))),
		rule("create with the topic in the body", post("/topic/create", "topic=$t", 400, message("MISSING_ARG_TOPIC"))),
		rule("create topic with a bad character", post("/topic/create?topic=a%2Bb", "", 400, message("INVALID_TOPIC"))),
		rule("create topic of 64 bytes", post("/topic/create?topic="+n64, "", 200, "")),
		rule("create topic of 65 bytes", post("/topic/create?topic="+n65, "", 400, message("INVALID_TOPIC"))),
		rule("create query not decodable", post("/topic/create?topic=%zz", "", 400, message("INVALID_REQUEST"))),
		rule("delete", post("/topic/create?topic=$t", "", 200, ""), post("/topic/delete?topic=$t", "", 200, ""), post("/topic/pause?topic=$t", "", 404, message("TOPIC_NOT_FOUND"))),
		rule("delete and create again", post("/topic/create?topic=$t", "", 200, ""), publish("a"), post("/topic/delete?topic=$t", "", 200, ""), publish("b"), hello, send("SUB $t c\nRDY 2\n"), ok, msg("b")),
		rule("empty", post("/topic/create?topic=$t", "", 200, ""), post("/topic/empty?topic=$t", "", 200, "")),
		rule("empty topic with a bad character", post("/topic/empty?topic=a%2Bb", "", 400, message("INVALID_TOPIC"))),
		rule("pause and unpause", post("/topic/create?topic=$t", "", 200, ""), post("/topic/pause?topic=$t", "", 200, ""),
			eventually("GET /stats?format=json&topic=$t", 200, `"paused":true`), post("/topic/pause?topic=$t", "", 200, ""), post("/topic/unpause?topic=$t", "", 200, ""),
			eventually("GET /stats?format=json&topic=$t", 200, `"paused":false`), post("/topic/unpause?topic=$t", "", 200, "")),
		rule("pause topic with a bad character", post("/topic/pause?topic=a%2Bb", "", 404, message("TOPIC_NOT_FOUND"))),
		rule("delete topic with a bad character", post("/topic/delete?topic=a%2Bb", "", 404, message("TOPIC_NOT_FOUND"))),
	}
	for _, verb := range []string{"delete", "empty", "pause", "unpause"} {
		rows = append(rows,
			rule(verb+" unknown topic", post("/topic/"+verb+"?topic=$t", "", 404, message("TOPIC_NOT_FOUND"))),
			rule(verb+" without a topic", post("/topic/"+verb, "", 400, message("MISSING_ARG_TOPIC"))),
			rule(verb+" query not decodable", post("/topic/"+verb+"?topic=%zz", "", 400, message("INVALID_REQUEST"))))
	}
	runRows(t, rows)
}

// TestHTTPChannel holds /channel/* of section 4.
func TestHTTPChannel(t *testing.T) {
	n64, n65 := strings.Repeat("n", 64), strings.Repeat("n", 65)
	topic := post("/topic/create?topic=$t", "", 200, "")
	channel := post("/channel/create?topic=$t&channel=c", "", 200, "")
	rows := []row{
		rule("create is idempotent", topic, channel, channel),
		rule("create channel of 64 bytes", topic, post("/channel/create?topic=$t&channel="+n64, "", 200, "")),
		rule("delete", topic, channel, post("/channel/delete?topic=$t&channel=c", "", 200, ""), post("/channel/delete?topic=$t&channel=c", "", 404, message("CHANNEL_NOT_FOUND"))),
		rule("empty", topic, channel, post("/channel/empty?topic=$t&channel=c", "", 200, "")),
		rule("pause and unpause", topic, channel, post("/channel/pause?topic=$t&channel=c", "", 200, ""),
			eventually("GET /stats?format=json&topic=$t&channel=c", 200, `"paused":true`), post("/channel/pause?topic=$t&channel=c", "", 200, ""),
			post("/channel/unpause?topic=$t&channel=c", "", 200, ""), post("/channel/unpause?topic=$t&channel=c", "", 200, "")),
	}
	for _, verb := range []string{"create", "delete", "empty", "pause", "unpause"} {
		path := "/channel/" + verb
		rows = append(rows,
			rule(verb+" unknown topic", post(path+"?topic=$t&channel=c", "", 404, message("TOPIC_NOT_FOUND"))),
			rule(verb+" without a topic", post(path+"?channel=c", "", 400, message("MISSING_ARG_TOPIC"))),
			rule(verb+" without a channel", topic, post(path+"?topic=$t", "", 400, message("MISSING_ARG_CHANNEL"))),
			rule(verb+" topic with a bad character", post(path+"?topic=a%2Bb&channel=c", "", 400, message("INVALID_ARG_TOPIC"))),
			rule(verb+" channel with a bad character", topic, post(path+"?topic=$t&channel=a%2Bb", "", 400, message("INVALID_ARG_CHANNEL"))),
			rule(verb+" channel of 65 bytes", topic, post(path+"?topic=$t&channel="+n65, "", 400, message("INVALID_ARG_CHANNEL"))),
			rule(verb+" topic is looked at before the channel", post(path+"?topic=a%2Bb", "", 400, message("INVALID_ARG_TOPIC"))),
			rule(verb+" query not decodable", post(path+"?topic=%zz", "", 400, message("INVALID_REQUEST"))))
		if verb != "create" {
			rows = append(rows, rule(verb+" unknown channel", topic, post(path+"?topic=$t&channel=c", "", 404, message("CHANNEL_NOT_FOUND"))))
		}
	}
	runRows(t, rows)
}

// TestHTTPConfig holds /config of section 4 as far as it belongs here, and /debug.
func TestHTTPConfig(t *testing.T) {
	runRows(t, []row{
		rule("get unknown option", request("GET /config/nothing", "", 400, message("INVALID_OPTION"))),
		rule("get max_msg_size", request("GET /config/max_msg_size", "", 200, "1048576")),
		rule("get max_body_size", request("GET /config/max_body_size", "", 200, "5242880")),
		rule("get msg_timeout is nanoseconds", request("GET /config/msg_timeout", "", 200, "60000000000")),
		rule("get max_req_timeout", request("GET /config/max_req_timeout", "", 200, "3600000000000")),
		rule("get max_rdy_count", request("GET /config/max_rdy_count", "", 200, "2500")),
		rule("get nsqlookupd_tcp_addresses", request("GET /config/nsqlookupd_tcp_addresses", "", 200, "[]")),
		rule("get by the flag's name", request("GET /config/max-msg-size", "", 400, message("INVALID_OPTION"))),
		rule("get a text is raw", func(k *talk) {
			if res, body := k.do("GET /config/broadcast_address", ""); res.StatusCode != 200 || strings.HasPrefix(body, `"`) || body == "" {
				k.t.Errorf("%d %q", res.StatusCode, body)
			}
		}),
		rule("put log_level in any case and get it", request("PUT /config/log_level", "INFO", 200, "2"), request("GET /config/log_level", "", 200, "2")),
		rule("put log_level unknown", request("PUT /config/log_level", "loud", 400, message("INVALID_VALUE"))),
		rule("put empty", request("PUT /config/log_level", "", 413, message("INVALID_VALUE"))),
		rule("put too big", request("PUT /config/log_level", strings.Repeat("x", 1<<20+1), 413, message("INVALID_VALUE"))),
		rule("put unknown option", request("PUT /config/nothing", "x", 400, message("INVALID_OPTION"))),
		rule("put an option that is fixed", request("PUT /config/max_msg_size", "1", 400, message("INVALID_OPTION"))),
		rule("put nsqlookupd_tcp_addresses no JSON", request("PUT /config/nsqlookupd_tcp_addresses", "x", 400, message("INVALID_VALUE"))),
		rule("setblockrate bad", request("PUT /debug/setblockrate?rate=x", "", 400, `invalid block rate : strconv.Atoi: parsing "x": invalid syntax`)),
		rule("setblockrate", differs("nsqd does it and then fails to say so",
			[]step{request("PUT /debug/setblockrate?rate=0", "", 500, message("INTERNAL_ERROR"))},
			[]step{request("PUT /debug/setblockrate?rate=0", "", 200, "")})),
		rule("freememory", differs("nsqd does it and then fails to say so",
			[]step{request("POST /debug/freememory", "", 500, message("INTERNAL_ERROR"))},
			[]step{request("POST /debug/freememory", "", 200, "")})),
		rule("pprof symbol, POST", func(k *talk) {
			if res, _ := k.do("POST /debug/pprof/symbol", ""); res.StatusCode != 200 {
				k.t.Errorf("%d", res.StatusCode)
			}
		}),
		rule("pprof unknown", func(k *talk) {
			if res, _ := k.do("GET /debug/pprof/nothing", ""); res.StatusCode != 404 {
				k.t.Errorf("%d", res.StatusCode)
			}
		}),
		rule("setblockrate without a rate", request("PUT /debug/setblockrate", "", 400, `invalid block rate : strconv.Atoi: parsing "": invalid syntax`)),
		rule("pprof", func(k *talk) {
			for _, p := range []string{"", "heap", "goroutine", "block", "threadcreate", "cmdline", "symbol"} {
				if res, _ := k.do("GET /debug/pprof/"+p, ""); res.StatusCode != 200 {
					k.t.Errorf("/debug/pprof/%s: %d", p, res.StatusCode)
				}
			}
		}),
	})
}
