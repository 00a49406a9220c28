package meta

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tidings-io/tidings/internal/fault"
)

func three() []Node {
	return []Node{
		{ID: 11, Name: "a", Addr: "10.0.0.1:4160", Boot: 101},
		{ID: 12, Name: "b", Addr: "10.0.0.2:4160"},
		{ID: 13, Name: "c", Addr: "10.0.0.3:4160"},
	}
}

func newCluster(t testing.TB, nodes []Node, shards int, forward func([]byte, func([]byte, error))) *loop {
	t.Helper()
	return newLoop(t, Options{
		Node: nodes[0], Forward: forward,
		Founding: &Founding{Cluster: "c1", Nodes: nodes, Voters: Layout(nodes, shards, 3)},
	})
}

// What the first version of this program wrote is read, means the same, and is
// written as that version would.
func TestStateOfVersion1(t *testing.T) {
	text, err := os.ReadFile("testdata/state-v1.hex")
	if err != nil {
		t.Fatal(err)
	}
	state, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	v, err := decodeView(state)
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := v.Node(7); !ok || n.Name != "one" || v.Feature != 1 || v.Cluster != "090a0b0c0d0e0f101112131415161718" {
		t.Errorf("node %+v, feature %d, cluster %s", n, v.Feature, v.Cluster)
	}
	for _, id := range []uint32{0, 1, 2, 3} {
		if s, ok := v.Shard(id); !ok || !slices.Equal(s.Voters, []uint64{7}) {
			t.Errorf("shard %d is %+v", id, s)
		}
	}
	if topic, ok := v.Topic("orders"); !ok || !topic.Paused || len(topic.Channels) != 2 || v.Len() != 3 {
		t.Errorf("topic %+v of %d", topic, v.Len())
	}
	if !bytes.Equal(v.encode(), state) {
		t.Error("it is written in another way than it was read")
	}

	entries, err := os.ReadFile("testdata/entries-v1.hex")
	if err != nil {
		t.Fatal(err)
	}
	replay := &View{}
	for line := range strings.Lines(string(entries)) {
		var index, term uint64
		var data []byte
		if _, err := fmt.Sscanf(line, "%d %d %x", &index, &term, &data); err != nil {
			t.Fatal(err)
		}
		if replay, _, err = replay.applyEntry(index, term, data); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(flatten(t, v), flatten(t, replay)); diff != "" {
		t.Errorf("(-checkpoint +log):\n%s", diff)
	}
	staysAtLevel1(t, state)
}

// A cluster of level 1 goes on as it was, without a command of level 2.
func staysAtLevel1(t *testing.T, state []byte) {
	t.Helper()
	m, err := New(Options{Node: Node{ID: 7, Name: "one"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(20, state); err != nil {
		t.Fatal(err)
	}
	l := &loop{t: t, m: m, index: 20, term: 2}
	m.Lead(2)
	l.create("new")
	if err := l.wait(func(d func(error)) { m.DropBoot(1, d) }); !errors.Is(err, fault.Unsupported) {
		t.Errorf("a command of level 2 got %v", err)
	}
	if _, ok := m.View().Topic("debug#ephemeral"); ok || m.View().encode()[0] != 1 {
		t.Error("the ephemeral topic stays, or the format changed")
	}
}

func TestLayoutRotates(t *testing.T) {
	five := []Node{{ID: 1, Name: "a"}, {ID: 2, Name: "b"}, {ID: 3, Name: "c"}, {ID: 4, Name: "d"}, {ID: 5, Name: "e"}}
	for n := 1; n <= 5; n++ {
		voters := Layout(five[:n], 8, 3)
		f := Founding{Cluster: "x", Nodes: five[:n], Voters: voters}
		if err := f.Check(); err != nil || len(voters) != 9 || len(voters[0]) != n || len(voters[5]) != min(3, n) {
			t.Fatalf("%d nodes: %v, %v", n, err, voters)
		}
		leads := make(map[uint64]int)
		for _, ids := range voters {
			leads[ids[0]]++
		}
		for id, count := range leads {
			if count < 9/n || count > (9+n-1)/n {
				t.Errorf("%d nodes: %d leads %d groups of 9", n, id, count)
			}
		}
	}
}

func TestReplaceNode(t *testing.T) {
	l := newCluster(t, three(), 3, nil)
	l.create("debug#ephemeral")
	fresh := Node{ID: 99, Name: "a", Addr: "10.0.0.9:4160", Boot: 102}
	replace := func(was uint64, n Node) error {
		return l.wait(func(d func(error)) { l.m.ReplaceNode(was, n, d) })
	}
	if err := replace(12, fresh); !errors.Is(err, fault.InvalidRequest) {
		t.Errorf("the wrong incarnation was replaced: %v", err)
	}
	if err := replace(11, Node{ID: 13, Name: "a"}); !errors.Is(err, fault.InvalidRequest) {
		t.Errorf("a Raft id was used twice: %v", err)
	}
	if err := replace(11, Node{ID: 98, Name: "d"}); !errors.Is(err, fault.InvalidRequest) {
		t.Errorf("a node was replaced that is no member: %v", err)
	}
	for range 2 { // the second time nothing is left to do
		if err := replace(11, fresh); err != nil {
			t.Fatal(err)
		}
	}
	v := l.m.View()
	if n, _ := v.NodeNamed("a"); n != fresh {
		t.Errorf("the member is %+v", n)
	}
	if n, ok := v.Node(11); !ok || n.State != NodeGone || len(v.Gone) != 1 {
		t.Errorf("the one before is %+v", n)
	}
	for _, s := range append([]Shard{v.Meta}, v.Shards...) {
		if slices.Contains(s.Voters, 11) || !slices.Contains(s.Voters, 99) || len(s.Voters) != 3 {
			t.Errorf("shard %d has the voters %v", s.ID, s.Voters)
		}
	}
	if v.Shards[0].Preferred() != 99 || v.Shards[1].Preferred() != 12 {
		t.Error("the places were not kept")
	}
	if v.Len() != 0 {
		t.Error("the ephemeral topic outlived its home")
	}
	if err := replace(99, Node{ID: 11, Name: "a"}); !errors.Is(err, fault.InvalidRequest) {
		t.Errorf("a Raft id came back: %v", err)
	}
}

func TestUpdateNodeProposesWhatChanged(t *testing.T) {
	l := newCluster(t, three(), 3, nil)
	n := three()[1]
	n.Boot, n.TCP = 202, "10.0.0.2:4150"
	update := func() error { return l.wait(func(d func(error)) { l.m.UpdateNode(n, d) }) }
	if err := update(); err != nil {
		t.Fatal(err)
	}
	if got, _ := l.m.View().NodeNamed("b"); got != n || !l.m.View().Announced(n) {
		t.Errorf("the node is %+v", got)
	}
	entries := len(l.entries)
	if err := update(); err != nil || len(l.entries) != entries {
		t.Errorf("an update without a change: %v, %d entries", err, len(l.entries)-entries)
	}
	// two changes that start from the same process: the first wins
	a, b := n, n
	a.Boot, b.Boot = 203, 204
	var errs []error
	l.m.UpdateNode(a, func(err error) { errs = append(errs, err) })
	l.m.UpdateNode(b, func(err error) { errs = append(errs, err) })
	l.run()
	if errs[0] != nil || !errors.Is(errs[1], fault.InvalidRequest) || !l.m.View().Announced(a) {
		t.Errorf("two changes at once: %v", errs)
	}
	if err := l.wait(func(d func(error)) { l.m.UpdateNode(Node{ID: 77}, d) }); !errors.Is(err, fault.InvalidRequest) {
		t.Errorf("a stranger was updated: %v", err)
	}
}

func TestEphemeralHomes(t *testing.T) {
	l := newCluster(t, three(), 3, nil)
	ask := func(boot uint64) error {
		c := command{Kind: kindCreateTopic, Name: fmt.Sprintf("of-%d#ephemeral", boot), Count: 1, Boot: boot}
		return l.wait(func(d func(error)) { l.m.askError(c, d) })
	}
	if err := ask(202); !errors.Is(err, fault.NotLeader) {
		t.Errorf("a home nobody knows: %v", err)
	}
	n := three()[1]
	n.Boot = 202
	l.m.UpdateNode(n, nil)
	if err := ask(202); err != nil {
		t.Fatal(err)
	}
	if err := ask(101); err != nil {
		t.Fatal(err)
	}
	l.m.DropBoot(202, nil)
	l.run()
	if _, ok := l.m.View().Topic("of-101#ephemeral"); !ok || l.m.View().Len() != 1 {
		t.Errorf("%d topics are left", l.m.View().Len())
	}
}

// encoded is one as another process would send it.
func encoded(origin, number, low uint64, inner command) []byte {
	c := command{Kind: kindRequest, Request: &numberedCommand{Origin: origin, Number: number, Low: low, Inner: inner}}
	return appendRequest(nil, &c)
}

func (l *loop) submit(b []byte) answer {
	l.t.Helper()
	var got []byte
	l.m.Submit(b, func(a []byte) { got = a })
	l.run()
	a, err := decodeAnswer(got)
	if err != nil {
		l.t.Fatal(err)
	}
	return a
}

// A request that comes again does nothing again, whatever happened meanwhile.
func TestRequestsAreDoneOnce(t *testing.T) {
	l := newCluster(t, three(), 3, nil)
	create := encoded(7, 1, 1, command{Kind: kindCreateTopic, Name: "orders", Count: 1, Seed: 5})
	a := l.submit(create)
	if a.err != nil || a.topic == 0 || a.index != l.index {
		t.Fatalf("answer %+v", a)
	}
	if again := l.submit(create); again.topic != a.topic || again.err != nil {
		t.Errorf("the same request got %+v, first %+v", again, a)
	}
	pause := encoded(7, 2, 1, command{Kind: kindPauseTopic, Topic: a.topic, On: true})
	l.submit(pause)
	l.m.PauseTopic(a.topic, false, nil)
	if r := l.submit(pause); r.err != nil {
		t.Error(r.err)
	}
	if topic, _ := l.m.View().TopicID(a.topic); topic.Paused {
		t.Error("a repeated pause undid the resume after it")
	}
	remove := encoded(7, 3, 1, command{Kind: kindDeleteTopic, Topic: a.topic})
	l.submit(remove)
	l.m.FinishDeleteTopic(a.topic, nil)
	if r := l.submit(create); !errors.Is(r.err, fault.TopicNotFound) || l.m.View().Len() != 0 {
		t.Errorf("a repeated creation brought the topic back: %+v", r)
	}
	if r := l.submit(remove); r.err != nil {
		t.Errorf("a repeated deletion failed: %v", r.err)
	}
	// what failed may succeed later
	channel := func(low uint64) []byte {
		return encoded(7, 4, low, command{Kind: kindCreateChannel, Topic: a.topic + 1, Name: "x"})
	}
	if r := l.submit(channel(1)); !errors.Is(r.err, fault.TopicNotFound) {
		t.Errorf("a channel of no topic: %+v", r)
	}
	l.create("second")
	if r := l.submit(channel(4)); r.err != nil || r.channel == 0 {
		t.Errorf("tried again: %+v", r)
	}
	// below what was answered nothing comes again
	if o := l.m.View().origins[0]; len(o.Done) != 1 || o.Low != 4 {
		t.Errorf("remembered: %+v", o)
	}
	if r := l.submit(create); !errors.Is(r.err, fault.Timeout) {
		t.Errorf("a request that was answered long ago: %+v", r)
	}
	if r := l.submit(encoded(7, 4+requestWindow, 4, command{Kind: kindDropBoot})); !errors.Is(r.err, fault.Timeout) {
		t.Errorf("a request far ahead: %+v", r)
	}
}

func TestOriginsAreBounded(t *testing.T) {
	l := newCluster(t, three(), 3, nil)
	for boot := uint64(1); boot <= maxOrigins+10; boot++ {
		if r := l.submit(encoded(boot, 1, 1, command{Kind: kindDropBoot, Boot: 1000})); r.err != nil {
			t.Fatal(r.err)
		}
	}
	v := l.m.View()
	if len(v.origins) != maxOrigins || v.origins[0].Boot != 11 || !v.ordered() {
		t.Errorf("%d processes are remembered, the first is %d", len(v.origins), v.origins[0].Boot)
	}
}

func TestRequestsThatMustNotComeFromElsewhere(t *testing.T) {
	l := newCluster(t, three(), 3, nil)
	before := len(l.entries)
	good := encoded(7, 1, 1, command{Kind: kindDropBoot, Boot: 1})
	unknown := slices.Clone(good)
	unknown[4] = 99
	for name, b := range map[string][]byte{
		"found":        encoded(7, 1, 1, command{Kind: kindFound, Feature: 2, Founding: &Founding{}}),
		"expire":       encoded(7, 1, 1, command{Kind: kindExpireBoot, Boot: 1}),
		"nested":       encoded(7, 1, 1, command{Kind: kindRequest, Request: &numberedCommand{Inner: command{Kind: kindDropBoot}}}),
		"empty":        nil,
		"format":       {9},
		"short":        good[:len(good)-1],
		"long":         append(slices.Clone(good), 0),
		"unknown kind": unknown,
		"too large":    make([]byte, MaxRequest+1),
	} {
		if a := l.submit(b); a.err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if len(l.entries) != before {
		t.Error("one of them reached the log")
	}
}

// pair is two replicas: requests of the second go to the first.
type pair struct {
	*loop // leads
	m2    *Machine
	seen  int    // entries that m2 has applied
	calls []call // on the network
}

type call struct {
	request []byte
	done    func([]byte, error)
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{}
	p.loop = newCluster(t, three(), 3, nil)
	m, err := New(Options{
		Node: Node{ID: 12, Name: "b"},
		Forward: func(b []byte, done func([]byte, error)) {
			p.calls = append(p.calls, call{slices.Clone(b), done})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(1, nil); err != nil {
		t.Fatal(err)
	}
	p.m2 = m
	return p
}

// carry brings all requests to the leader, and their answers back, twice where
// twice is set: the first answer is lost.
func (p *pair) carry(twice bool) {
	calls := p.calls
	p.calls = nil
	for _, c := range calls {
		if twice {
			p.m.Submit(c.request, func([]byte) {})
		}
		p.m.Submit(c.request, func(b []byte) { c.done(b, nil) })
	}
	p.run()
}

// replicate lets the second apply what the first has.
func (p *pair) replicate() {
	p.t.Helper()
	for ; p.seen < len(p.entries); p.seen++ {
		if err := p.m2.Apply(p.entries[p.seen], nil); err != nil {
			p.t.Fatal(err)
		}
	}
	p.m2.Tick(0)
}

func TestAnyNodeCanAsk(t *testing.T) {
	p := newPair(t)
	p.replicate()
	var got *Topic
	p.m2.CreateTopic("orders", func(topic *Topic, err error) {
		if err != nil {
			t.Fatal(err)
		}
		if now, ok := p.m2.View().Topic("orders"); !ok || now != topic {
			t.Error("answered before it can be seen here")
		}
		got = topic
	})
	p.carry(true)
	p.m2.Tick(0)
	if got != nil {
		t.Fatal("answered before the entry came here")
	}
	p.replicate()
	if got == nil {
		t.Fatal("not answered")
	}
	var notFound error
	p.m2.PauseTopic(999, true, func(err error) { notFound = err })
	p.carry(false)
	p.replicate()
	if !errors.Is(notFound, fault.TopicNotFound) || fault.CodeOf(notFound) != fault.TopicNotFound {
		t.Errorf("a topic that is not there: %v", notFound)
	}
	if !bytes.Equal(p.m.View().encode(), p.m2.View().encode()) {
		t.Error("the replicas differ")
	}
}

// What is known when Sync is called can be seen when it is done, and a refusal comes
// when this node sees why, though others have long applied both.
func TestAnswersWaitForTheirEntry(t *testing.T) {
	p := newPair(t)
	p.replicate()
	p.m.CreateTopic("orders", nil)
	var synced, refused bool
	p.m2.Sync(func(err error) {
		if _, ok := p.m2.View().Topic("orders"); !ok || err != nil {
			t.Errorf("synced, but the topic is not to be seen: %v", err)
		}
		synced = true
	})
	p.m2.PauseTopic(999, true, func(err error) { refused = errors.Is(err, fault.TopicNotFound) })
	p.carry(false)
	p.m2.Tick(0)
	if synced || refused {
		t.Fatal("answered before the entries came here")
	}
	p.replicate()
	if !synced || !refused {
		t.Fatalf("after the entries came here: synced %v, refused %v", synced, refused)
	}
}

func TestManyRequestsOfOneNode(t *testing.T) {
	p := newPair(t)
	const n = 3*requestWindow + 7
	answers := 0
	for i := range n {
		p.m2.CreateTopic(fmt.Sprint("t", i), func(_ *Topic, err error) {
			if err != nil {
				t.Error(err)
			}
			answers++
		})
	}
	for len(p.calls) > 0 {
		if len(p.calls) > requestWindow {
			t.Fatalf("%d requests at once", len(p.calls))
		}
		slices.Reverse(p.calls)
		p.carry(false)
		p.replicate()
	}
	if answers != n || p.m.View().Len() != n {
		t.Errorf("%d answers, %d topics for %d requests", answers, p.m.View().Len(), n)
	}
	if o := p.m2.View().origins[0]; len(o.Done) > requestWindow {
		t.Errorf("%d requests are remembered", len(o.Done))
	}
}

// A leader that loses the lead asks the next one, with the same number.
func TestLeadIsLostWhileARequestIsUnderWay(t *testing.T) {
	var sent [][]byte
	l := newCluster(t, three(), 3, func(b []byte, _ func([]byte, error)) { sent = append(sent, b) })
	answered := false
	l.m.CreateTopic("inflight", func(*Topic, error) { answered = true })
	_, token := l.m.Drain(l.term, 0, 1<<20)
	l.m.CreateTopic("waiting", func(*Topic, error) { answered = true })
	l.m.Drop(token, fault.Wrap(fault.NotLeader, errors.New("lost")))
	l.m.Follow()
	if answered || len(sent) != 2 {
		t.Fatalf("answered %v, %d requests were sent on", answered, len(sent))
	}
	numbers := []uint64{}
	for _, b := range sent {
		c, err := decodeRequest(b)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, c.Request.Number)
	}
	if !slices.Equal(numbers, []uint64{1, 2}) {
		t.Errorf("numbers %v", numbers)
	}
	l.m.CreateTopic("later", func(_ *Topic, err error) { answered = errors.Is(err, fault.Exiting) })
	l.m.Close(fault.Exiting)
	if !answered {
		t.Error("Close did not answer")
	}
}

func TestNobodyLeads(t *testing.T) {
	p := newPair(t)
	p.m.Follow()
	var got error
	p.m2.DropBoot(1, func(err error) { got = err })
	c := p.calls[0]
	p.m.Submit(c.request, func(b []byte) {
		if err := Refused(b); !errors.Is(err, fault.NotLeader) {
			t.Errorf("answer %v", err)
		}
	})
	c.done(nil, fault.New(fault.NotLeader, "nobody"))
	p.m2.Tick(0)
	if !errors.Is(got, fault.NotLeader) {
		t.Errorf("answer %v", got)
	}
}

func FuzzDecodeRequest(f *testing.F) {
	f.Add(encoded(7, 2, 1, command{Kind: kindCreateTopic, Name: "orders", Count: 1}))
	f.Add(encoded(7, 2, 1, command{Kind: kindReplaceNode, Was: 1, Node: three()[0]}))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := decodeRequest(data)
		if err != nil {
			return
		}
		back, err := decodeRequest(appendRequest(nil, &c))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, back, cmp.AllowUnexported(command{})); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	f.Add(answer{index: 4, topic: 5, channel: 6}.encode())
	f.Add(Refusal(fault.NotLeader))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := decodeAnswer(data)
		if err != nil {
			return
		}
		b, err := decodeAnswer(a.encode())
		if err != nil || b.index != a.index || fault.CodeOf(b.err) != fault.CodeOf(a.err) {
			t.Fatalf("%+v became %+v: %v", a, b, err)
		}
	})
}

func TestAckOfATopic(t *testing.T) {
	l := newCluster(t, three(), 2, nil)
	topic := l.create("orders")
	for _, want := range []Ack{AckLeader, AckQuorum, AckDefault} {
		if err := l.wait(func(d func(error)) { l.m.SetAck(topic.ID, want, d) }); err != nil {
			t.Fatal(err)
		}
		now, _ := l.m.View().Topic("orders")
		back, err := decodeView(l.m.View().encode())
		if err != nil {
			t.Fatal(err)
		}
		saved, _ := back.Topic("orders")
		if again, ok := ParseAck(want.String()); now.Ack != want || saved.Ack != want || again != want || !ok {
			t.Errorf("%q shows as %q, and %q when read back", want, now.Ack, saved.Ack)
		}
	}
	if err := l.wait(func(d func(error)) { l.m.SetAck(topic.ID+1, AckLeader, d) }); fault.CodeOf(err) != fault.TopicNotFound {
		t.Errorf("of no topic: %v", err)
	}
}

// A process whose lease has lapsed may only be cut off: what it asked for and
// got no answer to, it asks again when it is back, and that is done once all the
// same. The process after it on the same disk ends what is remembered.
func TestRequestsOfAProcessThatWasCutOff(t *testing.T) {
	l := newCluster(t, three(), 3, nil)
	n := three()[1]
	n.Boot = 7
	l.m.UpdateNode(n, nil)
	a := l.submit(encoded(7, 1, 1, command{Kind: kindCreateTopic, Name: "orders", Count: 1, Seed: 5}))
	pause := encoded(7, 2, 1, command{Kind: kindPauseTopic, Topic: a.topic, On: true})
	l.submit(pause)
	l.m.PauseTopic(a.topic, false, nil)
	l.m.DropBoot(7, nil)
	l.run()
	if r := l.submit(pause); r.err != nil {
		t.Error(r.err)
	}
	if topic, _ := l.m.View().TopicID(a.topic); topic.Paused {
		t.Error("a pause that came again undid the resume after it")
	}
	n.Boot = 8
	l.m.UpdateNode(n, nil)
	l.run()
	if i, ok := findOrigin(l.m.View().origins, 7); ok {
		t.Errorf("remembered: %+v", l.m.View().origins[i])
	}
}
