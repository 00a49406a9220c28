//go:build faults

package vfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"syscall"
)

// volatileData is the content of a file: un-synced pages over the file below.
type volatileData struct {
	dice *dice // set when made

	mu     sync.Mutex
	file   File               // below; open while there are handles or un-synced changes
	opens  int                // handles
	size   int64              // in the view
	valid  int64              // bytes below from here on are not the view's: zeros stand there
	pages  map[int64]*memPage // un-synced, by number; bytes past size are zero
	cut    bool               // truncated since the last sync
	noName bool               // gone from below
}

func (d *volatileData) dirty() bool { return d.cut || len(d.pages) > 0 }

func (d *volatileData) idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.opens == 0 && !d.dirty()
}

func (d *volatileData) length() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size
}

// open adds a handle.
func (d *volatileData) open(below FS, real string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.file == nil {
		f, err := below.OpenReadWrite(real)
		if errors.Is(err, fs.ErrPermission) {
			f, err = below.Open(real)
		}
		if err != nil {
			return err
		}
		d.file = f
	}
	d.opens++
	return nil
}

// drop takes a handle away.
func (d *volatileData) drop() error {
	d.opens--
	return d.release()
}

// release closes the file below when nothing needs it any more.
func (d *volatileData) release() error {
	if d.file == nil || d.opens > 0 || (d.dirty() && !d.noName) {
		return nil
	}
	f := d.file
	d.file = nil
	return f.Close()
}

func (d *volatileData) gone() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noName = true
	_ = d.release() // nothing of it can be read any more
}

// read fills p from off, which must lie within the file with all of p.
func (d *volatileData) read(p []byte, off int64) error {
	for len(p) > 0 {
		i, at := off/pageSize, off%pageSize
		n := min(int64(len(p)), pageSize-at)
		if page := d.pages[i]; page != nil {
			copy(p[:n], page[at:])
		} else if err := d.readBelow(p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// readBelow fills p from the file below, with zeros from valid on.
func (d *volatileData) readBelow(p []byte, off int64) error {
	n := max(0, min(int64(len(p)), d.valid-off))
	clear(p[n:])
	if n == 0 {
		return nil
	}
	if got, err := d.file.ReadAt(p[:n], off); int64(got) < n {
		return err
	}
	return nil
}

// page makes a page of the view un-synced, to be changed in place.
func (d *volatileData) page(i int64) (*memPage, error) {
	if page := d.pages[i]; page != nil {
		return page, nil
	}
	page := new(memPage)
	if err := d.readBelow(page[:], i*pageSize); err != nil {
		return nil, err
	}
	if d.pages == nil {
		d.pages = map[int64]*memPage{}
	}
	d.pages[i] = page
	return page, nil
}

func (d *volatileData) write(p []byte, off int64) error {
	first, end := off, off+int64(len(p))
	for len(p) > 0 {
		page, err := d.page(off / pageSize)
		if err != nil {
			return err
		}
		n := copy(page[off%pageSize:], p)
		p, off = p[n:], off+int64(n)
	}
	d.size = max(d.size, end)
	for off := first / sectorSize * sectorSize; off < end; off += sectorSize {
		// Behind a truncate that is not real, new bytes would mix with old ones.
		if d.cut || !d.dice.early() {
			continue
		}
		page, at := d.pages[off/pageSize], off%pageSize
		if _, err := d.file.WriteAt(page[at:at+min(sectorSize, d.size-off)], off); err != nil {
			return err
		}
	}
	return nil
}

func (d *volatileData) truncate(size int64) error {
	if size == d.size {
		return nil
	}
	if size < d.size {
		last := size / pageSize
		maps.DeleteFunc(d.pages, func(i int64, _ *memPage) bool { return i*pageSize >= size })
		if page := d.pages[last]; page != nil {
			clear(page[size%pageSize:])
		}
		d.valid = min(d.valid, size)
	}
	d.size = size
	if d.cut || !d.dice.early() {
		d.cut = true
		return nil
	}
	return d.file.Truncate(size)
}

// flush writes all that is un-synced through to the file below.
func (d *volatileData) flush() error {
	if d.cut {
		// First what must not show through: bytes below that were cut off.
		if err := d.file.Truncate(d.valid); err != nil {
			return err
		}
	}
	for _, i := range slices.Sorted(maps.Keys(d.pages)) {
		off := i * pageSize
		if _, err := d.file.WriteAt(d.pages[i][:min(pageSize, d.size-off)], off); err != nil {
			return err
		}
	}
	if d.cut {
		if err := d.file.Truncate(d.size); err != nil {
			return err
		}
	}
	clear(d.pages)
	d.valid, d.cut = d.size, false
	return nil
}

// volatileHandle is an open file of a Volatile.
type volatileHandle struct {
	data     *volatileData
	name     string
	writable bool
	closed   bool // guarded by data.mu
}

// lock takes the file for one operation, refusing a closed handle.
func (h *volatileHandle) lock(op string) error {
	h.data.mu.Lock()
	if h.closed {
		h.data.mu.Unlock()
		return memError(op, h.name, fs.ErrClosed)
	}
	return nil
}

// ReadAt implements io.ReaderAt.
func (h *volatileHandle) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, memError("read", h.name, fs.ErrInvalid)
	}
	if err := h.lock("read"); err != nil {
		return 0, err
	}
	defer h.data.mu.Unlock()
	n := int(max(0, min(int64(len(p)), h.data.size-off)))
	if err := h.data.read(p[:n], off); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (h *volatileHandle) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, memError("write", h.name, fs.ErrInvalid)
	}
	if !h.writable {
		return 0, memError("write", h.name, syscall.EBADF)
	}
	if err := h.lock("write"); err != nil {
		return 0, err
	}
	defer h.data.mu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	if err := h.data.write(p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Truncate implements File.
func (h *volatileHandle) Truncate(size int64) error {
	if size < 0 {
		return memError("truncate", h.name, fs.ErrInvalid)
	}
	if !h.writable {
		return memError("truncate", h.name, syscall.EBADF)
	}
	if err := h.lock("truncate"); err != nil {
		return err
	}
	defer h.data.mu.Unlock()
	return h.data.truncate(size)
}

// Sync implements File.
func (h *volatileHandle) Sync() error { return h.sync(File.Sync) }

// SyncData implements File.
func (h *volatileHandle) SyncData() error { return h.sync(File.SyncData) }

// sync writes through under the lock, and leaves it for the slow sync below, so
// that readers need not wait for the disk.
func (h *volatileHandle) sync(fn func(File) error) error {
	if err := h.lock("sync"); err != nil {
		return err
	}
	err := h.data.flush()
	file := h.data.file
	h.data.mu.Unlock()
	if err != nil {
		return err
	}
	return fn(file)
}

// Size implements File.
func (h *volatileHandle) Size() (int64, error) {
	if err := h.lock("size"); err != nil {
		return 0, err
	}
	defer h.data.mu.Unlock()
	return h.data.size, nil
}

// Close implements io.Closer. It syncs nothing.
func (h *volatileHandle) Close() error {
	if err := h.lock("close"); err != nil {
		return err
	}
	defer h.data.mu.Unlock()
	h.closed = true
	return h.data.drop()
}
