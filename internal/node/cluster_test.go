package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/internal/node"
	"github.com/tidings-io/tidings/internal/transport"
	"github.com/tidings-io/tidings/internal/vfs"
)

// trio is a cluster in this process, on loopback addresses that nobody else
// uses, so that a node comes back to its port.
type trio struct {
	t     *testing.T
	dir   string
	names []string
	addrs []string
	nodes []*clusterNode
	tune  func(*config.Config)
	disk  func(i int) vfs.FS // nil: the system's
	log   testLog
}

// testLog is what the nodes log, shown when the test has failed.
type testLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// has reports whether something was logged.
func (l *testLog) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

type clusterNode struct {
	*node.Node
	cancel  context.CancelFunc
	ended   chan error
	serving chan struct{}
}

func newTrio(t *testing.T, names ...string) *trio {
	t.Helper()
	c := &trio{t: t, dir: t.TempDir(), names: names, nodes: make([]*clusterNode, len(names))}
	authority, err := transport.NewAuthority(time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, _, err := authority.PEM()
	if err != nil {
		t.Fatal(err)
	}
	c.write("ca", ca)
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(250), rand.IntN(250), 1+rand.IntN(250))
	for _, name := range names {
		cert, key, err := authority.Issue(name, nil, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		c.write(name+".crt", cert)
		c.write(name+".key", key)
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // only now: or two get the same
		c.addrs = append(c.addrs, l.Addr().String())
	}
	t.Cleanup(func() {
		c.stopAll()
		if t.Failed() {
			t.Log(c.log.text.String())
		}
	})
	return c
}

func (c *trio) write(name string, text []byte) {
	if err := os.WriteFile(filepath.Join(c.dir, name), text, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// start starts a node; it does not wait until it serves.
func (c *trio) start(i int) *clusterNode {
	c.t.Helper()
	cfg := config.Default()
	name := c.names[i]
	var seeds []string
	for k, n := range c.names {
		seeds = append(seeds, n+"="+c.addrs[k])
	}
	cfg.DataPath, cfg.Node, cfg.Seeds, cfg.ClusterAddress = filepath.Join(c.dir, "data-"+name), name, strings.Join(seeds, ","), c.addrs[i]
	cfg.ClusterCA, cfg.ClusterCert, cfg.ClusterKey = filepath.Join(c.dir, "ca"), filepath.Join(c.dir, name+".crt"), filepath.Join(c.dir, name+".key")
	cfg.TCPAddress, cfg.HTTPAddress, cfg.AdminAddress = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.LookupTCPAddress, cfg.LookupHTTPAddress, cfg.NSQAdminHTTPAddress = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.WALSegmentSize, cfg.DataShards, cfg.DrainTimeout = 1<<20, 3, 10*time.Millisecond
	if c.tune != nil {
		c.tune(&cfg)
	}
	logger := slog.New(slog.NewTextHandler(&c.log, nil)).With("node", name)
	disk := vfs.Default()
	if c.disk != nil {
		disk = c.disk(i)
	}
	n, err := node.New(node.Options{Config: cfg, FS: disk, Logger: logger, LogLevel: new(slog.LevelVar)})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &clusterNode{Node: n, cancel: cancel, ended: make(chan error, 1), serving: make(chan struct{})}
	go func() { r.ended <- n.Run(ctx, func() { close(r.serving) }) }()
	c.nodes[i] = r
	return r
}

func (c *trio) startAll() {
	c.t.Helper()
	for i := range c.names {
		c.start(i)
	}
	for _, n := range c.nodes {
		c.serves(n)
	}
}

func (c *trio) serves(n *clusterNode) {
	c.t.Helper()
	select {
	case <-n.serving:
	case err := <-n.ended:
		c.t.Fatalf("node ended before it served: %v", err)
	case <-time.After(time.Minute):
		c.t.Fatal("node does not serve")
	}
}

// stop stops a node as SIGTERM does.
func (c *trio) stop(i int) {
	c.t.Helper()
	n := c.nodes[i]
	c.nodes[i] = nil
	n.cancel()
	if err := <-n.ended; err != nil {
		c.t.Errorf("node %s: %v", c.names[i], err)
	}
}

func (c *trio) stopAll() {
	for i, n := range c.nodes {
		if n != nil {
			c.stop(i)
		}
	}
}

// until waits for the status of a node to be as wanted.
func (c *trio) until(i int, what string, wanted func(cluster.Status) bool) cluster.Status {
	c.t.Helper()
	var s cluster.Status
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		s = c.status(i)
		if wanted(s) {
			return s
		}
		if time.Now().After(end) {
			text, _ := json.MarshalIndent(s, "", " ")
			c.t.Fatalf("node %s: waited in vain until %s:\n%s", c.names[i], what, text)
		}
	}
}

func (c *trio) status(i int) (s cluster.Status) {
	c.t.Helper()
	resp, err := http.Get("http://" + c.nodes[i].Addrs().Admin + "/api/cluster")
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		c.t.Fatal(err)
	}
	return s
}

func healthy(s cluster.Status) bool { return s.Healthy }

func TestClusterFormsAndComesBack(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.start(0)
	c.until(0, "it waits for the others", func(s cluster.Status) bool {
		return s.Stage == "empty" && len(s.Notes) == 2 && !s.Healthy
	})
	c.stop(0)
	c.start(0)
	b, last := c.start(1), c.start(2)
	for _, n := range []*clusterNode{c.nodes[0], b, last} {
		c.serves(n)
	}
	id := c.until(0, "all is well", healthy).Cluster
	for i := range c.names {
		s := c.until(i, "all is well", healthy)
		if s.Cluster != id || len(s.Nodes) != 3 || len(s.Shards) != 4 {
			t.Errorf("%s: cluster %s, %d nodes, %d shards", c.names[i], s.Cluster, len(s.Nodes), len(s.Shards))
		}
	}
	c.stop(1)
	c.until(0, "b is missed", func(s cluster.Status) bool { return strings.Contains(s.Waits, "node b") })
	c.serves(c.start(1))
	c.until(0, "b is back", healthy)
}

// A member whose disk is gone comes back under a new Raft id, and carries all it
// had to carry.
func TestWipedMemberComesBack(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.startAll()
	c.until(0, "all is well", healthy)
	c.stop(2)
	if err := os.RemoveAll(filepath.Join(c.dir, "data-c")); err != nil {
		t.Fatal(err)
	}
	c.start(2)
	c.serves(c.nodes[2])
	s := c.until(0, "c is back", func(s cluster.Status) bool { return s.Healthy && len(s.Nodes) == 4 })
	for _, sh := range s.Shards {
		for _, r := range sh.Replicas {
			if r.Node == "c" && (!r.Live || r.Role != "voter") {
				t.Errorf("shard %d: %+v", sh.ID, r)
			}
		}
	}
}

// A member whose log breaks while it waits for the metadata ends, as it does
// when it serves.
func TestLogThatBreaksBeforeTheNodeServes(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	broken := vfs.NewFault(vfs.Default())
	c.disk = func(i int) vfs.FS {
		if i == 2 {
			return broken
		}
		return vfs.Default()
	}
	broken.Fail(vfs.OpWrite, "*.wal", syscall.EIO)
	for i := range c.names {
		c.start(i)
	}
	n := c.nodes[2]
	c.nodes[2] = nil
	select {
	case err := <-n.ended:
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("ended with %v", err)
		}
	case <-n.serving:
		t.Error("it serves without a log")
		n.cancel()
	case <-time.After(time.Minute):
		t.Error("it goes on without a log")
		n.cancel()
	}
}

func TestLeadershipMoves(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.startAll()
	c.until(0, "all is well", healthy)
	s := c.until(0, "shard 1 has a leader", func(s cluster.Status) bool { return s.Shards[1].Leader != "" })
	to := c.names[(strings.Index("abc", s.Shards[1].Leader)+1)%3]
	for i := range c.names { // whoever is asked; again, because it goes back where it belongs
		asked := false
		c.until(i, "it leads", func(s cluster.Status) bool {
			if asked && s.Shards[1].Leader == to {
				return true
			}
			asked = true
			resp, err := http.Post("http://"+c.nodes[i].Addrs().Admin+"/api/cluster/transfer", "application/json",
				strings.NewReader(`{"shard": 1, "to": "`+to+`"}`))
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s answers %d", c.names[i], resp.StatusCode)
			}
			return false
		})
	}
}

// publish publishes through a node, and expects it to be acknowledged.
func (c *trio) publish(i int, topic, body string) {
	c.t.Helper()
	resp, err := http.Post("http://"+c.nodes[i].Addrs().HTTP+"/pub?topic="+topic, "text/plain", strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		c.t.Fatalf("node %s answers a publish with %d %s", c.names[i], resp.StatusCode, text)
	}
}

// A member whose log is damaged below what was durable gives up what it has, and
// comes back as one whose disk is gone.
func TestMemberWithADamagedLogComesBack(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.startAll()
	c.until(0, "all is well", healthy)
	for i := range 30 {
		c.publish(i%3, "orders", fmt.Sprintf("needle %d", i))
	}
	was := c.status(2).Nodes
	c.stop(2)
	c.flip(filepath.Join(c.dir, "data-c", "wal", "*.wal"), "needle 3")
	c.start(2)
	c.serves(c.nodes[2])
	c.until(0, "c is back", func(s cluster.Status) bool { return s.Healthy && len(s.Nodes) == len(was)+1 })
	c.publish(2, "orders", "one more")
}

// flip flips a bit of the files where the text stands.
func (c *trio) flip(glob, text string) {
	c.t.Helper()
	files, err := filepath.Glob(glob)
	if err != nil {
		c.t.Fatal(err)
	}
	found := false
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			c.t.Fatal(err)
		}
		if i := bytes.Index(b, []byte(text)); i >= 0 {
			b[i] ^= 1
			if err := os.WriteFile(name, b, 0o600); err != nil {
				c.t.Fatal(err)
			}
			found = true
		}
	}
	if !found {
		c.t.Fatalf("%q stands in none of %v", text, files)
	}
}

// Of five nodes three carry each data shard; the others publish to it all the
// same. One node alone is a cluster too.
func TestOneAndFiveSeeds(t *testing.T) {
	t.Parallel()
	for _, names := range [][]string{{"a"}, {"a", "b", "c", "d", "e"}} {
		c := newTrio(t, names...)
		c.startAll()
		s := c.until(0, "all is well", healthy)
		if want := min(3, len(names)); len(s.Nodes) != len(names) || len(s.Shards[0].Replicas) != len(names) || len(s.Shards[1].Replicas) != want {
			t.Errorf("%d seeds: %+v", len(names), s)
		}
		for i := range names {
			for k := range 3 {
				c.publish(i, fmt.Sprintf("t%d", k), "hello")
			}
		}
	}
}

// A topic may be acknowledged by its leader alone; /stats says so on every node.
func TestAckOfTopics(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.startAll()
	c.until(0, "all is well", healthy)
	post := func(i int, path string) int {
		resp, err := http.Post("http://"+c.nodes[i].Addrs().HTTP+path, "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := post(1, "/topic/create?topic=fast&ack=leader"); got != http.StatusOK {
		t.Fatalf("create answers %d", got)
	}
	if got := post(1, "/topic/create?topic=fast&ack=nobody"); got != http.StatusBadRequest {
		t.Errorf("a wrong ack is answered with %d", got)
	}
	c.publish(0, "safe", "x")
	for i := range 30 {
		c.publish(i%3, "fast", fmt.Sprint(i))
	}
	if got := post(2, "/pub?topic=fast&id=7"); got != http.StatusBadRequest {
		t.Errorf("an id is answered with %d", got)
	}
	for i := range c.names {
		resp, err := http.Get("http://" + c.nodes[i].Addrs().HTTP + "/stats?format=json")
		if err != nil {
			t.Fatal(err)
		}
		var s struct {
			Topics []struct {
				Name string `json:"topic_name"`
				Ack  string
			}
		}
		err = json.NewDecoder(resp.Body).Decode(&s)
		resp.Body.Close()
		if err != nil || len(s.Topics) != 2 || s.Topics[0].Ack != "leader" || s.Topics[1].Ack != "quorum" {
			t.Errorf("%s: %v, %+v", c.names[i], err, s)
		}
	}
}
