package nsq

import (
	"runtime"
	"sync"
)

// answerersMax bounds how many answerers a front has. One writes a few hundred
// thousand answers a second.
const answerersMax = 4

// answerer writes the answers of publishes for many connections, so that a
// commit that answers a hundred of them wakes a few goroutines instead of a
// hundred. What it cannot write at once it leaves to the connection's own
// writer.
type answerer struct {
	mu     sync.Mutex
	some   sync.Cond
	list   []*conn // have answers, each once
	closed bool
}

func newAnswerers() []*answerer {
	all := make([]*answerer, min(runtime.GOMAXPROCS(0), answerersMax))
	for i := range all {
		a := new(answerer)
		a.some.L = &a.mu
		all[i] = a
	}
	return all
}

// add puts c on the list. It never blocks for long: it may run on a shard's
// loop.
func (a *answerer) add(c *conn) {
	if c.listed.Swap(true) {
		return
	}
	a.mu.Lock()
	a.list = append(a.list, c)
	first := len(a.list) == 1
	a.mu.Unlock()
	if first {
		a.some.Signal()
	}
}

// run writes answers until close.
func (a *answerer) run() {
	var batch []*conn
	for {
		a.mu.Lock()
		for len(a.list) == 0 && !a.closed {
			a.some.Wait()
		}
		if a.closed {
			a.mu.Unlock()
			return
		}
		batch, a.list = a.list, batch[:0]
		a.mu.Unlock()
		for _, c := range batch {
			c.listed.Store(false) // before it looks: what comes later is listed again
			c.answerNow()
		}
		clear(batch)
	}
}

// close ends run. What is listed then or later is not written: its connections
// have ended.
func (a *answerer) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.some.Signal()
}

// answered says that the answer of a publish is there. It may run on a shard's
// loop: it marks, and wakes at most one goroutine.
func (c *conn) answered(err error) {
	switch {
	case c.driving.Load():
		// The reader looks when it is back.
	case err != nil || c.socket.Load() == nil || c.sub.Load() != nil:
		c.ring()
	default:
		c.answerer.add(c)
	}
}

// answerNow writes the answers that are ready, as far as it can without
// waiting, and leaves the rest to the connection's writer.
func (c *conn) answerNow() {
	w := &c.writer
	if !w.mu.TryLock() {
		c.ring() // whoever has it may have looked already
		return
	}
	left := w.answerNow()
	w.mu.Unlock()
	if left {
		c.ring()
	}
}

// answerNow is conn.answerNow under the lock. It reports whether there is
// something left that it may not do: only OKs are its business.
func (w *writer) answerNow() (left bool) {
	socket := w.c.socket.Load()
	if w.buf != nil || socket == nil {
		return true
	}
	w.ready, left = w.c.out.takeOKs(w.ready[:0])
	if len(w.ready) == 0 {
		return left
	}
	w.borrow()
	b := *w.buf
	for i := range w.ready {
		p := w.ready[i].publish
		for range p.answers {
			b = append(b, okFrame...)
		}
		w.count(p.topic, len(p.msgs))
		p.recycle()
	}
	clear(w.ready)
	*w.buf = b
	if w.extendDeadline() != nil {
		return true
	}
	if n := socket.write(b); n < len(b) {
		*w.buf = append(b[:0], b[n:]...)
		return true // the writer waits for the client, or meets the error
	}
	w.release()
	return left
}
