package node

import (
	"context"
	"fmt"
	"time"

	"github.com/tidings-io/tidings/internal/cluster"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/front/nsq"
	"github.com/tidings-io/tidings/internal/transport"
)

// statsPeers is how /stats?scope=cluster reaches the other members; nil where there
// are none.
func (n *Node) statsPeers() nsq.Peers {
	if n.member == nil {
		return nil
	}
	return statsPeers{n.member}
}

type statsPeers struct{ mb *member }

// Others lists the other members, also those that are down.
func (p statsPeers) Others() []nsq.Peer {
	ages := make(map[uint64]time.Duration)
	for _, l := range p.mb.agent.Load().Leases() {
		if l.State == cluster.LeaseLapsed {
			ages[l.RaftID] = l.Age
		}
	}
	var out []nsq.Peer
	for _, m := range p.mb.n.meta.View().Nodes {
		if m.ID == p.mb.self.ID {
			continue
		}
		peer := nsq.Peer{ID: m.ID, Name: m.Name}
		if age, lapsed := ages[m.ID]; lapsed && !p.mb.transport.Connected(m.ID, transport.Calls) {
			peer.Down = "it has not been heard of"
			if age > 0 {
				peer.Down += fmt.Sprintf(" for %s", age.Round(time.Second))
			}
		}
		out = append(out, peer)
	}
	return out
}

// Ask asks another member.
func (p statsPeers) Ask(ctx context.Context, id uint64, question []byte) ([]byte, error) {
	return p.mb.transport.Call(ctx, transport.Peer{ID: id}, methodStats, question)
}

// handleStats answers other members' /stats?scope=cluster.
func (mb *member) handleStats() {
	mb.transport.Handle(methodStats, func(ctx context.Context, from transport.From, request []byte) ([]byte, error) {
		switch {
		case !from.Known:
			return nil, fault.New(fault.Forbidden, "ask for statistics: %s is no member", from.Name)
		case !mb.n.opened.Load():
			return nil, fault.New(fault.Exiting, "the node is starting")
		}
		return mb.n.nsq.AnswerStats(ctx, request)
	})
}
