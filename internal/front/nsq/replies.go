package nsq

import (
	"encoding/binary"
	"sync"
)

// Frame types, nsqd's own.
const (
	frameResponse = 0
	frameError    = 1
	frameMessage  = 2
)

// repliesMax and replyBytesMax bound what a connection may have outstanding:
// answers that wait for the broker or for the client to read them, and bytes
// of messages that wait for the broker.
const (
	repliesMax    = 4096
	replyBytesMax = 8 << 20
)

var (
	okFrame        = appendFrame(nil, frameResponse, "OK")
	heartbeatFrame = appendFrame(nil, frameResponse, "_heartbeat_")
	closeWaitFrame = appendFrame(nil, frameResponse, "CLOSE_WAIT")
)

// appendFrame appends a frame to dst.
func appendFrame(dst []byte, kind uint32, text string) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(text))+4)
	dst = binary.BigEndian.AppendUint32(dst, kind)
	return append(dst, text...)
}

// reply is one place in the order of a connection's answers: a frame, or a
// publish whose answer is still to come.
type reply struct {
	publish *publish
	frame   []byte
	change  *change // of the connection, behind frame; nil: none
	last    bool    // close after it
}

// change is what becomes of a connection behind an answer: a consumer, or one
// with another encoding.
type change struct {
	sub     *subscribed // of the SUB that was answered
	upgrade *upgrade    // of the IDENTIFY that was answered
}

// replies is the queue of answers, from the reader to whoever writes, in the
// order of the commands.
type replies struct {
	mu    sync.Mutex
	queue []reply
	head  int
	bytes int // of publishes in the queue
	want  bool
	room  chan struct{} // rung when want is set and something was taken
}

// add appends an answer. It waits while the queue is full, and reports false
// when stop was closed instead.
func (q *replies) add(r reply, stop <-chan struct{}) bool {
	size := 0
	if r.publish != nil {
		size = len(r.publish.body)
	}
	q.mu.Lock()
	for !r.last && q.head < len(q.queue) && (len(q.queue)-q.head >= repliesMax || q.bytes+size > replyBytesMax) {
		q.want = true
		q.mu.Unlock()
		select {
		case <-q.room:
		case <-stop:
			return false
		}
		q.mu.Lock()
	}
	if q.head > len(q.queue)/2 && len(q.queue) == cap(q.queue) {
		n := copy(q.queue, q.queue[q.head:])
		clear(q.queue[n:])
		q.queue, q.head = q.queue[:n], 0
	}
	q.queue = append(q.queue, r)
	q.bytes += size
	q.mu.Unlock()
	return true
}

// take moves the answers that are ready, up to the first that is not, to dst.
func (q *replies) take(dst []reply) []reply {
	q.mu.Lock()
	for {
		r := q.first()
		if r == nil {
			break
		}
		dst = q.shift(dst, r)
	}
	q.unlock(len(dst) > 0)
	return dst
}

// takeOKs is take up to the first answer that is something else than OKs, and
// for at most outputBytes of them; left says that something is ready behind.
func (q *replies) takeOKs(dst []reply) (taken []reply, left bool) {
	bytes := 0
	q.mu.Lock()
	for {
		r := q.first()
		if r == nil {
			break
		}
		p := r.publish
		if p == nil || p.err != nil || bytes+p.answers*len(okFrame) > outputBytes {
			left = true
			break
		}
		bytes += p.answers * len(okFrame)
		dst = q.shift(dst, r)
	}
	q.unlock(len(dst) > 0)
	return dst, left
}

// first is the next answer, nil while there is none or it is not ready.
func (q *replies) first() *reply {
	if q.head == len(q.queue) {
		return nil
	}
	r := &q.queue[q.head]
	if r.publish != nil && !r.publish.done.Load() {
		return nil
	}
	return r
}

// shift moves the first answer to dst.
func (q *replies) shift(dst []reply, r *reply) []reply {
	if r.publish != nil {
		q.bytes -= len(r.publish.body)
	}
	dst = append(dst, *r)
	*r = reply{}
	if q.head++; q.head == len(q.queue) {
		q.queue, q.head = q.queue[:0], 0
	}
	return dst
}

// unlock ends take. When answers were taken, it tells a reader that waits.
func (q *replies) unlock(taken bool) {
	rung := q.want && taken
	if rung {
		q.want = false
	}
	q.mu.Unlock()
	if rung {
		select {
		case q.room <- struct{}{}:
		default:
		}
	}
}

// idle reports whether no answer waits.
func (q *replies) idle() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.head == len(q.queue)
}
