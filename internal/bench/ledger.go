package bench

import (
	"sync"
	"sync/atomic"
)

// Verdict is what verification found. All zero is the only good one; Reordered
// is held against a server that promises order only.
type Verdict struct {
	Lost       int64 `json:"lost"`       // acknowledged and never delivered
	Duplicated int64 `json:"duplicated"` // delivered more than once
	Reordered  int64 `json:"reordered"`  // delivered to a consumer after a later one of the same publisher
	Damaged    int64 `json:"damaged"`    // body altered, or not of this run
}

func (v Verdict) add(o Verdict) Verdict {
	return Verdict{v.Lost + o.Lost, v.Duplicated + o.Duplicated, v.Reordered + o.Reordered, v.Damaged + o.Damaged}
}

// ledger books what the consumers of one channel get. Its views are used by
// many goroutines, each its own; verdict is for after they have ended.
type ledger struct {
	first   uint32            // number of the first publisher; the others follow
	counts  []int             // by publisher: messages that must come
	total   int64             // sum of counts, without those in unsure
	anyhow  bool              // order is not promised: deferred messages
	seen    [][]atomic.Uint64 // by publisher: one bit per sequence
	unsure  []map[uint64]bool // by publisher: sequences that were sent, and may have been taken or not; nil: none
	once    sync.Once         // the channel became complete
	unique  atomic.Int64
	twice   atomic.Int64
	late    atomic.Int64
	damaged atomic.Int64
}

// newLedger expects counts[p] messages from publisher p.
func newLedger(counts []int) *ledger {
	l := &ledger{counts: counts, seen: make([][]atomic.Uint64, len(counts))}
	for i, n := range counts {
		l.total += int64(n)
		l.seen[i] = make([]atomic.Uint64, (n+63)/64)
	}
	return l
}

// doubt says which sequences of each publisher were never acknowledged: they
// may come once, or not.
func (l *ledger) doubt(unsure [][]uint64) {
	l.unsure = make([]map[uint64]bool, len(unsure))
	for p, list := range unsure {
		l.unsure[p] = make(map[uint64]bool, len(list))
		for _, n := range list {
			l.unsure[p][n] = true
		}
		l.total -= int64(len(l.unsure[p]))
	}
}

func (l *ledger) complete() bool { return l.unique.Load() >= l.total }

func (l *ledger) verdict() Verdict {
	return Verdict{
		Lost:       l.total - l.unique.Load(),
		Duplicated: l.twice.Load(), Reordered: l.late.Load(), Damaged: l.damaged.Load(),
	}
}

// view is one consumer's side of a ledger.
type view struct {
	l    *ledger
	next []uint64 // by publisher: the lowest sequence that is not overtaken
}

func (l *ledger) view() *view { return &view{l: l, next: make([]uint64, len(l.seen))} }

// take books deliveries, in the order in which they came, and hands the stamp
// of every first one to each (which may be nil).
func (v *view) take(ms []Message, each func(stamp)) {
	var s stamp
	var unique, twice, late, damaged int64
	for i := range ms {
		if s.read(ms[i].Body) != nil {
			damaged++
			continue
		}
		p := int(s.publisher) - int(v.l.first)
		if p < 0 || p >= len(v.next) || s.sequence >= uint64(v.l.counts[p]) {
			damaged++
			continue
		}
		bit := uint64(1) << (s.sequence % 64)
		if v.l.seen[p][s.sequence/64].Or(bit)&bit != 0 {
			twice++
			continue
		}
		if v.l.unsure != nil && v.l.unsure[p][s.sequence] {
			continue // not expected, and in no order with what was sent after it
		}
		unique++
		if s.sequence >= v.next[p] {
			v.next[p] = s.sequence + 1
		} else if !v.l.anyhow {
			late++
		}
		if each != nil {
			each(s)
		}
	}
	v.l.unique.Add(unique)
	if twice|late|damaged != 0 {
		v.l.twice.Add(twice)
		v.l.late.Add(late)
		v.l.damaged.Add(damaged)
	}
}
