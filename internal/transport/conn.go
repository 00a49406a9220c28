package transport

import (
	"bufio"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// rawConn is the connection below TLS. It counts bytes, gives every read and
// write a deadline, and holds TLS records back until they are flushed, so that a
// batch of frames is one write and not one for each record.
type rawConn struct {
	net.Conn
	idle  time.Duration // a read that gets nothing for so long fails: the peer is dead
	stall time.Duration // a write that is not taken for so long fails: the peer does not read
	meter atomic.Pointer[meter]
	br    *bufio.Reader

	// mu is held while a write waits, as TLS's own lock above it: beside the one
	// writer only TLS itself writes here, in answer to what it reads.
	mu   sync.Mutex
	buf  []byte
	hold bool
	most int // of buf
}

// newRawConn holds back heldMost bytes of records at most.
func newRawConn(c net.Conn, idle, stall time.Duration, readBuffer, heldMost int, m *meter) *rawConn {
	r := &rawConn{Conn: c, idle: idle, stall: stall, most: heldMost}
	r.meter.Store(m)
	r.br = bufio.NewReaderSize(readerFunc(r.fill), readBuffer)
	return r
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Read implements net.Conn for TLS.
func (c *rawConn) Read(p []byte) (int, error) { return c.br.Read(p) }

func (c *rawConn) fill(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.meter.Load().bytesIn.Add(uint64(n))
	return n, err
}

// Write implements net.Conn for TLS.
func (c *rawConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hold {
		return len(p), c.send(p)
	}
	c.buf = append(c.buf, p...)
	if len(c.buf) < c.most {
		return len(p), nil
	}
	return len(p), c.flush()
}

// holdBack makes writes wait for Flush.
func (c *rawConn) holdBack() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hold = true
}

// Flush writes what is held back.
func (c *rawConn) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flush()
}

func (c *rawConn) flush() error {
	if len(c.buf) == 0 {
		return nil
	}
	err := c.send(c.buf)
	c.buf = c.buf[:0]
	return err
}

func (c *rawConn) send(p []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
		return err
	}
	n, err := c.Conn.Write(p)
	c.meter.Load().bytesOut.Add(uint64(n))
	return err
}
