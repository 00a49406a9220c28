package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/tidings-io/tidings/internal/vfs"
)

// What can be wrong with a place in a segment.
var (
	errHeader  = errors.New("frame header does not match its checksum")
	errPayload = errors.New("frame payload does not match its checksum")
	errShort   = errors.New("frame is cut short")
	errGroup   = errors.New("group does not begin with its head")
	errFill    = errors.New("group is not filled by its frames")
)

// scanner reads a segment front to back through one window.
type scanner struct {
	file vfs.File
	size int64 // bytes that count: the file's, or where writing ended
	seed uint32

	buf  []byte // the window's memory, at least frameSize
	base int64  // file offset of buf[0]
	n    int    // valid bytes in buf

	frames []placedFrame // of the group read last, its head left out
}

// placedFrame is a frame with its offset and, for a HardState, the vote.
type placedFrame struct {
	frame
	offset int64
	vote   uint64
}

// window returns up to n bytes at offset, n at most the window; fewer only
// where the file ends.
func (s *scanner) window(offset int64, n int) ([]byte, error) {
	if left := s.size - offset; int64(n) > left {
		n = int(max(left, 0))
	}
	if offset < s.base || offset+int64(n) > s.base+int64(s.n) {
		s.base, s.n = offset, 0
		want := s.buf
		if left := s.size - offset; int64(len(want)) > left {
			want = want[:max(left, 0)]
		}
		got, err := s.file.ReadAt(want, offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read segment: %w", err)
		}
		s.n = got
	}
	at := int(offset - s.base)
	return s.buf[at:min(at+n, s.n)], nil
}

// read fills p from offset, from the window where that has it all.
func (s *scanner) read(p []byte, offset int64) error {
	if offset+int64(len(p)) > s.size {
		return errShort
	}
	if len(p) <= len(s.buf) {
		b, err := s.window(offset, len(p))
		if err == nil && copy(p, b) < len(p) {
			err = errShort
		}
		return err
	}
	n, err := s.file.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return errShort
	}
	return fmt.Errorf("read segment: %w", err)
}

// header reads the frame header at offset.
func (s *scanner) header(offset int64) (frame, error) {
	b, err := s.window(offset, frameSize)
	if err != nil {
		return frame{}, err
	}
	if len(b) < frameSize {
		return frame{}, errShort
	}
	f, ok := decodeFrame(b, s.seed)
	if !ok {
		return frame{}, errHeader
	}
	return f, nil
}

// frame reads a frame and checks its payload without keeping it. The header
// comes back also when only the payload is wrong.
func (s *scanner) frame(offset, limit int64) (placedFrame, error) {
	h, err := s.header(offset)
	p := placedFrame{frame: h, offset: offset}
	if err != nil {
		return p, err
	}
	if offset+p.size() > limit {
		return p, errShort
	}
	sum := s.seed
	at, left := offset+frameSize, int(p.length)
	for left > 0 {
		b, err := s.window(at, min(left, len(s.buf)))
		if err != nil {
			return p, err
		}
		if len(b) == 0 {
			return p, errShort
		}
		if p.kind == KindHard && len(b) >= 8 {
			p.vote = binary.LittleEndian.Uint64(b)
		}
		sum = crc32.Update(sum, castagnoli, b)
		at, left = at+int64(len(b)), left-len(b)
	}
	if sum != p.sum {
		return p, errPayload
	}
	return p, nil
}

// group reads the group at offset into s.frames. An error that is one of the
// package's own says that the group is not whole; the place is the offset of
// what is wrong in it.
func (s *scanner) group(offset, limit int64) (head frame, place int64, err error) {
	s.frames = s.frames[:0]
	head, err = s.header(offset)
	if err != nil {
		return head, offset, err
	}
	if head.kind != KindGroup {
		return head, offset, errGroup
	}
	end := offset + int64(head.term)
	if end > limit {
		return head, offset, errShort
	}
	for at := offset + frameSize; at < end; {
		f, err := s.frame(at, end)
		if err == nil && f.kind == KindGroup {
			err = errFill
		}
		if err != nil {
			return head, at, err
		}
		s.frames = append(s.frames, f)
		at += f.size()
	}
	return head, offset, nil
}

// strays calls fn for every whole frame header of the generation at or behind
// from: what is behind the end of the log, or behind damage. It also tells
// whether any byte there is not zero.
func (s *scanner) strays(from int64, fn func(offset int64, f frame)) (dirty bool, err error) {
	from = (from + frameAlign - 1) &^ (frameAlign - 1)
	for at := from; at < s.size; {
		b, err := s.window(at, len(s.buf))
		if err != nil {
			return dirty, err
		}
		if len(b) == 0 {
			break
		}
		dirty = dirty || !allZero(b)
		step := 0
		for ; step+frameSize <= len(b); step += frameAlign {
			if b[step+16] == 0 || binary.LittleEndian.Uint32(b[step+16:]) > uint32(KindForget) {
				continue
			}
			if f, ok := decodeFrame(b[step:], s.seed); ok {
				fn(at+int64(step), f)
			}
		}
		if step == 0 || at+int64(len(b)) >= s.size {
			break
		}
		at += int64(step)
	}
	return dirty, nil
}

// allZero says whether b holds nothing.
func allZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
