// Package seglog keeps the log of each partition: a tail in memory and, behind
// it, segment files that are written in the background.
//
// Nothing here is what an acknowledgement waits for. The WAL makes a batch
// durable; a log takes the batch at apply, serves it, and moves it to a file
// when the node's tail budget is used up or a checkpoint needs it there.
//
// # Owners
//
// A [Log] is touched from three sides. The shard loop calls Append,
// AdvanceStart, SetPinned and Drop: none of them does I/O. Any goroutine calls
// Read, ReadChunk, Start, End and Bytes. One goroutine per node, the flusher, calls
// everything that writes: FlushOldest, Checkpoint, Published, Compact, Sweep.
// Log.mu, Store.mu and the locks of the open files are never held together, nor
// across I/O or a callback.
//
// # Memory
//
// What [Log.Read] and [Log.AppendRead] return stays as long as it is referred
// to. [Log.ReadChunk], for those who read much, lends memory that is used
// again: a [Chunk] counts its readers. A chunk is never kept for a reader that
// may come: channels that read a log side by side drift apart, and a cache of
// the last chunks saved them nothing.
//
// # Crash safety
//
// A checkpoint's state describes a log exactly as it was at one Raft index:
// segment files with their sizes, and a small tail inline. What a file holds
// beyond its recorded size, and files that the state does not name, were
// written after the checkpoint; replay writes them again. So a restored log
// cuts its last file to the recorded size before it appends to it, and nothing
// stands twice. A file that is no longer needed is removed when the last two
// complete checkpoints do not name it, because recovery may fall back from the
// newest to the older one.
//
// Whole batches below the start offset that no parked message pins may be
// missing from any state: what moved the start is a committed entry, and
// replay applies it before anything is served.
//
// # Files
//
//	topics/<incarnation>/<partition>/<first offset, 20 digits>[-<generation>].seg
//
// The generation is above zero in the result of a compaction. All integers are
// big-endian, all checksums CRC32C. A segment is
//
//	header   magic "TSEG", format version u16, 0 u16, incarnation u64,
//	         first offset i64, partition i32, generation u32, 0 u32, crc u32
//	frames   (prefix, batch)*
//	footer   only in a sealed segment: magic "TSIX", count u32,
//	         (offset i64, position i64, Raft index u64)*, position of the
//	         footer i64, crc u32, footer length u32
//
// The prefix before each batch is
//
//	crc u32, offsets i32, Raft index u64, ns base i64
//
// and its crc covers the incarnation, the partition, the rest of the prefix
// and the batch header's bytes 0–20. Kafka's own checksum begins at byte 21,
// so the two together cover every byte, and a batch that strayed into another
// partition's file is refused. In the file a batch is stamped with its base
// offset and epoch; in the tail it is not.
package seglog
