package transport

import (
	"context"
	"sync"

	"github.com/tidings-io/tidings/internal/fault"
)

// Stream is the answer to Fetch: a sequence of chunks.
type Stream struct {
	c    *caller
	call *call
	stop context.CancelFunc // of the stream's own context

	mu     sync.Mutex
	chunks [][]byte
	bytes  int   // in chunks
	owed   int   // taken by the reader and not yet given back as credit
	err    error // what Next returns after the last chunk
	wake   chan struct{}
}

// Fetch asks a peer for a stream, over the links for bulk. The peer sends at most
// Options.StreamWindow bytes, and one chunk, ahead of what Next has returned.
// Errors are those of Call. The caller reads until Next returns an error, or calls
// Close.
func (t *Transport) Fetch(ctx context.Context, to Peer, method Method, request []byte) (*Stream, error) {
	p, err := t.find(to)
	if err != nil {
		return nil, notSent(to.String(), fault.Unreachable, err)
	}
	ctx, stop := context.WithCancel(ctx)
	s := &Stream{c: p.links[Bulk].calls, stop: stop, wake: make(chan struct{}, 1)}
	s.call = &call{stream: s}
	if err := s.c.begin(ctx, kindFetch, method, request, s.call); err != nil {
		stop()
		return nil, err
	}
	s.grant(t.o.StreamWindow)
	return s, nil
}

// grant lets the peer send so many bytes more.
func (s *Stream) grant(n int) {
	_ = s.c.l.box.pushUrgent(item{head: header{kind: kindCredit, id: s.call.id, arg: uint32(n)}, size: headerSize}) // when the link is down the stream ends anyway
}

// Next waits for the next chunk, which belongs to the caller. io.EOF is the
// stream's good end; any other error means that it broke off, or what the peer's
// handler said.
func (s *Stream) Next() ([]byte, error) {
	for {
		b, err, ok := s.take()
		if ok {
			return b, err
		}
		<-s.wake
	}
}

// take is the next chunk, or the end; false when there is neither yet.
func (s *Stream) take() (chunk []byte, err error, ok bool) {
	s.mu.Lock()
	if len(s.chunks) == 0 {
		err = s.err
		s.mu.Unlock()
		return nil, err, err != nil
	}
	chunk = s.chunks[0]
	s.chunks[0] = nil
	s.chunks = s.chunks[1:]
	s.bytes -= len(chunk)
	s.owed += len(chunk)
	credit := 0
	if s.owed >= s.c.l.t.o.StreamWindow/2 && s.err == nil {
		credit, s.owed = s.owed, 0
	}
	s.mu.Unlock()
	if credit > 0 {
		s.grant(credit)
	}
	return chunk, nil, true
}

// Close ends the stream, also at the peer. Chunks that have come can still be
// read.
func (s *Stream) Close() { s.stop() }

// put takes a chunk that has come.
func (s *Stream) put(chunk []byte) error {
	o := &s.c.l.t.o
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(chunk) == 0 || s.bytes >= o.StreamWindow {
		return malformed("chunk of %d bytes beyond the window", len(chunk))
	}
	if s.err == nil {
		s.chunks = append(s.chunks, chunk)
		s.bytes += len(chunk)
		s.ring()
	}
	return nil
}

// end is called once, when the call has ended.
func (s *Stream) end(err error) {
	s.mu.Lock()
	s.err = err
	s.ring()
	s.mu.Unlock()
	s.stop()
}

func (s *Stream) ring() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
