package cli

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/version"
)

// Frame types of NSQ's TCP protocol.
const (
	frameResponse = 0
	frameError    = 1
	frameMessage  = 2
)

// frameMax bounds a frame from the node, bytes. No node takes larger bodies.
const frameMax = 1<<30 + 64

// peer is a connection to a node's NSQ TCP address, as a consumer needs it: it
// knows how far each command has come, which client libraries keep to
// themselves.
type peer struct {
	addr       string
	conn       net.Conn
	in         *bufio.Reader // one goroutine reads
	patience   time.Duration // how long the node may say nothing
	msgTimeout time.Duration // as the node grants it
	maxRdy     int

	mu  sync.Mutex // guards out
	out *bufio.Writer
}

// delivery is a message as it arrived.
type delivery struct {
	id       [16]byte
	timeNs   int64
	attempts uint16
	body     []byte
	at       time.Time // when it arrived here
}

// dialPeer connects and agrees on terms.
func dialPeer(ctx context.Context, addr string, timeout time.Duration, a access) (*peer, error) {
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err
		}
		return nil, failf(exitUnreachable, "can't reach a node's TCP address at %s: %w", addr, err)
	}
	p := &peer{addr: addr, conn: conn, in: bufio.NewReaderSize(conn, 256<<10), out: bufio.NewWriterSize(conn, 16<<10)}
	if err := p.greet(timeout, a); err != nil {
		conn.Close()
		return nil, err
	}
	return p, nil
}

func (p *peer) greet(timeout time.Duration, a access) error {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	id, err := json.Marshal(map[string]any{
		"client_id": host, "hostname": host, "feature_negotiation": true, "tls_v1": a.tls != nil,
		"user_agent": "tidings/" + version.Number,
	})
	if err != nil {
		return fmt.Errorf("encode IDENTIFY: %w", err)
	}
	id = append(binary.BigEndian.AppendUint32(nil, uint32(len(id))), id...)
	if err := p.send("  V2IDENTIFY\n", string(id)); err != nil {
		return err
	}
	answer, err := p.answer(timeout)
	if err != nil {
		return err
	}
	var terms struct {
		MsgTimeout int64 `json:"msg_timeout"` // ms
		MaxRdy     int   `json:"max_rdy_count"`
		TLS        bool  `json:"tls_v1"`
		Auth       bool  `json:"auth_required"`
	}
	if err := json.Unmarshal(answer, &terms); err != nil {
		return failf(exitFailure, "read IDENTIFY's answer of %s: %w", p.addr, err)
	}
	p.msgTimeout = time.Duration(terms.MsgTimeout) * time.Millisecond
	p.maxRdy = terms.MaxRdy
	switch {
	case terms.TLS:
		err = p.secure(timeout, a)
	case a.tls != nil:
		err = failf(exitFailure, "the node at %s does not offer TLS", p.addr)
	}
	if err == nil && terms.Auth && a.secret != "" {
		err = p.authenticate(timeout, a.secret)
	}
	return err
}

// secure goes on inside TLS.
func (p *peer) secure(timeout time.Duration, a access) error {
	c := tls.Client(p.conn, a.named(p.addr))
	_ = c.SetDeadline(time.Now().Add(timeout))
	if err := c.Handshake(); err != nil {
		return failf(exitUnreachable, "TLS with the node's TCP address at %s: %w", p.addr, err)
	}
	_ = c.SetDeadline(time.Time{})
	p.conn = c
	p.in.Reset(c)
	p.out.Reset(c)
	_, err := p.answer(timeout)
	return err
}

// authenticate shows the secret.
func (p *peer) authenticate(timeout time.Duration, secret string) error {
	if err := p.send("AUTH\n", string(binary.BigEndian.AppendUint32(nil, uint32(len(secret)))), secret); err != nil {
		return err
	}
	_, err := p.answer(timeout)
	return err
}

// subscribe makes this the consumer of a channel. Nothing is delivered before
// a RDY.
func (p *peer) subscribe(topic, channel string, timeout time.Duration) error {
	if err := p.send("SUB ", topic, " ", channel, "\n"); err != nil {
		return err
	}
	_, err := p.answer(timeout)
	return err
}

// send writes the parts and flushes.
func (p *peer) send(parts ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, part := range parts {
		_, _ = p.out.WriteString(part) // sticky: Flush returns the error
	}
	if err := p.out.Flush(); err != nil {
		return p.lost(err)
	}
	return nil
}

func (p *peer) lost(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return failf(exitTimeout, "no word from %s for %s", p.addr, p.patience)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		err = errors.New("closed by the node")
	}
	return failf(exitUnreachable, "lost the connection to %s: %w", p.addr, err)
}

// answer reads the response to the last command. For use before deliveries.
func (p *peer) answer(timeout time.Duration) ([]byte, error) {
	p.patience = timeout
	kind, data, err := p.next()
	if err != nil {
		return nil, err
	}
	if kind != frameResponse {
		return nil, failf(exitFailure, "%s sent an unexpected frame of type %d", p.addr, kind)
	}
	return data, nil
}

// next reads a frame. Heartbeats are answered here; an error frame that does
// not end the connection is passed over, any other is the error.
func (p *peer) next() (kind uint32, data []byte, err error) {
	for {
		if err := p.conn.SetReadDeadline(time.Now().Add(p.patience)); err != nil {
			return 0, nil, p.lost(err)
		}
		var head [8]byte
		if _, err := io.ReadFull(p.in, head[:]); err != nil {
			return 0, nil, p.lost(err)
		}
		size := binary.BigEndian.Uint32(head[:4])
		if size < 4 || size > frameMax {
			return 0, nil, failf(exitFailure, "%s sent a frame of %d bytes: not NSQ's protocol", p.addr, size)
		}
		data := make([]byte, size-4)
		if _, err := io.ReadFull(p.in, data); err != nil {
			return 0, nil, p.lost(err)
		}
		kind := binary.BigEndian.Uint32(head[4:])
		switch {
		case kind == frameResponse && string(data) == "_heartbeat_":
			if err := p.send("NOP\n"); err != nil {
				return 0, nil, err
			}
		case kind == frameError && staysOpen(string(data)):
		case kind == frameError:
			return 0, nil, nsqError(string(data))
		default:
			return kind, data, nil
		}
	}
}

// staysOpen tells the errors of a message that timed out meanwhile: it comes
// again.
func staysOpen(text string) bool {
	for _, code := range []string{"E_FIN_FAILED", "E_REQ_FAILED", "E_TOUCH_FAILED"} {
		if strings.HasPrefix(text, code) {
			return true
		}
	}
	return false
}

// nsqError turns an error frame into an error with an exit code.
func nsqError(text string) error {
	code, words, _ := strings.Cut(text, " ")
	switch code {
	case "E_BAD_TOPIC", "E_BAD_CHANNEL":
		return usagef("%s: %s", words, nameRule)
	case "E_AUTH_FIRST", "E_AUTH_FAILED", "E_UNAUTHORIZED":
		return failf(exitDenied, "not allowed: %s", text)
	case "E_SUB_FAILED":
		return failf(exitConflict, "can't subscribe: %s", words)
	}
	return failf(exitFailure, "the node refused: %s", text)
}

// parse reads a message frame.
func parse(data []byte) (delivery, error) {
	if len(data) < 26 {
		return delivery{}, failf(exitFailure, "the node sent a message frame of %d bytes: not NSQ's protocol", len(data))
	}
	return delivery{
		timeNs: int64(binary.BigEndian.Uint64(data)), attempts: binary.BigEndian.Uint16(data[8:]),
		id: [16]byte(data[10:26]), body: data[26:], at: time.Now(),
	}, nil
}
