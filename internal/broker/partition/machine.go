package partition

import (
	"fmt"
	"math"
	"slices"

	"github.com/tidings-io/tidings/internal/broker/parked"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/seglog"
	"github.com/tidings-io/tidings/internal/shard"
	"github.com/tidings-io/tidings/internal/vfs"
)

// Options configure a Machine.
type Options struct {
	Shard uint32
	Store *seglog.Store // the node's
	FS    vfs.FS
	Dir   string // for parked files: <data>/shards/<id>/parked
	// Wake rings the shard's loop: Drain or Tick has something to do. Any
	// goroutine calls it; it must not block.
	Wake func()
	// Reserve reports whether the disk is full down to the reserve: publishes
	// are refused, all else goes on. nil: never. Any goroutine calls it.
	Reserve func() bool
	// InboxBytes and InboxCount bound what waits to be proposed: 32 MiB and
	// 65,536 publishes and commands.
	InboxBytes int64
	InboxCount int
	// Drive is Wake for a caller that may do the shard's work itself, and wait
	// for a sync of the log. Nil: Wake.
	Drive func()
	// WakeFlusher rings the node's flusher: Background has something to do.
	WakeFlusher func()
	// TailBytes is the store's budget for tails; publishes are held back while
	// the tails take more than twice that: 8 MiB.
	TailBytes int64
	// ParkedMax is how many parked messages may be in memory before some are
	// spilled to a file: 262,144.
	ParkedMax int
	// Follower: nothing is taken (fault.NotLeader) before the first Lead. False
	// is for a shard of one replica, which leads soon.
	Follower bool
	// Leads is told on the loop that this replica begins to lead (it takes
	// publishes now) or ends. It must not block. Nil: nobody asks.
	Leads func(leads bool)
	// CompactBytes is the size from which a log is offered for compaction:
	// 1 MiB.
	CompactBytes int64
}

// defaults fills in what is not set.
func (o *Options) defaults() {
	setDefault(&o.InboxBytes, 32<<20)
	setDefault(&o.InboxCount, 1<<16)
	setDefault(&o.TailBytes, 8<<20)
	setDefault(&o.ParkedMax, 1<<18)
	setDefault(&o.CompactBytes, 1<<20)
	if o.Wake == nil {
		o.Wake = func() {}
	}
	if o.Drive == nil {
		o.Drive = o.Wake
	}
	if o.Leads == nil {
		o.Leads = func(bool) {}
	}
	if o.WakeFlusher == nil {
		o.WakeFlusher = func() {}
	}
}

func setDefault[T int | int64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Machine is the replicated state of one shard. It implements shard.Machine.
type Machine struct {
	o     Options
	inbox inbox

	// The rest belongs to the shard's loop.

	// Replicated.
	time       int64 // of the last entry, unix ns; never goes back
	partitions map[Key]*partition
	closed     []Key // the last ones closed, oldest first; never opened again
	producers  producers

	// Local.
	sorted  []*partition // partitions, by key
	leading bool
	term    uint64    // of the last leadership of this node
	built   int64     // time of the last entry built, ≥ time while leading
	queue   []item    // taken from the inbox, from head on
	head    int       // first of queue that is not in an entry
	full    bool      // the tails take too much memory: publishes are held back
	holding bool      // the queue begins with one that is
	flights []*flight // proposed, in order
	free    *flight   // one to use again
	slots   map[Key]*slot
	drains  uint64
	planned planned
	links   links
	writer  writer
	entry   []byte // scratch for the entry being built
	delta   Delta  // scratch for encoding and decoding

	lanes     map[Lane]*attachment
	dirty     []*attachment // have something to report, in order
	collectAt int64         // when to collect it at the latest; math.MaxInt64: nothing
	again     [][]byte      // delta commands that were dropped, to be proposed anew
	due       dueHeap

	parkedLen   int         // parked entries in memory
	spilling    *parked.Set // a spill of it is not committed yet; nil: none
	spillMin    int         // how many of one channel are worth a file
	spillAt     int         // when parkedLen is above, look for what to spill
	compactFrom Key         // where the next look for logs to compact begins
	ghosts      []*ghost
	dropped     []*seglog.Log
	scratch     []byte

	background background
	graves     graves
	failed     error // parked messages can't be read: the next Apply stops the node
}

var _ shard.Machine = (*Machine)(nil)

// New builds an empty Machine; Restore comes next.
func New(o Options) *Machine {
	o.defaults()
	m := &Machine{
		o:          o,
		inbox:      inbox{dirtySet: make(map[Lane]struct{})},
		partitions: make(map[Key]*partition),
		slots:      make(map[Key]*slot),
		lanes:      make(map[Lane]*attachment),
		collectAt:  math.MaxInt64,
		spillMin:   spillMin,
		spillAt:    o.ParkedMax,
	}
	if o.Follower {
		m.inbox.refuse = fault.NotLeader
	}
	return m
}

// Lead says that this node leads from now on.
func (m *Machine) Lead(term uint64) {
	m.leading, m.term = true, term
	m.inbox.open()
	// Whoever was attached to an ephemeral channel under another leadership is
	// gone. The flag must be cleared before anything that is published is
	// handed to a channel that does not exist any more.
	var clears []item
	for _, p := range m.sorted {
		if slices.ContainsFunc(p.channels, func(c *channel) bool { return c.ephemeral }) {
			clears = append(clears, item{command: ClearEphemeral{p.Key}})
		}
	}
	if len(clears) > 0 {
		m.inbox.mu.Lock()
		m.inbox.items = append(clears, m.inbox.items...)
		m.inbox.waiting += len(clears)
		m.inbox.mu.Unlock()
	}
	m.o.Leads(true)
}

// Follow says that this node does not lead any more: lanes are stopped, and
// what waits is answered.
func (m *Machine) Follow() {
	m.stop(fault.NotLeader)
	m.o.Leads(false)
}

// Close answers everything that waits, and stops the lanes. The loop must have
// ended; nothing else is called after.
func (m *Machine) Close(err error) {
	m.stop(err)
	for _, f := range slices.Clone(m.flights) {
		m.Drop(f, err)
	}
	b := &m.inbox
	b.mu.Lock()
	b.closed = true
	calls := b.calls
	b.calls = nil
	b.mu.Unlock()
	for _, f := range calls {
		f()
	}
}

// stop ends the leadership.
func (m *Machine) stop(err error) {
	m.leading = false
	items := m.inbox.shut(err)
	waiting := append(slices.Clone(m.queue[m.head:]), items...)
	m.queue, m.head, m.holding = nil, 0, false
	bytes := int64(0)
	for _, i := range waiting {
		if i.publish != nil {
			bytes += int64(i.publish.size)
		}
	}
	m.inbox.release(len(waiting), bytes)
	for _, i := range waiting {
		i.fail(err)
	}
	for _, p := range m.sorted {
		m.stopLanes(p, err)
	}
	m.dirty, m.collectAt, m.again = nil, math.MaxInt64, nil
}

// stopLanes stops the lanes of a partition.
func (m *Machine) stopLanes(p *partition, err error) {
	pinned := false
	for _, c := range p.channels {
		pinned = pinned || c.pinned
		c.pinned = false
		if c.lane != nil {
			m.release(p, c, err)
		}
	}
	if pinned {
		p.settle()
	}
}

// fail answers an item that will not be proposed.
func (i *item) fail(err error) {
	switch {
	case i.publish != nil:
		i.publish.answer(0, err)
	case i.command != nil && i.done != nil:
		i.done(err)
	case i.attach != nil:
		i.attach.lane.Stop(err)
	case i.settle != nil:
		i.settle(err)
	}
}

// answer tells the outcome.
func (p *Publish) answer(base int64, err error) {
	if p.Done != nil {
		p.Done.Published(base, err)
	}
}

// Tick does what is due: queries, due messages, background work.
func (m *Machine) Tick(now int64) (next int64) {
	n := m.inbox.take()
	for _, f := range n.calls {
		f()
	}
	next = math.MaxInt64
	if m.leading {
		for _, l := range n.wanted {
			if a := m.lanes[l]; a != nil {
				m.want(a)
			}
		}
		next = m.offerDue(now)
		if n.dirty {
			m.collectAt = min(m.collectAt, now+collectDelayNs)
		}
		next = min(next, m.collectAt)
		if m.holding {
			next = min(next, now+holdPollNs)
		}
	}
	m.spill()
	return next
}

const (
	// collectDelayNs is how long a lane's report waits for company; with the
	// loop's own delay it stays within ten milliseconds.
	collectDelayNs = 8e6
	// holdPollNs is how often the tails are looked at while publishes are held
	// back.
	holdPollNs = 2e6
)

// find returns a partition, or fault.TopicNotFound.
func (m *Machine) find(k Key) (*partition, error) {
	if p := m.partitions[k]; p != nil {
		return p, nil
	}
	return nil, fault.New(fault.TopicNotFound, "find partition %d of topic %d", k.Partition, k.Topic)
}

// findChannel returns a channel and its partition.
func (m *Machine) findChannel(k Key, id uint64) (*partition, *channel, error) {
	p, err := m.find(k)
	if err != nil {
		return nil, nil, err
	}
	if c := p.channel(id); c != nil {
		return p, c, nil
	}
	return p, nil, fault.New(fault.ChannelNotFound, "find channel %d on partition %d of topic %d", id, k.Partition, k.Topic)
}

// parkedPrefix begins the names of a channel's parked files.
func parkedPrefix(k Key, channel uint64) string {
	return fmt.Sprintf("%016x-%04x-%016x", k.Topic, k.Partition, channel)
}

// Knows reports whether a log belongs to an open partition. Only before the
// loop runs, after Restore.
func (m *Machine) Knows(id seglog.LogID) bool {
	return m.partitions[Key{id.Topic, id.Partition}] != nil
}
