//go:build linux

package rig

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
	FrameResponse = 0
	FrameError    = 1
	FrameMessage  = 2
)

// Heartbeat is the response that a NOP answers.
const Heartbeat = "_heartbeat_"

// Wire is one NSQ connection. Reads belong to one goroutine, writes to another
// or to a lock of the user's.
type Wire struct {
	Conn net.Conn
	R    *bufio.Reader
	W    *bufio.Writer
	buf  []byte
}

// Dial connects to an NSQ server and says who we are: see Hello.
func Dial(addr, clientID string, msgTimeout time.Duration) (*Wire, error) {
	conn, err := net.DialTimeout("tcp", addr, Patience)
	if err != nil {
		return nil, err
	}
	return Hello(conn, clientID, msgTimeout)
}

// Hello opens the protocol on a connection, which it closes after an error.
// msgTimeout is what a consumer asks for; 0: the server's.
func Hello(conn net.Conn, clientID string, msgTimeout time.Duration) (*Wire, error) {
	c := &Wire{Conn: conn, R: bufio.NewReaderSize(conn, 256<<10), W: bufio.NewWriterSize(conn, 64<<10)}
	hello := map[string]any{
		"client_id": clientID, "hostname": "rig", "user_agent": "tidings-rig/1", "feature_negotiation": true,
		"heartbeat_interval": 30000, "output_buffer_timeout": 25,
	}
	if msgTimeout > 0 {
		hello["msg_timeout"] = msgTimeout.Milliseconds()
	}
	text, err := json.Marshal(hello)
	if err != nil {
		conn.Close()
		return nil, err
	}
	c.W.WriteString("  V2IDENTIFY\n")
	c.Sized(text)
	if _, err := c.Ask(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("identify: %w", err)
	}
	return c, nil
}

// Sized appends a length and the bytes.
func (c *Wire) Sized(b []byte) {
	var n [4]byte
	binary.BigEndian.PutUint32(n[:], uint32(len(b)))
	c.W.Write(n[:])
	c.W.Write(b) // an error is kept until Flush
}

// Ask flushes and reads the answer; an error frame is an error.
func (c *Wire) Ask() ([]byte, error) {
	if err := c.W.Flush(); err != nil {
		return nil, err
	}
	for {
		kind, data, err := c.Read()
		switch {
		case err == nil && kind == FrameError:
			return data, fmt.Errorf("server says %s", data)
		case err != nil || string(data) != Heartbeat:
			return data, err
		}
		if _, err := c.W.WriteString("NOP\n"); err != nil { // the answer is still to come
			return nil, err
		}
		if err := c.W.Flush(); err != nil {
			return nil, err
		}
	}
}

// Subscribe opens a subscription with a window of rdy messages.
func (c *Wire) Subscribe(topic, channel string, rdy int) error {
	fmt.Fprintf(c.W, "SUB %s %s\n", topic, channel)
	if _, err := c.Ask(); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	fmt.Fprintf(c.W, "RDY %d\n", rdy)
	return c.W.Flush()
}

// Publish publishes one body and waits for its acknowledgement.
func (c *Wire) Publish(topic string, body []byte) error {
	fmt.Fprintf(c.W, "PUB %s\n", topic)
	c.Sized(body)
	_, err := c.Ask()
	return err
}

// Multi is the body of an MPUB.
func Multi(bodies ...[]byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(bodies)))
	for _, body := range bodies {
		b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
		b = append(b, body...)
	}
	return b
}

// PublishMany publishes the bodies as one MPUB.
func (c *Wire) PublishMany(topic string, bodies ...[]byte) error {
	fmt.Fprintf(c.W, "MPUB %s\n", topic)
	c.Sized(Multi(bodies...))
	_, err := c.Ask()
	return err
}

// Read returns the next frame; data is valid until the next read. Heartbeats are
// answered by the owner of the writer.
func (c *Wire) Read() (kind int, data []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(c.R, head[:]); err != nil {
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
	_, err = io.ReadFull(c.R, data)
	return int(int32(binary.BigEndian.Uint32(head[4:]))), data, err
}

// Delivered is one message frame taken apart.
type Delivered struct {
	Timestamp int64
	Attempts  uint16
	ID        [16]byte
	Body      []byte
}

// ParseMessage takes the data of a message frame apart; Body stands in it.
func ParseMessage(data []byte) (d Delivered, err error) {
	if len(data) < 26 {
		return d, fmt.Errorf("message frame of %d bytes", len(data))
	}
	d.Timestamp = int64(binary.BigEndian.Uint64(data))
	d.Attempts = binary.BigEndian.Uint16(data[8:])
	copy(d.ID[:], data[10:26])
	d.Body = data[26:]
	return d, nil
}

// Close ends the connection.
func (c *Wire) Close() { c.Conn.Close() }
