package vfs

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// ErrCrashed is what a crashed file system answers: every operation after the
// one FailAfter chose, and every use of a handle opened before Mem.Crash.
var ErrCrashed = errors.New("file system crashed")

// memTotal is the volume size that an unlimited Mem shows, in bytes.
const memTotal = 1 << 40

// Mem is a file system in memory that knows exactly which bytes and names
// would survive a power loss, and can have one at any moment (Crash). It is
// deterministic: the same calls and the same random source give the same
// state. Relative and absolute names mean the same.
//
// A sync costs next to nothing and a write two copies of its bytes: a file
// keeps its newest content once, with a journal of what un-synced writes and
// truncates replaced.
type Mem struct {
	mu   sync.Mutex
	root *memNode
	ids  uint64 // nodes made
	life uint64 // crashes so far; a handle of an earlier life is dead

	size     int64 // bytes of all files that have a name or a handle
	capacity int64 // bytes; 0 = no limit

	ops     int64 // mutating operations so far
	failAt  int64 // the value of ops that trips; 0 = never
	failErr error
	dead    bool // tripped
}

// memNode is a file or a folder, apart from its names.
type memNode struct {
	id     uint64
	links  int     // current names: 0 or 1
	opens  int     // handles of this life
	locked bool    // by Lock
	dir    *memDir // nil for a file
	data   memData
}

// NewMem returns an empty file system.
func NewMem() *Mem {
	m := &Mem{}
	m.root = m.newNode(true)
	m.root.links = 1
	return m
}

func (m *Mem) newNode(dir bool) *memNode {
	m.ids++
	n := &memNode{id: m.ids}
	if dir {
		n.dir = &memDir{names: map[string]*memNode{}, durable: map[string]*memNode{}}
	}
	return n
}

// SetCapacity bounds the sum of all file sizes, in bytes; 0 removes the bound.
// What would pass it fails with syscall.ENOSPC, a write after the bytes that
// still fit.
func (m *Mem) SetCapacity(size int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = size
}

// Ops counts the mutating operations so far: creates, writes, truncates,
// syncs, renames, removes (each name of a RemoveAll), folders made, SyncDirs.
func (m *Mem) Ops() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops
}

// FailAfter makes the n-th mutating operation from now, and every operation
// after it, fail with err (ErrCrashed when nil), until Crash. n <= 0 disarms.
// The n-th operation is interrupted rather than refused: a write, truncate or
// change of names is left un-synced, so that Crash decides by seed how much of
// it happened; a sync does nothing.
func (m *Mem) FailAfter(n int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead, m.failAt = false, 0
	if n <= 0 {
		return
	}
	m.failAt, m.failErr = m.ops+n, err
	if err == nil {
		m.failErr = ErrCrashed
	}
}

// Tripped reports whether the operation chosen by FailAfter has been reached.
func (m *Mem) Tripped() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// mutate counts a mutating operation. It refuses it with err; or tripped says
// that the operation is to be carried out, un-synced, and then fail.
func (m *Mem) mutate() (tripped bool, err error) {
	if m.dead {
		return false, m.failErr
	}
	m.ops++
	m.dead = m.ops == m.failAt
	return m.dead, nil
}

// after is the result of an operation that was carried out.
func (m *Mem) after(tripped bool, op, name string) error {
	if tripped {
		return memError(op, name, m.failErr)
	}
	return nil
}

// alive refuses an operation that changes nothing.
func (m *Mem) alive() error {
	if m.dead {
		return m.failErr
	}
	return nil
}

func memError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// free is the number of bytes that still fit.
func (m *Mem) free() int64 {
	if m.capacity == 0 {
		return memTotal - m.size
	}
	return max(0, m.capacity-m.size)
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parent(name)
	if err != nil {
		return nil, memError("create", name, err)
	}
	if n := dir.names[base]; n != nil && n.dir != nil {
		return nil, memError("create", name, syscall.EISDIR)
	}
	tripped, err := m.mutate()
	if err != nil {
		return nil, memError("create", name, err)
	}
	n := dir.names[base]
	if n == nil {
		n = m.newNode(false)
		dir.do(&memDirOp{to: dir, toName: base, node: n})
	} else {
		m.size += n.data.truncate(0)
	}
	if err := m.after(tripped, "create", name); err != nil {
		return nil, err
	}
	return m.handle(n, name, true), nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) { return m.open(name, false) }

// OpenReadWrite implements FS.
func (m *Mem) OpenReadWrite(name string) (File, error) { return m.open(name, true) }

func (m *Mem) open(name string, writable bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err != nil {
		return nil, memError("open", name, err)
	}
	if n.dir != nil {
		return nil, memError("open", name, syscall.EISDIR)
	}
	return m.handle(n, name, writable), nil
}

func (m *Mem) handle(n *memNode, name string, writable bool) *memHandle {
	n.opens++
	return &memHandle{fs: m, node: n, life: m.life, name: name, writable: writable}
}

// Rename implements FS.
func (m *Mem) Rename(oldname, newname string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, oldbase, err := m.parent(oldname)
	if err != nil {
		return memError("rename", oldname, err)
	}
	to, newbase, err := m.parent(newname)
	if err != nil {
		return memError("rename", newname, err)
	}
	n, replaced := from.names[oldbase], to.names[newbase]
	switch {
	case n == nil:
		return memError("rename", oldname, fs.ErrNotExist)
	case n == replaced:
		return nil
	case replaced != nil && replaced.dir != nil:
		return memError("rename", newname, fs.ErrExist)
	case replaced != nil && n.dir != nil:
		return memError("rename", newname, syscall.ENOTDIR)
	case n.dir != nil && n.dir.holds(to):
		return memError("rename", newname, syscall.EINVAL)
	}
	tripped, err := m.mutate()
	if err != nil {
		return memError("rename", oldname, err)
	}
	from.do(&memDirOp{from: from, fromName: oldbase, to: to, toName: newbase, node: n})
	m.reap(replaced)
	return m.after(tripped, "rename", oldname)
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parent(name)
	if err != nil {
		return memError("remove", name, err)
	}
	n := dir.names[base]
	switch {
	case n == nil:
		return memError("remove", name, fs.ErrNotExist)
	case n.dir != nil && len(n.dir.names) > 0:
		return memError("remove", name, syscall.ENOTEMPTY)
	}
	return m.unlink(dir, base, name)
}

// RemoveAll implements FS. It removes name by name, in order, so that it can be
// interrupted between any two.
func (m *Mem) RemoveAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parent(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return memError("remove", name, err)
	}
	return m.removeTree(dir, base, name)
}

func (m *Mem) removeTree(dir *memDir, base, name string) error {
	n := dir.names[base]
	if n == nil {
		return nil
	}
	if n.dir != nil {
		for _, child := range n.dir.sorted() {
			if err := m.removeTree(n.dir, child, name); err != nil {
				return err
			}
		}
	}
	return m.unlink(dir, base, name)
}

func (m *Mem) unlink(dir *memDir, base, name string) error {
	tripped, err := m.mutate()
	if err != nil {
		return memError("remove", name, err)
	}
	n := dir.names[base]
	dir.do(&memDirOp{from: dir, fromName: base, node: n})
	m.reap(n)
	return m.after(tripped, "remove", name)
}

// reap gives back the room of a file that lost its last name and handle. Its
// bytes stay with the journals that may bring the name back.
func (m *Mem) reap(n *memNode) {
	if n != nil && n.dir == nil && n.links == 0 && n.opens == 0 {
		m.size -= n.data.size
	}
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.alive(); err != nil {
		return memError("mkdir", dir, err)
	}
	d := m.root.dir
	for _, base := range split(dir) {
		n := d.names[base]
		if n == nil {
			tripped, err := m.mutate()
			if err != nil {
				return memError("mkdir", dir, err)
			}
			n = m.newNode(true)
			d.do(&memDirOp{to: d, toName: base, node: n})
			if err := m.after(tripped, "mkdir", dir); err != nil {
				return err
			}
		}
		if n.dir == nil {
			return memError("mkdir", dir, syscall.ENOTDIR)
		}
		d = n.dir
	}
	return nil
}

// ReadDir implements FS.
func (m *Mem) ReadDir(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findDir(dir)
	if err != nil {
		return nil, memError("readdir", dir, err)
	}
	return n.dir.sorted(), nil
}

// Stat implements FS.
func (m *Mem) Stat(name string) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find(name)
	if err != nil {
		return Info{}, memError("stat", name, err)
	}
	return Info{Size: n.data.size, IsDir: n.dir != nil}, nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findDir(dir)
	if err != nil {
		return memError("syncdir", dir, err)
	}
	tripped, err := m.mutate()
	if err != nil {
		return memError("syncdir", dir, err)
	}
	if !tripped {
		n.dir.commit(len(n.dir.pending))
	}
	return m.after(tripped, "syncdir", dir)
}

// Lock implements FS. A crash ends every lock.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parent(name)
	if err != nil {
		return nil, memError("lock", name, err)
	}
	n := dir.names[base]
	if n == nil {
		tripped, err := m.mutate()
		if err != nil {
			return nil, memError("lock", name, err)
		}
		n = m.newNode(false)
		dir.do(&memDirOp{to: dir, toName: base, node: n})
		if err := m.after(tripped, "lock", name); err != nil {
			return nil, err
		}
	}
	if n.dir != nil {
		return nil, memError("lock", name, syscall.EISDIR)
	}
	if n.locked {
		return nil, memError("lock", name, ErrLocked)
	}
	n.locked = true
	return &memLock{m.handle(n, name, true)}, nil
}

// memLock is a held lock.
type memLock struct{ *memHandle }

// Close gives the lock up.
func (l *memLock) Close() error {
	l.fs.mu.Lock()
	if l.life == l.fs.life && !l.closed {
		l.node.locked = false
	}
	l.fs.mu.Unlock()
	return l.memHandle.Close()
}

// Usage implements FS.
func (m *Mem) Usage(dir string) (Usage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.findDir(dir); err != nil {
		return Usage{}, memError("usage", dir, err)
	}
	total := m.capacity
	if total == 0 {
		total = memTotal
	}
	return Usage{Total: total, Free: m.free()}, nil
}

// split cuts a name into its parts; the root has none.
func split(name string) []string {
	name = strings.Trim(clean("/"+name), "/")
	if name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

// find resolves a name in the current state.
func (m *Mem) find(name string) (*memNode, error) { return m.walk(split(name)) }

func (m *Mem) walk(parts []string) (*memNode, error) {
	if err := m.alive(); err != nil {
		return nil, err
	}
	n := m.root
	for _, part := range parts {
		if n.dir == nil {
			return nil, syscall.ENOTDIR
		}
		if n = n.dir.names[part]; n == nil {
			return nil, fs.ErrNotExist
		}
	}
	return n, nil
}

func (m *Mem) findDir(name string) (*memNode, error) {
	n, err := m.find(name)
	if err == nil && n.dir == nil {
		return nil, syscall.ENOTDIR
	}
	return n, err
}

// parent resolves the folder of a name; the name itself need not exist.
func (m *Mem) parent(name string) (*memDir, string, error) {
	parts := split(name)
	if len(parts) == 0 {
		return nil, "", fs.ErrInvalid
	}
	n, err := m.walk(parts[:len(parts)-1])
	if err != nil {
		return nil, "", err
	}
	if n.dir == nil {
		return nil, "", syscall.ENOTDIR
	}
	return n.dir, parts[len(parts)-1], nil
}

// memDir is the content of a folder: its names now, its names after a power
// loss, and the changes that lead from the second to the first.
type memDir struct {
	names   map[string]*memNode
	durable map[string]*memNode
	pending []*memDirOp
}

// memDirOp is one change of names: a link (from is nil), an unlink (to is nil)
// or a rename. A rename between two folders is pending in both, and becomes
// durable in both at once, as journaling file systems do it.
type memDirOp struct {
	from, to         *memDir
	fromName, toName string
	node             *memNode
}

// do carries out a change in the current state.
func (d *memDir) do(op *memDirOp) {
	if op.from != nil {
		delete(op.from.names, op.fromName)
		op.from.pending = append(op.from.pending, op)
		op.node.links--
	}
	if op.to != nil {
		if old := op.to.names[op.toName]; old != nil {
			old.links--
		}
		op.to.names[op.toName] = op.node
		op.node.links++
		if op.to != op.from {
			op.to.pending = append(op.to.pending, op)
		}
	}
}

// settle makes the side of a change that lies in d durable.
func (op *memDirOp) settle(d *memDir) {
	if op.from == d {
		delete(d.durable, op.fromName)
	}
	if op.to == d {
		d.durable[op.toName] = op.node
	}
}

// commit makes the first n pending changes durable.
func (d *memDir) commit(n int) {
	ops := d.pending[:n]
	d.pending = slices.Clone(d.pending[n:])
	for _, op := range ops {
		op.settle(d)
		if op.to == nil && op.node.dir != nil {
			// A folder is only gone with what left it before.
			op.node.dir.commit(len(op.node.dir.pending))
		}
		for _, other := range []*memDir{op.from, op.to} {
			if other == nil || other == d {
				continue
			}
			// Not found when it is the other folder that is committing.
			if i := slices.Index(other.pending, op); i >= 0 {
				other.commit(i + 1)
			}
		}
	}
}

func (d *memDir) sorted() []string {
	names := make([]string, 0, len(d.names))
	for name := range d.names {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// holds reports whether other is d or lies under it.
func (d *memDir) holds(other *memDir) bool {
	if d == other {
		return true
	}
	for _, n := range d.names {
		if n.dir != nil && n.dir.holds(other) {
			return true
		}
	}
	return false
}
