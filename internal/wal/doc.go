// Package wal is the node's write-ahead log: one sequence of fsynced segment
// files that all raft groups of the node share. It is the durability promise
// of the product: what its Done callbacks reported is there after any crash.
//
// # Shape
//
// A WAL is a step machine. Submit queues; Write encodes everything queued into
// one buffer and writes it once; Sync makes it durable; Finish tells the
// callers; Maintain does one unit of background work. The steps hold no
// goroutine and no clock. Run is a loop over them, and the simulator is
// another; under Run, Drive does a round on the goroutine that submits. One
// driver at a time calls Write, Sync, Finish and Mark; one (possibly another)
// calls Maintain; everything else may be called from any goroutine.
//
// # Files
//
// A segment is a file named by its sequence number, 16 hex digits and ".wal".
// The names in the folder are dense: first the live segments, oldest first,
// then the spares, which already carry the names under which they will be
// used. A file is live when its header carries the sequence number of its
// name; a spare holds zeros, or the header and frames of an earlier life.
// Rolling to a spare is therefore one write, with no rename and no directory
// sync in it. A young log rolls early, from the file that grows to the first
// spare, and its first spares are smaller than a segment. "spare.new" is a spare in the making. "damaged-N" folders hold
// what Repair moved aside.
//
// All integers are little-endian.
//
//	segment header, 512 bytes, rest zero:
//	 0  magic      8   "tidingsW"
//	 8  version    u32 format version, 1
//	12  crc        u32 CRC32C of bytes 0–11 and 16–63
//	16  wal id     u64 random, the same in all segments
//	24  sequence   u64 also the generation of the segment's frames
//	32  previous   u64 where the segment before it ended, 0 if there was none
//	40  grows      u8  1: began as an empty file; 0: as a spare with old bytes
//
//	frame, at a multiple of 8, payload padded with zeros to 8:
//	 0  header crc  u32 CRC32C of bytes 4–39, seeded with the generation
//	 4  length      u32 payload bytes
//	 8  payload crc u32 CRC32C of the payload, seeded with the generation
//	12  shard       u32
//	16  kind        u32 1 group, 2 HardState, 3 entry, 4 forget
//	20  type        i32 entry: its raft type
//	24  term        u64 group: its bytes, this frame included; HardState: term
//	32  index       u64 group: durable mark; HardState: commit
//	40  payload         entry: its data; HardState: vote, u64
//
// The seed is the CRC32C of wal id and sequence number, so a frame that a
// recycled file still holds from an earlier life never passes. The frame
// header has a checksum of its own so that recovery can look for frames behind
// a damaged place without reading what somebody published as a length.
//
// One Write makes one group (two, when it rolls to the next segment). A group
// is taken whole or not at all. Its first frame names the durable mark: the
// offset in this segment below which everything was known durable before the
// group was written. A sealed segment is synced before its successor's header
// is written, and that header names its end. A clean stop, and a second of
// idleness, append a group with nothing but a mark.
//
// The first group of a segment begins with the HardState of every shard, so
// that no older segment is needed for one.
//
// # Recovery
//
// The segments are read once, in order. Where a group is not whole:
//
//   - in the last segment, with no later frame of its generation that declares
//     the place durable: that is the last write, torn. It is cut, with a
//     warning that names offset and size.
//   - anywhere else: *CorruptError. Repair lists what would be lost and, told
//     to apply, moves the damaged files aside.
package wal
