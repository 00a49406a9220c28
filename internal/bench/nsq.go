package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// NSQ is a server that speaks NSQ TCP V2.
type NSQ struct {
	TCP  string // HOST:PORT
	HTTP string // HOST:PORT; empty: topics can't be dropped
	// Unbuffered asks the server to write every delivery at once (output buffer
	// off), which a stock client does not.
	Unbuffered bool
	// MsgTimeout is asked for by consumers; 0 is the server's default.
	MsgTimeout time.Duration
}

// NSQ protocol constants, https://nsq.io/clients/tcp_protocol_spec.html.
const (
	nsqMagic    = "  V2"
	nsqResponse = 0
	nsqError    = 1
	nsqMessage  = 2
	nsqHead     = 10 // timestamp and attempts before a delivery's id
	nsqID       = 16
	nsqMaxFrame = 64 << 20 // bytes; a longer frame is a broken server
	// nsqWindow is what servers allow by default (--max-rdy-count).
	nsqWindow = 2500
)

var nop = []byte("NOP\n")

// Prepare implements Target: subscribing makes what is not there.
func (n *NSQ) Prepare(ctx context.Context, topic string, channels []string) error {
	for _, c := range channels {
		k, err := n.Consumer(ctx, topic, c, -1)
		if err != nil {
			return err
		}
		if err := k.Close(); err != nil {
			return fmt.Errorf("close connection: %w", err)
		}
	}
	return nil
}

// Drop implements Target.
func (n *NSQ) Drop(ctx context.Context, topic string) error {
	if n.HTTP == "" {
		return errors.New("drop topic: no HTTP address known")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+n.HTTP+"/topic/delete?topic="+url.QueryEscape(topic), nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("drop topic: %w", err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusNotFound {
		return fmt.Errorf("drop topic %s: %s", topic, res.Status)
	}
	return nil
}

// nsqConn is a connection with its own frame reader.
type nsqConn struct {
	conn net.Conn
	r    *bufio.Reader
	out  []byte
	body []byte // of the last frame that did not fit into r's buffer
}

type identify struct {
	ClientID            string `json:"client_id"`
	UserAgent           string `json:"user_agent"`
	FeatureNegotiation  bool   `json:"feature_negotiation"`
	HeartbeatInterval   int    `json:"heartbeat_interval,omitempty"`
	OutputBufferSize    int    `json:"output_buffer_size,omitempty"`
	OutputBufferTimeout int    `json:"output_buffer_timeout,omitempty"`
	MsgTimeout          int64  `json:"msg_timeout,omitempty"`
}

const dialTimeout = 10 * time.Second

func (n *NSQ) dial(ctx context.Context, id identify, buffer int) (*nsqConn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", n.TCP)
	if err != nil {
		return nil, fmt.Errorf("dial server: %w", err)
	}
	c := &nsqConn{conn: conn, r: bufio.NewReaderSize(conn, buffer)}
	id.ClientID, id.UserAgent = "tidings-bench", "tidings-bench"
	if err := c.handshake(id); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *nsqConn) handshake(id identify) error {
	if err := c.conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	body, err := json.Marshal(id)
	if err != nil {
		return err
	}
	c.out = append(c.out, nsqMagic+"IDENTIFY\n"...)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(len(body)))
	c.out = append(c.out, body...)
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.ok(); err != nil {
		return fmt.Errorf("identify: %w", err)
	}
	return c.conn.SetDeadline(time.Time{})
}

func (c *nsqConn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	if err != nil {
		return fmt.Errorf("write command: %w", err)
	}
	return nil
}

// frame waits for a frame. Its data is valid until the next call.
func (c *nsqConn) frame() (kind int, data []byte, err error) {
	head, err := c.r.Peek(8)
	if err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", err)
	}
	size, kind := int(binary.BigEndian.Uint32(head))-4, int(binary.BigEndian.Uint32(head[4:]))
	if size < 0 || size > nsqMaxFrame {
		return 0, nil, fmt.Errorf("read frame: size %d is out of range", size)
	}
	if size+8 <= c.r.Size() {
		whole, err := c.r.Peek(size + 8)
		if err != nil {
			return 0, nil, fmt.Errorf("read frame: %w", err)
		}
		_, err = c.r.Discard(size + 8)
		return kind, whole[8:], err
	}
	if _, err := c.r.Discard(8); err != nil {
		return 0, nil, err
	}
	if cap(c.body) < size {
		c.body = make([]byte, size)
	}
	if _, err := io.ReadFull(c.r, c.body[:size]); err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", err)
	}
	return kind, c.body[:size], nil
}

// waits says that a whole frame is in the buffer.
func (c *nsqConn) waits() bool {
	if c.r.Buffered() < 8 {
		return false
	}
	head, err := c.r.Peek(4)
	return err == nil && c.r.Buffered() >= 4+int(binary.BigEndian.Uint32(head))
}

// ok waits for an answer that is not an error.
func (c *nsqConn) ok() error {
	for {
		kind, data, err := c.frame()
		if err != nil {
			return err
		}
		switch {
		case kind == nsqError:
			return fmt.Errorf("server answers %q", data)
		case kind == nsqMessage:
			return errors.New("server sends a message where an answer was due")
		case string(data) == "_heartbeat_":
			if _, err := c.conn.Write(nop); err != nil {
				return fmt.Errorf("answer heartbeat: %w", err)
			}
		default:
			return nil
		}
	}
}

// Publisher implements Target.
func (n *NSQ) Publisher(ctx context.Context, topic string) (Publisher, error) {
	c, err := n.dial(ctx, identify{HeartbeatInterval: -1}, 16<<10)
	if err != nil {
		return nil, err
	}
	return &nsqPublisher{nsqConn: c, topic: topic}, nil
}

type nsqPublisher struct {
	*nsqConn
	topic string
}

// Send implements Publisher: one body is a PUB, more are an MPUB.
func (p *nsqPublisher) Send(bodies [][]byte) error {
	if len(bodies) == 1 {
		p.out = append(p.out, "PUB "...)
		p.out = append(append(p.out, p.topic...), '\n')
		p.out = binary.BigEndian.AppendUint32(p.out, uint32(len(bodies[0])))
		p.out = append(p.out, bodies[0]...)
		return nil
	}
	size := 4
	for _, b := range bodies {
		size += 4 + len(b)
	}
	p.out = append(p.out, "MPUB "...)
	p.out = append(append(p.out, p.topic...), '\n')
	p.out = binary.BigEndian.AppendUint32(p.out, uint32(size))
	p.out = binary.BigEndian.AppendUint32(p.out, uint32(len(bodies)))
	for _, b := range bodies {
		p.out = binary.BigEndian.AppendUint32(p.out, uint32(len(b)))
		p.out = append(p.out, b...)
	}
	return nil
}

// SetTopic implements wanderer.
func (p *nsqPublisher) SetTopic(topic string) { p.topic = topic }

// SendLater implements deferrer.
func (p *nsqPublisher) SendLater(body []byte, delayMs int64) error {
	p.out = append(p.out, "DPUB "...)
	p.out = append(append(p.out, p.topic...), ' ')
	p.out = append(strconv.AppendInt(p.out, delayMs, 10), '\n')
	p.out = binary.BigEndian.AppendUint32(p.out, uint32(len(body)))
	p.out = append(p.out, body...)
	return nil
}

func (p *nsqPublisher) Flush() error { return p.flush() }
func (p *nsqPublisher) Await() error { return p.ok() }
func (p *nsqPublisher) Close() error { return p.conn.Close() }

// Consumer implements Target. A window below 0 asks for nothing yet.
func (n *NSQ) Consumer(ctx context.Context, topic, channel string, window int) (Consumer, error) {
	id := identify{MsgTimeout: n.MsgTimeout.Milliseconds()}
	if n.Unbuffered {
		id.OutputBufferSize, id.OutputBufferTimeout = -1, -1
	}
	c, err := n.dial(ctx, id, 128<<10)
	if err != nil {
		return nil, err
	}
	if window == 0 {
		window = nsqWindow
	}
	k := &nsqConsumer{nsqConn: c}
	c.out = fmt.Appendf(c.out, "SUB %s %s\n", topic, channel)
	err = c.flush()
	if err == nil {
		err = c.ok()
	}
	if err == nil && window > 0 {
		err = k.SetWindow(window)
	}
	if err != nil {
		c.conn.Close()
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return k, nil
}

type nsqConsumer struct{ *nsqConn }

// SetWindow implements pausable. It may be called beside Receive.
func (k *nsqConsumer) SetWindow(n int) error {
	_, err := fmt.Fprintf(k.conn, "RDY %d\n", n)
	return err
}

// Receive implements Consumer. It returns what one read of the socket brought.
func (k *nsqConsumer) Receive(dst []Message) ([]Message, error) {
	for {
		// Frames are handed out of the reader's buffer: all that are whole, and
		// none after them, so that nothing moves under what was returned.
		kind, data, err := k.frame()
		if err != nil {
			return dst, err
		}
		if dst, err = k.one(dst, kind, data); err != nil {
			return dst, err
		}
		for k.waits() {
			if kind, data, err = k.frame(); err != nil {
				return dst, err
			}
			if dst, err = k.one(dst, kind, data); err != nil {
				return dst, err
			}
		}
		if len(dst) > 0 {
			return dst, nil
		}
	}
}

func (k *nsqConsumer) one(dst []Message, kind int, data []byte) ([]Message, error) {
	switch {
	case kind == nsqMessage && len(data) >= nsqHead+nsqID:
		return append(dst, Message{Ref: data[nsqHead : nsqHead+nsqID], Body: data[nsqHead+nsqID:]}), nil
	case kind == nsqResponse && string(data) == "_heartbeat_":
		_, err := k.conn.Write(nop)
		return dst, err
	case kind == nsqResponse:
		return dst, nil
	}
	return dst, fmt.Errorf("server sends %q", data)
}

// Finish implements Consumer: one FIN each, one write.
func (k *nsqConsumer) Finish(ms []Message) error {
	for i := range ms {
		k.out = append(k.out, "FIN "...)
		k.out = append(append(k.out, ms[i].Ref...), '\n')
	}
	return k.flush()
}

func (k *nsqConsumer) Close() error { return k.conn.Close() }

// For sets what a workload needs of consumers: messages that it holds
// unfinished must not come back.
func (n *NSQ) For(w Workload) {
	if w.Name == "timers" {
		n.MsgTimeout = min(w.Delay+10*time.Minute, 15*time.Minute)
	}
}
