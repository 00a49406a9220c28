package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// headerSize is the bytes of a frame header.
const headerSize = 24

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// kind says what a frame holds.
type kind uint8

const (
	kindHello  kind = 1 + iota // first frame in both directions
	kindRefuse                 // the hello is refused; payload: RefusedError
	kindPing                   // id: the sender's time
	kindPong                   // id: that of the ping
	kindRaft                   // a Raft message
	kindCall                   // request that wants one reply
	kindFetch                  // request that wants a stream
	kindCancel                 // the caller of a request is gone
	kindReply                  // answer of a call
	kindChunk                  // piece of a stream
	kindEnd                    // end of a stream
	kindCredit                 // the reader of a stream takes so many bytes more

	kinds
)

// Flags of kindReply and kindEnd.
const (
	flagError      = 1 << iota // the payload is an error
	flagNotStarted             // the request was refused before its handler saw it
)

// header is the decoded header of a frame.
type header struct {
	length uint32
	kind   kind
	flags  uint8
	method Method
	arg    uint32 // shard, timeout in ms (0: none) or credit
	id     uint64
}

// errMalformed is in the chain of every error about bytes that no tidings node
// sends.
var errMalformed = errors.New("malformed")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...))
}

// put encodes the header, with the checksum over itself and the payload.
func (h *header) put(b *[headerSize]byte, payload ...[]byte) {
	binary.LittleEndian.PutUint32(b[4:], h.length)
	b[8] = byte(h.kind)
	b[9] = h.flags
	binary.LittleEndian.PutUint16(b[10:], uint16(h.method))
	binary.LittleEndian.PutUint32(b[12:], h.arg)
	binary.LittleEndian.PutUint64(b[16:], h.id)
	sum := crc32.Checksum(b[4:], castagnoli)
	for _, p := range payload {
		sum = crc32.Update(sum, castagnoli, p)
	}
	binary.LittleEndian.PutUint32(b[:], sum)
}

// decodeHeader reads a header and the checksum that the frame must have; limit
// is the largest payload.
func decodeHeader(b *[headerSize]byte, limit int) (h header, sum uint32, err error) {
	h = header{
		length: binary.LittleEndian.Uint32(b[4:]),
		kind:   kind(b[8]),
		flags:  b[9],
		method: Method(binary.LittleEndian.Uint16(b[10:])),
		arg:    binary.LittleEndian.Uint32(b[12:]),
		id:     binary.LittleEndian.Uint64(b[16:]),
	}
	switch {
	case h.kind == 0 || h.kind >= kinds:
		return h, 0, malformed("frame of kind %d", h.kind)
	case uint64(h.length) > uint64(limit):
		return h, 0, malformed("frame of %d bytes, at most %d are allowed", h.length, limit)
	}
	return h, binary.LittleEndian.Uint32(b[:]), nil
}

// reader reads frames.
type reader struct {
	r     io.Reader
	limit int // largest payload
	head  [headerSize]byte
	raft  []byte // payload of Raft messages, which are decoded before the next is read
	// room lends the memory for a payload; nil, or nil from it: it is made anew.
	room func(h header) []byte
}

// maxReused bounds the buffer that a link keeps for the payloads it reads or
// writes.
const maxReused = 2 << 20

// next reads a frame. The payload of a Raft message is valid until the next
// call, others stand in what room has lent, or belong to the caller. io.EOF stands for an end between two
// frames.
func (r *reader) next() (header, []byte, error) {
	if _, err := io.ReadFull(r.r, r.head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("connection ended within a frame: %w", err)
		}
		return header{}, nil, err
	}
	h, sum, err := decodeHeader(&r.head, r.limit)
	if err != nil {
		return h, nil, err
	}
	payload := r.buffer(h)
	if _, err := io.ReadFull(r.r, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return h, nil, fmt.Errorf("connection ended within a frame: %w", err)
	}
	if crc32.Update(crc32.Checksum(r.head[4:], castagnoli), castagnoli, payload) != sum {
		return h, nil, malformed("checksum of a frame of %d bytes does not hold", h.length)
	}
	return h, payload, nil
}

func (r *reader) buffer(h header) []byte {
	n := int(h.length)
	if h.kind != kindRaft || n > maxReused {
		if r.room != nil {
			if b := r.room(h); b != nil {
				return b
			}
		}
		return make([]byte, n)
	}
	if cap(r.raft) < n {
		r.raft = make([]byte, max(n, min(2*cap(r.raft), maxReused)))
	}
	return r.raft[:n]
}
