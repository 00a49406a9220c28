// Package spool keeps what publishers gave an edge until a node or a cluster has it,
// and brings it there: in order for each topic, once, however often the edge, its
// machine or the nodes crash on the way.
//
// # Origin and positions
//
// A spool draws an origin, 128 random bits, when its log is made. The messages of a
// topic have positions from 0 on, in the order in which they were taken. Upstream,
// origin and position are the session and the position of a partition.Ingest: each
// partition remembers in its replicated state how far the origin has come, so a part
// that is given again is taken once, whatever became of the first answer. The origin
// stands in the log itself: with the log gone, positions begin anew and so does the
// origin.
//
// A topic may have several partitions upstream. Each takes the messages whose key (or
// id, where there is no key) belongs to it, and each passes all positions. Which
// partition a message belongs to follows from their number, so another number is used
// only from a position on that no partition has passed.
//
// # Files
//
//	LOCK                held while a process uses the folder
//	wal/                a log of package wal, synced before anything is acknowledged
//
// In the log, shard 0 holds the origin and the names of the topics, and shard n the
// publishes to topic n, an entry each. A shard's HardState says in Commit below which
// position everything is upstream, and in Vote how many partitions the messages are
// spread over from there on. Integers are uvarints but where it says something else:
//
//	names:    format 1, origin (16 bytes), (topic's number, length of the name, name)*
//	publish:  format 1, position u64, unix nanoseconds u64 (both little-endian),
//	          messages as AppendMessages has them
//
// A topic that can't be forwarded, while others can, would keep the whole log behind
// its oldest message from being recycled. If it is small it is written again at the
// end of the log: its last entries then repeat the positions of those before.
package spool
