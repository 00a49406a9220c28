package nsq

import (
	"bytes"
	"errors"
	"io"
)

const (
	// lineBytesMax is the longest command line, with its newline.
	lineBytesMax = 16 << 10
	// inputBytesMin and inputBytesMax bound a connection's read buffer: it
	// starts small, grows while reads fill it, and shrinks when they do not.
	inputBytesMin = 4 << 10
	inputBytesMax = 64 << 10
	// inputCalmReads is how many small reads in a row shrink the buffer.
	inputCalmReads = 64
)

// errLineTooLong closes a connection without an error frame, as nsqd does.
var errLineTooLong = errors.New("command line is too long")

// input is a connection's read buffer. Slices it hands out are valid until the
// next call that may read; before each read it calls wait, whose owner then
// copies what it still needs.
type input struct {
	src  io.Reader
	wait func() error
	buf  []byte
	r, w int // unread bytes are buf[r:w]
	full bool
	calm int
}

func (in *input) buffered() int { return in.w - in.r }

// next takes n bytes that need has made sure of.
func (in *input) next(n int) []byte {
	b := in.buf[in.r : in.r+n : in.r+n]
	in.r += n
	return b
}

// line returns the next line without its newline and one carriage return.
func (in *input) line() ([]byte, error) {
	scanned := 0
	for {
		unread := in.buf[in.r:in.w]
		if i := bytes.IndexByte(unread[scanned:], '\n'); i >= 0 {
			n := scanned + i
			if n >= lineBytesMax {
				return nil, errLineTooLong
			}
			in.r += n + 1
			if n > 0 && unread[n-1] == '\r' {
				n--
			}
			return unread[:n], nil
		}
		if scanned = len(unread); scanned >= lineBytesMax {
			return nil, errLineTooLong
		}
		if err := in.fill(); err != nil {
			return nil, err
		}
	}
}

// need makes sure that n bytes, at most inputBytesMax, are buffered.
func (in *input) need(n int) error {
	for in.buffered() < n {
		if err := in.fill(); err != nil {
			return err
		}
	}
	return nil
}

// readFull fills dst, past the buffer when that is empty.
func (in *input) readFull(dst []byte) error {
	n := copy(dst, in.buf[in.r:in.w])
	in.r += n
	if n == len(dst) {
		return nil
	}
	if err := in.wait(); err != nil {
		return err
	}
	_, err := io.ReadFull(in.src, dst[n:])
	return err
}

// fill reads once into the buffer.
func (in *input) fill() error {
	if err := in.wait(); err != nil {
		return err
	}
	in.makeRoom()
	room := len(in.buf) - in.w
	for {
		n, err := in.src.Read(in.buf[in.w:])
		in.w += n
		if n > 0 {
			in.full = n == room
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// makeRoom resizes or compacts the buffer so that a read has a place to go.
func (in *input) makeRoom() {
	unread := in.buffered()
	size := len(in.buf)
	switch {
	case size == 0:
		size = inputBytesMin
	case in.full || unread == size:
		in.calm = 0
		size = min(size*4, inputBytesMax)
	case unread == 0 && in.w <= inputBytesMin && size > inputBytesMin:
		if in.calm++; in.calm >= inputCalmReads {
			in.calm = 0
			size = inputBytesMin
		}
	default:
		in.calm = 0
	}
	in.full = false
	buf := in.buf
	if size != len(buf) {
		buf = make([]byte, size)
	}
	if unread == 0 || len(buf)-in.w < len(buf)/2 || size != len(in.buf) {
		copy(buf, in.buf[in.r:in.w])
		in.r, in.w = 0, unread
	}
	in.buf = buf
}
