//go:build unix

package nsq

import (
	"net"
	"syscall"
)

// socket writes to a connection without waiting. One goroutine may use it at a
// time.
type socket struct {
	raw  syscall.RawConn
	once func(fd uintptr) bool // made once: a closure for each write would be garbage
	out  []byte
	n    int
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
