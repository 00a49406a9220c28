package node

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/tidings-io/tidings/internal/vfs"
)

// formatVersion is the layout of the data folder that this binary writes. A
// folder with a higher one is refused.
const formatVersion = 1

// identity is the content of the file NODE: who lives in a data folder. It is
// written once, when the folder is made.
type identity struct {
	Format     int    `json:"format_version"`
	NodeID     string `json:"node_id"`     // 16 hex characters, drawn at random
	RaftID     uint64 `json:"raft_id"`     // new for every (node, disk) incarnation
	DataShards int    `json:"data_shards"` // Raft groups for data, ids 1..DataShards
}

// dataDir is a data folder in use by this process.
type dataDir struct {
	path string
	identity
	lock io.Closer
}

// openDataDir takes the folder for this process, making it when it is not
// there. shards is the number of data shards of a folder that is made now.
func openDataDir(fsys vfs.FS, dir string, shards int) (*dataDir, error) {
	if err := vfs.MkdirSynced(fsys, dir); err != nil {
		return nil, fmt.Errorf("make data folder %s: %w", dir, err)
	}
	lock, err := fsys.Lock(path.Join(dir, "LOCK"))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("data folder %s is %w; stop that, or choose another folder with --data-path", dir, vfs.ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("lock data folder %s: %w", dir, err)
	}
	d := &dataDir{path: dir, lock: lock}
	if err := d.identify(fsys, shards); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

func (d *dataDir) identify(fsys vfs.FS, shards int) error {
	name := path.Join(d.path, "NODE")
	text, err := vfs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return d.create(fsys, name, shards)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(text, &d.identity); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if d.Format > formatVersion {
		return fmt.Errorf("data folder %s has format version %d, this binary knows up to %d; use a newer binary", d.path, d.Format, formatVersion)
	}
	if d.Format < 1 || d.DataShards < 1 || d.RaftID == 0 {
		return fmt.Errorf("read %s: not a node's identity", name)
	}
	return nil
}

// create writes a new identity. A folder that holds a log without an identity
// is refused: it would get a second life under a new name.
func (d *dataDir) create(fsys vfs.FS, name string, shards int) error {
	for _, sub := range []string{"wal", "shards", "topics"} {
		if _, err := fsys.Stat(path.Join(d.path, sub)); err == nil {
			return fmt.Errorf("data folder %s holds %s/ but no NODE file: restore the file, or start with an empty folder", d.path, sub)
		}
	}
	var raw [16]byte
	rand.Read(raw[:])
	d.identity = identity{Format: formatVersion, NodeID: hex.EncodeToString(raw[:8]), DataShards: shards}
	for _, b := range raw[8:] {
		d.RaftID = d.RaftID<<8 | uint64(b)
	}
	d.RaftID = d.RaftID>>1 | 1 // never zero, never one of Raft's local ids
	text, err := json.MarshalIndent(d.identity, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return vfs.WriteFileAtomic(fsys, name, append(text, '\n'))
}
