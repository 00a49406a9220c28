package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"syscall"
)

// inbound is an accepted connection: the peer's link to us.
type inbound struct {
	t      *Transport
	cancel context.CancelCauseFunc

	// Set by admit under Transport.mu.
	wire  *wire
	addr  string
	hello *hello // nil until the peer has said it
	peer  *peer  // nil: not a known peer; may become one, see adopt

	authorized bool // judge let it in as a stranger
}

// serveInbound owns an accepted connection until it ends.
func (t *Transport) serveInbound(c net.Conn) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	defer c.Close()
	in := &inbound{t: t, cancel: cancel}
	if !t.enter(in) {
		return
	}
	defer t.leave(in)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	err := in.greet(ctx, c)
	if err != nil {
		if ctx.Err() == nil {
			t.quiet.warn("connection of a peer is not accepted", in.who(c), err)
		}
		return
	}
	t.wake(in)
	err = in.serve(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if refused, ok := errors.AsType[*RefusedError](err); ok || errors.Is(err, errMalformed) {
		if refused != nil && !refused.ByPeer {
			return // it was us
		}
		t.quiet.warn("connection of a peer has ended", in.hello.Node, err, "class", in.hello.Class.String())
		return
	}
	t.o.Logger.Debug("connection of a peer has ended", "peer", in.hello.Node, "class", in.hello.Class.String(), "error", err)
}

// enter makes the connection known, so that it ends with the transport.
func (t *Transport) enter(in *inbound) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state == ended {
		return false
	}
	t.inbound[in] = struct{}{}
	return true
}

func (t *Transport) leave(in *inbound) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.inbound, in)
}

// wake tells our links to the peer that it is there.
func (t *Transport) wake(in *inbound) {
	t.mu.RLock()
	p := in.peer
	t.mu.RUnlock()
	if p != nil {
		for _, l := range p.links {
			l.hurry()
		}
	}
}

// who names the other side in the log: its name if we know it, else its host.
func (in *inbound) who(c net.Conn) string {
	if in.hello != nil {
		return in.hello.Node
	}
	if host, _, err := net.SplitHostPort(c.RemoteAddr().String()); err == nil {
		return host
	}
	return c.RemoteAddr().String()
}

// greet runs TLS and the hellos.
func (in *inbound) greet(ctx context.Context, c net.Conn) error {
	o := &in.t.o
	late := fmt.Errorf("no hello within %s", o.HandshakeTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, o.HandshakeTimeout, late)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	early := new(meter) // until it is known whose connection it is
	w := newWire(o, c, Append, early)
	err := in.exchange(ctx, w)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	switch {
	case err == nil:
		return nil
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case isTimeout(err):
		return late
	case in.wire == nil && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		return fmt.Errorf("connection ended before hello: %w", err)
	}
	return err
}

func (in *inbound) exchange(ctx context.Context, w *wire) error {
	if err := w.handshake(ctx, tls.Server(w.raw, in.t.o.Credentials.server()), false); err != nil {
		if isAlert(err) {
			return fmt.Errorf("the peer does not accept our certificate: %w", err)
		}
		return err
	}
	name, err := nodeName(w.tls.ConnectionState().PeerCertificates[0])
	if err != nil {
		return err
	}
	h, err := w.readHello()
	if err != nil {
		return w.refuse(err)
	}
	own := in.t.self(h.Class, 0)
	if err := in.judge(h, own, name, w.raw.RemoteAddr()); err != nil {
		return w.refuse(err)
	}
	w.class = h.Class
	if err := in.t.admit(in, h, w); err != nil {
		return w.refuse(err)
	}
	if err := w.hello(own); err != nil {
		return err
	}
	w.establish(h)
	return nil
}

// judge says whether the node may have this link.
func (in *inbound) judge(h, own *hello, certified string, addr net.Addr) error {
	if err := h.check(own, certified); err != nil {
		return err
	}
	if err := h.checkClass(own, h.Class); err != nil {
		return err
	}
	p := in.t.known(h.RaftID)
	switch {
	case p != nil && p.Name != h.Node:
		return refusef(ReasonName, "node %s knows Raft id %d as node %s, not %s", own.Node, h.RaftID, p.Name, h.Node)
	case p != nil:
		return nil
	case h.Class.raft() || in.t.o.Authorize == nil:
		return refusef(ReasonUnknown, "node %s knows no node %s with Raft id %d", own.Node, h.Node, h.RaftID)
	}
	from := From{ID: h.RaftID, Name: h.Node, Boot: h.Boot, Cluster: h.Cluster, Addr: addr.String()}
	if err := in.t.o.Authorize(from, h.Class); err != nil {
		return refusef(ReasonForbidden, "node %s does not let node %s in: %v", own.Node, h.Node, err)
	}
	in.authorized = true
	return nil
}

// admit enters the connection under its peer, in place of an older one of the
// same link, which the peer has given up.
func (t *Transport) admit(in *inbound, h *hello, w *wire) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	// The table may have changed since judge has looked: a peer that was removed
	// gets in as little as one that was never there.
	p := t.peers[h.RaftID]
	switch {
	case p == nil && !in.authorized:
		return refusef(ReasonUnknown, "node %s knows no node %s any more", t.o.Name, h.Node)
	case p != nil && p.Name != h.Node:
		return refusef(ReasonName, "node %s now knows Raft id %d as node %s, not %s", t.o.Name, h.RaftID, p.Name, h.Node)
	}
	// SetCluster, since the hellos were compared, did not see this connection.
	if t.foreign(h) {
		return refusef(ReasonCluster, "node %s now belongs to cluster %s, node %s to cluster %s", t.o.Name, t.cluster, h.Node, quoted(h.Cluster))
	}
	for old := range t.inbound {
		if o := old.hello; o != nil && o.RaftID == h.RaftID && o.Boot == h.Boot && o.Link == h.Link {
			old.cancel(errors.New("the peer has connected anew"))
		}
	}
	in.hello, in.wire, in.addr = h, w, w.raw.RemoteAddr().String()
	if p != nil {
		in.adopt(p)
	}
	return nil
}

// adopt counts the connection as the peer's; Transport.mu is held.
func (in *inbound) adopt(p *peer) {
	m := &p.meter[in.hello.Class]
	m.add(in.wire.raw.meter.Swap(m))
	in.peer = p
}

// from is who is on the other side, as of now: a node may become a peer while it
// is connected.
func (in *inbound) from() From {
	h := in.hello
	p := in.t.known(h.RaftID)
	return From{
		ID: h.RaftID, Name: h.Node, Boot: h.Boot, Cluster: h.Cluster,
		Known: p != nil && p.Name == h.Node, Addr: in.addr,
	}
}

// serve reads requests or messages and writes answers until the connection ends.
func (in *inbound) serve(ctx context.Context) error {
	box := newOutbox(math.MaxInt, math.MaxInt) // what goes in is counted elsewhere
	s := session{box: box, report: func() {}}
	if in.hello.Class.raft() {
		s.handle = in.receive
		return in.wire.serve(ctx, s)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	server := newServer(ctx, in, box)
	s.handle = server.handle
	err := in.wire.serve(ctx, s)
	cancel(err)
	box.close(errors.New("link is down"))
	server.wg.Wait()
	return err
}

// receive takes a Raft message.
func (in *inbound) receive(h header, payload []byte) error {
	if h.kind != kindRaft {
		return unexpected(h, payload)
	}
	m, err := decodeMessage(payload)
	if err != nil {
		return err
	}
	if m.GetTo() != in.t.o.RaftID {
		return malformed("raft message for Raft id %d came to %d", m.GetTo(), in.t.o.RaftID)
	}
	in.t.o.Receive(in.hello.RaftID, h.arg, m)
	return nil
}
