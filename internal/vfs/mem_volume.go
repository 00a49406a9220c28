package vfs

import "io/fs"

var _ VolumeSyncer = (*Mem)(nil)

// memVolume is the whole disk, for one life.
type memVolume struct {
	disk   *Mem
	life   uint64
	closed bool
}

// OpenVolume implements VolumeSyncer.
func (m *Mem) OpenVolume(dir string) (Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.findDir(dir); err != nil {
		return nil, memError("openvolume", dir, err)
	}
	return &memVolume{disk: m, life: m.life}, nil
}

// Sync implements Volume.
func (v *memVolume) Sync() error {
	m := v.disk
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case v.life != m.life:
		return memError("syncvolume", "/", ErrCrashed)
	case v.closed:
		return memError("syncvolume", "/", fs.ErrClosed)
	}
	tripped, err := m.mutate()
	if err != nil {
		return memError("syncvolume", "/", err)
	}
	if !tripped {
		m.root.syncAll()
	}
	return m.after(tripped, "syncvolume", "/")
}

// syncAll makes the bytes and names below n durable, parents before what they
// hold, so that nothing is durable under a name that is not.
func (n *memNode) syncAll() {
	if n.dir == nil {
		n.data.sync()
		return
	}
	n.dir.commit(len(n.dir.pending))
	for _, sub := range n.dir.names {
		sub.syncAll()
	}
}

// Close implements io.Closer.
func (v *memVolume) Close() error {
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	v.closed = true
	return nil
}
