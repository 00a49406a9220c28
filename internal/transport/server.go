package transport

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
)

// handler is what answers a method: exactly one of the three.
type handler struct {
	sync   func(ctx context.Context, from From, request []byte) ([]byte, error)
	async  func(ctx context.Context, from From, request []byte, respond Respond)
	stream func(ctx context.Context, from From, request []byte, send func(chunk []byte) error) error
}

// Handle answers calls of a method with f, each on a goroutine of its own: calls
// of one peer run beside each other, in no order. Each method has one handler,
// given once, before Run or later; until then callers get fault.Unsupported and
// ErrNotSent. ctx ends with the caller's, and with the link. An error reaches the
// caller as its fault code and text.
func (t *Transport) Handle(method Method, f func(ctx context.Context, from From, request []byte) ([]byte, error)) {
	t.handle(method, handler{sync: f})
}

// Respond answers a call, with a reply or an error. sent, where it is not nil, is
// called once when the reply is not read any more, on any goroutine: until then it
// must not be changed. It must not block.
type Respond func(reply []byte, sent func(), err error)

// HandleAsync answers calls of a method with f, which is called for the calls of
// one peer in the order in which they were sent. f must not block; it, or whoever
// it hands the call to, calls respond once, at any time and from any goroutine.
// The reply must not be changed afterwards. request belongs to the handler.
func (t *Transport) HandleAsync(method Method, f func(ctx context.Context, from From, request []byte, respond func(reply []byte, err error))) {
	t.HandleLent(method, func(ctx context.Context, from From, request []byte, respond Respond) {
		f(ctx, from, request, func(reply []byte, err error) { respond(reply, nil, err) })
	})
}

// HandleLent is HandleAsync for handlers that want the memory of their replies back.
func (t *Transport) HandleLent(method Method, f func(ctx context.Context, from From, request []byte, respond Respond)) {
	t.handle(method, handler{async: f})
}

// HandleStream answers fetches of a method with f, each on a goroutine of its own.
// send waits until the reader has room and the chunk is written; the chunk can be
// reused when it returns. A chunk is as large as a frame at most; some 256 KiB are
// good. When f returns nil the stream has ended well.
func (t *Transport) HandleStream(method Method, f func(ctx context.Context, from From, request []byte, send func(chunk []byte) error) error) {
	t.handle(method, handler{stream: f})
}

func (t *Transport) handle(method Method, h handler) {
	if _, taken := t.handlers.LoadOrStore(method, h); taken {
		panic(fmt.Sprintf("transport: method %d has two handlers", method))
	}
}

// server answers the requests of one accepted connection.
type server struct {
	in  *inbound
	box *outbox
	ctx context.Context // ends with the connection
	wg  sync.WaitGroup  // handlers under way on goroutines of ours

	mu      sync.Mutex
	serving map[uint64]*served
	bytes   int // of their requests
	streams int
}

// served is a request under way.
type served struct {
	size   int
	cancel context.CancelFunc
	credit *credit // of a stream
}

func newServer(ctx context.Context, in *inbound, box *outbox) *server {
	return &server{in: in, box: box, ctx: ctx, serving: make(map[uint64]*served)}
}

// handle takes what comes on the connection.
func (s *server) handle(h header, payload []byte) error {
	switch h.kind {
	case kindCall, kindFetch:
		return s.request(h, payload)
	case kindCancel:
		s.mu.Lock()
		x := s.serving[h.id]
		s.mu.Unlock()
		if x != nil {
			x.cancel()
		}
		return nil
	case kindCredit:
		s.mu.Lock()
		x := s.serving[h.id]
		s.mu.Unlock()
		if x != nil && x.credit != nil {
			x.credit.add(int64(h.arg))
		}
		return nil
	}
	return unexpected(h, payload)
}

// request starts a handler, or says why not.
func (s *server) request(h header, payload []byte) error {
	v, _ := s.in.t.handlers.Load(h.method)
	f, _ := v.(handler)
	stream := h.kind == kindFetch
	if stream != (f.stream != nil) || !stream && f.sync == nil && f.async == nil {
		return s.reject(h, fault.New(fault.Unsupported, "method %d is not known", h.method))
	}
	ctx, cancel := s.contextOf(h)
	x := &served{size: headerSize + len(payload), cancel: cancel}
	if stream {
		x.credit = &credit{wake: make(chan struct{}, 1)}
	}
	if err := s.admit(h.id, x); err != nil {
		cancel()
		if err == errFull { //nolint:errorlint // our own, bare
			return s.reject(h, fault.New(fault.Overloaded, "too many requests are under way"))
		}
		return err
	}
	switch {
	case stream:
		s.wg.Go(func() { s.stream(ctx, h, payload, f, x) })
	case f.sync != nil:
		s.wg.Go(func() {
			reply, err := f.sync(ctx, s.in.from(), payload)
			s.reply(h, x, reply, nil, err)
		})
	default:
		var once sync.Once
		f.async(ctx, s.in.from(), payload, func(reply []byte, sent func(), err error) {
			once.Do(func() { s.reply(h, x, reply, sent, err) })
		})
	}
	return nil
}

// contextOf is the context of a request: it ends with the connection, when the
// caller has gone, and at the caller's deadline.
func (s *server) contextOf(h header) (context.Context, context.CancelFunc) {
	if h.arg > 0 {
		return context.WithTimeout(s.ctx, time.Duration(h.arg)*time.Millisecond)
	}
	return context.WithCancel(s.ctx)
}

// admit gives a request a place, if the bounds allow.
func (s *server) admit(id uint64, x *served) error {
	o := &s.in.t.o
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := len(s.serving) - s.streams
	switch {
	case s.serving[id] != nil:
		return malformed("request %d is under way already", id)
	case x.credit != nil && s.streams >= o.MaxStreams, x.credit == nil && calls >= o.MaxCalls:
		return errFull
	case len(s.serving) > 0 && s.bytes+x.size > o.MaxCallBytes:
		return errFull
	}
	s.serving[id] = x
	s.bytes += x.size
	if x.credit != nil {
		s.streams++
	}
	return nil
}

// release ends a request.
func (s *server) release(id uint64, x *served) {
	x.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.serving, id)
	s.bytes -= x.size
	if x.credit != nil {
		s.streams--
	}
}

// reject answers a request that no handler has seen.
func (s *server) reject(h header, why error) error {
	s.answer(h, flagError|flagNotStarted, encodeError(why), nil)
	return nil
}

// reply answers a call.
func (s *server) reply(h header, x *served, reply []byte, sent func(), err error) {
	s.release(h.id, x)
	if err == nil {
		_, waiting := s.box.waiting()
		switch {
		case len(reply) > s.in.wire.limit:
			err = fault.New(fault.BodyTooBig, "reply of %d bytes, at most %d can be sent", len(reply), s.in.wire.limit)
		case waiting > 0 && waiting+len(reply) > s.in.t.o.MaxCallBytes:
			err = fault.New(fault.Overloaded, "it was done, but %d bytes of replies wait", waiting)
		}
	}
	if err == nil {
		s.answer(h, 0, reply, sent)
		return
	}
	if sent != nil {
		sent()
	}
	s.answer(h, flagError, encodeError(err), nil)
}

// answer queues the last frame of a request. A peer that sends requests beyond
// its bounds and reads no answer is cut off: an error is queued whatever else
// waits, because the request was done with.
func (s *server) answer(h header, flags uint8, body []byte, sent func()) {
	if n, _ := s.box.waiting(); n > 2*(s.in.t.o.MaxCalls+s.in.t.o.MaxStreams) {
		s.in.cancel(malformed("the peer sends requests and reads no replies"))
		if sent != nil {
			sent()
		}
		return
	}
	k := kindReply
	if h.kind == kindFetch {
		k = kindEnd
	}
	it := item{head: header{kind: k, flags: flags, id: h.id}, body: body, size: headerSize + len(body)}
	if sent != nil {
		it.done = func(error) { sent() }
	}
	if s.box.pushUrgent(it) != nil && sent != nil { // without a link nobody waits for it
		sent()
	}
}

// stream runs a stream's handler.
func (s *server) stream(ctx context.Context, h header, request []byte, f handler, x *served) {
	err := f.stream(ctx, s.in.from(), request, func(chunk []byte) error { return s.send(ctx, h.id, x, chunk) })
	s.release(h.id, x)
	if err != nil {
		s.answer(h, flagError, encodeError(err), nil)
		return
	}
	s.answer(h, 0, nil, nil)
}

// send writes a chunk when the reader has room for it.
func (s *server) send(ctx context.Context, id uint64, x *served, chunk []byte) error {
	switch {
	case len(chunk) == 0:
		return nil
	case len(chunk) > s.in.wire.limit:
		return fault.New(fault.BodyTooBig, "send chunk of %d bytes, at most %d can be sent", len(chunk), s.in.wire.limit)
	}
	if err := x.credit.take(ctx, int64(len(chunk))); err != nil {
		return err
	}
	written := make(chan error, 1)
	err := s.box.pushUrgent(item{
		head: header{kind: kindChunk, id: id}, body: chunk, size: headerSize + len(chunk),
		done: func(err error) { written <- err },
	})
	if err == nil {
		err = <-written // the chunk is the writer's until then
	}
	if err != nil {
		return fmt.Errorf("send chunk to node %s: %w", s.in.hello.Node, err)
	}
	return nil
}

// credit is what a stream's reader has room for, in bytes.
type credit struct {
	mu   sync.Mutex
	n    int64
	wake chan struct{}
}

// maxCredit keeps the sum within bounds whatever a peer sends.
const maxCredit = 1 << 40

func (c *credit) add(n int64) {
	c.mu.Lock()
	c.n = min(c.n+n, maxCredit)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// take waits until there is any room, and takes n: the last chunk may go beyond.
func (c *credit) take(ctx context.Context, n int64) error {
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		c.mu.Lock()
		ok := c.n > 0
		if ok {
			c.n -= n
		}
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
		}
	}
}
