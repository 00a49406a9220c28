package nsqadmin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/vfs"
)

// fleet is an nsqadmin with what it looks after.
type fleet struct {
	name                 string
	admin, lookupd, nsqd string // HOST:PORT; no lookupd where nsqds are named by address
	real                 bool   // the nsqd is one, not a node of ours
}

// fleets are nsqadmins of ours over a node of ours; or the one that is given.
func fleets(t *testing.T) []fleet {
	given := fleet{
		name: "given", admin: os.Getenv("TIDINGS_NSQADMIN_HTTP"), lookupd: os.Getenv("TIDINGS_NSQADMIN_LOOKUPD_HTTP"),
		nsqd: os.Getenv("TIDINGS_NSQADMIN_NSQD_HTTP"), real: os.Getenv("TIDINGS_NSQADMIN_NODE") == "",
	}
	if given.admin != "" && given.nsqd != "" {
		return []fleet{given}
	}
	n := startNode(t, func(*config.Config) {})
	bare := startNode(t, func(c *config.Config) { c.LookupTCPAddress, c.LookupHTTPAddress = "", "" })
	all := []fleet{
		{name: "of a node", admin: n.NSQAdmin, lookupd: n.LookupHTTP, nsqd: n.HTTP},
		{name: "of a node without a lookup", admin: bare.NSQAdmin, nsqd: bare.HTTP},
		{name: "over a node's lookup", admin: start(t, "-lookupd-http-address="+n.LookupHTTP), lookupd: n.LookupHTTP, nsqd: n.HTTP},
	}
	if realProgram() == "" { // nsqadmin makes nothing there, and deletes what it can't set a tombstone for
		all = append(all, fleet{name: "over a node", admin: start(t, "-nsqd-http-address="+bare.HTTP), nsqd: bare.HTTP})
	}
	return all
}

// startNode runs a node on ports of its own.
func startNode(t *testing.T, tune func(*config.Config)) node.Addrs {
	t.Helper()
	const any = "127.0.0.1:0"
	cfg := config.Default()
	cfg.DataPath, cfg.WALSegmentSize, cfg.DrainTimeout = t.TempDir(), 1<<20, 50*time.Millisecond
	cfg.TCPAddress, cfg.HTTPAddress, cfg.AdminAddress = any, any, ""
	cfg.LookupTCPAddress, cfg.LookupHTTPAddress, cfg.NSQAdminHTTPAddress = any, any, any
	tune(&cfg)
	n, err := node.New(node.Options{Config: cfg, FS: vfs.Default(), LogLevel: new(slog.LevelVar), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- n.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	select {
	case <-ready:
	case <-time.After(patience):
		t.Fatal("the node does not serve")
	}
	return n.Addrs()
}

var serial atomic.Int64

// scene is one row's conversation with a fleet about a topic of its own.
type scene struct {
	*testing.T
	fleet
	topic string
}

// ask makes a request: "METHOD HOST:PORT/path"; $t is the topic.
func (s *scene) ask(line, body string) (int, string) {
	s.Helper()
	method, at, _ := strings.Cut(strings.ReplaceAll(line, "$t", s.topic), " ")
	req, err := http.NewRequest(method, "http://"+at, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		s.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// act asks nsqadmin to do something, and wants it done without a warning.
func (s *scene) act(line, body string) {
	s.Helper()
	method, path, _ := strings.Cut(line, " ")
	if code, text := s.ask(method+" "+s.admin+path, strings.ReplaceAll(body, "$t", s.topic)); code != 200 || text != fine {
		s.Fatalf("%s %s: %d %s", line, body, code, text)
	}
}

// until waits until nsqadmin's answer has it.
func (s *scene) until(path, what string, has func(answer map[string]any) bool) {
	s.Helper()
	var code int
	var text string
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		code, text = s.ask("GET "+s.admin+path, "")
		var answer map[string]any
		if json.Unmarshal([]byte(text), &answer) == nil && code == 200 && has(answer) {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("%s: want %s, got %d %s", path, what, code, text)
		}
	}
}

// untilField waits for a value of an answer.
func (s *scene) untilField(path, field string, want any) {
	s.Helper()
	s.until(path, fmt.Sprint(field, " ", want), func(a map[string]any) bool { return a[field] == want })
}

// listed wants the topic to be among all, or not.
func (s *scene) listed(want bool) {
	s.Helper()
	s.until("/api/topics", fmt.Sprint(s.topic, " ", want), func(a map[string]any) bool {
		topics, _ := a["topics"].([]any)
		return slices.Contains(topics, any(s.topic)) == want
	})
}

// fill makes the topic with a channel audit and messages in it.
func (s *scene) fill(messages int) {
	s.Helper()
	for _, line := range []string{"POST " + s.nsqd + "/topic/create?topic=$t", "POST " + s.nsqd + "/channel/create?topic=$t&channel=audit"} {
		if code, text := s.ask(line, ""); code != 200 {
			s.Fatal(code, text)
		}
	}
	for range messages {
		if code, text := s.ask("POST "+s.nsqd+"/pub?topic=$t", "kept"); code != 200 {
			s.Fatal(code, text)
		}
	}
	s.untilField("/api/topics/$t/audit", "depth", float64(messages))
}

// depth is what the nsqd itself says of the channel audit; -1: it is not there.
func (s *scene) depth() int64 {
	s.Helper()
	_, text := s.ask("GET "+s.nsqd+"/stats?format=json&topic=$t&channel=audit", "")
	var answer struct {
		Topics []struct{ Channels []struct{ Depth int64 } }
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		s.Fatal(err, text)
	}
	if len(answer.Topics) != 1 || len(answer.Topics[0].Channels) != 1 {
		return -1
	}
	return answer.Topics[0].Channels[0].Depth
}

// TestFleet holds the API over what runs, and section 10: what NSQ's tools take
// for one node's share stays where it is the cluster's data.
func TestFleet(t *testing.T) {
	rows := map[string]func(*scene){
		"a topic is shown":   func(s *scene) { s.fill(2); s.listed(true); s.untilField("/api/topics/$t", "message_count", 2.0) },
		"a channel is shown": func(s *scene) { s.fill(2); s.untilField("/api/topics/$t/audit", "message_count", 2.0) },
		"a node is shown":    nodeShown,
		"counter":            counterShown,
		"create a topic":     func(s *scene) { s.act("POST /api/topics", `{"topic":"$t"}`); s.listed(true) },
		"create a channel":   createChannel,
		"pause a channel":    func(s *scene) { s.fill(1); s.pauses("/api/topics/$t/audit") },
		"pause a topic":      func(s *scene) { s.fill(1); s.pauses("/api/topics/$t") },
		"empty a channel": func(s *scene) {
			s.fill(2)
			s.act("POST /api/topics/$t/audit", `{"action":"empty"}`)
			s.untilField("/api/topics/$t/audit", "depth", 0.0)
		},
		"delete a channel":        deleteChannel,
		"delete a topic":          func(s *scene) { s.fill(1); s.act("DELETE /api/topics/$t", ""); s.listed(false) },
		"delete on one node":      deleteOnNode,
		"delete of an nsqlookupd": deleteAtLookupd,
		"an inactive topic":       inactive,
	}
	for _, f := range fleets(t) {
		t.Run(f.name, func(t *testing.T) {
			for name, run := range rows {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					run(&scene{t, f, fmt.Sprintf("admin_%d_%d", time.Now().UnixNano()%1e12, serial.Add(1))})
				})
			}
		})
	}
}

func nodeShown(s *scene) {
	s.fill(1)
	s.until("/api/nodes", "the nsqd with the topic", func(a map[string]any) bool {
		text, _ := json.Marshal(a)
		return strings.Contains(string(text), `"http_port":`+s.nsqd[strings.LastIndex(s.nsqd, ":")+1:]) && strings.Contains(string(text), s.topic)
	})
	s.until("/api/nodes/"+s.nsqd, "its topics", func(a map[string]any) bool {
		text, _ := json.Marshal(a)
		return a["node"] == s.nsqd && strings.Contains(string(text), s.topic)
	})
}

func counterShown(s *scene) {
	s.fill(3)
	s.until("/api/counter", "the channel", func(a map[string]any) bool {
		counts, _ := a["stats"].(map[string]any)
		one, _ := counts[s.topic+":audit:"+s.nsqd].(map[string]any)
		return one["message_count"] == 3.0 && one["topic_name"] == s.topic && one["channel_name"] == "audit" && one["node"] == s.nsqd
	})
}

// createChannel: what is published next is in the channel.
func createChannel(s *scene) {
	s.act("POST /api/topics", `{"topic":"$t","channel":"audit"}`)
	if code, text := s.ask("POST "+s.nsqd+"/pub?topic=$t", "kept"); code != 200 {
		s.Fatal(code, text)
	}
	s.untilField("/api/topics/$t/audit", "depth", 1.0)
}

func (s *scene) pauses(path string) {
	s.Helper()
	s.act("POST "+path, `{"action":"pause"}`)
	s.untilField(path, "paused", true)
	s.act("POST "+path, `{"action":"unpause"}`)
	s.untilField(path, "paused", false)
}

func deleteChannel(s *scene) {
	s.fill(1)
	s.act("DELETE /api/topics/$t/audit", "")
	s.until("/api/topics/$t", "no channel", func(a map[string]any) bool { return a["channels"] == nil })
	s.listed(true)
}

// deleteOnNode is what nsqadmin's page of a node does. A real nsqd's share is
// gone; a node of ours has none.
func deleteOnNode(s *scene) {
	s.fill(3)
	s.act("DELETE /api/nodes/"+s.nsqd, `{"topic":"$t"}`)
	want := int64(3)
	if s.real {
		want = -1
	}
	if got := s.depth(); got != want {
		s.Fatalf("depth %d, want %d", got, want)
	}
	if s.real {
		return
	}
	if s.lookupd != "" { // and nobody is led there, for a while
		if code, text := s.ask("GET "+s.lookupd+"/lookup?topic=$t", ""); code != 200 || text != `{"channels":["audit"],"producers":[]}` {
			s.Errorf("%d %s", code, text)
		}
		s.until("/api/topics?inactive=true", "the topic", func(a map[string]any) bool {
			topics, _ := a["topics"].(map[string]any)
			return topics[s.topic] != nil
		})
	}
	if code, text := s.ask("POST "+s.nsqd+"/pub?topic=$t", "more"); code != 200 || s.depth() != 4 {
		s.Errorf("%d %s, depth %d", code, text, s.depth())
	}
}

// deleteAtLookupd is what scripts do to an nsqlookupd.
func deleteAtLookupd(s *scene) {
	s.fill(3)
	if s.lookupd == "" {
		return
	}
	for _, line := range []string{"POST " + s.lookupd + "/channel/delete?topic=$t&channel=audit", "POST " + s.lookupd + "/topic/delete?topic=$t"} {
		if code, text := s.ask(line, ""); code != 200 {
			s.Fatal(code, text)
		}
	}
	if got := s.depth(); got != 3 {
		s.Fatalf("depth %d", got)
	}
	if !s.real { // a real nsqd is forgotten until it registers the topic anew
		s.untilField("/api/topics/$t/audit", "depth", 3.0)
	}
}

// inactive: an nsqlookupd takes note of a topic that no nsqd has; a node of ours
// makes it.
func inactive(s *scene) {
	s.act("POST /api/topics", `{"topic":"$t"}`)
	s.listed(true)
	s.until("/api/topics?inactive=true", "the topic", func(a map[string]any) bool {
		topics, ok := a["topics"].(map[string]any)
		_, there := topics[s.topic]
		return ok && there == (s.real && s.lookupd != "")
	})
}
