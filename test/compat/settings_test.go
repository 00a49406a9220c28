package compat

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestOptions holds GET /config/:opt of section 4: every option under its name,
// in nsqd's form, where the server has nsqd's defaults.
func TestOptions(t *testing.T) {
	t.Parallel() // with a server of its own
	get := func(name, want string) row { return rule(name, request("GET /config/"+name, "", 200, want)) }
	is := func(name, pattern string) row {
		return rule(name, func(k *talk) {
			res, body := k.do("GET /config/"+name, "")
			if res.StatusCode != 200 {
				k.t.Fatalf("%d %s", res.StatusCode, body)
			}
			wantLines(k, body, pattern)
		})
	}
	no := func(name string) row {
		return rule("not "+name, request("GET /config/"+name, "", 400, message("INVALID_OPTION")))
	}
	g := startWith(t, flags{})
	g.run(t, []row{
		is("id", `^\d{1,4}$`), get("log_level", "2"), get("log_prefix", "[nsqd] "),
		get("tcp_address", "127.0.0.1:0"), get("http_address", "127.0.0.1:0"), get("https_address", "127.0.0.1:0"),
		is("broadcast_address", `^[^"]+$`), get("broadcast_tcp_port", port(g.tcp)), get("broadcast_http_port", port(g.http)),
		get("nsqlookupd_tcp_addresses", "[]"), get("auth_http_addresses", "[]"), get("auth_http_request_method", "get"),
		get("http_client_connect_timeout", "2000000000"), get("http_client_request_timeout", "5000000000"),
		get("topology_region", ""), get("topology_zone", ""), is("data_path", `^/`),
		get("mem_queue_size", "10000"), get("max_bytes_per_file", "104857600"), get("sync_every", "2500"), get("sync_timeout", "2000000000"),
		get("queue_scan_selection_count", "20"), get("queue_scan_worker_pool_max", "4"),
		get("msg_timeout", "60000000000"), get("max_msg_timeout", "900000000000"), get("max_msg_size", "1048576"), get("max_body_size", "5242880"),
		get("max_req_timeout", "3600000000000"), get("max_heartbeat_interval", "60000000000"), get("max_rdy_count", "2500"),
		get("max_output_buffer_size", "65536"), get("max_output_buffer_timeout", "30000000000"), get("min_output_buffer_timeout", "25000000"),
		get("output_buffer_timeout", "250000000"), get("max_channel_consumers", "0"),
		get("statsd_address", ""), is("statsd_prefix", `^nsq\.[^.]+_`+port(g.http)+`\.$`), get("statsd_interval", "60000000000"),
		get("statsd_mem_stats", "true"), get("statsd_udp_packet_size", "508"), get("statsd_exclude_ephemeral", "false"),
		get("e2e_processing_latency_percentiles", "[]"), get("e2e_processing_latency_window_time", "600000000000"),
		get("tls_cert", ""), get("tls_key", ""), get("tls_client_auth_policy", ""), get("tls_root_ca_file", ""), get("tls_required", "0"),
		rule("tls_min_version", differs("TLS begins at 1.2", []step{request("GET /config/tls_min_version", "", 200, "769")}, []step{request("GET /config/tls_min_version", "", 200, "771")})),
		get("deflate", "true"), get("max_deflate_level", "6"), get("snappy", "true"), get("enable_experiment", "[]"),
		no("version"), no("config"), no("verbose"), no("worker_id"), no("node_id"), no("queue_scan_interval"), no("e2e_processing_latency_percentile"),
		no("lookupd_tcp_address"), no("auth_http_address"),
		rule("no name", request("GET /config/", "", 404, message("NOT_FOUND"))),
		rule("no name, no slash", request("GET /config", "", 404, message("NOT_FOUND"))),
		rule("two names", request("GET /config/a/b", "", 404, message("NOT_FOUND"))),
	})
}

// port is that of an address.
func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

// TestPutOptions holds PUT /config/:opt of section 4, each row on the last one's
// state.
func TestPutOptions(t *testing.T) {
	t.Parallel() // with a server of its own
	put := func(name, option, body string, status int, want string) row {
		return rule(name, request("PUT /config/"+option, body, status, want))
	}
	const lookupds = "nsqlookupd_tcp_addresses"
	startWith(t, flags{}).run(t, []row{
		put("log_level debug", "log_level", "debug", 200, "1"), rule("log_level is kept", request("GET /config/log_level", "", 200, "1")),
		put("log_level warn", "log_level", "warn", 200, "3"), put("log_level error", "log_level", "ERROR", 200, "4"), put("log_level fatal", "log_level", "Fatal", 200, "5"),
		put("log_level info", "log_level", "info", 200, "2"),
		put("log_level number", "log_level", "2", 400, message("INVALID_VALUE")), put("log_level quoted", "log_level", `"info"`, 400, message("INVALID_VALUE")),
		put("log_level with a space", "log_level", "info ", 400, message("INVALID_VALUE")), put("log_level warning", "log_level", "warning", 400, message("INVALID_VALUE")),
		put("addresses", lookupds, `["127.0.0.1:1","127.0.0.1:2"]`, 200, `["127.0.0.1:1","127.0.0.1:2"]`),
		rule("addresses are kept", request("GET /config/"+lookupds, "", 200, `["127.0.0.1:1","127.0.0.1:2"]`)),
		put("addresses of another type", lookupds, `[1]`, 400, message("INVALID_VALUE")), put("addresses as an object", lookupds, `{}`, 400, message("INVALID_VALUE")),
		put("addresses as text", lookupds, `"127.0.0.1:1"`, 400, message("INVALID_VALUE")),
		put("no addresses", lookupds, `[]`, 200, `[]`), put("null", lookupds, `null`, 200, `null`),
		put("statsd_prefix is fixed", "statsd_prefix", "x", 400, message("INVALID_OPTION")), put("by the flag's name", "log-level", "info", 400, message("INVALID_OPTION")),
		put("no value for an unknown option", "nothing", "", 413, message("INVALID_VALUE")),
	})
}

// TestLimits holds sections 2 and 8: flags that bound what clients may do.
func TestLimits(t *testing.T) {
	t.Parallel() // with a server of its own
	consumes := []step{hello, send("SUB $t c\nRDY 5\n"), ok, publish("a"), msg("a")}
	offer := map[string]any{
		"max_rdy_count": 10.0, "max_msg_timeout": 2500.0, "msg_timeout": 1200.0, "max_deflate_level": 3.0, "deflate_level": 3.0, "output_buffer_timeout": 100.0,
		"topology_region": "r1", "topology_zone": "z1",
	}
	bad := func(name, field string, value int, text string) row {
		return rule(name, hello, identify(fmt.Sprintf(`{%q:%d}`, field, value)), fails(fmt.Sprintf("E_BAD_BODY IDENTIFY %s (%d) is invalid", text, value)), closed)
	}
	good := func(name, field string, value int) row {
		return rule(name, hello, identify(fmt.Sprintf(`{%q:%d}`, field, value)), ok, open)
	}
	g := startWith(t, flags{
		"max-rdy-count": "10", "msg-timeout": "1200ms", "max-msg-timeout": "2500ms", "max-req-timeout": "1s", "max-msg-size": "100", "max-body-size": "1000",
		"max-heartbeat-interval": "5s", "max-output-buffer-size": "1000", "max-output-buffer-timeout": "1s", "min-output-buffer-timeout": "10ms", "output-buffer-timeout": "100ms",
		"max-deflate-level": "3", "max-channel-consumers": "1", "broadcast-address": "b.example", "broadcast-tcp-port": "14150", "broadcast-http-port": "14151",
		"topology-region": "r1", "topology-zone": "z1", "node-id": "77", "mem-queue-size": "5",
	})
	g.run(t, []row{
		rule("IDENTIFY tells them", hello, identify(`{"feature_negotiation":true}`), negotiated(offer), open),
		rule("info tells them", wantPart("/info", `"broadcast_address":"b.example"`, `"topology_zone":"z1"`, `"topology_region":"r1"`, `"max_heartbeat_interval":5000000000`,
			`"max_output_buffer_size":1000`, `"max_output_buffer_timeout":1000000000`, `"max_deflate_level":3`, `"tcp_port":`+port(g.tcp)+`,`, `"http_port":`+port(g.http)+`,`)),
		rule("config tells them", request("GET /config/broadcast_tcp_port", "", 200, "14150"), request("GET /config/broadcast_http_port", "", 200, "14151"),
			request("GET /config/id", "", 200, "77"), request("GET /config/statsd_prefix", "", 200, "nsq.b_example_14151."), request("GET /config/topology_zone", "", 200, "z1")),
		rule("max-rdy-count", hello, send("SUB $t c\nRDY 10\nRDY 11\n"), ok, fails("E_INVALID RDY count 11 out of range 0-10"), closed),
		{"msg-timeout", join(consumes, msg("a"), attempts(2))},
		bad("max-msg-timeout", "msg_timeout", 2501, "msg timeout"), good("max-msg-timeout reached", "msg_timeout", 2500),
		{"TOUCH does not pass max-msg-timeout", join(consumes, func(k *talk) {
			first := k.ids[0]
			began, last, widest := time.Now(), time.Now(), time.Duration(0)
			for len(k.ids) == 1 { // until it comes again
				if time.Since(began) > patience {
					k.t.Fatal("it never times out")
				}
				widest, last = max(widest, time.Since(last)), time.Now()
				k.write("TOUCH " + first + "\n")
				k.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
				_, _ = k.soon()
			}
			attempts(2)(k)
			// on a slow machine a TOUCH may have come too late
			if kept := time.Since(began); kept < 2*time.Second && widest < 600*time.Millisecond {
				k.t.Errorf("TOUCH did not keep it: it came again after %v", kept)
			}
		})},
		{"REQ is clamped to max-req-timeout", join(consumes, send("REQ $i 3000000\n"), msg("a"), attempts(2))},
		rule("DPUB over max-req-timeout", hello, differs("deferred up to max-defer-timeout",
			[]step{send("DPUB $t 1001\n"), fails("E_INVALID DPUB timeout 1001 out of range 0-1000"), closed},
			[]step{send("DPUB $t 1001\n" + sized("a")), ok, open})),
		rule("max-msg-size, PUB", hello, send("PUB $t\n"+be32(101)), fails("E_BAD_MESSAGE PUB message too big 101 > 100"), closed),
		rule("max-msg-size, HTTP", post("/pub?topic=$t", strings.Repeat("x", 101), 413, message("MSG_TOO_BIG"))),
		rule("max-body-size, MPUB", hello, send("MPUB $t\n"+be32(1001)), fails("E_BAD_BODY MPUB body too big 1001 > 1000"), closed),
		rule("max-body-size, count", hello, send("MPUB $t\n"+sized(be32(200))), fails("E_BAD_BODY MPUB invalid message count 200"), closed),
		rule("max-body-size, HTTP", post("/mpub?topic=$t", strings.Repeat("x\n", 501), 413, message("BODY_TOO_BIG"))),
		rule("max-body-size, IDENTIFY", hello, send("IDENTIFY\n"+be32(1001)), fails("E_BAD_BODY IDENTIFY body too big 1001 > 1000"), closed),
		bad("max-heartbeat-interval", "heartbeat_interval", 5001, "heartbeat interval"), good("max-heartbeat-interval reached", "heartbeat_interval", 5000),
		bad("max-output-buffer-size", "output_buffer_size", 1001, "output buffer size"), good("max-output-buffer-size reached", "output_buffer_size", 1000),
		bad("max-output-buffer-timeout", "output_buffer_timeout", 1001, "output buffer timeout"), good("max-output-buffer-timeout reached", "output_buffer_timeout", 1000),
		bad("min-output-buffer-timeout", "output_buffer_timeout", 9, "output buffer timeout"), good("min-output-buffer-timeout reached", "output_buffer_timeout", 10),
		rule("max-channel-consumers", hello, send("SUB $t c\n"), ok, other, hello, send("SUB $t c\n"), fails("E_SUB_FAILED SUB failed consumers for $t:c exceeds limit of 1"), closed),
		rule("max-channel-consumers is of one channel", hello, send("SUB $t c\n"), ok, other, hello, send("SUB $t d\n"), ok, open),
		rule("mem-queue-size bounds an ephemeral channel", hello, send("SUB $t c#ephemeral\n"), ok, func(k *talk) {
			for range 30 {
				publish("x")(k)
			}
			eventually("GET /stats?format=json&topic=$t&channel=c%23ephemeral", 200, `"channel_name":"c#ephemeral","depth":5`)(k)
		}),
	})
}

// soon reads a frame within the deadline that is set.
func (k *talk) soon() (frame, error) {
	var b [1]byte
	n, err := k.conn.Read(b[:])
	if n == 0 {
		return frame{}, err
	}
	k.conn = &pushedBack{Conn: k.conn, first: b[:]}
	return k.read()
}

// pushedBack is a connection of which some bytes are read again.
type pushedBack struct {
	net.Conn
	first []byte
}

func (p *pushedBack) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// TestUnixSockets holds sections 4 and 8: TCP and HTTP on unix sockets.
func TestUnixSockets(t *testing.T) {
	t.Parallel() // with a server of its own
	dir := t.TempDir()
	startWith(t, flags{"tcp-address": filepath.Join(dir, "tcp.sock"), "http-address": filepath.Join(dir, "http.sock")}).run(t, []row{
		rule("ping", request("GET /ping", "", 200, "OK")),
		rule("ports are -1", wantPart("/info", `"http_port":-1,"tcp_port":-1`)),
		rule("messages", hello, send("SUB $t c\nRDY 1\n"), ok, publish("a"), msg("a"), send("FIN $i\n"), open),
	})
}

// TestAuthServers holds section 3's rules about the servers themselves.
func TestAuthServers(t *testing.T) {
	t.Parallel() // with a server of its own
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	paths := make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths <- r.URL.Path
		fmt.Fprint(w, answers["root"])
	}))
	defer s.Close()
	root := []step{hello, send("AUTH\n" + sized("root")), resp(`{"identity":"me","identity_url":"http://me","permission_count":1}`)}
	t.Run("one of two is dead", func(t *testing.T) {
		var rows []row
		for i := range 5 {
			rows = append(rows, row{fmt.Sprintf("client %d", i), root})
		}
		startWith(t, flags{"auth-http-address": dead.Addr().String() + "," + s.Listener.Addr().String()}).run(t, rows)
	})
	for len(paths) > 0 {
		<-paths
	}
	t.Run("a URL", func(t *testing.T) {
		startWith(t, flags{"auth-http-address": s.URL + "/some/where"}).run(t, []row{
			{"client", root},
			{"identity in /stats", join(root, send("SUB $t c\n"), ok, wantPart("/stats?format=json&topic=$t", `"authed":true`, `"auth_identity":"me"`, `"auth_identity_url":"http://me"`))},
		})
		if p := <-paths; p != "/some/where" {
			t.Errorf("asked at %s", p)
		}
	})
}

// TestClientCertificates holds section 3: an auth server is told of TLS and of
// the common name of a client's certificate.
func TestClientCertificates(t *testing.T) {
	t.Parallel() // with a server of its own
	asked := make(chan url.Values, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Query()
		fmt.Fprint(w, answers["root"])
	}))
	defer s.Close()
	server, client := makePair(t, "server"), makePair(t, "someone")
	startWith(t, flags{"auth-http-address": s.Listener.Addr().String(), "tls-cert": server.cert, "tls-key": server.key, "tls-client-auth-policy": "require"}).run(t, []row{
		rule("AUTH inside TLS", hello, identify(`{"feature_negotiation":true,"tls_v1":true}`), negotiated(map[string]any{"tls_v1": true, "auth_required": true}), secure(client.Certificate), ok,
			send("AUTH\n"+sized("root")), resp(`{"identity":"me","identity_url":"http://me","permission_count":1}`), send("PUB $t\n"+sized("a")), ok),
	})
	q := <-asked
	for name, want := range map[string]string{"tls": "true", "common_name": "someone", "secret": "root", "remote_ip": "127.0.0.1"} {
		if q.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, q.Get(name), want)
		}
	}
}
