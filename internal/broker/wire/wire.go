// Package wire is what requests between brokers are made of: integers as
// uvarints, byte strings behind their length, errors by the name of their code.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tidings-io/tidings/internal/fault"
)

const (
	// textMax bounds the text of an error, and NameMax a name, in bytes.
	textMax = 1 << 10
	NameMax = 64
)

// ErrMalformed says that a request or a reply cannot be read.
var ErrMalformed = errors.New("malformed")

// AppendUints writes integers.
func AppendUints(b []byte, list ...uint64) []byte {
	for _, v := range list {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// AppendBytes writes a byte string behind its length.
func AppendBytes[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// AppendError writes an error as nodes send it to each other: the name of its
// code and its text, of at most 1,024 bytes. err may be nil.
func AppendError(b []byte, err error) []byte {
	text := ""
	if err != nil && err.Error() != fault.CodeOf(err).Error() {
		text = err.Error()
	}
	return AppendBytes(AppendBytes(b, fault.CodeOf(err).String()), text[:min(len(text), textMax)])
}

// DecodeError reads what AppendError wrote, and nothing behind it; bad says why it
// can't.
func DecodeError(b []byte) (err, bad error) {
	r := &Reader{B: b}
	err = r.Error()
	if r.Bad || len(r.B) > 0 {
		return nil, r.Malformed("error")
	}
	return err, nil
}

// Reader takes fields off the front of bytes; after the first that is not there,
// Bad is set and all are empty.
type Reader struct {
	B   []byte
	Bad bool
}

// Malformed is an error about what was read: fault.InvalidRequest.
func (r *Reader) Malformed(what string) error {
	return fault.Wrap(fault.InvalidRequest, fmt.Errorf("read %s: %w", what, ErrMalformed))
}

// Byte takes one byte.
func (r *Reader) Byte() byte {
	if r.Bad || len(r.B) == 0 {
		r.Bad = true
		return 0
	}
	c := r.B[0]
	r.B = r.B[1:]
	return c
}

// Uint takes an integer.
func (r *Reader) Uint() uint64 {
	if len(r.B) > 0 && r.B[0] < 0x80 && !r.Bad { // most are small
		v := uint64(r.B[0])
		r.B = r.B[1:]
		return v
	}
	v, n := binary.Uvarint(r.B)
	if r.Bad || n <= 0 {
		r.Bad = true
		return 0
	}
	r.B = r.B[n:]
	return v
}

// UpTo takes an integer that is not above limit.
func (r *Reader) UpTo(limit uint64) uint64 {
	v := r.Uint()
	if v > limit {
		r.Bad = true
		return 0
	}
	return v
}

// Count takes a number of things that take a byte each at least.
func (r *Reader) Count() int { return int(r.UpTo(uint64(len(r.B)))) }

// Bytes takes a byte string; it stands in B.
func (r *Reader) Bytes() []byte {
	n := r.Count()
	if r.Bad || n > len(r.B) {
		r.Bad = true
		return nil
	}
	s := r.B[:n:n]
	r.B = r.B[n:]
	return s
}

// Error takes an error, nil included.
func (r *Reader) Error() error {
	name, text := string(r.Bytes()), string(r.Bytes())
	if r.Bad || len(name) > NameMax || len(text) > textMax {
		r.Bad = true
		return nil
	}
	code := fault.Named(name)
	switch {
	case code == fault.None:
		return nil
	case text == "":
		return code
	}
	return &fault.Error{Code: code, Text: text}
}
