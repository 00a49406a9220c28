package partition

import (
	"bytes"
	"encoding/hex"
	"flag"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tidings-io/tidings/internal/broker/offsets"
	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/shard"
)

var update = flag.Bool("update", false, "write the golden files anew")

// commands are one of each kind and more, with what has a length or a sign.
var commands = []Command{
	Open{Key: one, Name: "orders"},
	Open{Key: Key{Topic: math.MaxUint64, Partition: math.MaxInt32}},
	Close{six},
	CreateChannel{Key: one, Channel: 300},
	CreateChannel{Key: one, Channel: 1, Ephemeral: true, From: From{Where: AtOffset, Offset: 1 << 40}},
	CreateChannel{Key: two, Channel: 2, From: From{Where: AtEnd}},
	DropChannel{Key: two, Channel: 2},
	Empty{Key: one, Channel: 300},
	EmptyTopic{one},
	PauseTopic{Key: one, Paused: true},
	PauseTopic{Key: one},
	ClearEphemeral{six},
	AdvanceStart{Key: one, Offset: 77, Reason: "retention"},
	Ingest{Key: one, Session: Session{1, 15: 255}, From: 300, To: 300},
	Ingest{Key: one, Session: Session{1}, To: 1, Create: true, Channels: []IngestChannel{{Channel: 3}, {Channel: 300}}},
	Ingest{Key: one, Session: Session{2}, From: 0, To: 3, Batch: ingestBatch("a", "b", "c")},
	Ingest{Key: one, Session: Session{3}, From: 7, To: 13, Handed: true, Batch: ingestBatch("a", "b", "c", "d", "e"), Channels: []IngestChannel{
		{Channel: 2},
		{Channel: 300, Finished: []offsets.Range{{From: 0, To: 1}, {From: 3, To: 5}}, Attempts: []Attempt{{Offset: 1, N: 1}, {Offset: 2, N: math.MaxUint16}}},
	}},
	Open{Key: six, Name: "orders", Count: 300},
	Raise{Key: one, Count: 2},
	Raise{Key: six, Count: PartitionsMax},
}

// ingestBatch is a batch of messages as another node would send it.
func ingestBatch(bodies ...string) []byte {
	var ms []Message
	for _, b := range bodies {
		ms = append(ms, Message{Body: []byte(b)})
	}
	return AppendBatch(nil, ms, 1_700_000_000_123_456_789)
}

var deltas = []Delta{
	{},
	{
		Finished: []offsets.Range{{From: 3, To: 9}, {From: 20, To: 21}, {From: 1, To: 2}},
		Parked:   []parked.Entry{{Offset: 12, DueNs: 1_700_000_000_000_000_000, Attempts: 3}, {Offset: 4, DueNs: -1}},
		Unparked: []int64{2, 1, 1 << 43},
		Attempts: []Attempt{{Offset: 30, N: 1}, {Offset: 29, N: math.MaxUint16}},
	},
	{Unparked: []int64{math.MaxInt64}},
}

// golden is one entry with everything in it.
func golden() []byte {
	b := appendHeader(nil, header{time: 1_700_000_000_123_456_789, term: 42, count: uint32(len(commands) + len(deltas) + 1)})
	for _, c := range commands {
		b = appendCommand(b, c)
	}
	for i := range deltas {
		b = appendDelta(b, deltaTarget{one, 300, int64(i)}, &deltas[i])
	}
	second := &Publish{Messages: []Message{{Body: []byte("later"), DueNs: 1_700_000_001_000_000_000}}}
	first := &Publish{Messages: []Message{{Body: []byte("hello")}, {Body: []byte("x"), Key: []byte("user-42"), ID: []byte("inv-991")}}, next: second}
	var w writer
	return w.publish(b, one, true, first, 1_700_000_000_123_456_789)
}

// linkedEntry is an entry with sequenced publishes.
func linkedEntry() []byte {
	b := appendHeader(nil, header{time: 1_700_000_000_123_456_789, term: 42, count: 3})
	for _, r := range []run{{300, 1, 0, 2}, {math.MaxUint64, 7, 1 << 40, 1<<40 + 1}} {
		b = appendRun(b, &r)
	}
	var w writer
	return w.publish(b, one, false, &Publish{Messages: []Message{{Body: []byte("hello")}}}, 1_700_000_000_123_456_789)
}

// TestGolden: entries stand in the WAL, so their bytes never change.
func TestGolden(t *testing.T) {
	var text strings.Builder
	for _, entry := range [][]byte{golden(), linkedEntry()} {
		_, rest, err := decodeHeader(entry)
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(hex.EncodeToString(entry[:entryHeader]) + "\n")
		for len(rest) > 0 {
			cmd := rest
			if _, _, rest, err = decodeCommand(rest); err != nil {
				t.Fatal(err)
			}
			text.WriteString(hex.EncodeToString(cmd[:len(cmd)-len(rest)]) + "\n")
		}
	}
	const name = "testdata/commands.golden"
	if *update {
		if err := os.WriteFile(name, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text.String()); diff != "" {
		t.Errorf("encoded commands (-want +got):\n%s", diff)
	}
}

func TestCommandsComeBack(t *testing.T) {
	for _, want := range commands {
		k, payload, rest, err := decodeCommand(appendCommand(nil, want))
		if err != nil || len(rest) > 0 {
			t.Fatalf("%+v: %v, %d bytes left", want, err, len(rest))
		}
		got, err := decode(k, payload)
		if err != nil {
			t.Fatalf("%+v: %v", want, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("command (-want +got):\n%s", diff)
		}
		for n := range payload {
			c, err := decode(k, payload[:n:n])
			if o, ok := c.(Open); ok && err == nil && o.Count == 0 && n == len(appendText(appendKey(nil, o.Key), o.Name)) {
				continue // the count is left out where it is 1
			}
			if err == nil {
				t.Errorf("%+v cut to %d bytes is %+v", want, n, c)
			}
		}
	}
	var got Delta
	for i := range deltas {
		want := deltaTarget{six, 5, 9}
		_, payload, _, err := decodeCommand(appendDelta(nil, want, &deltas[i]))
		if err != nil {
			t.Fatal(err)
		}
		target, err := decodeDelta(payload, &got)
		if err != nil || target != want {
			t.Fatalf("delta %d: %v, for %+v", i, err, target)
		}
		if !bytes.Equal(appendDelta(nil, target, &got), appendDelta(nil, want, &deltas[i])) {
			t.Fatalf("delta %d is %+v", i, got)
		}
	}
}

// FuzzEntry: whatever the bytes, decoding neither fails hard nor takes memory,
// and what is decoded has exactly one encoding.
func FuzzEntry(f *testing.F) {
	f.Add(golden())
	f.Add(linkedEntry())
	for _, c := range commands {
		f.Add(appendCommand(appendHeader(nil, header{count: 1}), c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := decodeHeader(b)
		if err != nil {
			return
		}
		if got := appendHeader(nil, h); !bytes.Equal(got, b[:entryHeader]) {
			t.Fatalf("header %x comes back as %x", b[:entryHeader], got)
		}
		for len(rest) > 0 {
			cmd := rest
			var k kind
			var payload []byte
			if k, payload, rest, err = decodeCommand(rest); err != nil {
				return
			}
			cmd = cmd[:len(cmd)-len(rest)]
			again := cmd
			switch k {
			case kindPublish:
			case kindLink:
				if l, err := decodeRun(payload); err == nil {
					again = appendRun(nil, &l)
				}
			case kindDelta:
				var d Delta
				if target, err := decodeDelta(payload, &d); err == nil {
					again = appendDelta(nil, target, &d)
				}
			default:
				if c, err := decode(k, payload); err == nil {
					again = appendCommand(nil, c)
				}
			}
			if !bytes.Equal(again, cmd) {
				t.Fatalf("command %x comes back as %x", cmd, again)
			}
		}
	})
}

// FuzzApply: no bytes in an entry make a machine panic.
func FuzzApply(f *testing.F) {
	f.Add(golden()[entryHeader:])
	f.Add(linkedEntry()[entryHeader:])
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newRig(t)
		for _, c := range []Command{Open{Key: one}, CreateChannel{Key: one, Channel: 300}} {
			r.must(c)
		}
		r.publish(one, 50)
		for count := range uint32(4) {
			data := append(appendHeader(nil, header{time: r.now, term: r.term, count: count}), b...)
			r.index++
			_ = r.m.Apply(shard.Entry{Index: r.index, Term: r.term, Data: data}, nil)
		}
		for _, p := range r.m.sorted {
			_ = p.append(nil)
		}
	})
}

func TestRecordSizeIsABound(t *testing.T) {
	long := make([]byte, 1<<17)
	for _, m := range []Message{
		{}, {Body: long}, {Body: long, Key: long, ID: long, DueNs: -1}, {ID: []byte{}, Key: []byte{}, DueNs: math.MaxInt64},
	} {
		var w writer
		exact := record.RecordSize(w.record(&m))
		if got := recordSize(&m); got < exact || got > exact+8 {
			t.Errorf("size of %d, %d, %d bytes is %d, want %d", len(m.Body), len(m.Key), len(m.ID), got, exact)
		}
	}
}
