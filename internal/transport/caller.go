package transport

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-io/tidings/internal/fault"
)

// Method names what a call or stream wants; both nodes give it one meaning for
// ever.
type Method uint16

// call is a request of ours that waits for its end.
type call struct {
	id     uint64
	size   int
	state  atomic.Int32 // queued, left or cancelled
	done   func([]byte, error)
	room   func(n int) []byte // of GoInto
	stream *Stream            // of a fetch
	unhook func() bool        // stops watching the context
}

// States of a request. Only queued changes, once.
const (
	queued int32 = iota
	left         // it is being written: the peer may see it
	cancelled
)

// leave says that the request can be written now; false when nobody waits for it
// any more.
func (c *call) leave() bool { return c.state.CompareAndSwap(queued, left) }

// recall takes the request back; false when the peer may have seen it.
func (c *call) recall() bool {
	return c.state.CompareAndSwap(queued, cancelled) || c.state.Load() == cancelled
}

// caller keeps the calls and streams of one link.
type caller struct {
	l *link

	mu      sync.Mutex
	next    uint64
	pending map[uint64]*call
	bytes   int // of their requests
	streams int
}

func newCaller(l *link) *caller { return &caller{l: l, pending: make(map[uint64]*call)} }

func (c *caller) idle() bool { return c.count() == 0 }

func (c *caller) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending)
}

// Call sends a request to a peer and waits for the reply. to is a known peer (its
// ID suffices), or anybody at an address (then ID and Name are checked if they are
// given). ctx bounds it, here and at the peer.
//
// Errors carry a fault code. Those of the handler say what it said; else ErrNotSent
// or ErrUnknownOutcome is in the chain, and *RefusedError when the nodes do not
// want each other. Calls beyond MaxCalls or MaxCallBytes fail at once with
// fault.Overloaded. request must not be changed any more: it may be read even
// after ctx has ended.
func (t *Transport) Call(ctx context.Context, to Peer, method Method, request []byte) ([]byte, error) {
	type result struct {
		reply []byte
		err   error
	}
	ch := make(chan result, 1)
	err := t.Go(ctx, to, method, request, func(reply []byte, err error) { ch <- result{reply, err} })
	if err != nil {
		return nil, err
	}
	r := <-ch
	return r.reply, r.err
}

// Go sends a request without waiting. Calls that one goroutine sends to a peer
// reach an asynchronous handler there in that order, as long as the link holds;
// when it breaks, all calls that were under way fail. done gets the reply or an
// error as Call returns it, once, on a goroutine of the transport; it must not
// block. When Go returns an error, done is not called.
func (t *Transport) Go(ctx context.Context, to Peer, method Method, request []byte, done func(reply []byte, err error)) error {
	p, err := t.find(to)
	if err != nil {
		return notSent(to.String(), fault.Unreachable, err)
	}
	return p.links[Calls].calls.begin(ctx, kindCall, method, request, &call{done: done})
}

// GoInto is Go for replies that may be long: one is read into the n bytes that room
// returns. room is called at most once, before done, on a goroutine of the transport;
// it must not block. When done gets an error, the transport may go on to write to
// what room has returned: that must not be used again.
func (t *Transport) GoInto(ctx context.Context, to Peer, method Method, request []byte, room func(n int) []byte, done func(reply []byte, err error)) error {
	p, err := t.find(to)
	if err != nil {
		return notSent(to.String(), fault.Unreachable, err)
	}
	return p.links[Calls].calls.begin(ctx, kindCall, method, request, &call{room: room, done: done})
}

// begin sends a request.
func (c *caller) begin(ctx context.Context, k kind, method Method, request []byte, x *call) error {
	if err := context.Cause(ctx); err != nil {
		return notSent(c.l.peer.String(), codeOfContext(err), err)
	}
	x.size = headerSize + len(request)
	if err := c.register(ctx, x); err != nil {
		return notSent(c.l.peer.String(), fault.Overloaded, err)
	}
	err := c.l.push(item{
		head: header{kind: k, method: method, arg: timeoutOf(ctx), id: x.id},
		body: request, size: x.size, call: x, done: func(err error) { c.written(x, err) },
	})
	if err == nil || !c.remove(x) {
		return nil // or it has failed meanwhile, and been told so
	}
	if errors.Is(err, errFull) {
		return notSent(c.l.peer.String(), fault.Overloaded, err)
	}
	return notSent(c.l.peer.String(), fault.Unreachable, err)
}

// written hears what became of a request's frame.
func (c *caller) written(x *call, err error) {
	switch {
	case err == nil || !c.remove(x):
	case errors.Is(err, errTooBig):
		x.end(nil, notSent(c.l.peer.String(), fault.BodyTooBig, err))
	default:
		x.lost(c.l.peer.String(), err)
	}
}

// timeoutOf is the time that ctx leaves, in milliseconds for the wire.
func timeoutOf(ctx context.Context) uint32 {
	end, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return uint32(min(max(time.Until(end)+time.Millisecond-1, time.Millisecond)/time.Millisecond, math.MaxUint32))
}

// register gives the call an id and a place, if the bounds allow.
func (c *caller) register(ctx context.Context, x *call) error {
	o := &c.l.t.o
	c.mu.Lock()
	defer c.mu.Unlock()
	calls := len(c.pending) - c.streams
	switch {
	case x.stream != nil && c.streams >= o.MaxStreams, x.stream == nil && calls >= o.MaxCalls:
		return errFull
	case len(c.pending) > 0 && c.bytes+x.size > o.MaxCallBytes:
		return errFull
	}
	c.next++
	x.id = c.next
	c.pending[x.id] = x
	c.bytes += x.size
	if x.stream != nil {
		c.streams++
	}
	// The function takes mu, so it runs after this.
	x.unhook = context.AfterFunc(ctx, func() { c.abandon(x, context.Cause(ctx)) })
	return nil
}

// remove takes a call off the list; false when it was not on it. Who removes a
// call ends it.
func (c *caller) remove(x *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending[x.id] != x {
		return false
	}
	delete(c.pending, x.id)
	c.bytes -= x.size
	if x.stream != nil {
		c.streams--
	}
	x.unhook()
	return true
}

func (c *call) end(reply []byte, err error) {
	if c.stream != nil {
		c.stream.end(err)
		return
	}
	c.done(reply, err)
}

// lost ends a call whose connection is gone.
func (c *call) lost(peer string, why error) {
	if c.recall() {
		c.end(nil, notSent(peer, fault.Unreachable, why))
		return
	}
	c.end(nil, unknownOutcome(peer, why))
}

// abandon ends a call whose context has ended.
func (c *caller) abandon(x *call, why error) {
	if !c.remove(x) {
		return
	}
	if x.recall() {
		x.end(nil, notSent(c.l.peer.String(), codeOfContext(why), why))
		return
	}
	_ = c.l.box.pushUrgent(item{head: header{kind: kindCancel, id: x.id}, size: headerSize}) // a broken link cancels as well
	x.end(nil, unknownOutcome(c.l.peer.String(), why))
}

// takeAll takes all calls off the list; the taker ends them.
func (c *caller) takeAll() []*call {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*call, 0, len(c.pending))
	for _, x := range c.pending {
		x.unhook()
		all = append(all, x)
	}
	clear(c.pending)
	c.bytes, c.streams = 0, 0
	return all
}

// find is a call that still waits; nil when its caller has gone.
func (c *caller) find(id uint64) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending[id]
}

// room is where a reply is to be read to; nil: nowhere in particular.
func (c *caller) room(h header) []byte {
	if h.kind != kindReply || h.flags != 0 {
		return nil
	}
	x := c.find(h.id)
	if x == nil || x.room == nil {
		return nil
	}
	room := x.room
	x.room = nil // a second reply of that id ends the connection
	return room(int(h.length))
}

// handle takes what comes on the link.
func (c *caller) handle(h header, payload []byte) error {
	switch h.kind {
	case kindReply, kindChunk, kindEnd:
	default:
		return unexpected(h, payload)
	}
	x := c.find(h.id)
	if x == nil {
		return nil
	}
	if x.state.Load() != left || (h.kind == kindReply) != (x.stream == nil) {
		return malformed("frame of kind %d for request %d", h.kind, h.id)
	}
	if h.kind == kindChunk {
		return x.stream.put(payload)
	}
	var err error
	if x.stream != nil {
		err = io.EOF
	}
	if h.flags&flagError != 0 {
		said, bad := decodeError(payload)
		if bad != nil {
			return bad
		}
		switch {
		case h.flags&flagNotStarted != 0:
			said.Cause = ErrNotSent
		case said.Code == fault.Timeout: // that is what the code means
			said.Cause = ErrUnknownOutcome
		}
		said.Text, err = "node "+c.l.peer.String()+": "+said.Text, said
		payload = nil
	}
	if c.remove(x) {
		x.end(payload, err)
	}
	return nil
}
