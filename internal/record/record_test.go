package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

func TestHeaderAndDue(t *testing.T) {
	b := build(1, Message{Headers: []Header{
		{HeaderID, []byte("a")}, {HeaderID, []byte("b")}, {"null", nil}, {HeaderDue, AppendDue(nil, 1<<60+7)},
	}}, Message{Headers: []Header{{HeaderDue, []byte("short")}}}, Message{})
	it := Records(b)
	var r Record
	it.Next(&r)
	if v, ok := r.Header(HeaderID); !ok || string(v) != "a" {
		t.Errorf("id = %q, %v; want the first", v, ok)
	}
	if v, ok := r.Header("null"); !ok || v != nil {
		t.Errorf("null = %q, %v", v, ok)
	}
	if _, ok := r.Header("absent"); ok || r.HeaderCount() != 4 {
		t.Errorf("absent header found, or %d headers", r.HeaderCount())
	}
	if ns, ok := r.Due(); !ok || ns != 1<<60+7 {
		t.Errorf("due = %d, %v", ns, ok)
	}
	for it.Next(&r) {
		if _, ok := r.Due(); ok {
			t.Error("due without a well-formed header")
		}
	}
}

func TestStampLeavesTheChecksum(t *testing.T) {
	b := build(1, messages...)
	Stamp(b, 1<<40+3, 77)
	info, err := Validate(b, Limits{})
	if err != nil || info.Base != 1<<40+3 || info.Epoch != 77 {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestBuilderAppendsAndSizes(t *testing.T) {
	var b Builder
	prefix := []byte("prefix")
	b.Begin(prefix, 5)
	if got := b.Finish(); !bytes.Equal(got, prefix) {
		t.Errorf("batch without a record: %x", got)
	}
	b.Begin(prefix, 5)
	for i := range messages {
		before := b.Size()
		b.Add(&messages[i])
		if n, bound := b.Size()-before, RecordSize(&messages[i]); n > bound || bound > n+9 {
			t.Errorf("message %d takes %d bytes, bound %d", i, n, bound)
		}
	}
	size, count := b.Size(), b.Count()
	got := b.Finish()
	info, err := Validate(got[len(prefix):], Limits{})
	if err != nil || info.Size != size || info.Count != count || !bytes.HasPrefix(got, prefix) {
		t.Errorf("%+v, %v; want size %d, count %d", info, err, size, count)
	}
}

func TestNoAllocation(t *testing.T) {
	var b Builder
	buf := make([]byte, 0, 1<<20)
	build := func() {
		b.Begin(buf, 5)
		for i := range messages {
			b.Add(&messages[i])
		}
		b.Finish()
	}
	if n := testing.AllocsPerRun(100, build); n != 0 {
		t.Errorf("building allocates %v times", n)
	}
	b.Begin(buf, 5)
	for i := range messages {
		b.Add(&messages[i])
	}
	batch := b.Finish()
	sum := 0
	read := func() {
		if _, err := Validate(batch, Limits{}); err != nil {
			t.Fatal(err)
		}
		it := Records(batch)
		var r Record
		for it.Next(&r) {
			ns, _ := r.Due()
			v, _ := r.Header(HeaderID)
			for k := range r.Headers() {
				sum += len(k)
			}
			sum += len(v) + int(ns&1)
		}
	}
	if n := testing.AllocsPerRun(100, read); n != 0 {
		t.Errorf("reading allocates %v times", n)
	}
}

// mend makes length and CRC right again after a change.
func mend(b []byte) []byte {
	binary.BigEndian.PutUint32(b[atLength:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[atCRC:], Checksum(b))
	return b
}

func TestValidateRefuses(t *testing.T) {
	edit := func(f func(b []byte) []byte) []byte { return f(build(1, messages[:7]...)) }
	put32 := func(at int, v uint32) []byte {
		return edit(func(b []byte) []byte { binary.BigEndian.PutUint32(b[at:], v); return mend(b) })
	}
	recordAt := func(bytes ...byte) []byte { // one record, given in raw
		b := append(build(1, messages[0])[:HeaderSize], bytes...)
		return mend(b)
	}
	tests := []struct {
		name string
		b    []byte
		lim  Limits
		want error
	}{
		{"nothing", nil, Limits{}, ErrShort},
		{"half a header", make([]byte, 60), Limits{}, ErrShort},
		{"magic 1", edit(func(b []byte) []byte { b[atMagic] = 1; return b }), Limits{}, ErrMagic},
		{"cut", edit(func(b []byte) []byte { return b[:len(b)-1] }), Limits{}, ErrShort},
		{"trailing", edit(func(b []byte) []byte { return append(b, 0) }), Limits{}, ErrMalformed},
		{"negative length", edit(func(b []byte) []byte { b[atLength] = 0xff; return b }), Limits{}, ErrMalformed},
		{"bit flip", edit(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), Limits{}, ErrCRC},
		{"gzip", edit(func(b []byte) []byte { b[atAttributes+1] = 1; return mend(b) }), Limits{}, ErrCodec},
		{"unknown codec", edit(func(b []byte) []byte { b[atAttributes+1] = 7; return mend(b) }), Limits{}, ErrCodec},
		{"no records", put32(atCount, 0), Limits{}, ErrMalformed},
		{"count above", put32(atCount, 8), Limits{}, ErrMalformed},
		{"negative count", put32(atCount, 1<<31), Limits{}, ErrMalformed},
		{"delta above", put32(atLastDelta, 7), Limits{}, ErrMalformed},
		{"record behind the last", edit(func(b []byte) []byte {
			binary.BigEndian.PutUint32(b[atCount:], 6)
			binary.BigEndian.PutUint32(b[atLastDelta:], 5)
			return mend(b)
		}), Limits{}, ErrMalformed},
		{"delta 1 first", recordAt(12, 0, 0, 2, 1, 0, 0), Limits{}, ErrMalformed},
		{"negative delta", recordAt(12, 0, 0, 1, 1, 0, 0), Limits{}, ErrMalformed},
		{"record length -1", recordAt(1), Limits{}, ErrMalformed},
		{"empty record", recordAt(0), Limits{}, ErrMalformed},
		{"record too long", recordAt(14, 0, 0, 0, 1, 0, 0), Limits{}, ErrMalformed},
		{"byte left in record", recordAt(14, 0, 0, 0, 1, 0, 0, 0), Limits{}, ErrMalformed},
		{"value beyond record", recordAt(12, 0, 0, 0, 1, 8, 0), Limits{}, ErrMalformed},
		{"length -2", recordAt(12, 0, 0, 0, 3, 0, 0), Limits{}, ErrMalformed},
		{"negative header count", recordAt(12, 0, 0, 0, 1, 0, 1), Limits{}, ErrMalformed},
		{"many headers", recordAt(14, 0, 0, 0, 1, 0, 0x7e, 0), Limits{}, ErrMalformed},
		{"null header key", recordAt(16, 0, 0, 0, 1, 0, 2, 1, 1), Limits{}, ErrMalformed},
		{"padded length", recordAt(22, 0, 0, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 0), Limits{}, ErrMalformed},
		{"batch size", edit(mend), Limits{BatchSizeMax: 100}, ErrLimit},
		{"records", edit(mend), Limits{CountMax: 6}, ErrLimit},
		{"value size", edit(mend), Limits{ValueSizeMax: 8}, ErrLimit},
		{"headers", edit(mend), Limits{HeaderCountMax: 1}, ErrLimit},
	}
	for _, tt := range tests {
		if _, err := Validate(tt.b, tt.lim); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := Validate(recordAt(12, 0, 0, 0, 1, 0, 0), Limits{}); err != nil {
		t.Errorf("the record that the cases above vary: %v", err)
	}
}

func TestMurmur2(t *testing.T) {
	// From Kafka's UtilsTest.testMurmur2.
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(Murmur2([]byte(key))); got != want {
			t.Errorf("Murmur2(%q) = %d, want %d", key, got, want)
		}
	}
}

// FuzzValidate: whatever Validate lets pass, franz-go reads alike.
func FuzzValidate(f *testing.F) {
	f.Add(build(1, messages[:8]...))
	f.Add(build(1, messages[0]))
	f.Fuzz(func(t *testing.T, b []byte) {
		it := Records(b) // must not panic on anything
		var r Record
		for it.Next(&r) {
			r.Due()
		}
		if len(b) < HeaderSize {
			return
		}
		b = mend(bytes.Clone(b)) // so that the fuzzer gets past the CRC
		info, err := Validate(b, Limits{})
		if err != nil {
			return
		}
		rb, records := unfranz(t, b)
		if len(records) != info.Count || rb.FirstOffset != info.Base || rb.FirstTimestamp != info.BaseTimestampMs {
			t.Fatalf("info %+v, franz-go %+v", info, rb)
		}
		compareRecords(t, b, rb, records)
	})
}

// FuzzBuilder: what goes in comes out.
func FuzzBuilder(f *testing.F) {
	f.Add([]byte("key"), true, []byte("value"), "id", []byte("x"), int64(5), uint8(3))
	f.Add([]byte{}, false, []byte{}, "", []byte{}, int64(-1), uint8(200))
	f.Fuzz(func(t *testing.T, key []byte, hasKey bool, value []byte, name string, header []byte, timeMs int64, n uint8) {
		m := Message{Key: key, HasKey: hasKey, Value: value, Headers: []Header{{name, header}, {HeaderDue, AppendDue(nil, timeMs)}}}
		ms := make([]Message, int(n)+1)
		for i := range ms {
			ms[i] = m
		}
		b := build(timeMs, ms...)
		info, err := Validate(b, Limits{})
		if err != nil || info.Count != len(ms) {
			t.Fatalf("%+v, %v", info, err)
		}
		it := Records(b)
		var r Record
		for it.Next(&r) {
			h, ok := r.Header(name)
			if (r.Key != nil) != hasKey || hasKey && !bytes.Equal(r.Key, key) || !bytes.Equal(r.Value, value) ||
				!ok || !bytes.Equal(h, header) || r.TimestampMs != timeMs {
				t.Fatalf("%+v", r)
			}
			if ns, ok := r.Due(); name != HeaderDue && (!ok || ns != timeMs) {
				t.Fatalf("due %d, %v", ns, ok)
			}
		}
	})
}

func BenchmarkBuild100(b *testing.B) {
	m := Message{Value: make([]byte, 200)}
	buf := make([]byte, 0, 64<<10)
	var w Builder
	b.ReportAllocs()
	for b.Loop() {
		w.Begin(buf, 1)
		for range 100 {
			w.Add(&m)
		}
		w.Finish()
	}
}

func BenchmarkWalk100(b *testing.B) {
	batch := build(1, make([]Message, 100)...)
	var r Record
	b.ReportAllocs()
	for b.Loop() {
		for it := Records(batch); it.Next(&r); {
		}
	}
}
