package shard

import (
	"context"
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
)

const (
	// drainTimeout is how long a hand-over waits until what is in flight is
	// applied, in ns.
	drainTimeout = int64(500e6)
	// handoverTimeout is after how long a hand-over that did not come to be is
	// given up, in ns: the library's own is an election timeout.
	handoverTimeout = electionTicks*tickInterval + int64(200e6)

	// stallLimit is how long a sync of the leader's log may go on before it
	// looks for another leader, and stallPause how often it does.
	stallLimit = 2 * time.Second
	stallPause = int64(time.Minute)
)

// handover of the leadership. While it is on its way nothing is proposed, so
// that the next leader need not reach a moving end; what waits in the machine
// is answered by Follow, without ever having been proposed.
type handover struct {
	to    uint64 // 0: none
	begun int64  // unix ns
	sent  int64  // when the library was told; 0: not yet
	done  func(error)

	reports []report // of sync latency, by replica
	stalled int64    // unix ns of the last hand-over for a stall
}

// report is what a replica has reported of its WAL.
type report struct {
	id      uint64
	latency time.Duration
}

// holds reports whether proposals are held back.
func (h *handover) holds() bool { return h.to != 0 }

func (h *handover) latencyOf(id uint64) int64 {
	for _, r := range h.reports {
		if r.id == id {
			return int64(r.latency)
		}
	}
	return 0
}

// HandOver gives the leadership to another voter: what is in flight is applied
// first, at most half a second long, while new proposals are held back. done is
// called once, on the loop: with nil when another replica leads, with
// fault.NotLeader when this one does not, fault.InvalidRequest when the other is
// no voter, fault.Overloaded when a hand-over is on its way, fault.Timeout when
// the other did not take over within some 1.2 s; this replica leads on then.
// Any goroutine.
func (g *Group) HandOver(to uint64, done func(error)) {
	g.call(func() {
		if err := g.beginHandover(to, done); err != nil {
			done(err)
		}
	})
}

// TransferLeader is HandOver that waits, until ctx ends at the latest.
func (g *Group) TransferLeader(ctx context.Context, to uint64) error {
	answer := make(chan error, 1)
	g.HandOver(to, func(err error) { answer <- err })
	return g.wait(ctx, answer)
}

func (g *Group) beginHandover(to uint64, done func(error)) error {
	h := &g.p.handover
	switch {
	case !g.serving:
		return fault.New(fault.NotLeader, "hand over shard %d: this replica does not lead", g.o.ID)
	case h.holds() || g.p.change != nil:
		return fault.New(fault.Overloaded, "hand over shard %d: a hand-over, or a change of members, is on its way", g.o.ID)
	case to == g.o.RaftID || !slices.Contains(g.log.conf.GetVoters(), to):
		return fault.New(fault.InvalidRequest, "hand over shard %d: replica %x is no other voter", g.o.ID, to)
	}
	h.to, h.begun, h.sent, h.done = to, g.p.now, 0, done
	g.goOver()
	return nil
}

// goOver tells the library as soon as nothing is in flight.
func (g *Group) goOver() (did bool) {
	h := &g.p.handover
	if !h.holds() || h.sent != 0 || len(g.proposals) > 0 && g.p.now < h.begun+drainTimeout {
		return false
	}
	h.sent = g.p.now
	g.node.TransferLeader(h.to)
	return true
}

// handedOver ends a hand-over with the leadership.
func (g *Group) handedOver() {
	g.endHandover(nil)
	g.p.handover.reports = nil
}

func (g *Group) endHandover(err error) {
	h := &g.p.handover
	done := h.done
	h.to, h.done = 0, nil
	if done != nil {
		done(err)
	}
}

// superviseHandover gives up what did not come to be, and looks whether the
// disk stalls.
func (g *Group) superviseHandover(now int64) {
	h := &g.p.handover
	if h.holds() {
		g.goOver()
		if h.sent != 0 && now >= h.sent+handoverTimeout {
			g.endHandover(fault.New(fault.Timeout, "hand over shard %d: replica %x did not take over", g.o.ID, h.to))
		}
		return
	}
	if !g.serving || g.p.change != nil || len(h.reports) == 0 || h.stalled != 0 && now < h.stalled+stallPause {
		return
	}
	own := g.o.WAL.Latency(time.Unix(0, now))
	to, ok := StallTarget(own.Current, h.candidates(g.p.members, g.o.RaftID))
	if !ok {
		return
	}
	h.stalled = now
	g.o.Logger.Warn("the disk stalls; handing over", "shard", g.o.ID, "sync", own.Current, "median", own.Median, "to", RaftID(to))
	if err := g.beginHandover(to, func(error) {}); err == nil {
		h.begun -= drainTimeout // nothing in flight will be applied here soon
		g.goOver()
	}
}

// ReportLatency notes the sync latency that a replica has told, as the larger
// of its recent median and the sync under way: see wal.Latency. It counts while
// this replica leads. Any goroutine.
func (g *Group) ReportLatency(id uint64, latency time.Duration) {
	g.call(func() {
		h := &g.p.handover
		if i := slices.IndexFunc(h.reports, func(r report) bool { return r.id == id }); i >= 0 {
			h.reports[i].latency = latency
			return
		}
		h.reports = append(h.reports, report{id, latency})
	})
}

// Candidate is a replica that could lead.
type Candidate struct {
	ID      uint64
	Latency time.Duration // of its WAL's syncs, as reported
}

// candidates are the voters that keep up with the log and have reported.
func (h *handover) candidates(members []Member, self uint64) []Candidate {
	var list []Candidate
	for _, m := range members {
		if m.ID == self || m.Learner || !m.Active || m.State != "replicate" {
			continue
		}
		if l := h.latencyOf(m.ID); l > 0 {
			list = append(list, Candidate{m.ID, time.Duration(l)})
		}
	}
	return list
}

// StallTarget decides to whom a leader hands over whose current sync has been
// going on for so long: above two seconds, to the candidate with the lowest
// latency if that is under a quarter of it.
func StallTarget(current time.Duration, candidates []Candidate) (id uint64, ok bool) {
	if current <= stallLimit || len(candidates) == 0 {
		return 0, false
	}
	best := slices.MinFunc(candidates, func(a, b Candidate) int { return int(a.Latency - b.Latency) })
	return best.ID, best.Latency < current/4
}
