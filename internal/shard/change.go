package shard

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/tidings-io/tidings/internal/fault"
	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// ChangeOp is what a Change does.
type ChangeOp uint8

// What can be done to a membership.
const (
	AddLearner ChangeOp = iota // a replica that gets everything and has no vote
	Promote                    // a learner becomes a voter
	Remove                     // a replica, voter or learner, is none any more
)

// Change of a group's membership, by one replica.
type Change struct {
	Op ChangeOp
	ID uint64 // Raft id
}

// change is one on its way.
type change struct {
	Change
	context []byte // tells it from all others
	done    func(error)
}

// ProposeChange proposes a change of the membership; one at a time. done is
// called once, on the loop: with nil when it is applied here; with
// fault.NotLeader when this replica does not lead, or lost the leadership
// (errors.Is ErrUnknown: it may still come to be); with fault.InvalidRequest
// when it makes no sense for the membership as it is; with fault.Overloaded
// while another change is on its way. Any goroutine.
func (g *Group) ProposeChange(c Change, done func(error)) {
	g.call(func() {
		if err := g.proposeChange(c, done); err != nil {
			done(err)
		}
	})
}

// ChangeMembers is ProposeChange that waits, until ctx ends at the latest: the
// outcome is unknown then.
func (g *Group) ChangeMembers(ctx context.Context, c Change) error {
	answer := make(chan error, 1)
	g.ProposeChange(c, func(err error) { answer <- err })
	return g.wait(ctx, answer)
}

func (g *Group) proposeChange(c Change, done func(error)) error {
	if !g.serving {
		return fault.New(fault.NotLeader, "change members of shard %d: this replica does not lead", g.o.ID)
	}
	if g.p.change != nil || g.p.handover.holds() {
		return fault.New(fault.Overloaded, "change members of shard %d: another change, or a hand-over, is on its way", g.o.ID)
	}
	conf := g.log.conf
	voter, learner := slices.Contains(conf.GetVoters(), c.ID), slices.Contains(conf.GetLearners(), c.ID)
	single := pb.ConfChangeSingle{NodeId: new(c.ID)}
	var fits bool
	switch c.Op {
	case AddLearner:
		fits, single.Type = !voter && !learner && c.ID != 0, pb.ConfChangeAddLearnerNode.Enum()
	case Promote:
		fits, single.Type = learner, pb.ConfChangeAddNode.Enum()
	case Remove:
		fits = learner || voter && len(conf.GetVoters()) > 1
		single.Type = pb.ConfChangeRemoveNode.Enum()
	}
	if !fits {
		return fault.New(fault.InvalidRequest, "change members of shard %d: replica %x, voters %x, learners %x: nothing to do, or not allowed",
			g.o.ID, c.ID, conf.GetVoters(), conf.GetLearners())
	}
	context := binary.BigEndian.AppendUint64(nil, g.o.RaftID)
	context = binary.BigEndian.AppendUint64(context, g.term)
	context = binary.BigEndian.AppendUint64(context, g.applied)
	err := g.node.ProposeConfChange(&pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{&single}, Context: context})
	if err != nil {
		return fault.Wrap(fault.NotLeader, fmt.Errorf("change members of shard %d: %w", g.o.ID, err))
	}
	g.p.change = &change{Change: c, context: context, done: done}
	return nil
}

// leaving are the messages that tell replicas which a change takes out that it
// is committed: the library does not write to them any more.
func (g *Group) leaving(c *pb.ConfChangeV2, index uint64) (list []*pb.Message) {
	if !g.leader {
		return nil
	}
	for _, s := range c.GetChanges() {
		if s.GetType() != pb.ConfChangeRemoveNode || s.GetNodeId() == g.o.RaftID {
			continue
		}
		g.node.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
			if id != s.GetNodeId() || p.Match < index {
				return // it would be told of an entry that it has not
			}
			list = append(list, &pb.Message{
				Type: pb.MsgHeartbeat.Enum(), From: new(g.o.RaftID), To: new(id), Term: new(g.term), Commit: new(index),
			})
		})
	}
	return list
}

// changed answers who asked for a change that is applied.
func (g *Group) changed(c *pb.ConfChangeV2) {
	p := g.p.change
	if p == nil || !bytes.Equal(p.context, c.GetContext()) {
		return
	}
	g.p.change = nil
	p.done(nil)
}

// changeLost answers that the outcome is unknown.
func (g *Group) changeLost(err error) {
	if p := g.p.change; p != nil {
		g.p.change = nil
		p.done(err)
	}
}

// wait returns the answer, or why there will be none.
func (g *Group) wait(ctx context.Context, answer <-chan error) error {
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fault.Wrap(fault.Timeout, ctx.Err())
	case <-g.ended:
		return fault.New(fault.Exiting, "wait for shard %d: the shard has stopped", g.o.ID)
	}
}
