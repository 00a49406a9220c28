// Package cluster makes nodes a cluster: how it is formed from its seeds, how a
// member whose disk was wiped comes back, who is alive, and what the leaders of
// groups have to change so that members and leaders are where metadata wants
// them. It knows no socket: a Network carries its calls.
//
// # Forming
//
// A cluster is formed once, by its seeds: 1, 3 or 5 nodes that all name the
// same list. Former is the step machine. Each node asks every seed, itself
// included, who it is (Hello); each answers from what its disk says:
//
//	empty     belongs to no cluster
//	accepted  has agreed to an attempt: a cluster id, a number, the members
//	formed    knows that all seeds have agreed, or has joined later
//
// Who hears of a formed cluster never forms one: it joins. Only when every seed
// has answered and none is formed does the seed with the lowest name go on:
//
//  1. It asks all again, in earnest (Prepare). Each answers with a ticket, and
//     forgets what it had itself asked before. All must answer as they did.
//  2. It writes down an attempt: a new cluster id if all are empty, else the one
//     that some have accepted, under a higher number, with the members as they
//     answered.
//  3. It sends the attempt to all (Form). A seed accepts durably if it is listed
//     with its very Raft id, the ticket is the last that it gave to that name,
//     and it has accepted no other cluster.
//  4. When all have accepted, it writes down that the cluster is formed. The
//     others hear so by asking. Groups begin only on a node that is formed.
//
// Why so: any of them may crash at any write, and a container without a volume
// comes back with an empty disk under the same name. A ticket makes a Form that
// was delayed, sent by the disk before, harmless. That nothing begins before all
// have accepted allows an attempt to be given up for another with the same
// cluster id, so that a disk lost while forming does not end it. The second
// round makes sure that no answer of the first has become untrue behind the back
// of the one who decides. former_model_test.go plays all of it against crashes, lost
// disks, and messages lost, doubled and late.
//
// # Joining
//
// In this version joining means coming back: a node whose disk is empty has the
// name of a member. Any member takes its request to the leader of metadata,
// which gives the member's name and places to the new Raft id, unless the
// member still renews its lease.
//
// # Liveness
//
// A lease at the leader of metadata, renewed every second. It is never
// replicated. Times are nanoseconds of a clock that only rises.
package cluster
