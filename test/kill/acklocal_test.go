//go:build linux

package kill

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"
)

// localRig is a cluster of three nodes, of which the last is what the edge of an edgeRig
// is: publishers are at that node, and it acknowledges alone what it takes.
type localRig struct {
	*edgeRig
	others []*node
}

// newLocalRig starts the cluster; bin and env are those of the node with the publishers.
func newLocalRig(t *testing.T, addrs []string, bin string, env ...string) *localRig {
	t.Helper()
	nodes := newTeam(t, plainBinary(t), addrs)
	r := &localRig{edgeRig: newOutcomes(t), others: nodes[:2]}
	r.rng = rand.New(rand.NewPCG(rand.Uint64(), 1))
	r.pause = time.Millisecond
	r.node, r.edge = nodes[0], nodes[2]
	r.edge.Bin, r.edge.Env = bin, env
	endWith(t, nodes...)
	startAll(t, nodes...)
	r.edge.MustPost(t, "/topic/create?ack=local&topic="+edgeTopic, nil)
	r.at(r.edge.Addrs.TCP)
	return r
}

// freeze cuts the other nodes off: they neither answer nor close what they have open,
// and go on with it later, also with what a life of the node that is over had sent.
func (r *localRig) freeze() { r.signal(syscall.SIGSTOP) }
func (r *localRig) thaw()   { r.signal(syscall.SIGCONT) }

func (r *localRig) signal(s syscall.Signal) {
	r.t.Helper()
	for _, n := range r.others {
		if err := n.Cmd.Process.Signal(s); err != nil {
			r.t.Fatal(err)
		}
	}
}

// spooled waits until so many messages more are acknowledged.
func (r *localRig) spooled(more int) {
	r.t.Helper()
	acked := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.acked)
	}
	want := acked() + more
	r.await("acknowledged", func(edgeSpool) bool { return acked() >= want })
}

// moment waits for the moment of a kill, which is what the test is about.
func (r *localRig) moment() { time.Sleep(time.Duration(r.rng.IntN(100)) * time.Millisecond) }

// run kills the node with the publishers while the others are there, while they are cut
// off, and while they are down.
func (r *localRig) run() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	var publishers sync.WaitGroup
	for i := range 3 {
		publishers.Go(func() { r.publish(ctx, fmt.Sprintf("p%d", i)) })
	}
	defer publishers.Wait()
	defer cancel()

	r.spooled(100)
	r.moment()
	r.killEdge()
	r.startEdge()

	r.spooled(10)
	r.freeze()
	r.spooled(100)
	r.moment()
	r.killEdge()
	r.thaw()
	r.startEdge()

	r.spooled(10)
	for _, n := range r.others {
		n.Kill()
	}
	r.spooled(100)
	r.moment()
	r.killEdge()
	startAll(r.t, append(r.others, r.edge)...)
	r.at(r.edge.Addrs.TCP)
	r.spooled(100)
}

// verdict waits until the spool is empty, and compares.
func (r *localRig) verdict(name string) {
	r.t.Helper()
	r.forwarded()
	problems := r.compare(r.drainTeam(append(r.others, r.edge)))
	for _, p := range append(problems[:min(len(problems), 10)], r.refused...) {
		r.t.Error(p)
	}
	fmt.Printf("note: %s: 3 kills, %d messages acknowledged, %d wrong, %d refused\n", name, len(r.acked), len(problems), len(r.refused))
}

// TestAckLocalKilled: a node that acknowledges alone is killed, also while the rest of
// its cluster is cut off or down. Nobody is refused, and each message that was
// acknowledged is there once and in order; also with files that lose at the kill what
// was not synced.
func TestAckLocalKilled(t *testing.T) {
	addrs := ownAddresses(t, 6) // at once, so that none is given twice
	t.Run("files", func(t *testing.T) {
		t.Parallel()
		r := newLocalRig(t, addrs[:3], plainBinary(t))
		r.run()
		r.verdict("ack local")
	})
	t.Run("volatile files", func(t *testing.T) {
		t.Parallel()
		r := newLocalRig(t, addrs[3:], faultsBinary(t), fmt.Sprintf("TIDINGS_VFS=volatile:%d", seed(t)))
		r.run()
		r.verdict("ack local, volatile files")
	})
}
