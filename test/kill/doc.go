// Package kill tests real processes: nodes that are killed with kill -9 under
// load, asked to stop, started on damaged files, on a full disk, and by clients
// that mean harm.
//
// The tests need a built binary and are run by test/kill/run, which sets
//
//	KILL_BINARY    the tidings binary under test
//	KILL_FAULTS    the same built with -tags faults
//	KILL_ROUNDS    rounds of each kill -9 loop (20)
//	KILL_SEED      seed of the load; drawn and printed when not set
//	KILL_FLAGS     more flags for every node, such as --sync-storage
//	KILL_KEEP      a folder for data folders, kept after a failure (a temporary one)
//	EDGE_CUT       how long TestEdgeCutOff cuts an edge off from its cluster (2s); see below
//	KILL_MEASURE   set by test/kill/measure: run the measurements instead
//
// Without KILL_BINARY only the self-tests of the checker run.
//
// The long run of an edge that is cut off, with three publishers of some hundred
// messages a second each, is
//
//	EDGE_CUT=15m test/kill/run -test.run 'TestEdgeCutOff$'
//
// It takes a minute or two more than the cut, and some 100 MiB of disk for each of the
// four processes.
//
// # How the loop knows what must be true
//
// The ledger writes down every message before it is sent, every
// acknowledgement, delivery and answer, with the time of one clock. A message
// body names its message, so nothing else is needed to recognise it. From that:
//
//   - lost: a message that was acknowledged and has not reached a channel when
//     that channel is empty;
//   - torn: an MPUB of which a part is in the log, or a message that one channel
//     has and another has not;
//   - doubled: a message under two ids or timestamps;
//   - disorder: timestamps of first deliveries on a channel with one consumer,
//     or of one connection's publishes, that do not strictly increase;
//   - early: a deferred or requeued message before its due time;
//   - attempts: a count that rose without a requeue, a timeout or the loss of
//     the consumer's own connection;
//   - undead: a message that the server had counted as finished, longer before
//     the kill than 50 ms and the longest sync of the log in that life, and that
//     comes again. The count is the client's finish_count in /stats. The
//     server answers a connection's FINs in order, so a count of n tells that
//     the first n of them have been dealt with. What the kill cut short is in no
//     metric, and what a FIN changes goes the way of a publish, past a sync that
//     is under way: the slowest publish of that life widens the window where it
//     is longer, and the time in which the machine ran nothing of ours is added.
package kill
