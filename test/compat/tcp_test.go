package compat

import (
	"encoding/json"
	"maps"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestFraming holds nsq-compat.md section 1.
func TestFraming(t *testing.T) {
	long := strings.Repeat("x", 16<<10)
	runRows(t, []row{
		rule("magic unknown", raw("GET "), fails("E_BAD_PROTOCOL"), closed),
		rule("magic of lookupd", raw("  V1"), fails("E_BAD_PROTOCOL"), closed),
		rule("magic cut short", raw("  V"), half, closed),
		rule("magic in pieces", raw("  "), raw("V"), raw("2"), open),
		rule("closed by the client between commands", hello, send("NOP\n"), half, closed),
		rule("closed by the client inside a line", hello, send("NO"), half, closed),
		rule("line of 16 KiB with newline is read", hello, raw(long[:16<<10-1]+"\n"),
			fails("E_INVALID invalid command "+long[:16<<10-1]), closed),
		rule("line over 16 KiB closes with no frame", hello, raw(long), closed),
		rule("carriage return is stripped", hello, send("PUB $t\r\n"+sized("x")), ok, open),
		rule("one carriage return only", hello, raw("NOP\r\r\n"), fails("E_INVALID invalid command NOP\r"), closed),
		rule("command unknown", hello, raw("HELLO world\n"), fails("E_INVALID invalid command HELLO"), closed),
		rule("command in lower case", hello, raw("nop\n"), fails("E_INVALID invalid command nop"), closed),
		rule("line empty", hello, raw("\n"), fails("E_INVALID invalid command "), closed),
		rule("line of one carriage return", hello, raw("\r\n"), fails("E_INVALID invalid command "), closed),
		rule("line starts with a space", hello, raw(" NOP\n"), fails("E_INVALID invalid command "), closed),
		rule("words split by one space only", hello, send("PUB  $t\n"), fails(`E_BAD_TOPIC PUB topic name "" is not valid`), closed),
		rule("words split by tab is one word", hello, raw("PUB\tx\n"), fails("E_INVALID invalid command PUB\tx"), closed),
		rule("binary line", hello, raw("\x00\xff\xfe\n"), fails("E_INVALID invalid command \x00\xff\xfe"), closed),
		rule("commands pipelined, replies in order", hello,
			send("PUB $t\n"+sized("a")+"NOP\nPUB $t\n"+sized("b")+"IDENTIFY\n"+sized("{}")+"MPUB $t\n"+sized(multi("c", "d"))+"SUB $t c\nPUB $t_2\n"+sized("e")+"CLS\n"),
			ok, ok, ok, ok, ok, ok, resp("CLOSE_WAIT"), open),
		rule("error inside a pipeline: what stood before is answered first", hello,
			send("PUB $t\n"+sized("a")+"PUB $t\n"+sized("b")+"BAD\n"), ok, ok, fails("E_INVALID invalid command BAD"), closed),
		rule("command in pieces", hello, send("PU"), send("B $t\n"), raw("\x00\x00"), raw("\x00\x03a"), raw("bc"), ok, open),
		rule("heartbeat comes at the interval", hello, identify(`{"heartbeat_interval":1000}`), ok, resp("_heartbeat_"), send("NOP\n"), resp("_heartbeat_"), send("NOP\n"), open),
		rule("heartbeat unanswered closes", hello, identify(`{"heartbeat_interval":1000}`), ok, resp("_heartbeat_"), lost),
		rule("heartbeat before IDENTIFY is 30 s", hello, quiet(1500*time.Millisecond), open),
		rule("heartbeats off", hello, identify(`{"heartbeat_interval":-1}`), ok, quiet(2500*time.Millisecond), open),
		rule("message frame", hello, send("SUB $t c\n"), ok, publish("body"), send("RDY 1\n"), msg("body"), attempts(1), messageShape),
	})
}

// lost wants the connection closed after any number of heartbeats.
func lost(k *talk) {
	k.t.Helper()
	for range 4 {
		f, err := k.read()
		if err != nil {
			return
		}
		if f.String() != heartbeat {
			k.t.Fatalf("got frame %q", f)
		}
	}
	k.t.Fatal("want the connection closed, it stays open")
}

var idShape = regexp.MustCompile(`^[0-9a-f]{16}$`)

func messageShape(k *talk) {
	k.t.Helper()
	if id := k.ids[len(k.ids)-1]; !idShape.MatchString(id) {
		k.t.Errorf("message id %q is not 16 hexadecimal characters", id)
	}
	var ns int64
	for _, b := range k.last.data[:8] {
		ns = ns<<8 | int64(b)
	}
	if d := time.Since(time.Unix(0, ns)); d < -time.Minute || d > time.Minute {
		k.t.Errorf("timestamp is %v away", d)
	}
}

// TestIdentify holds the IDENTIFY row of section 2.
func TestIdentify(t *testing.T) {
	bad := func(name, body, text string) row {
		return rule(name, hello, identify(body), fails("E_BAD_BODY IDENTIFY "+text), closed)
	}
	good := func(name, body string) row { return rule(name, hello, identify(body), ok, open) }
	runRows(t, []row{
		rule("without negotiation answers OK", hello, identify(`{"client_id":"a"}`), ok, open),
		rule("with negotiation answers JSON", hello, identify(`{"feature_negotiation":true}`), negotiated(nil), open),
		rule("twice", hello, identify(`{}`), ok, identify(`{"feature_negotiation":true}`), negotiated(nil), identify(`{}`), ok, open),
		rule("after SUB", hello, send("SUB $t c\nIDENTIFY\n"), ok, fails("E_INVALID cannot IDENTIFY in current state"), closed),
		rule("words after it are ignored", hello, send("IDENTIFY more words\n"+sized("{}")), ok, open),
		rule("unknown fields are ignored", hello, identify(`{"short_id":"a","long_id":"b","zzz":[1,{}]}`), ok, open),
		rule("null", hello, identify(`null`), ok, open),
		rule("field names in any case", hello, identify(`{"Heartbeat_Interval":100}`), fails("E_BAD_BODY IDENTIFY heartbeat interval (100) is invalid"), closed),
		rule("size missing", hello, raw("IDENTIFY\n\x00\x00"), half, fails("E_BAD_BODY IDENTIFY failed to read body size"), closed),
		rule("size zero", hello, raw("IDENTIFY\n"+be32(0)), fails("E_BAD_BODY IDENTIFY invalid body size 0"), closed),
		rule("size negative", hello, raw("IDENTIFY\n\xff\xff\xff\xff"), fails("E_BAD_BODY IDENTIFY invalid body size -1"), closed),
		rule("size over the limit", hello, raw("IDENTIFY\n"+be32(5<<20+1)), fails("E_BAD_BODY IDENTIFY body too big 5242881 > 5242880"), closed),
		rule("size of 2 GiB", hello, raw("IDENTIFY\n\x7f\xff\xff\xff"), fails("E_BAD_BODY IDENTIFY body too big 2147483647 > 5242880"), closed),
		rule("body cut short", hello, raw("IDENTIFY\n"+be32(10)+"{}"), half, fails("E_BAD_BODY IDENTIFY failed to read body"), closed),
		bad("body is no JSON", `hello`, "failed to decode JSON body"),
		bad("body is an array", `[]`, "failed to decode JSON body"),
		bad("field of the wrong type", `{"heartbeat_interval":"1"}`, "failed to decode JSON body"),
		bad("field is a fraction", `{"msg_timeout":1000.5}`, "failed to decode JSON body"),
		bad("heartbeat_interval below 1000", `{"heartbeat_interval":100}`, "heartbeat interval (100) is invalid"),
		bad("heartbeat_interval 999", `{"heartbeat_interval":999}`, "heartbeat interval (999) is invalid"),
		bad("heartbeat_interval over the limit", `{"heartbeat_interval":60001}`, "heartbeat interval (60001) is invalid"),
		bad("heartbeat_interval -2", `{"heartbeat_interval":-2}`, "heartbeat interval (-2) is invalid"),
		good("heartbeat_interval 1000", `{"heartbeat_interval":1000}`),
		good("heartbeat_interval 60000", `{"heartbeat_interval":60000}`),
		good("heartbeat_interval 0 is the default", `{"heartbeat_interval":0}`),
		bad("output_buffer_timeout below", `{"output_buffer_timeout":24}`, "output buffer timeout (24) is invalid"),
		bad("output_buffer_timeout over", `{"output_buffer_timeout":30001}`, "output buffer timeout (30001) is invalid"),
		bad("output_buffer_timeout -2", `{"output_buffer_timeout":-2}`, "output buffer timeout (-2) is invalid"),
		rule("output_buffer_timeout 25", hello, identify(`{"feature_negotiation":true,"output_buffer_timeout":25}`), negotiated(map[string]any{"output_buffer_timeout": 25.0}), open),
		rule("output_buffer_timeout 30000", hello, identify(`{"feature_negotiation":true,"output_buffer_timeout":30000}`), negotiated(map[string]any{"output_buffer_timeout": 30000.0}), open),
		rule("output_buffer_timeout -1 is off", hello, identify(`{"feature_negotiation":true,"output_buffer_timeout":-1}`), negotiated(map[string]any{"output_buffer_timeout": 0.0}), open),
		bad("output_buffer_size below", `{"output_buffer_size":63}`, "output buffer size (63) is invalid"),
		bad("output_buffer_size over", `{"output_buffer_size":65537}`, "output buffer size (65537) is invalid"),
		bad("output_buffer_size -2", `{"output_buffer_size":-2}`, "output buffer size (-2) is invalid"),
		rule("output_buffer_size 64", hello, identify(`{"feature_negotiation":true,"output_buffer_size":64}`), negotiated(map[string]any{"output_buffer_size": 64.0}), open),
		rule("output_buffer_size 65536", hello, identify(`{"feature_negotiation":true,"output_buffer_size":65536}`), negotiated(map[string]any{"output_buffer_size": 65536.0}), open),
		rule("output_buffer_size -1 is unbuffered", hello, identify(`{"feature_negotiation":true,"output_buffer_size":-1}`), negotiated(map[string]any{"output_buffer_size": 1.0, "output_buffer_timeout": 0.0}), open),
		bad("sample_rate -1", `{"sample_rate":-1}`, "sample rate (-1) is invalid"),
		bad("sample_rate 100", `{"sample_rate":100}`, "sample rate (100) is invalid"),
		rule("sample_rate 99", hello, identify(`{"feature_negotiation":true,"sample_rate":99}`), negotiated(map[string]any{"sample_rate": 99.0}), open),
		bad("msg_timeout 999", `{"msg_timeout":999}`, "msg timeout (999) is invalid"),
		bad("msg_timeout -1", `{"msg_timeout":-1}`, "msg timeout (-1) is invalid"),
		bad("msg_timeout over the limit", `{"msg_timeout":900001}`, "msg timeout (900001) is invalid"),
		rule("msg_timeout 1000", hello, identify(`{"feature_negotiation":true,"msg_timeout":1000}`), negotiated(map[string]any{"msg_timeout": 1000.0}), open),
		rule("msg_timeout 900000", hello, identify(`{"feature_negotiation":true,"msg_timeout":900000}`), negotiated(map[string]any{"msg_timeout": 900000.0}), open),
		bad("first bad field wins: heartbeat before sample rate", `{"sample_rate":100,"heartbeat_interval":1}`, "heartbeat interval (1) is invalid"),
		bad("buffer timeout is looked at before buffer size", `{"output_buffer_size":1,"output_buffer_timeout":1}`, "output buffer timeout (1) is invalid"),
		rule("tls not offered", hello, identify(`{"feature_negotiation":true,"tls_v1":true}`), negotiated(nil), open),
		rule("snappy not offered", hello, identify(`{"feature_negotiation":true,"snappy":true}`), negotiated(nil), open),
		rule("deflate not offered", hello, identify(`{"feature_negotiation":true,"deflate":true,"deflate_level":9}`), negotiated(nil), open),
		rule("snappy and deflate together, neither offered", hello, identify(`{"feature_negotiation":true,"deflate":true,"snappy":true}`), negotiated(nil), open),
		rule("topology of the client is not echoed", hello, identify(`{"feature_negotiation":true,"topology_zone":"z","topology_region":"r"}`), negotiated(nil), open),
		rule("repeated keeps what is not given", hello, identify(`{"msg_timeout":5000}`), ok, identify(`{"feature_negotiation":true}`), negotiated(map[string]any{"msg_timeout": 5000.0}), open),
	})
}

// negotiated wants the IDENTIFY answer with nsqd's defaults, but for what is given.
func negotiated(change map[string]any) step {
	return func(k *talk) {
		k.t.Helper()
		f, err := k.read()
		if err != nil || f.kind != 0 {
			k.t.Fatalf("want a JSON answer, got %q, %v", f, err)
		}
		var got map[string]any
		if err := json.Unmarshal(f.data, &got); err != nil {
			k.t.Fatalf("decode %q: %v", f.data, err)
		}
		want := map[string]any{
			"max_rdy_count": 2500.0, "max_msg_timeout": 900000.0, "msg_timeout": 60000.0,
			"tls_v1": false, "deflate": false, "deflate_level": 6.0, "max_deflate_level": 6.0, "snappy": false,
			"sample_rate": 0.0, "auth_required": false, "output_buffer_size": 16384.0, "output_buffer_timeout": 250.0,
			"topology_region": "", "topology_zone": "",
		}
		maps.Copy(want, change)
		if v, _ := got["version"].(string); !semver.MatchString(v) {
			k.t.Errorf("version %v is not a semantic version", got["version"])
		}
		delete(got, "version")
		for name, v := range want {
			if got[name] != v {
				k.t.Errorf("%s: want %v, got %v", name, v, got[name])
			}
			delete(got, name)
		}
		for name := range got {
			k.t.Errorf("field %s is not one of nsqd's", name)
		}
		order(k, f.data, "max_rdy_count", "version", "max_msg_timeout", "msg_timeout", "tls_v1", "deflate", "deflate_level",
			"max_deflate_level", "snappy", "sample_rate", "auth_required", "output_buffer_size", "output_buffer_timeout", "topology_region", "topology_zone")
	}
}

var semver = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+([-+].*)?$`)

// order wants the JSON names in this order, for scripts that cut text.
func order(k *talk, data []byte, names ...string) {
	k.t.Helper()
	at := -1
	for _, name := range names {
		next := strings.Index(string(data), `"`+name+`":`)
		if next < at {
			k.t.Errorf("field %s stands at another place than nsqd's", name)
		}
		at = next
	}
}

// TestAuth holds the AUTH row of section 2 as it is without an auth server.
func TestAuth(t *testing.T) {
	runRows(t, []row{
		rule("disabled", hello, send("AUTH\n"+sized("secret")), fails("E_AUTH_DISABLED AUTH disabled"), closed),
		rule("with params", hello, send("AUTH x\n"), fails("E_INVALID AUTH invalid number of parameters"), closed),
		rule("with a trailing space", hello, send("AUTH \n"), fails("E_INVALID AUTH invalid number of parameters"), closed),
		rule("after SUB", hello, send("SUB $t c\nAUTH\n"), ok, fails("E_INVALID cannot AUTH in current state"), closed),
		rule("size missing", hello, raw("AUTH\n\x00"), half, fails("E_BAD_BODY AUTH failed to read body size"), closed),
		rule("size zero", hello, raw("AUTH\n"+be32(0)), fails("E_BAD_BODY AUTH invalid body size 0"), closed),
		rule("size negative", hello, raw("AUTH\n\x80\x00\x00\x00"), fails("E_BAD_BODY AUTH invalid body size -2147483648"), closed),
		rule("size over the limit", hello, raw("AUTH\n"+be32(5<<20+1)), fails("E_BAD_BODY AUTH body too big 5242881 > 5242880"), closed),
		rule("body cut short", hello, raw("AUTH\n"+be32(5)+"ab"), half, fails("E_BAD_BODY AUTH failed to read body"), closed),
	})
}

// TestSub holds the SUB row of section 2.
func TestSub(t *testing.T) {
	n64, n65 := strings.Repeat("n", 64), strings.Repeat("n", 65)
	e64, e65 := strings.Repeat("n", 54)+"#ephemeral", strings.Repeat("n", 55)+"#ephemeral"
	badTopic := func(name, topic string) row {
		return rule(name, hello, send("SUB "+topic+" c\n"), fails(`E_BAD_TOPIC SUB topic name "`+topic+`" is not valid`), closed)
	}
	badChannel := func(name, channel string) row {
		return rule(name, hello, send("SUB $t "+channel+"\n"), fails(`E_BAD_CHANNEL SUB channel name "`+channel+`" is not valid`), closed)
	}
	runRows(t, []row{
		rule("answers OK", hello, send("SUB $t c\n"), ok, open),
		rule("makes topic and channel", hello, send("SUB $t c\n"), ok, request("POST /channel/pause?topic=$t&channel=c", "", 200, "")),
		rule("words after it are ignored", hello, send("SUB $t c more words\n"), ok, open),
		rule("twice", hello, send("SUB $t c\nSUB $t c\n"), ok, fails("E_INVALID cannot SUB in current state"), closed),
		rule("after CLS", hello, send("SUB $t c\nCLS\nSUB $t c\n"), ok, resp("CLOSE_WAIT"), fails("E_INVALID cannot SUB in current state"), closed),
		rule("no params", hello, send("SUB\n"), fails("E_INVALID SUB insufficient number of parameters"), closed),
		rule("one param", hello, send("SUB $t\n"), fails("E_INVALID SUB insufficient number of parameters"), closed),
		rule("heartbeats off", hello, identify(`{"heartbeat_interval":-1}`), ok, send("SUB $t c\n"), fails("E_INVALID cannot SUB with heartbeats disabled"), closed),
		rule("heartbeats off is looked at before params", hello, identify(`{"heartbeat_interval":-1}`), ok, send("SUB\n"), fails("E_INVALID cannot SUB with heartbeats disabled"), closed),
		rule("after PUB", hello, send("PUB $t\n"+sized("x")+"SUB $t c\n"), ok, ok, open),
		badTopic("topic empty", ""),
		badTopic("topic with a bad character", "a+b"),
		badTopic("topic with a slash", "a/b"),
		badTopic("topic of 65 bytes", n65),
		badTopic("ephemeral topic of 65 bytes with its suffix", e65),
		badTopic("topic with another suffix", "a#durable"),
		badTopic("topic that is only the suffix", "#ephemeral"),
		badTopic("topic with the suffix twice", "a#ephemeral#ephemeral"),
		rule("topic not UTF-8 is quoted", hello, raw("SUB \xff c\n"), fails(`E_BAD_TOPIC SUB topic name "\xff" is not valid`), closed),
		rule("topic of 64 bytes", hello, send("SUB "+n64+" c#ephemeral\n"), ok, open),
		rule("ephemeral topic of 64 bytes with its suffix", hello, send("SUB "+e64+" c#ephemeral\n"), ok, open),
		rule("all characters", hello, send("SUB .aZ0_-.$t c#ephemeral\n"), ok, open),
		badChannel("channel empty", ""),
		badChannel("channel with a bad character", "a:b"),
		badChannel("channel of 65 bytes", n65),
		badChannel("ephemeral channel of 65 bytes with its suffix", e65),
		rule("channel of 64 bytes", hello, send("SUB $t "+n64+"\n"), ok, open),
		rule("ephemeral channel of 64 bytes with its suffix", hello, send("SUB $t "+e64+"\n"), ok, open),
		rule("topic is looked at before channel", hello, send("SUB a+b a+b\n"), fails(`E_BAD_TOPIC SUB topic name "a+b" is not valid`), closed),
		rule("max-channel-consumers", hello, send("SUB $t c\n"), ok, other, hello, send("SUB $t c\n"), ok, other, hello, send("SUB $t c\n"), tooManyConsumers, closed),
		rule("ephemeral channel goes with its last consumer", hello, send("PUB $t\n"+sized("x")), ok, other, hello, send("SUB $t c#ephemeral\n"), ok, half, closed,
			eventually("POST /channel/pause?topic=$t&channel=c%23ephemeral", 404, `{"message":"CHANNEL_NOT_FOUND"}`)),
		rule("ephemeral topic goes with its last channel", hello, send("SUB $t#ephemeral c#ephemeral\n"), ok, half, closed,
			eventually("POST /topic/pause?topic=$t%23ephemeral", 404, `{"message":"TOPIC_NOT_FOUND"}`)),
		rule("deleting the channel closes its consumers", hello, send("SUB $t c\n"), ok, request("POST /channel/delete?topic=$t&channel=c", "", 200, ""), closed),
		rule("deleting the topic closes its consumers", hello, send("SUB $t c\n"), ok, request("POST /topic/delete?topic=$t", "", 200, ""), closed),
	})
}

// tooManyConsumers wants the refusal of a third consumer; the server under
// test must have been started with a limit of two.
func tooManyConsumers(k *talk) {
	k.t.Helper()
	f, err := k.read()
	if err != nil {
		k.t.Fatal(err)
	}
	if f.String() == "0:OK" {
		k.t.Skip("SKIPPED: the server was not started with --max-channel-consumers=2")
	}
	if want := k.expand("1:E_SUB_FAILED SUB failed consumers for $t:c exceeds limit of 2"); f.String() != want {
		k.t.Fatalf("want frame %q\n      got %q", want, f)
	}
}

// TestReady holds the RDY row of section 2.
func TestReady(t *testing.T) {
	sub := []step{hello, send("SUB $t c\n"), ok}
	runRows(t, []row{
		rule("before SUB", hello, send("RDY 1\n"), fails("E_INVALID cannot RDY in current state"), closed),
		rule("state is looked at before the count", hello, send("RDY x\n"), fails("E_INVALID cannot RDY in current state"), closed),
		{"no answer", join(sub, send("RDY 1\n"), open)},
		{"without a count is 1", join(sub, send("RDY\n"), publish("a"), publish("b"), msg("a"), quiet(200*time.Millisecond), send("FIN $i\n"), msg("b"))},
		{"empty count is 0", join(sub, send("RDY \n"), publish("a"), quiet(200*time.Millisecond), open)},
		{"words after it are ignored", join(sub, send("RDY 1 2 x\n"), open)},
		{"0", join(sub, send("RDY 0\n"), open)},
		{"2500", join(sub, send("RDY 2500\n"), open)},
		{"2501", join(sub, send("RDY 2501\n"), fails("E_INVALID RDY count 2501 out of range 0-2500"), closed)},
		{"negative", join(sub, send("RDY -1\n"), fails("E_INVALID RDY could not parse count -1"), closed)},
		{"plus sign", join(sub, send("RDY +1\n"), fails("E_INVALID RDY could not parse count +1"), closed)},
		{"word", join(sub, send("RDY many\n"), fails("E_INVALID RDY could not parse count many"), closed)},
		{"leading zeros", join(sub, send("RDY 0001\n"), publish("a"), msg("a"), open)},
		{"after CLS is ignored", join(sub, send("CLS\n"), resp("CLOSE_WAIT"), send("RDY 1\n"), publish("a"), quiet(200*time.Millisecond), open)},
		{"after CLS even a bad one is ignored", join(sub, send("CLS\nRDY x\nRDY 99999\n"), resp("CLOSE_WAIT"), open)},
		{"is a window, not a counter", join(sub, send("RDY 2\n"), publish("a"), publish("b"), publish("c"), msg("a"), msg("b"), quiet(200*time.Millisecond), send("FIN $j\n"), msg("c"))},
		{"lowering recalls nothing", join(sub, send("RDY 2\n"), publish("a"), msg("a"), publish("b"), msg("b"), send("RDY 1\nFIN $j\n"), publish("c"), quiet(200*time.Millisecond), send("FIN $i\n"), msg("c"))},
		{"REQ reopens the window", join(sub, send("RDY 1\n"), publish("a"), msg("a"), attempts(1), send("REQ $i 0\n"), msg("a"), attempts(2))},
		{"TOUCH does not reopen the window", join(sub, send("RDY 1\n"), publish("a"), msg("a"), publish("b"), send("TOUCH $i\n"), quiet(200*time.Millisecond), send("FIN $i\n"), msg("b"))},
		{"kept over a pause of the channel", join(sub, send("RDY 1\n"), request("POST /channel/pause?topic=$t&channel=c", "", 200, ""), publish("a"), quiet(200*time.Millisecond),
			request("POST /channel/unpause?topic=$t&channel=c", "", 200, ""), msg("a"))},
		{"empty sets in-flight to 0 and late FINs fail", join(sub, send("RDY 1\n"), publish("a"), msg("a"), request("POST /channel/empty?topic=$t&channel=c", "", 200, ""),
			send("FIN $i\n"), fails("E_FIN_FAILED FIN $i failed ID not in flight"), publish("b"), msg("b"), open)},
		{"timeout reopens the window", join(hello, identify(`{"msg_timeout":1000}`), ok, send("SUB $t c\nRDY 1\n"), ok, publish("a"), msg("a"), msg("a"), attempts(2))},
	})
}

// TestAnswers holds the rows of FIN, REQ, TOUCH, CLS and NOP in section 2.
func TestAnswers(t *testing.T) {
	sub := []step{hello, send("SUB $t c\n"), ok}
	unknown := "0000000000000000"
	rows := []row{
		rule("NOP", hello, send("NOP\n"), open),
		rule("NOP with words", hello, send("NOP a b\n"), open),
		{"NOP after CLS", join(sub, send("CLS\nNOP\n"), resp("CLOSE_WAIT"), open)},
		rule("CLS before SUB", hello, send("CLS\n"), fails("E_INVALID cannot CLS in current state"), closed),
		{"CLS", join(sub, send("CLS\n"), resp("CLOSE_WAIT"), open)},
		{"CLS with words", join(sub, send("CLS now\n"), resp("CLOSE_WAIT"), open)},
		{"CLS twice", join(sub, send("CLS\nCLS\n"), resp("CLOSE_WAIT"), fails("E_INVALID cannot CLS in current state"), closed)},
		{"CLS ends delivery", join(sub, send("RDY 5\nCLS\n"), resp("CLOSE_WAIT"), publish("a"), quiet(200*time.Millisecond), open)},
		{"FIN", join(consuming("a"), send("FIN $i\n"), open, send("FIN $i\n"), fails("E_FIN_FAILED FIN $i failed ID not in flight"), open)},
		{"FIN after CLS", join(consuming("a"), send("CLS\n"), resp("CLOSE_WAIT"), send("FIN $i\n"), open, send("FIN $i\n"), fails("E_FIN_FAILED FIN $i failed ID not in flight"), open)},
		{"REQ after CLS", join(consuming("a"), send("CLS\n"), resp("CLOSE_WAIT"), send("REQ $i 0\n"), open, quiet(200*time.Millisecond))},
		{"TOUCH after CLS", join(consuming("a"), send("CLS\n"), resp("CLOSE_WAIT"), send("TOUCH $i\n"), open)},
		{"TOUCH", join(consuming("a"), send("TOUCH $i\n"), open, send("FIN $i\n"), open)},
		{"TOUCH puts the timeout off", join(hello, identify(`{"msg_timeout":3000}`), ok, send("SUB $t c\nRDY 1\n"), ok, publish("a"), msg("a"),
			quiet(1500*time.Millisecond), send("TOUCH $i\n"), quiet(2*time.Second), send("FIN $i\n"), open)},
		{"REQ 0 is now", join(consuming("a"), send("REQ $i 0\n"), msg("a"), attempts(2), open)},
		{"REQ with an empty delay is now", join(consuming("a"), send("REQ $i \n"), msg("a"), attempts(2), open)},
		{"REQ later", join(consuming("a"), send("REQ $i 2500\n"), quiet(500*time.Millisecond), msg("a"), attempts(2), open)},
		{"REQ over max-req-timeout is clamped", join(consuming("a"), send("REQ $i 3600001\n"), open, send("FIN $i\n"), fails("E_FIN_FAILED FIN $i failed ID not in flight"), open)},
		{"REQ far over max-req-timeout is clamped", join(consuming("a"), send("REQ $i 99999999999\n"), quiet(300*time.Millisecond), open)},
		{"REQ negative", join(consuming("a"), send("REQ $i -1\n"), fails("E_INVALID REQ could not parse timeout -1"), closed)},
		{"REQ delay is a word", join(consuming("a"), send("REQ $i soon\n"), fails("E_INVALID REQ could not parse timeout soon"), closed)},
		{"REQ without a delay", join(consuming("a"), send("REQ $i\n"), fails("E_INVALID REQ insufficient number of params"), closed)},
		{"REQ id is looked at before the delay", join(sub, send("REQ short soon\n"), fails("E_INVALID invalid message ID"), closed)},
		{"FIN by another connection", join(consuming("a"), other, hello, send("SUB $t c\nFIN $i\n"), ok, fails("E_FIN_FAILED FIN $i failed client does not own message"), open, mine, send("FIN $i\n"), open)},
		{"REQ by another connection", join(consuming("a"), other, hello, send("SUB $t c\nREQ $i 0\n"), ok, fails("E_REQ_FAILED REQ $i failed client does not own message"), open, mine, send("FIN $i\n"), open)},
		{"TOUCH by another connection", join(consuming("a"), other, hello, send("SUB $t c\nTOUCH $i\n"), ok, fails("E_TOUCH_FAILED TOUCH $i failed client does not own message"), open, mine, send("FIN $i\n"), open)},
		{"FIN on another channel", join(consuming("a"), other, hello, send("SUB $t d\nFIN $i\n"), ok, fails("E_FIN_FAILED FIN $i failed ID not in flight"), open)},
		{"FIN after the timeout", join(hello, identify(`{"msg_timeout":1000}`), ok, send("SUB $t c\nRDY 1\n"), ok, publish("a"), msg("a"), send("RDY 0\n"),
			eventually("GET /stats?format=json&topic=$t", 200, `"timeout_count":1`), send("FIN $i\n"), fails("E_FIN_FAILED FIN $i failed ID not in flight"), open)},
	}
	for _, c := range []struct{ name, tail string }{{"FIN", ""}, {"REQ", " 0"}, {"TOUCH", ""}} {
		rows = append(rows,
			row{c.name + " before SUB", join(hello, send(c.name+" "+unknown+c.tail+"\n"), fails("E_INVALID cannot "+c.name+" in current state"), closed)},
			row{c.name + " without an id", join(sub, send(c.name+"\n"), fails("E_INVALID "+c.name+" insufficient number of params"), closed)},
			row{c.name + " id of 15 bytes", join(sub, send(c.name+" "+unknown[1:]+c.tail+"\n"), fails("E_INVALID invalid message ID"), closed)},
			row{c.name + " id of 17 bytes", join(sub, send(c.name+" "+unknown+"0"+c.tail+"\n"), fails("E_INVALID invalid message ID"), closed)},
			row{c.name + " id empty", join(sub, send(c.name+" "+c.tail+"\n"), fails("E_INVALID invalid message ID"), closed)},
			row{c.name + " id unknown", join(sub, send(c.name+" "+unknown+c.tail+"\n"), fails("E_"+c.name+"_FAILED "+c.name+" "+unknown+" failed ID not in flight"), open)},
			row{c.name + " id in upper case", join(sub, send(c.name+" ABCDEFABCDEFABCD"+c.tail+"\n"), fails("E_"+c.name+"_FAILED "+c.name+" ABCDEFABCDEFABCD failed ID not in flight"), open)},
			row{c.name + " id not hexadecimal", join(sub, send(c.name+" zzzzzzzzzzzzzzzz"+c.tail+"\n"), fails("E_"+c.name+"_FAILED "+c.name+" zzzzzzzzzzzzzzzz failed ID not in flight"), open)},
			row{c.name + " words after it are ignored", join(consuming("a"), send(c.name+" $i"+c.tail+" more words\n"), func(k *talk) {
				if c.name == "REQ" {
					msg("a")(k)
				}
			}, open)},
		)
	}
	runRows(t, rows)
}

// TestPub holds the rows of PUB, MPUB and DPUB in section 2.
func TestPub(t *testing.T) {
	n64, n65 := strings.Repeat("n", 64), strings.Repeat("n", 65)
	big := strings.Repeat("b", 1<<20)
	hour, year := "3600000", "31536000000"
	rows := []row{
		rule("MPUB answers OK once", hello, send("MPUB $t\n"+sized(multi("a", "b", "c"))), ok, open),
		rule("MPUB keeps the order", hello, send("MPUB $t\n"+sized(multi("a", "b", "c"))+"SUB $t c\nRDY 3\n"), ok, ok, msg("a"), msg("b"), msg("c")),
		rule("MPUB bad topic text is doubled", hello, send("MPUB a+b\n"), fails(`E_BAD_TOPIC E_BAD_TOPIC MPUB topic name "a+b" is not valid`), closed),
		rule("MPUB without a topic", hello, send("MPUB\n"), fails("E_INVALID MPUB insufficient number of parameters"), closed),
		rule("MPUB words after the topic are ignored", hello, send("MPUB $t more words\n"+sized(multi("a"))), ok, open),
		rule("MPUB size missing", hello, send("MPUB $t\n\x00"), half, fails("E_BAD_BODY MPUB failed to read body size"), closed),
		rule("MPUB size zero", hello, send("MPUB $t\n"+be32(0)), fails("E_BAD_BODY MPUB invalid body size 0"), closed),
		rule("MPUB size negative", hello, send("MPUB $t\n\xff\xff\xff\xff"), fails("E_BAD_BODY MPUB invalid body size -1"), closed),
		rule("MPUB size at the limit", hello, send("MPUB $t\n"+be32(5<<20)+multi("a")), ok, open),
		rule("MPUB size over the limit", hello, send("MPUB $t\n"+be32(5<<20+1)), fails("E_BAD_BODY MPUB body too big 5242881 > 5242880"), closed),
		rule("MPUB size of 2 GiB", hello, send("MPUB $t\n\x7f\xff\xff\xff"), fails("E_BAD_BODY MPUB body too big 2147483647 > 5242880"), closed),
		rule("MPUB count missing", hello, send("MPUB $t\n"+be32(10)+"\x00"), half, fails("E_BAD_BODY MPUB failed to read message count"), closed),
		rule("MPUB count zero", hello, send("MPUB $t\n"+sized(be32(0))), fails("E_BAD_BODY MPUB invalid message count 0"), closed),
		rule("MPUB count negative", hello, send("MPUB $t\n"+sized("\xff\xff\xff\xff")), fails("E_BAD_BODY MPUB invalid message count -1"), closed),
		rule("MPUB count over the limit", hello, send("MPUB $t\n"+sized(be32((5<<20-4)/5+1))), fails("E_BAD_BODY MPUB invalid message count 1048576"), closed),
		rule("MPUB count larger than what comes", hello, send("MPUB $t\n"+sized(be32(3)+sized("a"))), half, fails("E_BAD_MESSAGE MPUB failed to read message(1) body size"), closed),
		rule("MPUB message size zero", hello, send("MPUB $t\n"+sized(be32(2)+sized("a")+be32(0))), fails("E_BAD_MESSAGE MPUB invalid message(1) body size 0"), closed),
		rule("MPUB message size negative", hello, send("MPUB $t\n"+sized(be32(1)+"\xff\xff\xff\xfe")), fails("E_BAD_MESSAGE MPUB invalid message(0) body size -2"), closed),
		rule("MPUB message over the limit", hello, send("MPUB $t\n"+sized(be32(1)+be32(1<<20+1))), fails("E_BAD_MESSAGE MPUB message too big 1048577 > 1048576"), closed),
		rule("MPUB message cut short", hello, send("MPUB $t\n"+sized(be32(1)+be32(5)+"ab")), half, fails("E_BAD_MESSAGE MPUB failed to read message body"), closed),
		rule("MPUB message of the limit", hello, send("MPUB $t\n"+sized(multi(big))), ok, open),
		rule("MPUB size smaller than the content is not looked at", hello, send("MPUB $t\n"+be32(1)+multi("a", "b")), ok, open),
		rule("MPUB content over the limit behind a small size", hello, differs("what comes is bounded, not only what is announced",
			[]step{send("MPUB $t\n" + be32(10) + multi(big, big, big, big, big, "x")), ok, open},
			[]step{send("MPUB $t\n" + be32(10) + multi(big, big, big, big, big)[:4+4*(4+len(big))+4]), fails("E_BAD_BODY MPUB body too big 5242904 > 5242880"), closed})),
		rule("MPUB size larger than the content is not looked at", hello, send("MPUB $t\n"+be32(1000)+multi("a", "b")), ok, open),
		rule("MPUB error publishes nothing", hello, send("MPUB $t\n"+sized(be32(2)+sized("a")+be32(0))), fails("E_BAD_MESSAGE MPUB invalid message(1) body size 0"), closed,
			other, hello, send("SUB $t c\nRDY 1\n"), ok, quiet(200*time.Millisecond)),
		rule("MPUB on a subscribed connection", hello, send("SUB $t c\nMPUB $t\n"+sized(multi("a"))), ok, ok, open),
		rule("DPUB without a delay", hello, send("DPUB $t\n"), fails("E_INVALID DPUB insufficient number of parameters"), closed),
		rule("DPUB delay negative", hello, send("DPUB $t -1\n"), fails("E_INVALID DPUB could not parse timeout -1"), closed),
		rule("DPUB delay is a word", hello, send("DPUB $t soon\n"), fails("E_INVALID DPUB could not parse timeout soon"), closed),
		rule("DPUB topic is looked at before the delay", hello, send("DPUB a+b soon\n"), fails(`E_BAD_TOPIC DPUB topic name "a+b" is not valid`), closed),
		rule("DPUB delay at max-req-timeout", hello, send("DPUB $t "+hour+"\n"+sized("a")), ok, open),
		rule("DPUB delay over max-req-timeout", hello, differs("deferred up to max-defer-timeout, 365 days",
			[]step{send("DPUB $t 3600001\n"), fails("E_INVALID DPUB timeout 3600001 out of range 0-" + hour), closed},
			[]step{send("DPUB $t 3600001\n" + sized("a")), ok, open})),
		rule("DPUB delay out of range", hello, differs("the range ends at max-defer-timeout, 365 days",
			[]step{send("DPUB $t 31536000001\n"), fails("E_INVALID DPUB timeout 31536000001 out of range 0-" + hour), closed},
			[]step{send("DPUB $t 31536000001\n"), fails("E_INVALID DPUB timeout 31536000001 out of range 0-" + year), closed})),
		rule("DPUB 0 is now", hello, send("SUB $t c\nRDY 1\nDPUB $t 0\n"+sized("a")), both("0:OK", "0:OK", "2:a")),
		rule("DPUB with an empty delay is now", hello, send("SUB $t c\nRDY 1\nDPUB $t \n"+sized("a")), both("0:OK", "0:OK", "2:a")),
		rule("DPUB comes later", hello, send("SUB $t c\nRDY 1\nDPUB $t 2500\n"+sized("a")), ok, ok, quiet(500*time.Millisecond), msg("a"), attempts(1)),
	}
	for _, c := range []struct{ name, tail string }{{"PUB", ""}, {"DPUB", " 0"}} {
		n := c.name
		body := func(s string) step { return send(n + " $t" + c.tail + "\n" + s) }
		rows = append(rows,
			rule(n+" answers OK", hello, body(sized("a")), ok, open),
			rule(n+" before IDENTIFY", hello, body(sized("a")), ok, identify("{}"), ok, open),
			rule(n+" without a topic", hello, send(n+"\n"), fails("E_INVALID "+n+" insufficient number of parameters"), closed),
			rule(n+" topic with a bad character", hello, send(n+" a+b"+c.tail+"\n"), fails(`E_BAD_TOPIC `+n+` topic name "a+b" is not valid`), closed),
			rule(n+" topic of 65 bytes", hello, send(n+" "+n65+c.tail+"\n"), fails(`E_BAD_TOPIC `+n+` topic name "`+n65+`" is not valid`), closed),
			rule(n+" topic of 64 bytes", hello, send(n+" "+n64+c.tail+"\n"+sized("a")), ok, open),
			rule(n+" ephemeral topic", hello, send(n+" $t#ephemeral"+c.tail+"\n"+sized("a")), ok, open),
			rule(n+" words after it are ignored", hello, send(n+" $t"+c.tail+" more words\n"+sized("a")), ok, open),
			rule(n+" key and id words", hello, send(n+" $t"+c.tail+" key=user-42 id=inv-991\n"+sized("a")), ok, open),
			rule(n+" body is any bytes", hello, body(sized("\x00\n\r\xff")), ok, open),
			rule(n+" size missing", hello, body("\x00\x00\x00"), half, fails("E_BAD_MESSAGE "+n+" failed to read message body size"), closed),
			rule(n+" size zero", hello, body(be32(0)), fails("E_BAD_MESSAGE "+n+" invalid message body size 0"), closed),
			rule(n+" size negative", hello, body("\xff\xff\xff\xff"), fails("E_BAD_MESSAGE "+n+" invalid message body size -1"), closed),
			rule(n+" size over the limit", hello, body(be32(1<<20+1)), fails("E_BAD_MESSAGE "+n+" message too big 1048577 > 1048576"), closed),
			rule(n+" size of 2 GiB", hello, body("\x7f\xff\xff\xff"), fails("E_BAD_MESSAGE "+n+" message too big 2147483647 > 1048576"), closed),
			rule(n+" body cut short", hello, body(be32(10)+"abc"), half, fails("E_BAD_MESSAGE "+n+" failed to read message body"), closed),
			rule(n+" body of the limit", hello, body(sized(big)), ok, open),
			rule(n+" on a subscribed connection", hello, send("SUB $t c\n"), ok, body(sized("a")), ok, open),
			rule(n+" after CLS", hello, send("SUB $t c\nCLS\n"), ok, resp("CLOSE_WAIT"), body(sized("a")), ok, open),
		)
	}
	runRows(t, rows)
}

// both wants these frames in any order: a message may overtake the answer of
// the publish that made it.
func both(want ...string) step {
	return func(k *talk) {
		k.t.Helper()
		left := map[string]int{}
		for _, w := range want {
			left[w]++
		}
		for range want {
			f, err := k.read()
			if err != nil {
				k.t.Fatal(err)
			}
			if left[f.String()]--; left[f.String()] < 0 {
				k.t.Fatalf("frame %q is not one of %q", f, want)
			}
		}
	}
}

// TestTopics holds section 7's first rule as far as one node shows it.
func TestTopics(t *testing.T) {
	runRows(t, []row{
		rule("messages wait in a topic without channels", hello, publish("a"), publish("b"), send("SUB $t c\nRDY 2\n"), ok, msg("a"), msg("b")),
		rule("each channel gets its own copy", hello, send("SUB $t c\nRDY 1\n"), ok, other, hello, send("SUB $t d\nRDY 1\n"), ok, publish("a"), msg("a"), mine, msg("a")),
		rule("a later channel gets only what comes later", hello, send("SUB $t c\nRDY 5\n"), ok, publish("a"), msg("a"),
			other, hello, send("SUB $t d\nRDY 5\n"), ok, publish("b"), msg("b"), mine, msg("b")),
		rule("messages wait in a paused topic", hello, send("SUB $t c\nRDY 1\n"), ok, request("POST /topic/pause?topic=$t", "", 200, ""), publish("a"), quiet(300*time.Millisecond),
			request("POST /topic/unpause?topic=$t", "", 200, ""), msg("a")),
		rule("a channel made during the pause gets what waited", hello, send("SUB $t c\nRDY 1\n"), ok, request("POST /topic/pause?topic=$t", "", 200, ""), publish("a"),
			other, hello, send("SUB $t d\nRDY 1\n"), ok, quiet(200*time.Millisecond), request("POST /topic/unpause?topic=$t", "", 200, ""), msg("a"), mine, msg("a")),
		rule("empty of a topic does not touch channels", hello, request("POST /channel/create?topic=$t&channel=c", "", 404, `{"message":"TOPIC_NOT_FOUND"}`),
			request("POST /topic/create?topic=$t", "", 200, ""), request("POST /channel/create?topic=$t&channel=c", "", 200, ""), publish("a"),
			request("POST /topic/empty?topic=$t", "", 200, ""), send("SUB $t c\nRDY 1\n"), ok, msg("a")),
		rule("empty of a topic drops what waits in it", hello, publish("a"), request("POST /topic/empty?topic=$t", "", 200, ""), publish("b"), send("SUB $t c\nRDY 2\n"), ok, msg("b")),
		rule("empty of a channel drops its backlog", hello, request("POST /topic/create?topic=$t", "", 200, ""), request("POST /channel/create?topic=$t&channel=c", "", 200, ""), publish("a"),
			eventually("GET /stats?format=json&topic=$t&include_mem=false", 200, `"depth":1`), request("POST /channel/empty?topic=$t&channel=c", "", 200, ""), publish("b"), send("SUB $t c\nRDY 2\n"), ok, msg("b")),
		rule("a dead consumer's message comes again", hello, send("SUB $t c\nRDY 1\n"), ok, publish("a"), msg("a"), differs("requeued on disconnect",
			[]step{open}, []step{half, closed, other, hello, send("SUB $t c\nRDY 1\n"), ok, msg("a"), attempts(2)})),
	})
}
