package nsq

import (
	"bytes"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

const (
	// keyBytesMax bounds key= and id= of a message.
	keyBytesMax = 1024
	// inlineBytesMax is the largest body that is taken from the read buffer
	// together with its neighbours; larger ones are read past it.
	inlineBytesMax = 32 << 10
	// namesMax bounds the topic names that a connection remembers.
	namesMax = 256
)

func pub(c *conn, w [][]byte) error {
	topic, err := c.topic("PUB", w[1])
	if err != nil {
		return err
	}
	var m partition.Message
	if err := options("PUB", &m, w[2:]); err != nil {
		return err
	}
	return c.message("PUB", topic, m)
}

func dpub(c *conn, w [][]byte) error {
	topic, err := c.topic("DPUB", w[1])
	if err != nil {
		return err
	}
	ms, ok := parseUint(w[2])
	if !ok {
		return refuse("E_INVALID", "DPUB could not parse timeout %s", w[2])
	}
	delay, most := millis(ms), c.front.o.MaxDeferTimeout
	if delay > most {
		return refuse("E_INVALID", "DPUB timeout %d out of range 0-%d", ms, most.Milliseconds())
	}
	var m partition.Message
	if err := options("DPUB", &m, w[3:]); err != nil {
		return err
	}
	if delay > 0 {
		m.DueNs = time.Now().Add(delay).UnixNano()
	}
	return c.message("DPUB", topic, m)
}

// topic checks a topic name; those seen before are known.
func (c *conn) topic(command string, name []byte) (string, error) {
	if string(name) == c.name && c.name != "" {
		return c.name, nil
	}
	if known, ok := c.names[string(name)]; ok {
		c.name = known
		return known, nil
	}
	if !validName(name) {
		again := ""
		if command == "MPUB" {
			again = "E_BAD_TOPIC " // nsqd says it twice, and clients' tests compare it
		}
		return "", refuse("E_BAD_TOPIC", "%s%s topic name %q is not valid", again, command, name)
	}
	if len(c.names) >= namesMax || c.names == nil {
		c.names = make(map[string]string)
	}
	known := string(name)
	c.names[known] = known
	return known, nil
}

// options reads key= and id= from the words behind a command; nsqd ignores
// further words, and so do we with others.
func options(command string, m *partition.Message, words [][]byte) error {
	for _, w := range words {
		if key, ok := bytes.CutPrefix(w, []byte("key=")); ok {
			if len(key) > keyBytesMax {
				return refuse("E_INVALID", "%s key too big %d > %d", command, len(key), keyBytesMax)
			}
			m.Key = key
		} else if id, ok := bytes.CutPrefix(w, []byte("id=")); ok {
			if len(id) > keyBytesMax {
				return refuse("E_INVALID", "%s id too big %d > %d", command, len(id), keyBytesMax)
			}
			m.ID = id
		}
	}
	return nil
}

// message reads the body of a PUB or DPUB and gathers the message.
func (c *conn) message(command, topic string, m partition.Message) error {
	g := &c.group
	if len(c.ops) > 0 || len(g.msgs) > 0 && (g.topic != topic || g.command != command || !sameRoute(&g.msgs[0], &m)) {
		if err := c.settle(); err != nil {
			return err
		}
	}
	if c.in.buffered() < 4 {
		m.Key, m.ID = bytes.Clone(m.Key), bytes.Clone(m.ID)
	}
	n, err := c.size()
	switch {
	case err != nil:
		return c.cut(err, "E_BAD_MESSAGE", "%s failed to read message body size", command)
	case n <= 0:
		return refuse("E_BAD_MESSAGE", "%s invalid message body size %d", command, n)
	case int64(n) > c.front.o.MaxMsgSize:
		return refuse("E_BAD_MESSAGE", "%s message too big %d > %d", command, n, c.front.o.MaxMsgSize)
	}
	if c.in.buffered() < int(n) {
		m.Key, m.ID = bytes.Clone(m.Key), bytes.Clone(m.ID)
		if n > inlineBytesMax {
			return c.large(command, topic, m, int(n))
		}
		if err := c.in.need(int(n)); err != nil {
			return c.cut(err, "E_BAD_MESSAGE", "%s failed to read message body", command)
		}
	}
	m.Body = c.in.next(int(n))
	if err := c.authorize(command, topic, ""); err != nil {
		return err
	}
	g.command, g.topic = command, topic
	g.msgs = append(g.msgs, m)
	g.bytes += len(m.Body) + len(m.Key) + len(m.ID)
	return nil
}

// sameRoute reports whether two messages go to the same partition for sure:
// the broker routes a batch by its first message.
func sameRoute(a, b *partition.Message) bool {
	return bytes.Equal(a.Key, b.Key) && (len(a.Key) > 0 || bytes.Equal(a.ID, b.ID))
}

// large reads a body of n bytes that is not in the read buffer, and publishes
// the message by itself.
func (c *conn) large(command, topic string, m partition.Message, n int) error {
	if err := c.settle(); err != nil {
		return err
	}
	p := c.front.newPublish(command, topic)
	if err := c.readInto(p, n); err != nil {
		p.drop()
		if fault.CodeOf(err) == fault.Overloaded {
			return publishRefusal(command, err)
		}
		return c.cut(err, "E_BAD_MESSAGE", "%s failed to read message body", command)
	}
	if err := c.authorize(command, topic, ""); err != nil {
		p.drop()
		return err
	}
	m.Body = p.body
	p.msgs = append(p.msgs[:0], m)
	p.answers = 1
	return c.submit(p)
}

// mpub publishes a batch. Its declared length is checked for its range only,
// as in nsqd: count and sizes rule.
func mpub(c *conn, w [][]byte) error {
	topic, err := c.topic("MPUB", w[1])
	if err != nil {
		return err
	}
	if err := c.authorize("MPUB", topic, ""); err != nil {
		return err
	}
	var m partition.Message
	if err := options("MPUB", &m, w[2:]); err != nil {
		return err
	}
	m.Key, m.ID = bytes.Clone(m.Key), bytes.Clone(m.ID)
	if err := c.settle(); err != nil {
		return err
	}
	n, err := c.size()
	most := c.front.o.MaxBodySize
	switch {
	case err != nil:
		return c.cut(err, "E_BAD_BODY", "MPUB failed to read body size")
	case n <= 0:
		return refuse("E_BAD_BODY", "MPUB invalid body size %d", n)
	case int64(n) > most:
		return refuse("E_BAD_BODY", "MPUB body too big %d > %d", n, most)
	}
	p := c.front.newPublish("MPUB", topic)
	if size := min(int(n), bodyStartBytes); cap(p.body) < size {
		p.body = make([]byte, 0, size)
	}
	if err := c.readBatch(p); err != nil {
		p.drop()
		if fault.CodeOf(err) == fault.Overloaded {
			return publishRefusal("MPUB", err)
		}
		return err
	}
	p.name(m.Key, m.ID)
	p.answers = 1
	return c.submit(p)
}

// readBatch reads the count and the messages of an MPUB into p.
func (c *conn) readBatch(p *publish) error {
	most := c.front.o.MaxBodySize
	count, err := c.size()
	if err != nil {
		return c.cut(err, "E_BAD_BODY", "MPUB failed to read message count")
	}
	if count <= 0 || int64(count) > (most-4)/5 {
		return refuse("E_BAD_BODY", "MPUB invalid message count %d", count)
	}
	for i := range count {
		n, err := c.size()
		switch {
		case err != nil:
			return c.cut(err, "E_BAD_MESSAGE", "MPUB failed to read message(%d) body size", i)
		case n <= 0:
			return refuse("E_BAD_MESSAGE", "MPUB invalid message(%d) body size %d", i, n)
		case int64(n) > c.front.o.MaxMsgSize:
			return refuse("E_BAD_MESSAGE", "MPUB message too big %d > %d", n, c.front.o.MaxMsgSize)
		}
		if total := int64(len(p.body)) + int64(n) + 4*int64(count) + 4; total > most { // nsqd has no bound here
			return refuse("E_BAD_BODY", "MPUB body too big %d > %d", total, most)
		}
		at := len(p.body)
		if int(n) <= c.in.buffered() && at+int(n) <= cap(p.body) {
			p.body = append(p.body, c.in.next(int(n))...)
		} else if err := c.readInto(p, int(n)); err != nil {
			return c.cut(err, "E_BAD_MESSAGE", "MPUB failed to read message body")
		}
		p.msgs = append(p.msgs, partition.Message{Body: p.body[at:]})
	}
	if err := p.charge(c.ctx, 0); err != nil {
		return err
	}
	p.place()
	return nil
}
