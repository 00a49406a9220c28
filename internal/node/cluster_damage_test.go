//go:build linux

package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/config"
	"github.com/tidings-io/tidings/test/rig"
)

// A batch that is damaged on the node that serves consumers is fetched from
// another replica, and nobody notices.
func TestDamagedBatchIsFetched(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.tune = func(cfg *config.Config) {
		cfg.TailSize, cfg.CheckpointSize, cfg.DataShards = 64<<10, 64<<10, 1
	}
	c.startAll()
	c.until(0, "all is well", healthy)
	const count = 800
	pad := strings.Repeat("x", 1000)
	for i := range count {
		c.publish(i%3, "orders", fmt.Sprintf("needle-%04d %s", i, pad))
	}
	s := c.until(0, "the shard has a leader", func(s cluster.Status) bool { return s.Shards[1].Leader != "" })
	leader := slices.Index(c.names, s.Shards[1].Leader)
	c.flip(filepath.Join(c.dir, "data-"+c.names[leader], "topics", "*", "*", "*.seg"), "needle-0100")

	w, err := rig.Dial(c.nodes[leader].Addrs().TCP, "test", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Subscribe("orders", "archive", 50); err != nil {
		t.Fatal(err)
	}
	for want := range count {
		_, data, err := w.Read()
		if err != nil {
			t.Fatal(err)
		}
		m, err := rig.ParseMessage(data)
		if err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		fmt.Fprintf(w.W, "FIN %s\n", m.ID[:])
		if err := w.W.Flush(); err != nil {
			t.Fatal(err)
		}
		if got, _, _ := strings.Cut(string(m.Body), " "); got != fmt.Sprintf("needle-%04d", want) {
			t.Fatalf("message %d is %s", want, got)
		}
	}
}

// A member of which a shard has no whole checkpoint any more comes back under a
// new Raft id, as one does whose log is damaged.
func TestDamagedCheckpointsMakeAMemberComeBack(t *testing.T) {
	t.Parallel()
	c := newTrio(t, "a", "b", "c")
	c.tune = func(cfg *config.Config) { cfg.CheckpointSize = 64 << 10 }
	c.startAll()
	c.until(0, "all is well", healthy)
	for i := range 300 {
		c.publish(i%3, "orders", fmt.Sprintf("%d %s", i, strings.Repeat("x", 1000)))
	}
	c.stop(2)
	files, err := filepath.Glob(filepath.Join(c.dir, "data-c", "shards", "1", "checkpoint-*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no checkpoints: %v", err)
	}
	for _, name := range files {
		if err := os.WriteFile(name, []byte("not a checkpoint"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.start(2)
	c.serves(c.nodes[2])
	c.until(0, "c is back", func(s cluster.Status) bool { return s.Healthy && len(s.Nodes) == 4 })
}
