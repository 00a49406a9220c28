package shard

import (
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
	pb "go.etcd.io/raft/v3/raftpb"
)

// Options of a group. Zero values mean the default named beside the field.
type Options struct {
	ID      uint32 // number of the shard in the WAL
	RaftID  uint64 // this replica's Raft id; not 0
	Dir     string // <data>/shards/<id>: its checkpoints
	FS      vfs.FS
	WAL     *wal.WAL
	Machine Machine
	Async   bool         // asynchronous storage writes; false: Ready/Advance
	Clock   func() int64 // unix ns, for Run and Drive; default the system's
	Logger  *slog.Logger // default: discards

	CheckpointBytes int64         // a checkpoint is due after so many bytes of entries; 64 MiB
	CheckpointAge   time.Duration // … or so long after the first change since the last; 60 s
	MaxEntryBytes   int           // what Drain is asked for; 1 MiB
	MaxInflight     int           // proposals between propose and apply; 2

	// KeepBytes is how much of the WAL, of all shards together, a group with
	// more than one voter keeps for replicas that were away for a while. 256 MiB;
	// negative: nothing.
	KeepBytes int64
	// PinBytes bounds what a transfer session may keep of the WAL: one that
	// keeps more must begin anew. 4 GiB.
	PinBytes int64
	// ChunkBytes is about how large a chunk of a session is; only a single batch
	// that is larger makes a larger one. 256 KiB.
	ChunkBytes int
	// SendLimit bounds what sessions send; nil: nothing does. The groups of a
	// node share it.
	SendLimit *Limiter

	// Join says that a group which is not here yet begins as an empty replica
	// without a vote: membership and state come from the others.
	Join bool
	// Behind is told, on the loop, that this replica has fallen behind the log
	// of the leader with that Raft id: a session is to be begun with Import. It
	// must not block; it comes again, at intervals of seconds, as long as that
	// lasts. Nil: the replica stays behind.
	Behind func(leader uint64)
	// LeaderMoved is told, on the loop, that Status has another leader than before, the
	// same in another term, or none. It must not block.
	LeaderMoved func()
	// Removed is told, on the loop, that this replica is not a member any more.
	Removed func()
	// Voters of a new group; default this replica alone. Later the membership
	// stands in the checkpoint and the log.
	Voters []uint64
	// Send hands a message to another replica, in order, or loses it; it must
	// not block. Nil loses all: a group of one has nobody to write to.
	Send func(*pb.Message)
}

// tickInterval is one tick of the library: a heartbeat; ten are an election
// timeout. A group whose only voter is this node does not tick.
const (
	tickInterval   = int64(100 * time.Millisecond)
	heartbeatTicks = 1
	electionTicks  = 10
)

// Never is the time that does not come, as Tick and Step return it.
const Never = int64(math.MaxInt64)

func (o *Options) fill() error {
	switch {
	case o.RaftID == 0:
		return fmt.Errorf("open shard %d: no raft id", o.ID)
	case o.FS == nil || o.WAL == nil || o.Machine == nil || o.Dir == "":
		return fmt.Errorf("open shard %d: file system, WAL, machine and folder are needed", o.ID)
	}
	if o.Clock == nil {
		o.Clock = func() int64 { return time.Now().UnixNano() }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.CheckpointBytes <= 0 {
		o.CheckpointBytes = 64 << 20
	}
	if o.CheckpointAge <= 0 {
		o.CheckpointAge = time.Minute
	}
	if o.MaxEntryBytes <= 0 {
		o.MaxEntryBytes = 1 << 20
	}
	if o.MaxInflight <= 0 {
		o.MaxInflight = 2
	}
	if o.KeepBytes == 0 {
		o.KeepBytes = 256 << 20
	}
	if o.ChunkBytes <= 0 {
		o.ChunkBytes = 256 << 10
	}
	if o.PinBytes <= 0 {
		o.PinBytes = 4 << 30
	}
	if len(o.Voters) == 0 {
		o.Voters = []uint64{o.RaftID}
	}
	return nil
}
