package repair

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tidings-io/tidings/internal/broker/partition"
	"github.com/tidings-io/tidings/internal/fault"
	"github.com/tidings-io/tidings/internal/seglog"
)

// Options of a Mender. Zero values mean the default beside the field.
type Options struct {
	Network Network
	// Replica is the shard's replica on this node, nil when it carries none.
	Replica func(shard uint32) Replica
	// Shard is the shard that carries a log; false when that is not known.
	Shard func(id seglog.LogID) (uint32, bool)
	// Peers are the Raft ids of the other replicas of a shard, those to be asked
	// first at the beginning; none when this node is alone.
	Peers func(shard uint32) []uint64
	// MaxBytes is the most that is fetched for one repair; 256 MiB, which is more
	// than a segment.
	MaxBytes int
	Logger   *slog.Logger // default: discards
}

const (
	// maxPlaces bounds the damaged places that are known at a time. Others are met
	// again when they are read again.
	maxPlaces = 4096
	// tryTimeout bounds one attempt to fetch from one replica and to repair.
	tryTimeout = time.Minute
	// retryMin and retryMax are the waits between attempts.
	retryMin = 100 * time.Millisecond
	retryMax = 5 * time.Second
	// restAfter is how long a place is left alone that nobody could make whole.
	restAfter = 10 * time.Minute
	// maxRepairs is how often one place is repaired within restAfter: then the
	// disk loses what is written, and readers go on without it.
	maxRepairs = 5
	// maxWiden is how often a repair is widened because there is other damage in
	// the segment.
	maxWiden = 64
)

// place is where a log is damaged, as readers name it.
type place struct {
	id          seglog.LogID
	first, last int64
}

// damage is what is known of a place.
type damage struct {
	shard   uint32
	pending bool // to be fetched; else it is kept for repairs and lost
	lost    bool // no other replica has it: readers go on without
	repairs int
	tries   int
	at      time.Time // of the next try; not pending: when it is forgotten
}

// Mender puts damaged batches back. All calls but Run may come from any
// goroutine, before Run too.
type Mender struct {
	o    Options
	wake chan struct{}

	mu     sync.Mutex
	places map[place]*damage
	stats  Stats
}

// Stats of a Mender; counts run since New.
type Stats struct {
	Pending  int   // damaged places that are being fetched now
	Lost     int   // that no other replica could give, now known
	Repaired int64 // places made whole
	Bytes    int64 // of batches fetched for them
}

// New returns a Mender that Run starts.
func New(o Options) *Mender {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 256 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Mender{o: o, wake: make(chan struct{}, 1), places: make(map[place]*damage)}
}

// Stats takes a picture.
func (m *Mender) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	for _, d := range m.places {
		if d.pending {
			s.Pending++
		}
		if d.lost {
			s.Lost++
		}
	}
	return s
}

// Mend notes damage that a read has met, and reports whether it will be fetched
// from another replica, so that the reader waits: the Mend of seglog.Options. It
// does not block.
func (m *Mender) Mend(e *seglog.CorruptError) bool {
	shard, ok := m.o.Shard(e.ID)
	if !ok || e.First > e.Last || len(m.o.Peers(shard)) == 0 {
		return false
	}
	p := place{e.ID, e.First, e.Last}
	fetched, fresh := m.note(p, shard, time.Now())
	if fresh {
		m.ring()
		m.o.Logger.Warn("a log is damaged, the batches are fetched from another replica", "shard", shard,
			"log", e.ID.String(), "first", e.First, "last", e.Last, "file", e.File, "byte", e.Pos, "reason", e.Reason)
	}
	return fetched
}

// note enters a place, and says whether it is being fetched, and is so only from
// now on.
func (m *Mender) note(p place, shard uint32, now time.Time) (fetched, fresh bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.places[p]
	switch {
	case d == nil:
		if !m.room(now) {
			return true, false
		}
	case d.pending:
		return true, false
	case now.Before(d.at) && d.lost:
		return false, false
	case !now.Before(d.at):
		d = nil // what was is long ago
	}
	if d == nil {
		d = &damage{}
		m.places[p] = d
	}
	d.shard, d.pending, d.at, d.tries = shard, true, now, 0
	return true, true
}

// room forgets what may be forgotten when too many places are known; mu is held.
func (m *Mender) room(now time.Time) bool {
	if len(m.places) >= maxPlaces {
		for p, d := range m.places {
			if !d.pending && !now.Before(d.at) {
				delete(m.places, p)
			}
		}
	}
	return len(m.places) < maxPlaces
}

func (m *Mender) ring() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run fetches and repairs, one place after the other, until ctx ends, which is
// no error.
func (m *Mender) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		p, d, wait := m.next(time.Now())
		if d == nil {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return nil
			case <-m.wake:
			case <-timer.C:
			}
			continue
		}
		err := m.mend(ctx, d.shard, p)
		if ctx.Err() != nil {
			return nil
		}
		m.settle(p, d, err)
	}
}

// next is the place that has waited longest, or how long to wait for one.
func (m *Mender) next(now time.Time) (place, *damage, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var first place
	var due *damage
	for p, d := range m.places {
		if d.pending && (due == nil || d.at.Before(due.at) || d.at.Equal(due.at) && p.before(first)) {
			first, due = p, d
		}
	}
	if due == nil {
		return place{}, nil, time.Hour
	}
	if wait := due.at.Sub(now); wait > 0 {
		return place{}, nil, wait
	}
	return first, due, 0
}

func (p place) before(o place) bool {
	return cmp.Or(cmp.Compare(p.id.Topic, o.id.Topic), cmp.Compare(p.id.Partition, o.id.Partition), cmp.Compare(p.first, o.first)) < 0
}

var (
	// errLost says that every other replica has lost the batches too.
	errLost = errors.New("all other replicas have lost them too")
	// errWhole says that there is nothing to do any more.
	errWhole = errors.New("the log is whole there")
)

// settle notes what has come of an attempt.
func (m *Mender) settle(p place, d *damage, err error) {
	log := m.o.Logger.With("shard", d.shard, "log", p.id.String(), "first", p.first, "last", p.last)
	tries, repairs := m.noteEnd(p, d, err, time.Now())
	switch {
	case err == nil && repairs >= maxRepairs:
		log.Error("damage that was repaired comes again: look after the disk; what it loses is skipped", "times", repairs)
	case err == nil:
		log.Info("damaged batches were fetched and put back")
	case errors.Is(err, errWhole), errors.Is(err, fault.TopicNotFound):
	case final(err):
		log.Error("damaged batches cannot be fetched, what they held is skipped", "error", err)
	case tries == 1:
		log.Warn("damaged batches could not be fetched yet, and are waited for", "error", err)
	}
}

// final reports whether another attempt would bring nothing else.
func final(err error) bool {
	return errors.Is(err, errLost) || errors.Is(err, seglog.ErrDiverged) || errors.Is(err, errTooMuch)
}

func (m *Mender) noteEnd(p place, d *damage, err error, now time.Time) (tries, repairs int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		d.repairs++
		m.stats.Repaired++
		d.pending, d.lost, d.at = false, d.repairs >= maxRepairs, now.Add(restAfter)
	case errors.Is(err, errWhole), errors.Is(err, fault.TopicNotFound):
		delete(m.places, p)
	case final(err):
		d.pending, d.lost, d.at = false, true, now.Add(restAfter)
	default:
		d.at = now.Add(min(retryMin<<min(d.tries, 10), retryMax))
		d.tries++
	}
	return d.tries, d.repairs
}

// mend asks the other replicas one after the other.
func (m *Mender) mend(ctx context.Context, shard uint32, p place) error {
	replica, peers := m.o.Replica(shard), m.o.Peers(shard)
	if replica == nil || len(peers) == 0 {
		return fmt.Errorf("find shard %d: %w", shard, fault.TopicNotFound)
	}
	if err := damagedAt(ctx, replica, p); err != nil {
		return err
	}
	var errs []error
	lost := 0
	for _, peer := range peers {
		err := m.mendFrom(ctx, replica, peer, request{
			shard: shard, key: partition.Key{Topic: p.id.Topic, Partition: p.id.Partition}, first: p.first, last: p.last,
		})
		switch {
		case err == nil, errors.Is(err, fault.TopicNotFound), errors.Is(err, seglog.ErrDiverged), ctx.Err() != nil:
			return err
		case errors.Is(err, errDamaged):
			lost++
		}
		errs = append(errs, fmt.Errorf("ask %016x: %w", peer, err))
	}
	if lost == len(peers) {
		errs = append(errs, errLost)
	}
	return errors.Join(errs...)
}

// damagedAt reads the place once more: nil when it is damaged. It may have been
// repaired with another one of its segment, or the log may have let go of it.
func damagedAt(ctx context.Context, replica Replica, p place) error {
	log, err := replica.Log(ctx, partition.Key{Topic: p.id.Topic, Partition: p.id.Partition})
	switch {
	case err != nil:
		return err
	case log == nil:
		return fault.TopicNotFound
	}
	_, err = log.Read(p.first, 1)
	if _, damaged := errors.AsType[*seglog.CorruptError](err); damaged {
		return nil
	}
	return cmp.Or(err, errWhole)
}

// mendFrom fetches from one replica and repairs. Other damage in the segment
// widens what is fetched.
func (m *Mender) mendFrom(ctx context.Context, replica Replica, peer uint64, r request) error {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	for range maxWiden {
		whole, batches, err := m.fetch(ctx, peer, r)
		if err != nil {
			return err
		}
		err = replica.Repair(ctx, r.key, whole.first, whole.last, batches)
		other, ok := errors.AsType[*seglog.CorruptError](err)
		if !ok {
			if err == nil {
				m.count(batches)
			}
			return err
		}
		if other.First >= r.first && other.Last <= r.last {
			return err // it should have been repaired
		}
		r.first, r.last = min(r.first, other.First), max(r.last, other.Last)
	}
	return errTooMuch
}

func (m *Mender) count(batches []seglog.Batch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range batches {
		m.stats.Bytes += int64(len(batches[i].Data))
	}
}

// Waiting lists the damaged places that are being fetched, for people.
func (m *Mender) Waiting() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []string
	for p, d := range m.places {
		if d.pending {
			list = append(list, fmt.Sprintf("partition %s: offsets %d to %d", p.id, p.first, p.last))
		}
	}
	slices.Sort(list)
	return list
}
