package nsq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-io/tidings/internal/broker/delivery"
	"github.com/tidings-io/tidings/internal/fault"
)

const (
	// outputBytes is the size of a writer's buffer, which is borrowed while
	// there is something to write.
	outputBytes = 64 << 10
	// messageHeadBytes stands before a body: size, type, time, attempts, id.
	messageHeadBytes = 4 + 4 + 8 + 2 + 16
	// takeMax and takeBytesMax bound what is taken from a subscription at once.
	takeMax      = 256
	takeBytesMax = 256 << 10
)

var outputPool = sync.Pool{New: func() any {
	b := make([]byte, 0, outputBytes)
	return &b
}}

// errLast ends the writer after the last answer.
var errLast = errors.New("last answer written")

// writer is the writing side of a connection. Its own goroutine has the lock
// but while it sleeps; the answerers and the reader try for it to write OKs. It
// is never given back after the end.
type writer struct {
	c        *conn
	mu       sync.Mutex
	buf      *[]byte   // nil while there is nothing to write
	since    time.Time // when the oldest byte came in; zero: not looked yet
	deadline time.Time
	stream   *stream // nil: plain
	ready    []reply
	batch    []delivery.Delivery
	beat     *time.Timer
	sub      *subscribed   // whose OK is written: no message goes before it
	outlived bool          // the channel is closed because the node stops
	interval time.Duration // of heartbeats; 0: off

	counted string         // the topic of counter and tally
	tally   *atomic.Uint64 // of the topic, for all clients
	counter *atomic.Uint64 // of the last publish's topic
}

// errRefused ends the writer after the error frame of a failed publish.
var errRefused = errors.New("publish failed")

// write is the writer: it answers and delivers until the connection ends, and
// sleeps on the bell.
func (c *conn) write() error {
	w := &c.writer
	w.mu.Lock()
	w.interval = c.front.o.HeartbeatInterval
	w.beat = time.NewTimer(w.interval)
	defer w.beat.Stop()
	defer w.release()
	for {
		more, err := w.round()
		if errors.Is(err, errLast) {
			return w.flush()
		}
		if err != nil {
			return err
		}
		if more {
			err = w.glance()
		} else {
			err = w.sleep()
		}
		if err != nil {
			return err
		}
	}
}

// sleep flushes and waits, without the lock, until there is something to do.
func (w *writer) sleep() error {
	if err := w.flush(); err != nil {
		return err
	}
	w.release()
	var gone <-chan struct{}
	if sub := w.c.sub.Load(); sub != nil && !w.outlived {
		gone = sub.Done()
	}
	w.mu.Unlock()
	select {
	case <-w.c.bell:
		w.mu.Lock()
		return nil
	case <-gone:
		w.mu.Lock()
		if w.c.front.stopping() { // drain ends the connection
			w.outlived = true
			return nil
		}
		return w.goodbye()
	case <-w.c.ctx.Done():
		w.mu.Lock()
		return net.ErrClosed
	case interval := <-w.c.beats:
		w.mu.Lock()
		w.interval = interval
		w.beat.Stop()
		if w.interval > 0 {
			w.beat.Reset(w.interval)
		}
		return nil
	case <-w.beat.C:
		w.mu.Lock()
		return w.heartbeat()
	}
}

// glance sends a heartbeat that is due while there is no time to sleep.
func (w *writer) glance() error {
	select {
	case <-w.beat.C:
		return w.heartbeat()
	default:
		return nil
	}
}

func (w *writer) heartbeat() error {
	w.c.front.metrics.heartbeats.Add(1)
	w.beat.Reset(w.interval)
	return w.append(heartbeatFrame)
}

// goodbye ends a connection whose channel was deleted: what is answered
// already is sent.
func (w *writer) goodbye() error {
	if err := w.answers(); err != nil && !errors.Is(err, errLast) {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	return errors.New("channel is gone")
}

// round writes the answers that are ready and one helping of messages; more
// says that there may be another.
func (w *writer) round() (more bool, err error) {
	if err := w.answers(); err != nil {
		return false, err
	}
	sub := w.sub
	if sub == nil {
		return false, nil
	}
	if w.overdue() {
		if err := w.flush(); err != nil {
			return false, err
		}
	}
	return w.deliver(sub)
}

// overdue reports whether buffered bytes have waited for the client's
// output_buffer_timeout. As the buffer is flushed whenever there is nothing
// more to take, that is only ever an upper bound.
func (w *writer) overdue() bool {
	if w.buf == nil || len(*w.buf) == 0 {
		return false
	}
	now := time.Now()
	if w.since.IsZero() {
		w.since = now
		return false
	}
	wait := time.Duration(w.c.wait.Load())
	return wait > 0 && now.Sub(w.since) >= wait
}

// answers writes the answers that are ready, in order.
func (w *writer) answers() error {
	w.ready = w.c.out.take(w.ready[:0])
	for i := range w.ready {
		if err := w.answer(&w.ready[i]); err != nil {
			return err
		}
	}
	clear(w.ready)
	return nil
}

func (w *writer) answer(r *reply) error {
	if p := r.publish; p != nil {
		return w.published(p)
	}
	if len(r.frame) > 0 {
		if err := w.append(r.frame); err != nil {
			return err
		}
	}
	if r.last {
		return errLast
	}
	switch {
	case r.change == nil:
		return nil
	case r.change.upgrade != nil:
		return w.upgrade(r.change.upgrade)
	}
	w.sub = r.change.sub
	return nil
}

// published writes what the broker said about a publish: OKs, or the error
// that ends the connection.
func (w *writer) published(p *publish) error {
	if p.err != nil {
		w.c.front.metrics.publishesFailed.Add(1)
		frame := w.c.farewell(publishRefusal(p.command, p.err))
		p.recycle()
		if err := w.append(frame); err != nil {
			return err
		}
		if err := w.flush(); err != nil {
			return err
		}
		return errRefused
	}
	w.count(p.topic, len(p.msgs))
	n := p.answers
	p.recycle()
	for range n {
		if err := w.append(okFrame); err != nil {
			return err
		}
	}
	return nil
}

// deliver takes a helping of messages and writes them.
func (w *writer) deliver(sub *subscribed) (bool, error) {
	if w.batch == nil {
		w.batch = make([]delivery.Delivery, 0, takeMax)
	}
	batch, taken := sub.Take(w.batch[:0], takeBytesMax) // messages may come with an error
	bytes := 0
	for i := range batch {
		bytes += len(batch[i].Body)
		if err := w.message(&batch[i]); err != nil {
			return false, err
		}
	}
	if len(batch) > 0 {
		m := &w.c.front.metrics
		m.delivered.Add(uint64(len(batch)))
		m.deliveredBytes.Add(uint64(bytes))
		clear(batch)
		w.batch = batch[:0]
	}
	switch fault.CodeOf(taken) {
	case fault.None:
		return len(batch) > 0, nil
	case fault.Exiting, fault.Deleting, fault.TopicNotFound, fault.ChannelNotFound:
		return false, nil // Done says so too
	default:
		return false, fmt.Errorf("take messages of %s:%s: %w", sub.topic, sub.channel, taken)
	}
}

// message writes one message frame.
func (w *writer) message(d *delivery.Delivery) error {
	size := messageHeadBytes + len(d.Body)
	if err := w.room(size); err != nil {
		return err
	}
	b := *w.buf
	b = binary.BigEndian.AppendUint32(b, uint32(size-4))
	b = binary.BigEndian.AppendUint32(b, frameMessage)
	b = binary.BigEndian.AppendUint64(b, uint64(d.TimeNs))
	b = binary.BigEndian.AppendUint16(b, d.Attempts)
	b = append(b, d.ID[:]...)
	if len(b)+len(d.Body) > cap(b) { // larger than the buffer: not copied
		*w.buf = b
		return w.flushWith(d.Body)
	}
	*w.buf = append(b, d.Body...)
	if int64(len(*w.buf)) >= w.c.flushAt.Load() {
		return w.flush()
	}
	return nil
}

// append writes a small frame into the buffer.
func (w *writer) append(frame []byte) error {
	if err := w.room(len(frame)); err != nil {
		return err
	}
	if len(*w.buf)+len(frame) > cap(*w.buf) {
		return w.flushWith(frame)
	}
	*w.buf = append(*w.buf, frame...)
	return nil
}

// room borrows a buffer, and empties it when n bytes would not fit.
func (w *writer) room(n int) error {
	w.borrow()
	if len(*w.buf) > 0 && len(*w.buf)+n > int(min(w.c.flushAt.Load(), outputBytes)) {
		return w.flush()
	}
	return nil
}

// borrow makes sure that there is a buffer.
func (w *writer) borrow() {
	if w.buf == nil {
		w.buf = outputPool.Get().(*[]byte)
		w.since = time.Time{}
	}
}

// flush writes the buffer to the socket.
func (w *writer) flush() error {
	if w.buf == nil || len(*w.buf) == 0 {
		return nil
	}
	if err := w.extendDeadline(); err != nil {
		return err
	}
	var err error
	if w.stream == nil {
		_, err = w.c.net.Write(*w.buf)
	} else {
		err = w.stream.write(*w.buf, nil)
	}
	*w.buf = (*w.buf)[:0]
	w.since = time.Time{}
	return err
}

// flushWith writes the buffer and then a body that does not fit into it.
func (w *writer) flushWith(body []byte) error {
	if err := w.extendDeadline(); err != nil {
		return err
	}
	var err error
	if w.stream == nil {
		bufs := net.Buffers{*w.buf, body}
		_, err = bufs.WriteTo(w.c.net)
	} else {
		err = w.stream.write(*w.buf, body)
	}
	*w.buf = (*w.buf)[:0]
	w.since = time.Time{}
	return err
}

// extendDeadline gives the client one heartbeat interval to read; it is moved
// only when an eighth of that has passed.
func (w *writer) extendDeadline() error {
	interval := time.Duration(w.c.interval.Load())
	if interval <= 0 {
		if w.deadline.IsZero() {
			return nil
		}
		w.deadline = time.Time{}
		return w.c.net.SetWriteDeadline(w.deadline)
	}
	now := time.Now()
	if left := w.deadline.Sub(now); !w.deadline.IsZero() && left >= interval && left <= 2*interval {
		return nil
	}
	w.deadline = now.Add(interval + interval/8)
	return w.c.net.SetWriteDeadline(w.deadline)
}

// release gives the empty buffer back.
func (w *writer) release() {
	if w.buf != nil {
		*w.buf = (*w.buf)[:0]
		outputPool.Put(w.buf)
		w.buf = nil
	}
}

// count adds to the producer's figures in /stats.
func (w *writer) count(topic string, n int) {
	if w.counter == nil || w.counted != topic {
		w.counted, w.counter, w.tally = topic, w.c.counter(topic), w.c.front.metrics.tcp.of(topic)
	}
	if w.counter != nil {
		w.counter.Add(uint64(n))
	}
	w.tally.Add(uint64(n))
}

// counter returns the figure of a topic in /stats, nil when there are too many.
func (c *conn) counter(topic string) *atomic.Uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.pubs[topic]
	if n == nil && len(c.pubs) < pubTopicsMax {
		if c.pubs == nil {
			c.pubs = make(map[string]*atomic.Uint64)
		}
		n = new(atomic.Uint64)
		c.pubs[topic] = n
	}
	return n
}

// pubTopicsMax bounds the topics that /stats counts per producer.
const pubTopicsMax = 1024
