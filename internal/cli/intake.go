package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/tidings-io/tidings/internal/config"
)

// Bounds of what pub reads ahead of the node's answers.
const (
	intakeMessagesMax = 16 << 10
	intakeBytesMax    = 8 << 20
)

// intake holds messages that were read and not yet sent, in order.
type intake struct {
	mu      sync.Mutex
	changed *sync.Cond
	bodies  [][]byte
	bytes   int
	empties int   // messages without a byte, left out
	done    bool  // nothing comes any more
	stopped bool  // nothing is wanted any more
	err     error // why nothing comes any more, nil at the end of input
}

func newIntake() *intake {
	q := &intake{}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// put adds a message, waiting for room; false when no more are wanted.
func (q *intake) put(body []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.stopped && len(q.bodies) > 0 && (len(q.bodies) >= intakeMessagesMax || q.bytes+len(body) > intakeBytesMax) {
		q.changed.Wait()
	}
	if q.stopped {
		return false
	}
	q.bodies = append(q.bodies, body)
	q.bytes += len(body)
	q.changed.Broadcast()
	return true
}

// skip counts an empty message.
func (q *intake) skip() {
	q.mu.Lock()
	q.empties++
	q.mu.Unlock()
}

func (q *intake) skipped() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.empties
}

// finish says that nothing comes any more, and why.
func (q *intake) finish(err error) {
	if errors.Is(err, io.EOF) {
		err = nil
	}
	q.mu.Lock()
	q.done, q.err = true, err
	q.changed.Broadcast()
	q.mu.Unlock()
}

// stop wakes both sides: nothing is wanted any more.
func (q *intake) stop() {
	q.mu.Lock()
	q.stopped = true
	q.changed.Broadcast()
	q.mu.Unlock()
}

// take waits for messages and appends at most count of them, and no more after
// byteMax bytes, to dst. Without a new one the input is at its end; err is then
// what ended it.
func (q *intake) take(dst [][]byte, count, byteMax int) (_ [][]byte, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.bodies) == 0 && !q.done && !q.stopped {
		q.changed.Wait()
	}
	if q.stopped || len(q.bodies) == 0 {
		return dst, q.err
	}
	n, size := 0, 0
	for n < min(count, len(q.bodies)) && (n == 0 || size+len(q.bodies[n]) <= byteMax) {
		size += len(q.bodies[n])
		n++
	}
	dst = append(dst, q.bodies[:n]...)
	q.bodies = q.bodies[n:]
	q.bytes -= size
	q.changed.Broadcast()
	return dst, nil
}

// inputMax bounds a message of standard input where the node does not say how
// large one may be, bytes.
const inputMax = 1 << 30

// splitter cuts a stream into messages.
type splitter struct {
	r         *bufio.Reader
	delimiter []byte // empty: the stream is one message
	crlf      bool   // a CR before the delimiter goes too
	max       int64  // bytes of a message
	n         int    // messages so far, the empty ones too
	ended     bool
}

// newSplitter cuts at a delimiter; max is the largest message, 0 for the
// greatest bound there is.
func newSplitter(r io.Reader, delimiter string, max int64) *splitter {
	if max <= 0 {
		max = inputMax
	}
	return &splitter{r: bufio.NewReaderSize(r, 64<<10), delimiter: []byte(unescape(delimiter)), max: max}
}

// newLineSplitter cuts at LF or CR LF.
func newLineSplitter(r io.Reader, max int64) *splitter {
	sp := newSplitter(r, "\n", max)
	sp.crlf = true
	return sp
}

// next is the next message, possibly empty; io.EOF after the last.
func (sp *splitter) next() ([]byte, error) {
	if sp.ended {
		return nil, io.EOF
	}
	sp.n++
	if len(sp.delimiter) == 0 {
		return sp.whole()
	}
	last := sp.delimiter[len(sp.delimiter)-1]
	var body []byte
	for {
		part, err := sp.r.ReadSlice(last)
		body = append(body, part...)
		if bytes.HasSuffix(body, sp.delimiter) {
			body = body[:len(body)-len(sp.delimiter)]
			if sp.crlf {
				body = bytes.TrimSuffix(body, []byte("\r"))
			}
			return body, sp.bound(len(body))
		}
		if err := sp.bound(len(body) - len(sp.delimiter)); err != nil {
			return nil, err
		}
		switch {
		case err == nil || errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			sp.ended = true
			if len(body) == 0 { // the input ended with a delimiter
				return nil, io.EOF
			}
			return body, sp.bound(len(body))
		default:
			return nil, fmt.Errorf("read standard input: %w", err)
		}
	}
}

func (sp *splitter) whole() ([]byte, error) {
	sp.ended = true
	body, err := io.ReadAll(io.LimitReader(sp.r, sp.max+1))
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	if len(body) == 0 {
		return nil, usagef("standard input is empty, and NSQ has no empty messages")
	}
	return body, sp.bound(len(body))
}

func (sp *splitter) bound(size int) error {
	if int64(size) <= sp.max {
		return nil
	}
	return failf(exitFailure, "message %d of standard input is larger than %s, the most that the node takes (its --max-msg-size)", sp.n, config.Bytes(sp.max))
}
