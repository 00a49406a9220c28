package nsq

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/s2"
)

const (
	// handshakePatience is how long a client may take for the TLS handshake.
	handshakePatience = 5 * time.Second
	// packedBytes is what a compressor's output gathers in before it is written.
	packedBytes = 16 << 10
	// snappyBlockBytes is the largest block of snappy's framed format.
	snappyBlockBytes = 64 << 10
)

// upgrade is what an IDENTIFY has negotiated: the connection's bytes are
// wrapped in TLS, then compressed. The reader asks for it and waits; the writer
// does it, in the answer's place, so that nothing else is written meanwhile.
type upgrade struct {
	tls    *tls.Config // nil: no TLS
	snappy bool
	level  int    // of deflate; 0: no deflate
	unread []byte // was read from the client behind the IDENTIFY

	stream *stream    // what the connection had before, nil for a plain one
	done   chan error // cap 1: stream is the new one, or the client is to be refused
}

// stream is an upgraded connection. The writer owns the writing side, the
// reader src.
type stream struct {
	conn   net.Conn  // below compression: the socket, or TLS on it
	src    io.Reader // what the client says
	tls    *tls.Conn // nil: no TLS
	snappy bool
	level  int // of deflate; 0: no deflate
	pack   compressor
	packed *bufio.Writer // between pack and conn
}

// compressor is a compressed stream. Flush writes all that was put in, so that
// the other side can unpack it.
type compressor interface {
	io.Writer
	Flush() error
}

// replayed is a connection of which something was read already.
type replayed struct {
	net.Conn
	unread []byte
}

func (r *replayed) Read(b []byte) (int, error) {
	if len(r.unread) == 0 {
		return r.Conn.Read(b)
	}
	n := copy(b, r.unread)
	r.unread = r.unread[n:]
	return n, nil
}

// upgrade does what was negotiated, with an OK after each step in the new
// encoding. An error is the writer's end; a client that failed its part is told
// in the old encoding, by the reader.
func (w *writer) upgrade(u *upgrade) error {
	if err := w.flush(); err != nil {
		return err
	}
	s := stream{conn: w.c.net}
	if u.stream != nil {
		s = *u.stream
	}
	if len(u.unread) > 0 {
		s.conn = &replayed{s.conn, u.unread}
	}
	s.src = s.conn
	if u.tls != nil {
		if err := w.handshake(&s, u.tls); err != nil {
			u.done <- err
			return nil
		}
		if err := w.encode(s); err != nil {
			return err
		}
	}
	if u.snappy || u.level != 0 {
		if err := s.compress(u.snappy, u.level); err != nil {
			u.done <- err
			return nil
		}
		if err := w.encode(s); err != nil {
			return err
		}
	}
	u.stream = w.stream
	u.done <- nil
	return nil
}

// handshake puts TLS on s.
func (w *writer) handshake(s *stream, config *tls.Config) error {
	t := tls.Server(s.conn, config)
	if err := w.c.setReadDeadline(time.Now().Add(handshakePatience)); err != nil {
		return err
	}
	w.deadline = time.Now().Add(handshakePatience)
	if err := w.c.net.SetWriteDeadline(w.deadline); err != nil {
		return err
	}
	if err := t.HandshakeContext(w.c.ctx); err != nil {
		return err
	}
	w.deadline = time.Time{}
	if err := w.c.net.SetWriteDeadline(w.deadline); err != nil {
		return err
	}
	s.conn, s.src, s.tls = t, t, t
	return w.c.setReadDeadline(time.Time{})
}

// compress puts a compressor on s.
func (s *stream) compress(snappy bool, level int) error {
	s.packed = bufio.NewWriterSize(s.conn, packedBytes)
	if snappy {
		s.snappy = true
		// One goroutine, the writer's own, and nothing that snappy does not know.
		s.pack = s2.NewWriter(s.packed, s2.WriterSnappyCompat(), s2.WriterConcurrency(1), s2.WriterBlockSize(snappyBlockBytes))
		s.src = s2.NewReader(s.conn, s2.ReaderMaxBlockSize(snappyBlockBytes))
		return nil
	}
	w, err := flate.NewWriter(s.packed, level)
	if err != nil {
		return err
	}
	s.level, s.pack, s.src = level, w, flate.NewReader(s.conn)
	return nil
}

// encode makes s what the writer writes to, and says OK in it.
func (w *writer) encode(s stream) error {
	w.stream = &s
	if err := w.append(okFrame); err != nil {
		return err
	}
	return w.flush()
}

// write sends bytes, and what may be nil behind them.
func (s *stream) write(b, behind []byte) error {
	if s.pack == nil {
		if _, err := s.conn.Write(b); err != nil || len(behind) == 0 {
			return err
		}
		_, err := s.conn.Write(behind)
		return err
	}
	for _, part := range [2][]byte{b, behind} {
		if _, err := s.pack.Write(part); err != nil {
			return err
		}
	}
	if err := s.pack.Flush(); err != nil {
		return err
	}
	return s.packed.Flush()
}

// end says that nothing follows, so that the client can tell an end from a cut.
func (s *stream) end() {
	if s.tls != nil {
		_ = s.tls.CloseWrite()
	}
}
