package vfs_test

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tidings-io/tidings/internal/vfs"
)

// modelFile is what the model knows of a file: the durable content, and every
// content since.
type modelFile struct {
	states [][]byte // states[0] is durable, the last one is the newest
}

func (f *modelFile) newest() []byte { return f.states[len(f.states)-1] }

// allows reports whether a crash may have left got: each byte must have stood
// at its place (or been a hole) at some moment since the last sync.
func (f *modelFile) allows(got []byte) bool {
	lo, hi := len(f.states[0]), len(f.states[0])
	for _, s := range f.states {
		lo, hi = min(lo, len(s)), max(hi, len(s))
	}
	if len(got) < lo || len(got) > hi {
		return false
	}
	for i, b := range got {
		ok := b == 0 && i >= len(f.states[0]) // a hole before the early bytes
		for _, s := range f.states {
			ok = ok || (i < len(s) && s[i] == b) || (i >= len(s) && b == 0)
		}
		if !ok {
			return false
		}
	}
	return true
}

// disk is a file system under test that can lose power.
type disk interface {
	vfs.FS
	// lose is the power loss; nothing may have gone through early when exact.
	lose(seed uint64, exact bool)
}

// memDisk is a Mem that loses power by itself.
type memDisk struct{ *vfs.Mem }

func (d memDisk) lose(seed uint64, exact bool) {
	if exact {
		d.Crash(nil)
		return
	}
	d.Crash(rand.New(rand.NewPCG(seed, 0)))
}

// TestMemModel compares Mem with a naive model: lists of all states since the
// last sync. A synced byte or name is never lost, what was not synced may be.
func TestMemModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { newModel(memDisk{vfs.NewMem()}).run(t) })
}

// model knows what a disk with one folder may show.
type model struct {
	disk    disk
	inexact bool // something may go through early at any crash
	files   []*modelFile
	names   []map[string]int // names[0] is durable, the last one is the newest
}

func newModel(d disk) *model { return &model{disk: d, names: []map[string]int{{}}} }

var modelName = rapid.SampledFrom([]string{"a", "b", "c", "d"})

// run drives the disk and the model by random steps.
func (m *model) run(t *rapid.T) {
	t.Repeat(map[string]func(*rapid.T){
		"create":   m.create,
		"write":    m.write,
		"truncate": m.truncate,
		"sync":     m.sync,
		"rename":   m.rename,
		"remove":   m.remove,
		"syncdir": func(t *rapid.T) {
			check(t, m.disk.SyncDir("/"))
			m.names = m.names[len(m.names)-1:]
		},
		"crash": func(t *rapid.T) {
			exact := !m.inexact && rapid.Bool().Draw(t, "exact")
			m.disk.lose(rapid.Uint64().Draw(t, "seed"), exact)
			m.adopt(t, exact)
		},
		"": m.compare,
	})
}

func check(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

func (m *model) newest() map[string]int { return m.names[len(m.names)-1] }

func (m *model) change(fn func(map[string]int)) {
	next := maps.Clone(m.newest())
	fn(next)
	m.names = append(m.names, next)
}

// existing draws the name of a file.
func (m *model) existing(t *rapid.T) (string, int) {
	if len(m.newest()) == 0 {
		t.Skip("no file")
	}
	n := rapid.SampledFrom(slices.Sorted(maps.Keys(m.newest()))).Draw(t, "existing")
	return n, m.newest()[n]
}

// withFile lets fn change an open file and return its new content.
func (m *model) withFile(t *rapid.T, fn func(f vfs.File, content []byte) []byte) {
	n, id := m.existing(t)
	f, err := m.disk.OpenReadWrite("/" + n)
	check(t, err)
	mf := m.files[id]
	mf.states = append(mf.states, fn(f, bytes.Clone(mf.newest())))
	check(t, f.Close())
}

func (m *model) create(t *rapid.T) {
	n := modelName.Draw(t, "name")
	f, err := m.disk.Create("/" + n)
	check(t, err)
	check(t, f.Close())
	if id, ok := m.newest()[n]; ok {
		m.files[id].states = append(m.files[id].states, nil)
		return
	}
	m.files = append(m.files, &modelFile{states: [][]byte{nil}})
	m.change(func(s map[string]int) { s[n] = len(m.files) - 1 })
}

func (m *model) write(t *rapid.T) {
	m.withFile(t, func(f vfs.File, content []byte) []byte {
		off := rapid.IntRange(0, 9000).Draw(t, "off")
		p := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.IntRange(1, 6000).Draw(t, "len"))
		_, err := f.WriteAt(p, int64(off))
		check(t, err)
		content = append(content, make([]byte, max(0, off+len(p)-len(content)))...)
		copy(content[off:], p)
		return content
	})
}

func (m *model) truncate(t *rapid.T) {
	m.withFile(t, func(f vfs.File, content []byte) []byte {
		next := make([]byte, rapid.IntRange(0, 10000).Draw(t, "size"))
		check(t, f.Truncate(int64(len(next))))
		copy(next, content)
		return next
	})
}

func (m *model) sync(t *rapid.T) {
	n, id := m.existing(t)
	f, err := m.disk.OpenReadWrite("/" + n)
	check(t, err)
	check(t, f.SyncData())
	check(t, f.Close())
	m.files[id].states = [][]byte{m.files[id].newest()}
}

func (m *model) rename(t *rapid.T) {
	from, id := m.existing(t)
	to := modelName.Draw(t, "to")
	if from == to {
		t.Skip("no change")
	}
	check(t, m.disk.Rename("/"+from, "/"+to))
	m.change(func(s map[string]int) { delete(s, from); s[to] = id })
}

func (m *model) remove(t *rapid.T) {
	n, _ := m.existing(t)
	check(t, m.disk.Remove("/"+n))
	m.change(func(s map[string]int) { delete(s, n) })
}

// compare checks what the disk shows now.
func (m *model) compare(t *rapid.T) {
	list, err := m.disk.ReadDir("/")
	check(t, err)
	if want := slices.Sorted(maps.Keys(m.newest())); !slices.Equal(list, want) {
		t.Fatalf("names are %v, want %v", list, want)
	}
	for n, id := range m.newest() {
		got, err := vfs.ReadFile(m.disk, "/"+n)
		check(t, err)
		if !bytes.Equal(got, m.files[id].newest()) {
			t.Fatalf("%s reads wrong before any crash", n)
		}
	}
}

// adopt finds the state of names, and of every file, that a crash has left, and
// makes it the model's. With exact, only the durable state is allowed.
func (m *model) adopt(t *rapid.T, exact bool) {
	left := map[string][]byte{}
	list, err := m.disk.ReadDir("/")
	check(t, err)
	for _, n := range list {
		left[n], err = vfs.ReadFile(m.disk, "/"+n)
		check(t, err)
	}
	allowed := m.names
	if exact {
		allowed = allowed[:1]
	}
	i := slices.IndexFunc(allowed, func(state map[string]int) bool { return m.fits(state, left, exact) })
	if i < 0 {
		t.Fatalf("the crash left %v, which never was", list)
	}
	m.names = []map[string]int{allowed[i]}
	for n, id := range allowed[i] {
		m.files[id].states = [][]byte{left[n]}
	}
}

// fits reports whether a crash may have left these files under these names.
func (m *model) fits(state map[string]int, left map[string][]byte, exact bool) bool {
	if len(state) != len(left) {
		return false
	}
	for n, id := range state {
		got, ok := left[n]
		if !ok || !m.files[id].allows(got) || (exact && !bytes.Equal(got, m.files[id].states[0])) {
			return false
		}
	}
	return true
}

func TestMemLeavesNoMixture(t *testing.T) {
	testNoMixture(t, func(uint64) disk { return memDisk{vfs.NewMem()} })
}

// testNoMixture looks for old bytes among new ones that were written after a
// truncate: no file system leaves that.
func testNoMixture(t *testing.T, newDisk func(seed uint64) disk) {
	outcomes := map[string]bool{}
	for seed := range uint64(1000) {
		d := newDisk(seed)
		must(t, vfs.WriteFileAtomic(d, "/f", bytes.Repeat([]byte("a"), 4096)))
		f := must1(d.Create("/f"))(t)
		write(t, f, strings.Repeat("b", 2048), 1024)
		d.lose(seed, false)
		got := must1(vfs.ReadFile(d, "/f"))(t)
		olds, news := bytes.Count(got, []byte("a")), bytes.Count(got, []byte("b"))
		if olds > 0 && (news > 0 || olds != 4096) {
			t.Fatalf("seed %d left %d old bytes and %d new ones", seed, olds, news)
		}
		switch {
		case olds > 0:
			outcomes["old"] = true
		case news > 0:
			outcomes["new"] = true
		}
	}
	if len(outcomes) < 2 {
		t.Errorf("saw only %v", outcomes)
	}
}

func TestMemRemovedFolderKeepsWhatLeftIt(t *testing.T) {
	testRemovedFolder(t, func(uint64) disk { return memDisk{vfs.NewMem()} })
}

// testRemovedFolder moves a file out of a folder and removes the folder.
func testRemovedFolder(t *testing.T, newDisk func(seed uint64) disk) {
	for seed := range uint64(200) {
		d := newDisk(seed)
		must(t, vfs.MkdirSynced(d, "/from"))
		must(t, vfs.MkdirSynced(d, "/to"))
		put(t, d, "/from/f", "moved")
		must(t, d.SyncDir("/from"))
		must(t, d.Rename("/from/f", "/to/f"))
		must(t, d.Remove("/from"))
		name := "/to/f"
		if seed%2 == 0 {
			must(t, d.SyncDir("/"))
		}
		d.lose(seed, seed == 0)
		if _, err := d.Stat("/from/f"); err == nil && seed%2 == 1 {
			name = "/from/f"
		}
		wantContent(t, d, name, "moved")
	}
}
