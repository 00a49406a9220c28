package partition

import (
	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
)

// Lane is the leader-local delivery of one channel on one partition. All calls
// come from the shard's loop; none may block or call back into the Machine
// other than through Dirty and Wanted. Between Attach and Begin, and after
// Stop, a lane is not called.
type Lane interface {
	// Begin says where the channel stands. It is the first call.
	Begin(Start)
	// Limit moves the visible end: offsets below limit may be delivered.
	Limit(limit int64)
	// Skip says that from ≤ o < to are not to be delivered from the log: they
	// were parked when they were published, or the topic was emptied. It comes
	// before the Limit that makes them visible.
	Skip(from, to int64)
	// Raised says that a barrier was put at the end of the partition's log. It comes
	// before the Limit that makes what stands behind it visible. An ephemeral
	// channel's lane is not told.
	Raised(Barrier)
	// Due offers parked messages that are due, earliest first, and returns how
	// many of them it took from the front. When it takes fewer than offered,
	// nothing more comes before Wanted. A message that the lane has finished or
	// parked anew, but has not yet reported with Collect, may still be offered:
	// the lane drops it and counts it as taken.
	Due(es []parked.Entry) (taken int)
	// Reset forgets all deliveries: the channel was emptied.
	Reset(Start)
	// Collect hands over what happened since the last Collect, appending to the
	// slices of d, at most DeltaMax items altogether; more says that there is
	// more for the next entry.
	Collect(d *Delta) (more bool)
	// Stop is the last call: the leadership is lost, the channel or topic is
	// gone, or the lane was detached or could not be attached.
	Stop(err error)
	// Floor is the lowest offset still needed from the log. Only an ephemeral
	// channel's lane is asked; it pins the log on this node.
	Floor() int64
}

// Start is where a channel stands on a partition.
type Start struct {
	// Term is the Raft term in which this node leads; 0: not known.
	Term uint64
	// Epoch counts how often the channel was emptied.
	Epoch int64
	// Floor is the lowest offset that is neither finished nor parked. It may
	// lie above Limit when the channel was made to start there.
	Floor int64
	// Limit is the visible end.
	Limit int64
	// Skip are the offsets above the floor that are finished or parked.
	Skip []offsets.Range
	// Attempts tells, for unfinished and unparked offsets at or above the
	// floor, how many attempts they have had where that is more than none.
	Attempts map[int64]uint16
	// Barriers are those of the partition, by Count; none for an ephemeral channel.
	Barriers []Barrier
}

// Attempt says that a message, neither finished nor parked, has had N attempts.
type Attempt struct {
	Offset int64
	N      uint16
}

// DeltaMax bounds the items (ranges, entries, offsets, attempts) of one Delta.
const DeltaMax = 4096

// Delta is what happened to a channel's messages since the last one. It is
// applied in the order of its fields. An offset stands in it once: a message
// that was parked and then finished since the last Delta is only Unparked (or
// only Finished, if it was not parked before).
type Delta struct {
	// Finished are messages that came from the log.
	Finished []offsets.Range
	// Parked are messages put aside until DueNs: from the log, or parked
	// before with another time or number of attempts.
	Parked []parked.Entry
	// Unparked are parked messages that are finished.
	Unparked []int64
	// Attempts are new counts of messages that stay in the log.
	Attempts []Attempt
}

// empty reports whether nothing happened.
func (d *Delta) empty() bool {
	return len(d.Finished)+len(d.Parked)+len(d.Unparked)+len(d.Attempts) == 0
}

// reset empties the delta and keeps its memory.
func (d *Delta) reset() {
	d.Finished, d.Parked = d.Finished[:0], d.Parked[:0]
	d.Unparked, d.Attempts = d.Unparked[:0], d.Attempts[:0]
}
