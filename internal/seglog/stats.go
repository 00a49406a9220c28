package seglog

import (
	"errors"
	"io/fs"
	"sync/atomic"

	"github.com/tidings-io/tidings/internal/vfs"
)

// counters run since the store was opened.
type counters struct {
	segments, dead, sealed, removed, swept   atomic.Int64
	flushes, flushedBytes, syncs, wholes     atomic.Int64
	compactions, compactedBytes, keptBytes   atomic.Int64
	tailReads, fileReads, fileBytes, indexes atomic.Int64
	corruptBatches, corruptReads, repairs    atomic.Int64
}

// Stats is a picture of a store. Counts run since Open.
type Stats struct {
	TailBytes int64 // in memory now
	OpenFiles int64 // now
	Segments  int64 // files that logs hold now
	DeadFiles int64 // waiting for two checkpoints, now

	Flushes, FlushedBytes int64 // writes to segments
	Syncs                 int64 // of files and folders
	WholeSyncs            int64 // of those, syncs of the whole volume
	Sealed, Removed       int64 // segments
	Swept                 int64 // folders and files that nobody knew

	Compactions    int64 // rewritten files
	CompactedBytes int64 // their bytes before …
	KeptBytes      int64 // … and after

	TailReads, FileReads, FileBytes int64
	IndexRebuilds                   int64 // sparse indexes made by reading the frames

	CorruptBatches int64 // damaged places, each counted once
	CorruptReads   int64 // times that a read ran into one
	Repairs        int64 // segments written anew with batches of another replica
}

// Stats takes a picture. Any goroutine.
func (s *Store) Stats() Stats {
	c := &s.counts
	return Stats{
		TailBytes: s.tailBytes.Load(), OpenFiles: int64(s.files.open()),
		Segments: c.segments.Load(), DeadFiles: c.dead.Load(),
		Flushes: c.flushes.Load(), FlushedBytes: c.flushedBytes.Load(), Syncs: c.syncs.Load(), WholeSyncs: c.wholes.Load(),
		Sealed: c.sealed.Load(), Removed: c.removed.Load(), Swept: c.swept.Load(),
		Compactions: c.compactions.Load(), CompactedBytes: c.compactedBytes.Load(), KeptBytes: c.keptBytes.Load(),
		TailReads: c.tailReads.Load(), FileReads: c.fileReads.Load(), FileBytes: c.fileBytes.Load(),
		IndexRebuilds:  c.indexes.Load(),
		CorruptBatches: c.corruptBatches.Load(), CorruptReads: c.corruptReads.Load(), Repairs: c.repairs.Load(),
	}
}

// corrupt counts a damaged place, asks whether it will be mended, and returns it.
func (s *Store) corrupt(e *CorruptError) *CorruptError {
	s.counts.corruptReads.Add(1)
	at := damage{e.ID, e.First, e.Pos}
	s.mu.Lock()
	_, known := s.bad[at]
	if !known && len(s.bad) < damageMax {
		s.bad[at] = struct{}{}
	}
	s.mu.Unlock()
	if !known {
		s.counts.corruptBatches.Add(1)
	}
	e.Mending = s.o.Mend != nil && s.o.Mend(e)
	return e
}

// readDir lists a folder; a missing one is empty.
func readDir(fsys vfs.FS, dir string) ([]string, error) {
	names, err := fsys.ReadDir(dir)
	return names, ignoreMissing(err)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
