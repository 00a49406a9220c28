package cluster

import (
	"context"
	"fmt"

	"github.com/tidings-io/tidings/internal/meta"
)

// Serve answers a request of the node named from, which is the name in its
// certificate. The caller sees to it that only members, and those that may
// become one, get this far.
func (a *Agent) Serve(ctx context.Context, from string, m Method, request []byte) ([]byte, error) {
	switch m {
	case MethodHello, MethodForm:
		return a.hello(from, m, request)
	case MethodLease:
		return a.lease(from, request)
	case MethodJoin:
		j, err := decodeJoin(request)
		if err != nil {
			return nil, err
		}
		return a.join(ctx, from, j, request)
	case MethodMeta:
		if _, ok := a.o.Meta.View().NodeNamed(from); !ok {
			return nil, fmt.Errorf("serve %s: %s is no member of the cluster", m, from)
		}
		return a.submit(ctx, request)
	}
	return nil, fmt.Errorf("serve %s: %w", m, ErrMethod)
}

// hello answers as a formed disk does; it writes nothing.
func (a *Agent) hello(from string, m Method, request []byte) ([]byte, error) {
	var members []meta.Node
	if v := a.o.Meta.View(); v.Formed() {
		members = v.Nodes
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	out, err := a.former.Serve(a.o.Clock(), from, m, request, members)
	return out.Reply, err
}

// lease takes a renewal, or says who leads.
func (a *Agent) lease(from string, request []byte) ([]byte, error) {
	r, err := decodeRenewal(request)
	if err != nil {
		return nil, err
	}
	if r.Cluster != a.o.Identity.Cluster || r.Node.Name != from {
		return nil, fmt.Errorf("serve lease: %s of cluster %s asks as %s of cluster %s", from, a.o.Identity.Cluster, r.Node.Name, r.Cluster)
	}
	if err := checkAddresses(&r.Node); err != nil {
		return nil, fmt.Errorf("serve lease: %w", err)
	}
	if v := a.o.Meta.View(); v.Formed() {
		if n, ok := v.Node(r.Node.ID); !ok || n.State != meta.NodeMember {
			return nil, fmt.Errorf("serve lease: the Raft id %016x of %s is no member's", r.Node.ID, from)
		}
	}
	if a.take(r) {
		return RenewalAnswer{Leader: a.o.Identity.RaftID, Leases: a.Leases()}.encode(), nil
	}
	var answer RenewalAnswer
	for _, g := range a.o.Engine.Groups() {
		if g.Shard == meta.GroupID {
			answer.Leader = g.Leader
		}
	}
	return answer.encode(), nil
}

// join gives a member's name to a disk, if this node leads metadata; else it
// takes the request there, one hop at most.
func (a *Agent) join(ctx context.Context, from string, j Join, request []byte) ([]byte, error) {
	if j.Cluster != a.o.Identity.Cluster {
		return refuseJoin("this is the cluster %s", a.o.Identity.Cluster), nil
	}
	// A node asks in its own name, and members bring what others ask.
	if _, ok := a.o.Meta.View().NodeNamed(from); !ok && from != j.Node.Name {
		return nil, fmt.Errorf("serve join: %s asks in the name of %s, and is no member", from, j.Node.Name)
	}
	if err := checkAddresses(&j.Node); err != nil {
		return refuseJoin("%v", err), nil
	}
	a.mu.Lock()
	leads := a.table != nil
	a.mu.Unlock()
	if leads {
		return a.replace(ctx, j)
	}
	to, ok := a.leader(a.o.Engine.Groups())
	if !ok || to.Name == a.o.Identity.Name || from != j.Node.Name {
		return refuseJoin("no leader of metadata is known to %s", a.o.Identity.Name), nil
	}
	return a.o.Network.Call(ctx, to, MethodJoin, request)
}

func refuseJoin(format string, args ...any) []byte {
	return JoinAnswer{Reason: fmt.Sprintf(format, args...)}.encode()
}

// replace has metadata give the member's name to the disk, unless the member
// may still be alive.
func (a *Agent) replace(ctx context.Context, j Join) ([]byte, error) {
	old, ok := a.o.Meta.View().NodeNamed(j.Node.Name)
	switch {
	case !ok:
		return refuseJoin("the cluster has no member %s: adding nodes is not supported yet", j.Node.Name), nil
	case old.ID == j.Node.ID:
		return a.welcome(), nil
	case old.ID != j.Was:
		return refuseJoin("the member %s has changed meanwhile", old.Name), nil
	}
	a.mu.Lock()
	state := LeaseUnknown
	now := a.o.Clock()
	if table := a.leases(now); table != nil {
		state = table.State(now, old.ID)
	}
	a.mu.Unlock()
	switch state {
	case LeaseLive:
		return refuseJoin("the member %s is alive with another disk, or was until a moment ago", old.Name), nil
	case LeaseUnknown:
		return refuseJoin("it is not known yet whether the member %s is alive", old.Name), nil
	}
	got := make(chan error, 1)
	a.o.Meta.ReplaceNode(j.Was, j.Node, func(err error) { got <- err })
	select {
	case err := <-got:
		if err != nil {
			return refuseJoin("%v", err), nil
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	a.mu.Lock()
	if a.table != nil {
		a.table.Forget(old.ID)
	}
	a.mu.Unlock()
	a.o.Logger.Warn("a member came back with an empty disk", "node", old.Name, "was", fmt.Sprintf("%016x", old.ID), "is", fmt.Sprintf("%016x", j.Node.ID))
	return a.welcome(), nil
}

func (a *Agent) welcome() []byte {
	v := a.o.Meta.View()
	return JoinAnswer{Attempt: a.o.Identity.Attempt, Members: v.Nodes, Shards: len(v.Shards)}.encode()
}
