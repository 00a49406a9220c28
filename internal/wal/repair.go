package wal

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"slices"

	"github.com/tidings-io/tidings/internal/vfs"
)

// Frame is what Inspect shows of a frame.
type Frame struct {
	Segment string // file name
	Offset  int64  // bytes into it
	Size    int64  // bytes, padding included
	Kind    Kind
	Shard   uint32
	Type    int32
	Term    uint64 // of an entry or a HardState
	Index   uint64 // of an entry; the commit index of a HardState
	Vote    uint64 // of a HardState
	Group   int64  // of a group: its bytes
	Durable int64  // of a group: the offset below which the segment was durable before it
}

// SegmentReport describes a live segment.
type SegmentReport struct {
	Name   string
	Bytes  int64 // up to the end of the last whole group
	Frames int
}

// ShardReport describes what the log has of a shard.
type ShardReport struct {
	Shard       uint32
	First, Last uint64 // 0 when there are no entries
	Hard        HardState
}

// Report is what Verify and Repair find.
type Report struct {
	Segments []SegmentReport // oldest first, as far as they could be read
	Spares   int
	Shards   []ShardReport // ascending
	Cut      *Cut          // a torn last write, that Open will cut
	Damage   *CorruptError // what keeps Open from opening
	Moved    []string      // files that Repair moved aside, by their new paths
}

// Inspect calls fn for every frame of the live segments in order, as far as
// they are whole; damage is the error at the end. It changes nothing.
func Inspect(fs vfs.FS, dir string, fn func(Frame) error) error {
	s := newSurvey(fs, dir, false)
	s.visit = func(seg *segment, offset int64, f frame, vote uint64) error {
		return fn(describe(seg, offset, f, vote))
	}
	defer s.close()
	if err := s.take(); err != nil {
		return fmt.Errorf("inspect wal: %w", err)
	}
	if s.damage != nil {
		return fmt.Errorf("inspect wal: %w", s.damage)
	}
	return nil
}

func describe(seg *segment, offset int64, f frame, vote uint64) Frame {
	d := Frame{
		Segment: segmentName(seg.sequence), Offset: offset, Size: f.size(),
		Kind: f.kind, Shard: f.shard, Type: f.typ, Term: f.term, Index: f.index, Vote: vote,
	}
	if f.kind == KindGroup {
		d.Term, d.Index, d.Group, d.Durable = 0, 0, int64(f.term), int64(f.index)
	}
	return d
}

// Verify reads the whole log. Damage is part of the report, not an error. It
// changes nothing.
func Verify(fs vfs.FS, dir string) (Report, error) {
	s, r, err := examine(fs, dir)
	s.close()
	if err != nil {
		return r, fmt.Errorf("verify wal: %w", err)
	}
	return r, nil
}

// examine surveys and reports.
func examine(fs vfs.FS, dir string) (*survey, Report, error) {
	s := newSurvey(fs, dir, false)
	frames := make(map[uint64]int)
	s.visit = func(seg *segment, _ int64, _ frame, _ uint64) error {
		frames[seg.sequence]++
		return nil
	}
	err := s.take()
	r := Report{Spares: len(s.spares), Cut: s.cut, Damage: s.damage}
	for _, seg := range s.index.live {
		r.Segments = append(r.Segments, SegmentReport{segmentName(seg.sequence), seg.end, frames[seg.sequence]})
	}
	for id, l := range s.index.shards {
		sh := ShardReport{Shard: id, Hard: l.hard}
		if l.first <= l.last {
			sh.First, sh.Last = l.first, l.last
		}
		r.Shards = append(r.Shards, sh)
	}
	slices.SortFunc(r.Shards, func(a, b ShardReport) int { return int(int64(a.Shard) - int64(b.Shard)) })
	return s, r, err
}

// Repair reports what a repair would lose (Report.Damage.Lost) and, with
// apply, does it: the damaged segment, as it is, and everything behind it go
// to a new folder damaged-N, and the log ends before the damage. After a crash
// in the middle the next repair, or the next Open, brings it to its end. Without damage it does nothing.
func Repair(fs vfs.FS, dir string, apply bool) (Report, error) {
	s, r, err := examine(fs, dir)
	s.close()
	if err == nil && s.damage != nil && apply {
		err = s.repair(&r)
	}
	if err != nil {
		return r, fmt.Errorf("repair wal: %w", err)
	}
	return r, nil
}

func (s *survey) repair(r *Report) error {
	aside, err := s.makeAside()
	if err != nil {
		return err
	}
	broken := segmentName(s.damage.sequence)
	partly := s.damage.keep >= headerSize
	if partly {
		to := path.Join(aside, broken)
		if err := s.copyOut(broken, to, math.MaxInt64); err != nil {
			return fmt.Errorf("copy damaged segment: %w", err)
		}
		r.Moved = append(r.Moved, to)
	}
	// From the newest backwards, so that the names stay dense.
	for _, sequence := range slices.Backward(s.names) {
		if sequence < s.damage.sequence || sequence == s.damage.sequence && partly {
			continue
		}
		from, to := path.Join(s.dir, segmentName(sequence)), path.Join(aside, segmentName(sequence))
		if s.blank(sequence) {
			err = s.fs.Remove(from)
		} else {
			err = s.fs.Rename(from, to)
			r.Moved = append(r.Moved, to)
		}
		if err := errors.Join(err, s.fs.SyncDir(aside), s.fs.SyncDir(s.dir)); err != nil {
			return err
		}
	}
	if !partly {
		return nil
	}
	tmp := path.Join(s.dir, spareNew)
	if err := s.copyOut(broken, tmp, s.damage.keep); err != nil {
		return fmt.Errorf("copy whole part of segment: %w", err)
	}
	return errors.Join(s.fs.Rename(tmp, path.Join(s.dir, broken)), s.fs.SyncDir(s.dir))
}

// blank says whether a file is a spare behind the damage, with nothing in it.
func (s *survey) blank(sequence uint64) bool {
	_, live := s.heads[sequence]
	if live || len(s.heads) == 0 || sequence == s.damage.sequence {
		return false
	}
	file, size, err := s.open(sequence)
	if err != nil {
		return false
	}
	defer file.Close()
	r, err := s.restOf(s.scanner(sequence, file, size), 0)
	return err == nil && r.end == 0
}

// makeAside makes the next free damaged-N folder.
func (s *survey) makeAside() (string, error) {
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return "", err
	}
	n := 1
	for slices.Contains(names, fmt.Sprintf("damaged-%d", n)) {
		n++
	}
	aside := path.Join(s.dir, fmt.Sprintf("damaged-%d", n))
	if err := s.fs.MkdirAll(aside); err != nil {
		return "", err
	}
	return aside, s.fs.SyncDir(s.dir)
}

// copyOut copies at most the first n bytes of a segment to a new file and
// makes that durable with its name.
func (s *survey) copyOut(name, to string, n int64) error {
	file, err := s.fs.Open(path.Join(s.dir, name))
	if err != nil {
		return err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return err
	}
	out, err := s.fs.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(out, 0), io.NewSectionReader(file, 0, min(n, size)))
	if err == nil {
		err = out.Sync()
	}
	return errors.Join(err, out.Close(), s.fs.SyncDir(path.Dir(to)))
}
