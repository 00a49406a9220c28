package replica

import (
	"fmt"
	"strings"
)

// Counts are the cases that a run has met.
type Counts struct {
	Acked, Unknown, Refused int64 // publishes, by their outcome
	Leads                   int64 // leaderships …
	Tails                   int64 // … that ended with something in flight
	Crashes                 int64 // power failures …
	InOp                    int64 // … of these, within an operation on a disk
	Cuts                    int64 // links that went down
	Sessions, Installs      int64 // transfers: begun, and installed
	Aborted                 int64 // that broke off
	Overtaken               int64 // that the log overtook
	PinsLost                int64 // that kept too much of the WAL, or nobody pulled from
	Transfers               int64 // of leadership
	Replaced                int64 // members
	Reads                   int64 // that were answered
	Stale                   int64 // entries that came in a later term than they were built in
	Finished                int64 // messages, by channels
	Fives                   int64 // runs with five nodes
	Resends                 int64 // of publishes through another node
	Repeats                 int64 // that were recognized
	OutOfOrder              int64 // that were refused because one before them was missing
	GaveUp                  int64 // epochs that began because the outcome was unknown
	Alone                   int64 // publishes answered by the leader alone …
	AloneLost               int64 // … and lost with it

	// Of the topic with keys.
	Raises    int64 // of its number of partitions
	Moved     int64 // publishes that were given back
	Released  int64 // lanes, from a barrier
	Delivered int64 // messages, for the first time

	// Of edges.
	EdgeAcked     int64 // messages that their spools acknowledged …
	EdgeInDark    int64 // … while the whole cluster was down
	EdgeUnknown   int64 // messages that were not answered
	EdgeFull      int64 // publishes that a full spool refused
	EdgeForwarded int64 // parts with messages that were answered
	EdgeRepeats   int64 // that were done before
	EdgeMissing   int64 // that were refused because one before them was missing
	EdgeRouted    int64 // that a node gave to another one
	EdgeAhead     int64 // to a node that did not know of as many partitions yet
	EdgeLost      int64 // calls and answers on their way
	EdgeDoubled   int64 // calls and answers that came twice
	EdgeReordered int64 // answers that overtook one
	EdgeTimeouts  int64 // calls without an answer
	EdgeCuts      int64 // links that went down
	EdgeCrashes   int64 // ends of a life …
	EdgeKills     int64 // … that the machine survived
	EdgeInOp      int64 // … within an operation on the disk
	EdgeTorn      int64 // power failures that left a write in part
	EdgeReturns   int64 // lives that began with messages in the spool
	EdgeRaises    int64 // of their topics' number of partitions
	Blackouts     int64 // of the whole cluster
}

// names are those of fields, in its order.
var names = [...]string{
	"acked", "unknown", "refused", "leads", "uncommitted-tails", "crashes", "crash-within-operation", "cuts",
	"sessions", "installs", "sessions-aborted", "sessions-overtaken", "sessions-lost-pins", "hand-overs", "replaced",
	"reads", "stale-entries", "finished",
	"five-nodes", "resends", "repeats", "out-of-order", "epochs-given-up", "leader-alone", "leader-alone-lost",
	"raises", "moved", "released", "delivered",
	"edge-acked", "edge-acked-in-blackout", "edge-unknown", "edge-spool-full", "edge-forwarded", "edge-repeats", "edge-out-of-order",
	"edge-routed", "edge-ahead-of-node", "edge-lost", "edge-doubled", "edge-reordered", "edge-timeouts", "edge-cuts",
	"edge-crashes", "edge-kills", "edge-crash-within-operation", "edge-torn-tails", "edge-returns", "edge-raises", "blackouts",
}

func (c *Counts) fields() []*int64 {
	return []*int64{
		&c.Acked, &c.Unknown, &c.Refused, &c.Leads, &c.Tails, &c.Crashes, &c.InOp, &c.Cuts,
		&c.Sessions, &c.Installs, &c.Aborted, &c.Overtaken, &c.PinsLost, &c.Transfers, &c.Replaced,
		&c.Reads, &c.Stale, &c.Finished,
		&c.Fives, &c.Resends, &c.Repeats, &c.OutOfOrder, &c.GaveUp, &c.Alone, &c.AloneLost,
		&c.Raises, &c.Moved, &c.Released, &c.Delivered,
		&c.EdgeAcked, &c.EdgeInDark, &c.EdgeUnknown, &c.EdgeFull, &c.EdgeForwarded, &c.EdgeRepeats, &c.EdgeMissing,
		&c.EdgeRouted, &c.EdgeAhead, &c.EdgeLost, &c.EdgeDoubled, &c.EdgeReordered, &c.EdgeTimeouts, &c.EdgeCuts,
		&c.EdgeCrashes, &c.EdgeKills, &c.EdgeInOp, &c.EdgeTorn, &c.EdgeReturns, &c.EdgeRaises, &c.Blackouts,
	}
}

// Add sums up.
func (c *Counts) Add(o Counts) {
	for i, p := range c.fields() {
		*p += *o.fields()[i]
	}
}

// String is one name=number for each.
func (c *Counts) String() string {
	var b strings.Builder
	for i, p := range c.fields() {
		fmt.Fprintf(&b, "%s=%d ", names[i], *p)
	}
	return strings.TrimSpace(b.String())
}

// Missing names what was never met.
func (c *Counts) Missing() []string {
	var list []string
	for i, p := range c.fields() {
		if *p == 0 {
			list = append(list, names[i])
		}
	}
	return list
}
