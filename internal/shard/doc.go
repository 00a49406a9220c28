// Package shard runs one Raft group: it proposes what its Machine drains, puts
// entries and votes into the node's WAL, applies what is committed, takes
// checkpoints and recovers from them.
//
// A Group has no goroutine, channel or clock inside its steps: Step takes the
// time as an argument and does everything that can be done now; Run is a loop
// over Step, woken by Wake, by the WAL's completions and by one timer. Two
// disciplines of the library drive the same step: asynchronous storage writes,
// where appends and applies are messages that the loop hands out and answers,
// and the synchronous Ready/Advance, where entries and HardState are durable
// before anything of the same Ready is sent or applied. Both apply only what is
// locally durable.
//
// A Flusher (one per node) moves tails to files and writes the checkpoints that
// its groups ask for.
package shard
