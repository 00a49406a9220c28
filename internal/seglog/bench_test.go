package seglog

import (
	"fmt"
	"testing"

	"github.com/tidings-io/tidings/internal/vfs"
)

// benchLog makes a log on disk of n batches of 100 records of 200 bytes.
func benchLog(b *testing.B, n int) (*Store, *Log) {
	b.Helper()
	s, err := Open(vfs.OS{}, b.TempDir()+"/topics", Options{})
	must(b, err)
	b.Cleanup(func() { must(b, s.Close()) })
	l := s.New(testID, 0)
	data := body(100, 200, 7)
	for i := range n {
		l.Append(Batch{Base: int64(i) * 100, Count: 100, Index: uint64(i + 1), Data: data})
		if s.OverBudget() {
			drain(b, s)
		}
	}
	return s, l
}

func BenchmarkAppend(b *testing.B) {
	for _, records := range []int{1, 100} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			s := open(b, disk(), Options{})
			l := s.New(testID, 0)
			data := body(records, 200, 7)
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for i := 0; b.Loop(); i++ {
				l.Append(Batch{Base: int64(i), Count: 1, Index: uint64(i + 1), Data: data})
				if i%64 == 63 { // consumers keep up
					l.AdvanceStart(int64(i))
				}
			}
		})
	}
}

// BenchmarkFlush is the background cost of a message that has to go to a file.
func BenchmarkFlush(b *testing.B) {
	s, err := Open(vfs.OS{}, b.TempDir()+"/topics", Options{})
	must(b, err)
	defer s.Close()
	l := s.New(testID, 0)
	data := body(100, 200, 7)
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for i := 0; b.Loop(); i++ {
		l.Append(Batch{Base: int64(i) * 100, Count: 100, Index: uint64(i + 1), Data: data})
		if s.OverBudget() {
			drain(b, s)
		}
		if i%4096 == 4095 { // keep the disk small
			l.AdvanceStart(int64(i-1000) * 100)
			if _, err := l.Checkpoint(uint64(i), 0); err != nil {
				b.Fatal(err)
			}
			l.Published()
		}
	}
}

func BenchmarkReadFile(b *testing.B) {
	for _, maxBytes := range []int{64 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("max=%d", maxBytes), func(b *testing.B) {
			s, l := benchLog(b, 4096)
			must(b, func() error { _, err := l.Checkpoint(1<<40, 0); return err }())
			var batches []Batch
			b.ReportAllocs()
			next, messages := int64(0), int64(0)
			for b.Loop() {
				var chunk *Chunk
				var err error
				if batches, chunk, err = l.ReadChunk(batches[:0], next, maxBytes); err != nil {
					b.Fatal(err)
				}
				chunk.Release()
				if len(batches) == 0 {
					next = 0
					continue
				}
				end := batches[len(batches)-1].Last() + 1
				messages += end - next
				next = end
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(messages), "ns/message")
			b.ReportMetric(float64(s.Stats().FileBytes)/b.Elapsed().Seconds()/1e6, "MB/s")
		})
	}
}

func BenchmarkReadTail(b *testing.B) {
	s := open(b, disk(), Options{TailBytes: 1 << 30})
	l := s.New(testID, 0)
	data := body(1, 200, 7)
	for i := range int64(10_000) {
		l.Append(Batch{Base: i, Count: 1, Index: uint64(i + 1), Data: data})
	}
	var batches []Batch
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i = (i + 50) % 9000 {
		batches, _ = l.AppendRead(batches[:0], i, 10<<10)
	}
}

// BenchmarkReadOne is a message that is read again, out of order.
func BenchmarkReadOne(b *testing.B) {
	_, l := benchLog(b, 4096)
	must(b, func() error { _, err := l.Checkpoint(1<<40, 0); return err }())
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i += 7919 {
		if bs, err := l.Read(i%400_000, 1); err != nil || len(bs) != 1 {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheckpointIdle is what one of very many quiet topics costs in each
// checkpoint.
func BenchmarkCheckpointIdle(b *testing.B) {
	s := open(b, disk(), Options{})
	l := s.New(testID, 0)
	fill(l, 3, 1, 100, 1)
	var state []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if state, err = l.AppendCheckpoint(state[:0], 100, 4096); err != nil {
			b.Fatal(err)
		}
		l.Published()
	}
	b.ReportMetric(float64(len(state)), "state-bytes")
}
