package shard

import (
	"fmt"
	"path"

	"github.com/tidings-io/tidings/internal/vfs"
)

// goneSuffix marks a folder whose group is forgotten.
const goneSuffix = ".gone"

// Forget removes the folder of a group: its checkpoints, and what the machine
// keeps there. It happens as a whole or not at all. It is for a node with peers
// whose log is damaged below what was durable, together with wal.Abandon, or
// WAL.Forget where only the group's part is to go, which comes second: as long
// as the WAL holds the group's log, Open refuses. After a crash in between both
// are to be called again. The replica then begins anew with Options.Join and
// another Raft id: what it voted for, and what it answered for, is not known any
// more, so the old id must never speak again. No group may be open on the
// folder.
func Forget(fs vfs.FS, dir string) error {
	gone := dir + goneSuffix
	if err := fs.RemoveAll(gone); err != nil {
		return fmt.Errorf("forget shard: %w", err)
	}
	if _, err := fs.Stat(dir); err != nil {
		return nil // it is gone, or was never there
	}
	if err := fs.Rename(dir, gone); err != nil {
		return fmt.Errorf("forget shard: %w", err)
	}
	if err := fs.SyncDir(path.Dir(dir)); err != nil {
		return fmt.Errorf("forget shard: %w", err)
	}
	if err := fs.RemoveAll(gone); err != nil {
		return fmt.Errorf("forget shard: %w", err)
	}
	return nil
}

// Whole reports whether the group with this id, whose folder is dir, can be
// opened as far as its checkpoints go: nil when one of them is whole, or there
// is none. ErrManifest is in the chain when all are damaged. It is for a node
// with peers, that would rather be caught up by them than not start. No group
// may be open on the folder.
func Whole(fs vfs.FS, dir string, id uint32) error {
	_, err := folder{fs: fs, dir: dir, shard: id}.load()
	return err
}
