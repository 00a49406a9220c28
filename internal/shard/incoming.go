package shard

import (
	"fmt"
	"path"
	"strconv"
	"sync/atomic"

	"github.com/tidings-io/tidings/internal/fault"
	pb "go.etcd.io/raft/v3/raftpb"
)

// stagingDir is the folder, below the group's, of a state on its way in.
const stagingDir = "staging"

// phase is how far an Incoming has come.
type phase uint8

const (
	phaseReceive phase = iota
	phaseSync
	phaseInstall // handed to the loop
	phaseEnded
)

// phases are the names that Progress shows.
var phases = [...]string{"receive", "sync", "install", "end"}

// Incoming is a transfer session on the side that receives. Put, Sync and
// Abort are called by one goroutine at a time, its driver's; the loop owns the
// rest. Nothing of the group changes before Install.
type Incoming struct {
	g       *Group
	from    uint64
	request request
	started int64
	imp     Import

	phase atomic.Uint32
	lost  atomic.Bool // the loop has given it up
	bytes atomic.Int64
	index atomic.Uint64
	total atomic.Int64
	moved atomic.Int64 // unix ns of the driver's last step

	// driver
	head  sessionHead
	tally tally
	whole bool // the last chunk has come
}

// Import begins a session in which this replica gets a state from another. done
// is called once, on the loop: with fault.Overloaded when one is under way,
// with fault.NotLeader when this replica leads or was removed. Any goroutine.
func (g *Group) Import(from uint64, done func(*Incoming, error)) {
	g.call(func() { done(g.beginImport(from)) })
}

func (g *Group) beginImport(from uint64) (*Incoming, error) {
	machine, ok := g.o.Machine.(Portable)
	switch {
	case !ok:
		return nil, fault.New(fault.Unsupported, "receive state of shard %d: its machine cannot be carried", g.o.ID)
	case g.p.in != nil:
		return nil, fault.New(fault.Overloaded, "receive state of shard %d: a session is under way", g.o.ID)
	case g.leader || g.p.removed:
		return nil, fault.New(fault.NotLeader, "receive state of shard %d: this replica leads, or was removed", g.o.ID)
	}
	in := &Incoming{
		g: g, from: from, started: g.p.now,
		request: request{shard: g.o.ID, applied: g.applied, have: machine.Have()},
	}
	g.p.imports++
	in.imp = machine.Import(path.Join(g.o.Dir, stagingDir, strconv.FormatUint(g.p.imports, 10)))
	in.moved.Store(g.p.now)
	g.p.in = in
	g.o.Logger.Info("this replica catches up", "shard", g.o.ID, "applied", g.applied, "from", RaftID(from))
	return in, nil
}

// Request is what the other replica's Export is to be given.
func (in *Incoming) Request() []byte { return in.request.encode() }

// Put takes the next chunk; it writes files. whole says that it was the last.
// The bytes are the caller's again afterwards. After an error the session is to
// be aborted.
func (in *Incoming) Put(chunk []byte) (whole bool, err error) {
	if in.lost.Load() {
		return false, fmt.Errorf("receive state of shard %d: %w", in.g.o.ID, ErrSession)
	}
	in.moved.Store(in.g.o.Clock())
	if whole, err = in.put(chunk); err != nil {
		return false, fmt.Errorf("receive state of shard %d: %w", in.g.o.ID, err)
	}
	in.bytes.Add(int64(len(chunk)))
	return whole, nil
}

func (in *Incoming) put(chunk []byte) (bool, error) {
	if len(chunk) == 0 || in.whole || (in.tally.chunks == 0) != (chunk[0] == chunkHead) {
		return false, errChunk
	}
	switch chunk[0] {
	case chunkHead:
		head, err := decodeHead(chunk[1:])
		if err != nil {
			return false, err
		}
		if head.shard != in.request.shard || head.index <= in.request.applied {
			return false, fmt.Errorf("state of shard %d at %d: %w", head.shard, head.index, errChunk)
		}
		if !includes(head.conf, in.g.o.RaftID) {
			return false, fmt.Errorf("%w: the state does not know this replica yet", ErrSession)
		}
		in.head = head
		in.index.Store(head.index)
		in.total.Store(head.size)
	case chunkData:
		if err := in.imp.Put(chunk[1:]); err != nil {
			return false, err
		}
	case chunkEnd:
		in.whole = in.tally.matches(chunk[1:])
		if !in.whole {
			return false, fmt.Errorf("check sum: %w", errChunk)
		}
		return true, nil
	default:
		return false, errChunk
	}
	in.tally.add(chunk)
	return false, nil
}

// Sync makes what was received durable, after the last chunk.
func (in *Incoming) Sync() error {
	if !in.whole {
		return fmt.Errorf("receive state of shard %d: %w: the stream has no end", in.g.o.ID, ErrSession)
	}
	in.moved.Store(in.g.o.Clock())
	in.phase.Store(uint32(phaseSync))
	if err := in.imp.Sync(); err != nil {
		return fmt.Errorf("receive state of shard %d: %w", in.g.o.ID, err)
	}
	return nil
}

// Install puts the state in place of the present one. done is called once, on
// the loop, when that is durable and the replica goes on from there, or with the
// reason why not: ErrSession when the log went on meanwhile, or a full disk's.
// The driver aborts then.
func (in *Incoming) Install(done func(error)) {
	in.phase.Store(uint32(phaseInstall))
	in.g.call(func() { in.g.beginInstall(in, done) })
}

// Abort ends the session and removes what was staged. It does nothing once the
// state is installed, and while Install is under way: that ends by itself, or
// with the process, and then the next start removes what is left.
func (in *Incoming) Abort() error {
	if p := phase(in.phase.Load()); p == phaseEnded || p == phaseInstall {
		return nil
	}
	in.lost.Store(true)
	in.phase.Store(uint32(phaseEnded))
	err := in.imp.Discard()
	in.g.call(func() {
		if in.g.p.in == in {
			in.g.p.in = nil
		}
	})
	if err != nil {
		return fmt.Errorf("discard state of shard %d: %w", in.g.o.ID, err)
	}
	return nil
}

func (in *Incoming) progress() Progress {
	return Progress{
		Peer: in.from, Index: in.index.Load(), Bytes: in.bytes.Load(), Total: in.total.Load(),
		Started: in.started, Stage: phases[in.phase.Load()],
	}
}

// overtaken gives the session up when the log has gone on without it.
func (g *Group) overtaken() {
	if in := g.p.in; in != nil && in.request.applied != g.applied {
		in.lost.Store(true)
	}
}

// abandoned gives the session up when its driver does nothing any more.
func (g *Group) abandoned(now int64) {
	in := g.p.in
	if in == nil || g.p.installing() || now-in.moved.Load() <= sessionTimeout {
		return
	}
	g.o.Logger.Warn("this replica has got nothing for too long, it begins anew", "shard", g.o.ID, "from", RaftID(in.from))
	in.lost.Store(true)
	g.p.in = nil
}

// behind looks at the leader's word that this replica must get a state, and
// passes it on. Where the log reaches the state after all, the library answers
// for itself: it moves the commit and never installs.
func (g *Group) behind(m *pb.Message) (step bool) {
	snap := m.GetSnapshot().GetMetadata()
	if g.p.removed {
		return false
	}
	if snap.GetIndex() <= g.applied {
		return true
	}
	if term, err := g.log.Term(snap.GetIndex()); err == nil && term == snap.GetTerm() {
		return true
	}
	if m.GetTerm() < g.hard.Term || g.leader || g.p.in != nil || g.o.Behind == nil {
		return false
	}
	g.o.Behind(m.GetFrom())
	return false
}
