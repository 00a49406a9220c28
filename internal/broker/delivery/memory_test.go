package delivery

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/record"
)

// memoryRig is an ephemeral topic with channels.
type memoryRig struct {
	log   *MemoryLog
	shard *Memory
	clock *handClock
	b     record.Builder
}

func newMemoryRig(countMax, bytesMax int64, o MemoryOptions) *memoryRig {
	r := &memoryRig{log: NewMemoryLog(countMax, bytesMax), clock: &handClock{now: int64(time.Hour)}}
	o.Clock, o.AfterFunc = r.clock.clock, r.clock.afterFunc
	r.shard = NewMemory(o)
	return r
}

// channel attaches a channel.
func (r *memoryRig) channel(cfg Config) (*Channel, *Lane) {
	cfg.Codec, cfg.Clock, cfg.AfterFunc = testCodec, r.clock.clock, r.clock.afterFunc
	cfg.Fresh = true
	c := NewChannel(cfg)
	l := c.AddLane(0, r.log, r.shard)
	r.log.Attach(l)
	return c, l
}

// publish appends one batch of messages, due at the given time if not 0.
func (r *memoryRig) publish(n int, due int64) {
	r.b.Begin(nil, 1)
	end := r.log.end
	for i := range n {
		m := record.Message{Value: body(end + int64(i))}
		if due != 0 {
			m.Headers = []record.Header{{Key: record.HeaderDue, Value: record.AppendDue(nil, due)}}
		}
		r.b.Add(&m)
	}
	r.log.Append(r.b.Finish(), int32(n), 0, r.clock.now)
}

func (r *memoryRig) subscribe(t testing.TB, c *Channel, window int) *Subscription {
	t.Helper()
	s, err := c.Subscribe(SubOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.SetWindow(window)
	return s
}

// takeAndFinish returns the offsets that s gets.
func takeAndFinish(t testing.TB, s *Subscription) (got []int64) {
	t.Helper()
	last := int64(0)
	for {
		ds := take(t, s)
		if len(ds) == 0 {
			return got
		}
		for i := range ds {
			_, o, _ := testCodec.Parse(ds[i].ID)
			if len(got) > 0 && ds[i].TimeNs <= last && o > got[len(got)-1] {
				t.Fatalf("time of %d is %d, after %d", o, ds[i].TimeNs, last)
			}
			last = ds[i].TimeNs
			got = append(got, o)
			if err := s.Finish(ds[i].ID); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func wantOffsets(t *testing.T, got []int64, from, to int64) {
	t.Helper()
	ok := int64(len(got)) == to-from
	for i := range got {
		ok = ok && got[i] == from+int64(i)
	}
	if !ok {
		t.Fatalf("got %v, want %d to %d", got, from, to-1)
	}
}

func TestMemoryTopic(t *testing.T) {
	r := newMemoryRig(0, 0, MemoryOptions{})
	r.publish(5, 0)
	if st := r.log.Stats(); st.Depth != 5 || st.MessageCount != 5 {
		t.Fatalf("stats %+v", st)
	}
	first, _ := r.channel(Config{}) // gets what waited
	second, _ := r.channel(Config{})
	r.publish(3, 0)
	a, b := r.subscribe(t, first, 100), r.subscribe(t, second, 2)
	wantOffsets(t, takeAndFinish(t, a), 0, 8)
	wantOffsets(t, takeAndFinish(t, b), 5, 8)
	if st := first.Stats(); st.MessageCount != 8 || st.Depth != 0 {
		t.Fatalf("stats %+v", st)
	}
	r.log.SetPaused(true)
	r.publish(2, 0)
	third, _ := r.channel(Config{})
	if got := takeAndFinish(t, a); len(got) > 0 || r.log.Stats().Depth != 2 {
		t.Fatalf("took %v while paused", got)
	}
	r.log.SetPaused(false)
	for _, s := range []*Subscription{a, b, r.subscribe(t, third, 100)} {
		wantOffsets(t, takeAndFinish(t, s), 8, 10)
	}
	r.log.SetPaused(true)
	r.publish(2, 0)
	r.log.Empty()
	r.log.SetPaused(false)
	r.publish(1, 0)
	wantOffsets(t, takeAndFinish(t, a), 12, 13)
}

func TestMemoryDefers(t *testing.T) {
	r := newMemoryRig(0, 0, MemoryOptions{})
	c, l := r.channel(Config{})
	s := r.subscribe(t, c, 10)
	r.publish(1, r.clock.now+int64(time.Minute)) // 0
	r.publish(1, 0)                              // 1
	if got := show(t, untimed(take(t, s))); got != "1/1 " {
		t.Fatalf("took %s", got)
	}
	if err := s.Requeue(id(1), 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if st := c.Stats(); st.Deferred != 2 || st.Depth != 0 {
		t.Fatalf("stats %+v", st)
	}
	// What is deferred keeps the log.
	for range 100 {
		r.publish(1000, 0)
		takeAndFinish(t, s)
	}
	if st := r.log.Stats(); l.Floor() != 0 || st.Bytes < 100_000*8 {
		t.Fatalf("floor %d, %d bytes", l.Floor(), st.Bytes)
	}
	r.clock.advance(30 * time.Second)
	if got := show(t, untimed(take(t, s))); got != "1/2 " {
		t.Fatalf("took %s", got)
	}
	r.clock.advance(29 * time.Second)
	if err := s.Touch(id(1)); err != nil {
		t.Fatal(err)
	}
	r.clock.advance(time.Second)
	if got := show(t, untimed(take(t, s))); got != "0/1 " {
		t.Fatalf("took %s", got)
	}
	if st := c.Stats(); st.Deferred != 0 || st.InFlight != 2 {
		t.Fatalf("stats %+v", st)
	}
	for o := range int64(2) {
		if err := s.Finish(id(o)); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		r.publish(1000, 0)
		takeAndFinish(t, s)
	}
	if st := r.log.Stats(); l.Floor() != 150_002 || st.Bytes > 4*trimBytes {
		t.Fatalf("floor %d, %d bytes", l.Floor(), st.Bytes)
	}
}

// untimed gives deliveries the times that show wants.
func untimed(ds []Delivery) []Delivery {
	for i := range ds {
		_, o, _ := testCodec.Parse(ds[i].ID)
		ds[i].TimeNs = 1000 + o
	}
	return ds
}

func TestMemoryBoundsDeferred(t *testing.T) {
	r := newMemoryRig(0, 0, MemoryOptions{DeferredMax: 3})
	c, _ := r.channel(Config{})
	s := r.subscribe(t, c, 10)
	r.publish(5, r.clock.now+int64(time.Second))
	take(t, s)
	if st := c.Stats(); st.Deferred != 3 || st.DroppedCount != 2 {
		t.Fatalf("stats %+v", st)
	}
	r.clock.advance(time.Second)
	wantOffsets(t, takeAndFinish(t, s), 0, 3)
	r.publish(2, r.clock.now+int64(time.Second))
	take(t, s)
	if st := c.Stats(); st.Deferred != 2 {
		t.Fatalf("stats %+v", st)
	}
}

// TestMemoryOffersWhatTheLaneHasRoomFor: more is due than a lane takes at
// once.
func TestMemoryOffersWhatTheLaneHasRoomFor(t *testing.T) {
	r := newMemoryRig(0, 0, MemoryOptions{})
	c, _ := r.channel(Config{})
	s := r.subscribe(t, c, 100)
	const n = 5000
	r.publish(n, r.clock.now+int64(time.Second))
	take(t, s)
	r.clock.advance(time.Second)
	if st := c.Stats(); st.Depth != defaultLimits.due || st.Deferred != n-st.Depth {
		t.Fatalf("stats %+v", st)
	}
	if got := takeAndFinish(t, s); len(got) != n {
		t.Fatalf("got %d", len(got))
	}
	if len(r.shard.lanes) != 1 || r.shard.floorOf(t, c) != r.log.end {
		t.Fatal("something is still deferred")
	}
}

func (m *Memory) floorOf(t *testing.T, c *Channel) int64 {
	t.Helper()
	return c.lanes[0].Floor()
}

func TestMemoryDropsTheOldest(t *testing.T) {
	r := newMemoryRig(100, 0, MemoryOptions{})
	r.publish(80, 0)
	r.publish(80, 0)
	if st := r.log.Stats(); st.Depth != 100 || st.Dropped != 60 {
		t.Fatalf("stats %+v", st)
	}
	slow, lane := r.channel(Config{MaxLag: 100})
	quick, _ := r.channel(Config{MaxLag: 100})
	a, b := r.subscribe(t, slow, 10), r.subscribe(t, quick, 1000)
	if got := len(take(t, a)); got != 10 { // 60 to 69
		t.Fatalf("took %d", got)
	}
	for range 50 {
		r.publish(50, 0)
		if got := takeAndFinish(t, b); len(got) != 50 {
			t.Fatalf("the quick one got %d", len(got))
		}
	}
	if st := slow.Stats(); st.Depth != 100 || st.InFlight != 10 || st.DroppedCount != 90+2500-100 {
		t.Fatalf("stats %+v", st)
	}
	if st := quick.Stats(); st.DroppedCount != 0 {
		t.Fatalf("stats %+v", st)
	}
	// What is in flight can be delivered again, however old it is.
	if lane.Floor() != 60 {
		t.Fatalf("floor %d", lane.Floor())
	}
	if err := a.Requeue(id(60), 0); err != nil {
		t.Fatal(err)
	}
	if got := show(t, untimed(take(t, a))); got != "60/2 " {
		t.Fatalf("took %s", got)
	}
	for o := int64(60); o < 70; o++ {
		if err := a.Finish(id(o)); err != nil {
			t.Fatal(err)
		}
	}
	wantOffsets(t, takeAndFinish(t, a), 2560, 2660)
}

func TestMemoryLogIsBoundedInBytes(t *testing.T) {
	r := newMemoryRig(1<<20, 32<<10, MemoryOptions{})
	c, _ := r.channel(Config{})
	s := r.subscribe(t, c, 1)
	r.publish(10, 0)
	take(t, s)
	for range 1000 {
		r.publish(100, 0)
		if st := r.log.Stats(); st.Bytes > 64<<10 {
			t.Fatalf("%d bytes", st.Bytes)
		}
	}
	if r.log.Start() == 0 || r.log.Stats().Dropped == 0 {
		t.Fatal("nothing was dropped")
	}
	if err := s.Requeue(id(0), 0); err != nil {
		t.Fatal(err)
	}
	if ds := take(t, s); len(ds) != 1 || ds[0].ID == id(0) {
		t.Fatalf("took %v", ds)
	}
	if st := c.Stats(); st.SkippedCount == 0 {
		t.Fatalf("stats %+v", st)
	}
}

func TestMemoryEmptyAndDetach(t *testing.T) {
	r := newMemoryRig(0, 0, MemoryOptions{})
	c, l := r.channel(Config{})
	s := r.subscribe(t, c, 2)
	r.publish(5, 0)
	take(t, s)
	if err := s.Requeue(id(0), time.Second); err != nil {
		t.Fatal(err)
	}
	r.log.EmptyLane(l)
	if err := s.Finish(id(1)); !errors.Is(err, fault.NotInFlight) {
		t.Fatalf("FIN after empty: %v", err)
	}
	r.clock.advance(time.Minute)
	if got := take(t, s); len(got) > 0 {
		t.Fatalf("took %v after empty", got)
	}
	if st := c.Stats(); st.Depth != 0 || st.InFlight != 0 || st.Deferred != 0 || st.MessageCount != 5 {
		t.Fatalf("stats %+v", st)
	}
	r.publish(1, 0)
	wantOffsets(t, takeAndFinish(t, s), 5, 6)
	r.log.Detach(l, fault.ChannelNotFound)
	r.publish(1, 0)
	if got := take(t, s); len(got) > 0 || r.log.Stats().Depth != 1 {
		t.Fatalf("took %v after detach", got)
	}
}

// memoryStress is an ephemeral topic under load.
type memoryStress struct {
	t        *testing.T
	log      *MemoryLog
	shard    *Memory
	finished []atomic.Int32 // by offset
	left     atomic.Int64
	done     chan struct{}
}

// TestMemoryStress: an ephemeral topic with publishers, consumers that requeue
// and leave, and channels that come and go, all at once: every message of the
// lasting channel is finished once, and nothing locks up.
func TestMemoryStress(t *testing.T) {
	const total = 20_000
	x := &memoryStress{
		t: t, log: NewMemoryLog(1<<20, 1<<30), shard: NewMemory(MemoryOptions{}),
		finished: make([]atomic.Int32, total), done: make(chan struct{}),
	}
	x.left.Store(total)
	c, _ := x.channel()
	var wg sync.WaitGroup
	wg.Go(x.publish)
	wg.Go(x.comeAndGo)
	for range 3 {
		wg.Go(func() { x.consume(c, x.done, x.answer) })
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatalf("stuck: %d left, %+v", x.left.Load(), c.Stats())
	}
}

func (x *memoryStress) channel() (*Channel, *Lane) {
	c := NewChannel(Config{Codec: testCodec, MaxLag: 1 << 20})
	l := c.AddLane(0, x.log, x.shard)
	x.log.Attach(l)
	return c, l
}

func (x *memoryStress) publish() {
	var b record.Builder
	for n := 0; n < len(x.finished); n += 20 {
		b.Begin(nil, 1)
		for i := range 20 {
			b.Add(&record.Message{Value: body(int64(n + i))})
		}
		x.log.Append(b.Finish(), 20, 0, time.Now().UnixNano())
	}
}

// consume takes and answers until it is told to leave.
func (x *memoryStress) consume(c *Channel, until <-chan struct{}, answer func(*Subscription, *Delivery)) {
	bell := make(chan struct{}, 1)
	s, err := c.Subscribe(SubOptions{Notify: func() {
		select {
		case bell <- struct{}{}:
		default:
		}
	}})
	if err != nil {
		x.t.Error(err)
		return
	}
	defer s.Close(true)
	s.SetWindow(50)
	for {
		ds, err := s.Take(nil, 1024)
		if err != nil {
			return
		}
		for i := range ds {
			answer(s, &ds[i])
		}
		if len(ds) > 0 {
			continue
		}
		select {
		case <-bell:
		case <-until:
			return
		}
	}
}

// answer requeues some on their first delivery and finishes the others.
func (x *memoryStress) answer(s *Subscription, d *Delivery) {
	_, o, _ := testCodec.Parse(d.ID)
	if d.Attempts == 1 && o%11 == 0 {
		if err := s.Requeue(d.ID, time.Duration(o%3)*time.Millisecond); err != nil {
			x.t.Error(err)
		}
		return
	}
	if err := s.Finish(d.ID); err != nil || x.finished[o].Add(1) > 1 {
		x.t.Errorf("FIN %d: %v", o, err)
	}
	if x.left.Add(-1) == 0 {
		close(x.done)
	}
}

// comeAndGo makes channels that live for a millisecond.
func (x *memoryStress) comeAndGo() {
	for {
		select {
		case <-x.done:
			return
		default:
		}
		c, l := x.channel()
		short := make(chan struct{})
		time.AfterFunc(time.Millisecond, func() { close(short) })
		x.consume(c, short, func(s *Subscription, d *Delivery) { s.Do([]Op{{ID: d.ID}}, nil) })
		x.log.EmptyLane(l)
		c.Close(nil)
		x.log.Detach(l, nil)
	}
}
