// Package meta is the replicated metadata of a cluster, the machine of group 0:
// which topics and channels exist, their ids and settings, and which shard
// carries which partition. Meta decides existence and ids; the shards decide
// positions.
//
// # Reading
//
// View is an immutable snapshot that any goroutine may take and keep. It is
// built by copy-on-write over a fixed number of buckets: one creation copies
// two small arrays of pointers and two buckets, not the whole table, and all
// commands of one entry share those copies. Topic and Channel values are
// immutable too, so a view's cost is what changed. Diff finds the differences
// of two views by comparing buckets.
//
// # Changing
//
// CreateTopic and its like queue a command; everything that waits goes into
// one entry. Every command is a no-op when it is already true, so that it may
// be proposed twice, and two callers that create the same topic get the same
// one. A deletion is a mark, until the shards have closed what it names; the
// Finish command then takes it away.
//
// # Entry
//
// Integers are uvarints, strings are a length and bytes.
//
//	format   1
//	time     leader's unix ns
//	term     in which the entry was built; another one than the entry's is refused
//	count    of commands, each:
//	         kind, version, length of the payload, payload
//
// An unknown kind or version stops the replica: what it would mean is not
// known here, and going on would make replicas differ.
package meta
