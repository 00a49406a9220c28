// Package partition is the replicated state of topics: for one shard, every
// partition's log and every channel's position on it. A Machine is driven by
// its Raft group (shard.Machine): what waits in its inbox becomes one entry,
// and an entry that is committed becomes fact in Apply, alike on every replica.
//
// # Owners
//
// The shard's loop owns the replicated state and the table of lanes; it calls
// every method of shard.Machine and of Lane. Publish, Do, Attach, Detach,
// Dirty, Wanted and Query may be called by any goroutine: they put something
// into the inbox, which has the one lock of the package, and ring the loop.
// Background work runs on the node's flusher goroutine on immutable copies.
//
// # What is fact and what is local
//
// Replicated, changed only by Apply: the partitions with start, end, hand-over
// cursor, pause and barriers; the channels with epoch, floor, finished ranges, attempts
// and parked offsets; the producers with the last number of each. Apply reads
// neither a clock nor a setting.
//
// Local to the leader: the lanes, which deliver. A lane reports what happened
// as a Delta, which goes into the next entry, or into one of its own within
// ten milliseconds.
//
// # Sequenced publishes
//
// A node that publishes through another one is a producer: it numbers its
// publishes to the shard (Link), and sends again what was not answered. An entry
// with sequenced publishes begins with a link command for each producer: the
// number before the first and that of the last. The leader plans a publish that
// is the next of its producer, behind all entries on their way; answers one that
// came before by what is fact, at its turn; and refuses any other. Apply checks
// the links against the table of producers once more, and does none of the
// entry's publishes when one does not fit: an entry before it was lost, while
// this leader went on. The leader then waits until nothing is on its way, and
// begins anew from the table.
//
// # More partitions
//
// A message with a key goes to the partition that its key and the topic's number of
// partitions tell. When that number rises, each partition gets a barrier where its log
// ends (Raise): below it stands what came by smaller numbers, and behind it nothing
// does. A publish says by which number it came (Publish.Mapping). The leader refuses
// one that came by a smaller number than its partition knows (fault.Moved), and raises
// that number first when one comes by a larger. It decides by what is fact: while a
// raise is on its way, publishes with keys wait for it, so a refusal is final, for all
// copies of the publish and whoever leads next.
//
// A refused publish has used its number. That it was refused stands nowhere by itself:
// a barrier notes how far each producer had come, so what came by a smaller number
// with a higher one was refused. A raise is the last command of its entry, since the
// entry's links move the producers on before its first publish.
//
// Lanes are told of the barriers; what they do about them is package delivery's.
//
// # Hand-over
//
// A partition's hand-over cursor is the first offset that no channel has been
// given. It follows the end while the topic has a channel and is not paused,
// and stands still otherwise. It is every channel's limit, and where a new
// channel starts. The partition's start is the lowest of the hand-over cursor
// and the floors of its durable channels; below it only parked messages are
// kept.
package partition
