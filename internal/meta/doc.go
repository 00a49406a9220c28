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
// # Nodes
//
// A cluster of several begins with a Founding, which its members have agreed
// upon before there is metadata (package cluster); the first leader proposes
// it. From then on metadata says which incarnation, a name on one disk, is a
// member, how it is reached, which process it runs as, and who is to be in
// each group. The members of a group as they are stand in the group's log: its
// leader brings the two together.
//
// # Asking on any node
//
// A node that does not lead forwards what it is asked, as a numbered request
// (request.go), and answers once it has itself applied the entry that answered.
// The state remembers which numbers of a process are done: a request whose
// outcome is unknown goes to the next leader under its number and happens once.
// That matters also where a command is a no-op when it is true already: a
// creation that is repeated late must not bring a deleted topic back, nor a
// pause undo the resume after it.
//
// # Levels
//
// View.Feature is what all members know. Level 1 had one node; everything here
// about several is level 2, which a new cluster has from birth. Logs and
// checkpoints of level 1 are read, and a cluster of level 1 stays one.
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
