package transport

import (
	"context"
	"errors"
	"sync"

	pb "go.etcd.io/raft/v3/raftpb"
)

var errFull = errors.New("queue is full")

// item is a frame that waits to be written.
type item struct {
	head header
	body []byte      // payload; not touched until the item is done
	msg  *pb.Message // of kindRaft, instead of body
	size int         // what it takes of the queue's bytes
	lazy bool        // it may wait a moment for others, see patient
	call *call       // of kindCall and kindFetch: the request is sent only if its caller still waits
	done func(error) // told once when body can be reused; may be nil
}

// outbox is the bounded queue of what a connection has to write. Senders push,
// the connection's writer takes everything at once.
type outbox struct {
	maxItems, maxBytes int
	wake               chan struct{} // capacity 1: something changed

	mu    sync.Mutex
	items []item
	eager bool // what was pushed since the last take is not all lazy
	bytes int
	shut  error // why nothing is taken at the moment; nil: open
	// Shards whose messages were lost since they were last reported.
	lost  map[uint32]struct{}
	drops uint64
	pong  uint64 // ping to answer
	pongs bool
}

func newOutbox(maxItems, maxBytes int) *outbox {
	return &outbox{maxItems: maxItems, maxBytes: maxBytes, wake: make(chan struct{}, 1), lost: make(map[uint32]struct{})}
}

func (o *outbox) ring() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// push queues an item, or says why not. An item larger than the whole queue is
// taken when the queue is empty.
func (o *outbox) push(it item) error {
	defer o.ring()
	o.mu.Lock()
	defer o.mu.Unlock()
	err := o.shut
	if err == nil && (len(o.items) >= o.maxItems || len(o.items) > 0 && o.bytes+it.size > o.maxBytes) {
		err = errFull
	}
	if err != nil {
		o.lose(&it)
		return err
	}
	o.items = append(o.items, it)
	o.bytes += it.size
	o.eager = o.eager || !it.lazy
	return nil
}

// pushUrgent queues a small item that another bound already counts: a reply to a
// counted request, its cancellation, credit. It fails only when the box is shut.
func (o *outbox) pushUrgent(it item) error {
	defer o.ring()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.shut != nil {
		return o.shut
	}
	o.items = append(o.items, it)
	o.bytes += it.size
	o.eager = o.eager || !it.lazy
	return nil
}

// answer asks for a pong; only the last ping is answered.
func (o *outbox) answer(ping uint64) {
	o.mu.Lock()
	o.pong, o.pongs = ping, true
	o.mu.Unlock()
	o.ring()
}

// takePong is the ping to answer, if there is one.
func (o *outbox) takePong() (uint64, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ping, ok := o.pong, o.pongs
	o.pongs = false
	return ping, ok
}

// patient reports whether all that waits is lazy: heartbeats, and their answers. All
// groups of a node tick at the same moment, each on its own goroutine, and the first to
// push wakes the writer: it lets the others push first, or each would leave alone.
func (o *outbox) patient() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.items) > 0 && !o.eager && !o.pongs
}

// take appends the oldest items to dst, about maxBytes of them.
func (o *outbox) take(dst []item, maxBytes int) []item {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, bytes := 0, 0
	for n < len(o.items) && (n == 0 || bytes+o.items[n].size <= maxBytes) {
		bytes += o.items[n].size
		n++
	}
	dst = append(dst, o.items[:n]...)
	rest := copy(o.items, o.items[n:])
	clear(o.items[rest:])
	o.items = o.items[:rest]
	o.bytes -= bytes
	o.eager = false
	return dst
}

// waiting says how much is queued.
func (o *outbox) waiting() (items, bytes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.items), o.bytes
}

// await waits until something is queued, reporting losses meanwhile; false when
// ctx has ended.
func (o *outbox) await(ctx context.Context, report func()) bool {
	for {
		report()
		if n, _ := o.waiting(); n > 0 {
			return true
		}
		select {
		case <-o.wake:
		case <-ctx.Done():
			return false
		}
	}
}

// close drops what waits and refuses what comes, for this reason, until reopen.
func (o *outbox) close(why error) {
	o.mu.Lock()
	items := o.items
	o.items, o.bytes, o.pongs, o.shut = nil, 0, false, why
	for i := range items {
		o.lose(&items[i])
	}
	o.mu.Unlock()
	finish(items, why)
}

// reopen takes items again.
func (o *outbox) reopen() {
	o.mu.Lock()
	o.shut = nil
	o.mu.Unlock()
}

// abandon accounts for items that were taken and could not be written.
func (o *outbox) abandon(items []item, why error) {
	o.mu.Lock()
	for i := range items {
		o.lose(&items[i])
	}
	o.mu.Unlock()
	finish(items, why)
}

// finish tells the owners of the bodies.
func finish(items []item, why error) {
	for i := range items {
		if items[i].done != nil {
			items[i].done(why)
		}
	}
}

// lose counts a dropped item; mu is held.
func (o *outbox) lose(it *item) {
	if it.msg != nil {
		o.lost[it.head.arg] = struct{}{}
		o.drops++
	}
}

// doubt marks a shard whose messages were written to a connection that broke.
func (o *outbox) doubt(shards map[uint32]struct{}) {
	o.mu.Lock()
	for s := range shards {
		o.lost[s] = struct{}{}
	}
	o.mu.Unlock()
	o.ring()
}

// takeLost returns the shards with losses since the last time.
func (o *outbox) takeLost() []uint32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.lost) == 0 {
		return nil
	}
	shards := make([]uint32, 0, len(o.lost))
	for s := range o.lost {
		shards = append(shards, s)
	}
	clear(o.lost)
	return shards
}

// dropped is the number of Raft messages that were not written.
func (o *outbox) dropped() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.drops
}
