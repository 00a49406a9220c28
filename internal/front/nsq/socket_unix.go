//go:build unix

package nsq

import (
	"net"
	"syscall"
)

// socket does to a connection what does not wait. One goroutine at a time may
// write, and one look for what is pending.
type socket struct {
	raw  syscall.RawConn
	once func(fd uintptr) bool // made once: a closure for each write would be garbage
	out  []byte
	n    int

	peek func(fd uintptr) bool
	one  [1]byte
	more bool
}

// pending reports whether the peer has sent something that is not read yet.
func (s *socket) pending() bool {
	s.more = false
	_ = s.raw.Read(s.peek)
	return s.more
}

// newSocket returns nil for a connection that is no socket.
func newSocket(nc net.Conn) *socket {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{raw: raw}
	s.peek = func(fd uintptr) bool {
		n, _, err := syscall.Recvfrom(int(fd), s.one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		s.more = err == nil && n > 0
		return true
	}
	s.once = func(fd uintptr) bool {
		if n, err := syscall.Write(int(fd), s.out); err == nil {
			s.n = n
		}
		return true
	}
	return s
}

// write writes as much of b as fits into the socket's buffer, and returns how
// much that was; 0 as well when there is an error, which the next usual write
// meets again.
func (s *socket) write(b []byte) int {
	s.out, s.n = b, 0
	err := s.raw.Write(s.once)
	s.out = nil
	if err != nil {
		return 0
	}
	return s.n
}
