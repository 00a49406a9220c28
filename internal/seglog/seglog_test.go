package seglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tidings-io/tidings/internal/record"
	"github.com/tidings-io/tidings/internal/vfs"
)

var testID = LogID{Topic: 77, Partition: 3}

func open(t testing.TB, fs vfs.FS, o Options) *Store {
	t.Helper()
	s, err := Open(fs, "/data/topics", o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// body makes the bytes of a batch of n records, size bytes each.
func body(n, size int, fill byte) []byte {
	var b record.Builder
	b.Begin(nil, 1_700_000_000_000)
	value := bytes.Repeat([]byte{fill}, size)
	for range n {
		b.Add(&record.Message{Value: value})
	}
	return b.Finish()
}

// batchAt is a batch whose bytes follow from its offset.
func batchAt(base int64, n, size int, index uint64) Batch {
	return Batch{
		Base: base, Count: int32(n), Index: index, Epoch: 5, TimeNs: int64(index) * 1000,
		Data: body(n, size, byte(base*31+int64(n))),
	}
}

// fill appends count batches of n records and returns them.
func fill(l *Log, count, n, size int, index uint64) []Batch {
	var out []Batch
	for i := range count {
		b := batchAt(l.End(), n, size, index+uint64(i))
		l.Append(b)
		out = append(out, b)
	}
	return out
}

// equal compares a batch that was read with the one that was appended.
func equal(got, want Batch) error {
	if got.Base != want.Base || got.Count != want.Count || got.Index != want.Index || got.Epoch != want.Epoch || got.TimeNs != want.TimeNs {
		return fmt.Errorf("batch %+v, want %+v", head(got), head(want))
	}
	if !bytes.Equal(unstamped(got.Data), want.Data) {
		return fmt.Errorf("batch %d: bytes differ", want.Base)
	}
	if base := int64(binary.BigEndian.Uint64(got.Data)); base != 0 && base != want.Base {
		return fmt.Errorf("batch %d is stamped %d", want.Base, base)
	}
	return nil
}

func head(b Batch) Batch { b.Data = nil; return b }

func unstamped(data []byte) []byte {
	data = bytes.Clone(data)
	record.Stamp(data, 0, int32(binary.BigEndian.Uint32(body(1, 0, 0)[12:])))
	return data
}

// readLent is Read by way of lent memory, which is given back at once.
func readLent(l *Log, offset int64, maxBytes int) ([]Batch, error) {
	bs, chunk, err := l.ReadChunk(nil, offset, maxBytes)
	for i := range bs {
		bs[i].Data = bytes.Clone(bs[i].Data)
	}
	chunk.Release()
	return bs, err
}

// readAll reads from an offset to the end, over damage.
func readAll(t reporter, l *Log, from int64, maxBytes int) (got []Batch, lost []*CorruptError) {
	t.Helper()
	for {
		bs, err := readLent(l, from, maxBytes)
		if c, ok := errors.AsType[*CorruptError](err); ok {
			if c.Last < from {
				t.Fatalf("read at %d: damage ends before: %v", from, c)
			}
			lost = append(lost, c)
			from = c.Last + 1
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bs) == 0 {
			return got, lost
		}
		got = append(got, bs...)
		from = bs[len(bs)-1].Last() + 1
	}
}

func wantBatches(t testing.TB, got, want []Batch) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d batches, want %d", len(got), len(want))
	}
	for i := range got {
		if err := equal(got[i], want[i]); err != nil {
			t.Fatal(err)
		}
	}
}

func checkpoint(t testing.TB, l *Log, index uint64, inlineMax int) []byte {
	t.Helper()
	state, err := l.Checkpoint(index, inlineMax)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTailOnly(t *testing.T) {
	fs := disk()
	before := fs.Ops()
	s := open(t, fs, Options{})
	l := s.New(testID, 100)
	want := fill(l, 20, 3, 50, 1)
	got, _ := readAll(t, l, 0, 500)
	wantBatches(t, got, want)
	got, _ = readAll(t, l, 131, 1)
	wantBatches(t, got, want[10:])
	if ops := fs.Ops() - before; ops != 0 {
		t.Errorf("%d changes to the file system for a tail", ops)
	}
	if s.TailBytes() == 0 || l.End() != 160 || l.Start() != 100 {
		t.Errorf("tail %d, end %d, start %d", s.TailBytes(), l.End(), l.Start())
	}
	l.AdvanceStart(160)
	if s.TailBytes() != 0 {
		t.Errorf("tail %d after everything is finished", s.TailBytes())
	}
}

func TestFlushAndRestore(t *testing.T) {
	fs := disk()
	s := open(t, fs, Options{SegmentSize: 32 << 10, TailBytes: 1 << 10})
	l := s.New(testID, 0)
	want := fill(l, 300, 4, 100, 1)
	for {
		did, err := s.FlushOldest()
		must(t, err)
		if !did {
			break
		}
	}
	if s.TailBytes() > 512 {
		t.Errorf("tail %d after the flush", s.TailBytes())
	}
	for _, maxBytes := range []int{1, 600, 10_000, 1 << 20} {
		got, _ := readAll(t, l, 0, maxBytes)
		wantBatches(t, got, want)
	}
	got, _ := readAll(t, l, 601, 1000)
	wantBatches(t, got, want[150:])

	state := checkpoint(t, l, 200, 0)
	l.Published()
	must(t, s.Close())
	fs.Crash(rand.New(rand.NewPCG(1, 1)))

	s = open(t, fs, Options{SegmentSize: 32 << 10, TailBytes: 1 << 10})
	l, err := s.Restore(testID, state)
	must(t, err)
	if l.End() != 800 {
		t.Fatalf("end %d, want 800", l.End())
	}
	got, _ = readAll(t, l, 0, 10_000)
	wantBatches(t, got, want[:200])
	for _, b := range want[200:] {
		l.Append(b)
	}
	state = checkpoint(t, l, 300, 0)
	l.Published()
	got, _ = readAll(t, l, 0, 10_000)
	wantBatches(t, got, want)

	s = open(t, fs, Options{})
	l, err = s.Restore(testID, state)
	must(t, err)
	got, _ = readAll(t, l, 0, 10_000)
	wantBatches(t, got, want)
}

// reporter is what testing's and rapid's T have in common.
type reporter interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// disk is a file system in memory with a durable data folder.
func disk() *vfs.Mem {
	fs := vfs.NewMem()
	if err := errors.Join(fs.MkdirAll("/data"), fs.SyncDir("/")); err != nil {
		panic(err)
	}
	return fs
}
