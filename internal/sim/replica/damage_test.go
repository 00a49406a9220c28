package replica

import (
	"errors"
	"path"
	"testing"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/wal"
)

// read goes through a log and returns the first damage.
func read(t *testing.T, log *seglog.Log) *seglog.CorruptError {
	t.Helper()
	for offset := log.Start(); offset < log.End(); {
		batches, err := log.Read(offset, 64<<10)
		if damage, ok := errors.AsType[*seglog.CorruptError](err); ok {
			return damage
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(batches) == 0 {
			return nil
		}
		offset = batches[len(batches)-1].Last() + 1
	}
	return nil
}

// A bit that flips in a segment is found when the batch is read, and the batch
// is fetched from another replica; what was put back survives a crash.
func TestDamagedBatchIsFetchedFromAPeer(t *testing.T) {
	c := quiet(t, Options{Seed: 11, Async: true})
	c.load(300)
	c.settled(t)
	n, topic := c.follower(), c.shards[0].kept()
	dir := path.Join("data/topics", "11", "0")
	names, err := n.disk.ReadDir(dir)
	if err != nil || len(names) < 6 {
		t.Fatalf("segments %q: %v", names, err)
	}
	found := 0
	for i, at := range []int64{50, 90, 200, 1500, 3000} {
		if err := n.disk.Flip(path.Join(dir, names[i]), at, 3); err != nil {
			t.Fatal(err)
		}
		g := n.groups[0]
		for damage := read(t, g.log(topic)); damage != nil; damage = read(t, g.log(topic)) {
			found++
			batches, err := c.leader(0).groups[0].log(topic).Range(damage.First, damage.Last)
			if err != nil {
				t.Fatal(err)
			}
			if batches, err = partition.DecodeBatches(partition.AppendBatches(nil, batches)); err != nil {
				t.Fatal(err)
			}
			repaired := errors.New("not answered")
			g.Repair(partition.Key{Topic: topic}, damage.First, damage.Last, batches, func(err error) { repaired = err })
			for range 10 {
				c.round()
			}
			if repaired != nil {
				t.Fatalf("repair %v: %v", damage, repaired)
			}
			if found > 20 {
				t.Fatalf("it is still damaged: %v", damage)
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d damaged places were met", found)
	}
	c.load(100) // some checkpoints
	n.crash()
	n.restart()
	if damage := read(t, n.groups[0].log(topic)); damage != nil {
		t.Errorf("after a restart: %v", damage)
	}
	c.Finish()
}

// Damage in the WAL below what was durable takes the replicas on it out: they
// begin anew under another Raft id.
func TestReplicaWithADamagedLogRejoins(t *testing.T) {
	eachMode(t, Options{Seed: 12}, func(t *testing.T, c *Cluster) {
		c.load(200)
		n := c.follower()
		c.check(n.wal.Mark())
		n.crash()
		var durable wal.Frame
		err := wal.Inspect(n.disk, "data/wal", func(f wal.Frame) error {
			if f.Kind == wal.KindEntry && durable.Size == 0 {
				durable = f
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := n.disk.Flip(path.Join("data/wal", durable.Segment), durable.Offset+50, 1); err != nil {
			t.Fatal(err)
		}
		if _, damaged := errors.AsType[*wal.CorruptError](n.open()); !damaged {
			t.Fatal("the log opens")
		}
		c.change = &replacement{c: c, n: n, old: n.raftID}
		for s := range groups {
			c.check(shard.Forget(n.disk, shardDir(s)))
		}
		if _, err := wal.Abandon(n.disk, "data/wal"); err != nil {
			t.Fatal(err)
		}
		n.raftID, n.join, n.voters = c.newRaftID(), true, nil
		c.addr[n.raftID] = n.id
		c.check(n.open())
		c.load(200)
		c.Finish()
		if c.Counts.Installs < groups {
			t.Errorf("%+v", c.Counts)
		}
	})
}
