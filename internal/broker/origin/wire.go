package origin

import (
	"encoding/binary"
	"math"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/broker/wire"
	"github.com/tidings-io/tidings/internal/fault"
)

// The formats. A request has the older one where its publishes have the mappings that
// their keys tell by themselves, so that a leader which knows no other reads it.
const (
	requestPlain  = 1
	requestFormat = 2
	replyFormat   = 1
)

// Flags of a publish on the wire.
const (
	flagOldest = 1 << iota // only of the first one
	flagAckLeader
	flagMapping // from format 2 on
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
	format := c.format()
	b := append(make([]byte, 0, size), format)
	b = wire.AppendUints(b, uint64(c.shard), c.link.Producer, c.link.Epoch, c.link.Seq)
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
		b = wire.AppendBytes(binary.AppendUvarint(b, e.topic), e.name)
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
		if format > requestPlain && e.mapping > 0 {
			flags |= flagMapping
		}
		b = wire.AppendUints(b, places[e.topic], uint64(e.partition), flags)
		if flags&flagMapping != 0 {
			b = binary.AppendUvarint(b, uint64(e.mapping))
		}
		b = binary.AppendUvarint(b, uint64(len(e.messages)))
		for i := range e.messages {
			b = appendMessage(b, &e.messages[i])
		}
	}
	return b
}

// format is the oldest in which the request can be written.
func (c *Call) format() byte {
	for _, e := range c.entries {
		if e.mapping != plainMapping(e.messages) {
			return requestFormat
		}
	}
	return requestPlain
}

// plainMapping is the mapping of a publish in the first format: topics had one
// partition, and the first message's key decided.
func plainMapping(messages []partition.Message) uint32 {
	if len(messages) > 0 && messages[0].Key != nil {
		return 1
	}
	return 0
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
	b = wire.AppendBytes(append(b, flags), m.Body)
	if flags&flagKey != 0 {
		b = wire.AppendBytes(b, m.Key)
	}
	if flags&flagID != 0 {
		b = wire.AppendBytes(b, m.ID)
	}
	if flags&flagDue != 0 {
		b = binary.AppendUvarint(b, uint64(m.DueNs))
	}
	return b
}

// DecodeRequest reads what Encode wrote; fault.Unsupported for another format,
// fault.InvalidRequest for what is none.
func DecodeRequest(b []byte) (*Request, error) {
	r := &wire.Reader{B: b}
	format := r.Byte()
	if !r.Bad && format != requestFormat && format != requestPlain {
		return nil, fault.New(fault.Unsupported, "read publishes of a node: format %d is not known to this program", format)
	}
	q := &Request{Shard: uint32(r.UpTo(math.MaxUint32))}
	q.Link = partition.Link{Producer: r.Uint(), Epoch: r.Uint(), Seq: r.Uint()}
	topics := make([]uint64, 0, 4)
	q.Names = make(map[uint64]string)
	for range r.Count() {
		id, name := r.Uint(), string(r.Bytes())
		if r.Bad || name == "" || len(name) > wire.NameMax {
			return nil, r.Malformed("topics")
		}
		topics = append(topics, id)
		q.Names[id] = name
	}
	n := r.Count()
	if q.Link.Producer == 0 || q.Link.Epoch == 0 || q.Link.Seq == 0 || q.Link.Seq+uint64(n) < q.Link.Seq {
		r.Bad = true
	}
	known := uint64(flagOldest | flagAckLeader)
	if format == requestFormat {
		known |= flagMapping
	}
	for i := range n {
		p := partition.Publish{Link: q.Link}
		p.Link.Seq += uint64(i)
		if place := r.Uint(); place < uint64(len(topics)) {
			p.Topic = topics[place]
		} else {
			r.Bad = true
		}
		p.Partition = int32(r.UpTo(math.MaxInt32))
		flags := r.UpTo(known)
		p.Link.Oldest, p.AckLeader = flags&flagOldest != 0, flags&flagAckLeader != 0
		if p.Link.Oldest && i > 0 {
			r.Bad = true
		}
		if flags&flagMapping != 0 {
			p.Mapping = uint32(r.UpTo(partition.PartitionsMax))
			r.Bad = r.Bad || p.Mapping == 0
		}
		for range r.Count() {
			p.Messages = append(p.Messages, readMessage(r))
			if r.Bad {
				break
			}
		}
		if format == requestPlain {
			p.Mapping = plainMapping(p.Messages)
		}
		if r.Bad {
			return nil, r.Malformed("publishes")
		}
		q.Publishes = append(q.Publishes, p)
	}
	if r.Bad || len(r.B) > 0 || len(q.Publishes) == 0 {
		return nil, r.Malformed("request")
	}
	return q, nil
}

func readMessage(r *wire.Reader) (m partition.Message) {
	flags := r.Byte()
	if flags > flagKey|flagID|flagDue {
		r.Bad = true
	}
	m.Body = r.Bytes()
	if flags&flagKey != 0 {
		m.Key = r.Bytes()
	}
	if flags&flagID != 0 {
		m.ID = r.Bytes()
	}
	if flags&flagDue != 0 {
		m.DueNs = int64(r.UpTo(math.MaxInt64))
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
		b = wire.AppendError(b, a.Err)
	}
	return b
}

// DecodeAnswers reads what EncodeAnswers wrote; count is how many there must be.
func DecodeAnswers(b []byte, count int) ([]Answer, error) {
	r := &wire.Reader{B: b}
	if format := r.Byte(); !r.Bad && format != replyFormat {
		return nil, fault.New(fault.Unsupported, "read answers of a node: format %d is not known to this program", format)
	}
	if n := r.Count(); n != count {
		return nil, r.Malformed("count of answers")
	}
	answers := make([]Answer, 0, count)
	for range count {
		a := Answer{Fate: Fate(r.Byte())}
		switch a.Fate {
		case Done:
			a.Base = int64(r.UpTo(math.MaxInt64)) - 1
		case Refused, NotUsed, Unknown:
			if a.Err = r.Error(); a.Err == nil {
				r.Bad = true
			}
		default:
			r.Bad = true
		}
		if r.Bad {
			break
		}
		answers = append(answers, a)
	}
	if r.Bad || len(r.B) > 0 {
		return nil, r.Malformed("answers")
	}
	return answers, nil
}

// Count is how many publishes are in the call.
func (c *Call) Count() int { return len(c.entries) }
