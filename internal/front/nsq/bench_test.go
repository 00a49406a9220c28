package nsq

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tidings-io/tidings/internal/broker/delivery"
)

// serve starts a front and connects to it.
func serve(b testing.TB, broker Broker) net.Conn {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- New(broker, Options{TCP: l}).Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { nc.Close() })
	if _, err := io.WriteString(nc, "  V2"); err != nil {
		b.Fatal(err)
	}
	return nc
}

// BenchmarkPub is one message of 200 B per PUB, 500 at a time; the broker
// answers at once and keeps nothing.
func BenchmarkPub(b *testing.B) {
	benchmarkPublish(b, 500, strings.Repeat("PUB topic\n"+sized(strings.Repeat("x", 200)), 500), 500)
}

// BenchmarkMPub is 100 messages of 200 B per MPUB, 4 at a time.
func BenchmarkMPub(b *testing.B) {
	bodies := make([]string, 100)
	for i := range bodies {
		bodies[i] = strings.Repeat("x", 200)
	}
	benchmarkPublish(b, 400, strings.Repeat("MPUB topic\n"+sized(multi(bodies...)), 4), 4)
}

func benchmarkPublish(b *testing.B, messages int, request string, answers int) {
	nc, out := serve(b, newQuietBroker()), []byte(request)
	answer := make([]byte, answers*len(okFrame))
	b.ReportAllocs()
	b.SetBytes(200)
	for n := 0; n < b.N; n += messages {
		if _, err := nc.Write(out); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(nc, answer); err != nil {
			b.Fatal(err)
		}
	}
}

// endless is a subscription that always has messages.
type endless struct {
	body   []byte
	window atomic.Int64
	done   chan struct{}
	wake   func()
}

func (s *endless) SetWindow(n int) { s.window.Store(int64(n)); s.wake() }
func (s *endless) Stop()           {}
func (s *endless) Take(dst []delivery.Delivery, _ int) ([]delivery.Delivery, error) {
	if s.window.Load() == 0 {
		return dst, nil
	}
	for range 100 {
		dst = append(dst, delivery.Delivery{Attempts: 1, Body: s.body})
	}
	return dst, nil
}
func (s *endless) Do([]delivery.Op, []error) int { return 0 }
func (s *endless) Close(bool)                    {}
func (s *endless) Done() <-chan struct{}         { return s.done }
func (s *endless) Stats() delivery.SubStats      { return delivery.SubStats{} }

type endlessBroker struct{ Broker }

func (endlessBroker) Subscribe(_ context.Context, _, _ string, o delivery.SubOptions) (Subscription, error) {
	return &endless{body: []byte(strings.Repeat("x", 200)), done: make(chan struct{}), wake: o.Notify}, nil
}

// BenchmarkDeliver is the delivery of messages of 200 B, each answered by FIN.
func BenchmarkDeliver(b *testing.B) {
	nc := serve(b, endlessBroker{newQuietBroker()})
	fmt.Fprintf(nc, "SUB topic channel\nRDY 2500\n")
	if _, err := io.ReadFull(nc, make([]byte, len(okFrame))); err != nil {
		b.Fatal(err)
	}
	const size = messageHeadBytes + 200
	in := make([]byte, 100*size)
	fins := []byte(strings.Repeat("FIN 0123456789abcdef\n", 100))
	b.ReportAllocs()
	b.SetBytes(200)
	for n := 0; n < b.N; n += 100 {
		if _, err := io.ReadFull(nc, in); err != nil {
			b.Fatal(err)
		}
		if binary.BigEndian.Uint32(in) != size-4 {
			b.Fatal("not a message")
		}
		if _, err := nc.Write(fins); err != nil {
			b.Fatal(err)
		}
	}
}
