package seglog

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// decoder reads the fields of a state; bad sticks.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	d.skip(n)
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	d.skip(n)
	return v
}

func (d *decoder) skip(n int) {
	if n <= 0 || n > len(d.b) {
		d.b, d.bad = nil, true
		return
	}
	d.b = d.b[n:]
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

// Restore makes a log again from a state. It makes no system call: files are
// opened by the first read, and what a crash left beyond the state is cut off
// before the first write, or removed with the first Published. Batches with
// Raft indexes above the checkpoint's are replayed with Append.
//
// The start is not part of a state. Until the first AdvanceStart it is the
// lowest offset that the log holds: call SetPinned, then AdvanceStart with the
// start as of the checkpoint.
func (s *Store) Restore(id LogID, state []byte) (*Log, error) {
	l := &Log{store: s, id: id, seed: id.seed(), newDirs: true}
	d := &decoder{b: state}
	if v := d.byte(); v != stateVersion {
		return nil, fmt.Errorf("restore log %v: state version %d: %w", id, v, errNoState)
	}
	index := d.uvarint()
	l.end.Store(int64(d.uvarint()))
	l.journal = journal{index: index, from: index, end: l.end.Load()}
	l.decodeSegments(d)
	l.decodeTail(d)
	if d.bad || len(d.b) > 0 {
		return nil, fmt.Errorf("restore log %v: %w", id, errNoState)
	}
	l.start.Store(l.lowest())
	if l.queued {
		s.tailBytes.Add(l.tail.bytes)
		s.enqueue(l)
	}
	s.counts.segments.Add(int64(len(l.segs)))
	s.register(l)
	return l, nil
}

// lowest is the first offset that the log may hold.
func (l *Log) lowest() int64 {
	switch {
	case len(l.segs) > 0:
		return l.segs[0].first
	case len(l.tail.live()) > 0:
		return l.tail.live()[0].Base
	}
	return l.end.Load()
}

func (l *Log) decodeSegments(d *decoder) {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad = true
		return
	}
	for range n {
		g := &segment{first: int64(d.uvarint())}
		g.last = g.first + int64(d.uvarint())
		g.gen = uint32(d.uvarint())
		g.size = int64(d.uvarint())
		g.firstIndex = d.uvarint()
		g.lastIndex = g.firstIndex + d.uvarint()
		g.lastNs = d.varint()
		g.sealed = d.byte() == 1
		g.cut = !g.sealed
		l.segs = append(l.segs, g)
		l.fileBytes.Add(g.size)
	}
	l.unlisted, l.newDirs = n > 0, n == 0
}

func (l *Log) decodeTail(d *decoder) {
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		b := Batch{Base: int64(d.uvarint()), Count: int32(d.uvarint()), Epoch: uint32(d.uvarint()), Index: d.uvarint(), TimeNs: d.varint()}
		b.Data = bytes.Clone(d.bytes(d.uvarint())) // the state is large and must not be kept for it
		l.tail.push(b)
		l.queued = true
	}
}
