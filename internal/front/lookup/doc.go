// Package lookup is nsqlookupd, both ways.
//
// Front is the server: nsqlookupd's TCP protocol, by which nsqds register, and
// its HTTP API, by which consumers and tools find them. What it answers comes
// from two places that never touch each other:
//
//	registry  nsqds that have registered, each tied to its connection. All of
//	          nsqlookupd's calls work on it as they do there.
//	Catalog   the topics, channels and nodes of our own. They are looked up and
//	          created; nsqlookupd's deletes leave them alone, because they would
//	          remove everything where NSQ's tools think of one node's share. A
//	          tombstone hides a node from the lookups of a topic for a while.
//
// Without a Catalog the front is exactly an nsqlookupd.
//
// Registrar is the client: it keeps a node registered with nsqlookupds, ours or
// real ones, and asks them which channels a new topic is to have.
package lookup
