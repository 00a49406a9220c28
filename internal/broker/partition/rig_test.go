package partition

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
)

// fataler is what of *testing.T and *rapid.T the rig needs.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

var errLost = errors.New("lost")

// compactTime is late enough for every segment.
var compactTime = time.Unix(1<<32, 0)

// rig drives one Machine as a Raft group of one voter would: what Drain
// returns is in flight until it is committed or lost, a crash restores a
// checkpoint and applies what was committed since.
type rig struct {
	t     fataler
	o     Options
	so    seglog.Options
	fs    *vfs.Mem
	store *seglog.Store
	m     *Machine
	term  uint64
	index uint64
	now   int64
	max   int // bytes of an entry

	log      []shard.Entry // committed
	inflight []proposal
	saved    []savedState // published checkpoints, newest first, at most two
	lanes    []*testLane
	reserve  bool
	compacts int
	spillMin int // 0: the default, and ParkedMax too
}

type proposal struct {
	data  []byte
	token any
}

type savedState struct {
	index uint64
	state []byte
}

func newRig(t fataler) *rig {
	r := &rig{t: t, fs: vfs.NewMem(), term: 1, now: 1_000_000_000, max: 1 << 20}
	r.so = seglog.Options{SegmentSize: 4096, TailBytes: 2048}
	r.boot(savedState{})
	r.m.Lead(r.term)
	return r
}

// boot makes a machine from a checkpoint and the entries above it.
func (r *rig) boot(s savedState) {
	r.t.Helper()
	var err error
	if r.store, err = seglog.Open(r.fs, "topics", r.so); err != nil {
		r.t.Fatalf("open store: %v", err)
	}
	o := r.o
	o.Store, o.FS, o.Dir, o.TailBytes = r.store, r.fs, "parked", 1<<20
	o.Reserve = func() bool { return r.reserve }
	if r.spillMin > 0 {
		o.ParkedMax = 2 * r.spillMin
	}
	r.m = New(o)
	if r.spillMin > 0 {
		r.m.spillMin = r.spillMin
	}
	if err := r.m.Restore(s.index, s.state); err != nil {
		r.t.Fatalf("restore: %v", err)
	}
	for _, e := range r.log {
		if e.Index > s.index {
			r.apply(e, nil)
		}
	}
}

func (r *rig) apply(e shard.Entry, token any) {
	r.t.Helper()
	if err := r.m.Apply(e, token); err != nil {
		r.t.Fatalf("apply entry %d: %v", e.Index, err)
	}
}

// propose drains one entry; false when nothing waits.
func (r *rig) propose() bool {
	data, token := r.m.Drain(r.term, r.now, r.max)
	if data == nil {
		return false
	}
	r.inflight = append(r.inflight, proposal{slices.Clone(data), token})
	return true
}

// commit applies the oldest proposal; false when there is none.
func (r *rig) commit() bool {
	r.t.Helper()
	if len(r.inflight) == 0 {
		return false
	}
	p := r.inflight[0]
	r.inflight = r.inflight[1:]
	r.index++
	e := shard.Entry{Index: r.index, Term: r.term, Data: p.data}
	r.log = append(r.log, e)
	r.apply(e, p.token)
	return true
}

// settle lets time pass until everything that waits is applied.
func (r *rig) settle() {
	r.t.Helper()
	rest := 0
	for range 2000 {
		r.now += collectDelayNs
		r.m.Tick(r.now)
		did := r.propose()
		for r.commit() {
			did = true
		}
		if did {
			rest = 0
		} else if rest++; rest == 2 { // a report waits for one round
			return
		}
	}
	r.t.Fatalf("the machine does not come to rest")
}

// checkpoint writes and publishes a state.
func (r *rig) checkpoint() {
	r.t.Helper()
	c := r.m.Checkpoint(r.index)
	state, err := c.Write()
	if err != nil {
		r.t.Fatalf("write checkpoint: %v", err)
	}
	c.Published()
	r.saved = append([]savedState{{r.index, slices.Clone(state)}}, r.saved...)
	r.saved = r.saved[:min(len(r.saved), 2)]
}

// flush does what the flusher does between checkpoints.
func (r *rig) flush() {
	r.t.Helper()
	for r.store.OverBudget() {
		if did, err := r.store.FlushOldest(); err != nil || !did {
			r.t.Fatalf("flush: %v, %v", did, err)
		}
	}
	if _, err := r.m.Background(); err != nil {
		r.t.Fatalf("background: %v", err)
	}
}

// crash loses what is not committed but for the first n proposals, and what is
// not synced, and starts from the newest published checkpoint or the one
// before.
func (r *rig) crash(n, back int, seed uint64) {
	r.t.Helper()
	for _, p := range r.inflight[:min(n, len(r.inflight))] {
		r.index++
		r.log = append(r.log, shard.Entry{Index: r.index, Term: r.term, Data: p.data})
	}
	r.inflight, r.lanes = nil, nil
	_ = r.store.Close()
	r.fs.Crash(rand.New(rand.NewPCG(seed, 1)))
	var s savedState
	if len(r.saved) > 0 {
		r.saved = r.saved[min(back, len(r.saved)-1):]
		s = r.saved[0]
	}
	r.term++
	r.boot(s)
	r.m.Lead(r.term)
}

// elect ends the leadership and begins another; the proposals are lost.
func (r *rig) elect() {
	r.m.Follow()
	for _, p := range r.inflight {
		r.m.Drop(p.token, errLost)
	}
	r.inflight = nil
	r.term++
	r.m.Lead(r.term)
}

// answer is a Completion and a done func.
type answer struct {
	called int
	base   int64
	err    error
}

func (a *answer) Published(base int64, err error) {
	a.called++
	a.base, a.err = base, err
}

func (a *answer) done(err error) { a.Published(0, err) }

// do runs a command to its end.
func (r *rig) do(c Command) error {
	r.t.Helper()
	var a answer
	r.m.Do(c, a.done)
	r.settle()
	if a.called != 1 {
		r.t.Fatalf("%T was answered %d times", c, a.called)
	}
	return a.err
}

// must runs a command that has to succeed.
func (r *rig) must(c Command) {
	r.t.Helper()
	if err := r.do(c); err != nil {
		r.t.Fatalf("%T: %v", c, err)
	}
}

// send puts a publish into the inbox.
func (r *rig) send(k Key, msgs ...Message) *answer {
	r.t.Helper()
	a := &answer{}
	if err := r.m.Publish(&Publish{Topic: k.Topic, Partition: k.Partition, Messages: msgs, Done: a}); err != nil {
		r.t.Fatalf("publish: %v", err)
	}
	return a
}

// publish publishes n messages and waits.
func (r *rig) publish(k Key, n int) int64 {
	r.t.Helper()
	a := r.send(k, bodies(n)...)
	r.settle()
	if a.called != 1 || a.err != nil {
		r.t.Fatalf("publish was answered %d times: %v", a.called, a.err)
	}
	return a.base
}

// bodies are n messages.
func bodies(n int) []Message {
	ms := make([]Message, n)
	for i := range ms {
		ms[i].Body = fmt.Appendf(nil, "message %d", i)
	}
	return ms
}

// attach registers a new lane.
func (r *rig) attach(k Key, channel uint64) *testLane {
	l := &testLane{r: r, key: k, channel: channel, room: 1 << 30}
	r.lanes = append(r.lanes, l)
	r.m.Attach(k.Topic, k.Partition, channel, l)
	return l
}

// left is what a channel still has to deliver: offsets of the log, and parked
// ones with their due times.
type left struct {
	log    []int64
	parked map[int64]int64
}

// left reads it from the machine.
func (r *rig) left(k Key, channel uint64) left {
	r.t.Helper()
	var l left
	p, c, err := r.m.findChannel(k, channel)
	if err != nil {
		r.t.Fatalf("find channel: %v", err)
	}
	for o := c.floor; o < p.handOver; o++ {
		if !c.ranges.Contains(o) {
			l.log = append(l.log, o)
		}
	}
	l.parked = make(map[int64]int64)
	if c.parked != nil {
		err := c.parked.Each(func(e parked.Entry) error {
			l.parked[e.Offset] = e.DueNs
			return nil
		})
		if err != nil {
			r.t.Fatalf("read parked: %v", err)
		}
	}
	return l
}

// Raised implements Lane.
func (l *testLane) Raised(b Barrier) { l.barriers = append(l.barriers, b) }

// testLane is a simple delivery: it has all deliverable messages in its hands.
type testLane struct {
	r        *rig
	key      Key
	channel  uint64
	begun    int
	stopped  int
	err      error
	floor    int64
	limit    int64
	done     map[int64]bool // offsets not to be delivered from the log any more
	skipped  int
	start    Start
	barriers []Barrier              // told by Raised
	due      map[int64]parked.Entry // due messages taken
	room     int                    // how many more due messages it takes
	pins     int64                  // Floor, for an ephemeral channel

	finished map[int64]bool
	parked   map[int64]parked.Entry
	unparked map[int64]bool
	attempts map[int64]uint16
}

func (l *testLane) alive() {
	if l.begun != 1 || l.stopped != 0 {
		l.r.t.Fatalf("lane is called, begun %d, stopped %d", l.begun, l.stopped)
	}
}

func (l *testLane) Begin(s Start) {
	l.begun++
	l.alive()
	l.reset(s)
}

func (l *testLane) reset(s Start) {
	l.start, l.floor, l.limit = s, s.Floor, s.Limit
	l.done, l.due = map[int64]bool{}, map[int64]parked.Entry{}
	l.finished, l.parked = map[int64]bool{}, map[int64]parked.Entry{}
	l.unparked, l.attempts = map[int64]bool{}, map[int64]uint16{}
	for _, rg := range s.Skip {
		for o := rg.From; o < rg.To; o++ {
			l.done[o] = true
		}
	}
}

func (l *testLane) Limit(limit int64) {
	l.alive()
	if limit < l.limit {
		l.r.t.Fatalf("limit goes back from %d to %d", l.limit, limit)
	}
	l.limit = limit
}

func (l *testLane) Skip(from, to int64) {
	l.alive()
	l.skipped += int(to - from)
	for o := from; o < to; o++ {
		l.done[o] = true
	}
}

func (l *testLane) Due(es []parked.Entry) int {
	l.alive()
	if len(es) == 0 {
		l.r.t.Fatalf("nothing is offered as due")
	}
	n := min(len(es), l.room)
	for _, e := range es[:n] {
		if e.DueNs > l.r.now {
			l.r.t.Fatalf("offset %d is due at %d, offered at %d", e.Offset, e.DueNs, l.r.now)
		}
		if _, ok := l.due[e.Offset]; ok {
			l.r.t.Fatalf("offset %d is offered twice", e.Offset)
		}
		l.due[e.Offset] = e
	}
	l.room -= n
	return n
}

func (l *testLane) Reset(s Start) {
	l.alive()
	l.reset(s)
}

func (l *testLane) Collect(d *Delta) bool {
	l.alive()
	room := DeltaMax
	for _, o := range sorted(l.finished) {
		d.Finished = append(d.Finished, rangeOf(o))
		room--
	}
	for _, o := range sorted(l.parked) {
		d.Parked = append(d.Parked, l.parked[o])
	}
	d.Unparked = append(d.Unparked, sorted(l.unparked)...)
	for _, o := range sorted(l.attempts) {
		d.Attempts = append(d.Attempts, Attempt{o, l.attempts[o]})
	}
	clear(l.finished)
	clear(l.parked)
	clear(l.unparked)
	clear(l.attempts)
	return false
}

func (l *testLane) Stop(err error) {
	l.stopped++
	if l.stopped > 1 {
		l.r.t.Fatalf("lane is stopped twice")
	}
	l.err = err
}

func (l *testLane) Floor() int64 { return max(l.floor, l.pins) }

// open are the offsets that the lane can deliver from the log.
func (l *testLane) open() []int64 {
	var os []int64
	for o := l.floor; o < l.limit; o++ {
		if !l.done[o] {
			os = append(os, o)
		}
	}
	return os
}

// finish finishes an open or due message.
func (l *testLane) finish(o int64) {
	if _, ok := l.due[o]; ok {
		delete(l.due, o)
		delete(l.parked, o)
		l.unparked[o] = true
	} else {
		l.done[o] = true
		delete(l.attempts, o)
		l.finished[o] = true
	}
	l.r.m.Dirty(l)
}

// park puts an open or due message aside.
func (l *testLane) park(e parked.Entry) {
	delete(l.due, e.Offset)
	delete(l.attempts, e.Offset)
	l.done[e.Offset] = true
	l.parked[e.Offset] = e
	l.r.m.Dirty(l)
}

// note counts an attempt of an open message.
func (l *testLane) note(o int64, n uint16) {
	l.attempts[o] = n
	l.r.m.Dirty(l)
}

// want makes room for due messages.
func (l *testLane) want(n int) {
	l.room += n
	l.r.m.Wanted(l)
}
