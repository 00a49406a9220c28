package cli

import (
	"fmt"
	"io"
	"math"
	"path"

	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
)

// filesReport is what `log verify` finds in a data folder, as --json prints it.
type filesReport struct {
	DataPath    string             `json:"data_path"`
	Damaged     bool               `json:"damaged"`
	WAL         walReport          `json:"wal"`
	Checkpoints []checkpointReport `json:"checkpoints"`
	Topics      topicsReport       `json:"topics"`
}

// walReport is what `log verify` and `log repair` find in the write-ahead log.
type walReport struct {
	Segments int        `json:"segments"`
	Spares   int        `json:"spares"`
	Frames   int        `json:"frames"`
	Bytes    int64      `json:"bytes"`
	Torn     *tornWrite `json:"torn_last_write,omitempty"` // no damage: it was never acknowledged
	Damage   *walDamage `json:"damage,omitempty"`
	Moved    []string   `json:"moved_aside,omitempty"`
}

type tornWrite struct {
	Segment string `json:"segment"`
	Offset  int64  `json:"offset"`
	Bytes   int64  `json:"bytes"`
}

type walDamage struct {
	Segment string      `json:"segment"`
	Offset  int64       `json:"offset"`
	Reason  string      `json:"reason"`
	Lost    []lostRange `json:"lost_by_repair"`
}

type lostRange struct {
	Shard uint32 `json:"shard"`
	First uint64 `json:"first_entry"`
	Last  uint64 `json:"last_entry"`
}

type checkpointReport struct {
	Shard  uint32 `json:"shard"`
	File   string `json:"file"`
	Index  uint64 `json:"index"`
	Bytes  int    `json:"bytes"`
	Damage string `json:"damage,omitempty"`
}

type topicsReport struct {
	Files      int             `json:"segment_files"`
	Batches    int64           `json:"batches"`
	Records    int64           `json:"records"`
	Bytes      int64           `json:"bytes"`
	Unfinished int             `json:"unfinished_files"` // ends that a crash left; nothing is lost
	Damage     []segmentDamage `json:"damage"`
}

type segmentDamage struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Reason string `json:"reason"`
	// The message offsets that may be gone; absent where not known.
	First *int64 `json:"first_message,omitempty"`
	Last  *int64 `json:"last_message,omitempty"`
}

// verifyAll reads every file of a stopped node.
func verifyAll(fsys vfs.FS, dir string) (r filesReport, err error) {
	r.DataPath = dir
	log, err := wal.Verify(fsys, path.Join(dir, "wal"))
	if err != nil {
		return r, fmt.Errorf("verify write-ahead log: %w", err)
	}
	r.WAL = reportWAL(log)
	checkpoints, err := shard.Verify(fsys, path.Join(dir, "shards"))
	if err != nil {
		return r, fmt.Errorf("verify checkpoints: %w", err)
	}
	r.Checkpoints = make([]checkpointReport, 0, len(checkpoints))
	for _, c := range checkpoints {
		r.Checkpoints = append(r.Checkpoints, checkpointReport{c.Shard, c.File, c.Index, c.Bytes, c.Err})
		r.Damaged = r.Damaged || c.Err != ""
	}
	topics, err := seglog.Verify(fsys, path.Join(dir, "topics"))
	if err != nil {
		return r, fmt.Errorf("verify topics: %w", err)
	}
	r.Topics = reportTopics(topics)
	r.Damaged = r.Damaged || r.WAL.Damage != nil || len(r.Topics.Damage) > 0
	return r, nil
}

func reportWAL(in wal.Report) walReport {
	r := walReport{Segments: len(in.Segments), Spares: in.Spares, Moved: in.Moved}
	for _, seg := range in.Segments {
		r.Frames += seg.Frames
		r.Bytes += seg.Bytes
	}
	if c := in.Cut; c != nil {
		r.Torn = &tornWrite{c.Segment, c.Offset, c.Size}
	}
	if d := in.Damage; d != nil {
		r.Damage = &walDamage{Segment: d.Segment, Offset: d.Offset, Reason: d.Reason, Lost: make([]lostRange, 0, len(d.Lost))}
		for _, l := range d.Lost {
			r.Damage.Lost = append(r.Damage.Lost, lostRange(l))
		}
	}
	return r
}

func reportTopics(in seglog.Report) topicsReport {
	r := topicsReport{
		Files: in.Files, Batches: in.Batches, Records: in.Records, Bytes: in.Bytes, Unfinished: in.Unfinished,
		Damage: make([]segmentDamage, 0, len(in.Damaged)),
	}
	for _, e := range in.Damaged {
		d := segmentDamage{File: e.File, Offset: e.Pos, Reason: e.Damage}
		if e.First <= e.Last {
			d.First = &e.First
			if e.Last != math.MaxInt64 {
				d.Last = &e.Last
			}
		}
		r.Damage = append(r.Damage, d)
	}
	return r
}

func (r *filesReport) print(w io.Writer) error {
	if err := r.WAL.print(w); err != nil {
		return err
	}
	bad := 0
	for _, c := range r.Checkpoints {
		if c.Damage != "" {
			bad++
			fmt.Fprintf(w, "checkpoint %s: DAMAGED: %s\n", c.File, c.Damage)
		}
	}
	fmt.Fprintf(w, "checkpoints: %d, %d damaged\n", len(r.Checkpoints), bad)
	for _, d := range r.Topics.Damage {
		fmt.Fprintf(w, "topics: DAMAGED: %s at byte %d: %s%s\n", d.File, d.Offset, d.Reason, d.gone())
	}
	if n := r.Topics.Unfinished; n > 0 {
		fmt.Fprintf(w, "topics: %d %s with an unfinished end, as a crash leaves it; the write-ahead log has what belongs there\n", n, plural(n, "file"))
	}
	_, err := fmt.Fprintf(w, "topics: %d %s, %d messages in %d batches, %s, %d damaged\n",
		r.Topics.Files, plural(r.Topics.Files, "segment file"), r.Topics.Records, r.Topics.Batches, size(r.Topics.Bytes), len(r.Topics.Damage))
	return err
}

func (d segmentDamage) gone() string {
	switch {
	case d.First == nil:
		return ""
	case d.Last == nil:
		return fmt.Sprintf("; messages from offset %d on may be gone", *d.First)
	default:
		return fmt.Sprintf("; messages %d to %d may be gone", *d.First, *d.Last)
	}
}

func (r *walReport) print(w io.Writer) error {
	if c := r.Torn; c != nil {
		fmt.Fprintf(w, "write-ahead log: torn last write in %s at byte %d, %d bytes, cut at the next start (it was never acknowledged)\n", c.Segment, c.Offset, c.Bytes)
	}
	if d := r.Damage; d != nil {
		fmt.Fprintf(w, "write-ahead log: DAMAGED: %s at byte %d: %s\n", d.Segment, d.Offset, d.Reason)
		for _, l := range d.Lost {
			fmt.Fprintf(w, "  behind it: entries %d to %d of shard %d\n", l.First, l.Last, l.Shard)
		}
	}
	for _, f := range r.Moved {
		fmt.Fprintf(w, "moved aside: %s\n", f)
	}
	_, err := fmt.Fprintf(w, "write-ahead log: %d %s and %d %s, %d frames, %s\n",
		r.Segments, plural(r.Segments, "segment"), r.Spares, plural(r.Spares, "spare"), r.Frames, size(r.Bytes))
	return err
}

// size is a number of bytes for people.
func size(n int64) string {
	for _, u := range []struct {
		unit   string
		factor int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.factor {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.factor), u.unit)
		}
	}
	return fmt.Sprintf("%d B", n)
}
