// Package replica runs the real engine on several nodes: three Raft groups over
// three or five nodes, each on a disk in memory, joined by a network that loses,
// repeats, delays and cuts. Every choice comes from one seed, so the same seed
// gives the same run.
//
// # What happens
//
// Clients publish and consume; they publish at the leader, or at any node, which
// numbers the publishes, hands them on, and sends again what is not answered;
// calls and answers are lost, repeated and late as all messages are; some ask for
// the leader alone. Steps of groups, logs and flushers come in any
// order; nodes crash, between and within operations on their disks, and come
// back; links are cut, one way or both; leadership is handed over; a member
// loses its disk and is replaced under a new Raft id; replicas that fall behind
// the log are brought up by transfer sessions, which break off at any point.
//
// With Options.Raises there is a topic with keys too, whose partitions lie in all
// shards, and whose number of partitions is raised while clients publish to it and
// consumers take from two channels. All of that learns of a raise at different times;
// nobody waits but for what the protocol has them wait for. Publishes go through
// origins, and consumers take from the lanes of package delivery.
//
// With Options.Edges there are edges: each the spool of package spool on a disk of its
// own, and its forwarder, stepped. Publishers give them messages of two topics; parts go
// to any node over links that lose, repeat, delay and reorder calls and answers, and are
// cut; the node gives them to who leads, again and again for a while, as broker.Forward
// does. Edges crash and come back, so do nodes, at times all of them at once; spools are
// small and fill up; the topics get more partitions, which nodes learn of late and
// forget again when they start. Single steps leave a cluster without leaders for long,
// so these runs have spells of rounds too. Where partitions may be raised, what an edge
// has under way outside the log ends with its life: ADR 0018 says why.
//
// # What is checked
//
//   - An entry that one replica applied at an index is what every replica
//     applies there, for ever; so nothing acknowledged is lost, and no order
//     changes.
//   - A term has one leader.
//   - A publish that was acknowledged stands in the log once, at the offsets
//     that were answered; no publish stands there twice; one that was refused
//     never does. One that the leader alone acknowledged may be missing.
//   - What went through one node stands in the order in which it was given.
//   - The messages of a key that one client published are delivered for the first time
//     in their order, across partitions only when those before are finished; none of
//     the topic with keys stands in two places, and every channel gets each that was
//     acknowledged.
//   - A message that an edge acknowledged is in one partition, once; one that it
//     refused is in none; those of an edge and a topic stand in their order in each
//     partition. No session goes back: what one leader has told of, every later one
//     knows.
//   - At the end, when everything is up and the network is whole, all replicas
//     come to the same index, and agree batch by batch (first offset, last
//     offset, CRC) and in every channel's state.
package replica
