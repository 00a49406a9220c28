// Package sim runs the real engine (wal, shard, seglog, the partition machine,
// the flusher and their recovery) on a disk in memory, with every choice taken
// from one seed: what clients do, which step comes next, how long it takes, when
// power fails, what a crash leaves of un-synced bytes, which bit flips. The same
// seed gives the same run, event by event.
//
// # Parts
//
// Sim chooses and drives; there is no goroutine and no clock but its own. A
// node is the engine over one disk; several nodes and a network between them
// come with replication. A recorder stands between a Raft group and its
// machine and feeds the model: a second, naive implementation of what entries
// mean, fed from the bytes of each entry when it is applied for the first time.
// The model outlives every crash.
//
// # What is checked
//
//   - An entry that was applied once is there after every recovery, with the
//     same term and bytes; so nothing acknowledged, and nothing a lane has
//     seen, is ever lost.
//   - A publish stands in the log whole or not at all, in the order of its
//     partition, with the offsets that were answered.
//   - The machine's state equals the model's: ends, hand-over cursors, starts,
//     floors, ranges, attempts, parked messages; so nothing is finished twice,
//     forgotten, or finished by a restart.
//   - A floor passes only messages that the channel's client has finished or
//     that were emptied; what was finished durably never comes again; deferred
//     messages come once they are due and not before.
//   - What a log returns equals, byte for byte, what was published at that
//     offset, with the time and epoch that the model computed, also for parked
//     messages below the start.
//   - A leader's term is new; a HardState that a leadership stood on is there.
//   - Damage that had been declared durable is refused, never cut; a damaged
//     checkpoint falls back.
//   - At the end every channel gets everything that is left, and no file
//     outlives two checkpoints without it.
//
// # Use
//
//	go test ./internal/sim -run TestSeeds -seeds 2000 -steps 3000
//	go test ./internal/sim -run 'TestSeed$' -seed 123
//
// test/sim/run is what CI runs: all seeds in two processes (the library's
// randomness is process-wide), then every planted bug, which must be caught.
package sim
