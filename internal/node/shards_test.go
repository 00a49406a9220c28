package node_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/vfs"
)

// addShards asks a node for more shards, and returns the status of the answer and
// what it says.
func (c *trio) addShards(i, count int) (status int, ids []int, text string) {
	c.t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+c.nodes[i].Addrs().Admin+"/api/v1/shards", strings.NewReader(fmt.Sprintf(`{"count": %d}`, count)))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("X-Tidings", "1")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	var body struct{ Shards []int }
	_ = json.Unmarshal(answer, &body)
	return resp.StatusCode, body.Shards, string(answer)
}

// carried waits until a node sees that all replicas of so many data shards are there,
// and checks that their leaders are to be spread.
func (c *trio) carried(i, shards int) cluster.Status {
	c.t.Helper()
	s := c.until(i, fmt.Sprintf("%d shards are carried", shards), func(s cluster.Status) bool {
		return s.Healthy && len(s.Shards) == shards+1 && !slices.ContainsFunc(s.Shards, func(s cluster.ShardStatus) bool {
			return slices.ContainsFunc(s.Replicas, func(r cluster.ReplicaStatus) bool { return r.Lag > 0 || r.Applied == 0 })
		})
	})
	preferred := make(map[string]int)
	for _, sh := range s.Shards {
		preferred[sh.Preferred]++
		if len(sh.Replicas) != len(c.names) {
			c.t.Errorf("shard %d has the replicas %+v", sh.ID, sh.Replicas)
		}
	}
	if len(preferred) != len(c.names) {
		c.t.Errorf("leaders are to be at %v", preferred)
	}
	return s
}

// noted reads from NODE how many data shards a node opens at its start.
func (c *trio) noted(i int) int {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "data-"+c.names[i], "NODE"))
	if err != nil {
		c.t.Fatal(err)
	}
	var id struct {
		Shards int `json:"data_shards"`
	}
	if err := json.Unmarshal(text, &id); err != nil {
		c.t.Fatal(err)
	}
	return id.Shards
}

// Shards are added while all nodes but one serve, under load; new topics go there; the
// one that was down has them when it is back, also with an empty disk.
func TestShardsAreAddedToARunningCluster(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.startAll()
	c.until(0, "all is well", healthy)
	for n := range 6 {
		c.publish(n%3, fmt.Sprintf("old-%d", n), "x")
	}
	c.stop(2)
	stop := make(chan struct{})
	end := sync.OnceFunc(func() { close(stop) })
	published := int64(6)
	var load sync.WaitGroup
	defer load.Wait()
	defer end()
	load.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				c.publish(n%2, fmt.Sprintf("old-%d", n%6), "x")
				published++
			}
		}
	})
	status, ids, text := c.addShards(1, 3)
	if status != http.StatusOK || !slices.Equal(ids, []int{4, 5, 6}) || strings.Contains(text, "waits") {
		t.Fatalf("%d %s", status, text)
	}
	for n := range 6 { // two each on the new ones, which are used less
		c.publish(n%2, fmt.Sprintf("new-%d", n), "x")
	}
	end()
	load.Wait()
	for i := range 2 {
		if c.noted(i) != 6 {
			t.Errorf("%s has noted %d shards", c.names[i], c.noted(i))
		}
	}
	for _, count := range []int{0, -1, 251, 1 << 40} {
		if status, _, text := c.addShards(0, count); status != http.StatusBadRequest || !strings.Contains(text, "256") {
			t.Errorf("%d more shards: %d %s", count, status, text)
		}
	}
	want := published + 6
	c.untilDepth(0, want)
	c.serves(c.start(2))
	s := c.carried(0, 6)
	for _, sh := range s.Shards[1:] {
		if sh.Partitions != 2 {
			t.Errorf("shard %d carries %d partitions", sh.ID, sh.Partitions)
		}
	}
	if c.noted(2) != 6 {
		t.Errorf("c has noted %d shards", c.noted(2))
	}
	c.stop(1)
	if err := os.RemoveAll(filepath.Join(c.dir, "data-b")); err != nil {
		t.Fatal(err)
	}
	c.serves(c.start(1))
	c.until(0, "b is back", func(s cluster.Status) bool { return s.Healthy && len(s.Nodes) == 4 })
	c.carried(1, 6)
	c.stopAll()
	c.startAll()
	c.carried(0, 6)
	for n := range 12 {
		c.publish(n%3, fmt.Sprintf("new-%d", n), "x")
	}
	c.untilDepth(2, want+12)
}

// Wherever a node breaks off while it opens shards that were added, and however often,
// it has them in the end.
func TestCrashesWhileShardsAreAdded(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	broken := vfs.NewFault(vfs.Default())
	c.disk = func(i int) vfs.FS {
		if i == 2 {
			return broken
		}
		return vfs.Default()
	}
	c.startAll()
	c.until(0, "all is well", healthy)
	added := false
	for _, at := range []struct {
		ops  vfs.Op
		path string
	}{ // in the order in which they come, those of the second shard
		{vfs.OpMkdir, "shards/5"},
		{vfs.OpCreate | vfs.OpWrite, "shards/5/*"},
		{vfs.OpRename, "shards/5/*"},
		{vfs.OpCreate | vfs.OpWrite, "NODE*"},
		{vfs.OpRename, "NODE*"},
		{vfs.OpSyncDir, "."},
	} {
		armed := broken.Fail(at.ops, filepath.ToSlash(filepath.Join(c.dir, "data-c", at.path)), syscall.EIO)
		if added {
			c.start(2)
		} else if status, _, text := c.addShards(0, 2); status != http.StatusOK {
			t.Fatalf("%d %s", status, text)
		}
		added = true
		n := c.nodes[2]
		select {
		case err := <-n.ended:
			if err == nil || !strings.Contains(err.Error(), "shards that were added") {
				t.Fatalf("%s: ended with %v", at.path, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: the node goes on", at.path)
		}
		c.nodes[2] = nil
		armed.Disarm()
	}
	for n := range 6 {
		c.publish(n%2, fmt.Sprintf("topic-%d", n), "x")
	}
	c.serves(c.start(2))
	c.carried(2, 5)
	if c.noted(2) != 5 {
		t.Errorf("c has noted %d shards", c.noted(2))
	}
	c.untilDepth(2, 6)
}

// A single node gets more shards too, and keeps them.
func TestShardsAreAddedToASingleNode(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a")
	c.startAll()
	c.until(0, "all is well", healthy)
	if status, ids, text := c.addShards(0, 2); status != http.StatusOK || !slices.Equal(ids, []int{4, 5}) {
		t.Fatalf("%d %s", status, text)
	}
	for n := range 10 {
		c.publish(0, fmt.Sprintf("topic-%d", n), "x")
	}
	c.stop(0)
	c.serves(c.start(0))
	s := c.carried(0, 5)
	if f := c.stats(0, "&scope=cluster"); f.sum().depth != 10 || s.Shards[5].Partitions != 2 {
		t.Errorf("%+v, %+v", f, s.Shards)
	}
}
