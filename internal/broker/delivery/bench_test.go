package delivery

import (
	"testing"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/vfs"
)

// loopLog is an endless log that repeats one batch, and allocates nothing.
type loopLog struct {
	count int64
	data  []byte
}

func newLoopLog(count, size int) *loopLog {
	var b record.Builder
	b.Begin(nil, 1)
	for range count {
		b.Add(&record.Message{Value: make([]byte, size)})
	}
	return &loopLog{count: int64(count), data: b.Finish()}
}

func (l *loopLog) ReadChunk(dst []seglog.Batch, offset int64, maxBytes int) ([]seglog.Batch, *seglog.Chunk, error) {
	base := offset - offset%l.count
	for n := 0; n == 0 || n+len(l.data) <= maxBytes; n += len(l.data) {
		dst = append(dst, seglog.Batch{Base: base, Count: int32(l.count), Data: l.data})
		base += l.count
	}
	return dst, nil, nil
}

func (l *loopLog) Start() int64 { return 0 }

// countShard collects at once, as a shard's loop would now and then.
type countShard struct {
	delta partition.Delta
	dirty *Lane
}

func (s *countShard) Dirty(l partition.Lane) { s.dirty = l.(*Lane) }
func (s *countShard) Wanted(partition.Lane)  {}

func (s *countShard) collect() {
	if s.dirty == nil {
		return
	}
	d := &s.delta
	d.Finished, d.Parked = d.Finished[:0], d.Parked[:0]
	d.Unparked, d.Attempts = d.Unparked[:0], d.Attempts[:0]
	s.dirty.Collect(d)
	s.dirty = nil
}

// drain is one consumer with a window that takes and finishes.
type drain struct {
	shard *countShard
	sub   *Subscription
	ds    []Delivery
	ops   []Op
	kind  func(i int) OpKind
}

func newDrain(tb testing.TB, window, perBatch int) *drain {
	return newDrainOf(tb, newLoopLog(perBatch, 200), 1<<40, window)
}

// newDrainOf drains a log as far as limit.
func newDrainOf(tb testing.TB, log Log, limit int64, window int) *drain {
	return newDrainWith(tb, log, limit, window, Config{Codec: testCodec})
}

func newDrainWith(tb testing.TB, log Log, limit int64, window int, cfg Config) *drain {
	d := &drain{shard: &countShard{}, kind: func(int) OpKind { return Finish }}
	ch := NewChannel(cfg)
	lane := ch.AddLane(0, log, d.shard)
	lane.Begin(partition.Start{Limit: limit})
	sub, err := ch.Subscribe(SubOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	sub.SetWindow(window)
	d.sub = sub
	return d
}

// step takes what there is and answers, and returns how many that were.
func (d *drain) step(tb testing.TB) int {
	var err error
	if d.ds, err = d.sub.Take(d.ds[:0], 64<<10); err != nil {
		tb.Fatal(err)
	}
	d.ops = d.ops[:0]
	for i := range d.ds {
		d.ops = append(d.ops, Op{Kind: d.kind(i), ID: d.ds[i].ID})
	}
	if failed := d.sub.Do(d.ops, nil); failed != 0 {
		tb.Fatalf("%d answers failed", failed)
	}
	d.shard.collect()
	return len(d.ds)
}

// TestSteadyStateDoesNotAllocate: neither deliveries, nor FIN, REQ and TOUCH.
func TestSteadyStateDoesNotAllocate(t *testing.T) {
	for name, kind := range map[string]func(int) OpKind{
		"FIN": func(int) OpKind { return Finish },
		"REQ": func(i int) OpKind {
			if i%3 == 0 {
				return Requeue
			}
			return Finish
		},
	} {
		d := newDrain(t, 500, 100)
		d.kind = kind
		for range 100 {
			d.step(t)
		}
		if got := testing.AllocsPerRun(200, func() { d.step(t) }); got > 0 {
			t.Errorf("%s: %.1f allocations for a Take and a Do", name, got)
		}
	}
}

// TestDrainDoesNotAllocate: nor does the log under it, from memory and from
// files.
func TestDrainDoesNotAllocate(t *testing.T) {
	for _, where := range []string{"tail", "file"} {
		const batches, perBatch, rounds = 600, 100, 200
		store, err := seglog.Open(vfs.NewMem(), "/topics", seglog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		log := store.New(seglog.LogID{Topic: 1}, 0)
		data := newLoopLog(perBatch, 200).data
		for i := range int64(batches) {
			log.Append(seglog.Batch{Base: i * perBatch, Count: perBatch, Index: uint64(i) + 1, Data: data})
		}
		if where == "file" {
			if _, err := log.Checkpoint(batches+1, 0); err != nil {
				t.Fatal(err)
			}
		}
		d := newDrainOf(t, log, batches*perBatch, 250)
		step := func() {
			if d.step(t) == 0 {
				t.Fatal("the log has ended")
			}
		}
		for range 20 {
			step()
		}
		if got := testing.AllocsPerRun(rounds, step); got >= 1 {
			t.Errorf("%s: %.1f allocations for a Take and a Do", where, got)
		}
		if files := store.Stats().FileReads > 0; files != (where == "file") {
			t.Errorf("%s: files were read: %v", where, files)
		}
	}
}

func benchmarkDrain(b *testing.B, d *drain) {
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n += d.step(b)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/msg")
	b.ReportMetric(float64(n)/float64(b.N), "msg/op")
}

// BenchmarkTakeFinish is delivery and FIN of messages of 200 bytes.
func BenchmarkTakeFinish(b *testing.B) {
	b.Run("window=2500", func(b *testing.B) { benchmarkDrain(b, newDrain(b, 2500, 100)) })
	b.Run("window=200", func(b *testing.B) { benchmarkDrain(b, newDrain(b, 200, 100)) })
	b.Run("window=1", func(b *testing.B) { benchmarkDrain(b, newDrain(b, 1, 100)) })
	b.Run("batches of 1", func(b *testing.B) { benchmarkDrain(b, newDrain(b, 200, 1)) })
}

// BenchmarkRequeue is delivery where every third message is requeued once and
// more.
func BenchmarkRequeue(b *testing.B) {
	d := newDrain(b, 200, 100)
	d.kind = func(i int) OpKind {
		if i%3 == 0 {
			return Requeue
		}
		return Finish
	}
	benchmarkDrain(b, d)
}

// BenchmarkManyInFlight answers in the reverse order, with much in flight.
func BenchmarkManyInFlight(b *testing.B) {
	d := newDrain(b, 50_000, 100)
	for {
		ds, err := d.sub.Take(nil, 64<<10)
		if err != nil {
			b.Fatal(err)
		}
		if len(ds) == 0 {
			break
		}
		d.ds = append(d.ds, ds...)
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		last := len(d.ds) - 100
		d.ops = d.ops[:0]
		for i := range d.ds[last:] {
			d.ops = append(d.ops, Op{Kind: Finish, ID: d.ds[len(d.ds)-1-i].ID})
		}
		if failed := d.sub.Do(d.ops, nil); failed != 0 {
			b.Fatalf("%d answers failed", failed)
		}
		var err error
		if d.ds, err = d.sub.Take(d.ds[:last], 64<<10); err != nil {
			b.Fatal(err)
		}
		d.shard.collect()
		n += 100
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/msg")
}
