package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// memNet is a network in memory whose waits synctest understands, and whose
// links can be cut.
type memNet struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	dials     map[string]int
	conns     []*memConn
	dark      func(from, to string) bool // what is sent this way is lost; dialing too
	taken     int                        // bytes that the next connections carry to the listener before they break; 0: all
}

func newMemNet() *memNet {
	return &memNet{listeners: make(map[string]*memListener), dials: make(map[string]int), dark: func(string, string) bool { return false }}
}

type memAddr string

func (memAddr) Network() string  { return "mem" }
func (a memAddr) String() string { return string(a) }

type memListener struct {
	n      *memNet
	addr   memAddr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (n *memNet) listen(addr string) *memListener {
	l := &memListener{n: n, addr: memAddr(addr), conns: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[addr] = l
	return l
}

func (l *memListener) Addr() net.Addr { return l.addr }

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// dialer connects from an address.
func (n *memNet) dialer(from string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		n.mu.Lock()
		l, dark, taken := n.listeners[addr], n.dark(from, addr) || n.dark(addr, from), n.taken
		n.dials[addr]++
		n.mu.Unlock()
		if dark {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		if l == nil {
			return nil, fmt.Errorf("dial %s: nobody listens", addr)
		}
		there, back := newHalf(), newHalf()
		there.breaksAfter = taken
		a := &memConn{n: n, local: memAddr(from), remote: memAddr(addr), in: back, out: there}
		b := &memConn{n: n, local: memAddr(addr), remote: memAddr(from), in: there, out: back}
		select {
		case l.conns <- b:
		case <-l.closed:
			return nil, fmt.Errorf("dial %s: nobody listens", addr)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		n.mu.Lock()
		n.conns = append(n.conns, a, b)
		n.mu.Unlock()
		return a, nil
	}
}

// setDark loses what the function says.
func (n *memNet) setDark(f func(from, to string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dark = f
}

func (n *memNet) isDark(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dark(from, to)
}

func (n *memNet) setTaken(bytes int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taken = bytes
}

func (n *memNet) dialed(addr string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials[addr]
}

// breakAll ends all connections.
func (n *memNet) breakAll() {
	n.mu.Lock()
	conns := n.conns
	n.conns = nil
	n.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// half is one direction of a connection, with a buffer as a socket has it.
type half struct {
	mu          sync.Mutex
	buf         []byte
	closed      bool
	broken      error
	breaksAfter int
	passed      int
	changed     chan struct{}
}

const halfBuffer = 256 << 10

func newHalf() *half { return &half{changed: make(chan struct{})} }

// touch wakes who waits; mu is held.
func (h *half) touch() {
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *half) close(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.closed, h.broken = true, err
		h.touch()
	}
}

type memConn struct {
	n             *memNet
	local, remote memAddr
	in, out       *half

	mu            sync.Mutex
	readBy, write time.Time
}

func (c *memConn) LocalAddr() net.Addr  { return c.local }
func (c *memConn) RemoteAddr() net.Addr { return c.remote }

func (c *memConn) Close() error {
	if c.n.isDark(string(c.local), string(c.remote)) {
		c.in.close(net.ErrClosed) // the other side hears nothing of it
		return nil
	}
	c.in.close(net.ErrClosed)
	c.out.close(io.EOF)
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readBy = t
	return nil
}

func (c *memConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write = t
	return nil
}

// pause waits for a change of the half, or the deadline; mu of the half is held
// before and after.
func (h *half) pause(by time.Time) error {
	changed := h.changed
	h.mu.Unlock()
	defer h.mu.Lock()
	if by.IsZero() {
		<-changed
		return nil
	}
	timer := time.NewTimer(time.Until(by))
	defer timer.Stop()
	select {
	case <-changed:
		return nil
	case <-timer.C:
		return os.ErrDeadlineExceeded
	}
}

func (c *memConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	by := c.readBy
	c.mu.Unlock()
	h := c.in
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.buf) == 0 {
		if h.closed {
			return 0, h.broken
		}
		if err := h.pause(by); err != nil {
			return 0, err
		}
	}
	n := copy(p, h.buf)
	h.buf = h.buf[n:]
	h.touch()
	return n, nil
}

func (c *memConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	by := c.write
	c.mu.Unlock()
	if c.n.isDark(string(c.local), string(c.remote)) {
		return len(p), nil
	}
	h := c.out
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.buf) >= halfBuffer && !h.closed {
		if err := h.pause(by); err != nil {
			return 0, err
		}
	}
	if h.closed {
		return 0, io.ErrClosedPipe
	}
	if h.breaksAfter > 0 && h.passed+len(p) > h.breaksAfter {
		p = p[:h.breaksAfter-h.passed]
		h.closed, h.broken = true, io.EOF
	}
	h.passed += len(p)
	h.buf = append(h.buf, p...)
	h.touch()
	if h.closed {
		return len(p), io.ErrClosedPipe
	}
	return len(p), nil
}
