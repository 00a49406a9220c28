package delivery

import (
	"time"

	"github.com/tidings-io/tidings/internal/seglog"
)

// A consumer of a channel may be connected to another node than the one that
// leads a partition. Then each side has half of what a Lane and a Subscription
// are together:
//
//   - At the leader the consumer has a Subscription of its own (SubOptions.Relayed),
//     which follows the same rules as every other: sharing, deadlines, attempts.
//     Instead of Take the other node calls Pull, with as much of the consumer's
//     window as it is ready to give to this leader now. Nothing is ever delivered
//     beyond that: between two Pulls the leader knows only how far the window was
//     open (its share when messages are given away), and rings when there is
//     something.
//   - At the consumer's node the partition has a lane without a log, which belongs
//     to a Relay: all that goes to and comes from one leader for one channel. What
//     was pulled stands in flight here as well, so that window, deadlines and FIN,
//     REQ and TOUCH are one thing for the consumer, wherever its messages come
//     from. Answers are queued in the Relay and told to the leader.
//
// A Relay has no socket and no goroutine: somebody sends what Collect returns, and
// brings the reply to Answered, or Failed.
//
// When the leadership moves, what consumers hold stays in flight where they are
// connected. The new leader's lanes are shut (SetLane) until everybody has told it
// what their consumers hold (Adopt), and then opened (Lane.Open).

// HeldMessage is a message that a consumer has in flight, or that it has answered
// and the leader may not know.
type HeldMessage struct {
	Part     int32
	Offset   int64
	Attempts uint16        // number of the delivery; 0: not known
	Age      time.Duration // since it was delivered
	Left     time.Duration // until it times out
}

// RelayedOp is an answer of a consumer, on its way to the leader.
type RelayedOp struct {
	Mirror   uint64
	Kind     OpKind
	Part     int32
	Offset   int64
	Attempts uint16 // number of the delivery that it answers
	Delay    time.Duration
}

// MirrorOpen describes a consumer to the leader. All that the consumer holds of the
// partitions which the leader leads comes with it in RelayRequest.Holds. A mirror that
// the leader has already is opened anew when its node did not get a reply: see
// Subscription.Reopen.
type MirrorOpen struct {
	Mirror        uint64
	MsgTimeout    time.Duration
	MaxMsgTimeout time.Duration
	SampleRate    int
}

// MirrorHolds says what a consumer holds of partitions whose leader has changed.
type MirrorHolds struct {
	Mirror   uint64
	Messages []HeldMessage
}

// MirrorPull asks for up to N messages, 0: says only that the window is closed, so
// that nothing needs to be rung for.
type MirrorPull struct {
	Mirror uint64
	N      int
}

// MirrorClose ends a consumer, as Subscription.Close does.
type MirrorClose struct {
	Mirror   uint64
	Abnormal bool
	// Ended: by the server, not by the consumer: Subscription.Abandon.
	Ended bool
	// Moved: by now the node takes another for the leader, or nobody, and the consumer
	// still holds what it got. Who leads all the same refuses the request: it must not
	// give those messages to others.
	Moved bool
}

// RelayRequest is what a node has to tell the leader about one channel. It is done
// in the order of the fields.
type RelayRequest struct {
	Opens []MirrorOpen
	// Parts are the partitions that the node takes the leader for, where there are
	// Opens: of others it may hold messages that are not in Holds.
	Parts  []int32
	Holds  []MirrorHolds
	Ops    []RelayedOp
	Closes []MirrorClose
	Pulls  []MirrorPull
}

// Empty reports whether there is nothing to tell.
func (q *RelayRequest) Empty() bool {
	return len(q.Opens)+len(q.Holds)+len(q.Ops)+len(q.Closes)+len(q.Pulls) == 0
}

// RelayedMessage is a message that was pulled. Body and Key stand in RelayReply.Chunk.
type RelayedMessage struct {
	Part     int32
	Offset   int64
	TimeNs   int64
	Attempts uint16
	Body     []byte
	Key      []byte // nil without one
}

// MirrorPulled answers a MirrorPull.
type MirrorPulled struct {
	Mirror uint64
	// Waits: there was nothing more; the leader rings.
	Waits    bool
	Messages []RelayedMessage
}

// OpFailure says that an op of the request was not done.
type OpFailure struct {
	Index int  // in RelayRequest.Ops
	Owner bool // fault.NotOwner; else fault.NotInFlight
}

// HoldLost says that a message is not the consumer's any more.
type HoldLost struct {
	Mirror uint64
	Part   int32
	Offset int64
}

// RelayReply answers a RelayRequest.
type RelayReply struct {
	Failures []OpFailure
	Lost     []HoldLost
	// Unknown are mirrors of the request that the leader does not have: they are
	// to be opened anew, with what they hold.
	Unknown []uint64
	Pulled  []MirrorPulled
	// Chunk is where bodies and keys stand: it is held as long as they are needed. nil:
	// in memory of their own.
	Chunk *seglog.Chunk
}
