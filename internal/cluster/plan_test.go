package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidings-io/tidings/internal/meta"
	"github.com/tidings-io/tidings/internal/shard"
)

// metadata is a machine that leads alone, driven by hand.
type metadata struct {
	t *testing.T
	*meta.Machine
	index uint64
}

func newMetadata(t *testing.T, nodes []meta.Node, self int, shards int) *metadata {
	t.Helper()
	m, err := meta.New(meta.Options{
		Node:     nodes[self],
		Founding: &meta.Founding{Cluster: testCluster, Nodes: nodes, Voters: meta.Layout(nodes, shards, 3)},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := &metadata{t: t, Machine: m, index: 1}
	m.Lead(1)
	d.run()
	return d
}

// run applies what waits.
func (d *metadata) run() {
	for {
		data, token := d.Drain(1, 0, 1<<20)
		if data == nil {
			d.Tick(0)
			return
		}
		d.index++
		if err := d.Apply(shard.Entry{Index: d.index, Term: 1, Data: slices.Clone(data)}, token); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *metadata) replace(was uint64, n meta.Node) {
	d.t.Helper()
	d.ReplaceNode(was, n, func(err error) {
		if err != nil {
			d.t.Fatal(err)
		}
	})
	d.run()
}

func live(ids ...uint64) (list []Lease) {
	for _, id := range ids {
		list = append(list, Lease{RaftID: id, Boot: id, State: LeaseLive, Since: time.Hour, Calm: time.Hour})
	}
	return list
}

// lead is a group that node 11 leads with members 12 and 13, all caught up.
func lead(id uint32) Group {
	p := Progress{Match: 1000, Active: true}
	return Group{
		Shard: id, Leads: true, Leader: 11, Term: 2, Commit: 1000, Applied: 1000, Voters: []uint64{11, 12, 13},
		Progress: map[uint64]Progress{12: p, 13: p},
	}
}

// take does to a group what a change says.
func (g *Group) take(c Change) {
	drop := func(list []uint64) []uint64 {
		return slices.DeleteFunc(slices.Clone(list), func(id uint64) bool { return id == c.Node })
	}
	g.Voters, g.Learners = drop(g.Voters), drop(g.Learners)
	switch c.Kind {
	case AddLearner:
		g.Learners = append(g.Learners, c.Node)
	case Promote:
		g.Voters = append(g.Voters, c.Node)
	}
}

func TestNothingToChange(t *testing.T) {
	m := newMetadata(t, testNodes(), 0, 3)
	if c, ok, waits := NextChange(m.View(), live(11, 12), lead(1)); ok || waits != "" {
		t.Errorf("%+v, %s", c, waits)
	}
	m.replace(13, meta.Node{ID: 23, Name: "c"})
	follower := lead(1)
	follower.Leads = false
	if c, ok, waits := NextChange(m.View(), live(11, 12, 23), follower); ok || waits != "" {
		t.Errorf("a follower: %+v, %s", c, waits)
	}
}

// A replaced member leaves every group, and its new disk comes in as a learner
// that votes once it has caught up.
func TestReplacedMember(t *testing.T) {
	m := newMetadata(t, testNodes(), 0, 3)
	m.replace(13, meta.Node{ID: 23, Name: "c"})
	g := lead(2)
	step := func(leases []Lease, want Change, wait string) {
		t.Helper()
		c, ok, waits := NextChange(m.View(), leases, g)
		if want.Shard = 2; !ok {
			want.Shard = 0
		}
		if diff := cmp.Diff(want, c); diff != "" || !strings.Contains(waits, wait) || waits == "" != (wait == "") {
			t.Fatalf("%s (-want +got):\n%s", waits, diff)
		}
		if ok {
			g.take(c)
		}
	}
	g.Progress[12] = Progress{}
	step(live(11, 12), Change{}, "no majority answers without c (replaced)")
	g.Progress[12] = Progress{Match: 1000, Active: true}
	g.Changing = true
	step(live(11, 12), Change{}, "under way")
	g.Changing = false
	step(live(11, 12), Change{Kind: Remove, Node: 13}, "")
	step(live(11, 12), Change{}, "c is not live")
	step(live(11, 12, 23), Change{Kind: AddLearner, Node: 23}, "")
	step(live(11, 12, 23), Change{}, "c catches up, 0 of 1000")
	g.Progress[23] = Progress{Match: 900, Active: true, Installing: true}
	step(live(11, 12, 23), Change{}, "c catches up")
	g.Progress[23] = Progress{Match: 900, Active: true}
	step(live(11, 12, 23), Change{Kind: Promote, Node: 23}, "")
	step(live(11, 12, 23), Change{}, "")
	if !slices.Equal(g.Voters, []uint64{11, 12, 23}) || len(g.Learners) != 0 {
		t.Errorf("voters %v, learners %v", g.Voters, g.Learners)
	}
}

// It may be replaced again before it has come in.
func TestReplacedTwice(t *testing.T) {
	m := newMetadata(t, testNodes(), 0, 3)
	m.replace(13, meta.Node{ID: 23, Name: "c"})
	m.replace(23, meta.Node{ID: 33, Name: "c"})
	g := lead(1)
	g.Learners = []uint64{23}
	var kinds []string
	for range 5 {
		g.Progress[33] = Progress{Match: 1000, Active: true}
		c, ok, _ := NextChange(m.View(), live(11, 12, 33), g)
		if !ok {
			break
		}
		kinds = append(kinds, c.Kind.String())
		g.take(c)
	}
	if diff := cmp.Diff([]string{"remove", "remove", "add learner", "promote"}, kinds); diff != "" {
		t.Error(diff)
	}
	if !slices.Equal(g.Voters, []uint64{11, 12, 33}) || len(g.Learners) != 0 {
		t.Errorf("voters %v, learners %v", g.Voters, g.Learners)
	}
}

func TestLeadersSpread(t *testing.T) {
	m := newMetadata(t, testNodes(), 0, 3) // shard 1 is for 11, 2 for 12, 3 for 13, metadata for 11
	groups := func() []Group { return []Group{lead(0), lead(1), lead(2), lead(3)} }
	next := func(leases []Lease, list []Group, since time.Duration) Transfer {
		got, _ := NextTransfer(m.View(), leases, list, since, nil)
		return got
	}
	if got := next(live(11, 12, 13), groups(), time.Second); got != (Transfer{Shard: 2, To: 12}) {
		t.Errorf("first %+v", got)
	}
	if got := next(live(11, 12, 13), groups(), time.Second-1); got.To != 0 {
		t.Errorf("too early: %+v", got)
	}
	for name, change := range map[string]func(*Lease){
		"lapsed":       func(l *Lease) { l.State = LeaseLapsed },
		"just started": func(l *Lease) { l.Since = settled - 1 },
		"slow":         func(l *Lease) { l.Sync = StallSync },
		"stalled":      func(l *Lease) { l.Calm = calmAfter - 1 },
	} {
		leases := live(11, 12, 13)
		change(&leases[1])
		if got := next(leases, groups(), time.Minute); got != (Transfer{Shard: 3, To: 13}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for name, change := range map[string]func(*Group){
		"behind":     func(g *Group) { g.Progress[12] = Progress{Match: 900, Active: true} },
		"silent":     func(g *Group) { g.Progress[12] = Progress{Match: 1000} },
		"installing": func(g *Group) { g.Progress[12] = Progress{Match: 1000, Active: true, Installing: true} },
		"no voter":   func(g *Group) { g.Voters, g.Learners = []uint64{11, 13}, []uint64{12} },
		"changing":   func(g *Group) { g.Changing = true },
		"not led":    func(g *Group) { g.Leads = false },
	} {
		list := groups()
		change(&list[2])
		if got := next(live(11, 12, 13), list, time.Minute); got != (Transfer{Shard: 3, To: 13}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	list := groups()
	list[0].Transferring = true
	if got := next(live(11, 12, 13), list, time.Minute); got.To != 0 {
		t.Errorf("two at once: %+v", got)
	}
}

func TestStatus(t *testing.T) {
	m := newMetadata(t, testNodes(), 0, 3)
	at := func(leads bool, applied uint64) []Position {
		return []Position{
			{Shard: 0, Term: 2, Applied: 10, Commit: 10},
			{Shard: 1, Term: 2, Applied: applied, Commit: applied},
			{Shard: 2, Leads: leads, Term: 3, Applied: applied, Commit: applied},
		}
	}
	leases := live(11, 12)
	leases[0].Positions = at(false, 5) // older than the group's own
	leases[1].Positions = at(true, 700)
	leases = append(leases, Lease{RaftID: 13, Boot: 3, State: LeaseLapsed, Age: 7 * time.Second})
	follower := lead(2)
	follower.Leads, follower.Applied = false, 690
	s := Build(m.Node(), m.View(), leases, []Group{lead(0), lead(1), follower}, []string{"a note"})
	if s.Healthy || s.Cluster != testCluster || s.Node != "a" || s.Feature != meta.FeatureLevel || len(s.Shards) != 4 {
		t.Errorf("status %+v", s)
	}
	want := []string{"shard 3 has no leader", "node c has not been heard of for 7s", "a note"}
	if diff := cmp.Diff(want, s.Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	two := s.Shards[2]
	if two.Leader != "b" || two.Preferred != "b" || two.Term != 3 || two.Commit != 1000 {
		t.Errorf("shard 2: %+v", two)
	}
	roles := []ReplicaStatus{
		{Node: "b", Role: "voter", Applied: 700, Lag: 300, Live: true},
		{Node: "c", Role: "voter", Lag: 1000},
		{Node: "a", Role: "voter", Applied: 690, Lag: 310, Live: true},
	}
	if diff := cmp.Diff(roles, two.Replicas); diff != "" {
		t.Errorf("replicas (-want +got):\n%s", diff)
	}
	if a := s.Nodes[0]; a.Leads != 2 || a.Replicas != 4 || !a.Self || a.Lease != "live" || a.RaftID != "000000000000000b" {
		t.Errorf("node %+v", a)
	}
	m.replace(13, meta.Node{ID: 23, Name: "c"})
	s = Build(m.Node(), m.View(), leases, nil, nil)
	if gone := s.Nodes[3]; gone.State != "gone" || gone.Lease != "" || gone.RenewedMs != -1 {
		t.Errorf("node %+v", gone)
	}
	if s := Build(m.Node(), &meta.View{}, nil, nil, nil); s.Healthy || s.Waits == "" {
		t.Errorf("without metadata: %+v", s)
	}
}

// How far a replica has come with the state of its group is seen on every node:
// where it is from the group itself, elsewhere from its last renewal.
func TestCatchUpInStatus(t *testing.T) {
	m := newMetadata(t, testNodes(), 0, 3)
	here := lead(1)
	here.Leads, here.CatchUp = false, &CatchUp{Stage: "receive", Bytes: 300e6, Total: 1e9, Since: 5 * time.Second}
	leases := live(11, 12, 13)
	leases[2].Positions = []Position{{Shard: 2, Session: Session{Stage: "install", Bytes: 10, Total: 9, Rate: 2}}}
	s := Build(m.Node(), m.View(), leases, []Group{lead(0), here, lead(2), lead(3)}, nil)
	got := map[string]*CatchUpStatus{}
	for _, sh := range s.Shards {
		for _, r := range sh.Replicas {
			if r.CatchUp != nil {
				got[fmt.Sprint(sh.ID, r.Node)] = r.CatchUp
			}
		}
	}
	want := map[string]*CatchUpStatus{
		"1a": {Stage: "receive", Bytes: 300e6, Total: 1e9, Rate: 60e6},
		"2c": {Stage: "install", Bytes: 10, Total: 9, Rate: 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	notes := []string{"shard 1: a catches up, 300 of 1000 MB at 60.0 MB/s", "shard 2: c catches up, install"}
	for _, n := range notes {
		if !slices.Contains(s.Notes, n) {
			t.Errorf("notes %q lack %q", s.Notes, n)
		}
	}
	leases[2].State = LeaseLapsed // what it last said means nothing any more
	s = Build(m.Node(), m.View(), leases, []Group{lead(0), lead(1), lead(2), lead(3)}, nil)
	for _, sh := range s.Shards {
		for _, r := range sh.Replicas {
			if r.CatchUp != nil {
				t.Errorf("shard %d: %+v", sh.ID, r)
			}
		}
	}
}
