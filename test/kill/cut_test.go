//go:build linux

package kill

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// cutRig is an edge before a cluster of three nodes.
type cutRig struct {
	*edgeRig
	nodes []*node
	ways  []*way // to each node
}

func newCutRig(t *testing.T) *cutRig {
	t.Helper()
	r := &cutRig{edgeRig: newOutcomes(t), nodes: newTeam(t, plainBinary(t), ownAddresses(t, 3))}
	for range r.nodes {
		r.ways = append(r.ways, newWay(t))
	}
	r.node = r.nodes[0]
	r.edge = newEdge(r.node.Bin, dataDir(t), r.ways...)
	endWith(t, append(r.nodes, r.edge)...)
	return r
}

// newOutcomes is a rig of which the nodes are yet to be said.
func newOutcomes(t *testing.T) *edgeRig {
	return &edgeRig{t: t, sent: make(map[string]int), acked: make(map[string]bool)}
}

// newTeam describes the nodes of one cluster, who reach each other at three addresses.
func newTeam(t *testing.T, bin string, addrs []string) (nodes []*node) {
	t.Helper()
	dir := dataDir(t)
	names := []string{"a", "b", "c"}
	certs := filepath.Join(dir, "certs")
	if out, code := rig.Command(t, bin, append([]string{"cluster", "cert", "--dir", certs}, names...)...); code != 0 {
		t.Fatalf("cluster cert: %s", out)
	}
	var seeds []string
	for i, name := range names {
		seeds = append(seeds, name+"="+addrs[i])
	}
	for i, name := range names {
		nodes = append(nodes, newNode(bin, filepath.Join(dir, name),
			"--node", name, "--seeds", strings.Join(seeds, ","), "--cluster-address", addrs[i], "--data-shards", "2",
			"--cluster-ca", filepath.Join(certs, "ca.crt"),
			"--cluster-cert", filepath.Join(certs, name+".crt"), "--cluster-key", filepath.Join(certs, name+".key")))
	}
	return nodes
}

// endWith ends processes with the test.
func endWith(t *testing.T, nodes ...*node) {
	t.Cleanup(func() {
		for _, n := range nodes {
			if n.Cmd != nil {
				n.Kill()
			}
			if t.Failed() && n.Log != nil {
				t.Logf("last lines of %s:\n%s", n.Dir, n.Log.Tail(20))
			}
		}
	})
}

// ownAddresses are free addresses that are known before anybody listens there: on a
// host of the loopback network that no other process takes ports of.
func ownAddresses(t *testing.T, n int) []string {
	t.Helper()
	host := net.IPv4(127, 64|byte(os.Getpid()>>16), byte(os.Getpid()>>8), byte(os.Getpid()))
	var addrs []string
	var held []net.Listener
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(host.String(), "0"))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l) // until all are there, so that they are different
		addrs = append(addrs, l.Addr().String())
	}
	for _, l := range held {
		l.Close()
	}
	return addrs
}

// startAll starts nodes of a cluster at once: one alone serves nothing.
func startAll(t *testing.T, nodes ...*node) {
	t.Helper()
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { errs[i] = n.Start() })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (r *cutRig) cut() {
	for _, w := range r.ways {
		w.lead("")
	}
}

func (r *cutRig) mend() {
	for i, w := range r.ways {
		w.lead(r.nodes[i].Addrs.HTTP)
	}
}

// cutFor is how long the edge is cut off.
func cutFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("EDGE_CUT")
	if text == "" {
		return 2 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("EDGE_CUT: %v", err)
	}
	return d
}

// TestEdgeCutOff: an edge is cut off for long while publishers run, is killed in the
// middle, twice, and the cluster is wholly down in the second half. Nobody is refused,
// and each message comes once and in order.
func TestEdgeCutOff(t *testing.T) {
	lasts := cutFor(t)
	r := newCutRig(t)
	r.pause = 2 * time.Millisecond
	startAll(t, r.nodes...)
	r.mend()
	r.startEdge()
	ctx, cancel := context.WithCancel(t.Context())
	var publishers sync.WaitGroup
	for i := range 3 {
		publishers.Go(func() { r.publish(ctx, fmt.Sprintf("p%d", i)) })
	}
	defer publishers.Wait()
	defer cancel()
	r.await("forwarded", func(s edgeSpool) bool { return s.Forwarded > 0 })

	r.cut()
	quarter := func() { time.Sleep(lasts / 4) } // the time is what the test is about
	quarter()
	r.killEdge()
	r.startEdge()
	quarter()
	for _, n := range r.nodes {
		n.Kill()
	}
	quarter()
	r.killEdge()
	r.startEdge()
	quarter()
	var deepest int64
	r.await("spooled", func(s edgeSpool) bool { deepest = s.Depth; return deepest > 0 })
	startAll(t, r.nodes...)
	r.mend()
	mended := time.Now()
	r.await("forwarded after the cut", func(s edgeSpool) bool { return s.Forwarded > 0 })
	cancel()
	publishers.Wait()
	r.forwarded()
	problems := r.compare(r.drainTeam(r.nodes))
	for _, p := range append(problems[:min(len(problems), 10)], r.refused...) {
		t.Error(p)
	}
	fmt.Printf("note: edge cut off for %s: %d messages acknowledged, %d of them spooled at the end, all there after %.1f s; %d wrong, %d refused\n",
		lasts, len(r.acked), deepest, time.Since(mended).Seconds(), len(problems), len(r.refused))
}

// drainTeam consumes all that the cluster of some nodes has, through r.node.
func (r *edgeRig) drainTeam(nodes []*node) []string {
	r.t.Helper()
	r.node.createChannel(r.t, edgeTopic, "all")
	left := func() (left int64) { // each node tells of what it leads
		for _, n := range nodes {
			if c, err := n.Channel(edgeTopic, "all"); err != nil {
				return -1
			} else if c != nil {
				left += c.Unfinished()
			}
		}
		return left
	}
	return r.node.drainUntil(r.t, edgeTopic, "all", func(come func() int) {
		for had := -1; come() > had; { // what never comes is found missing afterwards
			had = come()
			_ = rig.Await(rig.Patience/4, func() (bool, error) {
				return come() >= len(r.acked) && left() == 0 || come() > had+100_000, nil
			})
			if come() >= len(r.acked) && left() == 0 {
				return
			}
		}
	})
}

type edgeSpool struct{ Depth, Forwarded int64 }

// await waits until the edge's spool is as it should be.
func (r *edgeRig) await(what string, good func(edgeSpool) bool) {
	r.t.Helper()
	rig.Eventually(r.t, "nothing is "+what, func() (bool, error) {
		var s struct{ Spool edgeSpool }
		err := r.edge.GetJSON("/stats?format=json", &s)
		return err == nil && good(s.Spool), err
	})
}
