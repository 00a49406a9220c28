//go:build linux

package kill

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidings-io/tidings/test/rig"
)

// way is the way from an edge to a node: it stays while the node comes and goes, and
// can be cut.
type way struct {
	listener net.Listener

	mu    sync.Mutex
	to    string // empty: cut
	conns map[net.Conn]bool
}

func newWay(t *testing.T) *way {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{listener: l, conns: make(map[net.Conn]bool)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { w.carry(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.lead("")
		serving.Wait()
	})
	return w
}

// lead lets the way lead elsewhere, and cuts the connections of before.
func (w *way) lead(to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = to
	for c := range w.conns {
		c.Close()
	}
	clear(w.conns)
}

func (w *way) carry(c net.Conn) {
	defer c.Close()
	w.mu.Lock()
	to := w.to
	w.mu.Unlock()
	if to == "" {
		return
	}
	far, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	w.mu.Lock()
	still := w.to == to
	if still {
		w.conns[c], w.conns[far] = true, true
	}
	w.mu.Unlock()
	if !still {
		return
	}
	go func() {
		io.Copy(far, c)
		far.Close()
	}()
	io.Copy(c, far)
}

// edgeRig is a node, an edge, and publishers at the edge.
type edgeRig struct {
	t          *testing.T
	rng        *rand.Rand
	node, edge *node
	way        *way
	pause      time.Duration // of a publisher behind each message

	mu      sync.Mutex
	address string         // of the edge's publishers; empty while it is down
	sent    map[string]int // by publisher
	acked   map[string]bool
	refused []string
}

const edgeTopic = "orders"

func newEdgeRig(t *testing.T, edgeBin string, env ...string) *edgeRig {
	t.Helper()
	r := &edgeRig{
		t: t, rng: rand.New(rand.NewPCG(rand.Uint64(), 1)), way: newWay(t),
		node: newNode(plainBinary(t), dataDir(t)), sent: make(map[string]int), acked: make(map[string]bool),
	}
	r.edge = newEdge(edgeBin, dataDir(t), r.way)
	r.edge.Env = env
	t.Cleanup(func() {
		r.edge.Kill()
		r.node.Kill()
		if t.Failed() {
			t.Logf("last lines of the edge:\n%s\nand of the node:\n%s", r.edge.Log.Tail(20), r.node.Log.Tail(20))
		}
	})
	return r
}

// newEdge describes an edge on dir whose cluster is at the end of the ways.
func newEdge(bin, dir string, ways ...*way) *node {
	upstream := "127.0.0.1:1"
	for _, w := range ways {
		upstream += "," + w.listener.Addr().String()
	}
	n := &node{rig.NewNode(bin, dir)}
	n.Args = []string{
		"edge", "--data-path", filepath.Join(dir, "edge"), "--upstream", upstream,
		"--tcp-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0", "--spool-size", "1GiB",
	}
	return n
}

func (r *edgeRig) at(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.address = address
}

func (r *edgeRig) startNode() {
	r.t.Helper()
	if err := r.node.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.way.lead(r.node.Addrs.HTTP)
}

func (r *edgeRig) startEdge() {
	r.t.Helper()
	if err := r.edge.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.at(r.edge.Addrs.TCP)
}

func (r *edgeRig) killEdge() {
	r.at("")
	r.edge.Kill()
}

// publish publishes numbered messages until ctx ends. What the edge was killed over is
// not sent again: its outcome is unknown.
func (r *edgeRig) publish(ctx context.Context, who string) {
	for ctx.Err() == nil {
		r.mu.Lock()
		address := r.address
		r.mu.Unlock()
		c, err := rig.Dial(address, who, 0)
		if address == "" || err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		for ctx.Err() == nil && r.publishOne(c, address, who) {
			time.Sleep(r.pause)
		}
		c.Close()
	}
}

func (r *edgeRig) publishOne(c *rig.Wire, address, who string) bool {
	r.mu.Lock()
	r.sent[who]++
	body := fmt.Sprintf("%s/%d", who, r.sent[who])
	r.mu.Unlock()
	err := c.Publish(edgeTopic, []byte(body))
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.acked[body] = true
	} else if strings.Contains(err.Error(), "E_") && r.address == address {
		r.refused = append(r.refused, err.Error())
	}
	return err == nil
}

// round lets things run, and kills or cuts something.
func (r *edgeRig) round(i int) {
	time.Sleep(time.Duration(50+r.rng.IntN(250)) * time.Millisecond) // the moment is what a round is about
	switch i % 4 {
	case 0, 2:
		r.killEdge()
		r.startEdge()
	case 1:
		r.way.lead("")
		r.node.Kill()
		time.Sleep(time.Duration(r.rng.IntN(300)) * time.Millisecond)
		r.killEdge()
		r.startEdge()
		r.startNode()
	case 3:
		r.way.lead("")
		time.Sleep(time.Duration(r.rng.IntN(300)) * time.Millisecond)
		r.way.lead(r.node.Addrs.HTTP)
	}
}

// load publishes while rounds pass, or until one of them says that it is enough.
func (r *edgeRig) load(rounds int, enough func() bool) {
	r.t.Helper()
	r.startEdge() // before there is any node
	ctx, cancel := context.WithCancel(r.t.Context())
	var publishers sync.WaitGroup
	for i := range 3 {
		publishers.Go(func() { r.publish(ctx, fmt.Sprintf("p%d", i)) })
	}
	defer publishers.Wait()
	defer cancel()
	time.Sleep(100 * time.Millisecond) // of publishing without a node
	r.startNode()
	for i := range rounds {
		r.round(i)
		if enough() {
			return
		}
	}
}

// settle waits until all is at the node, and compares.
func (r *edgeRig) settle() (problems []string) {
	r.t.Helper()
	r.forwarded()
	r.node.createChannel(r.t, edgeTopic, "all")
	return r.compare(r.node.drain(r.t, edgeTopic, "all"))
}

// forwarded waits until the spool is empty.
func (r *edgeRig) forwarded() {
	r.t.Helper()
	for left := int64(-1); left != 0; {
		before := left
		rig.Eventually(r.t, "nothing leaves the spool", func() (bool, error) {
			var s struct{ Spool struct{ Depth int64 } }
			err := r.edge.GetJSON("/stats?format=json", &s)
			left = s.Spool.Depth
			return err == nil && (left == 0 || left != before), err
		})
	}
}

// compare says what is wrong with what has come.
func (r *edgeRig) compare(bodies []string) (problems []string) {
	seen, last := make(map[string]bool), make(map[string]int)
	for _, body := range bodies {
		who, number, _ := strings.Cut(body, "/")
		var n int
		if _, err := fmt.Sscan(number, &n); err != nil {
			r.t.Fatalf("message %q: %v", body, err)
		}
		if seen[body] {
			problems = append(problems, body+" is there twice")
		} else if n < last[who] {
			problems = append(problems, fmt.Sprintf("%s comes behind %d", body, last[who]))
		}
		seen[body], last[who] = true, max(last[who], n)
	}
	for body := range r.acked {
		if !seen[body] {
			problems = append(problems, body+" is lost")
		}
	}
	return problems
}

func (r *edgeRig) verdict(rounds int) {
	r.t.Helper()
	problems := r.settle()
	for _, p := range append(problems[:min(len(problems), 10)], r.refused...) {
		r.t.Error(p)
	}
	fmt.Printf("note: edge: %d rounds of kills and cuts, %d messages acknowledged, %d wrong, %d refused\n", rounds, len(r.acked), len(problems), len(r.refused))
}

const edgeRounds = 6

// TestEdgeKilled: the edge is killed, the node is killed, the way between them is cut,
// and was not there at first. Each message is at the node once, and in order.
func TestEdgeKilled(t *testing.T) {
	r := newEdgeRig(t, plainBinary(t))
	r.load(edgeRounds, func() bool { return false })
	r.verdict(edgeRounds)
}

// TestEdgeVolatile is the same with an edge whose files lose at the kill what was not
// synced.
func TestEdgeVolatile(t *testing.T) {
	r := newEdgeRig(t, faultsBinary(t), fmt.Sprintf("TIDINGS_VFS=volatile:%d", seed(t)))
	r.load(edgeRounds, func() bool { return false })
	r.verdict(edgeRounds)
}

// The test is worth nothing if it misses what an edge forwards twice.
func TestEdgeCatchesTwice(t *testing.T) {
	r := newEdgeRig(t, faultsBinary(t), "TIDINGS_PLANT=spool-twice")
	r.load(12, func() bool {
		// More messages than were sent is enough to know.
		s, err := r.node.Stats("&topic=" + edgeTopic)
		r.mu.Lock()
		defer r.mu.Unlock()
		sent := 0
		for _, n := range r.sent {
			sent += n
		}
		return err == nil && len(s.Topics) > 0 && s.Topics[0].Depth > int64(sent)
	})
	problems := r.settle()
	for _, p := range problems {
		if strings.HasSuffix(p, "twice") {
			return
		}
	}
	t.Errorf("nobody has seen that messages are forwarded twice; %d other problems", len(problems))
}
