package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

// BenchmarkAppend is a group commit on the real disk: shards appends of size
// bytes each, one write, one sync. "alone" is the same bytes written and synced
// with nothing around.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct{ shards, size int }{{1, 256}, {1, 4 << 10}, {8, 8 << 10}, {1, 1 << 20}} {
		b.Run(fmt.Sprintf("%dx%d", c.shards, c.size), func(b *testing.B) { benchAppend(b, c.shards, c.size) })
		b.Run(fmt.Sprintf("%dx%d-alone", c.shards, c.size), func(b *testing.B) { benchAlone(b, c.shards*c.size) })
	}
}

func benchAppend(b *testing.B, shards, size int) {
	fs := vfs.OS{}
	w, err := Open(fs, filepath.ToSlash(b.TempDir())+"/wal", Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	maintain(b, w)
	// Into a zeroed segment, which is where a log lives.
	w.Submit(Append{Shard: 1, Entries: []Entry{{Index: 1, Term: 1, Data: make([]byte, DefaultSegmentSize-2000)}}, Sync: true})
	step(b, w)
	data := make([]byte, size)
	batches := make([][]Entry, shards)
	for i := range batches {
		batches[i] = make([]Entry, 1)
	}
	done := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(shards * size))
	b.ReportAllocs()
	index := uint64(1)
	for b.Loop() {
		index++
		for s := range batches {
			batches[s][0] = Entry{Index: index, Term: 1, Data: data}
			w.Submit(Append{Shard: uint32(s + 1), Entries: batches[s], Sync: true, Done: done})
			w.Release(uint32(s+1), index-1)
		}
		step(b, w)
		if len(w.chores) > 0 && w.Stats().Segments > 1 {
			b.StopTimer()
			maintain(b, w)
			b.StartTimer()
		}
	}
}

func benchAlone(b *testing.B, size int) {
	f, err := vfs.OS{}.Create(filepath.ToSlash(filepath.Join(b.TempDir(), "file")))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for at := int64(0); at < DefaultSegmentSize; at += zeroChunk {
		if _, err := f.WriteAt(zeros[:], at); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	data := make([]byte, size)
	b.SetBytes(int64(size))
	at := int64(0)
	for b.Loop() {
		if _, err := f.WriteAt(data, at); err != nil {
			b.Fatal(err)
		}
		if err := f.SyncData(); err != nil {
			b.Fatal(err)
		}
		if at += int64(size); at+int64(size) > DefaultSegmentSize {
			at = 0
		}
	}
}

// BenchmarkSteps is the same without a disk: the processor's part.
func BenchmarkSteps(b *testing.B) {
	w := mustOpen(b, newFS(b), Options{SegmentSize: 16 << 20})
	maintain(b, w)
	data := make([]byte, 256)
	batch := make([]Entry, 1)
	b.ReportAllocs()
	index := uint64(0)
	for b.Loop() {
		index++
		batch[0] = Entry{Index: index, Term: 1, Data: data}
		w.Submit(Append{Shard: 1, Entries: batch, Sync: true})
		step(b, w)
		w.Release(1, index-1)
		if len(w.index.live) > 1 {
			maintain(b, w)
		}
	}
}

// BenchmarkOpen recovers a full segment of 64 MiB with entries of 4 KiB.
func BenchmarkOpen(b *testing.B) {
	dir := filepath.ToSlash(b.TempDir()) + "/wal"
	w, err := Open(vfs.OS{}, dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	data := make([]byte, 4<<10)
	for i := range data {
		data[i] = byte(i * 7)
	}
	index := uint64(0)
	for w.Size() < DefaultSegmentSize-100<<10 {
		for range 16 {
			index++
			w.Submit(Append{Shard: uint32(index % 8), Entries: []Entry{{Index: index/8 + 1, Term: 1, Data: data}}, Sync: true})
		}
		step(b, w)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		b.Fatal(err)
	}
	b.SetBytes(DefaultSegmentSize)
	for b.Loop() {
		w, err := Open(vfs.OS{}, dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
