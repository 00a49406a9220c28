package delivery

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/seglog"
)

// memLog is a log in memory with holes and damage to order.
type memLog struct {
	mu      sync.Mutex
	batches []seglog.Batch
	start   int64
	end     int64
	bad     []offsets.Range
	err     error
	onRead  func(offset int64)
	reads   int
	pool    *seglog.ChunkPool // poisons what is given back
	mending bool              // what is bad is being fetched
}

// message is what a test publishes; body is made from the offset.
type message struct{ due int64 }

// body is the body of the message at an offset.
func body(offset int64) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(offset))
}

// append publishes msgs as one batch and returns the new end.
func (m *memLog) append(msgs ...message) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b record.Builder
	b.Begin(nil, 1)
	for i, msg := range msgs {
		rm := record.Message{Value: body(m.end + int64(i))}
		if msg.due != 0 {
			rm.Headers = []record.Header{{Key: record.HeaderDue, Value: record.AppendDue(nil, msg.due)}}
		}
		b.Add(&rm)
	}
	m.batches = append(m.batches, seglog.Batch{Base: m.end, Count: int32(len(msgs)), TimeNs: 1000 + m.end, Data: b.Finish()})
	m.end += int64(len(msgs))
	return m.end
}

// publish appends n messages that are not deferred, per to a batch.
func (m *memLog) publish(n, per int) int64 {
	for n > 0 {
		k := min(n, per)
		m.append(make([]message, k)...)
		n -= k
	}
	return m.end
}

// ReadChunk gives what is read into lent memory, as if from a file.
func (m *memLog) ReadChunk(out []seglog.Batch, offset int64, maxBytes int) ([]seglog.Batch, *seglog.Chunk, error) {
	if m.onRead != nil {
		m.onRead(offset)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	had := len(out)
	out, err := m.read(out, offset, maxBytes)
	size := 0
	for _, b := range out[had:] {
		size += len(b.Data)
	}
	if size == 0 {
		return out, nil, err
	}
	if m.pool == nil {
		m.pool = seglog.NewChunkPool(true)
	}
	chunk := m.pool.Get(size)
	rest := chunk.Bytes()
	for i := had; i < len(out); i++ {
		n := copy(rest, out[i].Data)
		out[i].Data, rest = rest[:n:n], rest[n:]
	}
	return out, chunk, err
}

// read appends the batches themselves.
func (m *memLog) read(out []seglog.Batch, offset int64, maxBytes int) ([]seglog.Batch, error) {
	m.reads++
	if m.err != nil {
		return out, m.err
	}
	i := sort.Search(len(m.batches), func(i int) bool { return m.batches[i].Last() >= max(offset, m.start) })
	for size := 0; i < len(m.batches); i++ {
		b := m.batches[i]
		for _, r := range m.bad {
			if b.Base < r.To && b.Last() >= r.From {
				if len(out) > 0 {
					return out, nil
				}
				return out, &seglog.CorruptError{First: b.Base, Last: b.Last(), Mending: m.mending}
			}
		}
		if size += len(b.Data); len(out) > 0 && size > maxBytes {
			break
		}
		out = append(out, b)
	}
	return out, nil
}

func (m *memLog) Start() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.start
}

// memShard is the replicated side of lanes, applied when the test says so.
type memShard struct {
	mu    sync.Mutex
	dirty map[partition.Lane]bool
	lanes map[partition.Lane]*durable
	// pending are deltas that were collected and are not applied yet.
	pending []pendingDelta
	lenient bool // see durable.tolerate
}

type pendingDelta struct {
	lane  partition.Lane
	delta partition.Delta
}

// durable is the replicated state of a channel on one partition.
type durable struct {
	floor    int64
	ranges   offsets.Set
	parked   map[int64]parked.Entry
	taken    map[int64]bool
	attempts map[int64]uint16
	wanted   bool
}

func newShard() *memShard {
	return &memShard{dirty: map[partition.Lane]bool{}, lanes: map[partition.Lane]*durable{}}
}

func newDurable() *durable {
	return &durable{parked: map[int64]parked.Entry{}, taken: map[int64]bool{}, attempts: map[int64]uint16{}, wanted: true}
}

func (m *memShard) state(l partition.Lane) *durable {
	if m.lanes[l] == nil {
		m.lanes[l] = newDurable()
	}
	return m.lanes[l]
}

func (m *memShard) Dirty(l partition.Lane) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dirty[l] = true
}

func (m *memShard) Wanted(l partition.Lane) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state(l).wanted = true
}

// fataler is what testing.TB and rapid.T share.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// collect takes what all dirty lanes report, and applies it.
func (m *memShard) collect(t fataler) {
	t.Helper()
	m.propose()
	m.commit(t)
}

// propose takes what all dirty lanes report.
func (m *memShard) propose() {
	m.mu.Lock()
	var lanes []partition.Lane
	for l := range m.dirty {
		lanes = append(lanes, l)
	}
	clear(m.dirty)
	m.mu.Unlock()
	for _, l := range lanes {
		for more := true; more; {
			p := pendingDelta{lane: l}
			more = l.Collect(&p.delta)
			m.pending = append(m.pending, p)
		}
	}
}

// commit applies what was proposed.
func (m *memShard) commit(t fataler) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.pending {
		if m.lenient {
			m.state(m.pending[i].lane).tolerate(&m.pending[i].delta)
		}
		m.state(m.pending[i].lane).apply(t, &m.pending[i].delta)
	}
	m.pending = nil
}

// apply checks that each offset stands once in the delta and applies it.
func (s *durable) apply(t fataler, d *partition.Delta) {
	t.Helper()
	if n := len(d.Finished) + len(d.Parked) + len(d.Unparked) + len(d.Attempts); n > partition.DeltaMax {
		t.Fatalf("a delta of %d items", n)
	}
	seen := map[int64]string{}
	once := func(o int64, what string) {
		if was, ok := seen[o]; ok {
			t.Fatalf("offset %d stands in a delta as %s and %s", o, was, what)
		}
		seen[o] = what
	}
	last := int64(-1)
	for _, r := range d.Finished {
		if r.From >= r.To || r.From <= last {
			t.Fatalf("finished ranges are not sorted and disjoint: %v", d.Finished)
		}
		last = r.To
		for o := r.From; o < r.To; o++ {
			once(o, "finished")
			if _, ok := s.parked[o]; ok {
				t.Fatalf("offset %d is finished, but parked", o)
			}
			delete(s.attempts, o)
		}
		s.ranges.Add(max(r.From, s.floor), r.To)
	}
	for _, e := range d.Parked {
		once(e.Offset, "parked")
		if e.Offset >= s.floor && !s.ranges.Contains(e.Offset) {
			s.ranges.Add(e.Offset, e.Offset+1)
		} else if _, ok := s.parked[e.Offset]; !ok {
			t.Fatalf("finished offset %d is parked", e.Offset)
		}
		s.parked[e.Offset] = e
		delete(s.taken, e.Offset)
		delete(s.attempts, e.Offset)
	}
	for _, o := range d.Unparked {
		once(o, "unparked")
		if _, ok := s.parked[o]; !ok {
			t.Fatalf("offset %d is unparked, but not parked", o)
		}
		delete(s.parked, o)
		delete(s.taken, o)
	}
	for _, a := range d.Attempts {
		once(a.Offset, "attempts")
		if a.Offset < s.floor || s.ranges.Contains(a.Offset) {
			t.Fatalf("attempts of %d, which is finished or parked", a.Offset)
		}
		if a.N == 0 {
			t.Fatalf("attempts of %d are none", a.Offset)
		}
		s.attempts[a.Offset] = a.N
	}
	s.floor = s.ranges.AdvanceFloor(s.floor)
}

// start is where the next leader begins.
func (s *durable) start(limit int64) partition.Start {
	clear(s.taken)
	s.wanted = true
	st := partition.Start{Floor: s.floor, Limit: limit, Skip: append([]offsets.Range(nil), s.ranges.Ranges()...), Attempts: map[int64]uint16{}}
	maps.Copy(st.Attempts, s.attempts)
	return st
}

// offer gives the lane what is due, earliest first, and returns what it took.
func (m *memShard) offer(l *Lane, now int64) []parked.Entry {
	m.mu.Lock()
	s := m.state(l)
	var es []parked.Entry
	for o, e := range s.parked {
		if !s.taken[o] && e.DueNs <= now {
			es = append(es, e)
		}
	}
	wanted := s.wanted
	if !wanted || len(es) == 0 {
		m.mu.Unlock()
		return nil
	}
	s.wanted = false // before Due: the lane may want more before it has returned
	m.mu.Unlock()
	sort.Slice(es, func(i, j int) bool {
		return es[i].DueNs < es[j].DueNs || es[i].DueNs == es[j].DueNs && es[i].Offset < es[j].Offset
	})
	n := l.Due(es)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range es[:n] {
		s.taken[e.Offset] = true
	}
	s.wanted = s.wanted || n == len(es)
	return es[:n]
}

// handClock is a clock and its timers, moved by the test.
type handClock struct {
	now    int64
	timers []*handTimer
}

type handTimer struct {
	clock *handClock
	at    int64
	set   bool
	f     func()
}

func (h *handClock) clock() int64 { return h.now }

func (h *handClock) afterFunc(d time.Duration, f func()) Timer {
	t := &handTimer{clock: h, f: f}
	t.Reset(d)
	h.timers = append(h.timers, t)
	return t
}

func (t *handTimer) Reset(d time.Duration) bool {
	was := t.set
	t.at, t.set = t.clock.now+int64(d), true
	return was
}

func (t *handTimer) Stop() bool {
	was := t.set
	t.set = false
	return was
}

// advance moves the time and fires what comes due on the way, at its time.
func (h *handClock) advance(d time.Duration) {
	end := h.now + int64(d)
	for fired := 0; ; fired++ {
		if fired > 1_000_000 {
			panic("timers fire without end")
		}
		var next *handTimer
		for _, t := range h.timers {
			if t.set && t.at <= end && (next == nil || t.at < next.at) {
				next = t
			}
		}
		if next == nil {
			break
		}
		h.now = max(h.now, next.at)
		next.set = false
		next.f()
	}
	h.now = end
}

// rig is a channel with one lane and everything around it.
type rig struct {
	log   *memLog
	shard *memShard
	clock *handClock
	ch    *Channel
	lane  *Lane
}

var testCodec = NewCodec(42, 7)

func newRig(cfg Config) *rig {
	r := &rig{log: &memLog{}, shard: newShard(), clock: &handClock{now: int64(time.Hour)}}
	r.open(cfg, partition.Start{})
	return r
}

// open makes a new channel, as a new leader does.
func (r *rig) open(cfg Config, st partition.Start) {
	cfg.Topic, cfg.Name, cfg.Codec = "t", "c", testCodec
	cfg.Clock, cfg.AfterFunc = r.clock.clock, r.clock.afterFunc
	r.ch = NewChannel(cfg)
	r.lane = r.ch.AddLane(0, r.log, r.shard)
	r.lane.Begin(st)
}

// publish makes n messages visible.
func (r *rig) publish(n int) { r.lane.Limit(r.log.publish(n, 10)) }

// subscribe adds a consumer with a window.
func (r *rig) subscribe(t testing.TB, window int, o SubOptions) *Subscription {
	t.Helper()
	s, err := r.ch.Subscribe(o)
	if err != nil {
		t.Fatal(err)
	}
	s.SetWindow(window)
	return s
}

// take calls Take until it returns nothing.
func take(t testing.TB, s *Subscription) []Delivery {
	t.Helper()
	var ds []Delivery
	for {
		had := len(ds)
		var err error
		if ds, err = s.Take(ds, 1<<20); err != nil {
			t.Fatal(err)
		}
		if len(ds) == had {
			return ds
		}
		for i := had; i < len(ds); i++ {
			ds[i].Body = bytes.Clone(ds[i].Body)
		}
	}
}

// offsetOf checks a delivery's body against its id and returns its offset.
func offsetOf(t fataler, d *Delivery) int64 {
	t.Helper()
	_, o, ok := testCodec.Parse(d.ID)
	if !ok {
		t.Fatalf("id %s is not of this topic", d.ID)
	}
	if got := binary.BigEndian.Uint64(d.Body); int64(got) != o {
		t.Fatalf("offset %d has the body of %d", o, got)
	}
	if d.TimeNs != 1000+o {
		t.Fatalf("offset %d has time %d", o, d.TimeNs)
	}
	return o
}

// show lists deliveries as offset/attempts.
func show(t fataler, ds []Delivery) string {
	t.Helper()
	var out []byte
	for i := range ds {
		out = fmt.Appendf(out, "%d/%d ", offsetOf(t, &ds[i]), ds[i].Attempts)
	}
	return string(out)
}

func id(offset int64) ID { return testCodec.ID(0, offset) }

func entries(offset, due int64, attempts uint16) []parked.Entry {
	return []parked.Entry{{Offset: offset, DueNs: due, Attempts: attempts}}
}
