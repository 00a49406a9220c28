package seglog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"
)

const (
	segmentMagic   = "TSEG"
	footerMagic    = "TSIX"
	segmentVersion = 1
	headerSize     = 40
	footerFixed    = 4 + 4 + 8 + 4 + 4
	markSize       = 24
	markInterval   = 64 << 10 // bytes of frames between two marks of the sparse index
	segmentSuffix  = ".seg"
)

// segment is one file of a log. It names files before and after compaction
// alike; the pair (first, gen) is unique within a log.
type segment struct {
	first int64 // lowest offset it may hold
	gen   uint32

	// Written by the flusher under Log.mu, read under it by anyone.
	last                  int64 // highest offset it may hold
	size                  int64 // bytes of header and frames that are written
	firstIndex, lastIndex uint64
	lastNs                int64 // time of its youngest batch
	sealed                bool  // takes no more batches

	// index is kept while the segment is not sealed, nil when it must first be
	// rebuilt from the file. A sealed segment's lives with its open file.
	index atomic.Pointer[index]
	dead  atomic.Bool // left the log

	// The flusher's own.
	unsynced int64 // bytes written since the last sync
	dirty    bool  // in Store.dirty
	cut      bool  // restored: cut to size before the first write
	tryNs    int64 // compaction looks at it again from then on
}

// name is the file's base name.
func (g *segment) name() string { return segmentName(g.first, g.gen) }

func segmentName(first int64, gen uint32) string {
	if gen == 0 {
		return fmt.Sprintf("%020d%s", first, segmentSuffix)
	}
	return fmt.Sprintf("%020d-%d%s", first, gen, segmentSuffix)
}

// parseName is the inverse of segmentName.
func parseName(name string) (first int64, gen uint32, ok bool) {
	stem, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok {
		return 0, 0, false
	}
	stem, suffix, compacted := strings.Cut(stem, "-")
	first, err := strconv.ParseInt(stem, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	if compacted {
		n, err := strconv.ParseUint(suffix, 10, 32)
		if err != nil {
			return 0, 0, false
		}
		gen = uint32(n)
	}
	return first, gen, segmentName(first, gen) == name
}

func (l *Log) path(g *segment) string { return path.Join(l.dir(), g.name()) }

func appendHeader(buf []byte, id LogID, first int64, gen uint32) []byte {
	at := len(buf)
	buf = append(buf, segmentMagic...)
	buf = binary.BigEndian.AppendUint16(buf, segmentVersion)
	buf = append(buf, 0, 0)
	buf = binary.BigEndian.AppendUint64(buf, id.Topic)
	buf = binary.BigEndian.AppendUint64(buf, uint64(first))
	buf = binary.BigEndian.AppendUint32(buf, uint32(id.Partition))
	buf = binary.BigEndian.AppendUint32(buf, gen)
	buf = append(buf, 0, 0, 0, 0)
	return binary.BigEndian.AppendUint32(buf, crc32.Checksum(buf[at:], castagnoli))
}

// header is what the first bytes of a segment say.
type header struct {
	version uint16
	id      LogID
	first   int64
	gen     uint32
}

// parseHeader reads a segment's header; false when it is damaged.
func parseHeader(b []byte) (header, bool) {
	if len(b) < headerSize || string(b[:4]) != segmentMagic ||
		binary.BigEndian.Uint32(b[36:]) != crc32.Checksum(b[:36], castagnoli) {
		return header{}, false
	}
	return header{
		version: binary.BigEndian.Uint16(b[4:]),
		id:      LogID{Topic: binary.BigEndian.Uint64(b[8:]), Partition: int32(binary.BigEndian.Uint32(b[24:]))},
		first:   int64(binary.BigEndian.Uint64(b[16:])),
		gen:     binary.BigEndian.Uint32(b[28:]),
	}, true
}

// mark is one entry of the sparse index: a frame's first offset, position and
// Raft index.
type mark struct {
	offset int64
	pos    int64
	index  uint64
}

// index is the sparse index of a segment, oldest first. It is never changed; a
// longer one may share its marks.
type index struct{ marks []mark }

// with adds the frame when it is far enough from the last mark.
func (x *index) with(f *frame) *index {
	if n := len(x.marks); n > 0 && f.pos-x.marks[n-1].pos < markInterval {
		return x
	}
	return &index{append(x.marks, mark{f.base, f.pos, f.index})}
}

// seek is the mark from which a frame with the offset is found going forward.
func (x *index) seek(offset int64) (mark, bool) {
	n := sort.Search(len(x.marks), func(i int) bool { return x.marks[i].offset > offset })
	if n == 0 {
		return mark{}, false
	}
	return x.marks[n-1], true
}

// seekIndex is the last mark at or below a Raft index.
func (x *index) seekIndex(index uint64) (mark, bool) {
	n := sort.Search(len(x.marks), func(i int) bool { return x.marks[i].index > index })
	if n == 0 {
		return mark{}, false
	}
	return x.marks[n-1], true
}

// appendFooter adds the persistent form of the index; free is the position at
// which the footer itself stands.
func (x *index) appendFooter(buf []byte, seed uint32, free int64) []byte {
	at := len(buf)
	buf = append(buf, footerMagic...)
	buf = binary.BigEndian.AppendUint32(buf, uint32(len(x.marks)))
	for _, m := range x.marks {
		buf = binary.BigEndian.AppendUint64(buf, uint64(m.offset))
		buf = binary.BigEndian.AppendUint64(buf, uint64(m.pos))
		buf = binary.BigEndian.AppendUint64(buf, m.index)
	}
	buf = binary.BigEndian.AppendUint64(buf, uint64(free))
	buf = binary.BigEndian.AppendUint32(buf, crc32.Update(seed, castagnoli, buf[at:]))
	return binary.BigEndian.AppendUint32(buf, uint32(len(buf)-at+4))
}

// parseFooter reads a footer that begins at b and stands at position free.
func parseFooter(b []byte, seed uint32, free int64) (*index, bool) {
	if len(b) < footerFixed || string(b[:4]) != footerMagic {
		return nil, false
	}
	n := int(binary.BigEndian.Uint32(b[4:]))
	if n > (len(b)-footerFixed)/markSize {
		return nil, false
	}
	end := 8 + n*markSize + 8
	if binary.BigEndian.Uint32(b[end:]) != crc32.Update(seed, castagnoli, b[:end]) ||
		int64(binary.BigEndian.Uint64(b[end-8:])) != free {
		return nil, false
	}
	x := &index{make([]mark, n)}
	for i := range x.marks {
		m := b[8+i*markSize:]
		x.marks[i] = mark{int64(binary.BigEndian.Uint64(m)), int64(binary.BigEndian.Uint64(m[8:])), binary.BigEndian.Uint64(m[16:])}
	}
	return x, true
}

// checkHeader refuses a file of a later format. A damaged header takes nothing
// with it: each batch is checked against the log's identity on its own.
func (l *Log) checkHeader(h *handle) error {
	var b [headerSize]byte
	if _, err := readFull(h.file, b[:], 0); err != nil {
		return err
	}
	switch head, ok := parseHeader(b[:]); {
	case !ok:
		l.store.log.Warn("segment header is damaged; its batches are checked one by one", "file", h.path)
	case head.version != segmentVersion:
		return fmt.Errorf("segment %s: format version %d is not known", h.path, head.version)
	}
	return nil
}
