package parked

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"

	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/vfs"
)

// snapshotVersion is the format of an encoded snapshot.
const snapshotVersion = 1

// Snapshot is the state of a set at one moment. It is independent of the
// set's further life and may be used on any goroutine.
type Snapshot struct {
	set     *Set
	next    uint64
	pins    frozenPins
	entries []Entry
	runs    []runState
	tombs   []tombState
	retired []retiredRun
}

// runState is a run with its cursor.
type runState struct {
	seq             uint64
	size, left, pos int64
	done            int
	due             int64
}

// tombState is a tombstone.
type tombState struct {
	offset int64
	tomb
}

// Snapshot takes the state on the owner's goroutine. It copies what is in
// memory and shares the rest.
func (s *Set) Snapshot() *Snapshot {
	sn := &Snapshot{
		set:     s,
		next:    s.next,
		pins:    s.pins.freeze(),
		entries: make([]Entry, 0, len(s.items)),
		runs:    make([]runState, 0, len(s.runs)),
		tombs:   make([]tombState, 0, len(s.tombs)),
		retired: s.gone.list(),
	}
	for _, it := range s.items {
		sn.entries = append(sn.entries, it.Entry)
	}
	for _, r := range s.runs {
		sn.runs = append(sn.runs, runState{r.seq, r.size, r.left, r.pos, r.done, r.head.DueNs})
	}
	for offset, t := range s.tombs {
		sn.tombs = append(sn.tombs, tombState{offset, t})
	}
	return sn
}

// Published tells that the checkpoint with this snapshot is complete, and
// returns the files that neither it nor the one before needs: the caller
// removes them (they may be missing). Call it once, in the order in which the
// snapshots were taken; on any goroutine.
func (sn *Snapshot) Published() []string {
	var names []string
	for _, seq := range sn.set.gone.published(sn.retired) {
		names = append(names, sn.set.path(seq))
	}
	return names
}

// Append encodes the snapshot behind buf. Sets with the same history have the
// same encoding.
func (sn *Snapshot) Append(buf []byte) []byte {
	slices.SortFunc(sn.entries, func(a, b Entry) int { return cmp.Compare(a.Offset, b.Offset) })
	slices.SortFunc(sn.runs, func(a, b runState) int { return cmp.Compare(a.seq, b.seq) })
	slices.SortFunc(sn.tombs, func(a, b tombState) int { return cmp.Compare(a.offset, b.offset) })

	buf = append(buf, snapshotVersion)
	buf = binary.AppendUvarint(buf, sn.next)
	buf = sn.pins.append(buf)
	buf = binary.AppendUvarint(buf, uint64(len(sn.entries)))
	var last Entry
	for _, e := range sn.entries {
		buf = binary.AppendUvarint(buf, uint64(e.Offset-last.Offset))
		buf = binary.AppendVarint(buf, e.DueNs-last.DueNs)
		buf = binary.AppendUvarint(buf, uint64(e.Attempts))
		last = e
	}
	buf = binary.AppendUvarint(buf, uint64(len(sn.runs)))
	for _, r := range sn.runs {
		buf = binary.AppendUvarint(buf, r.seq)
		buf = binary.AppendUvarint(buf, uint64(r.size))
		buf = binary.AppendUvarint(buf, uint64(r.left))
		buf = binary.AppendUvarint(buf, uint64(r.pos))
		buf = binary.AppendUvarint(buf, uint64(r.done))
		buf = binary.AppendVarint(buf, r.due)
	}
	buf = binary.AppendUvarint(buf, uint64(len(sn.tombs)))
	offset := int64(0)
	for _, t := range sn.tombs {
		buf = binary.AppendUvarint(buf, uint64(t.offset-offset))
		buf = binary.AppendUvarint(buf, t.bound)
		buf = binary.AppendUvarint(buf, uint64(t.copies))
		offset = t.offset
	}
	buf = binary.AppendUvarint(buf, uint64(len(sn.retired)))
	for _, r := range sn.retired {
		buf = binary.AppendUvarint(buf, r.seq)
		buf = binary.AppendUvarint(buf, uint64(r.checkpoints))
	}
	return buf
}

// Restore makes a set from the start of an encoded snapshot, and returns what
// stands behind that. All commands after the snapshot are to be applied again.
// Nothing is out. The runs are checked for being there, not read. Errors match
// fault.Corrupt, fault.Unsupported (a newer format) or fault.Storage.
func Restore(fsys vfs.FS, dir, prefix string, state []byte) (*Set, []byte, error) {
	s := New(fsys, dir, prefix)
	d := &decoder{b: state}
	if v := d.uvarint(math.MaxUint8); !d.failed && v != snapshotVersion {
		return nil, nil, fault.New(fault.Unsupported, "restore parked messages: format version %d is not known", v)
	}
	s.next = d.uvarint(math.MaxUint64)
	s.pins.decode(d)
	s.decodeEntries(d)
	s.decodeRuns(d)
	s.decodeTombs(d)
	s.decodeRetired(d)
	if d.failed || !s.sound() {
		return nil, nil, fault.New(fault.Corrupt, "restore parked messages: malformed state")
	}
	for _, r := range s.runs {
		if err := checkHeader(fsys, s.path(r.seq), r.size); err != nil {
			return nil, nil, fmt.Errorf("restore parked messages: %s: %w", s.path(r.seq), err)
		}
	}
	return s, d.b, nil
}

func (s *Set) decodeEntries(d *decoder) {
	var e Entry
	for range d.count(3) {
		e.Offset += int64(d.uvarint(maxOffset))
		e.DueNs += d.varint()
		e.Attempts = uint16(d.uvarint(math.MaxUint16))
		if d.failed || !s.pins.has(e.Offset) || s.items[e.Offset] != nil {
			d.fail()
			return
		}
		it := &item{Entry: e, at: len(s.queue)}
		s.items[e.Offset] = it
		s.queue = append(s.queue, it)
	}
	heap.Init(&s.queue)
}

func (s *Set) decodeRuns(d *decoder) {
	last := uint64(0)
	for i := range d.count(6) {
		seq := d.uvarint(math.MaxUint64)
		size, left, pos := d.uvarint(math.MaxInt64), d.uvarint(math.MaxInt64), d.uvarint(math.MaxInt64)
		done, due := d.uvarint(payloadMax), d.varint()
		if d.failed || seq >= s.next || i > 0 && seq <= last || left == 0 || pos < headerSize || pos >= size {
			d.fail()
			return
		}
		last = seq
		s.runs = append(s.runs, newRun(seq, int64(size), int64(left), int64(pos), int(done), due))
	}
	heap.Init(&s.runs)
}

func (s *Set) decodeTombs(d *decoder) {
	offset := int64(0)
	for i := range d.count(3) {
		gap := d.uvarint(maxOffset)
		bound, copies := d.uvarint(s.next), d.uvarint(uint64(len(s.runs)))
		if offset += int64(gap); d.failed || offset < 0 || i > 0 && gap == 0 || copies == 0 {
			d.fail()
			return
		}
		s.tombs[offset] = tomb{bound: bound, copies: int(copies)}
	}
}

// decodeRetired counts the snapshot's own checkpoint: it is the one restored.
func (s *Set) decodeRetired(d *decoder) {
	for range d.count(2) {
		seq, n := d.uvarint(math.MaxUint64), d.uvarint(checkpointsKept)
		if seq >= s.next {
			d.fail()
			return
		}
		s.gone.files = append(s.gone.files, retiredRun{seq: seq, checkpoints: min(int(n)+1, checkpointsKept)})
	}
}

// sound reports whether the parts of the state agree: each offset of the set
// is either in memory, or one of the entries left in runs that are not stale.
func (s *Set) sound() bool {
	inRuns := s.pins.count - int64(len(s.items))
	for _, r := range s.runs {
		inRuns -= r.left
	}
	for _, t := range s.tombs {
		inRuns += int64(t.copies)
	}
	return inRuns == 0
}

// Files are the names, in the set's folder, of all runs that must be kept.
func (s *Set) Files() []string {
	var names []string
	for _, r := range s.runs {
		names = append(names, s.base(r.seq))
	}
	for _, r := range s.gone.list() {
		names = append(names, s.base(r.seq))
	}
	return names
}

// Sweep removes from dir what a crash has left: all runs, finished or not,
// that none of the sets knows. Call it after all sets of the folder have been
// restored, before any of them is used. A missing folder is no error.
func Sweep(fsys vfs.FS, dir string, sets ...*Set) error {
	names, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.Wrap(fault.Storage, fmt.Errorf("sweep parked messages: %w", err))
	}
	keep := map[string]bool{}
	for _, s := range sets {
		for _, name := range s.Files() {
			keep[name] = true
		}
	}
	for _, name := range names {
		if !isRun(name) || keep[name] {
			continue
		}
		if err := fsys.Remove(path.Join(dir, name)); err != nil {
			return fault.Wrap(fault.Storage, fmt.Errorf("sweep parked messages: %w", err))
		}
	}
	return nil
}
