// Package repair puts back what is damaged in the logs of partitions and whole
// on another replica.
//
// Whoever reads a log and meets damage (a consumer's lane, a catch-up, a flush)
// gets a *seglog.CorruptError; before, the store asks Mender.Mend, the Mend of
// its options. The mender notes the damage, and one goroutine asks the other
// replicas of the shard for the offsets, one after the other, until one has
// them. What it sends is checked against the list of its batches (first offset,
// last offset, checksum) and goes through the shard's flusher into a new segment.
// Replicas agree by batch, not by file: files may differ.
//
// Readers wait meanwhile and skip nothing. When all other replicas say that
// they have lost the same batches, or there are none, Mend says no, and readers
// skip what is damaged, as a single node does.
//
// A Mender knows no socket: a Network carries its requests, and Serve answers
// those of others.
package repair
