//go:build faults

package vfs

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Volatile lets a real process lose power: what it did not sync is gone when it
// is killed. (After a plain kill -9 the kernel still writes its page cache, so
// that a missing fsync goes unseen.) An exit is a power loss too.
//
// Un-synced bytes and names stay in memory over the file system below, and
// reads look there first. A file's sync writes its bytes through; a folder's
// SyncDir makes its names real. Until then the bytes of a new file, and all of
// a new folder, stand below under a hidden name (hiddenPrefix) in the parent
// folder; what a killed process leaves of these is removed by the next one.
//
// Only one process may work on a folder at a time, as Lock sees to. Locks are
// the one thing that is real at once.
//
// Order of locks: mu, then volatileData.mu.
type Volatile struct {
	below FS
	dice  *dice
	root  *volatileNode

	mu sync.Mutex // guards the tree: all of volatileNode but data
}

// earlyChance is how often, with a seed, an un-synced piece of 512 bytes, a
// truncate or a folder's changes of names go through at once: one in this many.
const earlyChance = 16

// dice decides what goes through early. Without a seed nothing does.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func (d *dice) early() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng != nil && d.rng.IntN(earlyChance) == 0
}

// volatileNode is a file or folder, apart from its names in the current view.
type volatileNode struct {
	// place and base are where it stands below: base is its durable name, or a
	// hidden one. place is nil for the root and for what is gone from below.
	place *volatileNode
	base  string

	dir  *volatileDir // nil for a file
	data volatileData
}

// volatileDir is what differs between a folder's view and the folder below.
type volatileDir struct {
	// names holds the files and folders of the view that are known; nil = no
	// such name although there may be one below. Absent = as below.
	names   map[string]*volatileNode
	pending []*volatileOp
	swept   bool // from what killed processes have left
}

// volatileOp is a change of names that is not real yet; as memDirOp.
type volatileOp struct {
	from, to         *volatileNode
	fromName, toName string
	node, replaced   *volatileNode
}

// NewVolatile wraps a file system, usually OS.
func NewVolatile(below FS) *Volatile {
	root := &volatileNode{base: "/", dir: newVolatileDir()}
	if runtime.GOOS == "windows" {
		root.base = "" // absolute names begin with a drive
	}
	return &Volatile{below: below, dice: &dice{}, root: root}
}

// Seed lets random parts of what is not synced go through early, and returns v.
// To be called before use.
func (v *Volatile) Seed(seed uint64) *Volatile {
	v.dice.rng = rand.New(rand.NewPCG(seed, 0))
	return v
}

func newVolatileDir() *volatileDir { return &volatileDir{names: map[string]*volatileNode{}} }

// real is the name under which n stands below.
func (n *volatileNode) real() string {
	if n.place == nil {
		return n.base
	}
	return path.Join(n.place.real(), n.base)
}

// idle reports whether the view of n is the file or folder below, so that n
// may be forgotten.
func (n *volatileNode) idle() bool {
	if n.dir != nil {
		return len(n.dir.names) == 0 && len(n.dir.pending) == 0
	}
	return n.data.idle()
}

// Create implements FS.
func (v *Volatile) Create(name string) (File, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	dir, base, err := v.parent(name)
	if err != nil {
		return nil, memError("create", name, err)
	}
	n, err := v.child(dir, base)
	switch {
	case err != nil:
		return nil, memError("create", name, err)
	case n == nil:
		return v.createNew(dir, base, name)
	case n.dir != nil:
		return nil, memError("create", name, syscall.EISDIR)
	}
	f, err := v.handle(n, name, true)
	if err != nil {
		return nil, err
	}
	return f, f.Truncate(0)
}

func (v *Volatile) createNew(dir *volatileNode, base, name string) (File, error) {
	n := &volatileNode{place: dir, base: hiddenName()}
	f, err := v.below.Create(n.real())
	if err != nil {
		return nil, err
	}
	n.data.file, n.data.dice = f, v.dice
	if err := v.do(&volatileOp{to: dir, toName: base, node: n}); err != nil {
		return nil, err
	}
	return v.handle(n, name, true)
}

// Open implements FS.
func (v *Volatile) Open(name string) (File, error) { return v.open(name, false) }

// OpenReadWrite implements FS.
func (v *Volatile) OpenReadWrite(name string) (File, error) { return v.open(name, true) }

func (v *Volatile) open(name string, writable bool) (File, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.find(name)
	if err != nil {
		return nil, memError("open", name, err)
	}
	if n.dir != nil {
		return nil, memError("open", name, syscall.EISDIR)
	}
	return v.handle(n, name, writable)
}

func (v *Volatile) handle(n *volatileNode, name string, writable bool) (*volatileHandle, error) {
	if err := n.data.open(v.below, n.real()); err != nil {
		return nil, err
	}
	return &volatileHandle{data: &n.data, name: name, writable: writable}, nil
}

// Rename implements FS.
func (v *Volatile) Rename(oldname, newname string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	from, oldbase, err := v.parent(oldname)
	if err != nil {
		return memError("rename", oldname, err)
	}
	to, newbase, err := v.parent(newname)
	if err != nil {
		return memError("rename", newname, err)
	}
	n, err := v.child(from, oldbase)
	if err != nil {
		return memError("rename", oldname, err)
	}
	replaced, err := v.child(to, newbase)
	switch {
	case err != nil:
		return memError("rename", newname, err)
	case n == nil:
		return memError("rename", oldname, fs.ErrNotExist)
	case n == replaced:
		return nil
	case replaced != nil && replaced.dir != nil:
		return memError("rename", newname, fs.ErrExist)
	case replaced != nil && n.dir != nil:
		return memError("rename", newname, syscall.ENOTDIR)
	case n.dir != nil && v.under(newname, n):
		return memError("rename", newname, syscall.EINVAL)
	}
	return v.do(&volatileOp{
		from: from, fromName: oldbase, to: to, toName: newbase, node: n, replaced: replaced,
	})
}

// under reports whether name leads through the folder n.
func (v *Volatile) under(name string, n *volatileNode) bool {
	parts := absolute(name)
	for i := range parts {
		if p, err := v.walk(parts[:i]); err == nil && p == n {
			return true
		}
	}
	return false
}

// Remove implements FS.
func (v *Volatile) Remove(name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	dir, base, err := v.parent(name)
	if err != nil {
		return memError("remove", name, err)
	}
	n, err := v.child(dir, base)
	if err == nil && n == nil {
		err = fs.ErrNotExist
	}
	if err == nil && n.dir != nil {
		var names []string
		if names, err = v.list(n); err == nil && len(names) > 0 {
			err = syscall.ENOTEMPTY
		}
	}
	if err != nil {
		return memError("remove", name, err)
	}
	return v.do(&volatileOp{from: dir, fromName: base, node: n})
}

// RemoveAll implements FS.
func (v *Volatile) RemoveAll(name string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	dir, base, err := v.parent(name)
	if err == nil {
		err = v.removeTree(dir, base)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return memError("remove", name, err)
	}
	return nil
}

func (v *Volatile) removeTree(dir *volatileNode, base string) error {
	n, err := v.child(dir, base)
	if err != nil || n == nil {
		return err
	}
	if n.dir != nil {
		names, err := v.list(n)
		if err != nil {
			return err
		}
		for _, child := range names {
			if err := v.removeTree(n, child); err != nil {
				return err
			}
		}
	}
	return v.do(&volatileOp{from: dir, fromName: base, node: n})
}

// MkdirAll implements FS.
func (v *Volatile) MkdirAll(dir string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := v.root
	for _, base := range absolute(dir) {
		n, err := v.child(d, base)
		if err == nil && n == nil {
			n, err = v.mkdir(d, base)
		}
		if err == nil && n.dir == nil {
			err = syscall.ENOTDIR
		}
		if err != nil {
			return memError("mkdir", dir, err)
		}
		d = n
	}
	return nil
}

func (v *Volatile) mkdir(dir *volatileNode, base string) (*volatileNode, error) {
	n := &volatileNode{place: dir, base: hiddenName(), dir: newVolatileDir()}
	n.dir.swept = true
	if err := v.below.MkdirAll(n.real()); err != nil {
		return nil, err
	}
	return n, v.do(&volatileOp{to: dir, toName: base, node: n})
}

// ReadDir implements FS.
func (v *Volatile) ReadDir(dir string) ([]string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.findDir(dir)
	if err != nil {
		return nil, memError("readdir", dir, err)
	}
	return v.list(n)
}

// list is the view of a folder's names: those below, with the changes.
func (v *Volatile) list(d *volatileNode) ([]string, error) {
	names, err := v.below.ReadDir(d.real())
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		n, known := d.dir.names[name]
		return isHidden(name) || (known && n == nil)
	})
	for name, n := range d.dir.names {
		if n != nil && !slices.Contains(names, name) && (n.place != d || n.base != name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Stat implements FS.
func (v *Volatile) Stat(name string) (Info, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.find(name)
	if err != nil {
		return Info{}, memError("stat", name, err)
	}
	if n.dir != nil {
		return Info{IsDir: true}, nil
	}
	return Info{Size: n.data.length()}, nil
}

// SyncDir implements FS.
func (v *Volatile) SyncDir(dir string) error {
	v.mu.Lock()
	n, err := v.findDir(dir)
	var real string
	if err == nil {
		err = v.commit(n, len(n.dir.pending))
		real = n.real()
	}
	v.mu.Unlock()
	if err != nil {
		return memError("syncdir", dir, err)
	}
	return v.below.SyncDir(real)
}

// Lock implements FS. The lock and its file are real at once.
func (v *Volatile) Lock(name string) (io.Closer, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	dir, base, err := v.parent(name)
	if err != nil {
		return nil, memError("lock", name, err)
	}
	return v.below.Lock(path.Join(dir.real(), base))
}

// Usage implements FS. What is in memory only takes no room below yet.
func (v *Volatile) Usage(dir string) (Usage, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.findDir(dir)
	if err != nil {
		return Usage{}, memError("usage", dir, err)
	}
	return v.below.Usage(n.real())
}

// absolute cuts a name into its parts from the root.
func absolute(name string) []string {
	if abs, err := filepath.Abs(name); err == nil {
		name = abs // else there is no working folder: the name fails by itself
	}
	return strings.FieldsFunc(clean(name), func(r rune) bool { return r == '/' })
}

func (v *Volatile) find(name string) (*volatileNode, error) { return v.walk(absolute(name)) }

func (v *Volatile) walk(parts []string) (*volatileNode, error) {
	n := v.root
	for _, part := range parts {
		if n.dir == nil {
			return nil, syscall.ENOTDIR
		}
		child, err := v.child(n, part)
		if err != nil {
			return nil, err
		}
		if child == nil {
			return nil, fs.ErrNotExist
		}
		n = child
	}
	return n, nil
}

func (v *Volatile) findDir(name string) (*volatileNode, error) {
	n, err := v.find(name)
	if err != nil {
		return nil, err
	}
	if n.dir == nil {
		return nil, syscall.ENOTDIR
	}
	v.sweep(n)
	return n, nil
}

// parent resolves the folder of a name that is to be changed.
func (v *Volatile) parent(name string) (*volatileNode, string, error) {
	parts := absolute(name)
	if len(parts) == 0 {
		return nil, "", fs.ErrInvalid
	}
	n, err := v.walk(parts[:len(parts)-1])
	if err != nil {
		return nil, "", err
	}
	if n.dir == nil {
		return nil, "", syscall.ENOTDIR
	}
	v.sweep(n)
	return n, parts[len(parts)-1], nil
}

// child is the file or folder of a name in the view, nil when there is none.
func (v *Volatile) child(d *volatileNode, base string) (*volatileNode, error) {
	n, known := d.dir.names[base]
	if known && (n == nil || n.place != d || n.base != base || !n.idle()) {
		return n, nil
	}
	// As below: look again, others may have worked there.
	if isHidden(base) {
		return nil, nil
	}
	info, err := v.below.Stat(path.Join(d.real(), base))
	if err != nil {
		delete(d.dir.names, base)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	if n == nil || !info.IsDir || n.dir == nil {
		n = &volatileNode{place: d, base: base}
		n.data.dice, n.data.size, n.data.valid = v.dice, info.Size, info.Size
		if info.IsDir {
			n.dir = newVolatileDir()
		}
		d.dir.names[base] = n
	}
	return n, nil
}
