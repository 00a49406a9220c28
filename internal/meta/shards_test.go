package meta

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/shard"
)

func nobody(uint64) bool { return false }

// five are the nodes of a cluster whose shards have three voters each.
func five() []Node {
	return append(three(), Node{ID: 14, Name: "d", Addr: "10.0.0.4:4160"}, Node{ID: 15, Name: "e", Addr: "10.0.0.5:4160"})
}

func TestAddShards(t *testing.T) {
	var grown [][]Shard
	l := newLoop(t, Options{
		Node: three()[0], Founding: &Founding{Cluster: "c1", Nodes: three(), Voters: Layout(three(), 2, 3)},
		Grow: func(shards []Shard) error {
			grown = append(grown, shards)
			return nil
		},
	})
	for i := range 4 { // so that both shards carry something
		l.create(fmt.Sprintf("t%d", i))
	}
	voters, err := l.m.View().Place(3, nobody)
	if err != nil {
		t.Fatal(err)
	}
	add := func(was int, voters [][]uint64) error {
		return l.wait(func(d func(error)) { l.m.AddShards(was, voters, d) })
	}
	for _, wrong := range []struct {
		was    int
		voters [][]uint64
	}{
		{1, voters}, {3, voters}, {2, [][]uint64{{11, 99}}}, {2, [][]uint64{{11, 11}}}, {2, slices.Repeat(voters, 100)},
	} {
		if err := add(wrong.was, wrong.voters); !errors.Is(err, fault.InvalidRequest) {
			t.Errorf("%d: %v", wrong.was, err)
		}
	}
	if err := add(2, voters); err != nil {
		t.Fatal(err)
	}
	v := l.m.View()
	if len(v.Shards) != 5 || len(grown) != 2 || len(grown[1]) != 5 {
		t.Fatalf("%d shards, %d times grown", len(v.Shards), len(grown))
	}
	preferred := make(map[uint64]int)
	for _, s := range v.Shards {
		preferred[s.Preferred()]++
		if added := s.ID > 2; added != (s.Began != nil) || len(s.Voters) != 3 {
			t.Errorf("shard %+v", s)
		}
	}
	if len(preferred) != 3 {
		t.Errorf("preferred leaders: %v", preferred)
	}
	for range 9 { // three each: the new ones are filled first
		l.create(fmt.Sprintf("u%d", l.index))
	}
	for _, s := range l.m.View().Shards {
		if s.Partitions < 2 || s.Partitions > 3 {
			t.Errorf("shard %d carries %d partitions", s.ID, s.Partitions)
		}
	}
	// The group's beginning stays what it was when a member is replaced.
	if err := l.wait(func(d func(error)) { l.m.ReplaceNode(12, Node{ID: 22, Name: "b"}, d) }); err != nil {
		t.Fatal(err)
	}
	v = l.m.View()
	if s := v.Shards[4]; slices.Contains(s.Voters, 12) || !slices.Equal(s.Began, voters[2]) {
		t.Errorf("shard %+v", s)
	}
	again, err := decodeView(v.encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(flatten(t, v), flatten(t, again)); diff != "" || !bytes.Equal(again.encode(), v.encode()) {
		t.Errorf("(-before +after):\n%s", diff)
	}
	replay := &View{}
	for _, e := range l.entries {
		if replay, _, err = replay.applyEntry(e.Index, e.Term, e.Data); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(flatten(t, v), flatten(t, replay)); diff != "" {
		t.Errorf("(-state +log):\n%s", diff)
	}
}

// A replica that cannot open what is added stops, and shows nobody what it cannot
// serve.
func TestShardsThatCannotBeOpened(t *testing.T) {
	full := errors.New("no room")
	l := newLoop(t, Options{Node: three()[0], Shards: 1})
	l.m.o.Grow = func([]Shard) error { return full }
	l.m.AddShards(1, [][]uint64{{11}}, nil)
	data, token := l.m.Drain(l.term, 1, 1<<20)
	if err := l.m.Apply(shard.Entry{Index: l.index + 1, Term: l.term, Data: data}, token); !errors.Is(err, full) || len(l.m.View().Shards) != 1 {
		t.Errorf("%v, %d shards", err, len(l.m.View().Shards))
	}
}

func TestPlace(t *testing.T) {
	v := newCluster(t, five(), 5, nil).m.View()
	voters, err := v.Place(10, nobody)
	if err != nil {
		t.Fatal(err)
	}
	carries, leads := make(map[uint64]int), make(map[uint64]int)
	for _, ids := range voters {
		leads[ids[0]]++
		for _, id := range ids {
			carries[id]++
		}
	}
	for _, n := range five() {
		if carries[n.ID] != 6 || leads[n.ID] < 1 || leads[n.ID] > 3 {
			t.Errorf("%s carries %d and is preferred by %d", n.Name, carries[n.ID], leads[n.ID])
		}
	}
	down := func(of ...uint64) func(uint64) bool { return func(id uint64) bool { return slices.Contains(of, id) } }
	if voters, err = v.Place(2, down(11, 12)); err != nil || slices.ContainsFunc(voters, func(ids []uint64) bool { return slices.Contains(ids, 11) || slices.Contains(ids, 12) }) {
		t.Errorf("%v, %v", voters, err)
	}
	if voters, err = v.Place(1, down(11, 12, 13)); err != nil || voters[0][0] != 14 && voters[0][0] != 15 {
		t.Errorf("%v, %v", voters, err)
	}
	if _, err = v.Place(1, down(11, 12, 13, 14)); !errors.Is(err, fault.Unreachable) {
		t.Errorf("one of three is up: %v", err)
	}
	for _, n := range []int{0, -1, MaxDataShards - 4} {
		if _, err = v.Place(n, nobody); !errors.Is(err, fault.InvalidRequest) {
			t.Errorf("%d: %v", n, err)
		}
	}
	if _, err = (&View{}).Place(1, nobody); !errors.Is(err, fault.NotLeader) {
		t.Errorf("an unformed cluster: %v", err)
	}
}
