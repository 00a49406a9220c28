//go:build linux

package clients

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/test/rig"
)

// names are those of the nodes; clients that know one address know the first node's,
// which is never killed.
var names = []string{"a", "b", "c"}

// testCluster is three nodes on the loopback of a namespace of their own.
type testCluster struct {
	t     *testing.T
	nodes []*rig.Node
}

// lookup is the address of a node's lookup.
func lookup(i int) string { return fmt.Sprintf("127.0.0.1:%d", 4163+100*i) }

// newCluster starts three nodes whose topics are all in one shard.
func newCluster(t *testing.T) *testCluster {
	t.Helper()
	bin := rig.FromEnv(t, "CLIENTS_BINARY", "test/clients/run")
	dir := rig.DataDir(t, "")
	certs := filepath.Join(dir, "certs")
	if out, code := rig.Command(t, bin, append([]string{"cluster", "cert", "--dir", certs}, names...)...); code != 0 {
		t.Fatalf("cluster cert: %s", out)
	}
	var seeds []string
	at := func(i, port int) string { return fmt.Sprintf("127.0.0.1:%d", port+100*i) }
	for i, name := range names {
		seeds = append(seeds, name+"="+at(i, 4190))
	}
	c := &testCluster{t: t}
	for i, name := range names {
		n := rig.NewNode(bin, filepath.Join(dir, name), "--node", name, "--seeds", strings.Join(seeds, ","),
			"--cluster-ca", filepath.Join(certs, "ca.crt"), "--cluster-cert", filepath.Join(certs, name+".crt"), "--cluster-key", filepath.Join(certs, name+".key"),
			"--cluster-address", at(i, 4190), "--tcp-address", at(i, 4150), "--http-address", at(i, 4151), "--admin-address", at(i, 4180),
			"--lookup-tcp-address", at(i, 4162), "--lookup-http-address", lookup(i), "--nsqadmin-http-address=",
			"--broadcast-address", "127.0.0.1", "--data-shards", "1")
		c.nodes = append(c.nodes, n)
	}
	t.Cleanup(c.close)
	for _, n := range c.nodes {
		if err := n.Launch(); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.nodes {
		served(t, n)
	}
	return c
}

func (c *testCluster) close() {
	for i, n := range c.nodes {
		if n.Cmd == nil {
			continue
		}
		n.Kill()
		if c.t.Failed() {
			c.t.Logf("last lines of node %s:\n%s", names[i], n.Log.Tail(30))
		}
	}
}

// served waits until a node that was launched serves.
func served(t *testing.T, n *rig.Node) {
	t.Helper()
	select {
	case <-n.Log.Served():
		n.Addrs = n.Log.Addrs()
	case <-n.Exited():
		t.Fatalf("a node has exited: %s", n.Log.Tail(5))
	case <-time.After(rig.Patience):
		t.Fatalf("a node does not serve: %s", n.Log.Tail(5))
	}
}

// leader is who leads the shard of all topics while nothing is missing in the cluster;
// -1: that is not so, as far as node a knows.
func (c *testCluster) leader() int {
	code, body, err := c.nodes[0].Admin("/api/cluster")
	var st cluster.Status
	if err != nil || code != 200 || json.Unmarshal([]byte(body), &st) != nil || !st.Healthy {
		return -1
	}
	for _, sh := range st.Shards {
		for i, name := range names {
			if sh.ID == 1 && sh.Leader == name {
				return i
			}
		}
	}
	return -1
}

// leads brings the leadership to a node.
func (c *testCluster) leads(want int) {
	c.t.Helper()
	rig.Eventually(c.t, "node "+names[want]+" leads", func() (bool, error) {
		if c.leader() == want {
			return true, nil
		}
		out, _ := rig.Command(c.t, c.nodes[0].Bin, "cluster", "transfer", "--shard", "1", "--to", names[want], "--admin", c.nodes[0].Addrs.Admin)
		return c.leader() == want, fmt.Errorf("%s", out)
	})
}

// flow publishes numbers to the topic through node a, one by one, and again what was
// refused, until ctx ends; it counts in acked those that are acknowledged.
func (c *testCluster) flow(ctx context.Context, topic string, every time.Duration, acked *atomic.Int64) {
	for ctx.Err() == nil {
		code, _, err := c.nodes[0].Post("/pub?topic="+topic, fmt.Append(nil, acked.Load()))
		if err == nil && code == 200 {
			acked.Add(1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
}

// number is a setting of the environment.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	n := otherwise
	if s := os.Getenv(name); s != "" {
		if _, err := fmt.Sscan(s, &n); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return n
}
