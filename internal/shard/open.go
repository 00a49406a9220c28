package shard

import (
	"fmt"
	"path"

	"github.com/tidings-io/tidings/internal/turn"
	"github.com/tidings-io/tidings/internal/vfs"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// firstIndex is where a new group's log begins: its first manifest stands
// there, so that a later replica can only get the membership with a state.
const firstIndex, firstTerm = 1, 1

// Open loads the newest whole checkpoint into the machine and prepares the
// replay of everything above it; the loop then applies it. A damaged newest
// checkpoint falls back to the older one, which the log and Status report;
// when no checkpoint is whole, or the log does not reach down to it, Open
// refuses and names the file.
func Open(o Options) (*Group, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	g := &Group{
		o:      o,
		folder: folder{fs: o.FS, dir: o.Dir, shard: o.ID},
		turn:   turn.New(),
		ended:  make(chan struct{}),
		lead:   make(chan struct{}),
	}
	g.syncer, _ = o.Machine.(Syncer)
	if err := o.FS.RemoveAll(path.Join(o.Dir, stagingDir)); err != nil {
		return nil, fmt.Errorf("open shard %d: remove unfinished transfer: %w", o.ID, err)
	}
	if err := g.recover(); err != nil {
		return nil, err
	}
	if err := g.start(); err != nil {
		return nil, fmt.Errorf("open shard %d: %w", o.ID, err)
	}
	g.report()
	g.Wake()
	return g, nil
}

// recover loads the checkpoint and fits it to the log.
func (g *Group) recover() error {
	got, err := g.folder.load()
	if err != nil {
		return fmt.Errorf("open shard %d: %w", g.o.ID, err)
	}
	for _, name := range got.damaged {
		g.o.Logger.Warn("checkpoint is damaged and passed over", "shard", g.o.ID, "file", name)
	}
	g.damaged = got.damaged
	if got.newest == nil {
		if got.newest, err = g.found(); err != nil {
			return err
		}
		got.last = got.newest.Seq
	}
	m := got.newest
	if err := g.o.Machine.Restore(m.Index, m.State); err != nil {
		return fmt.Errorf("restore shard %d from %s: %w", g.o.ID, g.folder.name(m.Seq), err)
	}
	g.newest = m.point()
	g.older = g.newest
	if got.older != nil {
		g.older = got.older.point()
	}
	g.lastSeq = got.last
	g.applied, g.appliedTerm = m.Index, m.Term
	return g.fit(m)
}

func (m *manifest) point() point {
	return point{seq: m.Seq, index: m.Index, term: m.Term, taken: m.Taken, conf: m.Conf}
}

// found begins a new group: the first manifest holds its membership.
func (g *Group) found() (*manifest, error) {
	if last, _ := g.o.WAL.Last(g.o.ID); last != 0 {
		return nil, fmt.Errorf("open shard %d: the WAL holds its log up to entry %d, and %s holds no checkpoint",
			g.o.ID, last, g.o.Dir)
	}
	if err := vfs.MkdirSynced(g.o.FS, g.o.Dir); err != nil {
		return nil, fmt.Errorf("open shard %d: %w", g.o.ID, err)
	}
	m := &manifest{
		Shard: g.o.ID, Seq: 1, Index: firstIndex, Term: firstTerm,
		Hard: hardState{Term: firstTerm, Commit: firstIndex},
		Conf: &pb.ConfState{Voters: g.o.Voters},
	}
	if g.o.Join { // all of it comes from the others
		m = &manifest{Shard: g.o.ID, Seq: 1, Conf: &pb.ConfState{}}
	}
	if err := g.folder.write(m); err != nil {
		return nil, fmt.Errorf("open shard %d: %w", g.o.ID, err)
	}
	return m, nil
}

// fit lays the checkpoint beside what the WAL holds.
func (g *Group) fit(m *manifest) error {
	w, id := g.o.WAL, g.o.ID
	hard := m.Hard
	if h, ok := w.Hard(id); ok && h.Term >= hard.Term {
		hard.Term, hard.Vote = h.Term, h.Vote
		hard.Commit = max(hard.Commit, h.Commit)
	}
	hard.Commit = max(hard.Commit, m.Index)
	if hard.Term < m.Term {
		hard.Term, hard.Vote = m.Term, 0
	}

	first := w.First(id)
	last, term := w.Last(id)
	void := m.Void != entryID{} && m.Void == entryID{last, term}
	g.void = m.Void
	base := g.older
	switch {
	case last <= m.Index || void: // nothing to replay
		base, last = g.newest, m.Index
	case first > m.Index+1:
		return fmt.Errorf("open shard %d: entries %d to %d are missing between %s and the WAL",
			id, m.Index+1, first-1, g.folder.name(m.Seq))
	case first > base.index+1:
		base = g.newest
	case first < base.index && m.Void == entryID{}:
		base.index = first // what was kept for other replicas
		base.term, _ = w.Term(id, first)
	}
	if hard.Commit > last {
		return fmt.Errorf("open shard %d: entries up to %d were committed, and the WAL ends at %d",
			id, hard.Commit, last)
	}
	g.log = storage{
		wal: w, shard: id, conf: m.Conf,
		hard: hard.message(),
		base: base.index, baseTerm: base.term, last: last, newest: g.newest,
	}
	g.hard, g.replayTo = hard, hard.Commit
	g.member()
	return nil
}

// start makes the library's node.
func (g *Group) start() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = g.panicked(p)
		}
	}()
	g.node, err = raft.NewRawNode(&raft.Config{
		ID:                        g.o.RaftID,
		ElectionTick:              electionTicks,
		HeartbeatTick:             heartbeatTicks,
		Storage:                   &g.log,
		Applied:                   g.applied,
		AsyncStorageWrites:        g.o.Async,
		MaxSizePerMsg:             1 << 20,
		MaxCommittedSizePerReady:  8 << 20,
		MaxInflightMsgs:           256,
		CheckQuorum:               true,
		PreVote:                   true,
		DisableProposalForwarding: true,
		StepDownOnRemoval:         true,
		Logger:                    raftLogger{g.o.Logger.With("shard", g.o.ID)},
	})
	return err
}
