package compat

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shape describes a JSON value: the names of its fields with their types, one
// per line, in nsqd's order of an object's first element of each list.
func shape(prefix string, v any, out *[]string) {
	switch v := v.(type) {
	case map[string]any:
		*out = append(*out, prefix+" object")
		for _, name := range slices.Sorted(maps.Keys(v)) {
			shape(prefix+"."+name, v[name], out)
		}
	case []any:
		*out = append(*out, fmt.Sprintf("%s list", prefix))
		if len(v) > 0 {
			shape(prefix+"[]", v[0], out)
		}
	case nil:
		*out = append(*out, prefix+" null")
	case float64:
		*out = append(*out, prefix+" number")
	default:
		*out = append(*out, fmt.Sprintf("%s %T", prefix, v))
	}
}

// wantShape wants the fields of a JSON answer to be exactly these.
func wantShape(path, want string) step {
	return func(k *talk) {
		k.t.Helper()
		_, body := k.do("GET "+path, "")
		var v any
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			k.t.Fatalf("%s: %v in %q", path, err, body)
		}
		k.ownProducers(v)
		var got []string
		shape("", v, &got)
		got = slices.DeleteFunc(got, optional.MatchString)
		for i := range got {
			got[i] = strings.TrimSpace(got[i])
		}
		lines := strings.Split(strings.TrimSpace(want), "\n")
		slices.Sort(lines)
		slices.Sort(got)
		if d := cmp.Diff(lines, got); d != "" {
			k.t.Fatalf("%s (-want +got):\n%s", path, d)
		}
	}
}

// optional are the fields that nsqd leaves out while they are zero, and that
// tell of its topology experiment.
var optional = regexp.MustCompile(`\.(zone_local|region_local|global)_msg_count `)

// ownProducers leaves only the row's producer in the list, which all rows share.
func (k *talk) ownProducers(v any) {
	stats, _ := v.(map[string]any)
	all, _ := stats["producers"].([]any)
	if len(all) == 0 {
		return
	}
	stats["producers"] = nil
	for _, p := range all {
		counts, _ := p.(map[string]any)["pub_counts"].([]any)
		for _, c := range counts {
			if c.(map[string]any)["topic"] == k.topic {
				stats["producers"] = []any{p}
			}
		}
	}
}

const infoShape = `
object
.version string
.broadcast_address string
.hostname string
.http_port number
.tcp_port number
.start_time number
.max_heartbeat_interval number
.max_output_buffer_size number
.max_output_buffer_timeout number
.max_deflate_level number
.topology_zone string
.topology_region string`

const headShape = `
object
.version string
.health string
.start_time number`

const memShape = `
.memory object
.memory.heap_objects number
.memory.heap_idle_bytes number
.memory.heap_in_use_bytes number
.memory.heap_released_bytes number
.memory.gc_pause_usec_100 number
.memory.gc_pause_usec_99 number
.memory.gc_pause_usec_95 number
.memory.next_gc_bytes number
.memory.gc_total_runs number`

const topicShape = `
.topics list
.topics[] object
.topics[].topic_name string
.topics[].channels list
.topics[].depth number
.topics[].backend_depth number
.topics[].message_count number
.topics[].message_bytes number
.topics[].paused bool
.topics[].e2e_processing_latency object
.topics[].e2e_processing_latency.count number
.topics[].e2e_processing_latency.percentiles null`

const channelShape = `
.topics[].channels[] object
.topics[].channels[].channel_name string
.topics[].channels[].depth number
.topics[].channels[].backend_depth number
.topics[].channels[].in_flight_count number
.topics[].channels[].deferred_count number
.topics[].channels[].message_count number
.topics[].channels[].requeue_count number
.topics[].channels[].timeout_count number
.topics[].channels[].client_count number
.topics[].channels[].paused bool
.topics[].channels[].e2e_processing_latency object
.topics[].channels[].e2e_processing_latency.count number
.topics[].channels[].e2e_processing_latency.percentiles null`

func clientShape(at string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s object", at)
	for f := range strings.FieldsSeq(`client_id:string hostname:string version:string remote_address:string state:number
		ready_count:number in_flight_count:number message_count:number finish_count:number requeue_count:number connect_ts:number
		sample_rate:number deflate:bool snappy:bool user_agent:string topology_zone:string topology_region:string
		tls:bool tls_cipher_suite:string tls_version:string tls_negotiated_protocol:string tls_negotiated_protocol_is_mutual:bool`) {
		fmt.Fprintf(&b, "\n%s.%s", at, strings.Replace(f, ":", " ", 1))
	}
	return b.String()
}

// TestHTTPStats holds /info and /stats of section 4: which fields there are,
// and where a list is null, empty or left out.
func TestHTTPStats(t *testing.T) {
	const client = `{"client_id":"id","hostname":"host","user_agent":"agent/1","sample_rate":0}`
	consumer := []step{hello, identify(client), ok, send("SUB $t c\nRDY 5\n"), ok}
	producer := []step{other, hello, identify(client), ok, send("PUB $t\n" + sized("abc")), ok}
	runRows(t, []row{
		rule("info", wantShape("/info", infoShape)),
		rule("info values", func(k *talk) {
			_, body := k.do("GET /info", "")
			for _, part := range []string{`"max_heartbeat_interval":60000000000`, `"max_output_buffer_size":65536`, `"max_output_buffer_timeout":30000000000`, `"max_deflate_level":6`} {
				if !strings.Contains(body, part) {
					k.t.Errorf("%s is not in %s", part, body)
				}
			}
		}),
		rule("unknown topic gives null", wantShape("/stats?format=json&topic=$t", headShape+memShape+"\n.topics null\n.producers null")),
		rule("without memory", wantShape("/stats?format=json&topic=$t&include_mem=false&include_clients=false", headShape+"\n.topics null\n.producers null")),
		rule("include_mem=0", wantShape("/stats?format=json&topic=$t&include_mem=0&include_clients=0", headShape+"\n.topics null\n.producers null")),
		rule("include_mem of another value is true", wantShape("/stats?format=json&topic=$t&include_mem=no&include_clients=false", headShape+memShape+"\n.topics null\n.producers null")),
		rule("topic without channels", post("/topic/create?topic=$t", "", 200, ""),
			wantShape("/stats?format=json&topic=$t&include_mem=false&include_clients=false", headShape+topicShape+"\n.producers null")),
		rule("known topic with an unknown channel is left out", post("/topic/create?topic=$t", "", 200, ""),
			wantShape("/stats?format=json&topic=$t&channel=nothing&include_mem=false&include_clients=false", headShape+"\n.topics list\n.producers null")),
		rule("channel without clients", post("/topic/create?topic=$t", "", 200, ""), post("/channel/create?topic=$t&channel=c", "", 200, ""),
			wantPart("/stats?format=json&topic=$t", `"client_count":0,"clients":[],"paused":false`)),
		rule("clients left out are null", post("/topic/create?topic=$t", "", 200, ""), post("/channel/create?topic=$t&channel=c", "", 200, ""),
			wantShape("/stats?format=json&topic=$t&channel=c&include_mem=false&include_clients=false", headShape+topicShape+channelShape+"\n.topics[].channels[].clients null\n.producers null")),
		{"consumer", join(consumer, producer,
			wantShape("/stats?format=json&topic=$t&include_mem=false", headShape+topicShape+channelShape+"\n.topics[].channels[].clients list"+clientShape(".topics[].channels[].clients[]")+
				"\n.producers list"+clientShape(".producers[]")+countsShape))},
		{"consumer values", join(consumer, publish("abc"), msg("abc"), wantPart("/stats?format=json&topic=$t",
			`"client_id":"id"`, `"hostname":"host"`, `"version":"V2"`, `"state":3`, `"ready_count":5`, `"in_flight_count":1`, `"user_agent":"agent/1"`, `"message_bytes":3`, `"tls":false`),
			send("FIN $i\n"), eventually("GET /stats?format=json&topic=$t", 200, `"finish_count":1`),
			publish("b"), msg("b"), send("REQ $i 60000\n"), eventually("GET /stats?format=json&topic=$t", 200, `"deferred_count":1`), wantPart("/stats?format=json&topic=$t", `"requeue_count":1`),
			send("CLS\n"), resp("CLOSE_WAIT"), wantPart("/stats?format=json&topic=$t", `"state":4`, `"ready_count":0`))},
		{"producer values", join(producer, eventually("GET /stats?format=json&topic=$t", 200, `"pub_counts":[{"topic":"$t","count":1}]`),
			send("MPUB $t\n"+sized(multi("a", "b"))), ok, eventually("GET /stats?format=json&topic=$t", 200, `"pub_counts":[{"topic":"$t","count":3}]`))},
		{"names and order", join(consumer, func(k *talk) {
			_, body := k.do("GET "+"/stats?format=json&topic=$t", "")
			order(k, []byte(body), "version", "health", "start_time", "topics", "topic_name", "channels", "channel_name", "depth", "backend_depth",
				"in_flight_count", "deferred_count", "message_count", "requeue_count", "timeout_count", "client_count", "clients")
		})},
		{"text", join(consumer, publish("abc"), msg("abc"), text)},
		rule("text of an unknown topic", func(k *talk) {
			_, body := k.do("GET /stats?topic=$t&include_clients=false", "")
			wantLines(k, body, `^Health: OK$`, `^Topics: None$`, `^Producers: None$`, `^   heap_objects             \t\d+$`, `^   gc_total_runs            \t\d+$`)
		}),
		rule("text without memory", func(k *talk) {
			_, body := k.do("GET /stats?topic=$t&include_mem=false", "")
			if strings.Contains(body, "Memory:") {
				k.t.Errorf("memory is in %s", body)
			}
		}),
		rule("format of another value is text", wantPart("/stats?format=xml&topic=$t", "\nHealth: OK\n")),
		rule("query not decodable", request("GET /stats?topic=%zz", "", 400, message("INVALID_REQUEST"))),
		{"counts", join(hello, send("SUB $t c\n"), ok, publish("a"), publish("b"), eventually("GET /stats?format=json&topic=$t&channel=c", 200, `"channel_name":"c","depth":2`),
			wantPart("/stats?format=json&topic=$t&channel=c", `"message_count":2`))},
		{"depth of a topic without channels", join(publish("a"), publish("b"), eventually("GET /stats?format=json&topic=$t", 200, `"channels":[],"depth":2`))},
		{"depth of a paused topic", join(hello, send("SUB $t c\n"), ok, post("/topic/pause?topic=$t", "", 200, ""), publish("a"),
			eventually("GET /stats?format=json&topic=$t", 200, `"depth":0`), wantPart("/stats?format=json&topic=$t", `"paused":true`))},
		{"timeout is counted", join(hello, identify(`{"msg_timeout":1000}`), ok, send("SUB $t c\nRDY 1\n"), ok, publish("a"), msg("a"), send("RDY 0\n"),
			eventually("GET /stats?format=json&topic=$t", 200, `"timeout_count":1`))},
	})
}

const countsShape = `
.producers[].pub_counts list
.producers[].pub_counts[] object
.producers[].pub_counts[].topic string
.producers[].pub_counts[].count number`

// wantPart wants all these parts in the answer, in time.
func wantPart(path string, parts ...string) step {
	return func(k *talk) {
		k.t.Helper()
		deadline := time.Now().Add(patience)
		for {
			_, body := k.do("GET "+path, "")
			missing := ""
			for _, p := range parts {
				if !strings.Contains(body, k.expand(p)) {
					missing = p
				}
			}
			if missing == "" {
				return
			}
			if time.Now().After(deadline) {
				k.t.Fatalf("%s is not in %s", missing, body)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func wantLines(k *talk, body string, patterns ...string) {
	k.t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(`(?m)` + p).MatchString(body) {
			k.t.Errorf("no line %s in:\n%s", p, body)
		}
	}
}

func text(k *talk) {
	k.t.Helper()
	_, body := k.do("GET /stats?topic=$t", "")
	wantLines(k, body,
		`\A(nsqd|tidings) v\d+\.\d+\.\d+.* \(built w/go[^)]*\)\nstart_time \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)\nuptime \S+\n\nHealth: OK\n\nMemory:\n`,
		`^Topics:$`,
		`^   \[`+k.topic+` *\] depth: 0     be-depth: 0     msgs: 1        e2e%: $`,
		`^      \[c                        \] depth: 0     be-depth: 0     inflt: 1    def: 0    re-q: 0     timeout: 0     msgs: 1        e2e%: $`,
		`^        \[V2 host:\d+ agent/1 *\] state: 3 inflt: 1    rdy: 5    fin: 0        re-q: 0        msgs: 1        connected: \d+s$`,
	)
}
