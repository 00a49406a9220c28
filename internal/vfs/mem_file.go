package vfs

import (
	"io"
	"io/fs"
	"syscall"
)

// pageSize is the unit of memory of a file's content, in bytes.
const pageSize = 4096

// undoKept is how much of the undo buffer a synced file keeps, in bytes.
const undoKept = 1 << 20

// joinAbove is the number of pending changes past which appends are joined, so
// that a file which is never synced does not grow its journal without bound.
const joinAbove = 1024

type memPage [pageSize]byte

// memData is the content of a file: the newest bytes, and the changes since
// the last sync with what they replaced.
type memData struct {
	pages   []*memPage // nil = zeros; bytes at and after size are zero
	size    int64
	pending []memChange
	undo    []byte // replaced bytes of pending, in order
}

// memChange is an un-synced write of [off, end), or a truncate to off.
type memChange struct {
	truncate bool
	off, end int64
	size     int64      // of the file before
	undo     int        // replaced bytes begin here in memData.undo
	tail     []*memPage // whole pages a truncate cut off
}

func pagesFor(size int64) int { return int((size + pageSize - 1) / pageSize) }

// write puts p at off and returns by how much the file grew.
func (d *memData) write(p []byte, off int64) (grown int64) {
	if len(p) == 0 {
		return 0
	}
	end := off + int64(len(p))
	before := d.size
	if !d.joins(off) {
		d.pending = append(d.pending, memChange{off: off, end: end, size: before, undo: len(d.undo)})
		d.undo = d.appendBytes(d.undo, off, min(end, before))
	} else {
		d.pending[len(d.pending)-1].end = end
	}
	d.put(p, off)
	return d.size - before
}

// joins reports whether an append may extend the change before it.
func (d *memData) joins(off int64) bool {
	if len(d.pending) < joinAbove {
		return false
	}
	last := &d.pending[len(d.pending)-1]
	return !last.truncate && last.end == off && d.size == off && last.off >= last.size
}

// put writes without journal, extending the file as needed.
func (d *memData) put(p []byte, off int64) {
	end := off + int64(len(p))
	if end > d.size {
		d.size = end
	}
	for len(d.pages) < pagesFor(d.size) {
		d.pages = append(d.pages, nil)
	}
	for len(p) > 0 {
		i, at := off/pageSize, off%pageSize
		n := min(len(p), int(pageSize-at))
		if d.pages[i] == nil && !allZero(p[:n]) {
			d.pages[i] = new(memPage)
		}
		if d.pages[i] != nil {
			copy(d.pages[i][at:], p[:n])
		}
		p, off = p[n:], off+int64(n)
	}
}

var zeroPage memPage

func allZero(p []byte) bool { return string(p) == string(zeroPage[:len(p)]) }

// read copies bytes from off, which must lie within the file with all of p.
func (d *memData) read(p []byte, off int64) {
	for len(p) > 0 {
		i, at := off/pageSize, off%pageSize
		n := min(len(p), int(pageSize-at))
		if page := d.pages[i]; page != nil {
			copy(p[:n], page[at:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+int64(n)
	}
}

// appendBytes appends the bytes [off, end) of the file to dst.
func (d *memData) appendBytes(dst []byte, off, end int64) []byte {
	for off < end {
		i, at := off/pageSize, off%pageSize
		n := min(end-off, pageSize-at)
		page := d.pages[i]
		if page == nil {
			page = &zeroPage
		}
		dst = append(dst, page[at:at+n]...)
		off += n
	}
	return dst
}

// truncate sets the size and returns by how much the file grew.
func (d *memData) truncate(size int64) (grown int64) {
	before := d.size
	if size == before {
		return 0
	}
	c := memChange{truncate: true, off: size, size: before, undo: len(d.undo)}
	if size < before {
		keep := pagesFor(size)
		d.undo = d.appendBytes(d.undo, size, min(before, int64(keep)*pageSize))
		c.tail = append(c.tail, d.pages[keep:]...)
	}
	d.pending = append(d.pending, c)
	d.resize(size)
	return size - before
}

// resize sets the size without journal, keeping bytes past it zero.
func (d *memData) resize(size int64) {
	keep := pagesFor(size)
	if size < d.size {
		clear(d.pages[keep:])
		d.pages = d.pages[:keep]
		if at := size % pageSize; at > 0 && d.pages[keep-1] != nil {
			clear(d.pages[keep-1][at:])
		}
	}
	for len(d.pages) < keep {
		d.pages = append(d.pages, nil)
	}
	d.size = size
}

// sync makes the newest bytes the durable ones.
func (d *memData) sync() {
	clear(d.pending)
	d.pending, d.undo = d.pending[:0], d.undo[:0]
	if cap(d.undo) > undoKept {
		d.undo = nil
	}
	if cap(d.pending) > joinAbove {
		d.pending = nil
	}
}

// undoLast takes the last pending change back.
func (d *memData) undoLast() {
	c := d.pending[len(d.pending)-1]
	old := d.undo[c.undo:]
	d.resize(c.size)
	if len(c.tail) > 0 {
		copy(d.pages[pagesFor(c.off):], c.tail)
	}
	if len(old) > 0 {
		d.put(old, c.off)
	}
	d.undo = d.undo[:c.undo]
	d.pending = d.pending[:len(d.pending)-1]
}

// memHandle is an open file of a Mem.
type memHandle struct {
	fs       *Mem
	node     *memNode
	life     uint64
	name     string
	writable bool
	closed   bool // guarded by fs.mu
}

// usable refuses a handle that is closed or of an earlier life.
func (h *memHandle) usable() error {
	switch {
	case h.life != h.fs.life:
		return ErrCrashed
	case h.closed:
		return fs.ErrClosed
	}
	return h.fs.alive()
}

// mutate begins an operation that changes the file.
func (h *memHandle) mutate() (tripped bool, err error) {
	if err := h.usable(); err != nil {
		return false, err
	}
	if !h.writable {
		return false, syscall.EBADF
	}
	return h.fs.mutate()
}

// ReadAt implements io.ReaderAt.
func (h *memHandle) ReadAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.usable(); err != nil {
		return 0, memError("read", h.name, err)
	}
	if off < 0 {
		return 0, memError("read", h.name, fs.ErrInvalid)
	}
	n := int(max(0, min(int64(len(p)), h.node.data.size-off)))
	h.node.data.read(p[:n], off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (h *memHandle) WriteAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if off < 0 {
		return 0, memError("write", h.name, fs.ErrInvalid)
	}
	tripped, err := h.mutate()
	if err != nil {
		return 0, memError("write", h.name, err)
	}
	fits := p
	if room := h.node.data.size + h.fs.free() - off; int64(len(p)) > room {
		fits, err = p[:max(0, room)], memError("write", h.name, syscall.ENOSPC)
	}
	h.fs.size += h.node.data.write(fits, off)
	if tripped {
		return 0, memError("write", h.name, h.fs.failErr)
	}
	return len(fits), err
}

// Truncate implements File.
func (h *memHandle) Truncate(size int64) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if size < 0 {
		return memError("truncate", h.name, fs.ErrInvalid)
	}
	tripped, err := h.mutate()
	if err != nil {
		return memError("truncate", h.name, err)
	}
	if size-h.node.data.size > h.fs.free() {
		return memError("truncate", h.name, syscall.ENOSPC)
	}
	h.fs.size += h.node.data.truncate(size)
	return h.fs.after(tripped, "truncate", h.name)
}

// Sync implements File. It works on a handle opened for reading too.
func (h *memHandle) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.usable(); err != nil {
		return memError("sync", h.name, err)
	}
	tripped, err := h.fs.mutate()
	if err != nil {
		return memError("sync", h.name, err)
	}
	if !tripped {
		h.node.data.sync()
	}
	return h.fs.after(tripped, "sync", h.name)
}

// SyncData implements File.
func (h *memHandle) SyncData() error { return h.Sync() }

// Size implements File.
func (h *memHandle) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.usable(); err != nil {
		return 0, memError("size", h.name, err)
	}
	return h.node.data.size, nil
}

// Close implements io.Closer. It syncs nothing.
func (h *memHandle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	switch {
	case h.life != h.fs.life:
		return memError("close", h.name, ErrCrashed)
	case h.closed:
		return memError("close", h.name, fs.ErrClosed)
	}
	h.closed = true
	h.node.opens--
	h.fs.reap(h.node)
	return nil
}
