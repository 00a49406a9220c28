package node

import (
	"context"
	"errors"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/transport"
)

// peers is how the broker reaches the leaders of shards on other nodes.
type peers struct{ mb *member }

// Leader is the Raft id of a shard's leader, 0 when none is known, and whether
// it is this node, which then serves.
func (p peers) Leader(shard uint32) (id uint64, self bool) { return p.mb.leader(shard) }

// Call asks another node.
func (p peers) Call(ctx context.Context, node uint64, m broker.Method, request []byte, done func([]byte, error)) {
	err := p.mb.transport.Go(ctx, transport.Peer{ID: node}, methodBroker+transport.Method(m), request, func(reply []byte, err error) {
		done(reply, notSent(err))
	})
	if err != nil {
		done(nil, notSent(err))
	}
}

// CallInto implements broker.Peers.
func (p peers) CallInto(ctx context.Context, node uint64, m broker.Method, request []byte, room func(int) []byte, done func([]byte, error)) {
	err := p.mb.transport.GoInto(ctx, transport.Peer{ID: node}, methodBroker+transport.Method(m), request, room, func(reply []byte, err error) {
		done(reply, notSent(err))
	})
	if err != nil {
		done(nil, notSent(err))
	}
}

// Others are the members with a lease that this node has a link to.
func (p peers) Others() (ids []uint64) {
	for _, m := range p.mb.n.live(p.mb.n.meta.View()) {
		if m.ID != p.mb.self.ID && p.mb.transport.Connected(m.ID, transport.Control) {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// notSent says in the broker's words that a request never left this node.
func notSent(err error) error {
	if errors.Is(err, transport.ErrNotSent) {
		return errors.Join(err, broker.ErrNotSent)
	}
	return err
}

// handleBroker serves what other nodes ask of the shards that this one leads.
func (mb *member) handleBroker() {
	for m := broker.MethodPublish; m <= broker.MethodLast; m++ {
		mb.transport.HandleLent(methodBroker+transport.Method(m), func(ctx context.Context, from transport.From, request []byte, respond transport.Respond) {
			switch {
			case !from.Known:
				respond(nil, nil, fault.New(fault.Forbidden, "ask for a shard: %s is no member", from.Name))
			case mb.group(0) == nil:
				respond(nil, nil, fault.New(fault.NotLeader, "ask for a shard: the node %s is starting", mb.self.Name))
			default:
				mb.n.broker.Serve(ctx, m, request, respond)
			}
		})
	}
}
