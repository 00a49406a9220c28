package shard

import (
	"fmt"
	"testing"
)

// BenchmarkEntry is one entry from Drain to Apply, on a disk of memory.
func BenchmarkEntry(b *testing.B) {
	for _, async := range []bool{true, false} {
		for _, size := range []int{8, 64 << 10} {
			b.Run(fmt.Sprintf("async=%v/%dB", async, size), func(b *testing.B) {
				r := newRig(b, async, 1)
				r.segments = 64 << 20
				r.options = func(o *Options) { o.MaxEntryBytes, o.CheckpointBytes = 1<<20, 1<<60 }
				r.mustOpen()
				r.settle()
				values := make([]uint64, size/8)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					r.put(0, values...)
					r.settle()
					l := r.ledgers[0]
					l.list, l.acked, l.drains = l.list[:0], l.acked[:0], l.drains[:0]
				}
			})
		}
	}
}
