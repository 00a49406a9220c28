package partition

import (
	"sync"

	"github.com/tidings-io/tidings/internal/fault"
)

// inbox is what other goroutines have given to the loop. Everything is kept in
// the order in which it came.
type inbox struct {
	mu sync.Mutex
	// items are publishes, commands, attaches and detaches.
	items []item
	// waiting counts items here and in the loop's queue, waitingBytes the
	// bytes of their publishes.
	waiting      int
	waitingBytes int64
	// refuse is why nothing is taken; nil: it is.
	refuse error
	// closed: the loop has ended.
	closed bool
	// dirty are lanes with something to report, each once.
	dirty    []Lane
	dirtySet map[Lane]struct{}
	// wanted are lanes that can take more due messages.
	wanted []Lane
	// calls are run by Tick.
	calls []func()
}

// item is one thing that waits for the next entry. One field but done is set.
type item struct {
	publish *Publish
	command Command
	attach  *attachment
	detach  Lane
	settle  func(error)
	done    func(error) // of command; may be nil
}

// Publish puts a publish into the inbox and wakes the shard; it never blocks.
// The error is fault.Overloaded when the inbox is full, fault.DiskReserve when
// the disk is, fault.NotLeader when another node leads; p.Done is not called
// then.
func (m *Machine) Publish(p *Publish) error {
	err := m.Enqueue(p)
	if err == nil {
		m.o.Wake()
	}
	return err
}

// Enqueue is Publish without waking the shard: the caller does that next, or
// drives it.
func (m *Machine) Enqueue(p *Publish) error {
	if m.o.Reserve != nil && m.o.Reserve() {
		return fault.DiskReserve
	}
	if len(p.Messages) == 0 {
		return fault.New(fault.MessageEmpty, "publish no message")
	}
	if p.Mapping > PartitionsMax {
		return fault.New(fault.InvalidRequest, "publish by %d partitions: there are at most %d", p.Mapping, PartitionsMax)
	}
	p.measure()
	b := &m.inbox
	b.mu.Lock()
	if err := b.admit(int64(p.size), &m.o); err != nil {
		b.mu.Unlock()
		return err
	}
	b.items = append(b.items, item{publish: p})
	b.mu.Unlock()
	return nil
}

// Wake lets the shard go on with what was enqueued, on its own goroutine.
func (m *Machine) Wake() { m.o.Wake() }

// Drive lets the shard go on with what was enqueued, on this goroutine if
// Options.Drive can, else on the shard's.
func (m *Machine) Drive() { m.o.Drive() }

// measure computes what the loop would otherwise have to.
func (p *Publish) measure() {
	p.size, p.bytes, p.hasDue, p.next, p.before = 0, 0, false, nil, 0
	for i := range p.Messages {
		msg := &p.Messages[i]
		p.size += recordSize(msg)
		p.bytes += int64(len(msg.Body))
		p.hasDue = p.hasDue || msg.DueNs != 0
	}
}

// admit counts one item in, or says why not. A publish larger than the inbox
// is taken when nothing else waits.
func (b *inbox) admit(size int64, o *Options) error {
	if b.refuse != nil {
		return b.refuse
	}
	if b.waiting >= o.InboxCount || b.waitingBytes > 0 && b.waitingBytes+size > o.InboxBytes {
		return fault.Overloaded
	}
	b.waiting++
	b.waitingBytes += size
	return nil
}

// release counts items out that have gone into an entry or were answered.
func (b *inbox) release(items int, bytes int64) {
	b.mu.Lock()
	b.waiting -= items
	b.waitingBytes -= bytes
	b.mu.Unlock()
}

// Do proposes a command. done, which may be nil, is told the outcome once, on
// the shard's loop: fault.TopicNotFound for a partition that is not open,
// fault.ChannelNotFound for a channel that is not there. When the inbox is
// full or this node does not lead it is told so at once, by this call.
func (m *Machine) Do(c Command, done func(err error)) {
	if err := m.Offer(c, done); err != nil && done != nil {
		done(err)
	}
}

// Offer is Do, but what is refused at once is returned, and done is not told:
// fault.Overloaded, fault.NotLeader.
func (m *Machine) Offer(c Command, done func(err error)) error {
	if err := refuseIngest(c, &m.o); err != nil {
		return err
	}
	if err := checkCount(c); err != nil {
		return err
	}
	return m.put(item{command: c, done: done})
}

// Attach lets the lane deliver the channel, after all commands given before
// it. A durable or ephemeral channel must have been made with CreateChannel.
// The lane's first call is Begin, or Stop with the reason why not. A channel
// has one lane: the one that it had is stopped.
func (m *Machine) Attach(topic uint64, partition int32, channel uint64, lane Lane) {
	a := &attachment{key: Key{topic, partition}, channel: channel, lane: lane, slot: notDue}
	if err := m.put(item{attach: a}); err != nil {
		lane.Stop(err)
	}
}

// Detach takes the lane's last report and stops it. The lane of an ephemeral
// channel is followed by DropChannel.
func (m *Machine) Detach(lane Lane) {
	// Refused means that there is no leadership, and so no lane.
	_ = m.put(item{detach: lane})
}

// Settle has all lanes report what they have, and tells done, on the shard's
// loop, when that is committed.
func (m *Machine) Settle(done func(err error)) {
	if err := m.put(item{settle: done}); err != nil {
		done(err)
	}
}

// put adds an item other than a publish.
func (m *Machine) put(i item) error {
	b := &m.inbox
	b.mu.Lock()
	if err := b.refuse; err != nil {
		b.mu.Unlock()
		return err
	}
	// A lane's coming and going is bounded by the channels, and must not fail.
	if i.command != nil && b.waiting >= 2*m.o.InboxCount {
		b.mu.Unlock()
		return fault.Overloaded
	}
	b.waiting++
	b.items = append(b.items, i)
	b.mu.Unlock()
	m.o.Wake()
	return nil
}

// Dirty says that the lane has something to report: it is collected with the
// next entry, or within ten milliseconds.
func (m *Machine) Dirty(lane Lane) {
	b := &m.inbox
	b.mu.Lock()
	first := len(b.dirty) == 0
	if _, ok := b.dirtySet[lane]; !ok && b.refuse == nil {
		b.dirtySet[lane] = struct{}{}
		b.dirty = append(b.dirty, lane)
	}
	b.mu.Unlock()
	if first {
		m.o.Wake()
	}
}

// Wanted says that the lane can take more due messages.
func (m *Machine) Wanted(lane Lane) {
	b := &m.inbox
	b.mu.Lock()
	if b.refuse == nil {
		b.wanted = append(b.wanted, lane)
	}
	b.mu.Unlock()
	m.o.Wake()
}

// Query runs f on the shard's loop, soon; it must not block. When the loop has
// ended, f is called with nil.
func (m *Machine) Query(f func(*View)) {
	if !m.call(func() { f(&View{m}) }) {
		f(nil)
	}
}

// call has the loop run f; false when it has ended.
func (m *Machine) call(f func()) bool {
	b := &m.inbox
	b.mu.Lock()
	closed := b.closed
	if !closed {
		b.calls = append(b.calls, f)
	}
	b.mu.Unlock()
	if !closed {
		m.o.Wake()
	}
	return !closed
}

// news is what Tick takes out of the inbox.
type news struct {
	calls  []func()
	wanted []Lane
	dirty  bool // lanes have something to report
	items  bool // something waits for an entry
}

// take empties what is not ordered with the commands.
func (b *inbox) take() news {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := news{calls: b.calls, wanted: b.wanted, dirty: len(b.dirty) > 0, items: len(b.items) > 0}
	b.calls, b.wanted = nil, nil
	return n
}

// drain moves the items behind queue, and the dirty lanes behind dirty.
func (b *inbox) drain(queue []item, dirty []Lane) ([]item, []Lane) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(queue) == 0 {
		queue, b.items = b.items, queue
	} else {
		queue = append(queue, b.items...)
		clear(b.items)
		b.items = b.items[:0]
	}
	dirty = append(dirty, b.dirty...)
	clear(b.dirty)
	b.dirty = b.dirty[:0]
	clear(b.dirtySet)
	return queue, dirty
}

// shut refuses what comes from now on, and returns what waits.
func (b *inbox) shut(err error) []item {
	b.mu.Lock()
	defer b.mu.Unlock()
	items := b.items
	b.refuse = err
	b.items, b.wanted, b.dirty = nil, nil, nil
	clear(b.dirtySet)
	return items
}

// open takes things again.
func (b *inbox) open() {
	b.mu.Lock()
	b.refuse = nil
	b.mu.Unlock()
}
