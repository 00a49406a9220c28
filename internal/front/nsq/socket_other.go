//go:build !unix

package nsq

import "net"

// socket would write to a connection without waiting; there is none here, and
// each connection's own writer does it.
type socket struct{}

func newSocket(net.Conn) *socket { return nil }

func (*socket) write([]byte) int { return 0 }

func (*socket) pending() bool { return false }
