package lookup

import (
	"strings"
	"testing"
)

// TestTCP holds the TCP protocol of section 5.
func TestTCP(t *testing.T) {
	n64, n65 := strings.Repeat("n", 64), strings.Repeat("n", 65)
	missing := "E_BAD_BODY IDENTIFY missing fields"
	rows := []row{
		rule("magic of another protocol", send("  V2"), fails("E_BAD_PROTOCOL")),
		rule("magic is looked at whole", send("  V1PING\n"), ok),
		rule("connection that ends before the magic", send("  "), half, closed),
		rule("ping before identify", hello, does("PING")),
		rule("ping after identify", nsqd, does("PING"), does("PING")),
		rule("ping with parameters", hello, does("PING now")),
		rule("carriage return", hello, send("PING\r\n"), ok),
		rule("spaces around a command", hello, send("  PING \n"), ok),
		rule("pipelined", hello, send("PING\nPING\nPING\n"), ok, ok, ok),
		rule("unknown command", hello, send("NOP\n"), fails("E_INVALID invalid command NOP")),
		rule("unknown command, its parameters", hello, send("SUB a b\n"), fails("E_INVALID invalid command SUB")),
		rule("commands are case-sensitive", hello, send("ping\n"), fails("E_INVALID invalid command ping")),
		rule("empty line", hello, send("\n"), fails("E_INVALID invalid command ")),
		rule("end without a command", hello, half, closed),
		rule("end within a command", hello, send("PIN"), half, closed),

		rule("identify", nsqd, has("GET /nodes", "producers", shown+`,"tombstones":[],"topics":[]}`, true)),
		rule("identify with parameters", hello, send("IDENTIFY now\n"+sized(`{"broadcast_address":"b","tcp_port":1,"http_port":2,"version":"v"}`)), identified),
		rule("identify with what is needed only", hello, identify(`{"broadcast_address":"$h","tcp_port":1,"http_port":2,"version":"v"}`), identified,
			has("GET /nodes", "producers", `{"remote_address":"$r","hostname":"","broadcast_address":"$h","tcp_port":1,"http_port":2,"version":"v","topology_zone":"","topology_region":"","tombstones":[],"topics":[]}`, true)),
		rule("identify with unknown fields", hello, identify(`{"x":{"y":[1]},"broadcast_address":"b","tcp_port":1,"http_port":2,"version":"v"}`), identified),
		rule("identify cannot say where it comes from", hello, identify(`{"remote_address":"elsewhere:1","broadcast_address":"$h","tcp_port":1,"http_port":2,"version":"v"}`), identified,
			has("GET /nodes", "producers", `{"remote_address":"$r","hostname":"","broadcast_address":"$h","tcp_port":1,"http_port":2,"version":"v","topology_zone":"","topology_region":"","tombstones":[],"topics":[]}`, true)),
		rule("identify without broadcast_address", hello, identify(`{"tcp_port":1,"http_port":2,"version":"v"}`), fails(missing)),
		rule("identify without tcp_port", hello, identify(`{"broadcast_address":"b","http_port":2,"version":"v"}`), fails(missing)),
		rule("identify without http_port", hello, identify(`{"broadcast_address":"b","tcp_port":1,"version":"v"}`), fails(missing)),
		rule("identify without version", hello, identify(`{"broadcast_address":"b","tcp_port":1,"http_port":2}`), fails(missing)),
		rule("identify with a port of zero", hello, identify(`{"broadcast_address":"b","tcp_port":0,"http_port":2,"version":"v"}`), fails(missing)),
		rule("identify with null", hello, identify("null"), fails(missing)),
		rule("identify with a field of another type", hello, identify(`{"broadcast_address":"b","tcp_port":"1","http_port":2,"version":"v"}`), fails("E_BAD_BODY IDENTIFY failed to decode JSON body")),
		rule("identify with no JSON", hello, identify("nonsense"), fails("E_BAD_BODY IDENTIFY failed to decode JSON body")),
		rule("identify with an empty body", hello, identify(""), fails("E_BAD_BODY IDENTIFY failed to decode JSON body")),
		rule("identify without a size", hello, send("IDENTIFY\nxx"), half, fails("E_BAD_BODY IDENTIFY failed to read body size")),
		rule("identify with a short body", hello, send("IDENTIFY\n\x00\x00\x00\x05{}"), half, fails("E_BAD_BODY IDENTIFY failed to read body")),
		rule("identify again", nsqd, send("IDENTIFY\n"), fails("E_INVALID cannot IDENTIFY again")),

		rule("register before identify", hello, send("REGISTER $t c\n"), fails("E_INVALID client must IDENTIFY")),
		rule("register nothing before identify", hello, send("REGISTER\n"), fails("E_INVALID client must IDENTIFY")),
		rule("register nothing", nsqd, send("REGISTER\n"), fails("E_INVALID REGISTER insufficient number of params")),
		rule("register a topic", nsqd, does("REGISTER $t"), found(``, shown+`}`)),
		rule("register a channel", nsqd, does("REGISTER $t c"), found(`"c"`, shown+`}`)),
		rule("register more than a channel", nsqd, does("REGISTER $t c d"), found(`"c"`, shown+`}`)),
		rule("register twice", nsqd, does("REGISTER $t c"), does("REGISTER $t c"), does("REGISTER $t"), found(`"c"`, shown+`}`)),
		rule("register an ephemeral channel", nsqd, does("REGISTER $t c#ephemeral"), found(`"c#ephemeral"`, shown+`}`)),
		rule("register an ephemeral topic", nsqd, does("REGISTER $t#ephemeral"), get("/lookup?topic=$t%23ephemeral", 200, `{"channels":[],"producers":[`+shown+`}]}`)),
		rule("register a topic of 64 bytes", nsqd, does("REGISTER "+n64)),
		rule("register a topic of 65 bytes", nsqd, send("REGISTER "+n65+"\n"), fails("E_BAD_TOPIC REGISTER topic name '"+n65+"' is not valid")),
		rule("register a topic with a bad character", nsqd, send("REGISTER a+b\n"), fails("E_BAD_TOPIC REGISTER topic name 'a+b' is not valid")),
		rule("register with two spaces", nsqd, send("REGISTER  $t\n"), fails("E_BAD_TOPIC REGISTER topic name '' is not valid")),
		rule("register a channel of 65 bytes", nsqd, send("REGISTER $t "+n65+"\n"), fails("E_BAD_CHANNEL REGISTER channel name '"+n65+"' is not valid")),
		rule("register a channel with a bad character", nsqd, send("REGISTER $t c/d\n"), fails("E_BAD_CHANNEL REGISTER channel name 'c/d' is not valid")),
		rule("register an empty channel", nsqd, does("REGISTER $t  x"), found(``, shown+`}`)),
		rule("a failed register registers nothing", nsqd, send("REGISTER $t c/d\n"), fails("E_BAD_CHANNEL REGISTER channel name 'c/d' is not valid"), get("/lookup?topic=$t", 404, message("TOPIC_NOT_FOUND"))),
		rule("pipelined registrations", nsqd, send("REGISTER $t a\nREGISTER $t b\nREGISTER $t c\nPING\n"), ok, ok, ok, ok, found(`"a","b","c"`, shown+`}`)),

		rule("unregister before identify", hello, send("UNREGISTER $t c\n"), fails("E_INVALID client must IDENTIFY")),
		rule("unregister nothing", nsqd, send("UNREGISTER\n"), fails("E_INVALID UNREGISTER insufficient number of params")),
		rule("unregister a bad topic", nsqd, send("UNREGISTER a+b\n"), fails("E_BAD_TOPIC UNREGISTER topic name 'a+b' is not valid")),
		rule("unregister a bad channel", nsqd, send("UNREGISTER $t c/d\n"), fails("E_BAD_CHANNEL UNREGISTER channel name 'c/d' is not valid")),
		rule("unregister what nobody has registered", nsqd, does("UNREGISTER $t c"), does("UNREGISTER $t"), get("/lookup?topic=$t", 404, message("TOPIC_NOT_FOUND"))),
		rule("unregister a channel keeps its name", nsqd, does("REGISTER $t c"), does("UNREGISTER $t c"), found(`"c"`, shown+`}`)),
		rule("unregister a topic keeps its name and its channels'", nsqd, does("REGISTER $t c"), does("UNREGISTER $t"), found(`"c"`, ``)),
		rule("unregister an ephemeral channel takes its name", nsqd, does("REGISTER $t c#ephemeral"), does("UNREGISTER $t c#ephemeral"), found(``, shown+`}`)),
		rule("unregister an ephemeral topic takes its name", nsqd, does("REGISTER $t#ephemeral"), does("UNREGISTER $t#ephemeral"), get("/lookup?topic=$t%23ephemeral", 404, message("TOPIC_NOT_FOUND"))),
		rule("an ephemeral channel stays while another nsqd has it", nsqd, does("REGISTER $t c#ephemeral"), other, nsqd, does("REGISTER $t c#ephemeral"), does("UNREGISTER $t c#ephemeral"),
			get("/channels?topic=$t", 200, `{"channels":["c#ephemeral"]}`), mine, does("UNREGISTER $t c#ephemeral"), get("/channels?topic=$t", 200, `{"channels":[]}`)),
		rule("an ephemeral topic stays while another nsqd has it", nsqd, does("REGISTER $t#ephemeral"), other, nsqd, does("REGISTER $t#ephemeral"), does("UNREGISTER $t#ephemeral"), mine,
			get("/lookup?topic=$t%23ephemeral", 200, `{"channels":[],"producers":[`+shown+`}]}`)),

		rule("a lost connection takes the nsqd, not the names", nsqd, does("REGISTER $t c"), found(`"c"`, shown+`}`), gone, eventually("GET /lookup?topic=$t", 200, `{"channels":["c"],"producers":[]}`),
			has("GET /nodes", "producers", shown+`,"tombstones":[false],"topics":["$t"]}`, false)),
		rule("a lost connection leaves ephemeral names", nsqd, does("REGISTER $t c#ephemeral"), gone, eventually("GET /lookup?topic=$t", 200, `{"channels":["c#ephemeral"],"producers":[]}`)),
		rule("an error takes the nsqd as well", nsqd, does("REGISTER $t c"), send("NONSENSE\n"), fails("E_INVALID invalid command NONSENSE"), eventually("GET /lookup?topic=$t", 200, `{"channels":["c"],"producers":[]}`)),
		rule("an nsqd that is there twice is listed twice", nsqd, does("REGISTER $t"), other, nsqd, does("REGISTER $t"), count("/lookup?topic=$t", 2), gone, eventually2("/lookup?topic=$t", 1)),
	}
	runRows(t, targets(t), rows)
}

// TestTCPRobust holds what ends a real nsqlookupd, or takes its memory.
func TestTCPRobust(t *testing.T) {
	if _, ok := given("TIDINGS_LOOKUP"); ok {
		t.Log("not asked of a real nsqlookupd")
		return
	}
	runRows(t, targets(t), []row{
		rule("identify with a negative size", hello, send("IDENTIFY\n\xff\xff\xff\xff"), fails("E_BAD_BODY IDENTIFY body size -1 is not between 0 and 65536")),
		rule("identify with a huge size", hello, send("IDENTIFY\n\x7f\xff\xff\xff"), fails("E_BAD_BODY IDENTIFY body size 2147483647 is not between 0 and 65536")),
		rule("line without an end", hello, func(k *talk) {
			_, _ = k.conn.Write(make([]byte, 17<<10)) // it may be closed by then
		}, closed),
	})
}
