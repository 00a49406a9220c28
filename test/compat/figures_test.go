package compat

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// latencyStats is e2e_processing_latency in /stats.
type latencyStats struct {
	Count       int                  `json:"count"`
	Percentiles []map[string]float64 `json:"percentiles"`
}

// latencies wants both of the topic's and channel c's to hold.
func latencies(what string, is func(latencyStats) bool) step {
	return func(k *talk) {
		k.t.Helper()
		var s struct {
			Topics []struct {
				Latency  latencyStats `json:"e2e_processing_latency"`
				Channels []struct {
					Latency latencyStats `json:"e2e_processing_latency"`
				} `json:"channels"`
			} `json:"topics"`
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			k.jsonOf("/stats?format=json&topic=$t", &s)
			if len(s.Topics) == 1 && len(s.Topics[0].Channels) == 1 && is(s.Topics[0].Latency) && is(s.Topics[0].Channels[0].Latency) {
				return
			}
			if time.Now().After(deadline) {
				k.t.Fatalf("%s: %+v", what, s)
			}
		}
	}
}

// TestLatency holds sections 4 and 8: e2e_processing_latency, which
// e2e-processing-latency-percentile turns on.
func TestLatency(t *testing.T) {
	t.Parallel() // with a server of its own
	is := func(count int, least time.Duration) func(latencyStats) bool {
		return func(l latencyStats) bool {
			if l.Count != count || len(l.Percentiles) != 3 {
				return false
			}
			for i, q := range []float64{1, 0.99, 0.5} { // the largest first, however they are given
				p := l.Percentiles[i]
				if len(p) != 2 || p["quantile"] != q || p["value"] < float64(least) || p["value"] > float64(time.Minute) {
					return false
				}
			}
			return true
		}
	}
	startWith(t, flags{"e2e-processing-latency-percentile": "0.5,1.0,0.99"}).run(t, []row{
		rule("config", request("GET /config/e2e_processing_latency_percentiles", "", 200, "[1,0.99,0.5]")),
		rule("a topic without channels has none", post("/topic/create?topic=$t", "", 200, ""), wantPart("/stats?format=json&topic=$t", `"e2e_processing_latency":{"count":0,"percentiles":null}`)),
		rule("a channel without messages has zeros", hello, send("SUB $t c\n"), ok,
			wantPart("/stats?format=json&topic=$t", `"e2e_processing_latency":{"count":0,"percentiles":[{"quantile":1,"value":0},{"quantile":0.99,"value":0},{"quantile":0.5,"value":0}]}`)),
		{"from publish to FIN", join(consuming("a"), func(*talk) { time.Sleep(50 * time.Millisecond) }, send("FIN $i\n"), latencies("one", is(1, 50*time.Millisecond)))},
		{"of FIN only", join(consuming("a"), send("TOUCH $i\nREQ $i 0\n"), msg("a"), latencies("none", is(0, 0)), send("FIN $i\n"), latencies("one", is(1, 1000)))},
		// Not all of it: the delay begins when the command is read, the message's age when it is stamped.
		{"the delay of a deferred message counts", join(hello, send("SUB $t c\nRDY 1\nDPUB $t 1000\n"+sized("a")), ok, ok, msg("a"), send("FIN $i\n"), latencies("one", is(1, 500*time.Millisecond)))},
		{"text", join(consuming("a"), send("FIN $i\n"), latencies("one", is(1, 1000)), func(k *talk) {
			_, body := k.do("GET /stats?topic=$t", "")
			const values = `e2e%: \d+\.\d(ns|us|ms|s), \d+\.\d(ns|us|ms|s), \d+\.\d(ns|us|ms|s)$`
			wantLines(k, body, `^   \[`+k.topic+` *\].*`+values, `^      \[c .*`+values)
		})},
	})
}

// TestLatencyWindow: what is older than the window does not count.
func TestLatencyWindow(t *testing.T) {
	t.Parallel() // with a server of its own
	startWith(t, flags{"e2e-processing-latency-percentile": "0.5", "e2e-processing-latency-window-time": "4s"}).run(t, []row{
		{"it passes", join(consuming("a"), send("FIN $i\n"), latencies("one", func(l latencyStats) bool { return l.Count == 1 }), latencies("none", func(l latencyStats) bool { return l.Count == 0 }))},
	})
}

// daemon is a statsd daemon: what it got, by name without the prefix.
type daemon struct {
	conn    *net.UDPConn
	counts  map[string]int64    // sums
	gauges  map[string]int64    // last values
	seen    map[string]struct{} // name|type
	widest  int
	strange []string
}

func newDaemon(t *testing.T) *daemon {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &daemon{conn: conn, counts: map[string]int64{}, gauges: map[string]int64{}, seen: map[string]struct{}{}}
}

var figure = regexp.MustCompile(`^(.+):(-?\d+)\|([cg])$`)

// until reads until a condition holds.
func (d *daemon) until(t *testing.T, prefix, what string, is func() bool) {
	t.Helper()
	buf := make([]byte, 1<<16)
	_ = d.conn.SetReadDeadline(time.Now().Add(patience))
	for !is() {
		n, err := d.conn.Read(buf)
		if err != nil {
			t.Fatalf("%s: %v; counts %v, gauges %v", what, err, d.counts, d.gauges)
		}
		d.widest = max(d.widest, n)
		if buf[n-1] != '\n' {
			d.strange = append(d.strange, string(buf[:n]))
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\n"), "\n") {
			m := figure.FindStringSubmatch(line)
			if m == nil || !strings.HasPrefix(m[1], prefix) {
				d.strange = append(d.strange, line)
				continue
			}
			name := strings.TrimPrefix(m[1], prefix)
			v, _ := strconv.ParseInt(m[2], 10, 64)
			d.seen[name+"|"+m[3]] = struct{}{}
			if m[3] == "c" {
				d.counts[name] += v
			} else {
				d.gauges[name] = v
			}
		}
	}
}

// names are those of a topic or of mem, with their types.
func (d *daemon) names(of string) (out []string) {
	for name := range d.seen {
		if rest, ok := strings.CutPrefix(name, of); ok {
			out = append(out, rest)
		}
	}
	slices.Sort(out)
	return out
}

// TestStatsd holds section 7's statsd rules.
func TestStatsd(t *testing.T) {
	t.Parallel() // with a server of its own
	d := newDaemon(t)
	g := startWith(t, flags{
		"statsd-address": d.conn.LocalAddr().String(), "statsd-interval": "1100ms", "statsd-prefix": "x.%s.y", "broadcast-address": "10.0.0.5",
		"e2e-processing-latency-percentile": "1.0,0.99", "statsd-exclude-ephemeral": "true", "statsd-udp-packet-size": "300",
	})
	prefix := "x.10_0_0_5_" + port(g.http) + ".y."
	k := &talk{t: t, tcp: g.tcp, http: g.http, topic: unique()}
	k.conn = k.dial()
	for _, s := range join(hello, send("SUB $t c\nRDY 2\n"), ok, publish("aa"), publish("bb"), publish("cc"), msg("aa"), msg("bb"), send("FIN $j\n"), msg("cc"), send("REQ $i 60000\n"),
		post("/channel/create?topic=$t&channel=e%23ephemeral", "", 200, "")) {
		s(k)
	}
	topic := "topic." + k.topic + "."
	channel := topic + "channel.c."
	d.until(t, prefix, "counters and gauges", func() bool {
		return d.counts[topic+"message_count"] == 3 && d.counts[topic+"message_bytes"] == 6 && d.counts[channel+"message_count"] == 3 && d.counts[channel+"requeue_count"] == 1 &&
			d.gauges[channel+"deferred_count"] == 1 && d.gauges[channel+"in_flight_count"] == 1 && d.gauges[channel+"clients"] == 1 && d.gauges[channel+"e2e_processing_latency_100"] > 0 &&
			d.gauges[topic+"e2e_processing_latency_99"] > 0 && len(d.names("mem.")) > 8
	})
	own := []string{"backend_depth|g", "depth|g", "e2e_processing_latency_100|g", "e2e_processing_latency_99|g", "message_bytes|c", "message_count|c"}
	for _, name := range []string{"backend_depth|g", "clients|g", "deferred_count|g", "depth|g", "e2e_processing_latency_100|g", "e2e_processing_latency_99|g", "in_flight_count|g", "message_count|c", "requeue_count|c", "timeout_count|c"} {
		own = append(own, "channel.c."+name)
	}
	slices.Sort(own)
	for of, want := range map[string][]string{
		topic: own,
		"mem.": {
			"gc_pause_usec_100|g", "gc_pause_usec_95|g", "gc_pause_usec_99|g", "gc_runs|c", "heap_idle_bytes|g", "heap_in_use_bytes|g", "heap_objects|g", "heap_released_bytes|g", "next_gc_bytes|g",
		},
	} {
		if got := d.names(of); !slices.Equal(got, want) {
			t.Errorf("names %s*:\nwant %q\n got %q", of, want, got)
		}
	}
	if d.widest > 300 || len(d.strange) > 0 {
		t.Errorf("widest packet has %d bytes; strange lines: %q", d.widest, d.strange)
	}
	publish("dd")(k)
	d.until(t, prefix, "deltas", func() bool { return d.counts[topic+"message_count"] == 4 })
	post("/topic/delete?topic=$t", "", 200, "")(k)
	if againstNSQD() {
		return // its gauges stand still, which tidings does better
	}
	d.until(t, prefix, "gauges of a topic that is gone end at 0", func() bool {
		for _, name := range []string{topic + "depth", channel + "clients", channel + "in_flight_count", channel + "e2e_processing_latency_100"} {
			if d.gauges[name] != 0 {
				return false
			}
		}
		return true
	})
}

// TestStatsdPlain: without memory figures, with ephemeral ones, and a prefix
// that has its dot.
func TestStatsdPlain(t *testing.T) {
	t.Parallel() // with a server of its own
	d := newDaemon(t)
	g := startWith(t, flags{"statsd-address": d.conn.LocalAddr().String(), "statsd-interval": "1100ms", "statsd-prefix": "p.", "statsd-mem-stats": "false"})
	k := &talk{t: t, tcp: g.tcp, http: g.http, topic: unique()}
	k.conn = k.dial()
	for _, s := range join(hello, send("SUB $t#ephemeral c#ephemeral\n"), ok) {
		s(k)
	}
	d.until(t, "p.", "ephemeral", func() bool {
		return d.gauges[fmt.Sprintf("topic.%s#ephemeral.channel.c#ephemeral.clients", k.topic)] == 1
	})
	if got := d.names("mem."); len(got) > 0 || len(d.strange) > 0 {
		t.Errorf("%q %q", got, d.strange)
	}
	if j, err := json.Marshal(d.names("topic." + k.topic)); err != nil || strings.Contains(string(j), "latency") {
		t.Errorf("%s %v", j, err)
	}
}
