// Package chaos tests a cluster of real processes: three nodes, each in a network
// namespace of its own, under load from 64 publishers and from consumers on every
// node, while nodes are killed, stopped and restarted, links cut, packets lost,
// disks slow or full.
//
// The tests need root, ip (iproute2) and nft (nftables), a built binary, and are
// run by test/chaos/run, which sets
//
//	CHAOS_BINARY   the tidings binary under test
//	CHAOS_FAULTS   the same built with -tags faults
//	CHAOS_LONG     the long run of make chaos: every loop has more rounds
//	CHAOS_KILLS    how often a leader is killed (6, in a long run 40)
//	CHAOS_SEED     seed of load and faults; drawn and printed when not set
//	CHAOS_FLAGS    more flags for every node, such as --sync-storage
//	CHAOS_KEEP     a folder for data folders, kept after a failure (a temporary one)
//
// Without CHAOS_BINARY only the self-tests of the checkers run.
//
// Consumers that hold messages for a while are a team (team_test.go): it knows who
// holds what until when, on which connection, and notes every delivery that must not
// be. Its tests have no load beside it.
//
// # The network
//
// Clients stand on the same host as the node that they talk to and use its
// loopback, so that a fault of the network comes between nodes only. Packets are
// dropped where they come in; a link goes down at the bridge.
//
// # How the tests know what must be true
//
// The history writes down every publish before it is sent, every answer and every
// delivery, by one clock. A publisher that does not know what became of a publish
// (it was refused, timed out, or the connection was lost) sends its messages
// again, before any others. Each time a message is sent it has another body, so
// that the log tells them apart. From that:
//
//   - lost: a message that was acknowledged and has not reached a channel when the
//     channels are empty;
//   - torn: an MPUB of which a part is in the log, or a message that one channel
//     has and another has not;
//   - doubled: what was sent once is in the log under two ids or timestamps (a
//     message that its publisher sent again may be there as often as it was sent);
//   - disorder: messages of one connection in another order than they were sent;
//     a message that stands in the log before one that had been acknowledged when
//     it was sent, by whomever; first deliveries on a channel out of the log's
//     order;
//   - undead: a message that comes again after its FIN, although no fault and no
//     change of leaders was within two seconds of that FIN;
//   - refused: a publisher saw an error, or waited for more than 10 s, at a node
//     that nothing had been done to. Also what porcupine finds: for each partition
//     a prefix of its publishes and first deliveries must be linearizable.
//
// One channel of each topic is never consumed, so that no message is finished
// everywhere and every replica must hold all of them. At the end of each test the
// nodes are stopped, their files verified, and the batches of all replicas
// compared one by one.
package chaos
