package seglog

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/tidings-io/tidings/internal/vfs"
)

const (
	flushChunk   = 1 << 20  // bytes in one write
	vectorWorth  = 4 << 10  // a batch of this size is written from where it stands
	flushUnit    = 1 << 20  // bytes that one FlushOldest moves at most
	flushWorth   = 64 << 10 // a tail of this size is worth a write of its own
	syncBytesMax = 8 << 20  // bytes written to one file between two syncs
)

// Options are the settings of a store. The zero value takes the defaults.
type Options struct {
	SegmentSize int64 // bytes at which a segment is sealed; 64 MiB
	TailBytes   int64 // budget of all tails of the node; 8 MiB
	OpenFiles   int   // segment files kept open besides those that wait for a sync; 256
	// WholeSyncFrom is how many files and folders must wait for a sync until the
	// volume is synced as a whole instead, where the file system can; 64.
	WholeSyncFrom int
	// Mend is told of damage that a read has met, each time, and says whether the
	// batches will be fetched from another replica and put back with Log.Repair.
	// Any goroutine; it must not block. Nil: they will not.
	Mend   func(*CorruptError) bool
	Logger *slog.Logger
}

// Store holds the logs of a node.
type Store struct {
	fs     vfs.FS
	dir    string
	o      Options
	log    *slog.Logger
	files  *files
	chunks *ChunkPool
	counts counters

	tailBytes atomic.Int64

	mu    sync.Mutex
	logs  map[LogID]*Log
	queue []*Log // have a tail, or had one, longest waiting first
	bad   map[damage]struct{}
	// grafts are the logs between Graft and RestoreGrafted: nothing in their
	// folders is unknown.
	grafts map[LogID]struct{}

	// The flusher's own.
	dirty   []*handle // written and not yet synced, oldest first; each holds a reference
	run     run       // kept for its memory
	scratch []Batch
	failed  error      // a sync failed: nothing may be believed any more
	volume  vfs.Volume // nil: cannot be synced as a whole, or nothing was written yet
	apart   bool       // it cannot: files are synced one by one
	wholes  uint64     // syncs of the volume
}

// damage names a place in a file, so that each is counted once.
type damage struct {
	id    LogID
	first int64
	pos   int64
}

// damageMax bounds the damaged places that are told apart.
const damageMax = 4096

// Open makes a store over a folder, which is made with the first flush. It
// reads nothing.
func Open(fs vfs.FS, dir string, o Options) (*Store, error) {
	if o.SegmentSize <= 0 {
		o.SegmentSize = 64 << 20
	}
	if o.TailBytes <= 0 {
		o.TailBytes = 8 << 20
	}
	if o.OpenFiles <= 0 {
		o.OpenFiles = 256
	}
	if o.WholeSyncFrom <= 0 {
		o.WholeSyncFrom = wholeSyncFrom
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Store{
		fs: fs, dir: dir, o: o, log: o.Logger,
		files: newFiles(fs, o.OpenFiles), chunks: NewChunkPool(PoisonChunks),
		logs: make(map[LogID]*Log),
		bad:  make(map[damage]struct{}),
	}, nil
}

// Close closes the open files. Nothing else of the store may be called any
// more. It syncs nothing: what must be durable is so by a checkpoint.
func (s *Store) Close() error {
	for _, h := range s.dirty {
		s.files.synced(h)
	}
	s.dirty = nil
	s.files.closeEvery()
	if s.volume != nil {
		return s.volume.Close()
	}
	return nil
}

// New makes an empty log whose first batch will have offset start or more. No
// file and no folder is made before the first flush.
func (s *Store) New(id LogID, start int64) *Log {
	l := &Log{store: s, id: id, seed: id.seed(), newDirs: true}
	l.start.Store(start)
	l.end.Store(start)
	l.journal.end = start
	s.register(l)
	return l
}

func (s *Store) register(l *Log) {
	s.mu.Lock()
	s.logs[l.id] = l
	s.mu.Unlock()
}

func (s *Store) enqueue(l *Log) {
	s.mu.Lock()
	s.queue = append(s.queue, l)
	s.mu.Unlock()
}

// TailBytes is what all tails take up in memory.
func (s *Store) TailBytes() int64 { return s.tailBytes.Load() }

// OverBudget says that FlushOldest should be called until it reports false.
func (s *Store) OverBudget() bool { return s.tailBytes.Load() > s.o.TailBytes }

// FlushOldest moves up to about 1 MiB of the longest waiting tails to their
// files, without a sync, small tails last. It does nothing and reports false
// when the tails take up less than half the budget. Flusher only.
func (s *Store) FlushOldest() (bool, error) {
	over := s.tailBytes.Load() - s.o.TailBytes/2
	if over <= 0 {
		return false, s.failed
	}
	s.mu.Lock()
	waiting := s.queue
	s.queue = nil
	s.mu.Unlock()
	if len(waiting) == 0 {
		return false, s.failed
	}
	worth := min(int64(flushWorth), s.tailBytes.Load()/int64(len(waiting)))
	left := min(over, int64(flushUnit))
	var failed error
	kept := waiting[:0]
	did := false
	for _, l := range waiting {
		if size := l.tailSize(); size >= worth && size > 0 && left > 0 && failed == nil {
			n, err := l.flush(^uint64(0), left)
			left -= n
			failed = err
			did = true
		}
		if !l.unqueue() {
			kept = append(kept, l)
		}
	}
	clear(waiting[len(kept):])
	s.mu.Lock()
	s.queue = append(kept, s.queue...)
	s.mu.Unlock()
	if failed != nil {
		return did, fmt.Errorf("flush tail: %w", failed)
	}
	return did, nil
}

func (l *Log) tailSize() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tail.bytes
}

// unqueue takes the log out of the queue if its tail is empty.
func (l *Log) unqueue() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tail.bytes == 0 {
		l.queued = false
	}
	return !l.queued
}

// Sweep removes the folders of logs that nobody knows, and what known logs do
// not know in theirs. Call it when every shard has
// published a checkpoint since its restore: before that, the older checkpoint
// may still name logs that the newest does not. Flusher only.
func (s *Store) Sweep(known func(LogID) bool) error {
	topics, err := readDir(s.fs, s.dir)
	if err != nil {
		return fmt.Errorf("sweep topics: %w", err)
	}
	for _, topic := range topics {
		inc, err := strconv.ParseUint(topic, 10, 64)
		if err != nil {
			continue // not ours
		}
		if err := s.sweepTopic(inc, known); err != nil {
			return fmt.Errorf("sweep topic %d: %w", inc, err)
		}
	}
	return nil
}

func (s *Store) sweepTopic(inc uint64, known func(LogID) bool) error {
	dir := s.dir + "/" + strconv.FormatUint(inc, 10)
	parts, err := readDir(s.fs, dir)
	if err != nil {
		return err
	}
	left := len(parts)
	for _, part := range parts {
		n, err := strconv.ParseInt(part, 10, 32)
		if err != nil {
			continue
		}
		id := LogID{inc, int32(n)}
		s.mu.Lock()
		l := s.logs[id]
		_, grafted := s.grafts[id]
		s.mu.Unlock()
		switch {
		case grafted:
		case l != nil:
			// Not left to the log's next Published: that comes only once the log
			// has changed.
			l.unlisted = !l.removeUnknown()
		case !known(id):
			if err := s.fs.RemoveAll(id.dir(s.dir)); err != nil {
				return err
			}
			s.counts.swept.Add(1)
			left--
		}
	}
	if left == 0 {
		return ignoreMissing(s.fs.Remove(dir))
	}
	return nil
}

var errNoState = errors.New("not a log state")
