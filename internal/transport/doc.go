// Package transport is the links between the nodes of a cluster: TLS 1.3 with
// certificates on both sides, over which Raft messages, calls and bulk streams
// travel. It knows no shard and no topic: it carries bytes and Raft messages
// between nodes that are named by their certificates.
//
// # Links
//
// A node dials every peer once per class, and each class has a TCP connection of
// its own, so that a megabyte of entries never delays a heartbeat and a node that
// catches up never delays a publish:
//
//	control   Raft without entries: heartbeats, votes, ReadIndex, responses
//	append    Raft's MsgApp and MsgSnap, which must not overtake each other
//	calls     requests and their replies
//	bulk      streams
//
// The node that dialed sends the requests, the other one only answers; the way
// back for Raft messages and calls is the link that the other node dials. So two
// nodes never have to agree on which of two connections lives.
//
// A link is dialed when there is something to send, and again after it broke: at
// once the first time, then with a jittered back-off of at most a second that
// ends early when the peer connects to us or is given another address. While it
// waits, nothing is queued: what comes is refused or dropped at once. Both sides
// write at least every half second (a ping, or its answer), so a link on which
// nothing arrives for two seconds is dead, whether the peer was stopped, cut off
// or lost its route without a reset.
//
// # Who is who
//
// A node's name stands in its certificate as the URI tidings://node/NAME; DNS
// names and addresses in it are for other users of the file and not looked at.
// After the TLS handshake both sides say hello (JSON): protocol versions, cluster
// id, node name, Raft id, boot id, class, largest frame. Each side checks the
// other's hello against the certificate and against what it expects, and may
// refuse with a reason, which the other one gets to see. A node that is no known
// peer may be let through by Options.Authorize, for calls and streams only:
// forming and joining need that.
//
// # Frames
//
// After hello everything is frames: a header of 24 bytes, little endian, and a
// payload.
//
//	0  uint32  CRC-32C of all that follows
//	4  uint32  bytes of payload
//	8  uint8   kind
//	9  uint8   flags
//	10 uint16  method of a call
//	12 uint32  shard of a Raft message, timeout (ms) of a call, bytes of credit
//	16 uint64  id of a call, time of a ping
//
// A Raft message is raftpb's own encoding. A frame is at most
// Options.MaxFrameBytes long (32 MiB by default, hello 4 KiB), which must hold
// the largest Raft entry and 1 MiB of others beside it. Anything malformed closes
// the connection.
//
// # Goroutines
//
// Run owns all of them: one accepts; a link has one that dials, and while it
// stands one that writes and one that reads; an accepted connection has the
// latter two. A call whose context ends early is answered on a goroutine of its own. Callbacks (Receive,
// OnUnreachable, asynchronous handlers, the done of Go) run on them and must not
// block. All queues are bounded in number and bytes; the bounds stand in Options.
package transport
