package delivery

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/latency"
	"github.com/tidings-io/tidings/internal/seglog"
)

// Log is the partition's log as a lane reads it: *seglog.Log or *MemoryLog.
type Log interface {
	// ReadChunk appends to dst the batch that holds offset, or the next one
	// after a hole, and following ones up to about maxBytes; none at the end.
	// The bytes are immutable, and good until the last Release of the chunk, to
	// which the caller has a reference; for ever when that is nil.
	// *seglog.CorruptError names offsets to skip, or to read again later.
	ReadChunk(dst []seglog.Batch, offset int64, maxBytes int) ([]seglog.Batch, *seglog.Chunk, error)
	// Start is the lowest offset that can still be read.
	Start() int64
}

// Shard is told when a lane has something for it: *partition.Machine, or
// *Memory for channels that are written nowhere. Both calls come from any
// goroutine, without locks of this package.
type Shard interface {
	// Dirty: Collect would return something.
	Dirty(partition.Lane)
	// Wanted: Due took less than it was given before, and can take more now.
	Wanted(partition.Lane)
}

// Timer is a timer that AfterFunc made: *time.Timer.
type Timer interface {
	Reset(d time.Duration) bool
	Stop() bool
}

// Config describes a channel.
type Config struct {
	Topic, Name string
	// Codec makes and reads the topic's message ids.
	Codec Codec
	// Clock is the current time in unix ns, the same that due times and
	// deadlines are measured by; nil: time.Now. It should not jump back.
	Clock func() int64
	// AfterFunc starts a timer; nil: time.AfterFunc.
	AfterFunc func(d time.Duration, f func()) Timer
	// MaxConsumers bounds subscriptions; 0: no bound.
	MaxConsumers int
	// WaitOnDisconnect is nsqd's way (--requeue-on-disconnect=false): what a
	// consumer had in flight when it left waits for its timeout, instead of
	// coming back by the rule at Subscription.Close.
	WaitOnDisconnect bool
	// MaxRequeueDelay is what a longer REQ delay is cut to; 0: 1 h.
	MaxRequeueDelay time.Duration
	// Idle is called when the last subscription has been closed, without
	// locks, by whoever closed it; nil: nobody wants to know. Another one may
	// have come meanwhile.
	Idle func()
	// MaxLag bounds how many messages may wait in the log for this channel;
	// beyond it the oldest are dropped and counted. For ephemeral channels; 0:
	// no bound.
	MaxLag int64
	// Fresh says that this process created the channel: what already waits for
	// it then counts into MessageCount.
	Fresh bool
	// LatencyWindow is over how long the time from publish to FIN is kept, for
	// Latency; 0: it is not measured.
	LatencyWindow time.Duration
	// MirrorID returns a number that no other mirror of this process has; nil when
	// no partition is led elsewhere.
	MirrorID func() uint64
	// Spent is called, without locks, when messages have had all their attempts (see
	// SetMaxAttempts): DeadLetters has them. Any goroutine calls it, a shard's loop too:
	// it must not block. nil: they stay.
	Spent func()
	// Emptied is called, under the channel's lock, when a lane was emptied up to an
	// offset: it must not block, nor call into this package. nil: nobody wants to
	// know.
	Emptied func(part int32, before int64)
	// Held is called, without locks, when a lane has come to a barrier of its partition
	// (partition.Barrier) of so many partitions, and has more for a consumer whose
	// window is open: nothing of that is delivered before Lane.Release. Once for each
	// time that it begins to stand there: Channel.Standing says how long it does. Any
	// goroutine calls it, a shard's loop too: it must not block. nil: nobody wants to
	// know.
	Held func(part int32, count uint32)
	// Logger gets what nobody is told otherwise: damage in the log. nil: none.
	Logger *slog.Logger
}

// claimPatience is how long messages are kept for a subscription that was rung
// before another one may have them: its connection may be stuck in a write.
const claimPatience = 10 * time.Millisecond

// Channel is the leader-local side of one channel: who gets which message.
// Its methods may be called from any goroutine.
type Channel struct {
	cfg    Config
	limits limits
	log    *slog.Logger

	mu     sync.Mutex // guards all below, and all of its lanes and subscriptions
	lanes  []*Lane
	subs   []*Subscription // by id; nil where free
	slots  slab
	paused bool
	closed error // why the channel ended; nil while it lives
	held   int   // barriers that are not released, of all lanes
	calls  bool  // a lane wants its shard to be called after unlocking

	// waiting are the subscriptions that found nothing and have an open
	// window, longest waiting first; waitingOpen is the sum of those windows.
	waiting     subList
	waitingOpen int64
	// claimed is what is kept for subscriptions that were rung and have not
	// come yet.
	claimed     int64
	claimsEpoch uint32

	nextLane int // where the next Take begins, so that lanes share
	consumer int // live subscriptions (without those that only time out)
	relayed  int // those of them that are relayed

	maxAttempts uint16 // 0: no limit

	relays []*Relay // that have lanes
	// former answers what an earlier leadership had been told and not written.
	former *Subscription

	timer   Timer
	armedAt int64 // unix ns the timer is set for; 0: not set
	// claimsAt is when claims are looked at, unix ns; 0: never.
	claimsAt int64

	inFlight int64
	messages uint64
	requeues uint64
	timeouts uint64
	skipped  uint64
	dropped  uint64
	latency  *latency.Window // nil: not measured

	deadLettered uint64
}

// Stats is a snapshot of a channel's figures. Counts run since the process
// started.
type Stats struct {
	// Depth is what could be delivered now: not in flight, not deferred; and what
	// DeadLetters has.
	Depth int64
	// InFlight is what consumers hold of the partitions that are led here, wherever
	// they are connected.
	InFlight int64
	// Deferred is what waits in Memory until it is due. For lanes whose shard
	// is durable the deferred messages are those in the parked set, less Held.
	Deferred int64
	// Held is how many messages of the durable parked set are in Depth or
	// InFlight here.
	Held int64
	// MessageCount is how many messages were put into the channel.
	MessageCount uint64
	// RequeueCount and TimeoutCount are REQs and deliveries that timed out.
	RequeueCount, TimeoutCount uint64
	// SkippedCount is offsets that could not be read: damaged or gone.
	SkippedCount uint64
	// DroppedCount is messages given up because the channel lagged too far
	// (Config.MaxLag) or had too many deferred (Memory).
	DroppedCount uint64
	// DeadLetterCount is messages that had all their attempts and were finished by
	// FinishDeadLetter.
	DeadLetterCount uint64
	// Consumers is how many subscriptions there are, relayed ones included.
	Consumers int
	Paused    bool
}

// NewChannel makes a channel without lanes and consumers.
func NewChannel(cfg Config) *Channel {
	if cfg.Clock == nil {
		cfg.Clock = func() int64 { return time.Now().UnixNano() }
	}
	if cfg.AfterFunc == nil {
		cfg.AfterFunc = func(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }
	}
	if cfg.MaxRequeueDelay <= 0 {
		cfg.MaxRequeueDelay = time.Hour
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	c := &Channel{cfg: cfg, limits: defaultLimits, log: log}
	if cfg.LatencyWindow > 0 {
		c.latency = latency.NewWindow(int64(cfg.LatencyWindow))
	}
	return c
}

// Latency is how long it took from the publish of messages to their FIN, in the
// last Config.LatencyWindow; nil where that is not measured.
func (c *Channel) Latency() *latency.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.latency == nil {
		return nil
	}
	return c.latency.Snapshot(c.now())
}

// AddLane adds the lane of a partition. It delivers nothing before its Begin.
func (c *Channel) AddLane(part int32, log Log, shard Shard) *Lane {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &Lane{ch: c, log: log, shard: shard, part: part, index: int32(len(c.lanes)), fresh: c.cfg.Fresh, table: newTable(c.limits)}
	c.lanes = append(c.lanes, l)
	return l
}

// SetLane puts a new lane in the place of the partition's, or adds it where there
// is none: this node begins to lead the partition, perhaps not for the first time,
// and its log may be another one. Further calls of the old lane have no effect. What
// consumers hold of a partition that was led elsewhere, or that a leadership before
// left, stays in flight; without Config.MirrorID it is forgotten. fresh as in Config,
// for this lane. shut: nothing is delivered before Lane.Open.
func (c *Channel) SetLane(part int32, log Log, shard Shard, fresh, shut bool) *Lane {
	c.mu.Lock()
	defer c.unlock()
	l := &Lane{ch: c, log: log, shard: shard, part: part, fresh: fresh, shut: shut, table: newTable(c.limits)}
	c.replace(l)
	c.shareAll()
	c.ring()
	return l
}

// replace puts l in the place of its partition's lane, which may be another, and has
// it take over what consumers hold.
func (c *Channel) replace(l *Lane) {
	old := c.lane(l.part)
	if old == nil {
		l.index = int32(len(c.lanes))
		c.lanes = append(c.lanes, l)
		return
	}
	l.index = old.index
	l.released = old.released
	if old.away() || c.cfg.MirrorID != nil {
		l.inherit(old)
	}
	old.reset(partition.Start{Floor: old.cursor, Limit: old.cursor})
	old.live, old.dead = false, true
	lanes := slices.Clone(c.lanes) // Stats looks at the old ones without the lock
	lanes[l.index] = l
	c.lanes = lanes
}

// SetPaused stops or resumes deliveries. What is in flight stays so.
func (c *Channel) SetPaused(paused bool) {
	c.mu.Lock()
	c.paused = paused
	for _, s := range c.subs {
		if s != nil && !s.closed {
			s.arrived()
			s.share()
		}
	}
	c.ring()
	c.unlock()
}

// Close ends the channel: it is deleted, or the node stops (err says which;
// nil is fault.Exiting). Every subscription's Done is closed and nothing is
// delivered any more; FIN, REQ and TOUCH of what is in flight still work until
// the subscription is closed. Deliveries that end by this do not count as
// attempts.
func (c *Channel) Close(err error) {
	if err == nil {
		err = fault.Exiting
	}
	c.mu.Lock()
	defer c.unlock()
	if c.closed != nil {
		return
	}
	c.closed = err
	if c.timer != nil {
		c.timer.Stop()
	}
	for _, s := range c.subs {
		if s != nil && !s.closed {
			close(s.done)
			s.notify()
		}
	}
}

// Err is why the channel was closed; nil while it lives.
func (c *Channel) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// Stats returns the channel's figures.
func (c *Channel) Stats() Stats { return c.StatsBy(func(int32, bool, bool) {}) }

// StatsBy is Stats, and tells each of every lane, for the moment that the figures
// are of: its partition, whether it delivers, and, if it does not yet, whether what
// it will find counts as put into the channel then. each must not call the channel.
func (c *Channel) StatsBy(each func(part int32, delivers, fresh bool)) Stats {
	c.mu.Lock()
	st := Stats{
		InFlight:     c.inFlight,
		MessageCount: c.messages,
		RequeueCount: c.requeues,
		TimeoutCount: c.timeouts,
		SkippedCount: c.skipped,
		DroppedCount: c.dropped,
		Consumers:    c.consumer,
		Paused:       c.paused,

		DeadLetterCount: c.deadLettered,
	}
	for _, l := range c.lanes {
		st.Depth += l.depth()
		st.Held += l.held
		each(l.part, l.live, l.fresh)
	}
	lanes := c.lanes
	c.mu.Unlock()
	for _, l := range lanes {
		if m, ok := l.shard.(*Memory); ok {
			deferred, dropped := m.count(l)
			st.Deferred += deferred
			st.DroppedCount += dropped
		}
	}
	return st
}

// Subscriptions appends the live subscriptions to dst.
func (c *Channel) Subscriptions(dst []*Subscription) []*Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.subs {
		if s != nil && !s.closed {
			dst = append(dst, s)
		}
	}
	return dst
}

// now is the current time in unix ns.
func (c *Channel) now() int64 { return c.cfg.Clock() }

// unlock releases the lock and then calls the shards of lanes that asked for
// it meanwhile.
func (c *Channel) unlock() {
	if !c.calls {
		c.mu.Unlock()
		return
	}
	c.calls = false
	type call struct {
		lane  *Lane
		what  uint8
		count uint32 // of callHeld
	}
	var few [4]call
	calls := few[:0]
	for _, l := range c.lanes {
		if l.calls != 0 {
			calls = append(calls, call{l, l.calls, l.standsAt()})
			l.calls = 0
		}
	}
	c.mu.Unlock()
	spent := c.cfg.Spent
	for _, x := range calls {
		if x.what&callDirty != 0 {
			x.lane.shard.Dirty(x.lane)
		}
		if x.what&callWanted != 0 {
			x.lane.shard.Wanted(x.lane)
		}
		if x.what&callHeld != 0 {
			c.cfg.Held(x.lane.part, x.count)
		}
		if x.what&callSpent != 0 && spent != nil {
			spent()
			spent = nil // for all lanes
		}
	}
}

// work is how many messages a Take could return now.
func (c *Channel) work() int64 {
	var n int64
	for _, l := range c.lanes {
		n += l.work()
	}
	return min(n, workMax)
}

// workMax keeps products of work and windows far from overflow.
const workMax = 1 << 30

// ring wakes as many waiting subscriptions as there is work for that nobody
// has been woken for, and keeps each one's share for it. It is called at the
// end of everything that may have made work, opened a window or given up a
// claim, so no wake-up is lost.
func (c *Channel) ring() {
	if c.held > 0 {
		c.noteStanding()
	}
	if c.waiting.head == nil || c.paused || c.closed != nil {
		return
	}
	work := c.work() - c.claimed
	for work > 0 && c.waiting.head != nil {
		s := c.waiting.head
		share := min(max(1, work*s.waitingOpen/c.waitingOpen), s.waitingOpen)
		work -= share
		c.claimed += share
		s.claim, s.claimEpoch = share, c.claimsEpoch
		s.state = subRung
		s.settle()
		s.notify()
	}
	if c.claimed > 0 && c.waiting.head != nil && c.claimsAt == 0 {
		c.claimsAt = c.now() + int64(claimPatience)
		c.arm(c.claimsAt)
	}
}

// quota is how many messages a Take of s may return now: its window, or what
// was kept for it, or its share of what is there when others wait for it too.
func (c *Channel) quota(s *Subscription, kept int64) int {
	open := s.open()
	if open <= 0 || s.closed || c.paused || c.closed != nil {
		return 0
	}
	work := c.work() - c.claimed
	if work <= 0 {
		return 0
	}
	if c.waitingOpen > 0 {
		open = min(open, max(1, kept, work*open/(open+c.waitingOpen)))
	}
	return int(min(open, work))
}
