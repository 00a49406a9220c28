package lookup

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/config"
)

// own is the row's node as /lookup names it.
const own = `$n}`

// nsqdDo asks the node's nsqd API, and wants the status.
func nsqdDo(line, body string, status int) step {
	return func(k *talk) {
		k.t.Helper()
		if code, got := k.nsqd(line, body); code != status {
			k.t.Fatalf("%s: want %d, got %d %s", k.expand(line), status, code, got)
		}
	}
}

func (k *talk) nsqd(line, body string) (int, string) {
	k.t.Helper()
	method, path, _ := strings.Cut(k.expand(line), " ")
	return ask(k.t, method, "http://"+k.at.nsqd+path, body)
}

// ask makes a request.
func ask(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(got)
}

// depths are the messages that wait in a topic, under "", and in its channels.
func depths(t *testing.T, nsqd, topic string) map[string]int64 {
	t.Helper()
	_, got := ask(t, "GET", "http://"+nsqd+"/stats?format=json&topic="+topic, "")
	var s struct {
		Topics []struct {
			Depth    int64
			Channels []struct {
				Name  string `json:"channel_name"`
				Depth int64
			}
		}
	}
	if err := json.Unmarshal([]byte(got), &s); err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	out := make(map[string]int64)
	for _, topic := range s.Topics {
		out[""] = topic.Depth
		for _, c := range topic.Channels {
			out[c.Name] = c.Depth
		}
	}
	return out
}

// holds wants the row's topic to be there with a message in the channel; "" is
// the topic itself.
func holds(channel string) step {
	return func(k *talk) {
		k.t.Helper()
		if d := depths(k.t, k.at.nsqd, k.topic); d[channel] != 1 {
			k.t.Fatalf("depths are %v", d)
		}
	}
}

// filled makes the row's topic with a message that waits in it.
var filled = nsqdDo("POST /pub?topic=$t", "kept", 200)

// tombstoned wants /nodes to show the row's topic for the node, with or without
// a tombstone.
func tombstoned(want bool) step {
	return func(k *talk) {
		k.t.Helper()
		_, got := k.do("GET /nodes")
		var answer struct {
			Producers []struct {
				Address    string `json:"remote_address"`
				Tombstones []bool
				Topics     []string
			}
		}
		if err := json.Unmarshal([]byte(got), &answer); err != nil {
			k.t.Fatal(err)
		}
		for _, p := range answer.Producers {
			if !strings.Contains(k.at.node, `"`+p.Address+`"`) {
				continue
			}
			i := slices.Index(p.Topics, k.topic)
			if i < 0 || len(p.Tombstones) != len(p.Topics) || p.Tombstones[i] != want {
				k.t.Fatalf("want %s with a tombstone: %v\n got %s", k.topic, want, got)
			}
			return
		}
		k.t.Fatalf("the node is not in %s", got)
	}
}

// subscribes opens a consumer on the node itself; gone ends it.
func subscribes(channel string) step {
	return func(k *talk) {
		k.t.Helper()
		nsqdTCP := strings.Split(k.at.node, `"`)[3] // its remote_address
		k.conn = consumer(k.t, nsqdTCP, k.topic, channel)
	}
}

// TestNode holds what a node says of its own topics (section 11), and that
// nsqlookupd's calls and nsqadmin's lose nothing (section 10).
func TestNode(t *testing.T) {
	if _, ok := given("TIDINGS_LOOKUP"); ok {
		t.Log("not asked of a real nsqlookupd")
		return
	}
	node := startNode(t, config.Default())
	tombstone := post("/topic/tombstone?topic=$t&node=127.0.0.1:"+node.nsqd[strings.LastIndex(node.nsqd, ":")+1:], 200, "")
	runRows(t, []target{node}, []row{
		rule("a topic is found", filled, found(``, own), has("GET /topics", "topics", `"$t"`, true), tombstoned(false)),
		rule("a channel is found", nsqdDo("POST /topic/create?topic=$t", "", 200), nsqdDo("POST /channel/create?topic=$t&channel=c", "", 200), found(`"c"`, own)),
		rule("an ephemeral channel is found while it lives", filled, subscribes("c#ephemeral"), found(`"c#ephemeral"`, own), gone, eventually("GET /channels?topic=$t", 200, `{"channels":[]}`)),
		rule("an ephemeral topic is found while it lives", nsqdDo("POST /topic/create?topic=$t%23ephemeral", "", 200), get("/lookup?topic=$t%23ephemeral", 200, `{"channels":[],"producers":[`+own+`]}`)),
		rule("a topic that was deleted is not found", filled, found(``, own), nsqdDo("POST /topic/delete?topic=$t", "", 200), get("/lookup?topic=$t", 404, message("TOPIC_NOT_FOUND")), has("GET /topics", "topics", `"$t"`, false)),
		rule("the node stands beside nsqds that have registered", filled, nsqd, does("REGISTER $t c"), nsqdDo("POST /channel/create?topic=$t&channel=d", "", 200), found(`"c","d"`, own+`,`+shown+`}`)),
		rule("a node that registers with itself is named once", filled, hello, func(k *talk) {
			identify(k.at.node + `}`)(k)
		}, identified, does("REGISTER $t"), found(``, own), count2("/nodes", own)),

		rule("create makes the topic", post("/topic/create?topic=$t", 200, ""), nsqdDo("POST /topic/pause?topic=$t", "", 200), found(``, own)),
		rule("create makes the topic once", filled, post("/topic/create?topic=$t", 200, ""), holds("")),
		rule("create makes the channel and its topic", post("/channel/create?topic=$t&channel=c", 200, ""), found(`"c"`, own), filled, holds("c")),
		rule("delete of a topic leaves the node's own", filled, nsqd, does("REGISTER $t c"), post("/topic/delete?topic=$t", 200, ""), found(``, own), holds("")),
		rule("delete of a channel leaves the node's own", post("/channel/create?topic=$t&channel=c", 200, ""), filled, nsqd, does("REGISTER $t c"), post("/channel/delete?topic=$t&channel=c", 200, ""), found(`"c"`, own+`,`+shown+`}`), holds("c")),
		rule("delete of a channel of the node's own is 200", post("/channel/create?topic=$t&channel=c", 200, ""), post("/channel/delete?topic=$t&channel=c", 200, ""), post("/channel/delete?topic=$t&channel=d", 404, message("CHANNEL_NOT_FOUND"))),

		rule("a tombstone hides the node, not the topic", filled, tombstone, found(``, ``), tombstoned(true), has("GET /topics", "topics", `"$t"`, true)),
		rule("a tombstone hides the node from one topic", filled, nsqdDo("POST /topic/create?topic=$t-2", "", 200), tombstone, get("/lookup?topic=$t-2", 200, `{"channels":[],"producers":[`+own+`]}`)),
		rule("a tombstone of another node does nothing", filled, post("/topic/tombstone?topic=$t&node=127.0.0.1:1", 200, ""), found(``, own)),
		rule("nsqadmin's delete on one node loses nothing", filled, nsqdDo("POST /channel/create?topic=$t&channel=c", "", 200), tombstone, nsqdDo("POST /topic/delete?topic=$t", "", 200), found(`"c"`, ``), holds("c")),
		rule("without a tombstone a delete deletes", filled, nsqdDo("POST /topic/delete?topic=$t", "", 200), nsqdDo("POST /topic/delete?topic=$t", "", 404)),
	})
}

// count2 wants an entry of a list to begin with a text exactly once.
func count2(path, want string) step {
	return func(k *talk) {
		k.t.Helper()
		_, got := k.do("GET " + path)
		if n := strings.Count(got, strings.TrimSuffix(k.expand(want), "}")); n != 1 {
			k.t.Fatalf("%s: %s is there %d times in\n%s", path, k.expand(want), n, got)
		}
	}
}

// TestNodeTimes: a tombstone on the node passes, and with it what it protects.
func TestNodeTimes(t *testing.T) {
	if _, ok := given("TIDINGS_LOOKUP"); ok {
		t.Log("not asked of a real nsqlookupd")
		return
	}
	cfg := config.Default()
	cfg.TombstoneLifetime = 200 * time.Millisecond
	node := startNode(t, cfg)
	runRows(t, []target{node}, []row{
		rule("a tombstone passes", filled, post("/topic/tombstone?topic=$t&node="+node.nsqd, 200, ""), eventually("GET /lookup?topic=$t", 200, `{"channels":[],"producers":[`+own+`]}`), tombstoned(false),
			nsqdDo("POST /topic/delete?topic=$t", "", 200), get("/lookup?topic=$t", 404, message("TOPIC_NOT_FOUND"))),
	})
}
