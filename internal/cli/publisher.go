package cli

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Bounds of a request that gathers what waits.
const (
	gatherMessagesMax = 4096
	gatherBytesMax    = 1 << 20
)

// burst is how far a publisher that has fallen behind its rate catches up.
const burst = 100 * time.Millisecond

// publisher sends messages in order, one request at a time.
type publisher struct {
	*pubOptions
	progress *progress
	sent     int       // messages acknowledged
	due      time.Time // when the rate allows the next message
	bodies   [][]byte  // of the request being made
}

// run sends until the intake has no more. An interrupt lets the request that is
// on its way be answered.
func (p *publisher) run(ctx context.Context, q *intake) error {
	for {
		allowed, err := p.pace(ctx)
		if err != nil {
			return err
		}
		more, err := p.gather(q, allowed)
		if len(p.bodies) > 0 {
			if sendErr := p.send(context.WithoutCancel(ctx), p.bodies); sendErr != nil {
				return sendErr
			}
		}
		if err != nil || !more {
			return err
		}
	}
}

// pace waits until the rate allows a message, and says how many it allows.
func (p *publisher) pace(ctx context.Context) (allowed int, err error) {
	if p.rate == 0 {
		return gatherMessagesMax, nil
	}
	now := time.Now()
	if earliest := now.Add(-burst); p.due.IsZero() {
		p.due = now
	} else if p.due.Before(earliest) {
		p.due = earliest
	}
	if wait := p.due.Sub(now); wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, failf(exitFailure, "interrupted")
		}
	}
	return 1 + int(time.Since(p.due).Seconds()*p.rate), nil
}

// gather collects the messages of the next request: --batch of them, or what
// waits. more is false at the end of input.
func (p *publisher) gather(q *intake, allowed int) (more bool, err error) {
	p.bodies = p.bodies[:0]
	count, size := min(allowed, gatherMessagesMax), gatherBytesMax
	switch {
	case p.batch > 0:
		count, size = p.batch, inputMax
	case p.delay > 0 || p.id != "":
		count = 1
	}
	for {
		had := len(p.bodies)
		p.bodies, err = q.take(p.bodies, count-had, size)
		if err != nil || len(p.bodies) == had {
			return false, err
		}
		if p.batch == 0 || len(p.bodies) == count {
			return true, nil
		}
	}
}

// send publishes the messages with one request. A gathered batch that is too
// large is cut in two, until the message to blame stands alone; the user's own
// batches are stored whole or not at all.
func (p *publisher) send(ctx context.Context, bodies [][]byte) error {
	q := url.Values{"topic": {p.topic}}
	if p.key != "" {
		q.Set("key", p.key)
	}
	if p.id != "" {
		q.Set("id", p.id)
	}
	path, body := "/pub", bodies[0]
	if len(bodies) > 1 {
		q.Set("binary", "true")
		path, body = "/mpub", binaryBatch(bodies)
	} else if p.delay > 0 {
		ms := (p.delay + time.Millisecond - 1) / time.Millisecond // never early
		q.Set("defer", strconv.FormatInt(int64(ms), 10))
	}
	_, err := p.srv.call(ctx, http.MethodPost, path, q, body)
	if half := len(bodies) / 2; half > 0 && p.batch == 0 && errors.Is(err, errTooBig) {
		if err := p.send(ctx, bodies[:half]); err != nil {
			return err
		}
		return p.send(ctx, bodies[half:])
	}
	if err != nil {
		return err
	}
	p.sent += len(bodies)
	if p.rate > 0 {
		p.due = p.due.Add(time.Duration(float64(len(bodies)) / p.rate * float64(time.Second)))
	}
	p.progress.at(p.sent)
	return nil
}

// binaryBatch is the body of MPUB: count, then size and body of each.
func binaryBatch(bodies [][]byte) []byte {
	size := 4
	for _, b := range bodies {
		size += 4 + len(b)
	}
	out := binary.BigEndian.AppendUint32(make([]byte, 0, size), uint32(len(bodies)))
	for _, b := range bodies {
		out = binary.BigEndian.AppendUint32(out, uint32(len(b)))
		out = append(out, b...)
	}
	return out
}
