package record

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// franz encodes a batch with franz-go, the way its producer does.
func franz(rb kmsg.RecordBatch, records []kmsg.Record) []byte {
	rb.Magic = 2
	rb.NumRecords = int32(len(records))
	rb.LastOffsetDelta = int32(len(records)) - 1
	for i, r := range records {
		r.OffsetDelta = int32(i)
		r.Length = int32(len(r.AppendTo(nil)) - 1) // less the length 0 itself
		rb.Records = r.AppendTo(rb.Records)
	}
	rb.Length = int32(len(rb.Records)) + 49
	b := rb.AppendTo(nil)
	crc := crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(b[17:], crc)
	return b
}

// unfranz decodes a batch with franz-go.
func unfranz(t *testing.T, b []byte) (kmsg.RecordBatch, []kmsg.Record) {
	t.Helper()
	var rb kmsg.RecordBatch
	if err := rb.ReadFrom(b); err != nil {
		t.Fatalf("franz-go reads batch: %v", err)
	}
	var records []kmsg.Record
	rest := rb.Records
	for range rb.NumRecords {
		length, n := binary.Varint(rest)
		if n <= 0 || int(length)+n > len(rest) {
			t.Fatalf("record length %d of %d bytes", length, len(rest))
		}
		var r kmsg.Record
		if err := r.ReadFrom(rest[:n+int(length)]); err != nil {
			t.Fatalf("franz-go reads record: %v", err)
		}
		records = append(records, r)
		rest = rest[n+int(length):]
	}
	if len(rest) != 0 {
		t.Fatalf("%d bytes behind the records", len(rest))
	}
	return rb, records
}

var due = binary.BigEndian.AppendUint64(nil, 1_700_000_000_123_456_789)

// messages reach every branch of the codec; the long ones need varints of
// two and three bytes.
var messages = []Message{
	{Value: []byte("hello")},
	{Value: nil},
	{Value: []byte{}},
	{Key: []byte("user-42"), HasKey: true, Value: []byte("x")},
	{Key: nil, HasKey: true, Value: []byte("empty key")},
	{Key: []byte("not a key"), Value: []byte("null key")},
	{Value: []byte("h"), Headers: []Header{{HeaderID, []byte("inv-991")}, {HeaderDue, due}}},
	{Value: []byte("n"), Headers: []Header{{"null", nil}, {"empty", []byte{}}, {"", []byte("no name")}}},
	{Value: bytes.Repeat([]byte("v"), 63)},
	{Value: bytes.Repeat([]byte("v"), 64)},
	{Value: bytes.Repeat([]byte("v"), 100_000), Key: bytes.Repeat([]byte("k"), 9_000), HasKey: true},
	{Value: []byte("z"), Headers: []Header{{string(bytes.Repeat([]byte("k"), 300)), bytes.Repeat([]byte("v"), 70_000)}}},
}

// kafka is m as franz-go has it.
func kafka(m Message) kmsg.Record {
	r := kmsg.Record{Value: m.Value, Headers: []kmsg.Header{}}
	if r.Value == nil {
		r.Value = []byte{}
	}
	if m.HasKey {
		r.Key = append([]byte{}, m.Key...)
	}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, kmsg.Header{Key: h.Key, Value: h.Value})
	}
	return r
}

func build(timestampMs int64, ms ...Message) []byte {
	var b Builder
	b.Begin(nil, timestampMs)
	for i := range ms {
		b.Add(&ms[i])
	}
	return b.Finish()
}

func TestBuilderWritesWhatFranzWrites(t *testing.T) {
	many := make([]Message, 200)
	for i := range many {
		many[i] = messages[i%8]
	}
	for name, ms := range map[string][]Message{"one": messages[:1], "each": messages, "many": many} {
		t.Run(name, func(t *testing.T) {
			const nowMs = 1_700_000_000_123
			rb := kmsg.RecordBatch{
				PartitionLeaderEpoch: -1, FirstTimestamp: nowMs, MaxTimestamp: nowMs,
				ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
			}
			var records []kmsg.Record
			for _, m := range ms {
				records = append(records, kafka(m))
			}
			want := franz(rb, records)
			got := build(nowMs, ms...)
			if !bytes.Equal(got, want) {
				t.Fatalf("batches differ:\n got %.200x\nwant %.200x", got, want)
			}
			if _, err := Validate(got, Limits{}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestIterReadsWhatFranzWrites(t *testing.T) {
	records := []kmsg.Record{
		{Key: nil, Value: nil},
		{Key: []byte{}, Value: []byte{}, TimestampDelta64: -5},
		{Key: []byte("k"), Value: []byte("v"), TimestampDelta64: math.MaxInt32 + 7, Attributes: 0x7f},
		{Value: []byte("v"), Headers: []kmsg.Header{{Key: "a", Value: nil}, {Key: "b", Value: []byte{1}}}},
	}
	rb := kmsg.RecordBatch{
		FirstOffset: 7, PartitionLeaderEpoch: 3, FirstTimestamp: 1000, MaxTimestamp: 5000,
		ProducerID: 99, ProducerEpoch: 4, FirstSequence: 12,
	}
	b := franz(rb, records)
	info, err := Validate(b, Limits{BatchSizeMax: len(b), CountMax: 4, ValueSizeMax: 1, HeaderCountMax: 2})
	if err != nil {
		t.Fatal(err)
	}
	want := Info{
		Base: 7, Size: len(b), Epoch: 3, CRC: binary.BigEndian.Uint32(b[17:]), LastDelta: 3, Count: 4,
		BaseTimestampMs: 1000, MaxTimestampMs: 5000, ProducerID: 99, ProducerEpoch: 4, Sequence: 12,
	}
	if diff := cmp.Diff(want, info); diff != "" {
		t.Errorf("info (-want +got):\n%s", diff)
	}
	compareRecords(t, b, rb, records)

	rb.Attributes = logAppendTime
	it := Records(franz(rb, records))
	var r Record
	for it.Next(&r) {
		if r.TimestampMs != 5000 {
			t.Errorf("log append time %d, want the batch's 5000", r.TimestampMs)
		}
	}
}

// compareRecords reads b and compares with what franz-go has.
func compareRecords(t *testing.T, b []byte, rb kmsg.RecordBatch, want []kmsg.Record) {
	t.Helper()
	it := Records(b)
	var r Record
	n := 0
	for ; it.Next(&r); n++ {
		w := want[n]
		if r.Delta != int32(n) || (r.Key == nil) != (w.Key == nil) || !bytes.Equal(r.Key, w.Key) ||
			(r.Value == nil) != (w.Value == nil) || !bytes.Equal(r.Value, w.Value) {
			t.Errorf("record %d = %+v, want %+v", n, r, w)
		}
		if rb.Attributes&logAppendTime == 0 && r.TimestampMs != rb.FirstTimestamp+w.TimestampDelta64 {
			t.Errorf("record %d: timestamp %d, want %d + %d", n, r.TimestampMs, rb.FirstTimestamp, w.TimestampDelta64)
		}
		var headers []kmsg.Header
		for k, v := range r.Headers() {
			headers = append(headers, kmsg.Header{Key: string(k), Value: v})
		}
		if len(headers)+len(w.Headers) > 0 && !cmp.Equal(headers, w.Headers) {
			t.Errorf("record %d: headers (-want +got):\n%s", n, cmp.Diff(w.Headers, headers))
		}
	}
	if it.Err() != nil || n != len(want) {
		t.Errorf("%d records of %d: %v", n, len(want), it.Err())
	}
}
