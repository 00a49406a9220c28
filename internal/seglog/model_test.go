package seglog

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"sort"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tidings-io/tidings/internal/vfs"
)

// op is one committed command: what a WAL would replay.
type op struct {
	index uint64
	kind  byte // a: append, s: start, p: park, u: unpark, f: finish
	batch Batch
	from  int64
	to    int64
}

// truth is the naive picture of a log: everything that was ever appended, and
// what is still needed of it.
type truth struct {
	batches  []Batch
	start    int64
	end      int64
	parked   map[int64]bool
	finished map[int64]bool
}

func newTruth() *truth {
	return &truth{parked: map[int64]bool{}, finished: map[int64]bool{}}
}

func (m *truth) apply(o op) {
	switch o.kind {
	case 'a':
		m.batches = append(m.batches, o.batch)
		m.end = o.batch.Last() + 1
	case 's':
		m.start = max(m.start, o.from)
	case 'p':
		m.parked[o.from] = true
	case 'u':
		delete(m.parked, o.from)
	case 'f':
		for i := o.from; i < o.to; i++ {
			m.finished[i] = true
		}
	}
}

func (m *truth) pinned(first, last int64) bool {
	for i := first; i <= last; i++ {
		if m.parked[i] {
			return true
		}
	}
	return false
}

func (m *truth) live(first, last int64) bool {
	for i := first; i <= last; i++ {
		if m.parked[i] || i >= m.start && !m.finished[i] {
			return true
		}
	}
	return false
}

// saved is a complete checkpoint.
type saved struct {
	index uint64
	state []byte
}

// machine drives a log and its truth through everything that can happen.
type machine struct {
	fs       *vfs.Mem
	store    *Store
	log      *Log
	o        Options
	ops      []op
	truth    *truth
	index    uint64 // of the last command
	taken    uint64 // of the last checkpoint
	complete []saved
	late     bool // the newest is complete and Published was not called yet
}

func newMachine(o Options) *machine {
	m := &machine{fs: disk(), o: o, truth: newTruth()}
	m.store, _ = Open(m.fs, "/data/topics", o)
	m.log = m.store.New(testID, 0)
	m.pin()
	return m
}

func (m *machine) pin() {
	tr := m.truth
	m.log.SetPinned(tr.pinned)
}

func (m *machine) do(o op) {
	if o.kind != 'a' || len(m.ops) == 0 || m.ops[len(m.ops)-1].kind != 'a' || o.from == 0 {
		m.index++
	}
	o.index = m.index
	o.batch.Index, o.batch.TimeNs = m.index, int64(m.index)*int64(time.Second)
	m.ops = append(m.ops, o)
	m.both(o)
}

// both applies a command to truth and log, in the order that apply keeps.
func (m *machine) both(o op) {
	m.truth.apply(o)
	switch o.kind {
	case 'a':
		m.log.Append(o.batch)
	case 's':
		m.log.AdvanceStart(o.from)
	}
}

func (m *machine) appendBatches(t *rapid.T) {
	for i := range rapid.IntRange(1, 12).Draw(t, "batches") {
		n, size := rapid.IntRange(1, 5).Draw(t, "records"), rapid.SampledFrom([]int{0, 20, 200, 900}).Draw(t, "size")
		m.do(op{kind: 'a', batch: batchAt(m.truth.end, n, size, 0), from: int64(i)})
	}
}

func (m *machine) advance(t *rapid.T) {
	to := rapid.Int64Range(m.truth.start, m.truth.end).Draw(t, "start")
	m.do(op{kind: 's', from: to})
}

func (m *machine) park(t *rapid.T) {
	if m.truth.start == m.truth.end {
		return
	}
	offset := rapid.Int64Range(m.truth.start, m.truth.end-1).Draw(t, "offset")
	if !m.truth.finished[offset] {
		m.do(op{kind: 'p', from: offset})
	}
}

func (m *machine) unpark(t *rapid.T) {
	if len(m.truth.parked) == 0 {
		return
	}
	var all []int64
	for o := range m.truth.parked {
		all = append(all, o)
	}
	slices.Sort(all)
	m.do(op{kind: 'u', from: rapid.SampledFrom(all).Draw(t, "offset")})
}

func (m *machine) finish(t *rapid.T) {
	from := rapid.Int64Range(m.truth.start, m.truth.end).Draw(t, "from")
	m.do(op{kind: 'f', from: from, to: min(m.truth.end, from+rapid.Int64Range(1, 200).Draw(t, "n"))})
}

func (m *machine) flush(t *rapid.T) {
	if _, err := m.store.FlushOldest(); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) checkpoint(t *rapid.T) {
	m.published(t)
	index := rapid.Uint64Range(m.taken, m.index).Draw(t, "index")
	if rapid.IntRange(0, 2).Draw(t, "recent") > 0 {
		index = m.index
	}
	state, err := m.log.Checkpoint(index, rapid.SampledFrom([]int{0, 1000, 4096}).Draw(t, "inline"))
	if err != nil {
		t.Fatal(err)
	}
	m.taken = index
	if rapid.IntRange(0, 4).Draw(t, "lost") == 0 {
		return // the manifest was never written
	}
	m.complete = append(m.complete, saved{index, state})
	m.complete = m.complete[max(0, len(m.complete)-2):]
	m.late = true
}

func (m *machine) published(*rapid.T) {
	if m.late {
		m.late = false
		m.log.Published()
	}
}

func (m *machine) compact(t *rapid.T) {
	now := time.Unix(int64(m.index), 0).Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "minutes")) * time.Minute)
	if _, err := m.log.Compact(now, m.truth.live); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) crash(t *rapid.T) {
	seed := rapid.Uint64().Draw(t, "seed")
	m.fs.Crash(rand.New(rand.NewPCG(seed, 1)))
	from := saved{}
	if n := len(m.complete); n > 1 && rapid.Bool().Draw(t, "older") {
		m.complete = m.complete[:1]
	}
	if n := len(m.complete); n > 0 {
		from = m.complete[n-1]
	}
	m.restore(t, from)
	m.check(t)
}

// crashDuring has the power fail inside a write, a sync or a change of names.
func (m *machine) crashDuring(t *rapid.T) {
	m.published(t)
	m.fs.FailAfter(rapid.Int64Range(1, 12).Draw(t, "ops"), nil)
	switch rapid.IntRange(0, 3).Draw(t, "during") {
	case 0:
		_, _ = m.store.FlushOldest()
	case 1:
		_, _ = m.log.Checkpoint(m.index, 0)
	case 2:
		if state, err := m.log.Checkpoint(m.index, 0); err == nil && !m.fs.Tripped() {
			m.complete = append(m.complete, saved{m.index, state})
			m.complete = m.complete[max(0, len(m.complete)-2):]
			m.log.Published()
		}
	case 3:
		_, _ = m.log.Compact(time.Unix(int64(m.index), 0).Add(time.Hour), m.truth.live)
	}
	m.crash(t)
}

// full has a write refused for want of space, and space come back.
func (m *machine) full(t *rapid.T) {
	m.fs.SetCapacity(m.used(t) + rapid.Int64Range(1, 3000).Draw(t, "free"))
	_, _ = m.store.FlushOldest()
	_, _ = m.log.Compact(time.Unix(int64(m.index), 0).Add(time.Hour), m.truth.live)
	m.fs.SetCapacity(0)
}

func (m *machine) used(t *rapid.T) int64 {
	m.fs.SetCapacity(1 << 40)
	u, err := m.fs.Usage("/data")
	if err != nil {
		t.Fatal(err)
	}
	return u.Total - u.Free
}

func (m *machine) restore(t *rapid.T, from saved) {
	var err error
	if m.store, err = Open(m.fs, "/data/topics", m.o); err != nil {
		t.Fatal(err)
	}
	m.truth, m.taken, m.late = newTruth(), from.index, false
	if from.state == nil {
		m.log = m.store.New(testID, 0)
	} else if m.log, err = m.store.Restore(testID, from.state); err != nil {
		t.Fatal(err)
	}
	m.pin()
	replay := sort.Search(len(m.ops), func(i int) bool { return m.ops[i].index > from.index })
	for _, o := range m.ops[:replay] {
		m.truth.apply(o)
	}
	if m.log.End() != m.truth.end {
		t.Fatalf("restored end %d, want %d at index %d", m.log.End(), m.truth.end, from.index)
	}
	m.log.AdvanceStart(m.truth.start)
	for i, o := range m.ops[replay:] {
		if i%7 == 3 && rapid.IntRange(0, 3).Draw(t, "flush in replay") == 0 {
			m.flush(t)
		}
		m.both(o)
	}
}

// check compares everything that can be read with what must be there.
func (m *machine) check(t *rapid.T) {
	if m.log.End() != m.truth.end {
		t.Fatalf("end %d, want %d", m.log.End(), m.truth.end)
	}
	got, lost := readAll(t, m.log, 0, rapid.SampledFrom([]int{1, 700, 5000, 1 << 20}).Draw(t, "max"))
	if len(lost) > 0 {
		t.Fatalf("damage: %v", lost[0])
	}
	if err := m.compare(got); err != nil {
		t.Fatal(err)
	}
	if m.truth.end > 0 {
		m.checkOne(t, rapid.Int64Range(0, m.truth.end-1).Draw(t, "offset"), got)
	}
}

// compare walks both lists: what was read is a part of what was appended, and
// nothing that is needed is missing.
func (m *machine) compare(got []Batch) error {
	for _, want := range m.truth.batches {
		if len(got) > 0 && got[0].Base == want.Base {
			if err := equal(got[0], want); err != nil {
				return err
			}
			got = got[1:]
		} else if m.truth.live(want.Base, want.Last()) {
			return fmt.Errorf("batch %d–%d (index %d) is missing; start %d", want.Base, want.Last(), want.Index, m.truth.start)
		}
	}
	if len(got) > 0 {
		return fmt.Errorf("batch %d–%d read twice or never appended", got[0].Base, got[0].Last())
	}
	return nil
}

// checkOne reads at an offset out of order.
func (m *machine) checkOne(t *rapid.T, offset int64, all []Batch) {
	bs, err := m.log.Read(offset, 1)
	if err != nil {
		t.Fatal(err)
	}
	i := sort.Search(len(all), func(i int) bool { return all[i].Last() >= offset })
	switch {
	case i == len(all) && len(bs) > 0:
		t.Fatalf("read at %d: batch %d, want none", offset, bs[0].Base)
	case i < len(all) && (len(bs) != 1 || bs[0].Base != all[i].Base):
		t.Fatalf("read at %d: %d batches, want batch %d", offset, len(bs), all[i].Base)
	}
}

// tidy requires that after two more checkpoints the folder holds the log's
// segments and nothing else.
func (m *machine) tidy(t *rapid.T) {
	m.published(t)
	if err := m.store.Sweep(func(id LogID) bool { return id == testID }); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		state, err := m.log.Checkpoint(m.index, 0)
		if err != nil {
			t.Fatal(err)
		}
		m.complete = append(m.complete, saved{m.index, state})
		m.log.Published()
	}
	m.complete, m.taken = m.complete[len(m.complete)-2:], m.index
	names, err := readDir(m.fs, m.log.dir())
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != len(m.log.segs) {
		t.Fatalf("folder holds %v, the log %d segments", names, len(m.log.segs))
	}
	size := int64(0)
	for _, g := range m.log.segs {
		if _, err := m.fs.Stat(path.Join(m.log.dir(), g.name())); err != nil {
			t.Fatal(err)
		}
		size += g.size
	}
	if m.log.fileBytes.Load() != size || m.log.Bytes() != size {
		t.Fatalf("log counts %d bytes, files have %d", m.log.fileBytes.Load(), size)
	}
	report, err := Verify(m.fs, "/data/topics")
	if err != nil || len(report.Damaged) > 0 || report.Files != len(m.log.segs) {
		t.Fatalf("verify: %v, %+v", err, report)
	}
	if m.store.TailBytes() != 0 {
		t.Fatalf("%d bytes of tails in a flushed store", m.store.TailBytes())
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(Options{
			SegmentSize: rapid.SampledFrom([]int64{1 << 10, 4 << 10, 16 << 10}).Draw(t, "segment"),
			TailBytes:   rapid.SampledFrom([]int64{1, 4 << 10, 64 << 10}).Draw(t, "budget"),
			OpenFiles:   rapid.SampledFrom([]int{1, 3, 256}).Draw(t, "files"),
		})
		t.Repeat(map[string]func(*rapid.T){
			"append":    m.appendBatches,
			"advance":   m.advance,
			"park":      m.park,
			"unpark":    m.unpark,
			"finish":    m.finish,
			"flush":     m.flush,
			"checkpt":   m.checkpoint,
			"published": m.published,
			"compact":   m.compact,
			"crash":     m.crash,
			"during":    m.crashDuring,
			"full":      m.full,
			"":          m.check,
		})
		m.tidy(t)
		m.check(t)
	})
}
