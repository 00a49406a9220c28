package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
)

// chunked serves a stream of count chunks of the size and counts what it sent.
func (n *node) chunked(size int) *atomic.Int64 {
	sent := new(atomic.Int64)
	n.HandleStream(methodCount, func(ctx context.Context, _ From, req []byte, send func([]byte) error) error {
		chunk := make([]byte, size)
		for i := range binary.LittleEndian.Uint32(req) {
			for j := range chunk {
				chunk[j] = byte(i) // the chunk is reused
			}
			if err := send(chunk); err != nil {
				return err
			}
			sent.Add(int64(size))
		}
		if len(req) > 4 {
			return fault.New(fault.Corrupt, "%s", req[4:])
		}
		return ctx.Err()
	})
	return sent
}

func countTo(n int) []byte { return binary.LittleEndian.AppendUint32(nil, uint32(n)) }

func TestStreams(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		a, b := r.start("a", nil), r.start("b", nil)
		r.meet()
		b.chunked(100_000)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				s, err := a.Fetch(context.Background(), Peer{ID: b.o.RaftID}, methodCount, countTo(40))
				if err != nil {
					t.Error(err)
					return
				}
				for i := range 40 {
					chunk, err := s.Next()
					if err != nil || len(chunk) != 100_000 || chunk[0] != byte(i) || chunk[99_999] != byte(i) {
						t.Errorf("chunk %d: %d bytes, %v", i, len(chunk), err)
						return
					}
				}
				if _, err := s.Next(); err == nil || err.Error() != "EOF" {
					t.Errorf("end: %v", err)
				}
			})
		}
		wg.Wait()
		if s := a.link(b, Bulk); s.Calls != 0 {
			t.Errorf("%d streams are left", s.Calls)
		}
	})
}

// A reader that does not read holds up its own stream only, and no memory beyond
// the window.
func TestSlowReader(t *testing.T) {
	inMemory(t, func(o *Options) { o.StreamWindow = 1 << 20 }, func(t *testing.T, _ *rig, a, b *node) {
		sent := b.chunked(50_000)
		to := Peer{ID: b.o.RaftID}
		slow, err := a.Fetch(context.Background(), to, methodCount, countTo(1000))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		if n := sent.Load(); n < 1<<20 || n > 1<<20+50_000 {
			t.Fatalf("%d bytes were sent to a reader that reads nothing", n)
		}
		before := sent.Load()
		quick, err := a.Fetch(context.Background(), to, methodCount, countTo(200))
		if err != nil {
			t.Fatal(err)
		}
		for n := 0; ; n++ {
			if _, err = quick.Next(); err != nil {
				if n != 200 {
					t.Errorf("the quick one ended after %d chunks: %v", n, err)
				}
				break
			}
		}
		sent.Store(before)
		for i := range 500 {
			if chunk, err := slow.Next(); err != nil || chunk[0] != byte(i) {
				t.Fatalf("chunk %d: %v", i, err)
			}
			synctest.Wait()
			if ahead := sent.Load() - int64(i+1)*50_000; ahead > 1<<20+50_000 {
				t.Fatalf("%d bytes ahead of the reader", ahead)
			}
		}
		slow.Close()
		for err = nil; err == nil; {
			_, err = slow.Next()
		}
		if !errors.Is(err, context.Canceled) {
			t.Errorf("closed stream: %v", err)
		}
		synctest.Wait()
		if s := a.link(b, Bulk); s.Calls != 0 || s.Connects != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestStreamErrors(t *testing.T) {
	inMemory(t, func(o *Options) { o.MaxStreams = 2 }, func(t *testing.T, r *rig, a, b *node) {
		b.chunked(1000)
		b.serveEcho()
		ended := make(chan error, 1)
		b.HandleStream(methodWait, func(ctx context.Context, _ From, _ []byte, send func([]byte) error) error {
			err := send([]byte("begun"))
			<-ctx.Done()
			ended <- errors.Join(err, context.Cause(ctx))
			return ctx.Err()
		})
		to := Peer{ID: b.o.RaftID}
		drain := func(method Method, req []byte) (n int, err error) {
			s, err := a.Fetch(context.Background(), to, method, req)
			for err == nil {
				if _, err = s.Next(); err == nil {
					n++
				}
			}
			return n, err
		}
		n, err := drain(methodCount, append(countTo(3), "batch 7 is damaged"...))
		if n != 3 || fault.CodeOf(err) != fault.Corrupt || err.Error() != "node b: batch 7 is damaged" {
			t.Errorf("%d chunks, %v", n, err)
		}
		if _, err := drain(methodEcho, nil); fault.CodeOf(err) != fault.Unsupported || !errors.Is(err, ErrNotSent) {
			t.Errorf("a call as a stream: %v", err)
		}
		if _, err := a.Call(context.Background(), to, methodCount, countTo(1)); fault.CodeOf(err) != fault.Unsupported {
			t.Errorf("a stream as a call: %v", err)
		}
		open := func() *Stream {
			s, err := a.Fetch(context.Background(), to, methodWait, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := s.Next(); string(b) != "begun" {
				t.Fatal(string(b), err)
			}
			return s
		}
		s := open()
		s.Close()
		if _, err := s.Next(); !errors.Is(err, context.Canceled) {
			t.Errorf("closed: %v", err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the handler of a closed stream: %v", err)
		}
		s = open()
		r.net.breakAll()
		if _, err := s.Next(); !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("broken link: %v", err)
		}
		<-ended
		_, _ = open(), open()
		if _, err := a.Fetch(context.Background(), to, methodWait, nil); fault.CodeOf(err) != fault.Overloaded {
			t.Errorf("beyond the bound: %v", err)
		}
		a.stop()
		<-ended
	})
}

// Calls are not held up by streams, nor by a peer that reads nothing.
func TestCallsPassStreams(t *testing.T) {
	inMemory(t, func(o *Options) { o.WriteTimeout = time.Hour }, func(t *testing.T, r *rig, a, b *node) {
		b.serveEcho()
		b.chunked(200_000)
		for range 10 {
			if _, err := a.Fetch(context.Background(), Peer{ID: b.o.RaftID}, methodCount, countTo(1000)); err != nil {
				t.Fatal(err)
			}
		}
		b.block()
		for i := range uint64(20) {
			a.Send(1, app(a, b, i, 100_000))
		}
		began := time.Now()
		if _, err := a.Call(within(t, time.Second), Peer{ID: b.o.RaftID}, methodEcho, nil); err != nil || time.Since(began) > 0 {
			t.Errorf("a call took %s: %v", time.Since(began), err)
		}
		_ = r
	})
}
