package node_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// figures is what the tests read of /stats.
type figures struct {
	Scope   string
	Nodes   []string
	Missing []struct {
		Node   string
		Shard  int
		Reason string
	}
	Topics []struct {
		Name     string `json:"topic_name"`
		Depth    int64
		Messages int64 `json:"message_count"`
		Bytes    int64 `json:"message_bytes"`
		Channels []struct {
			Name     string `json:"channel_name"`
			Depth    int64
			Messages int64 `json:"message_count"`
			InFlight int64 `json:"in_flight_count"`
			Count    int   `json:"client_count"`
			Clients  []struct{ Node string }
		}
	}
}

// stats reads /stats of a node.
func (c *trio) stats(i int, query string) (f figures) {
	c.t.Helper()
	resp, err := http.Get("http://" + c.nodes[i].Addrs().HTTP + "/stats?format=json&include_mem=false" + query)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		c.t.Fatalf("%s answers %d %s: %v", c.names[i], resp.StatusCode, text, err)
	}
	return f
}

// whole is stats of the cluster when it misses nothing of it: a leader may be moving,
// and then it says so.
func (c *trio) whole(i int, query string) (f figures) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if f = c.stats(i, "&scope=cluster"+query); len(f.Missing) == 0 {
			return f
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s still misses %+v", c.names[i], f.Missing)
		}
	}
}

// untilDepth waits until a node finds so much in the cluster, which is never more.
func (c *trio) untilDepth(i int, want int64) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		f := c.stats(i, "&scope=cluster")
		depth := f.sum().depth
		if depth == want {
			return
		}
		if depth > want || time.Now().After(end) {
			c.t.Fatalf("%s finds %d messages, not %d: %+v", c.names[i], depth, want, f)
		}
	}
}

// sum is a topic's messages and depth, and those of its channels.
type sum struct{ messages, bytes, depth, given, waiting, held int64 }

func (f *figures) sum() (s sum) {
	for _, t := range f.Topics {
		s.messages += t.Messages
		s.bytes += t.Bytes
		s.depth += t.Depth
		for _, ch := range t.Channels {
			s.given += ch.Messages
			s.waiting += ch.Depth
			s.held += ch.InFlight
		}
	}
	return s
}

// added is the sum over the nodes' own figures.
func (c *trio) added() (s sum) {
	c.t.Helper()
	for i := range c.names {
		f := c.stats(i, "")
		one := f.sum()
		s.messages += one.messages
		s.bytes += one.bytes
		s.depth += one.depth
		s.given += one.given
		s.waiting += one.waiting
		s.held += one.held
	}
	return s
}

// moveLeaders hands the data shards over, from node to node, until it is told to stop.
func (c *trio) moveLeaders(stop <-chan struct{}, moves *atomic.Int64) {
	var admins []string
	for _, n := range c.nodes {
		admins = append(admins, n.Addrs().Admin)
	}
	for n := 0; ; n++ {
		shard, to := n%3+1, c.names[(n+n/3)%3]
		resp, err := http.Post("http://"+admins[n%3]+"/api/cluster/transfer", "application/json",
			strings.NewReader(fmt.Sprintf(`{"shard": %d, "to": %q}`, shard, to)))
		if err == nil {
			if resp.Body.Close(); resp.StatusCode == http.StatusOK {
				moves.Add(1)
			}
		}
		select {
		case <-stop:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// The nodes' figures add up to what was published, and the cluster's are right at every
// moment, while leaders move under load.
func TestStatsWhileLeadersMove(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.startAll()
	c.until(0, "all is well", healthy)
	var moves, begun, done atomic.Int64
	stopMoves, stop := make(chan struct{}), make(chan struct{})
	var movers, publishers sync.WaitGroup
	endMoves, end := sync.OnceFunc(func() { close(stopMoves) }), sync.OnceFunc(func() { close(stop) })
	defer movers.Wait()
	defer publishers.Wait()
	defer endMoves()
	defer end()
	movers.Go(func() { c.moveLeaders(stopMoves, &moves) })
	for i := range c.names {
		publishers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				begun.Add(1)
				c.publish(i, fmt.Sprintf("topic-%d", n%6), "four")
				done.Add(1)
			}
		})
	}
	whole := 0
	for n := 0; whole < 60 || moves.Load() < 30; n++ {
		from := done.Load()
		f := c.stats(n%3, "&scope=cluster")
		// A node that was leader counts what the next one has made fact when it hears so; on
		// a slow machine that may outlast a look, which then says that it is without that node.
		for end := time.Now().Add(10 * time.Second); (f.sum().messages < from || len(f.Nodes) < 3 && len(f.Missing) > 0) && time.Now().Before(end); {
			f = c.stats(n%3, "&scope=cluster")
		}
		to := begun.Load()
		s := f.sum()
		if f.Scope != "cluster" || len(f.Nodes) != 3 {
			t.Fatalf("look %d: %+v", n, f)
		}
		if len(f.Missing) == 0 {
			whole++
		} else { // on a slow machine a move may outlast a look; then it says so
			s.depth = max(s.depth, from)
		}
		if s.messages < from || s.messages > to || s.depth < from || s.depth > to {
			t.Fatalf("look %d: %+v where %d to %d were published", n, s, from, to)
		}
		time.Sleep(10 * time.Millisecond)
	}
	end()
	publishers.Wait()
	want := sum{messages: done.Load(), bytes: 4 * done.Load(), depth: done.Load()}
	restingSum := func(what string, want sum) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); { // followers hear of it
			f := c.stats(0, "&scope=cluster")
			s := f.sum()
			if s.messages > want.messages || s.given > want.given || s.depth > want.depth || s.waiting > want.waiting {
				t.Fatalf("%s: %+v, more than %+v", what, s, want)
			}
			if s == want {
				break
			}
		}
		for n := range 12 {
			if f := c.stats(n%3, "&scope=cluster"); f.sum() != want && len(f.Missing) == 0 {
				t.Fatalf("%s: %+v, not %+v: %+v", what, f.sum(), want, f)
			}
		}
	}
	restingSum("at rest", want)
	for i := range 6 {
		if code, text := c.ask("POST", fmt.Sprintf("http://%s/channel/create?topic=topic-%d&channel=ch", c.nodes[i%3].Addrs().HTTP, i)); code != 200 {
			t.Fatalf("create a channel: %d %s", code, text)
		}
	}
	want.depth, want.waiting, want.given = 0, want.messages, want.messages
	restingSum("with channels", want)
	endMoves()
	movers.Wait()
	got := c.added() // one after the other: the last move may be seen half
	for end := time.Now().Add(10 * time.Second); got != want && time.Now().Before(end); {
		got = c.added()
	}
	if got != want {
		t.Errorf("the nodes' own figures add up to %+v, not %+v, after %d moves", got, want, moves.Load())
	}
	t.Log(moves.Load(), "moves,", want.messages, "messages")
}

// With a node that is down the others say so, at once; filters are those of a node.
func TestStatsOfTheClusterWithoutANode(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.startAll()
	c.until(0, "all is well", healthy)
	for n := range 6 {
		c.publish(n%3, fmt.Sprintf("topic-%d", n%2), "x")
	}
	for i := range c.names {
		conn := subscribe(t, c.nodes[i].Addrs().TCP, "topic-0", "ch")
		defer conn.Close()
	}
	f := c.whole(1, "&topic=topic-0&channel=ch")
	if len(f.Topics) != 1 || len(f.Topics[0].Channels) != 1 || f.Topics[0].Channels[0].Count != 3 || len(f.Topics[0].Channels[0].Clients) != 3 {
		t.Fatalf("%+v", f)
	}
	seen := make(map[string]bool)
	for _, client := range f.Topics[0].Channels[0].Clients {
		seen[client.Node] = true
	}
	if s := f.sum(); len(seen) != 3 || s.messages != 3 || s.waiting != 3 {
		t.Errorf("%v, %+v", seen, s)
	}
	if f := c.whole(2, "&topic=topic-0&channel=no"); f.Topics == nil || len(f.Topics) != 0 {
		t.Errorf("an unknown channel: %+v", f)
	}
	if f := c.stats(2, "&scope=cluster&topic=no"); f.Topics != nil {
		t.Errorf("an unknown topic: %+v", f)
	}
	if code, _ := c.ask("GET", "http://"+c.nodes[0].Addrs().HTTP+"/stats?scope=world"); code != http.StatusBadRequest {
		t.Errorf("an unknown scope is answered with %d", code)
	}
	c.stop(2)
	for i := range 2 {
		began := time.Now()
		f := c.stats(i, "&scope=cluster&include_clients=false")
		if len(f.Nodes) != 2 || len(f.Missing) == 0 || f.Missing[0].Node != "c" || f.Missing[0].Reason == "" || time.Since(began) > 10*time.Second {
			t.Errorf("%s: %+v after %s", c.names[i], f, time.Since(began))
		}
		if s := f.sum(); s.depth > 6 {
			t.Errorf("%+v", s)
		}
		if _, text := c.ask("GET", "http://"+c.nodes[i].Addrs().HTTP+"/stats?scope=cluster"); !strings.Contains(text, "\nMissing: node c: ") {
			t.Errorf("%s: %s", c.names[i], text)
		}
	}
}
