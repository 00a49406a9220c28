package cluster

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-io/tidings/internal/meta"
)

type handler func(ctx context.Context, from string, m Method, request []byte) ([]byte, error)

// network carries calls in this process.
type network struct {
	mu    sync.Mutex
	nodes map[string]handler // by address
}

func newNetwork() *network { return &network{nodes: make(map[string]handler)} }

func (n *network) listen(addr string, h handler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[addr] = h
}

// of is the network as a node of that name sees it.
func (n *network) of(name string) Network { return link{n, name} }

type link struct {
	*network
	from string
}

func (l link) Call(ctx context.Context, to Peer, m Method, request []byte) ([]byte, error) {
	l.mu.Lock()
	h := l.nodes[to.Addr]
	l.mu.Unlock()
	if h == nil {
		return nil, errors.New("connection refused")
	}
	return h(ctx, l.from, m, request)
}

func seedsOf(nodes []meta.Node) (seeds []Peer) {
	for _, n := range nodes {
		seeds = append(seeds, Peer{Addr: n.Addr})
	}
	return seeds
}

// formNode runs the forming of one node; its disk ends up in disk.
func formNode(ctx context.Context, t *testing.T, net *network, n meta.Node, seeds []Peer, disk *Identity) *Forming {
	t.Helper()
	if disk.RaftID == 0 {
		*disk = Identity{Name: n.Name, RaftID: n.ID}
	}
	former, err := NewFormer(FormerOptions{Identity: *disk, Self: n, Seeds: seeds})
	if err != nil {
		t.Fatal(err)
	}
	f := NewForming(FormingOptions{
		Former: former, Network: net.of(n.Name), Save: func(id Identity) error { *disk = id; return nil },
	})
	net.listen(n.Addr, f.Serve)
	go func() {
		if _, err := f.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	return f
}

func TestThreeNodesForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		net, nodes := newNetwork(), testNodes()
		seeds := seedsOf(nodes)
		seeds[2].Name = "c"
		disks := make([]Identity, 3)
		first := formNode(ctx, t, net, nodes[0], seeds, &disks[0])
		formNode(ctx, t, net, nodes[1], seeds, &disks[1])
		time.Sleep(time.Second)
		synctest.Wait()
		s := first.Status()
		if s.Healthy || s.Stage != "empty" || s.Waits != "waiting for seed c (10.0.0.3:4160): connection refused" {
			t.Errorf("status %+v", s)
		}
		formNode(ctx, t, net, nodes[2], seeds, &disks[2])
		time.Sleep(time.Second)
		synctest.Wait()
		for i, d := range disks {
			if d.Stage != Formed || d.Cluster != disks[0].Cluster || d.Attempt != disks[0].Attempt || d.Founding().Check() != nil {
				t.Errorf("disk %d: %+v", i, d)
			}
		}
		if f := disks[0].Founding(); len(f.Voters) != 9 || len(f.Nodes) != 3 || f.Nodes[0].TCP != nodes[0].TCP {
			t.Errorf("founding %+v", f)
		}
	})
}

// A write that fails ends the forming: the node must not answer as if it had
// been made.
func TestFormingStopsWhenAWriteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, n := newNetwork(), testNodes()[0]
		former, err := NewFormer(FormerOptions{
			Identity: Identity{Name: n.Name, RaftID: n.ID}, Self: n, Seeds: []Peer{{Addr: n.Addr}},
		})
		if err != nil {
			t.Fatal(err)
		}
		broken := errors.New("disk full")
		f := NewForming(FormingOptions{Former: former, Network: net.of(n.Name), Save: func(Identity) error { return broken }})
		net.listen(n.Addr, f.Serve)
		if id, err := f.Run(context.Background()); !errors.Is(err, broken) || id.Stage != Empty {
			t.Errorf("%+v, %v", id, err)
		}
		if _, err := f.Serve(context.Background(), "b", MethodHello, Hello{}.encode()); !errors.Is(err, ErrMethod) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestWhyFormingWaits(t *testing.T) {
	nodes := testNodes()
	for name, c := range map[string]struct {
		change func(i int, a *HelloAnswer)
		want   string
	}{
		"other seeds": {func(i int, a *HelloAnswer) {
			if i == 1 {
				a.Seeds = []string{"x:1"}
			}
		}, "waiting for seed b (10.0.0.2:4160): its seeds are x:1, this node's are 10.0.0.1:4160,10.0.0.2:4160,10.0.0.3:4160"},
		"one twice": {func(i int, a *HelloAnswer) {
			if i == 2 {
				a.Node = nodes[1]
			}
		}, "waiting for seeds 10.0.0.2:4160 and 10.0.0.3:4160 to be two nodes: both answer as b"},
		"not me": {func(i int, a *HelloAnswer) {
			if i == 0 {
				a.Node.ID = 99
			}
		}, "waiting: none of the seeds 10.0.0.1:4160,10.0.0.2:4160,10.0.0.3:4160 leads to this node, a"},
		"two clusters": {func(i int, a *HelloAnswer) {
			if i > 0 {
				a.Stage, a.Cluster = Accepted, string("0a"[i-1])+testCluster[1:]
			}
		}, "waiting for seed b (10.0.0.2:4160): it has accepted the cluster 0123456789abcdef0123456789abcdef, another has not"},
		"foreign cluster": {func(i int, a *HelloAnswer) {
			if i == 1 {
				a.Stage, a.Cluster, a.Members = Formed, testCluster, nodes[1:2]
			}
		}, "seed b (10.0.0.2:4160) belongs to the cluster 0123456789abcdef0123456789abcdef, which has no member a: adding nodes is not supported yet"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := NewFormer(FormerOptions{Identity: Identity{Name: "a", RaftID: 11}, Self: nodes[0], Seeds: seedsOf(nodes)})
			if err != nil {
				t.Fatal(err)
			}
			for i, call := range f.Tick(0).Calls {
				a := HelloAnswer{Node: nodes[i], Seeds: addresses(seedsOf(nodes))}
				c.change(i, &a)
				f.Answered(1, call.ID, a.encode(), nil)
			}
			if got := f.Status()[0]; got != c.want {
				t.Errorf("it says %q\nwant    %q", got, c.want)
			}
		})
	}
}

// hear answers all calls of a step, each as its seed would.
func hear(f *Former, out Output, answer func(i int) HelloAnswer) Output {
	for i, c := range out.Calls {
		next := f.Answered(1, c.ID, answer(i).encode(), nil)
		if len(next.Calls) > 0 || next.Write != nil {
			return next
		}
	}
	return Output{}
}

// Whoever decides has heard the same twice: a disk that is lost between the two
// rounds may have told others what it knew.
func TestSecondRoundMustBringTheSame(t *testing.T) {
	nodes := testNodes()
	answer := func(i int) HelloAnswer {
		return HelloAnswer{Node: nodes[i], Seeds: addresses(seedsOf(nodes)), Ticket: Ticket{uint64(i), 1}}
	}
	for name, change := range map[string]func(a *HelloAnswer){
		"nothing":  func(*HelloAnswer) {},
		"disk":     func(a *HelloAnswer) { a.Node.ID = 99 },
		"accepted": func(a *HelloAnswer) { a.Stage, a.Cluster = Accepted, testCluster },
	} {
		f, err := NewFormer(FormerOptions{Identity: Identity{Name: "a", RaftID: 11}, Self: nodes[0], Seeds: seedsOf(nodes)})
		if err != nil {
			t.Fatal(err)
		}
		prepare := hear(f, f.Tick(0), answer)
		if h, err := decodeHello(prepare.Calls[0].Request); err != nil || !h.Prepare {
			t.Fatalf("the second round asks %+v, %v", h, err)
		}
		out := hear(f, prepare, func(i int) HelloAnswer {
			a := answer(i)
			if i == 2 {
				change(&a)
			}
			return a
		})
		if decided := out.Write != nil; decided != (name == "nothing") {
			t.Errorf("%s changed, and it decided: %v; %s", name, decided, f.Status())
		}
	}
}

// A ticket is good for the last one that asked under that name, in this process.
func TestTickets(t *testing.T) {
	nodes := testNodes()
	start := func() *Former {
		f, err := NewFormer(FormerOptions{Identity: Identity{Name: "b", RaftID: 12}, Self: nodes[1], Seeds: seedsOf(nodes)})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	ticket := func(f *Former, from string) Ticket {
		out, err := f.Serve(0, from, MethodHello, Hello{RaftID: 1, Prepare: true}.encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := decodeHelloAnswer(out.Reply)
		if err != nil {
			t.Fatal(err)
		}
		return a.Ticket
	}
	form := func(f *Former, from string, k Ticket) bool {
		m := Form{Ticket: k, Cluster: testCluster, Attempt: Attempt{1, 5}, Members: nodes, Voters: meta.Layout(nodes, 2, 3)}
		out, err := f.Serve(0, from, MethodForm, m.encode(), nil)
		return err == nil && out.Write != nil && out.Reply == nil
	}
	f := start()
	old := ticket(f, "a")
	k := ticket(f, "a")
	other := ticket(f, "c")
	if form(f, "a", Ticket{}) || form(f, "a", old) || form(f, "a", other) || form(f, "c", other) {
		t.Error("a Form with a bad ticket, or of another than the first, was accepted")
	}
	if form(start(), "a", k) {
		t.Error("a ticket outlived its process")
	}
	if !form(f, "a", k) {
		t.Error("a Form with a good ticket was refused")
	}
	if _, err := f.Serve(0, "a", MethodHello, Hello{}.encode(), nil); !errors.Is(err, ErrBusy) {
		t.Errorf("served while a write is under way: %v", err)
	}
	f.Saved(0)
	if f.Identity().Stage != Accepted {
		t.Errorf("it is %s", f.Identity().Stage)
	}
}
