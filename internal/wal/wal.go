package wal

import (
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"sync"

	"github.com/tidings-io/tidings/internal/turn"
	"github.com/tidings-io/tidings/internal/vfs"
)

// Errors of reads and of a log that has ended.
var (
	// ErrCompacted says that an entry lies below the first one kept.
	ErrCompacted = errors.New("entry is compacted")
	// ErrUnavailable says that an entry lies above the last one.
	ErrUnavailable = errors.New("entry is not there yet")
	// ErrClosed says that the log has been stopped.
	ErrClosed = errors.New("log is closed")
)

// Bounds of a segment and of an entry, in bytes.
const (
	DefaultSegmentSize = 64 << 20
	MinSegmentSize     = 4 << 10
	MaxEntrySize       = 1 << 30
	DefaultSpares      = 2
)

// Entry is a raft entry. Index counts from 1.
type Entry struct {
	Index, Term uint64
	Type        int32
	Data        []byte // immutable from Submit on; at most MaxEntrySize
}

// HardState is what raft must not forget besides its entries.
type HardState struct{ Term, Vote, Commit uint64 }

// Append is one shard's addition to the log. It is recovered whole or not at
// all.
type Append struct {
	Shard uint32
	// Entries are dense and ascending. An entry at or below the shard's last
	// index replaces the suffix from there; one above last+1 begins the log
	// anew (a snapshot was installed). The slice is the log's until Done.
	Entries []Entry
	// Hard, when not nil, replaces the shard's HardState.
	Hard *HardState
	// Sync asks for durability. Without it (commit-only HardState) the append
	// rides with the next write and never causes a sync; with a nil Done it
	// does not even cause a write of its own.
	Sync bool
	// Quiet says that the submitter calls Drive next: Submit wakes nobody.
	Quiet bool
	// Done is called by Finish, in the order of Submit, once the bytes are
	// durable, or, without Sync, written; or with the error that stopped the
	// log. May be nil. After the log has ended Submit itself calls it.
	Done func(error)
}

// Options are the settings of a WAL. The zero value is ready to use.
type Options struct {
	SegmentSize int64 // bytes; 0 is DefaultSegmentSize
	// Spares is how many segments are zeroed ahead; 0 is DefaultSpares,
	// negative is none. Up to twice as many recycled ones are kept. The first
	// spares of a log are smaller than a segment.
	Spares int
	Logger *slog.Logger // nil is silence
}

func (o Options) withDefaults() (Options, error) {
	if o.SegmentSize == 0 {
		o.SegmentSize = DefaultSegmentSize
	}
	if o.SegmentSize < MinSegmentSize {
		return o, fmt.Errorf("open wal: segment size %d is below %d", o.SegmentSize, MinSegmentSize)
	}
	if o.Spares == 0 {
		o.Spares = DefaultSpares
	}
	o.Spares = max(o.Spares, 0)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// request is a queued Append, or the wish to forget a shard.
type request struct {
	Append
	log    *shardLog
	ticket uint64
	forget bool
}

// WAL is an open log. See the package comment for who may call what.
type WAL struct {
	fs  vfs.FS
	dir string
	o   Options
	id  uint64 // random, in every segment header

	turn   *turn.Turn    // to call Write, Sync, Finish, Mark; Run is its regular
	chores chan struct{} // rung for Run: Maintain may have something to do

	mu       sync.Mutex // guards the block below; never held across I/O
	index    index
	queue    []request
	asked    bool // the queue holds more than what rides with the next write
	bytes    int  // of the queued entries' data
	tickets  uint64
	durable  uint64 // sequence of the newest segment whose first group is durable
	failed   error  // sticky
	ended    bool   // no driver will come again
	counters Stats

	names  sync.Mutex // guards the block below; taken before mu; held across renames
	spares []uint64   // sequence numbers, dense behind the live ones

	latency latency // of syncs; a lock of its own

	writer  writer  // owned by the driver of Write, Sync, Finish, Mark
	builder builder // owned by the driver of Maintain
}

// Open recovers the log in dir, or makes it. It returns *CorruptError when
// something is damaged that was durable. The caller holds the lock on the data
// directory.
func Open(fs vfs.FS, dir string, o Options) (*WAL, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := prepare(fs, dir); err != nil {
		return nil, fmt.Errorf("open wal: %w", err)
	}
	s, err := takeSurvey(fs, dir, true)
	if err == nil && s.damage != nil {
		err = s.damage
	}
	if err == nil {
		err = s.settle(o)
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("open wal: %w", err)
	}
	w := fromSurvey(fs, dir, o, s)
	if w.writer.limit, err = w.limitOf(w.current()); err != nil {
		s.close()
		return nil, fmt.Errorf("open wal: %w", err)
	}
	return w, nil
}

// fromSurvey builds the WAL over what recovery found and settled.
func fromSurvey(fs vfs.FS, dir string, o Options, s *survey) *WAL {
	w := &WAL{
		fs: fs, dir: dir, o: o, id: s.id,
		turn:   turn.New(),
		chores: make(chan struct{}, 1),
		index:  s.index,
		spares: s.spares,
	}
	seg := w.current()
	w.writer.segment, w.writer.offset, w.writer.synced, w.writer.marked = seg, seg.end, seg.end, s.marked
	for id, l := range s.index.shards {
		if l.hasHard {
			w.writer.setHard(id, l.hard)
		}
	}
	w.durable = seg.sequence
	if seg.end == headerSize {
		w.durable-- // it does not carry the HardStates yet
	}
	if s.cut != nil {
		w.counters.CutBytes = s.cut.Size
		o.Logger.Warn("cut the torn last write of the log",
			"segment", s.cut.Segment, "offset", s.cut.Offset, "bytes", s.cut.Size)
	}
	return w
}

// current is the segment that is written to.
func (w *WAL) current() *segment { return w.index.live[len(w.index.live)-1] }

// Close lets go of the files. The drivers have returned before.
func (w *WAL) Close() error {
	w.end(ErrClosed)
	w.mu.Lock()
	live := slices.Clone(w.index.live)
	w.mu.Unlock()
	var errs []error
	for _, seg := range live {
		errs = append(errs, seg.file.Close())
	}
	if f := w.builder.file; f != nil {
		errs = append(errs, f.Close())
		w.builder.file = nil
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close wal: %w", err)
	}
	return nil
}

// Shards lists the shards that have entries or a HardState, ascending.
func (w *WAL) Shards() []uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make([]uint32, 0, len(w.index.shards))
	for id, s := range w.index.shards {
		if s.hasHard || s.last > 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Hard returns the newest HardState submitted for the shard.
func (w *WAL) Hard(shard uint32) (HardState, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.index.shards[shard]; s != nil {
		return s.hard, s.hasHard
	}
	return HardState{}, false
}

// First is the index of the shard's first readable entry, 0 when there is none.
func (w *WAL) First(shard uint32) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.index.shards[shard]; s != nil && s.first <= s.last {
		return s.first
	}
	return 0
}

// Last is the index and term of the shard's last entry, submitted is enough;
// 0, 0 when there never was one. A released last entry is still named here
// until a restart.
func (w *WAL) Last(shard uint32) (index, term uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.index.shards[shard]; s != nil && s.last > 0 {
		term, _ = s.term(s.last)
		return s.last, term
	}
	return 0, 0
}

// Term is the term of an entry; also of the one just before the first
// readable, as long as it is known. ErrCompacted, ErrUnavailable.
func (w *WAL) Term(shard uint32, index uint64) (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.index.shards[shard]
	if s == nil || index > s.last {
		return 0, ErrUnavailable
	}
	if term, ok := s.term(index); ok {
		return term, nil
	}
	return 0, ErrCompacted
}

// Submit queues an append. It never waits for the disk. The queue is bounded
// by its callers: a group has a bounded number of appends in flight.
func (w *WAL) Submit(a Append) {
	w.mu.Lock()
	if w.ended {
		err := w.failed
		w.mu.Unlock()
		if a.Done != nil {
			a.Done(err)
		}
		return
	}
	s := w.index.shard(a.Shard)
	w.tickets++
	for i := range a.Entries {
		s.extend(a.Entries[i].Index, a.Entries[i].Term)
		s.held = append(s.held, held{a.Entries[i], w.tickets})
		w.bytes += len(a.Entries[i].Data)
	}
	if a.Hard != nil {
		s.hard, s.hasHard = *a.Hard, true
	}
	w.queue = append(w.queue, request{Append: a, log: s, ticket: w.tickets})
	asks := a.Sync || a.Done != nil
	w.asked = w.asked || asks
	w.mu.Unlock()
	if asks && !a.Quiet {
		w.turn.Call()
	}
}

// Pending says whether Write has something to take.
func (w *WAL) Pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) > 0
}

// Release says that the shard's entries up to index are not needed any more:
// two complete checkpoints stand above them. A segment is recycled when no
// shard needs it.
func (w *WAL) Release(shard uint32, index uint64) {
	w.mu.Lock()
	if s := w.index.shards[shard]; s != nil {
		s.release(index)
	}
	w.mu.Unlock()
	ring(w.chores)
}

// Forget drops a shard with its entries and HardState. The fact becomes
// durable with the next sync; before that a crash may bring the shard back.
func (w *WAL) Forget(shard uint32) {
	w.mu.Lock()
	if !w.ended {
		w.index.forget(shard)
		w.tickets++
		w.queue = append(w.queue, request{Append: Append{Shard: shard}, ticket: w.tickets, forget: true})
	}
	w.mu.Unlock()
	ring(w.chores)
}

// Size is the bytes in live segments.
func (w *WAL) Size() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var n int64
	for _, seg := range w.index.live {
		n += seg.end
	}
	return n
}

// Oldest lists the shards whose entries pin the oldest segment, ascending;
// none when only one segment is live.
func (w *WAL) Oldest() []uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.index.live) < 2 {
		return nil
	}
	return w.index.pins(w.index.live[0])
}

// fail makes err the log's end. The first one stays.
func (w *WAL) fail(err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed == nil {
		w.failed = err
		w.o.Logger.Error("the log has failed and takes nothing more", "error", err)
	}
	w.turn.Ring()
	return w.failed
}

// failure is the error that ended the log, or nil.
func (w *WAL) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failed
}

// end tells that no driver will come again: what is queued now and submitted
// later is answered with err, or with the error that was first.
func (w *WAL) end(err error) {
	w.mu.Lock()
	if w.failed == nil {
		w.failed = err
	}
	w.ended = true
	w.mu.Unlock()
	w.Finish()
}

// path is a file of the log.
func (w *WAL) path(name string) string { return path.Join(w.dir, name) }

// ring wakes whoever waits on a bell, once.
func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}
