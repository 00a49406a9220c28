package wal

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

// modelShard is what a shard must be.
type modelShard struct {
	hard    HardState
	hasHard bool
	entries map[uint64]Entry // those that still count
	last    uint64
}

// model is the state of the log after some prefix of the submitted requests.
type model map[uint32]*modelShard

func (m model) apply(r modelRequest) {
	if r.forget {
		delete(m, r.Shard)
		return
	}
	s := m[r.Shard]
	if s == nil {
		s = &modelShard{entries: map[uint64]Entry{}}
		m[r.Shard] = s
	}
	if r.Hard != nil {
		s.hard, s.hasHard = *r.Hard, true
	}
	for _, e := range r.Entries {
		if e.Index > s.last+1 {
			clear(s.entries) // the log begins anew
		}
		for i := e.Index; i <= s.last; i++ {
			delete(s.entries, i)
		}
		s.entries[e.Index], s.last = e, e.Index
	}
}

// modelRequest is a submitted request.
type modelRequest struct {
	Append
	forget bool
}

// seen counts the rare cases of a run, all of which must occur.
type seen map[string]int

// crashLoop drives one log through random steps and crashes.
type crashLoop struct {
	t        testing.TB
	rng      *rand.Rand
	fs       *vfs.Mem
	o        Options
	w        *WAL
	durable  model          // state of what was done
	since    []modelRequest // submitted after that
	done     int            // of since, known done
	released map[uint32]uint64
	seen     seen
	trace    []string
	soft     bool // a failure is a panic with a failure
}

// failure is what a soft loop panics with.
type failure string

func newCrashLoop(t testing.TB, seed uint64, seen seen) *crashLoop {
	rng := rand.New(rand.NewPCG(seed, 1))
	l := &crashLoop{
		t: t, rng: rng, fs: newFS(t), seen: seen, durable: model{}, released: map[uint32]uint64{},
		o: Options{SegmentSize: MinSegmentSize << rng.IntN(5), Spares: rng.IntN(4) - 1},
	}
	return l
}

// run opens the log and takes a number of steps.
func (l *crashLoop) run(steps int) {
	l.t.Helper()
	l.open()
	for range steps {
		l.step()
	}
}

func (l *crashLoop) note(format string, args ...any) {
	l.trace = append(l.trace, fmt.Sprintf(format, args...))
	if len(l.trace) > 100 {
		l.trace = l.trace[1:]
	}
}

func (l *crashLoop) fatal(format string, args ...any) {
	l.t.Helper()
	if l.soft {
		panic(failure(fmt.Sprintf(format, args...)))
	}
	for _, s := range l.trace {
		l.t.Log(s)
	}
	l.t.Fatalf(format, args...)
}

// open recovers, through crashes during recovery too, and checks what came.
func (l *crashLoop) open() {
	l.t.Helper()
	for {
		if l.rng.IntN(4) == 0 {
			l.fs.FailAfter(int64(1+l.rng.IntN(6)), vfs.ErrCrashed)
		}
		w, err := Open(l.fs, dir, l.o)
		if l.fs.Tripped() {
			l.seen["crash in recovery"]++
			l.note("crash in recovery")
			l.fs.Crash(l.rng)
			continue
		}
		l.fs.FailAfter(0, nil)
		if err != nil {
			l.fatal("open: %v", err)
		}
		l.w = w
		break
	}
	l.settle()
	s := l.w.Stats()
	l.note("opened: cut %d, live %d, spares %d", s.CutBytes, s.Segments, s.Spares)
	if s.CutBytes > 0 {
		l.seen["torn tail"]++
	}
}

// settle finds the prefix of the submitted requests that was recovered. It
// must hold all that were done.
func (l *crashLoop) settle() {
	l.t.Helper()
	for _, r := range l.since[:l.done] {
		l.durable.apply(r)
	}
	var why string
	var again []uint32 // lost forgets: such a shard may be back, in any state
	for k := l.done; ; k++ {
		if why = l.differs(l.since[k:]); why == "" {
			if k < len(l.since) {
				l.seen["un-synced tail lost"]++
			}
			if k > l.done {
				l.seen["un-synced tail kept"]++
			}
			for _, r := range l.since[k:] {
				if r.forget {
					again = append(again, r.Shard)
				}
			}
			break
		}
		l.note("prefix of %d (done %d of %d): %s", k, l.done, len(l.since), why)
		if k == len(l.since) {
			l.fatal("recovered what nobody submitted; against everything: %s", why)
		}
		l.durable.apply(l.since[k])
	}
	l.since, l.done = nil, 0
	for _, id := range again {
		l.forget(id)
	}
	for id, index := range l.released {
		l.w.Release(id, index)
	}
}

// differs compares the log with the model. Shards that are forgotten in what
// is left may be in any state.
func (l *crashLoop) differs(rest []modelRequest) string {
	ids := append(slices.Collect(maps.Keys(l.durable)), l.w.Shards()...)
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		if slices.ContainsFunc(rest, func(r modelRequest) bool { return r.forget && r.Shard == id }) {
			continue
		}
		m := l.durable[id]
		if m == nil {
			m = &modelShard{}
		}
		if why := l.shardDiffers(id, m); why != "" {
			return why
		}
	}
	return ""
}

func (l *crashLoop) shardDiffers(id uint32, m *modelShard) string {
	hard, ok := l.w.Hard(id)
	if ok != m.hasHard || hard != m.hard {
		return fmt.Sprintf("shard %d: HardState %v %v, want %v %v", id, hard, ok, m.hard, m.hasHard)
	}
	released := l.released[id]
	last, _ := l.w.Last(id)
	if m.last <= released { // also when it has none
		if last > m.last {
			return fmt.Sprintf("shard %d: last is %d, want %d at most", id, last, m.last)
		}
		return ""
	}
	first := l.w.First(id)
	if last != m.last || first == 0 {
		return fmt.Sprintf("shard %d: entries %d to %d, want up to %d", id, first, last, m.last)
	}
	from := m.last
	for from > 1 && from-1 > released && m.entries[from-1].Index != 0 {
		from--
	}
	es, err := l.w.Entries(id, from, last+1, everything)
	if err != nil {
		return fmt.Sprintf("shard %d: entries %d to %d: %v", id, from, last, err)
	}
	for i, e := range es {
		want := m.entries[from+uint64(i)]
		if e.Index != want.Index || e.Term != want.Term || e.Type != want.Type || !bytes.Equal(e.Data, want.Data) {
			return fmt.Sprintf("shard %d: entry %d of term %d, want entry %d of term %d", id, e.Index, e.Term, want.Index, want.Term)
		}
		if term, err := l.w.Term(id, e.Index); err != nil || term != want.Term {
			return fmt.Sprintf("shard %d: term of %d is %d, %v", id, e.Index, term, err)
		}
	}
	return ""
}

// submit queues a random append.
func (l *crashLoop) submit() {
	id := uint32(1 + l.rng.IntN(4))
	last, term := l.w.Last(id)
	last = max(last, l.released[id])
	hard, _ := l.w.Hard(id)
	a := Append{Shard: id, Sync: true}
	if l.rng.IntN(3) == 0 {
		hard.Commit++
		if a.Sync = l.rng.IntN(2) == 0; a.Sync {
			hard.Term, hard.Vote = hard.Term+1, l.rng.Uint64N(5)
		}
		a.Hard = &hard
	}
	if a.Sync {
		n := 1 + l.rng.IntN(3)
		if l.rng.IntN(6) == 0 && last > l.released[id] {
			last -= min(l.rng.Uint64N(6), last-l.released[id])
			term++
		}
		if l.rng.IntN(200) == 0 {
			last += 10 // behind a snapshot
			l.seen["gap"]++
		}
		for range n {
			last++
			size := l.rng.IntN(300)
			if l.rng.IntN(60) == 0 {
				size = int(l.o.SegmentSize) + l.rng.IntN(2000)
			}
			e := entry(last, max(term, 1), size)
			l.rng.Uint64()
			for i := 16; i < len(e.Data); i += 8 {
				e.Data[i] = byte(l.rng.Uint32())
			}
			a.Entries = append(a.Entries, e)
		}
	}
	if a.Sync || l.rng.IntN(2) == 0 {
		at, life := len(l.since), l.w
		a.Done = func(err error) {
			if err == nil && a.Sync && life == l.w {
				l.done = max(l.done, at+1)
			}
		}
	}
	l.since = append(l.since, modelRequest{Append: a})
	if len(a.Entries) > 0 {
		l.note("submit %d entries from %d to shard %d", len(a.Entries), a.Entries[0].Index, id)
	} else {
		l.note("submit HardState to shard %d, sync %v", id, a.Sync)
	}
	l.w.Submit(a)
}

func (l *crashLoop) forget(id uint32) {
	l.note("forget shard %d", id)
	l.since = append(l.since, modelRequest{Append: Append{Shard: id}, forget: true})
	l.w.Forget(id)
	delete(l.released, id)
	l.seen["forget"]++
}

func (l *crashLoop) release() {
	id := uint32(1 + l.rng.IntN(4))
	if m := l.durable[id]; m != nil && !slices.ContainsFunc(l.since, func(r modelRequest) bool { return r.Shard == id }) && m.last > 3 {
		l.released[id] = max(l.released[id], m.last-l.rng.Uint64N(3))
		l.w.Release(id, l.released[id])
	}
}

// fold moves what is done into the durable model, so that it stays small.
func (l *crashLoop) fold() {
	for _, r := range l.since[:l.done] {
		l.durable.apply(r)
	}
	// Done callbacks hold positions in since, so they must have been called.
	if l.done == len(l.since) {
		l.since, l.done = nil, 0
	} else {
		l.fatal("fold with requests under way")
	}
}

// crash ends the log's life.
func (l *crashLoop) crash(where string) {
	l.note("crash %s", where)
	l.seen["crash "+where]++
	s := l.w.Stats()
	l.seen["recycle"] += int(s.Recycles)
	l.seen["oversize"] += int(s.Oversize)
	l.seen["roll"] += int(s.Rolls)
	l.fs.Crash(l.rng)
	l.open()
}

// act runs one step; a tripped file system is a crash in the middle of it.
func (l *crashLoop) act(name string, step func() error) {
	armed := l.rng.IntN(120) == 0
	if armed {
		l.fs.FailAfter(int64(1+l.rng.IntN(4)), vfs.ErrCrashed)
	}
	l.note("%s", name)
	err := step()
	if armed && l.fs.Tripped() {
		l.w.Finish() // what it says done must be
		l.crash("in " + name)
		return
	}
	l.fs.FailAfter(0, nil)
	if err != nil {
		l.fatal("%s: %v", name, err)
	}
}

func (l *crashLoop) step() {
	switch p := l.rng.IntN(1000); {
	case p < 350:
		l.submit()
	case p < 550:
		l.act("write", l.w.Write)
	case p < 700:
		l.act("sync", l.w.Sync)
	case p < 800:
		l.w.Finish()
	case p < 820:
		l.act("mark", l.w.Mark)
		if !l.w.Pending() && len(l.w.writer.acks) == 0 && l.w.writer.synced == l.w.writer.offset {
			l.done = len(l.since)
			l.fold()
		}
	case p < 900:
		l.release()
	case p < 990:
		l.act("maintain", func() error { _, err := l.w.Maintain(); return err })
	case p < 992:
		l.forget(uint32(1 + l.rng.IntN(4)))
	default:
		l.crash("between steps")
	}
}

func TestCrashes(t *testing.T) {
	seen := seen{}
	seeds, steps := uint64(60), 3000
	if testing.Short() {
		seeds = 20
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			newCrashLoop(t, seed, seen).run(steps)
		})
	}
	t.Log(seen)
	for _, rare := range []string{
		"recycle", "roll", "oversize", "torn tail", "un-synced tail lost", "un-synced tail kept", "gap", "forget",
		"crash between steps", "crash in write", "crash in sync", "crash in mark", "crash in maintain", "crash in recovery",
	} {
		if seen[rare] == 0 {
			t.Errorf("never seen: %s", rare)
		}
	}
}
