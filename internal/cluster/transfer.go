package cluster

import (
	"time"

	"github.com/tidings-io/tidings/internal/meta"
)

const (
	// transferPause is the least time between two transfers of one node.
	transferPause = time.Second
	// transferBackoff is how long a voter to whom a leadership went, and who does
	// not lead, is left alone: twice as long each time, up to transferBackoffMax.
	// Every try is an election, in which nobody serves.
	transferBackoff    = 10 * time.Second
	transferBackoffMax = 10 * time.Minute
)

// Transfer hands the leadership of a group to another voter.
type Transfer struct {
	Shard uint32
	To    uint64 // Raft id
}

// NextTransfer is the next leadership that this node gives away, so that each
// group is led by the voter that metadata prefers: one that has been live for
// a while, is caught up and has not stalled lately. since is the time since the
// last one; at most one a second is begun. barred says which are not to be tried
// now, because they have come to nothing before; nil: none.
func NextTransfer(v *meta.View, leases []Lease, groups []Group, since time.Duration, barred func(Transfer) bool) (Transfer, bool) {
	if since < transferPause {
		return Transfer{}, false
	}
	for _, g := range groups {
		if g.Transferring { // one at a time
			return Transfer{}, false
		}
	}
	fit := func(g *Group, to uint64) bool {
		return to != g.Leader && g.canLead(leases, to) && (barred == nil || !barred(Transfer{Shard: g.Shard, To: to}))
	}
	for i := range groups {
		g := &groups[i]
		want, ok := v.Shard(g.Shard)
		if !ok || !g.Leads || g.Changing {
			continue
		}
		if to := want.Preferred(); fit(g, to) {
			return Transfer{Shard: g.Shard, To: to}, true
		}
		if wanted(want, g.Leader) {
			continue
		}
		for _, to := range want.Voters { // this node leaves the group: anyone will do
			if fit(g, to) {
				return Transfer{Shard: g.Shard, To: to}, true
			}
		}
	}
	return Transfer{}, false
}

// tries are transfers that were begun and have not made their voter leader: it
// may be fit for all that is known here, and still lose every election, as one
// that the others cannot reach.
type tries map[Transfer]try

type try struct {
	count int
	until int64 // not again before, in ns of the agent's clock
}

// begin notes that a transfer was begun.
func (t *tries) begin(now int64, m Transfer) {
	if *t == nil {
		*t = make(tries)
	}
	e := (*t)[m]
	wait := min(transferBackoff<<min(e.count, 10), transferBackoffMax)
	(*t)[m] = try{count: e.count + 1, until: now + int64(wait)}
}

// barred reports whether a transfer is not to be tried now.
func (t tries) barred(now int64, m Transfer) bool {
	e, ok := t[m]
	return ok && now < e.until
}

// settle forgets the transfers that have come about, and those of groups that
// are not here any more.
func (t tries) settle(groups []Group) {
	leaders := make(map[uint32]uint64, len(groups))
	for _, g := range groups {
		leaders[g.Shard] = g.Leader
	}
	for m := range t {
		if leader, ok := leaders[m.Shard]; !ok || leader == m.To {
			delete(t, m)
		}
	}
}
