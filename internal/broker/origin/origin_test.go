package origin

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

const second = int64(time.Second)

// bench is an Origin, and what its publishers were told.
type bench struct {
	t *testing.T
	*Origin
	now  int64
	told map[string]string
	back []string // what was given back
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, now: second, told: make(map[string]string)}
	b.Origin = New(Options{Shard: 1, Producer: 9}, b, b.now)
	return b
}

// LocalDone is not used: tests answer for the machine.
func (b *bench) LocalDone(*Local, int64, error) {}

// teller notes what a publisher is told.
type teller struct {
	b    *bench
	name string
}

func (p teller) Published(base int64, err error) {
	text := fmt.Sprint(base)
	if err != nil {
		text = fault.CodeOf(err).String()
		if errors.Is(err, ErrUnknown) {
			text += " unknown"
		}
	}
	if before, twice := p.b.told[p.name]; twice {
		p.b.t.Errorf("%s is told %s after %s", p.name, text, before)
	}
	p.b.told[p.name] = text
}

func (b *bench) add(names ...string) {
	b.t.Helper()
	for _, name := range names {
		if err := b.tryAdd(name, 1); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) tryAdd(name string, bytes int) error {
	return b.Add(&partition.Publish{
		Topic: 5, Messages: []partition.Message{{Body: make([]byte, bytes)}}, Done: teller{b, name},
	}, "orders", b.now)
}

// call returns the next call, which must hold publishes from that number on.
func (b *bench) call(epoch, first uint64, count int) *Call {
	b.t.Helper()
	c := b.Next(b.now)
	if c == nil {
		b.t.Fatalf("no call with %d publishes", count)
	}
	if c.link.Epoch != epoch || c.link.Seq != first || c.Count() != count || c.link.Producer != 9 {
		b.t.Fatalf("call of %d from %+v; want %d from %d/%d", c.Count(), c.link, count, epoch, first)
	}
	return c
}

func (b *bench) none() {
	b.t.Helper()
	if c := b.Next(b.now); c != nil {
		b.t.Fatalf("call of %d from %+v, want none", c.Count(), c.link)
	}
}

func (b *bench) wants(want map[string]string) {
	b.t.Helper()
	for _, o := range b.Outcomes(nil) {
		o.Tell()
	}
	if d := cmp.Diff(want, b.told); d != "" {
		b.t.Fatal(d)
	}
}

func ok(base int64) Answer             { return Answer{Fate: Done, Base: base} }
func notUsed(code fault.Code) Answer   { return Answer{Fate: NotUsed, Err: code} }
func unknownNow(c fault.Code) Answer   { return Answer{Fate: Unknown, Err: c} }
func (b *bench) after(d time.Duration) { b.now += int64(d) }

func TestCallsInOrderAndBounded(t *testing.T) {
	b := newBench(t)
	for i := range 6 {
		if err := b.tryAdd(fmt.Sprint(i), 700<<10); err != nil {
			t.Fatal(err)
		}
	}
	b.none() // no leader
	b.Lead(2, false, b.now)
	var calls []*Call
	for i := range 4 {
		calls = append(calls, b.call(1, uint64(i+1), 1))
	}
	b.none() // four are under way
	b.Answer(calls[1], []Answer{ok(11)}, nil, false, b.now)
	b.Answer(calls[0], []Answer{ok(10)}, nil, false, b.now)
	b.wants(map[string]string{"0": "10", "1": "11"})
	b.call(1, 5, 1)
	b.call(1, 6, 1)
	if err := b.tryAdd("large", 31<<20); fault.CodeOf(err) != fault.Overloaded {
		t.Fatal(err)
	}
	b.add("a", "b", "c")
	b.Answer(calls[2], []Answer{ok(12)}, nil, false, b.now)
	b.call(1, 7, 3)
}

func TestNewLeaderGetsWhatHasNoAnswer(t *testing.T) {
	b := newBench(t)
	b.Lead(2, false, b.now)
	b.add("a", "b")
	first := b.call(1, 1, 2)
	b.add("c")
	second := b.call(1, 3, 1)
	b.Lead(0, false, b.now)
	b.none()
	b.Lead(3, false, b.now)
	again := b.call(1, 1, 3)
	b.Answer(first, []Answer{ok(7), unknownNow(fault.NotLeader)}, nil, false, b.now) // late, and certain for a
	b.Answer(second, nil, errors.New("link is gone"), false, b.now)
	b.none()
	b.wants(map[string]string{"a": "7"})
	b.Answer(again, []Answer{ok(-1), ok(-1), ok(9)}, nil, false, b.now)
	b.wants(map[string]string{"a": "7", "b": "-1", "c": "9"})
	if !b.Idle() || b.Bytes() != 0 || b.Resent() != 3 {
		t.Fatalf("idle %v, %d bytes, %d resent", b.Idle(), b.Bytes(), b.Resent())
	}
}

func TestGapIsClosedWhenAllHasComeBack(t *testing.T) {
	b := newBench(t)
	b.Lead(2, false, b.now)
	b.add("a")
	a := b.call(1, 1, 1)
	b.add("b")
	second := b.call(1, 2, 1)
	b.Answer(second, []Answer{notUsed(fault.OutOfOrder)}, nil, false, b.now)
	b.after(time.Second)
	b.none() // a is still under way
	b.Answer(a, nil, errors.New("lost"), true, b.now)
	b.none()
	b.after(20 * time.Millisecond)
	b.call(1, 1, 2)
}

func TestRefusedPublishGivesItsNumberToTheNext(t *testing.T) {
	b := newBench(t)
	b.Lead(2, false, b.now)
	b.add("a", "b", "c")
	x := b.call(1, 1, 3)
	b.add("d")
	y := b.call(1, 4, 1)
	b.Answer(x, []Answer{ok(5), notUsed(fault.DiskReserve), notUsed(fault.OutOfOrder)}, nil, false, b.now)
	b.after(time.Second)
	b.none()
	b.Answer(y, []Answer{notUsed(fault.OutOfOrder)}, nil, false, b.now)
	b.after(time.Second)
	z := b.call(1, 2, 2)
	b.wants(map[string]string{"a": "5", "b": "DISK_RESERVE"})
	b.Answer(z, []Answer{ok(6), ok(7)}, nil, false, b.now)
	b.wants(map[string]string{"a": "5", "b": "DISK_RESERVE", "c": "6", "d": "7"})
	if b.Raised() != 0 {
		t.Fatal("the epoch was given up")
	}
}

// TestRefusedBeforeWhatMayBeUnderWay: a number is given away only when no copy of
// anything from there on can come any more.
func TestRefusedBeforeWhatMayBeUnderWay(t *testing.T) {
	b := newBench(t)
	b.Lead(2, false, b.now)
	b.add("a", "b", "c")
	old := b.call(1, 1, 3)
	b.Lead(3, false, b.now)
	b.Answer(old, []Answer{notUsed(fault.NotLeader), unknownNow(fault.NotLeader), notUsed(fault.OutOfOrder)}, nil, false, b.now)
	x := b.call(1, 1, 3)
	b.Answer(x, []Answer{notUsed(fault.DiskReserve), notUsed(fault.OutOfOrder), notUsed(fault.OutOfOrder)}, nil, false, b.now)
	b.after(time.Second)
	b.call(2, 1, 1)
	b.wants(map[string]string{"a": "DISK_RESERVE", "b": "NO_LEADER unknown"})
}

func TestOverloadedLeaderIsAskedAgain(t *testing.T) {
	b := newBench(t)
	b.Lead(2, false, b.now)
	b.add("a")
	b.Answer(b.call(1, 1, 1), []Answer{notUsed(fault.Overloaded)}, nil, false, b.now)
	b.none()
	if at := b.Tick(b.now); at != b.now+retryFull {
		t.Fatalf("tick again in %v", time.Duration(at-b.now))
	}
	b.after(5 * time.Millisecond)
	b.Answer(b.call(1, 1, 1), []Answer{ok(0)}, nil, false, b.now)
	b.wants(map[string]string{"a": "0"})
}

// While this node still takes one for the leader that is gone, calls do not leave
// it: that is no answer to a publisher.
func TestLeaderThatIsNotReached(t *testing.T) {
	b := newBench(t)
	b.Lead(2, false, b.now)
	b.add("a")
	b.Answer(b.call(1, 1, 1), nil, fault.New(fault.Unreachable, "call b: no link"), true, b.now)
	b.wants(map[string]string{})
	b.Lead(3, false, b.now)
	b.Answer(b.call(1, 1, 1), []Answer{ok(7)}, nil, false, b.now)
	b.wants(map[string]string{"a": "7"})
}

func TestWithoutLeader(t *testing.T) {
	b := newBench(t)
	b.Lead(2, false, b.now)
	b.add("a")
	b.call(1, 1, 1)
	b.after(time.Minute)
	b.Lead(0, false, b.now)
	b.add("b")
	b.after(4 * time.Second)
	b.add("c")
	if at := b.Tick(b.now); at != b.now+second {
		t.Fatalf("given up in %v", time.Duration(at-b.now))
	}
	b.after(time.Second)
	b.Tick(b.now)
	b.wants(map[string]string{"a": "NO_LEADER unknown", "b": "NO_LEADER", "c": "NO_LEADER"})
	if err := b.tryAdd("d", 1); fault.CodeOf(err) != fault.NotLeader || errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
	b.Lead(3, false, b.now)
	b.add("e")
	b.Answer(b.call(2, 1, 1), []Answer{ok(3)}, nil, false, b.now)
	b.add("f")
	b.call(2, 2, 1)
}

func TestLeaderThatDoesNotAnswer(t *testing.T) {
	b := newBench(t)
	b.Lead(2, false, b.now)
	b.after(time.Minute)
	b.add("a")
	b.call(1, 1, 1)
	b.after(4 * time.Second)
	b.add("b")
	b.call(1, 2, 1)
	b.after(time.Second)
	b.Tick(b.now)
	b.wants(map[string]string{"a": "NO_LEADER unknown", "b": "NO_LEADER unknown"})
	b.add("c")
	b.call(2, 1, 1)
}

func TestLocalMachine(t *testing.T) {
	b := newBench(t)
	b.Lead(1, true, b.now)
	b.add("a")
	l := b.NextLocal(b.now)
	if l == nil || l.Link != (partition.Link{Producer: 9, Epoch: 1, Seq: 1, Oldest: true}) || l.Topic != 5 || l.Name() != "orders" {
		t.Fatalf("%+v", l)
	}
	b.add("b")
	if !b.RefuseLocal(b.NextLocal(b.now), fault.Overloaded, true, b.now) {
		t.Fatal("what was just added and refused stays")
	}
	b.add("c")
	c := b.NextLocal(b.now)
	if c.Link.Seq != 2 {
		t.Fatalf("number %d after one that was refused", c.Link.Seq)
	}
	b.AnswerLocal(l, 40, nil, b.now)
	b.AnswerLocal(c, 0, fault.NotLeader, b.now)
	b.wants(map[string]string{"a": "40"})
	b.Lead(2, false, b.now)
	b.Answer(b.call(1, 2, 1), []Answer{ok(-1)}, nil, false, b.now)
	b.wants(map[string]string{"a": "40", "c": "-1"})
}

// TestBytesBelongToTheMachine: nobody is told anything about a publish, and so may
// use its bytes again, while a copy is the machine's.
func TestBytesBelongToTheMachine(t *testing.T) {
	b := newBench(t)
	b.Lead(1, true, b.now)
	b.add("a")
	l := b.NextLocal(b.now)
	b.Lead(2, false, b.now)
	b.Answer(b.call(1, 1, 1), []Answer{ok(3)}, nil, false, b.now)
	b.wants(map[string]string{})
	b.AnswerLocal(l, 0, fault.NotLeader, b.now)
	b.wants(map[string]string{"a": "3"})
}

func TestWholeTopicIsGone(t *testing.T) {
	b := newBench(t)
	b.Lead(2, false, b.now)
	b.add("a", "b")
	b.Answer(b.call(1, 1, 2), []Answer{{Fate: Refused, Err: fault.TopicNotFound}, ok(2)}, nil, false, b.now)
	b.wants(map[string]string{"a": "TOPIC_NOT_FOUND", "b": "2"})
	b.add("c")
	b.call(1, 3, 1)
}
