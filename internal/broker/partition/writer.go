package partition

import (
	"encoding/binary"

	"github.com/tidings-io/tidings/internal/record"
)

// writer turns publishes into record batches, without allocation.
type writer struct {
	builder record.Builder
	headers [2]record.Header
	due     [8]byte
	rec     record.Message
}

// record is the message as it stands in the log; valid until the next call.
func (w *writer) record(m *Message) *record.Message {
	n := 0
	if m.ID != nil {
		w.headers[n] = record.Header{Key: record.HeaderID, Value: m.ID}
		n++
	}
	if m.DueNs != 0 {
		binary.BigEndian.PutUint64(w.due[:], uint64(m.DueNs))
		w.headers[n] = record.Header{Key: record.HeaderDue, Value: w.due[:]}
		n++
	}
	w.rec = record.Message{Key: m.Key, HasKey: m.Key != nil, Value: m.Body, Headers: w.headers[:n]}
	return &w.rec
}

// recordSize is an upper bound of what a message takes in a batch.
func recordSize(m *Message) int {
	// Their keys with lengths, the length of the value, the value.
	const id, due = 1 + len(record.HeaderID) + binary.MaxVarintLen32, 1 + len(record.HeaderDue) + 1 + 8
	n := record.RecordSize(&record.Message{Key: m.Key, HasKey: m.Key != nil, Value: m.Body})
	if m.ID != nil {
		n += id + len(m.ID)
	}
	if m.DueNs != 0 {
		n += due
	}
	return n
}

// publish writes one publish command with the messages of all publishes from
// first on, as one batch.
func (w *writer) publish(buf []byte, k Key, hasDue bool, first *Publish, timeNs int64) []byte {
	buf, start := openCommand(buf, kindPublish)
	buf = append(appendKey(buf, k), bit(hasDue, flagDue))
	w.builder.Begin(buf, timeNs/1e6)
	for p := first; p != nil; p = p.next {
		for i := range p.Messages {
			w.builder.Add(w.record(&p.Messages[i]))
		}
	}
	buf = w.builder.Finish()
	w.rec = record.Message{} // do not hold the publisher's bytes
	w.headers = [2]record.Header{}
	return closeCommand(buf, start)
}

// publishOverhead is the most a publish command takes besides its records.
const publishOverhead = commandHeader + keySizeMax + 1 + record.HeaderSize
