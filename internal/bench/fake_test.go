package bench

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is an NSQ server in memory that can be told to misbehave on the way
// out: it is what the bench must not believe.
type fake struct {
	mischief func(n int, body []byte) [][]byte // what is delivered instead of the nth message; nil: itself

	mu       sync.Mutex
	rung     *sync.Cond
	topics   map[string]*fakeTopic
	closed   bool
	conns    []net.Conn
	failPubs bool
}

type fakeTopic struct {
	waiting  [][]byte // before the first channel
	channels map[string]*fakeChannel
}

type fakeChannel struct {
	queue [][]byte
	put   int
}

// startFake serves until the test ends.
func startFake(t *testing.T, f *fake) *NSQ {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.rung, f.topics = sync.NewCond(&f.mu), make(map[string]*fakeTopic)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, conn)
			f.mu.Unlock()
			wg.Go(func() { (&fakeConn{f: f, conn: conn, r: bufio.NewReader(conn)}).serve() })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.mu.Lock()
		f.closed = true
		for _, c := range f.conns {
			c.Close()
		}
		f.rung.Broadcast()
		f.mu.Unlock()
		wg.Wait()
	})
	return &NSQ{TCP: l.Addr().String()}
}

func (f *fake) topic(name string) *fakeTopic {
	if f.topics[name] == nil {
		f.topics[name] = &fakeTopic{channels: make(map[string]*fakeChannel)}
	}
	return f.topics[name]
}

func (f *fake) publish(topic string, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.topic(topic)
	if len(t.channels) == 0 {
		t.waiting = append(t.waiting, body)
	}
	for _, c := range t.channels {
		f.enqueue(c, body)
	}
	f.rung.Broadcast()
}

func (f *fake) enqueue(c *fakeChannel, body []byte) {
	c.put++
	if f.mischief == nil {
		c.queue = append(c.queue, body)
		return
	}
	c.queue = append(c.queue, f.mischief(c.put, body)...)
}

func (f *fake) channel(topic, name string) *fakeChannel {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.topic(topic)
	c := t.channels[name]
	if c == nil {
		c = &fakeChannel{}
		t.channels[name] = c
		for _, body := range t.waiting {
			f.enqueue(c, body)
		}
		t.waiting = nil
	}
	return c
}

type fakeConn struct {
	f       *fake
	conn    net.Conn
	r       *bufio.Reader
	ready   int // under f.mu, as the following
	flight  int
	gone    bool
	pushing sync.WaitGroup
	wmu     sync.Mutex
}

func (c *fakeConn) serve() {
	defer c.pushing.Wait()
	defer func() {
		c.conn.Close()
		c.f.mu.Lock()
		c.gone = true
		c.f.rung.Broadcast()
		c.f.mu.Unlock()
	}()
	if _, err := c.r.Discard(len(nsqMagic)); err != nil {
		return
	}
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return
		}
		if c.command(strings.Fields(line)) != nil {
			return
		}
	}
}

func (c *fakeConn) body() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err := io.ReadFull(c.r, b)
	return b, err
}

func (c *fakeConn) frame(kind int, data []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	b := binary.BigEndian.AppendUint32(nil, uint32(4+len(data)))
	b = binary.BigEndian.AppendUint32(b, uint32(kind))
	_, err := c.conn.Write(append(b, data...))
	return err
}

func (c *fakeConn) command(words []string) error {
	switch words[0] {
	case "IDENTIFY":
		if _, err := c.body(); err != nil {
			return err
		}
		return c.frame(nsqResponse, []byte("OK"))
	case "PUB", "MPUB", "DPUB":
		return c.pub(words)
	case "SUB":
		ch := c.f.channel(words[1], words[2])
		c.pushing.Go(func() { c.push(ch) })
		return c.frame(nsqResponse, []byte("OK"))
	case "RDY", "FIN":
		c.f.mu.Lock()
		defer c.f.mu.Unlock()
		if words[0] == "FIN" {
			c.flight--
		} else {
			c.ready, _ = strconv.Atoi(words[1])
		}
		c.f.rung.Broadcast()
		return nil
	case "NOP":
		return nil
	}
	return fmt.Errorf("command %q", words)
}

func (c *fakeConn) pub(words []string) error {
	b, err := c.body()
	if err != nil {
		return err
	}
	if c.f.failPubs {
		return c.frame(nsqError, []byte("E_PUB_FAILED PUB failed"))
	}
	switch words[0] {
	case "PUB":
		c.f.publish(words[1], b)
	case "DPUB":
		ms, err := strconv.Atoi(words[2])
		if err != nil {
			return err
		}
		time.AfterFunc(time.Duration(ms)*time.Millisecond, func() { c.f.publish(words[1], b) })
	default:
		for b = b[4:]; len(b) > 0; {
			n := binary.BigEndian.Uint32(b)
			c.f.publish(words[1], b[4:4+n])
			b = b[4+n:]
		}
	}
	return c.frame(nsqResponse, []byte("OK"))
}

// push delivers while the window is open.
func (c *fakeConn) push(ch *fakeChannel) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	for !c.f.closed && !c.gone {
		if len(ch.queue) == 0 || c.flight >= c.ready {
			c.f.rung.Wait()
			continue
		}
		body := ch.queue[0]
		ch.queue = ch.queue[1:]
		c.flight++
		c.f.mu.Unlock()
		msg := append(make([]byte, 10), fmt.Sprintf("%016x", len(body))...)
		_ = c.frame(nsqMessage, append(msg, body...)) // a gone consumer is noticed by serve
		c.f.mu.Lock()
	}
}

// The mischief that servers get up to; n counts a channel's messages from 1.

func loses(n int, body []byte) [][]byte {
	if n%100 == 50 {
		return nil
	}
	return [][]byte{body}
}

func duplicates(n int, body []byte) [][]byte {
	if n%100 == 50 {
		return [][]byte{body, body}
	}
	return [][]byte{body}
}

// reorders holds one message back until after the next; it is made anew for
// every channel's sake, so one channel only.
func reorders() func(int, []byte) [][]byte {
	var held []byte
	return func(n int, body []byte) [][]byte {
		switch {
		case n%100 == 50:
			held = body
			return nil
		case held != nil:
			out := [][]byte{body, held}
			held = nil
			return out
		}
		return [][]byte{body}
	}
}

func damages(n int, body []byte) [][]byte {
	if n%100 == 50 {
		body = append([]byte(nil), body...)
		body[len(body)-1] ^= 1
	}
	return [][]byte{body}
}
