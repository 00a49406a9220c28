package nsq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/tidings-io/tidings/internal/broker/delivery"
)

// looped is a connection whose client says the same again and again.
type looped struct {
	scripted
	script []byte
	rest   []byte
	left   int // how often
}

func (l *looped) Read(b []byte) (int, error) {
	if len(l.rest) == 0 && l.left > 0 {
		l.left--
		l.rest = l.script
	}
	n := copy(b, l.rest)
	l.rest = l.rest[n:]
	if n == 0 {
		return l.scripted.Read(b) // the end
	}
	return n, nil
}

func (l *looped) Write(b []byte) (int, error) { return len(b), nil }

// BenchmarkParse is the reader alone: what a command costs beside the socket
// and the broker.
func BenchmarkParse(b *testing.B) {
	const commands = 1000
	for name, command := range map[string]string{
		"FIN": "FIN 0123456789abcdef\n",
		"PUB": "PUB topic\n" + sized(strings.Repeat("x", 200)),
	} {
		b.Run(name, func(b *testing.B) {
			f := New(newQuietBroker(), Options{})
			nc := &looped{script: []byte(strings.Repeat(command, commands)), left: b.N/commands + 1}
			c := newConn(f, nc)
			s, err := endlessBroker{newQuietBroker()}.Subscribe(context.Background(), "", "", delivery.SubOptions{})
			if err != nil {
				b.Fatal(err)
			}
			if name == "FIN" {
				c.sub.Store(&subscribed{Subscription: s})
				c.state.Store(stateSubscribed)
			}
			go c.write()
			defer c.kill()
			b.ReportAllocs()
			b.ResetTimer()
			_ = c.read()
		})
	}
}

// BenchmarkMessage is the writer alone: what a message costs beside the socket
// and the channel.
func BenchmarkMessage(b *testing.B) {
	for _, size := range []int{200, 1024} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			c := newConn(New(newQuietBroker(), Options{}), &looped{})
			s := &endless{body: make([]byte, size)}
			s.window.Store(1)
			sub := &subscribed{Subscription: s}
			b.ReportAllocs()
			for n := 0; n < b.N; n += 100 {
				if _, err := c.writer.deliver(sub); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// finisher records the answers to messages.
type finisher struct {
	endless
	got []delivery.Op
}

func (s *finisher) Do(ops []delivery.Op, _ []error) int {
	s.got = append(s.got, ops...)
	return 0
}

// TestFinishes: FINs of the usual form mean what they mean as any command, in
// whatever pieces and between whatever others they come.
func TestFinishes(t *testing.T) {
	const fin = "FIN 0123456789abcde"
	script := fin + "1\n" + fin + "2\r\n" + "NOP\n" + fin + "3\n" + fin + "4 more\n" + "TOUCH 0123456789abcde5\n" +
		strings.Repeat(fin+"6\n", answersMax) + "FIN 01\xff\x80456789abcdef\n" + fin + "7\nFIN 0123456 89abcdef\n"
	for _, piece := range []int{1, 7, 21, 1 << 20} {
		c := newConn(New(newQuietBroker(), Options{}), &scripted{in: []byte(script), piece: piece})
		s := new(finisher)
		c.sub.Store(&subscribed{Subscription: s})
		c.state.Store(stateSubscribed)
		err := c.read()
		var r *refusal
		if !errors.As(err, &r) || r.text != "E_INVALID invalid message ID" {
			t.Errorf("pieces of %d: %v", piece, err)
		}
		var got strings.Builder
		for i, op := range s.got {
			if i < 5 || i >= 5+answersMax {
				fmt.Fprintf(&got, "%d %q ", op.Kind, op.ID[:])
			}
		}
		want := ""
		for _, op := range []delivery.Op{
			{Kind: delivery.Finish, ID: id("0123456789abcde1")},
			{Kind: delivery.Finish, ID: id("0123456789abcde2")},
			{Kind: delivery.Finish, ID: id("0123456789abcde3")},
			{Kind: delivery.Finish, ID: id("0123456789abcde4")},
			{Kind: delivery.Touch, ID: id("0123456789abcde5")},
			{Kind: delivery.Finish, ID: id("01\xff\x80456789abcdef")},
			{Kind: delivery.Finish, ID: id("0123456789abcde7")},
		} {
			want += fmt.Sprintf("%d %q ", op.Kind, op.ID[:])
		}
		if got.String() != want {
			t.Errorf("pieces of %d: got %s, want %s", piece, got.String(), want)
		}
	}
}

func id(s string) delivery.ID { return delivery.ID([]byte(s)) }

// TestPrintable compares with the plain way.
func TestPrintable(t *testing.T) {
	for at := range 16 {
		for b := range 256 {
			id := []byte("0123456789abcdef")
			id[at] = byte(b)
			if got := printable(id); got != (b > ' ') {
				t.Errorf("byte %d at %d: %v", b, at, got)
			}
		}
	}
}
