package wal

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/tidings-io/tidings/internal/vfs"
)

// Abandon moves every segment in dir aside, into a new folder damaged-N, so
// that the next Open begins an empty log. It is what a node with peers does
// with a log that is damaged below what was durable: all replicas on it have
// forgotten votes or entries that they may have answered for, and must join
// again under new Raft ids. It returns the new paths. After a crash in the
// middle it is to be called again. No log may be open on the folder.
func Abandon(fs vfs.FS, dir string) ([]string, error) {
	s := newSurvey(fs, dir, false)
	var err error
	if s.names, err = listSegments(fs, dir); err != nil {
		return nil, fmt.Errorf("abandon wal: %w", err)
	}
	if len(s.names) == 0 {
		return nil, nil
	}
	aside, err := s.makeAside()
	if err != nil {
		return nil, fmt.Errorf("abandon wal: %w", err)
	}
	var moved []string
	// From the newest backwards, so that the names stay dense.
	for _, sequence := range slices.Backward(s.names) {
		to := path.Join(aside, segmentName(sequence))
		err := fs.Rename(path.Join(dir, segmentName(sequence)), to)
		if err := errors.Join(err, fs.SyncDir(aside), fs.SyncDir(dir)); err != nil {
			return moved, fmt.Errorf("abandon wal: %w", err)
		}
		moved = append(moved, to)
	}
	return moved, nil
}
