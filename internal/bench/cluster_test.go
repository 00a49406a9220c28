package bench_test

import (
	"context"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/bench"
)

func TestCluster(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	kill, hot := short(t, "cluster-kill"), short(t, "cluster-partitions")
	hot.Count, hot.Duration = 500, 50*time.Millisecond
	kill.Kills, kill.Publishers, kill.Patience = 1, 6, time.Minute
	c := bench.Comparison{
		Self: self, Dir: t.TempDir(), Rounds: 1,
		Workloads: []bench.Workload{short(t, "cluster-publish"), short(t, "cluster-batch"), kill, short(t, "cluster-delivery"), hot},
	}
	r, err := c.Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if bad := r.Bad(); len(bad) > 0 {
		t.Error(bad)
	}
	if len(r.Rows) != 5 {
		t.Fatalf("%d rows", len(r.Rows))
	}
	for _, row := range r.Rows {
		if row.System != bench.OurCluster || row.Messages == 0 || row.RSS == 0 || row.Verdict != (bench.Verdict{}) {
			t.Errorf("%+v", row)
		}
	}
	if k := r.Rows[2].Figures; k["kills"] != 1 || k["gap_median_ms"] <= 0 || k["gap_max_ms"] < k["gap_median_ms"] {
		t.Errorf("one kill: %v", k)
	}
	if f := r.Rows[3].Figures; f["leader_rate"] <= 0 || f["rate_ratio"] <= 0 {
		t.Errorf("delivery: %v", f)
	}
	if k := r.Rows[4].Figures; k["rate_ratio"] <= 0 || k["one_partition_rate"] <= 0 {
		t.Errorf("several partitions: %v", k)
	}
	nothingLeft(t, c.Dir)
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// Another program takes the port by which a node was to reach another, after it
// was found free and before the node listens: all begin again with other ports.
func TestClusterStartsOnOtherPorts(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spec, dir := bench.TidingsClusterSpec(self), t.TempDir()
	node, starts := spec.Node, 0
	spec.Node = func(i int, shared string, ports [][]int) bench.Spec {
		if i == 2 {
			starts++
			if starts == 1 {
				l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[2][2])))
				if err != nil {
					t.Error(err)
				} else {
					t.Cleanup(func() { l.Close() })
				}
			}
		}
		return node(i, shared, ports)
	}
	c, err := bench.StartCluster(t.Context(), spec, dir)
	if err != nil {
		t.Fatal(err)
	}
	if starts != 2 {
		t.Errorf("%d starts", starts)
	}
	if err := c.Processes().Known(); err != nil || len(c.Processes()) != 3 {
		t.Errorf("%v %v", c.Processes(), err)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, dir)
}

func TestClusterThatDoesNotStart(t *testing.T) {
	dir := t.TempDir()
	if _, err := bench.StartCluster(t.Context(), bench.TidingsClusterSpec("/bin/false"), dir); err == nil {
		t.Error("/bin/false is a cluster")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bench.StartCluster(ctx, bench.TidingsClusterSpec(self), dir); err == nil {
		t.Error("a cancelled start succeeds")
	}
	nothingLeft(t, dir)
}
