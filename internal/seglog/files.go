package seglog

import (
	"container/list"
	"sync"
	"sync/atomic"

	"github.com/tidings-io/tidings/internal/vfs"
)

// files keeps the open segment files, at most max of them unless more are in
// use at once, and those that wait for a sync; the longest unused is closed
// first.
type files struct {
	fs  vfs.FS
	max int

	mu      sync.Mutex
	bySeg   map[*segment]*list.Element // of *handle
	order   list.List                  // front: used last
	waiting int                        // handles of bySeg that wait for a sync
}

// handle is one open segment file.
type handle struct {
	seg  *segment
	path string
	once sync.Once
	file vfs.File
	err  error
	// index of a sealed segment, once it has been read from its footer.
	index atomic.Pointer[index]
	hints hints

	refs  int // guarded by files.mu, like what follows
	gone  bool
	waits bool // for a sync, and in files.waiting
}

// hints remember where the latest reads of a file stopped, so that sequential
// readers go on without a search. Readers that follow each other share them.
type hints struct {
	mu   sync.Mutex
	ring [64]hint // offset -> position of the first frame at or behind it
	next int
}

type hint struct{ offset, pos int64 }

func (h *hints) take(offset int64) (pos int64, found bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.ring {
		if h.ring[i].offset == offset && h.ring[i].pos > 0 {
			return h.ring[i].pos, true
		}
	}
	return 0, false
}

func (h *hints) put(offset, pos int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.ring {
		if h.ring[i].offset == offset && h.ring[i].pos > 0 {
			return
		}
	}
	h.ring[h.next] = hint{offset, pos}
	h.next = (h.next + 1) % len(h.ring)
}

func newFiles(fs vfs.FS, max int) *files {
	f := &files{fs: fs, max: max, bySeg: make(map[*segment]*list.Element)}
	f.order.Init()
	return f
}

// acquire opens the file of a segment, or takes the one that is open, for
// writing too unless the segment is sealed. The caller gives it back with
// release, also when there was an error.
func (f *files) acquire(l *Log, g *segment, sealed bool) (*handle, error) {
	h := f.enter(g)
	h.once.Do(func() {
		h.path = l.path(g)
		if sealed {
			h.file, h.err = f.fs.Open(h.path)
		} else {
			h.file, h.err = f.fs.OpenReadWrite(h.path)
		}
		if h.err == nil {
			h.err = l.checkHeader(h)
		}
	})
	if h.err != nil {
		f.forget(g)
	}
	return h, h.err
}

// adopt takes a file that has just been created.
func (f *files) adopt(g *segment, path string, file vfs.File) *handle {
	h := f.enter(g)
	h.once.Do(func() { h.path, h.file = path, file })
	return h
}

func (f *files) enter(g *segment) *handle {
	f.mu.Lock()
	if e, ok := f.bySeg[g]; ok {
		f.order.MoveToFront(e)
		h := e.Value.(*handle)
		h.refs++
		f.mu.Unlock()
		return h
	}
	h := &handle{seg: g, refs: 1}
	f.bySeg[g] = f.order.PushFront(h)
	victims := f.evict(nil)
	f.mu.Unlock()
	closeAll(victims)
	return h
}

// evict takes what is above the bound and not in use out of the cache. The
// caller holds mu and closes them after releasing it.
func (f *files) evict(victims []*handle) []*handle {
	for e := f.order.Back(); e != nil && len(f.bySeg)-f.waiting > f.max; {
		prev := e.Prev()
		if h := e.Value.(*handle); h.refs == 0 {
			f.remove(e)
			victims = append(victims, h)
		}
		e = prev
	}
	return victims
}

func (f *files) remove(e *list.Element) {
	h := e.Value.(*handle)
	h.gone = true
	f.rests(h)
	delete(f.bySeg, h.seg)
	f.order.Remove(e)
}

// hold adds a reference to a handle that the caller already has, until its file
// is synced. There may be many such handles: did they count, no file that is
// only read would stay open beside them.
func (f *files) hold(h *handle) {
	f.mu.Lock()
	h.refs++
	if !h.gone {
		h.waits = true
		f.waiting++
	}
	f.mu.Unlock()
}

// synced gives back what hold added.
func (f *files) synced(h *handle) {
	f.mu.Lock()
	f.rests(h)
	f.mu.Unlock()
	f.release(h)
}

// rests has the handle count again. The caller holds mu.
func (f *files) rests(h *handle) {
	if h.waits {
		h.waits = false
		f.waiting--
	}
}

func (f *files) release(h *handle) {
	f.mu.Lock()
	h.refs--
	var victims []*handle
	if h.refs == 0 && h.gone {
		victims = append(victims, h)
	}
	victims = f.evict(victims)
	f.mu.Unlock()
	closeAll(victims)
}

// forget closes the segment's file as soon as nobody uses it.
func (f *files) forget(g *segment) {
	f.mu.Lock()
	var victims []*handle
	if e, ok := f.bySeg[g]; ok {
		h := e.Value.(*handle)
		f.remove(e)
		if h.refs == 0 {
			victims = append(victims, h)
		}
	}
	f.mu.Unlock()
	closeAll(victims)
}

// closeEvery closes all files that are not in use.
func (f *files) closeEvery() {
	f.mu.Lock()
	bound := f.max
	f.max = 0
	victims := f.evict(nil)
	f.max = bound
	f.mu.Unlock()
	closeAll(victims)
}

func (f *files) open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.bySeg)
}

// closeAll ignores errors: whatever had to be durable was synced before.
func closeAll(hs []*handle) {
	for _, h := range hs {
		if h.file != nil {
			_ = h.file.Close()
		}
	}
}
