package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
)

// An entry, as it stands in the WAL for ever:
//
//	format version  u8   = 1
//	leader time     i64  unix ns, big-endian as all that follow
//	term            u64  in which it was built
//	commands        u32  how many follow
//	  kind          u8
//	  version       u8
//	  length        u32  of the payload
//	  payload
//
// Every payload begins with topic incarnation and partition as uvarints, but for
// links, which stand before all other commands: producer, epoch, the number
// before its first publish in the entry and that of its last, as uvarints.
const (
	entryVersion   = 1
	entryHeader    = 1 + 8 + 8 + 4
	commandHeader  = 1 + 1 + 4
	keySizeMax     = 2 * binary.MaxVarintLen64
	commandVersion = 1 // of every kind so far
)

// kind says what a command does. The numbers are part of the format.
type kind uint8

const (
	kindOpen           kind = 1
	kindClose          kind = 2
	kindPublish        kind = 3
	kindCreateChannel  kind = 4
	kindDropChannel    kind = 5
	kindDelta          kind = 6
	kindEmpty          kind = 7
	kindEmptyTopic     kind = 8
	kindPauseTopic     kind = 9
	kindClearEphemeral kind = 10
	kindAdvanceStart   kind = 11
	kindLink           kind = 12 // the numbers of a producer's publishes in the entry
	kindIngest         kind = 13
	kindRaise          kind = 14
)

// errMalformed says that the bytes are not what this package writes.
var errMalformed = errors.New("malformed")

// flagDue in a publish command: a record carries a due time.
const flagDue = 1

// flagEphemeral in a create-channel command.
const flagEphemeral = 1

// header is what stands before the commands of an entry.
type header struct {
	time  int64
	term  uint64
	count uint32
}

// appendHeader writes the entry header.
func appendHeader(buf []byte, h header) []byte {
	buf = append(buf, entryVersion)
	buf = binary.BigEndian.AppendUint64(buf, uint64(h.time))
	buf = binary.BigEndian.AppendUint64(buf, h.term)
	return binary.BigEndian.AppendUint32(buf, h.count)
}

// decodeHeader reads the entry header and returns the commands.
func decodeHeader(b []byte) (header, []byte, error) {
	if len(b) < entryHeader {
		return header{}, nil, fmt.Errorf("decode entry header: %d bytes: %w", len(b), errMalformed)
	}
	if b[0] != entryVersion {
		return header{}, nil, fmt.Errorf("decode entry header: format version %d is not known", b[0])
	}
	h := header{
		time:  int64(binary.BigEndian.Uint64(b[1:])),
		term:  binary.BigEndian.Uint64(b[9:]),
		count: binary.BigEndian.Uint32(b[17:]),
	}
	return h, b[entryHeader:], nil
}

// openCommand begins a command and returns where its payload starts.
func openCommand(buf []byte, k kind) ([]byte, int) {
	buf = append(buf, byte(k), commandVersion, 0, 0, 0, 0)
	return buf, len(buf)
}

// closeCommand writes the length of the payload that began at start.
func closeCommand(buf []byte, start int) []byte {
	binary.BigEndian.PutUint32(buf[start-4:], uint32(len(buf)-start))
	return buf
}

// decodeCommand reads one command off b.
func decodeCommand(b []byte) (k kind, payload, rest []byte, err error) {
	if len(b) < commandHeader {
		return 0, nil, nil, fmt.Errorf("decode command: %w", errMalformed)
	}
	k = kind(b[0])
	if k < kindOpen || k > kindRaise || b[1] != commandVersion {
		return 0, nil, nil, fmt.Errorf("decode command: kind %d version %d is not known", b[0], b[1])
	}
	n := binary.BigEndian.Uint32(b[2:])
	b = b[commandHeader:]
	if uint64(n) > uint64(len(b)) {
		return 0, nil, nil, fmt.Errorf("decode command of kind %d: %w", k, errMalformed)
	}
	return k, b[:n:n], b[n:], nil
}

// appendKey writes the partition that a command is about.
func appendKey(buf []byte, k Key) []byte {
	buf = binary.AppendUvarint(buf, k.Topic)
	return binary.AppendUvarint(buf, uint64(uint32(k.Partition)))
}

// appendCommand writes a whole command.
func appendCommand(buf []byte, c Command) []byte {
	buf, start := openCommand(buf, c.kind())
	buf = c.payload(appendKey(buf, c.key()))
	return closeCommand(buf, start)
}

func (Open) kind() kind           { return kindOpen }
func (Close) kind() kind          { return kindClose }
func (CreateChannel) kind() kind  { return kindCreateChannel }
func (DropChannel) kind() kind    { return kindDropChannel }
func (Empty) kind() kind          { return kindEmpty }
func (EmptyTopic) kind() kind     { return kindEmptyTopic }
func (PauseTopic) kind() kind     { return kindPauseTopic }
func (ClearEphemeral) kind() kind { return kindClearEphemeral }
func (AdvanceStart) kind() kind   { return kindAdvanceStart }
func (Raise) kind() kind          { return kindRaise }

// The count stands behind the name only where it is above 1, so that all others are
// read by programs that do not know of it.
func (c Open) payload(buf []byte) []byte {
	buf = appendText(buf, c.Name)
	if c.Count > 1 {
		buf = binary.AppendUvarint(buf, uint64(c.Count))
	}
	return buf
}

func (c Raise) payload(buf []byte) []byte { return binary.AppendUvarint(buf, uint64(c.Count)) }

func (Close) payload(buf []byte) []byte { return buf }

func (c CreateChannel) payload(buf []byte) []byte {
	buf = binary.AppendUvarint(buf, c.Channel)
	buf = append(buf, bit(c.Ephemeral, flagEphemeral), byte(c.From.Where))
	return binary.AppendVarint(buf, c.From.Offset)
}

func (c DropChannel) payload(buf []byte) []byte { return binary.AppendUvarint(buf, c.Channel) }

func (c Empty) payload(buf []byte) []byte { return binary.AppendUvarint(buf, c.Channel) }

func (EmptyTopic) payload(buf []byte) []byte { return buf }

func (c PauseTopic) payload(buf []byte) []byte { return append(buf, bit(c.Paused, 1)) }

func (ClearEphemeral) payload(buf []byte) []byte { return buf }

func (c AdvanceStart) payload(buf []byte) []byte {
	return appendText(binary.AppendVarint(buf, c.Offset), c.Reason)
}

// decode reads the payload of a command other than a publish or a delta.
func decode(k kind, payload []byte) (Command, error) {
	r := reader{b: payload}
	key := r.key()
	var c Command
	switch k {
	case kindOpen:
		o := Open{Key: key, Name: r.text()}
		if len(r.b) > 0 {
			o.Count = r.partitions()
			r.bad = r.bad || o.Count < 2
		}
		c = o
	case kindClose:
		c = Close{key}
	case kindCreateChannel:
		c = CreateChannel{
			Key: key, Channel: r.uvarint(), Ephemeral: r.flags(flagEphemeral) != 0,
			From: From{Where: r.where(), Offset: r.varint()},
		}
	case kindDropChannel:
		c = DropChannel{Key: key, Channel: r.uvarint()}
	case kindEmpty:
		c = Empty{Key: key, Channel: r.uvarint()}
	case kindEmptyTopic:
		c = EmptyTopic{key}
	case kindPauseTopic:
		c = PauseTopic{Key: key, Paused: r.flags(1) != 0}
	case kindClearEphemeral:
		c = ClearEphemeral{key}
	case kindAdvanceStart:
		c = AdvanceStart{Key: key, Offset: r.varint(), Reason: r.text()}
	case kindIngest:
		c = r.ingest(key)
	case kindRaise:
		c = Raise{Key: key, Count: r.partitions()}
	}
	if c == nil || r.bad || len(r.b) > 0 {
		return nil, fmt.Errorf("decode command of kind %d: %w", k, errMalformed)
	}
	return c, nil
}

// deltaTarget says whose delta it is.
type deltaTarget struct {
	Key
	channel uint64
	epoch   int64
}

// appendDelta writes a whole delta command. Offsets stand as signed distances
// from the one before.
func appendDelta(buf []byte, t deltaTarget, d *Delta) []byte {
	buf, start := openCommand(buf, kindDelta)
	buf = appendKey(buf, t.Key)
	buf = binary.AppendUvarint(buf, t.channel)
	buf = binary.AppendUvarint(buf, uint64(t.epoch))
	last := int64(0)
	buf = binary.AppendUvarint(buf, uint64(len(d.Finished)))
	for _, r := range d.Finished {
		buf = binary.AppendVarint(buf, r.From-last)
		buf = binary.AppendUvarint(buf, uint64(r.To-r.From))
		last = r.To
	}
	buf = binary.AppendUvarint(buf, uint64(len(d.Parked)))
	last, due := int64(0), int64(0)
	for _, e := range d.Parked {
		buf = binary.AppendVarint(buf, e.Offset-last)
		buf = binary.AppendVarint(buf, e.DueNs-due)
		buf = binary.AppendUvarint(buf, uint64(e.Attempts))
		last, due = e.Offset, e.DueNs
	}
	buf = binary.AppendUvarint(buf, uint64(len(d.Unparked)))
	last = 0
	for _, o := range d.Unparked {
		buf = binary.AppendVarint(buf, o-last)
		last = o
	}
	buf = binary.AppendUvarint(buf, uint64(len(d.Attempts)))
	last = 0
	for _, a := range d.Attempts {
		buf = binary.AppendVarint(buf, a.Offset-last)
		buf = binary.AppendUvarint(buf, uint64(a.N))
		last = a.Offset
	}
	return closeCommand(buf, start)
}

// decodeDelta reads the payload of a delta command into d, whose memory it
// uses again.
func decodeDelta(payload []byte, d *Delta) (deltaTarget, error) {
	d.reset()
	r := reader{b: payload}
	t := deltaTarget{Key: r.key(), channel: r.uvarint(), epoch: r.length()}
	last := int64(0)
	for range r.count(2) {
		from := last + r.varint()
		n := r.length()
		r.bad = r.bad || from < 0 || n == 0 || from > math.MaxInt64-n
		last = from + n
		d.Finished = append(d.Finished, offsets.Range{From: from, To: last})
	}
	last, due := int64(0), int64(0)
	for range r.count(3) {
		last, due = last+r.varint(), due+r.varint()
		d.Parked = append(d.Parked, parked.Entry{Offset: last, DueNs: due, Attempts: r.attempts()})
		r.bad = r.bad || last < 0
	}
	last = 0
	for range r.count(1) {
		last += r.varint()
		d.Unparked = append(d.Unparked, last)
		r.bad = r.bad || last < 0
	}
	last = 0
	for range r.count(2) {
		last += r.varint()
		d.Attempts = append(d.Attempts, Attempt{Offset: last, N: r.attempts()})
		r.bad = r.bad || last < 0
	}
	if r.bad || len(r.b) > 0 {
		d.reset()
		return t, fmt.Errorf("decode delta: %w", errMalformed)
	}
	return t, nil
}

// bit is flag when on, else 0.
func bit(on bool, flag byte) byte {
	if on {
		return flag
	}
	return 0
}

// appendText writes a string behind its length.
func appendText(buf []byte, s string) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(s)))
	return append(buf, s...)
}

// appendBytes writes bytes behind their length.
func appendBytes(buf, b []byte) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(b)))
	return append(buf, b...)
}

// reader takes fields off bytes. After the first that is malformed it returns
// zeros and bad stays set, so that one look at the end is enough.
type reader struct {
	b   []byte
	bad bool
}

// fail marks the input as malformed.
func (r *reader) fail() { r.bad, r.b = true, nil }

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// uvarint takes an unsigned varint in its shortest form.
func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || (n > 1 && r.b[n-1] == 0) {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// varint takes a zigzag varint in its shortest form.
func (r *reader) varint() int64 {
	v := r.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// length takes an unsigned varint that fits an int64.
func (r *reader) length() int64 {
	v := r.uvarint()
	if v > math.MaxInt64 {
		r.fail()
		return 0
	}
	return int64(v)
}

// count takes a number of items of at least size bytes each.
func (r *reader) count(size int) int {
	v := r.uvarint()
	if v > uint64(len(r.b)/size) {
		r.fail()
		return 0
	}
	return int(v)
}

func (r *reader) attempts() uint16 {
	v := r.uvarint()
	if v > math.MaxUint16 {
		r.fail()
		return 0
	}
	return uint16(v)
}

func (r *reader) bytes() []byte {
	n := r.count(1)
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string { return string(r.bytes()) }

// flags takes a byte with no bits but those known.
func (r *reader) flags(known byte) byte {
	v := r.byte()
	if v&^known != 0 {
		r.fail()
		return 0
	}
	return v
}

func (r *reader) where() Where {
	v := Where(r.byte())
	if v > AtOffset {
		r.fail()
	}
	return v
}

func (r *reader) key() Key {
	k := Key{Topic: r.uvarint()}
	v := r.uvarint()
	if v > math.MaxInt32 {
		r.fail()
	}
	k.Partition = int32(v)
	return k
}
