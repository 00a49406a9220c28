package node_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	gonsq "github.com/nsqio/go-nsq"

	"github.com/tidings-io/tidings/internal/front/admin"
	"github.com/tidings-io/tidings/internal/vfs"
)

// consume subscribes without taking more than it is told; messages are left
// unanswered where keep says so.
func consume(t *testing.T, tcp, topic, channel string, ready int, keep func(*gonsq.Message) bool) *gonsq.Consumer {
	t.Helper()
	cfg := gonsq.NewConfig()
	cfg.MaxInFlight = ready
	cfg.UserAgent = "test/1"
	c, err := gonsq.NewConsumer(topic, channel, cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.SetLoggerLevel(gonsq.LogLevelMax)
	c.AddHandler(gonsq.HandlerFunc(func(m *gonsq.Message) error {
		if keep(m) {
			m.DisableAutoResponse()
		}
		return nil
	}))
	if err := c.ConnectToNSQD(tcp); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Stop()
		<-c.StopChan
	})
	return c
}

func TestAdminAPI(t *testing.T) {
	r := start(t, settings(t), vfs.Default())
	a := &api{t: t, base: "http://" + r.Addrs().Admin, c: readContract(t)}
	t.Run("node", func(t *testing.T) { (&api{t, a.base, a.c}).node() })
	t.Run("topics", func(t *testing.T) { (&api{t, a.base, a.c}).topics() })
	t.Run("messages", func(t *testing.T) { (&api{t, a.base, a.c}).messages() })
	t.Run("channels", func(t *testing.T) { (&api{t, a.base, a.c}).channels(r.Addrs().TCP) })
	t.Run("dead letters", func(t *testing.T) { (&api{t, a.base, a.c}).deadLetters(r.Addrs().TCP) })
	t.Run("ephemeral", func(t *testing.T) { (&api{t, a.base, a.c}).ephemeral() })
	t.Run("events", func(t *testing.T) { (&api{t, a.base, a.c}).events() })
	t.Run("tail", func(t *testing.T) { (&api{t, a.base, a.c}).tail() })
	for _, op := range a.c.untried() {
		t.Errorf("%s was not tried", op)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}

func (a *api) node() {
	t := a.t
	var self admin.Self
	a.ok("GET", "/api/v1/self", "", &self)
	if self.Node == "" || !self.Alone || !self.Ready || self.ReadOnly || self.Addresses.TCP == "" || self.NSQVersion != "1.3.0" {
		t.Errorf("self: %+v", self)
	}
	var o admin.Overview
	a.ok("GET", "/api/v1/overview", "", &o)
	if len(o.Nodes) != 1 || !o.Nodes[0].Answered || o.Nodes[0].State != "live" || o.Shards.Total == 0 || o.Shards.Leaderless != 0 {
		t.Errorf("overview: %+v", o)
	}
	var nodes admin.NodeList
	a.ok("GET", "/api/v1/nodes", "", &nodes)
	var n admin.NodeDetail
	a.ok("GET", "/api/v1/nodes/"+url.PathEscape(nodes.Items[0].Name), "", &n)
	if n.Log == nil || len(n.Shards) != o.Shards.Total || !n.Shards[0].Leads {
		t.Errorf("node: %+v", n)
	}
	a.refused("GET", "/api/v1/nodes/nobody", "", 404, "NODE_NOT_FOUND")
	var shards admin.ShardList
	a.ok("GET", "/api/v1/shards", "", &shards)
	if len(shards.Items) != o.Shards.Total || shards.Items[0].Leader != self.Node || shards.Items[1].LeaderChanges != 1 {
		t.Errorf("shards: %+v", shards.Items)
	}
	a.refused("POST", "/api/v1/shards/1/transfer", `{"to": "x"}`, 400, "INVALID_REQUEST")
	a.c.seen["POST /shards/{shard}/transfer 200"] = true // TestAdminOfACluster
	a.refused("POST", "/api/v1/shards", `{"count": 0}`, 400, "INVALID_REQUEST")
	a.refused("POST", "/api/v1/shards", `{"count": 300}`, 400, "INVALID_REQUEST")
	var added admin.ShardsAdded
	a.ok("POST", "/api/v1/shards", `{"count": 2}`, &added)
	if len(added.Shards) != 2 || added.Total != o.Shards.Total+1 || added.Waits != "" || added.CLI != "tidings cluster shards add 2" {
		t.Errorf("shards that were added: %+v", added)
	}
	a.ok("GET", "/api/v1/shards", "", &shards)
	if len(shards.Items) != added.Total+1 || shards.Items[added.Total].Leader != self.Node {
		t.Errorf("shards: %+v", shards.Items)
	}
	var l admin.Lookup
	a.ok("GET", "/api/v1/lookup", "", &l)
	if !l.Served || len(l.Producers) != 1 || !l.Producers[0].Member {
		t.Errorf("lookup: %+v", l)
	}
	var d admin.Diagnosis
	a.ok("GET", "/api/v1/diagnosis", "", &d)
	if len(d.Nodes) != 1 || !d.Nodes[0].Self || d.Nodes[0].DataPath == "" || d.Nodes[0].DiskFree == 0 || d.Nodes[0].DiskReserve == 0 || len(d.Nodes[0].Certificates) != 0 {
		t.Errorf("diagnosis: %+v", d)
	}
	var c admin.Config
	a.ok("GET", "/api/v1/config", "", &c)
	found := false
	for _, s := range c.Settings {
		found = found || s.Key == "admin_read_only" && s.Value == "false" && s.Flag == "--admin-read-only"
	}
	if !found {
		t.Errorf("config: %+v", c)
	}
	a.ok("PUT", "/api/v1/log-level", `{"level": "debug"}`, nil)
	var level admin.LogLevel
	a.ok("GET", "/api/v1/log-level", "", &level)
	if level.Level != "debug" {
		t.Errorf("level %s", level.Level)
	}
	a.refused("PUT", "/api/v1/log-level", `{"level": "loud"}`, 400, "INVALID_REQUEST")
	a.ok("GET", "/api/v1/openapi.yaml", "", nil)
}

func (a *api) topics() {
	t := a.t
	var done admin.Done
	for i := range 25 {
		a.ok("POST", "/api/v1/topics", fmt.Sprintf(`{"name": "list-%02d"}`, i), &done)
	}
	if done.CLI != "tidings topic create list-24" {
		t.Errorf("cli %q", done.CLI)
	}
	a.refused("POST", "/api/v1/topics", `{"name": "no such name"}`, 400, "INVALID_TOPIC")
	a.refused("POST", "/api/v1/topics", `{"nam": "x"}`, 400, "INVALID_REQUEST")
	a.refused("POST", "/api/v1/topics", `{"name": "x", "ack": "maybe"}`, 400, "INVALID_REQUEST")
	var names []string
	for next := "first"; next != ""; {
		var p admin.Page[admin.TopicRow]
		path := "/api/v1/topics?q=LIST-&limit=10&sort=-name"
		if next != "first" {
			path += "&cursor=" + url.QueryEscape(next)
		}
		a.ok("GET", path, "", &p)
		if p.Total != 25 {
			t.Fatalf("total %d", p.Total)
		}
		for _, row := range p.Items {
			names = append(names, row.Name)
		}
		next = p.Next
	}
	if len(names) != 25 || names[0] != "list-24" || names[24] != "list-00" {
		t.Errorf("pages hold %v", names)
	}
	var p admin.Page[admin.TopicRow]
	a.ok("GET", "/api/v1/topics?q=*-0%3F&state=no_channel&sort=-backlog", "", &p)
	if p.Total != 10 {
		t.Errorf("pattern: %+v", p)
	}
	a.refused("GET", "/api/v1/topics?sort=color", "", 400, "INVALID_REQUEST")
	a.refused("GET", "/api/v1/topics?limit=100000", "", 400, "INVALID_REQUEST")
	a.refused("GET", "/api/v1/topics?cursor=%21", "", 400, "INVALID_REQUEST")
	a.refused("GET", "/api/v1/topics/none", "", 404, "TOPIC_NOT_FOUND")
	var d admin.TopicDetail
	a.ok("GET", "/api/v1/topics/list-00", "", &d)
	if d.ID == "" || d.CreatedAt == 0 || len(d.Partitions) != 1 || d.Partitions[0].Leader == "" {
		t.Errorf("topic: %+v", d)
	}
	a.refused("PATCH", "/api/v1/topics/list-00", `{"ack": "leader"}`, 501, "UNSUPPORTED")
	a.c.seen["PATCH /topics/{topic} 200"] = true // TestAdminOfACluster
	a.refused("PATCH", "/api/v1/topics/list-00", `{}`, 400, "INVALID_REQUEST")
	a.ok("POST", "/api/v1/topics/list-00/pause", "", &done)
	if a.ok("GET", "/api/v1/topics/list-00", "", &d); !d.Paused {
		t.Error("it is not paused")
	}
	a.ok("POST", "/api/v1/topics/list-00/resume", "", nil)
	a.ok("DELETE", "/api/v1/topics/list-00", "", &done)
	if done.CLI != "tidings topic rm list-00 --yes" {
		t.Errorf("cli %q", done.CLI)
	}
	a.refused("GET", "/api/v1/topics/list-00", "", 404, "TOPIC_NOT_FOUND")
	a.refused("DELETE", "/api/v1/topics/list-00", "", 404, "TOPIC_NOT_FOUND")
}

func (a *api) messages() {
	t := a.t
	var done admin.Done
	var list []string
	for i := range 100 {
		list = append(list, fmt.Sprintf(`{"text": "message %02d", "key": "k%d"}`, i, i%3))
	}
	a.ok("POST", "/api/v1/topics/orders/messages", `{"messages": [`+strings.Join(list, ",")+`]}`, &done)
	if done.Count != 100 {
		t.Errorf("published %d", done.Count)
	}
	binary := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\x00\xff\"<", 5000)))
	a.ok("POST", "/api/v1/topics/orders/messages", `{"messages": [{"body": "`+binary+`", "name": "big one"}]}`, &done)
	a.ok("POST", "/api/v1/topics/orders/messages", `{"messages": [{"text": "it's"}], "defer_ms": 3600000}`, &done)
	if done.CLI != `tidings pub orders 'it'\''s' --delay 1h0m0s` {
		t.Errorf("cli %q", done.CLI)
	}
	for _, bad := range []string{`{"messages": []}`, `{"messages": [{"text": ""}]}`, `{"messages": [{"text": "a", "body": "YQ=="}]}`, `{"messages": [{"text": "a"}], "defer_ms": -1}`, ``} {
		if status, _ := a.do("POST", "/api/v1/topics/orders/messages", bad); status != 400 {
			t.Errorf("%s: status %d", bad, status)
		}
	}
	var p admin.MessagePage
	a.ok("GET", "/api/v1/topics/orders/messages?limit=10", "", &p)
	if len(p.Items) != 10 || string(p.Items[3].Body) != "message 03" || string(p.Items[3].Key) != "k0" || p.Next == "" || p.Scanned.Complete {
		t.Fatalf("first page: %+v", p)
	}
	at := p.Items[7].TimestampAt
	a.ok("GET", "/api/v1/topics/orders/messages?limit=200&cursor="+url.QueryEscape(p.Next), "", &p)
	if len(p.Items) != 92 || p.Items[0].Offset != 10 || p.Next != "" || !p.Scanned.Complete {
		t.Fatalf("second page: %d from %d, next %q", len(p.Items), p.Items[0].Offset, p.Next)
	}
	if big := p.Items[90]; !big.Truncated || big.Size != 20000 || len(big.Body) != 1024 || string(big.Name) != "big one" {
		t.Errorf("big message: %+v", big)
	}
	a.ok("GET", "/api/v1/topics/orders/messages?from=latest&limit=2", "", &p)
	if len(p.Items) != 2 || p.Items[1].Offset != 101 || string(p.Items[1].Body) != "it's" {
		t.Errorf("latest: %+v", p)
	}
	a.backwards("/api/v1/topics/orders/messages")
	a.ok("GET", fmt.Sprintf("/api/v1/topics/orders/messages?time=%d&limit=1", at), "", &p)
	if len(p.Items) != 1 || p.Items[0].TimestampAt < at {
		t.Errorf("by time: %+v", p)
	}
	a.ok("GET", "/api/v1/topics/orders/messages?time=99999999999999", "", &p)
	if len(p.Items) != 0 || !p.Scanned.Complete {
		t.Errorf("in the future: %+v", p)
	}
	a.ok("GET", "/api/v1/topics/orders/messages?search=ge+4&scan=50&partition=0", "", &p)
	if len(p.Items) != 10 || p.Next == "" || p.Scanned.Records != 50 {
		t.Errorf("search: %d items, %+v", len(p.Items), p.Scanned)
	}
	a.ok("GET", "/api/v1/topics/orders/messages?search=hex:00ff&key=", "", &p)
	if len(p.Items) != 1 {
		t.Errorf("without key: %d items", len(p.Items))
	}
	a.ok("GET", "/api/v1/topics/orders/messages?search=hex:00ff&max_body=0", "", &p)
	if len(p.Items) != 1 || p.Items[0].Offset != 100 || len(p.Items[0].Body) != 0 {
		t.Errorf("hex: %+v", p)
	}
	a.refused("GET", "/api/v1/topics/orders/messages?search=hex:0", "", 400, "INVALID_REQUEST")
	a.refused("GET", "/api/v1/topics/orders/messages?partition=7", "", 400, "INVALID_REQUEST")
	a.refused("GET", "/api/v1/topics/none/messages", "", 404, "TOPIC_NOT_FOUND")
	var m admin.Message
	a.ok("GET", "/api/v1/topics/orders/messages/0/100", "", &m)
	if len(m.Body) != 20000 || m.Truncated {
		t.Errorf("whole message: %d bytes", len(m.Body))
	}
	if _, body := a.do("GET", "/api/v1/topics/orders/messages/0/100/body", ""); len(body) != 20000 {
		t.Errorf("body: %d bytes", len(body))
	}
	a.refused("GET", "/api/v1/topics/orders/messages/0/5000", "", 404, "MESSAGE_NOT_FOUND")
	a.ok("POST", "/api/v1/topics/orders/empty", "", nil)
	var d admin.TopicDetail
	if a.ok("GET", "/api/v1/topics/orders", "", &d); d.Waiting != 0 || d.Partitions[0].End != 102 || d.Records != 102 {
		t.Errorf("emptied topic: %+v", d)
	}
}

// backwards reads the log of 102 messages from its end to its beginning, and on.
func (a *api) backwards(path string) {
	t := a.t
	var p admin.MessagePage
	a.ok("GET", path+"?from=latest&limit=30", "", &p)
	want := int64(101)
	for page := 0; ; page++ {
		for _, m := range slices.Backward(p.Items) {
			if m.Offset != want {
				t.Fatalf("page %d back: offset %d, want %d", page, m.Offset, want)
			}
			want--
		}
		if p.Prev == "" || page > 4 {
			break
		}
		a.ok("GET", path+"?limit=30&before="+url.QueryEscape(p.Prev), "", &p)
	}
	if want != -1 || len(p.Items) != 12 {
		t.Fatalf("the last page back has %d messages and ends above %d", len(p.Items), want)
	}
	a.ok("GET", path+"?limit=30&cursor="+url.QueryEscape(p.Next), "", &p)
	if p.Items[0].Offset != 12 || len(p.Items) != 30 {
		t.Errorf("forward again: %d messages from %d", len(p.Items), p.Items[0].Offset)
	}
	a.ok("GET", path+"?limit=30&before="+url.QueryEscape(p.Prev), "", &p)
	if len(p.Items) != 12 || p.Prev != "" {
		t.Errorf("back from a page that was read forward: %d messages, prev %q", len(p.Items), p.Prev)
	}
	a.ok("GET", path+"?offset=60&limit=1&search=message", "", &p)
	a.ok("GET", path+"?search=message+4&scan=20&before="+url.QueryEscape(p.Prev), "", &p)
	if len(p.Items) != 10 || p.Items[0].Offset != 40 || p.Scanned.Records != 20 || p.Prev == "" {
		t.Errorf("search backwards: %d messages, %+v", len(p.Items), p.Scanned)
	}
	a.ok("GET", path+"?search=message+4&scan=20&limit=3&before="+url.QueryEscape(p.Prev), "", &p)
	if len(p.Items) != 0 || p.Prev == "" {
		t.Errorf("search on backwards: %+v", p)
	}
	a.refused("GET", path+"?before=%21", "", 400, "INVALID_REQUEST")
}

// limits sets how often the messages of a channel are delivered.
func (a *api) limits() {
	const channel = "/api/v1/topics/work/channels/audit"
	var done admin.Done
	var c admin.ChannelDetail
	a.ok("PATCH", channel, `{"max_attempts": 5}`, &done)
	if a.ok("GET", channel, "", &c); c.MaxAttempts != 5 || c.DeadLetter != "work.audit.dead" || done.CLI != "tidings channel set work audit --max-attempts 5" {
		a.t.Errorf("limited: %+v, %q", c, done.CLI)
	}
	a.ok("PATCH", channel, `{"max_attempts": 7, "dead_letter": "poison"}`, &done)
	if a.ok("GET", channel, "", &c); c.MaxAttempts != 7 || c.DeadLetter != "poison" || done.CLI != "tidings channel set work audit --max-attempts 7 --dead-letter poison" {
		a.t.Errorf("limited anew: %+v, %q", c, done.CLI)
	}
	for _, bad := range []string{`{}`, `{"max_attempts": -1}`, `{"max_attempts": 70000}`, `{"max_attempts": 0, "dead_letter": "poison"}`, `{"max_attempts": 1, "dead_letter": "work"}`} {
		a.refused("PATCH", channel, bad, 400, "INVALID_REQUEST")
	}
	a.refused("PATCH", channel+"x", `{"max_attempts": 5}`, 404, "CHANNEL_NOT_FOUND")
	a.ok("PATCH", channel, `{"max_attempts": 0}`, nil)
	if a.ok("GET", channel, "", &c); c.MaxAttempts != 0 || c.DeadLetter != "" {
		a.t.Errorf("without a limit: %+v", c)
	}
}

func (a *api) channels(tcp string) {
	t := a.t
	a.ok("POST", "/api/v1/topics", `{"name": "work"}`, nil)
	a.ok("POST", "/api/v1/topics/work/channels", `{"name": "audit"}`, nil)
	a.refused("POST", "/api/v1/topics/none/channels", `{"name": "audit"}`, 404, "TOPIC_NOT_FOUND")
	a.ok("POST", "/api/v1/topics/work/messages", `{"messages": [{"text": "a"}, {"text": "b"}, {"text": "c"}, {"text": "d"}]}`, nil)
	a.ok("POST", "/api/v1/topics/work/messages", `{"messages": [{"text": "later"}], "defer_ms": 3600000}`, nil)
	const channel = "/api/v1/topics/work/channels/audit"
	var p admin.MessagePage
	queued := func(want string) {
		t.Helper()
		var got strings.Builder
		a.ok("GET", channel+"/messages", "", &p)
		for _, m := range p.Items {
			got.Write(m.Body)
		}
		if got.String() != want {
			t.Errorf("queued %q, want %q", got.String(), want)
		}
	}
	queued("abcd") // nobody has used the channel yet
	a.ok("GET", channel+"/messages?state=deferred", "", &p)
	if len(p.Items) != 1 || string(p.Items[0].Body) != "later" || p.Items[0].DueAt < time.Now().Add(50*time.Minute).UnixMilli() {
		t.Errorf("deferred: %+v", p)
	}
	got := make(chan *gonsq.Message, 10)
	consume(t, tcp, "work", "audit", 2, func(m *gonsq.Message) bool {
		got <- m
		return string(m.Body) != "a"
	})
	<-got
	held := []*gonsq.Message{<-got, <-got} // a is finished
	eventually(t, "b and c are in flight", func() bool {
		a.ok("GET", channel+"/messages?state=in_flight", "", &p)
		return len(p.Items) == 2 && string(p.Items[0].Body)+string(p.Items[1].Body) == "bc"
	})
	if m := p.Items[0]; m.Attempts != 1 || m.DeadlineAt <= m.DeliveredAt || m.Consumer == "" {
		t.Errorf("in flight: %+v", m)
	}
	queued("d")
	var c admin.ChannelDetail
	eventually(t, "the channel shows it", func() bool {
		a.ok("GET", channel, "", &c)
		return c.Backlog == 1 && c.InFlight == 2 && c.Deferred == 1 && c.Consumers == 1
	})
	if c.OldestAgeMs == nil || *c.OldestAgeMs < 0 || *c.OldestAgeMs > time.Minute.Milliseconds() || c.Partitions[0].Floor != 1 && c.Partitions[0].Floor != 0 {
		t.Errorf("channel: %+v", c)
	}
	eventually(t, "rates are measured", func() bool {
		a.ok("GET", channel, "", &c)
		return c.InRate != nil
	})
	var consumers admin.Page[admin.Consumer]
	a.ok("GET", channel+"/consumers?q=test/1&sort=-delivered", "", &consumers)
	if consumers.Total != 1 || consumers.Items[0].InFlight != 2 || consumers.Items[0].Finished != 1 || consumers.Items[0].Ready != 2 {
		t.Errorf("consumers: %+v", consumers)
	}
	var all admin.Page[admin.ChannelRow]
	a.ok("GET", "/api/v1/channels?sort=-backlog&state=backlog", "", &all)
	if all.Total != 1 || all.Items[0].Name != "audit" {
		t.Errorf("all channels: %+v", all)
	}
	a.ok("GET", "/api/v1/topics/work/channels?q=aud", "", &all)
	if all.Total != 1 {
		t.Errorf("channels: %+v", all)
	}
	a.limits()
	var h admin.History
	a.ok("GET", "/api/v1/history?watch=overview", "", &h)
	if len(h.Points) == 0 {
		t.Error("there is no history")
	}
	a.refused("GET", "/api/v1/history?watch=nodes", "", 400, "INVALID_REQUEST")
	var done admin.Done
	a.ok("POST", channel+"/pause", "", &done)
	if a.ok("GET", channel, "", &c); !c.Paused || done.CLI != "tidings channel pause work audit" {
		t.Errorf("paused: %+v, %q", c, done.CLI)
	}
	a.ok("POST", channel+"/resume", "", nil)
	a.ok("POST", channel+"/empty", "", nil)
	eventually(t, "it is empty", func() bool {
		a.ok("GET", channel, "", &c)
		return c.Backlog+c.InFlight+c.Deferred == 0 && c.OldestAgeMs == nil
	})
	for _, m := range held {
		m.Finish() // too late, but the client does not wait for it at its end
	}
	a.refused("GET", channel+"x", "", 404, "CHANNEL_NOT_FOUND")
	a.refused("GET", channel+"/messages?state=gone", "", 400, "INVALID_REQUEST")
	a.ok("DELETE", channel, "", nil)
	a.refused("GET", channel, "", 404, "CHANNEL_NOT_FOUND")
}

// deadLetters counts messages that had all their attempts.
func (a *api) deadLetters(tcp string) {
	const channel = "/api/v1/topics/bills/channels/picky"
	a.ok("POST", "/api/v1/topics", `{"name": "bills"}`, nil)
	a.ok("POST", "/api/v1/topics/bills/channels", `{"name": "picky"}`, nil)
	a.ok("PATCH", channel, `{"max_attempts": 1}`, nil)
	a.ok("POST", "/api/v1/topics/bills/messages", `{"messages": [{"text": "a"}, {"text": "b"}]}`, nil)
	consume(a.t, tcp, "bills", "picky", 2, func(m *gonsq.Message) bool {
		m.RequeueWithoutBackoff(0)
		return true
	})
	var c admin.ChannelDetail
	eventually(a.t, "both are dead letters", func() bool {
		a.ok("GET", channel, "", &c)
		return c.DeadLettered == 2 && c.Backlog+c.InFlight+c.Deferred == 0
	})
}

func (a *api) ephemeral() {
	t := a.t
	const topic = "/api/v1/topics/live%23ephemeral"
	a.ok("POST", "/api/v1/topics", `{"name": "live#ephemeral"}`, nil)
	a.ok("POST", topic+"/channels", `{"name": "c"}`, nil)
	a.ok("POST", topic+"/messages", `{"messages": [{"text": "x"}, {"text": "y"}]}`, nil)
	a.ok("POST", topic+"/messages", `{"messages": [{"text": "z"}], "defer_ms": 100000}`, nil)
	var p admin.MessagePage
	a.ok("GET", topic+"/messages", "", &p)
	if len(p.Items) != 3 {
		t.Errorf("browse: %+v", p)
	}
	a.ok("GET", topic+"/channels/c/messages", "", &p)
	if len(p.Items) < 2 || string(p.Items[0].Body) != "x" {
		t.Errorf("peek: %+v", p)
	}
	var d admin.TopicDetail
	a.ok("GET", topic, "", &d)
	if !d.Ephemeral || d.AckEffective != "memory" || len(d.ChannelList) != 1 {
		t.Errorf("topic: %+v", d)
	}
	a.ok("DELETE", topic, "", nil)
}

// watch opens a stream and hands out its events.
func (a *api) watch(path string) (next func(kind string) []byte, stop func()) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	req, err := http.NewRequestWithContext(ctx, "GET", a.base+path, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	a.c.check(a.t, "GET", path, resp.StatusCode, resp.Header.Get("Content-Type"), nil)
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 16<<20)
	next = func(kind string) []byte {
		a.t.Helper()
		for was := ""; lines.Scan(); {
			if k, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				was = k
			}
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && was == kind {
				return []byte(data)
			}
		}
		a.t.Fatalf("the stream ended before %s: %v", kind, lines.Err())
		return nil
	}
	return next, func() {
		cancel()
		resp.Body.Close()
	}
}

// merge applies a merge patch.
func merge(to, patch map[string]any) {
	for k, v := range patch {
		inner, ok1 := v.(map[string]any)
		was, ok2 := to[k].(map[string]any)
		switch {
		case v == nil:
			delete(to, k)
		case ok1 && ok2:
			merge(was, inner)
		default:
			to[k] = v
		}
	}
}

func (a *api) events() {
	t := a.t
	a.ok("POST", "/api/v1/topics", `{"name": "seen"}`, nil)
	a.ok("POST", "/api/v1/topics/seen/channels", `{"name": "heard"}`, nil)
	watches := url.Values{"watch": {"topic:seen", "overview", "topics?q=seen", "nodes", "channel:seen/none", "channels?sort=-backlog", "channels?topic=seen&q=heard"}}
	next, stop := a.watch("/api/v1/events?" + watches.Encode())
	defer stop()
	states := make(map[string]map[string]any)
	for len(states) < 6 {
		var ev struct {
			Watch string
			Data  map[string]any
		}
		if err := json.Unmarshal(next("state"), &ev); err != nil {
			t.Fatal(err)
		}
		states[ev.Watch] = ev.Data
	}
	if own := states["channels?topic=seen&q=heard"]; own["total"] != 1.0 || own["order"].([]any)[0] != "seen/heard" {
		t.Errorf("channels of a topic: %v", own)
	}
	a.ok("POST", "/api/v1/topics/seen/messages", `{"messages": [{"text": "x"}]}`, nil)
	for records := 0.0; records != 1; {
		var ev struct {
			Watch string
			Data  map[string]any
		}
		if err := json.Unmarshal(next("patch"), &ev); err != nil {
			t.Fatal(err)
		}
		if merge(states[ev.Watch], ev.Data); ev.Watch == "topic:seen" {
			records, _ = states[ev.Watch]["records_total"].(float64)
		}
	}
	if list, ok := states["topic:seen"]["partition_list"].([]any); !ok || list[0].(map[string]any)["end_offset"] != 1.0 {
		t.Errorf("the topic as patched: %v", states["topic:seen"])
	}
	a.ok("DELETE", "/api/v1/topics/seen", "", nil)
	for {
		var gone struct {
			Watch string
			Data  struct{ Code string }
		}
		if err := json.Unmarshal(next("gone"), &gone); err != nil {
			t.Fatal(err)
		}
		if gone.Watch == "topic:seen" && gone.Data.Code == "TOPIC_NOT_FOUND" {
			break
		}
	}
	a.refused("GET", "/api/v1/events", "", 400, "INVALID_REQUEST")
	a.refused("GET", "/api/v1/events?watch=weather", "", 400, "INVALID_REQUEST")
	a.refused("GET", "/api/v1/events?watch="+url.QueryEscape("channels?sort=weather"), "", 400, "INVALID_REQUEST")
}

func (a *api) tail() {
	t := a.t
	a.ok("POST", "/api/v1/topics/flow/messages", `{"messages": [{"text": "before"}]}`, nil)
	next, stop := a.watch("/api/v1/topics/flow/tail?search=m")
	defer stop()
	a.ok("POST", "/api/v1/topics/flow/messages", `{"messages": [{"text": "one"}, {"text": "more"}]}`, nil)
	var b admin.TailBatch
	data := next("messages")
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	a.c.checkJSON(t, "tail", map[string]any{"$ref": "#/components/schemas/TailBatch"}, data)
	if len(b.Items) != 1 || string(b.Items[0].Body) != "more" {
		t.Errorf("tail: %s", data)
	}
}

func TestAdminGuards(t *testing.T) {
	c := settings(t)
	c.AdminReadOnly, c.AdminHosts = true, []string{"broker.example"}
	r := start(t, c, vfs.Default())
	for _, x := range []struct {
		name, method, path string
		header             http.Header
		host               string
		want               int
	}{
		{"by address", "GET", "/api/v1/self", nil, "", 200},
		{"localhost", "GET", "/api/v1/self", nil, "localhost:4180", 200},
		{"v6", "GET", "/api/v1/self", nil, "[::1]:4180", 200},
		{"named", "GET", "/api/v1/self", nil, "Broker.example:80", 200},
		{"rebound", "GET", "/api/v1/self", nil, "evil.example", 403},
		{"rebound metrics", "GET", "/metrics", nil, "evil.example", 403},
		{"read-only", "POST", "/api/v1/topics", http.Header{"X-Tidings": {"1"}}, "", 403},
		{"unknown", "GET", "/api/v1/nothing", nil, "", 404},
		{"wrong method", "POST", "/api/v1/overview", http.Header{"X-Tidings": {"1"}}, "", 403},
	} {
		if status := guarded(t, r, x.method, x.path, x.header, x.host); status != x.want {
			t.Errorf("%s: status %d, want %d", x.name, status, x.want)
		}
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
	r = start(t, settings(t), vfs.Default())
	for _, x := range []struct {
		name   string
		header http.Header
		want   int
	}{
		{"form of another page", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, 403},
		{"text of another page", http.Header{"Content-Type": {"text/plain"}}, 403},
		{"json of another page", http.Header{"Content-Type": {"application/json"}, "Origin": {"http://evil.example"}}, 403},
		{"json", http.Header{"Content-Type": {"application/json; charset=utf-8"}}, 400},
		{"header", http.Header{"X-Tidings": {"1"}, "Origin": {"http://" + r.Addrs().Admin}}, 400},
	} {
		if status := guarded(t, r, "POST", "/api/v1/topics", x.header, ""); status != x.want {
			t.Errorf("%s: status %d, want %d", x.name, status, x.want)
		}
	}
	if status := guarded(t, r, "POST", "/api/v1/overview", http.Header{"X-Tidings": {"1"}}, ""); status != 405 {
		t.Errorf("wrong method: status %d", status)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}

func guarded(t *testing.T, r *running, method, path string, header http.Header, host string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.Addrs().Admin+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// Streams are bounded, and end with the node.
func TestAdminStreams(t *testing.T) {
	r := start(t, settings(t), vfs.Default())
	a := &api{t: t, base: "http://" + r.Addrs().Admin, c: readContract(t)}
	const most = 256
	var stops []func()
	for i := range most {
		next, stop := a.watch("/api/v1/events?watch=overview")
		defer stop()
		stops = append(stops, stop)
		if i%64 == 0 {
			next("state")
		}
	}
	a.refused("GET", "/api/v1/events?watch=overview", "", 503, "TOO_MANY_VIEWERS")
	if _, text := r.request("GET", a.base+"/metrics", ""); !strings.Contains(text, `tidings_limit_reached_total{limit="admin_streams"} 1`) {
		t.Error("the limit is not in the metrics")
	}
	stops[0]()
	eventually(t, "there is room again", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), "GET", a.base+"/api/v1/events?watch=nodes", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}
