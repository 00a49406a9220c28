package partition

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/fault"
)

// keyed sends a publish of one message with a key.
func (r *rig) keyed(mapping uint32, l Link, body string) *answer {
	r.t.Helper()
	a := &answer{}
	p := &Publish{
		Topic: one.Topic, Partition: one.Partition, Done: a, Link: l, Mapping: mapping,
		Messages: []Message{{Body: []byte(body), Key: []byte("k")}},
	}
	if err := r.m.Publish(p); err != nil {
		r.t.Fatalf("publish: %v", err)
	}
	return a
}

func seq(n uint64) Link { return Link{Producer: 5, Epoch: 1, Seq: n} }

func (r *rig) wantBarriers(count uint32, want ...Barrier) {
	r.t.Helper()
	r.m.Query(func(v *View) {
		p, ok := v.Partition(one)
		if !ok || p.Count != count || !slices.Equal(p.Barriers, want) {
			r.t.Fatalf("partition there: %v, of %d with barriers %v; want %d, %v", ok, p.Count, p.Barriers, count, want)
		}
	})
	r.m.Tick(r.now)
}

func TestRaisePutsABarrier(t *testing.T) {
	r := linkRig(t)
	if err := r.do(Raise{Key: two, Count: 4}); fault.CodeOf(err) != fault.TopicNotFound {
		t.Errorf("raise of a partition that is not open: %v", err)
	}
	r.wantBarriers(1)
	r.must(Raise{Key: one, Count: 1})
	r.wantBarriers(1)
	r.publish(one, 3)
	r.must(Raise{Key: one, Count: 4})
	r.publish(one, 2)
	for _, n := range []uint32{4, 2} {
		r.must(Raise{Key: one, Count: n})
	}
	r.wantBarriers(4, Barrier{4, 3})
	r.must(Raise{Key: one, Count: PartitionsMax})
	r.wantBarriers(PartitionsMax, Barrier{4, 3}, Barrier{PartitionsMax, 5})

	r.must(Open{Key: two, Count: 6})
	r.must(Open{Key: two, Count: 9}) // it is open
	r.m.Query(func(v *View) {
		if p, _ := v.Partition(two); p.Count != 6 || len(p.Barriers) > 0 {
			t.Errorf("opened with 6: %+v", p)
		}
	})
	r.m.Tick(r.now)
	for _, c := range []Command{Raise{Key: one}, Raise{Key: one, Count: PartitionsMax + 1}, Open{Key: six, Count: PartitionsMax + 1}} {
		if err := r.do(c); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%+v: %v", c, err)
		}
	}
	p := &Publish{Topic: one.Topic, Messages: bodies(1), Mapping: PartitionsMax + 1}
	if err := r.m.Publish(p); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("publish by too many: %v", err)
	}
}

func TestPublishesByOlderNumbersAreMoved(t *testing.T) {
	r := linkRig(t)
	before := r.keyed(1, Link{}, "before")
	r.m.Do(Raise{Key: one, Count: 3}, nil)
	behind := r.keyed(1, Link{}, "behind")
	free := r.keyed(0, Link{}, "free")
	fits := r.keyed(3, Link{}, "fits")
	r.settle()
	wantAnswer(t, "before", before, 0, nil)
	wantAnswer(t, "behind", behind, 0, fault.Moved)
	wantAnswer(t, "without a key", free, 1, nil)
	wantAnswer(t, "by the new number", fits, 2, nil)
	r.wantBarriers(3, Barrier{3, 1})
	r.wantBodies("before", "free", "fits")

	var back *Publish
	p := &Publish{Topic: one.Topic, Messages: bodies(1), Mapping: 2, Done: &answer{}, Moved: func(p *Publish) { back = p }}
	if err := r.m.Publish(p); err != nil {
		t.Fatal(err)
	}
	r.settle()
	if back != p || p.Done.(*answer).called > 0 {
		t.Errorf("%v is given back, of %v; done is told %d times", back, p, p.Done.(*answer).called)
	}
	if r.m.inbox.waiting != 0 || r.m.inbox.waitingBytes != 0 {
		t.Errorf("%d, %d bytes wait", r.m.inbox.waiting, r.m.inbox.waitingBytes)
	}
}

// A publish by a larger number has it raised, and nothing that comes by it stands
// before the barrier.
func TestPublishRaises(t *testing.T) {
	r := linkRig(t)
	a := r.keyed(1, Link{}, "a")
	b := r.keyed(2, Link{}, "b")
	c := r.keyed(2, Link{}, "c")
	d := r.keyed(1, Link{}, "d")
	for r.propose() {
	}
	if len(r.inflight) != 1 {
		t.Fatalf("%d entries while the raise is on its way", len(r.inflight))
	}
	r.settle()
	for i, x := range []*answer{a, b, c} {
		wantAnswer(t, "publish", x, int64(i), nil)
	}
	wantAnswer(t, "d", d, 0, fault.Moved)
	r.wantBarriers(2, Barrier{2, 1})

	// One that is opened by what is on its way counts from there.
	p := &Publish{Topic: two.Topic, Partition: two.Partition, Messages: bodies(1), Mapping: 4, Done: &answer{}}
	r.m.Do(Open{Key: two, Count: 4}, nil)
	if err := r.m.Publish(p); err != nil {
		t.Fatal(err)
	}
	r.settle()
	wantAnswer(t, "behind open", p.Done.(*answer), 0, nil)
	r.m.Query(func(v *View) {
		if p, _ := v.Partition(two); p.Count != 4 || len(p.Barriers) > 0 {
			t.Errorf("opened with 4: %+v", p)
		}
	})
	r.m.Tick(r.now)

	missing := &Publish{Topic: six.Topic, Partition: six.Partition, Messages: bodies(1), Mapping: 4, Done: &answer{}}
	if err := r.m.Publish(missing); err != nil {
		t.Fatal(err)
	}
	r.settle()
	wantAnswer(t, "to a partition that is not open", missing.Done.(*answer), 0, fault.TopicNotFound)
}

// A raise that is lost while the leadership goes on refuses nobody, and lets nothing
// by the larger number in without a barrier.
func TestLostRaise(t *testing.T) {
	r := linkRig(t)
	r.m.Do(Raise{Key: one, Count: 2}, nil)
	r.propose()
	old := r.keyed(1, Link{}, "old")
	if r.propose() {
		t.Fatal("a publish with a key is planned behind a raise")
	}
	r.m.Drop(r.inflight[0].token, errLost)
	r.inflight = nil
	r.settle()
	wantAnswer(t, "old", old, 0, nil)
	r.wantBarriers(1)
	b := r.keyed(2, Link{}, "new")
	r.propose()
	r.m.Drop(r.inflight[0].token, errLost)
	r.inflight = nil
	r.settle()
	wantAnswer(t, "new", b, 1, nil)
	r.wantBarriers(2, Barrier{2, 1})
}

// A sequenced publish that is moved has used its number, and says so again whoever
// leads; what was done before the barrier is done.
func TestMovedPublishesUseTheirNumbers(t *testing.T) {
	r := linkRig(t)
	first := r.keyed(1, seq(1), "first")
	r.m.Do(Raise{Key: one, Count: 2}, nil)
	moved := r.keyed(1, seq(2), "moved")
	next := r.keyed(0, seq(3), "next")
	r.settle()
	wantAnswer(t, "first", first, 0, nil)
	wantAnswer(t, "moved", moved, 0, fault.Moved)
	wantAnswer(t, "next", next, 1, nil)
	again := func(what string) {
		t.Helper()
		for n, want := range []error{nil, fault.Moved} {
			a := r.keyed(1, seq(uint64(n+1)), "again")
			r.settle()
			wantAnswer(t, fmt.Sprintf("%s: number %d", what, n+1), a, -1, want)
		}
		a := r.keyed(0, seq(3), "again")
		r.settle()
		wantAnswer(t, what+": number 3", a, -1, nil)
		r.wantBodies("first", "next")
	}
	again("at once")
	r.elect()
	again("under another leadership")
	r.checkpoint()
	r.crash(0, 0, 1)
	again("after a restart")

	// Alone in its entry, and lost with the leadership: its outcome is not known, and
	// it is moved when it comes again.
	lost := r.keyed(1, seq(4), "lost")
	r.propose()
	r.elect()
	wantAnswer(t, "lost", lost, 0, errLost)
	a := r.keyed(1, seq(4), "lost")
	r.settle()
	wantAnswer(t, "lost, again", a, 0, fault.Moved)
	if p := r.m.producers.get(5); p.seq != 4 {
		t.Errorf("producer is at %d", p.seq)
	}

	// Of what came before too many raises it is not known any more.
	for n := range uint32(sentMax + 1) {
		if n < sentMax-1 {
			again(fmt.Sprintf("behind %d raises", n+1))
		}
		r.must(Raise{Key: one, Count: 3 + n})
	}
	for n, want := range []error{fault.NotLeader, fault.NotLeader, nil, fault.NotLeader} {
		mapping := uint32(1)
		if n == 2 {
			mapping = 0
		}
		a := r.keyed(mapping, seq(uint64(n+1)), "again")
		r.settle()
		wantAnswer(t, fmt.Sprintf("behind many raises, number %d", n+1), a, -1, want)
	}
	other := r.keyed(1, Link{Producer: 6, Epoch: 1, Seq: 1}, "other")
	r.settle()
	wantAnswer(t, "another producer", other, 0, fault.Moved)
	a = r.keyed(2, Link{Producer: 6, Epoch: 1, Seq: 1}, "other")
	r.settle()
	wantAnswer(t, "another producer, again", a, -1, fault.Moved)
}

// An entry whose numbers don't continue is refused with what it moved.
func TestMovedIsRefusedWithItsEntry(t *testing.T) {
	r := linkRig(t)
	r.must(Raise{Key: one, Count: 2})
	lost := r.keyed(0, seq(1), "lost")
	r.propose()
	moved := r.keyed(1, seq(2), "moved")
	r.propose()
	r.m.Drop(r.inflight[0].token, errLost)
	r.inflight = r.inflight[1:]
	r.settle()
	wantAnswer(t, "lost", lost, 0, errLost)
	wantAnswer(t, "moved", moved, 0, fault.OutOfOrder)
	if p := r.m.producers.get(5); p.seq != 0 {
		t.Errorf("producer is at %d", p.seq)
	}
}

func TestLanesAreToldOfBarriers(t *testing.T) {
	r := linkRig(t)
	r.must(CreateChannel{Key: one, Channel: 1})
	r.must(CreateChannel{Key: one, Channel: 2, Ephemeral: true})
	l, e := r.attach(one, 1), r.attach(one, 2)
	r.publish(one, 2)
	r.must(Raise{Key: one, Count: 3})
	if want := []Barrier{{3, 2}}; !slices.Equal(l.barriers, want) || len(e.barriers) > 0 {
		t.Errorf("told %v, ephemeral %v; want %v", l.barriers, e.barriers, want)
	}
	if l.limit != 2 {
		t.Errorf("limit %d", l.limit)
	}
	r.must(Empty{Key: one, Channel: 1})
	if want := []Barrier{{3, 2}}; !slices.Equal(l.start.Barriers, want) {
		t.Errorf("reset with %v, want %v", l.start.Barriers, want)
	}
	r.must(Raise{Key: one, Count: 7})
	l, e = r.attach(one, 1), r.attach(one, 2)
	r.settle()
	if want := []Barrier{{3, 2}, {7, 2}}; !slices.Equal(l.start.Barriers, want) || len(e.start.Barriers) > 0 {
		t.Errorf("begun with %v, ephemeral %v; want %v", l.start.Barriers, e.start.Barriers, want)
	}
}

func TestPassed(t *testing.T) {
	r := linkRig(t)
	r.must(CreateChannel{Key: one, Channel: 1})
	l := r.attach(one, 1)
	r.publish(one, 2)
	passed := func(what string, want ...bool) {
		t.Helper()
		var got []bool
		r.m.Query(func(v *View) {
			for n := range uint32(5) {
				got = append(got, v.Passed(one, 1, n))
			}
			if v.Passed(one, 2, 0) || v.Passed(two, 1, 0) {
				t.Errorf("%s: passed by a channel or partition that is not there", what)
			}
		})
		r.m.Tick(r.now)
		if !slices.Equal(got, want) {
			t.Errorf("%s: passed %v, want %v", what, got, want)
		}
	}
	passed("before any", true, true, false, false, false)
	r.must(Raise{Key: one, Count: 3})
	r.publish(one, 1)
	passed("before its barrier", false, false, false, false, false)
	l.finish(0)
	l.finish(1)
	r.settle()
	passed("at its barrier", true, true, true, true, false)
	r.must(Raise{Key: one, Count: 4})
	passed("between two", true, true, true, true, false)
	l.finish(2)
	r.settle()
	passed("behind all", true, true, true, true, true)
}

// raised is a rig whose partition has been raised in all ways.
func raised(t *testing.T) *rig {
	r := linkRig(t)
	r.must(CreateChannel{Key: one, Channel: 1})
	for n := range uint64(300) {
		r.keyed(1, Link{Producer: 1 + n, Epoch: 1 + n%3, Seq: 1, Oldest: true}, "a")
	}
	r.settle()
	r.must(Raise{Key: one, Count: 4})
	r.publish(one, 2)
	r.must(Raise{Key: one, Count: 300})
	r.must(Open{Key: two, Count: 6})
	r.must(Open{Key: six})
	r.must(PauseTopic{Key: one, Paused: true})
	r.publish(one, 2)
	return r
}

func TestBarriersSurvive(t *testing.T) {
	r := raised(t)
	want := r.m.partitions[one].mapping
	if len(want.sent) != 2 || len(want.sent[1]) != producersMax || len(want.barriers) != 2 {
		t.Fatalf("%d lists of producers, barriers %v", len(want.sent), want.barriers)
	}
	same := func(what string, r *rig) {
		t.Helper()
		if diff := cmp.Diff(want, r.m.partitions[one].mapping, cmp.AllowUnexported(mapping{}, sentBefore{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		if got := r.m.partitions[two].mapping.count; got != 6 {
			t.Errorf("%s: the second one has %d", what, got)
		}
		if got := r.m.partitions[six].mapping.count; got != 1 {
			t.Errorf("%s: the third one has %d", what, got)
		}
	}
	to := replica(t, r, 2)
	to.install(carry(t, r, to, 100), r)
	same("carried to another replica", to)
	r.checkpoint()
	r.crash(0, 0, 7)
	same("after a restart", r)
}

// A state in which nothing was raised is read by programs that know of no raises, and
// theirs is read by this one.
func TestStateWithoutRaisesIsTheOlderFormat(t *testing.T) {
	const name = "testdata/state-2.golden"
	r := linkRig(t)
	r.must(CreateChannel{Key: one, Channel: 300})
	r.must(PauseTopic{Key: one, Paused: true})
	for n := range uint64(3) {
		r.keyed(1, Link{Producer: 7, Epoch: 2, Seq: n + 1}, "a")
		r.settle()
	}
	r.checkpoint()
	state := r.saved[0].state
	if *update {
		if err := os.WriteFile(name, state, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, state); diff != "" {
		t.Fatalf("state (-want +got):\n%s", diff)
	}
	r.saved[0].state = want
	r.crash(0, 0, 3)
	r.wantBarriers(1)
	r.wantBodies("a", "a", "a")

	r.must(Raise{Key: one, Count: 2})
	r.checkpoint()
	if got := r.saved[0].state[0]; got != stateVersion {
		t.Errorf("a state with a barrier has version %d", got)
	}
}

// FuzzMapping: whatever the bytes, reading neither fails hard nor takes memory, and
// what is read has exactly one encoding.
func FuzzMapping(f *testing.F) {
	full := mapping{
		count: 300, barriers: []Barrier{{4, 0}, {300, 1 << 40}},
		sent: []sentList{{}, {{1, 2, 3}, {1 << 60, 1, 1}}},
	}
	for _, t := range []mapping{full, {count: 2}, {count: PartitionsMax, barriers: []Barrier{{PartitionsMax, 0}}, sent: []sentList{{}}}} {
		f.Add(t.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := reader{b: b}
		m := r.mapping(1 << 40)
		if r.bad {
			return
		}
		if again := m.append(nil); string(again) != string(b[:len(b)-len(r.b)]) {
			t.Fatalf("%x comes back as %x", b, again)
		}
	})
}

// TestProcessesAcrossRaises: processes publish by what they know of a topic, leaders
// come and go, and entries and answers are lost: each publish is done once or moved,
// none that came by a smaller number stands behind the barrier, and none by a larger
// one before it.
func TestProcessesAcrossRaises(t *testing.T) {
	moved := 0
	for seed := range uint64(60) {
		moved += raiseRun(t, rand.New(rand.NewPCG(seed, 11)))
	}
	if moved == 0 {
		t.Error("nothing was moved")
	}
}

// sender is a process with numbered publishes.
type sender struct {
	id, seq uint64
	open    []*sentOne
	mapping uint32
}

type sentOne struct {
	body    string
	seq     uint64
	mapping uint32
	a       *answer
}

func raiseRun(t *testing.T, rng *rand.Rand) (moved int) {
	r := linkRig(t)
	count := uint32(1)
	outcome := map[string]error{}
	senders := []*sender{{id: 1, mapping: 1}, {id: 2, mapping: 1}, {id: 3, mapping: 1}}
	send := func(s *sender, x *sentOne) {
		x.a = r.keyed(x.mapping, Link{Producer: s.id, Epoch: 1, Seq: x.seq}, x.body)
	}
	take := func(s *sender) {
		for again := false; len(s.open) > 0; s.open = s.open[1:] {
			x := s.open[0]
			switch code := fault.CodeOf(x.a.err); {
			case x.a.called == 0:
				return
			case code == fault.None || code == fault.Moved:
				outcome[x.body] = x.a.err
				continue
			default:
				again = true
			}
			if again {
				for _, x := range s.open {
					send(s, x)
				}
				return
			}
		}
	}
	for range 400 {
		s := senders[rng.IntN(3)]
		switch k := rng.IntN(40); {
		case k < 12 && len(s.open) < 6:
			s.seq++
			mapping := s.mapping
			if rng.IntN(4) == 0 {
				mapping = 0
			}
			x := &sentOne{body: fmt.Sprintf("%d/%d/%d", s.id, s.seq, mapping), seq: s.seq, mapping: mapping}
			s.open = append(s.open, x)
			send(s, x)
		case k < 20:
			r.propose()
		case k < 28:
			r.commit()
		case k < 33:
			take(s)
		case k < 35:
			s.mapping = count
		case k < 36 && count < 5:
			count++
		case k < 37:
			r.m.Do(Raise{Key: one, Count: count}, nil)
		case k < 38:
			r.elect()
		case k < 39 && len(r.inflight) > 0:
			last := len(r.inflight) - 1
			r.m.Drop(r.inflight[last].token, errLost)
			r.inflight = r.inflight[:last]
		default:
			r.checkpoint()
			r.crash(rng.IntN(3), 0, rng.Uint64())
			for _, s := range senders { // nobody is told
				for _, x := range s.open {
					x.a.called, x.a.err = 1, errLost
				}
			}
		}
	}
	r.settle()
	for range 8 {
		for _, s := range senders {
			take(s)
		}
		r.settle()
	}
	in := map[string]int64{}
	for offset, body := range r.bodies(one) {
		if _, twice := in[body]; twice {
			t.Fatalf("%s is there twice", body)
		}
		in[body] = int64(offset)
	}
	barriers := r.m.partitions[one].mapping.barriers
	for body, err := range outcome {
		offset, there := in[body]
		if there != (err == nil) {
			t.Fatalf("%s is there: %v, and was answered %v", body, there, err)
		}
		if err != nil {
			moved++
			continue
		}
		var id, n uint64
		var mapping uint32
		_, _ = fmt.Sscanf(body, "%d/%d/%d", &id, &n, &mapping)
		for _, b := range barriers {
			if mapping > 0 && (mapping >= b.Count) != (offset >= b.Offset) {
				t.Fatalf("%s stands at %d; barriers %v", body, offset, barriers)
			}
		}
	}
	for _, s := range senders {
		if len(s.open) > 0 {
			t.Fatalf("process %d has no answer to %s: %+v", s.id, s.open[0].body, s.open[0].a)
		}
	}
	return moved
}
