package node

import (
	"context"
	"encoding/binary"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/transport"
)

// leader is the Raft id of a group's leader, 0 when none is known, and whether
// it is this node, which then serves. A node that carries no replica of the
// group knows it from the leases.
func (mb *member) leader(id uint32) (leader uint64, self bool) {
	g := mb.group(id)
	if g == nil {
		return 0, false
	}
	if g.Leader() {
		return mb.self.ID, true
	}
	s := g.Status()
	if s.LeaderID != 0 || len(s.Members) > 0 {
		if s.LeaderID == mb.self.ID {
			return 0, false // elected, and does not serve yet
		}
		return s.LeaderID, false
	}
	term := uint64(0)
	for _, l := range mb.agent.Load().Leases() {
		for _, p := range l.Positions {
			if l.State == cluster.LeaseLive && p.Shard == id && p.Leads && p.Term >= term {
				leader, term = l.RaftID, p.Term
			}
		}
	}
	return leader, false
}

// leaderMoved tells the broker that a shard may have another leader.
func (mb *member) leaderMoved(id uint32) {
	if mb.n.opened.Load() {
		mb.n.broker.Moved(id)
	}
}

// forward carries a request for metadata to its leader.
func (mb *member) forward(request []byte, done func(answer []byte, err error)) {
	mb.agent.Load().Forward(request, done)
}

// transferTimeout bounds how long a hand-over is tried while the group has no
// leader, or another than was thought.
const transferTimeout = 5 * time.Second

// transfer gives the leadership of a group to a member, whoever leads it.
func (mb *member) transfer(ctx context.Context, id uint32, name string) error {
	ctx, cancel := context.WithTimeout(ctx, transferTimeout)
	defer cancel()
	for {
		err := mb.tryTransfer(ctx, id, name)
		if code := fault.CodeOf(err); code != fault.NotLeader && code != fault.Unreachable {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

func (mb *member) tryTransfer(ctx context.Context, id uint32, name string) error {
	g := mb.group(id)
	if g == nil {
		return fault.New(fault.InvalidRequest, "hand over shard %d: there is no such shard", id)
	}
	to, ok := mb.n.meta.View().NodeNamed(name)
	if !ok {
		return fault.New(fault.InvalidRequest, "hand over shard %d: the cluster has no node %s", id, name)
	}
	leader, self := mb.leader(id)
	switch {
	case leader == to.ID:
		return nil
	case leader == 0:
		return fault.New(fault.NotLeader, "hand over shard %d: it has no leader", id)
	case !self:
		request := append(binary.LittleEndian.AppendUint32(nil, id), name...)
		_, err := mb.transport.Call(ctx, transport.Peer{ID: leader}, methodTransfer, request)
		return err
	}
	return g.TransferLeader(ctx, to.ID)
}

// handleTransfer gives leaderships away that other nodes were asked to.
func (mb *member) handleTransfer() {
	mb.transport.Handle(methodTransfer, func(ctx context.Context, from transport.From, request []byte) ([]byte, error) {
		if !from.Known || len(request) < 4 {
			return nil, fault.New(fault.Forbidden, "hand over a shard: %s is no member, or asks wrongly", from.Name)
		}
		id := binary.LittleEndian.Uint32(request)
		if _, self := mb.leader(id); !self {
			return nil, fault.New(fault.NotLeader, "hand over shard %d: its leader has changed", id)
		}
		return nil, mb.tryTransfer(ctx, id, string(request[4:]))
	})
}
