//go:build linux

package chaos

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/test/rig"
)

// plainBinary is the tidings binary under test, faultsBinary the same with -tags
// faults. Tests that need them say so by name when they can't run, which
// test/chaos/run refuses.
func plainBinary(t *testing.T) string  { return rig.FromEnv(t, "CHAOS_BINARY", "test/chaos/run") }
func faultsBinary(t *testing.T) string { return rig.FromEnv(t, "CHAOS_FAULTS", "test/chaos/run") }

const (
	members    = 3
	dataShards = 4
)

// nodeFlags make segments small and checkpoints frequent, so that recycling,
// flushing and snapshots are under way when a fault comes.
var nodeFlags = []string{
	"--tcp-address", "127.0.0.1:4150", "--http-address", "127.0.0.1:4151", "--admin-address", "127.0.0.1:4180",
	"--log-format", "json", "--data-shards", fmt.Sprint(dataShards), "--wal-segment-size", "1MiB", "--segment-size", "4MiB",
	"--tail-size", "1MiB", "--checkpoint-size", "2MiB", "--checkpoint-age", "400ms",
}

// member is one node of the cluster, on a host of its own. Its clients are on the
// same host.
type member struct {
	*rig.Node
	host    *host
	cluster *testCluster
	trouble []span // times in which its clients may see errors; the last may be open
}

// testCluster is three nodes in a network.
type testCluster struct {
	t       *testing.T
	net     *network
	history *history
	members []*member

	patience time.Duration // with the start of nodes

	mu      sync.Mutex
	added   atomic.Int64           // data shards that were surely added
	leaders [dataShards + 1]string // by shard, as last seen; 0 is metadata
	terms   [dataShards + 1]uint64
	changes int
	gone    chan struct{}
	watch   sync.WaitGroup
}

// options of a cluster
type options struct {
	bin string
	env func(i int) []string // of a node; nil: nothing special
	dir func(i int) string   // for a node's data; nil: a folder of the test
	// lenient: publishers may be refused, a planted bug may do anything
	lenient  bool
	patience time.Duration // with the start of nodes; 0: rig.Patience
}

// newCluster starts three nodes and waits until they serve and are healthy.
func newCluster(t *testing.T, h *history, o options) *testCluster {
	t.Helper()
	c := &testCluster{t: t, net: newNetwork(t, members), history: h, gone: make(chan struct{}), patience: cmp.Or(o.patience, rig.Patience)}
	dir := rig.DataDir(t, os.Getenv("CHAOS_KEEP"))
	certs := filepath.Join(dir, "certs")
	if out, code := rig.Command(t, o.bin, "cluster", "cert", "--dir", certs, "a", "b", "c"); code != 0 {
		t.Fatalf("cluster cert: %s", out)
	}
	var seeds []string
	for _, h := range c.net.hosts {
		seeds = append(seeds, h.name+"="+h.addr+":4161")
	}
	for i, h := range c.net.hosts {
		data := filepath.Join(dir, h.name)
		if o.dir != nil {
			data = o.dir(i)
		}
		m := &member{host: h, cluster: c, Node: rig.NewNode(o.bin, data, append(slices.Clip(nodeFlags),
			"--node", h.name, "--seeds", strings.Join(seeds, ","), "--cluster-address", h.addr+":4161", "--cluster-ca", filepath.Join(certs, "ca.crt"),
			"--cluster-cert", filepath.Join(certs, h.name+".crt"), "--cluster-key", filepath.Join(certs, h.name+".key"))...)}
		m.Flags = append(m.Flags, strings.Fields(os.Getenv("CHAOS_FLAGS"))...)
		m.Through, m.Dial = h.through(), h.dial
		m.Addrs = rig.Addrs{TCP: "127.0.0.1:4150", HTTP: "127.0.0.1:4151", Admin: "127.0.0.1:4180"}
		if o.env != nil {
			m.Env = o.env(i)
		}
		c.members = append(c.members, m)
	}
	t.Cleanup(c.close)
	if err := c.launchAll(); err != nil {
		t.Fatal(err)
	}
	for _, m := range c.members {
		c.watch.Go(func() { c.observe(m) })
	}
	if err := c.settle(); err != nil {
		t.Fatal(err)
	}
	return c
}

// close ends the nodes, and tells what they said if the test failed.
func (c *testCluster) close() {
	close(c.gone)
	defer c.watch.Wait() // their connections end with the nodes
	for _, m := range c.members {
		if m.Cmd == nil {
			continue
		}
		m.Cmd.Process.Signal(syscall.SIGCONT)
		m.Kill()
		if c.t.Failed() {
			m.keepLog()
			c.t.Logf("last lines of node %s:\n%s", m.host.name, m.Log.Tail(30))
		}
	}
}

func (c *testCluster) launchAll() error {
	for _, m := range c.members {
		if m.Log != nil {
			m.keepLog()
		}
		if err := m.Launch(); err != nil {
			return err
		}
	}
	for _, m := range c.members {
		if err := m.served(); err != nil {
			return err
		}
	}
	return nil
}

// served waits until the process serves, and ends its trouble.
func (m *member) served() error {
	select {
	case <-m.Log.Served():
		m.calm(0)
		return nil
	case <-m.Exited():
		return fmt.Errorf("node %s: %w with %v: %s", m.host.name, rig.ErrExited, m.Cmd.ProcessState, m.Log.Tail(5))
	case <-time.After(m.cluster.patience):
		return fmt.Errorf("node %s does not serve after %s: %s", m.host.name, m.cluster.patience, m.Log.Tail(5))
	}
}

// --- trouble

// troubled notes that the node's clients may see errors from now on.
func (m *member) troubled(why string) {
	at := m.cluster.history.mark("node %s: %s", m.host.name, why)
	m.cluster.mu.Lock()
	defer m.cluster.mu.Unlock()
	m.trouble = append(m.trouble, span{from: at, to: 1 << 62, why: why})
}

// calm notes that they may not any more, from a moment on.
func (m *member) calm(after time.Duration) {
	at := m.cluster.history.mark("node %s: no excuse any more after %s", m.host.name, after)
	m.cluster.mu.Lock()
	defer m.cluster.mu.Unlock()
	if n := len(m.trouble); n > 0 {
		m.trouble[n-1].to = min(m.trouble[n-1].to, at+instant(after))
	}
}

// excused says whether the node was in trouble at any time since.
func (m *member) excused(since instant) bool {
	m.cluster.mu.Lock()
	defer m.cluster.mu.Unlock()
	n := len(m.trouble)
	return n > 0 && m.trouble[n-1].to >= since
}

// kill ends the process with SIGKILL.
func (m *member) kill() {
	m.troubled("killed")
	m.Kill()
}

// restart starts the process again and waits until it serves.
func (m *member) restart() error {
	m.keepLog()
	m.cluster.history.mark("node %s: starts", m.host.name)
	if err := m.Launch(); err != nil {
		return err
	}
	return m.served()
}

// keepLog appends what the process said to a file beside its data.
func (m *member) keepLog() {
	if f, err := os.OpenFile(filepath.Join(m.Dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644); err == nil {
		f.WriteString(m.Log.String())
		f.Close()
	}
}

// stop asks the process to end.
func (m *member) stop() error {
	m.troubled("asked to stop")
	took, code, err := m.Stop()
	m.cluster.history.mark("node %s: stopped after %s with %d", m.host.name, took.Round(time.Millisecond), code)
	if err == nil && code != 0 {
		err = fmt.Errorf("node %s exits with %d when asked to stop: %s", m.host.name, code, m.Log.Tail(5))
	}
	return err
}

// freeze stops the process in its tracks, thaw lets it go on.
func (m *member) freeze() error {
	m.troubled("SIGSTOP")
	return m.Cmd.Process.Signal(syscall.SIGSTOP)
}

func (m *member) thaw() error {
	m.cluster.history.mark("node %s: SIGCONT", m.host.name)
	return m.Cmd.Process.Signal(syscall.SIGCONT)
}

// --- what the cluster says

// status is the cluster as the node sees it.
func (m *member) status() (s cluster.Status, err error) {
	code, text, err := m.Admin("/api/cluster")
	if err != nil {
		return s, err
	}
	if code != 200 {
		return s, fmt.Errorf("GET /api/cluster: %d %s", code, text)
	}
	return s, json.Unmarshal([]byte(text), &s)
}

// changeWindow is how long around a change of leaders what was finished may come
// again: what a FIN changes is on its way to the log for 10 ms and a sync, and
// machine and observer take their time.
const changeWindow = instant(2 * time.Second)

// observe polls the node's status and notes changes of leaders.
func (c *testCluster) observe(m *member) {
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-c.gone:
			return
		case <-tick.C:
		}
		if s, err := m.status(); err == nil {
			c.observed(s)
		}
	}
}

func (c *testCluster) observed(s cluster.Status) {
	for _, shard := range s.Shards {
		if shard.Leader == "" || int(shard.ID) >= len(c.leaders) {
			continue
		}
		c.mu.Lock()
		before, changed := c.leaders[shard.ID], shard.Term > c.terms[shard.ID]
		if changed {
			c.leaders[shard.ID], c.terms[shard.ID] = shard.Leader, shard.Term
			if before != "" {
				c.changes++
			}
		}
		c.mu.Unlock()
		if changed {
			at := c.history.mark("shard %d is led by %s, before by %s (term %d)", shard.ID, shard.Leader, before, shard.Term)
			c.history.excuse(at-changeWindow, at+changeWindow, "leader changed")
		}
	}
}

// leader is the node that leads a shard as last seen; nil: none was seen.
func (c *testCluster) leader(shard int) *member {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.members {
		if m.host.name == c.leaders[shard] {
			return m
		}
	}
	return nil
}

// other is a member that is not among the given.
func (c *testCluster) other(not ...*member) *member {
next:
	for _, m := range c.members {
		for _, n := range not {
			if m == n {
				continue next
			}
		}
		return m
	}
	return nil
}

// settle waits until every node sees a healthy cluster in which nothing is
// behind.
func (c *testCluster) settle() error {
	var last error
	err := rig.Await(c.patience, func() (bool, error) {
		last = nil
		for _, m := range c.members {
			if err := m.settled(); err != nil {
				last = err
				return false, err
			}
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("the cluster does not become healthy: %w", err)
	}
	return last
}

// settled says what this node misses.
func (m *member) settled() error {
	s, err := m.status()
	if err != nil {
		return fmt.Errorf("node %s: %w", m.host.name, err)
	}
	m.cluster.observed(s)
	if !s.Healthy {
		return fmt.Errorf("node %s: %s", m.host.name, s.Waits)
	}
	if want := int(m.cluster.added.Load()) + dataShards + 1; len(s.Shards) < want {
		return fmt.Errorf("node %s knows %d shards, want %d", m.host.name, len(s.Shards), want)
	}
	for _, shard := range s.Shards {
		for _, r := range shard.Replicas {
			if !r.Live {
				return fmt.Errorf("node %s: %s is not live in shard %d", m.host.name, r.Node, shard.ID)
			}
		}
	}
	return nil
}
