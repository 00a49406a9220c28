package cluster

import (
	"cmp"
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/meta"
)

const (
	// LeaseInterval is the time between two renewals.
	LeaseInterval = time.Second
	// LeaseTerm is how long a lease lasts without one.
	LeaseTerm = 5 * time.Second
	// StallSync is how slow a sync makes a node stalled: it is then not chosen
	// as leader.
	StallSync = time.Second
	// FullSync is what a node says of its syncs whose disk is full down to the
	// reserve: it takes no publishes, so others are to lead.
	FullSync = time.Hour
)

// LeaseState is whether a node lives, as the leader of metadata sees it.
type LeaseState uint8

// The states of a lease.
const (
	// LeaseUnknown: the leader is new, and has not heard of the node nor waited
	// for the term of a lease.
	LeaseUnknown LeaseState = iota
	LeaseLive
	LeaseLapsed // not renewed for LeaseTerm
)

// String is the state in lower case.
func (s LeaseState) String() string {
	switch s {
	case LeaseLive:
		return "live"
	case LeaseLapsed:
		return "lapsed"
	}
	return "unknown"
}

// Lease is a node's lease at one moment. Times are ages, so that they mean the
// same on another node.
type Lease struct {
	RaftID uint64
	Boot   uint64 // process that renewed it; 0: none has
	State  LeaseState
	Age    time.Duration // since the last renewal
	Since  time.Duration // that it is live without a break
	Sync   time.Duration // the slowest of the node's last syncs
	// Calm is how long no renewal has shown a stall (StallSync).
	Calm      time.Duration
	Positions []Position
}

// Leases is the table of the leader of metadata. It has no clock: now is in ns
// of one that only rises. One goroutine owns it.
type Leases struct {
	began int64 // of this leadership
	nodes map[uint64]*holder
}

type holder struct {
	boot    uint64
	past    []uint64 // processes before it
	renewed int64
	since   int64 // live without a break
	stalled int64 // last time it was; began-like origin: long ago
	sync    time.Duration
	at      []Position
	lapsed  bool // and told
}

// maxPast is how many processes of a node are known as gone.
const maxPast = 8

// NewLeases begins the table of a new leadership: no node is known to live or
// not.
func NewLeases(now int64) *Leases {
	return &Leases{began: now, nodes: make(map[uint64]*holder)}
}

// Renew takes a renewal. It refuses, false, one of a process that another has
// followed: it was late.
func (l *Leases) Renew(now int64, r Renewal) bool {
	h := l.nodes[r.Node.ID]
	if h == nil {
		h = &holder{boot: r.Node.Boot, since: now, stalled: now - int64(time.Hour)}
		l.nodes[r.Node.ID] = h
	}
	if slices.Contains(h.past, r.Node.Boot) {
		return false
	}
	if h.boot != r.Node.Boot {
		h.past = append(h.past[max(0, len(h.past)-maxPast+1):], h.boot)
		h.boot, h.since = r.Node.Boot, now
	} else if now-h.renewed >= int64(LeaseTerm) {
		h.since = now
	}
	h.renewed, h.lapsed = now, false
	h.sync, h.at = time.Duration(r.SyncNs), r.Positions
	if h.sync >= StallSync {
		h.stalled = now
	}
	return true
}

// Forget drops a Raft id that is no member's any more.
func (l *Leases) Forget(raftID uint64) { delete(l.nodes, raftID) }

// State says whether a node lives. A node that never renewed has lapsed once
// this leadership is older than a lease.
func (l *Leases) State(now int64, raftID uint64) LeaseState {
	h := l.nodes[raftID]
	switch {
	case h != nil && now-h.renewed < int64(LeaseTerm):
		return LeaseLive
	case h != nil || now-l.began >= int64(LeaseTerm):
		return LeaseLapsed
	}
	return LeaseUnknown
}

// Lapsed lists the processes whose lease has ended since the last call, each
// once: their ephemeral topics go. Among the members may be one that never
// renewed here, as the leader before this one when it has crashed: it has lapsed
// like the others, as the process that metadata knows.
func (l *Leases) Lapsed(now int64, members []meta.Node) (boots []uint64) {
	for _, n := range members {
		if l.nodes[n.ID] == nil && n.Boot != 0 && l.State(now, n.ID) == LeaseLapsed {
			l.nodes[n.ID] = &holder{boot: n.Boot, renewed: l.began, since: l.began, stalled: l.began - int64(time.Hour)}
		}
	}
	for _, h := range l.nodes {
		if !h.lapsed && now-h.renewed >= int64(LeaseTerm) {
			h.lapsed = true
			boots = append(boots, h.boot)
		}
	}
	slices.Sort(boots)
	return boots
}

// Again has Lapsed list a process once more, unless it lives again: what was to
// be done about it has failed.
func (l *Leases) Again(boot uint64) {
	for _, h := range l.nodes {
		if h.boot == boot {
			h.lapsed = false
		}
	}
}

// List is the table for the nodes named, by Raft id.
func (l *Leases) List(now int64, nodes []uint64) []Lease {
	list := make([]Lease, 0, len(nodes))
	for _, id := range nodes {
		lease := Lease{RaftID: id, State: l.State(now, id)}
		if h := l.nodes[id]; h != nil {
			lease.Boot, lease.Age = h.boot, time.Duration(now-h.renewed)
			lease.Sync, lease.Calm, lease.Positions = h.sync, time.Duration(now-h.stalled), h.at
			if lease.State == LeaseLive {
				lease.Since = time.Duration(now - h.since)
			}
		}
		list = append(list, lease)
	}
	slices.SortFunc(list, func(a, b Lease) int { return cmp.Compare(a.RaftID, b.RaftID) })
	return list
}

// aged is a lease some time after it was listed: what another node still knows.
// One that nobody has heard of for a term has lapsed.
func (l Lease) aged(by time.Duration) Lease {
	if l.State == LeaseUnknown {
		return l
	}
	l.Age += by
	if l.State == LeaseLive && l.Age >= LeaseTerm {
		l.State, l.Since = LeaseLapsed, 0
	}
	return l
}

// leaseOf finds a node's lease; an unknown one where there is none.
func leaseOf(leases []Lease, raftID uint64) Lease {
	for _, l := range leases {
		if l.RaftID == raftID {
			return l
		}
	}
	return Lease{RaftID: raftID}
}

// duration reads ns; bounded, so that sums cannot pass the end.
func (d *decoder) duration() time.Duration { return time.Duration(d.below(1 << 60)) }
