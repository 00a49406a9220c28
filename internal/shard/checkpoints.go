package shard

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/tidings-io/tidings/internal/vfs"
)

const checkpointPrefix = "checkpoint-"

// folder holds the checkpoints of one group.
type folder struct {
	fs    vfs.FS
	dir   string
	shard uint32
}

// found is what a folder holds at start.
type found struct {
	newest, older *manifest // nil when there is none
	last          uint64    // highest sequence in use, damaged ones included
	damaged       []string  // files that were passed over, newest first
}

func (f folder) name(seq uint64) string {
	return path.Join(f.dir, checkpointPrefix+strconv.FormatUint(seq, 10))
}

// list returns the sequences in the folder, newest first.
func (f folder) list() ([]uint64, error) {
	names, err := f.names()
	if err != nil {
		return nil, err
	}
	var seqs []uint64
	for _, name := range names {
		num, ok := strings.CutPrefix(name, checkpointPrefix)
		if !ok {
			continue
		}
		if seq, err := strconv.ParseUint(num, 10, 64); err == nil {
			seqs = append(seqs, seq)
		}
	}
	slices.SortFunc(seqs, func(a, b uint64) int { return cmp.Compare(b, a) })
	return seqs, nil
}

func (f folder) names() ([]string, error) {
	names, err := f.fs.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", f.dir, err)
	}
	return names, nil
}

// sweep removes what a crash left half written.
func (f folder) sweep() error {
	names, err := f.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, checkpointPrefix) && strings.HasSuffix(name, vfs.TempSuffix) {
			if err := f.fs.Remove(path.Join(f.dir, name)); err != nil {
				return fmt.Errorf("remove unfinished checkpoint: %w", err)
			}
		}
	}
	return nil
}

// load reads the newest checkpoint that is whole, and the one before it, and
// removes what a crash left half written. It is an error when there are files
// and none of them is whole.
func (f folder) load() (found, error) {
	if err := f.sweep(); err != nil {
		return found{}, err
	}
	seqs, err := f.list()
	if err != nil {
		return found{}, err
	}
	var got found
	for _, seq := range seqs {
		got.last = max(got.last, seq)
		m, err := f.read(seq)
		switch {
		case errors.Is(err, ErrManifest):
			got.damaged = append(got.damaged, f.name(seq))
		case err != nil:
			return found{}, err
		case got.newest == nil:
			got.newest = m
		case got.older == nil:
			got.older = m
		}
	}
	if got.newest != nil && got.newest.Installed {
		// What came before it this replica has given up.
		got.older = nil
		if err := f.trim(got.newest.Seq, got.newest.Seq); err != nil {
			return found{}, err
		}
	}
	if got.newest == nil && len(got.damaged) > 0 {
		return found{}, fmt.Errorf("load checkpoint of shard %d: %w: %s; restore the file from a copy, nothing else can bring the shard back",
			f.shard, ErrManifest, strings.Join(got.damaged, " and "))
	}
	return got, nil
}

func (f folder) read(seq uint64) (*manifest, error) {
	b, err := vfs.ReadFile(f.fs, f.name(seq))
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(b)
	if err == nil && (m.Shard != f.shard || m.Seq != seq) {
		err = ErrManifest
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.name(seq), err)
	}
	return m, nil
}

// write makes a checkpoint durable.
func (f folder) write(m *manifest) error {
	return vfs.WriteFileAtomic(f.fs, f.name(m.Seq), m.encode())
}

// trim removes every checkpoint but the two named, durably, so that no file is
// ever considered whose segments may be gone.
func (f folder) trim(newest, older uint64) error {
	seqs, err := f.list()
	if err != nil {
		return err
	}
	removed := false
	for _, seq := range seqs {
		if seq == newest || seq == older {
			continue
		}
		if err := f.fs.Remove(f.name(seq)); err != nil {
			return fmt.Errorf("remove old checkpoint: %w", err)
		}
		removed = true
	}
	if !removed {
		return nil
	}
	if err := vfs.SyncError(f.fs.SyncDir(f.dir)); err != nil {
		return fmt.Errorf("sync %s: %w", f.dir, err)
	}
	return nil
}
