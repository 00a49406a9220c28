package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidings-io/tidings/internal/broker"
	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/vfs"
	"github.com/tidings-io/tidings/internal/wal"
)

const (
	// topicsMax is how many topics a spool can have had, as long as its log lives.
	topicsMax = 1 << 16
	// inlineBytes is up to what size a publish is written and synced by the
	// publisher's own goroutine.
	inlineBytes = 64 << 10
	// saveEvery is how often it is written down how far forwarding has come, and
	// saveBytes after how many bytes of a topic it is written at once.
	saveEvery = time.Second
	saveBytes = 4 << 20
	// moveBytes is up to what size the rest of a topic is written again so that the
	// segment it stands in can go; in a small spool it is the size of a segment, or it
	// would be filled with what it holds already.
	moveBytes = 1 << 20
	// reserveEvery is how often free space is asked for.
	reserveEvery = 100 * time.Millisecond
)

// MinSize is the smallest bound of a spool, bytes: a log of sixteen of the smallest
// segments.
const MinSize = 16 * wal.MinSegmentSize

// Origin is the name of a spool upstream: partition.Session.
type Origin = partition.Session

// Options are the settings of a Spool.
type Options struct {
	FS  vfs.FS
	Dir string
	// Size bounds the spool's log, bytes; at least MinSize.
	Size int64
	// Reserve is how many bytes of the volume stay free, 0 for none.
	Reserve int64
	// Window is how many bytes of bodies are forwarded at once, 512 KiB where it is 0;
	// one message always is.
	Window int
	Logger *slog.Logger     // nil is silence
	Clock  func() time.Time // nil: time.Now
}

// Spool is an open spool. Publish and Stats may be called by anyone, what reads and
// advances by one Forwarder.
type Spool struct {
	o      Options
	lock   io.Closer
	log    *wal.WAL
	origin Origin
	bell   func(*topic) // set by the forwarder before Run

	refused  atomic.Uint64 // publishes
	reserved atomic.Bool   // the volume is as full as publishes may make it
	pending  atomic.Int64  // bytes submitted and not yet written for sure

	mu     sync.Mutex // guards the order of submits, and the following
	topics map[string]*topic
	names  uint64 // index of the last entry of shard 0
	closed bool

	// state guards what topics know of the log behind their lists of names; taken
	// after mu, and by completions of the log.
	state sync.Mutex

	// hards orders the HardStates that are submitted: a later one may not say less.
	// Taken before state.
	hards sync.Mutex
}

// topic is one topic's queue.
type topic struct {
	name  string
	shard uint32

	// Under Spool.mu.
	last uint64 // index of the last entry
	next uint64 // position of the next message

	// Under Spool.state.
	durable      uint64 // all below this position may be forwarded
	durableIndex uint64 // last entry of it
	floor        uint64 // all below is upstream
	at           uint64 // index of the entry that has floor, or will
	oldest       int64  // when the message at floor was taken, unix ns; 0: unknown
	partitions   int    // that messages from floor on are spread over; 0: not known yet
	saved        uint64 // floor that is durable, or about to be
	unsaved      int    // bytes of entries between the two
	saving       bool
	held         int   // bytes of the entries from at on, above movable only roughly
	messages     int64 // since the process started
	bytes        int64 // of their bodies
}

// Open takes the folder for this process, and makes it where it is not there. The
// error is vfs.ErrLocked where another process has it, and *wal.CorruptError where the
// log is damaged below what was durable.
func Open(o Options) (*Spool, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Window == 0 {
		o.Window = windowBytes
	}
	if o.Size < MinSize {
		return nil, fmt.Errorf("open spool: size %d is below %d", o.Size, MinSize)
	}
	if err := vfs.MkdirSynced(o.FS, o.Dir); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if _, err := o.FS.Stat(path.Join(o.Dir, "NODE")); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("open spool: %s is a node's data folder; choose another", o.Dir), err)
	}
	lock, err := o.FS.Lock(path.Join(o.Dir, "LOCK"))
	if err != nil {
		return nil, fmt.Errorf("open spool: lock folder %s: %w", o.Dir, err)
	}
	s := &Spool{o: o, lock: lock, topics: make(map[string]*topic), bell: func(*topic) {}}
	if err := s.recover(); err != nil {
		if s.log != nil {
			err = errors.Join(err, s.log.Close())
		}
		return nil, errors.Join(fmt.Errorf("open spool: %w", err), lock.Close())
	}
	return s, nil
}

// segmentSize is the size of the log's segments: space comes back in steps of it.
func segmentSize(size int64) int64 { return min(max(size/16, wal.MinSegmentSize), 16<<20) }

// movable is up to what size the rest of a topic is written again, bytes.
func (s *Spool) movable() int { return int(min(segmentSize(s.o.Size), moveBytes)) }

// recover reads what the log holds.
func (s *Spool) recover() (err error) {
	s.log, err = wal.Open(s.o.FS, path.Join(s.o.Dir, "wal"), wal.Options{SegmentSize: segmentSize(s.o.Size), Logger: s.o.Logger})
	if err != nil {
		return err
	}
	if s.log.First(0) == 0 {
		if shards := s.log.Shards(); len(shards) > 0 {
			return fmt.Errorf("the log holds %d topics without their names", len(shards))
		}
		return s.begin()
	}
	var numbered []*topic
	for i, last := s.log.First(0), s.lastOf(0); i <= last; i++ {
		e, err := s.log.Entries(0, i, i+1, math.MaxInt)
		if err == nil {
			s.origin, err = readNames(e[0].Data, func(shard uint32, name string) {
				if s.topics[name] == nil {
					t := &topic{name: name, shard: shard}
					s.topics[name] = t
					numbered = append(numbered, t)
				}
			})
		}
		if err != nil {
			return fmt.Errorf("read the names of topics: %w", err)
		}
		s.names = i
	}
	for _, t := range numbered {
		if err := s.recoverTopic(t); err != nil {
			return fmt.Errorf("read topic %s: %w", t.name, err)
		}
	}
	return nil
}

func (s *Spool) lastOf(shard uint32) uint64 {
	last, _ := s.log.Last(shard)
	return last
}

// recoverTopic finds where a topic's queue begins and ends.
func (s *Spool) recoverTopic(t *topic) error {
	if h, ok := s.log.Hard(t.shard); ok {
		t.floor, t.partitions = h.Commit, int(min(h.Vote, partitionsMax))
	}
	t.saved, t.next = t.floor, t.floor
	t.last = s.lastOf(t.shard)
	t.at = t.last + 1
	if first := s.log.First(t.shard); first > 0 {
		e, err := s.entry(t, t.last)
		if err != nil {
			return err
		}
		t.next = max(t.floor, e.end())
		// The first entry that is not upstream as a whole. Where entries stand twice
		// it may be the first of either.
		lo, hi := first, t.last+1
		for lo < hi {
			middle := lo + (hi-lo)/2
			e, err := s.entry(t, middle)
			if err != nil {
				return err
			}
			if e.end() > t.floor {
				hi = middle
			} else {
				lo = middle + 1
			}
		}
		t.at = lo
		if t.at <= t.last {
			if e, err = s.entry(t, t.at); err != nil {
				return err
			}
			t.oldest = e.ns
			rest, err := s.log.Entries(t.shard, t.at, t.last+1, s.movable())
			if err != nil {
				return err
			}
			for i := range rest {
				t.held += len(rest[i].Data)
			}
			if uint64(len(rest)) <= t.last-t.at {
				t.held = s.movable() + 1
			}
		}
		s.log.Release(t.shard, t.at-1)
	}
	t.durable, t.durableIndex = t.next, t.last
	return nil
}

// entry reads one publish.
func (s *Spool) entry(t *topic, index uint64) (entry, error) {
	e, err := s.log.Entries(t.shard, index, index+1, math.MaxInt)
	if err != nil {
		return entry{}, err
	}
	return readEntry(index, e[0].Data)
}

// begin writes a new origin.
func (s *Spool) begin() error {
	s.origin = newOrigin()
	s.names = 1
	var failed error
	s.log.Submit(wal.Append{
		Entries: []wal.Entry{{Index: 1, Term: 1, Data: append([]byte{format}, s.origin[:]...)}},
		Sync:    true, Done: func(err error) { failed = err },
	})
	err := s.log.Write()
	if err == nil {
		err = s.log.Sync()
	}
	s.log.Finish()
	return errors.Join(err, failed)
}

// Origin is the spool's name upstream.
func (s *Spool) Origin() Origin { return s.origin }

// Run drives the log until ctx ends, or it fails. When it returns nil, all that was
// taken is durable, and how far forwarding has come.
func (s *Spool) Run(ctx context.Context) error {
	logCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.log.Run(logCtx) }()
	save, look := time.NewTicker(saveEvery), time.NewTicker(reserveEvery)
	defer save.Stop()
	defer look.Stop()
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("run spool: %w", err)
		case <-save.C:
			if err := s.Tick(); err != nil {
				return fmt.Errorf("run spool: %w", err)
			}
		case <-look.C:
			s.look()
		case <-ctx.Done():
			s.mu.Lock()
			s.closed = true
			s.mu.Unlock()
			s.saveAll()
			stop()
			if err := <-ended; err != nil {
				return fmt.Errorf("run spool: %w", err)
			}
			return nil
		}
	}
}

// Tick writes down how far forwarding has come, and frees what space it can: Run calls
// it every second. It may wait for a disk to read. The error is the log's.
func (s *Spool) Tick() error {
	s.saveAll()
	return s.tidy()
}

// Log is the log: who calls its steps, and Tick, and has its own clock, needs no Run.
func (s *Spool) Log() *wal.WAL { return s.log }

// look compares the volume's free space with the reserve.
func (s *Spool) look() {
	if s.o.Reserve <= 0 {
		return
	}
	u, err := s.o.FS.Usage(s.o.Dir)
	if err != nil {
		s.o.Logger.Warn("read free disk space", "dir", s.o.Dir, "error", err)
		return
	}
	below := u.Free < s.o.Reserve
	switch {
	case below == s.reserved.Swap(below):
	case below:
		s.o.Logger.Error("disk reserve reached: publishing stops until space is freed", "dir", s.o.Dir, "free_bytes", u.Free, "reserve_bytes", s.o.Reserve)
	default:
		s.o.Logger.Info("disk space is back: publishing goes on", "dir", s.o.Dir, "free_bytes", u.Free, "reserve_bytes", s.o.Reserve)
	}
}

// Close lets go of the folder. Run has returned before.
func (s *Spool) Close() error { return errors.Join(s.log.Close(), s.lock.Close()) }

// Publish takes messages of one topic, whole or not at all, in the order of the calls
// of one caller. done is called once, on any goroutine, when they are durable, unless
// an error is returned: fault.SpoolFull, fault.DiskReserve, fault.InvalidTopic,
// fault.Unsupported for a topic that lives in memory, fault.Exiting. msgs stay
// untouched until then.
func (s *Spool) Publish(name string, msgs []Message, done partition.Completion) error {
	return s.publish(name, msgs, done, false)
}

// Enqueue is Publish without waking anybody: the caller calls Drive next.
func (s *Spool) Enqueue(name string, msgs []Message, done partition.Completion) error {
	return s.publish(name, msgs, done, true)
}

// Drive writes and syncs what was enqueued, on this goroutine if nothing else does.
func (s *Spool) Drive() { s.log.Drive(inlineBytes) }

func (s *Spool) publish(name string, msgs []Message, done partition.Completion, quiet bool) error {
	data := AppendMessages(make([]byte, headerSize, headerSize+sizeOf(msgs)), msgs)
	bodies := int64(0)
	for i := range msgs {
		bodies += int64(len(msgs[i].Body))
	}
	now := s.o.Clock().UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.admit(name, int64(len(data)))
	if err != nil {
		s.refused.Add(1)
		return err
	}
	stamp(data, t.next, now)
	t.next += uint64(len(msgs))
	t.last++
	index, end := t.last, t.next
	s.pending.Add(int64(len(data)))
	s.log.Submit(wal.Append{
		Shard: t.shard, Entries: []wal.Entry{{Index: index, Term: 1, Data: data}}, Sync: true, Quiet: quiet,
		Done: func(err error) {
			s.pending.Add(-int64(len(data)))
			if err == nil {
				s.durable(t, wal.Entry{Index: index, Data: data}, end, now, len(msgs), bodies)
			} else {
				err = fault.Wrap(fault.Storage, err)
			}
			done.Published(0, err)
		},
	})
	return nil
}

// admit is the topic of a publish of so many bytes, made on first use. s.mu is held.
func (s *Spool) admit(name string, size int64) (*topic, error) {
	if err := s.refusal(size); err != nil {
		return nil, fmt.Errorf("publish to topic %s: %w", name, err)
	}
	return s.ensure(name)
}

// refusal is why so many bytes can't be taken. s.mu is held.
func (s *Spool) refusal(size int64) error {
	switch {
	case s.closed:
		return fault.Exiting
	case s.reserved.Load():
		return fault.DiskReserve
	case s.used()+size > s.o.Size:
		return fault.SpoolFull
	}
	return nil
}

// used is how much of the spool's bound is taken, bytes.
func (s *Spool) used() int64 { return s.log.Size() + s.pending.Load() }

// CreateTopic makes a topic, which comes to be upstream with its first message.
func (s *Spool) CreateTopic(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.ensure(name)
	return err
}

// ensure finds a topic, or makes it: its name is in the log before its messages.
// s.mu is held.
func (s *Spool) ensure(name string) (*topic, error) {
	if t := s.topics[name]; t != nil {
		return t, nil
	}
	switch {
	case !broker.ValidTopic(name):
		return nil, fault.New(fault.InvalidTopic, "topic name %q is not valid", name)
	case broker.IsEphemeral(name):
		return nil, fault.New(fault.Unsupported, "topic %s lives in the memory of a node: an edge can't keep it", name)
	case len(s.topics) >= topicsMax:
		return nil, fault.New(fault.Unsupported, "topic %s: an edge takes %d topics", name, topicsMax)
	case s.closed:
		return nil, fault.Exiting
	}
	t := &topic{name: name, shard: uint32(len(s.topics)) + 1, at: 1}
	s.topics[name] = t
	s.names++
	data := appendName(append([]byte{format}, s.origin[:]...), t.shard, name)
	s.log.Submit(wal.Append{Entries: []wal.Entry{{Index: s.names, Term: 1, Data: data}}})
	return t, nil
}

// durable notes that a publish may be forwarded.
func (s *Spool) durable(t *topic, e wal.Entry, end uint64, ns int64, messages int, bytes int64) {
	s.state.Lock()
	if t.durable == t.floor {
		t.oldest = ns
	}
	t.durable, t.durableIndex = end, max(t.durableIndex, e.Index)
	t.messages += int64(messages)
	t.bytes += bytes
	t.held += len(e.Data)
	s.state.Unlock()
	s.bell(t)
}

// all lists the topics, by name.
func (s *Spool) all() []*topic {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*topic, 0, len(s.topics))
	for _, t := range s.topics {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *topic) int { return cmp.Compare(a.name, b.name) })
	return list
}

// TopicStats is one topic's state. Counts run since the process started.
type TopicStats struct {
	Name     string
	Depth    int64         // messages that are not known to be upstream
	Oldest   time.Duration // age of the oldest of them, 0 without one
	Messages int64         // taken
	Bytes    int64         // of their bodies
}

// Stats is the spool's state.
type Stats struct {
	Topics  []TopicStats  // by name
	Depth   int64         // messages that are not known to be upstream
	Oldest  time.Duration // age of the oldest of them, 0 without one
	Bytes   int64         // of the log that are in use; space comes back in segments
	Limit   int64         // that Bytes does not exceed
	Refused uint64        // publishes, since the process started
	Log     wal.Stats
}

// Stats tells how things are. topic "" is all of them.
func (s *Spool) Stats(topic string) Stats {
	out := Stats{Bytes: s.used(), Limit: s.o.Size, Refused: s.refused.Load(), Log: s.log.Stats()}
	now := s.o.Clock().UnixNano()
	list := s.all()
	s.state.Lock()
	defer s.state.Unlock()
	for _, t := range list {
		x := TopicStats{Name: t.name, Depth: int64(t.durable - t.floor), Messages: t.messages, Bytes: t.bytes}
		if x.Depth > 0 && t.oldest > 0 {
			x.Oldest = time.Duration(max(now-t.oldest, 0))
		}
		out.Depth += x.Depth
		out.Oldest = max(out.Oldest, x.Oldest)
		if topic == "" || topic == t.name {
			out.Topics = append(out.Topics, x)
		}
	}
	return out
}

// Health is nil, or why nothing can be taken.
func (s *Spool) Health() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusal(1)
}
