package node

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/vfs"
)

// formatVersion is the layout of the data folder that this binary writes. A
// folder with a higher one is refused. One of version 1, a single node of the
// first releases, stays as it is.
const formatVersion = 2

// identity is the content of the file NODE: who lives in a data folder, and to
// which cluster it belongs.
type identity struct {
	Format     int    `json:"format_version"`
	NodeID     string `json:"node_id"`     // 16 hex characters, drawn at random
	RaftID     uint64 `json:"raft_id"`     // new for every (node, disk) incarnation
	DataShards int    `json:"data_shards"` // Raft groups for data, ids 1..DataShards; 0: belongs to no cluster yet

	// From version 2 on.
	Name    string         `json:"name,omitempty"`
	Stage   string         `json:"stage,omitempty"` // empty, accepted, formed, rejoining
	Cluster string         `json:"cluster_id,omitempty"`
	Attempt uint64         `json:"attempt,omitempty"` // number of it
	Draw    uint64         `json:"attempt_draw,omitempty"`
	Members []memberOfFile `json:"members,omitempty"`
	Voters  [][]uint64     `json:"voters,omitempty"` // Raft ids, by group; index 0 is metadata
	Begun   bool           `json:"begun,omitempty"`  // groups have been opened: wal/ must be there
	// Stale: wal/, shards/ and topics/ are those of a Raft id that is given up; see
	// rejoin.
	Stale bool `json:"stale,omitempty"`
}

// memberOfFile is a member as the file names it.
type memberOfFile struct {
	Name      string `json:"name"`
	RaftID    uint64 `json:"raft_id"`
	Addr      string `json:"cluster_address,omitempty"`
	TCP       string `json:"tcp_address,omitempty"`
	HTTP      string `json:"http_address,omitempty"`
	Broadcast string `json:"broadcast_address,omitempty"`
}

// dataDir is a data folder in use by this process. One goroutine changes it.
type dataDir struct {
	path string
	identity
	lock io.Closer
}

// openDataDir takes the folder for this process, making it when it is not
// there, for a node that is a cluster of its own. shards is the number of data
// shards of a folder that is made now. A member of a cluster is refused: it
// needs its seeds.
func openDataDir(fsys vfs.FS, dir string, shards int) (*dataDir, error) {
	d, err := takeDataDir(fsys, dir, func(id *identity) { id.single(shards) })
	if err == nil && !d.alone() {
		err = fmt.Errorf("data folder %s belongs to node %s of a cluster; start it with --seeds, as before, or choose another folder with --data-path", dir, d.Name)
		return nil, errors.Join(err, d.lock.Close())
	}
	return d, err
}

// openClusterDir takes the folder as openDataDir does, for a node of that name
// that has seeds: a new one belongs to no cluster yet. A folder of another
// node, or of one that is a cluster of its own, is refused.
func openClusterDir(fsys vfs.FS, dir, name string) (*dataDir, error) {
	d, err := takeDataDir(fsys, dir, func(id *identity) { id.Name, id.Stage = name, cluster.Empty.String() })
	switch {
	case err != nil:
		return nil, err
	case d.alone():
		err = fmt.Errorf("data folder %s holds a single node, which cannot become part of a cluster; start it without --seeds, or choose an empty folder with --data-path", dir)
	case d.Name != name:
		err = fmt.Errorf("data folder %s belongs to node %s, not %s; choose another folder with --data-path, or the name with --node", dir, d.Name, name)
	default:
		return d, nil
	}
	return nil, errors.Join(err, d.lock.Close())
}

func takeDataDir(fsys vfs.FS, dir string, fresh func(*identity)) (*dataDir, error) {
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
	if err := d.identify(fsys, fresh); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

func (d *dataDir) identify(fsys vfs.FS, fresh func(*identity)) error {
	err := d.read(fsys)
	if !errors.Is(err, errNobody) {
		return err
	}
	id, err := d.draw(fsys)
	if err != nil {
		return err
	}
	fresh(&id)
	return d.write(fsys, id)
}

// CheckDataPath says why no node with these settings could start on a folder, as
// far as the folder itself tells; nil for one that is empty or not there. Nothing
// is changed, and the folder may be in use.
func CheckDataPath(fsys vfs.FS, dir string, seeds bool) error {
	d := &dataDir{path: dir}
	err := d.read(fsys)
	switch {
	case errors.Is(err, errNobody):
		_, err = d.draw(fsys)
		return err
	case err != nil:
		return err
	case seeds && d.alone():
		return fmt.Errorf("data folder %s holds a single node, which cannot become part of a cluster", dir)
	case !seeds && !d.alone():
		return fmt.Errorf("data folder %s belongs to node %s of a cluster", dir, d.Name)
	}
	return nil
}

// errNobody is a folder without the file NODE.
var errNobody = errors.New("nobody lives in the data folder")

// read reads NODE.
func (d *dataDir) read(fsys vfs.FS) error {
	name := path.Join(d.path, "NODE")
	text, err := vfs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return errNobody
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
	if d.Format < 1 || d.RaftID == 0 || d.Format == 1 && d.DataShards < 1 {
		return fmt.Errorf("read %s: not a node's identity", name)
	}
	return d.check(fsys)
}

// check refuses an identity that makes no sense, and a folder that has lost its
// log: a voter that forgot what it promised must not vote under its old Raft id.
func (d *dataDir) check(fsys vfs.FS) error {
	if d.Format == 1 {
		return nil
	}
	if _, err := d.clusterIdentity(); err != nil {
		return fmt.Errorf("read %s: %w", path.Join(d.path, "NODE"), err)
	}
	if !d.Begun {
		return nil
	}
	if _, err := fsys.Stat(path.Join(d.path, "wal")); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data folder %s has lost its log, wal/: restore it; or empty the whole folder, and as a member of a cluster the node comes back with what the others hold", d.path)
	} else if err != nil {
		return fmt.Errorf("look for the log in data folder %s: %w", d.path, err)
	}
	return nil
}

// draw draws a new identity. A folder that holds a log without an identity
// is refused: it would get a second life under a new name.
func (d *dataDir) draw(fsys vfs.FS) (identity, error) {
	for _, sub := range []string{"wal", "shards", "topics"} {
		if _, err := fsys.Stat(path.Join(d.path, sub)); err == nil {
			return identity{}, fmt.Errorf("data folder %s holds %s/ but no NODE file: restore the file, or start with an empty folder", d.path, sub)
		}
	}
	var raw [8]byte
	rand.Read(raw[:])
	return identity{Format: formatVersion, NodeID: hex.EncodeToString(raw[:]), RaftID: newRaftID()}, nil
}

// newRaftID draws a Raft id: never zero, never one of Raft's local ids.
func newRaftID() uint64 {
	var raw [8]byte
	rand.Read(raw[:])
	return binary.BigEndian.Uint64(raw[:])>>1 | 1
}

// write makes an identity durable, whole or not at all.
func (d *dataDir) write(fsys vfs.FS, id identity) error {
	if err := d.save(fsys, id); err != nil {
		return err
	}
	d.identity = id
	return nil
}

func (d *dataDir) save(fsys vfs.FS, id identity) error {
	name := path.Join(d.path, "NODE")
	text, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return vfs.WriteFileAtomic(fsys, name, append(text, '\n'))
}

// single makes the identity a cluster of this node alone. Its name may change
// with every start, so the file has the node id for it.
func (id *identity) single(shards int) {
	var raw [16]byte
	rand.Read(raw[:])
	nodes := []meta.Node{{ID: id.RaftID, Name: id.NodeID}}
	id.fill(cluster.Identity{
		Name: id.NodeID, RaftID: id.RaftID, Stage: cluster.Formed, Cluster: hex.EncodeToString(raw[:]),
		Members: nodes, Voters: meta.Layout(nodes, shards, 1), Shards: shards,
	})
}

// alone reports whether the node is a cluster of its own, without seeds.
func (id *identity) alone() bool {
	return id.Format == 1 || id.Stage == cluster.Formed.String() && id.Attempt == 0
}

// founding is what metadata begins with, as meta.Options.Founding wants it; nil
// for a node that joined later, and for one that is alone: its metadata begins
// by itself.
func (id *identity) founding() *meta.Founding {
	c, err := id.clusterIdentity()
	if err != nil || id.alone() {
		return nil
	}
	return c.Founding()
}

// clusterIdentity is the file as the cluster knows it: what a Former or an
// Agent begins with.
func (id *identity) clusterIdentity() (cluster.Identity, error) {
	if id.Format == 1 {
		return cluster.Identity{}, errors.New("the folder is of version 1: a single node, which cannot become part of a cluster")
	}
	c := cluster.Identity{
		Name: id.Name, RaftID: id.RaftID, Cluster: id.Cluster,
		Attempt: cluster.Attempt{Number: id.Attempt, Draw: id.Draw}, Voters: id.Voters, Shards: id.DataShards,
	}
	for c.Stage.String() != id.Stage {
		if c.Stage++; c.Stage > cluster.Rejoining {
			return c, fmt.Errorf("the stage %q is not known", id.Stage)
		}
	}
	for _, m := range id.Members {
		c.Members = append(c.Members, meta.Node{
			ID: m.RaftID, Name: m.Name, Addr: m.Addr, TCP: m.TCP, HTTP: m.HTTP, Broadcast: m.Broadcast,
		})
	}
	return c, c.Check()
}

// fill takes over what the cluster says.
func (id *identity) fill(c cluster.Identity) {
	id.Format, id.Name, id.RaftID, id.Stage = formatVersion, c.Name, c.RaftID, c.Stage.String()
	id.Cluster, id.Attempt, id.Draw = c.Cluster, c.Attempt.Number, c.Attempt.Draw
	id.Members, id.Voters = nil, c.Voters
	for _, n := range c.Members {
		id.Members = append(id.Members, memberOfFile{
			Name: n.Name, RaftID: n.ID, Addr: n.Addr, TCP: n.TCP, HTTP: n.HTTP, Broadcast: n.Broadcast,
		})
	}
	id.DataShards = c.Shards
}

// saveCluster makes durable what the forming or joining of a cluster says: the
// Save of cluster.FormingOptions.
func (d *dataDir) saveCluster(fsys vfs.FS, c cluster.Identity) error {
	if d.Begun || d.Format == 1 {
		return fmt.Errorf("write %s: its groups have begun", path.Join(d.path, "NODE"))
	}
	next := d.identity
	next.fill(c)
	return d.write(fsys, next)
}

// grow notes that groups of so many data shards are here. Their first checkpoints are
// written already, and nothing else.
func (d *dataDir) grow(fsys vfs.FS, shards int) error {
	if shards <= d.DataShards {
		return nil
	}
	next := d.identity
	next.DataShards = shards
	if err := d.save(fsys, next); err != nil {
		return err
	}
	d.DataShards = shards // the rest is read by others meanwhile
	return nil
}

// begun notes that the groups have been opened, and with them the log made.
func (d *dataDir) begun(fsys vfs.FS) error {
	if d.Begun || d.Format == 1 {
		return nil
	}
	next := d.identity
	next.Begun = true
	return d.write(fsys, next)
}
