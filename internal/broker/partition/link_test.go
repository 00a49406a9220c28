package partition

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/shard"
)

// link sends a publish of one message under a link.
func (r *rig) link(k Key, l Link) *answer {
	r.t.Helper()
	a := &answer{}
	p := &Publish{
		Topic: k.Topic, Partition: k.Partition, Done: a, Link: l,
		Messages: []Message{{Body: fmt.Appendf(nil, "%d/%d/%d", l.Producer, l.Epoch, l.Seq)}},
	}
	if err := r.m.Publish(p); err != nil {
		r.t.Fatalf("publish: %v", err)
	}
	return a
}

// bodies are all messages in a partition's log.
func (r *rig) bodies(k Key) []string {
	r.t.Helper()
	var list []string
	p := r.m.partitions[k]
	for offset := p.log.Start(); offset < p.log.End(); {
		batches, err := p.log.Read(offset, 64<<10)
		if err != nil || len(batches) == 0 {
			r.t.Fatalf("read %v at %d: %v", k, offset, err)
		}
		for _, b := range batches {
			it := record.Records(b.Data)
			var rec record.Record
			for it.Next(&rec) {
				list = append(list, string(rec.Value))
			}
			offset = b.Last() + 1
		}
	}
	return list
}

func (r *rig) wantBodies(want ...string) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.bodies(one)); diff != "" {
		r.t.Fatalf("log (-want +got):\n%s", diff)
	}
}

func wantAnswer(t *testing.T, what string, a *answer, base int64, err error) {
	t.Helper()
	if a.called != 1 || !errors.Is(a.err, err) || err == nil && a.base != base {
		t.Errorf("%s: %d answers, base %d, %v; want base %d, %v", what, a.called, a.base, a.err, base, err)
	}
}

func linkRig(t fataler) *rig {
	r := newRig(t)
	r.must(Open{Key: one})
	return r
}

func TestRepeatedPublishHappensOnce(t *testing.T) {
	r := linkRig(t)
	first := r.link(one, Link{Producer: 5, Epoch: 1, Seq: 1})
	same := r.link(one, Link{Producer: 5, Epoch: 1, Seq: 1}) // in the same entry
	r.propose()
	second := r.link(one, Link{Producer: 5, Epoch: 1, Seq: 2})
	flying := r.link(one, Link{Producer: 5, Epoch: 1, Seq: 1})
	r.propose()
	behind := r.link(one, Link{Producer: 5, Epoch: 1, Seq: 2}) // nothing else is in its entry
	if r.propose() {
		t.Error("a repeated publish makes an entry")
	}
	for _, a := range []*answer{first, same, second, flying, behind} {
		if a.called > 0 {
			t.Fatal("answered before it is fact")
		}
	}
	r.commit()
	wantAnswer(t, "first", first, 0, nil)
	wantAnswer(t, "same", same, -1, nil)
	r.commit()
	wantAnswer(t, "second", second, 1, nil)
	wantAnswer(t, "flying", flying, -1, nil)
	wantAnswer(t, "behind", behind, -1, nil)
	late := r.link(one, Link{Producer: 5, Epoch: 1, Seq: 1})
	r.settle()
	wantAnswer(t, "late", late, -1, nil)
	r.wantBodies("5/1/1", "5/1/2")
	if r.m.inbox.waiting != 0 || r.m.inbox.waitingBytes != 0 {
		t.Errorf("%d, %d bytes wait", r.m.inbox.waiting, r.m.inbox.waitingBytes)
	}
}

func TestSequencesHaveNoHoles(t *testing.T) {
	r := linkRig(t)
	for i, c := range []struct {
		link Link
		want error
	}{
		{Link{5, 1, 2, false}, fault.OutOfOrder}, // a hole at the beginning
		{Link{5, 3, 1, false}, nil},
		{Link{5, 3, 3, false}, fault.OutOfOrder},
		{Link{5, 3, 2, false}, nil},
		{Link{5, 2, 1, false}, fault.OutOfOrder}, // an epoch that is over
		{Link{5, 2, 3, true}, fault.OutOfOrder},
		{Link{5, 4, 2, false}, fault.OutOfOrder},
		{Link{5, 4, 1, false}, nil},
		{Link{5, 3, 3, false}, fault.OutOfOrder},
		{Link{6, 1, 1, false}, nil}, // another producer
		{Link{5, 0, 2, false}, fault.OutOfOrder},
		{Link{5, 4, 0, false}, fault.OutOfOrder},
		{Link{5, 4, 5, true}, nil}, // what is missing was lost, and answered
		{Link{5, 4, 6, true}, nil},
		{Link{5, 5, 3, true}, nil},
		{Link{7, 1, 9, true}, nil},
		{Link{7, 1, 11, false}, fault.OutOfOrder},
	} {
		together := r.link(one, c.link)
		if i%2 == 0 {
			r.settle()
		} else {
			r.propose()
		}
		r.settle()
		if together.called != 1 || !errors.Is(together.err, c.want) {
			t.Errorf("%+v: %d answers, %v; want %v", c.link, together.called, together.err, c.want)
		}
	}
	r.wantBodies("5/3/1", "5/3/2", "5/4/1", "6/1/1", "5/4/5", "5/4/6", "5/5/3", "7/1/9")
	r.m.Query(func(v *View) {
		if got := v.Sent(5); got != (Link{Producer: 5, Epoch: 5, Seq: 3}) || v.Producers() != 3 {
			t.Errorf("sent %+v, %d producers", got, v.Producers())
		}
	})
	r.settle()
}

// TestEpochsOfOneEntry: an entry holds one run of a producer, so the next epoch
// comes in the next.
func TestEpochsOfOneEntry(t *testing.T) {
	r := linkRig(t)
	var list []*answer
	for _, l := range []Link{{1, 1, 1, false}, {2, 1, 1, false}, {1, 1, 2, false}, {1, 2, 1, false}, {2, 1, 2, false}, {1, 2, 2, false}} {
		list = append(list, r.link(one, l))
	}
	r.settle()
	for i, a := range list {
		wantAnswer(t, fmt.Sprint(i), a, int64(i), nil)
	}
	if len(r.log) != 3 {
		t.Errorf("%d entries", len(r.log))
	}
}

// TestLostEntryBreaksTheChain: entries that were built on one that is lost do
// nothing, and what comes then begins at what is fact.
func TestLostEntryBreaksTheChain(t *testing.T) {
	r := linkRig(t)
	r.must(CreateChannel{Key: one, Channel: red})
	send := func(seq uint64) *answer { return r.link(one, Link{Producer: 5, Epoch: 1, Seq: seq}) }
	lost := send(1)
	r.propose()
	built, other := send(2), r.send(one, Message{Body: []byte("other")})
	r.propose()
	r.m.Drop(r.inflight[0].token, errLost)
	r.inflight = r.inflight[1:]
	next := send(3)
	if r.propose() {
		t.Error("it plans behind what is lost")
	}
	r.commit()
	wantAnswer(t, "lost", lost, 0, errLost)
	wantAnswer(t, "built on it", built, 0, fault.OutOfOrder)
	wantAnswer(t, "in the same entry", other, 0, fault.OutOfOrder)
	r.settle()
	wantAnswer(t, "next", next, 0, fault.OutOfOrder)
	again := []*answer{send(1), send(2), send(3)}
	r.settle()
	for i, a := range again {
		wantAnswer(t, "again", a, int64(i), nil)
	}
	r.wantBodies("5/1/1", "5/1/2", "5/1/3")
	r.check()
}

// TestLostTailGoesBack: an entry that is refused at once takes back what was
// planned with it, and nothing else.
func TestLostTailGoesBack(t *testing.T) {
	r := linkRig(t)
	send := func(seq uint64) *answer { return r.link(one, Link{Producer: 5, Epoch: 1, Seq: seq}) }
	first := send(1)
	r.propose()
	lost := send(2)
	repeat := send(1)
	r.propose()
	r.m.Drop(r.inflight[1].token, errLost)
	r.inflight = r.inflight[:1]
	third, again := send(3), send(2)
	r.settle()
	wantAnswer(t, "first", first, 0, nil)
	wantAnswer(t, "lost", lost, 0, errLost)
	wantAnswer(t, "repeat", repeat, 0, errLost)
	wantAnswer(t, "third", third, 0, fault.OutOfOrder)
	wantAnswer(t, "again", again, 1, nil)
	r.wantBodies("5/1/1", "5/1/2")
}

// TestRepeatOfWhatIsLost is not answered as done.
func TestRepeatOfWhatIsLost(t *testing.T) {
	r := linkRig(t)
	lost := r.link(one, Link{Producer: 5, Epoch: 1, Seq: 1})
	r.propose()
	r.must(Open{Key: two})
	repeat := r.link(one, Link{Producer: 5, Epoch: 1, Seq: 1})
	r.settle()
	wantAnswer(t, "lost", lost, 0, nil)
	wantAnswer(t, "repeat", repeat, -1, nil)

	gone := r.link(one, Link{Producer: 5, Epoch: 1, Seq: 2})
	r.propose()
	r.m.Do(Open{Key: six}, nil)
	repeat = r.link(one, Link{Producer: 5, Epoch: 1, Seq: 2})
	r.propose()
	r.m.Drop(r.inflight[0].token, errLost)
	r.inflight = r.inflight[1:]
	r.settle()
	wantAnswer(t, "gone", gone, 0, errLost)
	wantAnswer(t, "its repeat", repeat, 0, fault.NotLeader)
}

// TestRefusedPublishUsesItsNumber: TopicNotFound is an outcome.
func TestRefusedPublishUsesItsNumber(t *testing.T) {
	r := linkRig(t)
	refused := r.link(six, Link{Producer: 5, Epoch: 1, Seq: 1})
	next := r.link(one, Link{Producer: 5, Epoch: 1, Seq: 2})
	r.settle()
	wantAnswer(t, "refused", refused, 0, fault.TopicNotFound)
	wantAnswer(t, "next", next, 0, nil)
	repeat := r.link(six, Link{Producer: 5, Epoch: 1, Seq: 1})
	r.settle()
	wantAnswer(t, "its repeat", repeat, 0, fault.TopicNotFound)
}

// TestRefusedPublishStaysRefused though its partition is opened before it comes
// again.
func TestRefusedPublishStaysRefused(t *testing.T) {
	r := linkRig(t)
	r.must(CreateChannel{Key: one, Channel: red})
	l := r.attach(one, red)
	r.publish(one, 1)
	send := func(k Key, seq uint64) *answer { return r.link(k, Link{Producer: 5, Epoch: 1, Seq: seq}) }
	l.finish(0) // a report, which must not be in the entry
	refused := []*answer{send(six, 1), send(six, 2)}
	good := send(one, 3)
	r.m.Do(Open{Key: six}, nil)
	late := send(six, 4) // it is not known yet that this one is done
	r.settle()
	for _, a := range refused {
		wantAnswer(t, "refused", a, 0, fault.TopicNotFound)
	}
	wantAnswer(t, "good", good, 1, nil)
	wantAnswer(t, "late", late, 0, nil)
	r.checkpoint()
	r.crash(0, 0, 1)
	for seq := range uint64(4) {
		k, want := six, error(fault.TopicNotFound)
		if seq+1 == 3 {
			k = one
		}
		if seq+1 >= 3 {
			want = nil
		}
		a := send(k, seq+1)
		r.settle()
		wantAnswer(t, fmt.Sprintf("repeat of %d", seq+1), a, -1, want)
	}
	if r.m.partitions[six].end != 1 {
		t.Errorf("%d messages", r.m.partitions[six].end)
	}
	next := r.link(six, Link{Producer: 5, Epoch: 2, Seq: 1}) // forgets all that
	r.settle()
	wantAnswer(t, "next epoch", next, 1, nil)
	repeat := r.link(six, Link{Producer: 5, Epoch: 2, Seq: 1})
	r.settle()
	wantAnswer(t, "repeat", repeat, -1, nil)
}

// TestRefusedPublishesAreBounded: of those that are forgotten nothing is said.
func TestRefusedPublishesAreBounded(t *testing.T) {
	r := linkRig(t)
	send := func(k Key, seq uint64) *answer {
		a := r.link(k, Link{Producer: 5, Epoch: 1, Seq: seq})
		r.settle()
		return a
	}
	for seq := range uint64(refusedMax + 3) {
		wantAnswer(t, "refused", send(six, seq+1), 0, fault.TopicNotFound)
	}
	r.must(Open{Key: six})
	for seq, want := range map[uint64]error{1: fault.NotLeader, 3: fault.NotLeader, 4: fault.TopicNotFound, refusedMax + 3: fault.TopicNotFound} {
		wantAnswer(t, fmt.Sprintf("repeat of %d", seq), send(six, seq), 0, want)
	}
	r.checkpoint()
	r.crash(0, 0, 1)
	wantAnswer(t, "repeat", send(six, 3), 0, fault.NotLeader)
	wantAnswer(t, "repeat", send(six, 4), 0, fault.TopicNotFound)
	wantAnswer(t, "next", send(six, refusedMax+4), 0, nil)
}

// TestProducersAreBounded: the one that has been silent for longest is
// forgotten, on all replicas alike.
func TestProducersAreBounded(t *testing.T) {
	r := linkRig(t)
	for i := range uint64(producersMax) {
		r.link(one, Link{Producer: 1000 - i, Epoch: 1, Seq: 1})
		r.settle()
	}
	r.link(one, Link{Producer: 1000, Epoch: 1, Seq: 2})
	r.settle()
	r.link(one, Link{Producer: 7, Epoch: 1, Seq: 1})
	r.settle()
	r.link(one, Link{Producer: 2000, Epoch: 1, Seq: 1})
	r.settle()
	known := func(id uint64) bool { return r.m.producers.get(id).seq > 0 }
	if len(r.m.producers) != producersMax || !known(7) || !known(2000) || !known(1000) || known(999) || known(998) || !known(997) {
		t.Errorf("%d producers: %+v", len(r.m.producers), r.m.producers)
	}
	if !slices.IsSortedFunc(r.m.producers, func(a, b producer) int { return int(a.id) - int(b.id) }) {
		t.Error("not sorted")
	}
	back := r.link(one, Link{Producer: 999, Epoch: 1, Seq: 2})
	r.settle()
	wantAnswer(t, "one that was forgotten", back, 0, fault.OutOfOrder)
	r.check()
}

// TestFollowerTakesNothing before it leads, and says when it does.
func TestFollowerTakesNothing(t *testing.T) {
	var said []bool
	r := newRig(t)
	o := r.m.o
	o.Follower, o.Leads = true, func(leads bool) { said = append(said, leads) }
	m := New(o)
	if err := m.Publish(&Publish{Topic: 7, Messages: bodies(1)}); !errors.Is(err, fault.NotLeader) {
		t.Errorf("publish: %v", err)
	}
	m.Lead(3)
	if err := m.Publish(&Publish{Topic: 7, Messages: bodies(1)}); err != nil {
		t.Errorf("publish: %v", err)
	}
	m.Follow()
	if !slices.Equal(said, []bool{true, false}) {
		t.Errorf("it said %v", said)
	}
}

// TestProducersAreState: a checkpoint and a transfer carry them, and a state of
// the version before is read.
func TestProducersAreState(t *testing.T) {
	r := linkRig(t)
	for _, l := range []Link{{9, 2, 1, false}, {3, 1, 1, false}, {9, 2, 2, false}} {
		r.link(one, l)
	}
	r.settle()
	r.link(six, Link{3, 1, 2, false})
	r.settle()
	want := slices.Clone(r.m.producers)
	if len(want) != 2 {
		t.Fatalf("%+v", want)
	}
	f := replica(t, r, 0)
	f.link0()
	f.install(carry(t, r, f, 64), r)
	if !reflect.DeepEqual(f.m.producers, want) {
		t.Errorf("after a transfer: %+v, want %+v", f.m.producers, want)
	}
	r.checkpoint()
	state := r.saved[0].state
	r.crash(0, 0, 1)
	if !reflect.DeepEqual(r.m.producers, want) {
		t.Errorf("after a crash: %+v, want %+v", r.m.producers, want)
	}
	repeat := r.link(one, Link{Producer: 9, Epoch: 2, Seq: 2})
	r.settle()
	wantAnswer(t, "repeat", repeat, -1, nil)

	table := want.append(nil)
	at := bytes.Index(state, table)
	old := slices.Concat([]byte{1}, state[1:at], state[at+len(table):])
	m := New(r.m.o)
	if err := m.restore(old, r.store.Restore); err != nil {
		t.Fatalf("restore a state of version 1: %v", err)
	}
	if m.producers != nil || m.partitions[one].end != 3 {
		t.Errorf("producers %+v, end %d", m.producers, m.partitions[one].end)
	}
	for name, bad := range map[string]producers{
		"twice":    {want[0], want[0]},
		"order":    {want[1], want[0]},
		"no id":    {{epoch: 1, seq: 1}},
		"no epoch": {{id: 1, seq: 1}},
		"no seq":   {{id: 1, epoch: 1}},
		"refused":  {{id: 1, epoch: 1, seq: 3, refused: []uint64{4}}},
		"falling":  {{id: 1, epoch: 1, seq: 3, refused: []uint64{3, 2}}},
		"forgot":   {{id: 1, epoch: 1, seq: 3, refused: []uint64{2}, forgot: 2}},
		"too many": make(producers, producersMax+1),
	} {
		if name == "too many" {
			for i := range bad {
				bad[i] = producer{id: uint64(i) + 1, epoch: 1, seq: 1}
			}
		}
		state := slices.Concat(state[:at], bad.append(nil), state[at+len(table):])
		if err := New(r.m.o).restore(state, r.store.Restore); !errors.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// link0 makes a replica know a producer that the state it gets does not.
func (r *rig) link0() {
	r.m.producers = producers{{id: 77, epoch: 1, seq: 1}}
}

func TestRunsComeBack(t *testing.T) {
	for _, want := range []run{{1, 1, 0, 1}, {1 << 63, 1 << 40, 300, 1<<64 - 1}} {
		b := appendRun(nil, &want)
		if len(b) > runSize {
			t.Errorf("%+v takes %d bytes", want, len(b))
		}
		k, payload, rest, err := decodeCommand(b)
		if err != nil || k != kindLink || len(rest) > 0 {
			t.Fatalf("%+v: %v", want, err)
		}
		if got, err := decodeRun(payload); err != nil || got != want {
			t.Errorf("%+v comes back as %+v, %v", want, got, err)
		}
		for n := range payload {
			if got, err := decodeRun(payload[:n]); err == nil {
				t.Errorf("cut to %d bytes it is %+v", n, got)
			}
		}
	}
	for _, bad := range []run{{0, 1, 0, 1}, {1, 0, 0, 1}, {1, 1, 1, 1}, {1, 1, 2, 1}} {
		_, payload, _, _ := decodeCommand(appendRun(nil, &bad))
		if _, err := decodeRun(payload); err == nil {
			t.Errorf("%+v is read", bad)
		}
	}
}

// TestLinkStandsFirst: a link behind another command is no entry of ours.
func TestLinkStandsFirst(t *testing.T) {
	r := newRig(t)
	data := appendCommand(appendHeader(nil, header{time: 1, term: 1, count: 2}), Open{Key: one})
	data = appendRun(data, &run{1, 1, 0, 1})
	if err := r.m.Apply(shard.Entry{Index: 1, Term: 1, Data: data}, nil); err == nil {
		t.Error("applied")
	}
}

// TestCommandsTravel: what nodes send each other is a command and nothing else.
func TestCommandsTravel(t *testing.T) {
	for _, want := range commands {
		b := EncodeCommand([]byte("x"), want)[1:]
		got, err := DecodeCommand(b)
		if err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("command (-want +got):\n%s", diff)
		}
		for n := range b {
			if c, err := DecodeCommand(b[:n]); err == nil {
				t.Errorf("cut to %d bytes it is %+v", n, c)
			}
		}
		if _, err := DecodeCommand(append(b, 0)); err == nil {
			t.Error("one with more behind it is read")
		}
	}
	for _, b := range [][]byte{
		appendRun(nil, &run{1, 1, 0, 1}), appendDelta(nil, deltaTarget{one, 1, 1}, &Delta{}), (&writer{}).publish(nil, one, false, &Publish{Messages: bodies(1)}, 1),
	} {
		if c, err := DecodeCommand(b); err == nil {
			t.Errorf("%x is %+v", b, c)
		}
	}
}

func FuzzDecodeCommand(f *testing.F) {
	for _, c := range commands {
		f.Add(EncodeCommand(nil, c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			return
		}
		if got := EncodeCommand(nil, c); !bytes.Equal(got, b) {
			t.Fatalf("%x comes back as %x", b, got)
		}
	})
}

// process publishes under links as a node does: it sends in order, sends again
// what is not answered, and gives up now and then.
type process struct {
	r     *rig
	rng   *rand.Rand
	id    uint64
	epoch uint64
	seq   uint64
	made  int
	open  []*parcel // not answered, by number
	done  []*parcel
	again bool // everything that is open must be sent again
}

// parcel is a publish of a process.
type parcel struct {
	number int // in what the process has made
	link   Link
	answer *answer // of the last time that it was sent; nil: never
	old    []*answer
	acked  bool
	base   int64
}

// Published is not used: answers are looked at between steps.
func (p *process) make() {
	p.seq++
	p.made++
	p.open = append(p.open, &parcel{number: p.made, link: Link{Producer: p.id, Epoch: p.epoch, Seq: p.seq}})
}

// send sends what was not sent yet, or all that is open.
func (p *process) send() {
	for i, o := range p.open {
		if o.answer != nil && !p.again {
			continue
		}
		if o.answer != nil {
			o.old = append(o.old, o.answer)
		}
		a := &answer{}
		link := o.link
		link.Oldest = i == 0
		if p.r.m.Publish(&Publish{
			Topic: one.Topic, Done: a, Link: link,
			Messages: []Message{{Body: fmt.Appendf(nil, "%d/%d", p.id, o.number)}, {Body: []byte("more")}},
		}) != nil {
			break
		}
		o.answer = a
	}
	p.again = false
}

// look takes the answers.
func (p *process) look() error {
	for _, o := range p.open {
		answers := o.old
		if o.answer != nil {
			answers = append(slices.Clip(answers), o.answer)
		}
		for _, a := range answers {
			switch {
			case a.called > 1:
				return fmt.Errorf("%+v is answered twice", o.link)
			case a.called == 0:
			case a.err == nil:
				o.acked = true
				o.base = max(o.base, a.base)
			case a == o.answer:
				p.again = true
			}
		}
	}
	p.open = slices.DeleteFunc(p.open, func(o *parcel) bool {
		if o.acked {
			p.done = append(p.done, o)
		}
		return o.acked
	})
	return nil
}

// giveUp begins a new epoch.
func (p *process) giveUp() {
	p.done = append(p.done, p.open...)
	p.open, p.seq, p.again = nil, 0, false
	p.epoch++
}

// verify looks for what was published.
func (p *process) verify(at map[string]int64) error {
	last := int64(-1)
	for n := 1; n <= p.made; n++ {
		base, ok := at[fmt.Sprintf("%d/%d", p.id, n)]
		i := slices.IndexFunc(p.done, func(o *parcel) bool { return o.number == n })
		o := p.done[i]
		switch {
		case o.acked && !ok:
			return fmt.Errorf("%+v was acknowledged, and is not there", o.link)
		case o.acked && o.base > 0 && o.base != base:
			return fmt.Errorf("%+v was acknowledged at %d, and stands at %d", o.link, o.base, base)
		case ok && base <= last:
			return fmt.Errorf("%+v stands at %d, one before it at %d", o.link, base, last)
		case ok:
			last = base
		}
	}
	return nil
}

// processes runs some processes for a while, with all that can go wrong.
func processes(t fataler, seed uint64) (r *rig, err error) {
	rng := rand.New(rand.NewPCG(seed, 9))
	r = linkRig(t)
	r.max = []int{200, 1000, 1 << 20}[rng.IntN(3)]
	var ps []*process
	for i := range 1 + rng.IntN(3) {
		ps = append(ps, &process{r: r, rng: rng, id: uint64(i) + 1, epoch: 1})
	}
	for range 400 {
		if err := r.stepProcess(ps[rng.IntN(len(ps))], rng); err != nil {
			return r, err
		}
		if rng.IntN(12) == 0 {
			r.trouble(ps, rng)
		}
	}
	for range 50 {
		for _, p := range ps {
			p.send()
		}
		r.settle()
		for _, p := range ps {
			if err := p.look(); err != nil {
				return r, err
			}
		}
	}
	return r, r.verifyProcesses(ps)
}

func (r *rig) stepProcess(p *process, rng *rand.Rand) error {
	switch rng.IntN(6) {
	case 0, 1:
		for range 1 + rng.IntN(4) {
			p.make()
		}
		p.send()
	case 2:
		p.send()
	case 3:
		r.propose()
	case 4:
		r.commit()
	default:
		if rng.IntN(10) == 0 {
			r.send(one, Message{Body: []byte("none")})
		}
	}
	return p.look()
}

// trouble is what makes a process send again.
func (r *rig) trouble(ps []*process, rng *rand.Rand) {
	drop := func(i int) {
		r.m.Drop(r.inflight[i].token, errLost)
		r.inflight = slices.Delete(r.inflight, i, i+1)
	}
	switch n := len(r.inflight); rng.IntN(8) {
	case 0:
		r.elect()
	case 1:
		r.crash(rng.IntN(3), rng.IntN(2), rng.Uint64())
		for _, p := range ps {
			p.again = true
		}
	case 2:
		r.checkpoint()
	case 3:
		if n > 0 {
			drop(n - 1)
		}
	case 4:
		if n > 0 {
			drop(rng.IntN(n))
		}
	case 5:
		r.stale()
	case 6:
		ps[rng.IntN(len(ps))].giveUp()
	default:
		ps[rng.IntN(len(ps))].again = true // its link broke
	}
}

func (r *rig) verifyProcesses(ps []*process) error {
	at := make(map[string]int64)
	for i, body := range r.bodies(one) {
		if strings.Contains(body, "/") {
			if was, ok := at[body]; ok {
				return fmt.Errorf("%s stands at %d and at %d", body, was, i)
			}
			at[body] = int64(i)
		}
	}
	for _, p := range ps {
		if len(p.open) > 0 {
			return fmt.Errorf("%d publishes of process %d are not answered, from %+v on", len(p.open), p.id, p.open[0].link)
		}
		if err := p.verify(at); err != nil {
			return err
		}
	}
	r.check()
	return nil
}

// TestProcessesPublishOnce: whatever is lost, dropped and sent again, what is
// acknowledged is there, nothing is there twice, and all is in order.
func TestProcessesPublishOnce(t *testing.T) {
	n := 300
	if testing.Short() {
		n = 50
	}
	for seed := range uint64(n) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			if _, err := processes(t, seed); err != nil {
				t.Fatal(err)
			}
		})
	}
}
