package broker

import (
	"context"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tidings-io/tidings/internal/fault"
)

// Peers is how the broker reaches the leaders of shards on other nodes.
type Peers interface {
	// Leader is the Raft id of the shard's leader as this node knows it, 0 when
	// there is none; self: it is this node, and it serves. Shard 0 is metadata.
	// It must not block.
	Leader(shard uint32) (id uint64, self bool)
	// Call asks the node with that Raft id: its Serve. It must not block; done is
	// called once, on any goroutine, and must not block. request is not changed
	// any more. Calls of one goroutine to one node arrive in order while the link
	// holds. An error that is ErrNotSent says that the request never left.
	Call(ctx context.Context, node uint64, m Method, request []byte, done func(reply []byte, err error))
	// CallInto is Call for replies that may be long: one is read into the n bytes that
	// room returns. room is called at most once, before done; it must not block. What it
	// has returned must not be used again when done gets an error.
	CallInto(ctx context.Context, node uint64, m Method, request []byte, room func(n int) []byte, done func(reply []byte, err error))
	// Others are the Raft ids of the other members that can be reached now, as far as
	// this node knows. It must not block.
	Others() []uint64
}

// ErrNotSent is in the chain of the error of a Peers.Call whose request never left
// this node.
var ErrNotSent = errors.New("the request was not sent")

// Method says what a request between nodes is about.
type Method uint8

// The methods. The numbers are known to other nodes.
const (
	MethodPublish Method = 1 // sequenced publishes, to the leader of their shard
	MethodCommand Method = 2 // a partition.Command, to the leader of its shard
	// Consumers of one node on what another leads:
	MethodRelay    Method = 3 // what they say and ask for, to the leader
	MethodRing     Method = 4 // the leader has something for them
	MethodPresence Method = 5 // their node is there, or gone, or has told what they hold
	MethodHome     Method = 6 // a publish to an ephemeral topic, to the node where it lives

	MethodPassed Method = 7 // where a channel has come past barriers, to the leader

	MethodMemory Method = 8 // a change of an ephemeral topic or channel, to all that use it

	// MethodLast is the highest that there is.
	MethodLast = MethodMemory
)

// Serve answers a request of another node. It does not block; answer is called
// once, on any goroutine, and must not block. The request's bytes are the broker's
// from now on, and so are the reply's again when sent, where it is not nil, is called:
// once, when they are not read any more. The requests of one node are to come in the
// order in which it sent them.
func (b *Broker) Serve(_ context.Context, m Method, request []byte, answer func(reply []byte, sent func(), err error)) {
	respond := func(reply []byte, err error) { answer(reply, nil, err) }
	switch {
	case b.o.Peers == nil:
		respond(nil, fault.New(fault.Unsupported, "this node serves no others"))
	case m == MethodPublish:
		b.servePublish(request, respond)
	case m == MethodCommand:
		b.serveCommand(request, respond)
	case m == MethodRelay:
		b.serveRelay(request, answer)
	case m == MethodRing:
		b.serveRing(request, respond)
	case m == MethodPresence:
		b.servePresence(request, respond)
	case m == MethodHome:
		b.serveHome(request, respond)
	case m == MethodPassed:
		b.servePassed(request, respond)
	case m == MethodMemory:
		b.serveMemory(request, respond)
	default:
		respond(nil, fault.New(fault.Unsupported, "method %d is not known to this program", m))
	}
}

// Leads is told by the partition machine of a shard that it begins to lead, or
// ends: partition.Options.Leads. It does not block.
func (b *Broker) Leads(shard uint32, leads bool) {
	if u := b.upstream(shard); u != nil {
		u.leadsNow(leads)
	}
}

// Moved is told that a shard may have another leader than before, or the same in
// another term. It does not block.
func (b *Broker) Moved(shard uint32) {
	if u := b.upstream(shard); u != nil {
		u.moves.Add(1)
		ring(u.wake)
	}
}

// Run lives as long as the node serves: it sends what is published here to the
// shards' leaders, brings shards in line with metadata when this node begins to
// lead them, and follows what other nodes do to topics and channels. Without Peers
// it moves dead letters only. What waits when ctx ends is answered with fault.Exiting.
func (b *Broker) Run(ctx context.Context) error {
	if b.o.Peers == nil {
		b.tasks.run(ctx)
		return nil
	}
	var all errgroup.Group
	all.Go(func() error { b.watchMeta(ctx); return nil })
	all.Go(func() error { b.relays.run(ctx); return nil })
	b.tasks.run(ctx)
	err := all.Wait()
	for _, u := range b.upstreams.All() {
		u.giveUp(fault.Exiting)
	}
	return err
}

// tasks are the goroutines for what has to ask other nodes and wait for them.
type tasks struct {
	mu    sync.Mutex
	ctx   context.Context // nil before Run; then it may have ended
	early []func(context.Context)
	wg    sync.WaitGroup
}

// spawn runs f on a goroutine of Run; before Run, when that begins. f ends soon
// when its context does.
func (t *tasks) spawn(f func(ctx context.Context)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx == nil {
		t.early = append(t.early, f)
		return
	}
	t.start(f)
}

func (t *tasks) start(f func(ctx context.Context)) {
	ctx := t.ctx
	if ctx.Err() != nil {
		go f(ctx) // it tells whoever waits that the node exits
		return
	}
	t.wg.Go(func() { f(ctx) })
}

// run lets tasks begin until ctx ends, and waits for them.
func (t *tasks) run(ctx context.Context) {
	t.mu.Lock()
	t.ctx = ctx
	for _, f := range t.early {
		t.start(f)
	}
	t.early = nil
	t.mu.Unlock()
	<-ctx.Done()
	t.mu.Lock()   // from here on nothing is added
	t.mu.Unlock() //nolint:staticcheck // see above
	t.wg.Wait()
}
