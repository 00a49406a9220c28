//go:build faults

package vfs

import (
	"errors"
	"io/fs"
	"sync/atomic"
	"syscall"
)

var (
	_ VolumeSyncer = (*Volatile)(nil)
	_ VectorWriter = (*volatileHandle)(nil)
)

// volatileVolume is all that stands in memory, over a volume below.
type volatileVolume struct {
	v      *Volatile
	below  Volume
	closed atomic.Bool
}

// OpenVolume implements VolumeSyncer where the file system below does.
func (v *Volatile) OpenVolume(dir string) (Volume, error) {
	below, ok := v.below.(VolumeSyncer)
	if !ok {
		return nil, memError("openvolume", dir, errors.ErrUnsupported)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	n, err := v.findDir(dir)
	if err != nil {
		return nil, memError("openvolume", dir, err)
	}
	volume, err := below.OpenVolume(n.real())
	if err != nil {
		return nil, err
	}
	return &volatileVolume{v: v, below: volume}, nil
}

// Sync implements Volume: it makes all names and bytes real, and has the volume
// below make them durable.
func (s *volatileVolume) Sync() error {
	if s.closed.Load() {
		return memError("syncvolume", "/", fs.ErrClosed)
	}
	s.v.mu.Lock()
	err := s.v.writeThrough(s.v.root)
	s.v.mu.Unlock()
	if err != nil {
		return memError("syncvolume", "/", err)
	}
	return s.below.Sync()
}

// writeThrough makes the names below n and the bytes under them real.
func (v *Volatile) writeThrough(n *volatileNode) error {
	if n.dir == nil {
		return n.data.writeThrough()
	}
	if err := v.commit(n, len(n.dir.pending)); err != nil {
		return err
	}
	for _, sub := range n.dir.names {
		if sub == nil {
			continue
		}
		if err := v.writeThrough(sub); err != nil {
			return err
		}
	}
	return nil
}

func (d *volatileData) writeThrough() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.noName || !d.dirty() {
		return nil
	}
	if err := d.flush(); err != nil {
		return err
	}
	return d.release()
}

// Close implements io.Closer.
func (s *volatileVolume) Close() error {
	if s.closed.Swap(true) {
		return memError("close", "/", fs.ErrClosed)
	}
	return s.below.Close()
}

// WriteVectorAt implements VectorWriter.
func (h *volatileHandle) WriteVectorAt(pieces [][]byte, off int64) (written int, err error) {
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
	for _, p := range pieces {
		if err := h.data.write(p, off+int64(written)); err != nil {
			return written, err
		}
		written += len(p)
	}
	return written, nil
}
