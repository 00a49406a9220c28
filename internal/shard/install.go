package shard

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/tidings-io/tidings/internal/fault"
	pb "go.etcd.io/raft/v3/raftpb"
)

// An installation replaces what the group has by a state that another replica
// took. In between the group is deaf: it takes no message, and time does not
// pass for it.
//
//  1. The group waits until every append is durable and no checkpoint is being
//     written, and makes a manifest: index, term and membership of the state,
//     its own term and vote, and how the WAL ends now, because nothing of what
//     stands there is part of the log from then on.
//  2. The flusher, which owns the files, moves what was staged to where it
//     belongs, under names that no kept checkpoint knows, and publishes the
//     manifest. Its rename is the moment. Older checkpoints go.
//  3. The group restores the machine in place and makes a new node of the
//     library at the index of the state.
//
// A crash before the rename is as if nothing had happened; after it, the group
// starts from the state.

// installation is a state on its way from Install to the end.
type installation struct {
	in    *Incoming
	done  func(error)
	state []byte // what the import has returned
	job   bool   // it is with the flusher
}

var _ Checkpoint = (*installation)(nil)

// Write implements Checkpoint, for the flusher.
func (i *installation) Write() (state []byte, err error) {
	i.state, err = i.in.imp.Install(i.in.head.index)
	return i.state, err
}

// Published implements Checkpoint.
func (i *installation) Published() { i.in.imp.Published() }

// installing reports whether the group is deaf.
func (p *peers) installing() bool { return p.install != nil }

// beginInstall takes the group out of the world, if the state is still wanted.
func (g *Group) beginInstall(in *Incoming, done func(error)) {
	g.overtaken()
	if err := g.refuseInstall(in); err != nil {
		in.phase.Store(uint32(phaseSync))
		done(err)
		return
	}
	g.p.install = &installation{in: in, done: done}
}

// refuseInstall says why a state can't be installed.
func (g *Group) refuseInstall(in *Incoming) error {
	why := ""
	switch {
	case g.p.in != in || in.lost.Load():
		why = "the log went on meanwhile"
	case g.leader || g.p.removed:
		why = "this replica leads, or was removed"
	case g.matches(in.head.index, in.head.term):
		// The entries up to the state are all here, and more may stand behind
		// them that this replica has answered for.
		why = "the log reaches the state"
	default:
		return nil
	}
	return fmt.Errorf("install state of shard %d: %w: %s", g.o.ID, ErrSession, why)
}

// matches reports whether the log holds an entry, or knows its term.
func (g *Group) matches(index, term uint64) bool {
	t, err := g.log.Term(index)
	return err == nil && t == term
}

// goOn takes the installation one step further. It reports whether it did
// something.
func (g *Group) goOn() bool {
	i := g.p.install
	if i == nil || i.job || g.writing || len(g.appends) > 0 {
		return false
	}
	// What the library still has ready was promised to nobody, because its
	// messages have not gone out: it is dropped with the node.
	g.waiting = nil
	i.job = true
	h, head := g.hard, i.in.head
	if h.Term < head.term {
		h.Term, h.Vote = head.term, 0
	}
	h.Commit = head.index
	last, term := g.o.WAL.Last(g.o.ID)
	g.lastSeq++
	j := &job{
		group: g, state: i, install: i,
		m: manifest{
			Shard: g.o.ID, Seq: g.lastSeq, Index: head.index, Term: head.term, Taken: g.p.now,
			Hard: h, Conf: head.conf, Installed: true, Void: entryID{last, term},
		},
		older: point{seq: g.lastSeq, index: head.index, term: head.term},
	}
	g.writing = true
	g.mu.Lock()
	g.job = j
	g.mu.Unlock()
	if g.jobHook != nil {
		g.jobHook()
	}
	return true
}

// installed ends the installation.
func (g *Group) installed(j *job) error {
	i := j.install
	g.writing = false
	g.p.install = nil
	if j.err != nil {
		i.in.lost.Store(true)
		i.in.phase.Store(uint32(phaseSync))
		i.done(fault.Wrap(fault.Storage, fmt.Errorf("install state of shard %d: %w", g.o.ID, j.err)))
		return nil
	}
	machine := g.o.Machine.(Portable)
	if err := machine.Replace(j.m.Index, i.state); err != nil {
		return fmt.Errorf("restore from %s: %w", g.folder.name(j.m.Seq), err)
	}
	if err := g.adopt(&j.m); err != nil {
		return err
	}
	i.in.phase.Store(uint32(phaseEnded))
	g.p.in = nil
	g.o.Logger.Info("this replica has caught up", "shard", g.o.ID, "index", j.m.Index, "bytes", i.in.bytes.Load())
	// The leader need not probe: it learns that the log may go on.
	g.send(&pb.Message{
		Type: pb.MsgAppResp.Enum(), To: new(i.in.from), From: new(g.o.RaftID),
		Term: new(g.hard.Term), Index: new(j.m.Index),
	})
	i.done(nil)
	return nil
}

// undo takes an installation back that met a full disk, which is an error of
// its own: a manifest that may or may not be there after a crash must not be
// left behind by a group that goes on from its old state.
func (j *job) undo() error {
	if j.install == nil || j.stage < stageManifest {
		return nil
	}
	if j.stage > stageManifest {
		return j.err // older checkpoints may be gone
	}
	f := j.group.folder
	if err := f.fs.Remove(f.name(j.m.Seq)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return f.fs.SyncDir(f.dir)
}

// adopt goes on from a manifest that was just published.
func (g *Group) adopt(m *manifest) error {
	g.newest = m.point()
	g.older = g.newest
	g.hard, g.void = m.Hard, m.Void
	g.log = storage{
		wal: g.o.WAL, shard: g.o.ID, conf: m.Conf,
		hard: m.Hard.message(),
		base: m.Index, baseTerm: m.Term, last: m.Index, newest: g.newest,
	}
	g.applied, g.appliedTerm = m.Index, m.Term
	g.replayTo = m.Index
	g.bytes, g.changedAt, g.retryAt = 0, 0, 0
	g.nextTick, g.leadID, g.hupped = 0, 0, false
	g.member()
	g.o.WAL.Release(g.o.ID, m.Index)
	if err := g.start(); err != nil {
		return fmt.Errorf("start from %s: %w", g.folder.name(m.Seq), err)
	}
	g.forced.Store(true) // so that there are two checkpoints again
	return nil
}
