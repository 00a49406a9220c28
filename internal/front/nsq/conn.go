package nsq

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-io/tidings/internal/auth"
	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// The states of a connection, with nsqd's numbers, which /stats shows.
const (
	stateInit       = 0
	stateSubscribed = 3
	stateClosing    = 4
)

const (
	// magicPatience is how long a client may take to say which protocol it
	// speaks.
	magicPatience = time.Minute
	// answersMax is how many FIN, REQ and TOUCH are handled under one lock.
	answersMax = 4096
	// driveBytesMax is the largest publish that the reader drives through the
	// broker.
	driveBytesMax = 64 << 10
	// aheadPublishes is for how many publishes a client counts as one that
	// sends ahead, after it has done so.
	aheadPublishes = 256
)

// errStop ends the reader when the writer will do the rest.
var errStop = errors.New("connection ends")

// subscribed is a connection's subscription with its names.
type subscribed struct {
	Subscription
	topic, channel string
}

// conn is one client of the TCP protocol: a reader, which owns the first block
// of fields, and a writer. They share the queue of answers and a bell. The OKs
// of publishes are written by the front's answerers, or by the reader, while
// the writer sleeps.
type conn struct {
	front  *Front
	net    net.Conn
	remote string
	since  time.Time
	// publisher is the connection among those who publish through the front.
	publisher uint64

	// The reader's.
	in        input
	words     [][]byte
	command   *command          // the last one
	name      string            // the last topic name
	names     map[string]string // valid topic names seen, so that they are checked and copied once
	group     group
	ops       []delivery.Op
	errs      []error
	raise     int64 // RDY to set after ops, -1: none
	ready     int64 // RDY as the client set it last
	atCommand bool  // between commands: a read moves the deadline
	deadline  time.Time
	pump      pump
	needsTLS  bool         // refuse everything before it
	secret    string       // of AUTH
	grants    *auth.Grants // of AUTH; nil: none
	granted   string       // topic that grants allow to publish to, as the last one
	upgraded  *stream      // nil: plain
	ahead     int          // publishes for which the client counts as one that sends ahead

	// The writing side, under its own lock.
	writer   writer
	socket   atomic.Pointer[socket] // nil: only the writer's goroutine writes
	answerer *answerer              // of a connection that has, or had, a socket
	listed   atomic.Bool            // on the answerer's list
	driving  atomic.Bool            // the reader is in the broker, and looks for answers when it is back

	// Shared.
	state    atomic.Int32
	sub      atomic.Pointer[subscribed]
	out      replies
	bell     chan struct{}   // cap 1: the writer has something to do
	dead     chan struct{}   // closed by the writer when it ends
	ctx      context.Context // ends with kill
	kill     context.CancelFunc
	refused  atomic.Bool        // an error frame was written: close gently
	drainEnd atomic.Int64       // unix ns; 0: not draining
	flushAt  atomic.Int64       // bytes after which the writer flushes
	wait     atomic.Int64       // output_buffer_timeout, ns; 0: off
	interval atomic.Int64       // heartbeat interval, ns, as IDENTIFY said last; 0: off
	beats    chan time.Duration // cap 1: heartbeat interval for the writer, from the first IDENTIFY

	mu   sync.Mutex // guards what /stats shows
	meta meta
	pubs map[string]*atomic.Uint64 // messages published by topic
}

// pump is what the first IDENTIFY fixed, or the defaults: later ones answer,
// but change nothing of it.
type pump struct {
	fixed      bool
	msgTimeout time.Duration
	sampleRate int32
}

func newConn(f *Front, nc net.Conn) *conn {
	host, _, err := net.SplitHostPort(nc.RemoteAddr().String())
	if err != nil {
		host = nc.RemoteAddr().String()
	}
	c := &conn{
		front: f, net: nc, remote: nc.RemoteAddr().String(), since: time.Now(),
		publisher: f.publishers.Add(1), raise: -1, needsTLS: f.o.TLSRequired != TLSOptional,
		bell:  make(chan struct{}, 1),
		dead:  make(chan struct{}),
		beats: make(chan time.Duration, 1),
		meta:  defaultMeta(&f.o, host),
	}
	c.ctx, c.kill = context.WithCancel(context.Background())
	c.command = commands["NOP"]
	c.writer.c = c
	if s := newSocket(nc); s != nil {
		c.socket.Store(s)
		c.answerer = f.answerers[f.turn.Add(1)%uint64(len(f.answerers))]
	}
	c.in = input{src: nc, wait: c.beforeRead}
	c.out.room = make(chan struct{}, 1)
	c.interval.Store(int64(f.o.HeartbeatInterval))
	c.flushAt.Store(outputBytes)
	c.wait.Store(int64(f.o.OutputBufferTimeout))
	c.pump.msgTimeout = f.o.MsgTimeout
	return c
}

// run lives as long as the connection.
func (c *conn) run() {
	defer c.net.Close()
	defer c.kill()
	stop := context.AfterFunc(c.ctx, func() { c.net.Close() })
	defer stop()
	if !c.magic() {
		return
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		defer close(c.dead)
		switch err := c.write(); {
		case errors.Is(err, errRefused):
			_ = c.net.SetReadDeadline(time.Unix(0, 1)) // ends the reader
		case err != nil:
			c.front.log.Debug("write to client", "remote", c.remote, "error", err)
			c.net.Close() // ends the reader
		}
	})
	err := c.read()
	c.endSubscription()
	c.out.add(reply{frame: c.farewell(err), last: true}, nil)
	c.ring()
	writer.Wait()
	if c.writer.stream != nil {
		c.writer.stream.end()
	}
	if c.refused.Load() {
		c.linger()
	}
}

// farewell is the error frame for the error that ended the reader, if any.
func (c *conn) farewell(err error) []byte {
	var r *refusal
	if !errors.As(err, &r) {
		return nil
	}
	c.refused.Store(true)
	c.front.metrics.refusals.Add(1)
	c.front.log.Debug("refuse command", "remote", c.remote, "error", r.text)
	return appendFrame(nil, frameError, r.text)
}

// magic reads the four bytes that name the protocol.
func (c *conn) magic() bool {
	_ = c.net.SetReadDeadline(time.Now().Add(magicPatience))
	var b [4]byte
	if _, err := io.ReadFull(c.net, b[:]); err != nil {
		return false
	}
	if string(b[:]) == "  V2" {
		return true
	}
	c.front.metrics.refusals.Add(1)
	_ = c.net.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := c.net.Write(appendFrame(nil, frameError, "E_BAD_PROTOCOL")); err == nil {
		c.linger()
	}
	return false
}

// read handles commands until the connection ends. It returns a *refusal when
// an error frame is to be sent.
func (c *conn) read() error {
	for {
		c.atCommand = true
		err := c.finishes()
		var line []byte
		if err == nil {
			line, err = c.in.line()
		}
		if err == nil {
			err = c.execute(line)
		}
		if err != nil {
			if c.settle() != nil {
				return errStop
			}
			return err
		}
	}
}

// beforeRead runs when everything that was in the read buffer has been
// handled, and the next step may wait for the client.
func (c *conn) beforeRead() error {
	if err := c.settle(); err != nil {
		return err
	}
	if !c.atCommand {
		return nil
	}
	c.atCommand = false
	if c.refused.Load() {
		return errStop
	}
	if end := c.drainEnd.Load(); end != 0 {
		if sub := c.sub.Load(); sub == nil || sub.Stats().InFlight == 0 {
			return errStop
		}
		return c.net.SetReadDeadline(time.Unix(0, end))
	}
	interval := time.Duration(c.interval.Load())
	if interval <= 0 {
		if c.deadline.IsZero() {
			return nil
		}
		c.deadline = time.Time{}
		return c.setReadDeadline(c.deadline)
	}
	// Twice the interval, and moved only when an eighth of one has passed.
	if now := time.Now(); c.deadline.IsZero() || c.deadline.Sub(now) < 2*interval || c.deadline.Sub(now) > 3*interval {
		c.deadline = now.Add(2*interval + interval/8)
		return c.setReadDeadline(c.deadline)
	}
	return nil
}

// setReadDeadline sets the deadline, unless the front drains.
func (c *conn) setReadDeadline(t time.Time) error {
	if err := c.net.SetReadDeadline(t); err != nil {
		return err
	}
	// What came between would be undone by this.
	if c.refused.Load() {
		return errStop
	}
	if end := c.drainEnd.Load(); end != 0 {
		return c.net.SetReadDeadline(time.Unix(0, end))
	}
	return nil
}

// settle hands on what was gathered from the read buffer: publishes, or
// answers to messages.
func (c *conn) settle() error {
	if len(c.group.msgs) > 0 {
		if err := c.submitGroup(); err != nil {
			return err
		}
	}
	if len(c.ops) > 0 {
		if err := c.submitOps(); err != nil {
			return err
		}
	}
	if c.raise >= 0 {
		c.sub.Load().SetWindow(int(c.raise))
		c.raise = -1
	}
	return nil
}

// group is consecutive publishes of one command and topic, in the read buffer.
type group struct {
	command, topic string
	msgs           []partition.Message
	bytes          int
}

// submitGroup gives the gathered publishes to the broker in one call.
func (c *conn) submitGroup() error {
	g := &c.group
	p := c.front.newPublish(g.command, g.topic)
	g.msgs = p.gather(g.msgs, g.bytes)
	p.answers = len(p.msgs)
	g.bytes = 0
	if err := p.charge(c.ctx, 0); err != nil {
		command := p.command
		p.drop()
		return c.refuseLate(command, err)
	}
	return c.submit(p)
}

// submit queues the place of p's answer and gives p to the broker.
func (c *conn) submit(p *publish) error {
	p.conn, p.publisher = c, c.publisher
	m := &c.front.metrics
	p.measure(m.publishes.Add(1))
	m.published.Add(uint64(len(p.msgs)))
	m.publishedBytes.Add(uint64(len(p.body)))
	lone := c.lone(p)
	if !c.out.add(reply{publish: p}, c.dead) {
		p.drop()
		return errStop
	}
	if lone {
		c.drive(p)
	} else {
		p.submit(c.dead)
	}
	return nil
}

// lone reports whether the client waits for p's answer and nothing else, as far
// as can be seen. Then it costs nothing that the reader does the broker's work
// instead of reading on.
func (c *conn) lone(p *publish) bool {
	if c.in.buffered() > 0 || !c.out.idle() {
		c.ahead = aheadPublishes
		return false
	}
	if c.ahead > 0 {
		c.ahead--
		return false
	}
	return len(p.body) <= driveBytesMax && c.socket.Load() != nil && c.sub.Load() == nil
}

// drive gives p to the broker and goes on with the broker's work. When that
// brings p's answer, it is written without waking anybody. A client that has
// sent more by then would rather have had it read.
func (c *conn) drive(p *publish) {
	b, topic := c.front.broker, p.topic // p is gone as soon as it is answered
	c.driving.Store(true)
	err := b.Enqueue(topic, p.msgs, p)
	if err == nil {
		b.Drive(topic)
	}
	if c.socket.Load().pending() { // asked while nobody answers
		c.ahead = aheadPublishes
	}
	c.driving.Store(false)
	if err != nil {
		p.insist(c.dead, err)
		return
	}
	c.answerNow() // what comes from now on rings
}

// refuseLate queues the error of a publish that was gathered before the
// command that the reader is at; nothing may be answered after it.
func (c *conn) refuseLate(command string, err error) error {
	c.out.add(reply{frame: c.farewell(publishRefusal(command, err)), last: true}, c.dead)
	c.ring()
	return errStop
}

// submitOps handles the gathered FIN, REQ and TOUCH under one lock, and
// answers those that failed.
func (c *conn) submitOps() error {
	ops := c.ops
	if cap(c.errs) < len(ops) {
		c.errs = make([]error, len(ops), cap(ops))
	}
	errs := c.errs[:len(ops)]
	clear(errs)
	c.front.metrics.answers.Add(uint64(len(ops)))
	failed := c.sub.Load().Do(ops, errs)
	c.ops = ops[:0]
	if failed == 0 {
		return nil
	}
	c.front.metrics.answersFailed.Add(uint64(failed))
	for i, err := range errs {
		if err == nil {
			continue
		}
		if !c.out.add(answerRefusal(&ops[i], err), c.dead) {
			return errStop
		}
	}
	c.ring()
	return nil
}

// answerRefusal is the error frame for a FIN, REQ or TOUCH.
func answerRefusal(op *delivery.Op, err error) reply {
	name := opNames[op.Kind]
	text := "E_" + name + "_FAILED " + name + " " + string(op.ID[:]) + " failed " + fault.CodeOf(err).Error()
	return reply{frame: appendFrame(nil, frameError, text)}
}

// answerFailed tells the client of an answer that another node did not take, some
// time after it was given. It does not wait for room among the answers.
func (c *conn) answerFailed(op delivery.Op, err error) {
	c.front.metrics.answersFailed.Add(1)
	go func() {
		if c.out.add(answerRefusal(&op, err), c.dead) {
			c.ring()
		}
	}()
}

var opNames = [...]string{delivery.Finish: "FIN", delivery.Requeue: "REQ", delivery.Touch: "TOUCH"}

// answer queues a frame behind the answers of what came before.
func (c *conn) answer(frame []byte) error { return c.add(reply{frame: frame}) }

// add queues a reply behind the answers of what came before.
func (c *conn) add(r reply) error {
	if err := c.settle(); err != nil {
		return err
	}
	if !c.out.add(r, c.dead) {
		return errStop
	}
	c.ring()
	return nil
}

// ring wakes the writer. It never blocks.
func (c *conn) ring() {
	select {
	case c.bell <- struct{}{}:
	default:
	}
}

// endSubscription gives back what the consumer has in flight. When the front
// ends, the broker does that itself: such deliveries are no attempts.
func (c *conn) endSubscription() {
	if sub := c.sub.Load(); sub != nil {
		sub.Stop()
		if c.drainEnd.Load() == 0 {
			sub.Close(c.state.Load() != stateClosing)
		}
	}
}

// drain ends the connection by until: at once for those without messages in
// flight.
func (c *conn) drain(until time.Time) {
	c.drainEnd.Store(until.UnixNano())
	sub := c.sub.Load()
	if sub == nil {
		until = time.Now()
	} else {
		sub.Stop()
		if sub.Stats().InFlight == 0 {
			until = time.Now()
		}
	}
	_ = c.net.SetReadDeadline(until)
}
