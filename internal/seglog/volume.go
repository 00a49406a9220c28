package seglog

import (
	"errors"
	"fmt"

	"github.com/tidings-io/tidings/internal/vfs"
)

const (
	// dirtyFilesMax is how many files may be written and not yet synced, each of
	// them open: above it the oldest is synced. Where the volume can be synced as
	// a whole there may be more of them, and then all are synced at once: with
	// many busy logs the bound would otherwise cost a sync for every flush.
	dirtyFilesMax      = 64
	dirtyFilesMaxWhole = 512
	// wholeSyncFrom is how many syncs one sync of the volume is worth, unless
	// Options says otherwise.
	wholeSyncFrom = 64
)

// openVolume opens the volume once there is something on it to be synced. It
// is that of the folder itself, which may be mounted apart from what it is in.
func (s *Store) openVolume() error {
	v, ok := s.fs.(vfs.VolumeSyncer)
	if !ok || s.volume != nil || s.apart {
		return nil
	}
	var err error
	if s.volume, err = v.OpenVolume(s.dir); err != nil {
		s.volume = nil
		if errors.Is(err, errors.ErrUnsupported) {
			s.apart = true
			return nil
		}
		return fmt.Errorf("open volume of log files: %w", err)
	}
	return nil
}

// dirtyMax is how many files may wait for a sync.
func (s *Store) dirtyMax() int {
	if s.volume != nil {
		return dirtyFilesMaxWhole / wholeSyncFrom * s.o.WholeSyncFrom
	}
	return dirtyFilesMax
}

// syncWhole makes all files and names durable with one call.
func (s *Store) syncWhole() error {
	s.counts.syncs.Add(1)
	s.counts.wholes.Add(1)
	if err := s.fail("sync volume of log files", s.volume.Sync()); err != nil {
		return err
	}
	s.wholes++
	for i, h := range s.dirty {
		h.seg.dirty, h.seg.unsynced = false, 0
		s.files.synced(h)
		s.dirty[i] = nil
	}
	s.dirty = s.dirty[:0]
	return nil
}

// Flush moves the tails of those logs that do not fit a checkpoint's state, up
// to a Raft index, to their files. It comes before the Checkpoint of each, so
// that where many files and names wait for a sync, one of the volume serves
// all; fewer are left to Checkpoint. Flusher only.
func (s *Store) Flush(logs []*Log, index uint64, inlineMax int) error {
	if s.failed != nil {
		return s.failed
	}
	names := 0
	for _, l := range logs {
		if err := l.settleTail(index, inlineMax); err != nil {
			return fmt.Errorf("flush log %v: %w", l.id, err)
		}
		if l.namesWait() {
			names++
		}
	}
	if s.volume != nil && names+len(s.dirty) > s.o.WholeSyncFrom {
		return s.syncWhole()
	}
	return nil
}

// namesWait reports whether names of the log are not known to be durable.
func (l *Log) namesWait() bool {
	return (l.newNames || l.newDirs && len(l.segs) > 0) && l.namedAt == l.store.wholes
}
