package vfs

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Op is a set of operation kinds.
type Op uint32

// The operation kinds. OpWrite is WriteAt, OpSync is Sync and SyncData.
const (
	OpCreate Op = 1 << iota
	OpOpen
	OpRename
	OpRemove // also RemoveAll
	OpMkdir
	OpReadDir
	OpStat
	OpSyncDir
	OpLock
	OpUsage
	OpRead
	OpWrite
	OpSync
	OpTruncate
	OpSize
	OpClose

	// OpAny is every kind.
	OpAny = OpClose<<1 - 1
)

// Rule plants one kind of trouble into the operations it matches.
type Rule struct {
	Ops Op // kinds it matches; 0 = OpAny
	// Path is a path.Match pattern for the whole name, or, when it holds no
	// slash, for the base name; empty matches all. A rename matches by either of
	// its names. Malformed patterns match nothing.
	Path  string
	After int // matching operations let through first
	Times int // matching operations hit after that; 0 = all

	Delay time.Duration // waits first; alone it makes the operation only slow
	// Wait is asked at each operation how much longer to wait; nil: no longer.
	Wait func() time.Duration
	// Err is the error answered; the operation is not carried out.
	Err error
	// Short carries out the first Bytes bytes of a read or write and then
	// answers Err (or io.ErrShortWrite; a short read without Err is io.EOF).
	Short bool
	Bytes int
	// Flip inverts one bit of the bytes read or written: bit Bit of them, modulo
	// their number.
	Flip bool
	Bit  int
}

// Armed is a rule in force.
type Armed struct {
	rule  Rule
	fault *Fault
	seen  atomic.Int64
}

// Hits counts the operations the rule has troubled.
func (a *Armed) Hits() int {
	hits := a.seen.Load() - int64(a.rule.After)
	if a.rule.Times > 0 {
		hits = min(hits, int64(a.rule.Times))
	}
	return int(max(0, hits))
}

// Disarm ends the rule.
func (a *Armed) Disarm() {
	a.fault.mu.Lock()
	defer a.fault.mu.Unlock()
	rules := a.fault.rules
	for i, r := range rules {
		if r == a {
			// A new slice: readers walk the old one without the lock.
			a.fault.rules = append(rules[:i:i], rules[i+1:]...)
			return
		}
	}
}

// Fault is a file system with planted trouble: errors, full disks, slow syncs,
// short writes and flipped bits, by rules. Without rules it is the file system
// below it.
type Fault struct {
	below FS

	mu    sync.Mutex
	rules []*Armed // never changed in place
}

// NewFault wraps a file system.
func NewFault(below FS) *Fault { return &Fault{below: below} }

// Add puts a rule in force. When several match an operation, the first that is
// due troubles it, and the others do not count it.
func (f *Fault) Add(r Rule) *Armed {
	if r.Ops == 0 {
		r.Ops = OpAny
	}
	a := &Armed{rule: r, fault: f}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(slices.Clip(f.rules), a)
	return a
}

// Fail is the common rule: the kinds fail with err on the matching names, from
// now on. Use syscall.EIO for a broken disk, syscall.ENOSPC for a full one.
func (f *Fault) Fail(ops Op, pattern string, err error) *Armed {
	return f.Add(Rule{Ops: ops, Path: pattern, Err: err})
}

// due finds the rule that troubles an operation, and waits out its delay.
func (f *Fault) due(op Op, names ...string) *Rule {
	f.mu.Lock()
	rules := f.rules
	f.mu.Unlock()
	for _, a := range rules {
		if a.rule.Ops&op == 0 || !a.rule.matches(names) {
			continue
		}
		n := a.seen.Add(1) - int64(a.rule.After)
		if n < 1 || (a.rule.Times > 0 && n > int64(a.rule.Times)) {
			continue
		}
		if wait := a.rule.wait(); wait > 0 {
			time.Sleep(wait)
		}
		return &a.rule
	}
	return nil
}

func (r *Rule) wait() time.Duration {
	if r.Wait == nil {
		return r.Delay
	}
	return r.Delay + r.Wait()
}

func (r *Rule) matches(names []string) bool {
	if r.Path == "" {
		return true
	}
	whole := path.Base(r.Path) != r.Path
	for _, name := range names {
		name = clean(name)
		if !whole {
			name = path.Base(name)
		}
		if ok, err := path.Match(r.Path, name); ok && err == nil {
			return true
		}
	}
	return false
}

// check is due for operations that can only fail or be slow.
func (f *Fault) check(op Op, verb string, names ...string) error {
	if r := f.due(op, names...); r != nil && r.Err != nil {
		return &fs.PathError{Op: verb, Path: names[0], Err: r.Err}
	}
	return nil
}

// Create implements FS.
func (f *Fault) Create(name string) (File, error) {
	return f.open(OpCreate, "create", name, f.below.Create)
}

// Open implements FS.
func (f *Fault) Open(name string) (File, error) {
	return f.open(OpOpen, "open", name, f.below.Open)
}

// OpenReadWrite implements FS.
func (f *Fault) OpenReadWrite(name string) (File, error) {
	return f.open(OpOpen, "open", name, f.below.OpenReadWrite)
}

func (f *Fault) open(op Op, verb, name string, fn func(string) (File, error)) (File, error) {
	if err := f.check(op, verb, name); err != nil {
		return nil, err
	}
	file, err := fn(name)
	if err != nil {
		return nil, err
	}
	return &faultFile{below: file, fault: f, name: name}, nil
}

// Rename implements FS.
func (f *Fault) Rename(oldname, newname string) error {
	if err := f.check(OpRename, "rename", oldname, newname); err != nil {
		return err
	}
	return f.below.Rename(oldname, newname)
}

// Remove implements FS.
func (f *Fault) Remove(name string) error {
	if err := f.check(OpRemove, "remove", name); err != nil {
		return err
	}
	return f.below.Remove(name)
}

// RemoveAll implements FS.
func (f *Fault) RemoveAll(name string) error {
	if err := f.check(OpRemove, "remove", name); err != nil {
		return err
	}
	return f.below.RemoveAll(name)
}

// MkdirAll implements FS.
func (f *Fault) MkdirAll(dir string) error {
	if err := f.check(OpMkdir, "mkdir", dir); err != nil {
		return err
	}
	return f.below.MkdirAll(dir)
}

// ReadDir implements FS.
func (f *Fault) ReadDir(dir string) ([]string, error) {
	if err := f.check(OpReadDir, "readdir", dir); err != nil {
		return nil, err
	}
	return f.below.ReadDir(dir)
}

// Stat implements FS.
func (f *Fault) Stat(name string) (Info, error) {
	if err := f.check(OpStat, "stat", name); err != nil {
		return Info{}, err
	}
	return f.below.Stat(name)
}

// SyncDir implements FS.
func (f *Fault) SyncDir(dir string) error {
	if err := f.check(OpSyncDir, "syncdir", dir); err != nil {
		return err
	}
	return f.below.SyncDir(dir)
}

// Lock implements FS.
func (f *Fault) Lock(name string) (io.Closer, error) {
	if err := f.check(OpLock, "lock", name); err != nil {
		return nil, err
	}
	return f.below.Lock(name)
}

// Usage implements FS. A rule with syscall.ENOSPC shows a full volume.
func (f *Fault) Usage(dir string) (Usage, error) {
	r := f.due(OpUsage, dir)
	if r != nil && r.Err != nil && !errors.Is(r.Err, syscall.ENOSPC) {
		return Usage{}, &fs.PathError{Op: "usage", Path: dir, Err: r.Err}
	}
	u, err := f.below.Usage(dir)
	if r != nil && errors.Is(r.Err, syscall.ENOSPC) {
		u.Free = 0
	}
	return u, err
}

// faultFile is an open file of a Fault.
type faultFile struct {
	below File
	fault *Fault
	name  string // at the time it was opened
}

// ReadAt implements io.ReaderAt.
func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	r := f.fault.due(OpRead, f.name)
	switch {
	case r == nil:
		return f.below.ReadAt(p, off)
	case r.Short:
		n, err := f.below.ReadAt(p[:min(len(p), r.Bytes)], off)
		if err == nil && n < len(p) {
			err = r.answer("read", f.name, io.EOF)
		}
		return n, err
	case r.Err != nil:
		return 0, r.answer("read", f.name, nil)
	}
	n, err := f.below.ReadAt(p, off)
	r.flip(p[:n])
	return n, err
}

// WriteAt implements io.WriterAt.
func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	r := f.fault.due(OpWrite, f.name)
	switch {
	case r == nil:
		return f.below.WriteAt(p, off)
	case r.Short:
		n, err := f.below.WriteAt(p[:min(len(p), r.Bytes)], off)
		if err == nil && n < len(p) {
			err = r.answer("write", f.name, io.ErrShortWrite)
		}
		return n, err
	case r.Err != nil:
		return 0, r.answer("write", f.name, nil)
	case r.Flip:
		p = append([]byte(nil), p...) // the caller's bytes stay as they are
		r.flip(p)
	}
	return f.below.WriteAt(p, off)
}

func (r *Rule) answer(verb, name string, otherwise error) error {
	if r.Err == nil {
		return otherwise
	}
	return &fs.PathError{Op: verb, Path: name, Err: r.Err}
}

func (r *Rule) flip(p []byte) {
	if !r.Flip || len(p) == 0 {
		return
	}
	bit := r.Bit % (8 * len(p))
	p[bit/8] ^= 1 << (bit % 8)
}

// Sync implements File.
func (f *faultFile) Sync() error {
	if err := f.fault.check(OpSync, "sync", f.name); err != nil {
		return err
	}
	return f.below.Sync()
}

// SyncData implements File.
func (f *faultFile) SyncData() error {
	if err := f.fault.check(OpSync, "sync", f.name); err != nil {
		return err
	}
	return f.below.SyncData()
}

// Truncate implements File.
func (f *faultFile) Truncate(size int64) error {
	if err := f.fault.check(OpTruncate, "truncate", f.name); err != nil {
		return err
	}
	return f.below.Truncate(size)
}

// Size implements File.
func (f *faultFile) Size() (int64, error) {
	if err := f.fault.check(OpSize, "size", f.name); err != nil {
		return 0, err
	}
	return f.below.Size()
}

// Close implements io.Closer. The file below is closed in any case.
func (f *faultFile) Close() error {
	err := f.fault.check(OpClose, "close", f.name)
	if below := f.below.Close(); err == nil {
		err = below
	}
	return err
}
