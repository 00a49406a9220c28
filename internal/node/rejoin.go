package node

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
)

// A member whose log is damaged below what was durable (wal.CorruptError), or that
// has lost all checkpoints of a group, has forgotten votes and entries that it may
// have answered for. Its replicas must
// not speak again. With other members it gives them up, and comes back as an
// empty replica:
//
//  1. rejoin notes a new Raft id, the stage "rejoining", and that the files are
//     stale. That one write is the moment: the old Raft id is gone. The files are
//     all still there, for an operator whose other nodes are damaged as well.
//  2. Forming asks the others for the place of the member of this name. They
//     give it when its lease has lapsed. The identity is formed then.
//  3. dropStale removes the files of the old Raft id, but for the log, which is
//     moved aside, and notes that they are stale no more.
//  4. The groups open with shard.Options.Join, and get their states from others.
//
// After a crash, what is noted says where to go on; steps 2 and 3 may be begun
// again. Damage of the log that is begun in step 4 leads back to 1.

// rejoin has the node come back to its cluster under a new Raft id. It is called
// when no group is open and nothing was sent under the old one in this life. For
// a node that has no others to come back to it is an error, and nothing changes.
func (d *dataDir) rejoin(fsys vfs.FS) error {
	if d.alone() {
		return fmt.Errorf("give up the replicas in data folder %s: a single node has nobody who holds what it lost", d.path)
	}
	c, err := d.clusterIdentity()
	if err != nil {
		return err
	}
	if c, err = c.Rejoin(newRaftID()); err != nil {
		return fmt.Errorf("give up the replicas in data folder %s: %w", d.path, err)
	}
	next := d.identity
	next.fill(c)
	next.Begun, next.Stale = false, true
	return d.write(fsys, next)
}

// dropStale removes what a Raft id that was given up has left, once the node has
// come back: the folders of its groups and its topics. The segments of the
// damaged log go to a folder in wal/, whose paths are returned. It does nothing
// when nothing is stale. No group, store or log may be open.
func (d *dataDir) dropStale(fsys vfs.FS) (moved []string, err error) {
	if !d.Stale {
		return nil, nil
	}
	if c, err := d.clusterIdentity(); err != nil || c.Stage.String() != "formed" {
		return nil, fmt.Errorf("drop the replicas in data folder %s: the node has not come back yet: %w", d.path, err)
	}
	// Groups before the log: as long as that holds something of a group which is
	// not there, the group does not open.
	if err := d.forgetGroups(fsys); err != nil {
		return nil, err
	}
	if err := shard.Forget(fsys, path.Join(d.path, "topics")); err != nil {
		return nil, fmt.Errorf("drop topics: %w", err)
	}
	log := path.Join(d.path, "wal")
	if _, err := fsys.Stat(log); err == nil {
		if moved, err = wal.Abandon(fsys, log); err != nil {
			return moved, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for the log in data folder %s: %w", d.path, err)
	}
	next := d.identity
	next.Stale = false
	return moved, d.write(fsys, next)
}

// forgetGroups removes the folders of all groups, and what a crash has left of
// one that was being removed.
func (d *dataDir) forgetGroups(fsys vfs.FS) error {
	dir := path.Join(d.path, "shards")
	names, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list shards: %w", err)
	}
	for _, name := range names {
		id, _, _ := strings.Cut(name, ".")
		if err := shard.Forget(fsys, path.Join(dir, id)); err != nil {
			return err
		}
	}
	return nil
}
