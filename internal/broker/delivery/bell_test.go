package delivery

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
)

// bells subscribes n consumers that count how often they are rung.
func bells(t *testing.T, r *rig, n, window int) ([]*Subscription, []int) {
	rung := make([]int, n)
	subs := make([]*Subscription, n)
	for i := range subs {
		subs[i] = r.subscribe(t, window, SubOptions{Notify: func() { rung[i]++ }})
	}
	return subs, rung
}

func sum(ns []int) (total int) {
	for _, n := range ns {
		total += n
	}
	return total
}

// TestNoThunderingHerd: as many are rung as there is work for.
func TestNoThunderingHerd(t *testing.T) {
	r := newRig(Config{})
	_, rung := bells(t, r, 10, 5)
	r.publish(1)
	if sum(rung) != 1 {
		t.Fatalf("one message rings %v", rung)
	}
	r.publish(3)
	if sum(rung) != 4 {
		t.Fatalf("four messages ring %v", rung)
	}
}

// TestFairShares: consumers that wait share what comes in proportion to their
// open windows, in whatever order they arrive.
func TestFairShares(t *testing.T) {
	r := newRig(Config{})
	subs, rung := bells(t, r, 4, 10)
	subs[3].SetWindow(30)
	r.publish(24)
	want := []int{4, 4, 4, 12}
	for i, sub := range slices.Backward(subs) {
		if got := len(take(t, sub)); got != want[i] || rung[i] != 1 {
			t.Fatalf("consumer %d got %d, rung %v", i, got, rung)
		}
	}
}

// TestBusyConsumerLeavesTheirShareToTheRung: who comes unasked takes nothing
// that is kept for others, but all else.
func TestBusyConsumerLeavesTheirShareToTheRung(t *testing.T) {
	r := newRig(Config{})
	r.publish(1)
	busy := r.subscribe(t, 100, SubOptions{})
	if ds, err := busy.Take(nil, 1<<20); len(ds) != 1 || err != nil {
		t.Fatalf("%v, %v", ds, err)
	}
	subs, _ := bells(t, r, 1, 5)
	r.publish(8)
	if got := len(take(t, busy)); got != 3 {
		t.Fatalf("the busy one got %d", got)
	}
	if got := len(take(t, subs[0])); got != 5 {
		t.Fatalf("the one that was rung got %d", got)
	}
}

// TestBellIsPassedOn: who takes less than was kept for it, or loads more than
// its share, rings others, and does not leave that to its next Take.
func TestBellIsPassedOn(t *testing.T) {
	r := newRig(Config{})
	subs, rung := bells(t, r, 1, 100)
	r.publish(50)
	late := 0
	other := r.subscribe(t, 100, SubOptions{Notify: func() { late++ }})
	if rung[0] != 1 || late != 0 {
		t.Fatalf("rung %v, %d", rung, late)
	}
	if ds, err := subs[0].Take(nil, 40); len(ds) != 5 || err != nil {
		t.Fatalf("took %d, %v", len(ds), err)
	}
	if late != 1 {
		t.Fatalf("45 messages are left, and nobody is rung")
	}
	if got := len(take(t, other)); got != 45 {
		t.Fatalf("the other got %d", got)
	}
}

// TestStuckConsumer: what is kept for a consumer that does not come is given
// to others, soon; and at once when it leaves or closes its window.
func TestStuckConsumer(t *testing.T) {
	for name, release := range map[string]func(*rig, *Subscription){
		"patience ends": func(r *rig, _ *Subscription) { r.clock.advance(2 * claimPatience) },
		"closes":        func(_ *rig, s *Subscription) { s.Close(true) },
		"CLS":           func(_ *rig, s *Subscription) { s.Stop() },
		"RDY 0":         func(_ *rig, s *Subscription) { s.SetWindow(0) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(Config{})
			subs, rung := bells(t, r, 2, 5)
			r.publish(1)
			if rung[0] != 1 || rung[1] != 0 {
				t.Fatalf("rung %v", rung)
			}
			release(r, subs[0])
			if rung[1] != 1 {
				t.Fatalf("rung %v", rung)
			}
			if got := len(take(t, subs[1])); got != 1 {
				t.Fatalf("took %d", got)
			}
		})
	}
}

// TestTimeoutsAreOnTime: on a real clock and real timers, within 10 ms.
func TestTimeoutsAreOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, shard := &memLog{}, newShard()
		ch := NewChannel(Config{Codec: testCodec})
		lane := ch.AddLane(0, log, shard)
		lane.Begin(partition.Start{})
		rung := make(chan struct{}, 1)
		s, err := ch.Subscribe(SubOptions{MsgTimeout: 3 * time.Second, Notify: func() {
			select {
			case rung <- struct{}{}:
			default:
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		s.SetWindow(100)
		start := time.Now()
		for i := range 10 { // one message each 100 ms
			lane.Limit(log.publish(1, 1))
			<-rung
			if got := len(take(t, s)); got != 1 {
				t.Fatalf("took %d", got)
			}
			if i%2 == 1 {
				time.Sleep(50 * time.Millisecond)
				if err := s.Touch(id(int64(i))); err != nil {
					t.Fatal(err)
				}
				time.Sleep(50 * time.Millisecond)
			} else {
				time.Sleep(100 * time.Millisecond)
			}
		}
		for i := range int64(10) {
			at := time.Duration(i)*100*time.Millisecond + 3*time.Second
			if i%2 == 1 {
				at += 50 * time.Millisecond
			}
			<-rung
			late := time.Since(start) - at
			if late < 0 || late > 10*time.Millisecond {
				t.Fatalf("message %d is %v late", i, late)
			}
			ds := take(t, s)
			if len(ds) != 1 || offsetOf(t, &ds[0]) != i || ds[0].Attempts != 2 {
				t.Fatalf("took %s", show(t, ds))
			}
			if err := s.Finish(ds[0].ID); err != nil {
				t.Fatal(err)
			}
		}
		ch.Close(nil)
	})
}

// stress is consumers, publishers and a shard loop, all at once.
type stress struct {
	t        *testing.T
	ch       *Channel
	log      *memLog
	shard    *memShard
	lane     *Lane
	total    int64
	finished []atomic.Int32 // by offset
	holder   []atomic.Int32
	left     atomic.Int64
	done     chan struct{}
}

// TestStress: every message is finished once, no two consumers have one at the
// same time, no window is exceeded, and nobody waits for ever.
func TestStress(t *testing.T) {
	total := int64(60_000)
	if testing.Short() {
		total = 10_000
	}
	x := &stress{
		t: t, log: &memLog{}, shard: newShard(), total: total,
		finished: make([]atomic.Int32, total), holder: make([]atomic.Int32, total), done: make(chan struct{}),
	}
	x.left.Store(total)
	x.ch = NewChannel(Config{Codec: testCodec})
	x.ch.limits = limits{ring: 1024, old: 256, due: 16, gaps: 64}
	x.lane = x.ch.AddLane(0, x.log, x.shard)
	x.lane.Begin(partition.Start{})
	var wg sync.WaitGroup
	wg.Go(x.publish)
	wg.Go(x.loop)
	for i := range 6 {
		wg.Go(func() { x.consume(int32(i + 1)) })
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		st := x.ch.Stats()
		t.Fatalf("stuck: %d left, %+v, claimed %d, waiting %d", x.left.Load(), st, x.ch.claimed, x.ch.waitingOpen)
	}
	x.shard.collect(t)
	if d := x.shard.state(x.lane); d.floor != total || len(d.parked) != 0 {
		t.Fatalf("floor %d of %d, %d parked", d.floor, total, len(d.parked))
	}
}

// publish makes messages visible, in bursts that leave consumers waiting.
func (x *stress) publish() {
	for x.log.end < x.total {
		n := min(int(x.log.end%97)+1, int(x.total-x.log.end))
		end := x.log.publish(n, 10)
		x.lane.Limit(end)
		if end%5 == 0 {
			runtime.Gosched()
		}
	}
}

// loop is the shard's.
func (x *stress) loop() {
	for {
		select {
		case <-x.done:
			return
		default:
		}
		x.shard.collect(x.t)
		x.shard.offer(x.lane, time.Now().UnixNano())
		runtime.Gosched()
	}
}

// consume is one consumer that is lost and comes back now and then.
func (x *stress) consume(who int32) {
	for life := 0; ; life++ {
		bell := make(chan struct{}, 1)
		s, err := x.ch.Subscribe(SubOptions{Notify: func() {
			select {
			case bell <- struct{}{}:
			default:
			}
		}})
		if err != nil {
			x.t.Error(err)
			return
		}
		window := 1 + int(who)*7%40
		s.SetWindow(window)
		if x.life(who, s, bell, window, 200+100*life) {
			return
		}
	}
}

// life takes and answers until all is finished (true) or the consumer has
// lived long enough.
func (x *stress) life(who int32, s *Subscription, bell chan struct{}, window, rounds int) bool {
	var ds []Delivery
	have := 0
	for n := 0; ; n++ {
		var err error
		if ds, err = s.Take(ds[:0], 256); err != nil {
			x.t.Error(err)
			return true
		}
		if have += len(ds); have > window {
			x.t.Errorf("%d in flight, window %d", have, window)
		}
		if len(ds) == 0 {
			select {
			case <-bell:
				continue
			case <-x.done:
				s.Close(false)
				return true
			}
		}
		ops := x.answers(who, ds, n)
		have -= len(ops)
		if failed := s.Do(ops, nil); failed > 0 {
			x.t.Errorf("%d answers failed", failed)
		}
		if n > rounds {
			s.Close(n%2 == 0)
			return false
		}
	}
}

// answers finishes most of ds and requeues some.
func (x *stress) answers(who int32, ds []Delivery, n int) []Op {
	var ops []Op
	for i := range ds {
		_, o, _ := testCodec.Parse(ds[i].ID)
		if !x.holder[o].CompareAndSwap(0, who) {
			x.t.Errorf("%d is delivered to %d and %d", o, x.holder[o].Load(), who)
		}
		op := Op{Kind: Finish, ID: ds[i].ID}
		switch h := mix(uint64(o)<<20 + uint64(n)); {
		case h%16 == 0:
			op.Kind = Requeue
		case h%64 == 1:
			op.Kind, op.Delay = Requeue, time.Microsecond
		}
		x.holder[o].Store(0)
		if op.Kind == Finish {
			if x.finished[o].Add(1) > 1 {
				x.t.Errorf("%d is finished twice", o)
			}
			if x.left.Add(-1) == 0 {
				defer close(x.done)
			}
		}
		ops = append(ops, op)
	}
	return ops
}

// TestNotifyUnderClose: closing the channel wakes everybody.
func TestNotifyUnderClose(t *testing.T) {
	r := newRig(Config{})
	var wg sync.WaitGroup
	for range 4 {
		s := r.subscribe(t, 1, SubOptions{})
		wg.Go(func() {
			<-s.Done()
			if _, err := s.Take(nil, 1); err == nil {
				t.Error("Take after Close succeeds")
			}
		})
	}
	r.ch.Close(errors.New("gone"))
	wg.Wait()
}
