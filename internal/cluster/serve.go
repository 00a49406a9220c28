package cluster

import (
	"fmt"
	"slices"

	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/plant"
)

// Serve answers a request of another node, or of this one itself: from is the
// name in its certificate. members are the cluster's as they are now, nil while
// only the disk knows them.
func (f *Former) Serve(now int64, from string, m Method, request []byte, members []meta.Node) (Output, error) {
	if f.write != nil {
		return Output{}, fmt.Errorf("serve %s: %w", m, ErrBusy)
	}
	switch m {
	case MethodHello:
		h, err := decodeHello(request)
		if err != nil {
			return Output{}, err
		}
		return f.hello(now, from, h, members), nil
	case MethodForm:
		form, err := decodeForm(request)
		if err != nil {
			return Output{}, err
		}
		return f.accept(now, from, form), nil
	}
	return Output{}, fmt.Errorf("serve %s: this node is %s: %w", m, f.id.Stage, ErrMethod)
}

func (f *Former) hello(now int64, from string, h Hello, members []meta.Node) Output {
	a := HelloAnswer{
		Node: f.o.Self, Stage: f.id.Stage, Seeds: addresses(f.o.Seeds),
		Cluster: f.id.Cluster, Attempt: f.id.Attempt, Members: f.id.Members,
	}
	if f.id.Stage == Formed && members != nil {
		a.Members = members
	}
	if f.id.Stage == Rejoining {
		a.Stage = Formed // the cluster is
	}
	if h.Prepare && f.id.Stage < Formed && h.RaftID != f.id.RaftID {
		f.given++
		f.tickets[from] = f.given
		a.Ticket = Ticket{Boot: f.boot, Number: f.given}
		if f.phase != phaseIdle && !plant.On("cluster-keep-asking") {
			// what this node has asked may have become untrue for the one that
			// decides now: ask again
			f.rest(now)
		}
	}
	out := f.output(nil)
	out.Reply = a.encode()
	return out
}

// accept agrees to an attempt, durably, or refuses it.
func (f *Former) accept(now int64, from string, m Form) Output {
	if reason := f.refuse(from, m); reason != "" {
		out := f.output(nil)
		out.Reply = FormAnswer{Reason: reason}.encode()
		return out
	}
	yes := FormAnswer{}.encode()
	if f.id.Attempt == m.Attempt {
		out := f.output(nil)
		out.Reply = yes
		return out
	}
	next := f.id
	next.Stage, next.Cluster, next.Attempt = Accepted, m.Cluster, m.Attempt
	next.Members, next.Voters, next.Shards = m.Members, m.Voters, len(m.Voters)-1
	return f.save(next, func(now int64) Output {
		out := f.rest(now, "waiting for all seeds to accept the cluster "+f.id.Cluster)
		out.Reply = yes
		return out
	})
}

// refuse says why an attempt cannot be accepted; empty when it can.
func (f *Former) refuse(from string, m Form) string {
	if f.id.Stage == Rejoining || f.id.Stage != Empty && f.id.Cluster != m.Cluster {
		return fmt.Sprintf("node %s has %s the cluster %s", f.id.Name, f.id.Stage, f.id.Cluster)
	}
	if f.id.Stage != Empty && f.id.Attempt == m.Attempt {
		return "" // again
	}
	next := Identity{
		Name: f.id.Name, RaftID: f.id.RaftID, Stage: Accepted,
		Cluster: m.Cluster, Attempt: m.Attempt, Members: m.Members, Voters: m.Voters, Shards: len(m.Voters) - 1,
	}
	given, ok := f.tickets[from]
	switch {
	case f.id.Stage == Formed:
		return fmt.Sprintf("node %s is a member of the cluster %s already", f.id.Name, f.id.Cluster)
	case m.Attempt.Number <= f.id.Attempt.Number:
		return fmt.Sprintf("node %s has accepted attempt %d, not below attempt %d", f.id.Name, f.id.Attempt.Number, m.Attempt.Number)
	case next.Check() != nil:
		return fmt.Sprintf("node %s: %v", f.id.Name, next.Check())
	case m.Members[0].Name != from || len(m.Members) != len(f.o.Seeds):
		return fmt.Sprintf("node %s is not the first of %d seeds", from, len(f.o.Seeds))
	case (!ok || m.Ticket != Ticket{Boot: f.boot, Number: given}) && !plant.On("cluster-any-ticket"):
		return fmt.Sprintf("node %s was asked by another process since, or has started anew", f.id.Name)
	case slices.ContainsFunc(m.Members, func(n meta.Node) bool { return n.ID == 0 || n.Addr == "" }):
		return "a member has no Raft id or no address"
	}
	return ""
}
