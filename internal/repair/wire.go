package repair

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/seglog"
)

// A request:
//
//	format u8 = 1, uvarints shard, topic, partition, first and last offset
//
// is answered by chunks, each of which begins with its kind:
//
//	batches  u8 = 1, what partition.AppendBatches makes of some batches
//	end      u8 = 2, status u8, uvarint of the offset to go on at (behind the last
//	         when all were sent), uvarint number of batches, and for each: uvarints
//	         first offset and number of offsets, u32 CRC32C of the batch
//
// Nothing comes behind the end.
const requestFormat = 1

const (
	chunkBatches = 1
	chunkEnd     = 2
)

// status is what the other replica can say about the offsets.
type status uint8

const (
	statusOK      status = iota // what is needed of them was sent
	statusBehind                // its log does not reach them yet
	statusDamaged               // it has lost some of them itself
	statusAbsent                // it does not carry the shard or the partition
	statuses
)

// errMalformed says that a request or a chunk is not what a replica sends.
var errMalformed = errors.New("malformed repair message")

// request asks for batches.
type request struct {
	shard       uint32
	key         partition.Key
	first, last int64 // offsets
}

func (r *request) encode() []byte {
	b := []byte{requestFormat}
	for _, v := range []uint64{
		uint64(r.shard), r.key.Topic, uint64(uint32(r.key.Partition)), uint64(r.first), uint64(r.last),
	} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func decodeRequest(b []byte) (request, error) {
	if len(b) == 0 || b[0] != requestFormat {
		return request{}, fmt.Errorf("read request: %w", errMalformed)
	}
	d := decoder{b: b[1:]}
	r := request{
		shard: uint32(d.below(1 << 32)),
		key:   partition.Key{Topic: d.uint(), Partition: int32(d.below(1 << 31))},
		first: d.offset(), last: d.offset(),
	}
	if d.bad || len(d.b) > 0 || r.first > r.last {
		return request{}, fmt.Errorf("read request: %w", errMalformed)
	}
	return r, nil
}

// listed is a batch as the list at the end names it.
type listed struct {
	first, last int64
	crc         uint32
}

// list names batches; each has more than a header, as those of a log do.
func list(batches []seglog.Batch) []listed {
	l := make([]listed, len(batches))
	for i := range batches {
		b := &batches[i]
		l[i] = listed{b.Base, b.Last(), binary.BigEndian.Uint32(b.Data[crcAt:])}
	}
	return l
}

// crcAt is where the checksum stands in a batch.
const crcAt = 17

// end is what the last chunk says.
type end struct {
	status status
	next   int64
	list   []listed
}

func (e *end) encode(b []byte) []byte {
	b = append(b, chunkEnd, byte(e.status))
	b = binary.AppendUvarint(b, uint64(e.next))
	b = binary.AppendUvarint(b, uint64(len(e.list)))
	for _, l := range e.list {
		b = binary.AppendUvarint(b, uint64(l.first))
		b = binary.AppendUvarint(b, uint64(l.last-l.first+1))
		b = binary.LittleEndian.AppendUint32(b, l.crc)
	}
	return b
}

// decodeEnd reads the last chunk, without its kind.
func decodeEnd(b []byte) (end, error) {
	d := decoder{b: b}
	e := end{status: status(d.byte()), next: d.offset()}
	n := d.uint()
	if n > uint64(len(d.b)) { // each takes more than a byte
		d.bad = true
	}
	for i := uint64(0); i < n && !d.bad; i++ {
		l := listed{first: d.offset()}
		l.last = l.first + int64(d.below(1<<31)) - 1
		l.crc = d.uint32()
		d.bad = d.bad || l.last < l.first
		e.list = append(e.list, l)
	}
	if d.bad || len(d.b) > 0 || e.status >= statuses {
		return end{}, fmt.Errorf("read end: %w", errMalformed)
	}
	return e, nil
}

// decoder takes values from bytes; bad once they end early or make no sense.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

// below reads an integer that has a bound.
func (d *decoder) below(bound uint64) uint64 {
	v := d.uint()
	if v >= bound {
		d.bad = true
		return 0
	}
	return v
}

// offset reads one; below 2^62, so that sums stay in range.
func (d *decoder) offset() int64 { return int64(d.below(1 << 62)) }

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uint32() uint32 {
	if len(d.b) < 4 {
		d.b, d.bad = nil, true
		return 0
	}
	v := binary.LittleEndian.Uint32(d.b)
	d.b = d.b[4:]
	return v
}
