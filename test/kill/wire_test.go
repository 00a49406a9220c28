//go:build linux

package kill

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"
)

// Frame types of NSQ's TCP protocol.
const (
	frameResponse = 0
	frameError    = 1
	frameMessage  = 2
)

const heartbeat = "_heartbeat_"

// wire is one NSQ connection. Reads belong to one goroutine, writes to another
// or to a lock of the user's.
type wire struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	buf  []byte
}

// dial opens the protocol and says who we are.
func dial(addr, clientID string, msgTimeout time.Duration) (*wire, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	c := &wire{conn: conn, r: bufio.NewReaderSize(conn, 256<<10), w: bufio.NewWriterSize(conn, 64<<10)}
	hello := map[string]any{
		"client_id": clientID, "hostname": "kill", "user_agent": "tidings-kill/1", "feature_negotiation": true,
		"heartbeat_interval": 30000, "output_buffer_timeout": 25,
	}
	if msgTimeout > 0 {
		hello["msg_timeout"] = msgTimeout.Milliseconds()
	}
	text, err := json.Marshal(hello)
	if err != nil {
		return nil, err
	}
	c.w.WriteString("  V2IDENTIFY\n")
	c.sized(text)
	if _, err := c.ask(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("identify: %w", err)
	}
	return c, nil
}

// sized appends a length and the bytes.
func (c *wire) sized(b []byte) {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(b)))
	c.w.Write(n[:])
	c.w.Write(b) // an error is kept until Flush
}

// ask flushes and reads the answer; an error frame is an error.
func (c *wire) ask() ([]byte, error) {
	if err := c.w.Flush(); err != nil {
		return nil, err
	}
	for {
		kind, data, err := c.read()
		switch {
		case err == nil && kind == frameError:
			return data, fmt.Errorf("server says %s", data)
		case err != nil || string(data) != heartbeat:
			return data, err
		}
		if _, err := c.w.WriteString("NOP\n"); err != nil { // the answer is still to come
			return nil, err
		}
		if err := c.w.Flush(); err != nil {
			return nil, err
		}
	}
}

// subscribe opens a subscription with a window of rdy messages.
func (c *wire) subscribe(topic, channel string, rdy int) error {
	fmt.Fprintf(c.w, "SUB %s %s\n", topic, channel)
	if _, err := c.ask(); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	fmt.Fprintf(c.w, "RDY %d\n", rdy)
	return c.w.Flush()
}

// read returns the next frame; data is valid until the next read. Heartbeats are answered by the owner of the writer: see beat.
func (c *wire) read() (kind int, data []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	size := int(int32(binary.BigEndian.Uint32(head[:]))) - 4
	if size < 0 || size > 64<<20 {
		return 0, nil, fmt.Errorf("frame of %d bytes", size)
	}
	if size > cap(c.buf) {
		c.buf = make([]byte, size)
	}
	data = c.buf[:size]
	_, err = io.ReadFull(c.r, data)
	return int(int32(binary.BigEndian.Uint32(head[4:]))), data, err
}

// delivered is one message frame taken apart.
type delivered struct {
	timestamp int64
	attempts  uint16
	id        [16]byte
	body      []byte
}

func parseMessage(data []byte) (d delivered, err error) {
	if len(data) < 26 {
		return d, fmt.Errorf("message frame of %d bytes", len(data))
	}
	d.timestamp = int64(binary.BigEndian.Uint64(data))
	d.attempts = binary.BigEndian.Uint16(data[8:])
	copy(d.id[:], data[10:26])
	d.body = data[26:]
	return d, nil
}

func (c *wire) close() { c.conn.Close() }
