package lookup

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
)

const (
	// magic opens the protocol.
	magic = "  V1"
	// lineBytesMax bounds a command's line.
	lineBytesMax = 16 << 10
	// identifyBytesMax bounds the body of IDENTIFY.
	identifyBytesMax = 64 << 10
	// writePatience is how long a client may take to read its answers.
	writePatience = 10 * time.Second
	// lingerPatience and lingerBytesMax bound what is read from a client that
	// has been refused, so that it gets to see why.
	lingerPatience = 500 * time.Millisecond
	lingerBytesMax = 1 << 20
)

// refusal is an error as the client is told of it; it ends the connection.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

func refuse(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

// conn is one connection of an nsqd, and one goroutine.
type conn struct {
	f  *Front
	nc net.Conn
	in *bufio.Reader
	// out is flushed when no further command has come in.
	out  *bufio.Writer
	self *producer // nil before IDENTIFY
}

func newConn(f *Front, nc net.Conn) *conn {
	return &conn{f: f, nc: nc, in: bufio.NewReaderSize(nc, lineBytesMax), out: bufio.NewWriter(nc)}
}

// run serves the connection until it ends, and takes its registrations with it.
// There is no deadline for a next command: a silent nsqd is left out of lookups
// when its pings fail to come, and keep-alive finds out about a dead one.
func (c *conn) run() {
	err := c.serve()
	if c.self != nil {
		c.f.registry.leave(c.self)
	}
	if refused, ok := errors.AsType[*refusal](err); ok {
		c.f.log.Info("refused a command of an nsqd", "remote", c.remote(), "error", refused.text)
		if c.answer([]byte(refused.text)) == nil && c.flush() == nil {
			c.linger()
		}
		return
	}
	if c.self != nil {
		c.f.log.Info("nsqd left", "remote", c.remote(), "tcp", c.self.address())
	}
}

func (c *conn) remote() string { return c.nc.RemoteAddr().String() }

// address is where clients reach the nsqd.
func (p *Peer) address() string { return fmt.Sprintf("%s:%d", p.BroadcastAddress, p.TCPPort) }

// linger reads on for a moment, because closing with unread input would take
// the answer away from the client.
func (c *conn) linger() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok && half.CloseWrite() != nil {
		return
	}
	if c.nc.SetReadDeadline(time.Now().Add(lingerPatience)) == nil {
		_, _ = io.CopyN(io.Discard, c.in, lingerBytesMax)
	}
}

func (c *conn) serve() error {
	opening := make([]byte, len(magic))
	if _, err := io.ReadFull(c.in, opening); err != nil {
		return err
	}
	if string(opening) != magic {
		return refuse("E_BAD_PROTOCOL")
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		words := strings.Split(strings.TrimSpace(string(line)), " ")
		answer, err := c.exec(words[0], words[1:])
		if err == nil {
			err = c.answer(answer)
		}
		if err == nil && c.in.Buffered() == 0 {
			err = c.flush()
		}
		if err != nil {
			return err
		}
	}
}

// answer writes what stands behind its length: there is no frame type here.
func (c *conn) answer(data []byte) error {
	if err := c.nc.SetWriteDeadline(time.Now().Add(writePatience)); err != nil {
		return err
	}
	if _, err := c.out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(data)))); err != nil {
		return err
	}
	_, err := c.out.Write(data)
	return err
}

func (c *conn) flush() error { return c.out.Flush() }

var okAnswer = []byte("OK")

func (c *conn) exec(command string, params []string) ([]byte, error) {
	switch command {
	case "PING":
		if c.self != nil { // it may come first
			c.f.registry.ping(c.self)
		}
		return okAnswer, nil
	case "IDENTIFY":
		return c.identify()
	case "REGISTER", "UNREGISTER":
		return c.registration(command, params)
	}
	return nil, refuse("E_INVALID invalid command %s", command)
}

func (c *conn) registration(command string, params []string) ([]byte, error) {
	switch {
	case c.self == nil:
		return nil, refuse("E_INVALID client must IDENTIFY")
	case len(params) == 0:
		return nil, refuse("E_INVALID %s insufficient number of params", command)
	case !broker.ValidTopic(params[0]):
		return nil, refuse("E_BAD_TOPIC %s topic name '%s' is not valid", command, params[0])
	}
	topic, channel := params[0], ""
	if len(params) > 1 {
		channel = params[1]
	}
	if channel != "" && !broker.ValidChannel(channel) {
		return nil, refuse("E_BAD_CHANNEL %s channel name '%s' is not valid", command, channel)
	}
	c.f.log.Debug("registration", "command", command, "remote", c.remote(), "topic", topic, "channel", channel)
	if command == "UNREGISTER" {
		c.f.registry.unregister(c.self, topic, channel)
		return okAnswer, nil
	}
	if err := c.f.registry.register(c.self, topic, channel); err != nil {
		return nil, refuse("E_INVALID %s %v", command, err)
	}
	return okAnswer, nil
}

// identity is the answer to IDENTIFY.
type identity struct {
	BroadcastAddress string `json:"broadcast_address"`
	Hostname         string `json:"hostname"`
	HTTPPort         int    `json:"http_port"`
	TCPPort          int    `json:"tcp_port"`
	Version          string `json:"version"`
}

func (c *conn) identify() ([]byte, error) {
	if c.self != nil {
		return nil, refuse("E_INVALID cannot IDENTIFY again")
	}
	var size [4]byte
	if _, err := io.ReadFull(c.in, size[:]); err != nil {
		return nil, refuse("E_BAD_BODY IDENTIFY failed to read body size")
	}
	n := int32(binary.BigEndian.Uint32(size[:]))
	if n < 0 || n > identifyBytesMax {
		return nil, refuse("E_BAD_BODY IDENTIFY body size %d is not between 0 and %d", n, identifyBytesMax)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.in, body); err != nil {
		return nil, refuse("E_BAD_BODY IDENTIFY failed to read body")
	}
	p := &producer{id: c.remote()}
	if err := json.Unmarshal(body, &p.Peer); err != nil {
		return nil, refuse("E_BAD_BODY IDENTIFY failed to decode JSON body")
	}
	p.RemoteAddress = c.remote()
	if p.BroadcastAddress == "" || p.TCPPort == 0 || p.HTTPPort == 0 || p.Version == "" {
		return nil, refuse("E_BAD_BODY IDENTIFY missing fields")
	}
	o := &c.f.o
	answer, err := json.Marshal(identity{o.BroadcastAddress, hostName(), port(o.HTTP), port(o.TCP), o.Version})
	if err != nil {
		return nil, err
	}
	c.self = p
	c.f.registry.join(p)
	c.f.log.Info("nsqd came", "remote", c.remote(), "tcp", p.address(), "http_port", p.HTTPPort, "version", p.Version)
	return answer, nil
}
