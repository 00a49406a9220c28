package partition

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/plant"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
)

// A state on its way to another replica is a sequence of records, cut into
// chunks between two of them:
//
//	kind    u8
//	length  uvarint of the payload
//	payload
//
// Kind 1 is what stands before the partitions in a checkpoint's state, once. Then
// comes, by key, kind 2 for each partition: what partition.append writes. Then
// kind 3, some parked messages of a channel, earliest due first: topic,
// partition, channel, and for each offset, due time and attempts. Then kind 4
// for each batch that is needed and that the other replica has not: topic,
// partition, base, count, Raft index, epoch, time, and the record batch.
//
// What the other replica has is all that it has applied: entries are the same
// everywhere, so its logs hold the same batches up to where they end, but for
// those that are needed by nobody.
const (
	recordState     = 1
	recordPartition = 2
	recordParked    = 3
	recordBatch     = 4
)

const haveVersion = 1

// Have tells where the logs end.
func (m *Machine) Have() []byte {
	b := binary.AppendUvarint([]byte{haveVersion}, uint64(len(m.sorted)))
	for _, p := range m.sorted {
		b = binary.AppendUvarint(appendKey(b, p.Key), uint64(p.end))
	}
	return b
}

// decodeHave reads what Have wrote; empty is nothing.
func decodeHave(b []byte) (map[Key]int64, error) {
	ends := make(map[Key]int64)
	if len(b) == 0 {
		return ends, nil
	}
	r := reader{b: b}
	if v := r.byte(); v != haveVersion {
		return nil, fault.New(fault.Unsupported, "read what a replica has: format version %d", v)
	}
	for range r.count(3) {
		k := r.key()
		ends[k] = r.length()
	}
	if r.bad || len(r.b) > 0 {
		return nil, fault.Wrap(fault.Corrupt, fmt.Errorf("read what a replica has: %w", errMalformed))
	}
	return ends, nil
}

// export is a state on its way to another replica. It implements shard.Export.
type export struct {
	m     *Machine
	head  []byte
	parts []exportPart
	sets  []exportSet
	size  int64

	// How far it has come.
	started bool
	part    int // of those whose state was sent
	set     int
	log     int // of the parts whose batches were sent
	offset  int64
	batches []seglog.Batch
	record  []byte // scratch
}

// exportPart is a partition as of the export.
type exportPart struct {
	Key
	encoded   []byte
	log       *seglog.Log
	from, end int64 // the offsets that the other replica lacks
}

// exportSet is a channel's parked set as of the export.
type exportSet struct {
	Key
	channel uint64
	set     *parked.Set
	reader  *parked.Reader
}

var _ shard.Portable = (*Machine)(nil)

// Export takes the state for another replica.
func (m *Machine) Export(_ uint64, have []byte) (shard.Export, error) {
	ends, err := decodeHave(have)
	if err != nil {
		return nil, err
	}
	x := &export{m: m, head: m.appendHead(nil)}
	for _, p := range m.sorted {
		if p.changed {
			m.scratch = p.append(m.scratch[:0])
			p.encoded, p.changed = slices.Clone(m.scratch), false
		}
		from := min(ends[p.Key], p.end)
		x.parts = append(x.parts, exportPart{Key: p.Key, encoded: p.encoded, log: p.log, from: from, end: p.end})
		x.size += int64(len(p.encoded)) + p.log.BytesFrom(from)
		for _, c := range p.channels {
			if c.parked == nil || c.parked.Len() == 0 {
				continue
			}
			c.parked.Hold()
			x.sets = append(x.sets, exportSet{p.Key, c.id, c.parked, c.parked.Snapshot().Reader()})
			x.size += c.parked.Len() * parkedCost
		}
	}
	return x, nil
}

// parkedCost is about how many bytes a parked message takes in a chunk.
const parkedCost = 12

// Size implements shard.Export.
func (x *export) Size() int64 { return x.size }

// Next implements shard.Export.
func (x *export) Next(buf []byte, maxBytes int) ([]byte, error) {
	at := len(buf)
	for len(buf)-at < maxBytes {
		var err error
		n := len(buf)
		if buf, err = x.next(buf, maxBytes-(len(buf)-at)); err != nil {
			return buf, err
		}
		if len(buf) == n {
			break
		}
	}
	if len(buf) == at {
		return buf, io.EOF
	}
	return buf, nil
}

// next appends a record, or some; none at the end.
func (x *export) next(buf []byte, room int) ([]byte, error) {
	switch {
	case !x.started:
		x.started = true
		return appendRecord(buf, recordState, x.head), nil
	case x.part < len(x.parts):
		x.part++
		return appendRecord(buf, recordPartition, x.parts[x.part-1].encoded), nil
	case x.set < len(x.sets):
		return x.nextParked(buf, room)
	}
	return x.nextBatches(buf, room)
}

func appendRecord(buf []byte, kind byte, payload []byte) []byte {
	return appendBytes(append(buf, kind), payload)
}

// parkedRecord is about how large a record of parked messages is, bytes.
const parkedRecord = 32 << 10

// nextParked appends some parked messages of a channel.
func (x *export) nextParked(buf []byte, room int) ([]byte, error) {
	s := &x.sets[x.set]
	x.record = binary.AppendUvarint(appendKey(x.record[:0], s.Key), s.channel)
	for s.reader.Left() > 0 && len(x.record) < min(room, parkedRecord) {
		e, ok, err := s.reader.Next()
		if err == nil && !ok {
			err = errMalformed
		}
		if err != nil {
			return buf, fmt.Errorf("read parked messages: %w", err)
		}
		x.record = binary.AppendUvarint(x.record, uint64(e.Offset))
		x.record = binary.AppendVarint(x.record, e.DueNs)
		x.record = binary.AppendUvarint(x.record, uint64(e.Attempts))
	}
	if s.reader.Left() == 0 {
		x.set++
	}
	return appendRecord(buf, recordParked, x.record), nil
}

// nextBatches appends batches of a log.
func (x *export) nextBatches(buf []byte, room int) ([]byte, error) {
	for ; x.log < len(x.parts); x.log++ {
		p := &x.parts[x.log]
		x.offset = max(x.offset, p.from)
		if x.offset >= p.end {
			x.offset = 0
			continue
		}
		var err error
		x.batches, x.offset, err = p.log.AppendNeeded(x.batches[:0], x.offset, p.end, room)
		if err != nil {
			return buf, fmt.Errorf("read log %v: %w", p.log.ID(), err)
		}
		batches := x.batches
		if x.offset >= p.end && len(batches) > 0 && plant.On("snapshot-skips-tail") {
			batches = batches[:len(batches)-1]
		}
		for i := range batches {
			buf = x.appendBatch(buf, p.Key, &batches[i])
		}
		clear(x.batches)
		if len(batches) > 0 {
			return buf, nil
		}
		x.log-- // the same again
	}
	return buf, nil
}

func (x *export) appendBatch(buf []byte, k Key, b *seglog.Batch) []byte {
	r := appendKey(x.record[:0], k)
	r = binary.AppendUvarint(r, uint64(b.Base))
	r = binary.AppendUvarint(r, uint64(b.Count))
	r = binary.AppendUvarint(r, b.Index)
	r = binary.AppendUvarint(r, uint64(b.Epoch))
	r = binary.AppendVarint(r, b.TimeNs)
	x.record = r
	buf = append(buf, recordBatch)
	buf = binary.AppendUvarint(buf, uint64(len(r)+len(b.Data)))
	return append(append(buf, r...), b.Data...)
}

// Close implements shard.Export.
func (x *export) Close() {
	if len(x.sets) == 0 {
		return
	}
	held := make(map[*parked.Set]bool, len(x.sets))
	for i := range x.sets {
		x.sets[i].set.Unhold()
		held[x.sets[i].set] = true
	}
	// Files that were kept for the export go behind the next two checkpoints.
	x.m.call(func() {
		for _, p := range x.m.sorted {
			for _, c := range p.channels {
				if c.parked != nil && held[c.parked] {
					c.saved.changed = true
				}
			}
		}
		for _, g := range x.m.ghosts {
			if held[g.set] {
				g.saved.changed = true
			}
		}
	})
}
