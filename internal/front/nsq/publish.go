package nsq

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
)

const (
	// messageBytes is what a message costs in memory beside its body.
	messageBytes = 96
	// chargeBytes is the step in which a growing body is charged.
	chargeBytes = 4 << 10
	// bodyStartBytes is how much is set aside for an announced body before its
	// bytes have come.
	bodyStartBytes = 64 << 10
	// pooledBytesMax and pooledMessagesMax bound what is kept for reuse.
	pooledBytesMax    = 256 << 10
	pooledMessagesMax = 1 << 10
	// retryFirst and retryMax space attempts while the broker is overloaded.
	retryFirst = time.Millisecond
	retryMax   = 20 * time.Millisecond
)

// budget bounds the memory of bodies that are being read or wait for their
// completion, over all connections of the front.
type budget struct {
	limit    int64
	patience time.Duration
	sem      *semaphore.Weighted
	used     atomic.Int64
	waits    *atomic.Uint64
}

func newBudget(limit int64, patience time.Duration, waits *atomic.Uint64) *budget {
	return &budget{limit: limit, patience: patience, sem: semaphore.NewWeighted(limit), waits: waits}
}

// take waits for n bytes, up to the budget's patience.
func (b *budget) take(ctx context.Context, n int64) error {
	if !b.sem.TryAcquire(n) {
		b.waits.Add(1)
		ctx, cancel := context.WithTimeout(ctx, b.patience)
		defer cancel()
		if b.sem.Acquire(ctx, n) != nil {
			return fault.Overloaded
		}
	}
	b.used.Add(n)
	return nil
}

func (b *budget) give(n int64) {
	if n > 0 {
		b.used.Add(-n)
		b.sem.Release(n)
	}
}

// publish is one call of Broker.Publish: messages of one topic that were taken
// off a socket together. It owns their bytes until the broker has answered.
type publish struct {
	front   *Front
	command string // PUB, MPUB or DPUB
	topic   string
	msgs    []partition.Message
	body    []byte // what msgs point into
	charged int64  // bytes taken from the budget
	answers int    // OK frames that it is worth

	// Where the answer goes: to a connection's writer, or to a waiting caller.
	conn   *conn
	caller chan error
	// publisher is who publishes, among the front's.
	publisher uint64

	begun time.Time // when it was given to the broker; zero: its duration is not measured
	err   error
	done  atomic.Bool // err is set; the connection's writer may take it
}

var publishPool = sync.Pool{New: func() any { return new(publish) }}

func (f *Front) newPublish(command, topic string) *publish {
	p := publishPool.Get().(*publish)
	p.front, p.command, p.topic = f, command, topic
	return p
}

// recycle gives p back; nobody may hold it any more.
func (p *publish) recycle() {
	clear(p.msgs)
	msgs, body := p.msgs[:0], p.body[:0]
	if cap(msgs) > pooledMessagesMax {
		msgs = nil
	}
	if cap(body) > pooledBytesMax {
		body = nil
	}
	p.front, p.topic, p.command, p.conn, p.caller, p.err = nil, "", "", nil, nil, nil
	p.publisher, p.begun = 0, time.Time{}
	p.msgs, p.body, p.charged, p.answers = msgs, body, 0, 0
	p.done.Store(false)
	publishPool.Put(p)
}

// drop ends a publish that was never given to the broker.
func (p *publish) drop() {
	p.front.budget.give(p.charged)
	p.recycle()
}

// Published takes the broker's answer. It may run on a shard's loop: it marks
// and wakes, nothing else.
func (p *publish) Published(_ int64, err error) {
	p.front.budget.give(p.charged)
	if !p.begun.IsZero() {
		p.front.metrics.durations.observe(time.Since(p.begun))
	}
	if p.caller != nil {
		p.caller <- err // has room for one
		return
	}
	c := p.conn
	p.err = err
	p.done.Store(true) // from here p is the writing side's
	c.answered(err)
}

// Publisher is who publishes: broker.Publisher.
func (p *publish) Publisher() uint64 { return p.publisher }

// charge takes from the budget what p and n more bytes take, in steps. What is
// larger than the whole budget gets all of it, and so is alone.
func (p *publish) charge(ctx context.Context, n int) error {
	held := int64(len(p.body) + n + messageBytes*len(p.msgs))
	want := min((held+chargeBytes-1)/chargeBytes*chargeBytes, p.front.budget.limit)
	if want <= p.charged {
		return nil
	}
	if err := p.front.budget.take(ctx, want-p.charged); err != nil {
		return err
	}
	p.charged = want
	return nil
}

// grow makes room for n more body bytes, at least doubling, so that an
// announced length costs nothing before its bytes come.
func (p *publish) grow(ctx context.Context, n int) error {
	if need := len(p.body) + n; need > cap(p.body) {
		body := make([]byte, len(p.body), max(need, 2*cap(p.body)))
		copy(body, p.body)
		p.body = body
	}
	return p.charge(ctx, n)
}

// place points the messages, whose bodies lie one behind the other in p.body,
// to where they are: growing has moved them.
func (p *publish) place() {
	at := 0
	for i := range p.msgs {
		m := &p.msgs[i]
		n := len(m.Body)
		m.Body = p.body[at : at+n : at+n]
		at += n
	}
}

// gather takes msgs, gives back an empty list for the next ones, and copies
// everything that they point to into p.body. It is the one copy on the way from
// a socket to a batch.
func (p *publish) gather(msgs []partition.Message, size int) []partition.Message {
	if cap(p.body) < size {
		p.body = make([]byte, 0, size)
	}
	p.msgs, msgs = msgs, p.msgs[:0]
	for i := range p.msgs {
		m := &p.msgs[i]
		m.Body = p.keep(m.Body)
		if len(m.Key)+len(m.ID) > 0 {
			m.Key, m.ID = p.keep(m.Key), p.keep(m.ID)
		}
	}
	return msgs
}

func (p *publish) keep(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	at := len(p.body)
	p.body = append(p.body, b...)
	return p.body[at:len(p.body):len(p.body)]
}

// name gives the messages of a batch its key and its id; the id's form for
// message n is id/n.
func (p *publish) name(key, id []byte) {
	for i := range p.msgs {
		p.msgs[i].Key = key
		if len(id) > 0 {
			p.msgs[i].ID = strconv.AppendInt(append(slices.Clip(id), '/'), int64(i), 10)
		}
	}
}

// submit gives p to the broker. While the broker is overloaded it tries again,
// up to the front's patience; stop ends that early.
func (p *publish) submit(stop <-chan struct{}) {
	if err := p.front.broker.Publish(p.topic, p.msgs, p); err != nil {
		p.insist(stop, err)
	}
}

// insist goes on with a publish that the broker has refused with err.
func (p *publish) insist(stop <-chan struct{}, err error) {
	f := p.front
	wait := retryFirst
	for deadline := time.Now().Add(f.o.PublishPatience); fault.CodeOf(err) == fault.Overloaded && time.Now().Before(deadline); {
		f.metrics.backPressure.Add(1)
		select {
		case <-stop:
			deadline = time.Time{}
		case <-time.After(wait):
		}
		wait = min(wait*2, retryMax)
		if err = f.broker.Publish(p.topic, p.msgs, p); err == nil {
			return
		}
	}
	p.Published(0, err)
}
