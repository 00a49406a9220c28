package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

func natsInbox() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return "_INBOX." + hex.EncodeToString(b[:])
}

var errRefused = errors.New("server refuses")

// JetStream is a nats-server with JetStream. A topic is a stream in a file, a
// channel a durable pull consumer with explicit acknowledgement.
type JetStream struct {
	Addr     string
	Replicas int // of a stream; 0 is 1
}

// jetWindow is the unfinished messages of a channel, as NSQ's by default.
const jetWindow = nsqWindow

// request calls JetStream's API.
func (c *natsConn) request(subject string, v any) error {
	_, err := c.ask(subject, v)
	return err
}

// ask is request with its answer, which is valid until the next frame is read.
func (c *natsConn) ask(subject string, v any) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	inbox := natsInbox()
	c.out = fmt.Appendf(c.out, "SUB %s 9\r\nUNSUB 9 1\r\n", inbox)
	c.pub(subject, inbox, body)
	if err := c.flush(); err != nil {
		return nil, err
	}
	for {
		f, err := c.frame()
		if err != nil {
			return nil, err
		}
		if f.op == 'M' {
			return f.payload, jetError(f)
		}
	}
}

func jetError(f natsFrame) error {
	if bytes.Contains(f.payload, []byte(`"error":`)) || len(f.payload) == 0 {
		return fmt.Errorf("%w: %.200q %.200q", errRefused, f.header, f.payload)
	}
	return nil
}

// Prepare implements Target.
func (j *JetStream) Prepare(ctx context.Context, topic string, channels []string) error {
	c, err := dialNATS(ctx, j.Addr)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if err := j.settle(ctx, func() error { return j.makeStream(c, topic) }); err != nil {
		return fmt.Errorf("make stream: %w", err)
	}
	for _, name := range channels {
		if err := j.makeConsumer(c, topic, name); err != nil {
			return err
		}
	}
	return nil
}

// settleTimeout is how long a cluster of servers may refuse a stream.
const settleTimeout = 10 * time.Second

// settle tries again for a while what a cluster may refuse that has just come
// together, and one server may not.
func (j *JetStream) settle(ctx context.Context, try func() error) error {
	for begun := time.Now(); ; {
		err := try()
		if err == nil || j.Replicas < 2 || time.Since(begun) > settleTimeout {
			return err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// jetWrongSequence is how a stream refuses a message that was to be stored only
// behind another one that it does not have.
var jetWrongSequence = []byte(`"err_code":10071`)

// learn implements learner: a server passes nothing on to a stream of another
// until it has heard of it. The question is a message that no stream takes.
func (j *JetStream) learn(ctx context.Context, topic string) error {
	c, err := dialNATS(ctx, j.Addr)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	const head = "NATS/1.0\r\nNats-Expected-Last-Sequence: 9007199254740991\r\n\r\n"
	inbox := natsInbox()
	c.out = fmt.Appendf(c.out, "SUB %s 9\r\n", inbox)
	return j.settle(ctx, func() error {
		if err := c.conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
			return err
		}
		c.out = fmt.Appendf(c.out, "HPUB %s %s %d %d\r\n%s\r\n", topic, inbox, len(head), len(head), head)
		if err := c.flush(); err != nil {
			return err
		}
		for {
			f, err := c.frame()
			if err != nil {
				return err
			}
			if f.op != 'M' {
				continue
			}
			if bytes.Contains(f.payload, jetWrongSequence) {
				return nil
			}
			return fmt.Errorf("%s does not know stream %s: %w", j.Addr, topic, jetError(f))
		}
	})
}

func (j *JetStream) makeStream(c *natsConn, topic string) error {
	return c.request("$JS.API.STREAM.CREATE."+topic, map[string]any{
		"name": topic, "subjects": []string{topic}, "storage": "file", "retention": "limits", "num_replicas": max(1, j.Replicas),
		"max_msgs": -1, "max_bytes": -1,
	})
}

func (j *JetStream) makeConsumer(c *natsConn, topic, name string) error {
	config := map[string]any{
		"name": name, "durable_name": name, "ack_policy": "explicit", "deliver_policy": "all",
		"ack_wait": int64(10 * time.Minute), "max_ack_pending": jetWindow,
	}
	if j.Replicas > 1 {
		// In a cluster consumers only read back, which is not measured: they need
		// not agree on every acknowledgement.
		config["num_replicas"], config["mem_storage"] = 1, true
	}
	err := c.request("$JS.API.CONSUMER.CREATE."+topic+"."+name, map[string]any{"stream_name": topic, "config": config})
	if err != nil {
		return fmt.Errorf("make consumer: %w", err)
	}
	return nil
}

// Drop implements Target.
func (j *JetStream) Drop(ctx context.Context, topic string) error {
	c, err := dialNATS(ctx, j.Addr)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	return c.request("$JS.API.STREAM.DELETE."+topic, struct{}{})
}

// Publisher implements Target. Every message of a batch has its own answer.
func (j *JetStream) Publisher(ctx context.Context, topic string) (Publisher, error) {
	c, err := dialNATS(ctx, j.Addr)
	if err != nil {
		return nil, err
	}
	inbox := natsInbox()
	c.out = fmt.Appendf(c.out, "SUB %s 1\r\n", inbox)
	if err := c.pingPong(); err != nil {
		c.conn.Close()
		return nil, err
	}
	return &jetPublisher{natsConn: c, topic: topic, inbox: inbox, sizes: newSizes()}, nil
}

type jetPublisher struct {
	*natsConn
	topic, inbox string
	sizes        sizes
}

// sizes tells the goroutine that awaits how many answers each command has.
type sizes chan int

// sizesMax bounds the commands of a connection that wait for an answer; beyond
// it Send waits, which an open loop books as latency.
const sizesMax = 1 << 16

func newSizes() sizes { return make(sizes, sizesMax) }

func (p *jetPublisher) Send(bodies [][]byte) error {
	for _, b := range bodies {
		p.pub(p.topic, p.inbox, b)
	}
	p.sizes <- len(bodies)
	return nil
}

func (p *jetPublisher) Flush() error { return p.flush() }

func (p *jetPublisher) Await() error {
	// In an open loop the next command may not have been sent yet: its answer
	// can't come before it, so reading first is as good.
	if err := p.answer(); err != nil {
		return err
	}
	for n := <-p.sizes; n > 1; n-- {
		if err := p.answer(); err != nil {
			return err
		}
	}
	return nil
}

func (p *jetPublisher) answer() error {
	for {
		f, err := p.frame()
		if err != nil {
			return err
		}
		if f.op == 'M' {
			return jetError(f)
		}
	}
}

func (p *jetPublisher) Close() error { return p.conn.Close() }

// Consumer implements Target.
func (j *JetStream) Consumer(ctx context.Context, topic, channel string, window int) (Consumer, error) {
	c, err := dialNATS(ctx, j.Addr)
	if err != nil {
		return nil, err
	}
	if window == 0 {
		window = jetWindow
	}
	k := &jetConsumer{natsConn: c, inbox: natsInbox(), next: "$JS.API.CONSUMER.MSG.NEXT." + topic + "." + channel, window: window}
	if err := j.makeConsumer(c, topic, channel); err != nil {
		c.conn.Close()
		return nil, err
	}
	c.out = fmt.Appendf(c.out, "SUB %s 1\r\n", k.inbox)
	if err := k.pull(window); err != nil {
		c.conn.Close()
		return nil, err
	}
	return k, nil
}

type jetConsumer struct {
	*natsConn
	inbox, next string
	window      int
	asked       int // messages asked for and not yet here
}

// pull asks for n more messages, without a limit of time.
func (k *jetConsumer) pull(n int) error {
	k.asked += n
	k.pub(k.next, k.inbox, fmt.Appendf(nil, `{"batch":%d}`, n))
	return k.flush()
}

// Receive implements Consumer.
func (k *jetConsumer) Receive(dst []Message) ([]Message, error) {
	for len(dst) == 0 || k.waits() {
		f, err := k.frame()
		if err != nil {
			return dst, err
		}
		switch {
		case f.op != 'M':
		case len(f.reply) == 0:
			return dst, fmt.Errorf("%w: %.200q", errRefused, f.header)
		default:
			dst = append(dst, Message{Body: f.payload, Ref: f.reply})
			k.asked--
		}
	}
	return dst, nil
}

// Finish implements Consumer: one acknowledgement each, one write. It asks for
// more when half of the window has been used up.
func (k *jetConsumer) Finish(ms []Message) error {
	for i := range ms {
		k.out = append(k.out, "PUB "...)
		k.out = append(append(k.out, ms[i].Ref...), " 0\r\n\r\n"...)
	}
	if k.asked <= k.window/2 {
		return k.pull(k.window - k.asked)
	}
	return k.flush()
}

func (k *jetConsumer) Close() error { return k.conn.Close() }
