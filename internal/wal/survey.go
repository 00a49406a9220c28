package wal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"path"
	"slices"

	"github.com/tidings-io/tidings/internal/plant"
	"github.com/tidings-io/tidings/internal/vfs"
)

// scanWindow is how much recovery reads at once, bytes.
const scanWindow = 1 << 20

// survey is what one pass over the folder finds. It changes nothing; settle
// does.
type survey struct {
	fs    vfs.FS
	dir   string
	write bool // files are opened for writing
	visit func(*segment, int64, frame, uint64) error

	names  []uint64                 // sequence numbers in the folder, ascending
	heads  map[uint64]segmentHeader // of the live ones
	id     uint64
	index  index
	spares []uint64
	marked int64 // as in writer
	buf    []byte

	cut    *Cut          // the torn last write
	wipe   []wipe        // bytes that must not come back
	damage *CorruptError // what forbids to open
}

// wipe is a stretch of a file to be overwritten with zeros, or cut off.
type wipe struct {
	sequence uint64
	from, to int64
	truncate bool
}

// prepare makes the folder and its first segment.
func prepare(fs vfs.FS, dir string) error {
	if err := fs.MkdirAll(dir); err != nil {
		return err
	}
	names, err := listSegments(fs, dir)
	if err != nil {
		return err
	}
	if err := fs.Remove(path.Join(dir, spareNew)); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return err
	}
	if len(names) > 0 {
		return nil
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return fmt.Errorf("draw log id: %w", err)
	}
	h := segmentHeader{id: binary.LittleEndian.Uint64(id[:]), sequence: 1, grows: true}
	if err := writeNew(fs, dir, segmentName(1), appendSegmentHeader(nil, h)); err != nil {
		return fmt.Errorf("create first segment: %w", err)
	}
	return fs.SyncDir(path.Dir(dir))
}

// writeNew makes a file that is there as a whole or not at all.
func writeNew(fs vfs.FS, dir, name string, data []byte) error {
	f, err := fs.Create(path.Join(dir, spareNew))
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(path.Join(dir, spareNew), path.Join(dir, name)); err != nil {
		return err
	}
	return fs.SyncDir(dir)
}

// listSegments returns the sequence numbers of the segment files, ascending.
func listSegments(fs vfs.FS, dir string) ([]uint64, error) {
	files, err := fs.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []uint64
	for _, f := range files {
		if sequence, ok := parseSegmentName(f); ok {
			names = append(names, sequence)
		}
	}
	slices.Sort(names)
	return names, nil
}

// takeSurvey reads the log. Damage is a finding, not an error. The caller
// closes the survey, or takes its files over.
func takeSurvey(fs vfs.FS, dir string, write bool) (*survey, error) {
	s := newSurvey(fs, dir, write)
	return s, s.take()
}

func newSurvey(fs vfs.FS, dir string, write bool) *survey {
	return &survey{
		fs: fs, dir: dir, write: write,
		heads: make(map[uint64]segmentHeader),
		index: index{shards: make(map[uint32]*shardLog)},
	}
}

func (s *survey) take() error {
	var err error
	if s.names, err = listSegments(s.fs, s.dir); err != nil {
		return err
	}
	if len(s.names) == 0 {
		return fmt.Errorf("read log folder %s: no segment in it: %w", s.dir, iofs.ErrNotExist)
	}
	if err := s.openLive(); err != nil {
		return err
	}
	if err := s.read(); err != nil {
		return err
	}
	if s.damage != nil {
		s.gatherLost()
	}
	return nil
}

// read reads the live segments in order, up to damage.
func (s *survey) read() error {
	live := s.index.live
	for i, seg := range live {
		var err error
		switch {
		case s.damage != nil && seg.sequence >= s.damage.sequence:
			return nil
		case i+1 < len(live) && live[i+1].sequence == seg.sequence+1:
			err = s.readSealed(seg, live[i+1].previous)
		case s.damage != nil:
			err = s.readBefore(seg) // the next one's header is gone
		default:
			err = s.readLast(seg)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// close closes the live files.
func (s *survey) close() {
	for _, seg := range s.index.live {
		_ = seg.file.Close()
	}
}

func (s *survey) open(sequence uint64) (vfs.File, int64, error) {
	name := path.Join(s.dir, segmentName(sequence))
	open := s.fs.Open
	if s.write {
		open = s.fs.OpenReadWrite
	}
	file, err := open(name)
	if err != nil {
		return nil, 0, err
	}
	size, err := file.Size()
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, size, nil
}

// openLive finds out which files are live and opens them. They must be the
// first ones, and the names must be dense.
func (s *survey) openLive() error {
	for _, sequence := range s.names {
		file, _, err := s.open(sequence)
		if err != nil {
			return err
		}
		var b [headerUsed]byte
		if _, err := file.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
			return errors.Join(fmt.Errorf("read segment header: %w", err), file.Close())
		}
		h, ok, err := decodeSegmentHeader(b[:])
		if err != nil {
			return errors.Join(err, file.Close())
		}
		if !ok || h.sequence != sequence {
			if err := file.Close(); err != nil {
				return err
			}
			continue
		}
		s.heads[sequence] = h
		seg := newSegment(h.id, sequence, file)
		seg.previous, seg.grows, seg.end = h.previous, h.grows, headerSize
		s.index.live = append(s.index.live, seg)
	}
	s.checkNames()
	return nil
}

// checkNames sorts the names into live ones and spares, and finds the gaps.
func (s *survey) checkNames() {
	live := s.index.live
	if len(live) == 0 {
		s.damaged(s.names[0], 0, 0, "segment header does not match its checksum")
		return
	}
	s.id = live[0].idOf(s.heads)
	last := live[len(live)-1].sequence
	for i, sequence := range s.names {
		if expected := s.names[0] + uint64(i); sequence != expected {
			s.damaged(expected, 0, 0, "segment is missing")
			return
		}
		h, ok := s.heads[sequence]
		switch {
		case sequence > last:
			s.spares = append(s.spares, sequence)
		case !ok:
			s.damaged(sequence, 0, 0, "segment header does not match its checksum")
			return
		case h.id != s.id:
			s.damaged(sequence, 0, 0, "segment belongs to another log")
			return
		}
	}
}

func (seg *segment) idOf(heads map[uint64]segmentHeader) uint64 { return heads[seg.sequence].id }

// scanner makes one over a segment's file.
func (s *survey) scanner(sequence uint64, file vfs.File, size int64) *scanner {
	if n := min(scanWindow, max(size, MinSegmentSize)); int64(len(s.buf)) < n {
		s.buf = make([]byte, n)
	}
	return &scanner{file: file, size: size, seed: seedOf(s.id, sequence), buf: s.buf}
}

// readSealed reads a segment that has a successor, whose header says where
// this one ends.
func (s *survey) readSealed(seg *segment, end int64) error {
	size, err := seg.file.Size()
	if err != nil {
		return err
	}
	sc := s.scanner(seg.sequence, seg.file, min(size, end))
	for seg.end < end {
		head, place, err := sc.group(seg.end, end)
		if err != nil {
			s.damaged(seg.sequence, seg.end, place, err.Error())
			return nil
		}
		if err := s.apply(seg, head, sc.frames); err != nil {
			return err
		}
	}
	return nil
}

// readBefore reads a segment as far as it is whole, because damage stands
// right behind it.
func (s *survey) readBefore(seg *segment) error {
	size, err := seg.file.Size()
	if err != nil {
		return err
	}
	sc := s.scanner(seg.sequence, seg.file, size)
	for {
		head, _, err := sc.group(seg.end, size)
		if err != nil {
			return nil
		}
		if err := s.apply(seg, head, sc.frames); err != nil {
			return err
		}
	}
}

// readLast reads the segment that was written to, and decides whether what
// stands behind its last whole group is a torn write or damage.
func (s *survey) readLast(seg *segment) error {
	size, err := seg.file.Size()
	if err != nil {
		return err
	}
	s.marked = headerSize
	sc := s.scanner(seg.sequence, seg.file, size)
	var head frame
	var place int64
	for err == nil {
		if head, place, err = sc.group(seg.end, size); err != nil {
			break
		}
		if err := s.apply(seg, head, sc.frames); err != nil {
			return err
		}
		s.marked = 0
		if head.term == frameSize {
			s.marked = seg.end
		}
	}
	torn := err
	rest, err := s.restOf(sc, seg.end)
	if err != nil || !ours(torn) {
		s.damaged(seg.sequence, seg.end, place, errors.Join(torn, err).Error())
		return nil
	}
	next, err := s.readNext(seg.sequence + 1)
	if err != nil || s.damage != nil {
		return err
	}
	lost := rest.end > seg.end || seg.grows && rest.dirty
	if (rest.durable > seg.end || lost && next) && !plant.On("wal-cut-middle") {
		s.damaged(seg.sequence, seg.end, place, torn.Error())
		return nil
	}
	if seg.grows {
		rest.end = size
	}
	if lost {
		s.cut = &Cut{segmentName(seg.sequence), seg.end, rest.end - seg.end}
	}
	if rest.end > seg.end {
		s.wipe = append(s.wipe, wipe{seg.sequence, seg.end, rest.end, seg.grows})
	}
	return nil
}

// ours says whether an error is a finding about bytes, not a failed read.
func ours(err error) bool {
	for _, e := range []error{errHeader, errPayload, errShort, errGroup, errFill} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// rest describes what stands behind the last whole group.
type rest struct {
	end     int64 // behind the last frame of the segment's generation
	durable int64 // the highest durable mark among those frames
	dirty   bool  // any byte is not zero
}

func (s *survey) restOf(sc *scanner, from int64) (rest, error) {
	r := rest{end: from}
	dirty, err := sc.strays(from, func(offset int64, f frame) {
		size := f.size()
		if f.kind == KindGroup {
			r.durable = max(r.durable, int64(f.index))
			size = int64(f.term)
		}
		r.end = max(r.end, min(offset+size, sc.size))
	})
	r.dirty = dirty
	return r, err
}

// readNext looks into the file behind the last live one: a crash while the
// log rolled, or damage, may have left frames there under a header that is
// none. It tells whether there are any.
func (s *survey) readNext(sequence uint64) (bool, error) {
	if len(s.spares) == 0 || s.spares[0] != sequence {
		return false, nil
	}
	file, size, err := s.open(sequence)
	if err != nil {
		return false, err
	}
	r, err := s.restOf(s.scanner(sequence, file, size), 0)
	if err := errors.Join(err, file.Close()); err != nil {
		return false, err
	}
	if r.end == 0 {
		return false, nil
	}
	if r.durable > 0 && !plant.On("wal-cut-middle") {
		s.damaged(sequence, 0, 0, "segment header does not match its checksum")
		return true, nil
	}
	s.cut = &Cut{segmentName(sequence), 0, r.end}
	s.wipe = append(s.wipe, wipe{sequence: sequence, to: r.end})
	return true, nil
}

// apply takes a whole group into the index.
func (s *survey) apply(seg *segment, head frame, frames []placedFrame) error {
	if s.visit != nil {
		if err := s.visit(seg, seg.end, head, 0); err != nil {
			return err
		}
	}
	for i := range frames {
		f := &frames[i]
		switch f.kind {
		case KindHard:
			l := s.index.shard(f.shard)
			l.hard, l.hasHard = HardState{Term: f.term, Vote: f.vote, Commit: f.index}, true
		case KindEntry:
			l := s.index.shard(f.shard)
			l.extend(f.index, f.term)
			l.place(f.index, seg, f.offset)
		case KindForget:
			s.index.forget(f.shard)
		}
		if s.visit != nil {
			if err := s.visit(seg, f.offset, f.frame, f.vote); err != nil {
				return err
			}
		}
	}
	seg.end += int64(head.term)
	return nil
}

// damaged notes damage in a segment: keep bytes of it are whole, place is
// where it is broken.
func (s *survey) damaged(sequence uint64, keep, place int64, reason string) {
	s.damage = &CorruptError{
		Segment: segmentName(sequence), Offset: place, Reason: reason,
		sequence: sequence, keep: keep,
	}
}

// gatherLost completes the description of the damage.
func (s *survey) gatherLost() {
	if len(s.heads) == 0 {
		s.damage.Reason += "; what it held cannot be told"
		return
	}
	sequence, keep := s.damage.sequence, s.damage.keep
	lost := make(map[uint32]Lost)
	for _, n := range s.names {
		if n >= sequence {
			from := int64(headerSize)
			if n == sequence {
				from = max(from, keep)
			}
			s.addLost(lost, n, from)
		}
	}
	for id, l := range lost {
		if known := s.index.shards[id]; known != nil && known.last > 0 {
			l.First = min(l.First, known.last+1)
		}
		s.damage.Lost = append(s.damage.Lost, l)
	}
	slices.SortFunc(s.damage.Lost, func(a, b Lost) int { return int(int64(a.Shard) - int64(b.Shard)) })
}

// addLost adds the entries whose frame headers stand in a file from an
// offset on. A file that cannot be read adds nothing: this is a description.
func (s *survey) addLost(lost map[uint32]Lost, sequence uint64, from int64) {
	file, size, err := s.open(sequence)
	if err != nil {
		return
	}
	defer file.Close()
	_, _ = s.scanner(sequence, file, size).strays(from, func(_ int64, f frame) {
		if f.kind != KindEntry {
			return
		}
		l, ok := lost[f.shard]
		if !ok {
			l = Lost{f.shard, f.index, f.index}
		}
		l.First, l.Last = min(l.First, f.index), max(l.Last, f.index)
		lost[f.shard] = l
	})
}

// settle makes the survey's end the log's: torn bytes are wiped so that they
// can never join a later write, and what was read is made durable, because it
// may so far stand in a page cache only.
func (s *survey) settle(o Options) error {
	for _, wp := range s.wipe {
		if err := s.wipeOut(wp); err != nil {
			return fmt.Errorf("cut torn write: %w", err)
		}
	}
	if err := s.dropShortSpares(o.SegmentSize); err != nil {
		return fmt.Errorf("remove short spare: %w", err)
	}
	if err := s.index.live[len(s.index.live)-1].file.SyncData(); err != nil {
		return fmt.Errorf("sync recovered log: %w", err)
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return fmt.Errorf("sync recovered log: %w", err)
	}
	return nil
}

// dropShortSpares removes, from the newest on, spares that are shorter than a
// segment: what a crash left of a file that was to grow, or spares of another
// segment size.
func (s *survey) dropShortSpares(size int64) error {
	for n := len(s.spares); n > 0; n-- {
		name := path.Join(s.dir, segmentName(s.spares[n-1]))
		info, err := s.fs.Stat(name)
		if err != nil || info.Size >= size {
			return err
		}
		if err := s.fs.Remove(name); err != nil {
			return err
		}
		s.spares = s.spares[:n-1]
	}
	return nil
}

func (s *survey) wipeOut(wp wipe) error {
	file, _, err := s.open(wp.sequence)
	if err != nil {
		return err
	}
	if wp.truncate {
		err = file.Truncate(wp.from)
	}
	for at := wp.from; err == nil && !wp.truncate && at < wp.to; {
		n := min(wp.to-at, zeroChunk)
		_, err = file.WriteAt(zeros[:n], at)
		at += n
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}
