package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"
)

const (
	// writeBytesMax is about how much goes to the output before what is in it
	// is finished, bytes.
	writeBytesMax = 256 << 10
	// silenceMax is how long a node may say nothing; it sends heartbeats every
	// 30 s.
	silenceMax = 90 * time.Second
	// closePatience is how long a consumer waits for its goodbye's answer.
	closePatience = 2 * time.Second
	// drainPoll is how often an idle consumer looks whether others have taken
	// the rest.
	drainPoll = 200 * time.Millisecond
)

// consumption is the life of one subscription: a goroutine reads messages, the
// other writes them out and finishes them.
type consumption struct {
	*subOptions
	conn *peer
	out  *printer
	goal int64 // messages still to print; negative: no end
	rdy  int   // the window as the node knows it

	bell   chan struct{} // rung when something changed below
	closed chan struct{} // CLOSE_WAIT has come: everything before it is done
	mu     sync.Mutex
	queue  []delivery // arrived, not yet taken
	err    error      // why nothing arrives any more
}

// run prints until the goal is reached, nothing is left, ctx ends, or something
// fails.
func (c *consumption) run(ctx context.Context) error {
	c.bell, c.closed = make(chan struct{}, 1), make(chan struct{})
	var reader sync.WaitGroup
	defer reader.Wait()
	defer c.conn.conn.Close()
	c.conn.patience = silenceMax
	reader.Go(c.read)
	if err := c.finish(nil); err != nil { // opens the window
		return err
	}
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	idle := false
	for {
		batch, lost := c.take()
		n, err := c.out.write(batch)
		if finishErr := c.finish(batch[:n]); err == nil {
			err = finishErr
		}
		if err != nil || c.goal == 0 {
			c.close()
			return err
		}
		if len(batch) > 0 {
			idle = false
			continue
		}
		if lost != nil {
			return lost
		}
		select {
		case <-c.bell:
		case <-ctx.Done():
			c.close()
			return nil
		case <-tick.C:
			if readerGone(c.out.out) {
				c.close()
				return syscall.EPIPE
			}
			if idle && !c.follow { // other consumers may have had a share
				if n, err := c.backlog(ctx); err != nil || n == 0 {
					c.close()
					return err
				}
			}
			idle = true
		}
	}
}

// read takes frames off the connection until it ends.
func (c *consumption) read() {
	for {
		kind, data, err := c.conn.next()
		var d delivery
		switch {
		case err != nil:
		case kind == frameMessage:
			d, err = parse(data)
		case string(data) == "CLOSE_WAIT":
			close(c.closed)
			continue
		default:
			continue
		}
		c.mu.Lock()
		if err != nil {
			c.err = err
		} else {
			c.queue = append(c.fresh(c.queue), d)
		}
		c.mu.Unlock()
		select {
		case c.bell <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// fresh drops messages from the front that have timed out meanwhile, because
// the output is slow: the node delivers them again.
func (c *consumption) fresh(queue []delivery) []delivery {
	for len(queue) > 0 && c.conn.msgTimeout > 0 && time.Since(queue[0].at) >= c.conn.msgTimeout {
		queue = queue[1:]
	}
	return queue
}

// take returns messages to write, or why there are no more.
func (c *consumption) take() (batch []delivery, lost error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = c.fresh(c.queue)
	n, size := 0, 0
	for n < len(c.queue) && (c.goal < 0 || int64(n) < c.goal) && size < writeBytesMax {
		size += len(c.queue[n].body)
		n++
	}
	batch = c.queue[:n:n]
	c.queue = c.queue[n:]
	return batch, c.err
}

// finish says that messages have been written. The window never holds more than
// are still wanted: it shrinks before a finished message makes room.
func (c *consumption) finish(written []delivery) error {
	window := min(c.window, max(c.conn.maxRdy, 1))
	if c.goal >= 0 {
		c.goal -= int64(len(written))
		window = int(min(int64(window), c.goal))
	}
	if window == c.rdy && len(written) == 0 {
		return nil
	}
	var b bytes.Buffer
	if window != c.rdy {
		c.rdy = window
		b.WriteString("RDY " + strconv.Itoa(window) + "\n")
	}
	for _, d := range written {
		b.WriteString("FIN ")
		b.Write(d.id[:])
		b.WriteByte('\n')
	}
	return c.conn.send(b.String())
}

// close says goodbye, and waits until the node has taken in what was finished.
// What is still in flight goes to other consumers.
func (c *consumption) close() {
	if c.conn.send("CLS\n") != nil {
		return
	}
	patience := time.After(closePatience)
	for {
		select {
		case <-c.closed:
			return
		case <-patience:
			return
		case <-c.bell:
			c.mu.Lock()
			lost := c.err != nil
			c.mu.Unlock()
			if lost {
				return
			}
		}
	}
}

// printer writes messages to the output.
type printer struct {
	out         io.Writer
	json        bool
	after       []byte // follows each body
	printed     int64
	connections int // how often a subscription was made
	buf         bytes.Buffer
	ends        []int // in buf
}

// jsonMessage is a message as `sub --json` prints it.
type jsonMessage struct {
	ID          string  `json:"id"`
	TimestampNs int64   `json:"timestamp_ns"`
	Attempts    uint16  `json:"attempts"`
	Body        *string `json:"body,omitempty"`
	BodyBase64  *string `json:"body_base64,omitempty"`
}

// write writes the messages and says how many of them the output has taken
// whole.
func (p *printer) write(batch []delivery) (n int, err error) {
	if len(batch) == 0 {
		return 0, nil
	}
	p.buf.Reset()
	p.ends = p.ends[:0]
	for _, d := range batch {
		if err := p.format(d); err != nil {
			return 0, fmt.Errorf("format message: %w", err)
		}
		p.ends = append(p.ends, p.buf.Len())
	}
	written, err := p.out.Write(p.buf.Bytes())
	for n < len(p.ends) && p.ends[n] <= written {
		n++
	}
	p.printed += int64(n)
	if err != nil {
		return n, failf(exitFailure, "write messages: %w", err)
	}
	return n, nil
}

func (p *printer) format(d delivery) error {
	if !p.json {
		p.buf.Write(d.body)
		p.buf.Write(p.after)
		return nil
	}
	line := jsonMessage{ID: string(d.id[:]), TimestampNs: d.timeNs, Attempts: d.attempts}
	if utf8.Valid(d.body) {
		body := string(d.body)
		line.Body = &body
	} else {
		body := base64.StdEncoding.EncodeToString(d.body)
		line.BodyBase64 = &body
	}
	return printJSONLine(&p.buf, line)
}
