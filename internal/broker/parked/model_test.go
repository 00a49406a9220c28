package parked

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"path"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tidings-io/tidings/internal/vfs"
)

const (
	testDir    = "shards/1/parked"
	testPrefix = "7-0-3"
)

// command changes the set; it is what a crash makes the shard apply again.
type command struct {
	kind  byte // 'a'dd, 'r'emove, 'c'lear
	entry Entry
}

// model is the naive set.
type model map[int64]Entry

func (m model) apply(c command) {
	switch c.kind {
	case 'a':
		m[c.entry.Offset] = c.entry
	case 'r':
		delete(m, c.entry.Offset)
	case 'c':
		clear(m)
	}
}

func (m model) sorted() []Entry {
	return slices.SortedFunc(maps.Values(m), Entry.compare)
}

// checkpoint is a complete one: the encoded set, and the commands until then.
type checkpoint struct {
	state    []byte
	commands int
}

// machine runs a Set, with crashes, beside the model.
type machine struct {
	fs       *vfs.Mem
	set      *Set
	spill    *Spill
	written  bool
	commands []command
	complete []checkpoint // the last two
	now      int64
	out      map[int64]bool
	crashes  int
}

func newMachine() *machine {
	m := &machine{fs: vfs.NewMem(), out: map[int64]bool{}}
	m.set = small(New(m.fs, testDir, testPrefix))
	return m
}

// small makes a set that reaches all its bounds with few entries.
func small(s *Set) *Set {
	s.chunkSize, s.tombsMax = 24, 3
	return s
}

func (m *machine) do(c command) {
	m.commands = append(m.commands, c)
	apply(m.set, c)
	delete(m.out, c.entry.Offset)
	if c.kind == 'c' {
		clear(m.out)
	}
}

func apply(s *Set, c command) {
	switch c.kind {
	case 'a':
		s.Add(c.entry)
	case 'r':
		s.Remove(c.entry.Offset)
	case 'c':
		s.Clear()
	}
}

// model is what the set should hold.
func (m *machine) model() model {
	want := model{}
	for _, c := range m.commands {
		want.apply(c)
	}
	return want
}

// take checks that what is delivered is what the model says, in order.
func (m *machine) take(t *rapid.T, n int) {
	var want []Entry
	for _, e := range m.model().sorted() {
		if e.DueNs <= m.now && !m.out[e.Offset] && len(want) < n {
			want = append(want, e)
		}
	}
	got := m.set.TakeDue(m.now, n, nil)
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Fatalf("due at %d (-want +got):\n%s", m.now, diff)
	}
	for _, e := range got {
		m.out[e.Offset] = true
	}
}

// finish removes what is out, as consumers do.
func (m *machine) finish() {
	for _, o := range slices.Sorted(maps.Keys(m.out)) {
		m.do(command{'r', Entry{Offset: o}})
	}
}

// checkpoint completes one; the caller's part of the two-checkpoint rule.
func (m *machine) checkpoint(t *rapid.T) {
	snapshot := m.set.Snapshot()
	state := snapshot.Append([]byte("before"))[len("before"):]
	m.complete = append(m.complete, checkpoint{state, len(m.commands)})
	if len(m.complete) > 2 {
		m.complete = m.complete[1:]
	}
	for _, name := range snapshot.Published() {
		// A crash may have come between an earlier removal and this checkpoint.
		if err := m.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("remove a dead run: %v", err)
		}
	}
}

// crash loses power and restores from one of the two last checkpoints.
func (m *machine) crash(t *rapid.T, seed uint64, back bool) {
	m.crashes++
	m.fs.Crash(rand.New(rand.NewPCG(seed, 1)))
	m.spill = nil
	clear(m.out)
	commands := 0
	m.set = small(New(m.fs, testDir, testPrefix))
	if n := len(m.complete); n > 0 {
		if back && n == 2 {
			m.complete = m.complete[:1] // the newest is damaged
		}
		from := m.complete[len(m.complete)-1]
		set, rest, err := Restore(m.fs, testDir, testPrefix, append(slices.Clone(from.state), "behind"...))
		if err != nil || string(rest) != "behind" {
			t.Fatalf("restore: %v, rest %q", err, rest)
		}
		m.set, commands = small(set), from.commands
	}
	if err := Sweep(m.fs, testDir, m.set); err != nil {
		t.Fatal(err)
	}
	names, err := m.fs.ReadDir(testDir)
	if files := m.set.Files(); err == nil && len(names) > len(files) {
		t.Fatalf("left after sweep: %v, known %v", names, files)
	}
	for _, c := range m.commands[commands:] {
		apply(m.set, c)
	}
}

// check compares all that can be seen of the set with the model.
func (m *machine) check(t *rapid.T) {
	want := m.model()
	if m.set.Len() != int64(len(want)) {
		t.Fatalf("Len = %d, want %d", m.set.Len(), len(want))
	}
	if m.set.MemLen() < len(m.out) || m.set.MemLen() > len(want) {
		t.Fatalf("MemLen = %d with %d out of %d", m.set.MemLen(), len(m.out), len(want))
	}
	due := int64(math.MaxInt64)
	for _, e := range want {
		if !m.out[e.Offset] {
			due = min(due, e.DueNs)
		}
	}
	if got := m.set.NextDue(); got != due {
		t.Fatalf("NextDue = %d, want %d", got, due)
	}
	got := []Entry{}
	if err := m.set.Each(func(e Entry) error { got = append(got, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(append([]Entry{}, want.sorted()...), got); diff != "" {
		t.Fatalf("Each (-want +got):\n%s", diff)
	}
	if m.set.Err() != nil || !m.set.sound() {
		t.Fatalf("set is not sound; Err = %v", m.set.Err())
	}
}

func (m *machine) checkPins(t *rapid.T, first, last int64) {
	want := false
	for o := range m.model() {
		want = want || first <= o && o <= last
	}
	if got := m.set.PinnedIn(first, last); got != want {
		t.Fatalf("PinnedIn(%d, %d) = %v", first, last, got)
	}
}

// offsetOf spreads 24 offsets over three blocks.
var offsetOf = rapid.Custom(func(t *rapid.T) int64 {
	n := rapid.Int64Range(0, 23).Draw(t, "n")
	return n + n/10*(blockSize-8)
})

func TestSetAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				for range rapid.IntRange(1, 8).Draw(t, "times") {
					m.do(command{'a', Entry{
						Offset:   offsetOf.Draw(t, "offset"),
						DueNs:    m.now + rapid.Int64Range(-3, 40).Draw(t, "delay"),
						Attempts: rapid.Uint16().Draw(t, "attempts"),
					}})
				}
			},
			"remove": func(t *rapid.T) {
				m.do(command{'r', Entry{Offset: offsetOf.Draw(t, "offset")}})
			},
			"finish": func(*rapid.T) { m.finish() },
			"drain": func(t *rapid.T) {
				m.now += 50
				m.take(t, math.MaxInt)
				m.finish()
			},
			"clear": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "dice") == 0 {
					m.do(command{kind: 'c'})
				}
			},
			"time": func(t *rapid.T) { m.now += rapid.Int64Range(0, 20).Draw(t, "passed") },
			"take": func(t *rapid.T) { m.take(t, rapid.IntRange(0, 10).Draw(t, "max")) },
			"return": func(*rapid.T) {
				m.set.ReturnAll()
				clear(m.out)
			},
			"spill": func(t *rapid.T) { m.spillStep(t) },
			"spill all": func(t *rapid.T) {
				for range 3 {
					m.spillStep(t)
				}
			},
			"add again": func(t *rapid.T) { // what lies in runs, for later
				offset := offsetOf.Draw(t, "offset")
				if e, ok := m.model()[offset]; ok {
					e.DueNs += 10
					m.do(command{'a', e})
				}
			},
			"checkpoint": func(t *rapid.T) {
				m.checkpoint(t)
			},
			"crash": func(t *rapid.T) {
				m.crash(t, rapid.Uint64().Draw(t, "seed"), rapid.Bool().Draw(t, "back"))
			},
			"": func(t *rapid.T) {
				m.check(t)
				first := offsetOf.Draw(t, "first")
				m.checkPins(t, first, first+rapid.Int64Range(-1, 2*blockSize).Draw(t, "width"))
			},
		})
	})
}

// spillStep does the next step of a spill, so that others fall in between.
func (m *machine) spillStep(t *rapid.T) {
	switch {
	case m.spill == nil:
		keep := rapid.IntRange(0, 10).Draw(t, "keep")
		queued := len(m.set.queue)
		m.spill, m.written = m.set.PrepareSpill(keep), false
		if (m.spill != nil) != (queued > keep) || m.spill != nil && m.spill.Len() != queued-keep {
			t.Fatalf("PrepareSpill(%d) of %d: %v", keep, queued, m.spill)
		}
	case !m.written:
		if err := m.spill.Write(); err != nil {
			t.Fatal(err)
		}
		m.written = true
	default:
		m.set.Commit(m.spill)
		m.spill = nil
	}
}

// TestManyAcrossChunks runs the story of a leader with ten thousand messages
// through real chunk sizes, with a crash in the middle.
func TestManyAcrossChunks(t *testing.T) {
	const n = 10_000
	mem := vfs.NewMem()
	s := New(mem, testDir, testPrefix)
	rng := rand.New(rand.NewPCG(1, 2))
	want := make([]Entry, n)
	for i := range want {
		want[i] = Entry{Offset: int64(i), DueNs: rng.Int64N(1 << 40), Attempts: uint16(i)}
		s.Add(want[i])
		if s.MemLen() > 1000 {
			spillAll(t, s, 200)
		}
	}
	slices.SortFunc(want, Entry.compare)
	got := drain(t, s, n/2)
	state := s.Snapshot().Append(nil)
	mem.Crash(nil)
	s, _, err := Restore(mem, testDir, testPrefix, state)
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, drain(t, s, n)...)
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	if s.Len() != 0 || len(s.runs) != 0 || s.NextDue() != math.MaxInt64 {
		t.Errorf("left: %d entries, %d runs, due %d", s.Len(), len(s.runs), s.NextDue())
	}
}

func spillAll(t testing.TB, s *Set, keep int) {
	t.Helper()
	sp := s.PrepareSpill(keep)
	if err := sp.Write(); err != nil {
		t.Fatal(err)
	}
	s.Commit(sp)
}

// drain takes and finishes up to n entries.
func drain(t testing.TB, s *Set, n int) []Entry {
	t.Helper()
	var all []Entry
	for len(all) < n {
		es := s.TakeDue(math.MaxInt64, min(100, n-len(all)), nil)
		if len(es) == 0 {
			break
		}
		for _, e := range es {
			s.Remove(e.Offset)
		}
		all = append(all, es...)
	}
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
	return all
}

// TestFollowerStaysSmall: a replica that never takes, and sees only what its
// leader removes, must not gather a tombstone for each.
func TestFollowerStaysSmall(t *testing.T) {
	const n = 50_000
	s := New(vfs.NewMem(), testDir, testPrefix)
	for i := range int64(n) {
		s.Add(Entry{Offset: i, DueNs: i})
	}
	spillAll(t, s, 0)
	for i := range int64(n - 1) {
		s.Remove(i ^ 1) // nearly in order
		if len(s.tombs) > defaultTombsMax+1 || s.MemLen() > 8 {
			t.Fatalf("at %d: %d tombstones, %d in memory", i, len(s.tombs), s.MemLen())
		}
	}
	if got := drain(t, s, n); len(got) != 1 || got[0].Offset != n-2 {
		t.Errorf("left: %v", got)
	}
}

// TestEncodingIsDeterministic: the same history, the same bytes.
func TestEncodingIsDeterministic(t *testing.T) {
	encode := func() []byte {
		s := New(vfs.NewMem(), testDir, testPrefix)
		for i := range int64(300) {
			s.Add(Entry{Offset: i * 7 % 300, DueNs: i * i % 97})
		}
		spillAll(t, s, 30)
		for i := range int64(40) {
			s.Remove(i * 5)
		}
		return s.Snapshot().Append(nil)
	}
	if diff := gocmp.Diff(encode(), encode()); diff != "" {
		t.Error(diff)
	}
}

func TestSelectFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 50).Draw(t, "n")
		es := make([]Entry, n)
		for i := range es {
			es[i] = Entry{Offset: int64(i), DueNs: rapid.Int64Range(0, 9).Draw(t, "due")}
		}
		want := slices.SortedFunc(slices.Values(es), Entry.compare)
		keep := rapid.IntRange(0, n).Draw(t, "keep")
		selectFirst(es, keep)
		for _, part := range [][2][]Entry{{want[:keep], es[:keep]}, {want[keep:], es[keep:]}} {
			slices.SortFunc(part[1], Entry.compare)
			if !slices.Equal(part[0], part[1]) {
				t.Fatalf("first %d of %v", keep, es)
			}
		}
	})
}

// byName lists the runs in the test's folder.
func byName(t testing.TB, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.ReadDir(testDir)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(a, b) })
	for i, n := range names {
		names[i] = path.Join(testDir, n)
	}
	return names
}

func ExampleSet() {
	s := New(vfs.NewMem(), "parked", "1")
	s.Add(Entry{Offset: 5, DueNs: 200})
	s.Add(Entry{Offset: 6, DueNs: 100})
	fmt.Println(s.NextDue(), s.TakeDue(150, 10, nil), s.Len())
	s.Remove(6)
	fmt.Println(s.NextDue(), s.Len())
	// Output:
	// 100 [{6 100 0}] 2
	// 200 1
}

// TestTwoStaleCopies: an entry changes while it is being spilled, and an older
// run holds a stale copy already. Neither copy may come out.
func TestTwoStaleCopies(t *testing.T) {
	s := New(vfs.NewMem(), testDir, testPrefix)
	s.Add(Entry{Offset: 1, DueNs: 10})
	s.Add(Entry{Offset: 2, DueNs: 90}) // keeps the runs from being dropped whole
	spillAll(t, s, 0)
	s.Add(Entry{Offset: 1, DueNs: 20})
	sp := s.PrepareSpill(0)
	if err := sp.Write(); err != nil {
		t.Fatal(err)
	}
	s.Add(Entry{Offset: 1, DueNs: 50})
	s.Commit(sp)
	spillAll(t, s, 0)
	if !s.sound() || s.NextDue() != 50 {
		t.Fatalf("sound %v, next due %d", s.sound(), s.NextDue())
	}
	want := []Entry{{Offset: 1, DueNs: 50}, {Offset: 2, DueNs: 90}}
	if diff := gocmp.Diff(want, s.TakeDue(100, 10, nil)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(s.tombs) > 0 {
		t.Errorf("tombstones left: %v", s.tombs)
	}
}
