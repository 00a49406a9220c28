package meta

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/shard"
	"pgregory.net/rapid"
)

// loop drives a machine as its group would, without a log.
type loop struct {
	t       testing.TB
	m       *Machine
	index   uint64
	term    uint64
	entries []shard.Entry
}

func newLoop(t testing.TB, o Options) *loop {
	t.Helper()
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(1, nil); err != nil {
		t.Fatal(err)
	}
	l := &loop{t: t, m: m, index: 1, term: 1}
	m.Lead(l.term)
	l.run()
	return l
}

// run applies all that waits and returns in how many entries it came.
func (l *loop) run() int {
	l.t.Helper()
	for n := 0; ; n++ {
		data, token := l.m.Drain(l.term, int64(l.index)*1e9, 1<<20)
		if data == nil {
			return n
		}
		l.index++
		e := shard.Entry{Index: l.index, Term: l.term, Data: slices.Clone(data)}
		l.entries = append(l.entries, e)
		if err := l.m.Apply(e, token); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *loop) create(name string) *Topic {
	l.t.Helper()
	var got *Topic
	l.m.CreateTopic(name, func(t *Topic, err error) {
		if err != nil {
			l.t.Fatalf("create %s: %v", name, err)
		}
		got = t
	})
	l.run()
	return got
}

func (l *loop) channel(topic uint64, name string) *Channel {
	l.t.Helper()
	var got *Channel
	l.m.CreateChannel(topic, name, func(c *Channel, err error) {
		if err != nil {
			l.t.Fatalf("create channel %s: %v", name, err)
		}
		got = c
	})
	l.run()
	return got
}

// wait returns the error with which a request is answered.
func (l *loop) wait(ask func(done func(error))) error {
	l.t.Helper()
	var got error
	answered := false
	ask(func(err error) { got, answered = err, true })
	l.run()
	if !answered {
		l.t.Fatal("not answered")
	}
	return got
}

func TestCreateFindsWhatExists(t *testing.T) {
	l := newLoop(t, Options{Node: Node{ID: 7, Name: "one"}})
	if v := l.m.View(); !v.Formed() || len(v.Cluster) != 32 || len(v.Shards) != 8 || v.Nodes[0].ID != 7 {
		t.Fatalf("cluster is not formed: %+v", v)
	}
	a := l.create("orders")
	if b := l.create("orders"); b != a {
		t.Errorf("the second creation made %+v, the first %+v", b, a)
	}
	c := l.channel(a.ID, "archive")
	if again := l.channel(a.ID, "archive"); again != c {
		t.Error("the channel was made twice")
	}
	got, ok := l.m.View().Topic("orders")
	if !ok || got.ID != a.ID || got.Seed == 0 {
		t.Errorf("found %+v", got)
	}
	if ch, ok := got.Channel("archive"); !ok || ch != c {
		t.Errorf("found channel %+v", ch)
	}
	if byID, ok := l.m.View().TopicID(a.ID); !ok || byID != got {
		t.Error("the two tables differ")
	}
}

func TestPartitionsGoRound(t *testing.T) {
	l := newLoop(t, Options{})
	seen := make(map[uint32]int)
	for i := range 24 {
		seen[l.create(fmt.Sprintf("t%d", i)).Partitions[0]]++
	}
	for id := uint32(1); id <= 8; id++ {
		if seen[id] != 3 {
			t.Errorf("shard %d carries %d partitions of 24", id, seen[id])
		}
	}
	gone, _ := l.m.View().Topic("t5")
	l.m.FinishDeleteTopic(gone.ID, nil)
	l.run()
	if next := l.create("next"); next.Partitions[0] != gone.Partitions[0] {
		t.Errorf("new partition on shard %d, the least used is %d", next.Partitions[0], gone.Partitions[0])
	}
}

func TestDeletion(t *testing.T) {
	l := newLoop(t, Options{})
	topic := l.create("orders")
	ch := l.channel(topic.ID, "archive")

	must := func(err error, want error) {
		t.Helper()
		if !errors.Is(err, want) && (err != nil || want != nil) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	must(l.wait(func(d func(error)) { l.m.DeleteChannel(topic.ID, ch.ID, d) }), nil)
	must(l.wait(func(d func(error)) {
		l.m.CreateChannel(topic.ID, "archive", func(_ *Channel, err error) { d(err) })
	}), fault.Deleting)
	must(l.wait(func(d func(error)) { l.m.FinishDeleteChannel(topic.ID, ch.ID, d) }), nil)
	must(l.wait(func(d func(error)) { l.m.FinishDeleteChannel(topic.ID, ch.ID, d) }), nil)
	must(l.wait(func(d func(error)) { l.m.PauseChannel(topic.ID, ch.ID, true, d) }), fault.ChannelNotFound)
	if again := l.channel(topic.ID, "archive"); again.ID == ch.ID {
		t.Error("a channel id was used twice")
	}

	must(l.wait(func(d func(error)) { l.m.DeleteTopic(topic.ID, d) }), nil)
	must(l.wait(func(d func(error)) { l.m.CreateTopic("orders", func(_ *Topic, err error) { d(err) }) }), fault.Deleting)
	must(l.wait(func(d func(error)) {
		l.m.CreateChannel(topic.ID, "more", func(_ *Channel, err error) { d(err) })
	}), fault.Deleting)
	must(l.wait(func(d func(error)) { l.m.FinishDeleteTopic(topic.ID, d) }), nil)
	must(l.wait(func(d func(error)) { l.m.FinishDeleteTopic(topic.ID, d) }), nil)
	must(l.wait(func(d func(error)) { l.m.PauseTopic(topic.ID, true, d) }), fault.TopicNotFound)
	if again := l.create("orders"); again.ID == topic.ID || again.Seed == topic.Seed {
		t.Errorf("the new incarnation %+v shares with the old %+v", again, topic)
	}
}

func TestPause(t *testing.T) {
	l := newLoop(t, Options{})
	topic := l.create("orders")
	ch := l.channel(topic.ID, "archive")
	for _, paused := range []bool{true, true, false} {
		l.m.PauseTopic(topic.ID, paused, nil)
		l.m.PauseChannel(topic.ID, ch.ID, paused, nil)
		l.run()
		now, _ := l.m.View().Topic("orders")
		if c, _ := now.ChannelID(ch.ID); now.Paused != paused || c.Paused != paused {
			t.Errorf("paused %v shows as %v, %v", paused, now.Paused, c.Paused)
		}
	}
}

func TestEphemeralTopicGoesWithItsProcess(t *testing.T) {
	l := newLoop(t, Options{})
	l.create("orders")
	e := l.create("debug#ephemeral")
	if len(e.Partitions) != 0 || !e.Ephemeral() {
		t.Errorf("an ephemeral topic has partitions: %+v", e)
	}
	state, err := l.m.Checkpoint(l.index).Write()
	if err != nil {
		t.Fatal(err)
	}
	next, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Restore(l.index, state); err != nil {
		t.Fatal(err)
	}
	again := &loop{t: t, m: next, index: l.index, term: 2}
	next.Lead(2)
	again.run()
	if _, ok := next.View().Topic("debug#ephemeral"); ok || next.View().Len() != 1 {
		t.Error("the ephemeral topic outlived its process")
	}
}

// A creation storm takes few entries and does not copy the table each time.
func TestManyCreations(t *testing.T) {
	const topics = 10000
	l := newLoop(t, Options{})
	ids := make([]uint64, 0, topics)
	for i := range topics {
		l.m.CreateTopic(fmt.Sprintf("topic-%d", i), func(topic *Topic, err error) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, topic.ID)
		})
	}
	if n := l.run(); n > 3 {
		t.Errorf("%d creations took %d entries", topics, n)
	}
	made := 0
	for _, id := range ids {
		for _, name := range []string{"a", "b"} {
			l.m.CreateChannel(id, name, func(_ *Channel, err error) {
				if err == nil {
					made++
				}
			})
		}
	}
	if n := l.run(); n > 3 {
		t.Errorf("%d creations took %d entries", 2*topics, n)
	}
	if made != 2*topics || l.m.View().Len() != topics {
		t.Errorf("%d channels, %d topics", made, l.m.View().Len())
	}
	unique := slices.Compact(slices.Sorted(slices.Values(ids)))
	if len(unique) != topics {
		t.Errorf("%d different ids for %d topics", len(unique), topics)
	}
	list := l.m.View().Topics()
	if !slices.IsSortedFunc(list, byName) || len(list) != topics {
		t.Error("the list is not sorted or not whole")
	}
}

func BenchmarkCreateTopic(b *testing.B) {
	l := newLoop(b, Options{})
	for i := range 10000 {
		l.m.CreateTopic(fmt.Sprintf("t%d", i), nil)
	}
	l.run()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.m.CreateTopic(fmt.Sprintf("one-%d", i), nil)
		l.run()
		l.entries = l.entries[:0]
	}
}

func TestWatchSeesEveryChange(t *testing.T) {
	l := newLoop(t, Options{})
	l.create("before")
	seen := make(map[uint64]*Topic)
	l.m.Watch(func(old, new *View) {
		Diff(old, new, func(before, after *Topic) {
			switch {
			case before != nil && seen[before.ID] != before:
				t.Errorf("topic %s was not as last seen", before.Name)
			case before == nil && seen[after.ID] != nil:
				t.Errorf("topic %s is new twice", after.Name)
			}
			if after == nil {
				delete(seen, before.ID)
			} else {
				seen[after.ID] = after
			}
		})
	})
	a := l.create("orders")
	l.m.CreateTopic("other", nil)
	l.m.CreateChannel(a.ID, "archive", nil)
	l.m.PauseTopic(a.ID, true, nil)
	l.run()
	l.m.FinishDeleteTopic(a.ID, nil)
	l.m.CreateTopic("orders", nil)
	l.run()
	var got, want []string
	for _, topic := range seen {
		got = append(got, fmt.Sprint(topic.Name, topic.ID))
	}
	for _, topic := range l.m.View().Topics() {
		want = append(want, fmt.Sprint(topic.Name, topic.ID))
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("watched (-want +got):\n%s", diff)
	}
}

func TestRequestsAreBoundedAndRefused(t *testing.T) {
	l := newLoop(t, Options{Waiting: 2})
	var errs []error
	for i := range 3 {
		l.m.CreateTopic(fmt.Sprint(i), func(_ *Topic, err error) { errs = append(errs, err) })
	}
	if len(errs) != 1 || !errors.Is(errs[0], fault.Overloaded) {
		t.Fatalf("the third request got %v", errs)
	}
	_, token := l.m.Drain(1, 0, 1)
	l.m.Drop(token, fault.Exiting)
	if len(errs) != 2 || !errors.Is(errs[1], fault.Exiting) {
		t.Fatalf("the dropped request got %v", errs)
	}
	l.m.Follow()
	if len(errs) != 3 || !errors.Is(errs[2], fault.NotLeader) {
		t.Fatalf("the waiting request got %v", errs)
	}
}

func TestEntryOfAnotherTermIsRefused(t *testing.T) {
	l := newLoop(t, Options{})
	var got error
	l.m.CreateTopic("orders", func(_ *Topic, err error) { got = err })
	data, token := l.m.Drain(1, 0, 1<<20)
	before := l.m.View()
	if err := l.m.Apply(shard.Entry{Index: 9, Term: 2, Data: data}, token); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(got, fault.NotLeader) || l.m.View() != before {
		t.Errorf("it was applied, the answer was %v", got)
	}
}

func TestUnknownCommandStopsTheReplica(t *testing.T) {
	l := newLoop(t, Options{})
	for name, cmd := range map[string][]byte{
		"kind":    {99, 1, 0},
		"version": {byte(kindDeleteTopic), 2, 1, 1},
	} {
		data := append(appendHead(nil, entryHead{Term: 1, Count: 1}), cmd...)
		if err := l.m.Apply(shard.Entry{Index: 9, Term: 1, Data: data}, nil); err == nil {
			t.Errorf("an unknown %s was applied", name)
		}
	}
}

// flat is a view without the way it is stored.
type flat struct {
	Cluster string
	Index   uint64
	Feature uint32
	Nodes   []Node
	Gone    []Node
	Meta    Shard
	Shards  []Shard
	Origins []*origin
	LastID  uint64
	LastNs  int64
	Topics  []*Topic
}

func flatten(t testing.TB, v *View) flat {
	t.Helper()
	for _, topic := range v.Topics() {
		if byID, ok := v.TopicID(topic.ID); !ok || byID != topic {
			t.Errorf("topic %s stands in one table only", topic.Name)
		}
	}
	if n := len(v.Topics()); n != v.Len() {
		t.Errorf("%d topics are counted as %d", n, v.Len())
	}
	for _, n := range v.Nodes {
		if byName, ok := v.NodeNamed(n.Name); !ok || byName != n {
			t.Errorf("node %s is found by name as %+v", n.Name, byName)
		}
	}
	for _, n := range slices.Concat(v.Nodes, v.Gone) {
		if byID, ok := v.Node(n.ID); !ok || byID != n {
			t.Errorf("node %x is found by id as %+v", n.ID, byID)
		}
	}
	return flat{
		v.Cluster, v.Index, v.Feature, v.Nodes, v.Gone, v.Meta, v.Shards, v.origins, v.lastID, v.lastNs, v.Topics(),
	}
}

// Whatever is asked, the state survives a checkpoint, a replay of the same
// entries makes the same state, and older views do not change.
func TestRapidState(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		nodes := []Node{{ID: 1, Name: "a", Boot: 11}, {ID: 2, Name: "b"}, {ID: 3, Name: "c"}}
		l := newLoop(t, Options{
			Partitions: rapid.IntRange(1, 3).Draw(rt, "partitions"), Node: nodes[0],
			Founding: &Founding{Cluster: "c1", Nodes: nodes, Voters: Layout(nodes, 4, 2)},
		})
		early := l.m.View()
		earlyState := early.encode()
		name := rapid.SampledFrom([]string{"a", "b", "c", "d#ephemeral", "e"})
		id := rapid.Uint64Range(1, 12)
		rt.Repeat(map[string]func(*rapid.T){
			"create topic":   func(rt *rapid.T) { l.m.CreateTopic(name.Draw(rt, "name"), nil) },
			"create channel": func(rt *rapid.T) { l.m.CreateChannel(id.Draw(rt, "id"), name.Draw(rt, "name"), nil) },
			"delete topic":   func(rt *rapid.T) { l.m.DeleteTopic(id.Draw(rt, "id"), nil) },
			"remove topic":   func(rt *rapid.T) { l.m.FinishDeleteTopic(id.Draw(rt, "id"), nil) },
			"delete channel": func(rt *rapid.T) { l.m.DeleteChannel(id.Draw(rt, "id"), id.Draw(rt, "ch"), nil) },
			"remove channel": func(rt *rapid.T) { l.m.FinishDeleteChannel(id.Draw(rt, "id"), id.Draw(rt, "ch"), nil) },
			"pause topic":    func(rt *rapid.T) { l.m.PauseTopic(id.Draw(rt, "id"), rapid.Bool().Draw(rt, "on"), nil) },
			"raise topic": func(rt *rapid.T) {
				l.m.RaiseTopic(id.Draw(rt, "id"), rapid.IntRange(1, 9).Draw(rt, "partitions"), func(*Topic, error) {})
			},
			"activate topic": func(rt *rapid.T) {
				l.m.ActivateTopic(id.Draw(rt, "id"), rapid.IntRange(1, 9).Draw(rt, "partitions"), nil)
			},
			"pause channel": func(rt *rapid.T) {
				l.m.PauseChannel(id.Draw(rt, "id"), id.Draw(rt, "ch"), rapid.Bool().Draw(rt, "on"), nil)
			},
			"replace node": func(rt *rapid.T) {
				n := Node{ID: id.Draw(rt, "id"), Name: name.Draw(rt, "name"), Boot: id.Draw(rt, "boot")}
				l.m.ReplaceNode(id.Draw(rt, "was"), n, nil)
			},
			"update node": func(rt *rapid.T) {
				l.m.UpdateNode(Node{ID: id.Draw(rt, "id"), TCP: name.Draw(rt, "address"), Boot: id.Draw(rt, "boot")}, nil)
			},
			"drop boot": func(rt *rapid.T) { l.m.DropBoot(id.Draw(rt, "boot"), nil) },
			"request": func(rt *rapid.T) {
				c := command{Kind: kindRequest, Request: &numberedCommand{
					Origin: id.Draw(rt, "boot"), Number: id.Draw(rt, "number"), Low: id.Draw(rt, "low"),
					Inner: command{Kind: kindCreateTopic, Name: name.Draw(rt, "name"), Count: 1},
				}}
				l.m.Submit(appendRequest(nil, &c), func([]byte) {})
			},
			"add shards": func(rt *rapid.T) {
				l.m.AddShards(rapid.IntRange(4, 6).Draw(rt, "was"), [][]uint64{{id.Draw(rt, "id")}}, nil)
			},
			"entry": func(*rapid.T) { l.run() },
			"": func(rt *rapid.T) {
				v := l.m.View()
				state := v.encode()
				back, err := decodeView(state)
				if err != nil {
					rt.Fatal(err)
				}
				if diff := cmp.Diff(flatten(t, v), flatten(t, back), cmpopts.EquateEmpty()); diff != "" {
					rt.Fatalf("checkpoint (-state +restored):\n%s", diff)
				}
				if !bytes.Equal(early.encode(), earlyState) {
					rt.Fatal("an old view changed")
				}
			},
		})
		l.run()
		replay := &View{}
		for _, e := range l.entries {
			next, _, err := replay.applyEntry(e.Index, e.Term, e.Data)
			if err != nil {
				rt.Fatal(err)
			}
			replay = next
		}
		if !bytes.Equal(replay.encode(), l.m.View().encode()) {
			rt.Fatal("a replay of the same entries made another state")
		}
	})
}

func FuzzApplyEntry(f *testing.F) {
	l := newLoop(f, Options{})
	l.m.CreateTopic("orders", nil)
	l.m.CreateChannel(1, "archive", nil)
	l.m.PauseChannel(1, 2, true, nil)
	l.m.RaiseTopic(1, 3, func(*Topic, error) {})
	l.m.ActivateTopic(1, 3, nil)
	l.m.DeleteTopic(1, nil)
	l.m.DropBoot(3, nil)
	l.m.ReplaceNode(0, Node{ID: 8, Addr: "b:1"}, nil)
	l.m.UpdateNode(Node{TCP: "a:1"}, nil)
	l.m.Submit(encoded(4, 1, 1, command{Kind: kindDropBoot, Boot: 4}), func([]byte) {})
	l.run()
	for _, e := range l.entries {
		f.Add(e.Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, _, err := l.m.View().applyEntry(100, 1, data)
		if err != nil {
			return
		}
		back, err := decodeView(v.encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(flatten(t, v), flatten(t, back), cmpopts.EquateEmpty()); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzDecodeView(f *testing.F) {
	l := newLoop(f, Options{Node: Node{ID: 1, Name: "n"}})
	a := l.create("orders")
	l.channel(a.ID, "archive")
	f.Add(l.m.View().encode())
	f.Add((&View{}).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decodeView(data)
		if err != nil {
			return
		}
		if _, err := decodeView(v.encode()); err != nil {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
	})
}
