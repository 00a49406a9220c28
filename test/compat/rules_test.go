package compat

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// jsonOf is the decoded answer of a GET.
func (k *talk) jsonOf(path string, v any) {
	k.t.Helper()
	res, body := k.do("GET "+path, "")
	if err := json.Unmarshal([]byte(body), v); err != nil || res.StatusCode != 200 {
		k.t.Fatalf("%s: %d %q: %v", path, res.StatusCode, body, err)
	}
}

// channelStats is what rows look at of one channel in /stats.
type channelStats struct {
	Name     string `json:"channel_name"`
	Depth    int    `json:"depth"`
	InFlight int    `json:"in_flight_count"`
	Deferred int    `json:"deferred_count"`
	Clients  int    `json:"client_count"`
	Count    int    `json:"message_count"`
}

// channel is the row's topic's channel c.
func (k *talk) channel() (c channelStats) {
	k.t.Helper()
	var s struct {
		Topics []struct {
			Channels []channelStats `json:"channels"`
		} `json:"topics"`
	}
	k.jsonOf("/stats?format=json&topic=$t&channel=c", &s)
	if len(s.Topics) == 1 && len(s.Topics[0].Channels) == 1 {
		c = s.Topics[0].Channels[0]
	}
	return c
}

// until waits for a condition on channel c.
func until(what string, is func(channelStats) bool) step {
	return func(k *talk) {
		k.t.Helper()
		deadline := time.Now().Add(patience)
		for {
			c := k.channel()
			if is(c) {
				return
			}
			if time.Now().After(deadline) {
				k.t.Fatalf("%s: %+v", what, c)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// batch publishes so many messages with one MPUB.
func batch(n int) step {
	bodies := make([]string, n)
	for i := range bodies {
		bodies[i] = fmt.Sprint(i)
	}
	return send("MPUB $t\n" + sized(multi(bodies...)))
}

// sampled consumes n messages with a sample_rate and wants as many as it says.
func sampled(rate, n, least, most int) []step {
	const rdy = 2500
	return join(hello, batch(n), ok, identify(fmt.Sprintf(`{"sample_rate":%d}`, rate)), ok, send(fmt.Sprintf("SUB $t c\nRDY %d\n", rdy)), ok,
		func(k *talk) {
			k.t.Helper()
			go func() { // deliveries are read so that the server goes on
				buf := make([]byte, 1<<16)
				for {
					if _, err := k.conn.Read(buf); err != nil {
						return
					}
				}
			}()
			until("all are given or left out", func(c channelStats) bool { return c.Count == n && c.Depth == 0 })(k)
			if c := k.channel(); c.InFlight < least || c.InFlight > most || c.Deferred != 0 {
				k.t.Errorf("%d of %d are in flight, want %d to %d", c.InFlight, n, least, most)
			}
		})
}

// TestMoreOfTheProtocol holds rules of sections 1 and 2 that need more than one
// exchange.
func TestMoreOfTheProtocol(t *testing.T) {
	wide := strings.Repeat("w", 1<<20)
	rows := []row{
		rule("ids of a batch differ", hello, batch(300), ok, send("SUB $t c\nRDY 300\n"), ok, func(k *talk) {
			for range 300 {
				if _, err := k.read(); err != nil {
					k.t.Fatal(err)
				}
			}
			seen := map[string]bool{}
			for _, id := range k.ids {
				seen[id] = true
			}
			if len(seen) != 300 {
				k.t.Errorf("%d ids of 300 messages", len(seen))
			}
		}),
		rule("a command answers a heartbeat", hello, identify(`{"heartbeat_interval":1000}`), ok,
			resp("_heartbeat_"), send("PUB $t\n"+sized("a")), resp("OK"), resp("_heartbeat_"), send("PUB $t\n"+sized("a")), resp("OK"), resp("_heartbeat_"), send("NOP\n"), open),
		rule("a consumer that does not read is cut", hello, identify(`{"heartbeat_interval":1000}`), ok, send("SUB $t c\nRDY 100\n"), ok, func(k *talk) {
			for range 24 {
				publish(wide)(k)
			}
		}, until("the consumer is gone", func(c channelStats) bool { return c.Clients == 0 && c.Name != "" })),
		rule("the first IDENTIFY's msg_timeout stays", hello, identify(`{"msg_timeout":1000}`), ok, identify(`{"msg_timeout":60000}`), ok,
			send("SUB $t c\nRDY 1\n"), ok, publish("a"), msg("a"), attempts(1), msg("a"), attempts(2)),
		rule("a timeout raises attempts", hello, identify(`{"msg_timeout":1000}`), ok, send("SUB $t c\nRDY 1\n"), ok, publish("a"), msg("a"), attempts(1), msg("a"), attempts(2), msg("a"), attempts(3)),
		rule("attempts are not limited", hello, send("SUB $t c\nRDY 1\n"), ok, publish("a"), msg("a"), func(k *talk) {
			for n := uint16(2); n <= 20; n++ {
				send("REQ $i 0\n")(k)
				msg("a")(k)
				attempts(n)(k)
			}
		}, send("FIN $i\n"), open),
		rule("max_attempts of a channel", post("/topic/create?topic=$t", "", 200, ""), post("/channel/create?topic=$t&channel=c&max_attempts=2", "", 200, ""),
			hello, send("SUB $t c\nRDY 1\n"), ok, publish("a"), msg("a"), send("REQ $i 0\n"), msg("a"), attempts(2), send("REQ $i 0\n"), differs("a channel may limit attempts; nsqd passes the parameter over",
				[]step{msg("a"), attempts(3)},
				[]step{other, hello, send("SUB $t.c.dead c\nRDY 1\n"), ok, msg("a"), attempts(1), wantPart("/stats?format=json&topic=$t", `"max_attempts":2`, `"dead_letter":"`)})),
		rule("a client without IDENTIFY has its address as names", hello, send("SUB $t c\n"), ok, wantPart("/stats?format=json&topic=$t", `"client_id":"127.0.0.1"`, `"hostname":"127.0.0.1"`, `"user_agent":""`)),
		rule("IDENTIFY without names empties them", hello, identify(`{}`), ok, send("SUB $t c\n"), ok, wantPart("/stats?format=json&topic=$t", `"client_id":""`, `"hostname":""`)),
		rule("topology of the client is in /stats", hello, identify(`{"topology_zone":"z1","topology_region":"r1"}`), ok, send("SUB $t c\n"), ok,
			wantPart("/stats?format=json&topic=$t", `"topology_zone":"z1"`, `"topology_region":"r1"`)),
		rule("sample_rate of the client is in /stats", hello, identify(`{"sample_rate":42}`), ok, send("SUB $t c\n"), ok, wantPart("/stats?format=json&topic=$t", `"sample_rate":42`)),
		{"sample_rate 30 delivers a third, the rest is finished", sampled(30, 2000, 480, 740)},
		rule("sample_rate 1", differs("N percent, where nsqd delivers N+1", sampled(1, 10_000, 145, 400), sampled(1, 10_000, 40, 160))),
		rule("a requeued message comes", hello, batch(3), ok, send("SUB $t c\nRDY 1\n"), ok, msg("0"), send("REQ $i 0\n"), differs("first; nsqd puts it behind what waits",
			[]step{msg("1")}, []step{msg("0"), attempts(2)})),
	}
	for _, field := range []string{"heartbeat_interval", "output_buffer_size", "output_buffer_timeout", "msg_timeout", "sample_rate"} {
		rows = append(rows, rule(field+" 0 is the default", hello, identify(`{"feature_negotiation":true,"`+field+`":0}`), negotiated(nil), open))
	}
	for _, field := range []string{"client_id", "hostname", "user_agent", "topology_region", "topology_zone"} {
		rows = append(rows, rule(field+" is no number", hello, identify(`{"`+field+`":1}`), fails("E_BAD_BODY IDENTIFY failed to decode JSON body"), closed))
	}
	for _, field := range []string{"feature_negotiation", "tls_v1", "snappy", "deflate"} {
		rows = append(rows, rule(field+" is no text", hello, identify(`{"`+field+`":"true"}`), fails("E_BAD_BODY IDENTIFY failed to decode JSON body"), closed))
	}
	for _, field := range []string{"heartbeat_interval", "output_buffer_size", "output_buffer_timeout", "msg_timeout", "sample_rate", "deflate_level"} {
		rows = append(rows, rule(field+" is no text", hello, identify(`{"`+field+`":"1"}`), fails("E_BAD_BODY IDENTIFY failed to decode JSON body"), closed))
	}
	runRows(t, rows)
}

// TestBehaviour holds rules of section 7 beside those of TestTopics.
func TestBehaviour(t *testing.T) {
	makes := []step{post("/topic/create?topic=$t", "", 200, ""), post("/channel/create?topic=$t&channel=c", "", 200, "")}
	runRows(t, []row{
		{"messages wait after the last channel was deleted", join(makes, post("/channel/delete?topic=$t&channel=c", "", 200, ""), publish("a"),
			hello, send("SUB $t d\nRDY 1\n"), ok, msg("a"))},
		{"a deleted channel forgets its backlog", join(makes, post("/channel/create?topic=$t&channel=d", "", 200, ""), publish("a"),
			until("it is in the channel", func(c channelStats) bool { return c.Depth == 1 }),
			post("/channel/delete?topic=$t&channel=c", "", 200, ""), hello, send("SUB $t c\nRDY 2\n"), ok, publish("b"), msg("b"))},
		rule("a consumer of a deleted channel makes it anew", hello, send("SUB $t c\n"), ok, post("/channel/delete?topic=$t&channel=c", "", 200, ""), closed,
			other, hello, send("SUB $t c\nRDY 1\n"), ok, publish("a"), msg("a")),
		rule("a consumer of a deleted topic makes it anew", hello, send("SUB $t c\n"), ok, post("/topic/delete?topic=$t", "", 200, ""), closed,
			other, hello, send("SUB $t c\nRDY 1\n"), ok, publish("a"), msg("a")),
		rule("a producer outlives its topic", hello, send("PUB $t\n"+sized("a")), ok, post("/topic/delete?topic=$t", "", 200, ""), send("PUB $t\n"+sized("b")+"SUB $t c\nRDY 2\n"), ok, ok, msg("b")),
		{"empty of a channel clears deferred messages", join(makes, hello, send("DPUB $t 3000000\n"+sized("a")), ok, until("it is deferred", func(c channelStats) bool { return c.Deferred == 1 }),
			post("/channel/empty?topic=$t&channel=c", "", 200, ""), until("none is deferred", func(c channelStats) bool { return c.Name == "c" && c.Deferred == 0 }))},
		rule("empty of a channel clears what is in flight", hello, send("SUB $t c\nRDY 1\n"), ok, publish("a"), msg("a"), post("/channel/empty?topic=$t&channel=c", "", 200, ""),
			until("none is in flight", func(c channelStats) bool { return c.InFlight == 0 })),
		{"a paused channel keeps its messages", join(makes, post("/channel/pause?topic=$t&channel=c", "", 200, ""), hello, send("SUB $t c\nRDY 1\n"), ok, publish("a"), quiet(200*time.Millisecond),
			until("it waits", func(c channelStats) bool { return c.Depth == 1 }), post("/channel/unpause?topic=$t&channel=c", "", 200, ""), msg("a"))},
		{"a paused channel does not stop another", join(makes, post("/channel/pause?topic=$t&channel=c", "", 200, ""), hello, send("SUB $t d\nRDY 1\n"), ok, publish("a"), msg("a"))},
		{"a paused topic delivers what its channels have", join(hello, send("SUB $t c\n"), ok, publish("a"), until("it is in the channel", func(c channelStats) bool { return c.Depth == 1 }),
			post("/topic/pause?topic=$t", "", 200, ""), send("RDY 1\n"), msg("a"))},
		rule("an ephemeral channel of a durable topic gets what comes", hello, send("SUB $t c#ephemeral\nRDY 1\n"), ok, publish("a"), msg("a"), send("FIN $i\n"), open),
		rule("an ephemeral topic", hello, send("SUB $t#ephemeral c\nRDY 1\nPUB $t#ephemeral\n"+sized("a")), both("0:OK", "0:OK", "2:a"), send("FIN $i\n"), open),
		rule("two consumers share a channel", hello, send("SUB $t c\nRDY 1\n"), ok, other, hello, send("SUB $t c\nRDY 1\n"), ok, publish("a"), publish("b"),
			until("each has one", func(c channelStats) bool { return c.InFlight == 2 })),
	})
}
