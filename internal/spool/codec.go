package spool

import (
	"encoding/binary"
	"errors"

	"github.com/tidings-io/tidings/internal/broker/partition"
)

// Message is what is published: partition.Message.
type Message = partition.Message

// errMalformed says that bytes are not what AppendMessages made.
var errMalformed = errors.New("malformed messages")

// format begins everything that is encoded here.
const format = 1

// headerSize is what stands before the messages in an entry of a topic.
const headerSize = 1 + 8 + 8

// AppendMessages appends messages, each as: length of the body, body, length of the
// key plus 1 or 0 for none, key, the same for the id, due time in unix nanoseconds or
// 0; integers as uvarints.
func AppendMessages(b []byte, msgs []Message) []byte {
	for i := range msgs {
		m := &msgs[i]
		b = append(binary.AppendUvarint(b, uint64(len(m.Body))), m.Body...)
		for _, name := range [][]byte{m.Key, m.ID} {
			if name == nil {
				b = append(b, 0)
				continue
			}
			b = append(binary.AppendUvarint(b, uint64(len(name))+1), name...)
		}
		b = binary.AppendUvarint(b, uint64(max(m.DueNs, 0)))
	}
	return b
}

// sizeOf is an upper bound of what AppendMessages appends, bytes.
func sizeOf(msgs []Message) int {
	n := 0
	for i := range msgs {
		n += len(msgs[i].Body) + len(msgs[i].Key) + len(msgs[i].ID) + 3*binary.MaxVarintLen32 + binary.MaxVarintLen64
	}
	return n
}

// Messages reads what AppendMessages wrote; they share its bytes. most bounds their
// number.
func Messages(b []byte, most int) ([]Message, error) {
	var out []Message
	r := reader{b: b}
	for len(r.b) > 0 {
		m := Message{Body: r.take(r.uvarint())}
		for _, name := range []*[]byte{&m.Key, &m.ID} {
			if n := r.uvarint(); n > 0 {
				*name = r.take(n - 1)
			}
		}
		due := r.uvarint()
		m.DueNs = int64(due)
		if r.bad || m.DueNs < 0 || len(m.Body) == 0 || len(out) == most {
			return nil, errMalformed
		}
		out = append(out, m)
	}
	return out, nil
}

// reader takes values off bytes.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

// entry is a publish as the log has it.
type entry struct {
	index uint64 // in the topic's shard
	from  uint64 // position of its first message
	ns    int64  // when it was taken, unix
	bytes int
	msgs  []Message
}

// end is the position behind the entry's last message.
func (e *entry) end() uint64 { return e.from + uint64(len(e.msgs)) }

// stamp fills in the header of an entry.
func stamp(b []byte, position uint64, ns int64) {
	b[0] = format
	binary.LittleEndian.PutUint64(b[1:], position)
	binary.LittleEndian.PutUint64(b[9:], uint64(ns))
}

func readEntry(index uint64, b []byte) (entry, error) {
	if len(b) < headerSize || b[0] != format {
		return entry{}, errMalformed
	}
	e := entry{
		index: index, bytes: len(b),
		from: binary.LittleEndian.Uint64(b[1:]), ns: int64(binary.LittleEndian.Uint64(b[9:])),
	}
	var err error
	if e.msgs, err = Messages(b[headerSize:], len(b)); err == nil && len(e.msgs) == 0 {
		err = errMalformed
	}
	return e, err
}

// appendName appends a topic as the entries of shard 0 have it.
func appendName(b []byte, shard uint32, name string) []byte {
	b = binary.AppendUvarint(b, uint64(shard))
	return append(binary.AppendUvarint(b, uint64(len(name))), name...)
}

// readNames reads an entry of shard 0: it calls f for each topic.
func readNames(b []byte, f func(shard uint32, name string)) (o Origin, err error) {
	if len(b) < 1+len(o) || b[0] != format {
		return o, errMalformed
	}
	copy(o[:], b[1:])
	for r := (reader{b: b[1+len(o):]}); len(r.b) > 0; {
		shard := r.uvarint()
		name := r.take(r.uvarint())
		if r.bad || shard == 0 || shard > topicsMax {
			return o, errMalformed
		}
		f(uint32(shard), string(name))
	}
	return o, nil
}
