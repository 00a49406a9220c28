// Package seglog keeps the messages of partitions: for each partition one Log,
// the newest batches in memory (the tail), the rest in segment files that are
// written in the background.
//
// # Owners
//
// The shard's loop appends and moves the start. The node's flusher, one
// goroutine, is the only one that writes, syncs and removes files: FlushOldest,
// Checkpoint, Published, Compact, Remove. Any goroutine may Read. Log.mu guards
// what they share and is never held across I/O.
//
// # On disk
//
// A segment is <dir>/<topic>/<partition>/<first offset>[-<generation>].seg:
//
//	header, 40 bytes: magic, format version, partition, topic, first offset,
//	    generation, CRC32C
//	then for each batch
//	    prefix, 24 bytes: magic, CRC32C, Raft index, time base in unix ns
//	    the record batch, stamped with base offset and leader epoch
//	and, in a sealed one, a footer: the sparse index with a CRC32C
//
// The prefix's checksum covers topic, partition, index, time and the batch
// header's bytes 0–20, which Kafka's own CRC leaves out. A reader checks both
// before a byte leaves the file. Integers are little-endian, those of the
// record batch big-endian as Kafka has them.
//
// # What is durable
//
// Nothing here is synced before it has to be: until then the write-ahead log
// holds it. Checkpoint makes everything that the log has durable, in files or,
// for small tails, in the state itself, and returns that state. After a crash
// Restore takes the state up and the shard appends again what came later; a
// batch that is there already is passed over.
//
// A file that is not needed any more is dead: it stays until two published
// checkpoints do without it, because recovery may fall back from the newest
// checkpoint to the one before.
package seglog
