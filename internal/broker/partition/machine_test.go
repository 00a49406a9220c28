package partition

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/shard"
)

var (
	one = Key{Topic: 7, Partition: 0}
	two = Key{Topic: 7, Partition: 1}
	six = Key{Topic: 9, Partition: 3}
)

const red, blue, mist = uint64(1), uint64(2), uint64(3)

// TestMachineAgainstModel runs random commands, deliveries, elections,
// checkpoints and crashes. The state must always be what a naive reading of
// the committed entries gives, and so what is undelivered is exactly what was
// published and not finished.
func TestMachineAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig(t)
		r.max = rapid.SampledFrom([]int{200, 1000, 1 << 20}).Draw(t, "max")
		r.spillMin, r.o.CompactBytes = 6, 1
		r.crash(0, 0, 0)
		key := rapid.SampledFrom([]Key{one, two})
		channel := rapid.SampledFrom([]uint64{red, blue})
		w := &walk{rig: r, key: key, channel: channel}
		for _, k := range []Key{one, two} {
			r.m.Do(Open{Key: k}, nil)
			r.m.Do(CreateChannel{Key: k, Channel: red}, nil)
			r.attach(k, red)
		}
		t.Repeat(map[string]func(*rapid.T){
			"publish":    w.publish,
			"publish 2":  w.publish,
			"sequenced":  w.sequenced,
			"command":    func(t *rapid.T) { r.m.Do(drawCommand(t, r, key.Draw(t, "key"), channel), func(error) {}) },
			"attach":     w.attach,
			"lane":       func(t *rapid.T) { drawLane(t, r, func(l *testLane) { w.lane(t, l) }) },
			"deliver":    func(t *rapid.T) { drawLane(t, r, func(l *testLane) { deliver(t, r, l) }) },
			"deliver 2":  func(t *rapid.T) { drawLane(t, r, func(l *testLane) { deliver(t, r, l) }) },
			"tick":       func(t *rapid.T) { r.now += rapid.Int64Range(0, 100e6).Draw(t, "ns"); r.m.Tick(r.now) },
			"propose":    func(*rapid.T) { r.propose() },
			"commit":     func(*rapid.T) { r.commit() },
			"settle":     w.settle,
			"settle 2":   w.settle,
			"flush":      func(*rapid.T) { r.flush() },
			"compact":    func(*rapid.T) { r.compact() },
			"checkpoint": w.checkpoint,
			"disaster":   w.disaster,
			"":           w.check,
		})
	})
}

// walk is the actions of the random test.
type walk struct {
	*rig
	key     *rapid.Generator[Key]
	channel *rapid.Generator[uint64]
	acked   []acked
}

func (w *walk) publish(t *rapid.T) {
	k := w.key.Draw(t, "key")
	ms := bodies(rapid.IntRange(1, 12).Draw(t, "n"))
	for i := range ms {
		if rapid.IntRange(0, 3).Draw(t, "deferred") == 0 {
			ms[i].DueNs = w.now + rapid.Int64Range(-50e6, 200e6).Draw(t, "due")
		}
	}
	w.acked = append(w.acked, acked{k, ms, w.send(k, ms...)})
}

// sequenced publishes under some link: the next one, an old one, one too far.
func (w *walk) sequenced(t *rapid.T) {
	k := w.key.Draw(t, "key")
	a := &answer{}
	l := Link{
		Producer: rapid.Uint64Range(1, 3).Draw(t, "producer"),
		Epoch:    rapid.Uint64Range(1, 3).Draw(t, "epoch"),
		Oldest:   rapid.IntRange(0, 5).Draw(t, "oldest") == 0,
	}
	at := w.m.producers.get(l.Producer)
	if p, ok := w.m.links.planned[l.Producer]; ok {
		at = p
	}
	if l.Epoch = max(l.Epoch, at.epoch-min(at.epoch, 1)); l.Epoch == at.epoch {
		l.Seq = at.seq
	}
	l.Seq += rapid.SampledFrom([]uint64{1, 1, 1, 1, 0, 2}).Draw(t, "step")
	ms := bodies(rapid.IntRange(1, 12).Draw(t, "n"))
	if err := w.m.Publish(&Publish{Topic: k.Topic, Partition: k.Partition, Messages: ms, Done: a, Link: l}); err != nil {
		t.Fatalf("publish: %v", err)
	}
	w.acked = append(w.acked, acked{k, ms, a})
}

func (w *walk) attach(t *rapid.T) {
	k, c := w.key.Draw(t, "key"), w.channel.Draw(t, "channel")
	w.m.Do(Open{Key: k}, nil)
	w.m.Do(CreateChannel{Key: k, Channel: c}, nil)
	w.rig.attach(k, c)
}

func (w *walk) lane(t *rapid.T, l *testLane) {
	if rapid.IntRange(0, 3).Draw(t, "detach") == 0 {
		w.m.Detach(l)
		return
	}
	l.room = 0
	l.want(rapid.IntRange(0, 9).Draw(t, "n"))
}

func (w *walk) settle(*rapid.T) {
	w.rig.settle()
	w.checkLanes()
}

func (w *walk) checkpoint(t *rapid.T) {
	if rapid.Bool().Draw(t, "abandoned") {
		_, _ = w.m.Checkpoint(w.index).Write()
	}
	w.rig.checkpoint()
}

func (w *walk) disaster(t *rapid.T) {
	switch rapid.IntRange(0, 7).Draw(t, "disaster") {
	case 0:
		w.elect()
	case 1:
		w.stale()
	case 2, 3:
		w.crash(rapid.IntRange(0, 2).Draw(t, "survive"), rapid.IntRange(0, 1).Draw(t, "back"), rapid.Uint64().Draw(t, "seed"))
	}
}

func (w *walk) check(t *rapid.T) {
	w.rig.check()
	for i := range w.acked {
		w.acked[i].check(t, w.rig)
	}
}

// acked is a publish to look for once it is answered.
type acked struct {
	k  Key
	ms []Message
	*answer
}

// check requires an acknowledged publish to be at its place.
func (a *acked) check(t fataler, r *rig) {
	if a.called > 1 {
		t.Fatalf("publish was answered %d times", a.called)
	}
	p := r.m.partitions[a.k]
	if a.called == 0 || a.err != nil || a.base < 0 || p == nil { // below zero: another one had its number
		return
	}
	if a.base+int64(len(a.ms)) > p.end {
		t.Fatalf("publish at %d was acknowledged, %v ends at %d", a.base, a.k, p.end)
	}
}

func drawCommand(t *rapid.T, r *rig, k Key, channel *rapid.Generator[uint64]) Command {
	c := channel.Draw(t, "channel")
	switch rapid.IntRange(0, 24).Draw(t, "command") {
	case 21, 22, 23, 24:
		return drawIngest(t, r, k, channel)
	case 0, 1, 2, 3:
		return CreateChannel{Key: k, Channel: c}
	case 4:
		return DropChannel{Key: k, Channel: c}
	case 5, 6:
		return Empty{Key: k, Channel: c}
	case 7, 8:
		return EmptyTopic{k}
	case 9, 10, 11:
		return PauseTopic{Key: k, Paused: true}
	case 12, 13, 14:
		return PauseTopic{Key: k}
	case 15:
		return CreateChannel{Key: k, Channel: mist, Ephemeral: true}
	case 16:
		return DropChannel{Key: k, Channel: mist}
	case 17:
		return ClearEphemeral{k}
	case 18:
		if rapid.IntRange(0, 5).Draw(t, "close") == 0 {
			return Close{k}
		}
		return AdvanceStart{Key: k, Offset: rapid.Int64Range(0, 20).Draw(t, "offset")}
	default:
		return Open{Key: k}
	}
}

func drawLane(t *rapid.T, r *rig, f func(*testLane)) {
	var live []*testLane
	for _, l := range r.lanes {
		if l.begun == 1 && l.stopped == 0 {
			live = append(live, l)
		}
	}
	if len(live) > 0 {
		f(rapid.SampledFrom(live).Draw(t, "lane"))
	}
}

// deliver does something with a message that the lane has in its hands.
func deliver(t *rapid.T, r *rig, l *testLane) {
	os := append(l.open(), sorted(l.due)...)
	if len(os) == 0 {
		return
	}
	o := rapid.SampledFrom(os).Draw(t, "offset")
	if rapid.IntRange(0, 2).Draw(t, "many") == 0 {
		for _, o := range os[:len(os)/2] {
			l.finish(o)
		}
		return
	}
	switch rapid.IntRange(0, 4).Draw(t, "outcome") {
	case 0:
		l.park(parked.Entry{Offset: o, DueNs: r.now + rapid.Int64Range(0, 100e6).Draw(t, "delay"), Attempts: 2})
	case 1:
		if _, ok := l.due[o]; !ok {
			l.note(o, 3)
		}
	default:
		l.finish(o)
	}
}

// stale has an entry of an earlier leadership come into the log under a new
// one.
func (r *rig) stale() {
	if len(r.inflight) == 0 {
		return
	}
	data := r.inflight[0].data
	r.elect()
	r.index++
	e := shard.Entry{Index: r.index, Term: r.term, Data: data}
	r.log = append(r.log, e)
	r.apply(e, nil)
}

// compact does all the compaction that there is.
func (r *rig) compact() {
	for range 2 { // the first round only asks
		for {
			r.compacts++
			did, err := r.m.Compact(compactTime.Add(time.Duration(r.compacts) * time.Hour))
			if err != nil {
				r.t.Fatalf("compact: %v", err)
			}
			if !did {
				break
			}
		}
		r.m.Tick(r.now)
	}
}

// TestReplicasAgree applies the same entries on three replicas, of which one
// proposed them and one crashes now and then: their states are the same bytes.
func TestReplicasAgree(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 2))
		leader, follower, crasher := newRig(t), newRig(t), newRig(t)
		leader.run(rng, 200, func(e shard.Entry) {
			for _, r := range []*rig{follower, crasher} {
				r.index, r.log = e.Index, append(r.log, e)
				r.apply(e, nil)
			}
			if rng.IntN(20) == 0 {
				crasher.checkpoint()
			}
			if rng.IntN(20) == 0 {
				crasher.crash(0, rng.IntN(2), rng.Uint64())
			}
		})
		want := leader.facts()
		if !bytes.Equal(want, follower.facts()) || !bytes.Equal(want, crasher.facts()) {
			t.Fatalf("seed %d: replicas differ", seed)
		}
		a, err := leader.m.Checkpoint(leader.index).Write()
		if err != nil {
			t.Fatal(err)
		}
		b, err := follower.m.Checkpoint(leader.index).Write()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Fatalf("seed %d: checkpoints differ", seed)
		}
	}
}

// facts is the replicated state.
func (r *rig) facts() []byte {
	b := r.m.appendHead(nil)
	for _, p := range r.m.sorted {
		b = p.append(b)
		for _, c := range p.channels {
			if c.parked != nil {
				_ = c.parked.Each(func(e parked.Entry) error {
					b = fmt.Appendf(b, "%v", e)
					return nil
				})
			}
		}
	}
	return b
}

// run does random things for a number of committed entries.
func (r *rig) run(rng *rand.Rand, entries int, committed func(shard.Entry)) {
	keys := []Key{one, two, six}
	for len(r.log) < entries {
		k, c := keys[rng.IntN(3)], uint64(1+rng.IntN(2))
		switch rng.IntN(8) {
		case 0:
			r.m.Do(Open{Key: k}, nil)
			r.m.Do(CreateChannel{Key: k, Channel: c}, nil)
			r.attach(k, c)
		case 1, 2, 3:
			ms := bodies(1 + rng.IntN(9))
			ms[0].DueNs = r.now + rng.Int64N(200e6)
			r.send(k, ms...)
		case 4:
			r.m.Do([]Command{PauseTopic{Key: k, Paused: true}, PauseTopic{Key: k}, EmptyTopic{k}, Empty{k, c}, DropChannel{k, c}, r.someIngest(rng, k, c)}[rng.IntN(6)], nil)
		default:
			for _, l := range r.lanes {
				if os := append(l.open(), sorted(l.due)...); l.stopped == 0 && len(os) > 0 {
					if o := os[rng.IntN(len(os))]; rng.IntN(3) > 0 {
						l.finish(o)
					} else {
						l.park(parked.Entry{Offset: o, DueNs: r.now + rng.Int64N(200e6), Attempts: 1})
					}
				}
			}
		}
		r.now += rng.Int64N(20e6)
		r.m.Tick(r.now)
		r.propose()
		n := len(r.log)
		r.commit()
		for _, e := range r.log[n:] {
			committed(e)
		}
	}
}

func TestPublishesAreMerged(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one, Name: "orders"})
	r.must(Open{Key: two, Name: "orders"})
	before := len(r.log)
	var as []*answer
	for i := range 5 {
		as = append(as, r.send(one, bodies(2)...), r.send(two, bodies(1)...))
		_ = i
	}
	r.settle()
	if got := len(r.log) - before; got != 1 {
		t.Fatalf("%d entries, want 1", got)
	}
	for i, a := range as {
		if want := int64(i/2) * int64(2-i%2); a.called != 1 || a.err != nil || a.base != want {
			t.Errorf("publish %d: %+v, want base %d", i, *a, want)
		}
	}
	bs, err := r.m.partitions[one].log.Read(0, 1<<20)
	if err != nil || len(bs) != 1 || bs[0].Count != 10 {
		t.Fatalf("%d batches, %v, want one of ten records", len(bs), err)
	}
}

func TestPublishIsNotSplit(t *testing.T) {
	r := newRig(t)
	r.max = 1000
	r.must(Open{Key: one})
	before := len(r.log)
	small := r.send(one, bodies(3)...)
	big := r.send(one, bodies(200)...)
	last := r.send(one, bodies(1)...)
	r.settle()
	if small.base != 0 || big.base != 3 || last.base != 203 || last.called != 1 {
		t.Fatalf("bases %d, %d, %d", small.base, big.base, last.base)
	}
	if got := len(r.log) - before; got != 3 {
		t.Fatalf("%d entries, want 3", got)
	}
}

func TestBigPublishIsAlone(t *testing.T) {
	r := newRig(t)
	r.max = 1000
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	r.publish(one, 2)
	l := r.attach(one, red)
	r.settle()
	l.finish(0)
	r.send(one, bodies(200)...)
	r.propose()
	r.now += collectDelayNs
	r.propose()
	for i, want := range []uint32{1, 1} {
		if h, _, _ := decodeHeader(r.inflight[i].data); h.count != want {
			t.Errorf("entry %d has %d commands, want %d", i, h.count, want)
		}
	}
	r.settle()
	r.check()
}

func TestOrderOfPublishesAndCommands(t *testing.T) {
	r := newRig(t)
	r.m.Do(Open{Key: one}, nil)
	first := r.send(one, bodies(2)...)
	r.m.Do(CreateChannel{Key: one, Channel: red}, nil) // takes what waits
	second := r.send(one, bodies(3)...)
	r.m.Do(EmptyTopic{one}, nil) // nothing waits
	r.m.Do(PauseTopic{Key: one, Paused: true}, nil)
	third := r.send(one, bodies(4)...)
	r.m.Do(CreateChannel{Key: one, Channel: blue}, nil) // begins at the third
	r.settle()
	if first.base != 0 || second.base != 2 || third.base != 5 {
		t.Fatalf("bases %d, %d, %d", first.base, second.base, third.base)
	}
	if got := r.left(one, red).log; len(got) != 5 {
		t.Errorf("red has %v, want the first five", got)
	}
	if got := r.left(one, blue).log; len(got) != 0 {
		t.Errorf("blue has %v, want nothing yet", got)
	}
	r.must(PauseTopic{Key: one})
	if got := r.left(one, blue).log; !slices.Equal(got, []int64{5, 6, 7, 8}) {
		t.Errorf("blue has %v, want the last four", got)
	}
	r.check()
}

// TestHandOver has the rules of NSQ for messages without a channel.
func TestHandOver(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	want := func(channel uint64, os ...int64) {
		t.Helper()
		if got := r.left(one, channel).log; !slices.Equal(got, os) {
			t.Fatalf("channel %d has %v, want %v", channel, got, os)
		}
	}
	r.publish(one, 2) // 0, 1 wait
	r.must(CreateChannel{Key: one, Channel: red})
	want(red, 0, 1)
	r.must(CreateChannel{Key: one, Channel: blue})
	want(blue)
	r.publish(one, 1) // 2 for both
	want(red, 0, 1, 2)
	want(blue, 2)

	r.must(PauseTopic{Key: one, Paused: true})
	r.publish(one, 2) // 3, 4 wait
	r.must(CreateChannel{Key: one, Channel: 9})
	want(9)
	want(red, 0, 1, 2)
	r.must(PauseTopic{Key: one})
	want(9, 3, 4)
	want(blue, 2, 3, 4)
	want(red, 0, 1, 2, 3, 4)

	for _, c := range []uint64{red, blue, 9} {
		r.must(DropChannel{Key: one, Channel: c})
	}
	r.publish(one, 2) // 5, 6 wait for the next first channel
	r.must(CreateChannel{Key: one, Channel: 10})
	want(10, 5, 6)

	r.must(EmptyTopic{one}) // nothing waits: the channel keeps its own
	want(10, 5, 6)
	r.must(PauseTopic{Key: one, Paused: true})
	r.publish(one, 1) // 7
	r.must(EmptyTopic{one})
	r.publish(one, 1) // 8
	r.must(PauseTopic{Key: one})
	want(10, 5, 6, 8)
	r.must(Empty{Key: one, Channel: 10})
	want(10)
	r.check()
}

func TestChannelFromElsewhere(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.publish(one, 4)
	for from, want := range map[From][]int64{
		{Where: AtHandOver}:           {0, 1, 2, 3},
		{Where: AtStart}:              {0, 1, 2, 3},
		{Where: AtEnd}:                nil,
		{Where: AtOffset, Offset: 2}:  {2, 3},
		{Where: AtOffset, Offset: 99}: nil,
		{Where: AtOffset, Offset: -5}: {0, 1, 2, 3},
	} {
		r := newRig(t)
		r.must(Open{Key: one})
		r.publish(one, 4)
		r.must(CreateChannel{Key: one, Channel: red, From: from})
		if got := r.left(one, red).log; !slices.Equal(got, want) {
			t.Errorf("from %+v: %v, want %v", from, got, want)
		}
	}
	// A channel that begins at the end of a paused topic does not get what
	// waited before.
	r.must(PauseTopic{Key: one, Paused: true})
	r.must(CreateChannel{Key: one, Channel: red, From: From{Where: AtEnd}})
	r.publish(one, 1)
	l := r.attach(one, red)
	r.must(PauseTopic{Key: one})
	if got := l.open(); !slices.Equal(got, []int64{4}) {
		t.Errorf("from the end of a paused topic: %v, want 4", got)
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t)
	a := r.send(one, bodies(1)...)
	r.settle()
	if !errors.Is(a.err, fault.TopicNotFound) {
		t.Errorf("publish to a partition that is not open: %v", a.err)
	}
	if err := r.do(CreateChannel{Key: one, Channel: red}); !errors.Is(err, fault.TopicNotFound) {
		t.Errorf("create channel: %v", err)
	}
	r.must(Open{Key: one})
	if err := r.do(Empty{Key: one, Channel: red}); !errors.Is(err, fault.ChannelNotFound) {
		t.Errorf("empty: %v", err)
	}
	r.must(DropChannel{Key: one, Channel: red})
	for _, l := range []*testLane{r.attach(one, red), r.attach(six, red)} {
		r.settle()
		if l.begun != 0 || l.stopped != 1 || l.err == nil {
			t.Errorf("attach to nothing: %+v", l)
		}
	}
	r.must(Close{one})
	r.must(Close{one})
	if err := r.do(Open{Key: one}); !errors.Is(err, fault.TopicNotFound) {
		t.Errorf("open again: %v", err)
	}
	r.reserve = true
	if err := r.m.Publish(&Publish{Topic: 7, Messages: bodies(1)}); !errors.Is(err, fault.DiskReserve) {
		t.Errorf("publish below the reserve: %v", err)
	}
	r.must(Close{one})
	if err := r.m.Publish(&Publish{Topic: 7}); err == nil {
		t.Error("an empty publish is taken")
	}
}

func TestInboxIsBounded(t *testing.T) {
	r := newRig(t)
	r.m.o.InboxBytes, r.m.o.InboxCount = 1000, 10
	r.must(Open{Key: one})
	big := &Publish{Topic: 7, Messages: []Message{{Body: make([]byte, 5000)}}}
	if err := r.m.Publish(big); err != nil {
		t.Fatalf("a large publish alone: %v", err)
	}
	if err := r.m.Publish(&Publish{Topic: 7, Messages: bodies(1)}); !errors.Is(err, fault.Overloaded) {
		t.Fatalf("over the bytes: %v", err)
	}
	r.settle()
	for range 10 {
		r.send(one, bodies(1)...)
	}
	if err := r.m.Publish(&Publish{Topic: 7, Messages: bodies(1)}); !errors.Is(err, fault.Overloaded) {
		t.Fatalf("over the count: %v", err)
	}
	var a answer
	r.m.Do(Open{Key: two}, a.done) // commands have twice the room
	r.settle()
	if a.err != nil || r.m.inbox.waiting != 0 || r.m.inbox.waitingBytes != 0 {
		t.Fatalf("%v; %d items and %d bytes are left", a.err, r.m.inbox.waiting, r.m.inbox.waitingBytes)
	}
}

// TestPublishesAreHeldBack while the tails are over twice their budget; what
// lanes report goes on.
func TestPublishesAreHeldBack(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	l := r.attach(one, red)
	r.publish(one, 3)
	r.m.o.TailBytes = r.store.TailBytes()/2 - 1
	a := r.send(one, bodies(1)...)
	done := answer{}
	r.m.Do(EmptyTopic{one}, done.done)
	l.finish(0)
	r.settle()
	if a.called != 0 || done.called != 0 {
		t.Fatal("publish is not held back")
	}
	if got := r.left(one, red).log; !slices.Equal(got, []int64{1, 2}) {
		t.Fatalf("red has %v, want 1 and 2", got)
	}
	if next := r.m.Tick(r.now); next > r.now+holdPollNs {
		t.Fatalf("the tails are not looked at again: %d", next-r.now)
	}
	r.m.o.TailBytes = 1 << 20
	r.settle()
	if a.called != 1 || a.err != nil || done.called != 1 {
		t.Fatalf("publish is not let go: %+v, %+v", a, done)
	}
}

func TestReportsWaitForCompany(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	l := r.attach(one, red)
	r.publish(one, 3)
	l.finish(0)
	if next := r.m.Tick(r.now); next != r.now+collectDelayNs {
		t.Fatalf("next tick in %d ns", next-r.now)
	}
	if r.propose() {
		t.Fatal("a report alone goes out at once")
	}
	r.now += collectDelayNs
	if !r.propose() {
		t.Fatal("a report does not go out in time")
	}
	r.settle()
	l.finish(1)
	r.send(one, bodies(1)...)
	r.propose()
	if h, _, _ := decodeHeader(r.inflight[0].data); h.count != 2 {
		t.Fatalf("%d commands, want publish and report", h.count)
	}
}

func TestSettleAndDetachTakeLastReport(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	r.publish(one, 3)
	l := r.attach(one, red)
	r.settle()
	l.finish(1)
	var a answer
	r.m.Settle(a.done)
	r.propose()
	if a.called != 0 {
		t.Fatal("settled before the report is committed")
	}
	r.commit()
	if a.called != 1 || a.err != nil {
		t.Fatalf("settle: %+v", a)
	}
	l.finish(0)
	r.m.Detach(l)
	r.propose()
	r.commit()
	if l.stopped != 1 || l.err != nil {
		t.Fatalf("lane is stopped %d times: %v", l.stopped, l.err)
	}
	if got := r.left(one, red).log; !slices.Equal(got, []int64{2}) {
		t.Fatalf("red has %v, want 2", got)
	}
	again := r.attach(one, red)
	r.m.Detach(again) // before it is attached
	r.settle()
	if again.stopped != 1 || len(r.m.lanes) != 0 {
		t.Fatalf("%d lanes, stopped %d", len(r.m.lanes), again.stopped)
	}
}

// TestDroppedReportIsGivenAgain when a proposal is refused but the leadership
// stays.
func TestDroppedReportIsGivenAgain(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	r.publish(one, 3)
	l := r.attach(one, red)
	r.settle()
	l.finish(0)
	a := r.send(one, bodies(1)...)
	r.propose()
	r.m.Drop(r.inflight[0].token, errLost)
	r.inflight = nil
	if a.called != 1 || !errors.Is(a.err, errLost) {
		t.Fatalf("publish: %+v", a)
	}
	r.settle()
	if got := r.left(one, red).log; !slices.Equal(got, []int64{1, 2}) {
		t.Fatalf("red has %v, want 1 and 2", got)
	}
}

func TestLeadershipEnds(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	r.must(CreateChannel{Key: one, Channel: blue})
	l := r.attach(one, red)
	r.settle()
	flying := r.send(one, bodies(1)...)
	r.propose()
	late := r.attach(one, blue) // waits for the entry in flight
	r.propose()
	waiting := r.send(one, bodies(1)...)
	r.m.Follow()
	if l.stopped != 1 || !errors.Is(l.err, fault.NotLeader) || !errors.Is(waiting.err, fault.NotLeader) {
		t.Fatalf("lane %v, publish %v", l.err, waiting.err)
	}
	if err := r.m.Publish(&Publish{Topic: 7, Messages: bodies(1)}); !errors.Is(err, fault.NotLeader) {
		t.Fatalf("publish: %v", err)
	}
	// The next leader has committed it.
	r.commit()
	if flying.called != 1 || flying.err != nil || late.begun != 0 || late.stopped != 1 {
		t.Fatalf("publish %+v, lane begun %d, stopped %d", flying, late.begun, late.stopped)
	}
	r.m.Close(fault.Exiting)
	called := false
	r.m.Query(func(v *View) { called = v == nil })
	if !called {
		t.Fatal("a query after the end is not answered")
	}
	if err := r.m.Publish(&Publish{Topic: 7, Messages: bodies(1)}); !errors.Is(err, fault.Exiting) {
		t.Fatalf("publish: %v", err)
	}
}

func TestDeferred(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	l := r.attach(one, red)
	r.settle()
	const second = 1_000_000_000
	due := r.now + second
	r.send(one, Message{Body: []byte("later"), DueNs: due}, Message{Body: []byte("now")})
	r.settle()
	if l.skipped != 1 || !slices.Equal(l.open(), []int64{1}) {
		t.Fatalf("lane has %v, want 1", l.open())
	}
	if next := r.m.Tick(r.now); next != due {
		t.Fatalf("next tick in %d ns, want %d", next-r.now, due-r.now)
	}
	r.now = due - 1
	r.m.Tick(r.now)
	if len(l.due) != 0 {
		t.Fatal("delivered early")
	}
	r.now = due
	r.m.Tick(r.now)
	if len(l.due) != 1 {
		t.Fatal("not delivered when due")
	}
	// Taken is not finished: another lane gets it again.
	r.elect()
	l = r.attach(one, red)
	r.settle()
	if !slices.Equal(sorted(l.due), []int64{0}) {
		t.Fatalf("after an election due are %v, want 0", sorted(l.due))
	}
	l.finish(0)
	l.finish(1)
	r.settle()
	if p := r.m.partitions[one]; p.start != 2 {
		t.Fatalf("start is %d, want 2", p.start)
	}
}

// TestDueIsHeldForALaneThatIsFull, and is dropped when it is parked anew.
func TestDueIsHeldForALaneThatIsFull(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	r.publish(one, 600)
	l := r.attach(one, red)
	r.settle()
	l.room = 5
	for o := range int64(600) {
		l.park(parked.Entry{Offset: o, DueNs: r.now + 100 + o})
	}
	r.settle()
	if len(l.due) != 5 || l.room != 0 {
		t.Fatalf("lane took %d, want 5", len(l.due))
	}
	l.want(300)
	r.m.Tick(r.now)
	if len(l.due) != 305 {
		t.Fatalf("lane took %d, want 305", len(l.due))
	}
	r.must(Empty{Key: one, Channel: red})
	l.want(1000)
	r.m.Tick(r.now)
	if len(l.due) != 0 {
		t.Fatalf("lane has %d due after empty", len(l.due))
	}
	r.check()
}

// TestSpill moves parked messages to files and back.
func TestSpill(t *testing.T) {
	r := newRig(t)
	r.o.ParkedMax = 2000
	r.crash(0, 0, 1)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	const n = 5000
	ms := bodies(n)
	for i := range ms {
		ms[i].DueNs = r.now + 1e12 + int64(i)
	}
	// One hole, so that the floor does not run along.
	ms[0].DueNs = 0
	r.send(one, ms...)
	r.settle()
	if p := r.m.partitions[one].channel(red).parked; p.MemLen() != n-1 {
		t.Fatalf("%d in memory", p.MemLen())
	}
	r.flush()
	r.settle()
	if got := r.m.parkedLen; got > 2000 || got != r.m.partitions[one].channel(red).parked.MemLen() {
		t.Fatalf("%d in memory after the spill, the set says %d", got, r.m.partitions[one].channel(red).parked.MemLen())
	}
	r.check()
	r.checkpoint()
	r.crash(0, 0, 2)
	r.check()
	l := r.attach(one, red)
	r.settle()
	r.now += 2e12
	r.settle()
	if len(l.due) != n-1 {
		t.Fatalf("%d due, want %d", len(l.due), n-1)
	}
	// The files stay until no checkpoint needs them, also over a crash, and
	// also when the channel is made again.
	r.must(DropChannel{Key: one, Channel: red})
	r.checkpoint()
	r.crash(0, 1, 3)
	r.check()
	r.checkpoint()
	r.crash(0, 0, 4)
	r.must(CreateChannel{Key: one, Channel: red})
	r.check()
	for range 3 {
		r.checkpoint()
	}
	if names, err := r.fs.ReadDir("parked"); err != nil || len(names) != 0 {
		t.Fatalf("files are left: %v, %v", names, err)
	}
}

func TestEphemeralChannelPinsTheLog(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: mist, Ephemeral: true})
	r.publish(one, 3)
	p := r.m.partitions[one]
	if p.start != 3 || p.log.Start() != 0 {
		t.Fatalf("start %d, log's %d, want 3 and 0", p.start, p.log.Start())
	}
	l := r.attach(one, mist)
	r.settle()
	if !slices.Equal(l.open(), []int64{0, 1, 2}) {
		t.Fatalf("lane has %v", l.open())
	}
	l.pins = 2
	r.publish(one, 1)
	if p.log.Start() != 2 {
		t.Fatalf("log starts at %d, want 2", p.log.Start())
	}
	// A new leader clears it before anything is handed to it.
	r.elect()
	a := r.send(one, bodies(1)...)
	r.settle()
	if a.base != 4 || p.handOver != 4 || p.end != 5 || p.ephemerals != 0 {
		t.Fatalf("base %d, hand-over %d, end %d, %d ephemeral", a.base, p.handOver, p.end, p.ephemerals)
	}
	r.check()
}

func TestClosedPartitionLeavesNoFile(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	for range 20 {
		r.publish(one, 200)
		r.flush()
	}
	r.checkpoint()
	r.checkpoint()
	if names, _ := r.fs.ReadDir("topics/7/0"); len(names) == 0 {
		t.Fatal("the test wrote no file")
	}
	r.must(Close{one})
	for range 3 {
		r.checkpoint()
	}
	if names, _ := r.fs.ReadDir("topics/7/0"); len(names) != 0 {
		t.Fatalf("files are left: %v", names)
	}
}

// TestCompactionKeepsWhatIsNeeded: one message among many stays.
func TestCompactionKeepsWhatIsNeeded(t *testing.T) {
	r := newRig(t)
	r.o.CompactBytes = 1
	r.crash(0, 0, 1)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	l := r.attach(one, red)
	for range 50 {
		r.publish(one, 20)
		r.flush()
	}
	for o := range int64(1000) {
		switch {
		case o == 300:
			l.park(parked.Entry{Offset: o, DueNs: r.now + 1e15})
		case o != 500:
			l.finish(o)
		}
	}
	r.settle()
	before := r.m.partitions[one].log.Bytes()
	for range 4 {
		r.checkpoint()
		r.compact()
	}
	if after := r.m.partitions[one].log.Bytes(); after > before/2 {
		t.Fatalf("%d bytes before, %d after", before, after)
	}
	r.check()
	r.crash(0, 1, 2)
	r.check()
}

func TestQuery(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: two, Name: "orders"})
	r.must(Open{Key: one, Name: "orders"})
	r.must(CreateChannel{Key: one, Channel: red})
	r.publish(one, 10)
	l := r.attach(one, red)
	r.settle()
	l.finish(3)
	l.park(parked.Entry{Offset: 5, DueNs: r.now + 1e12})
	r.settle()
	var keys []Key
	var got PartitionView
	r.m.Query(func(v *View) {
		v.Each(func(p PartitionView) { keys = append(keys, p.Key) })
		got, _ = v.Partition(one)
		if _, ok := v.Partition(six); ok || v.Log(six) != nil || v.Log(one) == nil {
			t.Error("a partition that is not open is there")
		}
	})
	r.m.Tick(r.now)
	if !slices.Equal(keys, []Key{one, two}) {
		t.Errorf("partitions %v", keys)
	}
	if got.End != 10 || got.MessageCount != 10 || got.MessageBytes != 90 || got.Depth() != 0 || len(got.Channels) != 1 {
		t.Fatalf("view %+v", got)
	}
	if c := got.Channels[0]; c.Backlog != 8 || c.Parked != 1 || c.Ranges != 2 || c.Lane != Lane(l) {
		t.Fatalf("view %+v", c)
	}
}

func TestUnknownCommandStops(t *testing.T) {
	r := newRig(t)
	good := appendCommand(appendHeader(nil, header{time: 1, term: 1, count: 1}), Open{Key: one})
	for name, change := range map[string]func([]byte) []byte{
		"kind":    func(b []byte) []byte { b[entryHeader] = 99; return b },
		"version": func(b []byte) []byte { b[entryHeader+1] = 2; return b },
		"format":  func(b []byte) []byte { b[0] = 2; return b },
		"cut":     func(b []byte) []byte { return b[:len(b)-1] },
		"longer":  func(b []byte) []byte { return append(b, 0) },
	} {
		e := shard.Entry{Index: 1, Term: 1, Data: change(slices.Clone(good))}
		if err := r.m.Apply(e, nil); err == nil {
			t.Errorf("%s: applied", name)
		}
	}
}

func TestRestoreRefusesDamage(t *testing.T) {
	r := newRig(t)
	rng := rand.New(rand.NewPCG(1, 1))
	r.run(rng, 100, func(shard.Entry) {})
	r.checkpoint()
	state := r.saved[0].state
	for cut := range len(state) {
		if err := New(Options{Store: r.store, FS: r.fs, Dir: "parked"}).Restore(1, state[:cut:cut]); err == nil && cut > 0 {
			t.Fatalf("a state cut at %d of %d bytes is taken", cut, len(state))
		}
	}
}

// TestDamagedRunStopsTheReplica: parked messages that can't be read any more
// are not passed over.
func TestDamagedRunStopsTheReplica(t *testing.T) {
	r := newRig(t)
	r.spillMin = 100
	r.crash(0, 0, 1)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	ms := bodies(1000)
	for i := range ms {
		ms[i].DueNs = r.now + 1e12
	}
	r.send(one, ms...)
	r.settle()
	r.flush()
	r.settle()
	r.checkpoint()
	names, err := r.fs.ReadDir("parked")
	if err != nil || len(names) != 1 {
		t.Fatalf("files %v: %v", names, err)
	}
	if err := r.fs.Flip("parked/"+names[0], 100, 3); err != nil {
		t.Fatal(err)
	}
	r.attach(one, red)
	r.settle()
	r.now += 2e12
	r.m.Tick(r.now)
	data, _ := r.m.Drain(r.term, r.now, r.max)
	if data == nil {
		t.Fatal("an idle machine does not stop")
	}
	if err := r.m.Apply(shard.Entry{Index: r.index + 1, Term: r.term, Data: data}, nil); !errors.Is(err, fault.Corrupt) {
		t.Fatalf("apply: %v", err)
	}
}

// TestReportBehindEmptyIsIgnored: what a lane did before it learnt that the
// channel is emptied does not bring messages back.
func TestReportBehindEmptyIsIgnored(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	l := r.attach(one, red)
	r.publish(one, 5)
	r.m.Do(Empty{Key: one, Channel: red}, nil)
	r.propose()
	l.park(parked.Entry{Offset: 2, DueNs: r.now + 1})
	r.send(one, bodies(1)...) // the report goes along at once
	r.propose()
	if len(r.inflight) != 2 {
		t.Fatalf("%d entries in flight, want 2", len(r.inflight))
	}
	r.settle()
	if got := r.left(one, red); !slices.Equal(got.log, []int64{5}) || len(got.parked) != 0 || len(l.due) != 0 {
		t.Fatalf("an emptied channel has %+v, its lane %v", got, l.due)
	}
	r.check()
}

// TestHeldIsForgottenWhenReported: what waits for room in the lane is not
// offered any more once the lane has finished it or parked it anew.
func TestHeldIsForgottenWhenReported(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	r.publish(one, 3)
	l := r.attach(one, red)
	r.settle()
	l.room = 0
	for o := range int64(3) {
		l.park(parked.Entry{Offset: o, DueNs: r.now + 1})
	}
	r.settle()
	if held := len(r.m.lanes[l].held); held != 3 {
		t.Fatalf("%d are held, want 3", held)
	}
	l.parked[0] = parked.Entry{Offset: 0, DueNs: r.now + 1e12}
	l.unparked[1] = true
	r.m.Dirty(l)
	r.settle()
	l.want(9)
	r.m.Tick(r.now)
	if !slices.Equal(sorted(l.due), []int64{2}) {
		t.Fatalf("offered are %v, want 2", sorted(l.due))
	}
	r.check()
}

// TestParkBehindAdvanceStartIsIgnored: a message that retention has finished
// while it was in flight does not come back when its client puts it off.
func TestParkBehindAdvanceStartIsIgnored(t *testing.T) {
	r := newRig(t)
	r.must(Open{Key: one})
	r.must(CreateChannel{Key: one, Channel: red})
	r.publish(one, 5)
	l := r.attach(one, red)
	r.settle()
	r.must(AdvanceStart{Key: one, Offset: 3})
	l.park(parked.Entry{Offset: 2, DueNs: r.now + 1})
	l.park(parked.Entry{Offset: 4, DueNs: r.now + 1e12})
	r.settle()
	if got := r.left(one, red); !slices.Equal(got.log, []int64{3}) || len(got.parked) != 1 {
		t.Fatalf("left are %+v, want 3 and, parked, 4", got)
	}
	r.check()
}

// TestUnparkedLeavesNoFile: a segment that only a parked message has held goes
// when that is finished, although nothing else happens to the topic.
func TestUnparkedLeavesNoFile(t *testing.T) {
	for name, unpark := range map[string]func(*rig, *testLane){
		"finished": func(r *rig, l *testLane) { l.finish(0) },
		"emptied":  func(r *rig, _ *testLane) { r.must(Empty{Key: one, Channel: red}) },
		"dropped":  func(r *rig, _ *testLane) { r.must(DropChannel{Key: one, Channel: red}) },
	} {
		r := newRig(t)
		r.must(Open{Key: one})
		r.must(CreateChannel{Key: one, Channel: red})
		l := r.attach(one, red)
		r.send(one, Message{Body: []byte("later"), DueNs: r.now + 1e12})
		for range 20 {
			r.publish(one, 200)
			r.flush()
		}
		r.settle()
		for _, o := range l.open() {
			l.finish(o)
		}
		r.settle()
		for range checkpointsKept + 2 {
			r.checkpoint()
		}
		if names, _ := r.fs.ReadDir("topics/7/0"); len(names) != 1 {
			t.Fatalf("%s: the parked message holds %q", name, names)
		}
		r.now += 1e12
		r.m.Tick(r.now)
		unpark(r, l)
		r.settle()
		for range checkpointsKept + 1 {
			r.checkpoint()
		}
		if names, _ := r.fs.ReadDir("topics/7/0"); len(names) != 0 {
			t.Errorf("%s: files are left: %q", name, names)
		}
	}
}
