package origin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

const (
	requestFormat = 1
	replyFormat   = 1

	// textMax bounds the text of an error in a reply, and nameMax a topic's name,
	// in bytes.
	textMax = 1 << 10
	nameMax = 64
)

// ErrMalformed says that a request or a reply cannot be read.
var ErrMalformed = errors.New("malformed")

// Flags of a publish on the wire.
const (
	flagOldest = 1 << iota // only of the first one
	flagAckLeader
)

// Flags of a message on the wire.
const (
	flagKey = 1 << iota
	flagID
	flagDue
)

// Request is a call as the leader reads it.
type Request struct {
	Shard     uint32
	Link      partition.Link // of the first publish, but Oldest; the others follow without a hole
	Names     map[uint64]string
	Publishes []partition.Publish // without Done; Link is set; bytes are the request's
}

// Encode writes the request.
func (c *Call) Encode() []byte {
	size := 64
	for _, e := range c.entries {
		size += 32 + int(e.bytes)
	}
	b := append(make([]byte, 0, size), requestFormat)
	b = appendUints(b, uint64(c.shard), c.link.Producer, c.link.Epoch, c.link.Seq)
	places := make(map[uint64]uint64)
	var topics []*entry
	for _, e := range c.entries {
		if _, ok := places[e.topic]; !ok {
			places[e.topic] = uint64(len(topics))
			topics = append(topics, e)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(topics)))
	for _, e := range topics {
		b = appendBytes(binary.AppendUvarint(b, e.topic), e.name)
	}
	b = binary.AppendUvarint(b, uint64(len(c.entries)))
	for i, e := range c.entries {
		flags := uint64(0)
		if i == 0 && c.link.Oldest {
			flags |= flagOldest
		}
		if e.ackLeader {
			flags |= flagAckLeader
		}
		b = appendUints(b, places[e.topic], uint64(e.partition), flags, uint64(len(e.messages)))
		for i := range e.messages {
			b = appendMessage(b, &e.messages[i])
		}
	}
	return b
}

func appendMessage(b []byte, m *partition.Message) []byte {
	flags := byte(0)
	if m.Key != nil {
		flags |= flagKey
	}
	if m.ID != nil {
		flags |= flagID
	}
	if m.DueNs > 0 {
		flags |= flagDue
	}
	b = appendBytes(append(b, flags), m.Body)
	if flags&flagKey != 0 {
		b = appendBytes(b, m.Key)
	}
	if flags&flagID != 0 {
		b = appendBytes(b, m.ID)
	}
	if flags&flagDue != 0 {
		b = binary.AppendUvarint(b, uint64(m.DueNs))
	}
	return b
}

func appendUints(b []byte, list ...uint64) []byte {
	for _, v := range list {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func appendBytes[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// DecodeRequest reads what Encode wrote; fault.Unsupported for another format,
// fault.InvalidRequest for what is none.
func DecodeRequest(b []byte) (*Request, error) {
	r := &reader{b: b}
	if format := r.byte(); !r.bad && format != requestFormat {
		return nil, fault.New(fault.Unsupported, "read publishes of a node: format %d is not known to this program", format)
	}
	q := &Request{Shard: uint32(r.upTo(math.MaxUint32))}
	q.Link = partition.Link{Producer: r.uint(), Epoch: r.uint(), Seq: r.uint()}
	topics := make([]uint64, 0, 4)
	q.Names = make(map[uint64]string)
	for range r.count() {
		id, name := r.uint(), string(r.bytes())
		if r.bad || name == "" || len(name) > nameMax {
			return nil, r.malformed("topics")
		}
		topics = append(topics, id)
		q.Names[id] = name
	}
	n := r.count()
	if q.Link.Producer == 0 || q.Link.Epoch == 0 || q.Link.Seq == 0 || q.Link.Seq+uint64(n) < q.Link.Seq {
		r.bad = true
	}
	for i := range n {
		p := partition.Publish{Link: q.Link}
		p.Link.Seq += uint64(i)
		if place := r.uint(); place < uint64(len(topics)) {
			p.Topic = topics[place]
		} else {
			r.bad = true
		}
		p.Partition = int32(r.upTo(math.MaxInt32))
		flags := r.upTo(flagOldest | flagAckLeader)
		p.Link.Oldest, p.AckLeader = flags&flagOldest != 0, flags&flagAckLeader != 0
		if p.Link.Oldest && i > 0 {
			r.bad = true
		}
		for range r.count() {
			p.Messages = append(p.Messages, r.message())
			if r.bad {
				break
			}
		}
		if r.bad {
			return nil, r.malformed("publishes")
		}
		q.Publishes = append(q.Publishes, p)
	}
	if r.bad || len(r.b) > 0 || len(q.Publishes) == 0 {
		return nil, r.malformed("request")
	}
	return q, nil
}

func (r *reader) message() (m partition.Message) {
	flags := r.byte()
	if flags > flagKey|flagID|flagDue {
		r.bad = true
	}
	m.Body = r.bytes()
	if flags&flagKey != 0 {
		m.Key = r.bytes()
	}
	if flags&flagID != 0 {
		m.ID = r.bytes()
	}
	if flags&flagDue != 0 {
		m.DueNs = int64(r.upTo(math.MaxInt64))
	}
	return m
}

// EncodeAnswers writes the reply to a call.
func EncodeAnswers(answers []Answer) []byte {
	b := append(make([]byte, 0, 16+8*len(answers)), replyFormat)
	b = binary.AppendUvarint(b, uint64(len(answers)))
	for i := range answers {
		a := &answers[i]
		b = append(b, byte(a.Fate))
		if a.Fate == Done {
			b = binary.AppendUvarint(b, uint64(a.Base+1))
			continue
		}
		b = AppendError(b, a.Err)
	}
	return b
}

// AppendError writes an error as nodes send it to each other: the name of its
// code and its text, of at most 1,024 bytes.
func AppendError(b []byte, err error) []byte {
	text := ""
	if err != nil && err.Error() != fault.CodeOf(err).Error() {
		text = err.Error()
	}
	return appendBytes(appendBytes(b, fault.CodeOf(err).String()), text[:min(len(text), textMax)])
}

// DecodeAnswers reads what EncodeAnswers wrote; count is how many there must be.
func DecodeAnswers(b []byte, count int) ([]Answer, error) {
	r := &reader{b: b}
	if format := r.byte(); !r.bad && format != replyFormat {
		return nil, fault.New(fault.Unsupported, "read answers of a node: format %d is not known to this program", format)
	}
	if n := r.count(); n != count {
		return nil, r.malformed("count of answers")
	}
	answers := make([]Answer, 0, count)
	for range count {
		a := Answer{Fate: Fate(r.byte())}
		switch a.Fate {
		case Done:
			a.Base = int64(r.upTo(math.MaxInt64)) - 1
		case Refused, NotUsed, Unknown:
			if a.Err = r.error(); a.Err == nil {
				r.bad = true
			}
		default:
			r.bad = true
		}
		if r.bad {
			break
		}
		answers = append(answers, a)
	}
	if r.bad || len(r.b) > 0 {
		return nil, r.malformed("answers")
	}
	return answers, nil
}

// Count is how many publishes are in the call.
func (c *Call) Count() int { return len(c.entries) }

// DecodeError reads what AppendError wrote, and nothing behind it; bad says why it
// can't.
func DecodeError(b []byte) (err, bad error) {
	r := &reader{b: b}
	err = r.error()
	if r.bad || len(r.b) > 0 {
		return nil, r.malformed("error")
	}
	return err, nil
}

// reader takes fields off the front of bytes; after the first that is not there,
// bad is set and all are empty.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) malformed(what string) error {
	return fault.Wrap(fault.InvalidRequest, fmt.Errorf("read %s: %w", what, ErrMalformed))
}

func (r *reader) byte() byte {
	if r.bad || len(r.b) == 0 {
		r.bad = true
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) upTo(limit uint64) uint64 {
	v := r.uint()
	if v > limit {
		r.bad = true
		return 0
	}
	return v
}

// count is a number of things that take a byte each at least.
func (r *reader) count() int { return int(r.upTo(uint64(len(r.b)))) }

func (r *reader) bytes() []byte {
	n := r.count()
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	s := r.b[:n:n]
	r.b = r.b[n:]
	return s
}

func (r *reader) error() error {
	name, text := string(r.bytes()), string(r.bytes())
	if r.bad || len(name) > nameMax || len(text) > textMax {
		r.bad = true
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
