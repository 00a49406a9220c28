package shard

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tidings-io/tidings/internal/plant"
	"github.com/tidings-io/tidings/internal/wal"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// ready handles one round of what the library hands out.
func (g *Group) ready(now int64) (bool, error) {
	if g.waiting != nil {
		if len(g.appends) > 0 {
			return false, nil
		}
		rd := g.waiting
		g.waiting = nil
		return true, g.advance(rd, now)
	}
	if !g.node.HasReady() {
		return false, nil
	}
	rd := g.node.Ready()
	if !raft.IsEmptySnap(rd.Snapshot) {
		return false, errors.New("the library installs a snapshot, which it was never given")
	}
	g.role(rd.SoftState)
	g.readable(rd.ReadStates)
	g.place(rd.Entries)
	if g.o.Async {
		return true, g.storageMessages(rd.Messages, now)
	}
	return true, g.writeReady(rd, now)
}

// writeReady handles a round of the synchronous mode; it ends when what it
// persists is durable.
func (g *Group) writeReady(rd raft.Ready, now int64) error {
	g.write(rd.Entries, hardOf(rd.HardState), nil)
	if len(g.appends) > 0 {
		g.waiting = &rd
		return nil
	}
	return g.advance(&rd, now)
}

// hardOf is what the library wants to be kept; zero when there is nothing.
func hardOf(h *pb.HardState) hardState {
	return hardState{Term: h.GetTerm(), Vote: h.GetVote(), Commit: h.GetCommit()}
}

// advance ends a round of the synchronous mode: what it had to persist is
// durable.
func (g *Group) advance(rd *raft.Ready, now int64) error {
	for _, m := range rd.Messages {
		g.send(m)
	}
	if err := g.apply(rd.CommittedEntries, now); err != nil {
		return err
	}
	g.node.Advance(*rd)
	return nil
}

// storageMessages handles a round of the asynchronous mode.
func (g *Group) storageMessages(messages []*pb.Message, now int64) error {
	var requests []*pb.Message
	for _, m := range messages {
		switch m.GetType() {
		case pb.MsgVote:
			requests = append(requests, m)
		case pb.MsgStorageAppend:
			hard := hardState{Term: m.GetTerm(), Vote: m.GetVote(), Commit: m.GetCommit()}
			then := g.write(m.GetEntries(), hard, m.GetResponses())
			if err := g.deliver(then); err != nil {
				return err
			}
		case pb.MsgStorageApply:
			if err := g.apply(m.GetEntries(), now); err != nil {
				return err
			}
			if err := g.deliver(m.GetResponses()); err != nil {
				return err
			}
		default:
			g.send(m)
		}
	}
	g.request(requests)
	return nil
}

// request asks for votes when the term, and the log that the requests speak of,
// are durable. The library would ask at once: a replica that crashes then stands
// again in the same term, with less in its log, and takes the votes that it was
// given for more; or leads twice in one term.
func (g *Group) request(votes []*pb.Message) {
	if len(votes) == 0 {
		return
	}
	if len(g.appends) > 0 && !plant.On("vote-asked-early") {
		last := g.appends[len(g.appends)-1]
		last.then = append(slices.Clip(last.then), votes...)
		return
	}
	for _, m := range votes {
		g.send(m)
	}
}

// write hands entries and hard state to the WAL. What must be durable first
// waits in appends; the rest of then is returned to be delivered at once.
//
// A hard state that only moves the commit rides with the next write and is
// waited for by nobody: what the library wants to hear after it depends on the
// appends before it alone.
func (g *Group) write(entries []*pb.Entry, hard hardState, then []*pb.Message) []*pb.Message {
	a := wal.Append{Shard: g.o.ID}
	if hard != (hardState{}) {
		a.Sync = (hard.Term != g.hard.Term || hard.Vote != g.hard.Vote) && !plant.On("vote-lost")
		a.Hard = &wal.HardState{Term: hard.Term, Vote: hard.Vote, Commit: hard.Commit}
		g.hard = hard
	}
	if a.Sync || len(entries) > 0 {
		g.sequence++
		w := g.newAppend()
		w.sequence, w.then = g.sequence, then
		bytes := 0
		for _, e := range entries {
			bytes += len(e.Data)
			w.entries = append(w.entries, wal.Entry{Index: e.GetIndex(), Term: e.GetTerm(), Type: int32(e.GetType()), Data: e.Data})
		}
		g.log.append(entries)
		g.appends = append(g.appends, w)
		// With other members the loop must not wait for a disk: it has
		// heartbeats to send and answers to take, and the sync runs beside them.
		a.Entries, a.Done, a.Sync, a.Quiet = w.entries, w.done, true, g.alone && bytes <= inlineBytes
		g.submitted = g.submitted || a.Quiet
		g.o.WAL.Submit(a)
		return nil
	}
	if a.Hard != nil {
		g.o.WAL.Submit(a)
	}
	if len(then) > 0 && len(g.appends) > 0 {
		last := g.appends[len(g.appends)-1]
		last.then = append(slices.Clip(last.then), then...)
		return nil
	}
	return then
}

// appended is the WAL's answer, on the goroutine that drives the WAL.
func (g *Group) appended(sequence uint64, err error) {
	g.mu.Lock()
	g.in.durable = max(g.in.durable, sequence)
	if err != nil && g.in.err == nil {
		g.in.err = err
	}
	g.mu.Unlock()
	g.Wake()
}

// apply makes committed entries fact.
func (g *Group) apply(entries []*pb.Entry, now int64) error {
	bytes := int64(0)
	for _, e := range entries {
		if e.GetIndex() != g.applied+1 {
			return fmt.Errorf("apply entry %d: %d was applied last", e.GetIndex(), g.applied)
		}
		if err := g.applyOne(e); err != nil {
			return fmt.Errorf("apply entry %d of term %d: %w", e.GetIndex(), e.GetTerm(), err)
		}
		g.applied, g.appliedTerm = e.GetIndex(), e.GetTerm()
		bytes += int64(len(e.Data)) + entryOverhead
	}
	if len(entries) == 0 {
		return nil
	}
	if g.changedAt == 0 {
		g.changedAt = now
	}
	g.bytes += bytes
	g.log.applied(g.applied)
	g.overtaken()
	if g.applyHook != nil {
		g.applyHook(bytes)
	}
	return nil
}

func (g *Group) applyOne(e *pb.Entry) error {
	if e.GetType() != pb.EntryNormal {
		return g.applyConf(e)
	}
	if len(e.Data) == 0 { // the no-op with which a leader begins its term
		if g.leader && e.GetTerm() == g.term && !g.serving {
			g.serve()
		}
		return nil
	}
	entry := Entry{Index: e.GetIndex(), Term: e.GetTerm(), Data: e.Data}
	if plant.On("apply-twice") && entry.Index <= g.replayTo {
		if err := g.o.Machine.Apply(entry, nil); err != nil {
			return err
		}
	}
	return g.o.Machine.Apply(entry, g.token(e))
}

// applyConf changes the membership.
func (g *Group) applyConf(e *pb.Entry) error {
	var change pb.ConfChangeI
	var err error
	if e.GetType() == pb.EntryConfChange {
		c := &pb.ConfChange{}
		change, err = c, proto.Unmarshal(e.Data, c)
	} else {
		c := &pb.ConfChangeV2{}
		change, err = c, proto.Unmarshal(e.Data, c)
	}
	if err != nil {
		return fmt.Errorf("decode membership: %w", err)
	}
	leaving := g.leaving(change.AsV2(), e.GetIndex())
	g.log.conf = g.node.ApplyConfChange(change)
	g.member()
	for _, m := range leaving {
		g.send(m)
	}
	g.changed(change.AsV2())
	return nil
}
