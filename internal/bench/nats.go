package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
)

// NATS is a nats-server without JetStream: it passes messages on and keeps
// none. A channel is a queue group.
type NATS struct {
	Addr    string // HOST:PORT of clients
	Monitor string // HOST:PORT of its HTTP monitoring, which counts
}

// natsBuffer is more than any frame of the bench; a frame is handed out of the
// reader's buffer.
const natsBuffer = 2 << 20

// natsFrame is one operation of the server's, of
// https://docs.nats.io/reference/reference-protocols/nats-protocol.
type natsFrame struct {
	op      byte   // 'M' for MSG and HMSG, 'O' for PONG, 'P' for PING, '+', '-', 'I'
	reply   []byte // MSG: where to answer
	header  []byte // HMSG: header block
	payload []byte // MSG: body; else the line
}

type natsConn struct {
	conn net.Conn
	r    *bufio.Reader
	out  []byte
}

func dialNATS(ctx context.Context, addr string) (*natsConn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial server: %w", err)
	}
	c := &natsConn{conn: conn, r: bufio.NewReaderSize(conn, natsBuffer)}
	c.out = append(c.out, `CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1,"name":"tidings-bench"}`+"\r\n"...)
	if err := c.pingPong(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// pingPong writes what is queued, and waits until the server has dealt with it.
func (c *natsConn) pingPong() error {
	c.out = append(c.out, "PING\r\n"...)
	if err := c.flush(); err != nil {
		return err
	}
	return c.pong()
}

func (c *natsConn) flush() error {
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

func (c *natsConn) pong() error {
	for {
		f, err := c.frame()
		if err != nil {
			return err
		}
		if f.op == 'O' {
			return nil
		}
	}
}

// frame waits for an operation; pings are answered and errors returned. It is
// valid until the next call.
func (c *natsConn) frame() (natsFrame, error) {
	need := 1
	for {
		if _, err := c.r.Peek(need); err != nil {
			return natsFrame{}, fmt.Errorf("read frame: %w", err)
		}
		b, _ := c.r.Peek(c.r.Buffered())
		f, size, err := parseNATS(b)
		if err != nil {
			return f, err
		}
		if size > len(b) {
			need = size
			continue
		}
		if _, err := c.r.Discard(size); err != nil {
			return f, err
		}
		switch f.op {
		case 'P':
			if _, err := c.conn.Write([]byte("PONG\r\n")); err != nil {
				return f, fmt.Errorf("answer ping: %w", err)
			}
			return f, nil // not read on: what was handed out must not move
		case '-':
			return f, fmt.Errorf("server answers %q", f.payload)
		default:
			return f, nil
		}
	}
}

// waits says that a whole operation is in the buffer.
func (c *natsConn) waits() bool {
	b, _ := c.r.Peek(c.r.Buffered())
	_, size, err := parseNATS(b)
	return err == nil && size <= len(b)
}

// parseNATS reads the operation that b begins with. size is how many bytes it
// takes, or, above len(b), how many are needed to go on.
func parseNATS(b []byte) (f natsFrame, size int, err error) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		return f, len(b) + 1, nil
	}
	line := bytes.TrimSuffix(b[:end], []byte("\r"))
	size = end + 1
	f.payload = line
	switch {
	case bytes.HasPrefix(line, []byte("MSG ")), bytes.HasPrefix(line, []byte("HMSG ")):
		return parseNATSMessage(b, line, size)
	case bytes.HasPrefix(line, []byte("PING")):
		f.op = 'P'
	case bytes.HasPrefix(line, []byte("PONG")):
		f.op = 'O'
	case bytes.HasPrefix(line, []byte("INFO")):
		f.op = 'I'
	case len(line) > 0 && (line[0] == '+' || line[0] == '-'):
		f.op = line[0]
	default:
		return f, size, fmt.Errorf("server sends %.40q", line)
	}
	return f, size, nil
}

// parseNATSMessage reads MSG subject sid [reply] size, or HMSG … header total.
func parseNATSMessage(b, line []byte, begin int) (f natsFrame, size int, err error) {
	f.op = 'M'
	var words [6][]byte
	n := 0
	for rest := line; n < len(words) && len(rest) > 0; n++ {
		words[n], rest, _ = bytes.Cut(rest, []byte(" "))
	}
	sizes := 1
	if line[0] == 'H' {
		sizes = 2
	}
	if n < 3+sizes {
		return f, 0, fmt.Errorf("server sends %.40q", line)
	}
	total, err := strconv.Atoi(string(words[n-1]))
	if err != nil || total < 0 || total > natsBuffer/2 {
		return f, 0, fmt.Errorf("server sends %.40q", line)
	}
	head := 0
	if sizes == 2 {
		if head, err = strconv.Atoi(string(words[n-2])); err != nil || head < 0 || head > total {
			return f, 0, fmt.Errorf("server sends %.40q", line)
		}
	}
	if n == 4+sizes {
		f.reply = words[3]
	}
	if size = begin + total + 2; size > len(b) {
		return f, size, nil
	}
	f.header, f.payload = b[begin:begin+head], b[begin+head:begin+total]
	return f, size, nil
}

func (c *natsConn) pub(subject, reply string, body []byte) {
	c.out = append(c.out, "PUB "...)
	c.out = append(append(c.out, subject...), ' ')
	if reply != "" {
		c.out = append(append(c.out, reply...), ' ')
	}
	c.out = append(strconv.AppendInt(c.out, int64(len(body)), 10), "\r\n"...)
	c.out = append(append(c.out, body...), "\r\n"...)
}

// Prepare implements Target: there is nothing to make.
func (n *NATS) Prepare(context.Context, string, []string) error { return nil }

// Drop implements Target.
func (n *NATS) Drop(context.Context, string) error { return nil }

// Received implements counter.
func (n *NATS) Received(ctx context.Context) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Monitor+"/varz", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var v struct {
		In int64 `json:"in_msgs"`
	}
	return v.In, json.NewDecoder(res.Body).Decode(&v)
}

// Publisher implements Target. An answer means that the server has read the
// command: a PING follows each, and its PONG is awaited.
func (n *NATS) Publisher(ctx context.Context, topic string) (Publisher, error) {
	c, err := dialNATS(ctx, n.Addr)
	if err != nil {
		return nil, err
	}
	return &natsPublisher{c, topic}, nil
}

type natsPublisher struct {
	*natsConn
	topic string
}

func (p *natsPublisher) Send(bodies [][]byte) error {
	for _, b := range bodies {
		p.pub(p.topic, "", b)
	}
	p.out = append(p.out, "PING\r\n"...)
	return nil
}

func (p *natsPublisher) Flush() error { return p.flush() }
func (p *natsPublisher) Await() error { return p.pong() }
func (p *natsPublisher) Close() error { return p.conn.Close() }

// Consumer implements Target.
func (n *NATS) Consumer(ctx context.Context, topic, channel string, _ int) (Consumer, error) {
	c, err := dialNATS(ctx, n.Addr)
	if err != nil {
		return nil, err
	}
	c.out = fmt.Appendf(c.out, "SUB %s %s 1\r\n", topic, channel)
	if err := c.pingPong(); err != nil {
		c.conn.Close()
		return nil, err
	}
	return &natsConsumer{c}, nil
}

type natsConsumer struct{ *natsConn }

// Receive implements Consumer.
func (k *natsConsumer) Receive(dst []Message) ([]Message, error) {
	for len(dst) == 0 || k.waits() {
		f, err := k.frame()
		if err != nil {
			return dst, err
		}
		if f.op == 'M' {
			dst = append(dst, Message{Body: f.payload})
		}
	}
	return dst, nil
}

// Finish implements Consumer: there is nothing to finish.
func (k *natsConsumer) Finish([]Message) error { return nil }

func (k *natsConsumer) Close() error { return k.conn.Close() }
