package node

import (
	"context"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/repair"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/transport"
)

// newMender makes what puts damaged batches of this node's logs back, from the
// replicas of other nodes.
func (mb *member) newMender() *repair.Mender {
	return repair.New(repair.Options{
		Network: mendNetwork{mb}, Logger: mb.n.log,
		Replica: func(id uint32) repair.Replica {
			if m, ok := mb.n.machines.At(int(id) - 1); ok && mb.group(id) != nil {
				return repair.Of(m)
			}
			return nil
		},
		Shard: func(id seglog.LogID) (uint32, bool) {
			t, ok := mb.n.meta.View().TopicID(id.Topic)
			if !ok || int(id.Partition) >= len(t.Partitions) {
				return 0, false
			}
			return t.Partitions[id.Partition], true
		},
		Peers: mb.replicas,
	})
}

// replicas are the Raft ids of the other members of a group, its leader first.
func (mb *member) replicas(id uint32) (others []uint64) {
	g := mb.group(id)
	if g == nil {
		return nil
	}
	s := g.Status()
	for _, m := range s.Members {
		switch m.ID {
		case mb.self.ID:
		case s.LeaderID:
			others = append([]uint64{m.ID}, others...)
		default:
			others = append(others, m.ID)
		}
	}
	return others
}

// mendNetwork carries the requests of a Mender.
type mendNetwork struct{ mb *member }

// Fetch begins a stream at another node.
func (f mendNetwork) Fetch(ctx context.Context, node uint64, request []byte) (repair.Stream, error) {
	return f.mb.transport.Fetch(ctx, transport.Peer{ID: node}, methodMend, request)
}

// handleMend answers the requests of other nodes' Menders.
func (mb *member) handleMend() {
	mb.transport.HandleStream(methodMend, func(ctx context.Context, from transport.From, request []byte, send func([]byte) error) error {
		switch {
		case !from.Known:
			return fault.New(fault.Forbidden, "repair a log: %s is no member", from.Name)
		case mb.group(0) == nil:
			return fault.New(fault.NotLeader, "repair a log: the node %s is starting", mb.self.Name)
		}
		return mb.mender.Serve(ctx, request, send)
	})
}
