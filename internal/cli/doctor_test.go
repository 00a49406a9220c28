package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/front/admin"
)

// told by a cluster of three that is well.
func wellCluster() (admin.Overview, admin.Diagnosis) {
	o := admin.Overview{}
	o.Shards.Total = 9
	d := admin.Diagnosis{FeatureLevel: 2}
	for i, name := range []string{"a", "b", "c"} {
		o.Nodes = append(o.Nodes, admin.NodeRow{Name: name, State: "live"})
		d.Nodes = append(d.Nodes, admin.NodeDiagnosis{
			Node: name, Self: i == 0, ClockOffsetMs: 0.4, ClockErrorMs: 0.5,
			HostFigures: admin.HostFigures{
				Version: "1.0.0", FeatureLevel: 2, DataPath: "/not/here", Filesystem: "xfs", DiskFree: 100 << 30, DiskReserve: 1 << 30, SyncP50Ms: 0.1, SyncP99Ms: 1,
				OpenFiles: 100, OpenFilesMax: 1 << 20, Resident: 200 << 20, GroupLimit: 1 << 30, MemoryLimit: 900 << 20,
				Certificates: []admin.Certificate{{Use: "cluster", File: "b.crt", ExpiresAt: time.Now().Add(90 * 24 * time.Hour).UnixMilli()}},
			},
		})
	}
	return o, d
}

// What the doctor makes of what nodes tell.
func TestDoctor(t *testing.T) {
	contexts(t, "")
	soon := func(d time.Duration) int64 { return time.Now().Add(d).UnixMilli() }
	for _, c := range []struct {
		name  string
		spoil func(*admin.Overview, *admin.NodeDiagnosis)
		want  string // status, check, node, words; empty: all is well
	}{
		{"well", func(*admin.Overview, *admin.NodeDiagnosis) {}, ""},
		{"an idle disk", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.SyncP50Ms, n.SyncP99Ms = 0, 0 }, ""},
		{"few files", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.OpenFilesMax = 1024 }, "warn open_files b 100 of 1024 open: room for 512 more"},
		{"no files", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.OpenFiles, n.OpenFilesMax = 4000, 4096 }, "fail open_files b 4000 of 4096 open"},
		{"clock ahead", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.ClockOffsetMs = 2000 }, "warn clock b 2s ahead"},
		{"clock behind", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.ClockOffsetMs = -3.6e6 }, "fail clock b 1h0m0s behind"},
		{"a slow network", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.ClockOffsetMs, n.ClockErrorMs = 900, 900 }, ""},
		{"full disk", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.DiskFree = 1 << 20 }, "fail disk_space b 1 MiB free, below the reserve of 1024 MiB"},
		{"fuller disk", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.DiskFree = 2<<30 - 1 }, "warn disk_space b"},
		{"slow disk", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.SyncP50Ms = 25 }, "warn disk_sync b 25 ms in the middle"},
		{"stalled disk", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.SyncP50Ms = 1500 }, "fail disk_sync b"},
		{"memory for a disk", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.Filesystem = "tmpfs" }, "warn filesystem b tmpfs is memory"},
		{"expires", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.Certificates[0].ExpiresAt = soon(121 * time.Hour) }, "warn certificate_cluster b b.crt expires in 5 days"},
		{"expired", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.Certificates[0].ExpiresAt = soon(-time.Hour) }, "fail certificate_cluster b b.crt has expired"},
		{"memory", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.Resident = 1000 << 20 }, "fail memory b"},
		{"little memory", func(_ *admin.Overview, n *admin.NodeDiagnosis) {
			n.GroupLimit, n.MemoryLimit, n.Resident = 128<<20, 115<<20, 30<<20
		}, "warn memory b the control group has 128 MiB, which is little"},
		{"no limit of its own", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.MemoryLimit = 0 }, "warn memory b the control group has 1024 MiB, and the node does not keep to that"},
		{"versions", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.Version = "1.1.0" }, "warn versions - different versions: 1.0.0 on a, c; 1.1.0 on b"},
		{"feature level", func(_ *admin.Overview, n *admin.NodeDiagnosis) { n.FeatureLevel = 1 }, "fail feature_level - the cluster uses feature level 2, and a node knows 1 only"},
		{"no leader", func(o *admin.Overview, _ *admin.NodeDiagnosis) {
			o.Findings = []admin.Finding{{Severity: "critical", Code: "shard_no_leader", Text: "shard 3 has no leader", Next: "a majority"}}
		}, "fail shard_no_leader - shard 3 has no leader"},
		{"behind", func(o *admin.Overview, _ *admin.NodeDiagnosis) {
			o.Findings = []admin.Finding{{Severity: "warning", Code: "replica_behind", Target: admin.Target{Node: "b"}, Text: "is behind"}}
		}, "warn replica_behind b is behind"},
		{"a channel's matter", func(o *admin.Overview, _ *admin.NodeDiagnosis) {
			o.Findings = []admin.Finding{{Severity: "warning", Code: "channel_stuck", Target: admin.Target{Topic: "t", Channel: "c"}, Text: "is stuck"}}
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			overview, d := wellCluster()
			c.spoil(&overview, &d.Nodes[1])
			srv := answering(t, map[string]any{"/api/v1/overview": overview, "/api/v1/diagnosis": d})
			code, out, errOut := run(t, "doctor", "--admin", srv, "--json", "--timeout", "2s")
			var got diagnosis
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatal(err, out, errOut)
			}
			worst := got.Findings[len(got.Findings)-1]
			if c.want == "" {
				if code != exitOK || got.Status != checkOK || worst.Status != checkOK {
					t.Errorf("exit code %d: %+v", code, worst)
				}
				return
			}
			told := strings.Join([]string{worst.Status, worst.Check, orDash(worst.Node), worst.Text}, " ")
			if !strings.HasPrefix(told, c.want) || got.Status != worst.Status || (code == exitFailure) != (worst.Status == checkFail) || worst.Fix == "" && c.name != "behind" {
				t.Errorf("exit code %d: %s (fix: %s)", code, told, worst.Fix)
			}
		})
	}
}

// answering is a server that answers paths in JSON, and all else with 404.
func answering(t *testing.T, answers map[string]any) (addr string) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		v, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			v = map[string]string{"code": "NOT_FOUND", "message": "there is no " + r.URL.Path}
		}
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestDoctorOfAnOlderNode(t *testing.T) {
	contexts(t, "")
	overview, _ := wellCluster()
	code, _, errOut := run(t, "doctor", "--admin", answering(t, map[string]any{"/api/v1/overview": overview}))
	if code != exitFailure || !strings.Contains(errOut, "is older than `tidings doctor`") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}

// Timing the disk leaves nothing behind.
func TestTimeSyncs(t *testing.T) {
	dir := t.TempDir()
	took, err := timeSyncs(t.Context(), dir)
	if err != nil || len(took) == 0 || took[0] <= 0 {
		t.Fatal(took, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Error(left, err)
	}
	if _, err := timeSyncs(t.Context(), filepath.Join(dir, "absent")); err == nil {
		t.Error("there is no such folder")
	}
}
