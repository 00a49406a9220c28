package cli

import (
	"fmt"
	"io"
	"path"

	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
)

// filesReport is what `log verify` finds in a data folder.
type filesReport struct {
	WAL         wal.Report     `json:"wal"`
	Checkpoints []shard.Report `json:"checkpoints"`
	Topics      seglog.Report  `json:"topics"`
}

// verifyAll reads every file of a stopped node.
func verifyAll(fsys vfs.FS, dir string) (r filesReport, err error) {
	if r.WAL, err = wal.Verify(fsys, path.Join(dir, "wal")); err != nil {
		return r, err
	}
	if r.Checkpoints, err = shard.Verify(fsys, path.Join(dir, "shards")); err != nil {
		return r, err
	}
	r.Topics, err = seglog.Verify(fsys, path.Join(dir, "topics"))
	return r, err
}

// Damaged reports whether anything is not as it was written. A torn last write
// is no damage: it was never acknowledged.
func (r *filesReport) Damaged() bool {
	if r.WAL.Damage != nil || len(r.Topics.Damaged) > 0 {
		return true
	}
	for _, c := range r.Checkpoints {
		if c.Err != "" {
			return true
		}
	}
	return false
}

func (r *filesReport) print(s streams) error {
	printWAL(s.out, r.WAL)
	bad := 0
	for _, c := range r.Checkpoints {
		if c.Err != "" {
			bad++
			fmt.Fprintf(s.out, "checkpoint %s: DAMAGED: %s\n", c.File, c.Err)
		}
	}
	fmt.Fprintf(s.out, "checkpoints: %d, %d damaged\n", len(r.Checkpoints), bad)
	for _, d := range r.Topics.Damaged {
		fmt.Fprintf(s.out, "topics: DAMAGED: %s at byte %d: %s\n", d.File, d.Pos, d.Damage)
	}
	_, err := fmt.Fprintf(s.out, "topics: %d segment files, %d batches, %d bytes, %d damaged places\n",
		r.Topics.Files, r.Topics.Batches, r.Topics.Bytes, len(r.Topics.Damaged))
	return err
}

// printWAL prints what Verify or Repair found in the write-ahead log.
func printWAL(w io.Writer, r wal.Report) {
	frames, bytes := 0, int64(0)
	for _, seg := range r.Segments {
		frames += seg.Frames
		bytes += seg.Bytes
	}
	fmt.Fprintf(w, "write-ahead log: %d segments, %d spares, %d frames, %d bytes\n", len(r.Segments), r.Spares, frames, bytes)
	if r.Cut != nil {
		fmt.Fprintf(w, "write-ahead log: torn last write, cut at the next start: %v\n", *r.Cut)
	}
	if r.Damage != nil {
		fmt.Fprintf(w, "write-ahead log: DAMAGED: %v\n", r.Damage)
		for _, l := range r.Damage.Lost {
			fmt.Fprintf(w, "  lost by a repair: %v\n", l)
		}
	}
	for _, f := range r.Moved {
		fmt.Fprintf(w, "moved aside: %s\n", f)
	}
}
