package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync/atomic"
)

// Redis is a redis-server; a topic is a stream, a channel a consumer group.
type Redis struct {
	Addr string // HOST:PORT

	names atomic.Int64 // consumers so far
}

// redisRead is how many entries one XREADGROUP may bring.
const redisRead = 500

type redisConn struct {
	conn net.Conn
	r    *bufio.Reader
	out  []byte
}

func (d *Redis) dial(ctx context.Context) (*redisConn, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", d.Addr)
	if err != nil {
		return nil, fmt.Errorf("dial server: %w", err)
	}
	return &redisConn{conn: conn, r: bufio.NewReaderSize(conn, 128<<10)}, nil
}

// command queues a command in RESP, https://redis.io/docs/reference/protocol-spec.
func (c *redisConn) command(words ...string) {
	c.array(len(words))
	for _, w := range words {
		c.word(w)
	}
}

func (c *redisConn) array(n int) {
	c.out = append(strconv.AppendInt(append(c.out, '*'), int64(n), 10), "\r\n"...)
}

func (c *redisConn) word(w string) { c.out = appendBulk(c.out, w) }

func appendBulk[T string | []byte](out []byte, w T) []byte {
	out = append(strconv.AppendInt(append(out, '$'), int64(len(w)), 10), "\r\n"...)
	return append(append(out, w...), "\r\n"...)
}

func (c *redisConn) flush() error {
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

// head reads the line that begins every reply: its kind and its number, which
// is a length for '$' and '*'.
func (c *redisConn) head() (kind byte, n int, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return 0, 0, fmt.Errorf("read reply: %w", err)
	}
	if len(line) < 3 {
		return 0, 0, fmt.Errorf("server sends %q", line)
	}
	kind, text := line[0], line[1:len(line)-2]
	switch kind {
	case '-':
		return 0, 0, fmt.Errorf("server answers %q", text)
	case '+':
		return kind, 0, nil
	case '$', '*', ':':
		if n, err = strconv.Atoi(string(text)); err == nil {
			return kind, n, nil
		}
	}
	return 0, 0, fmt.Errorf("server sends %.40q", line)
}

// skip reads a reply that is not an error and not an array.
func (c *redisConn) skip() error {
	kind, n, err := c.head()
	if err == nil && kind == '$' && n >= 0 {
		_, err = c.r.Discard(n + 2)
	}
	return err
}

// Prepare implements Target.
func (d *Redis) Prepare(ctx context.Context, topic string, channels []string) error {
	c, err := d.dial(ctx)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	for _, name := range channels {
		if err := c.group(topic, name); err != nil {
			return err
		}
	}
	return nil
}

// group makes a consumer group that begins with the first entry.
func (c *redisConn) group(topic, name string) error {
	c.command("XGROUP", "CREATE", topic, name, "0", "MKSTREAM")
	if err := c.flush(); err != nil {
		return err
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		return fmt.Errorf("make group: %w", err)
	}
	if line[0] == '-' && (len(line) < 10 || line[1:10] != "BUSYGROUP") {
		return fmt.Errorf("make group: server answers %q", line)
	}
	return nil
}

// Drop implements Target.
func (d *Redis) Drop(ctx context.Context, topic string) error {
	c, err := d.dial(ctx)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	c.command("DEL", topic)
	if err := c.flush(); err != nil {
		return err
	}
	return c.skip()
}

// Publisher implements Target: a batch is pipelined XADDs.
func (d *Redis) Publisher(ctx context.Context, topic string) (Publisher, error) {
	c, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &redisPublisher{redisConn: c, topic: topic, sizes: newSizes()}, nil
}

type redisPublisher struct {
	*redisConn
	topic string
	sizes sizes
}

func (p *redisPublisher) Send(bodies [][]byte) error {
	for _, b := range bodies {
		p.array(5)
		p.word("XADD")
		p.word(p.topic)
		p.out = append(p.out, "$1\r\n*\r\n$1\r\nb\r\n"...)
		p.out = appendBulk(p.out, b)
	}
	p.sizes <- len(bodies)
	return nil
}

func (p *redisPublisher) Flush() error { return p.flush() }

func (p *redisPublisher) Await() error {
	if err := p.skip(); err != nil {
		return err
	}
	for n := <-p.sizes; n > 1; n-- {
		if err := p.skip(); err != nil {
			return err
		}
	}
	return nil
}

func (p *redisPublisher) Close() error { return p.conn.Close() }

// Consumer implements Target. The window is what one read brings.
func (d *Redis) Consumer(ctx context.Context, topic, channel string, window int) (Consumer, error) {
	c, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.group(topic, channel); err != nil {
		c.conn.Close()
		return nil, err
	}
	if window == 0 || window > redisRead {
		window = redisRead
	}
	name := fmt.Sprintf("k%d", d.names.Add(1))
	return &redisConsumer{redisConn: c, topic: topic, group: channel, name: name, count: strconv.Itoa(window)}, nil
}

type redisConsumer struct {
	*redisConn
	topic, group, name, count string
	acks                      int // replies to XACK not yet read
	arena                     []byte
	ends                      []int // of ids and bodies in turn, in arena
}

// Receive implements Consumer. What Finish queued goes out with the request.
func (k *redisConsumer) Receive(dst []Message) ([]Message, error) {
	k.command("XREADGROUP", "GROUP", k.group, k.name, "COUNT", k.count, "BLOCK", "0", "STREAMS", k.topic, ">")
	if err := k.flush(); err != nil {
		return dst, err
	}
	for ; k.acks > 0; k.acks-- {
		if err := k.skip(); err != nil {
			return dst, err
		}
	}
	if err := k.entries(); err != nil {
		return dst, err
	}
	begin := 0
	for i := 0; i+1 < len(k.ends); i += 2 {
		id, body := k.arena[begin:k.ends[i]], k.arena[k.ends[i]:k.ends[i+1]]
		begin = k.ends[i+1]
		dst = append(dst, Message{Ref: id, Body: body})
	}
	return dst, nil
}

var errReply = errors.New("server's reply is not of the expected form")

// entries reads [[topic [[id [field body]] …]]] into the arena.
func (k *redisConsumer) entries() error {
	k.arena, k.ends = k.arena[:0], k.ends[:0]
	if err := k.wants(1); err != nil {
		return err
	}
	if err := k.wants(2); err != nil {
		return err
	}
	if err := k.skip(); err != nil {
		return err
	}
	kind, n, err := k.head()
	if err != nil || kind != '*' {
		return errors.Join(errReply, err)
	}
	for range n {
		if err := k.entry(); err != nil {
			return err
		}
	}
	return nil
}

func (k *redisConsumer) entry() error {
	if err := k.wants(2); err != nil {
		return err
	}
	if err := k.keep(); err != nil {
		return err
	}
	if err := k.wants(2); err != nil {
		return err
	}
	if err := k.skip(); err != nil {
		return err
	}
	return k.keep()
}

// wants reads the head of an array of n.
func (k *redisConsumer) wants(n int) error {
	kind, got, err := k.head()
	if err != nil {
		return err
	}
	if kind != '*' || got != n {
		return errReply
	}
	return nil
}

// keep reads a string into the arena.
func (k *redisConsumer) keep() error {
	kind, n, err := k.head()
	if err != nil {
		return err
	}
	if kind != '$' || n < 0 {
		return errReply
	}
	at := len(k.arena)
	k.arena = append(k.arena, make([]byte, n)...)
	k.ends = append(k.ends, len(k.arena))
	if _, err := io.ReadFull(k.r, k.arena[at:]); err != nil {
		return fmt.Errorf("read reply: %w", err)
	}
	_, err = k.r.Discard(2)
	return err
}

// Finish implements Consumer: one XACK for all.
func (k *redisConsumer) Finish(ms []Message) error {
	if len(ms) == 0 {
		return nil
	}
	k.array(3 + len(ms))
	k.word("XACK")
	k.word(k.topic)
	k.word(k.group)
	for i := range ms {
		k.out = appendBulk(k.out, ms[i].Ref)
	}
	k.acks++
	return nil
}

func (k *redisConsumer) Close() error { return k.conn.Close() }
