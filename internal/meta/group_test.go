package meta

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
)

// What was answered is there after a crash, with and without a checkpoint.
func TestMetadataSurvivesACrash(t *testing.T) {
	for _, async := range []bool{true, false} {
		t.Run(fmt.Sprintf("async=%v", async), func(t *testing.T) {
			fs := vfs.NewMem()
			if err := vfs.MkdirSynced(fs, "data"); err != nil {
				t.Fatal(err)
			}
			m, settle, group := openGroup(t, fs, async)
			m.CreateTopic("orders", func(topic *Topic, err error) {
				if err == nil {
					m.CreateChannel(topic.ID, "archive", nil)
				}
			})
			settle()
			group.RequestCheckpoint()
			settle()
			m.CreateTopic("later", nil)
			settle()
			want := flatten(t, m.View())
			if len(want.Topics) != 2 || len(want.Topics[1].Channels) != 1 {
				t.Fatalf("topics %v", want.Topics)
			}
			fs.Crash(nil)
			m, settle, group = openGroup(t, fs, async)
			if m.View().Len() != 1 {
				t.Errorf("the checkpoint holds %d topics", m.View().Len())
			}
			settle()
			if diff := cmp.Diff(want, flatten(t, m.View()), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-before +after the crash):\n%s", diff)
			}
			if !group.Leader() {
				t.Error("it does not lead")
			}
		})
	}
}

// openGroup starts a node with the metadata group alone. settle runs its steps
// until nothing is left to do.
func openGroup(t *testing.T, fs *vfs.Mem, async bool) (m *Machine, settle func(), g *shard.Group) {
	t.Helper()
	w, err := wal.Open(fs, "data/wal", wal.Options{SegmentSize: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	if m, err = New(Options{Node: Node{ID: 1, Name: "one", Boot: 5}}); err != nil {
		t.Fatal(err)
	}
	g, err = shard.Open(shard.Options{
		ID: GroupID, RaftID: 1, Dir: "data/shards/0", FS: fs, WAL: w, Machine: m, Async: async,
	})
	if err != nil {
		t.Fatal(err)
	}
	f := shard.NewFlusher(shard.FlusherOptions{Store: noTails{}, WAL: w, Groups: []*shard.Group{g}})
	return m, func() {
		t.Helper()
		for busy := true; busy; {
			did, _, err := g.Step(1e18)
			flushed, flushErr := f.Step()
			if err = errors.Join(err, flushErr, w.Write(), w.Sync()); err != nil {
				t.Fatal(err)
			}
			busy = did || flushed || g.Status().Inflight > 0 || !g.Leader()
			w.Finish()
		}
	}, g
}

type noTails struct{}

func (noTails) OverBudget() bool           { return false }
func (noTails) TailBytes() int64           { return 0 }
func (noTails) FlushOldest() (bool, error) { return false, nil }
