package nsq

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

// httpPub handles POST /pub: the whole body is one message. The body is looked
// at before the parameters, as in nsqd.
func httpPub(f *Front, r *http.Request, q url.Values) (any, error) {
	p, err := f.readRequest(r, "PUB", f.o.MaxMsgSize, "MSG_TOO_BIG")
	if err != nil {
		return nil, err
	}
	if len(p.body) == 0 {
		p.drop()
		return nil, bad("MSG_EMPTY")
	}
	m := partition.Message{Body: p.body}
	p.topic, err = topicArg(q, true)
	if err == nil {
		err = f.httpOptions(r, q, &m)
	}
	if err == nil {
		m.DueNs, err = f.deferArg(q)
	}
	if err != nil {
		p.drop()
		return nil, err
	}
	p.msgs = append(p.msgs[:0], m)
	return f.publishAndWait(r.Context(), p)
}

// deferArg is the time that a message is deferred to, unix ns; 0: at once.
func (f *Front) deferArg(q url.Values) (int64, error) {
	d, ok := q["defer"]
	if !ok {
		return 0, nil
	}
	ms, err := strconv.ParseInt(d[0], 10, 64)
	if err != nil || ms < 0 || millis(uint64(ms)) > f.o.MaxDeferTimeout {
		return 0, bad("INVALID_DEFER")
	}
	if ms == 0 {
		return 0, nil
	}
	return time.Now().Add(millis(uint64(ms))).UnixNano(), nil
}

// httpOptions reads key and id, or the header Idempotency-Key.
func (f *Front) httpOptions(r *http.Request, q url.Values, m *partition.Message) error {
	key, id := q.Get("key"), q.Get("id")
	if id == "" {
		id = r.Header.Get("Idempotency-Key")
	}
	if len(key) > keyBytesMax {
		return bad("INVALID_KEY")
	}
	if len(id) > keyBytesMax {
		return bad("INVALID_ID")
	}
	if key != "" {
		m.Key = []byte(key)
	}
	if id != "" {
		m.ID = []byte(id)
	}
	return nil
}

// httpMPub handles POST /mpub: a batch, one message per line or in the binary
// form of MPUB.
func httpMPub(f *Front, r *http.Request, q url.Values) (any, error) {
	if r.ContentLength > f.o.MaxBodySize {
		return nil, &httpError{http.StatusRequestEntityTooLarge, "BODY_TOO_BIG"}
	}
	topic, err := topicArg(q, true)
	if err != nil {
		return nil, err
	}
	var m partition.Message
	if err := f.httpOptions(r, q, &m); err != nil {
		return nil, err
	}
	p, err := f.readRequest(r, "MPUB", f.o.MaxBodySize, "BODY_TOO_BIG")
	if err != nil {
		return nil, err
	}
	p.topic = topic
	split := p.splitLines
	if binaryArg(q) {
		split = p.splitBinary
	}
	if err := split(f.o.MaxMsgSize, f.o.MaxBodySize); err != nil {
		p.drop()
		return nil, err
	}
	if len(p.msgs) == 0 {
		p.drop()
		return "OK", f.broker.CreateTopic(r.Context(), topic)
	}
	if err := p.charge(r.Context(), 0); err != nil {
		p.drop()
		return nil, err
	}
	p.name(m.Key, m.ID)
	return f.publishAndWait(r.Context(), p)
}

// binaryArg: every value but false and 0 is true.
func binaryArg(q url.Values) bool {
	v, ok := q["binary"]
	return ok && v[0] != "false" && v[0] != "0"
}

// splitLines makes a message of each line that is not empty.
func (p *publish) splitLines(messageMax, _ int64) error {
	p.msgs = p.msgs[:0]
	for line := range bytes.SplitSeq(p.body, []byte{'\n'}) {
		if len(line) == 0 {
			continue
		}
		if int64(len(line)) > messageMax {
			return &httpError{http.StatusRequestEntityTooLarge, "MSG_TOO_BIG"}
		}
		p.msgs = append(p.msgs, partition.Message{Body: line})
	}
	return nil
}

// splitBinary reads a count and that many sized messages. nsqd answers 413 to
// all that is wrong with them.
func (p *publish) splitBinary(messageMax, bodyMax int64) error {
	badBody := &httpError{http.StatusRequestEntityTooLarge, "BAD_BODY"}
	badMessage := &httpError{http.StatusRequestEntityTooLarge, "BAD_MESSAGE"}
	p.msgs = p.msgs[:0]
	b := p.body
	if len(b) < 4 {
		return badBody
	}
	count := int32(binary.BigEndian.Uint32(b))
	if b = b[4:]; count <= 0 || int64(count) > (bodyMax-4)/5 {
		return badBody
	}
	for range count {
		if len(b) < 4 {
			return badMessage
		}
		n := int32(binary.BigEndian.Uint32(b))
		if b = b[4:]; n <= 0 || int64(n) > messageMax || int(n) > len(b) {
			return badMessage
		}
		p.msgs = append(p.msgs, partition.Message{Body: b[:n:n]})
		b = b[n:]
	}
	return nil
}

// readRequest reads a request's body, which must not be larger than most.
func (f *Front) readRequest(r *http.Request, command string, most int64, tooBig string) (*publish, error) {
	big := &httpError{http.StatusRequestEntityTooLarge, tooBig}
	if r.ContentLength > most {
		return nil, big
	}
	p := f.newPublish(command, "")
	for {
		if room := cap(p.body) - len(p.body); room == 0 {
			step := max(len(p.body), bodyStartBytes/16)
			if left := r.ContentLength + 1 - int64(len(p.body)); left > 0 { // with room for the end
				step = int(min(left, bodyStartBytes))
			}
			if err := p.grow(r.Context(), step); err != nil {
				p.drop()
				return nil, err
			}
		}
		n, err := r.Body.Read(p.body[len(p.body):min(cap(p.body), int(most)+1)])
		p.body = p.body[:len(p.body)+n]
		if int64(len(p.body)) > most {
			p.drop()
			return nil, big
		}
		if err != nil && !errors.Is(err, io.EOF) {
			p.drop()
			return nil, &httpError{http.StatusInternalServerError, "INTERNAL_ERROR"}
		}
		if charged := p.charge(r.Context(), 0); charged != nil {
			p.drop()
			return nil, charged
		}
		if err != nil {
			return p, nil
		}
	}
}

// publishAndWait publishes and waits for the answer. When the wait ends first,
// the outcome is unknown.
func (f *Front) publishAndWait(ctx context.Context, p *publish) (any, error) {
	m := &f.metrics
	p.measure(m.publishes.Add(1))
	m.published.Add(uint64(len(p.msgs)))
	m.publishedBytes.Add(uint64(len(p.body)))
	answer := make(chan error, 1)
	topic, n := p.topic, len(p.msgs)
	p.caller, p.publisher = answer, f.publishers.Add(1)
	p.submit(ctx.Done())
	select {
	case err := <-answer:
		p.recycle()
		if err != nil {
			m.publishesFailed.Add(1)
			return nil, err
		}
		m.http.of(topic).Add(uint64(n))
		return "OK", nil
	case <-ctx.Done():
		m.publishesFailed.Add(1)
		return nil, fault.Timeout
	}
}
