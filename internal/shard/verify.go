package shard

import (
	"errors"
	"io/fs"
	"path"
	"strconv"

	"github.com/tidings-io/tidings/internal/vfs"
)

// Report is what Verify finds of one checkpoint file.
type Report struct {
	Shard uint32
	File  string
	Index uint64 // everything up to it is in the checkpoint
	Term  uint64
	Bytes int    // of the machine's state
	Err   string // why it can't be used; empty: it can
}

// Verify reads every checkpoint below dir, which holds one folder per shard.
// Damage is part of the report, not an error. It changes nothing.
func Verify(fsys vfs.FS, dir string) ([]Report, error) {
	names, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Report
	for _, name := range names {
		id, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			continue // not ours
		}
		f := folder{fs: fsys, dir: path.Join(dir, name), shard: uint32(id)}
		seqs, err := f.list()
		if err != nil {
			return out, err
		}
		for _, seq := range seqs {
			r := Report{Shard: f.shard, File: f.name(seq)}
			m, err := f.read(seq)
			switch {
			case errors.Is(err, ErrManifest):
				r.Err = err.Error()
			case err != nil:
				return out, err
			default:
				r.Index, r.Term, r.Bytes = m.Index, m.Term, len(m.State)
			}
			out = append(out, r)
		}
	}
	return out, nil
}
