package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// wire is an established connection: frames in both directions and keep-alive.
type wire struct {
	o      *Options
	raw    *rawConn
	tls    *tls.Conn
	in     reader
	bw     *bufio.Writer // over TLS
	class  Class
	dialed bool
	enc    encoder
	limit  int // largest payload that the peer reads

	made    time.Time           // what the times in pings count from
	rtt     atomic.Int64        // smoothed, ns; 0: not measured
	shards  map[uint32]struct{} // shards with messages written; the writer's own
	written time.Time           // when something was last written; the writer's own
}

// maxBatch is about how many bytes are taken from the queue at once; pings and
// pongs come between two batches.
const maxBatch = 1 << 20

// bufferOf is the bytes of each of a connection's buffers.
func bufferOf(c Class) int {
	if c == Control {
		return 4 << 10
	}
	return 32 << 10
}

// heldOf is how many bytes of TLS records go to the socket in one write at most. Each
// write wakes up the other side, which costs both more than to wait for a reply of many
// messages as a whole.
func heldOf(c Class) int {
	if c == Calls {
		return 256 << 10
	}
	return 64 << 10
}

func newWire(o *Options, c net.Conn, class Class, m *meter) *wire {
	return &wire{
		o: o, class: class, raw: newRawConn(c, o.DeadAfter, o.WriteTimeout, bufferOf(class), heldOf(class), m),
		limit: maxHello, shards: make(map[uint32]struct{}), made: time.Now(),
	}
}

// handshake runs TLS and prepares for hello.
func (w *wire) handshake(ctx context.Context, c *tls.Conn, dialed bool) error {
	w.tls, w.dialed = c, dialed
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	w.raw.holdBack()
	w.in = reader{r: bufio.NewReaderSize(c, bufferOf(w.class)), limit: maxHello}
	w.bw = bufio.NewWriterSize(c, bufferOf(w.class))
	return nil
}

// establish ends the hellos: from now on frames are as large as both allow.
func (w *wire) establish(peer *hello) {
	w.in.limit = w.o.MaxFrameBytes
	w.limit = peer.MaxFrame
	w.written = time.Now()
}

// writeFrame buffers a frame.
func (w *wire) writeFrame(h header, payload ...[]byte) error {
	var head [headerSize]byte
	size := 0
	for _, p := range payload {
		size += len(p)
	}
	h.length = uint32(size)
	h.put(&head, payload...)
	if _, err := w.bw.Write(head[:]); err != nil {
		return err
	}
	for _, p := range payload {
		if _, err := w.bw.Write(p); err != nil {
			return err
		}
	}
	return nil
}

func (w *wire) flush() error {
	if err := w.bw.Flush(); err != nil {
		return err
	}
	w.written = time.Now()
	return w.raw.Flush()
}

// send writes one frame at once; for hellos.
func (w *wire) send(h header, payload []byte) error {
	if err := w.writeFrame(h, payload); err != nil {
		return err
	}
	return w.flush()
}

// session is what serve needs of the two sides of a link.
type session struct {
	box    *outbox
	handle func(header, []byte) error // on the reading goroutine; must not block
	room   func(header) []byte        // reader.room; may be nil
	report func()                     // losses, on the writing goroutine
	idle   func(since time.Time) bool // the connection is no longer wanted
}

// errIdle ends a connection that nobody has used for a while.
var errIdle = errors.New("idle")

// serve reads and writes until one of the two fails or ctx ends, and returns
// why. Nothing of it runs any more then.
func (w *wire) serve(ctx context.Context, s session) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { w.raw.Close() })
	defer stop()
	g.Go(func() error { return w.readLoop(s) })
	g.Go(func() error { return w.writeLoop(ctx, s) })
	return w.explain(g.Wait())
}

// explain says in words what a deadline means here.
func (w *wire) explain(err error) error {
	if isTimeout(err) {
		return fmt.Errorf("link is dead, nothing came for %s or nothing was taken for %s: %w", w.o.DeadAfter, w.o.WriteTimeout, err)
	}
	return err
}

// isTimeout says that a read or write has met its deadline.
func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
}

func (w *wire) readLoop(s session) error {
	w.in.room = s.room
	for {
		h, payload, err := w.in.next()
		if err != nil {
			return err
		}
		switch h.kind {
		case kindPing:
			s.box.answer(h.id)
			continue
		case kindPong:
			w.pong(h.id)
			continue
		}
		w.raw.meter.Load().messagesIn.Add(1)
		if err := s.handle(h, payload); err != nil {
			return err
		}
	}
}

// pong measures the round trip, smoothed as TCP does (RFC 6298: 1/8).
func (w *wire) pong(sent uint64) {
	rtt := int64(time.Since(w.made)) - int64(sent)
	if rtt < 0 || rtt > int64(time.Minute) {
		return // not a ping of ours
	}
	if old := w.rtt.Load(); old > 0 {
		rtt = old + (rtt-old)/8
	}
	w.rtt.Store(max(rtt, 1))
}

func (w *wire) writeLoop(ctx context.Context, s session) error {
	timer := time.NewTimer(w.untilPing())
	defer timer.Stop()
	used := time.Now()
	always := make(chan struct{})
	close(always)
	var batch []item
	if err := w.ping(); err != nil {
		return err
	}
	for {
		s.report()
		if s.box.patient() {
			runtime.Gosched()
		}
		batch = s.box.take(batch[:0], maxBatch)
		if len(batch) > 0 {
			used = time.Now()
		}
		if err := w.writeBatch(s.box, batch); err != nil {
			return err
		}
		clear(batch)
		wait := s.box.wake
		if len(batch) > 0 {
			wait = always // there may be more, but a ping has its turn
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			timer.Reset(w.untilPing())
			if s.idle != nil && s.idle(used) {
				return errIdle
			}
			if err := w.ping(); err != nil {
				return err
			}
		case <-wait:
		}
	}
}

// untilPing is the time to the next ping. All links of a node ping at the same moments,
// and groups tick at them too, so that a node which rests wakes up once for all.
func (w *wire) untilPing() time.Duration {
	every := w.o.PingInterval
	return every - time.Duration(time.Now().UnixNano())%every
}

// ping keeps the link alive. The side that dialed asks every time, so that the
// round trip is known; the other one answers, and asks only when it was not asked,
// as when the way to it is slow.
func (w *wire) ping() error {
	if !w.dialed && time.Since(w.written) < 2*w.o.PingInterval {
		return nil
	}
	if err := w.writeFrame(header{kind: kindPing, id: uint64(time.Since(w.made))}); err != nil {
		return err
	}
	return w.flush()
}

// writeBatch writes the answer to a ping and the items in one go.
func (w *wire) writeBatch(box *outbox, batch []item) error {
	ping, answer := box.takePong()
	if !answer && len(batch) == 0 {
		return nil
	}
	if answer {
		if err := w.writeFrame(header{kind: kindPong, id: ping}); err != nil {
			box.abandon(batch, err)
			return err
		}
	}
	for i := range batch {
		if err := w.writeItem(box, &batch[i]); err != nil {
			box.abandon(batch[i:], err)
			return err
		}
	}
	return w.flush()
}

// errTooBig is told to the owner of a frame that the peer does not read.
var errTooBig = errors.New("larger than the peer's largest frame")

// writeItem buffers one item; an error ends the connection.
func (w *wire) writeItem(box *outbox, it *item) error {
	switch {
	case it.msg != nil:
		return w.writeMessage(box, it)
	case len(it.body) > w.limit:
		finish([]item{*it}, errTooBig)
		return nil
	case it.call != nil && !it.call.leave():
		return nil // its caller is gone
	}
	if err := w.writeFrame(it.head, it.body); err != nil {
		return err
	}
	if it.done != nil {
		it.done(nil)
	}
	w.raw.meter.Load().messagesOut.Add(1)
	return nil
}

func (w *wire) writeMessage(box *outbox, it *item) error {
	parts, size, err := w.enc.encode(it.msg)
	if err != nil || size > w.limit {
		// No connection will ever carry it: that is a bug or two nodes with
		// different limits, and no reason to cut off all others.
		w.o.Logger.Error("raft message can't be sent", "shard", it.head.arg, "type", it.msg.GetType(), "bytes", size, "max_bytes", w.limit, "error", err)
		box.abandon([]item{*it}, err)
		return nil
	}
	if err := w.writeFrame(it.head, parts...); err != nil {
		return err
	}
	w.shards[it.head.arg] = struct{}{}
	w.raw.meter.Load().messagesOut.Add(1)
	return nil
}
