package node

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/vfs"
)

// reopen closes a folder and takes it again.
func reopen(t *testing.T, d *dataDir, open func() (*dataDir, error)) *dataDir {
	t.Helper()
	if err := d.lock.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func opened(t *testing.T, d *dataDir, err error) *dataDir {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func members(own uint64) []meta.Node {
	return []meta.Node{
		{ID: own, Name: "a", Addr: "10.0.0.1:4160", TCP: "10.0.0.1:4150", HTTP: "10.0.0.1:4151", Broadcast: "a.example"},
		{ID: 12, Name: "b", Addr: "10.0.0.2:4160"},
		{ID: 13, Name: "c", Addr: "10.0.0.3:4160"},
	}
}

// accepted is what the folder of node a accepts.
func accepted(id uint64) cluster.Identity {
	return cluster.Identity{
		Name: "a", RaftID: id, Stage: cluster.Accepted, Cluster: strings.Repeat("0a", 16),
		Attempt: cluster.Attempt{Number: 3, Draw: 1 << 63}, Members: members(id), Voters: meta.Layout(members(id), 8, 3), Shards: 8,
	}
}

func TestSingleFolder(t *testing.T) {
	fs := vfs.NewMem()
	open := func() (*dataDir, error) { return openDataDir(fs, "data", 4) }
	d, err := open()
	opened(t, d, err)
	if d.Format != 2 || d.DataShards != 4 || d.RaftID == 0 || !d.alone() {
		t.Errorf("new folder: %+v", d.identity)
	}
	if f := d.founding(); f != nil {
		t.Errorf("founding %+v", f)
	}
	first := d.identity
	d = reopen(t, d, open)
	if diff := cmp.Diff(first, d.identity); diff != "" {
		t.Errorf("(-made +read):\n%s", diff)
	}
	if err := d.lock.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openClusterDir(fs, "data", "a"); err == nil || !strings.Contains(err.Error(), "single node") {
		t.Errorf("as a member: %v", err)
	}
}

// A folder of the first version opens, stays single, and is not rewritten.
func TestFolderOfVersion1(t *testing.T) {
	fs := vfs.NewMem()
	const text = `{
  "format_version": 1,
  "node_id": "0123456789abcdef",
  "raft_id": 77,
  "data_shards": 8
}
`
	if err := vfs.MkdirSynced(fs, "data"); err != nil {
		t.Fatal(err)
	}
	if err := vfs.WriteFileAtomic(fs, "data/NODE", []byte(text)); err != nil {
		t.Fatal(err)
	}
	d, err := openDataDir(fs, "data", 4)
	opened(t, d, err)
	if d.RaftID != 77 || d.DataShards != 8 || !d.alone() || d.founding() != nil {
		t.Errorf("identity %+v", d.identity)
	}
	if err := d.begun(fs); err != nil {
		t.Fatal(err)
	}
	if err := d.saveCluster(fs, accepted(77)); err == nil {
		t.Error("it became part of a cluster")
	}
	if got, err := vfs.ReadFile(fs, "data/NODE"); err != nil || string(got) != text {
		t.Errorf("it was rewritten: %s, %v", got, err)
	}
	d.lock.Close()
	if _, err := openClusterDir(fs, "data", "a"); err == nil || !strings.Contains(err.Error(), "single node") {
		t.Errorf("as a member: %v", err)
	}
}

func TestClusterFolder(t *testing.T) {
	fs := vfs.NewMem()
	open := func() (*dataDir, error) { return openClusterDir(fs, "data", "a") }
	d, err := open()
	opened(t, d, err)
	id, err := d.clusterIdentity()
	if err != nil || id.Stage != cluster.Empty || id.Name != "a" || id.RaftID != d.RaftID || d.founding() != nil {
		t.Fatalf("new folder: %+v, %v", id, err)
	}
	for _, stage := range []cluster.Stage{cluster.Accepted, cluster.Formed} {
		want := accepted(d.RaftID)
		want.Stage = stage
		if err := d.saveCluster(fs, want); err != nil {
			t.Fatal(err)
		}
		d = reopen(t, d, open)
		got, err := d.clusterIdentity()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-saved +read):\n%s", err, diff)
		}
	}
	if f := d.founding(); f == nil || len(f.Nodes) != 3 || d.DataShards != 8 || d.alone() {
		t.Errorf("founding %+v of %+v", f, d.identity)
	}
	if err := d.begun(fs); err != nil {
		t.Fatal(err)
	}
	if err := d.saveCluster(fs, accepted(d.RaftID)); err == nil {
		t.Error("another cluster was accepted after the groups had begun")
	}
	d.lock.Close()
	for want, fn := range map[string]func() (*dataDir, error){
		"has lost its log": open,
		"not b":            func() (*dataDir, error) { return openClusterDir(withLog(t, fs), "data", "b") },
		"--seeds":          func() (*dataDir, error) { return openDataDir(withLog(t, fs), "data", 4) },
	} {
		if want == "has lost its log" {
			if err := fs.RemoveAll("data/wal"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := fn(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	again, err := openClusterDir(withLog(t, fs), "data", "a")
	opened(t, again, err)
}

func withLog(t *testing.T, fs vfs.FS) vfs.FS {
	t.Helper()
	if err := vfs.MkdirSynced(fs, "data/wal"); err != nil {
		t.Fatal(err)
	}
	return fs
}

func TestJoinedFolder(t *testing.T) {
	fs := vfs.NewMem()
	d, err := openClusterDir(fs, "data", "a")
	opened(t, d, err)
	joined := accepted(d.RaftID)
	joined.Stage, joined.Voters, joined.Shards = cluster.Formed, nil, 8
	if err := d.saveCluster(fs, joined); err != nil {
		t.Fatal(err)
	}
	d = reopen(t, d, func() (*dataDir, error) { return openClusterDir(fs, "data", "a") })
	got, err := d.clusterIdentity()
	if diff := cmp.Diff(joined, got, cmpopts.EquateEmpty()); err != nil || diff != "" || d.DataShards != 8 || d.founding() != nil {
		t.Errorf("%v, %d shards (-saved +read):\n%s", err, d.DataShards, diff)
	}
}

// Whatever write is interrupted, the folder is the one before or the one after.
func TestFolderSurvivesACrashAtEachWrite(t *testing.T) {
	for n := int64(1); ; n++ {
		fs := vfs.NewMem()
		d, err := openClusterDir(fs, "data", "a")
		opened(t, d, err)
		raft := d.RaftID
		fs.FailAfter(n, nil)
		saved := d.saveCluster(fs, accepted(raft))
		done := !fs.Tripped()
		fs.Crash(nil)
		again, err := openClusterDir(fs, "data", "a")
		opened(t, again, err)
		id, err := again.clusterIdentity()
		if err != nil || id.RaftID != raft || id.Stage > cluster.Accepted || saved == nil && id.Stage != cluster.Accepted {
			t.Errorf("operation %d: %+v, %v, saved %v", n, id, err, saved)
		}
		if done {
			return
		}
	}
}

func TestFolderThatMakesNoSense(t *testing.T) {
	for name, text := range map[string]string{
		"newer":   `{"format_version": 3, "raft_id": 1, "data_shards": 8}`,
		"no id":   `{"format_version": 2}`,
		"torn":    `{"format_version": 2, "raft_id": 1`,
		"stage":   `{"format_version": 2, "raft_id": 1, "name": "a", "stage": "gone"}`,
		"cluster": `{"format_version": 2, "raft_id": 1, "name": "a", "stage": "formed", "cluster_id": "x"}`,
		"voters":  fmt.Sprintf(`{"format_version": 2, "raft_id": 1, "name": "a", "stage": "accepted", "cluster_id": "%032d"}`, 7),
	} {
		fs := vfs.NewMem()
		if err := vfs.MkdirSynced(fs, "data"); err != nil {
			t.Fatal(err)
		}
		if err := vfs.WriteFileAtomic(fs, "data/NODE", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := openClusterDir(fs, "data", "a"); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// CheckDataPath says what a start would, and changes nothing.
func TestCheckDataPath(t *testing.T) {
	fs := vfs.NewMem()
	check := func(dir string, seeds bool, want string) {
		t.Helper()
		err := CheckDataPath(fs, dir, seeds)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", dir, err, want)
		}
	}
	check("data", false, "")
	if _, err := fs.Stat("data"); err == nil {
		t.Error("the folder was made")
	}
	d, err := openDataDir(fs, "data", 4)
	opened(t, d, err)
	check("data", false, "") // while it is in use
	check("data", true, "holds a single node")
	m, err := openClusterDir(fs, "member", "a")
	opened(t, m, err)
	check("member", true, "")
	check("member", false, "belongs to node a of a cluster")
	if err := fs.MkdirAll("lost/wal"); err != nil {
		t.Fatal(err)
	}
	check("lost", false, "no NODE file")
	d.Format = formatVersion + 1
	if err := d.write(fs, d.identity); err != nil {
		t.Fatal(err)
	}
	check("data", false, "use a newer binary")
}
