package transport

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/raft/v3/raftpb"
)

// Two nodes over loopback TCP; both ends burn the same cores.
func pair(b *testing.B, change func(*Options)) (from, to *node) {
	b.Helper()
	r := newRig(b, false)
	from, to = r.start("a", change), r.start("b", change)
	r.meet()
	return from, to
}

// BenchmarkAppend is the throughput of MsgApp with one entry, at most 128 of
// them under way, as Raft's window holds them.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			from, to := pair(b, func(o *Options) { o.MaxQueuedBytes = 256 << 20 })
			slots := make(chan struct{}, 128)
			to.mu.Lock()
			to.onRaft = func(*pb.Message) { <-slots }
			to.mu.Unlock()
			m := app(from, to, 1, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				slots <- struct{}{}
				from.Send(1, m)
			}
			for range cap(slots) { // all have arrived
				slots <- struct{}{}
			}
			b.StopTimer()
			if n := from.losses(1, to.o.RaftID); n > 0 {
				b.Fatalf("%d losses", n)
			}
		})
	}
}

// BenchmarkCall is the round trip of one call after the other, and the rate of
// many beside each other.
func BenchmarkCall(b *testing.B) {
	for _, outstanding := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d-outstanding", outstanding), func(b *testing.B) {
			from, to := pair(b, nil)
			to.HandleAsync(methodEcho, func(_ context.Context, _ From, req []byte, respond func([]byte, error)) { respond(req, nil) })
			peer := Peer{ID: to.o.RaftID}
			if _, err := from.Call(context.Background(), peer, methodEcho, nil); err != nil {
				b.Fatal(err)
			}
			slots := make(chan struct{}, outstanding)
			var failed atomic.Int32
			req := make([]byte, 100)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				slots <- struct{}{}
				err := from.Go(context.Background(), peer, methodEcho, req, func(_ []byte, err error) {
					if err != nil {
						failed.Add(1)
					}
					<-slots
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			for range outstanding {
				slots <- struct{}{}
			}
			b.StopTimer()
			if failed.Load() > 0 {
				b.Fatalf("%d calls failed", failed.Load())
			}
		})
	}
}

// BenchmarkStream is the throughput of one stream of 256 KiB chunks.
func BenchmarkStream(b *testing.B) {
	const size = 256 << 10
	from, to := pair(b, nil)
	to.chunked(size)
	b.SetBytes(size)
	b.ResetTimer()
	s, err := from.Fetch(context.Background(), Peer{ID: to.o.RaftID}, methodCount, countTo(b.N))
	for n := 0; err == nil; n++ {
		if _, err = s.Next(); err != nil && n != b.N {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkLentReply is one call after the other whose reply is as long as what a
// relay pulls.
func BenchmarkLentReply(b *testing.B) {
	const size = 280 << 10
	from, to := pair(b, nil)
	memory, lent := make([]byte, size), make([]byte, size)
	to.HandleLent(methodEcho, func(_ context.Context, _ From, _ []byte, respond Respond) { respond(memory, func() {}, nil) })
	got := make(chan error)
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		room := func(n int) []byte { return lent[:n] }
		if err := from.GoInto(context.Background(), Peer{ID: to.o.RaftID}, methodEcho, nil, room, func(_ []byte, err error) { got <- err }); err != nil {
			b.Fatal(err)
		}
		if err := <-got; err != nil {
			b.Fatal(err)
		}
	}
}
