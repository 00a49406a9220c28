package node_test

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	gonsq "github.com/nsqio/go-nsq"

	"github.com/tidings-io/tidings/internal/front/admin"
)

// Any member answers for all: what one leads, another shows and changes.
func TestAdminOfACluster(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.startAll()
	for i := range c.names {
		c.until(i, "all is well", healthy)
	}
	contract := readContract(t)
	var apis []*api
	for i := range c.names {
		apis = append(apis, &api{t, "http://" + c.nodes[i].Addrs().Admin, contract})
	}
	apis[0].ok("POST", "/api/v1/topics", `{"name": "orders", "ack": "leader"}`, nil)
	apis[1].ok("POST", "/api/v1/topics/orders/channels", `{"name": "audit"}`, nil)
	apis[2].ok("POST", "/api/v1/topics/orders/messages", `{"messages": [{"text": "x"}, {"text": "y"}]}`, nil)
	apis[1].ok("PATCH", "/api/v1/topics/orders", `{"ack": "quorum"}`, nil)
	for i, a := range apis {
		a.everywhere(i, c.names)
	}
	apis[0].moves()
	apis[0].homes(apis)
	c.changesMemory()
	c.held(apis)
	c.publish(0, "other", "z")
	metrics := make(map[string]metric)
	for _, a := range apis {
		for name, m := range metricsOf(t, a.base) {
			if metrics[name].labels == "" {
				metrics[name] = m
			}
		}
	}
	metricsDocumented(t, metrics)
	c.loses(apis[0])
}

// everywhere looks at one node's answers.
func (a *api) everywhere(i int, names []string) {
	t := a.t
	var diagnosis admin.Diagnosis
	a.ok("GET", "/api/v1/diagnosis", "", &diagnosis)
	if len(diagnosis.Nodes) != len(names) || diagnosis.FeatureLevel != diagnosis.Nodes[0].FeatureLevel || len(diagnosis.Missing) != 0 {
		t.Errorf("diagnosis: %+v", diagnosis)
	}
	for k, n := range diagnosis.Nodes { // one machine, one clock
		if n.Node != names[k] || n.Self != (k == i) || math.Abs(n.ClockOffsetMs) > n.ClockErrorMs+1 || len(n.Certificates) != 2 || n.Certificates[0].ExpiresAt == 0 || n.Certificates[1].ExpiresAt == 0 {
			t.Errorf("diagnosis of %s: %+v", names[k], n)
		}
	}
	var d admin.TopicDetail
	eventually(t, "the topic is known", func() bool {
		a.ok("GET", "/api/v1/topics/orders", "", &d)
		return d.Partitions[0].Known && d.Partitions[0].End == 2 && d.Backlog == 2 && d.AckEffective == "quorum" && len(d.Missing) == 0
	})
	if !slices.Contains(names, d.Partitions[0].Leader) || len(d.Partitions[0].Replicas) != 3 {
		t.Errorf("%s: topic: %+v", names[i], d)
	}
	var p admin.MessagePage
	if a.ok("GET", "/api/v1/topics/orders/messages", "", &p); len(p.Items) != 2 || string(p.Items[1].Body) != "y" {
		t.Errorf("%s: browse: %+v", names[i], p)
	}
	eventually(t, names[i]+" shows what waits in the channel", func() bool { // its leader may be moving, and then it says so
		a.ok("GET", "/api/v1/topics/orders/channels/audit/messages", "", &p)
		if len(p.Missing) == 0 && len(p.Items) != 2 {
			t.Fatalf("%s: peek: %+v", names[i], p)
		}
		return len(p.Missing) == 0
	})
	var m admin.Message
	a.ok("GET", "/api/v1/topics/orders/messages/0/1", "", &m)
	var o admin.Overview
	eventually(t, names[i]+" sees three live nodes and leaders everywhere", func() bool { // they may move on a busy machine
		a.ok("GET", "/api/v1/overview", "", &o)
		other := slices.ContainsFunc(o.Nodes, func(n admin.NodeRow) bool { return !n.Answered || n.State != "live" || n.Self != (n.Name == names[i]) })
		return !other && len(o.Nodes) == 3 && o.Totals.Backlog == 2 && o.Totals.Topics == 1 && o.Shards.Leaderless == 0
	})
	var self admin.Self
	if a.ok("GET", "/api/v1/self", "", &self); self.Alone || self.Node != names[i] {
		t.Errorf("%s: self %+v", names[i], self)
	}
}

// moves hands a shard over.
func (a *api) moves() {
	var s admin.ShardList
	a.ok("GET", "/api/v1/shards", "", &s)
	i := slices.IndexFunc(s.Items[1].Replicas, func(r admin.Replica) bool { return r.Node != s.Items[1].Leader })
	to, before := s.Items[1].Replicas[i].Node, s.Items[1].LeaderChanges
	a.ok("POST", "/api/v1/shards/1/transfer", fmt.Sprintf(`{"to": %q}`, to), nil)
	a.refused("POST", "/api/v1/shards/1/transfer", `{"to": "nobody"}`, 400, "INVALID_REQUEST")
	eventually(a.t, "it leads, or did before the shard went back where it belongs", func() bool {
		a.ok("GET", "/api/v1/shards", "", &s)
		return s.Items[1].LeaderChanges > before
	})
	back := s.Items[1].Preferred
	eventually(a.t, "it is back where it belongs", func() bool {
		a.do("POST", "/api/v1/shards/1/transfer", fmt.Sprintf(`{"to": %q}`, back))
		a.ok("GET", "/api/v1/shards", "", &s)
		return s.Items[1].Leader == back
	})
}

// homes uses an ephemeral topic through nodes that it does not live on.
func (a *api) homes(all []*api) {
	t := a.t
	const topic = "/api/v1/topics/live%23ephemeral"
	all[0].ok("POST", "/api/v1/topics", `{"name": "live#ephemeral"}`, nil)
	for i, other := range all {
		eventually(t, "it is known", func() bool {
			status, _ := other.do("GET", topic, "")
			return status == http.StatusOK
		})
		other.ok("POST", topic+"/messages", fmt.Sprintf(`{"messages": [{"text": "from %d"}]}`, i), nil)
	}
	for i, other := range all {
		var p admin.MessagePage
		if other.ok("GET", topic+"/messages", "", &p); len(p.Items) != 3 || string(p.Items[2].Body) != "from 2" {
			t.Errorf("node %d: browse: %+v", i, p)
		}
		var d admin.TopicDetail
		if other.ok("GET", topic, "", &d); d.Home == "" || d.Waiting != 3 {
			t.Errorf("node %d: topic: %+v", i, d)
		}
	}
	all[1].ok("POST", topic+"/channels", `{"name": "tail"}`, nil)
	all[2].ok("POST", topic+"/channels/tail/pause", "", nil)
	eventually(t, "the channel is paused, and has what waited", func() bool {
		var ch admin.ChannelDetail
		all[0].ok("GET", topic+"/channels/tail", "", &ch)
		return ch.Paused && ch.Backlog == 3
	})
	all[2].ok("POST", topic+"/channels/tail/empty", "", nil)
	all[2].ok("DELETE", topic, "", nil)
}

// changesMemory changes an ephemeral topic, and a channel of its, over each node's HTTP,
// as NSQ's tools do.
func (c *trio) changesMemory() {
	const topic = "?topic=now%23ephemeral"
	c.post(0, "/channel/create"+topic+"&channel=stays", "", http.StatusNotFound)
	c.post(0, "/topic/create"+topic, "", http.StatusOK)
	c.post(0, "/channel/create"+topic+"&channel=stays", "", http.StatusOK) // the topic goes with its last one
	for i := range c.nodes {
		eventually(c.t, "the topic is known", func() bool {
			code, _ := c.ask("POST", "http://"+c.nodes[i].Addrs().HTTP+"/topic/pause"+topic)
			return code == http.StatusOK
		})
		c.post(i, "/topic/unpause"+topic, "", http.StatusOK)
		c.post(i, "/topic/empty"+topic, "", http.StatusOK)
		channel := topic + fmt.Sprint("&channel=tail", i)
		for _, verb := range []string{"pause", "unpause", "empty", "delete"} {
			c.post(i, "/channel/"+verb+topic+fmt.Sprint("&channel=none", i), "", http.StatusNotFound)
		}
		c.post((i+1)%len(c.nodes), "/channel/create"+channel, "", http.StatusOK)
		for _, verb := range []string{"pause", "unpause", "empty", "delete"} {
			c.post(i, "/channel/"+verb+channel, "", http.StatusOK)
		}
		c.post(i, "/channel/delete"+channel, "", http.StatusNotFound)
	}
	c.post(1, "/topic/delete"+topic, "", http.StatusOK)
}

// held shows a message in flight to nodes that do not deliver it.
func (c *trio) held(apis []*api) {
	t := c.t
	var d admin.TopicDetail
	leader := -1
	eventually(t, "the topic has a leader", func() bool {
		apis[0].ok("GET", "/api/v1/topics/orders", "", &d)
		leader = slices.Index(c.names, d.Partitions[0].Leader)
		return leader >= 0
	})
	got := make(chan *gonsq.Message, 2)
	consume(t, c.nodes[leader].Addrs().TCP, "orders", "audit", 1, func(m *gonsq.Message) bool {
		got <- m
		return true
	})
	m := <-got
	for i, a := range apis {
		var p admin.MessagePage
		eventually(t, "it is in flight", func() bool {
			a.ok("GET", "/api/v1/topics/orders/channels/audit/messages?state=in_flight", "", &p)
			return len(p.Items) == 1 && string(p.Items[0].Body) == "x"
		})
		var l admin.Page[admin.Consumer]
		a.ok("GET", "/api/v1/topics/orders/channels/audit/consumers", "", &l)
		if l.Total != 1 || l.Items[0].Node != c.names[leader] {
			t.Errorf("node %d: consumers: %+v", i, l)
		}
	}
	m.Finish()
	(<-got).Finish()
	eventually(t, "all is finished", func() bool {
		apis[0].ok("GET", "/api/v1/topics/orders", "", &d)
		return d.Backlog+d.InFlight == 0
	})
}

// loses shows that a node is down.
func (c *trio) loses(a *api) {
	c.stop(2)
	began := time.Now()
	var o admin.Overview
	eventually(c.t, "the overview says so", func() bool {
		a.ok("GET", "/api/v1/overview", "", &o)
		return !o.Healthy && slices.ContainsFunc(o.Findings, func(f admin.Finding) bool {
			return f.Code == "node_down" && f.Target.Node == "c" && f.Link == "/nodes/c" && strings.Contains(f.Text, "node c")
		})
	})
	c.t.Logf("the overview shows the node down after %s", time.Since(began).Round(time.Millisecond))
	var page admin.Page[admin.TopicRow]
	if a.ok("GET", "/api/v1/topics", "", &page); page.Total != 2 {
		c.t.Errorf("topics without a node: %+v", page)
	}
}
