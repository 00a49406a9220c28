package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// link is our side of the connection to a peer in one class. It lives as long as
// the peer is known and is connected when there is something to send.
type link struct {
	t     *Transport
	peer  *peer
	class Class
	known bool // to a known peer: kept up
	id    uint64
	box   *outbox
	calls *caller // of Calls and Bulk

	ctx    context.Context // ends when the link does
	stop   context.CancelCauseFunc
	start  sync.Once
	hasten chan struct{} // capacity 1: do not wait any longer

	mu       sync.Mutex
	wire     *wire // while connected
	hello    *hello
	cut      context.CancelCauseFunc // ends the present connection, or the attempt
	since    time.Time
	failure  string
	connects uint64
}

func newLink(t *Transport, p *peer, c Class, known bool) *link {
	l := &link{
		t: t, peer: p, class: c, known: known, id: rand.Uint64(),
		box: newOutbox(t.o.MaxQueued, t.o.MaxQueuedBytes), hasten: make(chan struct{}, 1),
	}
	if !c.raft() {
		l.calls = newCaller(l)
		l.box.maxItems, l.box.maxBytes = t.o.MaxCalls+t.o.MaxStreams, int(^uint(0)>>1) // the caller counts
	}
	l.ctx, l.stop = context.WithCancelCause(context.Background())
	return l
}

// push queues an item and sees that somebody writes it.
func (l *link) push(it item) error {
	l.start.Do(func() {
		if !l.t.spawn(l.run) {
			l.box.close(errStopped)
		}
	})
	return l.box.push(it)
}

// hurry ends a wait between two dials.
func (l *link) hurry() {
	select {
	case l.hasten <- struct{}{}:
	default:
	}
}

// reset breaks the present connection or attempt.
func (l *link) reset(why error) {
	l.mu.Lock()
	cut := l.cut
	l.mu.Unlock()
	if cut != nil {
		cut(why)
	}
}

func (l *link) peerHello() *hello {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hello
}

// unused says that the link is not connected and has nothing to do.
func (l *link) unused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, _ := l.box.waiting()
	return n == 0 && l.cut == nil && l.calls.idle()
}

// run is the link's goroutine: it connects when there is something to send, and
// serves the connection.
func (l *link) run() {
	defer l.end()
	for failures := 0; l.box.await(l.ctx, l.report); {
		began := time.Now()
		up, err := l.session()
		if l.ctx.Err() != nil {
			return
		}
		if errors.Is(err, errIdle) {
			failures = 0
			continue
		}
		if up && time.Since(began) >= l.t.o.BackoffMax || errors.Is(err, errMoved) {
			failures = 0
		}
		again := up && failures == 0 // it worked until now: try again at once
		l.failed(err, again)
		if !again && !l.wait(failures) {
			return
		}
		failures++
		l.box.reopen()
	}
}

// end fails what waits, for good.
func (l *link) end() { l.drop(context.Cause(l.ctx), false) }

// drop fails what waits. Whoever hears of that finds the link as it is from then
// on, refusing or not.
func (l *link) drop(why error, reopen bool) {
	var all []*call
	if l.calls != nil {
		all = l.calls.takeAll()
	}
	l.box.close(why) // also tells of calls that came since
	if reopen {
		l.box.reopen()
	}
	for _, c := range all {
		c.lost(l.peer.String(), why)
	}
}

// failed drops what waits: it would be stale by the time of the next attempt.
func (l *link) failed(err error, again bool) {
	l.drop(err, again)
	l.report()
	l.t.quiet.warn("link to peer is down", l.peer.String(), err, "class", l.class.String())
}

// wait pauses before the next attempt; false when the link has ended.
func (l *link) wait(failures int) bool {
	d := l.t.o.BackoffMax
	if shift := min(failures, 10); backoffMin<<shift < d {
		d = backoffMin << shift
	}
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case <-l.hasten:
			return true
		case <-l.box.wake: // something was refused
			l.report()
		case <-l.ctx.Done():
			return false
		}
	}
}

// report tells of lost messages.
func (l *link) report() {
	for _, shard := range l.box.takeLost() {
		l.t.o.OnUnreachable(shard, l.peer.ID)
	}
}

// session connects and serves until the connection ends; up says that it was
// once established.
func (l *link) session() (up bool, err error) {
	ctx, cut := context.WithCancelCause(l.ctx)
	defer cut(nil)
	select { // what hastened the attempt that begins now
	case <-l.hasten:
	default:
	}
	l.mu.Lock()
	l.cut = cut
	l.mu.Unlock()
	defer func() { l.down(ctx, err) }()
	w, h, err := l.connect(ctx)
	if err != nil {
		return false, err
	}
	defer w.raw.Close()
	l.up(w, h)
	l.t.mu.RLock()
	foreign := l.t.foreign(h) // since the hellos were compared: SetCluster did not see this connection
	l.t.mu.RUnlock()
	if foreign {
		return true, w.refuse(refusef(ReasonCluster, "the node belongs to another cluster"))
	}
	s := session{box: l.box, handle: unexpected, report: l.report, idle: l.idle}
	if l.calls != nil {
		s.handle, s.room = l.calls.handle, l.calls.room
	}
	err = w.serve(ctx, s)
	l.box.doubt(w.shards)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return true, err
}

// unexpected is the error for a frame that does not belong on a link; a peer may
// refuse a link also after it has said hello.
func unexpected(h header, payload []byte) error {
	if h.kind == kindRefuse {
		_, err := decodeHello(h, payload)
		return err
	}
	return malformed("frame of kind %d on this link", h.kind)
}

func (l *link) up(w *wire, h *hello) {
	l.mu.Lock()
	l.wire, l.hello, l.since, l.failure = w, h, time.Now(), ""
	l.connects++
	l.mu.Unlock()
	l.t.o.Logger.Debug("link to peer is up", "peer", h.Node, "class", l.class.String(), "address", w.raw.RemoteAddr().String())
}

func (l *link) down(ctx context.Context, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wire != nil || l.since.IsZero() {
		l.since = time.Now()
	}
	l.wire, l.hello, l.cut = nil, nil, nil
	l.failure = ""
	if !errors.Is(err, errIdle) && !errors.Is(context.Cause(ctx), errStopped) {
		l.failure = reasonOf(err)
	}
}

// idle says that an unused connection can go: links between peers stay, except
// for bulk.
func (l *link) idle(used time.Time) bool {
	keep := l.known && l.class != Bulk
	return !keep && l.calls.idle() && time.Since(used) > l.t.o.IdleTimeout
}

// connect dials and says hello.
func (l *link) connect(ctx context.Context) (*wire, *hello, error) {
	late := fmt.Errorf("no answer within %s", l.t.o.HandshakeTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, l.t.o.HandshakeTimeout, late)
	defer cancel()
	l.t.mu.RLock()
	addr := l.peer.addr
	l.t.mu.RUnlock()
	c, err := l.t.o.Dial(ctx, addr)
	if err != nil {
		return nil, nil, err // it names the address
	}
	w := newWire(&l.t.o, c, l.class, &l.peer.meter[l.class])
	stop := context.AfterFunc(ctx, func() { c.Close() })
	h, err := l.greet(ctx, w)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Close()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		} else if isTimeout(err) { // a read's own deadline came first
			err = late
		}
		return nil, nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return w, h, nil
}

// greet runs TLS and exchanges hellos on a dialed connection.
func (l *link) greet(ctx context.Context, w *wire) (*hello, error) {
	if err := w.handshake(ctx, tls.Client(w.raw, l.t.o.Credentials.client()), true); err != nil {
		return nil, err
	}
	name, err := nodeName(w.tls.ConnectionState().PeerCertificates[0])
	if err != nil {
		return nil, err
	}
	own := l.t.self(l.class, l.id)
	if l.peer.Name != "" && name != l.peer.Name {
		return nil, w.refuse(refusef(ReasonName, "node %s expected node %s here, the certificate says %s", own.Node, l.peer.Name, name))
	}
	unsent := w.hello(own)
	h, err := w.readHello() // also when the hello could not be sent: why may stand there
	switch {
	case err != nil && (isAlert(err) || unsent == nil):
		return nil, notWanted(err)
	case unsent != nil:
		return nil, unsent
	}
	err = h.check(own, name)
	if err == nil {
		err = h.checkClass(own, l.class)
	}
	if err == nil && l.peer.ID != 0 && h.RaftID != l.peer.ID {
		err = refusef(ReasonRaftID, "node %s has Raft id %d, node %s expected %d", name, h.RaftID, own.Node, l.peer.ID)
	}
	if err != nil {
		return nil, w.refuse(err)
	}
	w.establish(h)
	return h, nil
}

// notWanted explains the end of a connection before the peer's hello: with TLS
// 1.3 that is where a client hears that its certificate was not accepted.
func notWanted(err error) error {
	if isAlert(err) {
		return fmt.Errorf("the peer does not accept our certificate: %w", err)
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the peer closed the connection: %w", err)
	}
	return err
}

// isAlert says that the peer has ended TLS with a reason.
func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// hello sends ours.
func (w *wire) hello(own *hello) error {
	b, err := encodeHello(own)
	if err != nil {
		return err
	}
	return w.send(header{kind: kindHello}, b)
}

// readHello reads the peer's.
func (w *wire) readHello() (*hello, error) {
	h, payload, err := w.in.next()
	if err != nil {
		return nil, err
	}
	return decodeHello(h, payload)
}

// refuse tells the peer why, and returns it.
func (w *wire) refuse(why error) error {
	if refused, ok := errors.AsType[*RefusedError](why); !ok || refused.ByPeer {
		return why
	}
	_ = w.send(header{kind: kindRefuse}, encodeRefusal(why)) // the connection ends anyway
	return why
}

func (l *link) stats() LinkStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := &l.peer.meter[l.class]
	s := LinkStats{
		Class: l.class, Connected: l.wire != nil, Since: l.since, Error: l.failure, Connects: l.connects,
		BytesOut: m.bytesOut.Load(), BytesIn: m.bytesIn.Load(),
		MessagesOut: m.messagesOut.Load(), MessagesIn: m.messagesIn.Load(),
		Drops: l.box.dropped(),
	}
	if l.wire != nil {
		s.RTT = time.Duration(l.wire.rtt.Load())
	}
	s.QueuedMessages, s.QueuedBytes = l.box.waiting()
	if l.calls != nil {
		s.Calls = l.calls.count()
	}
	return s
}
