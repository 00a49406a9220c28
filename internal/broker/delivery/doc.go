// Package delivery hands the messages of a channel to its consumers: the part
// of a channel that lives only on the leader and is never written down. It
// knows no protocol, opens no file and starts no goroutine; time and timers
// are injected.
//
// A Channel has one Lane per partition and one Subscription per consumer.
//
//   - The shard loop owns what is replicated and tells the lane about it
//     through partition.Lane: where to start, how far messages are visible,
//     which parked messages are due.
//   - A consumer's connection takes messages through Subscription.Take and
//     answers through Subscription.Do.
//   - What happened in between (finished ranges, parked offsets, attempts) is
//     gathered per lane until the shard loop collects it.
//
// A message of a lane is, in the order of its life:
//
//	in the log     at or above the cursor; no state of its own
//	in flight      a slot, in the list of its subscription, with a deadline
//	ready          a slot, in the lane's heap: requeued or timed out
//	due            a slot, in the lane's list: came back from the parked set
//	held           in flight, ready or due, while also parked durably, so that it
//	               pins neither the floor nor a file
//	spent          a slot, in the lane's list, held: it has had all its attempts, and
//	               waits to be moved to another topic; see DeadLetter
//	finished       a bit that the next Collect turns into a range
//
// Where another node leads the partition, a message is in flight here or not known at
// all; Relay tells that node what consumers say, and pulls. See RelayRequest.
//
// From the log a lane delivers up to the first barrier (partition.Barrier) that was
// not released, so that the messages of a key stay in order when they go to another
// partition than before: see Lane.Release, Config.Held and Channel.Standing.
//
// What is delivered first: ready (lowest offset first), then due (earliest
// first), then the log in its order.
//
// Lock: everything of a Channel, its lanes and its subscriptions is guarded by
// Channel.mu. It is never held across Log.ReadChunk nor across a call to a Shard;
// SubOptions.Notify and Failed, Config.MirrorID and Emptied, and the wake of a Relay
// are called under it and must neither block nor call back.
// Order: MemoryLog.mu, then Memory.mu, then Channel.mu; never the other way.
package delivery
