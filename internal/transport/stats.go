package transport

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
)

// Class is what a link carries; each has a connection of its own.
type Class uint8

// The classes.
const (
	Control Class = iota // Raft without entries
	Append               // Raft's MsgApp and MsgSnap
	Calls                // requests and replies
	Bulk                 // streams

	classes
)

// String is the class's name in metrics and on the wire.
func (c Class) String() string {
	switch c {
	case Control:
		return "control"
	case Append:
		return "append"
	case Calls:
		return "calls"
	case Bulk:
		return "bulk"
	}
	return "unknown"
}

// raft says that the class carries Raft messages.
func (c Class) raft() bool { return c == Control || c == Append }

// meter counts the traffic with one peer in one class, in both directions and
// over both nodes' links, since the transport was built.
type meter struct {
	bytesOut, bytesIn       atomic.Uint64 // on the wire, TLS included
	messagesOut, messagesIn atomic.Uint64 // frames but pings and hellos
}

func (m *meter) add(o *meter) {
	m.bytesOut.Add(o.bytesOut.Load())
	m.bytesIn.Add(o.bytesIn.Load())
	m.messagesOut.Add(o.messagesOut.Load())
	m.messagesIn.Add(o.messagesIn.Load())
}

// LinkStats are the figures of one class of links with a peer.
type LinkStats struct {
	Class     Class
	Connected bool          // our link to the peer is up
	Inbound   bool          // the peer's link to us is up
	Since     time.Time     // when our link came up or went down; zero: never tried
	RTT       time.Duration // smoothed round trip of pings on our link; 0: not measured yet
	// Error is why our link is down, until it is up again; empty also when there
	// was nothing to send.
	Error                   string
	BytesOut, BytesIn       uint64 // on the wire, TLS included, both directions' links
	MessagesOut, MessagesIn uint64 // frames without pings
	Drops                   uint64 // Raft messages that were not sent
	Connects                uint64 // how often our link came up
	QueuedMessages          int    // waiting to be written by us
	QueuedBytes             int
	Calls                   int // calls and streams of ours that wait for their end
}

// PeerStats are the figures of one peer.
type PeerStats struct {
	Peer
	Links [classes]LinkStats // by class
}

// Stats returns the figures of all known peers, by name.
func (t *Transport) Stats() []PeerStats {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]PeerStats, 0, len(t.peers))
	for _, p := range t.peers {
		s := PeerStats{Peer: Peer{p.ID, p.Name, p.addr}}
		for c := range s.Links {
			s.Links[c] = p.links[c].stats()
		}
		for in := range t.inbound {
			if in.peer == p {
				s.Links[in.hello.Class].Inbound = true
			}
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b PeerStats) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out
}
