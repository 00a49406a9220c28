package node

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
)

var smallLog = wal.Options{SegmentSize: wal.MinSegmentSize}

// damaged is the folder of a member that has voted and holds entries, with a
// bit flipped in what was durable; and its Raft id.
func damaged(t *testing.T) (*vfs.Mem, uint64) {
	t.Helper()
	fs := vfs.NewMem()
	d, err := openClusterDir(fs, "data", "a")
	opened(t, d, err)
	c := accepted(d.RaftID)
	c.Stage = cluster.Formed
	check(t, d.saveCluster(fs, c))
	w, err := wal.Open(fs, "data/wal", smallLog)
	check(t, err)
	check(t, d.begun(fs))
	for id := range uint32(3) {
		g, err := shard.Open(groupOf(t, fs, w, d, id))
		check(t, err)
		_, _, err = g.Step(1)
		check(t, err)
		hard := wal.HardState{Term: 7, Vote: 12}
		w.Submit(wal.Append{Shard: id, Sync: true, Hard: &hard, Entries: []wal.Entry{{Term: 7, Index: 2, Data: make([]byte, 100)}}})
	}
	check(t, vfs.MkdirSynced(fs, "data/topics/11/0"))
	check(t, vfs.WriteFileAtomic(fs, "data/topics/11/0/00000000000000000000.seg", []byte("old")))
	check(t, errors.Join(w.Write(), w.Sync()))
	w.Finish()
	check(t, w.Mark())
	check(t, errors.Join(w.Close(), d.lock.Close()))
	flip(t, fs)
	return fs, d.RaftID
}

// flip damages the first entry of the log.
func flip(t *testing.T, fs *vfs.Mem) {
	t.Helper()
	var at wal.Frame
	check(t, wal.Inspect(fs, "data/wal", func(f wal.Frame) error {
		if f.Kind == wal.KindEntry && at.Size == 0 {
			at = f
		}
		return nil
	}))
	check(t, fs.Flip(path.Join("data/wal", at.Segment), at.Offset+50, 1))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// groupOf is a group as a node of a cluster opens it.
func groupOf(t *testing.T, fs vfs.FS, w *wal.WAL, d *dataDir, id uint32) shard.Options {
	t.Helper()
	m, err := meta.New(meta.Options{Node: meta.Node{ID: d.RaftID, Name: "a"}})
	check(t, err)
	o := shard.Options{ID: id, RaftID: d.RaftID, Dir: fmt.Sprintf("data/shards/%d", id), FS: fs, WAL: w, Machine: m}
	if int(id) < len(d.Voters) {
		o.Voters = d.Voters[id]
	} else {
		o.Join = true
	}
	return o
}

// life is a start of the node up to the first step of its groups, as far as it
// comes. join says whether the others let it come back.
func life(t *testing.T, fs *vfs.Mem, join bool) (d *dataDir, groups int, err error) {
	t.Helper()
	if d, err = openClusterDir(fs, "data", "a"); err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, d.lock.Close()) }()
	var w *wal.WAL
	if d.Begun {
		if w, err = wal.Open(fs, "data/wal", smallLog); err != nil {
			if _, ok := errors.AsType[*wal.CorruptError](err); !ok {
				return d, 0, err
			}
			if err = d.rejoin(fs); err != nil {
				return d, 0, err
			}
		}
	}
	c, err := d.clusterIdentity()
	if err != nil {
		return d, 0, err
	}
	if c.Stage != cluster.Formed {
		if !join {
			return d, 0, nil
		}
		c.Stage, c.Members = cluster.Formed, members(c.RaftID)
		if err = d.saveCluster(fs, c); err != nil {
			return d, 0, err
		}
	}
	if _, err = d.dropStale(fs); err != nil {
		return d, 0, err
	}
	if w == nil {
		if w, err = wal.Open(fs, "data/wal", smallLog); err != nil {
			return d, 0, err
		}
	}
	defer w.Close()
	if err = d.begun(fs); err != nil {
		return d, 0, err
	}
	for id := range uint32(3) {
		if hard, ok := w.Hard(id); ok && hard.Vote == 12 {
			t.Errorf("shard %d: the vote of the Raft id before speaks for %d", id, d.RaftID)
		}
		g, err := shard.Open(groupOf(t, fs, w, d, id))
		if err != nil {
			return d, groups, err
		}
		if s := g.Status(); s.Applied > 0 || len(s.Members) > 0 {
			t.Errorf("shard %d begins with %+v", id, s)
		}
		groups++
	}
	return d, groups, nil
}

// A member with a damaged log comes back as an empty replica under another Raft
// id, whatever write it crashes at, and however often.
func TestRejoinSurvivesACrashAtEachWrite(t *testing.T) {
	for _, seed := range []uint64{0, 1, 2} { // 0: a crash forgets all that was not synced
		crash := func(fs *vfs.Mem) {
			if seed == 0 {
				fs.Crash(nil)
			} else {
				fs.Crash(rand.New(rand.NewPCG(seed, 1)))
			}
		}
		for n := int64(1); ; n++ {
			fs, old := damaged(t)
			fs.FailAfter(n, nil)
			_, _, first := life(t, fs, true)
			done := !fs.Tripped()
			if done && first != nil {
				t.Fatal(first)
			}
			noted := uint64(0)
			crash(fs)
			if d, err := openClusterDir(fs, "data", "a"); err != nil {
				t.Fatalf("operation %d: %v", n, err)
			} else {
				if d.RaftID != old {
					noted = d.RaftID
				}
				check(t, d.lock.Close())
			}
			d, groups, err := life(t, fs, true)
			if err != nil {
				t.Fatalf("operation %d: %v, before %v", n, err, first)
			}
			if d.RaftID == old || noted != 0 && d.RaftID != noted || groups != 3 || d.Stale || !d.Begun {
				t.Fatalf("operation %d: %d groups, Raft id %d, was %d, before %d: %+v", n, groups, d.RaftID, noted, old, d.identity)
			}
			leftovers(t, fs)
			if done {
				if n < 20 {
					t.Errorf("only %d writes", n)
				}
				break
			}
		}
	}
}

// leftovers looks at what is there of the Raft id before: the damaged log alone.
func leftovers(t *testing.T, fs vfs.FS) {
	t.Helper()
	names, err := fs.ReadDir("data/wal")
	check(t, err)
	aside := 0
	for _, name := range names {
		if strings.HasPrefix(name, "damaged-") {
			segments, err := fs.ReadDir(path.Join("data/wal", name))
			check(t, err)
			aside += len(segments)
		}
	}
	if aside == 0 {
		t.Errorf("the damaged log is not kept: %q", names)
	}
	if names, err := fs.ReadDir("data"); err != nil || strings.Contains(strings.Join(names, " "), "topics") {
		t.Errorf("the folder holds %q, %v", names, err)
	}
}

// Nothing goes before the cluster has taken the node back: with damage on all
// nodes at once the files are all that is left.
func TestRejoinKeepsTheFilesUntilItIsBack(t *testing.T) {
	fs, old := damaged(t)
	before, err := wal.Verify(fs, "data/wal")
	check(t, err)
	var noted uint64
	for range 3 {
		d, groups, err := life(t, fs, false)
		check(t, err)
		if d.RaftID == old || noted != 0 && noted != d.RaftID || groups > 0 || d.Stage != "rejoining" || !d.Stale || d.Cluster == "" {
			t.Fatalf("%d groups, %+v", groups, d.identity)
		}
		noted = d.RaftID
		if _, err := d.dropStale(fs); err == nil {
			t.Fatal("the files were dropped before the node was back")
		}
		fs.Crash(nil)
	}
	after, err := wal.Verify(fs, "data/wal")
	check(t, err)
	if len(after.Shards) != len(before.Shards) || after.Damage == nil || before.Damage.Error() != after.Damage.Error() {
		t.Errorf("the log was %+v, is %+v", before, after)
	}
	for id := range 3 {
		if names, err := fs.ReadDir(fmt.Sprintf("data/shards/%d", id)); err != nil || len(names) == 0 {
			t.Errorf("shard %d holds %q, %v", id, names, err)
		}
	}
}

// It may be damaged again, and comes back again.
func TestRejoinTwice(t *testing.T) {
	fs, old := damaged(t)
	d, _, err := life(t, fs, true)
	check(t, err)
	first := d.RaftID
	d, err = openClusterDir(fs, "data", "a")
	opened(t, d, err)
	w, err := wal.Open(fs, "data/wal", smallLog)
	check(t, err)
	w.Submit(wal.Append{Shard: 1, Sync: true, Entries: []wal.Entry{{Term: 9, Index: 1, Data: make([]byte, 100)}}})
	check(t, errors.Join(w.Write(), w.Sync()))
	w.Finish()
	check(t, errors.Join(w.Mark(), w.Close(), d.lock.Close()))
	flip(t, fs)
	d, groups, err := life(t, fs, true)
	check(t, err)
	if d.RaftID == first || d.RaftID == old || groups != 3 {
		t.Errorf("%d groups, %+v", groups, d.identity)
	}
}

// Without others the folder stays as it is.
func TestNobodyToComeBackTo(t *testing.T) {
	fs := vfs.NewMem()
	d, err := openDataDir(fs, "single", 2)
	opened(t, d, err)
	before := d.RaftID
	if err := d.rejoin(fs); err == nil || !strings.Contains(err.Error(), "single node") || d.RaftID != before {
		t.Errorf("a single node: %v", err)
	}
	d, err = openClusterDir(fs, "one", "a")
	opened(t, d, err)
	if err := d.rejoin(fs); err == nil {
		t.Error("a node of no cluster")
	}
	nodes := members(d.RaftID)[:1]
	check(t, d.saveCluster(fs, cluster.Identity{
		Name: "a", RaftID: d.RaftID, Stage: cluster.Formed, Cluster: strings.Repeat("0a", 16),
		Attempt: cluster.Attempt{Number: 1, Draw: 1}, Members: nodes, Voters: meta.Layout(nodes, 2, 3), Shards: 2,
	}))
	before = d.RaftID
	if err := d.rejoin(fs); err == nil || d.RaftID != before {
		t.Errorf("the only member: %v", err)
	}
}
