package shard

import (
	"errors"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// ErrUnknown says that what was proposed may or may not come to be: it was in
// the log when the leadership was lost.
var ErrUnknown = errors.New("the outcome is unknown")

// peers is what a group with other members needs beside. The loop owns it.
type peers struct {
	now     int64 // unix ns, of this pass
	out     []*Outgoing
	signals []signal
	in      *Incoming
	imports uint64        // sessions begun in this life
	install *installation // not nil: the group is deaf

	handover handover
	reads    []*read
	readID   uint64
	readLife [8]byte // random, drawn with the first read
	change   *change

	removed bool
	members []Member         // replaced, never changed
	heard   map[uint64]int64 // by replica: when the library last knew it as active, unix ns
}

// Member is a replica of a group, as Status shows it.
type Member struct {
	ID      uint64 // Raft id
	Learner bool
	// The rest is what the leader knows; it is empty elsewhere.
	Match  uint64 // all entries up to it are durable there
	State  string // probe, replicate, snapshot
	Active bool   // heard of within the last election timeout
	// Latency is the last report of its WAL's syncs; 0: none.
	Latency int64 // ns
}

// member looks at what the membership says about this replica.
func (g *Group) member() {
	conf := g.log.conf
	was := g.alone
	g.alone = only(conf, g.o.RaftID)
	if g.alone && !was {
		g.hupped = false
	}
	g.keeps.Store(0)
	if len(conf.GetVoters()) > 1 {
		g.keeps.Store(max(g.o.KeepBytes, 0))
	}
	here := includes(conf, g.o.RaftID)
	if !here && !g.p.removed && g.applied > 0 && len(conf.GetVoters()) > 0 {
		g.p.removed = true
		g.o.Logger.Warn("this replica is not a member any more", "shard", g.o.ID, "index", g.applied)
		if g.o.Removed != nil {
			g.o.Removed()
		}
	}
	g.look()
}

// includes reports whether a membership has the replica in any role.
func includes(conf *pb.ConfState, id uint64) bool {
	return slices.Contains(conf.GetVoters(), id) || slices.Contains(conf.GetLearners(), id) ||
		slices.Contains(conf.GetVotersOutgoing(), id) || slices.Contains(conf.GetLearnersNext(), id)
}

// look takes a picture of the members for Status.
func (g *Group) look() {
	conf := g.log.conf
	if !g.leader {
		clear(g.p.heard)
	}
	list := make([]Member, 0, len(conf.GetVoters())+len(conf.GetLearners()))
	for _, id := range conf.GetVoters() {
		list = append(list, Member{ID: id})
	}
	for _, id := range conf.GetLearners() {
		list = append(list, Member{ID: id, Learner: true})
	}
	if g.leader && g.node != nil {
		g.node.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
			i := slices.IndexFunc(list, func(m Member) bool { return m.ID == id })
			if i < 0 {
				return
			}
			m := &list[i]
			m.Match, m.Active = p.Match, g.active(id, p.RecentActive)
			m.State = states[p.State]
			m.Latency = g.p.handover.latencyOf(id)
		})
	}
	g.p.members = list
}

// active reports whether a replica was heard of within an election timeout. The
// library forgets at the end of each, and who looks just then would see nobody.
func (g *Group) active(id uint64, now bool) bool {
	if g.p.heard == nil {
		g.p.heard = make(map[uint64]int64)
	}
	if now || id == g.o.RaftID {
		g.p.heard[id] = g.p.now
	}
	at, ok := g.p.heard[id]
	return ok && g.p.now-at <= electionTicks*tickInterval
}

// states are the names that Member shows.
var states = map[tracker.StateType]string{
	tracker.StateProbe: "probe", tracker.StateReplicate: "replicate", tracker.StateSnapshot: "snapshot",
}

// ticked does what is due at every tick of a group with other members.
func (g *Group) ticked(now int64) {
	g.superviseSessions(now)
	g.abandoned(now)
	g.releaseLog()
	g.superviseHandover(now)
	g.look()
}

// releaseLog lets go of the log below the older checkpoint, but for what other
// replicas may still need: the last KeepBytes of the WAL, and what sessions
// have pinned.
func (g *Group) releaseLog() {
	to := g.older
	limit := to.index
	if len(g.log.conf.GetVoters()) > 1 && g.o.KeepBytes > 0 {
		limit = min(limit, g.o.WAL.Kept(g.o.ID, g.o.KeepBytes))
	}
	for _, o := range g.p.out {
		limit = min(limit, o.head.index)
	}
	if limit < to.index {
		term, err := g.log.Term(limit)
		if err != nil {
			return // below the base already
		}
		to = point{index: limit, term: term}
	}
	if to.index > g.log.base {
		g.log.compact(to.index, to.term)
	}
	g.o.WAL.Release(g.o.ID, min(to.index, g.log.base))
}

// reportSessions fills in the sessions.
func (g *Group) reportSessions(s *Status) {
	if g.p.in != nil {
		p := g.p.in.progress()
		s.CatchUp = &p
	}
	for _, o := range g.p.out {
		s.Sessions = append(s.Sessions, o.progress())
	}
}

// Unreachable says that messages to another replica were lost: it is probed
// before more is sent. Any goroutine.
func (g *Group) Unreachable(id uint64) {
	g.call(func() {
		if g.node != nil {
			g.node.ReportUnreachable(id)
		}
	})
}
